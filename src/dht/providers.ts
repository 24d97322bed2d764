/*
 * Who provides what, as they told us: kept 48 h unless renewed (kad-dht §Content provider advertisement), in a record
 * store, so that a restart forgets nothing. Bounded per key, per provider and in all: what is renewed last stays.
 */
import { fromHex, toHex } from '../bytes.ts'
import type { Env } from '../env.ts'
import { decodeMultiaddr, type Multiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import { bytes, limited, message, repeated, uint64 } from '../protobuf.ts'
import type { RecordChange, RecordStore } from '../store/records.ts'
import type { PeerInfo } from './network.ts'
import { maxAddrsPerPeer } from './wire.ts'

export interface ProviderLimits {
  /** Providers of one key; the one renewed longest ago goes. Default 1,000 (IPIP-0537). */
  maxPerKey?: number
  /** Keys of one provider; one more is refused. Default 20,000. */
  maxPerProvider?: number
  /** Records in all; the one renewed longest ago goes. Default 200,000. */
  maxRecords?: number
  /** Default 48 h. */
  validMs?: number
  /** How long a provider's addresses are told with it. Default 24 h (kad-dht.md §Provider Records). */
  addrsValidMs?: number
}

const defaults = {
  maxPerKey: 1_000,
  maxPerProvider: 20_000,
  maxRecords: 200_000,
  validMs: 48 * 3_600_000,
  addrsValidMs: 24 * 3_600_000,
} satisfies Required<ProviderLimits>

const Stored = message({
  at: [1, uint64],
  addrs: [2, repeated(limited(bytes, 1024), maxAddrsPerPeer)],
})

interface Entry {
  readonly peer: PeerId
  readonly key: string
  addrs: readonly Multiaddr[]
  /** Unix milliseconds. */
  at: number
}

const prefix = '/providers/'

export class ProviderStore {
  readonly #limits: typeof defaults
  readonly #env: Env
  readonly #records: RecordStore
  readonly #base: string
  /** By key in hex, then by provider; both in the order they were renewed. */
  readonly #byKey = new Map<string, Map<string, Entry>>()
  readonly #perProvider = new Map<string, number>()
  /** All, in the order they were renewed. */
  readonly #all = new Set<Entry>()
  readonly #dirty = new Map<string, RecordChange>()
  #writing: Promise<void> | undefined

  /** `namespace` keeps the networks apart that share a record store. */
  constructor(records: RecordStore, env: Env, namespace: string, limits: ProviderLimits = {}) {
    this.#records = records
    this.#env = env
    this.#base = `${namespace}${prefix}`
    this.#limits = { ...defaults, ...limits }
  }

  get size(): number {
    return this.#all.size
  }

  /** Reads what an earlier run left. */
  async load(): Promise<void> {
    const found: Entry[] = []
    for await (const { key, value } of this.#records.entries(this.#base)) {
      const [hex = '', text = ''] = key.slice(this.#base.length).split('/')
      const { at = 0n, addrs } = Stored.decode(value)
      const decoded = addrs.map((addr) => decodeMultiaddr(addr))
      found.push({ peer: PeerId.parse(text), key: hex, addrs: decoded, at: Number(at) })
    }
    for (const entry of found.toSorted((a, b) => a.at - b.at)) this.#insert(entry)
  }

  /** A provider said so just now. False where it has too many records already. */
  add(key: Uint8Array, peer: PeerId, addrs: readonly Multiaddr[]): boolean {
    const hex = toHex(key)
    const text = peer.toString()
    const known = this.#byKey.get(hex)?.get(text)
    if (known === undefined && (this.#perProvider.get(text) ?? 0) >= this.#limits.maxPerProvider) return false
    if (known !== undefined) this.#remove(known)
    const entry: Entry = { peer, key: hex, addrs, at: this.#env.clock.wallTime() }
    this.#insert(entry)
    const value = Stored.encode({ at: BigInt(entry.at), addrs: addrs.map((addr) => addr.bytes) })
    this.#write({ key: `${this.#base}${hex}/${text}`, value, expiresAt: entry.at + this.#limits.validMs })
    return true
  }

  /** Those that are valid, the last renewed first, at most `max`. */
  of(key: Uint8Array, max = 100): PeerInfo[] {
    const { validMs, addrsValidMs } = this.#limits
    const now = this.#env.clock.wallTime()
    const out: PeerInfo[] = []
    for (const entry of [...(this.#byKey.get(toHex(key))?.values() ?? [])].toReversed()) {
      const age = now - entry.at
      if (age >= validMs) this.#forget(entry)
      else if (out.length < max) out.push({ peer: entry.peer, addrs: age < addrsValidMs ? entry.addrs : [] })
    }
    return out
  }

  /** Not ours any more: a key that we do not provide now. */
  remove(key: Uint8Array, peer: PeerId): void {
    const entry = this.#byKey.get(toHex(key))?.get(peer.toString())
    if (entry !== undefined) this.#forget(entry)
  }

  /** Keys that `peer` provides. */
  *keysOf(peer: PeerId): Generator<Uint8Array> {
    const text = peer.toString()
    for (const [hex, providers] of this.#byKey) if (providers.has(text)) yield fromHex(hex)
  }

  /** Drops what has expired. */
  sweep(): void {
    const now = this.#env.clock.wallTime()
    for (const entry of this.#all) {
      // In the order of their times: the first that is valid ends it.
      if (now - entry.at < this.#limits.validMs) break
      this.#forget(entry)
    }
  }

  /** Resolves once everything is in the record store. Rejects with StorageError. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined || this.#dirty.size > 0) await (this.#writing ?? this.#flushNow())
  }

  #insert(entry: Entry): void {
    const { maxPerKey, maxRecords } = this.#limits
    const text = entry.peer.toString()
    const providers = this.#byKey.get(entry.key) ?? new Map<string, Entry>()
    this.#byKey.set(entry.key, providers)
    providers.set(text, entry)
    this.#all.add(entry)
    this.#perProvider.set(text, (this.#perProvider.get(text) ?? 0) + 1)
    const [oldestOfKey] = providers.values()
    if (providers.size > maxPerKey && oldestOfKey !== undefined) this.#forget(oldestOfKey)
    const [oldest] = this.#all
    if (this.#all.size > maxRecords && oldest !== undefined) this.#forget(oldest)
  }

  #remove(entry: Entry): void {
    const text = entry.peer.toString()
    const providers = this.#byKey.get(entry.key)
    providers?.delete(text)
    if (providers?.size === 0) this.#byKey.delete(entry.key)
    this.#all.delete(entry)
    const left = (this.#perProvider.get(text) ?? 1) - 1
    if (left > 0) this.#perProvider.set(text, left)
    else this.#perProvider.delete(text)
  }

  #forget(entry: Entry): void {
    this.#remove(entry)
    this.#write({ key: `${this.#base}${entry.key}/${entry.peer.toString()}`, value: undefined })
  }

  /** Gathers the writes of a moment into one. */
  #write(change: RecordChange): void {
    this.#dirty.set(change.key, change)
    if (this.#writing !== undefined) return
    this.#flushNow().catch((error: unknown) => this.#env.trace?.('dht.store-failed', { error }))
  }

  #flushNow(): Promise<void> {
    const work = async (): Promise<void> => {
      await new Promise<void>((resolve) => this.#env.turn(resolve))
      while (this.#dirty.size > 0) {
        const changes = [...this.#dirty.values()]
        this.#dirty.clear()
        await this.#records.batch(changes)
      }
    }
    this.#writing = work().finally(() => {
      this.#writing = undefined
    })
    return this.#writing
  }
}
