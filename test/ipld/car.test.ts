import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { errorCode, ProtocolError, UnavailableError } from '../../src/errors.ts'
import { readCar, writeCar, type CarSource, type ReadCarOptions } from '../../src/ipld/car.ts'
import { cidOf, codec, decodeCid, parseCid, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { encodeVarint } from '../../src/varint.ts'
import { sharedVectors, specCases } from '../vectors.ts'

interface Read {
  version: number
  roots: string[]
  blocks: BlockPair[]
}

async function readAll(source: CarSource, options?: ReadCarOptions): Promise<Read> {
  const { version, roots, blocks } = await readCar(source, options)
  return { version, roots: roots.map(String), blocks: await Array.fromAsync(blocks) }
}

/** The code of the error that reading ends with, and its message. */
async function failure(source: CarSource, options?: ReadCarOptions): Promise<string> {
  try {
    await readAll(source, options)
  } catch (error) {
    return `${errorCode(error) ?? String(error)}: ${(error as Error).message}`
  }
  return 'no error'
}

async function written(roots: readonly CID[], blocks: Iterable<BlockPair>): Promise<Uint8Array> {
  return concat(await Array.fromAsync(writeCar(roots, blocks)))
}

function block(text: string): BlockPair {
  const bytes = fromUtf8(text)
  return { cid: cidOf(codec.raw, bytes), bytes }
}

const section = (...parts: Uint8Array[]): Uint8Array => {
  const all = concat(parts)
  return concat([encodeVarint(all.length), all])
}

const header = (node: unknown): Uint8Array =>
  section(codecs.get(codec.dagCbor)?.encode(node as never) ?? new Uint8Array(0))

const pragma = fromHex('0aa16776657273696f6e02')

/** A CARv2 around `data`, padded, with an index that is none. */
function v2(data: Uint8Array, { offset = 51, size = data.length, index = 0 } = {}): Uint8Array {
  const head = new Uint8Array(40)
  const view = new DataView(head.buffer)
  view.setBigUint64(16, BigInt(offset), true)
  view.setBigUint64(24, BigInt(size), true)
  view.setBigUint64(32, BigInt(index), true)
  return concat([pragma, head, new Uint8Array(Math.max(0, Math.min(offset, 1000) - 51)), data])
}

const [hello, world] = [block('hello'), block('world')]
const small = await written([hello.cid], [hello, world])
const folder = sharedVectors('car') ?? ''

function load(file: string): Uint8Array {
  return new Uint8Array(readFileSync(join(folder, file)))
}

describe.skipIf(!existsSync(folder))('the fixtures of ipld/ipld', () => {
  interface Expected {
    blocks: { cid: { '/': string }; blockLength: number; blockOffset: number; content: unknown }[]
    header: { roots: { '/': string }[]; version: number }
  }

  test.each(['carv1-basic', 'carv2-basic'])('%s is read as its JSON says', async (name) => {
    const file = load(`${name}/${name}.car`)
    const text = readFileSync(join(folder, `${name}/${name}.json`), 'utf8')
    const expected = JSON.parse(text) as Expected
    const { version, roots, blocks } = await readAll([file])
    expect(version).toBe(expected.header.version)
    expect(roots).toEqual(expected.header.roots.map((root) => root['/']))
    expect(blocks.map(({ cid }) => cid.toString())).toEqual(expected.blocks.map(({ cid }) => cid['/']))
    for (const [i, { blockOffset, blockLength, content }] of expected.blocks.entries()) {
      const { cid, bytes } = blocks[i] as BlockPair
      expect(toHex(bytes)).toBe(toHex(file.subarray(blockOffset, blockOffset + blockLength)))
      const json = codecs.byName('dag-json')?.encode(codecs.decode(cid, bytes))
      expect(JSON.parse(Buffer.from(json ?? []).toString())).toEqual(content)
    }
  })

  test.each(['carv1-basic/carv1-basic.car', 'sample-v1.car'])('%s is written again to the same bytes', async (name) => {
    const file = load(name)
    const { roots, blocks } = await readCar([file])
    expect(toHex(concat(await Array.fromAsync(writeCar(roots, blocks))))).toBe(toHex(file))
  })

  test('sample-v1.car has 1049 blocks under blake2b, and sample-wrapped-v2.car the same', async () => {
    const [one, two] = [await readAll([load('sample-v1.car')]), await readAll([load('sample-wrapped-v2.car')])]
    expect(one.blocks).toHaveLength(1049)
    expect(one.blocks.some(({ cid }) => cid.multihash.code === 0xb220)).toBe(true)
    expect(two.version).toBe(2)
    expect(two.blocks.map(({ cid }) => cid.toString())).toEqual(one.blocks.map(({ cid }) => cid.toString()))
  })

  test.each(['carv1-basic', 'carv2-basic'])('%s is the same in two parts, however it is split', async (name) => {
    const file = load(`${name}/${name}.car`)
    const whole = await readAll([file])
    for (let at = 0; at <= file.length; at++) {
      const { roots, blocks } = await readAll([file.subarray(0, at), new Uint8Array(0), file.subarray(at)])
      expect(roots).toEqual(whole.roots)
      expect(blocks.map(({ bytes }) => toHex(bytes))).toEqual(whole.blocks.map(({ bytes }) => toHex(bytes)))
    }
    const single = Array.from(file, (byte) => Uint8Array.of(byte))
    expect((await readAll(single)).blocks).toHaveLength(whole.blocks.length)
  })

  test('carv1-basic.car that is cut is truncated, but for cuts between sections', async () => {
    const file = load('carv1-basic/carv1-basic.car')
    // The ends of the header and the sections, by carv1-basic.json.
    const ends = new Set([100, 192, 325, 366, 496, 537, 619, 660])
    for (let size = 0; size < file.length; size++) {
      const got = await failure([file.subarray(0, size)])
      if (ends.has(size)) expect(got, String(size)).toBe('no error')
      else expect(got, String(size)).toMatch(/^truncated: CAR: it ends after /)
    }
  })

  test('carv2-basic.car that is cut is truncated wherever its data are not whole', async () => {
    const file = load('carv2-basic/carv2-basic.car')
    for (let size = 0; size < 499; size++) {
      expect(await failure([file.subarray(0, size)]), String(size)).toMatch(/^truncated: /)
    }
    for (let size = 499; size <= file.length; size++) expect(await failure([file.subarray(0, size)])).toBe('no error')
  })
})

describe('the samples of go-car', () => {
  const samples = specCases('car/go-car.json') as { name: string; hex: string }[]
  const want: Record<string, string> = {
    'sample-corrupt-pragma.car': 'truncated: CAR: it ends after 16 bytes, in the header',
    'sample-rootless-v42.car': 'bad-car: CAR: version 42, want 1 or 2',
    'badheaderlength.car': 'oversized: CAR: header of 216830324832 bytes, at most 1048576 allowed',
    'badsectionlength.car': 'oversized: CAR: section 1 at byte 18 has 216830324832 bytes, at most 2097320 allowed',
    'sample-unixfs-v2.car': 'no error',
    'sample-rw-bs-v2.car': 'no error',
    'simple-unixfs.car': 'no error',
    'simple-unixfs-missing-blocks.car': 'no error',
    '21a90a70853c333c6b9ddc133bae39a14164874ed8abdee1f6a6795311a0e546': 'oversized: CAR: header of 216830324832 bytes',
    '5857e57e4072c6b0d8684030cc13b5570849c89b3dbf5bc0152abc66c9642f3e': 'bad-car: CAR: the header is no dag-cbor',
    c3c7eedeb4968a5b3131371ba9f5138a38c882a7fa06456595998e740a9f5a14: 'oversized: CAR: header of 3961615188095 bytes',
    c640dd07c02728da32cdaa17e13646f587ea278d888a655f683d6e42f19c0316: 'bad-car: CAR: the header is no dag-cbor',
    e1d7f87ee37f48386642fa9ac8fb6717ecba6e7e591a1ab111514f30e4b3594e: 'bad-car: CAR: the header is no dag-cbor',
    fe93cec1356ad2fe2217292374cd93b65a482fec3a43e6021fe87f5607bd8857: 'bad-block: CAR: section 1 at byte 110: block of',
  }

  test.each(samples)('$name ends as it should', async ({ name, hex }) => {
    const got = await failure([fromHex(hex)])
    expect(got).toContain(want[name.split('/').at(-1) ?? ''] ?? 'an expectation')
  })
})

describe('readCar', () => {
  test('gives the blocks in order, with bytes of their own', async () => {
    const file = small.slice()
    const { roots, blocks } = await readAll([file])
    file.fill(0)
    expect(roots).toEqual([hello.cid.toString()])
    expect(blocks.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['hello', 'world'])
    expect(blocks.map(({ cid }) => cid.toString())).toEqual([hello, world].map(({ cid }) => cid.toString()))
  })

  test('reads CIDv0 and identity CIDs, empty blocks, blocks twice, no blocks', async () => {
    const pb = fromHex('0a020801')
    const pairs = [
      { cid: cidOf(codec.dagPb, pb, 0), bytes: pb },
      { cid: parseCid('bafkqabiaaebagba'), bytes: parseCid('bafkqabiaaebagba').multihash.digest },
      block(''),
      hello,
      hello,
    ]
    const { blocks } = await readAll([await written([], pairs)])
    expect(blocks.map(({ cid }) => cid.toString())).toEqual(pairs.map(({ cid }) => cid.toString()))
    expect((await readAll([await written([hello.cid], [])])).blocks).toEqual([])
  })

  test.each([
    ['no roots', { roots: [], version: 1 }, 0],
    ['null for roots, as go writes none', { roots: null, version: 1 }, 0],
    ['no field for roots', { version: 1 }, 0],
    ['roots that are not in it', { roots: [hello.cid, world.cid], version: 1 }, 2],
  ])('takes a header with %s', async (_what, node, roots) => {
    expect((await readAll([header(node)])).roots).toHaveLength(roots)
  })

  test.each([
    ['a header that is a list', header([])],
    ['a header with another field', header({ roots: [], version: 1, more: 1 })],
    ['a header without a version', header({ roots: [] })],
    ['version 0', header({ roots: [], version: 0 })],
    ['version 3', header({ roots: [], version: 3 })],
    ['a version that is text', header({ roots: [], version: '1' })],
    ['roots that are no CIDs', header({ roots: ['x'], version: 1 })],
    ['roots that are a map', header({ roots: {}, version: 1 })],
    ['a header of length 0', Uint8Array.of(0)],
    ['a header with two items', section(fromHex('a16776657273696f6e0100'))],
    ['a header of dag-json', section(fromUtf8('{"roots":[],"version":1}'))],
    ['a length that is not minimal', fromHex('8a00a16776657273696f6e02')],
    ['a length of ten bytes', fromHex('ffffffffffffffffff01')],
    ['a section without a CID', concat([small, Uint8Array.of(1, 1)])],
    ['a section whose CID ends behind it', concat([small, section(hello.cid.bytes.subarray(0, 20))])],
    ['a section of length 0', concat([small, Uint8Array.of(0)])],
    ['a header of version 2 that is no pragma', concat([header({ roots: [], version: 2 }), new Uint8Array(40)])],
    ['a CARv2 inside a CARv2', v2(v2(small))],
    ['data that overlap the header of CARv2', v2(small, { offset: 50 })],
    ['no data', v2(small, { size: 0 })],
    ['data that end in a section', v2(small, { size: small.length - 1 })],
    ['data that end in the header', v2(small, { size: 10 })],
    ['data that end in a length', v2(concat([small, Uint8Array.of(0x80)]))],
    ['data beyond 2^53', v2(small, { offset: 2 ** 53 })],
  ])('refuses %s', async (_what, bytes) => {
    expect(await failure([bytes])).toMatch(/^bad-car: CAR: /)
  })

  test.each([
    ['data that go on behind the file', v2(small, { size: small.length + 1 })],
    ['data far behind the file', v2(small, { offset: 2 ** 40 })],
  ])('tells %s as truncated', async (_what, bytes) => {
    expect(await failure([bytes])).toMatch(/^truncated: CAR: /)
  })

  test('reads a CARv2 with padding and an index behind', async () => {
    const file = v2(small, { offset: 99, index: 99 + small.length })
    const { version, blocks } = await readAll([concat([file, fromHex('818008ffffffff')])])
    expect(version).toBe(2)
    expect(blocks).toHaveLength(2)
  })

  test('reads no further than the data of a CARv2', async () => {
    let ended = 0
    function* chunks(): Generator<Uint8Array> {
      try {
        yield v2(small)
        throw new Error('read behind the data')
      } finally {
        ended++
      }
    }
    expect((await readAll(chunks())).blocks).toHaveLength(2)
    expect(ended).toBe(1)
  })

  test('names the section that is corrupt, after the sound ones', async () => {
    const file = small.slice()
    file[file.length - 1] = 0
    const { blocks } = await readCar([file])
    const seen: string[] = []
    const reading = (async () => {
      for await (const { bytes } of blocks) seen.push(Buffer.from(bytes).toString())
    })()
    await expect(reading).rejects.toThrow(
      `CAR: section 2 at byte ${small.length - 42}: block of 5 bytes does not hash to ${world.cid}`,
    )
    expect(seen).toEqual(['hello'])
  })

  test('takes blocks as they are where it is told so', async () => {
    const file = small.slice()
    file[file.length - 1] = 0
    expect((await readAll([file], { verify: false })).blocks).toHaveLength(2)
    const md5 = decodeCid(fromHex('0155d501020000'))
    const foreign = await written([], [{ cid: md5, bytes: hello.bytes }])
    expect((await readAll([foreign], { verify: false })).blocks).toHaveLength(1)
    await expect(readAll([foreign])).rejects.toThrow(UnavailableError)
    expect(await failure([foreign])).toMatch(/^unsupported: CAR: section 1 at byte 18: hash function 0xd5/)
  })

  test('ends at a section of length 0 where it is told so', async () => {
    const padded = concat([small, new Uint8Array(100)])
    expect((await readAll([padded], { zeroLengthEnds: true })).blocks).toHaveLength(2)
    expect((await readAll([v2(padded)], { zeroLengthEnds: true })).blocks).toHaveLength(2)
    expect(await failure([padded])).toBe(`bad-car: CAR: section 3 at byte ${small.length} has length 0`)
  })

  test('refuses a header and a block above their limits before their bytes come', async () => {
    const roots = Array.from({ length: 100 }, () => hello.cid)
    const large = await written(roots, [])
    expect((await readAll([large], { maxHeaderBytes: large.length - 2 })).roots).toHaveLength(100)
    expect(await failure([large.subarray(0, 2)], { maxHeaderBytes: large.length - 3 })).toMatch(
      /^oversized: CAR: header of/,
    )
    const most = block('x'.repeat(2 ** 21))
    const over = block('x'.repeat(2 ** 21 + 1))
    expect((await readAll([await written([], [most])])).blocks).toHaveLength(1)
    expect(await failure([await written([], [over])])).toMatch(
      /^oversized: CAR: section 1 at byte 18 has 2097153 bytes/,
    )
    const claimed = concat([small, encodeVarint(2 ** 21 + 169)])
    expect(await failure([claimed])).toMatch(
      /^oversized: CAR: section 3 at byte \d+ has 2097321 bytes, at most 2097320/,
    )
    expect(await failure([small], { maxBlockBytes: 4 })).toMatch(/^oversized: CAR: section 1 at byte 59 has 5 bytes/)
    expect((await readAll([await written([], [over])], { maxBlockBytes: 2 ** 22 })).blocks).toHaveLength(1)
    for (const name of ['maxHeaderBytes', 'maxBlockBytes'])
      await expect(readCar([small], { [name]: 0 })).rejects.toThrow(RangeError)
  })

  test('ends the source when the reader leaves, and when the header is bad', async () => {
    let ended = 0
    async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield bytes
      } finally {
        ended++
      }
    }
    const { blocks } = await readCar(chunks(small))
    for await (const { cid } of blocks) {
      expect(cid.toString()).toBe(hello.cid.toString())
      break
    }
    expect(ended).toBe(1)
    await expect(readCar(chunks(Uint8Array.of(1, 1)))).rejects.toThrow(ProtocolError)
    expect(ended).toBe(2)
  })

  test('ends with the error of the source, as it is', async () => {
    const reason = new Error('the disk')
    function* chunks(): Generator<Uint8Array> {
      yield small.subarray(0, 70)
      throw reason
    }
    await expect(readAll(chunks())).rejects.toBe(reason)
  })

  test('rejects with the reason of its signal, though the source hangs', async () => {
    const controller = new AbortController()
    const source: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => new Promise(() => {}),
      }),
    }
    const reason = new Error('enough')
    const reading = readCar(source, { signal: controller.signal })
    controller.abort(reason)
    await expect(reading).rejects.toBe(reason)
    await expect(readAll([small], { signal: controller.signal })).rejects.toBe(reason)
  })

  test('ends with a typed error or well, whatever byte is changed and wherever it is split', async () => {
    const whole = v2(small)
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(small, whole),
        fc.nat(),
        fc.nat(255),
        fc.nat(),
        async (file, at, byte, split) => {
          const bytes = file.slice()
          bytes[at % bytes.length] = byte
          const cut = split % bytes.length
          expect(await failure([bytes.subarray(0, cut), bytes.subarray(cut)])).toMatch(
            /^(no error$|(bad-car|truncated|oversized|bad-block|unsupported): CAR: )/,
          )
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('ends with a typed error or well on random bytes', async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fc.constantFrom(pragma, small, header({ roots: [], version: 1 }), section(hello.cid.bytes, hello.bytes)),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 6 }), async (pieces) => {
        expect(await failure(pieces)).toMatch(/^(no error$|(bad-car|truncated|oversized|bad-block|unsupported): CAR: )/)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('writeCar', () => {
  test('writes what readCar reads, for any blocks', async () => {
    const pair = fc
      .tuple(fc.uint8Array({ maxLength: 5000 }), fc.constantFrom<number>(codec.raw, codec.dagCbor), fc.boolean())
      .map(([bytes, code, v0]) => ({ cid: v0 ? cidOf(codec.dagPb, bytes, 0) : cidOf(code, bytes), bytes }))
    await fc.assert(
      fc.asyncProperty(fc.array(pair, { maxLength: 8 }), async (pairs) => {
        const cids = pairs.map(({ cid }) => cid)
        const { roots, blocks } = await readAll(writeCar(cids, pairs))
        expect(roots).toEqual(cids.map(String))
        expect(blocks.map(({ cid, bytes }) => [cid.toString(), toHex(bytes)])).toEqual(
          pairs.map(({ cid, bytes }) => [cid.toString(), toHex(bytes)]),
        )
      }),
    )
  })

  test('writes the header of the specification and hands on large blocks uncopied, as they are asked for', async () => {
    let drawn = 0
    const large = block('y'.repeat(5000))
    async function* blocks(): AsyncGenerator<BlockPair> {
      drawn++
      yield large
      drawn++
      yield hello
    }
    const car = writeCar([hello.cid], blocks())
    const first = (await car.next()).value as Uint8Array
    expect(toHex(first)).toBe(`3aa265726f6f747381d82a582500${toHex(hello.cid.bytes)}6776657273696f6e01`)
    expect(drawn).toBe(0)
    await car.next()
    expect((await car.next()).value).toBe(large.bytes)
    expect(drawn).toBe(1)
  })
})
