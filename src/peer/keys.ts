/*
 * libp2p peer-ids (3A r2, 2021-04-30) §How keys are encoded and messages signed: Ed25519, RSA, Secp256k1 and ECDSA.
 * ECDSA keys on other curves than P-256 are carried, so that their peer ids can be computed, but do not verify.
 * Signatures must be strictly DER. A high s verifies on both curves, as in go-libp2p; js-libp2p refuses one on
 * Secp256k1, so we write the low one there.
 */
import { platformCrypto } from '#crypto'
import { loadOtherKeys } from '#other-keys'
import { concat, equals } from '../bytes.ts'
import type { Crypto, Ed25519PrivateKey, Signer, Verifier } from '../crypto/crypto.ts'
import { ProtocolError, UnavailableError } from '../errors.ts'
import { PeerId } from './id.ts'
import { ecdsaPublic, rsaModulusBits } from './key-der.ts'
import { decodePrivateKeyMessage, decodePublicKeyMessage, encodeKeyMessage } from './key-wire.ts'
import type { KeyType } from './key-wire.ts'
import type { KeyParts, OtherKeysTable } from './other-keys.ts'

export { rsaModulusBits } from './key-der.ts'
export { keyTypes } from './key-wire.ts'
export type { KeyType } from './key-wire.ts'

export interface PublicKey {
  readonly type: KeyType
  /** The message's Data: 32 bytes (Ed25519), 33 (Secp256k1), SPKI DER (RSA, ECDSA). */
  readonly raw: Uint8Array
  /** The PublicKey message: what the peer id is the hash of. */
  readonly encoded: Uint8Array
  readonly peerId: PeerId
  /**
   * False for whatever does not verify. Rejects with UnavailableError `unsupported` for ECDSA on other curves than
   * P-256, and for RSA where the platform has no WebCrypto. Arguments must not change until the promise settles.
   */
  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean>
}

export interface PrivateKey {
  readonly type: KeyType
  readonly publicKey: PublicKey
  /** The PrivateKey message, as go-libp2p and js-libp2p store it: secret. */
  readonly encoded: Uint8Array
  sign(message: Uint8Array): Promise<Uint8Array>
}

type MaybePromise<T> = T | Promise<T>

/** What verifies with the Data of a PublicKey message whose form is checked. */
const verifiers: Record<KeyType, (crypto: Crypto, raw: Uint8Array) => Verifier> = {
  Ed25519: (crypto, raw) => crypto.ed25519Public(raw),
  RSA: (crypto, raw) => crypto.rsaPublic(raw),
  Secp256k1: (crypto, raw) => crypto.ecdsaPublic('secp256k1', raw),
  ECDSA: (crypto, raw) => {
    const { curve, point } = ecdsaPublic(raw)
    if (curve !== undefined) return crypto.ecdsaPublic(curve, point)
    throw new UnavailableError('unsupported', 'cannot verify with ECDSA keys on other curves than P-256')
  },
}

/** At once, or later where the code must be loaded first. */
function then<T, U>(value: MaybePromise<T>, use: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return value instanceof Promise ? value.then(use) : use(value)
}

function otherKey(
  type: keyof OtherKeysTable,
  crypto: Crypto,
  make: (keys: OtherKeysTable[typeof type]) => MaybePromise<KeyParts>,
): MaybePromise<PrivateKey> {
  const parts = then<OtherKeysTable, KeyParts>(loadOtherKeys(), (keys) => make(keys[type]))
  return then(parts, ({ data, publicData, signer: makeSigner }) => {
    let signer: Signer | undefined
    return {
      type,
      publicKey: publicKey(type, publicData, crypto),
      encoded: encodeKeyMessage(type, data),
      sign: async (message) => (signer ??= makeSigner()).sign(message),
    }
  })
}

/** Throws ProtocolError `bad-key`. A promise where code must be loaded first. */
function decodePrivate(encoded: Uint8Array, crypto: Crypto): MaybePromise<PrivateKey> {
  const { type, data } = decodePrivateKeyMessage(encoded)
  return type === 'Ed25519' ? decodeEd25519(crypto, data) : otherKey(type, crypto, (keys) => keys.decode(crypto, data))
}

/** Throws ProtocolError `bad-key`; every key type is accepted. The bytes are copied. */
export function decodePublicKey(encoded: Uint8Array, crypto: Crypto = platformCrypto): PublicKey {
  const { type, data } = decodePublicKeyMessage(encoded)
  return publicKey(type, data, crypto)
}

/**
 * Throws ProtocolError `bad-key`. Outside Node, keys other than Ed25519 need code that is loaded when first used:
 * there it throws UnavailableError `unsupported` for them, and `importPrivateKey` is what reads them.
 */
export function decodePrivateKey(encoded: Uint8Array, crypto: Crypto = platformCrypto): PrivateKey {
  const key = decodePrivate(encoded, crypto)
  if (!(key instanceof Promise)) return key
  // Nobody waits for it.
  key.catch(() => {})
  const { type } = decodePrivateKeyMessage(encoded)
  throw new UnavailableError('unsupported', `${type} keys are read by \`await importPrivateKey()\` on this platform`)
}

/** The same for every key type on every platform. Rejects with ProtocolError `bad-key`. */
export async function importPrivateKey(encoded: Uint8Array, crypto: Crypto = platformCrypto): Promise<PrivateKey> {
  return decodePrivate(encoded, crypto)
}

/** RSA: 2,048 to 8,192 bits, default 2,048 (js-libp2p, go-libp2p's minimum), else RangeError. ECDSA: on P-256. */
export function generateKey(type?: 'Ed25519', crypto?: Crypto): PrivateKey
export function generateKey(type: 'RSA', crypto?: Crypto, modulusBits?: number): Promise<PrivateKey>
export function generateKey(type: 'Secp256k1' | 'ECDSA', crypto?: Crypto): Promise<PrivateKey>
export function generateKey(type: KeyType, crypto?: Crypto, modulusBits?: number): PrivateKey | Promise<PrivateKey>
export function generateKey(
  type: KeyType = 'Ed25519',
  crypto: Crypto = platformCrypto,
  modulusBits: number = rsaModulusBits.min,
): PrivateKey | Promise<PrivateKey> {
  const { min, max } = rsaModulusBits
  if (!Number.isInteger(modulusBits) || modulusBits < min || modulusBits > max || modulusBits % 8 !== 0) {
    throw new RangeError(`RSA modulus of ${modulusBits} bits, want a multiple of 8 from ${min} to ${max}`)
  }
  if (type === 'Ed25519') return ed25519(crypto, crypto.ed25519Generate())
  return otherKey(type, crypto, (keys) => keys.generate(crypto, modulusBits))
}

function publicKey(type: KeyType, raw: Uint8Array, crypto: Crypto): PublicKey {
  const encoded = encodeKeyMessage(type, raw)
  let peerId: PeerId | undefined
  let verifier: Verifier | undefined
  return {
    type,
    raw,
    encoded,
    get peerId() {
      return (peerId ??= PeerId.fromPublicKey(encoded, crypto))
    },
    verify: async (message, signature) => (verifier ??= verifiers[type](crypto, raw)).verify(message, signature),
  }
}

function ed25519(crypto: Crypto, key: Ed25519PrivateKey): PrivateKey {
  return {
    type: 'Ed25519',
    publicKey: publicKey('Ed25519', key.publicKey, crypto),
    encoded: encodeKeyMessage('Ed25519', concat([key.seed, key.publicKey])),
    sign: (message) => key.sign(message),
  }
}

/** seed || public (64 bytes), or the older seed || public || public (96 bytes). */
function decodeEd25519(crypto: Crypto, data: Uint8Array): PrivateKey {
  if (data.length !== 64 && data.length !== 96) {
    throw new ProtocolError('bad-key', `Ed25519 private key has ${data.length} bytes, want 64 or 96`)
  }
  const stored = data.subarray(32, 64)
  if (data.length === 96 && !equals(stored, data.subarray(64))) {
    throw new ProtocolError('bad-key', 'the two public keys in an Ed25519 private key of 96 bytes differ')
  }
  const key = crypto.ed25519From(data.slice(0, 32))
  // signing with a public key that is not the seed's would give the seed away
  if (!equals(key.publicKey, stored)) {
    throw new ProtocolError('bad-key', 'the public key in an Ed25519 private key does not belong to its seed')
  }
  return ed25519(crypto, key)
}
