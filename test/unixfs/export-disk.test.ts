import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { errorCode, StorageError } from '../../src/errors.ts'
import { dataType } from '../../src/unixfs/data.ts'
import { writeTo } from '../../src/unixfs/export-disk.ts'
import { addDirectory, addFile, type AddEntry, walk, type WalkEntry } from '../../src/unixfs/unixfs.ts'
import { Blocks, pattern } from './support.ts'

let directory = ''
let blocks = new Blocks()
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rhiza-export-'))
  blocks = new Blocks()
})
afterEach(() => rm(directory, { recursive: true, force: true }))

function file(path: string): AddEntry {
  return { path, type: 'file', content: fromUtf8(path) }
}

async function add(...entries: AddEntry[]): Promise<AsyncIterable<WalkEntry>> {
  return walk(blocks, (await addDirectory(blocks, entries)).cid)
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
  } catch (error) {
    return errorCode(error)
  }
  return 'no error'
}

/** A tree that no walk() would give. */
async function* forged(...entries: Partial<WalkEntry>[]): AsyncGenerator<WalkEntry> {
  for (const entry of entries) {
    const { cid } = await addFile(blocks, fromUtf8('forged'))
    yield {
      cid,
      type: 'file',
      size: 6,
      dagSize: 6,
      path: '',
      content: async function* () {
        yield fromUtf8('forged')
      },
      ...entry,
    }
  }
}

describe('writeTo', () => {
  test('writes a tree as it was added, and tells what it wrote', async () => {
    const target = join(directory, 'out')
    const entries = await add(
      file('a/b/c'),
      file('d'),
      { path: 'e', type: 'directory' },
      { path: 'l', type: 'symlink', target: 'a/b' },
    )
    let bytes = 0
    let total = 0
    const written = await writeTo(target, entries, { onProgress: (n) => (bytes += n), onTotal: (n) => (total = n) })
    expect(written).toMatchObject({ size: 6, files: 2, directories: 4, symlinks: 1 })
    expect(bytes).toBe(6)
    expect(total).toBeGreaterThan(6)
    const names = (await readdir(target, { recursive: true })).filter((name) => !name.startsWith('l/'))
    expect(names.toSorted()).toEqual(['a', 'a/b', 'a/b/c', 'd', 'e', 'l'])
    expect(await readFile(join(target, 'l/c'), 'utf8')).toBe('a/b/c')
    expect(await readlink(join(target, 'l'))).toBe('a/b')
  })

  test('writes a lone file, over one that is there', async () => {
    const { cid } = await addFile(blocks, pattern(3_000_000))
    const target = join(directory, 'file')
    for (let i = 0; i < 2; i++) {
      expect(await writeTo(target, walk(blocks, cid))).toMatchObject({ files: 1, size: 3_000_000 })
      expect((await readFile(target)).equals(pattern(3_000_000))).toBe(true)
    }
    expect(await codeOf(writeTo(target, walk(blocks, cid), { overwrite: false }))).toBe('exists')
    expect(await readdir(directory)).toEqual(['file'])
  })

  test('fills a directory that is there', async () => {
    await mkdir(join(directory, 'a'))
    await writeFile(join(directory, 'a/old'), 'old')
    await writeTo(directory, await add(file('a/new')))
    expect((await readdir(join(directory, 'a'))).toSorted()).toEqual(['new', 'old'])
  })

  test('leaves no half-written file when a block is missing', async () => {
    const { cid } = await addFile(blocks, pattern(3_000_000))
    await writeFile(join(directory, 'file'), 'before')
    for (const [key, bytes] of blocks.map) if (bytes.length === 3_000_000 % 1_048_576) blocks.map.delete(key)
    expect(await codeOf(writeTo(join(directory, 'file'), walk(blocks, cid)))).toBe('not-found')
    expect(await readdir(directory)).toEqual(['file'])
    expect(await readFile(join(directory, 'file'), 'utf8')).toBe('before')
  })

  test('an abort ends it and leaves no temporary file', async () => {
    const { cid } = await addFile(blocks, pattern(3_000_000))
    const abort = new AbortController()
    const reason = new Error('enough')
    const work = writeTo(join(directory, 'file'), walk(blocks, cid, { signal: abort.signal }), {
      signal: abort.signal,
      onProgress: () => abort.abort(reason),
    })
    await expect(work).rejects.toBe(reason)
    expect(await readdir(directory)).toEqual([])
  })

  test('never writes through a symlink that is there', async () => {
    const outside = await mkdtemp(join(tmpdir(), 'rhiza-outside-'))
    try {
      await writeFile(join(outside, 'victim'), 'untouched')
      await symlink(outside, join(directory, 'a'))
      expect(await codeOf(writeTo(directory, await add(file('a/b'))))).toBe('exists')
      await rm(join(directory, 'a'))
      // A file in place of a symlink replaces the link, not what it points to.
      await symlink(join(outside, 'victim'), join(directory, 'x'))
      await writeTo(directory, await add(file('x')))
      expect((await lstat(join(directory, 'x'))).isFile()).toBe(true)
      expect(await readFile(join(outside, 'victim'), 'utf8')).toBe('untouched')
      expect(await readdir(outside)).toEqual(['victim'])
    } finally {
      await rm(outside, { recursive: true })
    }
  })

  test('never writes through a symlink of the tree itself', async () => {
    const outside = await mkdtemp(join(tmpdir(), 'rhiza-outside-'))
    try {
      const entries = forged({ type: 'directory' }, { path: 'a', type: 'symlink', target: outside }, { path: 'a/b' })
      await expect(writeTo(directory, entries)).rejects.toThrow(StorageError)
      expect(await readdir(outside)).toEqual([])
    } finally {
      await rm(outside, { recursive: true })
    }
  })

  test('refuses names that would leave the target, whoever made the tree', async () => {
    for (const path of ['../x', 'a/../../x', '/x', 'a//b', './x', 'x\0']) {
      const entries = forged({ type: 'directory' }, { path })
      expect(await codeOf(writeTo(join(directory, 'out'), entries)), path).toBe('bad-dag')
    }
    expect(await readdir(directory)).toEqual(['out'])
    const cid = blocks.node([{ cid: (await addFile(blocks, pattern(1))).cid, name: '..' }], {
      type: dataType.directory,
    })
    expect(await codeOf(writeTo(join(directory, 'out'), walk(blocks, cid)))).toBe('bad-dag')
  })

  test('says what is in the way', async () => {
    await writeFile(join(directory, 'a'), '')
    expect(await codeOf(writeTo(directory, await add(file('a/b'))))).toBe('exists')
    await mkdir(join(directory, 'd'))
    expect(await codeOf(writeTo(directory, await add(file('d'))))).toBe('exists')
    expect(await codeOf(writeTo(directory, await add({ path: 'd', type: 'symlink', target: 'a' })))).toBe('exists')
    expect(await codeOf(writeTo(join(directory, 'no/such'), await add(file('x'))))).toBe('io')
    expect(await codeOf(writeTo(directory, await add(file('n'.repeat(300)))))).toBe('io')
    expect((await readdir(directory)).toSorted()).toEqual(['a', 'd'])
  })

  test.skipIf(process.getuid?.() === 0)('says when it has no permission', async () => {
    await chmod(directory, 0o500)
    expect(await codeOf(writeTo(join(directory, 'x'), await add(file('x'))))).toBe('not-permitted')
    await chmod(directory, 0o700)
  })

  test('applies mode and time of files, but never setuid', async () => {
    const mtime = { seconds: 1_000_000_000n }
    const cid = blocks.node([], { type: dataType.file, data: fromUtf8('x'), filesize: 1, mode: 0o106755, mtime })
    await writeTo(join(directory, 'x'), walk(blocks, cid))
    const found = await stat(join(directory, 'x'))
    expect(found.mode & 0o7777).toBe(0o755)
    expect(found.mtimeMs).toBe(1_000_000_000_000)
  })

  test('a time before 1970 is taken for 1970, one beyond the disk for its last', async () => {
    for (const [seconds, after] of [
      [-5n, 0],
      [-(2n ** 63n), 0],
      [2n ** 62n, 2 ** 31],
    ] as const) {
      const cid = blocks.node([], { type: dataType.file, data: fromUtf8('x'), filesize: 1, mtime: { seconds } })
      const target = join(directory, `at${seconds}`)
      await writeTo(target, walk(blocks, cid))
      const { mtimeMs } = await stat(target)
      if (after === 0) expect(mtimeMs).toBe(0)
      else expect(mtimeMs).toBeGreaterThan(after * 1000)
    }
  })

  test('refuses a tree without a root', async () => {
    await expect(writeTo(directory, forged())).rejects.toThrow(TypeError)
  })
})
