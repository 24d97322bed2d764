import fc from 'fast-check'
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { ProtocolError } from '../../src/errors.ts'
import { encodeMultibase } from '../../src/multibase.ts'
import { PeerId } from '../../src/peer/id.ts'
import { encodeKeyMessage } from '../../src/peer/key-wire.ts'
import { specCases } from '../vectors.ts'

const keys = specCases('peer-ids/keys.json') as { type: string; public: string }[]
const texts = specCases('peer-ids/text.json') as { base58: string; cids: string[] }[]

const sha256 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash('sha256').update(bytes).digest())
const anyKey = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((raw) => encodeKeyMessage('Ed25519', raw))
const anyId = fc.oneof(
  anyKey.map((key) => concat([Uint8Array.of(0, key.length), key])),
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map((digest) => concat([Uint8Array.of(0x12, 32), digest])),
)

function decodeCode(bytes: Uint8Array): string | undefined {
  try {
    PeerId.decode(bytes)
    return undefined
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    return error.code
  }
}

describe('PeerId', () => {
  it('is the identity of a key message of up to 42 bytes and the sha2-256 of a longer one', () => {
    expect(keys.map(({ type }) => type)).toEqual(['ECDSA', 'Ed25519', 'Secp256k1', 'RSA'])
    for (const { public: hex } of keys) {
      const key = fromHex(hex)
      const id = PeerId.fromPublicKey(key)
      if (key.length <= 42) {
        expect(toHex(id.bytes)).toBe(`00${key.length.toString(16)}${hex}`)
        expect(id.publicKeyBytes).toEqual(key)
      } else {
        expect(toHex(id.bytes)).toBe(`1220${toHex(sha256(key))}`)
        expect(id.publicKeyBytes).toBeUndefined()
      }
      expect(PeerId.decode(id.bytes).equals(id)).toBe(true)
    }
  })

  it('reads every form of its text and prints base58', () => {
    for (const { base58, cids } of texts) {
      const id = PeerId.parse(base58)
      expect(id.toString()).toBe(base58)
      expect(JSON.stringify({ id })).toBe(JSON.stringify({ id: base58 }))
      for (const cid of cids) {
        expect(PeerId.parse(cid).toString()).toBe(base58)
        expect(id.toCid(cid.startsWith('k') ? 'base36' : 'base32')).toBe(cid)
      }
    }
  })

  it('prints a CID in base32 unless told', () => {
    const [first] = texts
    expect(PeerId.parse(first?.base58 ?? '').toCid()).toBe(first?.cids[0])
  })

  it('reads CIDs in every base it knows, upper case where the prefix says so', () => {
    const id = PeerId.parse('12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV')
    const cid = concat([Uint8Array.of(1, 0x72), id.bytes])
    for (const base of ['base16', 'base32', 'base36', 'base58btc', 'base64', 'base64url'] as const) {
      expect(PeerId.parse(encodeMultibase(base, cid)).equals(id)).toBe(true)
    }
    expect(PeerId.parse(id.toCid('base32').toUpperCase()).equals(id)).toBe(true)
    expect(PeerId.parse(id.toCid('base36').toUpperCase()).equals(id)).toBe(true)
  })

  it('gives the same id back through bytes, base58 and both CIDs', () => {
    fc.assert(
      fc.property(anyId, (bytes) => {
        const id = PeerId.decode(bytes)
        expect(id.bytes).toEqual(bytes)
        for (const text of [id.toString(), id.toCid('base32'), id.toCid('base36')]) {
          expect(PeerId.parse(text).equals(id)).toBe(true)
        }
      }),
    )
  })

  it('does not change when the bytes it was read from do', () => {
    const bytes = PeerId.parse(texts[1]?.base58 ?? '').bytes.slice()
    const id = PeerId.decode(bytes)
    bytes.fill(0)
    expect(id.toString()).toBe(texts[1]?.base58)
  })

  it.each([
    ['nothing', ''],
    ['half a header', '12'],
    ['a short sha2-256', `1220${'00'.repeat(31)}`],
    ['a long sha2-256', `1221${'00'.repeat(33)}`],
    ['trailing bytes', `1220${'00'.repeat(33)}`],
    ['a length that is not that of the digest', `1221${'00'.repeat(32)}`],
    ['a length that is not minimal', `12a000${'00'.repeat(32)}`],
    ['another hash', `1114${'00'.repeat(20)}`],
    ['an empty identity', '0000'],
    ['an identity that is no key', '000401020304'],
    ['an identity with a key of unknown type', `002408041220${'00'.repeat(32)}`],
    ['an identity with a short Ed25519 key', `00230801121f${'00'.repeat(31)}`],
    ['an identity whose key has its fields swapped', `00241220${'00'.repeat(32)}0801`],
    ['an identity whose key has an unknown field', `002608011220${'00'.repeat(32)}1801`],
    ['an identity of more than 42 bytes', `002b${'00'.repeat(43)}`],
    ['a whole ECDSA key of 43 bytes', `002b080312273025${'00'.repeat(37)}`],
    ['a whole RSA key in place of its hash', `00ac04${keys[3]?.public ?? ''}`],
  ])('refuses %s from a peer', (_what, hex) => {
    expect(decodeCode(fromHex(hex))).toBe('bad-peer-id')
  })

  it('refuses random bytes with a ProtocolError or gives the same bytes back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        if (decodeCode(bytes) === undefined) expect(PeerId.decode(bytes).bytes).toEqual(bytes)
      }),
    )
    fc.assert(
      fc.property(anyId, fc.nat(45), fc.nat(255), (bytes, at, value) => {
        const changed = bytes.slice()
        changed[at % bytes.length] = value
        if (decodeCode(changed) === undefined) expect(PeerId.decode(changed).bytes).toEqual(changed)
      }),
    )
  })

  it.each([
    ['', /multibase/],
    ['hello', /"h" is not a known multibase prefix/],
    ['12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5m0', /base58btc/],
    ['QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5', /neither/],
    ['bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq', /libp2p-key/],
    [encodeMultibase('base32', fromUtf8('hello')), /CIDv1/],
    ['1'.repeat(129), /at most 128/],
    [`k${'0'.repeat(10_000)}`, /at most 128/],
  ])('tells the user what is wrong with %j', (text, message) => {
    expect(() => PeerId.parse(text)).toThrow(TypeError)
    expect(() => PeerId.parse(text)).toThrow(message)
  })
})
