/*
 * libp2p peer-ids (3A r2, 2021-04-30) §Keys: the PublicKey and PrivateKey messages and what their Data must look like.
 * Checks the form only; whether a signature verifies is the business of keys.ts.
 */
import { equals } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { bytes, int32, message, required } from '../protobuf.ts'
import { checkRsaPublic, ecdsaPublic } from './key-der.ts'

export const keyTypes = { RSA: 0, Ed25519: 1, Secp256k1: 2, ECDSA: 3 } as const
export type KeyType = keyof typeof keyTypes

/** Bytes of the public key message: RSA of 8192 bits has 1062, one with a large exponent a little more. */
const publicKeyBytes = 1200
/** Bytes of the private key message: PKCS#1 of an RSA key of 8192 bits has 4659. */
const privateKeyBytes = 5120
/** Bytes of an ECDSA SPKI: P-521 has 158. */
const ecdsaSpkiBytes = 256

const Key = message({ type: [1, required(int32)], data: [2, required(bytes)] })

const names = new Map<number, KeyType>(Object.entries(keyTypes).map(([name, code]) => [code, name as KeyType]))

export interface KeyMessage {
  readonly type: KeyType
  /** Shares no memory with what it was read from. */
  readonly data: Uint8Array
}

/** Of both messages: they have the same form. Deterministic: tag order, both fields there, minimal varints. */
export function encodeKeyMessage(type: KeyType, data: Uint8Array): Uint8Array {
  return Key.encode({ type: keyTypes[type], data })
}

function decodeKeyMessage(encoded: Uint8Array, maxBytes: number, what: string): KeyMessage {
  if (encoded.length > maxBytes) {
    throw new ProtocolError('bad-key', `${what} of ${encoded.length} bytes, at most ${maxBytes}`)
  }
  let decoded
  try {
    decoded = Key.decode(encoded)
  } catch (cause) {
    throw new ProtocolError('bad-key', `${what} is not a key message`, { cause })
  }
  const type = names.get(decoded.type)
  if (type === undefined) throw new ProtocolError('bad-key', `${what} has key type ${decoded.type}, want 0 to 3`)
  const data = decoded.data.slice()
  // A second encoding of one key would have a second peer id.
  if (!equals(encoded, encodeKeyMessage(type, data))) {
    throw new ProtocolError('bad-key', `${what} is not in the deterministic encoding`)
  }
  return { type, data }
}

/** Throws ProtocolError `bad-key`. */
export function decodePublicKeyMessage(encoded: Uint8Array): KeyMessage {
  const key = decodeKeyMessage(encoded, publicKeyBytes, 'public key')
  checkPublicKey[key.type](key.data)
  return key
}

/** Throws ProtocolError `bad-key`. What is in Data is not looked at. */
export function decodePrivateKeyMessage(encoded: Uint8Array): KeyMessage {
  return decodeKeyMessage(encoded, privateKeyBytes, 'private key')
}

const checkPublicKey: Record<KeyType, (data: Uint8Array) => void> = {
  Ed25519(data) {
    if (data.length !== 32) throw new ProtocolError('bad-key', `Ed25519 public key has ${data.length} bytes, want 32`)
  },
  Secp256k1(data) {
    if (data.length !== 33 || (data[0] !== 2 && data[0] !== 3)) {
      throw new ProtocolError('bad-key', `Secp256k1 public key of ${data.length} bytes is not a compressed point`)
    }
  },
  ECDSA(data) {
    if (data.length > ecdsaSpkiBytes) {
      throw new ProtocolError('bad-key', `ECDSA public key of ${data.length} bytes, at most ${ecdsaSpkiBytes}`)
    }
    ecdsaPublic(data)
  },
  RSA: checkRsaPublic,
}
