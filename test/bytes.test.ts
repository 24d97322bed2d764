import fc from 'fast-check'
import { expect, it } from 'vitest'
import { allocUnsafe, byteLength, compare, concat, equals, fromHex, fromUtf8, toHex, toUtf8 } from '../src/bytes.ts'
import { ProtocolError } from '../src/errors.ts'

/** Any text that has a UTF-8 form. */
const anyText = fc
  .array(
    fc.nat(0x10ffff).map((c) => (c >= 0xd800 && c < 0xe000 ? 0x20ac : c)),
    { maxLength: 40 },
  )
  .map((codes) => String.fromCodePoint(...codes))

const anyBytes = fc.uint8Array({ maxLength: 300 })

it('hex goes there and back, as Buffer writes it', () => {
  fc.assert(
    fc.property(anyBytes, (bytes) => {
      const text = toHex(bytes)
      expect(text).toBe(Buffer.from(bytes).toString('hex'))
      expect(fromHex(text)).toEqual(bytes)
      expect(fromHex(text.toUpperCase())).toEqual(bytes)
    }),
  )
  for (const text of ['a', '0g', '0x', ' 1', '+1', '1 ']) expect(() => fromHex(text)).toThrow(TypeError)
})

it('UTF-8 goes there and back, as the platform does it', () => {
  fc.assert(
    fc.property(fc.oneof(anyText, fc.string({ maxLength: 30 })), (text) => {
      expect(toUtf8(fromUtf8(text))).toBe(text)
    }),
  )
  expect(toUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61))).toBe('\uFEFFa')
})

it('bytes that are no UTF-8 are a ProtocolError, however short or long', () => {
  const bad = [[0xff], [0xc0, 0x80], [0x61, 0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0x80]]
  for (const bytes of bad) {
    for (const before of [0, 10, 30]) {
      const all = Uint8Array.from([...Array.from({ length: before }, () => 0x61), ...bytes])
      expect(() => toUtf8(all)).toThrow(ProtocolError)
    }
  }
  fc.assert(
    fc.property(anyBytes, (bytes) => {
      const expected = Buffer.from(Buffer.from(bytes).toString('utf8'), 'utf8').equals(bytes)
      if (expected) expect(fromUtf8(toUtf8(bytes))).toEqual(bytes)
      else expect(() => toUtf8(bytes)).toThrow(ProtocolError)
    }),
  )
})

it('compare is the order of Buffer.compare, equals its zero', () => {
  fc.assert(
    fc.property(anyBytes, anyBytes, (a, b) => {
      expect(compare(a, b)).toBe(Buffer.compare(a, b))
      expect(equals(a, b)).toBe(Buffer.compare(a, b) === 0)
      expect(equals(a, a.slice())).toBe(true)
      expect(compare(a, concat([a, Uint8Array.of(0)]))).toBe(-1)
    }),
  )
})

it('concat joins in order into a new array, but gives a single chunk back as it is', () => {
  fc.assert(
    fc.property(fc.array(anyBytes, { maxLength: 6 }), (chunks) => {
      const all = concat(chunks)
      expect(all).toEqual(Uint8Array.from(chunks.flatMap((chunk) => [...chunk])))
      expect(byteLength(chunks)).toBe(all.length)
      if (chunks.length === 1) expect(all).toBe(chunks[0])
      else expect(chunks.some((chunk) => chunk.length > 0 && chunk.buffer === all.buffer)).toBe(false)
    }),
  )
})

it('allocUnsafe gives memory of its own', () => {
  for (const size of [0, 1, 4095, 4096, 100_000]) {
    const bytes = allocUnsafe(size)
    expect(bytes.constructor).toBe(Uint8Array)
    expect([bytes.length, bytes.byteOffset, bytes.buffer.byteLength]).toEqual([size, 0, size])
  }
})
