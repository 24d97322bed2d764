/*
 * Names that move: publishing a path under a key, keeping it alive, and following a name to what it points at
 * (ipfs/specs ipns-record.md). Records travel by any routing that has get and put, such as the DHT.
 */
import { concat, fromUtf8 } from '../bytes.ts'
import { deadline, raceAbort, sleep } from '../deadline.ts'
import type { Env } from '../env.ts'
import { ProtocolError, UnavailableError, asError } from '../errors.ts'
import type { PeerId } from '../peer/id.ts'
import type { PrivateKey } from '../peer/keys.ts'
import type { RecordStore } from '../store/records.ts'
import { createRecord, decodeRecord, formatName, nameOf, parseName, validateRecord, type IpnsRecord } from './record.ts'

export { nameRoutings } from './name-routings.ts'
export { pubsubRouting, type PubsubRouting, type PubsubRoutingOptions, type ValueFetch } from './ipns-pubsub.ts'
export { ipnsValidator } from './validator.ts'
export { formatName, nameOf, parseName, type IpnsRecord } from './record.ts'

/** Where records travel: a Dht is one, pubsubRouting() another, nameRoutings() several at once. */
export interface NameRouting {
  /** The best record under the key. Rejects with UnavailableError `not-found` where there is none. */
  get(key: Uint8Array, options: { signal?: AbortSignal | undefined }): Promise<Uint8Array>
  /** To how many peers it went. */
  put(key: Uint8Array, value: Uint8Array, options: { signal?: AbortSignal | undefined }): Promise<number>
}

export interface NamesOptions {
  routing: NameRouting
  /** Our own records and their sequence numbers outlive a restart here. */
  records: RecordStore
  env: Env
  /** How long a published record is valid. Default 48 h: the DHT keeps none longer. */
  lifetimeMs?: number
  /** Until resolvers look again. Default 5 min. */
  ttlMs?: number
  /** Between two rounds of republishing. Default 4 h (Kubo). */
  republishMs?: number
  /** Names that a resolve follows, each pointing at the next. Default 32 (boxo). */
  maxDepth?: number
  /** For one publish or resolve. Default 60 s. */
  timeoutMs?: number
}

const defaults = {
  lifetimeMs: 48 * 3_600_000,
  ttlMs: 300_000,
  republishMs: 4 * 3_600_000,
  maxDepth: 32,
  timeoutMs: 60_000,
}

/** Resolved names that are kept for their TTL. */
const maxCached = 1_024

export interface Published {
  name: PeerId
  record: IpnsRecord
  /** Peers that took it. */
  peers: number
}

export interface Resolved {
  /** What it points at in the end: `/ipfs/...`, or `/ipns/...` where it was not followed. */
  path: string
  record: IpnsRecord
}

interface CallOptions {
  signal?: AbortSignal | undefined
}

export interface Names {
  /**
   * Points the key's name at `path`. The sequence grows when the path is another; what was published before, also by
   * another machine with the same key, is looked up first. Rejects with TypeError for a path that is none, and with
   * UnavailableError when no peer takes the record: it is stored then, and the next round of republishing tries again.
   */
  publish(
    key: PrivateKey,
    path: string,
    options?: CallOptions & { lifetimeMs?: number; ttlMs?: number },
  ): Promise<Published>
  /** Follows the name to a path that is none, or one step with `recursive: false`. */
  resolve(name: PeerId | string, options?: CallOptions & { recursive?: boolean; noCache?: boolean }): Promise<Resolved>
  /** Publishes our records again, with new dates, for as long as it is not stopped. `keyOf` gives a name's key. */
  startRepublishing(keyOf: (name: PeerId) => PrivateKey | undefined | Promise<PrivateKey | undefined>): void
  stop(): Promise<void>
}

const routingKey = (name: PeerId): Uint8Array => concat([fromUtf8('/ipns/'), name.bytes])
const storageKey = (name: PeerId): string => `/ipns/${name.toString()}`

/** Throws TypeError unless it is `/ipfs/...` or `/ipns/...`. */
function checkPath(path: string): void {
  if (/^\/ip[fn]s\/[^\s/]+/.test(path)) return
  throw new TypeError(`${JSON.stringify(path.slice(0, 128))} is no content path: want /ipfs/CID or /ipns/NAME`)
}

class IpnsNames implements Names {
  readonly #options: NamesOptions & typeof defaults
  readonly #cache = new Map<string, { record: IpnsRecord; until: number }>()
  /** One publish of a name after the other, so that no sequence number is given twice. */
  readonly #publishing = new Map<string, Promise<unknown>>()
  #controller: AbortController | undefined
  #republishing: Promise<void> | undefined

  constructor(options: NamesOptions) {
    this.#options = { ...defaults, ...options }
  }

  async publish(
    key: PrivateKey,
    path: string,
    options: CallOptions & { lifetimeMs?: number; ttlMs?: number } = {},
  ): Promise<Published> {
    checkPath(path)
    const text = nameOf(key.publicKey).toString()
    const before = this.#publishing.get(text) ?? Promise.resolve()
    const work = before.then(() => this.#publish(key, path, options))
    const settled = work.then(
      () => {},
      () => {},
    )
    this.#publishing.set(text, settled)
    try {
      return await work
    } finally {
      if (this.#publishing.get(text) === settled) this.#publishing.delete(text)
    }
  }

  async #publish(
    key: PrivateKey,
    path: string,
    {
      signal,
      lifetimeMs = this.#options.lifetimeMs,
      ttlMs = this.#options.ttlMs,
    }: CallOptions & {
      lifetimeMs?: number
      ttlMs?: number
    },
  ): Promise<Published> {
    const { env, records, routing, timeoutMs } = this.#options
    const name = nameOf(key.publicKey)
    const bound = deadline({ env, timeoutMs, what: `publishing /ipns/${formatName(name)}`, signal })
    try {
      const last = (await this.#own(name)) ?? (await this.#published(name, bound.signal))
      const sequence = last === undefined ? 0n : last.value === path ? last.sequence : last.sequence + 1n
      const encoded = await createRecord(key, { value: path, sequence, lifetimeMs, ttlMs, now: env.clock.wallTime() })
      // Before anybody hears of it: a sequence number must not be used for two paths, whatever happens.
      await records.put(storageKey(name), encoded)
      const record = decodeRecord(encoded)
      this.#remember(name, record)
      const peers = await routing.put(routingKey(name), encoded, { signal: bound.signal })
      return { name, record, peers }
    } finally {
      bound.done()
    }
  }

  /** The last that we published ourselves, valid or not: its sequence number counts. */
  async #own(name: PeerId): Promise<IpnsRecord | undefined> {
    const stored = await this.#options.records.get(storageKey(name))
    return stored === undefined ? undefined : decodeRecord(stored)
  }

  async #published(name: PeerId, signal: AbortSignal): Promise<IpnsRecord | undefined> {
    try {
      return await this.#fetch(name, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof UnavailableError) return undefined
      throw error
    }
  }

  async #fetch(name: PeerId, signal: AbortSignal): Promise<IpnsRecord> {
    const { routing, env } = this.#options
    const encoded = await raceAbort(routing.get(routingKey(name), { signal }), signal)
    const record = await validateRecord(name, encoded, env.clock.wallTime())
    this.#remember(name, record)
    return record
  }

  #remember(name: PeerId, record: IpnsRecord): void {
    const [oldest] = this.#cache.keys()
    if (this.#cache.size >= maxCached && oldest !== undefined) this.#cache.delete(oldest)
    const text = name.toString()
    this.#cache.delete(text)
    this.#cache.set(text, { record, until: this.#options.env.clock.wallTime() + record.ttlMs })
  }

  async resolve(
    of: PeerId | string,
    { signal, recursive = true, noCache = false }: CallOptions & { recursive?: boolean; noCache?: boolean } = {},
  ): Promise<Resolved> {
    const { env, timeoutMs, maxDepth } = this.#options
    let name = typeof of === 'string' ? parseName(of) : of
    const bound = deadline({ env, timeoutMs, what: `resolving /ipns/${formatName(name)}`, signal })
    let rest = ''
    try {
      for (let depth = 0; depth < maxDepth; depth++) {
        const cached = this.#cache.get(name.toString())
        const fresh = !noCache && cached !== undefined && cached.until > env.clock.wallTime()
        const record = fresh ? cached.record : await this.#fetch(name, bound.signal)
        const path = record.value + rest
        if (!recursive || !path.startsWith('/ipns/')) return { path, record }
        const [, next = '', more = ''] = /^\/ipns\/([^/]+)(.*)$/.exec(path) ?? []
        try {
          name = parseName(next)
        } catch {
          // A DNSLink name: another resolver's work.
          return { path, record }
        }
        rest = more
      }
      throw new ProtocolError('bad-message', `a chain of more than ${maxDepth} IPNS names`)
    } finally {
      bound.done()
    }
  }

  startRepublishing(keyOf: (name: PeerId) => PrivateKey | undefined | Promise<PrivateKey | undefined>): void {
    if (this.#controller !== undefined) return
    this.#controller = new AbortController()
    this.#republishing = this.#republish(keyOf, this.#controller.signal)
  }

  async #republish(
    keyOf: (name: PeerId) => PrivateKey | undefined | Promise<PrivateKey | undefined>,
    signal: AbortSignal,
  ): Promise<void> {
    const { env, records, republishMs } = this.#options
    while (!signal.aborted) {
      try {
        await sleep(env, republishMs, signal)
        for await (const { key: stored, value } of records.entries('/ipns/')) {
          signal.throwIfAborted()
          const key = await keyOf(parseName(stored.slice('/ipns/'.length)))
          if (key !== undefined) await this.publish(key, decodeRecord(value).value, { signal })
        }
      } catch (error) {
        // Nobody took it, perhaps: the next round may do better.
        if (!signal.aborted) env.trace?.('ipns.republish-failed', { error: asError(error) })
      }
    }
  }

  async stop(): Promise<void> {
    this.#controller?.abort(new Error('names were stopped'))
    await this.#republishing
    this.#controller = undefined
  }
}

/** Nothing runs until it is used. */
export function createNames(options: NamesOptions): Names {
  return new IpnsNames(options)
}
