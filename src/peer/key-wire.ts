/*
 * libp2p peer-ids (3A r2, 2021-04-30) §Keys: the PublicKey and PrivateKey messages and what their Data must look like.
 * Checks the form only; whether a signature verifies is the business of keys.ts.
 */
import { equals } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { bytes, int32, message, required } from '../protobuf.ts'

export const keyTypes = { RSA: 0, Ed25519: 1, Secp256k1: 2, ECDSA: 3 } as const
export type KeyType = keyof typeof keyTypes

/** Bits of an RSA modulus: less is unsafe, more is an attack on our CPU (CVE-2023-39533). Both as in go-libp2p. */
export const rsaModulusBits = { min: 2048, max: 8192 } as const

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
    if (data.length > ecdsaSpkiBytes || !new Der(data).enter(0x30).whole) {
      throw new ProtocolError('bad-key', `ECDSA public key of ${data.length} bytes is not a SubjectPublicKeyInfo`)
    }
  },
  RSA(data) {
    const bits = modulusBits(data)
    if (bits < rsaModulusBits.min || bits > rsaModulusBits.max) {
      const { min, max } = rsaModulusBits
      throw new ProtocolError('bad-key', `RSA modulus has ${bits} bits, want ${min} to ${max}`)
    }
  },
}

/** A cursor over DER (X.690): definite lengths of at most two bytes, which is all that a key within our limits has. */
class Der {
  readonly #bytes: Uint8Array
  #at: number
  readonly #end: number

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#at = at
    this.#end = end
  }

  /** The contents of the next value, which must have this tag. */
  enter(tag: number): Der {
    const bytes = this.#bytes
    const first = bytes[this.#at + 1] ?? 0
    const longer = first < 0x80 ? 0 : first - 0x80
    let length = longer === 0 ? first : 0
    for (let i = 0; i < longer; i++) length = length * 256 + (bytes[this.#at + 2 + i] ?? 0)
    const start = this.#at + 2 + longer
    if (bytes[this.#at] !== tag || longer > 2 || start + length > this.#end) {
      throw new ProtocolError('bad-key', `no DER value with tag ${tag} where one must be`)
    }
    this.#at = start + length
    return new Der(bytes, start, start + length)
  }

  /** The value fills the bytes to their end. */
  get whole(): boolean {
    return this.#end === this.#bytes.length
  }

  get rest(): Uint8Array {
    return this.#bytes.subarray(this.#at, this.#end)
  }
}

/** OID 1.2.840.113549.1.1.1, rsaEncryption (RFC 8017 A.1). */
const rsaEncryption = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01)

function modulusBits(spki: Uint8Array): number {
  const info = new Der(spki).enter(0x30)
  const algorithm = info.enter(0x30)
  if (!info.whole || !equals(algorithm.enter(0x06).rest, rsaEncryption)) {
    throw new ProtocolError('bad-key', 'RSA public key is not a SubjectPublicKeyInfo with rsaEncryption')
  }
  const bits = info.enter(0x03).rest
  if (bits[0] !== 0) throw new ProtocolError('bad-key', 'RSA public key is not a whole number of bytes')
  const modulus = new Der(bits, 1).enter(0x30).enter(0x02).rest
  const first = modulus.findIndex((byte) => byte !== 0)
  return first === -1 ? 0 : 8 * (modulus.length - first - 1) + (32 - Math.clz32(modulus[first] ?? 0))
}
