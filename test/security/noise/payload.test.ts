import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../../src/bytes.ts'
import { ProtocolError, errorCode } from '../../../src/errors.ts'
import { decodePublicKey } from '../../../src/peer/keys.ts'
import {
  certhashBytes,
  certhashes,
  decodePayload,
  encodePayload,
  identityKeyBytes,
  identitySigBytes,
  pickMuxer,
  signedText,
  streamMuxerBytes,
  streamMuxers,
  type Payload,
} from '../../../src/security/noise/payload.ts'
import { specCases } from '../../vectors.ts'

const payload = (init: Partial<Payload> = {}): Payload => ({
  identityKey: fromUtf8('key'),
  identitySig: fromUtf8('signature'),
  streamMuxers: ['/yamux/1.0.0'],
  webtransportCerthashes: [],
  ...init,
})

/** Bytes by hand: our own encoder refuses what a peer might send. */
const field = (tag: string, value: Uint8Array): Uint8Array =>
  concat([fromHex(tag), Uint8Array.of((value.length & 127) | 128, value.length >> 7), value])

const build = (fields: Uint8Array[], extensions: Uint8Array[] = []): Uint8Array =>
  concat([...fields, ...(extensions.length > 0 ? [field('22', concat(extensions))] : [])])
const key = (n: number): Uint8Array => field('0a', new Uint8Array(n))
const sig = (n: number): Uint8Array => field('12', new Uint8Array(n))
const muxers = (count: number, size: number): Uint8Array[] =>
  Array.from({ length: count }, () => field('12', new Uint8Array(size).fill(97)))
const hashes = (count: number, size: number): Uint8Array[] =>
  Array.from({ length: count }, () => field('0a', new Uint8Array(size)))

function failure(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return errorCode(error)
  }
  return undefined
}

interface Real {
  name: string
  peerId: string
  staticKey: string
  hex: string
  identityKey: string
  identitySig: string
  extensions: { webtransportCerthashes: string[]; streamMuxers: string[] } | null
}

describe('NoiseHandshakePayload', () => {
  it.each(specCases('noise-payload/real.json') as Real[])(
    'reads and writes the bytes of $name, and the signature in them verifies',
    async (real) => {
      const decoded = decodePayload(fromHex(real.hex))
      expect(toHex(decoded.identityKey)).toBe(real.identityKey)
      expect(toHex(decoded.identitySig)).toBe(real.identitySig)
      expect(decoded.streamMuxers).toEqual(real.extensions?.streamMuxers ?? [])
      expect(decoded.webtransportCerthashes.map(toHex)).toEqual(real.extensions?.webtransportCerthashes ?? [])
      expect(toHex(encodePayload(decoded))).toBe(real.hex)
      const key = decodePublicKey(decoded.identityKey)
      expect(key.peerId.toString()).toBe(real.peerId)
      expect(await key.verify(signedText(fromHex(real.staticKey)), decoded.identitySig)).toBe(true)
      expect(await key.verify(signedText(new Uint8Array(32)), decoded.identitySig)).toBe(false)
    },
  )

  it('is refused without identity key or signature', () => {
    expect(failure(() => decodePayload(encodePayload({ identitySig: fromUtf8('x') })))).toBe('bad-handshake')
    expect(failure(() => decodePayload(encodePayload({ identityKey: fromUtf8('x') })))).toBe('bad-handshake')
    expect(failure(() => decodePayload(new Uint8Array(0)))).toBe('bad-handshake')
  })

  it('skips early data and unknown fields', () => {
    const legacy = concat([encodePayload(payload()), fromHex('1a03010203'), fromHex('a23e0161')])
    expect(decodePayload(legacy)).toEqual(payload())
  })

  it('takes each list and field up to its limit and refuses one more', () => {
    const good = [key(1), sig(1)]
    const table: [(excess: 0 | 1) => Uint8Array][] = [
      [(excess) => build([key(identityKeyBytes + excess), sig(1)])],
      [(excess) => build([key(1), sig(identitySigBytes + excess)])],
      [(excess) => build(good, muxers(streamMuxers + excess, 12))],
      [(excess) => build(good, muxers(1, streamMuxerBytes + excess))],
      [(excess) => build(good, hashes(certhashes + excess, 34))],
      [(excess) => build(good, hashes(1, certhashBytes + excess))],
    ]
    for (const [make] of table) {
      expect(failure(() => decodePayload(make(0)))).toBeUndefined()
      expect(failure(() => decodePayload(make(1)))).toBe('oversized')
    }
  })

  it('throws ProtocolError or nothing on random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodePayload(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})

it("picks the first of the initiator's muxers that the responder has", () => {
  expect(pickMuxer(['/a', '/b', '/c'], ['/c', '/b'])).toBe('/b')
  expect(pickMuxer([], ['/a'])).toBeUndefined()
  expect(pickMuxer(['/a'], [])).toBeUndefined()
  expect(failure(() => pickMuxer(['/a'], ['/b']))).toBe('bad-negotiation')
})
