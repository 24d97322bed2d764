/// <reference lib="esnext.disposable" preserve="true" />
/*
 * createNode() wires the parts. One connection per peer is reused; when two exist (both dialled at once) both stay
 * valid: new streams go to the best (direct before limited, then oldest), a spare closes once it has long had no stream.
 */
import { UpgradedConnection, upgrade, type MuxerFactory, type Upgrade, type Upgraded } from './connection.ts'
import { capabilitiesOf, type Capabilities } from './capabilities.ts'
import type { Crypto } from './crypto/crypto.ts'
import { deadline, raceAbort } from './deadline.ts'
import { Dials } from './dials.ts'
import { systemEnv, type Env, type Timer } from './env.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, UnavailableError, asError } from './errors.ts'
import { Events } from './events.ts'
import type {
  Connection,
  HandleOptions,
  Host,
  HostEvents,
  NewStreamOptions,
  ProtocolStream,
  StreamHandler,
} from './host.ts'
import { cleanClose } from './inbox.ts'
import { multiaddr, type Multiaddr } from './multiaddr.ts'
import { yamux } from './mux/yamux/yamux.ts'
import { PeerId } from './peer/id.ts'
import { PendingInbound, hostOf } from './peer/pending.ts'
import { generateKey, type PrivateKey } from './peer/keys.ts'
import { createIdentify, type IdentifyResult, type IdentifyService } from './protocols/identify/identify.ts'
import { ping, servePing, type PingOptions } from './protocols/ping.ts'
import { createNoise } from './security/noise/noise.ts'
import type { SecurityProtocol } from './security/security.ts'
import type { Listener, Transport, TransportConnection } from './transport/transport.ts'
import { version } from './version.ts'
import { platformCrypto } from '#crypto'
import { defaultTransports } from '#transports'

export type { Capabilities } from './capabilities.ts'

export interface NodeOptions {
  /** Our identity; default: a new Ed25519 key, gone with the process. */
  privateKey?: PrivateKey
  /** Where to listen; default nowhere. */
  listen?: readonly (string | Multiaddr)[]
  /** Default: TCP on Node, none in browsers. */
  transports?: readonly Transport[]
  /** Default: Noise. */
  security?: readonly SecurityProtocol[]
  /** Default: yamux. */
  muxers?: readonly MuxerFactory[]
  /** `noble` forces the portable primitives; default: native where there are any. */
  crypto?: 'native' | 'noble'
  /** What identify tells others; default `rhiza/<version>`. */
  agent?: string
  /** A dial with its upgrade; default 15 s (go-libp2p). */
  dialTimeoutMs?: number
  /** Negotiating one stream; default 10 s (go-libp2p). */
  negotiationTimeoutMs?: number
  /** Open connections; one more inbound is refused, one more outbound throws. Default 1,024. */
  maxConnections?: number
  /** Inbound connections that are not secured yet; one more costs the oldest of the host that has most. Default 128. */
  maxPendingInbound?: number
  /** Open connections with one peer. Default 8. */
  maxConnectionsPerPeer?: number
  /** How long a spare connection must have had no stream before it closes. Default 30 s. */
  spareGraceMs?: number
  /** What stop() gives peers to take what was written and our goodbye; then connections are cut. Default 3 s. */
  stopTimeoutMs?: number
  /** Clock, randomness and trace; default the system's. */
  env?: Env
}

const defaults = {
  agent: `rhiza/${version}`,
  dialTimeoutMs: 15_000,
  negotiationTimeoutMs: 10_000,
  maxConnections: 1_024,
  maxPendingInbound: 128,
  maxConnectionsPerPeer: 8,
  spareGraceMs: 30_000,
  stopTimeoutMs: 3_000,
} satisfies Omit<Required<NodeOptions>, keyof NodeParts | 'crypto'>

export interface Node extends Host {
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
  /** Asks the peer anew. */
  identify(peer: PeerId | Multiaddr | string, options?: { signal?: AbortSignal }): Promise<IdentifyResult>
  ping(peer: PeerId | Multiaddr | string, options?: PingOptions): AsyncGenerator<number, void, undefined>
  /** What this build and this machine can do. */
  capabilities(): Capabilities
  [Symbol.asyncDispose](): Promise<void>
}

/** A dial target as its two halves. */
interface Target {
  addr: Multiaddr | undefined
  peer: PeerId | undefined
}

function target(to: PeerId | Multiaddr | string): Target {
  if (to instanceof PeerId) return { addr: undefined, peer: to }
  if (typeof to === 'string' && !to.startsWith('/')) return { addr: undefined, peer: PeerId.parse(to) }
  const addr = multiaddr(to)
  return { addr, peer: addr.peerId() }
}

/** How a dial fails when a web server, an SSH server or the wrong port answers. */
const notLibp2p: ReadonlySet<string> = new Set(['oversized', 'truncated', 'bad-negotiation', 'bad-varint', 'bad-utf8'])

function rank(a: Connection, b: Connection): number {
  return Number(a.limited !== undefined) - Number(b.limited !== undefined) || a.openedAt - b.openedAt
}

class RhizaNode implements Node {
  readonly peerId: PeerId
  readonly env: Env
  readonly #options: typeof defaults
  readonly #listen: readonly Multiaddr[]
  readonly #transports: readonly Transport[]
  readonly #upgrade: Upgrade
  readonly #crypto: string
  readonly #events: Events<HostEvents>
  readonly #handlers = new Map<string, { handler: StreamHandler; options: HandleOptions }>()
  readonly #connections = new Map<string, UpgradedConnection[]>()
  readonly #dials = new Dials<UpgradedConnection>((addr, signal) => this.#attempt(multiaddr(addr), signal))
  readonly #pendingInbound: PendingInbound<AbortController>
  /** Handshakes under way, in both directions: stop() waits for their end. */
  readonly #upgrading = new Set<Promise<unknown>>()
  readonly #spareTimers = new Map<UpgradedConnection, Timer>()
  readonly #identify: IdentifyService
  readonly #identifying = new Map<UpgradedConnection, Promise<IdentifyResult>>()
  #listeners: Listener[] = []
  #count = 0
  #state: 'stopped' | 'starting' | 'started' | 'stopping' = 'stopped'
  #change: Promise<void> = Promise.resolve()

  constructor(options: typeof defaults & NodeParts) {
    this.#options = options
    this.env = options.env
    this.peerId = options.privateKey.publicKey.peerId
    this.#listen = options.listen
    this.#transports = options.transports
    this.#crypto = options.cryptoName
    this.#upgrade = {
      env: options.env,
      security: options.security,
      muxers: options.muxers,
      timeoutMs: options.dialTimeoutMs,
    }
    this.#pendingInbound = new PendingInbound(options.maxPendingInbound)
    this.#events = new Events((event, error) => this.env.trace?.('node.listener-threw', { event, error }))
    this.#identify = createIdentify(
      this,
      {
        publicKey: options.privateKey.publicKey,
        agent: options.agent,
        addrs: () => this.#bareAddrs(),
        protocols: () => this.protocols(),
      },
      (connection) => this.#events.emit('peer:identify', { peer: connection.peer, connection }),
    )
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
    if (this.#state === 'started') return
    this.#state = 'starting'
    try {
      for (const addr of this.#listen) {
        const transport = this.#transports.find((t) => t.canListen(addr))
        if (transport === undefined) {
          throw new UnavailableError(
            'no-transport',
            `no transport can listen on ${addr}; have ${this.#transportNames()}`,
          )
        }
        const listener = await transport.listen(addr, (connection) =>
          this.#underWay(this.#accept(connection, transport.name)),
        )
        this.#listeners.push(listener)
      }
      this.#state = 'started'
    } catch (error) {
      await this.#closeListeners()
      this.#state = 'stopped'
      throw error
    }
  }

  stop(): Promise<void> {
    this.#change = this.#change.then(
      () => this.#stop(),
      () => this.#stop(),
    )
    return this.#change
  }

  async #stop(): Promise<void> {
    this.#state = 'stopping'
    const reason = new ClosedError('the node was stopped', cleanClose, 'stopped')
    this.#dials.abort(reason)
    for (const controller of this.#pendingInbound.values()) controller.abort(reason)
    await this.#closeListeners()
    await Promise.allSettled(this.#upgrading)
    const { stopTimeoutMs } = this.#options
    const late = this.env.clock.setTimer(stopTimeoutMs, () => {
      for (const c of this.connections()) c.abort(0, new TimeoutError('closing a connection', stopTimeoutMs))
    })
    await Promise.all(this.connections().map((c) => c.close()))
    late.cancel()
    this.#state = 'stopped'
  }

  #underWay(work: Promise<unknown>): void {
    const gone = (): void => void this.#upgrading.delete(work)
    this.#upgrading.add(work)
    work.then(gone, gone)
  }

  async #closeListeners(): Promise<void> {
    await Promise.all(this.#listeners.splice(0).map((l) => l.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #transportNames(): string {
    return this.#transports.map((t) => t.name).join(', ') || 'none'
  }

  #bareAddrs(): Multiaddr[] {
    return this.#listeners.flatMap((l) => l.addrs())
  }

  addrs(): Multiaddr[] {
    return this.#bareAddrs().map((a) => a.withPeer(this.peerId))
  }

  protocols(): string[] {
    return [...this.#handlers.keys()]
  }

  peers(): PeerId[] {
    return [...this.#connections.values()].flatMap(([first]) => (first === undefined ? [] : [first.peer]))
  }

  on<K extends keyof HostEvents>(event: K, listener: (detail: HostEvents[K]) => void): () => void {
    return this.#events.on(event, listener)
  }

  handle(protocol: string | readonly string[], handler: StreamHandler, options: HandleOptions = {}): void {
    const ids = typeof protocol === 'string' ? [protocol] : protocol
    for (const id of ids) {
      if (!/^[^\s]+$/.test(id)) throw new TypeError(`protocol id ${JSON.stringify(id)}: want text without spaces`)
      if (this.#handlers.has(id)) throw new TypeError(`protocol ${id} has a handler; unhandle it first`)
    }
    for (const id of ids) this.#handlers.set(id, { handler, options })
    if (this.#count > 0) this.#identify.changed()
  }

  unhandle(protocol: string | readonly string[]): void {
    for (const id of typeof protocol === 'string' ? [protocol] : protocol) this.#handlers.delete(id)
    if (this.#count > 0) this.#identify.changed()
  }

  connections(peer?: PeerId): readonly Connection[] {
    return peer === undefined ? [...this.#connections.values()].flat() : this.#of(peer).toSorted(rank)
  }

  #of(peer: PeerId): readonly UpgradedConnection[] {
    return this.#connections.get(peer.toString()) ?? []
  }

  #best(peer: PeerId | undefined): UpgradedConnection | undefined {
    if (peer === undefined) return undefined
    const all = this.#of(peer)
    return all.length < 2 ? all[0] : all.toSorted(rank)[0]
  }

  async dial(
    to: PeerId | Multiaddr | string,
    options: { signal?: AbortSignal; timeoutMs?: number } = {},
  ): Promise<Connection> {
    return this.#dial(target(to), options)
  }

  async #dial(
    { addr, peer }: Target,
    { signal, timeoutMs = this.#options.dialTimeoutMs }: { signal?: AbortSignal; timeoutMs?: number },
  ): Promise<UpgradedConnection> {
    signal?.throwIfAborted()
    if (this.#state === 'stopping') throw new ClosedError('the node is stopping', cleanClose, 'stopped')
    const open = this.#best(peer)
    if (open !== undefined) return open
    if (peer?.equals(this.peerId) === true) throw new TypeError('a node can not dial itself')
    // Callers that share an attempt each have a deadline of their own.
    const bound = deadline({ env: this.env, timeoutMs, what: `dialling ${addr ?? peer}`, signal })
    const id = peer?.toString()
    try {
      const dialling =
        addr === undefined
          ? this.#dials.toPeer(String(id), bound.signal)
          : this.#dials.to(String(addr), id, bound.signal)
      if (dialling !== undefined) return await dialling
      throw new UnavailableError('no-address', `no connection to ${id} and no address of it; dial a multiaddr`)
    } finally {
      bound.done()
    }
  }

  #attempt(addr: Multiaddr, signal: AbortSignal): Promise<UpgradedConnection> {
    const attempt = this.#connect(addr, signal)
    this.#underWay(attempt)
    return attempt
  }

  async #connect(addr: Multiaddr, signal: AbortSignal): Promise<UpgradedConnection> {
    const bare = addr.withoutPeer()
    const transport = this.#transports.find((t) => t.canDial(bare))
    if (transport === undefined) {
      throw new UnavailableError('no-transport', `no transport can dial ${addr}; have ${this.#transportNames()}`)
    }
    if (this.#count >= this.#options.maxConnections) {
      throw new LimitError('maxConnections', this.#options.maxConnections, this.#count + 1)
    }
    const carrier = await transport.dial(bare, { signal })
    const upgraded = await this.#secure(carrier, 'initiator', signal, addr.peerId()).catch((error: unknown) => {
      if (!(error instanceof ProtocolError) || !notLibp2p.has(error.code)) throw error
      const message = `what listens at ${addr} does not speak libp2p: ${error.message}`
      throw new ProtocolError(error.code, message, { cause: error })
    })
    return this.#register(upgraded, carrier, 'outbound', transport.name)
  }

  async #secure(
    carrier: TransportConnection,
    role: 'initiator' | 'responder',
    signal: AbortSignal,
    expectedPeer?: PeerId,
  ): Promise<Upgraded> {
    if (carrier.kind === 'raw')
      return upgrade(carrier, role, { ...this.#upgrade, signal, ...(expectedPeer && { expectedPeer }) })
    const { peer, muxer, security } = carrier
    if (expectedPeer !== undefined && !expectedPeer.equals(peer)) {
      const error = new ProtocolError('wrong-peer', `got ${peer}, want ${expectedPeer}`)
      muxer.abort(error.wireCode, error)
      throw error
    }
    return { peer, muxer, security, muxerId: security }
  }

  async #accept(carrier: TransportConnection, transport: string): Promise<void> {
    const { maxPendingInbound, maxConnections, dialTimeoutMs: timeoutMs } = this.#options
    const drop = (reason: Error): void => {
      if (carrier.kind === 'raw') carrier.stream.reset(0, reason)
      else carrier.muxer.abort(0x1002, reason)
      this.env.trace?.('node.inbound-refused', { remoteAddr: carrier.remoteAddr.toString(), error: reason })
    }
    if (this.#state === 'stopping') return drop(new ClosedError('the node is stopping', cleanClose, 'stopped'))
    if (this.#count >= maxConnections) return drop(new LimitError('maxConnections', maxConnections, this.#count + 1))
    const controller = new AbortController()
    const host = hostOf(carrier.remoteAddr)
    const oldest = this.#pendingInbound.add(host, controller)
    oldest?.abort(new LimitError('maxPendingInbound', maxPendingInbound, maxPendingInbound + 1))
    const bound = deadline({ env: this.env, timeoutMs, what: 'an inbound handshake', signal: controller.signal })
    try {
      const upgraded = await this.#secure(carrier, 'responder', bound.signal)
      this.#register(upgraded, carrier, 'inbound', transport)
    } catch (error) {
      drop(asError(error))
    } finally {
      bound.done()
      this.#pendingInbound.delete(host, controller)
    }
  }

  #register(
    upgraded: Upgraded,
    carrier: TransportConnection,
    direction: 'inbound' | 'outbound',
    transport: string,
  ): UpgradedConnection {
    const { peer, muxer } = upgraded
    const refuse = (error: Error): never => {
      muxer.abort(0x1002, error)
      throw error
    }
    const key = peer.toString()
    const list = this.#connections.get(key) ?? []
    const { maxConnectionsPerPeer, maxConnections, negotiationTimeoutMs } = this.#options
    if (this.#state === 'stopping') refuse(new ClosedError('the node is stopping', cleanClose, 'stopped'))
    if (peer.equals(this.peerId)) refuse(new ProtocolError('wrong-peer', 'the peer has our own peer id'))
    if (this.#count >= maxConnections) refuse(new LimitError('maxConnections', maxConnections, this.#count + 1))
    if (list.length >= maxConnectionsPerPeer)
      refuse(new LimitError('maxConnectionsPerPeer', maxConnectionsPerPeer, list.length + 1))
    const connection = new UpgradedConnection(upgraded, carrier, direction, transport, {
      env: this.env,
      negotiationTimeoutMs,
      handlers: { find: (protocol) => this.#handlers.get(protocol) },
    })
    list.push(connection)
    this.#connections.set(key, list)
    this.#count++
    void connection.closed.then(() => this.#forget(connection))
    this.#events.emit('connection:open', connection)
    if (list.length === 1) this.#events.emit('peer:connect', peer)
    else this.#watchSpares(peer)
    void connection.serve()
    void this.#identifyNew(connection)
    return connection
  }

  async #identifyNew(connection: UpgradedConnection): Promise<void> {
    // Whoever asks meanwhile shares it: js-libp2p answers one identify stream at a time and resets the others.
    const asked = this.#identify.identify(connection)
    this.#identifying.set(connection, asked)
    try {
      await asked
      this.#events.emit('peer:identify', { peer: connection.peer, connection })
    } catch (error) {
      // A peer without identify is still a peer: streams negotiate exactly.
      this.env.trace?.('node.identify-failed', { peer: connection.peer.toString(), error })
    } finally {
      this.#identifying.delete(connection)
    }
  }

  #forget(connection: UpgradedConnection): void {
    const key = connection.peer.toString()
    const left = (this.#connections.get(key) ?? []).filter((c) => c !== connection)
    this.#count--
    this.#spareTimers.get(connection)?.cancel()
    this.#spareTimers.delete(connection)
    if (left.length > 0) this.#connections.set(key, left)
    else this.#connections.delete(key)
    this.#events.emit('connection:close', connection)
    if (left.length === 0) this.#events.emit('peer:disconnect', connection.peer)
  }

  /**
   * One side alone decides, the one with the smaller peer id: were both to close what each holds for the spare, they
   * could close both. A stream that the peer opens meanwhile is younger than the grace and keeps the spare open.
   */
  #watchSpares(peer: PeerId): void {
    if (this.peerId.toString() > peer.toString()) return
    const best = this.#best(peer)
    for (const spare of this.#of(peer)) {
      if (spare === best || this.#spareTimers.has(spare)) continue
      this.#armSpare(spare)
    }
  }

  #armSpare(spare: UpgradedConnection): void {
    const { spareGraceMs } = this.#options
    const seen = spare.streamCount
    const timer = this.env.clock.setTimer(spareGraceMs, () => {
      this.#spareTimers.delete(spare)
      if (this.#best(spare.peer) === spare) return
      if (spare.streams.length === 0 && spare.streamCount === seen) void spare.close(0x1004)
      else this.#armSpare(spare)
    })
    this.#spareTimers.set(spare, timer)
  }

  async hangUp(peer: PeerId | Multiaddr | string): Promise<void> {
    const { peer: id } = target(peer)
    if (id === undefined) throw new TypeError(`${String(peer)} names no peer: want a peer id or a multiaddr with /p2p`)
    await Promise.all(this.#of(id).map((c) => c.close()))
  }

  async newStream(
    peer: PeerId | Multiaddr | string,
    protocols: string | readonly string[],
    options: NewStreamOptions = {},
  ): Promise<ProtocolStream> {
    const to = target(peer)
    const { signal, timeoutMs } = options
    const bound = { ...(signal && { signal }), ...(timeoutMs !== undefined && { timeoutMs }) }
    const since = this.env.clock.now()
    const first = this.#best(to.peer) ?? (await this.#dial(to, bound))
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

  async #another(
    to: Target,
    gone: UpgradedConnection,
    bound: { signal?: AbortSignal; timeoutMs?: number },
  ): Promise<UpgradedConnection | undefined> {
    const others = this.#of(gone.peer).filter((c) => c !== gone)
    if (others.length > 0) return others.toSorted(rank)[0]
    if (to.addr === undefined || this.#of(gone.peer).length > 0) return undefined
    return this.#dial(to, bound)
  }

  async identify(
    peer: PeerId | Multiaddr | string,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<IdentifyResult> {
    const bound = { ...(signal && { signal }) }
    const connection = await this.#dial(target(peer), bound)
    const underWay = this.#identifying.get(connection)
    return underWay === undefined ? this.#identify.identify(connection, bound) : raceAbort(underWay, signal)
  }

  async *ping(peer: PeerId | Multiaddr | string, options: PingOptions = {}): AsyncGenerator<number, void, undefined> {
    const { signal } = options
    const connection = await this.#dial(target(peer), { ...(signal && { signal }) })
    yield* ping(this, connection, options)
  }

  capabilities(): Capabilities {
    const { security, muxers } = this.#upgrade
    const ids = [...security, ...muxers].map(({ id }) => id)
    return capabilitiesOf([...this.#transports.map((t) => t.name), ...ids, `crypto:${this.#crypto}`])
  }
}

interface NodeParts {
  privateKey: PrivateKey
  listen: readonly Multiaddr[]
  transports: readonly Transport[]
  security: readonly SecurityProtocol[]
  muxers: readonly MuxerFactory[]
  cryptoName: string
  env: Env
}

async function chooseCrypto(name: NodeOptions['crypto']): Promise<Crypto | undefined> {
  if (name === undefined) return undefined
  const backend = name === 'noble' ? (await import('./crypto/noble.ts')).nobleCrypto : platformCrypto
  if (backend.name !== name) throw new UnavailableError('unsupported', `there is no ${name} crypto on this platform`)
  return backend
}

/** A node, not started yet: nothing is open. Rejects with TypeError or RangeError on bad options. */
export async function createNode(options: NodeOptions = {}): Promise<Node> {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as NodeOptions
  const merged = { ...defaults, ...given }
  for (const name of Object.keys(defaults) as (keyof typeof defaults)[]) {
    const value = merged[name]
    if (name === 'agent') continue
    if (typeof value !== 'number' || !(value >= 0))
      throw new RangeError(`option ${name} is ${String(value)}: want a number of at least 0`)
  }
  const env = merged.env ?? systemEnv()
  const privateKey = merged.privateKey ?? generateKey()
  const crypto = await chooseCrypto(merged.crypto)
  return new RhizaNode({
    ...merged,
    env,
    privateKey,
    cryptoName: (crypto ?? platformCrypto).name,
    listen: (merged.listen ?? []).map((a) => multiaddr(a)),
    transports: merged.transports ?? defaultTransports(),
    security: merged.security ?? [createNoise({ privateKey, env, ...(crypto && { crypto }) })],
    muxers: merged.muxers ?? [yamux()],
  })
}
