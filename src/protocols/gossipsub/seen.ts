/*
 * pubsub §Message Identification: ids of the messages that were seen lately. Sets by time, so that whole ones are
 * dropped at once: an id is known for the window and up to a quarter of it longer. When full, the oldest set goes before
 * its time, and is counted: the window is shorter under a flood, it is never a message that is lost.
 */

export interface SeenOptions {
  /** Default 120 s (go-libp2p-pubsub TimeCacheDuration). */
  ttlMs?: number
  /** Ids; about 80 bytes each with ids of 40. Default 262,144: 2,184 messages a second for the whole window. */
  maxEntries?: number
  /** Whether a duplicate makes the window of its id start again (go: Strategy_LastSeen). Default 'first'. */
  expiry?: 'first' | 'last'
}

const defaults = { ttlMs: 120_000, maxEntries: 262_144, expiry: 'first' } satisfies Required<SeenOptions>

/** Of the window, and of the entries: one set holds so much. */
const slices = 4

interface Generation {
  ids: Set<string>
  from: number
  /** When something was last added. */
  to: number
}

export class Seen {
  readonly #ttlMs: number
  readonly #maxEntries: number
  readonly #renew: boolean
  readonly #perGeneration: number
  /** The oldest first; never empty. */
  #generations: Generation[]
  #size = 0
  /** Ids that were forgotten before their time for want of room. */
  evicted = 0

  constructor(options: SeenOptions = {}) {
    const { ttlMs, maxEntries, expiry } = { ...defaults, ...options }
    if (!(ttlMs > 0)) throw new RangeError(`ttlMs of ${ttlMs}, want more than 0`)
    if (!Number.isInteger(maxEntries) || maxEntries < 2 * slices) {
      throw new RangeError(`maxEntries of ${maxEntries}, want a whole number of ${2 * slices} or more`)
    }
    this.#ttlMs = ttlMs
    this.#maxEntries = maxEntries
    this.#renew = expiry === 'last'
    this.#perGeneration = Math.floor(maxEntries / slices)
    this.#generations = [{ ids: new Set(), from: -Infinity, to: -Infinity }]
  }

  /** Ids that are held; one that was renewed counts twice for a while. */
  get size(): number {
    return this.#size
  }

  has(id: string, now: number): boolean {
    this.clear(now)
    return this.#find(id, now)
  }

  /** False: it was there already. */
  add(id: string, now: number): boolean {
    this.clear(now)
    if (this.#find(id, now)) return false
    this.#insert(id, now)
    return true
  }

  #find(id: string, now: number): boolean {
    for (let i = this.#generations.length - 1; i >= 0; i--) {
      const generation = this.#generations[i] as Generation
      if (!generation.ids.has(id)) continue
      if (this.#renew) this.#insert(id, now)
      return true
    }
    return false
  }

  #insert(id: string, now: number): void {
    let current = this.#generations.at(-1) as Generation
    if (current.ids.size === 0) {
      current.from = now
    } else if (current.ids.size >= this.#perGeneration || now - current.from >= this.#ttlMs / slices) {
      current = { ids: new Set(), from: now, to: now }
      this.#generations.push(current)
    }
    current.to = Math.max(current.to, now)
    if (current.ids.has(id)) return
    if (this.#size >= this.#maxEntries) this.evicted += this.#dropOldest()
    current.ids.add(id)
    this.#size++
  }

  #dropOldest(): number {
    const size = this.#generations.shift()?.ids.size ?? 0
    this.#size -= size
    return size
  }

  /** Forgets what is old; has() and add() do so, too. */
  clear(now: number): void {
    while ((this.#generations[0] as Generation).to + this.#ttlMs <= now) {
      this.#dropOldest()
      if (this.#generations.length === 0) this.#generations.push({ ids: new Set(), from: now, to: now })
    }
  }
}
