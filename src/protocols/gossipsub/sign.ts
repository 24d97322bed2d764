/*
 * pubsub §Message Signing: the policies StrictSign and StrictNoSign. Left out: the lax ones (legacy, insecure).
 * The text signs all but the signature; go, js and rust leave the key out too, and so do we. They check a message as they
 * would write it, not as it came, and so do we: what we forward must verify with them. Fields that nobody knows are
 * signed too (text and go). Keys are read as leniently as they do: whoever forwards such a message is not to blame.
 */
import { concat, equals, fromUtf8 } from '../../bytes.ts'
import { PeerId } from '../../peer/id.ts'
import { decodePublicKey, type PrivateKey, type PublicKey } from '../../peer/keys.ts'
import { bytes, int32, limited, message as schema, Reader, required } from '../../protobuf.ts'
import { encodeMessage, fieldBytes, idKey, type WireMessage } from './wire.ts'

export type SignaturePolicy = 'StrictSign' | 'StrictNoSign'

/** Why a message does not keep to the policy. */
export type Refusal =
  | 'missing-topic'
  | 'missing-from'
  | 'bad-from'
  | 'bad-seqno'
  | 'missing-signature'
  | 'missing-key'
  | 'bad-key'
  | 'unreadable-key'
  | 'unexpected-from'
  | 'unexpected-seqno'
  | 'unexpected-signature'
  | 'unexpected-key'

type KeyRefusal = Extract<Refusal, 'bad-from' | 'missing-key' | 'bad-key' | 'unreadable-key'>

const prefix = fromUtf8('libp2p-pubsub:')
/** Big-endian. */
const seqnoBytes = 8
/** Bytes of the longest peer id: a multihash of 42 bytes with two before it. */
const peerIdBytes = 44
/** Of the key field: an RSA key of 8192 bits has 1062. */
const Key = schema({ type: [1, required(int32)], data: [2, required(limited(bytes, 1200))] })

/** Keys of authors, checked and imported, by peer id; the one that was used least recently goes. */
export class AuthorKeys {
  readonly #maxKeys: number
  readonly #keys = new Map<string, PublicKey>()

  /** About 1.8 KiB each with Ed25519, 4 KiB with RSA of 2048 bits. */
  constructor(maxKeys = 1024) {
    if (!Number.isInteger(maxKeys) || maxKeys < 1) throw new RangeError(`maxKeys of ${maxKeys}, want 1 or more`)
    this.#maxKeys = maxKeys
  }

  get size(): number {
    return this.#keys.size
  }

  /** The key that must have signed it. */
  of({ from, key }: Pick<WireMessage, 'from' | 'key'>): PublicKey | 'missing-from' | KeyRefusal {
    if (from === undefined) return 'missing-from'
    if (from.length > peerIdBytes) return 'bad-from'
    const author = idKey(from)
    let known = this.#keys.get(author)
    // An identity multihash holds the key; of any other it is the hash.
    if (known !== undefined && (key === undefined ? from[0] === 0 : equals(key, known.encoded))) {
      this.#keys.delete(author)
    } else {
      const found = readKey(from, key)
      if (typeof found === 'string') return found
      this.#keys.delete(author)
      known ??= found
    }
    this.#keys.set(author, known)
    if (this.#keys.size > this.#maxKeys) {
      for (const oldest of this.#keys.keys()) {
        this.#keys.delete(oldest)
        break
      }
    }
    return known
  }
}

function readKey(from: Uint8Array, key: Uint8Array | undefined): PublicKey | KeyRefusal {
  if (key === undefined) {
    let id: PeerId
    try {
      id = PeerId.decode(from)
    } catch {
      return 'bad-from'
    }
    return id.publicKeyBytes === undefined ? 'missing-key' : decodePublicKey(id.publicKeyBytes)
  }
  try {
    const read = decodePublicKey(Key.encode(Key.decode(key)))
    return equals(read.peerId.bytes, from) ? read : 'bad-key'
  } catch {
    return 'unreadable-key'
  }
}

/** Why the message is to be rejected before anything else is done with it, or undefined. Its signature is not checked. */
export function checkFields(message: WireMessage, policy: SignaturePolicy, keys: AuthorKeys): Refusal | undefined {
  const { from, seqno, signature, key, topic } = message
  if (topic === '') return 'missing-topic'
  if (policy === 'StrictNoSign') {
    // Absent, not empty (§Signature verification).
    if (signature !== undefined) return 'unexpected-signature'
    if (from !== undefined) return 'unexpected-from'
    if (seqno !== undefined) return 'unexpected-seqno'
    return key === undefined ? undefined : 'unexpected-key'
  }
  if (signature === undefined) return 'missing-signature'
  if (seqno?.length !== seqnoBytes) return 'bad-seqno'
  const found = keys.of(message)
  return typeof found === 'string' ? found : undefined
}

/** What a signature is over. */
export function signedBytes({ from, data, seqno, topic, signature, key, raw }: WireMessage): Uint8Array {
  const signed = encodeMessage({ from, data, seqno, topic }, prefix)
  let size = signed.length - prefix.length
  for (const field of [signature, key]) if (field !== undefined) size += fieldBytes(field.length)
  // Only then there is something in it that is not known, or known twice, or written in a longer way.
  return size === raw.length ? signed : concat([signed, ...unknownFields(raw)])
}

function unknownFields(raw: Uint8Array): Uint8Array[] {
  const out: Uint8Array[] = []
  const r = new Reader(raw)
  while (!r.done) {
    const start = r.at
    const tag = r.varint53()
    r.skip(tag & 7)
    if (tag >>> 3 > 6) out.push(raw.subarray(start, r.at))
  }
  return out
}

/**
 * Whether the author signed it. Rejects with UnavailableError `unsupported` where this platform can't check a key of
 * this type: that is not the peer's fault. The message's memory must not change until then.
 */
export async function verifyMessage(message: WireMessage, keys: AuthorKeys): Promise<boolean> {
  const key = keys.of(message)
  if (typeof key === 'string' || message.signature === undefined) return false
  return key.verify(signedBytes(message), message.signature)
}

/** Rejects with RangeError when `seqno` has not 8 bytes. */
export async function signMessage(
  privateKey: PrivateKey,
  { topic, data, seqno }: { topic: string; data: Uint8Array; seqno: Uint8Array },
): Promise<WireMessage> {
  if (seqno.length !== seqnoBytes) throw new RangeError(`seqno of ${seqno.length} bytes, want ${seqnoBytes}`)
  const { peerId, encoded } = privateKey.publicKey
  const fields = { from: peerId.bytes, data, seqno, topic }
  const signature = await privateKey.sign(encodeMessage(fields, prefix))
  // §The Message: the key goes along where the peer id does not hold it.
  const key = peerId.publicKeyBytes === undefined ? encoded : undefined
  return { ...fields, signature, key, raw: encodeMessage({ ...fields, signature, key }) }
}

/** A message of StrictNoSign. */
export function plainMessage(topic: string, data: Uint8Array): WireMessage {
  const fields = { from: undefined, data, seqno: undefined, topic, signature: undefined, key: undefined }
  return { ...fields, raw: encodeMessage(fields) }
}
