/*
 * gossipsub v1.1 §Prune Backoff and Peer Exchange: until when a peer and we must not graft each other in a topic.
 * Kept when the peer leaves: coming back does not end it. When full, those that end first go.
 */

export interface BackoffOptions {
  /** What a peer asks for beyond this is cut: nobody needs us to remember for years. Default 1 h. */
  maxMs?: number
  /** Our own grafts wait so much longer: clocks and wires differ. Default 1 s, a heartbeat. */
  slackMs?: number
  /** Pairs of topic and peer; about 130 bytes each, and the names. Default 65,536. */
  maxEntries?: number
}

const defaults = { maxMs: 3_600_000, slackMs: 1_000, maxEntries: 65_536 } satisfies Required<BackoffOptions>

/** What ends within the same second is dropped together. */
const bucketMs = 1_000

interface Entry {
  topic: string
  peer: string
  until: number
  bucket: number
}

export class Backoff {
  readonly #maxMs: number
  readonly #slackMs: number
  readonly #maxEntries: number
  readonly #topics = new Map<string, Map<string, Entry>>()
  /** By the second they may be forgotten in. */
  readonly #buckets = new Map<number, Set<Entry>>()
  /** No bucket is before it. */
  #first = Infinity
  #size = 0
  /** Entries that were forgotten before their time for want of room. */
  evicted = 0

  constructor(options: BackoffOptions = {}) {
    const { maxMs, slackMs, maxEntries } = { ...defaults, ...options }
    if (!(maxMs > 0) || maxMs > Number.MAX_SAFE_INTEGER) throw new RangeError(`maxMs of ${maxMs}, want more than 0`)
    if (!(slackMs >= 0)) throw new RangeError(`slackMs of ${slackMs}, want 0 or more`)
    if (!Number.isInteger(maxEntries) || maxEntries < 1) {
      throw new RangeError(`maxEntries of ${maxEntries}, want a whole number of 1 or more`)
    }
    this.#maxMs = maxMs
    this.#slackMs = slackMs
    this.#maxEntries = maxEntries
  }

  get size(): number {
    return this.#size
  }

  /** From now on for `ms`, as a peer said, or for as long as before where that is longer. */
  add(topic: string, peer: string, ms: number, now: number): void {
    // Also where ms is no number.
    const until = now + (ms < this.#maxMs ? Math.max(0, ms) : this.#maxMs)
    let peers = this.#topics.get(topic)
    if (peers === undefined) this.#topics.set(topic, (peers = new Map()))
    let entry = peers.get(peer)
    if (entry === undefined) {
      entry = { topic, peer, until, bucket: 0 }
      peers.set(peer, entry)
      this.#size++
      if (this.#size > this.#maxEntries) this.#evict()
    } else if (entry.until >= until) {
      return
    } else {
      this.#leave(entry)
      entry.until = until
    }
    // The second after it, when it is surely over.
    entry.bucket = Math.floor((until + this.#slackMs) / bucketMs) + 1
    const bucket = this.#buckets.get(entry.bucket)
    if (bucket === undefined) this.#buckets.set(entry.bucket, new Set([entry]))
    else bucket.add(entry)
    this.#first = Math.min(this.#first, entry.bucket)
  }

  /** Until when this peer may not graft us; undefined where nothing is known. It may lie in the past. */
  until(topic: string, peer: string): number | undefined {
    return this.#topics.get(topic)?.get(peer)?.until
  }

  /** Whether we must not graft this peer: also for the slack after it. */
  backingOff(topic: string, peer: string, now: number): boolean {
    const until = this.until(topic, peer)
    return until !== undefined && now < until + this.#slackMs
  }

  /** Forgets what is over. */
  clear(now: number): void {
    const last = Math.floor(now / bucketMs)
    if (this.#first > last) return
    // A clock that jumps is not walked after second by second.
    const due = last - this.#first < this.#buckets.size ? range(this.#first, last) : [...this.#buckets.keys()]
    for (const key of due) {
      if (key > last) continue
      for (const entry of this.#buckets.get(key) ?? []) this.#forget(entry)
      this.#buckets.delete(key)
    }
    this.#first = this.#buckets.size === 0 ? Infinity : last + 1
  }

  #evict(): void {
    for (;;) {
      const bucket = this.#buckets.get(this.#first)
      if (bucket !== undefined) {
        const [entry] = bucket as Iterable<Entry>
        this.#leave(entry as Entry)
        this.#forget(entry as Entry)
        this.evicted++
        return
      }
      this.#first++
    }
  }

  #leave(entry: Entry): void {
    const bucket = this.#buckets.get(entry.bucket)
    bucket?.delete(entry)
    if (bucket?.size === 0) this.#buckets.delete(entry.bucket)
  }

  #forget({ topic, peer }: Entry): void {
    const peers = this.#topics.get(topic)
    peers?.delete(peer)
    if (peers?.size === 0) this.#topics.delete(topic)
    this.#size--
  }
}

function* range(from: number, to: number): Generator<number> {
  for (let i = from; i <= to; i++) yield i
}
