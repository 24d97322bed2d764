/*
 * GossipSub as a machine (gossipsub v1.0 to v1.3, floodsub): what peers send and time in; RPCs to send, messages to check
 * and peers to connect to out. It holds no key and no promise: who runs it checks a message's signature and content
 * (`incoming`), and says so by invalid(), claim() and settle().
 */
import { asError } from '../../errors.ts'
import { Flow } from './flow.ts'
import { heartbeat } from './heartbeat.ts'
import { Meshes } from './mesh.ts'
import type { Peer, Version } from './peers.ts'
import { PeerQueue, partialSize, type Tx } from './queue.ts'
import {
  State,
  type Connected,
  type Incoming,
  type OwnTopic,
  type Published,
  type RouterEvent,
  type RouterParts,
  type Verdict,
} from './state.ts'
import {
  decodeRpc,
  type PartialMessages,
  type Rpc,
  type RpcBudget,
  type Subscription,
  type WireMessage,
} from './wire.ts'

/** v1.3 §Extensions: sending them twice, or late, is misbehaviour (go-libp2p-pubsub: 10). */
const lateExtensionsPenalty = 10

/** Whoever takes and leaves a topic in one RPC costs us, and those who listen, one change. */
function lastWords(subscriptions: readonly Subscription[]): Iterable<Subscription> {
  if (subscriptions.length < 2) return subscriptions
  return new Map(subscriptions.map((subscription) => [subscription.topic, subscription])).values()
}

export class Router {
  readonly #state: State
  readonly #meshes: Meshes
  readonly #flow: Flow
  deadline = Infinity

  constructor(parts: RouterParts) {
    this.#state = new State(parts)
    this.#meshes = new Meshes(this.#state)
    this.#flow = new Flow(this.#state, this.#meshes)
  }

  /** The first heartbeat is planned. */
  start(now: number): void {
    this.deadline = now + this.#state.parts.params.heartbeatInitialDelayMs
  }

  stop(): void {
    this.deadline = Infinity
  }

  next(): RouterEvent | undefined {
    return this.#state.events.shift()
  }

  /** Peers for which there is something to send since the last call: once a turn of the event loop. */
  dirty(): Iterable<string> {
    const dirty = this.#state.dirty
    this.#state.turn++
    if (dirty.size === 0) return dirty
    this.#state.dirty = new Set()
    return dirty
  }

  get pending(): boolean {
    return this.#state.dirty.size > 0
  }

  // What others ask

  topics(): string[] {
    return [...this.#state.own.keys()]
  }

  isSubscribed(topic: string): boolean {
    return this.#state.own.has(topic)
  }

  /** Connected subscribers. */
  topicPeers(topic: string): string[] {
    return [...this.#state.peers.of(topic)].map(({ id }) => id)
  }

  /** Peers with whom we exchange whole messages of a topic: its mesh, or its fanout where we only publish. */
  mesh(topic: string): string[] {
    return [...(this.#meshes.mesh.get(topic) ?? this.#meshes.fanout.get(topic)?.peers ?? [])]
  }

  peer(id: string): Readonly<Peer> | undefined {
    return this.#state.peers.get(id)
  }

  peers(): Iterable<Readonly<Peer>> {
    return this.#state.peers
  }

  isDirect(peer: string): boolean {
    return this.#state.parts.direct.has(peer)
  }

  // Peers come and go

  /** A peer is connected. */
  connected(id: string, { bytes, outbound, ips }: Connected, now: number): void {
    const { score, limits, direct } = this.#state.parts
    const peer = this.#state.peers.get(id)
    if (peer === undefined) {
      this.#state.peers.add({ id, bytes, outbound, direct: direct.has(id), queue: new PeerQueue(limits) })
      score.add(id, now)
    } else {
      peer.outbound ||= outbound
    }
    score.setIps(id, ips)
  }

  /** One of its connections is gone: these are the addresses of the others. */
  moved(id: string, ips: readonly string[]): void {
    if (ips.length > 0 && this.#state.peers.get(id) !== undefined) this.#state.parts.score.setIps(id, ips)
  }

  /** Our stream to it is open. Its first RPC says what we are subscribed to. */
  opened(id: string, version: Version, now: number): void {
    const peer = this.#state.peers.get(id)
    if (peer === undefined) return
    this.#state.peers.version(peer, version)
    const subscriptions = [...this.#state.own].map(([topic, own]) => this.#subscription(topic, own, true))
    peer.queue.greet(subscriptions, version >= 13 ? this.#state.parts.extensions : undefined)
    if (peer.queue.pending) this.#state.dirty.add(id)
    this.#extended(peer)
    for (const topic of peer.topics.keys()) {
      this.#meshes.graftNewcomer(peer, topic, now)
      this.#state.events.push({ kind: 'subscription', peer: id, topic, subscribed: true })
    }
  }

  /** Its stream to us is a new one: its next RPC is its first. */
  greeted(id: string): void {
    const peer = this.#state.peers.get(id)
    if (peer !== undefined) peer.extensions = undefined
  }

  /** Our stream to it is gone, the peer is still connected. */
  closed(id: string): void {
    const peer = this.#state.peers.get(id)
    if (peer === undefined) return
    if (peer.version !== undefined) this.#gone(peer)
    this.#state.peers.version(peer, undefined)
    for (const [topic, peers] of this.#meshes.mesh) if (peers.has(id)) this.#meshes.drop(topic, id, 'peer')
    for (const { peers } of this.#meshes.fanout.values()) peers.delete(id)
    peer.queue = new PeerQueue(this.#state.parts.limits)
    // What waited for it never came.
    this.#state.events.push({ kind: 'partial-peer-gone', peer: id })
  }

  /** The last connection to it is gone. */
  disconnected(id: string, now: number): void {
    const peer = this.#state.peers.get(id)
    if (peer === undefined) return
    this.closed(id)
    this.#state.peers.delete(peer)
    this.#state.parts.score.remove(id, now)
  }

  /** For those who listen: nothing can be published to it any more. */
  #gone({ id, topics }: Peer): void {
    for (const topic of topics.keys())
      this.#state.events.push({ kind: 'subscription', peer: id, topic, subscribed: false })
  }

  // What a peer sends

  receive(id: string, frame: Uint8Array, now: number): void {
    const peer = this.#state.peers.get(id)
    if (peer === undefined) return
    const { score, thresholds } = this.#state.parts
    const value = peer.direct ? 0 : score.score(id, now)
    const accepted = value >= thresholds.graylist
    let rpc: Rpc
    try {
      // A graylisted peer may only say which topics it is in: nothing else of it is read.
      rpc = decodeRpc(frame, this.#budget(peer, accepted, value))
    } catch (error) {
      this.#state.events.push({ kind: 'violation', peer: id, error: asError(error) })
      return
    }
    this.#extensions(peer, rpc)
    for (const subscription of lastWords(rpc.subscriptions)) this.#subscribed(peer, subscription, now)
    if (!accepted) return
    for (const message of rpc.publish) this.#flow.incoming(peer, message, now)
    if (value >= thresholds.gossip) {
      if (rpc.ihave.length > 0) this.#flow.ihave(peer, rpc, now)
      if (rpc.iwant.length > 0) this.#flow.iwant(peer, rpc.iwant, now)
    }
    if (rpc.graft.length > 0) this.#meshes.grafted(peer, rpc.graft, value, now)
    for (const prune of rpc.prune) this.#meshes.pruned(peer, prune, value, now)
    if (rpc.idontwant.length > 0) this.#flow.idontwant(peer, rpc.idontwant)
    if (rpc.partial !== undefined && this.#state.speaksPartial(peer)) {
      this.#state.events.push({ kind: 'partial', peer: id, partial: rpc.partial })
    }
  }

  /** What is left of a peer's allowance in this heartbeat: the rest is passed over before memory is spent. */
  #budget(peer: Peer, accepted: boolean, score: number): RpcBudget {
    const { params, limits, thresholds } = this.#state.parts
    const gossip = accepted && score >= thresholds.gossip
    const mayHave = gossip && peer.ihaves < params.maxIHaveMessages && peer.asked < params.maxIHaveLength
    const some = (count: number): number => (accepted ? count : 0)
    return {
      subscriptions: 2 * limits.maxTopicsPerPeer,
      publish: some(4096),
      ihaveMessages: mayHave ? 1024 : 0,
      ihaveIds: mayHave ? params.maxIHaveLength : 0,
      iwantIds: gossip ? Math.max(0, params.maxIHaveLength - peer.iwants) : 0,
      idontwantMessages: some(peer.idontwants < params.maxIDontWantMessages ? params.maxIDontWantLength : 0),
      idontwantIds: some(peer.idontwants < params.maxIDontWantMessages ? params.maxIDontWantLength : 0),
      grafts: some(limits.maxTopicsPerPeer),
      prunes: some(limits.maxTopicsPerPeer),
      prunePeers: accepted && score >= thresholds.acceptPX ? 4 * params.prunePeers : 0,
      controlBytes: 512 * 1024,
      idBytes: 128,
      topicBytes: 1024,
    }
  }

  #extensions(peer: Peer, rpc: Rpc): void {
    const first = peer.extensions === undefined
    if (rpc.extensionsCount > (first ? 1 : 0)) this.#state.parts.score.penalize(peer.id, lateExtensionsPenalty)
    if (!first) return
    peer.extensions = rpc.extensions ?? {}
    this.#extended(peer)
  }

  /** Both sides have said what they can do, for the first time on these streams. */
  #extended(peer: Peer): void {
    if (peer.extensions?.testExtension !== true || this.#state.parts.extensions?.testExtension !== true) return
    if (peer.version !== 13) return
    peer.queue.testExtension()
    this.#state.dirty.add(peer.id)
  }

  #subscribed(peer: Peer, subscription: Subscription, now: number): void {
    const { topic, subscribe } = subscription
    if (!this.#state.peers.subscribe(peer, subscription)) return
    // Once we can write to it: whoever hears of it may publish at once.
    if (peer.version !== undefined)
      this.#state.events.push({ kind: 'subscription', peer: peer.id, topic, subscribed: subscribe })
    if (subscribe) {
      this.#meshes.graftNewcomer(peer, topic, now)
    } else {
      if (this.#meshes.mesh.get(topic)?.has(peer.id) === true) this.#meshes.drop(topic, peer.id, 'peer')
      this.#meshes.fanout.get(topic)?.peers.delete(peer.id)
    }
  }

  // What the check of a message says

  /** Its signature does not hold. */
  invalid(incoming: Incoming): void {
    this.#flow.invalid(incoming)
  }

  /** Its signature holds: it counts as seen from now on. False: another copy was first. */
  claim(incoming: Incoming, now: number): boolean {
    return this.#flow.claim(incoming, now)
  }

  /** What the validators say of a claimed message. Accepted, it is forwarded. */
  settle(incoming: Incoming, verdict: Verdict, now: number): void {
    this.#flow.settle(incoming, verdict, now)
  }

  /** Copies of messages that were here already. */
  get duplicates(): number {
    return this.#flow.duplicates
  }

  // What we do

  /** We are in the topic from now on. Idempotent. */
  subscribe(topic: string, own: OwnTopic, now: number): void {
    const before = this.#state.own.get(topic)
    if (before?.requestsPartial === own.requestsPartial && before.supportsPartial === own.supportsPartial) return
    this.#state.own.set(topic, own)
    for (const peer of this.#state.peers) {
      if (peer.version === undefined) continue
      peer.queue.subscription(this.#subscription(topic, own, true))
      this.#state.dirty.add(peer.id)
    }
    if (before === undefined) this.#meshes.join(topic, now)
  }

  #subscription(topic: string, own: OwnTopic | undefined, subscribe: boolean): Subscription {
    if (own === undefined || this.#state.parts.extensions?.partialMessages !== true) return { subscribe, topic }
    const { requestsPartial, supportsPartial } = own
    return { subscribe, topic, requestsPartial, supportsSendingPartial: supportsPartial }
  }
  /** We are in it no longer (v1.0 §LEAVE). Idempotent. */
  unsubscribe(topic: string, now: number): void {
    if (!this.#state.own.delete(topic)) return
    for (const peer of this.#state.peers) {
      if (peer.version === undefined) continue
      peer.queue.subscription(this.#subscription(topic, undefined, false))
      this.#state.dirty.add(peer.id)
    }
    this.#meshes.leave(topic, now)
  }

  /**
   * Sends a message of our own. Undefined: it was seen before. Without recipients it leaves no trace, unless `allowNone`:
   * then who asks for it within the next heartbeats gets it.
   */
  publish(id: string, message: WireMessage, allowNone: boolean, now: number): Published | undefined {
    return this.#flow.publish(id, message, allowNone, now)
  }

  // Time

  tick(now: number): void {
    const { params, thresholds, score, unit, backoff, cache, promises, seen } = this.#state.parts
    // After a sleep one heartbeat is enough.
    this.deadline = now + params.heartbeatIntervalMs
    this.#state.tick++
    backoff.clear(now)
    seen.clear(now)
    for (const peer of this.#state.peers) {
      peer.ihaves = peer.asked = peer.iwants = peer.idontwants = peer.forged = 0
      for (const [id, until] of peer.unwanted) {
        // In order of time: the first that stays ends it.
        if (until > this.#state.tick) break
        peer.unwanted.delete(id)
      }
    }
    for (const [peer, count] of promises.broken(now)) score.penalize(peer, count)
    score.refresh(now)
    this.#connectDirect()

    const plan = heartbeat({
      view: this.#meshes.view(now),
      scoreOf: (peer) => score.score(peer, now),
      unit,
      params,
      thresholds,
      tick: this.#state.tick,
      now,
    })
    const noPX = new Set(plan.prune.filter((change) => change.noPX).map(({ peer }) => peer))
    for (const { topic, peer: id } of plan.prune) {
      this.#meshes.drop(topic, id, 'us')
      const peer = this.#state.peers.get(id)
      if (peer !== undefined)
        this.#meshes.sendPrune(topic, peer, params.doPX && !noPX.has(id), now, params.pruneBackoffMs)
    }
    for (const { topic, peer: id } of plan.graft) {
      const peer = this.#state.peers.get(id)
      if (peer !== undefined) this.#meshes.graft(topic, peer, now)
    }
    for (const topic of plan.expiredFanout) this.#meshes.fanout.delete(topic)
    for (const [topic, peers] of plan.fanout) {
      const fanout = this.#meshes.fanout.get(topic)
      if (fanout !== undefined) fanout.peers = peers
    }
    for (const { topic, peers } of plan.gossip) this.#flow.gossip(topic, peers)
    cache.shift()
  }

  #connectDirect(): void {
    const { params, direct } = this.#state.parts
    // The first heartbeat, too: v1.1 §Explicit peering agreements
    if (this.#state.tick !== 1 && this.#state.tick % params.directConnectTicks !== 0) return
    for (const peer of direct)
      if (this.#state.peers.get(peer) === undefined) this.#state.events.push({ kind: 'direct', peer })
  }

  // Partial messages (partial-messages.md)

  /** Mesh (or fanout) peers of a topic with whom parts are exchanged, in either direction. */
  partialPeers(topic: string): string[] {
    return this.mesh(topic).filter((id) => {
      const peer = this.#state.peers.get(id)
      return (
        peer !== undefined && (this.#state.sendsPartialTo(peer, topic) || this.#state.requestsPartialFrom(peer, topic))
      )
    })
  }

  /** How we exchange parts of a topic; undefined: not at all. */
  ownPartial(topic: string): Readonly<OwnTopic> | undefined {
    const own = this.#state.own.get(topic)
    if (own === undefined || this.#state.parts.extensions?.partialMessages !== true) return undefined
    return own.requestsPartial || own.supportsPartial ? own : undefined
  }

  /** What a peer sent of a topic's parts is not what it should be: that counts like an invalid message. */
  invalidPartial(id: string, topic: string): void {
    this.#state.parts.score.invalid(id, topic)
  }

  /** Whether a peer wants parts, not only their metadata. */
  requestsPartial(id: string, topic: string): boolean {
    const peer = this.#state.peers.get(id)
    return peer !== undefined && this.#state.speaksPartial(peer) && peer.topics.get(topic)?.requestsPartial === true
  }

  /** False: the peer is gone, or its queue is full. */
  sendPartial(id: string, partial: PartialMessages): boolean {
    const peer = this.#state.peers.get(id)
    if (peer?.version === undefined || !this.#state.speaksPartial(peer)) return false
    if (!peer.queue.partial(partial, partialSize(partial))) return false
    this.#state.dirty.add(id)
    return true
  }

  // What goes out

  /** The next RPC for a peer, or undefined. */
  transmit(id: string, now: number): Tx | undefined {
    const peer = this.#state.peers.get(id)
    if (peer?.version === undefined) return undefined
    const tx = peer.queue.take(now, this.#state.turn)
    // What is left is held back until the next turn.
    if (tx === undefined && peer.queue.pending) this.#state.dirty.add(id)
    return tx
  }
}
