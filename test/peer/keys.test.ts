import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { platformCrypto as native } from '../../src/crypto/native.ts'
import { nobleCrypto as noble } from '../../src/crypto/noble.ts'
import { der, derBits, derUint } from '../../src/der.ts'
import { ProtocolError } from '../../src/errors.ts'
import { encodeKeyMessage } from '../../src/peer/key-wire.ts'
import { decodePrivateKey, decodePublicKey, generateKey, keyTypes } from '../../src/peer/keys.ts'
import type { KeyType } from '../../src/peer/keys.ts'
import { sharedVectors, specCases } from '../vectors.ts'

const vectors = specCases('peer-ids/keys.json') as { type: KeyType; private: string; public: string }[]
const ed25519 = vectors.find(({ type }) => type === 'Ed25519')
const seed = fromHex('7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d')

function refusal(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): string | undefined {
  try {
    decode(bytes)
    return undefined
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    expect(error.code).toBe('bad-key')
    return error.message
  }
}

/** An RSA SubjectPublicKeyInfo with a modulus of so many bits, all ones: only its form is looked at. */
function rsaSpki(bits: number, exponent: Uint8Array = Uint8Array.of(1, 0, 1)): Uint8Array {
  const modulus = new Uint8Array(Math.ceil(bits / 8)).fill(255)
  modulus[0] = 255 >> (8 * modulus.length - bits)
  return rsaInfo(der(0x30, derUint(modulus), derUint(exponent)))
}

function rsaInfo(key: Uint8Array, algorithm = '06092a864886f70d0101010500'): Uint8Array {
  return der(0x30, der(0x30, fromHex(algorithm)), derBits(key))
}

function refusesRsa(spki: Uint8Array): boolean {
  return refusal(decodePublicKey, encodeKeyMessage('RSA', spki)) !== undefined
}

/** A message of an ECDSA key on a curve that is not ours, with a point of so many bytes. */
function ecdsaOther(pointBytes: number): Uint8Array {
  const algorithm = der(0x30, fromHex('06072a8648ce3d020106052b81040023'))
  return encodeKeyMessage('ECDSA', der(0x30, algorithm, derBits(new Uint8Array(pointBytes).fill(4))))
}

/** Refused, or read as what it is. */
function check(bytes: Uint8Array): void {
  if (refusal(decodePublicKey, bytes) === undefined) expect(decodePublicKey(bytes).encoded).toEqual(bytes)
}

describe('keys', () => {
  it('has the spec numbers', () => {
    expect(keyTypes).toEqual({ RSA: 0, Ed25519: 1, Secp256k1: 2, ECDSA: 3 })
  })

  it('reads every public key of the spec and writes the same bytes', () => {
    for (const vector of vectors) {
      const key = decodePublicKey(fromHex(vector.public))
      expect(key.type).toBe(vector.type)
      expect(toHex(key.encoded)).toBe(vector.public)
    }
  })

  it.each([native, noble])('derives the public key of the spec from its Ed25519 private key with $name', (crypto) => {
    const key = decodePrivateKey(fromHex(ed25519?.private ?? ''), crypto)
    expect(toHex(key.publicKey.encoded)).toBe(ed25519?.public)
    expect(toHex(key.encoded)).toBe(ed25519?.private)
  })

  it.each([native, noble])('signs what verifies, and nothing else verifies, with $name', async (crypto) => {
    const key = generateKey('Ed25519', crypto)
    const message = fromUtf8('a message')
    const signature = await key.sign(message)
    expect(signature).toHaveLength(64)
    const stored = decodePrivateKey(key.encoded, crypto)
    expect(stored.publicKey.peerId.equals(key.publicKey.peerId)).toBe(true)
    const remote = decodePublicKey(key.publicKey.encoded, crypto)
    expect(await remote.verify(message, signature)).toBe(true)
    expect(await remote.verify(fromUtf8('b message'), signature)).toBe(false)
    expect(await remote.verify(message, signature.subarray(1))).toBe(false)
    expect(await generateKey('Ed25519', crypto).publicKey.verify(message, signature)).toBe(false)
    signature[10] = (signature[10] ?? 0) ^ 1
    expect(await remote.verify(message, signature)).toBe(false)
  })

  it('reads the older private key of 96 bytes and writes the one of 64', () => {
    const { raw } = decodePublicKey(fromHex(ed25519?.public ?? ''))
    const key = decodePrivateKey(encodeKeyMessage('Ed25519', concat([seed, raw, raw])))
    expect(toHex(key.encoded)).toBe(ed25519?.private)
    const other = raw.slice().fill(7)
    expect(refusal(decodePrivateKey, encodeKeyMessage('Ed25519', concat([seed, raw, other])))).toMatch(/differ/)
    expect(refusal(decodePrivateKey, encodeKeyMessage('Ed25519', concat([seed, other, other])))).toMatch(/seed/)
    expect(refusal(decodePrivateKey, encodeKeyMessage('Ed25519', concat([seed, other])))).toMatch(/seed/)
    expect(refusal(decodePrivateKey, encodeKeyMessage('Ed25519', seed))).toMatch(/want 64 or 96/)
  })

  it('reads a public key of go-libp2p', (context) => {
    const file = sharedVectors('keys/0.pub') ?? context.skip('the shared vectors are not here')
    const encoded = new Uint8Array(readFileSync(file))
    const key = decodePublicKey(encoded)
    expect(key.type).toBe('RSA')
    expect(key.encoded).toEqual(encoded)
    expect(createPublicKey({ key: Buffer.from(key.raw), format: 'der', type: 'spki' }).asymmetricKeyType).toBe('rsa')
  })

  it('takes RSA moduli of 2048 to 8192 bits', () => {
    for (const bits of [2048, 2049, 4096, 8191, 8192]) {
      const encoded = encodeKeyMessage('RSA', rsaSpki(bits))
      expect(decodePublicKey(encoded).peerId.bytes[0]).toBe(0x12)
    }
    for (const bits of [1024, 2047, 8193]) {
      expect(refusal(decodePublicKey, encodeKeyMessage('RSA', rsaSpki(bits)))).toMatch(new RegExp(`${bits} bits`))
    }
    expect(refusal(decodePublicKey, encodeKeyMessage('RSA', rsaSpki(16_384)))).toMatch(/at most 1200/)
    expect(refusal(decodePublicKey, new Uint8Array(1_000_000))).toMatch(/at most 1200/)
  })

  it('takes RSA exponents that are odd and of up to 31 bits', () => {
    for (const exponent of ['03', '010001', '7fffffff']) {
      expect(refusal(decodePublicKey, encodeKeyMessage('RSA', rsaSpki(2048, fromHex(exponent))))).toBeUndefined()
    }
    for (const exponent of ['00', '01', '02', '010000', '80000001', 'ff'.repeat(256)]) {
      expect(refusal(decodePublicKey, encodeKeyMessage('RSA', rsaSpki(2048, fromHex(exponent))))).toMatch(/exponent/)
    }
  })

  it('takes an RSA key in one encoding only', () => {
    const modulus = new Uint8Array(256).fill(255)
    const key = der(0x30, derUint(modulus), derUint(Uint8Array.of(3)))
    expect(refusesRsa(rsaInfo(key))).toBe(false)
    for (const spki of [
      rsaInfo(key, '06092a864886f70d010101'),
      rsaInfo(key, '06092a864886f70d010101050100'),
      rsaInfo(key, '06092a864886f70d01010105000500'),
      rsaInfo(concat([key, Uint8Array.of(0)])),
      rsaInfo(der(0x30, derUint(modulus), derUint(Uint8Array.of(3)), derUint(Uint8Array.of(3)))),
      rsaInfo(der(0x30, der(2, Uint8Array.of(0, 0), modulus), derUint(Uint8Array.of(3)))),
      rsaInfo(der(0x30, der(2, modulus), derUint(Uint8Array.of(3)))),
      rsaInfo(der(0x30, derUint(modulus), der(2, Uint8Array.of(0, 3)))),
      der(0x30, der(0x30, fromHex('06092a864886f70d0101010500')), der(3, Uint8Array.of(1), key)),
      der(0x30, der(0x30, fromHex('06092a864886f70d0101010500')), derBits(key), der(5)),
    ]) {
      expect(refusesRsa(spki)).toBe(true)
    }
  })

  it('agrees with the platform about the form of an RSA key', () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    expect(decodePublicKey(encodeKeyMessage('RSA', spki)).raw).toEqual(spki)
    for (let length = 0; length < spki.length; length++) {
      expect(refusal(decodePublicKey, encodeKeyMessage('RSA', spki.subarray(0, length)))).toBeDefined()
    }
    expect(refusal(decodePublicKey, encodeKeyMessage('RSA', concat([spki, Uint8Array.of(0)])))).toBeDefined()
  })

  it.each([
    ['nothing', ''],
    ['no data', '0801'],
    ['no type', `1220${'00'.repeat(32)}`],
    ['an unknown type', `08041220${'00'.repeat(32)}`],
    ['a negative type', `08ffffffffffffffffff011220${'00'.repeat(32)}`],
    ['a type that is not minimal', `0881001220${'00'.repeat(32)}`],
    ['swapped fields', `1220${'00'.repeat(32)}0801`],
    ['an unknown field', `08011220${'00'.repeat(32)}1801`],
    ['the type twice', `080108011220${'00'.repeat(32)}`],
    ['an Ed25519 key of 31 bytes', `0801121f${'00'.repeat(31)}`],
    ['an Ed25519 key of 33 bytes', `08011221${'00'.repeat(33)}`],
    ['an uncompressed Secp256k1 key', `0802124104${'00'.repeat(64)}`],
    ['a Secp256k1 key of type 4', `0802122104${'00'.repeat(32)}`],
    ['an ECDSA key that is no DER', `08031204${'00'.repeat(4)}`],
    ['an ECDSA key with bytes behind it', '0803120530020500ff'],
    [
      'an ECDSA key on P-256 with a compressed point',
      `0803123b3039301306072a8648ce3d020106082a8648ce3d03010703220002${'11'.repeat(32)}`,
    ],
    ['an RSA key that is no DER', `08001204${'ff'.repeat(4)}`],
    ['an RSA key with the id of another algorithm', '0800120d300b300906072a8648ce3d0201'],
  ])('refuses a public key with %s', (_what, hex) => {
    expect(refusal(decodePublicKey, fromHex(hex))).toBeDefined()
  })

  it('refuses an ECDSA key of more than 256 bytes and a private key of more than 5120', () => {
    expect(refusal(decodePublicKey, ecdsaOther(231))).toBeUndefined()
    expect(refusal(decodePublicKey, ecdsaOther(233))).toMatch(/at most 256/)
    expect(refusal(decodePrivateKey, encodeKeyMessage('Ed25519', new Uint8Array(5121)))).toMatch(/at most 5120/)
  })

  it('refuses random bytes with a ProtocolError or gives the same bytes back', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), check))
    const bases = vectors.map((vector) => fromHex(vector.public))
    fc.assert(
      fc.property(fc.constantFrom(...bases), fc.nat(), fc.nat(255), (base, at, value) => {
        const changed = base.slice()
        changed[at % base.length] = value
        check(changed)
      }),
    )
  })
})
