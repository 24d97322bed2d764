/*
 * The list of primitives that the protocols need. Three backends implement it: native.ts (node:crypto), portable.ts
 * (ours, for browsers) and noble.ts (audited). `#crypto` picks one of the first two when the code is built or loaded;
 * all must agree byte for byte.
 * Synchronous, except for identity signatures: those are slow enough to leave the thread.
 * Arguments are read during the call and not kept, unless it says so; results are fresh memory.
 */
import type { Curve } from './ecdsa.ts'

/** A ChaCha20-Poly1305 key (RFC 8439 §2.8) bound to its handle, so that nothing is imported per record. */
export interface Aead {
  /**
   * Seals the concatenation of `chunks` into `out` at `offset`: ciphertext, then the 16-byte tag.
   * `nonce` is 12 bytes. `total` is the plaintext's length. Returns bytes written (total + 16).
   */
  seal(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    out: Uint8Array,
    offset: number,
  ): number
  /**
   * The same for large records: pushes one or more pieces (ciphertext, then tag) onto `sealed` and copies nothing
   * that the platform's cipher has put into memory of its own.
   */
  sealChunks(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    sealed: Uint8Array[],
  ): void
  /** The plaintext of `sealed` (ciphertext and tag), fresh memory; undefined when the tag does not match. */
  open(nonce: Uint8Array, ad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined
}

/** An X25519 key pair (RFC 7748). */
export interface X25519KeyPair {
  /** 32 bytes, u-coordinate. */
  readonly publicKey: Uint8Array
  /** 32 bytes shared secret; throws ProtocolError `bad-handshake` when it is all zero (RFC 7748 §6.1). */
  dh(publicKey: Uint8Array): Uint8Array
}

export type { Curve } from './ecdsa.ts'

export interface Hasher {
  update(bytes: Uint8Array): Hasher
  /** Once; the hasher is of no use afterwards. */
  digest(): Uint8Array
}

export interface Ed25519PrivateKey {
  /** 32 bytes (RFC 8032 §5.1.5). */
  readonly publicKey: Uint8Array
  /** 32 bytes. */
  readonly seed: Uint8Array
  /** 64 bytes. `message` must not change until the promise settles. */
  sign(message: Uint8Array): Promise<Uint8Array>
}

/** A public key imported once, for whoever verifies with it more than once. */
export interface Ed25519PublicKey {
  /** Never rejects: false for anything that does not verify. Arguments must not change until the promise settles. */
  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean>
}

/** A public key of an identity, imported once. */
export interface Verifier {
  /**
   * False for anything that does not verify, malformed keys and signatures included. Arguments must not change until
   * the promise settles. Rejects only with UnavailableError `unsupported`, where the platform has not what it takes.
   */
  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean>
}

/** A private key of an identity, imported once. */
export interface Signer {
  /** `message` must not change until the promise settles. */
  sign(message: Uint8Array): Promise<Uint8Array>
}

export interface Crypto {
  readonly name: 'native' | 'portable' | 'noble'
  /** 32 bytes of SHA-256 over the concatenation. */
  sha256(...chunks: Uint8Array[]): Uint8Array
  sha256Hasher(): Hasher
  /** 64 bytes. */
  sha512(...chunks: Uint8Array[]): Uint8Array
  /** 32 bytes of HMAC-SHA-256. */
  hmacSha256(key: Uint8Array, ...chunks: Uint8Array[]): Uint8Array
  /** HKDF-SHA-256, extract and expand (RFC 5869 §2); `size` is at most 8160 bytes. Empty `info` is Noise's HKDF (§4.3). */
  hkdfSha256(salt: Uint8Array, ikm: Uint8Array, info: Uint8Array, size: number): Uint8Array
  /** `key` is 32 bytes. */
  chaCha20Poly1305(key: Uint8Array): Aead
  x25519Generate(): X25519KeyPair
  /** From a 32-byte private scalar: for vectors and pinned static keys. */
  x25519From(privateKey: Uint8Array): X25519KeyPair
  ed25519Generate(): Ed25519PrivateKey
  /** From a 32-byte seed; throws RangeError on any other length. */
  ed25519From(seed: Uint8Array): Ed25519PrivateKey
  /** From 32 bytes; a malformed key gives one that verifies nothing. */
  ed25519Public(publicKey: Uint8Array): Ed25519PublicKey
  /** False for anything that does not verify, malformed keys and signatures included. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean>
  /** RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2), from SubjectPublicKeyInfo DER whose form and size are checked. */
  rsaPublic(spki: Uint8Array): Verifier
  /** From RSAPrivateKey DER (RFC 8017 A.1.2) whose numbers are checked. */
  rsaPrivate(pkcs1: Uint8Array): Signer
  /** RSAPrivateKey DER with exponent 65537. Rejects with UnavailableError `unsupported` where there is no RSA. */
  rsaGenerate(modulusBits: number): Promise<Uint8Array>
  /** ECDSA with SHA-256 and DER signatures, from an encoded point (SEC 1 §2.3.3). A high s verifies too. */
  ecdsaPublic(curve: Curve, point: Uint8Array): Verifier
  /** From a scalar of 32 bytes, 1 to the order less one. Its signatures on secp256k1 have a low s. */
  ecdsaPrivate(curve: Curve, scalar: Uint8Array): Signer
  /** The uncompressed point (65 bytes) of such a scalar; a promise where the curves' code is loaded when first used. */
  ecPoint(curve: Curve, scalar: Uint8Array): Uint8Array | Promise<Uint8Array>
  /** Such a scalar. */
  ecGenerate(curve: Curve): Promise<Uint8Array>
}
