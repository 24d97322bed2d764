/*
 * The primitives on noble's audited curves and hashes alone, and our own ChaCha20-Poly1305: for whoever prefers an audit to
 * a page that is 14 kB smaller, and what portable.ts is held against. No platform import.
 */
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256, sha512 } from '@noble/hashes/sha2.js'
import { empty } from '../bytes.ts'
import { backend } from './backend.ts'
import type { Crypto, Hasher } from './crypto.ts'

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

export const nobleCrypto: Crypto = backend({
  name: 'noble',
  sha256: (...chunks) => (chunks.length > 1 ? digest(sha256.create(), chunks) : sha256(chunks[0] ?? empty)),
  sha256Hasher: () => new NobleHasher(),
  sha512: (...chunks) => digest(sha512.create(), chunks),
  hmacSha256: (key, ...chunks) => digest(hmac.create(sha256, key), chunks),
  hkdfSha256: (salt, ikm, info, size) => hkdf(sha256, ikm, salt, info, size),
  x25519(scalar, u) {
    try {
      return x25519.getSharedSecret(scalar, u)
    } catch {
      // That is how it refuses an all-zero result.
      return new Uint8Array(32)
    }
  },
  x25519PublicKey: (scalar) => x25519.getPublicKey(scalar),
  ed25519Key: (seed) => ({
    publicKey: ed25519.getPublicKey(seed),
    sign: (message) => ed25519.sign(message, seed),
  }),
  ed25519Verify(publicKey, message, signature) {
    try {
      // RFC 8032 §5.1.7, as the native backend: not the laxer ZIP 215.
      return ed25519.verify(signature, message, publicKey, { zip215: false })
    } catch {
      // A point or a scalar that does not decode.
      return false
    }
  },
})
