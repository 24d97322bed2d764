/*
 * The peers of a router and the topics they told us of, bounded: a peer may name so many topics of so many characters,
 * whatever it subscribes to beyond is not kept (attack: endless unique topics).
 */
import type { PeerQueue } from './queue.ts'
import { idKey, type ControlExtensions, type Subscription } from './wire.ts'

/** 0 for /floodsub/1.0.0, 10 to 13 for /meshsub/1.0.0 to 1.3.0. */
export type Version = 0 | 10 | 11 | 12 | 13

export interface TopicPeer {
  requestsPartial: boolean
  supportsPartial: boolean
}

export interface Peer {
  readonly id: string
  /** The peer id, one char per byte. */
  readonly key: string
  /** Undefined until our stream to it is open: we can not write to it before. */
  version: Version | undefined
  /** We dialled it. */
  outbound: boolean
  readonly direct: boolean
  queue: PeerQueue
  readonly topics: Map<string, TopicPeer>
  topicChars: number
  /** Since the last heartbeat: IHAVEs read, ids asked for, ids it asked us for, RPCs with IDONTWANT read. */
  ihaves: number
  asked: number
  iwants: number
  idontwants: number
  /** Its messages whose signature did not hold, since then. */
  forged: number
  /** Ids that it does not want, until which heartbeat. */
  readonly unwanted: Map<string, number>
  /** Of the first RPC on its stream; undefined before it came. */
  extensions: ControlExtensions | undefined
  /** Its messages that are being checked: who reads from it waits when they are many. */
  checking: number
}

export interface PeerLimits {
  /** Topics that one peer may be subscribed to. Default 1,024. */
  maxTopicsPerPeer: number
  /** Characters of their names in all. Default 64 Ki. */
  maxTopicCharsPerPeer: number
}

export const peerDefaults: PeerLimits = { maxTopicsPerPeer: 1_024, maxTopicCharsPerPeer: 64 * 1024 }

const none: ReadonlySet<Peer> = new Set()

export class Peers {
  readonly #limits: PeerLimits
  readonly #peers = new Map<string, Peer>()
  readonly #byKey = new Map<string, Peer>()
  readonly #topics = new Map<string, Set<Peer>>()

  /** Connected peers that speak floodsub alone. */
  floodsubs = 0

  constructor(limits: PeerLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#peers.size
  }

  get(id: string): Peer | undefined {
    return this.#peers.get(id)
  }

  [Symbol.iterator](): IterableIterator<Peer> {
    return this.#peers.values()
  }

  add({
    id,
    bytes,
    outbound,
    direct,
    queue,
  }: Pick<Peer, 'id' | 'outbound' | 'direct' | 'queue'> & { bytes: Uint8Array }): Peer {
    const peer: Peer = {
      id,
      key: idKey(bytes),
      version: undefined,
      outbound,
      direct,
      queue,
      topics: new Map(),
      topicChars: 0,
      ihaves: 0,
      asked: 0,
      iwants: 0,
      idontwants: 0,
      forged: 0,
      unwanted: new Map(),
      extensions: undefined,
      checking: 0,
    }
    this.#peers.set(id, peer)
    this.#byKey.set(peer.key, peer)
    return peer
  }

  delete(peer: Peer): void {
    for (const topic of peer.topics.keys()) this.#leave(peer, topic)
    peer.topics.clear()
    peer.topicChars = 0
    this.version(peer, undefined)
    this.#peers.delete(peer.id)
    this.#byKey.delete(peer.key)
  }

  /** The connected peer with these bytes of a peer id. */
  named(bytes: Uint8Array): Peer | undefined {
    return this.#byKey.get(idKey(bytes))
  }

  /** Our stream to it speaks this version; undefined: there is none. */
  version(peer: Peer, version: Version | undefined): void {
    if (peer.version === 0) this.floodsubs--
    if (version === 0) this.floodsubs++
    peer.version = version
  }

  /** Subscribers of the topic that we are connected to. */
  of(topic: string): ReadonlySet<Peer> {
    return this.#topics.get(topic) ?? none
  }

  /** What a peer says of its topics. False: nothing new, or more than it may have. */
  subscribe(peer: Peer, { topic, subscribe, requestsPartial, supportsSendingPartial }: Subscription): boolean {
    const known = peer.topics.has(topic)
    if (!subscribe) {
      if (!known) return false
      peer.topics.delete(topic)
      peer.topicChars -= topic.length
      this.#leave(peer, topic)
      return true
    }
    const { maxTopicsPerPeer, maxTopicCharsPerPeer } = this.#limits
    if (!known) {
      if (peer.topics.size >= maxTopicsPerPeer || peer.topicChars + topic.length > maxTopicCharsPerPeer) return false
      peer.topicChars += topic.length
      let peers = this.#topics.get(topic)
      if (peers === undefined) this.#topics.set(topic, (peers = new Set()))
      peers.add(peer)
    }
    // partial-messages.md: who requests parts can send them, too.
    const supportsPartial = requestsPartial === true || supportsSendingPartial === true
    peer.topics.set(topic, { requestsPartial: requestsPartial === true, supportsPartial })
    return !known
  }

  #leave(peer: Peer, topic: string): void {
    const peers = this.#topics.get(topic)
    peers?.delete(peer)
    if (peers?.size === 0) this.#topics.delete(topic)
  }
}
