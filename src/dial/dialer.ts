/*
 * Dialling: a peer or addresses become a connection. One plain address is dialled right away; where there may be several
 * (an address book, a list, a name), dial/search.ts is fetched to choose among them.
 */
import { connectionCode } from '../close-codes.ts'
import type { UpgradedConnection } from '../connection/connection.ts'
import type { Connections } from '../connection/connections.ts'
import { deadline } from '../deadline.ts'
import { Dials } from './dials.ts'
import { ClosedError, ProtocolError, TimeoutError, UnavailableError, asError, type Attempt } from '../errors.ts'
import { cleanClose } from '../inbox.ts'
import { Multiaddr, multiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import { transportNames, type Transport, type TransportConnection } from '../transport/transport.ts'
import { upgrade, type Upgrade, type Upgraded } from '../connection/upgrade.ts'
import type { DialTarget } from '../host.ts'
import type { Resolver } from './resolve.ts'
import type { FindAddresses, Search } from './search.ts'
import { dialsByName } from '#dns'

/** A dial target as its two halves. */
export interface Target {
  addrs: readonly Multiaddr[]
  peer: PeerId | undefined
}

/** Throws TypeError where several addresses name different peers. */
export function target(to: DialTarget): Target {
  if (to instanceof PeerId) return { addrs: [], peer: to }
  if (typeof to === 'string' && !to.startsWith('/')) return { addrs: [], peer: PeerId.parse(to) }
  const given = typeof to === 'string' || to instanceof Multiaddr ? [to] : to
  const addrs = given.map((addr) => multiaddr(addr))
  if (addrs.length === 0) throw new TypeError('nothing to dial: the list of addresses is empty')
  let peer: PeerId | undefined
  for (const addr of addrs) {
    const named = addr.peerId()
    if (addr.withoutPeer().peerId() !== undefined) throw new TypeError(`${addr} names two peers`)
    if (named !== undefined && peer?.equals(named) === false) {
      throw new TypeError(`one dial is to one peer, not to ${peer} and ${named}`)
    }
    peer ??= named
  }
  // addressing/README.md: /p2p/ID alone says who, not where.
  return { addrs: addrs.filter((addr) => addr.components().length !== 1 || addr.peerId() === undefined), peer }
}

export interface DialOptions {
  signal?: AbortSignal
  timeoutMs?: number
  /** Also addresses that are left alone because they failed a moment ago. */
  force?: boolean
}

export interface DialerOptions {
  /** Asked in turn for the addresses of a peer. */
  sources?: readonly FindAddresses[]
  /** Default: the system's on Node, DNS over HTTPS in browsers. */
  resolver?: Resolver | undefined
  /** Where we listen. */
  own?: () => readonly Multiaddr[]
  /** Dials at a time; more wait. Default 100. */
  maxDials?: number
  /** The same to one peer. Default 8. */
  maxDialsPerPeer?: number
}

/** How a dial fails when a web server, an SSH server or the wrong port answers. */
const notLibp2p: ReadonlySet<string> = new Set(['oversized', 'truncated', 'bad-negotiation', 'bad-varint', 'bad-utf8'])

const notLibp2pHint = 'check the port, whether /ws belongs behind it, and whether the network is private'

/** A name has to be resolved; the wildcard is refused there, though some systems would dial themselves. */
const needsSearch = /^\/(dns|ip4\/0\.0\.0\.0\/|ip6\/::(ffff:0\.0\.0\.0)?\/)/

const noSecurity = 'the peer speaks none of our security protocols'

const isDirectOutbound = (c: UpgradedConnection): boolean => c.direction === 'outbound' && c.limited === undefined

export class Dialer {
  readonly #self: PeerId
  readonly #transports: readonly Transport[]
  readonly #upgrade: Upgrade
  readonly #connections: Connections
  readonly #options: DialerOptions
  readonly #dials: Dials<UpgradedConnection>
  #search: Search<UpgradedConnection> | undefined
  /** What has not come as far as dialling: looking for addresses, resolving names. */
  readonly #searching = new Set<AbortController>()

  constructor(
    self: PeerId,
    transports: readonly Transport[],
    by: Upgrade,
    connections: Connections,
    options: DialerOptions = {},
  ) {
    this.#self = self
    this.#transports = transports
    this.#upgrade = by
    this.#connections = connections
    this.#options = options
    const { maxDials = 100, maxDialsPerPeer = 8 } = options
    const start = (addr: string, signal: AbortSignal): Promise<UpgradedConnection> =>
      connections.underWay(this.#connect(multiaddr(addr), signal))
    this.#dials = new Dials(start, by.env.clock, { maxDials, maxDialsPerPeer })
  }

  /** Ends the dials under way. */
  abort(reason: Error): void {
    for (const controller of this.#searching) controller.abort(reason)
    this.#dials.abort(reason)
  }

  /** The best open connection with the peer, or a new one. */
  async dial(
    { addrs, peer }: Target,
    { signal, timeoutMs = this.#upgrade.timeoutMs, force = false }: DialOptions,
  ): Promise<UpgradedConnection> {
    signal?.throwIfAborted()
    if (this.#connections.stopping) throw new ClosedError('the node is stopping', cleanClose, 'stopped')
    const open = this.#connections.best(peer)
    if (open !== undefined) return open
    if (peer?.equals(this.#self) === true) throw new TypeError('a node can not dial itself')
    // Callers that share an attempt each have a deadline of their own.
    const what = `dialling ${addrs[0] ?? peer}`
    const bound = deadline({ env: this.#upgrade.env, timeoutMs, what, signal })
    const id = peer?.toString()
    try {
      const [only] = addrs
      return only !== undefined && addrs.length === 1 && this.#isPlain(only)
        ? await this.#dials.to(String(only), id, bound.signal)
        : await this.#searched({ addrs, peer }, force, bound.signal)
    } finally {
      bound.done()
    }
  }

  /** Nothing to choose or to look up: a browser looks up the names that it dials. */
  #isPlain(addr: Multiaddr): boolean {
    const text = String(addr)
    if (!needsSearch.test(text)) return true
    const bare = addr.withoutPeer()
    return dialsByName && text.startsWith('/dns') && this.#transports.some((t) => t.canDial(bare))
  }

  async #searched({ addrs, peer }: Target, force: boolean, outer: AbortSignal): Promise<UpgradedConnection> {
    const controller = new AbortController()
    const { signal } = controller
    const cut = (): void => controller.abort(asError(outer.reason))
    if (outer.aborted) cut()
    else outer.addEventListener('abort', cut, { once: true })
    this.#searching.add(controller)
    try {
      const search = this.#search ?? (await this.#newSearch())
      signal.throwIfAborted()
      return await search.dial({ addrs, peer, force, signal })
    } finally {
      this.#searching.delete(controller)
      outer.removeEventListener('abort', cut)
    }
  }

  async #newSearch(): Promise<Search<UpgradedConnection>> {
    const { Search } = await import('./search.ts')
    const { sources = [], resolver, own = () => [] } = this.#options
    return (this.#search ??= new Search({
      env: this.#upgrade.env,
      transports: this.#transports,
      dials: this.#dials,
      sources,
      resolver,
      own,
      open: (peer) => this.#connections.best(peer),
    }))
  }

  async #connect(addr: Multiaddr, signal: AbortSignal): Promise<UpgradedConnection> {
    const { clock, trace } = this.#upgrade.env
    const since = clock.now()
    try {
      const connection = await this.#open(addr, signal)
      this.#search?.succeeded(addr)
      const { peer, id } = connection
      trace?.('dial.succeeded', { addr, peer, connection: id, ms: clock.now() - since })
      return connection
    } catch (error) {
      trace?.('dial.failed', { addr, error, ms: clock.now() - since })
      // A dial that was called off says nothing about the address; one that took too long does.
      const { reason } = signal
      if (!signal.aborted || reason instanceof TimeoutError) this.#search?.failed(addr, asError(error))
      throw error
    }
  }

  async #open(addr: Multiaddr, signal: AbortSignal): Promise<UpgradedConnection> {
    const bare = addr.withoutPeer()
    const transport = this.#transports.find((t) => t.canDial(bare))
    if (transport === undefined) {
      const have = transportNames(this.#transports)
      throw new UnavailableError('no-transport', `no transport can dial ${addr}; have ${have}`)
    }
    const refusal = this.#connections.refusal()
    if (refusal !== undefined) throw refusal
    const expectedPeer = addr.peerId()
    const secured = await this.#secured(transport, bare, expectedPeer, signal).catch((error: unknown) => {
      if (!(error instanceof ProtocolError) || !notLibp2p.has(error.code)) throw error
      const message = `what listens at ${addr} does not speak libp2p: ${error.message}; ${notLibp2pHint}`
      throw new ProtocolError(error.code, message, { cause: error })
    })
    const { carrier, upgraded } = secured
    // Two addresses of the peer may answer in one moment: the later one goes.
    const sooner = expectedPeer && this.#connections.of(upgraded.peer).find(isDirectOutbound)
    if (sooner === undefined && !signal.aborted) {
      return this.#connections.add(upgraded, carrier, 'outbound', transport.name)
    }
    upgraded.muxer.abort(connectionCode.supplanted)
    if (sooner !== undefined) return sooner
    throw asError(signal.reason)
  }

  /**
   * The best security protocol is proposed together with its first message, which saves nearly everybody a round trip.
   * Whoever does not know it took that message for another proposal: it is dialled again, without it.
   */
  async #secured(
    transport: Transport,
    bare: Multiaddr,
    expectedPeer: PeerId | undefined,
    signal: AbortSignal,
  ): Promise<{ carrier: TransportConnection; upgraded: Upgraded }> {
    const refused: Attempt[] = []
    for (let { security } = this.#upgrade; ;) {
      const carrier = await transport.dial(bare, { signal })
      try {
        const upgraded = await upgrade(carrier, 'initiator', { ...this.#upgrade, security, signal, expectedPeer })
        return { carrier, upgraded }
      } catch (error) {
        const known = error instanceof UnavailableError && error.tried[0]?.what === security[0]?.id
        if (!known) throw error
        refused.push(...error.tried)
        security = security.slice(error.tried.length)
        if (security.length === 0) throw new UnavailableError('no-protocol', noSecurity, refused)
      }
    }
  }
}
