import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, equals, fromHex, toHex } from '../src/bytes.ts'
import { der, derBits, DerReader, derUint } from '../src/der.ts'
import { ProtocolError } from '../src/errors.ts'

const read = (hex: string, code: 'bad-key' | 'bad-signature' = 'bad-key'): DerReader =>
  new DerReader(fromHex(hex), code)

describe('DER', () => {
  it('reads what it writes, with lengths of one, two and three bytes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, 1, 127, 128, 129, 255, 256, 257, 65_535),
        fc.constantFrom(0x04, 0x30, 0xa0),
        (size, tag) => {
          const body = new Uint8Array(size).fill(7)
          const reader = new DerReader(concat([der(tag, body), der(5)]), 'bad-key')
          expect(reader.tag).toBe(tag)
          expect(equals(reader.read(tag), body)).toBe(true)
          expect(reader.read(5)).toHaveLength(0)
          reader.end()
          expect(reader.tag).toBeUndefined()
        },
      ),
    )
    expect(() => der(4, new Uint8Array(65_536))).toThrow(RangeError)
  })

  it('writes and reads integers in their one form', () => {
    for (const [bytes, hex] of [
      ['', '020100'],
      ['00', '020100'],
      ['01', '020101'],
      ['7f', '02017f'],
      ['80', '02020080'],
      ['000080', '02020080'],
      ['0100', '02020100'],
    ] as const) {
      expect(toHex(derUint(fromHex(bytes)))).toBe(hex)
      expect(toHex(read(hex).uint())).toBe(bytes.replace(/^(00)+/, '') || '00')
    }
  })

  it.each([
    ['an empty integer', '0200'],
    ['a negative integer', '020180'],
    ['an integer with a zero too many', '02020001'],
    ['another tag', '040101'],
    ['no value', ''],
    ['no length', '02'],
    ['a value cut short', '020201'],
    ['an indefinite length', '0280010000'],
    ['a long length where a short one does', '02810101'],
    ['a length of three bytes', '028300000101'],
    ['a length with a leading zero', `02820080${'01'.repeat(128)}`],
    ['a length cut short', '0281'],
    ['a length of two bytes cut short', '028201'],
  ])('refuses %s where an integer must be', (_what, hex) => {
    expect(() => read(hex).uint()).toThrow(ProtocolError)
    expect(() => read(hex, 'bad-signature').uint()).toThrow(expect.objectContaining({ code: 'bad-signature' }))
  })

  it('takes bit strings of whole bytes only, and nothing behind the last value', () => {
    expect(toHex(new DerReader(derBits(fromHex('aabb')), 'bad-key').bits())).toBe('aabb')
    expect(() => read('030201aa').bits()).toThrow(ProtocolError)
    expect(() => read('0300').bits()).toThrow(ProtocolError)
    const reader = read('05000500')
    reader.read(5)
    expect(() => reader.end()).toThrow(/2 bytes too many/)
  })

  it('reads random bytes or refuses them with a ProtocolError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const reader = new DerReader(bytes, 'bad-key')
        try {
          for (let tag = reader.tag; tag !== undefined; tag = reader.tag) reader.read(tag)
          reader.end()
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})
