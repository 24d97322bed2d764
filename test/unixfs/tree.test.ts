import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8 } from '../../src/bytes.ts'
import { errorCode, LimitError } from '../../src/errors.ts'
import { type CID, decodeCid, parseCid } from '../../src/ipld/cid.ts'
import type { PBLink } from '../../src/ipld/dag-pb.ts'
import { type Profile, profiles } from '../../src/unixfs/build.ts'
import { dataType, murmur3 } from '../../src/unixfs/data.ts'
import { murmur3x64 } from '../../src/unixfs/murmur3.ts'
import {
  addDirectory,
  type AddEntry,
  cat,
  formatPath,
  ls,
  parsePath,
  resolve,
  stat,
  walk,
} from '../../src/unixfs/unixfs.ts'
import { Blocks, collect, pattern } from './support.ts'

const emptyDirectory = 'bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354'

function file(path: string): AddEntry {
  return { path, type: 'file', content: fromUtf8(path) }
}

async function failure(work: Promise<unknown> | AsyncIterable<unknown>): Promise<Error> {
  try {
    await (Symbol.asyncIterator in work ? Array.fromAsync(work) : work)
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error('it did not fail')
}

async function textAt(blocks: Blocks, cid: CID, path: string): Promise<string> {
  return Buffer.from(await collect(cat(blocks, await resolve(blocks, cid, path.split('/'))))).toString()
}

describe('parsePath', () => {
  test('reads every way to write a path', () => {
    const given = {
      [emptyDirectory]: [],
      [`/ipfs/${emptyDirectory}`]: [],
      [`/ipfs/${emptyDirectory}/`]: [],
      [`ipfs://${emptyDirectory}/a/b`]: ['a', 'b'],
      [`${emptyDirectory}/a//b/./c/`]: ['a', 'b', 'c'],
      [`${emptyDirectory}/a/../b/c/..`]: ['b'],
      [`${emptyDirectory}/a%20b/ą`]: ['a%20b', 'ą'],
    }
    for (const [text, segments] of Object.entries(given)) {
      const path = parsePath(text)
      expect(path.segments).toEqual(segments)
      expect(path.cid.toString()).toBe(emptyDirectory)
    }
    expect(formatPath(parseCid(emptyDirectory), ['a', 'b'])).toBe(`/ipfs/${emptyDirectory}/a/b`)
  })

  test('refuses a path that leaves its root, and one without a CID', () => {
    for (const text of [
      `${emptyDirectory}/..`,
      `${emptyDirectory}/a/../../b`,
      '',
      '/ipfs/',
      '/ipns/example.org',
      'a/b',
    ])
      expect(() => parsePath(text), text).toThrow(TypeError)
  })
})

describe('resolve', () => {
  test('finds what a path names, and says which segment is missing', async () => {
    const blocks = new Blocks()
    const { cid } = await addDirectory(blocks, [file('a/b/c'), file('d'), { path: 'l', type: 'symlink', target: 'a' }])
    expect(await textAt(blocks, cid, 'a/b/c')).toBe('a/b/c')
    expect((await resolve(blocks, cid, [])).toString()).toBe(cid.toString())
    expect((await stat(blocks, await resolve(blocks, cid, ['l']))).target).toBe('a')

    const missing = await failure(resolve(blocks, cid, ['a', 'x', 'c']))
    expect(errorCode(missing)).toBe('not-found')
    expect(missing.message).toBe(`no "x" in /ipfs/${cid}/a`)
    const behindFile = await failure(resolve(blocks, cid, ['d', 'e']))
    expect(errorCode(behindFile)).toBe('not-a-directory')
    expect(behindFile.message).toContain(`/ipfs/${cid}/d is a file`)
    expect((await failure(resolve(blocks, cid, ['l', 'b']))).message).toContain('is a symlink to "a"')
  })

  test('takes the first of two entries with one name', async () => {
    const blocks = new Blocks()
    const [first, second] = [blocks.node([], { type: dataType.directory }), blocks.node([], { type: dataType.file })]
    const cid = blocks.node(
      [
        { cid: first, name: 'x' },
        { cid: second, name: 'x' },
      ],
      { type: dataType.directory },
    )
    expect((await resolve(blocks, cid, ['x'])).toString()).toBe(first.toString())
  })
})

describe('walk', () => {
  test('gives parents before children, and the content of files', async () => {
    const blocks = new Blocks()
    const entries = [file('a/b/c'), file('a/d'), file('e'), { path: 'f', type: 'directory' } as const]
    const { cid } = await addDirectory(blocks, entries)
    const seen: string[] = []
    for await (const entry of walk(blocks, cid)) {
      const content = entry.type === 'file' ? Buffer.from(await collect(entry.content())).toString() : entry.type
      seen.push(`${entry.path}=${content}`)
      if (entry.type === 'directory') expect(() => entry.content()).toThrow(TypeError)
    }
    expect(seen).toEqual(['=directory', 'a=directory', 'a/b=directory', 'a/b/c=a/b/c', 'a/d=a/d', 'e=e', 'f=directory'])
  })

  test('gives a lone file as the root', async () => {
    const blocks = new Blocks()
    const cid = blocks.node([], { type: dataType.file, data: fromUtf8('x'), filesize: 1 })
    const [entry, ...more] = await Array.fromAsync(walk(blocks, cid))
    expect(entry).toMatchObject({ path: '', type: 'file', size: 1 })
    expect(more).toHaveLength(0)
  })

  test('refuses names that no file can have (CVE-2020-26279)', async () => {
    for (const name of ['', '.', '..', '/', '../x', 'a/b', '/etc/passwd', 'a\0b']) {
      const blocks = new Blocks()
      const inner = blocks.node([], { type: dataType.directory })
      const cid = blocks.node([{ cid: inner, name }], { type: dataType.directory })
      const error = await failure(walk(blocks, cid))
      expect(errorCode(error), name).toBe('bad-dag')
      expect(error.message).toContain(JSON.stringify(name))
      // It can still be looked at.
      expect((await Array.fromAsync(ls(blocks, cid)))[0]?.name).toBe(name)
    }
  })

  test('ends a tree that a few blocks make endless', async () => {
    const blocks = new Blocks()
    let cid = blocks.node([], { type: dataType.directory })
    for (let i = 0; i < 30; i++) {
      const links = Array.from({ length: 100 }, (_, n) => ({ cid, name: `${n}` }))
      cid = blocks.node(links, { type: dataType.directory })
    }
    const error = await failure(walk(blocks, cid, { maxEntries: 500 }))
    expect(error).toBeInstanceOf(LimitError)
    expect(error).toMatchObject({ limit: 'maxEntries', max: 500, current: 501 })
  })

  test('ends a tree that is too deep', async () => {
    const blocks = new Blocks()
    let cid = blocks.node([], { type: dataType.directory })
    for (let i = 0; i < 4; i++) cid = blocks.node([{ cid, name: 'x' }], { type: dataType.directory })
    expect(await Array.fromAsync(walk(blocks, cid, { maxDepth: 5 }))).toHaveLength(5)
    expect(await failure(walk(blocks, cid, { maxDepth: 3 }))).toMatchObject({ code: 'limit', limit: 'maxDepth' })
  })

  test('fetches ahead, across directories, within its bound', async () => {
    const blocks = new Blocks()
    const entries = Array.from({ length: 200 }, (_, i) => file(`${i % 3}/${i}`))
    const { cid } = await addDirectory(blocks, entries)
    await Array.fromAsync(walk(blocks, cid))
    expect(blocks.mostUnderWay).toBeGreaterThan(8)
    expect(blocks.mostUnderWay).toBeLessThanOrEqual(18)
  })

  test('an abort ends it, and the content of what it gave', async () => {
    const blocks = new Blocks()
    const profile: Profile = { ...profiles['unixfs-v1-2025'], chunkBytes: 4 }
    const { cid } = await addDirectory(blocks, [file('a-long-name'), file('b')], { profile })
    const abort = new AbortController()
    const reason = new Error('enough')
    const entries = walk(blocks, cid, { signal: abort.signal })
    await entries.next()
    const entry = (await entries.next()).value
    expect(entry).toMatchObject({ path: 'a-long-name', size: 11 })
    abort.abort(reason)
    if (entry === undefined) throw new Error('the directory has two entries')
    await expect(collect(entry.content({ signal: undefined }))).rejects.toBe(reason)
    await expect(entries.next()).rejects.toBe(reason)
  })

  test('names the missing block', async () => {
    const blocks = new Blocks()
    const { cid } = await addDirectory(blocks, [file('a/b')])
    const gone = await resolve(blocks, cid, ['a', 'b'])
    blocks.map.delete(gone.toString())
    const error = await failure(walk(blocks, cid))
    expect(errorCode(error)).toBe('not-found')
    expect(error.message).toContain(gone.toString())
  })
})

function shard(blocks: Blocks, links: PBLink[], more: { fanout?: number; hashType?: number; data?: Uint8Array } = {}) {
  const { fanout = 256, hashType = murmur3, data } = more
  return blocks.node(links, { type: dataType.hamtShard, hashType, fanout, data })
}

describe('sharded directories', () => {
  test('the hash is that of the published shard names (unixfs.md §HAMT, specs erratum 8)', () => {
    const published = { 'hello.txt': 'df19ab11523994d9', '470.txt': '006e88df5847e67c', '742.txt': '00ff87d129ae5428' }
    for (const [name, hash] of Object.entries(published))
      expect(murmur3x64(fromUtf8(name)).toString(16).padStart(16, '0')).toBe(hash)
    // Every length of the tail.
    const tails = Array.from({ length: 17 }, (_, n) => murmur3x64(pattern(n)))
    expect(new Set(tails).size).toBe(17)
    expect(murmur3x64(new Uint8Array(0))).toBe(0n)
  })

  for (const fanout of [8, 16, 32, 256, 1024]) {
    test(`of fanout ${fanout} keep every entry, in one order whatever the order they came in`, async () => {
      const profile: Profile = { ...profiles['unixfs-v1-2025'], shardAboveBytes: 0, fanout }
      const blocks = new Blocks()
      const entries = Array.from({ length: 700 }, (_, i) => file(`${i}.txt`))
      const { cid, dagSize } = await addDirectory(blocks, entries, { profile })
      expect((await addDirectory(blocks, entries.toReversed(), { profile })).cid.toString()).toBe(cid.toString())
      expect(await stat(blocks, cid)).toMatchObject({ sharded: true, dagSize })
      const listed = await Array.fromAsync(ls(blocks, cid), ({ name }) => name)
      expect(listed.toSorted()).toEqual(entries.map(({ path }) => path).toSorted())
      for (const { path } of entries.slice(0, 50)) expect(await textAt(blocks, cid, path)).toBe(path)
      expect(errorCode(await failure(resolve(blocks, cid, ['700.txt'])))).toBe('not-found')
      expect(await Array.fromAsync(walk(blocks, cid))).toHaveLength(701)
    })
  }

  const leafCid = parseCid('bafkqaaa')

  test('refuse a fanout that is none, before anything is made of it (CVE-2023-23625)', async () => {
    const blocks = new Blocks()
    for (const fanout of [0, 1, 4, 7, 9, 255, 2048, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 52])
      expect(errorCode(await failure(ls(blocks, shard(blocks, [], { fanout }))))).toBe('bad-dag')
    expect(await Array.fromAsync(ls(blocks, shard(blocks, [], { fanout: 1024 })))).toEqual([])
    const none = blocks.node([], { type: dataType.hamtShard, hashType: murmur3 })
    expect(errorCode(await failure(ls(blocks, none)))).toBe('bad-dag')
  })

  test('refuse another hash, a bit field that is too long, and bad prefixes', async () => {
    const blocks = new Blocks()
    const wrong = [
      shard(blocks, [], { hashType: 0x23 }),
      shard(blocks, [], { data: new Uint8Array(33) }),
      shard(blocks, [{ cid: leafCid }]),
      shard(blocks, [{ cid: leafCid, name: 'D' }]),
      shard(blocks, [{ cid: leafCid, name: 'dfhello.txt' }]),
      shard(blocks, [{ cid: leafCid, name: 'ZZhello.txt' }]),
      shard(blocks, [{ cid: leafCid, name: 'FFx' }], { fanout: 128 }),
      shard(blocks, [
        { cid: leafCid, name: 'DFhello.txt' },
        { cid: leafCid, name: 'DFhello.txt' },
      ]),
    ]
    for (const cid of wrong) expect(errorCode(await failure(ls(blocks, cid)))).toBe('bad-dag')
    const right = shard(blocks, [{ cid: leafCid, name: 'DFhello.txt' }])
    expect((await Array.fromAsync(ls(blocks, right)))[0]).toMatchObject({ name: 'hello.txt', size: 0 })
  })

  test('refuse an entry in a place where its hash does not lead', async () => {
    const blocks = new Blocks()
    const error = await failure(ls(blocks, shard(blocks, [{ cid: leafCid, name: 'DEhello.txt' }])))
    expect(error.message).toContain('belongs elsewhere')
  })

  test('refuse few shards that pose as an endless directory', async () => {
    const blocks = new Blocks()
    let cid = shard(blocks, [{ cid: leafCid, name: '00x' }])
    for (let level = 0; level < 7; level++) {
      const links = Array.from({ length: 256 }, (_, i) => ({
        cid,
        name: i.toString(16).toUpperCase().padStart(2, '0'),
      }))
      cid = shard(blocks, links)
    }
    expect(errorCode(await failure(ls(blocks, cid)))).toBe('bad-dag')
    expect(blocks.asked.length).toBeLessThan(300)
  })

  test('refuse shards deeper than the hash, empty ones, and others among them', async () => {
    const blocks = new Blocks()
    // hello.txt: df19ab11523994d9, all eight bytes used up
    let cid = shard(blocks, [{ cid: leafCid, name: 'D9hello.txt' }])
    for (const prefix of ['94', '39', '52', '11', 'AB', '19', 'DF']) cid = shard(blocks, [{ cid, name: prefix }])
    expect((await Array.fromAsync(ls(blocks, cid)))[0]?.name).toBe('hello.txt')
    expect((await resolve(blocks, cid, ['hello.txt'])).toString()).toBe(leafCid.toString())
    const deeper = ['D9', '94', '39', '52', '11', 'AB', '19', 'DF'].reduce<CID>(
      (below, name) => shard(blocks, [{ cid: below, name }]),
      shard(blocks, [{ cid: leafCid, name: 'DFhello.txt' }]),
    )
    expect(errorCode(await failure(ls(blocks, deeper)))).toBe('bad-dag')
    expect(errorCode(await failure(resolve(blocks, deeper, ['hello.txt'])))).toBe('bad-dag')

    const others = [
      shard(blocks, []),
      shard(blocks, [{ cid: leafCid, name: '0x' }], { fanout: 16 }),
      blocks.node([], { type: dataType.directory }),
      decodeCid(fromHex('0155000161')),
    ]
    for (const other of others)
      expect(errorCode(await failure(ls(blocks, shard(blocks, [{ cid: other, name: '00' }]))))).toBe('bad-dag')
  })
})
