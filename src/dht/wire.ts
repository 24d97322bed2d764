/*
 * Kademlia messages (libp2p kad-dht 3A r2, 2022-12-09; Amino: ipfs/specs kad-dht.md), without their length prefix.
 * One message type for requests and answers; `key` is binary: a multihash, a record key or a peer id.
 */
import { ProtocolError } from '../errors.ts'
import { bytes, int32, limited, message, repeated, string } from '../protobuf.ts'

/** Amino, the public network of IPFS; peers on private addresses have a network of their own. */
export const aminoId = '/ipfs/kad/1.0.0'
export const lanId = '/ipfs/lan/kad/1.0.0'

/** Bytes of an answer: go-libp2p fills them up with providers (network.MessageSizeMax). */
export const maxAnswerBytes = 4 * 1024 * 1024
/** Bytes of a request: a record, or the one who sends it as a provider. */
export const maxRequestBytes = 64 * 1024
/** Bytes of an answer that everybody takes: rust-libp2p's default is the least of all. */
export const smallAnswerBytes = 16 * 1024
/** Bytes of a record's value: an IPNS record has at most 10 KiB (ipns-record.md §Record Size Limit). */
export const maxValueBytes = 16 * 1024
/** kad-dht.md §Provider Records: a longer key is refused. */
export const maxKeyBytes = 80
/**
 * Of one peer go-libp2p tells up to 8 KiB, whatever that peer has announced: an answer must not be lost for it, or who
 * announces much makes honest servers look broken.
 */
const maxPeerBytes = 8 * 1024
export const maxAddrsPerPeer = 1_024
/** Peers in one list: k closer ones, and on popular keys thousands of providers. */
const maxPeersPerMessage = 16_384

export const messageTypes = {
  PUT_VALUE: 0,
  GET_VALUE: 1,
  ADD_PROVIDER: 2,
  GET_PROVIDERS: 3,
  FIND_NODE: 4,
  PING: 5,
} as const

export type MessageType = keyof typeof messageTypes
const typeNames = Object.keys(messageTypes) as MessageType[]

/** How the answering peer stands to the one it names. */
export const connectionTypes = { notConnected: 0, connected: 1, canConnect: 2, cannotConnect: 3 } as const

const PeerMessage = message({
  id: [1, limited(bytes, 128)],
  addrs: [2, repeated(limited(bytes, maxPeerBytes), maxAddrsPerPeer)],
  connection: [3, int32],
})

const RecordMessage = message({
  key: [1, limited(bytes, 1024)],
  value: [2, limited(bytes, maxValueBytes)],
  // RFC 3339; set by whoever stores it, not believed when it comes in.
  timeReceived: [5, limited(string, 64)],
})

const Schema = message({
  type: [1, int32],
  key: [2, limited(bytes, 1024)],
  record: [3, RecordMessage],
  closerPeers: [8, repeated(PeerMessage, maxPeersPerMessage)],
  providerPeers: [9, repeated(PeerMessage, maxPeersPerMessage)],
  clusterLevelRaw: [10, int32],
})

/** A peer as it is on the wire: nothing of it is proved. */
export interface WirePeer {
  /** Peer id bytes. */
  id: Uint8Array
  /** Binary multiaddrs. */
  addrs: Uint8Array[]
  connection?: number
}

export interface WireRecord {
  key: Uint8Array
  value: Uint8Array
  timeReceived?: string
}

export interface Message {
  type: MessageType
  key: Uint8Array
  record?: WireRecord
  closerPeers: WirePeer[]
  providerPeers: WirePeer[]
}

const none = new Uint8Array(0)

/** Without its length prefix. */
export function encodeMessage({ type, key, record, closerPeers, providerPeers }: Message): Uint8Array {
  return Schema.encode({
    // proto3: what is zero or empty is left out.
    ...(messageTypes[type] !== 0 && { type: messageTypes[type] }),
    ...(key.length > 0 && { key }),
    ...(record && { record }),
    closerPeers,
    providerPeers,
  })
}

/** Throws ProtocolError on bytes that are no message, of an unknown type, or over a limit. */
export function decodeMessage(encoded: Uint8Array): Message {
  const { type = 0, key = none, record, closerPeers, providerPeers } = Schema.decode(encoded)
  const name = typeNames[type]
  if (name === undefined) throw new ProtocolError('bad-message', `kad message of type ${type}, want 0 to 5`)
  const peers = (list: typeof closerPeers): WirePeer[] =>
    list.map(({ id = none, addrs, connection }) => ({ id, addrs, ...(connection !== undefined && { connection }) }))
  return {
    type: name,
    key,
    ...(record && {
      record: {
        key: record.key ?? none,
        value: record.value ?? none,
        ...(record.timeReceived !== undefined && { timeReceived: record.timeReceived }),
      },
    }),
    closerPeers: peers(closerPeers),
    providerPeers: peers(providerPeers),
  }
}
