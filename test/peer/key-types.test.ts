import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { nativeCrypto as native } from '../../src/crypto/native.ts'
import { nobleCrypto as noble } from '../../src/crypto/noble.ts'
import { der, DerReader, derUint } from '../../src/der.ts'
import { ProtocolError, UnavailableError } from '../../src/errors.ts'
import { encodeKeyMessage, decodePrivateKeyMessage } from '../../src/peer/key-wire.ts'
import { decodePrivateKey, decodePublicKey, generateKey, importPrivateKey, keyTypes } from '../../src/peer/keys.ts'
import type { KeyType } from '../../src/peer/keys.ts'
import { sharedVectors, specCases } from '../vectors.ts'

const vectors = specCases('peer-ids/keys.json') as { type: KeyType; private: string; public: string }[]
const signatures = specCases('peer-ids/go-signatures.json') as {
  type: KeyType
  private: string
  public: string
  signature: string
  deterministic: boolean
}[]
const types = Object.keys(keyTypes) as KeyType[]
const both = [native, noble]
const goMessage = fromUtf8('Libp2p is the _best_!')

function dataOf(type: KeyType): Uint8Array {
  const vector = vectors.find((one) => one.type === type)
  return decodePrivateKeyMessage(fromHex(vector?.private ?? '')).data
}

async function refused(type: KeyType, data: Uint8Array): Promise<string> {
  try {
    await importPrivateKey(encodeKeyMessage(type, data))
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    expect(error.code).toBe('bad-key')
    return error.message
  }
  return 'not refused'
}

describe.each(both)('keys of every type with $name', (crypto) => {
  it('derive the public keys of the spec, and write the same private keys', async () => {
    for (const vector of vectors) {
      const key = await importPrivateKey(fromHex(vector.private), crypto)
      expect(key.type).toBe(vector.type)
      expect(toHex(key.publicKey.encoded)).toBe(vector.public)
      expect(toHex(key.encoded)).toBe(vector.private)
      const signature = await key.sign(goMessage)
      for (const other of both) {
        const remote = decodePublicKey(fromHex(vector.public), other)
        expect(await remote.verify(goMessage, signature)).toBe(true)
        expect(await remote.verify(fromUtf8('else'), signature)).toBe(false)
      }
    }
  })

  it('verify the signatures of go-libp2p, and sign the same where that is possible', async () => {
    for (const vector of signatures) {
      const key = await importPrivateKey(fromHex(vector.private), crypto)
      expect(toHex(key.publicKey.encoded)).toBe(vector.public)
      expect(toHex(key.encoded)).toBe(vector.private)
      expect(await key.publicKey.verify(goMessage, fromHex(vector.signature))).toBe(true)
      // RFC 6979: noble signs as go-libp2p does, OpenSSL with a random nonce.
      if (vector.deterministic && crypto === noble) expect(toHex(await key.sign(goMessage))).toBe(vector.signature)
    }
  })

  it("verify go-libp2p's RSA signature and make the same one", async (context) => {
    const read = (name: string): Uint8Array =>
      new Uint8Array(readFileSync(sharedVectors(`keys/0.${name}`) ?? context.skip('the shared vectors are not here')))
    const key = await importPrivateKey(read('priv'), crypto)
    expect(key.encoded).toEqual(read('priv'))
    expect(key.publicKey.encoded).toEqual(read('pub'))
    expect(await decodePublicKey(read('pub'), crypto).verify(goMessage, read('sig'))).toBe(true)
    expect(await key.sign(goMessage)).toEqual(read('sig'))
  })

  it.each(types)('are made anew as %s, stored and read again', async (type) => {
    const key = await generateKey(type, crypto)
    expect(key.type).toBe(type)
    const stored = await importPrivateKey(key.encoded, crypto)
    expect(stored.publicKey.peerId.equals(key.publicKey.peerId)).toBe(true)
    expect(key.publicKey.peerId.bytes[0]).toBe(type === 'Ed25519' || type === 'Secp256k1' ? 0 : 0x12)
    const signature = await stored.sign(goMessage)
    expect(await decodePublicKey(key.publicKey.encoded, crypto).verify(goMessage, signature)).toBe(true)
    const stranger = await generateKey(type, crypto)
    expect(await stranger.publicKey.verify(goMessage, signature)).toBe(false)
    signature[signature.length - 1] = (signature.at(-1) ?? 0) ^ 1
    expect(await key.publicKey.verify(goMessage, signature)).toBe(false)
  })

  it('carry ECDSA keys on other curves, which do not verify', async () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'secp384r1' })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    const key = decodePublicKey(encodeKeyMessage('ECDSA', spki), crypto)
    expect(key.peerId.bytes[0]).toBe(0x12)
    const attempt = key.verify(goMessage, goMessage)
    await expect(attempt).rejects.toBeInstanceOf(UnavailableError)
    await expect(attempt).rejects.toMatchObject({ code: 'unsupported' })
  })
})

describe('decodePrivateKey', () => {
  it('reads every type at once on Node', () => {
    for (const vector of vectors) {
      expect(toHex(decodePrivateKey(fromHex(vector.private)).publicKey.encoded)).toBe(vector.public)
    }
  })

  it('says what to call where the curves are loaded when first used', () => {
    for (const vector of vectors) {
      const decode = (): string => toHex(decodePrivateKey(fromHex(vector.private), noble).publicKey.encoded)
      if (vector.type === 'Ed25519' || vector.type === 'RSA') expect(decode()).toBe(vector.public)
      else expect(decode).toThrow(expect.objectContaining({ code: 'unsupported' }))
    }
  })
})

describe('generateKey', () => {
  it('makes RSA keys of 2048 to 8192 bits', async () => {
    for (const bits of [1024, 2047, 2049, 8200, 16_384, Number.NaN]) {
      expect(() => generateKey('RSA', native, bits)).toThrow(RangeError)
    }
    const { publicKey } = await generateKey('RSA', native, 3072)
    const platform = createPublicKey({ key: Buffer.from(publicKey.raw), format: 'der', type: 'spki' })
    expect(platform.asymmetricKeyDetails?.modulusLength).toBe(3072)
  })
})

/** An RSAPrivateKey of these numbers. */
function rsaKey(numbers: Uint8Array[]): Uint8Array {
  return der(0x30, ...numbers.map(derUint))
}

/** An ECPrivateKey of these values. */
function ecKey(...values: (Uint8Array | undefined)[]): Uint8Array {
  return der(0x30, ...values.filter((value) => value !== undefined))
}

describe('private keys', () => {
  it('of RSA are refused unless all their numbers belong together', async () => {
    const outer = new DerReader(dataOf('RSA'), 'bad-key').enter(0x30)
    const numbers: Uint8Array[] = []
    while (outer.tag !== undefined) numbers.push(outer.uint())
    expect(numbers).toHaveLength(9)
    expect(await refused('RSA', rsaKey(numbers))).toBe('not refused')
    for (let i = 0; i < 9; i++) {
      const changed = numbers.map((one) => one.slice())
      const one = changed[i] ?? new Uint8Array(1)
      one[one.length - 1] = (one.at(-1) ?? 0) ^ 4
      expect(await refused('RSA', rsaKey(changed))).toMatch(/RSA/)
    }
    const zero = new Uint8Array(1)
    for (const at of [3, 4, 5, 6, 7, 8]) {
      expect(await refused('RSA', rsaKey(numbers.with(at, zero)))).toMatch(/belong together/)
      expect(await refused('RSA', rsaKey(numbers.with(at, new Uint8Array(600).fill(255))))).toMatch(/longer/)
    }
    expect(await refused('RSA', rsaKey([...numbers, zero]))).toMatch(/too many/)
    expect(await refused('RSA', rsaKey(numbers.slice(0, 8)))).toMatch(/DER/)
    expect(await refused('RSA', concat([rsaKey(numbers), zero]))).toMatch(/too many/)
  })

  it('of RSA are refused when too short or too long, before any arithmetic', async () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
    const short = new Uint8Array(privateKey.export({ format: 'der', type: 'pkcs1' }))
    expect(await refused('RSA', short)).toMatch(/1024 bits, want 2048 to 8192/)
    const three = Uint8Array.of(3)
    const long = der(0x30, derUint(new Uint8Array(1)), derUint(new Uint8Array(1025).fill(255)), derUint(three))
    expect(await refused('RSA', long)).toMatch(/8200 bits, want 2048 to 8192/)
  })

  it('of Secp256k1 are refused unless they are scalars of the curve', async () => {
    const order = fromHex('fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141')
    expect(await refused('Secp256k1', new Uint8Array(32))).toMatch(/scalar/)
    expect(await refused('Secp256k1', order)).toMatch(/scalar/)
    expect(await refused('Secp256k1', order.with(31, 0x40))).toBe('not refused')
    for (const length of [0, 31, 33]) {
      expect(await refused('Secp256k1', new Uint8Array(length).fill(1))).toMatch(/scalar/)
    }
  })

  it('of ECDSA may come without their public key, and are refused with another one', async () => {
    const data = dataOf('ECDSA')
    const key = new DerReader(data, 'bad-key').enter(0x30)
    const parts = [derUint(key.uint()), der(4, key.read(4)), der(0xa0, key.read(0xa0)), der(0xa1, key.read(0xa1))]
    const [version, scalar, curve, point] = parts
    expect(ecKey(...parts)).toEqual(data)
    const bare = await importPrivateKey(encodeKeyMessage('ECDSA', ecKey(version, scalar, curve)))
    expect(bare.encoded).toEqual(encodeKeyMessage('ECDSA', data))
    const wrong = point?.slice()
    wrong?.set([(wrong.at(-1) ?? 0) ^ 1], wrong.length - 1)
    expect(await refused('ECDSA', ecKey(version, scalar, curve, wrong))).toMatch(/does not belong/)
    expect(await refused('ECDSA', ecKey(version, scalar, point))).toMatch(/DER/)
    expect(await refused('ECDSA', ecKey(version, scalar, curve, point, point))).toMatch(/too many/)
    expect(await refused('ECDSA', ecKey(derUint(Uint8Array.of(2)), scalar, curve, point))).toMatch(/version/)
    expect(await refused('ECDSA', ecKey(version, der(4, new Uint8Array(32)), curve, point))).toMatch(/scalar/)
    const k1 = der(0xa0, fromHex('06052b8104000a'))
    expect(await refused('ECDSA', ecKey(version, scalar, k1))).toMatch(/not on P-256/)
  })

  it('are refused or read from changed bytes, with no other error', async () => {
    const bases = vectors.map((vector) => fromHex(vector.private))
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...bases), fc.nat(), fc.nat(255), async (base, at, value) => {
        const changed = base.with(at % base.length, value)
        try {
          const key = await importPrivateKey(changed)
          expect(key.publicKey.encoded.length).toBeGreaterThan(30)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})
