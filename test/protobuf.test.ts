import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, equals, fromHex, toHex } from '../src/bytes.ts'
import { ProtocolError } from '../src/errors.ts'
import * as pb from '../src/protobuf.ts'

const { bytes, string, bool, int32, uint32, int64, uint64, uint53, fixed32, fixed64 } = pb
const { limited, message, packed, repeated, required } = pb

/** The examples of protobuf.dev/programming-guides/encoding. */
describe('the encoding guide', () => {
  const Test1 = message({ a: [1, int32] })
  const Test2 = message({ b: [2, string] })
  const Test3 = message({ c: [3, Test1] })
  const Test4 = message({ d: [4, string], e: [5, repeated(int32, 10)] })
  const Test5 = message({ f: [6, packed(int32, 10)] })

  it('a varint, a string, a message, repeats and a packed list', () => {
    expect(toHex(Test1.encode({ a: 150 }))).toBe('089601')
    expect(toHex(Test2.encode({ b: 'testing' }))).toBe('120774657374696e67')
    expect(toHex(Test3.encode({ c: { a: 150 } }))).toBe('1a03089601')
    expect(toHex(Test4.encode({ d: 'hello', e: [1, 2, 3] }))).toBe('220568656c6c6f280128022803')
    expect(toHex(Test5.encode({ f: [3, 270, 86942] }))).toBe('3206038e029ea705')
  })

  it('-1 takes ten bytes, -2 the same', () => {
    expect(toHex(Test1.encode({ a: -1 }))).toBe('08ffffffffffffffffff01')
    expect(toHex(Test1.encode({ a: -2 }))).toBe('08feffffffffffffffff01')
    expect(Test1.decode(fromHex('08feffffffffffffffff01')).a).toBe(-2)
  })

  it('packed and unpacked are both read, also mixed, whatever the schema says', () => {
    const list = fromHex('3206038e029ea705')
    expect(Test5.decode(list).f).toEqual([3, 270, 86942])
    expect(Test5.decode(concat([fromHex('3001'), list, fromHex('3002')])).f).toEqual([1, 3, 270, 86942, 2])
    expect(Test5.decode(fromHex('3200')).f).toEqual([])
    expect(message({ f: [6, repeated(int32, 10)] }).decode(list).f).toEqual([3, 270, 86942])
  })

  it('fields out of order, unknown fields of every wire type, and the last value wins', () => {
    const unknown = concat([
      fromHex('50ffffffffffffffffff01'), // 10: varint
      fromHex('590102030405060708'), // 11: 64 bits
      fromHex('6203616263'), // 12: bytes
      fromHex('6d01020304'), // 13: 32 bits
      fromHex('f8ffffff0f01'), // the largest number, 2^29-1
    ])
    expect(Test1.decode(concat([unknown, fromHex('0801'), unknown, fromHex('0802')]))).toEqual({ a: 2 })
  })
})

const Everything = message({
  bytes: [1, bytes],
  string: [2, string],
  bool: [3, bool],
  int32: [4, int32],
  uint32: [5, uint32],
  int64: [6, int64],
  uint64: [7, uint64],
  uint53: [8, uint53],
  fixed32: [9, fixed32],
  fixed64: [10, fixed64],
  inner: [16, message({ list: [1, repeated(bytes, 8)], id: [2000, required(uint32)] })],
  packed: [17, packed(int64, 20)],
  fixed: [18, packed(fixed32, 20)],
  many: [19, repeated(message({ name: [1, limited(string, 20)] }), 8)],
})

/** Any text that has a UTF-8 form. */
const anyText = fc
  .array(
    fc.nat(0x10ffff).map((c) => (c >= 0xd800 && c < 0xe000 ? 0x20ac : c)),
    { maxLength: 40 },
  )
  .map((codes) => String.fromCodePoint(...codes))

const int64s = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n })
const uint64s = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const int32s = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const uint32s = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const someBytes = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ minLength: 2040, maxLength: 2060 }))
const everything = fc.record(
  {
    bytes: someBytes,
    string: anyText,
    bool: fc.boolean(),
    int32: int32s,
    uint32: uint32s,
    int64: int64s,
    uint64: uint64s,
    uint53: fc.maxSafeNat(),
    fixed32: uint32s,
    fixed64: uint64s,
    inner: fc.record({ list: fc.array(someBytes, { maxLength: 8 }), id: uint32s }),
    packed: fc.array(int64s, { maxLength: 20 }),
    fixed: fc.array(uint32s, { maxLength: 20 }),
    many: fc.array(fc.record({ name: fc.string({ maxLength: 20 }) }), { maxLength: 8 }),
  },
  { requiredKeys: [] },
)

describe('round trips', () => {
  it('every type, all values: decode(encode(x)) is x', () => {
    fc.assert(
      fc.property(everything, (value) => {
        const encoded = Everything.encode(value)
        const absent = Object.fromEntries(Object.keys(Everything.decode(new Uint8Array(0))).map((k) => [k, undefined]))
        expect(Everything.decode(encoded)).toEqual({ ...absent, packed: [], fixed: [], many: [], ...value })
        expect(equals(concat(Everything.encodeChunks(value)), encoded)).toBe(true)
      }),
    )
  })

  it('random schemas: field numbers from 1 to 2^29-1 in any order', () => {
    const schema = fc.uniqueArray(fc.tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), uint32s, fc.boolean()), {
      selector: ([id]) => id,
      maxLength: 12,
    })
    fc.assert(
      fc.property(schema, (fields) => {
        const shape = message(
          Object.fromEntries(
            fields.map(([id, , many]) => [`f${id}`, [id, many ? repeated(uint32, 2) : uint32]] as const),
          ),
        )
        const value = Object.fromEntries(fields.map(([id, v, many]) => [`f${id}`, many ? [v, 1] : v]))
        expect(shape.decode(shape.encode(value as never))).toEqual(value)
      }),
    )
  })
})

describe('what peers may send', () => {
  it('random bytes and damaged messages give a message or a ProtocolError', () => {
    const damaged = fc.tuple(everything, fc.nat(), fc.nat(255), fc.nat(3000)).map(([value, at, byte, cut]) => {
      const encoded = Everything.encode(value)
      if (encoded.length > 0) encoded[at % encoded.length] = byte
      return encoded.subarray(0, cut)
    })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), damaged), (input) => {
        try {
          Everything.decode(input)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
      { numRuns: 1000 },
    )
  })

  it.each([
    ['0a', 'cut short'],
    ['0a05616263', '5 bytes, but 3 are left'],
    ['0affffffffffffffffff01', 'above 2^53-1'],
    ['40ffffffffffffffffff01', 'above 2^53-1'],
    ['20ffffffffffffffffffff01', 'longer than ten bytes'],
    ['30ffffffffffffffffffff01', 'longer than ten bytes'],
    ['40ffffffffffffffffffff01', 'longer than ten bytes'],
    ['00', 'field number 0'],
    ['0200', 'field number 0'],
    ['80808080100a', 'field number 536870912'],
    ['0b', 'wire type 3'],
    ['a30600', 'wire type 3 is not supported'],
    ['a60600', 'wire type 6 is not supported'],
    ['0800', 'field bytes has wire type 0, want 2'],
    ['4d0102', 'field of 4 bytes, but 2 are left'],
    ['820100', 'required field id is missing'],
    ['8a010180', 'cut short'],
    ['1201ff', 'not valid UTF-8'],
  ])('%s: %s', (hex, why) => {
    expect(() => Everything.decode(fromHex(hex))).toThrow(ProtocolError)
    expect(() => Everything.decode(fromHex(hex))).toThrow(why)
  })

  it('a number may be written longer than need be, and what overflows 64 bits is cut', () => {
    expect(Everything.decode(fromHex('288100')).uint32).toBe(1)
    expect(Everything.decode(fromHex('18808000')).bool).toBe(false)
    expect(Everything.decode(fromHex('1880808001')).bool).toBe(true)
    expect(Everything.decode(fromHex('38ffffffffffffffffff7f')).uint64).toBe((1n << 64n) - 1n)
    expect(Everything.decode(fromHex('28ffffffffffffffffff01')).uint32).toBe(2 ** 32 - 1)
  })

  it('one value more than allowed, packed or not, is refused before it is read', () => {
    const Few = message({ n: [1, packed(uint32, 2)], b: [2, repeated(bytes, 2)] })
    expect(Few.decode(fromHex('0a020102')).n).toEqual([1, 2])
    for (const hex of ['0a03010203', '080108020803', '0a0201020803', '120012001200']) {
      expect(() => Few.decode(fromHex(hex))).toThrow(ProtocolError)
      expect(() => Few.decode(fromHex(hex))).toThrow('more than 2 values')
    }
  })

  it('a field longer than its limit is refused, exactly there', () => {
    const Short = message({ b: [1, limited(bytes, 3)], s: [2, limited(string, 3)] })
    expect(Short.decode(Short.encode({ b: new Uint8Array(3), s: 'äb' }))).toEqual({ b: new Uint8Array(3), s: 'äb' })
    expect(() => Short.decode(fromHex('0a0400000000'))).toThrow(
      expect.objectContaining({ code: 'oversized', name: 'ProtocolError' }) as Error,
    )
    expect(() => Short.decode(fromHex('120461616161'))).toThrow('at most 3')
    expect(() => Short.encode({ b: new Uint8Array(4) })).toThrow(RangeError)
    expect(() => Short.encode({ s: 'ääb' })).toThrow(RangeError)
  })

  it('an inner message does not read beyond its own end', () => {
    const Outer = message({ inner: [1, message({ n: [1, uint32], b: [2, bytes] })], after: [2, uint32] })
    expect(() => Outer.decode(fromHex('0a02120110'))).toThrow(ProtocolError)
    expect(Outer.decode(fromHex('0a0208011005'))).toEqual({ inner: { n: 1, b: undefined }, after: 5 })
  })
})

describe('what our callers may give', () => {
  it('numbers that do not fit are a RangeError, a required field that is missing a TypeError', () => {
    const bad: Parameters<typeof Everything.encode>[0][] = [
      { uint32: -1 },
      { uint32: 2 ** 32 },
      { uint32: 0.5 },
      { int32: 2 ** 31 },
      { int32: -(2 ** 31) - 1 },
      { uint53: 2 ** 53 },
      { uint53: NaN },
      { fixed32: -1 },
      { uint64: -1n },
      { uint64: 1n << 64n },
      { int64: 1n << 63n },
      { fixed64: -1n },
    ]
    for (const value of bad) expect(() => Everything.encode(value)).toThrow(RangeError)
    expect(() => Everything.encode({ inner: {} as { id: number } })).toThrow(TypeError)
  })

  it('large byte fields are neither copied on the way out nor on the way in', () => {
    const Block = message({ prefix: [1, bytes], data: [2, bytes] })
    const data = new Uint8Array(100_000).fill(5)
    const chunks = Block.encodeChunks({ prefix: new Uint8Array(4), data })
    expect(chunks.includes(data)).toBe(true)
    const encoded = concat(chunks)
    const decoded = Block.decode(encoded)
    expect(decoded.data?.buffer).toBe(encoded.buffer)
    expect(decoded.data !== undefined && equals(decoded.data, data)).toBe(true)
  })
})
