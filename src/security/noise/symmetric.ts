/*
 * Noise protocol framework rev 34, §5.1 CipherState and §5.2 SymmetricState, with ChaChaPoly and SHA256.
 * Left out: Rekey (libp2p never uses it).
 */
import { concat, empty, fromUtf8 } from '../../bytes.ts'
import type { Aead, Crypto } from '../../crypto/crypto.ts'
import { LimitError, ProtocolError } from '../../errors.ts'

const tagBytes = 16

/** §5.1: a key and the number of messages it was used for. */
export class CipherState {
  readonly #aead: Aead
  // §12.3: 32 zero bits, then n as u64 little-endian.
  readonly #nonce = new Uint8Array(12)
  #n: number

  constructor(aead: Aead, n = 0) {
    this.#aead = aead
    this.#n = n
    for (let i = 4, rest = n; i < 12; i++, rest = Math.floor(rest / 256)) this.#nonce[i] = rest % 256
  }

  get n(): number {
    return this.#n
  }

  clone(): CipherState {
    return new CipherState(this.#aead, this.#n)
  }

  /** The spec's own end is 2^64-1; a number stays exact up to 2^53-1, which no connection reaches either. */
  #check(): void {
    if (this.#n < Number.MAX_SAFE_INTEGER) return
    throw new LimitError('nonce', Number.MAX_SAFE_INTEGER, this.#n, 'this key has sealed all the records it may')
  }

  #advance(): void {
    this.#n++
    for (let i = 4; i < 12; i++) {
      const next = (this.#nonce[i] as number) + 1
      this.#nonce[i] = next
      if (next < 256) return
    }
  }

  /** §5.1 EncryptWithAd, into `out` at `offset`; returns bytes written. Throws LimitError when the nonces are used up. */
  seal(
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    out: Uint8Array = new Uint8Array(total + tagBytes),
    offset = 0,
  ): Uint8Array {
    this.#check()
    this.#aead.seal(this.#nonce, ad, chunks, total, out, offset)
    this.#advance()
    return out
  }

  /** The same for large records: pushes pieces onto `sealed`. */
  sealChunks(ad: Uint8Array, chunks: readonly Uint8Array[], total: number, sealed: Uint8Array[]): void {
    this.#check()
    this.#aead.sealChunks(this.#nonce, ad, chunks, total, sealed)
    this.#advance()
  }

  /** §5.1 DecryptWithAd. Throws ProtocolError `decrypt-failed`; the nonce then stays where it was. */
  open(ad: Uint8Array, sealed: Uint8Array): Uint8Array {
    this.#check()
    const plaintext = this.#aead.open(this.#nonce, ad, sealed)
    if (plaintext === undefined) {
      throw new ProtocolError('decrypt-failed', `message ${this.#n} of ${sealed.length} bytes does not decrypt`)
    }
    this.#advance()
    return plaintext
  }
}

/** §5.2: chaining key, transcript hash and the cipher they lead to. */
export class SymmetricState {
  readonly #crypto: Crypto
  #ck: Uint8Array
  #h: Uint8Array
  #cipher: CipherState | undefined

  private constructor(crypto: Crypto, ck: Uint8Array, h: Uint8Array, cipher: CipherState | undefined) {
    this.#crypto = crypto
    this.#ck = ck
    this.#h = h
    this.#cipher = cipher
  }

  static initialize(crypto: Crypto, protocolName: string): SymmetricState {
    const name = fromUtf8(protocolName)
    // A name of at most HASHLEN bytes is padded with zeros, a longer one hashed.
    const h = name.length > 32 ? crypto.sha256(name) : concat([name, new Uint8Array(32 - name.length)])
    return new SymmetricState(crypto, h, h, undefined)
  }

  /** To work on until every check has passed: only then does the original give way. */
  clone(): SymmetricState {
    return new SymmetricState(this.#crypto, this.#ck, this.#h, this.#cipher?.clone())
  }

  get handshakeHash(): Uint8Array {
    return this.#h
  }

  get hasKey(): boolean {
    return this.#cipher !== undefined
  }

  /** §4.3 HKDF: `outputs` times 32 bytes. */
  #hkdf(ikm: Uint8Array, outputs: 2 | 3): Uint8Array[] {
    const out = this.#crypto.hkdfSha256(this.#ck, ikm, empty, 32 * outputs)
    return Array.from({ length: outputs }, (_, i) => out.subarray(32 * i, 32 * i + 32))
  }

  #keyed(key: Uint8Array): CipherState {
    return new CipherState(this.#crypto.chaCha20Poly1305(key))
  }

  mixKey(ikm: Uint8Array): void {
    const [ck, key] = this.#hkdf(ikm, 2) as [Uint8Array, Uint8Array]
    this.#ck = ck
    this.#cipher = this.#keyed(key)
  }

  mixHash(data: Uint8Array): void {
    this.#h = this.#crypto.sha256(this.#h, data)
  }

  mixKeyAndHash(ikm: Uint8Array): void {
    const [ck, hash, key] = this.#hkdf(ikm, 3) as [Uint8Array, Uint8Array, Uint8Array]
    this.#ck = ck
    this.mixHash(hash)
    this.#cipher = this.#keyed(key)
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    const sealed = this.#cipher?.seal(this.#h, [plaintext], plaintext.length) ?? plaintext
    this.mixHash(sealed)
    return sealed
  }

  /** Throws ProtocolError `decrypt-failed`. */
  decryptAndHash(sealed: Uint8Array): Uint8Array {
    const plaintext = this.#cipher?.open(this.#h, sealed) ?? sealed
    this.mixHash(sealed)
    return plaintext
  }

  /** First the initiator's sending cipher, then the responder's. */
  split(): [CipherState, CipherState] {
    const [k1, k2] = this.#hkdf(empty, 2) as [Uint8Array, Uint8Array]
    return [this.#keyed(k1), this.#keyed(k2)]
  }
}
