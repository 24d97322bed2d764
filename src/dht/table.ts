/*
 * The routing table: one bucket of up to k peers per length of the prefix that they share with us. Whoever answers
 * stays (seniority); a newcomer to a full bucket waits until somebody in it fails. Peers of one IP group can't take
 * more than a few places (libp2p kad-dht §Routing Table; diversity as go-libp2p-kad-dht has it).
 */
import type { PeerId } from '../peer/id.ts'
import { commonPrefixLength, compareDistance, keyBits, keyOfPeer, type Key } from './key.ts'

export interface TableOptions {
  /** Peers per bucket. Default 20 (k). */
  bucketPeers?: number
  /** Peers that wait for a place, per bucket. Default 8. */
  waitingPeers?: number
  /** Peers of one group in the table, and in one bucket; Infinity switches it off. Default 3 and 2 (go). */
  maxPerGroup?: number
  maxPerGroupAndBucket?: number
  /** How long an answer counts as a sign of life. Default 10 min, the time between two refreshes. */
  aliveMs?: number
}

const defaults = {
  bucketPeers: 20,
  waitingPeers: 8,
  maxPerGroup: 3,
  maxPerGroupAndBucket: 2,
  aliveMs: 600_000,
} satisfies Required<TableOptions>

export interface TablePeer {
  readonly peer: PeerId
  readonly key: Key
  /** IP groups of its addresses; none: not limited. */
  readonly groups: readonly string[]
  /** Clock milliseconds. */
  readonly addedAt: number
  /** When it last answered. */
  aliveAt: number
}

interface Bucket {
  /** Longest there first. */
  peers: TablePeer[]
  /** The one that answered last is last. */
  waiting: TablePeer[]
}

export type Added =
  | 'added'
  /** It was there: its sign of life counts. */
  | 'known'
  /** The bucket is full: it waits for a place. */
  | 'waiting'
  /** Its IP group has all the places that one may have. */
  | 'crowded'
  /** It is ourselves. */
  | 'self'

export class RoutingTable {
  readonly self: Key
  readonly #options: typeof defaults
  readonly #buckets = new Map<number, Bucket>()
  readonly #byPeer = new Map<string, TablePeer>()
  readonly #groups = new Map<string, number>()
  readonly #refreshedAt = new Map<number, number>()

  constructor(self: Key, options: TableOptions = {}) {
    this.self = self
    this.#options = { ...defaults, ...options }
  }

  get size(): number {
    return this.#byPeer.size
  }

  has(peer: PeerId): boolean {
    return this.#byPeer.has(peer.toString())
  }

  peers(): TablePeer[] {
    return [...this.#byPeer.values()]
  }

  /** Buckets that hold somebody: the length of the shared prefix, its peers and those that wait. */
  buckets(): { prefixBits: number; peers: readonly TablePeer[]; waiting: readonly TablePeer[] }[] {
    return [...this.#buckets]
      .toSorted(([a], [b]) => a - b)
      .map(([prefixBits, { peers, waiting }]) => ({ prefixBits, peers, waiting }))
  }

  /** A peer that answered a query just now. `groups` are the IP groups of its addresses. */
  add(peer: PeerId, groups: readonly string[], now: number): Added {
    const known = this.#byPeer.get(peer.toString())
    if (known !== undefined) {
      known.aliveAt = now
      return 'known'
    }
    const key = keyOfPeer(peer)
    const prefixBits = commonPrefixLength(this.self, key)
    if (prefixBits === keyBits) return 'self'
    const bucket = this.#bucket(prefixBits)
    const one: TablePeer = { peer, key, groups, addedAt: now, aliveAt: now }
    if (!this.#fits(one, bucket)) return 'crowded'
    if (bucket.peers.length < this.#options.bucketPeers) {
      this.#insert(one, bucket)
      return 'added'
    }
    bucket.waiting = [...bucket.waiting.filter((w) => !w.peer.equals(peer)), one].slice(-this.#options.waitingPeers)
    return 'waiting'
  }

  /** It answered. */
  alive(peer: PeerId, now: number): void {
    const known = this.#byPeer.get(peer.toString())
    if (known !== undefined) known.aliveAt = now
  }

  /** It did not answer, or does not serve any more: the one that waits and answered last gets its place. */
  remove(peer: PeerId): void {
    const text = peer.toString()
    const prefixBits = commonPrefixLength(this.self, keyOfPeer(peer))
    const bucket = this.#buckets.get(prefixBits)
    if (bucket === undefined) return
    bucket.waiting = bucket.waiting.filter((w) => !w.peer.equals(peer))
    const known = this.#byPeer.get(text)
    if (known === undefined) return
    this.#byPeer.delete(text)
    bucket.peers = bucket.peers.filter((p) => p !== known)
    for (const group of known.groups) {
      const left = (this.#groups.get(group) ?? 1) - 1
      if (left > 0) this.#groups.set(group, left)
      else this.#groups.delete(group)
    }
    const next = bucket.waiting.findLastIndex((w) => this.#fits(w, bucket))
    const [promoted] = next < 0 ? [] : bucket.waiting.splice(next, 1)
    if (promoted !== undefined) this.#insert(promoted, bucket)
    if (bucket.peers.length + bucket.waiting.length === 0) this.#buckets.delete(prefixBits)
  }

  /** The `count` peers that are closest to `target`, the closest first. */
  closest(target: Key, count: number): TablePeer[] {
    const out: TablePeer[] = []
    const shared = commonPrefixLength(this.self, target)
    const take = (peers: TablePeer[]): boolean => {
      out.push(...peers.toSorted((a, b) => compareDistance(target, a.key, b.key)))
      return out.length >= count
    }
    // Who shares exactly as many bits with us as the target does shares more with the target than anybody else.
    let enough = take(this.#buckets.get(shared)?.peers ?? [])
    // Who shares more with us differs from the target in one and the same bit.
    if (!enough) enough = take([...this.#buckets].flatMap(([bits, { peers }]) => (bits > shared ? peers : [])))
    for (let bits = shared - 1; bits >= 0 && !enough; bits--) enough = take(this.#buckets.get(bits)?.peers ?? [])
    return out.slice(0, count)
  }

  /** Peers that gave no sign of life for so long that they should be asked for one, the longest silent first. */
  silent(now: number): TablePeer[] {
    return this.peers()
      .filter(({ aliveAt }) => now - aliveAt >= this.#options.aliveMs)
      .toSorted((a, b) => a.aliveAt - b.aliveAt)
  }

  /**
   * Prefix lengths to look up something random in, up to the longest that anybody in the table shares with us and at
   * most `max`.
   */
  prefixesToRefresh(now: number, everyMs: number, max = 12): number[] {
    const deepest = Math.min(max, Math.max(-1, ...this.#buckets.keys()))
    const due: number[] = []
    for (let bits = 0; bits <= deepest; bits++) {
      if (now - (this.#refreshedAt.get(bits) ?? -Infinity) >= everyMs) due.push(bits)
    }
    return due
  }

  refreshed(prefixBits: number, now: number): void {
    this.#refreshedAt.set(prefixBits, now)
  }

  #bucket(prefixBits: number): Bucket {
    let bucket = this.#buckets.get(prefixBits)
    if (bucket === undefined) {
      this.#buckets.set(prefixBits, (bucket = { peers: [], waiting: [] }))
    }
    return bucket
  }

  #fits({ groups }: TablePeer, bucket: Bucket): boolean {
    const { maxPerGroup, maxPerGroupAndBucket } = this.#options
    return groups.every(
      (group) =>
        (this.#groups.get(group) ?? 0) < maxPerGroup &&
        bucket.peers.filter((p) => p.groups.includes(group)).length < maxPerGroupAndBucket,
    )
  }

  #insert(one: TablePeer, bucket: Bucket): void {
    bucket.peers.push(one)
    this.#byPeer.set(one.peer.toString(), one)
    for (const group of one.groups) this.#groups.set(group, (this.#groups.get(group) ?? 0) + 1)
  }
}
