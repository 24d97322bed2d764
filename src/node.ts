/// <reference lib="esnext.disposable" preserve="true" />
/*
 * createNode() wires the parts: handlers, connections, the way in, the way out, identify and ping.
 */
import { capabilitiesOf, type Capabilities } from './capabilities.ts'
import { connectionCode } from './close-codes.ts'
import { Connections } from './connection/connections.ts'
import type { Crypto } from './crypto/crypto.ts'
import { raceAbort } from './deadline.ts'
import { Dialer, target, type DialOptions, type Target } from './dial/dialer.ts'
import { Reconnect } from './dial/reconnect.ts'
import type { Resolver } from './dial/resolve.ts'
import type { FindAddresses } from './dial/search.ts'
import { systemEnv, type Env, type Trace } from './env.ts'
import { ClosedError, TimeoutError, UnavailableError } from './errors.ts'
import { Events } from './events.ts'
import { Handlers } from './connection/handlers.ts'
import type {
  Connection,
  ConnectionProtocols,
  DialTarget,
  HandleOptions,
  Host,
  HostEvents,
  NewStreamOptions,
  ProtocolStream,
  Reachability,
  StreamHandler,
} from './host.ts'
import { Inbound } from './connection/inbound.ts'
import { cleanClose } from './inbox.ts'
import { multiaddr, type Multiaddr } from './multiaddr.ts'
import { yamux } from './mux/yamux/yamux.ts'
import type { AddressBook } from './peer/book.ts'
import type { PeerId } from './peer/id.ts'
import { generateKey, type PrivateKey } from './peer/keys.ts'
import { createIdentify, type IdentifyResult, type IdentifyService } from './protocols/identify/identify.ts'
import { ping, servePing, type PingOptions } from './protocols/ping.ts'
import type { Protector } from './security/pnet.ts'
import type { SecurityProtocol } from './security/security.ts'
import type { Transport } from './transport/transport.ts'
import type { MuxerFactory } from './connection/upgrade.ts'
import { Whereabouts, type WhereaboutsOptions } from './connection/whereabouts.ts'
import { version } from './version.ts'
import { platformCrypto } from '#crypto'
import { defaultSecurity, forcesPrivateNetwork } from '#security'
import { defaultTransports } from '#transports'

export type { Capabilities } from './capabilities.ts'

export interface NodeOptions extends WhereaboutsOptions {
  /** Our identity; default: a new Ed25519 key, gone with the process. */
  privateKey?: PrivateKey
  /** Where to listen; default nowhere. */
  listen?: readonly (string | Multiaddr)[]
  /** Default: TCP and WebSocket on Node, WebSocket in browsers. */
  transports?: readonly Transport[]
  /** Default: Noise, then TLS where the platform has it. */
  security?: readonly SecurityProtocol[]
  /** Of a private network: `pnet(psk)` of rhiza/pnet. Transports that secure themselves are refused then. */
  connectionProtector?: Protector
  /** Default: yamux. */
  muxers?: readonly MuxerFactory[]
  /** Default: native on Node, elsewhere portable, which is small. `noble`: curves and hashes by noble alone. */
  crypto?: 'native' | 'portable' | 'noble' | Crypto
  /** What identify tells others; default `rhiza/<version>`. */
  agent?: string
  /** A dial with its upgrade; default 15 s (go-libp2p). */
  dialTimeoutMs?: number
  /** Dials at a time; the next wait. Default 100. */
  maxDials?: number
  /** Dials at a time to one peer. Default 8 (go-libp2p). */
  maxDialsPerPeer?: number
  /** Addresses of a peer that is dialled by its id. */
  addressesOf?: FindAddresses
  /** Asked when no address that addressesOf knows answers: a search in the network. */
  findPeer?: FindAddresses
  /** Whether others can dial us, where that is known. Default unknown. */
  reachability?: Reachability
  /** Names in addresses; default the system's resolver on Node, DNS over HTTPS in browsers. */
  resolver?: Resolver
  /** Negotiating one stream; default 10 s (go-libp2p). */
  negotiationTimeoutMs?: number
  /** Open connections; one more inbound is refused, one more outbound throws. Default 1,024. */
  maxConnections?: number
  /** Inbound connections that are not secured yet; one more costs the oldest of the host that has most. Default 128. */
  maxPendingInbound?: number
  /** Connections that one host (an IPv4 address, an IPv6 /64) may open in a second; ten times as many at once. Default 10. */
  maxInboundPerSecondPerHost?: number
  /** The same for a host on loopback or in a private network: behind a proxy all peers are one. Default no limit. */
  maxInboundPerSecondPerLocalHost?: number
  /** Open connections with one peer. Default 8. */
  maxConnectionsPerPeer?: number
  /** How long a spare connection must have had no stream before it closes. Default 30 s. */
  spareGraceMs?: number
  /** What stop() gives peers to take what was written and our goodbye; then connections are cut. Default 3 s. */
  stopTimeoutMs?: number
  /** Clock, randomness and turns; default the system's. */
  env?: Env
  /** Hears what happens: dials, connections, streams, refusals, each with its reason. The names are `traceEvents`. */
  trace?: Trace
}

const defaults = {
  agent: `rhiza/${version}`,
  reachability: 'unknown' as Reachability,
  dialTimeoutMs: 15_000,
  maxDials: 100,
  maxDialsPerPeer: 8,
  negotiationTimeoutMs: 10_000,
  maxConnections: 1_024,
  maxPendingInbound: 128,
  maxInboundPerSecondPerHost: 10,
  maxInboundPerSecondPerLocalHost: Infinity,
  maxConnectionsPerPeer: 8,
  spareGraceMs: 30_000,
  stopTimeoutMs: 3_000,
} satisfies Omit<Required<NodeOptions>, keyof NodeParts | keyof WhereaboutsOptions | 'crypto' | 'trace'>

export interface Node extends Host {
  /** Where peers are: what they signed, what others and we know of them. */
  readonly book: AddressBook
  /** A search in the network for a peer that is dialled by its id, once no known address answers. Returns the undo. */
  addPeerRouting(find: FindAddresses): () => void
  /** Whether others can dial us: the user's to set, or AutoNAT's. A change is the event `reachability`. */
  reachability: Reachability
  /** Listens. Idempotent; rejects with UnavailableError when an address can't be listened on, with nothing left open. */
  start(): Promise<void>
  /**
   * Closes listeners and connections, also of a node that only dialled; leaves no handle open, whatever the peers do,
   * within stopTimeoutMs. Idempotent; a stopped node may be started again.
   */
  stop(): Promise<void>
  /** Where peers can dial us, with our /p2p. */
  addrs(): Multiaddr[]
  /** Protocols that have a handler. */
  protocols(): string[]
  peers(): PeerId[]
  /**
   * Dials the peer again, with back-off, when a connection with it is lost, also at the addresses where it was reached.
   * Until unprotect with the same tag; a connection that we close ourselves, hangUp or stop, is not lost.
   */
  protect(peer: PeerId | string, tag?: string): void
  /** Whether it is still protected, by another tag. */
  unprotect(peer: PeerId | string, tag?: string): boolean
  isProtected(peer: PeerId | string): boolean
  /** Asks the peer anew. */
  identify(peer: PeerId | Multiaddr | string, options?: { signal?: AbortSignal }): Promise<IdentifyResult>
  ping(peer: PeerId | Multiaddr | string, options?: PingOptions): AsyncGenerator<number, void, undefined>
  /** What this build and this machine can do. */
  capabilities(): Capabilities
  [Symbol.asyncDispose](): Promise<void>
}

function peerOf(to: PeerId | Multiaddr | string): PeerId {
  const { peer } = target(to)
  if (peer === undefined) throw new TypeError(`${String(to)} names no peer: want a peer id or a multiaddr with /p2p`)
  return peer
}

class RhizaNode implements Node {
  readonly peerId: PeerId
  readonly env: Env
  readonly #options: typeof defaults & NodeParts
  readonly #events: Events<HostEvents>
  readonly #handlers: Handlers
  readonly #connections: Connections
  readonly #inbound: Inbound
  readonly #dialer: Dialer
  readonly #reconnect: Reconnect
  readonly #identify: IdentifyService
  readonly #whereabouts: Whereabouts
  /** Asked for the addresses of a peer, in this order. */
  readonly #sources: FindAddresses[] = []
  #reachability: Reachability
  readonly #identifying = new Map<Connection, Promise<IdentifyResult>>()
  #started = false
  #change: Promise<void> = Promise.resolve()

  constructor(options: typeof defaults & NodeParts) {
    const { env, privateKey, transports, security, muxers, dialTimeoutMs, connectionProtector: protector } = options
    this.#options = options
    this.#reachability = options.reachability
    this.env = env
    this.peerId = privateKey.publicKey.peerId
    const by = { env, security, muxers, timeoutMs: dialTimeoutMs, protector }
    const where = options.whereabouts
    this.#whereabouts = where
    this.#events = new Events((event, error) => env.trace?.('node.listener-threw', { event, error }))
    this.#handlers = new Handlers(() => this.#changed(), env)
    const around = { env, self: this.peerId, handlers: this.#handlers, events: this.#events }
    this.#connections = new Connections(options, around)
    this.#inbound = new Inbound(transports, by, this.#connections, options)
    const { maxDials, maxDialsPerPeer, resolver } = options
    const known: FindAddresses = (peer) =>
      Promise.resolve([...this.#reconnect.addressesOf(peer), ...where.book.addrs(peer).map(({ addr }) => addr)])
    const given = [known, options.addressesOf, options.findPeer].filter((source) => source !== undefined)
    const sources = this.#sources
    sources.push(...given)
    const own = (): readonly Multiaddr[] => this.#inbound.addrs()
    const dialing = { maxDials, maxDialsPerPeer, resolver, sources, own }
    this.#dialer = new Dialer(this.peerId, transports, by, this.#connections, dialing)
    this.#reconnect = new Reconnect(env, this.#connections, this.#dialer)
    where.watch(
      () => this.#inbound.addrs(),
      () => this.#changed(),
    )
    this.#identify = createIdentify(
      this,
      {
        publicKey: privateKey.publicKey,
        agent: options.agent,
        book: where.book,
        addrs: () => where.addresses.all(),
        // connections/README.md §Supported protocols: their set is that of the connection
        protocols: ({ transport }) => this.#handlers.ids(transport),
      },
      (connection, { observedAddr }) => this.#identified(connection, observedAddr),
    )
    this.on('connection:open', (connection) => {
      where.opened(connection)
      this.#reconnect.opened(connection)
      void this.#identifyNew(connection)
    })
    this.on('connection:close', (connection) => void this.#reconnect.lost(connection))
    this.on('connection:close', (connection) => where.closed(connection))
    this.on('peer:disconnect', (peer) => where.disconnected(peer))
    servePing(this)
  }

  start(): Promise<void> {
    this.#change = this.#change.then(
      () => this.#start(),
      () => this.#start(),
    )
    return this.#change
  }

  async #start(): Promise<void> {
    if (this.#started) return
    this.#connections.stopping = false
    await this.#inbound.listen(this.#options.listen, () => this.#whereabouts.look())
    this.#whereabouts.start()
    this.#started = true
    this.#reconnect.start()
  }

  stop(): Promise<void> {
    this.#change = this.#change.then(
      () => this.#stop(),
      () => this.#stop(),
    )
    return this.#change
  }

  async #stop(): Promise<void> {
    const reason = new ClosedError('the node was stopped', cleanClose, 'stopped')
    const { stopTimeoutMs } = this.#options
    this.#connections.stopping = true
    await this.#whereabouts.stop(this.peers())
    this.#reconnect.stop(reason)
    this.#dialer.abort(reason)
    this.#inbound.abort(reason)
    await this.#inbound.closeListeners()
    await this.#connections.settled()
    const late = this.env.clock.setTimer(stopTimeoutMs, () => {
      for (const c of this.connections()) c.abort(0, new TimeoutError('closing a connection', stopTimeoutMs))
    })
    await Promise.all(this.connections().map((c) => c.close(connectionCode.shutdown)))
    late.cancel()
    this.#identify.cancel()
    this.#connections.stopping = false
    this.#started = false
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** Our protocols or addresses are not what they were. */
  #changed(): void {
    if (this.#connections.count > 0) this.#identify.changed()
  }

  addrs(): Multiaddr[] {
    return this.#whereabouts.addresses.all().map((a) => a.withPeer(this.peerId))
  }

  addPeerRouting(find: FindAddresses): () => void {
    this.#sources.push(find)
    return () => {
      const at = this.#sources.indexOf(find)
      if (at >= 0) this.#sources.splice(at, 1)
    }
  }

  get reachability(): Reachability {
    return this.#reachability
  }

  set reachability(reachability: Reachability) {
    if (reachability === this.#reachability) return
    this.#reachability = reachability
    this.#events.emit('reachability', reachability)
  }

  get book(): AddressBook {
    return this.#whereabouts.book
  }

  protocols(): string[] {
    return this.#handlers.ids()
  }

  peers(): PeerId[] {
    return this.#connections.peers()
  }

  connections(peer?: PeerId): readonly Connection[] {
    return peer === undefined ? this.#connections.all() : this.#connections.of(peer)
  }

  on<K extends keyof HostEvents>(event: K, listener: (detail: HostEvents[K]) => void): () => void {
    return this.#events.on(event, listener)
  }

  handle(protocol: string | readonly string[], handler: StreamHandler, options: HandleOptions = {}): void {
    this.#handlers.add(protocol, handler, options)
  }

  unhandle(protocol: string | readonly string[]): void {
    this.#handlers.remove(protocol)
  }

  async dial(to: DialTarget, options: DialOptions = {}): Promise<Connection> {
    return this.#dialer.dial(target(to), options)
  }

  protect(peer: PeerId | string, tag = 'user'): void {
    this.#reconnect.protect(peerOf(peer), tag)
  }

  unprotect(peer: PeerId | string, tag = 'user'): boolean {
    return this.#reconnect.unprotect(peerOf(peer), tag)
  }

  isProtected(peer: PeerId | string): boolean {
    return this.#reconnect.isProtected(peerOf(peer))
  }

  async hangUp(peer: PeerId | Multiaddr | string): Promise<void> {
    await Promise.all(this.#connections.of(peerOf(peer)).map((c) => c.close()))
  }

  #identified(connection: Connection, observedAddr: Multiaddr | undefined): void {
    void this.#whereabouts.seen(connection, observedAddr)
    this.#events.emit('peer:identify', { peer: connection.peer, connection })
  }

  async #identifyNew(connection: Connection & { identifying?: Promise<unknown> | undefined }): Promise<void> {
    // Whoever asks meanwhile shares it: js-libp2p answers one identify stream at a time and resets the others.
    const asked = this.#identify.identify(connection)
    this.#identifying.set(connection, asked)
    connection.identifying = asked
    const since = this.env.clock.now()
    try {
      const { agent, protocols, observedAddr } = await asked
      this.env.trace?.('identify.done', {
        peer: connection.peer,
        connection: connection.id,
        agent,
        protocols: protocols.length,
        ms: this.env.clock.now() - since,
      })
      this.#identified(connection, observedAddr)
    } catch (error) {
      // A peer without identify is still a peer: streams negotiate exactly.
      this.env.trace?.('node.identify-failed', { peer: connection.peer.toString(), error })
    } finally {
      this.#identifying.delete(connection)
      connection.identifying = undefined
    }
  }

  async newStream(
    peer: PeerId | Multiaddr | string,
    protocols: ConnectionProtocols,
    options: NewStreamOptions = {},
  ): Promise<ProtocolStream> {
    const to = target(peer)
    const { signal, timeoutMs } = options
    const bound = { ...(signal && { signal }), ...(timeoutMs !== undefined && { timeoutMs }) }
    const since = this.env.clock.now()
    const first = this.#connections.best(to.peer) ?? (await this.#dialer.dial(to, bound))
    const left = timeoutMs === undefined ? {} : { timeoutMs: Math.max(0, timeoutMs - this.env.clock.now() + since) }
    try {
      return await first.newStream(protocols, { ...options, ...left })
    } catch (error) {
      // The connection ended under our hands, before the stream was there: another one may do.
      const again =
        error instanceof ClosedError && error.info.by !== 'local' ? await this.#another(to, first, bound) : undefined
      if (again === undefined) throw error
      return again.newStream(protocols, { ...options, ...left })
    }
  }

  async #another(to: Target, gone: Connection, bound: DialOptions): Promise<Connection | undefined> {
    const open = this.#connections.of(gone.peer)
    const other = open.find((c) => c !== gone)
    if (other !== undefined || to.addrs.length === 0 || open.length > 0) return other
    return this.#dialer.dial(to, bound)
  }

  async identify(
    peer: PeerId | Multiaddr | string,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<IdentifyResult> {
    const bound = { ...(signal && { signal }) }
    const connection = await this.#dialer.dial(target(peer), bound)
    const underWay = this.#identifying.get(connection)
    return underWay === undefined ? this.#identify.identify(connection, bound) : raceAbort(underWay, signal)
  }

  ping(peer: PeerId | Multiaddr | string, options: PingOptions = {}): AsyncGenerator<number, void, undefined> {
    const { signal } = options
    // Within the generator: a bad address rejects its first round.
    const dial = async (): Promise<Connection> => this.#dialer.dial(target(peer), { ...(signal && { signal }) })
    return ping(this, dial, options)
  }

  capabilities(): Capabilities {
    const { security, muxers, transports, cryptoName } = this.#options
    const ids = [...security, ...muxers].map(({ id }) => id)
    return capabilitiesOf([...transports.map((t) => t.name), ...ids, `crypto:${cryptoName}`])
  }
}

interface NodeParts {
  privateKey: PrivateKey
  listen: readonly Multiaddr[]
  transports: readonly Transport[]
  security: readonly SecurityProtocol[]
  connectionProtector?: Protector
  muxers: readonly MuxerFactory[]
  cryptoName: string
  env: Env
  whereabouts: Whereabouts
  addressesOf?: FindAddresses
  findPeer?: FindAddresses
  resolver?: Resolver
}

async function chooseCrypto(name: NodeOptions['crypto']): Promise<Crypto | undefined> {
  if (name === undefined || typeof name === 'object') return name
  if (name === 'noble') return (await import('./crypto/noble.ts')).nobleCrypto
  if (name === 'portable') return (await import('./crypto/portable.ts')).portableCrypto
  if (platformCrypto.name !== name)
    throw new UnavailableError('unsupported', `there is no ${name} crypto on this platform`)
  return platformCrypto
}

/** A node, not started yet: nothing is open. Rejects with TypeError or RangeError on bad options. */
export async function createNode(options: NodeOptions = {}): Promise<Node> {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as NodeOptions
  const merged = { ...defaults, ...given }
  for (const name of Object.keys(defaults) as (keyof typeof defaults)[]) {
    const value = merged[name]
    if (name === 'agent' || name === 'reachability') continue
    if (typeof value !== 'number' || !(value >= 0))
      throw new RangeError(`option ${name} is ${String(value)}: want a number of at least 0`)
  }
  if (merged.connectionProtector === undefined && forcesPrivateNetwork()) {
    throw new UnavailableError('not-permitted', 'LIBP2P_FORCE_PNET is 1: give createNode a connectionProtector')
  }
  const { trace, env: around = systemEnv() } = merged
  const env = trace === undefined ? around : { ...around, trace }
  const crypto = await chooseCrypto(merged.crypto)
  const privateKey = merged.privateKey ?? generateKey('Ed25519', crypto)
  return new RhizaNode({
    ...merged,
    env,
    privateKey,
    whereabouts: await Whereabouts.load(privateKey, env, merged, crypto),
    cryptoName: (crypto ?? platformCrypto).name,
    listen: (merged.listen ?? []).map((a) => multiaddr(a)),
    transports: merged.transports ?? defaultTransports(),
    security: merged.security ?? defaultSecurity({ privateKey, env, ...(crypto && { crypto }) }),
    muxers: merged.muxers ?? [yamux()],
  })
}
