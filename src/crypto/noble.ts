/*
 * The primitives in portable code: noble's curves and hashes, and our own ChaCha20-Poly1305. No platform import.
 * What RSA, secp256k1 and P-256 keys need is loaded when first used (lazy-keys.ts).
 */
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256, sha512 } from '@noble/hashes/sha2.js'
import { empty } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { ChaCha20Poly1305 } from './chacha20poly1305.ts'
import type { Crypto, Ed25519PrivateKey, Ed25519PublicKey, Hasher, X25519KeyPair } from './crypto.ts'
import { lazyKeys } from './lazy-keys.ts'

class NobleX25519 implements X25519KeyPair {
  readonly publicKey: Uint8Array
  readonly #private: Uint8Array

  constructor(privateKey: Uint8Array) {
    if (privateKey.length !== 32) throw new RangeError(`X25519 private key of ${privateKey.length} bytes, want 32`)
    this.#private = privateKey.slice()
    this.publicKey = x25519.getPublicKey(this.#private)
  }

  dh(publicKey: Uint8Array): Uint8Array {
    if (publicKey.length !== 32) {
      throw new ProtocolError('bad-handshake', `X25519 public key of ${publicKey.length} bytes, want 32`)
    }
    try {
      // Throws on an all-zero result.
      return x25519.getSharedSecret(this.#private, publicKey)
    } catch (cause) {
      throw new ProtocolError('bad-handshake', 'X25519 shared secret is all zero', { cause })
    }
  }
}

class NobleEd25519 implements Ed25519PrivateKey {
  readonly publicKey: Uint8Array
  readonly seed: Uint8Array

  constructor(seed: Uint8Array) {
    if (seed.length !== 32) throw new RangeError(`Ed25519 seed of ${seed.length} bytes, want 32`)
    this.seed = seed.slice()
    this.publicKey = ed25519.getPublicKey(this.seed)
  }

  async sign(message: Uint8Array): Promise<Uint8Array> {
    return ed25519.sign(message, this.seed)
  }
}

class NobleEd25519Public implements Ed25519PublicKey {
  readonly #key: Uint8Array

  constructor(publicKey: Uint8Array) {
    this.#key = publicKey.slice()
  }

  async verify(message: Uint8Array, signature: Uint8Array): Promise<boolean> {
    if (this.#key.length !== 32 || signature.length !== 64) return false
    try {
      // RFC 8032 §5.1.7, as the native backend: not the laxer ZIP 215.
      return ed25519.verify(signature, message, this.#key, { zip215: false })
    } catch {
      // A point or a scalar that does not decode.
      return false
    }
  }
}

class NobleHasher implements Hasher {
  readonly #hash = sha256.create()

  update(bytes: Uint8Array): Hasher {
    this.#hash.update(bytes)
    return this
  }

  digest(): Uint8Array {
    return this.#hash.digest()
  }
}

interface Updates {
  update(bytes: Uint8Array): unknown
  digest(): Uint8Array
}

function digest(hasher: Updates, chunks: Uint8Array[]): Uint8Array {
  for (const chunk of chunks) hasher.update(chunk)
  return hasher.digest()
}

export const nobleCrypto: Crypto = {
  name: 'noble',
  sha256: (...chunks) => (chunks.length > 1 ? digest(sha256.create(), chunks) : sha256(chunks[0] ?? empty)),
  sha256Hasher: () => new NobleHasher(),
  sha512: (...chunks) => digest(sha512.create(), chunks),
  hmacSha256: (key, ...chunks) => digest(hmac.create(sha256, key), chunks),
  hkdfSha256: (salt, ikm, info, size) => hkdf(sha256, ikm, salt, info, size),
  chaCha20Poly1305: (key) => new ChaCha20Poly1305(key),
  x25519Generate: () => new NobleX25519(x25519.utils.randomSecretKey()),
  x25519From: (privateKey) => new NobleX25519(privateKey),
  ed25519Generate: () => new NobleEd25519(ed25519.utils.randomSecretKey()),
  ed25519From: (seed) => new NobleEd25519(seed),
  ed25519Public: (publicKey) => new NobleEd25519Public(publicKey),
  ed25519Verify: (publicKey, message, signature) => new NobleEd25519Public(publicKey).verify(message, signature),
  ...lazyKeys,
}

export const platformCrypto: Crypto = nobleCrypto
