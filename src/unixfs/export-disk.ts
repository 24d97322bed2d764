/*
 * A walked tree onto a disk (Node only). Nothing is ever written through a symlink: directories in the way are checked,
 * files are written under a temporary name and renamed over what is there, symlinks of the tree are made when all else is
 * done and are never followed (CVE-2020-26279). They are made as they are: a target may point anywhere.
 * Left out: owner, setuid and the like; modes and times of directories.
 */
import { chmod, lstat, mkdir, open, readlink, rename, rm, stat, symlink, utimes } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { type ErrorCode, ProtocolError, StorageError } from '../errors.ts'
import type { CID } from '../ipld/cid.ts'
import { systemCode, temporaryName } from '../store/durable.ts'
import type { WalkEntry } from './walk.ts'

export interface WriteToOptions {
  signal?: AbortSignal | undefined
  /** Replace files and symlinks that are there; default true. A directory is never replaced, but filled. */
  overwrite?: boolean | undefined
  /** Bytes written since the last call. */
  onProgress?: ((bytes: number) => void) | undefined
  /** Called once: the bytes to expect, for a directory as its links claim. */
  onTotal?: ((bytes: number, type: WalkEntry['type']) => void) | undefined
}

export interface Written {
  /** The root's. */
  cid: CID
  /** Bytes of all files. */
  size: number
  files: number
  directories: number
  symlinks: number
}

const kinds: Readonly<Record<string, [ErrorCode, string]>> = {
  ENOSPC: ['disk-full', 'the disk is full, free some space or write elsewhere'],
  EDQUOT: ['disk-full', 'the disk quota is used up, free some space or write elsewhere'],
  EACCES: ['not-permitted', 'no permission to write'],
  EPERM: ['not-permitted', 'no permission to write'],
  EROFS: ['not-permitted', 'the file system is read-only'],
  EEXIST: ['exists', 'something is there already'],
  EISDIR: ['exists', 'a directory is there already'],
  ENOTEMPTY: ['exists', 'a directory is there already'],
  ENOTDIR: ['exists', 'a part of the path is there already and is no directory'],
  ENOENT: ['io', 'the directory to write into does not exist'],
  ENAMETOOLONG: ['io', 'the name is too long for this file system'],
  EILSEQ: ['io', 'the name has characters that this file system refuses'],
}

async function disk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const code = systemCode(error)
    if (code === undefined || !code.startsWith('E')) throw error
    const [kind, message] = kinds[code] ?? ['io', `the file system answered ${code}`]
    throw new StorageError(kind, path, message, { cause: error })
  }
}

async function kindOf(path: string): Promise<'nothing' | 'directory' | 'other'> {
  try {
    return (await lstat(path)).isDirectory() ? 'directory' : 'other'
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 'nothing'
    throw error
  }
}

/** The file system's path of an entry. walk() refuses what no system allows; this, what this system would misread. */
function placeOf(target: string, { path, cid }: WalkEntry): string {
  if (path === '') return target
  const names = path.split('/')
  for (const name of names) {
    const misread =
      name === '' || name === '.' || name === '..' || name.includes('\0') || (sep === '\\' && /[\\:]|[. ]$/.test(name))
    if (misread) throw new ProtocolError('bad-dag', `${cid}: ${JSON.stringify(path)} cannot be written to this disk`)
  }
  return join(target, ...names)
}

async function makeDirectory(path: string, root: boolean): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
    // The target itself is the caller's choice; below it, a symlink could lead anywhere.
    const found = root ? await stat(path) : await lstat(path)
    if (!found.isDirectory()) {
      const what = found.isSymbolicLink() ? `a symlink to ${await readlink(path)}` : 'a file'
      throw new StorageError('exists', path, `${what} is in the way of a directory`)
    }
  }
}

/** Renames `temporary` to `path`; whatever fails, the temporary name is gone. */
async function place(path: string, temporary: string, overwrite: boolean): Promise<void> {
  const found = await kindOf(path)
  if (found === 'directory') throw new StorageError('exists', path, 'a directory is there already')
  if (found === 'other' && !overwrite) throw new StorageError('exists', path, 'a file is there already')
  await rename(temporary, path)
}

async function sweep(temporary: string): Promise<void> {
  // What went wrong before is what the caller must hear.
  await rm(temporary, { force: true }).catch(() => undefined)
}

/** Only what anybody may ask for: no setuid, setgid, sticky; always readable and writable by its owner. */
function modeOf({ mode }: WalkEntry): number | undefined {
  return mode === undefined ? undefined : (mode & 0o777) | 0o600
}

/** unixfs.md §mtime: what is before 1970 is 1970 (Node would take it for now); what is too late the disk cuts off itself. */
function secondsOf({ mtime }: WalkEntry): number | undefined {
  return mtime === undefined ? undefined : Math.max(0, Number(mtime.seconds) + mtime.nanos / 1e9)
}

async function writeFile(path: string, entry: WalkEntry, options: WriteToOptions): Promise<void> {
  const temporary = join(dirname(path), `.rhiza-${temporaryName()}`)
  try {
    const handle = await disk(path, () => open(temporary, 'wx'))
    try {
      for await (const bytes of entry.content({ signal: options.signal })) {
        for (let at = 0; at < bytes.length;)
          at += (await disk(path, () => handle.write(bytes, at, bytes.length - at))).bytesWritten
        options.onProgress?.(bytes.length)
      }
    } finally {
      await handle.close()
    }
    const mode = modeOf(entry)
    if (mode !== undefined) await disk(path, () => chmod(temporary, mode))
    const seconds = secondsOf(entry)
    if (seconds !== undefined) await disk(path, () => utimes(temporary, seconds, seconds))
    await disk(path, () => place(path, temporary, options.overwrite ?? true))
  } catch (error) {
    await sweep(temporary)
    throw error
  }
}

async function writeSymlink(path: string, target: string, overwrite: boolean): Promise<void> {
  const temporary = join(dirname(path), `.rhiza-${temporaryName()}`)
  await disk(path, async () => {
    try {
      await symlink(target, temporary)
      await place(path, temporary, overwrite)
    } catch (error) {
      await sweep(temporary)
      throw error
    }
  })
}

/**
 * Writes what walk() gives: a file root becomes the file `target`, a directory root the directory `target`, whose parent must
 * exist. Rejects with StorageError (`exists`, `disk-full`, `not-permitted`, `io`), ProtocolError `bad-dag` for a name that
 * this system would misread, whatever `entries` rejects with, or signal.reason. Files that were finished stay, no file is
 * ever seen half-written.
 */
export async function writeTo(
  target: string,
  entries: AsyncIterable<WalkEntry>,
  options: WriteToOptions = {},
): Promise<Written> {
  const overwrite = options.overwrite ?? true
  const links: { path: string; target: string }[] = []
  let written: Written | undefined
  for await (const entry of entries) {
    options.signal?.throwIfAborted()
    const path = placeOf(target, entry)
    if (written === undefined) {
      written = { cid: entry.cid, size: 0, files: 0, directories: 0, symlinks: 0 }
      options.onTotal?.(entry.type === 'directory' ? entry.dagSize : entry.size, entry.type)
    }
    if (entry.type === 'directory') {
      await disk(path, () => makeDirectory(path, entry.path === ''))
      written.directories++
    } else if (entry.type === 'file') {
      await writeFile(path, entry, options)
      written.files++
      written.size += entry.size
    } else {
      links.push({ path, target: entry.target ?? '' })
      written.symlinks++
    }
  }
  if (written === undefined) throw new TypeError('nothing to write: the tree has no root')
  for (const link of links) await writeSymlink(link.path, link.target, overwrite)
  return written
}
