/*
 * libp2p peer-ids (3A r2, 2021-04-30) §Peer Ids: the multihash of a public key message, identity where the key is short.
 * Text is base58btc of the multihash (1..., Qm...) or a CIDv1 with codec libp2p-key in any multibase.
 */
import { platformCrypto } from '#crypto'
import { concat, equals } from '../bytes.ts'
import type { Crypto } from '../crypto/crypto.ts'
import { ProtocolError } from '../errors.ts'
import { decodeBase, decodeMultibase, encodeBase, encodeMultibase } from '../multibase.ts'
import { decodePublicKeyMessage } from './key-wire.ts'

/** Bytes of a public key message that stands in the id itself; longer ones are hashed. */
const inlineBytes = 42
/** Characters of a peer id as text: an identity CID in hex has 93. */
const textLength = 128
/** CIDv1, multicodec libp2p-key. */
const cidPrefix = Uint8Array.of(0x01, 0x72)

/** Who a peer is. Immutable; two are the same peer when `equals` says so or their texts are the same. */
export class PeerId {
  /** The multihash: identity of a key message of up to 42 bytes, or sha2-256. */
  readonly bytes: Uint8Array
  /** The public key message where the id holds it (Ed25519, Secp256k1); undefined where it is hashed (RSA, ECDSA). */
  readonly publicKeyBytes: Uint8Array | undefined
  #text: string | undefined

  private constructor(multihash: Uint8Array) {
    this.bytes = multihash
    this.publicKeyBytes = multihash[0] === 0 ? multihash.subarray(2) : undefined
  }

  /** From a public key message (not from the bare key). Throws ProtocolError `bad-key` when it is none. */
  static fromPublicKey(encoded: Uint8Array, crypto: Pick<Crypto, 'sha256'> = platformCrypto): PeerId {
    decodePublicKeyMessage(encoded)
    if (encoded.length <= inlineBytes) return new PeerId(concat([Uint8Array.of(0, encoded.length), encoded]))
    return new PeerId(concat([Uint8Array.of(0x12, 32), crypto.sha256(encoded)]))
  }

  /** From the multihash that a peer sent. Throws ProtocolError `bad-peer-id`. The bytes are copied. */
  static decode(multihash: Uint8Array): PeerId {
    const [code, length] = multihash
    const size = multihash.length - 2
    if (code === 0x12 && length === 32 && size === 32) return new PeerId(multihash.slice())
    if (code !== 0 || length !== size || size > inlineBytes) {
      throw new ProtocolError(
        'bad-peer-id',
        `peer id of ${multihash.length} bytes is neither sha2-256 nor the identity of a key of up to ${inlineBytes} bytes`,
      )
    }
    try {
      decodePublicKeyMessage(multihash.subarray(2))
    } catch (cause) {
      throw new ProtocolError('bad-peer-id', 'peer id holds no valid public key', { cause })
    }
    return new PeerId(multihash.slice())
  }

  /** From a user's text: base58btc (1..., Qm...) or a CIDv1 with codec libp2p-key. Throws TypeError. */
  static parse(text: string): PeerId {
    try {
      return PeerId.decode(parseMultihash(text))
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new TypeError(`${JSON.stringify(text.slice(0, textLength))} is not a peer id: ${reason}`, { cause })
    }
  }

  /** base58btc of the multihash, the form that is shown and logged. */
  toString(): string {
    return (this.#text ??= encodeBase('base58btc', this.bytes))
  }

  /** CIDv1 with codec libp2p-key, in base32 unless told: the spec's default. Base36 of an Ed25519 id fits a DNS label. */
  toCid(base: 'base32' | 'base36' = 'base32'): string {
    return encodeMultibase(base, concat([cidPrefix, this.bytes]))
  }

  equals(other: PeerId): boolean {
    return this === other || equals(this.bytes, other.bytes)
  }

  toJSON(): string {
    return this.toString()
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `PeerId(${this.toString()})`
  }
}

function parseMultihash(text: string): Uint8Array {
  // '1' and 'Q' are no multibase prefixes: that is how the two forms are told apart
  if (text.startsWith('1') || text.startsWith('Qm')) return decodeBase('base58btc', text, textLength)
  const { bytes: cid } = decodeMultibase(text, textLength)
  if (cid[0] !== cidPrefix[0]) throw new TypeError(`it is not a CIDv1 but starts with byte ${cid[0] ?? 'none'}`)
  if (cid[1] !== cidPrefix[1]) throw new TypeError('the codec of its CID is not libp2p-key (0x72)')
  return cid.subarray(2)
}
