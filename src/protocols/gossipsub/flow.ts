/*
 * Messages: their way in through the check, on to other peers, our own way out, and what gossip says of them
 * (gossipsub v1.0 §Message Cache, §Gossip emission, v1.1 §Flood Publishing, v1.2 §IDONTWANT).
 */
import { equals } from '../../bytes.ts'
import { pick, shuffle } from './chance.ts'
import type { Meshes } from './mesh.ts'
import type { Peer } from './peers.ts'
import { Share } from './share.ts'
import type { Incoming, Published, State, Verdict } from './state.ts'
import type { Rpc, WireMessage } from './wire.ts'

/**
 * Turns that a message waits with which an IDONTWANT goes: those that others send with it need a turn of their router, one
 * of their muxer and one for us to read them. An idle event loop has them over in microseconds.
 */
const heldTurns = 4

/**
 * Refusals (sign.ts) of what go-libp2p-pubsub forwards all the same: a sequence number of any length, an author whose id
 * holds a long key, a Secp256k1 key that is not compressed. Who sent it to us may be honest.
 */
const blameless: ReadonlySet<string> = new Set(['bad-seqno', 'bad-from', 'unreadable-key'])

/** Of a peer's messages within a heartbeat: so many with a bad signature are misbehaviour, whatever the topic. */
const forgedPerPenalty = 32

export class Flow {
  readonly #state: State
  readonly #meshes: Meshes
  /** Messages whose check is under way. */
  readonly #open = new Map<string, Incoming>()
  readonly #openBytes: Share
  /** Copies of messages that were here already. */
  duplicates = 0

  constructor(state: State, meshes: Meshes) {
    this.#state = state
    this.#meshes = meshes
    this.#openBytes = new Share(state.parts.limits.maxCheckingBytes)
  }

  incoming(peer: Peer, message: WireMessage, now: number): void {
    const { topic } = message
    // Before anything is spent on it: nobody asked for messages of topics that we are not in.
    if (!this.#state.own.has(topic)) return
    const { score, seen, refuse, idOf, signed, selfBytes } = this.#state.parts
    const own = message.from !== undefined && equals(message.from, selfBytes)
    // v1.1: who forwards to us what claims to be ours is lying, or echoes: the id tells which.
    const refused = refuse(message)
    if (refused !== undefined) {
      if (!blameless.has(refused)) score.invalid(peer.id, topic)
      return
    }
    const id = idOf(message)
    if (seen.has(id, now)) {
      this.duplicates++
      this.#open.get(id)?.senders.add(peer.id)
      // It has it: what waits in its queue is not worth sending any more.
      peer.queue.cancel(id)
      score.duplicate(id, topic, peer.id, now)
      return
    }
    if (own) {
      score.invalid(peer.id, topic)
      return
    }
    const known = this.#open.get(id)
    if (known !== undefined && equals(known.message.raw, message.raw)) {
      this.duplicates++
      known.senders.add(peer.id)
      return
    }
    if (!this.#openBytes.fits(peer.id, message.raw.length)) {
      // Nothing is said of the id: it is not known to be genuine, and could be that of a message to come.
      this.#state.parts.promises.throttled(peer.id)
      return
    }
    const kept = owned(message)
    const incoming: Incoming = { id, sender: peer.id, senders: new Set([peer.id]), message: kept, state: 'checking' }
    if (known === undefined) this.#open.set(id, incoming)
    this.#openBytes.take(peer.id, message.raw.length)
    peer.checking++
    this.#state.events.push({ kind: 'incoming', incoming })
    // Without signatures the id is the content: nothing can be claimed falsely.
    if (!signed) this.claim(incoming, now)
  }

  /** v1.2 §IDONTWANT. */
  #dontSend(id: string, { topic, raw }: WireMessage, senders?: ReadonlySet<string>): void {
    if (raw.length < this.#state.parts.params.idontwantThresholdBytes) return
    for (const member of this.#meshes.mesh.get(topic) ?? []) {
      const peer = senders?.has(member) === true ? undefined : this.#state.peers.get(member)
      if (peer?.version === undefined || peer.version < 12 || this.#state.requestsPartialFrom(peer, topic)) continue
      peer.queue.idontwant(id)
      this.#state.dirty.add(member)
    }
  }

  /** Its signature does not hold. */
  invalid(incoming: Incoming): void {
    this.#checked(incoming)
    this.#close(incoming)
    const { score } = this.#state.parts
    for (const sender of incoming.senders) {
      score.invalid(sender, incoming.message.topic)
      const peer = this.#state.peers.get(sender)
      // Topics need not be scored, and checking a signature is what costs most.
      if (peer !== undefined && ++peer.forged % forgedPerPenalty === 0) score.penalize(sender)
    }
  }

  /** Its signature holds: it counts as seen from now on. False: another copy was first. */
  claim(incoming: Incoming, now: number): boolean {
    const { seen, score, promises } = this.#state.parts
    const { id, message, sender, senders } = incoming
    if (incoming.state !== 'checking') return incoming.state === 'claimed'
    this.#checked(incoming)
    const fresh = !seen.has(id, now)
    if (fresh) {
      seen.add(id, now)
      promises.fulfilled(id)
      score.validating(id, now)
      incoming.state = 'claimed'
      // Before the validators, but not before the signature: a forgery would keep the genuine message from us.
      this.#dontSend(id, message, senders)
      // A forgery may have taken the place while this one was checked.
      this.#open.set(id, incoming)
    } else {
      this.#close(incoming)
    }
    for (const peer of senders) if (!fresh || peer !== sender) score.duplicate(id, message.topic, peer, now)
    return fresh
  }

  #checked({ sender, state }: Incoming): void {
    if (state !== 'checking') return
    const peer = this.#state.peers.get(sender)
    if (peer !== undefined) peer.checking = Math.max(0, peer.checking - 1)
  }

  #close(incoming: Incoming): void {
    if (incoming.state === 'settled') return
    incoming.state = 'settled'
    this.#openBytes.give(incoming.sender, incoming.message.raw.length)
    if (this.#open.get(incoming.id) === incoming) this.#open.delete(incoming.id)
  }

  /** What the validators say of a claimed message. Accepted, it is forwarded. */
  settle(incoming: Incoming, verdict: Verdict, now: number): void {
    if (incoming.state !== 'claimed') return
    this.#close(incoming)
    const { id, sender, senders, message } = incoming
    const { score, cache } = this.#state.parts
    switch (verdict) {
      case 'accept': {
        score.delivered(id, message.topic, sender, now)
        cache.put(id, message.topic, message.raw)
        this.#forward(id, message, senders, now)
        break
      }
      case 'reject': {
        score.rejected(id, message.topic, sender, now)
        break
      }
      case 'ignore': {
        score.ignored(id, now)
        break
      }
      case 'throttled': {
        score.throttled(id, now)
        this.#state.parts.promises.throttled(sender)
        break
      }
    }
  }

  #forward(id: string, { topic, raw, from }: WireMessage, senders: ReadonlySet<string>, now: number): void {
    const source = from === undefined ? undefined : this.#state.peers.named(from)
    // What we said IDONTWANT of, others say, too: some turns later we know who does not need it any more.
    const turn = raw.length < this.#state.parts.params.idontwantThresholdBytes ? 0 : this.#state.turn + heldTurns
    for (const peer of this.#receivers(topic, false, now)) {
      if (senders.has(peer.id) || peer === source || peer.unwanted.has(id)) continue
      if (this.#state.sendsPartialTo(peer, topic)) continue
      if (peer.queue.message(id, raw, 'forwarded', now, turn)) this.#state.dirty.add(peer.id)
    }
  }

  /** Who gets whole messages of a topic: mesh (or fanout), direct and floodsub peers; or all good ones, where we flood. */
  *#receivers(topic: string, flood: boolean, now: number): Generator<Peer> {
    const { score, thresholds } = this.#state.parts
    const mesh = this.#meshes.mesh.get(topic) ?? this.#meshes.fanout.get(topic)?.peers
    if (!flood && mesh !== undefined && this.#state.peers.floodsubs === 0 && this.#state.parts.direct.size === 0) {
      for (const id of mesh) {
        const peer = this.#state.peers.get(id)
        if (peer?.version !== undefined) yield peer
      }
      return
    }
    for (const peer of this.#state.peers.of(topic)) {
      if (peer.version === undefined) continue
      if (peer.direct || (!flood && mesh?.has(peer.id) === true)) yield peer
      else if ((flood || peer.version === 0) && score.score(peer.id, now) >= thresholds.publish) yield peer
    }
  }

  /**
   * Sends a message of our own. Undefined: it was seen before. Without recipients it leaves no trace, unless `allowNone`:
   * then who asks for it within the next heartbeats gets it.
   */
  publish(id: string, message: WireMessage, allowNone: boolean, now: number): Published | undefined {
    const { params, seen, cache, score, thresholds } = this.#state.parts
    if (seen.has(id, now)) return undefined
    const { topic, raw } = message
    if (!this.#meshes.mesh.has(topic)) this.#meshes.refreshFanout(topic, now)
    const published: Published = { recipients: [], subscribers: 0, belowThreshold: 0, queueFull: 0, wantParts: 0 }
    for (const peer of this.#state.peers.of(topic)) {
      if (peer.version === undefined) continue
      published.subscribers++
      if (!peer.direct && score.score(peer.id, now) < thresholds.publish) published.belowThreshold++
    }
    for (const peer of this.#receivers(topic, params.floodPublish, now)) {
      if (peer.unwanted.has(id)) continue
      if (this.#state.sendsPartialTo(peer, topic)) {
        published.wantParts++
        continue
      }
      if (!peer.queue.message(id, raw, 'own', now)) {
        published.queueFull++
        continue
      }
      published.recipients.push(peer.id)
      this.#state.dirty.add(peer.id)
    }
    if (published.recipients.length === 0 && !allowNone) return published
    seen.add(id, now)
    cache.put(id, topic, raw)
    // Nobody sends a message back to whom it names as its source; without a name we say that we have it.
    if (message.from === undefined) this.#dontSend(id, message)
    return published
  }

  ihave(peer: Peer, { ihave }: Rpc, now: number): void {
    const { params, seen, unit, promises } = this.#state.parts
    peer.ihaves++
    const want = new Set<string>()
    for (const { topic, ids } of ihave) {
      if (!this.#meshes.mesh.has(topic)) continue
      for (const id of ids) if (!seen.has(id, now) && !this.#open.has(id)) want.add(id)
    }
    const room = Math.min(params.maxIHaveLength - peer.asked, want.size)
    if (room <= 0) return
    // In random order: a peer can't choose what is asked for.
    const ids = pick(shuffle([...want], unit), room, unit)
    const asked = ids.slice(0, peer.queue.iwant(ids))
    peer.asked += asked.length
    if (asked.length > 0) promises.add(peer.id, asked, now)
    this.#state.dirty.add(peer.id)
  }

  iwant(peer: Peer, ids: readonly string[], now: number): void {
    const { cache, params } = this.#state.parts
    peer.iwants += ids.length
    for (const id of new Set(ids)) {
      if (peer.unwanted.has(id)) continue
      const found = cache.getForPeer(id, peer.id)
      if (found === undefined || found.count > params.gossipRetransmission) continue
      if (peer.queue.message(id, found.raw, 'reply', now)) this.#state.dirty.add(peer.id)
    }
  }

  idontwant(peer: Peer, ids: readonly string[]): void {
    const { params, limits } = this.#state.parts
    peer.idontwants++
    for (const id of ids) {
      if (peer.unwanted.size >= limits.maxUnwanted) return
      // The latest last: expiry goes in order.
      peer.unwanted.delete(id)
      peer.unwanted.set(id, this.#state.tick + params.idontwantTtl)
      peer.queue.cancel(id)
    }
  }

  /** v1.0 §Gossip emission. */
  gossip(topic: string, peers: readonly string[]): void {
    const { params, cache, unit } = this.#state.parts
    const ids = cache.gossipIds(topic)
    const partial: string[] = []
    for (const id of peers) {
      const peer = this.#state.peers.get(id)
      if (peer === undefined) continue
      if (this.#state.sendsPartialTo(peer, topic)) {
        partial.push(id)
      } else if (ids.length > 0) {
        // Where there are too many, each peer hears of others.
        const told =
          ids.length > params.maxIHaveLength ? pick(shuffle([...ids], unit), params.maxIHaveLength, unit) : ids
        peer.queue.ihave(topic, told)
        this.#state.dirty.add(id)
      }
    }
    if (partial.length > 0) this.#state.events.push({ kind: 'partial-gossip', topic, peers: partial })
  }
}

/** A small message must not keep the large frame that it came in. */
function owned(message: WireMessage): WireMessage {
  const { raw } = message
  if (raw.buffer.byteLength <= 2 * raw.length + 1024) return message
  const copy = raw.slice()
  const part = (field: Uint8Array | undefined): Uint8Array | undefined => {
    if (field === undefined) return undefined
    const at = field.byteOffset - raw.byteOffset
    return copy.subarray(at, at + field.length)
  }
  const { from, data, seqno, topic, signature, key } = message
  return {
    from: part(from),
    data: part(data),
    seqno: part(seqno),
    topic,
    signature: part(signature),
    key: part(key),
    raw: copy,
  }
}
