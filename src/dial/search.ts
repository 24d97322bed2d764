/*
 * Dialling where more than one address may do: those of an address book, those behind a name. Loaded when it is first
 * needed: a dial of one plain address does without.
 */
import { raceAbort } from '../deadline.ts'
import type { Dials } from './dials.ts'
import type { Env } from '../env.ts'
import { TimeoutError, UnavailableError, asError, errorCode, type Attempt } from '../errors.ts'
import type { Multiaddr } from '../multiaddr.ts'
import type { PeerId } from '../peer/id.ts'
import type { Transport } from '../transport/transport.ts'
import { BackOff } from './backoff.ts'
import { race, type Candidate } from './race.ts'
import { rank } from './rank.ts'
import { isName, resolve, type Resolver } from './resolve.ts'
import { dialsByName, platformResolver } from '#dns'

/** Whoever knows addresses of a peer: the address book, the DHT. An empty list means that it knows none. */
export type FindAddresses = (peer: PeerId, options: { signal: AbortSignal }) => Promise<readonly Multiaddr[]>

export interface SearchOptions<C> {
  env: Env
  transports: readonly Transport[]
  dials: Dials<C>
  /** Asked one after the other, each only when what those before it know does not answer. */
  sources: readonly FindAddresses[]
  resolver: Resolver | undefined
  own: () => readonly Multiaddr[]
  /** An open connection with the peer: it may have come while we searched. */
  open: (peer: PeerId) => C | undefined
}

export interface Wanted {
  addrs: readonly Multiaddr[]
  peer: PeerId | undefined
  force: boolean
  signal: AbortSignal
}

/** Says nothing about the address: we refused it ourselves. */
const ours: ReadonlySet<string | undefined> = new Set(['limit', 'stopped', 'no-transport'])

/** Addresses that are dialled of those that one source knows, the best ones: a peer with more wants us to be busy. */
const maxAddresses = 256

const nobody: FindAddresses = () => Promise.resolve([])

export class Search<C> {
  readonly #options: SearchOptions<C>
  readonly #backOff = new BackOff()
  #resolver: Resolver | undefined

  constructor(options: SearchOptions<C>) {
    this.#options = options
    this.#resolver = options.resolver
  }

  /** Every dial tells how it went, also those that went past the search. */
  failed(addr: Multiaddr, error: Error): void {
    const code = errorCode(error)
    if (addr.peerId() === undefined || ours.has(code)) return
    const now = this.#options.env.clock.now()
    if (code === 'wrong-peer') this.#backOff.wrongPeer(String(addr), now, error.message)
    else this.#backOff.failed(String(addr), now, error.message)
  }

  succeeded(addr: Multiaddr): void {
    this.#backOff.succeeded(String(addr))
  }

  /** Rejects with UnavailableError `no-address` or `unreachable` (`tried` has every address), or signal.reason. */
  async dial(wanted: Wanted): Promise<C> {
    const { addrs, peer, signal } = wanted
    const { sources, open } = this.#options
    const tried: Attempt[] = []
    const seen = new Set<string>()
    const given = addrs.length > 0
    const what = peer === undefined ? addrs.join(', ') : `peer ${peer}`
    try {
      if (peer === undefined || given) {
        const connection = await this.#try(addrs, wanted, seen, tried)
        if (connection !== undefined) return connection
      } else {
        for (const source of sources.length === 0 ? [nobody] : sources) {
          const found = await this.#ask(source, peer, signal, tried)
          const connection = open(peer) ?? (await this.#try(found, wanted, seen, tried))
          if (connection !== undefined) return connection
        }
      }
    } catch (error) {
      // Our own deadline: what became of each address says more than that time was up.
      if (!(error instanceof TimeoutError) || error !== signal.reason || tried.length === 0) throw error
      throw new UnavailableError('unreachable', `cannot reach ${what} in ${error.timeoutMs} ms`, tried)
    }
    if (tried.length > 0) throw new UnavailableError('unreachable', `cannot reach ${what}`, tried)
    throw new UnavailableError('no-address', `no connection to ${peer} and no address of it; dial a multiaddr`)
  }

  /** What a source knows; that one fails must not keep us from the next. */
  async #ask(
    source: FindAddresses,
    peer: PeerId,
    signal: AbortSignal,
    tried: Attempt[],
  ): Promise<readonly Multiaddr[]> {
    try {
      return await raceAbort(source(peer, { signal }), signal)
    } catch (error) {
      signal.throwIfAborted()
      tried.push({ what: `looking for addresses of ${peer}`, reason: asError(error) })
      return []
    }
  }

  async #try(found: readonly Multiaddr[], wanted: Wanted, seen: Set<string>, tried: Attempt[]): Promise<C | undefined> {
    const { env, dials } = this.#options
    const { peer, signal } = wanted
    const named = await this.#resolve(
      peer === undefined ? found : found.map((addr) => addr.withPeer(peer)),
      signal,
      tried,
    )
    const candidates: Candidate[] = []
    const id = peer?.toString()
    for (const addr of id === undefined ? [] : dials.addrsOf(id)) {
      if (!seen.has(addr)) candidates.push({ addr, peer: id, delayMs: 0 })
      seen.add(addr)
    }
    const usable = named.filter((addr) => !seen.has(String(addr)) && this.#mayDial(addr, wanted, tried))
    for (const addr of named) seen.add(String(addr))
    const canDial = (addr: Multiaddr): boolean => this.#options.transports.some((t) => t.canDial(addr))
    const { ranked, leftOut } = rank(usable, { canDial, own: this.#options.own() })
    tried.push(...leftOut)
    const over = ranked.length - maxAddresses
    if (over > 0) tried.push({ what: `${over} more addresses`, reason: `at most ${maxAddresses} are dialled` })
    for (const { addr, delayMs, timeoutMs } of ranked.slice(0, maxAddresses)) {
      candidates.push({ addr: String(addr), peer: id ?? addr.peerId()?.toString(), delayMs, timeoutMs })
    }
    if (candidates.length === 0) return undefined
    return race(dials, candidates, tried, { clock: env.clock, signal })
  }

  #mayDial(addr: Multiaddr, { addrs, force }: Wanted, tried: Attempt[]): boolean {
    if (force || addrs.length > 0) return true
    const reason = this.#backOff.refusal(String(addr), this.#options.env.clock.now())
    if (reason !== undefined) tried.push({ what: String(addr), reason })
    return reason === undefined
  }

  async #resolve(found: readonly Multiaddr[], signal: AbortSignal, tried: Attempt[]): Promise<readonly Multiaddr[]> {
    if (!found.some(isName)) return found
    const { env, transports } = this.#options
    const resolver = (this.#resolver ??= platformResolver())
    const asIs = (addr: Multiaddr): boolean => {
      // A plain WebSocket server may need the name in its Host header, and no other part of an address can carry it.
      const plain = addr.has('ws') && !addr.has('tls')
      return (dialsByName || plain) && transports.some((t) => t.canDial(addr.withoutPeer()))
    }
    const { addrs, failed } = await resolve(found, { resolver, env, signal, asIs })
    tried.push(...failed)
    return addrs
  }
}
