/*
 * The primitives in portable code that is small enough for every page: what browsers get. Identities sign with noble's
 * audited Ed25519; SHA-2 and X25519 are our own. No platform import.
 * What RSA, secp256k1 and P-256 keys need is loaded when first used (lazy-keys.ts).
 */
import { getPublicKey, hashes, sign, verify } from '@noble/ed25519'
import { backend } from './backend.ts'
import type { Crypto } from './crypto.ts'
import { hkdfSha256, hmacSha256, sha256, sha256Hasher, sha512 } from './sha2.ts'
import { x25519, x25519PublicKey } from './x25519.ts'

// Without it the synchronous functions have none.
hashes.sha512 = (message) => new Uint8Array(sha512(message))

export const portableCrypto: Crypto = backend({
  name: 'portable',
  sha256,
  sha256Hasher,
  sha512,
  hmacSha256,
  hkdfSha256,
  x25519,
  x25519PublicKey,
  ed25519Key: (seed) => ({ publicKey: getPublicKey(seed), sign: (message) => sign(message, seed) }),
  ed25519Verify(publicKey, message, signature) {
    try {
      // RFC 8032 §5.1.7, as the native backend: not the laxer ZIP 215.
      return verify(signature, message, publicKey, { zip215: false })
    } catch {
      // A point or a scalar that does not decode.
      return false
    }
  },
})

export const platformCrypto: Crypto = portableCrypto
