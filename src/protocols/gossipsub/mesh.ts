/*
 * Meshes and fanouts: GRAFT and PRUNE in both directions with back-off and peer exchange, JOIN and LEAVE (gossipsub v1.0
 * §Topic membership, v1.1 §Prune Backoff and Peer Exchange).
 */
import { pick, shuffle } from './chance.ts'
import type { MeshView } from './heartbeat.ts'
import type { Peer } from './peers.ts'
import type { State } from './state.ts'
import type { Prune, PrunedPeer } from './wire.ts'

export class Meshes {
  readonly #state: State
  readonly mesh = new Map<string, Set<string>>()
  readonly fanout = new Map<string, { peers: Set<string>; lastPublishedMs: number }>()

  constructor(state: State) {
    this.#state = state
  }

  /** Who subscribes to a topic whose mesh is too small is grafted at once, not at the next heartbeat. */
  graftNewcomer(peer: Peer, topic: string, now: number): void {
    const mesh = this.mesh.get(topic)
    if (mesh === undefined || mesh.size >= this.#state.parts.params.Dlo) return
    if (this.#mayGraft(peer, topic, mesh, now)) this.graft(topic, peer, now)
  }

  #mayGraft(peer: Peer, topic: string, mesh: ReadonlySet<string>, now: number): boolean {
    const { backoff, score } = this.#state.parts
    if (peer.version === undefined || peer.version < 10 || peer.direct || mesh.has(peer.id)) return false
    return !backoff.backingOff(topic, peer.id, now) && score.score(peer.id, now) >= 0
  }

  graft(topic: string, peer: Peer, now: number): void {
    this.#enter(topic, peer.id, 'us', now)
    peer.queue.graft(topic)
    this.#state.dirty.add(peer.id)
  }

  #enter(topic: string, peer: string, by: 'us' | 'peer', now: number): void {
    this.mesh.get(topic)?.add(peer)
    this.#state.parts.score.graft(peer, topic, now)
    this.#state.events.push({ kind: 'mesh', peer, topic, joined: true, by })
  }

  drop(topic: string, peer: string, by: 'us' | 'peer'): void {
    this.mesh.get(topic)?.delete(peer)
    this.#state.parts.score.prune(peer, topic)
    this.#state.events.push({ kind: 'mesh', peer, topic, joined: false, by })
  }

  /** PRUNE to a peer that is not in the mesh (any more), with the back-off that both sides honour. */
  sendPrune(topic: string, peer: Peer, exchange: boolean, now: number, backoffMs: number): void {
    this.#state.parts.backoff.add(topic, peer.id, backoffMs, now)
    // v1.0 knows neither back-off nor peer exchange.
    const old = peer.version === undefined || peer.version < 11
    const peers = exchange && !old ? this.#exchange(topic, peer, now) : []
    peer.queue.prune(topic, old ? undefined : Math.ceil(backoffMs / 1000), peers)
    this.#state.dirty.add(peer.id)
  }

  #exchange(topic: string, to: Peer, now: number): PrunedPeer[] {
    const { params, score, unit, exchanged } = this.#state.parts
    const may: Peer[] = []
    for (const peer of this.#state.peers.of(topic)) {
      if (peer !== to && (peer.version ?? 0) >= 10 && score.score(peer.id, now) >= 0) may.push(peer)
    }
    return pick(may, params.prunePeers, unit).map(({ id }) => exchanged(id))
  }

  /** v1.0 §JOIN: the fanout's peers first. */
  join(topic: string, now: number): void {
    const { params, unit } = this.#state.parts
    const mesh = new Set<string>()
    this.mesh.set(topic, mesh)
    const fanout = [...(this.fanout.get(topic)?.peers ?? [])].map((id) => this.#state.peers.get(id))
    this.fanout.delete(topic)
    const others = shuffle([...this.#state.peers.of(topic)], unit)
    for (const peer of [...fanout, ...others]) {
      if (mesh.size >= params.D) break
      if (peer !== undefined && this.#mayGraft(peer, topic, mesh, now)) this.graft(topic, peer, now)
    }
  }

  /** v1.0 §Fanout: peers of a topic that we publish to without being in it. */
  refreshFanout(topic: string, now: number): void {
    const { params, score, thresholds, unit } = this.#state.parts
    const fanout = this.fanout.get(topic) ?? { peers: new Set<string>(), lastPublishedMs: now }
    fanout.lastPublishedMs = now
    if (fanout.peers.size === 0) {
      const may: string[] = []
      for (const { id, version, direct } of this.#state.peers.of(topic)) {
        if ((version ?? 0) >= 10 && !direct && score.score(id, now) >= thresholds.publish) may.push(id)
      }
      fanout.peers = new Set(pick(may, params.D, unit))
    }
    // Without peers there is nothing to remember: topics that we only publish to do not pile up.
    if (fanout.peers.size > 0) this.fanout.set(topic, fanout)
  }

  grafted(peer: Peer, topics: readonly string[], value: number, now: number): void {
    const { params, backoff, score } = this.#state.parts
    let exchange = params.doPX
    const refused = new Set<string>()
    for (const topic of new Set(topics)) {
      const mesh = this.mesh.get(topic)
      if (mesh === undefined) {
        // Spam hardening (v1.1): not answered, and who asks for what we don't have learns nothing about others.
        exchange = false
        continue
      }
      if (mesh.has(peer.id)) continue
      const until = backoff.until(topic, peer.id)
      if (peer.direct) {
        exchange = false
        refused.add(topic)
      } else if (until !== undefined && now < until) {
        score.penalize(peer.id, 1)
        // v1.1 §Behaviour penalty: so soon after the PRUNE it is a flood.
        if (now < until + params.graftFloodThresholdMs - params.pruneBackoffMs) score.penalize(peer.id, 1)
        exchange = false
        refused.add(topic)
      } else if (value < 0) {
        exchange = false
        refused.add(topic)
      } else if (mesh.size >= params.Dhi && !peer.outbound) {
        // v1.1 §Outbound mesh quotas: a full mesh can not be taken over from outside.
        refused.add(topic)
      } else {
        this.#enter(topic, peer.id, 'peer', now)
        // It says so by grafting, whether or not its subscription is already here; that says more (partial messages).
        if (peer.topics.has(topic) || !this.#state.peers.subscribe(peer, { topic, subscribe: true })) continue
        this.#state.events.push({ kind: 'subscription', peer: peer.id, topic, subscribed: true })
      }
    }
    for (const topic of refused) this.sendPrune(topic, peer, exchange, now, params.pruneBackoffMs)
  }

  pruned(peer: Peer, { topic, peers, backoffSeconds }: Prune, value: number, now: number): void {
    const { params, backoff, thresholds } = this.#state.parts
    const mesh = this.mesh.get(topic)
    if (mesh === undefined) return
    if (mesh.has(peer.id)) this.drop(topic, peer.id, 'peer')
    backoff.add(topic, peer.id, (backoffSeconds ?? 0) > 0 ? (backoffSeconds ?? 0) * 1000 : params.pruneBackoffMs, now)
    if (peers.length > 0 && value >= thresholds.acceptPX) {
      this.#state.events.push({ kind: 'exchange', topic, peers: peers.slice(0, params.prunePeers) })
    }
  }

  view(now: number): MeshView {
    const { backoff } = this.#state.parts
    return {
      mesh: this.mesh,
      fanout: this.fanout,
      gossipPeers: (topic) => this.#gossipPeers(topic),
      isOutbound: (peer) => this.#state.peers.get(peer)?.outbound === true,
      isDirect: (peer) => this.#state.parts.direct.has(peer),
      isBackingOff: (topic, peer) => backoff.backingOff(topic, peer, now),
    }
  }

  *#gossipPeers(topic: string): Generator<string> {
    for (const { id, version } of this.#state.peers.of(topic)) if (version !== undefined && version >= 10) yield id
  }

  /** v1.0 §LEAVE. */
  leave(topic: string, now: number): void {
    const { params } = this.#state.parts
    for (const id of this.mesh.get(topic) ?? []) {
      this.drop(topic, id, 'us')
      const peer = this.#state.peers.get(id)
      if (peer !== undefined) this.sendPrune(topic, peer, params.doPX, now, params.unsubscribeBackoffMs)
    }
    this.mesh.delete(topic)
  }

  /** The peer is not there to be written to any more. */
  forget(id: string): void {
    for (const [topic, peers] of this.mesh) if (peers.has(id)) this.drop(topic, id, 'peer')
    for (const { peers } of this.fanout.values()) peers.delete(id)
  }
}
