/*
 * The primitives on node:crypto. A key given as bytes costs about 11 us a call there, so every key is a KeyObject.
 * Small records are sealed in TypeScript: a call into the platform costs more than the work (measured: up to 1.4 KiB).
 */
import {
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPair,
  generateKeyPairSync,
  getCipherInfo,
  getCurves,
  hash,
  hkdfSync,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto'
import { concat, empty, fromHex } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { gatherBytes } from '../limits.ts'
import { ChaCha20Poly1305 } from './chacha20poly1305.ts'
import { decodeSignature, encodeSignature, scalarBytes } from './ecdsa.ts'
import type {
  Aead,
  Crypto,
  Curve,
  Ed25519PrivateKey,
  Ed25519PublicKey,
  Hasher,
  Signer,
  Verifier,
  X25519KeyPair,
} from './crypto.ts'
import { lazyKeys } from './lazy-keys.ts'

/** Records of at most this many bytes never reach node:crypto. */
const smallBytes = 1280
const tagBytes = 16

/** The same bytes without Buffer's methods: one byte type everywhere. */
function plain(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
}

/** Neighbours of up to `gatherBytes` as one: a call into the platform costs more than copying them. */
function gathered(chunks: readonly Uint8Array[]): readonly Uint8Array[] {
  if (!chunks.some((chunk, i) => i > 0 && chunk.length <= gatherBytes)) return chunks
  const out: Uint8Array[] = []
  let run: Uint8Array[] = []
  for (const chunk of chunks) {
    if (chunk.length <= gatherBytes) {
      run.push(chunk)
      continue
    }
    if (run.length > 0) out.push(concat(run))
    run = []
    out.push(chunk)
  }
  if (run.length > 0) out.push(concat(run))
  return out
}

class NativeAead implements Aead {
  readonly #key: Uint8Array
  readonly #small: ChaCha20Poly1305
  #object: KeyObject | undefined

  constructor(key: Uint8Array) {
    this.#small = new ChaCha20Poly1305(key)
    this.#key = key.slice()
  }

  get #handle(): KeyObject {
    this.#object ??= createSecretKey(this.#key)
    return this.#object
  }

  seal(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    out: Uint8Array,
    offset: number,
  ): number {
    if (total <= smallBytes) return this.#small.seal(nonce, ad, chunks, total, out, offset)
    const pieces: Uint8Array[] = []
    this.sealChunks(nonce, ad, chunks, total, pieces)
    let at = offset
    for (const piece of pieces) {
      out.set(piece, at)
      at += piece.length
    }
    return total + tagBytes
  }

  sealChunks(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    sealed: Uint8Array[],
  ): void {
    if (total <= smallBytes) {
      this.#small.sealChunks(nonce, ad, chunks, total, sealed)
      return
    }
    const cipher = createCipheriv('chacha20-poly1305', this.#handle, nonce, { authTagLength: tagBytes })
    if (ad.length > 0) cipher.setAAD(ad, { plaintextLength: total })
    let size = 0
    for (const chunk of gathered(chunks)) {
      sealed.push(plain(cipher.update(chunk)))
      size += chunk.length
    }
    if (size !== total) throw new RangeError(`chunks hold ${size} bytes, total says ${total}`)
    cipher.final()
    sealed.push(plain(cipher.getAuthTag()))
  }

  open(nonce: Uint8Array, ad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
    const size = sealed.length - tagBytes
    if (size <= smallBytes) return this.#small.open(nonce, ad, sealed)
    const decipher = createDecipheriv('chacha20-poly1305', this.#handle, nonce, { authTagLength: tagBytes })
    if (ad.length > 0) decipher.setAAD(ad, { plaintextLength: size })
    decipher.setAuthTag(sealed.subarray(size))
    const opened = decipher.update(sealed.subarray(0, size))
    try {
      decipher.final()
    } catch {
      // The one thing that final() has to say: the tag does not match.
      return undefined
    }
    return plain(opened)
  }
}

/**
 * A failed parse inside createPublicKey costs three quarters of an import, most of it for a stack trace that nobody
 * sees; it is synchronous, so nobody else meets the changed limit.
 */
function withoutTraces<T>(make: () => T): T {
  const before = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return make()
  } finally {
    Error.stackTraceLimit = before
  }
}

function okpPublic(crv: 'X25519' | 'Ed25519', raw: Uint8Array): KeyObject {
  const x = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64url')
  return withoutTraces(() => createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv, x } }))
}

// RFC 8410 §7: PKCS #8 around a 32-byte private key.
const pkcs8 = {
  X25519: fromHex('302e020100300506032b656e04220420'),
  Ed25519: fromHex('302e020100300506032b657004220420'),
}

function okpPrivate(crv: 'X25519' | 'Ed25519', raw: Uint8Array): KeyObject {
  if (raw.length !== 32) throw new RangeError(`${crv} private key of ${raw.length} bytes, want 32`)
  const key = Buffer.from(concat([pkcs8[crv], raw]))
  return withoutTraces(() => createPrivateKey({ format: 'der', type: 'pkcs8', key }))
}

/** Export as JWK is thirty times cheaper than as DER. */
function rawPart(key: KeyObject, part: 'x' | 'd'): Uint8Array {
  const text = key.export({ format: 'jwk' })[part]
  if (text === undefined) throw new TypeError(`key has no part ${part}`)
  return new Uint8Array(Buffer.from(text, 'base64url'))
}

class NativeX25519 implements X25519KeyPair {
  readonly publicKey: Uint8Array
  readonly #private: KeyObject

  constructor(privateKey: KeyObject, publicKey: KeyObject = createPublicKey(privateKey)) {
    this.#private = privateKey
    this.publicKey = rawPart(publicKey, 'x')
  }

  dh(publicKey: Uint8Array): Uint8Array {
    if (publicKey.length !== 32) {
      throw new ProtocolError('bad-handshake', `X25519 public key of ${publicKey.length} bytes, want 32`)
    }
    let shared: Uint8Array
    try {
      shared = plain(diffieHellman({ privateKey: this.#private, publicKey: okpPublic('X25519', publicKey) }))
    } catch (cause) {
      // OpenSSL refuses an all-zero result itself.
      throw new ProtocolError('bad-handshake', 'X25519 shared secret is all zero', { cause })
    }
    if (shared.every((byte) => byte === 0)) throw new ProtocolError('bad-handshake', 'X25519 shared secret is all zero')
    return shared
  }
}

class NativeEd25519 implements Ed25519PrivateKey {
  readonly publicKey: Uint8Array
  readonly #private: KeyObject
  #seed: Uint8Array | undefined

  constructor(privateKey: KeyObject, publicKey: KeyObject = createPublicKey(privateKey)) {
    this.#private = privateKey
    this.publicKey = rawPart(publicKey, 'x')
  }

  get seed(): Uint8Array {
    this.#seed ??= rawPart(this.#private, 'd')
    return this.#seed
  }

  sign(message: Uint8Array): Promise<Uint8Array> {
    return signed(null, message, this.#private)
  }
}

/**
 * y of the points of order 1, 2, 4 and 8, with the encodings above the prime: with such a key anybody's signature
 * verifies for some messages. Not every OpenSSL refuses them.
 */
const smallOrder = new Set([
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
])

function isSmallOrder(publicKey: Uint8Array): boolean {
  const y = Buffer.from(publicKey)
  y[31] = (y[31] as number) & 0x7f
  return smallOrder.has(y.toString('hex'))
}

class NativeEd25519Public implements Ed25519PublicKey {
  readonly #key: KeyObject | undefined

  constructor(publicKey: Uint8Array) {
    const good = publicKey.length === 32 && !isSmallOrder(publicKey)
    this.#key = good ? okpPublic('Ed25519', publicKey) : undefined
  }

  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean> {
    const key = this.#key
    if (key === undefined || signature.length !== 64) return Promise.resolve(false)
    return new Promise((resolve) => verify(null, message, key, signature, (error, ok) => resolve(error === null && ok)))
  }
}

/** Names that OpenSSL has for the curves, and the DER before a public point and a private scalar. */
const curves: Readonly<Record<Curve, { name: string; spki: Uint8Array; pkcs8: Uint8Array }>> = {
  // RFC 5480 §2, RFC 5958 §2 with RFC 5915 §3; BoringSSL (Bun) reads no ECPrivateKey that is not in a PKCS#8 one.
  secp256k1: {
    name: 'secp256k1',
    spki: fromHex('301006072a8648ce3d020106052b8104000a03'),
    pkcs8: fromHex('303e020100301006072a8648ce3d020106052b8104000a042730250201010420'),
  },
  'P-256': {
    name: 'prime256v1',
    spki: fromHex('301306072a8648ce3d020106082a8648ce3d03010703'),
    pkcs8: fromHex('3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420'),
  },
}

class NativeEcdsaPublic implements Verifier {
  readonly #curve: Curve
  readonly #key: KeyObject | undefined

  constructor(curve: Curve, point: Uint8Array) {
    const { spki } = curves[curve]
    this.#curve = curve
    const head = Uint8Array.of(0x30, spki.length + point.length + 2, ...spki, point.length + 1, 0)
    // A point that is not on the curve does not import.
    this.#key = importPublic(concat([head, point]))
  }

  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean> {
    const compact = decodeSignature(signature, this.#curve)
    if (this.#key === undefined || compact === undefined) return Promise.resolve(false)
    const key = { key: this.#key, dsaEncoding: 'ieee-p1363' } as const
    return new Promise((done) => verify('sha256', message, key, compact, (error, ok) => done(error === null && ok)))
  }
}

class NativeEcdsa implements Signer {
  readonly #curve: Curve
  readonly #key: KeyObject

  constructor(curve: Curve, scalar: Uint8Array) {
    this.#curve = curve
    const key = Buffer.from(concat([curves[curve].pkcs8, scalar]))
    this.#key = createPrivateKey({ format: 'der', type: 'pkcs8', key })
  }

  async sign(message: Uint8Array): Promise<Uint8Array> {
    const key = { key: this.#key, dsaEncoding: 'ieee-p1363' } as const
    return encodeSignature(await signed('sha256', message, key), this.#curve)
  }
}

class NativeRsaPublic implements Verifier {
  readonly #key: KeyObject | undefined

  constructor(spki: Uint8Array) {
    this.#key = importPublic(spki)
  }

  verify(message: Uint8Array, signature: Uint8Array): Promise<boolean> {
    const key = this.#key
    if (key === undefined) return Promise.resolve(false)
    return new Promise((done) => verify('sha256', message, key, signature, (error, ok) => done(error === null && ok)))
  }
}

class NativeRsa implements Signer {
  readonly #key: KeyObject

  constructor(pkcs1: Uint8Array) {
    this.#key = createPrivateKey({ format: 'der', type: 'pkcs1', key: Buffer.from(pkcs1) })
  }

  sign(message: Uint8Array): Promise<Uint8Array> {
    return signed('sha256', message, this.#key)
  }
}

function importPublic(spki: Uint8Array): KeyObject | undefined {
  try {
    return withoutTraces(() => createPublicKey({ format: 'der', type: 'spki', key: Buffer.from(spki) }))
  } catch {
    // Whatever OpenSSL has against it: no signature verifies with such a key.
    return undefined
  }
}

function signed(
  algorithm: 'sha256' | null,
  message: Uint8Array,
  key: KeyObject | { key: KeyObject; dsaEncoding: 'ieee-p1363' },
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    sign(algorithm, message, key, (error, signature) => {
      if (error === null) resolve(plain(signature))
      else reject(error)
    })
  })
}

function rsaGenerate(modulusLength: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    generateKeyPair('rsa', { modulusLength, publicExponent: 65_537 }, (error, _public, key) => {
      if (error === null) resolve(plain(key.export({ format: 'der', type: 'pkcs1' })))
      else reject(error)
    })
  })
}

function ecPoint(curve: Curve, scalar: Uint8Array): Uint8Array {
  const ecdh = createECDH(curves[curve].name)
  ecdh.setPrivateKey(scalar)
  return plain(ecdh.getPublicKey())
}

function ecGenerate(curve: Curve): Uint8Array {
  const ecdh = createECDH(curves[curve].name)
  ecdh.generateKeys()
  const scalar = ecdh.getPrivateKey()
  const out = new Uint8Array(scalarBytes)
  // OpenSSL drops leading zeros.
  out.set(scalar, scalarBytes - scalar.length)
  return out
}

class NativeHasher implements Hasher {
  readonly #hash = createHash('sha256')

  update(bytes: Uint8Array): Hasher {
    this.#hash.update(bytes)
    return this
  }

  digest(): Uint8Array {
    return plain(this.#hash.digest())
  }
}

/** What is asked of the platform once, when first needed. */
function once(ask: () => boolean): () => boolean {
  let answer: boolean | undefined
  return () => (answer ??= ask())
}

// Bun 1.4, on BoringSSL, has neither.
const hasChaCha = once(() => getCipherInfo('chacha20-poly1305') !== undefined)
const hasSecp256k1 = once(() => getCurves().includes('secp256k1'))
const hasCurve = (curve: Curve): boolean => curve !== 'secp256k1' || hasSecp256k1()

function digest(algorithm: 'sha256' | 'sha512', chunks: Uint8Array[]): Uint8Array {
  const [first] = chunks
  if (chunks.length <= 1) return plain(hash(algorithm, first ?? empty, 'buffer'))
  const hasher = createHash(algorithm)
  for (const chunk of chunks) hasher.update(chunk)
  return plain(hasher.digest())
}

export const nativeCrypto: Crypto = {
  name: 'native',
  sha256: (...chunks) => digest('sha256', chunks),
  sha256Hasher: () => new NativeHasher(),
  sha512: (...chunks) => digest('sha512', chunks),
  hmacSha256: (key, ...chunks) => {
    const hmac = createHmac('sha256', createSecretKey(key))
    for (const chunk of chunks) hmac.update(chunk)
    return plain(hmac.digest())
  },
  hkdfSha256: (salt, ikm, info, size) => new Uint8Array(hkdfSync('sha256', createSecretKey(ikm), salt, info, size)),
  chaCha20Poly1305: (key) => (hasChaCha() ? new NativeAead(key) : new ChaCha20Poly1305(key)),
  x25519Generate: () => {
    const { privateKey, publicKey } = generateKeyPairSync('x25519')
    return new NativeX25519(privateKey, publicKey)
  },
  x25519From: (privateKey) => new NativeX25519(okpPrivate('X25519', privateKey)),
  ed25519Generate: () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    return new NativeEd25519(privateKey, publicKey)
  },
  ed25519From: (seed) => new NativeEd25519(okpPrivate('Ed25519', seed)),
  ed25519Public: (publicKey) => new NativeEd25519Public(publicKey),
  ed25519Verify: (publicKey, message, signature) => new NativeEd25519Public(publicKey).verify(message, signature),
  rsaPublic: (spki) => new NativeRsaPublic(spki),
  rsaPrivate: (pkcs1) => new NativeRsa(pkcs1),
  rsaGenerate,
  ecdsaPublic: (curve, point) =>
    hasCurve(curve) ? new NativeEcdsaPublic(curve, point) : lazyKeys.ecdsaPublic(curve, point),
  ecdsaPrivate: (curve, scalar) =>
    hasCurve(curve) ? new NativeEcdsa(curve, scalar) : lazyKeys.ecdsaPrivate(curve, scalar),
  ecPoint: (curve, scalar) => (hasCurve(curve) ? ecPoint(curve, scalar) : lazyKeys.ecPoint(curve, scalar)),
  ecGenerate: async (curve) => (hasCurve(curve) ? ecGenerate(curve) : lazyKeys.ecGenerate(curve)),
}

export const platformCrypto: Crypto = nativeCrypto
