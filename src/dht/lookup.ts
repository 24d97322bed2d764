/*
 * An iterative lookup (libp2p kad-dht §Peer routing, as go-libp2p-kad-dht does it): of all peers heard of, the closest
 * that were not asked yet are asked, alpha at a time, until the beta closest have answered or nobody is left. Then,
 * where the k closest are wanted, those of them that were not asked are asked too.
 * With several paths (S/Kademlia §4.4) each peer belongs to the path that heard of it first, so that an adversary on
 * one path does not lead the others.
 */
import type { PeerId } from '../peer/id.ts'
import { compareDistance, distanceShare, keyOfPeer, type Key } from './key.ts'

export interface LookupOptions {
  /** Results, and what one answer may name. Default 20. */
  k?: number
  /** Queries at a time, of all paths together. Default 10. */
  alpha?: number
  /** The closest so many must have answered. Default 3. */
  beta?: number
  /** Disjoint paths. Default 1. */
  paths?: number
  /** Ask all of the k closest before it ends, not only the beta closest. Default true. */
  complete?: boolean
  /**
   * How far k peers usually reach, as a share of the keyspace. When k are within half of it, everybody within it counts
   * as one of the closest, up to four times k: who crowds around a key does not push out who was there. Default 0.
   */
  radius?: number
  /** Pass over whom a peer names of whose other peers hardly any answered. Default true. */
  blame?: boolean
  /** Queries in all: what an adversary who names ever new peers can make us do. Default 500. */
  maxQueries?: number
  /** Peers to remember; farther ones are forgotten first. Default 2,000. */
  maxHeard?: number
}

const defaults = {
  k: 20,
  alpha: 10,
  beta: 3,
  paths: 1,
  complete: true as boolean,
  radius: 0,
  blame: true as boolean,
  maxQueries: 500,
  maxHeard: 2_000,
} satisfies Required<LookupOptions>

/** Heard: not asked yet. Waiting: asked. Queried: it answered. Unreachable: it did not. */
export type PeerState = 'heard' | 'waiting' | 'queried' | 'unreachable'

export interface LookupPeer {
  readonly peer: PeerId
  readonly key: Key
  /** Who named it; undefined: our own routing table. */
  from: PeerId | undefined
  /** Answers between us and it: 0 in our own table. */
  hops: number
  state: PeerState
}

interface Path {
  /** Closest first. */
  readonly peers: LookupPeer[]
  waiting: number
}

export type LookupEvent =
  | { type: 'query'; peer: PeerId }
  /** Nothing more will be asked. */
  | { type: 'done'; reason: 'converged' | 'exhausted' | 'stopped' | 'timeout' | 'too-many-queries' }

export class Lookup {
  readonly target: Key
  readonly #options: typeof defaults
  readonly #self: PeerId
  readonly #paths: Path[]
  readonly #known = new Map<string, { one: LookupPeer; path: Path }>()
  readonly #events: LookupEvent[] = []
  /** How many of those that a peer named first answered, and did not. */
  readonly #namers = new Map<string, { good: number; bad: number }>()
  #queries = 0
  #waiting = 0
  #done = false

  /** `seeds` are the peers of the routing table that are closest to `target`. */
  constructor(self: PeerId, target: Key, seeds: readonly PeerId[], options: LookupOptions = {}) {
    this.target = target
    this.#self = self
    this.#options = { ...defaults, ...options }
    this.#paths = Array.from({ length: Math.max(1, this.#options.paths) }, () => ({ peers: [], waiting: 0 }))
    // Dealt out in turn, so that each path starts near.
    for (const [i, peer] of seeds.entries()) this.#hear(peer, undefined, 0, this.#paths[i % this.#paths.length] as Path)
    this.#advance()
  }

  get queries(): number {
    return this.#queries
  }

  get heard(): number {
    return this.#known.size
  }

  find(peer: PeerId): LookupPeer | undefined {
    return this.#known.get(peer.toString())?.one
  }

  /** Everybody heard of, the closest first. */
  peers(): LookupPeer[] {
    return this.#sorted(() => true)
  }

  /** What happened or is to be done since the last call. */
  next(): LookupEvent | undefined {
    return this.#events.shift()
  }

  /** The peer answered and named these. */
  answered(peer: PeerId, closer: readonly PeerId[]): void {
    const known = this.#settle(peer, 'queried')
    if (known === undefined) return
    const { k } = this.#options
    const heard = closer.map((one) => ({ one, key: keyOfPeer(one) }))
    // An answer has k peers; of one that has more only the k closest count.
    const nearest = heard.length > k ? heard.toSorted((a, b) => compareDistance(this.target, a.key, b.key)) : heard
    for (const { one, key } of nearest.slice(0, k)) this.#hear(one, peer, known.one.hops + 1, known.path, key)
    this.#advance()
  }

  /** The peer could not be asked, or did not answer. */
  failed(peer: PeerId): void {
    if (this.#settle(peer, 'unreachable') !== undefined) this.#advance()
  }

  /** Enough is found, or it takes too long. */
  stop(reason: 'stopped' | 'timeout' = 'stopped'): void {
    this.#end(reason)
  }

  /** The k closest that answered, and more where they are crowded; the closest first. */
  closest(): PeerId[] {
    const span = this.span() ?? 1
    return this.#sorted(({ state }) => state === 'queried')
      .filter((one, i) => this.#counts(one, i, span))
      .map(({ peer }) => peer)
  }

  /** How far the k-th closest that answered is, as a share of the keyspace; undefined when fewer did. */
  span(): number | undefined {
    const last = this.#sorted(({ state }) => state === 'queried')[this.#options.k - 1]
    return last && distanceShare(this.target, last.key)
  }

  /** Is it one of the closest, when `before` are closer and the k-th is `span` away? */
  #counts({ key }: LookupPeer, before: number, span: number): boolean {
    const { k, radius } = this.#options
    if (before < k) return true
    // So close together by chance: one in 300.
    const crowded = span <= radius / 2
    return crowded && before < 4 * k && distanceShare(this.target, key) <= radius
  }

  #sorted(which: (one: LookupPeer) => boolean): LookupPeer[] {
    return [...this.#known.values()]
      .map(({ one }) => one)
      .filter(which)
      .toSorted((a, b) => compareDistance(this.target, a.key, b.key))
  }

  #hear(peer: PeerId, from: PeerId | undefined, hops: number, path: Path, key: Key = keyOfPeer(peer)): void {
    const text = peer.toString()
    const known = this.#known.get(text)
    if (known !== undefined && from !== undefined && known.one.state === 'heard' && this.#doubted(known.one)) {
      // Somebody better vouches for it.
      known.one.from = from
    }
    if (known !== undefined || peer.equals(this.#self)) return
    const one: LookupPeer = { peer, key, from, hops, state: 'heard' }
    let at = path.peers.length
    while (at > 0 && compareDistance(this.target, key, (path.peers[at - 1] as LookupPeer).key) < 0) at--
    const { maxHeard } = this.#options
    const max = Math.ceil(maxHeard / this.#paths.length)
    if (at >= max) return
    path.peers.splice(at, 0, one)
    this.#known.set(text, { one, path })
    if (path.peers.length <= max) return
    const farthest = path.peers.findLastIndex(({ state }) => state === 'heard')
    const [forgotten] = farthest < 0 ? [] : path.peers.splice(farthest, 1)
    if (forgotten !== undefined) this.#known.delete(forgotten.peer.toString())
  }

  #settle(peer: PeerId, state: 'queried' | 'unreachable'): { one: LookupPeer; path: Path } | undefined {
    const known = this.#known.get(peer.toString())
    // Only who was asked can answer, and only once.
    if (this.#done || known?.one.state !== 'waiting') return undefined
    known.one.state = state
    const { from } = known.one
    if (from !== undefined) {
      const namer = this.#namers.get(from.toString()) ?? { good: 0, bad: 0 }
      this.#namers.set(from.toString(), namer)
      if (state === 'queried') namer.good++
      else namer.bad++
    }
    known.path.waiting--
    this.#waiting--
    return known
  }

  /** Named by somebody whose peers do not answer: three did not, and not half as many did. */
  #doubted({ from }: LookupPeer): boolean {
    if (from === undefined || !this.#options.blame) return false
    const { good = 0, bad = 0 } = this.#namers.get(from.toString()) ?? {}
    return bad >= 3 && bad > 2 * good
  }

  /** Asks whom it may, or ends. */
  #advance(): void {
    if (this.#done) return
    const { alpha, maxQueries } = this.#options
    const share = Math.max(1, Math.floor(alpha / this.#paths.length))
    for (const path of this.#paths) {
      for (;;) {
        const one = this.#following(path)
        if (one === undefined || path.waiting >= share) break
        if (this.#queries >= maxQueries) {
          if (this.#waiting === 0) this.#end('too-many-queries')
          return
        }
        one.state = 'waiting'
        path.waiting++
        this.#waiting++
        this.#queries++
        this.#events.push({ type: 'query', peer: one.peer })
      }
    }
    if (this.#waiting > 0) return
    const starved = this.#paths.every(({ peers }) => peers.every(({ state }) => state !== 'heard'))
    this.#end(starved ? 'exhausted' : 'converged')
  }

  /** Whom the path asks next; undefined when nobody needs to be asked until an answer comes, or at all. */
  #following({ peers }: Path): LookupPeer | undefined {
    const { beta, complete, k } = this.#options
    let candidate: LookupPeer | undefined
    let reachable = 0
    let span = 1
    let answered = 0
    for (const one of peers) {
      if (one.state === 'unreachable' || (one.state === 'heard' && this.#doubted(one))) continue
      if (complete && !this.#counts(one, reachable, span)) break
      reachable++
      if (reachable === k) span = distanceShare(this.target, one.key)
      if (one.state === 'queried') answered++
      else if (one.state === 'heard') candidate ??= one
      // Converged: the beta closest that can be reached have all answered.
      if (reachable === beta && answered === beta && !complete) return undefined
    }
    return candidate
  }

  #end(reason: Extract<LookupEvent, { type: 'done' }>['reason']): void {
    if (this.#done) return
    this.#done = true
    this.#events.push({ type: 'done', reason })
  }
}
