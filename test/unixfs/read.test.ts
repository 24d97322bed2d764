import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8 } from '../../src/bytes.ts'
import { errorCode, ProtocolError } from '../../src/errors.ts'
import { CID, cidOf, codec, decodeCid, parseCid } from '../../src/ipld/cid.ts'
import { encodeNode, type PBLink } from '../../src/ipld/dag-pb.ts'
import { type Profile, profiles } from '../../src/unixfs/build.ts'
import { Data, dataType, decodeUnixFS, encodeFile } from '../../src/unixfs/data.ts'
import { addDirectory, addFile, type AddEntry, cat, ls, stat } from '../../src/unixfs/unixfs.ts'
import { Blocks, collect, pattern } from './support.ts'

const modern: Profile = { ...profiles['unixfs-v1-2025'], chunkBytes: 8, width: 4 }
const old: Profile = { ...profiles['unixfs-v0-2015'], chunkBytes: 8, width: 3 }
const file = dataType.file

async function codeOf(work: Promise<unknown> | AsyncIterable<unknown>): Promise<string | undefined> {
  try {
    await (Symbol.asyncIterator in work ? Array.fromAsync(work) : work)
  } catch (error) {
    return errorCode(error)
  }
  return 'no error'
}

function leaf(blocks: Blocks, size: number): { cid: CID; size: number; dagSize: number } {
  const bytes = pattern(size)
  const cid = cidOf(codec.raw, bytes)
  blocks.map.set(cid.toString(), bytes)
  return { cid, size, dagSize: size }
}

describe('cat', () => {
  test('any offset and length gives that slice of the whole, for both profiles', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: 700 }),
        fc.nat({ max: 800 }),
        fc.nat({ max: 800 }),
        fc.boolean(),
        async (n, offset, length, v1) => {
          const blocks = new Blocks()
          const bytes = pattern(n)
          const { cid } = await addFile(blocks, bytes, { profile: v1 ? modern : old })
          const expected = Buffer.from(bytes.subarray(offset, offset + length))
          expect(expected.equals(await collect(cat(blocks, cid, { offset, length })))).toBe(true)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('fetches only what a range needs', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(8 * 64), { profile: modern })
    blocks.asked.length = 0
    await collect(cat(blocks, cid, { offset: 100, length: 2 }))
    expect(blocks.asked).toHaveLength(4)
    blocks.asked.length = 0
    await collect(cat(blocks, cid, { length: 0 }))
    await collect(cat(blocks, cid, { offset: 10_000 }))
    expect(blocks.asked).toHaveLength(2)
  })

  test('reads around a missing block, and names it when it is needed', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(24), { profile: modern })
    const missing = cidOf(codec.raw, pattern(24).subarray(8, 16))
    blocks.map.delete(missing.toString())
    expect(await collect(cat(blocks, cid, { length: 8 }))).toEqual(pattern(24).subarray(0, 8))
    expect(await collect(cat(blocks, cid, { offset: 16 }))).toEqual(pattern(24).subarray(16))
    const got: Uint8Array[] = []
    const whole = (async () => {
      for await (const bytes of cat(blocks, cid)) got.push(bytes)
    })()
    await expect(whole).rejects.toThrow(missing.toString())
    expect(Buffer.concat(got).equals(pattern(8))).toBe(true)
  })

  test('has many blocks under way, but no more than asked', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(8 * 256), { profile: { ...modern, width: 1000 } })
    await collect(cat(blocks, cid))
    expect(blocks.mostUnderWay).toBe(64)
    blocks.mostUnderWay = 0
    await collect(cat(blocks, cid, { concurrency: 3 }))
    expect(blocks.mostUnderWay).toBe(3)
  })

  test('bounds the bytes under way by the sizes the file declares', async () => {
    const blocks = new Blocks()
    const mebibyte = leaf(blocks, 1024 * 1024)
    const cid = blocks.block(encodeFile(Array.from({ length: 64 }, () => mebibyte)))
    const reader = cat(blocks, cid)
    await reader.next()
    await reader.return(undefined)
    expect(blocks.mostUnderWay).toBe(32)
  })

  test('an abandoned reader aborts what is under way, and leaves no rejection behind', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(8 * 100), { profile: { ...modern, width: 1000 } })
    const signals: AbortSignal[] = []
    const source = {
      get(asked: CID, options: { signal?: AbortSignal } = {}) {
        if (options.signal !== undefined) signals.push(options.signal)
        if (signals.length <= 2) return blocks.get(asked)
        return new Promise<Uint8Array>((_, reject) =>
          options.signal?.addEventListener('abort', () => reject(options.signal?.reason as Error)),
        )
      },
    }
    for await (const _ of cat(source, cid)) break
    expect(signals.length).toBeGreaterThan(10)
    expect(signals.slice(1).every((signal) => signal.aborted)).toBe(true)
    await new Promise((resolve) => setImmediate(resolve))
  })

  test('rejects with the reason of its signal', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(100), { profile: modern })
    const abort = new AbortController()
    const reason = new Error('enough')
    const reader = cat(blocks, cid, { signal: abort.signal, concurrency: 1 })
    await reader.next()
    abort.abort(reason)
    await expect(collect(reader)).rejects.toBe(reason)
  })

  test('reads a trickle layout: leaves at several depths, bytes in inner nodes', async () => {
    const blocks = new Blocks()
    const [a, b, c, d] = [leaf(blocks, 3), leaf(blocks, 4), leaf(blocks, 5), leaf(blocks, 6)]
    const wrapped = blocks.node([], { type: dataType.raw, data: pattern(7), filesize: 7 })
    const inner = blocks.node([{ cid: b.cid, name: '' }, { cid: c.cid }, { cid: wrapped }], {
      type: file,
      data: fromUtf8('in'),
      filesize: 18,
      blocksizes: [4, 5, 7],
    })
    const root = blocks.node([{ cid: a.cid }, { cid: inner }, { cid: d.cid }], {
      type: file,
      data: fromUtf8('root'),
      filesize: 31,
      blocksizes: [3, 18, 6],
    })
    const whole = Buffer.concat([
      fromUtf8('root'),
      pattern(3),
      fromUtf8('in'),
      pattern(4),
      pattern(5),
      pattern(7),
      pattern(6),
    ])
    for (let offset = 0; offset <= whole.length; offset++) {
      for (let length = 0; length <= whole.length; length += 3)
        expect(
          whole.subarray(offset, offset + length).equals(await collect(cat(blocks, root, { offset, length }))),
        ).toBe(true)
    }
  })

  test('reads blocks that lie in their CIDs', async () => {
    // unixfs.md §Identity CID Size Limit
    const cid = parseCid(
      'bafkqbaabijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbee',
    )
    expect(Buffer.from(await collect(cat(new Blocks(), cid))).toString()).toBe('B'.repeat(128))
    expect((await stat(new Blocks(), parseCid('bafyaabakaieac'))).type).toBe('directory')
  })

  test('refuses an identity CID of 129 bytes that came in another way', async () => {
    const digest = new Uint8Array(129)
    const long = CID.create(1, codec.raw, { code: 0, size: 129, digest, bytes: Uint8Array.of(0, 0x81, 1, ...digest) })
    expect(await codeOf(cat(new Blocks(), long))).toBe('bad-cid')
  })

  test('says what a directory or a symlink is instead', async () => {
    const blocks = new Blocks()
    const { cid } = await addDirectory(blocks, [{ path: 'a', type: 'symlink', target: 'b' }])
    expect(await codeOf(cat(blocks, cid))).toBe('not-a-file')
    const [link] = await Array.fromAsync(ls(blocks, cid))
    if (link === undefined) throw new Error('the directory has one entry')
    await expect(collect(cat(blocks, link.cid))).rejects.toThrow('symlink to "b"')
  })

  test('refuses a range that is none', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(9))
    for (const offset of [-1, 1.5, Number.NaN])
      await expect(collect(cat(blocks, cid, { offset }))).rejects.toThrow(RangeError)
  })

  test('refuses other codecs', async () => {
    expect(await codeOf(cat({ get: async () => fromHex('a0') }, cidOf(codec.dagCbor, fromHex('a0'))))).toBe(
      'unsupported',
    )
  })
})

function lie(make: (blocks: Blocks, part: PBLink) => CID): () => Promise<void> {
  return async () => {
    const blocks = new Blocks()
    const cid = make(blocks, { cid: leaf(blocks, 10).cid })
    expect(await codeOf(cat(blocks, cid))).toBe('bad-dag')
  }
}

describe('a DAG that lies is bad-dag', () => {
  const one = { type: file, filesize: 10, blocksizes: [10] }

  test('the honest one is read', async () => {
    const blocks = new Blocks()
    expect(await collect(cat(blocks, blocks.node([{ cid: leaf(blocks, 10).cid }], one)))).toEqual(pattern(10))
  })
  test(
    'fewer sizes than links',
    lie((b, part) => b.node([part, part], one)),
  )
  test(
    'more sizes than links',
    lie((b, part) => b.node([part], { ...one, filesize: 20, blocksizes: [10, 10] })),
  )
  test(
    'a file size above its parts',
    lie((b, part) => b.node([part], { ...one, filesize: 11 })),
  )
  test(
    'a file size below its parts',
    lie((b, part) => b.node([part], { ...one, filesize: 9 })),
  )
  test(
    'no file size',
    lie((b, part) => b.node([part], { type: file, blocksizes: [10] })),
  )
  test(
    'a part shorter than said',
    lie((b, part) => b.node([part], { type: file, filesize: 11, blocksizes: [11] })),
  )
  test(
    'a part longer than said',
    lie((b, part) => b.node([part], { type: file, filesize: 9, blocksizes: [9] })),
  )
  test(
    'parts that add up beyond 2^53',
    lie((b, part) =>
      b.node([part, part], {
        type: file,
        filesize: 10,
        blocksizes: [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
      }),
    ),
  )
  test(
    'a part with a name',
    lie((b, part) => b.node([{ ...part, name: 'x' }], one)),
  )
  test(
    'a directory as a part',
    lie((b) => b.node([{ cid: b.node([], { type: dataType.directory }) }], one)),
  )
  test(
    'an unknown type',
    lie((b) => b.node([], { type: 9 })),
  )
  test(
    'metadata, which is reserved',
    lie((b) => b.node([], { type: dataType.metadata })),
  )
  test(
    'data that is no protobuf',
    lie((b) => b.block(encodeNode({ links: [], data: fromHex('ff') }))),
  )
  test(
    'no data at all',
    lie((b) => b.block(encodeNode({ links: [] }))),
  )
  test(
    'a symlink with links',
    lie((b, part) => b.node([part], { type: dataType.symlink, data: fromUtf8('x') })),
  )
  test(
    'nanoseconds of 0',
    lie((b) => b.node([], { type: file, filesize: 0, mtime: { seconds: 1n, nanos: 0 } })),
  )
  test(
    'nanoseconds of a second',
    lie((b) => b.node([], { type: file, filesize: 0, mtime: { seconds: 1n, nanos: 1_000_000_000 } })),
  )

  test('a chain deeper than 64, and not one of 64', async () => {
    const blocks = new Blocks()
    let { cid } = leaf(blocks, 10)
    for (let i = 0; i < 64; i++) cid = blocks.node([{ cid }], one)
    expect(await collect(cat(blocks, cid))).toEqual(pattern(10))
    cid = blocks.node([{ cid }], one)
    expect(await codeOf(cat(blocks, cid))).toBe('bad-dag')
  })

  test('a few blocks of no bytes that link to each other endlessly cost nothing', async () => {
    const blocks = new Blocks()
    let cid = blocks.node([], { type: file, filesize: 0 })
    for (let i = 0; i < 50; i++) {
      const links = Array.from({ length: 1000 }, () => ({ cid }))
      cid = blocks.node(links, { type: file, filesize: 0, blocksizes: links.map(() => 0) })
    }
    expect(await collect(cat(blocks, cid))).toHaveLength(0)
    expect(blocks.asked).toHaveLength(1)
    const byte = parseCid('f0155000161')
    const around = { type: file, filesize: 2, blocksizes: [1, 0, 1] }
    const root = blocks.node([{ cid: byte }, { cid }, { cid: byte }], around)
    expect(await collect(cat(blocks, root))).toEqual(fromUtf8('aa'))
    expect(blocks.asked).toHaveLength(2)
  })

  test('a few wide blocks that would make ten thousands of parts wait', async () => {
    const blocks = new Blocks()
    const byte = parseCid('f0155000161')
    let cid = byte
    let size = 1
    const width = 50_000
    for (let level = 0; level < 3; level++) {
      const links = Array.from({ length: width }, (_, i) => ({ cid: i === 0 ? cid : byte }))
      const blocksizes = links.map((_, i) => (i === 0 ? size : 1))
      size += width - 1
      cid = blocks.node(links, { type: file, filesize: size, blocksizes })
      if (level === 1) expect((await cat(blocks, cid).next()).value).toEqual(fromUtf8('a'))
    }
    await expect(cat(blocks, cid).next()).rejects.toThrow('parts waiting')
  })
})

describe('decodeUnixFS', () => {
  test('throws ProtocolError or nothing on random data', () => {
    const cid = parseCid('bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354')
    const field = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.constantFrom(0, 2, 5), fc.uint8Array({ maxLength: 10 }))
    fc.assert(
      fc.property(fc.array(field, { maxLength: 6 }), (fields) => {
        const data = Uint8Array.from(fields.flatMap(([id, wire, bytes]) => [id * 8 + wire, ...bytes]))
        try {
          decodeUnixFS(cid, encodeNode({ links: [], data }))
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })

  test('refuses more block sizes than a node can have links', () => {
    const cid = parseCid('bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354')
    const data = Data.encode({ type: file, filesize: 0, blocksizes: Array.from({ length: 65_537 }, () => 0) })
    expect(() => decodeUnixFS(cid, encodeNode({ links: [], data }))).toThrow('more than 65536')
  })

  test('reads block sizes packed as well as unpacked, and writes them unpacked', () => {
    const unpacked = Data.encode({ type: file, filesize: 3, blocksizes: [1, 2] })
    expect(unpacked).toEqual(fromHex('0802180320012002'))
    expect(Data.decode(fromHex('0802180322020102')).blocksizes).toEqual([1, 2])
  })

  test('keeps mode and mtime, all bits of them', async () => {
    const blocks = new Blocks()
    const mtime = { seconds: -1n, nanos: 999_999_999 }
    const cid = blocks.node([], { type: file, filesize: 0, mode: 0xfffff1ed, mtime })
    expect(await stat(blocks, cid)).toMatchObject({ mode: 0xfffff1ed, mtime })
    const whole = blocks.node([], { type: file, filesize: 0, mtime: { seconds: 5n } })
    expect((await stat(blocks, whole)).mtime).toEqual({ seconds: 5n, nanos: 0 })
  })
})

describe('stat and ls', () => {
  const entries: AddEntry[] = [
    { path: 'empty', type: 'directory' },
    { path: 'link', type: 'symlink', target: 'a/b' },
    { path: 'big', type: 'file', content: pattern(100) },
    { path: 'small', type: 'file', content: pattern(3) },
  ]

  test('tell type and size of every entry, in the stored order', async () => {
    const blocks = new Blocks()
    const { cid } = await addDirectory(blocks, entries, { profile: modern })
    const listed = await Array.fromAsync(ls(blocks, cid))
    expect(listed.map(({ name, type, size, target }) => [name, type, size, target])).toEqual([
      ['big', 'file', 100, undefined],
      ['empty', 'directory', 0, undefined],
      ['link', 'symlink', 3, 'a/b'],
      ['small', 'file', 3, undefined],
    ])
    expect(await stat(blocks, cid)).toMatchObject({ type: 'directory', size: 0, sharded: false })
  })

  test('look up many entries at once', async () => {
    const blocks = new Blocks()
    const many = Array.from({ length: 100 }, (_, i): AddEntry => ({ path: `${i}`, type: 'file', content: pattern(i) }))
    const { cid } = await addDirectory(blocks, many)
    await Array.fromAsync(ls(blocks, cid))
    expect(blocks.mostUnderWay).toBe(32)
  })

  test('of a name that comes twice show the first', async () => {
    const blocks = new Blocks()
    const links = [3, 4].map((size) => ({ cid: leaf(blocks, size).cid, name: 'x' }))
    const cid = blocks.node(links, { type: dataType.directory })
    expect((await Array.fromAsync(ls(blocks, cid))).map(({ size }) => size)).toEqual([3])
  })

  test('need the root block alone for the size of a file (unixfs.md §File with Missing Blocks)', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(100), { profile: modern })
    blocks.asked.length = 0
    expect(await stat(blocks, cid)).toMatchObject({ size: 100, type: 'file' })
    expect(blocks.asked).toEqual([cid.toString()])
  })

  test('refuse a file', async () => {
    const blocks = new Blocks()
    const { cid } = await addFile(blocks, pattern(9))
    expect(await codeOf(ls(blocks, cid))).toBe('not-a-directory')
  })

  test('refuse a block above 2 MiB from a careless source', async () => {
    const source = { get: async () => new Uint8Array(2 * 1024 * 1024 + 1) }
    expect(await codeOf(stat(source, decodeCid(cidOf(codec.raw, pattern(1)).bytes)))).toBe('oversized')
  })
})
