/* What GossipSub offers and takes: the options and the methods of createGossipsub(). */
import type { Multiaddr } from '../../multiaddr.ts'
import type { PeerId } from '../../peer/id.ts'
import type { PrivateKey } from '../../peer/keys.ts'
import type { LinkOptions } from './links.ts'
import type { GossipParams } from './params.ts'
import type { Router } from './router.ts'
import type { ScoreParams, Thresholds } from './score-params.ts'
import type { PeerScoreParts } from './score.ts'
import type { SignaturePolicy } from './sign.ts'
import type { RouterEvent, RouterLimits } from './state.ts'
import type { MessageHandler, Messages, MessagesOptions } from './topics.ts'
import type { Validator, ValidatorOptions } from './validators.ts'

/** What an application does to data on its way, snappy for instance. Asked before anything is signed or checked. */
export interface DataTransform {
  outgoing(topic: string, data: Uint8Array): Uint8Array
  /** Throws when the data is not what it should be: the message is rejected. Must not give more than `maxBytes`. */
  incoming(topic: string, data: Uint8Array, maxBytes: number): Uint8Array
}

export interface GossipsubOptions extends Partial<GossipParams>, Partial<RouterLimits>, Partial<LinkOptions> {
  /** Default StrictSign, which needs `privateKey`. */
  signing?: SignaturePolicy
  /** Of the node: signs what we publish. */
  privateKey?: PrivateKey
  /**
   * The id of a message; the same for all peers. Default: from and seqno with StrictSign (pubsub §Message
   * Identification), the SHA-256 of the data without. `data` is as on the wire.
   */
  messageId?: (message: {
    topic: string
    data: Uint8Array
    from?: Uint8Array | undefined
    seqno?: Uint8Array | undefined
  }) => Uint8Array
  /**
   * Bytes of a message with its topic and signature, as an RPC. Default 1 MiB: more is not read by go-libp2p-pubsub,
   * rust-libp2p and py-libp2p, which end the stream.
   */
  maxMessageBytes?: number
  transform?: DataTransform
  /** Default: misbehaviour and crowded addresses count, topics do not. */
  score?: ScoreParams
  thresholds?: Partial<Thresholds>
  /** Peers that always get everything and are never pruned, with their addresses (v1.1 §Explicit Peering Agreements). */
  directPeers?: readonly (Multiaddr | string)[]
  /** Signed records of peers, for peer exchange: `(peer) => node.book.record(peer)`. */
  recordOf?: (peer: PeerId) => Uint8Array | undefined
  /** Our own messages are handed to our own handlers, too. Default false. */
  emitSelf?: boolean
  /** Checks by validators at a time. Default 8,192. */
  maxValidating?: number
  /** Ids in the duplicate window; about 110 bytes each. Default 262,144. */
  maxSeen?: number
  /** Bytes of recent messages, to answer IWANT with. Default 64 MiB. */
  maxCacheBytes?: number
  /** Peers whose PRUNE names others that we connect to, at a time. Default 8. */
  maxExchangeDials?: number
  /** Parts of messages instead of whole ones: what partialParts() of rhiza/gossipsub/partial gives. */
  partial?: PartialExtension
  /** v1.3's extension that does nothing, to see that extensions work. Default false. */
  testExtension?: boolean
}

/** The part of rhiza/gossipsub/partial that the router talks to. */
export interface PartialExtension {
  attach(router: Router, changed: () => void): void
  /** What it throws is traced; a ProtocolError counts like an invalid message of the peer. */
  event(event: Extract<RouterEvent, { kind: 'partial' | 'partial-gossip' | 'partial-peer-gone' }>): void
  heartbeat(): void
}

export interface PublishOptions {
  signal?: AbortSignal
  /** Nobody to send it to is no error: peers that come within a few heartbeats hear of it by gossip. Default false. */
  allowNone?: boolean
  /** Resolves once the wire to a peer has taken it; waits for a first peer of the topic. Default false. */
  taken?: boolean
}

export interface PublishResult {
  topic: string
  id: Uint8Array
  /** Peers that it was sent to: of the mesh or the fanout, or all in the topic where we flood. */
  recipients: PeerId[]
  /** It was published before, and went to nobody now. */
  duplicate: boolean
}

export interface Subscription {
  readonly topic: string
  /** Idempotent. */
  unsubscribe(): void
}

export interface SubscribeOptions {
  /** We want pieces of this topic's messages, where a peer can send them. */
  requestsPartial?: boolean
  /** We can send pieces. */
  supportsPartial?: boolean
}

export interface GossipsubEvents {
  /** A peer says that it is in a topic, or not any more. */
  subscription: { peer: PeerId; topic: string; subscribed: boolean }
  /** A peer came into the mesh of a topic, or left it. */
  mesh: { peer: PeerId; topic: string; joined: boolean; by: 'us' | 'peer' }
}

export interface Gossipsub {
  /** Idempotent; a stopped one may be started again. */
  start(): void
  /** Iterables end, handlers and topics stay. Resolves when nothing is left running. */
  stop(): Promise<void>
  /**
   * Text is UTF-8. Rejects with UnavailableError: `not-found` when no connected peer is in the topic, `refused` when all
   * of them score too low or our own validators say no, with LimitError for too much data or when all queues are full;
   * with TypeError on a bad topic, or signal.reason.
   */
  publish(topic: string, data: string | Uint8Array, options?: PublishOptions): Promise<PublishResult>
  /** Several handlers may listen to one topic. */
  subscribe(topic: string, handler: MessageHandler, options?: SubscribeOptions): Subscription
  /** The messages of a topic from now on. Ends when the loop is left, the signal aborts, or with stop(). */
  messages(topic: string, options?: MessagesOptions & SubscribeOptions): Messages
  /** Is in the topic for others: messages are checked and forwarded. Returns the undo. */
  relay(topic: string): () => void
  /** Without `handler`: all of them. Throws UnavailableError `not-found` when it is not subscribed. */
  unsubscribe(topic: string, handler?: MessageHandler): void
  /** What we are subscribed to, relayed topics included. */
  topics(): string[]
  /** Connected peers that are in the topic. */
  topicPeers(topic: string): PeerId[]
  /** Peers with whom we exchange the topic's messages: its mesh, or its fanout where we only publish. */
  mesh(topic: string): PeerId[]
  /** Without a topic: of all messages. Returns the undo. */
  addValidator(topic: string | undefined, validator: Validator, options?: ValidatorOptions): () => void
  /** Every known peer's score, with its parts. */
  scores(): Map<string, PeerScoreParts>
  stats(): GossipsubStats
  on<K extends keyof GossipsubEvents>(event: K, listener: (detail: GossipsubEvents[K]) => void): () => void
}

export interface GossipsubStats {
  peers: number
  topics: number
  /** Messages handed to our handlers, published by us; copies of what was here already; refused, of all kinds. */
  delivered: number
  published: number
  duplicates: number
  rejected: number
  ignored: number
  throttled: number
  /** Messages dropped for want of room in peers' queues; bytes that wait in them. */
  dropped: number
  queuedBytes: number
  /** In the duplicate window, and in the cache for gossip. */
  seen: number
  cached: number
  cachedBytes: number
}
