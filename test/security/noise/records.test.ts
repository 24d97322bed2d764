import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { byteLength, concat } from '../../../src/bytes.ts'
import type { Crypto } from '../../../src/crypto/crypto.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { nobleCrypto } from '../../../src/crypto/noble.ts'
import { ProtocolError, errorCode } from '../../../src/errors.ts'
import { NoiseRecords, recordBytes } from '../../../src/security/noise/records.ts'
import { CipherState } from '../../../src/security/noise/symmetric.ts'

function records(crypto: Crypto = nativeCrypto): NoiseRecords {
  const aead = crypto.chaCha20Poly1305(new Uint8Array(32).fill(1))
  return new NoiseRecords({ send: new CipherState(aead), receive: new CipherState(aead) })
}

function text(size: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => i * 31 + seed)
}

function sealed(from: NoiseRecords, ...chunks: Uint8Array[]): Uint8Array {
  const out: Uint8Array[] = []
  from.seal(chunks, byteLength(chunks), out)
  return concat(out)
}

function opened(by: NoiseRecords, ...pieces: Uint8Array[]): Uint8Array {
  const out: Uint8Array[] = []
  for (const piece of pieces) by.open(piece, out)
  for (const plaintext of out) expect(plaintext.length).toBeGreaterThan(0)
  return concat(out)
}

/** Cuts `bytes` at the given places. */
function cut(bytes: Uint8Array, places: number[]): Uint8Array[] {
  const at = [0, ...places.map((p) => p % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
  return at.slice(1).map((end, i) => bytes.slice(at[i], end))
}

function failure(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return errorCode(error)
  }
  return undefined
}

const same = (a: Uint8Array, b: Uint8Array): void => expect(Buffer.compare(a, b)).toBe(0)

describe.each([nativeCrypto, nobleCrypto])('NoiseRecords on $name', (crypto) => {
  it('fills records to 65,519 bytes of plaintext', () => {
    const sizes: [number, number[]][] = [
      [0, []],
      [1, [17]],
      [8192, [8208]],
      [8193, [8209]],
      [recordBytes, [65_535]],
      [recordBytes + 1, [65_535, 17]],
      [3 * recordBytes, [65_535, 65_535, 65_535]],
    ]
    for (const [size, want] of sizes) {
      const plaintext = text(size)
      // One chunk, and the same in three.
      for (const chunks of [[plaintext], cut(plaintext, [12, size - 1 > 0 ? size - 1 : 0])]) {
        const bytes = sealed(records(crypto), ...chunks)
        const lengths: number[] = []
        for (let at = 0; at < bytes.length; at += 2 + (lengths.at(-1) ?? 0)) {
          lengths.push((bytes[at] as number) * 256 + (bytes[at + 1] as number))
        }
        expect(lengths).toEqual(want)
        same(opened(records(crypto), bytes), plaintext)
      }
    }
  })

  it('gives the same however plaintext and records are cut', () => {
    const sizes = fc.array(fc.oneof({ weight: 5, arbitrary: fc.nat(300) }, { weight: 1, arbitrary: fc.nat(80_000) }), {
      maxLength: 6,
    })
    fc.assert(
      fc.property(sizes, fc.array(fc.nat()), fc.array(fc.nat()), (writes, places, splits) => {
        const from = records(crypto)
        const plaintexts = writes.map((size, i) => text(size, i))
        const bytes = concat(plaintexts.map((plaintext) => sealed(from, ...cut(plaintext, splits))))
        const to = records(crypto)
        same(opened(to, ...cut(bytes, places)), concat(plaintexts))
        expect(to.midRecord).toBe(false)
      }),
      { numRuns: 60 },
    )
  })

  it('opens a record that comes byte by byte, and knows when it is within one', () => {
    const from = records(crypto)
    const bytes = concat([sealed(from, text(5)), sealed(from, text(40, 1))])
    const to = records(crypto)
    const out: Uint8Array[] = []
    for (const [i, byte] of bytes.entries()) {
      expect(to.midRecord).toBe(i !== 0 && i !== 23)
      to.open(Uint8Array.of(byte), out)
    }
    expect(to.midRecord).toBe(false)
    expect(out).toEqual([text(5), text(40, 1)])
  })

  it('refuses altered, replayed, swapped and foreign records, and stays refused', () => {
    const from = records(crypto)
    const [first, second] = [sealed(from, text(20)), sealed(from, text(2000))]
    const cases: Uint8Array[][] = [
      [first, first],
      [second],
      [first, sealed(records(crypto), text(2000))],
      [first, second.with(100, (second[100] as number) ^ 1)],
      [first, second.with(second.length - 1, (second.at(-1) as number) ^ 128)],
    ]
    for (const pieces of cases) {
      const to = records(crypto)
      const out: Uint8Array[] = []
      expect(failure(() => to.open(concat(pieces), out))).toBe('decrypt-failed')
      // What came before the bad record is good.
      expect(out).toEqual(pieces.length > 1 ? [text(20)] : [])
      expect(failure(() => to.open(first, out))).toBe('decrypt-failed')
    }
  })

  it('refuses a record that is shorter than its tag', () => {
    for (const size of [0, 1, 15]) {
      expect(failure(() => records(crypto).open(Uint8Array.of(0, size, 1, 2, 3), []))).toBe('bad-frame')
    }
  })

  it('accepts empty records and passes nothing on', () => {
    const aead = crypto.chaCha20Poly1305(new Uint8Array(32).fill(1))
    const bytes = new Uint8Array(18)
    bytes[1] = 16
    const send = new CipherState(aead)
    send.seal(new Uint8Array(0), [], 0, bytes, 2)
    const after = sealed(new NoiseRecords({ send, receive: send }), text(3))
    const out: Uint8Array[] = []
    records(crypto).open(concat([bytes, after]), out)
    expect(out).toEqual([text(3)])
  })

  it('throws ProtocolError or nothing on random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        try {
          records(crypto).open(bytes, [])
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })

  it('hands out memory that no later call changes, and does not keep what it was given', () => {
    const from = records(crypto)
    const bytes = concat([sealed(from, text(100)), sealed(from, text(100, 1)), sealed(from, text(3000, 2))])
    const to = records(crypto)
    const out: Uint8Array[] = []
    for (const piece of cut(bytes, [50, 51, 190, 1000])) {
      to.open(piece, out)
      piece.fill(0)
    }
    expect(out).toEqual([text(100), text(100, 1), text(3000, 2)])
  })
})
