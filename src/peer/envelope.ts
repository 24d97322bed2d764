/*
 * Signed envelopes (libp2p RFC 0002) and peer records (RFC 0003): addresses that a peer vouches for, whoever carries them.
 * As deployed: the domain is `libp2p-peer-record`, the payload type the bytes 03 01 (not the varint of 0x0301).
 * Left out: keeping records and choosing between them (a record is newer when its `seq` is higher).
 */
import { platformCrypto } from '#crypto'
import { concat, equals, fromUtf8, toHex } from '../bytes.ts'
import type { Crypto } from '../crypto/crypto.ts'
import { ProtocolError } from '../errors.ts'
import { decodeMultiaddr, type Multiaddr } from '../multiaddr.ts'
import { bytes, limited, message, repeated, required, uint64 } from '../protobuf.ts'
import { encodeVarint } from '../varint.ts'
import { PeerId } from './id.ts'
import { decodePublicKey } from './keys.ts'
import type { PrivateKey, PublicKey } from './keys.ts'

/** Bytes of an envelope, and of what it may be sealed with: go-libp2p's identify sends at most 8 KiB. */
export const maxEnvelopeBytes = 8 * 1024
/** Addresses in a record; one more is refused. Go-libp2p and Kubo send about a dozen. */
export const maxRecordAddrs = 256

export const peerRecordDomain = 'libp2p-peer-record'
export const peerRecordType: Uint8Array = Uint8Array.of(0x03, 0x01)

// RFC 0002 §Wire Format; there is no field 4. The key's limits are those of its own message.
const EnvelopeMessage = message({
  publicKey: [1, required(bytes)],
  payloadType: [2, required(limited(bytes, 64))],
  payload: [3, required(bytes)],
  signature: [5, required(limited(bytes, 1024))],
})

const AddressInfo = message({ multiaddr: [1, limited(bytes, 1024)] })

// proto3: a seq of 0 is not written.
const PeerRecordMessage = message({
  peerId: [1, required(limited(bytes, 64))],
  seq: [2, uint64],
  addresses: [3, repeated(AddressInfo, maxRecordAddrs)],
})

/** What an envelope held, once its signature was verified. Shares no memory with what it was read from. */
export interface Envelope {
  readonly publicKey: PublicKey
  readonly payload: Uint8Array
}

export interface PeerRecord {
  readonly peerId: PeerId
  /** 0 to 2^64-1: of two records of a peer the higher is the newer. Peers use nanoseconds or milliseconds since 1970. */
  readonly seq: bigint
  /** Without those that are empty or of protocols that we do not know. */
  readonly addrs: readonly Multiaddr[]
}

/** RFC 0002 §Signature Production: each part behind its length. */
function signedText(domain: string, payloadType: Uint8Array, payload: Uint8Array): Uint8Array {
  const parts = [fromUtf8(domain), payloadType, payload]
  return concat(parts.flatMap((part) => [encodeVarint(part.length), part]))
}

/**
 * The bytes of an envelope. `domain` keeps a signature for one purpose from serving another and is not sent.
 * Rejects with RangeError when it would be longer than `maxEnvelopeBytes`.
 */
export async function sealEnvelope(
  key: PrivateKey,
  domain: string,
  payloadType: Uint8Array,
  payload: Uint8Array,
): Promise<Uint8Array> {
  const signature = await key.sign(signedText(domain, payloadType, payload))
  const sealed = EnvelopeMessage.encode({ publicKey: key.publicKey.encoded, payloadType, payload, signature })
  if (sealed.length > maxEnvelopeBytes) {
    throw new RangeError(`envelope of ${sealed.length} bytes, at most ${maxEnvelopeBytes} allowed`)
  }
  return sealed
}

interface Unverified {
  publicKey: PublicKey
  payload: Uint8Array
  signature: Uint8Array
}

function decodeEnvelope(sealed: Uint8Array, payloadType: Uint8Array, crypto: Crypto): Unverified {
  if (sealed.length > maxEnvelopeBytes) {
    throw new ProtocolError('oversized', `envelope of ${sealed.length} bytes, at most ${maxEnvelopeBytes} allowed`)
  }
  const envelope = EnvelopeMessage.decode(sealed)
  if (!equals(envelope.payloadType, payloadType)) {
    const [got, want] = [envelope.payloadType, payloadType].map(toHex)
    throw new ProtocolError('bad-message', `envelope holds a payload of type ${got}, want ${want}`)
  }
  const publicKey = decodePublicKey(envelope.publicKey, crypto)
  return { publicKey, payload: envelope.payload.slice(), signature: envelope.signature.slice() }
}

async function verify(envelope: Unverified, domain: string, payloadType: Uint8Array): Promise<void> {
  const { publicKey, payload, signature } = envelope
  if (await publicKey.verify(signedText(domain, payloadType, payload), signature)) return
  throw new ProtocolError('bad-signature', `envelope is not signed by ${publicKey.peerId} for ${domain}`)
}

/**
 * Who signed it is in the answer: whether that peer may say so is for the caller to check.
 * Rejects with ProtocolError: `oversized`, `bad-protobuf`, `bad-message` (another payload type), `bad-key`,
 * `bad-signature`; with UnavailableError `unsupported` for keys that cannot verify here (see PublicKey.verify).
 */
export async function openEnvelope(
  sealed: Uint8Array,
  domain: string,
  payloadType: Uint8Array,
  crypto: Crypto = platformCrypto,
): Promise<Envelope> {
  const envelope = decodeEnvelope(sealed, payloadType, crypto)
  await verify(envelope, domain, payloadType)
  return { publicKey: envelope.publicKey, payload: envelope.payload }
}

/** Our own record, in its envelope. Empty addresses are left out. Rejects with RangeError when it does not fit. */
export async function sealPeerRecord(
  key: PrivateKey,
  record: { readonly seq: bigint; readonly addrs: readonly Multiaddr[] },
): Promise<Uint8Array> {
  // An empty address would be read as `/`, and make js-libp2p refuse the record.
  const addresses = record.addrs.filter((addr) => addr.bytes.length > 0).map((addr) => ({ multiaddr: addr.bytes }))
  if (addresses.length > maxRecordAddrs) {
    throw new RangeError(`peer record with ${addresses.length} addresses, at most ${maxRecordAddrs}`)
  }
  const seq = record.seq === 0n ? undefined : record.seq
  const payload = PeerRecordMessage.encode({ peerId: key.publicKey.peerId.bytes, seq, addresses })
  return sealEnvelope(key, peerRecordDomain, peerRecordType, payload)
}

/**
 * A record that the peer of its id has signed. Rejects as openEnvelope does, and with ProtocolError `wrong-peer` when the
 * key is another peer's (RUSTSEC-2022-0009), `bad-peer-id`, `oversized` for too many addresses or one too long.
 */
export async function openPeerRecord(
  sealed: Uint8Array,
  crypto: Crypto = platformCrypto,
): Promise<PeerRecord & { readonly publicKey: PublicKey }> {
  const envelope = decodeEnvelope(sealed, peerRecordType, crypto)
  const { publicKey } = envelope
  // RFC 0003 §Certification / Verification: the signature comes before the payload is looked at.
  await verify(envelope, peerRecordDomain, peerRecordType)
  const record = PeerRecordMessage.decode(envelope.payload)
  const peerId = PeerId.decode(record.peerId)
  if (!peerId.equals(publicKey.peerId)) {
    throw new ProtocolError('wrong-peer', `record of peer ${peerId} is in an envelope of ${publicKey.peerId}`)
  }
  const addrs: Multiaddr[] = []
  for (const { multiaddr } of record.addresses) {
    if (multiaddr === undefined || multiaddr.length === 0) continue
    try {
      addrs.push(decodeMultiaddr(multiaddr))
    } catch (error) {
      // Peers announce transports that we do not know: an address we can't read is not an error of theirs.
      if (!(error instanceof ProtocolError)) throw error
    }
  }
  return { peerId, seq: record.seq ?? 0n, addrs, publicKey }
}
