import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromHex, toHex } from '../src/bytes.ts'
import { ProtocolError } from '../src/errors.ts'
import { decodeVarint, encodeVarint, readVarint, varintLength, writeVarint } from '../src/varint.ts'

/** multiformats/unsigned-varint README at dd184f1. */
const vectors: [number, string][] = [
  [1, '01'],
  [127, '7f'],
  [128, '8001'],
  [255, 'ff01'],
  [300, 'ac02'],
  [16384, '808001'],
]

const numbers = fc.oneof(fc.maxSafeNat(), fc.nat(300), fc.constantFrom(0, Number.MAX_SAFE_INTEGER))

describe('varint', () => {
  it.each(vectors)('%d is %s', (value, hex) => {
    expect(toHex(encodeVarint(value))).toBe(hex)
    expect(decodeVarint(fromHex(hex))).toBe(value)
  })

  it('goes there and back at any offset, in exactly varintLength bytes', () => {
    fc.assert(
      fc.property(numbers, fc.nat(10), (value, offset) => {
        const out = new Uint8Array(30).fill(0xff)
        const end = writeVarint(value, out, offset)
        expect(end - offset).toBe(varintLength(value))
        expect(readVarint(out, offset)).toBe(value)
        expect([...out.subarray(0, offset), ...out.subarray(end)].every((byte) => byte === 0xff)).toBe(true)
      }),
    )
  })

  it('is undefined as long as bytes are missing, and decode says so', () => {
    fc.assert(
      fc.property(numbers, (value) => {
        const bytes = encodeVarint(value)
        for (let n = 0; n < bytes.length; n++) {
          expect(readVarint(bytes.subarray(0, n))).toBe(undefined)
          expect(() => decodeVarint(bytes.subarray(0, n))).toThrow(ProtocolError)
        }
      }),
    )
  })

  it.each([
    ['8100', 'not minimal'],
    ['8000', 'not minimal'],
    ['808080808080808000', 'not minimal'],
    ['80808080808080808001', 'longer than 9 bytes'],
    ['808080808080808080', 'longer than 9 bytes'],
    ['ffffffffffffffff7f', 'above 2^53-1'],
    ['8080808080808010', 'above 2^53-1'],
  ])('refuses %s: %s', (hex, why) => {
    expect(() => readVarint(fromHex(hex))).toThrow(ProtocolError)
    expect(() => readVarint(fromHex(hex))).toThrow(why)
  })

  it('takes 2^53-1 and nothing that is no whole number up to it', () => {
    expect(toHex(encodeVarint(Number.MAX_SAFE_INTEGER))).toBe('ffffffffffffff0f')
    for (const value of [-1, 1.5, 2 ** 53, NaN, Infinity]) expect(() => encodeVarint(value)).toThrow(RangeError)
  })

  it('random bytes give a number whose encoding they begin with, undefined, or a ProtocolError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (bytes) => {
        try {
          const value = readVarint(bytes)
          if (value !== undefined) expect(bytes.subarray(0, varintLength(value))).toEqual(encodeVarint(value))
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})
