/*
 * Files that are there whole or not at all (Node only): written to a temporary name in the same file system, synced,
 * renamed; then the directory is synced, so that the name survives a power cut as well.
 * Left out: Windows has no way to sync a directory, there the rename is as durable as NTFS makes it.
 */
import { createHash, randomBytes } from 'node:crypto'
import { readlinkSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { StorageError, asError, type ErrorCode } from '../errors.ts'

/** The system's own code of an error (ENOENT, ...), undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error && 'code' in error && typeof error.code === 'string')) return undefined
  return error.code.startsWith('ERR_') ? undefined : error.code
}

const kinds: Record<string, [ErrorCode, string]> = {
  ENOSPC: ['disk-full', 'the disk is full: free some space or choose a repo on another disk'],
  EDQUOT: ['disk-full', 'the disk quota is used up: free some space or choose a repo on another disk'],
  EACCES: ['not-permitted', 'no permission: change its owner or mode, or choose another repo'],
  EPERM: ['not-permitted', 'no permission: change its owner or mode, or choose another repo'],
  EROFS: ['not-permitted', 'the file system is read-only: remount it or choose another repo'],
  ENOTDIR: ['io', 'a directory is wanted and something else is in its place: move that away or choose another repo'],
  EISDIR: ['io', 'a file is wanted and a directory is in its place: move that away or choose another repo'],
  EMFILE: ['io', 'too many open files: raise the limit (ulimit -n)'],
  ENFILE: ['io', 'too many open files in the whole system'],
  EIO: ['io', 'the disk does not work: check the system log'],
}

/** What the file system threw, as a StorageError that names the path and the next step; errors of ours unchanged. */
export function storageError(path: string, cause: unknown): Error {
  const code = systemCode(cause)
  if (code === undefined || !code.startsWith('E')) return asError(cause)
  const [kind, message] = kinds[code] ?? ['io', `the file system answered ${code}`]
  return new StorageError(kind, path, message, { cause })
}

/** What `work` does in the file system, its errors as StorageError about `path`. */
export async function storing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw storageError(path, error)
  }
}

let ownTag: string | undefined

/** Process ids mean something only on this machine and in this pid namespace: a shared disk has several of them. */
function machineTag(): string {
  if (ownTag !== undefined) return ownTag
  let space = ''
  try {
    space = readlinkSync('/proc/self/ns/pid')
  } catch {
    // not Linux: the host name has to do
  }
  ownTag = createHash('sha256').update(`${hostname()} ${space}`).digest('hex').slice(0, 8)
  return ownTag
}

let counter = 0

/** A name that no other process and no other call picks: `<machine>-<pid>-<count>-<random>.tmp`. */
export function temporaryName(): string {
  return `${machineTag()}-${process.pid}-${counter++}-${randomBytes(4).toString('hex')}.tmp`
}

/** Milliseconds after which a temporary file is nobody's any more, whatever machine it came from. */
const orphanMs = 60 * 60 * 1000

const temporaryPattern = /^([0-9a-f]{8})-(\d+)-\d+-[0-9a-f]{8}\.tmp$/

function running(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemCode(error) !== 'ESRCH'
  }
}

/**
 * Removes temporary files that processes left when they were killed: those of a dead process of this machine, and those
 * not touched for an hour. A directory that cannot be read or written is left as it is: reading goes on without it.
 */
export async function sweepTemporary(directory: string, wallTime: number): Promise<number> {
  let swept = 0
  let names: string[]
  try {
    names = await readdir(directory)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM') return 0
    throw storageError(directory, error)
  }
  for (const name of names) {
    const match = temporaryPattern.exec(name)
    if (match === null) continue
    const path = join(directory, name)
    const dead = match[1] === machineTag() && !running(Number(match[2]))
    try {
      if (!dead && wallTime - (await stat(path)).mtimeMs < orphanMs) continue
      await rm(path, { force: true })
      swept++
    } catch (error) {
      if (!['ENOENT', 'EACCES', 'EPERM', 'EROFS'].includes(systemCode(error) ?? '')) throw storageError(path, error)
    }
  }
  return swept
}

/** Makes the names in `directory` durable. */
export async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Makes the directory `path` and those above it, durably; whether there was anything to make. Step by step, since Node's
 * recursive mkdir hides a read-only disk behind ENOENT. Throws the file system's own errors.
 */
export async function makeDirectory(path: string, mode = 0o755): Promise<boolean> {
  let made
  try {
    made = await makeOne(path, mode)
  } catch (error) {
    const parent = dirname(path)
    if (systemCode(error) !== 'ENOENT' || parent === path) throw error
    await makeDirectory(parent, mode)
    // Once: /proc answers ENOENT for ever, however much of it is there.
    made = await makeOne(path, mode)
  }
  if (made) await syncDirectory(dirname(path))
  return made
}

async function makeOne(path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(path, { mode })
    return true
  } catch (error) {
    // On a read-only disk even what exists may answer EROFS. Something else than a directory shows at its first use.
    if (await exists(path)) return false
    throw error
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch {
    return false
  }
}

/** Does `work`, and once more after making the directory of `path` when that is missing. */
async function making<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    await makeDirectory(dirname(path))
    return work()
  }
}

/**
 * Writes `bytes` to `temporary`, syncs, and renames it to `path`, replacing what is there. Missing directories are made.
 * The caller syncs the directory of `path`. Whatever fails, no temporary file stays. Throws the file system's own errors.
 */
export async function placeFile(path: string, temporary: string, bytes: Uint8Array, mode = 0o644): Promise<void> {
  const handle = await making(temporary, () => open(temporary, 'wx', mode))
  try {
    try {
      for (let at = 0; at < bytes.length;) at += (await handle.write(bytes, at)).bytesWritten
      await handle.datasync()
    } finally {
      await handle.close()
    }
    await making(path, () => rename(temporary, path))
  } catch (error) {
    // What went wrong first is what the caller must hear; a file that cannot be removed now is swept at the next open.
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
}

/** One small file, durable when this resolves; its directory exists. Rejects with StorageError. */
export async function writeDurable(path: string, bytes: Uint8Array, mode = 0o644): Promise<void> {
  const directory = dirname(path)
  await storing(path, async () => {
    await placeFile(path, join(directory, temporaryName()), bytes, mode)
    await syncDirectory(directory)
  })
}
