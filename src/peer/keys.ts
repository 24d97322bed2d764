/*
 * libp2p peer-ids (3A r2, 2021-04-30) §How keys are encoded and messages signed.
 * Ed25519 signs and verifies. Public keys of the other types are carried, so that their peer ids can be computed;
 * a row more in `algorithms` makes one of them sign and verify.
 */
import { platformCrypto } from '#crypto'
import { concat, equals } from '../bytes.ts'
import type { Crypto, Ed25519PrivateKey } from '../crypto/crypto.ts'
import { ProtocolError, UnavailableError } from '../errors.ts'
import { PeerId } from './id.ts'
import { decodePrivateKeyMessage, decodePublicKeyMessage, encodeKeyMessage } from './key-wire.ts'
import type { KeyType } from './key-wire.ts'

export { keyTypes, rsaModulusBits } from './key-wire.ts'
export type { KeyType } from './key-wire.ts'

export interface PublicKey {
  readonly type: KeyType
  /** The message's Data: 32 bytes (Ed25519), 33 (Secp256k1), SPKI DER (RSA, ECDSA). */
  readonly raw: Uint8Array
  /** The PublicKey message: what the peer id is the hash of. */
  readonly encoded: Uint8Array
  readonly peerId: PeerId
  /** False for whatever does not verify. Rejects with UnavailableError `unsupported` for key types we cannot verify. */
  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean>
}

export interface PrivateKey {
  readonly type: KeyType
  readonly publicKey: PublicKey
  /** The PrivateKey message, as go-libp2p and js-libp2p store it: secret. */
  readonly encoded: Uint8Array
  sign(message: Uint8Array): Promise<Uint8Array>
}

interface Verifier {
  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean>
}

interface Algorithm {
  /** What verifies with the Data of a PublicKey message; the check of a form is done, anything else verifies nothing. */
  verifier(crypto: Crypto, raw: Uint8Array): Verifier
  /** From the Data of a PrivateKey message; throws ProtocolError `bad-key`. */
  decodePrivate(crypto: Crypto, data: Uint8Array): PrivateKey
}

const algorithms: Partial<Record<KeyType, Algorithm>> = {
  Ed25519: {
    verifier: (crypto, raw) => crypto.ed25519Public(raw),
    decodePrivate: decodeEd25519,
  },
}

function algorithmOf(type: KeyType): Algorithm {
  const algorithm = algorithms[type]
  if (algorithm !== undefined) return algorithm
  const known = Object.keys(algorithms).join(', ')
  throw new UnavailableError('unsupported', `cannot sign or verify with ${type} keys, only with ${known}`)
}

/** Throws ProtocolError `bad-key`; every key type is accepted. The bytes are copied. */
export function decodePublicKey(encoded: Uint8Array, crypto: Crypto = platformCrypto): PublicKey {
  const { type, data } = decodePublicKeyMessage(encoded)
  return publicKey(type, data, crypto)
}

/** Throws ProtocolError `bad-key`, UnavailableError `unsupported` for key types that we cannot sign with. */
export function decodePrivateKey(encoded: Uint8Array, crypto: Crypto = platformCrypto): PrivateKey {
  const { type, data } = decodePrivateKeyMessage(encoded)
  return algorithmOf(type).decodePrivate(crypto, data)
}

export function generateKey(_type: 'Ed25519' = 'Ed25519', crypto: Crypto = platformCrypto): PrivateKey {
  return ed25519(crypto, crypto.ed25519Generate())
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
    verify: async (message, signature) =>
      (verifier ??= algorithmOf(type).verifier(crypto, raw)).verify(message, signature),
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
