/*
 * gossipsub v1.1 §Spam Protection Measures: of each IWANT one id at random is remembered; who advertised it and does not
 * let it follow in time broke a promise. Whoever delivers it fulfils it for all. Kept when a peer leaves.
 */
import type { Random } from '../../env.ts'

export interface PromisesOptions {
  /** Default 3 s (go-libp2p-pubsub GossipSubIWantFollowupTime). */
  followupMs?: number
  /** Promises of all peers; what is beyond is not tracked, and counted. About 370 bytes each. Default 16,384. */
  maxPromises?: number
}

const defaults = { followupMs: 3_000, maxPromises: 16_384 } satisfies Required<PromisesOptions>

interface Made {
  id: string
  peer: string
  until: number
}

export class Promises {
  readonly #random: Random
  readonly #followupMs: number
  readonly #maxPromises: number
  /** In the order that they are due in. */
  readonly #made = new Set<Made>()
  readonly #byId = new Map<string, Map<string, Made>>()
  readonly #byPeer = new Map<string, Set<Made>>()
  /** IWANTs of which nothing was remembered for want of room. */
  untracked = 0

  constructor(random: Random, options: PromisesOptions = {}) {
    const { followupMs, maxPromises } = { ...defaults, ...options }
    if (!(followupMs > 0)) throw new RangeError(`followupMs of ${followupMs}, want more than 0`)
    if (!Number.isInteger(maxPromises) || maxPromises < 1) {
      throw new RangeError(`maxPromises of ${maxPromises}, want a whole number of 1 or more`)
    }
    this.#random = random
    this.#followupMs = followupMs
    this.#maxPromises = maxPromises
  }

  get size(): number {
    return this.#made.size
  }

  /** We asked `peer` for `ids`. */
  add(peer: string, ids: readonly string[], now: number): void {
    const id = ids[Math.floor(this.#random.unit() * ids.length)]
    if (id === undefined) return
    // What was asked for twice is due when it was first promised.
    if (this.#byId.get(id)?.has(peer)) return
    if (this.#made.size >= this.#maxPromises) {
      this.untracked++
      return
    }
    const made = { id, peer, until: now + this.#followupMs }
    this.#made.add(made)
    const peers = this.#byId.get(id)
    if (peers === undefined) this.#byId.set(id, new Map([[peer, made]]))
    else peers.set(peer, made)
    const promises = this.#byPeer.get(peer)
    if (promises === undefined) this.#byPeer.set(peer, new Set([made]))
    else promises.add(made)
  }

  /** The message came, from whomever; also an invalid one, which is punished as such, but for its signature. */
  fulfilled(id: string): void {
    for (const made of this.#byId.get(id)?.values() ?? []) this.#forget(made)
  }

  /** We had no room to validate what this peer sent: it is not to blame. */
  throttled(peer: string): void {
    for (const made of this.#byPeer.get(peer) ?? []) this.#forget(made)
  }

  /** How many promises each peer has broken since this was last asked. */
  broken(now: number): Map<string, number> {
    const counts = new Map<string, number>()
    for (const made of this.#made) {
      if (made.until >= now) break
      counts.set(made.peer, (counts.get(made.peer) ?? 0) + 1)
      this.#forget(made)
    }
    return counts
  }

  #forget(made: Made): void {
    this.#made.delete(made)
    const peers = this.#byId.get(made.id)
    peers?.delete(made.peer)
    if (peers?.size === 0) this.#byId.delete(made.id)
    const promises = this.#byPeer.get(made.peer)
    promises?.delete(made)
    if (promises?.size === 0) this.#byPeer.delete(made.peer)
  }
}
