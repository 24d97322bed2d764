import { execFileSync, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CID } from 'multiformats/cid'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { StorageError } from '../../src/errors.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { openDiskBlocks } from '../../src/store/disk-blocks.ts'
import type { BlockPair } from '../../src/store/blocks.ts'

const putBlocks = fileURLToPath(new URL('put-blocks.ts', import.meta.url))
const isRoot = process.getuid?.() === 0
const nobody = 65_534
/** More of them in a long run by hand. */
const kills = Number(process.env['RHIZA_KILLS'] ?? 8)
const runsTypeScript = Boolean(process.features.typescript)

function pair(bytes: Uint8Array): BlockPair {
  return { cid: cidOf(0x55, bytes), bytes }
}

function blockOf(byte: number, size = 1000): BlockPair {
  return pair(new Uint8Array(size).fill(byte))
}

let path: string
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'rhiza-disk-'))
})
afterEach(() => rm(path, { recursive: true, force: true }))

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name))
}

async function openHandles(): Promise<number> {
  // Nothing to see where there is no /proc: then the test only runs the code.
  return (await readdir('/proc/self/fd').catch(() => [])).length
}

async function onlyFile(): Promise<string> {
  const files = await filesBelow(path)
  expect(files).toHaveLength(1)
  return files[0] ?? ''
}

/** Runs put-blocks.ts; what it printed and how it ended. */
async function runChild(
  args: string[],
  options: { killAfterMs?: number; uid?: number; directory?: string } = {},
): Promise<{ lines: string[]; signal: string | null }> {
  const child = spawn(process.execPath, [putBlocks, options.directory ?? path, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  })
  let out = ''
  let timer: NodeJS.Timeout | undefined
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
    // Counted from the first sign of life: starting takes much longer than writing.
    if (options.killAfterMs !== undefined) timer ??= setTimeout(() => child.kill('SIGKILL'), options.killAfterMs)
  })
  const signal = await new Promise<string | null>((resolve) => child.once('close', (_code, by) => resolve(by)))
  clearTimeout(timer)
  // The last line may have been cut.
  return { lines: out.split('\n').slice(0, -1), signal }
}

/** A file system of its own, or undefined where mounting is not permitted. */
async function mounted(options: string): Promise<{ directory: string; unmount: () => void } | undefined> {
  const directory = join(path, 'mount')
  await mkdir(directory)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  return { directory, unmount: () => execFileSync('umount', [directory]) }
}

/** Every listed block is whole; gives their CIDs. */
async function wholeBlocks(): Promise<Set<string>> {
  const corrupt: StorageError[] = []
  const store = await openDiskBlocks(path, { onCorrupt: (error) => corrupt.push(error) })
  const whole = new Set<string>()
  for await (const cid of store.list()) if ((await store.get(cid)) !== undefined) whole.add(cid.toString())
  expect(corrupt).toEqual([])
  await store.close()
  return whole
}

describe('blocks on the disk', () => {
  it('lie where a flatfs with shard function next-to-last/1 puts them', async () => {
    const store = await openDiskBlocks(path)
    // The empty dag-pb directory: QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn.
    const bytes = Uint8Array.of(0x0a, 0x02, 0x08, 0x01)
    await store.put(CID.parse('QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn'), bytes)
    expect(await onlyFile()).toBe(join(path, '3', 'CIQFTFEEHEDF6KLBT32BFAGLXEZL4UWFNWM4LFTLMXQBCERZ6CMLX3Y.data'))
    await store.close()
  })

  it('are there after reopening, and foreign files are not taken for blocks', async () => {
    const first = await openDiskBlocks(path)
    const pairs = [1, 2, 3].map((byte) => blockOf(byte))
    await first.putMany(pairs)
    await first.close()
    await mkdir(join(path, 'A'))
    await writeFile(join(path, 'SHARDING'), 'not a shard')
    await writeFile(join(path, 'A', 'NOT-BASE32!.data'), 'x')
    await writeFile(join(path, 'A', 'CIQF.data'), 'x')
    const again = await openDiskBlocks(path)
    for (const { cid, bytes } of pairs) expect(await again.get(cid)).toEqual(bytes)
    expect(await again.stat()).toEqual({ blocks: 3, bytes: 3000 })
    await again.close()
  })

  it('are seen by every store of the directory as soon as they are acknowledged, without reopening', async () => {
    const [one, two] = [await openDiskBlocks(path), await openDiskBlocks(path)]
    const { cid, bytes } = blockOf(1)
    await one.put(cid, bytes)
    expect(await two.has(cid)).toBe(true)
    expect(await two.get(cid)).toEqual(bytes)
    await two.delete(cid)
    expect(await one.has(cid)).toBe(false)
    await Promise.all([one.close(), two.close()])
  })

  it.each([
    ['changed', (bytes: Uint8Array) => bytes.with(500, 9)],
    ['cut short', (bytes: Uint8Array) => bytes.subarray(0, 999)],
    ['empty', () => new Uint8Array(0)],
    ['longer', (bytes: Uint8Array) => Uint8Array.of(...bytes, 0)],
    ['longer than any block', () => new Uint8Array(2 * 1024 * 1024 + 1)],
  ])(
    'that are %s on the disk are told once, count as absent, stay untouched and are replaced by a put',
    async (_, spoil) => {
      const reports: [StorageError, string][] = []
      const store = await openDiskBlocks(path, { onCorrupt: (error, of) => reports.push([error, of.toString()]) })
      const { cid, bytes } = blockOf(1)
      await store.put(cid, bytes)
      const file = await onlyFile()
      const spoiled = spoil(bytes)
      await writeFile(file, spoiled)
      for (let i = 0; i < 3; i++) expect(await store.get(cid)).toBeUndefined()
      expect(await store.has(cid)).toBe(false)
      expect(reports).toHaveLength(1)
      expect(reports[0]?.[0]).toMatchObject({ code: 'corrupt', path: file })
      expect(reports[0]?.[1]).toBe(cid.toString())
      expect(Buffer.compare(await readFile(file), spoiled)).toBe(0)
      await store.put(cid, bytes)
      expect(await store.has(cid)).toBe(true)
      expect(await store.get(cid)).toEqual(bytes)
      expect(await onlyFile()).toBe(file)
      await store.close()
    },
  )

  it('that were repaired by another process are served again', async () => {
    const store = await openDiskBlocks(path)
    const { cid, bytes } = blockOf(1)
    await store.put(cid, bytes)
    await writeFile(await onlyFile(), 'spoiled')
    expect(await store.get(cid)).toBeUndefined()
    const other = await openDiskBlocks(path)
    await other.putMany([{ cid, bytes }])
    expect(await store.has(cid)).toBe(true)
    expect(await store.get(cid)).toEqual(bytes)
    await Promise.all([store.close(), other.close()])
  })

  it('are not written again when they are there', async () => {
    const store = await openDiskBlocks(path)
    const { cid, bytes } = blockOf(1)
    await store.put(cid, bytes)
    const before = await stat(await onlyFile())
    await store.put(cid, bytes)
    await store.putMany([{ cid, bytes }])
    const after = await stat(await onlyFile())
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs])
    await store.close()
  })

  it('are read and written with a bounded number of file handles', async () => {
    const store = await openDiskBlocks(path, { maxWrites: 2, maxReads: 3 })
    const pairs = Array.from({ length: 60 }, (_, i) => blockOf(i, 100 + i))
    const before = await openHandles()
    let most = 0
    let busy = true
    const watching = (async () => {
      while (busy) {
        most = Math.max(most, await openHandles())
        await new Promise((resolve) => setImmediate(resolve))
      }
    })()
    await Promise.all(pairs.map(({ cid, bytes }) => store.put(cid, bytes)))
    await Promise.all(pairs.map(({ cid }) => store.get(cid)))
    busy = false
    await watching
    // 2 writes, 3 reads and what the counting itself opens.
    expect(most - before).toBeLessThanOrEqual(8)
    expect((await store.stat()).blocks).toBe(60)
    await store.close()
  })

  it('are waited for by close', async () => {
    const store = await openDiskBlocks(path)
    const { cid, bytes } = blockOf(1, 2_000_000)
    const put = store.put(cid, bytes)
    await store.close()
    expect(await wholeBlocks()).toEqual(new Set([cid.toString()]))
    await put
  })

  it('refuses options that make no sense', async () => {
    await expect(openDiskBlocks(path, { maxWrites: 0 })).rejects.toBeInstanceOf(RangeError)
    await expect(openDiskBlocks(path, { maxReads: 1.5 })).rejects.toBeInstanceOf(RangeError)
  })
})

describe('temporary files', () => {
  it('of dead processes are swept at open, those of live ones and recent foreign ones stay', async () => {
    const store = await openDiskBlocks(path)
    const { cid, bytes } = blockOf(1)
    await store.put(cid, bytes)
    await store.close()
    const directory = join(path, '.tmp')
    const { temporaryName } = await import('../../src/store/durable.ts')
    const live = temporaryName()
    const gone = execFileSync(process.execPath, ['-p', 'process.pid'], { encoding: 'utf8' }).trim()
    const dead = live.replace(`-${process.pid}-`, `-${gone}-`)
    const foreign = `00000000-${gone}-0-12345678.tmp`
    const ancient = `00000000-${gone}-1-12345678.tmp`
    for (const name of [live, dead, foreign, ancient, 'notes.txt']) await writeFile(join(directory, name), 'part')
    const twoHoursAgo = Date.now() / 1000 - 7200
    await utimes(join(directory, ancient), twoHoursAgo, twoHoursAgo)
    await (await openDiskBlocks(path)).close()
    expect((await readdir(directory)).toSorted()).toEqual([live, foreign, 'notes.txt'].toSorted())
  })
})

describe.runIf(runsTypeScript)('several processes', () => {
  it(
    'leave whole blocks, and all acknowledged ones, when they are killed at any moment',
    { timeout: 20_000 + kills * 5000 },
    async () => {
      const acknowledged = new Set<string>()
      let killed = 0
      for (let run = 0; run < kills; run++) {
        const { lines, signal } = await runChild([String(run), '100000'], { killAfterMs: Math.random() * 60 })
        for (const line of lines) acknowledged.add(line)
        if (signal === 'SIGKILL') killed++
        const whole = await wholeBlocks()
        for (const cid of acknowledged) expect(whole).toContain(cid)
        expect(await readdir(join(path, '.tmp'))).toEqual([])
      }
      expect(killed).toBe(kills)
      expect(acknowledged.size).toBeGreaterThan(0)
    },
  )

  it('put into one directory at once, also the same blocks', { timeout: 30_000 }, async () => {
    const runs = await Promise.all(['1', '1', '2'].map((seed) => runChild([seed, '30'])))
    const whole = await wholeBlocks()
    const all = new Set(runs.flatMap(({ lines }) => lines))
    expect(all.size).toBe(60)
    expect(whole).toEqual(all)
  })

  it('may read a repo they cannot write, and hear that a put is not permitted', async ({ skip }) => {
    const store = await openDiskBlocks(path)
    const { cid, bytes } = blockOf(1)
    await store.put(cid, bytes)
    await store.close()
    if (isRoot) {
      // Root may write everywhere: another user tries, who may not even reach Node or this checkout.
      try {
        const reach = `require('node:fs').readFileSync(${JSON.stringify(putBlocks)})`
        execFileSync(process.execPath, ['--eval', reach], { uid: nobody, gid: nobody, stdio: 'ignore' })
      } catch {
        skip('another user reaches neither Node nor this checkout')
      }
      await chmod(path, 0o755)
      const { lines } = await runChild(['1', '6'], { uid: nobody })
      expect(lines.at(-1)).toMatch(/^not-permitted: .*choose another repo.*rhiza-disk-/)
      return
    }
    await chmod(path, 0o555)
    const readOnly = await openDiskBlocks(path)
    expect(await readOnly.get(cid)).toEqual(bytes)
    const other = blockOf(2)
    await expect(readOnly.put(other.cid, other.bytes)).rejects.toMatchObject({ code: 'not-permitted' })
    await readOnly.close()
    await chmod(path, 0o755)
  })
})

describe('trouble with the file system', () => {
  it('says that the disk is full, leaves no temporary file and works on once there is room', async ({ skip }) => {
    const mount = (await mounted('size=3m')) ?? skip('mounting is not permitted here')
    try {
      const store = await openDiskBlocks(join(mount.directory, 'blocks'))
      const pairs = Array.from({ length: 8 }, (_, i) => blockOf(i, 1_000_000))
      const full = store.putMany(pairs)
      await expect(full).rejects.toBeInstanceOf(StorageError)
      await expect(full).rejects.toMatchObject({ code: 'disk-full', message: /free some space/ })
      await expect(full).rejects.toHaveProperty('path', expect.stringContaining(mount.directory))
      expect(await readdir(join(mount.directory, 'blocks', '.tmp'))).toEqual([])
      const kept: CID[] = []
      for await (const cid of store.list()) kept.push(cid)
      expect(kept.length).toBeGreaterThan(0)
      for (const cid of kept) expect((await store.get(cid))?.length).toBe(1_000_000)
      const extra = blockOf(99, 1_000_000)
      for (const cid of kept) await store.delete(cid)
      await store.put(extra.cid, extra.bytes)
      await store.close()
    } finally {
      mount.unmount()
    }
  })

  it('reads from a read-only disk and says that a put is not permitted', async ({ skip }) => {
    const mount = (await mounted('size=3m')) ?? skip('mounting is not permitted here')
    try {
      const directory = join(mount.directory, 'blocks')
      const first = await openDiskBlocks(directory)
      const { cid, bytes } = blockOf(1)
      await first.put(cid, bytes)
      await first.close()
      // What a killed process left cannot be swept here: no reason to fail.
      await writeFile(join(directory, '.tmp', '00000000-1-1-12345678.tmp'), 'part')
      await utimes(join(directory, '.tmp', '00000000-1-1-12345678.tmp'), 0, 0)
      execFileSync('mount', ['-o', 'remount,ro', mount.directory])
      const store = await openDiskBlocks(directory)
      expect(await store.get(cid)).toEqual(bytes)
      const other = blockOf(2)
      await expect(store.put(other.cid, other.bytes)).rejects.toMatchObject({
        code: 'not-permitted',
        message: /read-only/,
      })
      await expect(store.delete(cid)).rejects.toMatchObject({ code: 'not-permitted' })
      await store.close()
      await expect(openDiskBlocks(join(mount.directory, 'new'))).rejects.toMatchObject({ code: 'not-permitted' })
    } finally {
      mount.unmount()
    }
  })

  it('says what is wrong when a file is in the place of the directory', async () => {
    await writeFile(join(path, 'file'), '')
    await expect(openDiskBlocks(join(path, 'file'))).rejects.toMatchObject({ code: 'io', name: 'StorageError' })
    await expect(openDiskBlocks(join(path, 'file', 'below'))).rejects.toMatchObject({
      code: 'io',
      name: 'StorageError',
    })
  })
})
