/* What the parts of the router share: its surroundings, its peers, its topics, and what it has to say. */
import type { Backoff } from './backoff.ts'
import type { MessageCache } from './message-cache.ts'
import type { GossipParams } from './params.ts'
import { Peers, type Peer, type PeerLimits } from './peers.ts'
import type { Promises } from './promises.ts'
import type { QueueLimits } from './queue.ts'
import type { Thresholds } from './score-params.ts'
import type { PeerScore } from './score.ts'
import type { Seen } from './seen.ts'
import type { ControlExtensions, PartialMessages, PrunedPeer, WireMessage } from './wire.ts'

export interface RouterLimits extends PeerLimits, QueueLimits {
  /**
   * Bytes of messages whose check is under way, of all peers; one more is dropped as throttled, as is one of a peer that
   * has more of them than are left for others. Default 64 MiB.
   */
  maxCheckingBytes: number
  /** Entries of what one peer does not want. Default 10,000. */
  maxUnwanted: number
}

export const routerDefaults = { maxCheckingBytes: 64 * 1024 * 1024, maxUnwanted: 10_000 }

/** A message on its way from a peer to us. */
export interface Incoming {
  readonly id: string
  /** The first who sent it, as it is. */
  readonly sender: string
  /** All who sent it, as it is, so far. */
  readonly senders: Set<string>
  readonly message: WireMessage
  state: 'checking' | 'claimed' | 'settled'
}

/** A topic of ours, as we tell others of it. */
export interface OwnTopic {
  requestsPartial: boolean
  supportsPartial: boolean
}

export type Verdict = 'accept' | 'reject' | 'ignore' | 'throttled'

export type RouterEvent =
  /** To be checked: signature, then claim(), then validators, then settle(). */
  | { kind: 'incoming'; incoming: Incoming }
  /** The peer broke the protocol: its stream should be reset. */
  | { kind: 'violation'; peer: string; error: Error }
  | { kind: 'subscription'; peer: string; topic: string; subscribed: boolean }
  | { kind: 'mesh'; peer: string; topic: string; joined: boolean; by: 'us' | 'peer' }
  /** Peer exchange: peers to connect to, with their signed record where there is one. */
  | { kind: 'exchange'; topic: string; peers: PrunedPeer[] }
  /** A direct peer that is not connected. */
  | { kind: 'direct'; peer: string }
  | { kind: 'partial'; peer: string; partial: PartialMessages }
  /** The heartbeat's gossip for peers that want parts instead of whole messages. */
  | { kind: 'partial-gossip'; topic: string; peers: string[] }
  | { kind: 'partial-peer-gone'; peer: string }

/** Of a connected peer. */
export interface Connected {
  /** Its peer id. */
  bytes: Uint8Array
  /** We dialled it. */
  outbound: boolean
  /** Where it is connected from. */
  ips: readonly string[]
}

export interface RouterParts {
  selfBytes: Uint8Array
  params: GossipParams
  limits: RouterLimits
  thresholds: Thresholds
  score: PeerScore
  cache: MessageCache
  seen: Seen
  backoff: Backoff
  promises: Promises
  unit: () => number
  direct: ReadonlySet<string>
  /** Of a message whose fields were checked; a string of one char per byte. */
  readonly idOf: (message: WireMessage) => string
  /** Why a message does not keep to the signing policy; undefined: it does. */
  readonly refuse: (message: WireMessage) => string | undefined
  /** Whether ids are only known to be genuine once the signature is checked. */
  signed: boolean
  /** A peer as a PRUNE names it. */
  readonly exchanged: (peer: string) => PrunedPeer
  extensions: ControlExtensions | undefined
}

export interface Published {
  /** Peers that it was queued for. */
  recipients: string[]
  /** Connected subscribers; those among them whose score is below the publish threshold; without room in their queue. */
  subscribers: number
  belowThreshold: number
  queueFull: number
  /** Those that want parts instead (partial messages). */
  wantParts: number
}

export class State {
  readonly parts: RouterParts
  readonly peers: Peers
  /** What we are subscribed to. */
  readonly own = new Map<string, OwnTopic>()
  readonly events: RouterEvent[] = []
  /** Peers for which there is something to send. */
  dirty = new Set<string>()
  /** Of the event loop. */
  turn = 0
  /** Heartbeats so far. */
  tick = 0

  constructor(parts: RouterParts) {
    this.parts = parts
    this.peers = new Peers(parts.limits)
  }

  speaksPartial(peer: Peer): boolean {
    return this.parts.extensions?.partialMessages === true && peer.extensions?.partialMessages === true
  }

  /** It wants parts of this topic's messages, and we send them: it gets no whole ones. */
  sendsPartialTo(peer: Peer, topic: string): boolean {
    if (!this.speaksPartial(peer)) return false
    return this.own.get(topic)?.supportsPartial === true && peer.topics.get(topic)?.requestsPartial === true
  }

  /** We want parts of it. */
  requestsPartialFrom(peer: Peer, topic: string): boolean {
    if (!this.speaksPartial(peer)) return false
    return this.own.get(topic)?.requestsPartial === true && peer.topics.get(topic)?.supportsPartial === true
  }
}
