/*
 * IPNS over pubsub (ipfs/specs ipns-pubsub-router.md, 2022-11-09): each name has a topic on which its records travel,
 * and the fetch protocol brings what was said before we came. Records that do not hold go nowhere; of those that do, the
 * newest is kept, handed on, and published again now and then.
 */
import { concat, equals, fromUtf8 } from '../bytes.ts'
import { deadline, raceAbort, sleep } from '../deadline.ts'
import { ClosedError, LimitError, UnavailableError, asError, errorCode } from '../errors.ts'
import type { Host } from '../host.ts'
import { cleanClose, deferred, quiet, type Deferred } from '../inbox.ts'
import { encodeBase } from '../multibase.ts'
import { PeerId } from '../peer/id.ts'
import type { Gossipsub, PubSubMessage, Validation } from '../protocols/gossipsub/gossipsub.ts'
import type { NameRouting } from './ipns.ts'
import {
  decodeRecord,
  formatName,
  maxRecordBytes,
  parseValidity,
  selectRecord,
  validateRecord,
  type IpnsRecord,
} from './record.ts'

/** Values by key, from one peer and for all of them: rhiza/fetch is one. */
export interface ValueFetch {
  /** Undefined where the peer has none. */
  get(
    peer: PeerId,
    key: Uint8Array,
    options: { signal: AbortSignal; maxResponseBytes: number },
  ): Promise<Uint8Array | undefined>
  /** What peers are answered that ask for keys which begin with `prefix`. Returns the undo. */
  serve(prefix: string, lookup: (key: Uint8Array) => Uint8Array | undefined): () => void
}

export interface PubsubRoutingOptions {
  pubsub: Pick<Gossipsub, 'addValidator' | 'on' | 'publish' | 'subscribe' | 'topicPeers'>
  fetch: ValueFetch
  /** The node that `pubsub` is of. */
  host: Pick<Host, 'env' | 'peerId'>
  /** Names that are followed at a time; of those that we did not publish the oldest makes room. Default 1,024. */
  maxNames?: number
  /** How long a get waits for the first record while peers are being asked. Default 5 s. */
  waitMs?: number
  /** How long it waits for somebody to ask, and for a newer one once there is one. Default 1 s. */
  settleMs?: number
  /** Between two rounds of publishing again what we have. Default 10 min (go-libp2p-pubsub-router). */
  rebroadcastMs?: number
  /** Peers asked at a time. Default 8. */
  maxFetches?: number
}

const defaults = { maxNames: 1_024, waitMs: 5_000, settleMs: 1_000, rebroadcastMs: 600_000, maxFetches: 8 }
/** Peers that wait to be asked; one more is left out: what it has comes with its next broadcast. */
const maxWaiting = 256
/** A record and what the fetch protocol puts around it. */
const maxResponseBytes = maxRecordBytes + 64
const prefix = fromUtf8('/ipns/')

export interface PubsubRouting extends NameRouting {
  /** To nobody is no failure: who follows the name later gets the record from us, while we run. */
  put: NameRouting['put']
  /** Names that are followed: looked up or published here. */
  names(): PeerId[]
  /** Follows it no more; false when it was not followed. */
  forget(name: PeerId): boolean
  /** Before it is used. Idempotent. */
  start(): void
  /** Forgets all names. Resolves when nothing is left running; it may be started again. */
  stop(): Promise<void>
}

interface Entry {
  readonly topic: string
  readonly key: Uint8Array
  readonly name: PeerId
  /** The newest that we know. */
  best: { bytes: Uint8Array; record: IpnsRecord } | undefined
  /** Published here: it does not make room for others. */
  ours: boolean
  /** Resolves with the next better record. */
  news: Deferred<void>
  /** Who is being asked. */
  readonly asking: Map<string, Promise<void>>
  leave(): void
}

/** §Translating an IPNS record name to/from a PubSub topic. `key` is `/ipns/` and the name's bytes. */
export function topicOfKey(key: Uint8Array): string {
  return `/record/${encodeBase('base64url', key)}`
}

/** Throws TypeError. */
function nameOfKey(key: Uint8Array): PeerId {
  if (!equals(key.subarray(0, prefix.length), prefix)) throw new TypeError('only /ipns/ keys travel over pubsub')
  return PeerId.decode(key.subarray(prefix.length))
}

/** The later of two: `a`, where they are the same. */
const newer = (a: IpnsRecord, b: IpnsRecord): boolean => selectRecord([a, b]) === 1

class OverPubsub implements PubsubRouting {
  readonly #options: PubsubRoutingOptions & typeof defaults
  /** By topic, the one looked up last at the end. */
  readonly #entries = new Map<string, Entry>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #waiting: (() => void)[] = []
  /** Until start(). */
  #stop: AbortController | undefined
  #undo: (() => void)[] = []
  #fetching = 0
  #rebroadcasting = false

  constructor(options: PubsubRoutingOptions) {
    this.#options = { ...defaults, ...options }
    for (const name of Object.keys(defaults) as (keyof typeof defaults)[]) {
      const value = this.#options[name]
      if (!(value > 0)) throw new RangeError(`${name} is ${value}, want more than 0`)
    }
  }

  start(): void {
    if (this.#stop !== undefined) return
    this.#stop = new AbortController()
    const { pubsub, fetch } = this.#options
    this.#undo = [
      // §Layering persistence onto libp2p PubSub
      fetch.serve('/ipns/', (key) => this.#current(this.#entries.get(topicOfKey(key)))?.bytes),
      pubsub.on('subscription', ({ peer, topic, subscribed }) => {
        const entry = this.#entries.get(topic)
        if (subscribed && entry !== undefined) this.#ask(entry, peer)
      }),
    ]
  }

  names(): PeerId[] {
    return [...this.#entries.values()].map(({ name }) => name)
  }

  forget(name: PeerId): boolean {
    const topic = topicOfKey(concat([prefix, name.bytes]))
    this.#entries.get(topic)?.leave()
    return this.#entries.delete(topic)
  }

  async get(key: Uint8Array, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Uint8Array> {
    signal?.throwIfAborted()
    const entry = this.#follow(key)
    const known = this.#current(entry)
    if (known !== undefined) return known.bytes.slice()
    const { waitMs, settleMs, pubsub } = this.#options
    const ends = signal === undefined ? this.#signal : AbortSignal.any([signal, this.#signal])
    const asked = (): Promise<unknown> => Promise.all(entry.asking.values())
    await this.#within(settleMs, entry.news.promise, ends)
    if (this.#current(entry) === undefined && entry.asking.size > 0)
      await this.#within(waitMs, Promise.race([entry.news.promise, asked()]), ends)
    const first = this.#current(entry)
    if (first === undefined) {
      const name = formatName(entry.name)
      const peers = pubsub.topicPeers(entry.topic).length
      throw new UnavailableError(
        'not-found',
        peers === 0
          ? `none of our peers follows /ipns/${name}: connect to its publisher, or to somebody who resolved it over pubsub`
          : `none of the peers that follow /ipns/${name} (${peers}) has a record of it: try again once it is published`,
      )
    }
    if (entry.asking.size > 0) await this.#within(settleMs, asked(), ends)
    return (this.#current(entry) ?? first).bytes.slice()
  }

  /** Waits for `event`, but not longer. Rejects when `signal` aborts. */
  async #within(timeoutMs: number, event: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const bound = deadline({ env: this.#options.host.env, timeoutMs, what: 'a record', signal })
    try {
      await raceAbort(event, bound.signal)
    } catch (error) {
      if (signal.aborted) throw error
    } finally {
      bound.done()
    }
  }

  async put(
    key: Uint8Array,
    value: Uint8Array,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    const { host, pubsub } = this.#options
    const name = nameOfKey(key)
    const record = await validateRecord(name, value, host.env.clock.wallTime())
    signal?.throwIfAborted()
    const entry = this.#follow(key)
    entry.ours = true
    const known = this.#current(entry)
    if (known !== undefined && newer(record, known.record)) {
      const { sequence, validity } = known.record
      throw new UnavailableError(
        'refused',
        `a newer record of /ipns/${formatName(name)} is known, of sequence ${sequence}, valid until ${validity}`,
      )
    }
    this.#take(entry, value, record)
    const { recipients } = await pubsub.publish(entry.topic, value, { allowNone: true, ...(signal && { signal }) })
    return recipients.length
  }

  async stop(): Promise<void> {
    this.#stop?.abort(new ClosedError('IPNS over pubsub was stopped', cleanClose, 'stopped'))
    this.#stop = undefined
    for (const undo of this.#undo.splice(0)) undo()
    for (const entry of this.#entries.values()) entry.leave()
    this.#entries.clear()
    for (const go of this.#waiting.splice(0)) go()
    await Promise.all(this.#tasks)
    this.#rebroadcasting = false
  }

  /** Throws ClosedError `not-started`. */
  get #signal(): AbortSignal {
    if (this.#stop !== undefined) return this.#stop.signal
    throw new ClosedError('IPNS over pubsub is not started', cleanClose, 'not-started')
  }

  /** Throws TypeError, or LimitError where all that are followed are ours. */
  #follow(key: Uint8Array): Entry {
    const ends = this.#signal
    const topic = topicOfKey(key)
    const known = this.#entries.get(topic)
    if (known !== undefined) {
      this.#entries.delete(topic)
      this.#entries.set(topic, known)
      return known
    }
    const name = nameOfKey(key)
    const { pubsub, maxNames } = this.#options
    if (this.#entries.size >= maxNames) {
      const oldest = [...this.#entries.values()].find(({ ours }) => !ours)
      if (oldest === undefined) throw new LimitError('maxNames', maxNames, this.#entries.size + 1)
      this.forget(oldest.name)
    }
    const unchecked = pubsub.addValidator(topic, (message, { from }) => this.#judge(entry, message, from))
    const subscription = pubsub.subscribe(topic, (message) => this.#heard(entry, message))
    const entry: Entry = {
      topic,
      key: key.slice(),
      name,
      best: undefined,
      ours: false,
      news: deferred(),
      asking: new Map(),
      leave() {
        subscription.unsubscribe()
        unchecked()
      },
    }
    this.#entries.set(topic, entry)
    for (const peer of pubsub.topicPeers(topic)) this.#ask(entry, peer)
    if (!this.#rebroadcasting) {
      this.#rebroadcasting = true
      this.#run(this.#rebroadcast(ends))
    }
    return entry
  }

  /** What we have, while it is valid. */
  #current(entry: Entry | undefined): { bytes: Uint8Array; record: IpnsRecord } | undefined {
    return entry?.best !== undefined && this.#lasts(entry.best.record) ? entry.best : undefined
  }

  #lasts({ validity }: IpnsRecord): boolean {
    return parseValidity(validity) > BigInt(Math.floor(this.#options.host.env.clock.wallTime())) * 1_000_000n
  }

  /** §Protocol 4, as go-libp2p-pubsub-router judges: what we have already is not handed on. */
  async #judge(entry: Entry, { data }: PubSubMessage, from: PeerId): Promise<Validation> {
    const { host } = this.#options
    const known = this.#current(entry)
    if (known !== undefined && equals(known.bytes, data)) return from.equals(host.peerId) ? 'accept' : 'ignore'
    try {
      const record = await validateRecord(entry.name, data, host.env.clock.wallTime())
      const best = this.#current(entry)
      return best === undefined || newer(best.record, record) ? 'accept' : 'ignore'
    } catch (error) {
      // Clocks differ, and a record's last moment comes while it travels.
      if (errorCode(error) === 'bad-message' && this.#tooLate(data)) return 'ignore'
      if (errorCode(error) === undefined || errorCode(error) === 'unsupported') throw error
      return 'reject'
    }
  }

  #tooLate(data: Uint8Array): boolean {
    try {
      return !this.#lasts(decodeRecord(data))
    } catch {
      return false
    }
  }

  /** Judged already. */
  #heard(entry: Entry, { data }: PubSubMessage): void {
    this.#take(entry, data, decodeRecord(data))
  }

  /** Keeps what is newer than what we have. */
  #take(entry: Entry, bytes: Uint8Array, record: IpnsRecord): boolean {
    const known = this.#current(entry)
    if (known !== undefined && !newer(known.record, record)) return false
    entry.best = { bytes: bytes.slice(), record }
    const { news } = entry
    entry.news = deferred()
    news.resolve()
    return true
  }

  // What peers had before we came

  #ask(entry: Entry, peer: PeerId): void {
    const id = peer.toString()
    if (entry.asking.has(id) || this.#waiting.length >= maxWaiting) return
    const asked = this.#asked(entry, peer, this.#signal).finally(() => entry.asking.delete(id))
    entry.asking.set(id, asked)
    this.#run(asked)
  }

  /** Never rejects. */
  async #asked(entry: Entry, peer: PeerId, signal: AbortSignal): Promise<void> {
    const { fetch, maxFetches, pubsub } = this.#options
    const { env } = this.#options.host
    if (this.#fetching >= maxFetches) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#fetching++
    try {
      if (signal.aborted || this.#entries.get(entry.topic) !== entry) return
      const bytes = await fetch.get(peer, entry.key, { signal, maxResponseBytes })
      if (bytes === undefined || (entry.best !== undefined && equals(entry.best.bytes, bytes))) return
      const record = await validateRecord(entry.name, bytes, env.clock.wallTime())
      // §Layering persistence 5: it supersedes ours.
      if (this.#take(entry, bytes, record)) await pubsub.publish(entry.topic, bytes, { allowNone: true, signal })
    } catch (error) {
      if (!signal.aborted) env.trace?.('ipns.fetch-failed', { peer, topic: entry.topic, error: asError(error) })
    } finally {
      this.#fetching--
      this.#waiting.shift()?.()
    }
  }

  /** §Protocol 5. Never rejects. */
  async #rebroadcast(signal: AbortSignal): Promise<void> {
    const { pubsub, rebroadcastMs } = this.#options
    const { env } = this.#options.host
    for (;;) {
      // Not all at the same moment.
      await sleep(env, rebroadcastMs * (0.75 + env.random.unit() / 2), signal).catch(() => {})
      if (signal.aborted) return
      const round = [...this.#entries.values()]
      for (const entry of round) {
        const bytes = this.#current(entry)?.bytes
        if (bytes === undefined) continue
        try {
          await pubsub.publish(entry.topic, bytes, { allowNone: true, signal })
        } catch (error) {
          if (signal.aborted) return
          env.trace?.('ipns.rebroadcast-failed', { topic: entry.topic, error: asError(error) })
        }
      }
    }
  }

  #run(task: Promise<void>): void {
    const kept = task.finally(() => this.#tasks.delete(kept))
    this.#tasks.add(quiet(kept))
  }
}

/** Follows the names that are put and got here, once it is started. Throws RangeError on bad options. */
export function pubsubRouting(options: PubsubRoutingOptions): PubsubRouting {
  return new OverPubsub(options)
}
