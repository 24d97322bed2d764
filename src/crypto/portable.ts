/*
 * The primitives in portable code of our own, small enough for every page: what browsers get. No platform import.
 * What RSA, secp256k1 and P-256 keys need is loaded when first used (lazy-keys.ts).
 */
import { backend } from './backend.ts'
import type { Crypto } from './crypto.ts'
import { ed25519Key, ed25519Verify, x25519, x25519PublicKey } from './curve25519.ts'
import { hkdfSha256, hmacSha256, sha256, sha256Hasher, sha512 } from './sha2.ts'

export const portableCrypto: Crypto = backend({
  name: 'portable',
  sha256,
  sha256Hasher,
  sha512,
  hmacSha256,
  hkdfSha256,
  x25519,
  x25519PublicKey,
  ed25519Key: (seed) => ed25519Key(seed, sha512),
  ed25519Verify: (publicKey, message, signature) => ed25519Verify(publicKey, message, signature, sha512),
})

export const platformCrypto: Crypto = portableCrypto
