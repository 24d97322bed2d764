import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { base32 } from 'multiformats/bases/base32'
import { base36 } from 'multiformats/bases/base36'
import { base58btc } from 'multiformats/bases/base58'
import { base64, base64url } from 'multiformats/bases/base64'
import { describe, expect, it } from 'vitest'
import { fromUtf8, toUtf8 } from '../src/bytes.ts'
import { decodeBase, decodeMultibase, encodeBase, encodeMultibase } from '../src/multibase.ts'
import type { Base } from '../src/multibase.ts'
import { sharedVectors } from './vectors.ts'

const bases: readonly Base[] = ['base16', 'base32', 'base36', 'base58btc', 'base64', 'base64url']

/** A row of a CSV of multiformats/multibase: `name, "text"`. */
function row(line: string): [name: string, text: string] {
  const [, name = '', quoted = ''] = /^([^,]+),\s*"(.*)"$/.exec(line.trim()) ?? []
  return [name, quoted.replaceAll('\\x00', '\0')]
}

describe('multibase', () => {
  it.for(['basic.csv', 'leading_zero.csv', 'two_leading_zeros.csv', 'case_insensitivity.csv'])(
    'agrees with %s',
    (file, context) => {
      const path = sharedVectors(`multibase/${file}`) ?? context.skip('the shared vectors are not here')
      // the head holds the plain text
      const [[, plain] = ['', ''], ...texts] = readFileSync(path, 'utf8').trim().split('\n').map(row)
      let found = 0
      for (const [name, text] of texts) {
        const base = bases.find((known) => name === known || name === `${known}upper`)
        if (base === undefined) continue
        found++
        expect([name, toUtf8(decodeMultibase(text, 100).bytes)]).toEqual([name, plain])
        if (file !== 'case_insensitivity.csv' && name === base)
          expect(encodeMultibase(base, fromUtf8(plain))).toBe(text)
      }
      expect(found).toBeGreaterThanOrEqual(6)
    },
  )

  it('gives the same bytes back, with and without prefix', () => {
    fc.assert(
      fc.property(fc.constantFrom(...bases), fc.uint8Array({ maxLength: 50 }), (base, bytes) => {
        expect(decodeMultibase(encodeMultibase(base, bytes), 200)).toEqual({ base, bytes })
        expect(decodeBase(base, encodeBase(base, bytes), 200)).toEqual(bytes)
      }),
    )
  })

  it.each([base32, base36, base58btc, base64, base64url])('writes and reads $name as multiformats does', (twin) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(3), (bytes, zeros) => {
        bytes.fill(0, 0, zeros)
        const name = twin.name as Base
        expect(encodeMultibase(name, bytes)).toBe(twin.encode(bytes))
        expect(decodeMultibase(twin.encode(bytes), 500)).toEqual({ base: name, bytes })
      }),
    )
  })

  it('refuses unknown bases, foreign characters, padding and what is too long', () => {
    expect(() => decodeMultibase('', 100)).toThrow(/"" is not a known multibase prefix/)
    expect(() => decodeMultibase('1abc', 100)).toThrow(TypeError)
    expect(() => decodeMultibase('f0', 100)).toThrow(/"0" is not base16 text/)
    expect(() => decodeMultibase('z0', 100)).toThrow(TypeError)
    expect(() => decodeMultibase('baa======', 100)).toThrow(TypeError)
    expect(() => decodeMultibase('ba', 100)).toThrow(TypeError)
    expect(decodeMultibase(`f${'00'.repeat(50)}`, 100).bytes).toHaveLength(50)
    expect(() => decodeMultibase(`f${'00'.repeat(51)}`, 100)).toThrow(/at most 100/)
  })

  it('has one text for each value', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...bases),
        fc.string({ unit: fc.constantFrom(...Array.from('abcdefz0123')) }),
        (base, text) => {
          let bytes
          try {
            bytes = decodeBase(base, text, 100)
          } catch (error) {
            expect(error).toBeInstanceOf(TypeError)
            return
          }
          expect(encodeBase(base, bytes)).toBe(text)
        },
      ),
    )
  })
})
