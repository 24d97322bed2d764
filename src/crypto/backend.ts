/* A backend made of plain functions: what the two portable ones (portable.ts, noble.ts) have in common. */
import { ProtocolError } from '../errors.ts'
import { ChaCha20Poly1305 } from './chacha20poly1305.ts'
import type { Crypto, Ed25519PrivateKey, Ed25519PublicKey, X25519KeyPair } from './crypto.ts'
import { lazyKeys } from './lazy-keys.ts'

export interface Primitives extends Pick<
  Crypto,
  'name' | 'sha256' | 'sha256Hasher' | 'sha512' | 'hmacSha256' | 'hkdfSha256'
> {
  /** RFC 7748 §5, of 32 bytes each; all zero for a u of small order. */
  x25519(scalar: Uint8Array, u: Uint8Array): Uint8Array
  x25519PublicKey(scalar: Uint8Array): Uint8Array
  /** RFC 8032 §5.1.5 and §5.1.6, from a seed of 32 bytes. */
  ed25519Key(seed: Uint8Array): { readonly publicKey: Uint8Array; sign(message: Uint8Array): Uint8Array }
  /** RFC 8032 §5.1.7, of a key of 32 bytes and a signature of 64. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
}

function random32(): Uint8Array {
  return globalThis.crypto.getRandomValues(new Uint8Array(32))
}

export function backend(primitives: Primitives): Crypto {
  const { name, sha256, sha256Hasher, sha512, hmacSha256, hkdfSha256 } = primitives

  function x25519From(privateKey: Uint8Array): X25519KeyPair {
    if (privateKey.length !== 32) throw new RangeError(`X25519 private key of ${privateKey.length} bytes, want 32`)
    const scalar = privateKey.slice()
    return {
      publicKey: primitives.x25519PublicKey(scalar),
      dh(publicKey) {
        if (publicKey.length !== 32) {
          throw new ProtocolError('bad-handshake', `X25519 public key of ${publicKey.length} bytes, want 32`)
        }
        const shared = primitives.x25519(scalar, publicKey)
        if (shared.some((byte) => byte !== 0)) return shared
        throw new ProtocolError('bad-handshake', 'X25519 shared secret is all zero')
      },
    }
  }

  function ed25519From(bytes: Uint8Array): Ed25519PrivateKey {
    if (bytes.length !== 32) throw new RangeError(`Ed25519 seed of ${bytes.length} bytes, want 32`)
    const seed = bytes.slice()
    const key = primitives.ed25519Key(seed)
    return { seed, publicKey: key.publicKey, sign: async (message) => key.sign(message) }
  }

  function ed25519Public(publicKey: Uint8Array): Ed25519PublicKey {
    const key = publicKey.slice()
    return {
      verify: async (message, signature) =>
        key.length === 32 && signature.length === 64 && primitives.ed25519Verify(key, message, signature),
    }
  }

  return {
    name,
    sha256,
    sha256Hasher,
    sha512,
    hmacSha256,
    hkdfSha256,
    chaCha20Poly1305: (key) => new ChaCha20Poly1305(key),
    x25519Generate: () => x25519From(random32()),
    x25519From,
    ed25519Generate: () => ed25519From(random32()),
    ed25519From,
    ed25519Public,
    ed25519Verify: (publicKey, message, signature) => ed25519Public(publicKey).verify(message, signature),
    ...lazyKeys,
  }
}
