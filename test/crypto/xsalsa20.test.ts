import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, toHex } from '../../src/bytes.ts'
import { XSalsa20 } from '../../src/crypto/xsalsa20.ts'
import { specCases } from '../vectors.ts'
import { plainXSalsa20 } from './plain-salsa.ts'

interface Case {
  key: string
  nonce: string
  in: string
  out: string
  sha256Of4MiB?: string
}

const cases = specCases('xsalsa20/stream.json') as Case[]
const bytes = (size: number) => fc.uint8Array({ minLength: size, maxLength: size })

describe('XSalsa20', () => {
  it.each(cases)('gives the published key stream for $nonce', (c) => {
    const [key, nonce, text] = [fromHex(c.key), fromHex(c.nonce), fromHex(c.in)]
    expect(toHex(new XSalsa20(key, nonce).xor([text], text.length))).toBe(c.out)
    expect(toHex(plainXSalsa20(key, nonce, text))).toBe(c.out)
    if (c.sha256Of4MiB === undefined) return
    const stream = new XSalsa20(key, nonce)
    const hash = createHash('sha256')
    // Pieces of all phases: 4,194,304 is 1,021 times 4,108 and a rest.
    for (let left = 4_194_304; left > 0; left -= 4108) {
      const size = Math.min(left, 4108)
      hash.update(stream.xor([new Uint8Array(size)], size))
    }
    expect(hash.digest('hex')).toBe(c.sha256Of4MiB)
  })

  it('is the plain one, however the bytes are cut', () => {
    fc.assert(
      fc.property(
        bytes(32),
        bytes(24),
        fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }),
        (key, nonce, cut) => {
          const stream = new XSalsa20(key, nonce)
          const pieces = cut.map((piece, i) =>
            i % 2 === 0
              ? stream.xor([piece], piece.length)
              : stream.xor([piece.subarray(0, 3), piece.subarray(3)], piece.length),
          )
          expect(toHex(concat(pieces))).toBe(toHex(plainXSalsa20(key, nonce, concat(cut))))
        },
      ),
      { numRuns: 60 },
    )
  })

  it('leaves what it is given as it is', () => {
    const text = new Uint8Array(200).fill(7)
    new XSalsa20(new Uint8Array(32), new Uint8Array(24)).xor([text], 200)
    expect(text).toEqual(new Uint8Array(200).fill(7))
  })

  it.each([2 ** 32 - 1, 2 ** 32, 2 ** 40 + 3])('counts blocks beyond 32 bits: %i', (block) => {
    const [key, nonce] = [new Uint8Array(32).fill(3), new Uint8Array(24).fill(9)]
    const got = new XSalsa20(key, nonce, block).xor([new Uint8Array(200)], 200)
    expect(toHex(got)).toBe(toHex(plainXSalsa20(key, nonce, new Uint8Array(200), BigInt(block))))
  })

  it('refuses keys and nonces of other sizes', () => {
    expect(() => new XSalsa20(new Uint8Array(31), new Uint8Array(24))).toThrow(RangeError)
    expect(() => new XSalsa20(new Uint8Array(32), new Uint8Array(8))).toThrow(RangeError)
  })
})
