/*
 * Finding peers at all. A Discovery is one way to find them: bootstrap lists, multicast DNS, random walks, or a user's
 * own. createDiscovery() runs several side by side, remembers where peers are said to be and by whom, and connects to
 * some while few are connected: few dials at a time, ever fewer to one peer that does not answer.
 */
import { asError } from '../errors.ts'
import { sleep } from '../deadline.ts'
import { Events } from '../events.ts'
import type { Host } from '../host.ts'
import { quiet } from '../inbox.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { addressTtlMs, type AddressBook } from '../peer/book.ts'
import type { PeerId } from '../peer/id.ts'

export { aminoBootstrap, bootstrap, type BootstrapOptions } from './bootstrap.ts'
export { randomWalk, type RandomWalkOptions, type Walkable } from './random-walk.ts'

/** A node, as discovery needs it. */
export interface DiscoveryHost extends Host {
  /** Where peers can dial us. */
  addrs(): Multiaddr[]
  readonly book: AddressBook
}

export interface Found {
  readonly peer: PeerId
  /** With or without /p2p; may be empty where the address book knows more, or we are connected already. */
  readonly addrs: readonly Multiaddr[]
}

/** A peer and who found it. */
export interface FoundPeer extends Found {
  readonly source: string
}

/** One way to find peers. */
export interface Discovery {
  /** Goes with each peer that is found: `bootstrap`, `mdns`, `random-walk`. */
  readonly source: string
  /**
   * Finds peers until `signal` aborts, and then ends, with nothing left open. May end before; one that throws is
   * started again later.
   */
  find(host: DiscoveryHost, signal: AbortSignal): AsyncIterable<Found>
}

export interface DiscoveryOptions {
  /** Found peers are dialled while fewer than this are connected. Default 32; 0: never. */
  connectBelow?: number
  /** Dials at a time. Default 4; those that find all busy are left out until they are found again. */
  maxDials?: number
  /** Peers of which is remembered how dialling went. Default 1,024. */
  maxRemembered?: number
}

const defaults = { connectBelow: 32, maxDials: 4, maxRemembered: 1_024 }

const dialTimeoutMs = 15_000
/** A peer that did not answer is left alone for this long, then for twice as long, and so on. */
const leaveAloneMs = 10_000
const maxLeaveAloneMs = 15 * 60_000
const restartMs = 1_000
const maxRestartMs = 5 * 60_000
const addrsPerPeer = 16

export interface DiscoveryEvents {
  found: FoundPeer
  /** A source broke off; it is started again. */
  failed: { source: string; error: Error }
}

/** Several discoveries at work. */
export interface Discoverer {
  /** Idempotent. */
  start(): void
  /** Resolves when nothing is left running. Idempotent; it may be started again. */
  stop(): Promise<void>
  /** Returns the undo. */
  on<K extends keyof DiscoveryEvents>(event: K, listener: (detail: DiscoveryEvents[K]) => void): () => void
}

class Running implements Discoverer {
  readonly #host: DiscoveryHost
  readonly #sources: readonly Discovery[]
  readonly #options: typeof defaults
  readonly #events: Events<DiscoveryEvents>
  /** How dialling went, the one tried last at the end. */
  readonly #tried = new Map<string, { failures: number; untilMs: number }>()
  readonly #dialling = new Set<string>()
  readonly #tasks = new Set<Promise<void>>()
  #controller: AbortController | undefined

  constructor(host: DiscoveryHost, sources: readonly Discovery[], options: DiscoveryOptions) {
    this.#host = host
    this.#sources = sources
    this.#options = { ...defaults, ...options }
    for (const [name, value] of Object.entries(this.#options)) {
      if (!(value >= 0)) throw new RangeError(`${name} is ${value}: want a number of at least 0`)
    }
    const { env } = host
    this.#events = new Events((event, error) => env.trace?.('discovery.listener-threw', { event, error }))
  }

  on<K extends keyof DiscoveryEvents>(event: K, listener: (detail: DiscoveryEvents[K]) => void): () => void {
    return this.#events.on(event, listener)
  }

  start(): void {
    if (this.#controller !== undefined) return
    this.#controller = new AbortController()
    for (const source of this.#sources) this.#keep(this.#run(source, this.#controller.signal))
  }

  async stop(): Promise<void> {
    this.#controller?.abort(new Error('discovery was stopped'))
    while (this.#tasks.size > 0) await Promise.all(this.#tasks)
    this.#controller = undefined
  }

  #keep(task: Promise<void>): void {
    const kept = task.finally(() => this.#tasks.delete(kept))
    this.#tasks.add(quiet(kept))
  }

  /** Never rejects. */
  async #run(discovery: Discovery, signal: AbortSignal): Promise<void> {
    const { source } = discovery
    const { env } = this.#host
    for (let waitMs = restartMs; !signal.aborted; waitMs = Math.min(maxRestartMs, 2 * waitMs)) {
      try {
        for await (const found of discovery.find(this.#host, signal)) {
          if (signal.aborted) break
          this.#found({ ...found, source }, signal)
        }
        return
      } catch (thrown) {
        if (signal.aborted) return
        const error = asError(thrown)
        env.trace?.('discovery.failed', { source, error })
        this.#events.emit('failed', { source, error })
        await sleep(env, waitMs * (0.5 + env.random.unit() / 2), signal).catch(() => {})
      }
    }
  }

  #found({ peer, addrs, source }: FoundPeer, signal: AbortSignal): void {
    if (peer.equals(this.#host.peerId)) return
    const bare = addrs.slice(0, addrsPerPeer).map((addr) => addr.withoutPeer())
    if (bare.length > 0) this.#host.book.add(peer, bare, { source, ttlMs: addressTtlMs.told })
    this.#host.env.trace?.('discovery.found', { source, peer: peer.toString(), addrs: bare.length })
    this.#events.emit('found', { peer, addrs: bare, source })
    if (this.#wanted(peer)) this.#keep(this.#dial(peer, bare, signal))
  }

  #wanted(peer: PeerId): boolean {
    const { connectBelow, maxDials } = this.#options
    const key = peer.toString()
    if (this.#dialling.size >= maxDials || this.#dialling.has(key)) return false
    const connected = new Set(this.#host.connections().map((c) => c.peer.toString()))
    if (connected.has(key) || connected.size + this.#dialling.size >= connectBelow) return false
    return this.#host.env.clock.now() >= (this.#tried.get(key)?.untilMs ?? -Infinity)
  }

  /** Never rejects. */
  async #dial(peer: PeerId, addrs: readonly Multiaddr[], signal: AbortSignal): Promise<void> {
    const key = peer.toString()
    const { env } = this.#host
    this.#dialling.add(key)
    const { failures } = this.#tried.get(key) ?? { failures: 0 }
    this.#tried.delete(key)
    try {
      const to = addrs.length === 0 ? peer : addrs.map((addr) => addr.withPeer(peer))
      await this.#host.dial(to, { signal, timeoutMs: dialTimeoutMs })
    } catch (error) {
      env.trace?.('discovery.dial-failed', { peer: key, error })
      const waitMs = Math.min(maxLeaveAloneMs, leaveAloneMs * 2 ** failures) * (0.75 + env.random.unit() / 2)
      this.#tried.set(key, { failures: Math.min(failures + 1, 20), untilMs: env.clock.now() + waitMs })
      const [oldest] = this.#tried.keys()
      if (this.#tried.size > this.#options.maxRemembered && oldest !== undefined) this.#tried.delete(oldest)
    } finally {
      this.#dialling.delete(key)
    }
  }
}

/** Runs `sources` on a node, once it is started. Throws RangeError on bad options. */
export function createDiscovery(
  host: DiscoveryHost,
  sources: readonly Discovery[],
  options: DiscoveryOptions = {},
): Discoverer {
  return new Running(host, sources, options)
}
