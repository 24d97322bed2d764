/*
 * libp2p noise (3A r5, 2022-12-07) §The libp2p Handshake Payload, and inlined-muxer-negotiation.md.
 * proto2 NoiseHandshakePayload; field 3 was early data once and is skipped like every unknown field.
 */
import { concat, fromUtf8 } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { bytes, limited, message, repeated, string, type Decoded, type Init } from '../../protobuf.ts'

/** Bytes of a public key message: an RSA key of 8192 bits has about 1,070. */
export const identityKeyBytes = 2048
/** Bytes of a signature: that key's has 1,024. */
export const identitySigBytes = 2048
/** Muxer ids in a list, and bytes of one; peers send one or two of 12 bytes. */
export const streamMuxers = 32
export const streamMuxerBytes = 256
/** Certificate hashes (multihashes) in a list, and bytes of one; a listener has two or three of 34 bytes. */
export const certhashes = 32
export const certhashBytes = 128

const NoiseExtensions = message({
  webtransportCerthashes: [1, repeated(limited(bytes, certhashBytes), certhashes)],
  streamMuxers: [2, repeated(limited(string, streamMuxerBytes), streamMuxers)],
})

const NoiseHandshakePayload = message({
  identityKey: [1, limited(bytes, identityKeyBytes)],
  identitySig: [2, limited(bytes, identitySigBytes)],
  extensions: [4, NoiseExtensions],
})

export interface Payload {
  /** The PublicKey message. */
  identityKey: Uint8Array
  identitySig: Uint8Array
  streamMuxers: string[]
  webtransportCerthashes: Uint8Array[]
}

export function encodePayload(payload: Partial<Payload>): Uint8Array {
  const { identityKey, identitySig, streamMuxers: muxers = [], webtransportCerthashes = [] } = payload
  const extensions: Init<typeof NoiseExtensions> = { streamMuxers: muxers, webtransportCerthashes }
  const plain = muxers.length === 0 && webtransportCerthashes.length === 0
  return NoiseHandshakePayload.encode({ identityKey, identitySig, ...(!plain && { extensions }) })
}

/** Throws ProtocolError: `bad-protobuf`, `oversized`, or `bad-handshake` when key or signature is missing. */
export function decodePayload(encoded: Uint8Array): Payload {
  const { identityKey, identitySig, extensions }: Decoded<typeof NoiseHandshakePayload> =
    NoiseHandshakePayload.decode(encoded)
  if (identityKey === undefined || identitySig === undefined) {
    throw new ProtocolError('bad-handshake', 'handshake payload without identity key or signature')
  }
  return { identityKey, identitySig, ...(extensions ?? { streamMuxers: [], webtransportCerthashes: [] }) }
}

const signaturePrefix = fromUtf8('noise-libp2p-static-key:')

/** What the identity key signs: 24 bytes of text, then the 32 bytes of the Noise static key. */
export function signedText(staticKey: Uint8Array): Uint8Array {
  return concat([signaturePrefix, staticKey])
}

/**
 * The first of the initiator's muxers that the responder has too; undefined when a side sent none (or does not know
 * early negotiation). Throws ProtocolError `bad-negotiation` when both sent some and have none in common.
 */
export function pickMuxer(initiator: readonly string[], responder: readonly string[]): string | undefined {
  if (initiator.length === 0 || responder.length === 0) return undefined
  const muxer = initiator.find((id) => responder.includes(id))
  if (muxer !== undefined) return muxer
  const [ours, theirs] = [initiator, responder].map((ids) => ids.join(', ').slice(0, 100))
  throw new ProtocolError('bad-negotiation', `no common muxer: initiator has ${ours}, responder has ${theirs}`)
}
