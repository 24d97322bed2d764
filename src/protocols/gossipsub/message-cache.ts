/*
 * gossipsub v1.0 §Message Cache: the messages of the last heartbeats, to gossip about and to answer IWANT with.
 * Where they pass the byte bound the oldest go first, before their time.
 */

export interface MessageCacheOptions {
  /** Windows (heartbeats) that a message stays. Default 5 (spec: mcache_len). */
  history?: number
  /** Windows that are gossiped about, the newest. Default 3 (spec: mcache_gossip). */
  gossip?: number
  /** Of all messages, with what it takes to know them. Default 64 MiB: 5 heartbeats of 100 Mbit/s. */
  maxBytes?: number
}

const defaults = {
  history: 5,
  gossip: 3,
  maxBytes: 64 * 1024 * 1024,
} satisfies Required<MessageCacheOptions>

/** About what the maps take for a message beside its own bytes, and for each peer that asked for it. */
const entryBytes = 400
const askerBytes = 64

/** Topics and the ids of their messages. */
type Window = Map<string, Set<string>>

interface Entry {
  id: string
  topic: string
  raw: Uint8Array
  window: Window
  bytes: number
  /** How often each peer asked for it. */
  asked: Map<string, number> | undefined
}

export interface CachedMessage {
  readonly topic: string
  /** The message as it came. */
  readonly raw: Uint8Array
}

export class MessageCache {
  readonly #gossip: number
  readonly #maxBytes: number
  /** The oldest first. */
  readonly #entries = new Map<string, Entry>()
  /** The newest first. */
  readonly #windows: Window[]
  #bytes = 0
  /** Messages that went before their time for want of room. */
  evicted = 0

  constructor(options: MessageCacheOptions = {}) {
    const { history, gossip, maxBytes } = { ...defaults, ...options }
    if (!Number.isInteger(history) || history < 1) throw new RangeError(`history of ${history} windows, want 1 or more`)
    if (!Number.isInteger(gossip) || gossip < 1 || gossip > history) {
      throw new RangeError(`gossip about ${gossip} windows, want 1 to ${history} (history)`)
    }
    if (!(maxBytes > 0)) throw new RangeError(`maxBytes of ${maxBytes}, want more than 0`)
    this.#gossip = gossip
    this.#maxBytes = maxBytes
    this.#windows = Array.from({ length: history }, () => new Map())
  }

  get size(): number {
    return this.#entries.size
  }

  /** Of messages and what it takes to know them. */
  get bytes(): number {
    return this.#bytes
  }

  /** False: it is larger than all the room there is. One that is there already stays as it is. */
  put(id: string, topic: string, raw: Uint8Array): boolean {
    if (this.#entries.has(id)) return true
    const bytes = entryBytes + id.length + raw.length
    if (bytes > this.#maxBytes) return false
    this.#makeRoom(bytes)
    const window = this.#windows[0] as Window
    let ids = window.get(topic)
    if (ids === undefined) window.set(topic, (ids = new Set()))
    ids.add(id)
    // A small part must not keep a large frame.
    const own = raw.buffer.byteLength > 2 * raw.length + 4096 ? raw.slice() : raw
    this.#entries.set(id, { id, topic, raw: own, window, bytes, asked: undefined })
    this.#bytes += bytes
    return true
  }

  #makeRoom(bytes: number): void {
    for (const entry of this.#entries.values()) {
      if (this.#bytes + bytes <= this.#maxBytes) return
      this.#remove(entry)
      this.evicted++
    }
  }

  #remove({ id, topic, window, bytes }: Entry): void {
    this.#entries.delete(id)
    this.#bytes -= bytes
    const ids = window.get(topic)
    ids?.delete(id)
    if (ids?.size === 0) window.delete(topic)
  }

  has(id: string): boolean {
    return this.#entries.has(id)
  }

  get(id: string): CachedMessage | undefined {
    return this.#entries.get(id)
  }

  /** For an IWANT: `count` says how often this peer has asked for it, this time included (GossipRetransmission). */
  getForPeer(id: string, peer: string): (CachedMessage & { count: number }) | undefined {
    const entry = this.#entries.get(id)
    if (entry === undefined) return undefined
    entry.asked ??= new Map()
    const before = entry.asked.get(peer)
    if (before === undefined) {
      entry.bytes += askerBytes
      this.#bytes += askerBytes
    }
    const count = (before ?? 0) + 1
    entry.asked.set(peer, count)
    this.#makeRoom(0)
    return { topic: entry.topic, raw: entry.raw, count }
  }

  /** Ids of the topic in the windows that are gossiped about, the newest window first. */
  gossipIds(topic: string): string[] {
    const out: string[] = []
    for (let i = 0; i < this.#gossip; i++) {
      for (const id of this.#windows[i]?.get(topic) ?? []) out.push(id)
    }
    return out
  }

  /** Of an invalid message. */
  delete(id: string): void {
    const entry = this.#entries.get(id)
    if (entry !== undefined) this.#remove(entry)
  }

  /** A heartbeat is over: what was in the last window is forgotten. */
  shift(): void {
    const last = this.#windows.pop() as Window
    for (const ids of last.values()) {
      for (const id of ids) {
        this.#bytes -= this.#entries.get(id)?.bytes ?? 0
        this.#entries.delete(id)
      }
    }
    last.clear()
    this.#windows.unshift(last)
  }
}
