/*
 * A host without a wire, for networks of a thousand nodes: connections are handed over authenticated and multiplexed,
 * the bytes of each stream arrive after the way's latency, in one piece. What stands above the host (here the DHT, and
 * the address book below it) is the real code. Left out: handshakes (their round trips are waited for), windows, muxers.
 */
import { concat } from '../../src/bytes.ts'
import { raceAbort, sleep } from '../../src/deadline.ts'
import type { Env, Random } from '../../src/env.ts'
import { ClosedError, TimeoutError, UnavailableError, asError } from '../../src/errors.ts'
import type {
  Connection,
  ConnectionProtocols,
  DialTarget,
  HostEvents,
  NewStreamOptions,
  ProtocolStream,
  Reachability,
  StreamHandler,
} from '../../src/host.ts'
import type { KadHost } from '../../src/dht/kad.ts'
import { deferred, iterate, rejected, type Deferred } from '../../src/inbox.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { AddressBook, addressTtlMs } from '../../src/peer/book.ts'
import type { PeerId } from '../../src/peer/id.ts'
import type { PrivateKey } from '../../src/peer/keys.ts'
import type { CloseInfo } from '../../src/stream.ts'
import { somePeer } from '../dht/peers.ts'
import type { VirtualTime } from './time.ts'

/** What a network does to whatever crosses it. */
export interface Way {
  latencyMs(from: LightHost, to: LightHost): number
  /** More milliseconds for this write: 0, or a retransmission. */
  lossMs(from: LightHost): number
  /** Who listens there and can be reached from outside; undefined: nothing answers. */
  at(addr: string): LightHost | undefined
  /** Counts. */
  sent(bytes: number): void
  dialled(): void
}

export interface LightOptions {
  seed: number
  index: number
  time: VirtualTime
  way: Way
  /** Without /p2p. */
  addr: string
  /** Default: what `seed` and `index` give. */
  identity?: PeerId
  /** Connections that it keeps; the one idle longest goes. Default 200. */
  maxConnections?: number
}

class LightStream implements ProtocolStream {
  readonly protocol: string
  readonly direction: 'inbound' | 'outbound'
  readonly #from: LightHost
  readonly #to: LightHost
  #other: LightStream | undefined
  #chunks: Uint8Array[] = []
  #reader: Deferred<Uint8Array | null> | undefined
  #finSent = false
  #finRead = false
  #deaf = false
  #over: CloseInfo | undefined
  #lastAt = 0
  readonly #closed = deferred<CloseInfo>()
  /** Told when the first bytes arrive. */
  onFirst: (() => void) | undefined

  constructor(protocol: string, direction: 'inbound' | 'outbound', from: LightHost, to: LightHost) {
    this.protocol = protocol
    this.direction = direction
    this.#from = from
    this.#to = to
  }

  static join(a: LightStream, b: LightStream): void {
    a.#other = b
    b.#other = a
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  read(): Promise<Uint8Array | null> {
    const chunk = this.#chunks.shift()
    if (chunk !== undefined) return Promise.resolve(chunk)
    if (this.#over?.reason !== undefined) return rejected(this.#over.reason)
    if (this.#finRead || this.#deaf) return Promise.resolve(null)
    this.#reader = deferred()
    return this.#reader.promise
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#over !== undefined || this.#finSent) {
      return rejected(this.#over?.reason ?? new ClosedError('the stream is closed', { by: 'local', code: 0 }))
    }
    const bytes = concat(chunks)
    this.#from.way.sent(bytes.length)
    this.#send(() => this.#other?.take(bytes))
    return Promise.resolve()
  }

  closeWrite(): Promise<void> {
    if (this.#finSent || this.#over !== undefined) return Promise.resolve()
    this.#finSent = true
    this.#send(() => this.#other?.takeFin())
    this.#settle()
    return Promise.resolve()
  }

  closeRead(): void {
    this.#deaf = true
    this.#chunks = []
  }

  reset(code = 0, reason: Error = new ClosedError('the stream was reset', { by: 'local', code }, 'reset')): void {
    if (this.#over !== undefined) return
    this.end({ by: 'local', code, reason })
    const told = new ClosedError('the peer reset the stream', { by: 'remote', code }, 'reset')
    this.#send(() => this.#other?.end({ by: 'remote', code, reason: told }))
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }

  /** In order, whatever was lost on the way. */
  #send(arrive: () => void): void {
    const { way, time } = this.#from
    this.#lastAt = Math.max(this.#lastAt, time.now() + way.latencyMs(this.#from, this.#to) + way.lossMs(this.#from))
    time.setTimer(this.#lastAt - time.now(), () => {
      // Who has crashed neither sends nor hears.
      if (this.#from.up && this.#to.up) arrive()
    })
  }

  take(bytes: Uint8Array): void {
    if (this.#over !== undefined) return
    const first = this.onFirst
    this.onFirst = undefined
    first?.()
    if (this.#deaf) return
    if (this.#reader === undefined) this.#chunks.push(bytes)
    else {
      this.#reader.resolve(bytes)
      this.#reader = undefined
    }
  }

  takeFin(): void {
    this.#finRead = true
    this.#reader?.resolve(null)
    this.#reader = undefined
    this.#settle()
  }

  #settle(): void {
    if (this.#finSent && this.#finRead) this.end({ by: 'local', code: 0 })
  }

  end(info: CloseInfo): void {
    if (this.#over !== undefined) return
    this.#over = info
    if (info.reason !== undefined) this.#chunks = []
    if (info.reason !== undefined) this.#reader?.reject(info.reason)
    else this.#reader?.resolve(null)
    this.#reader = undefined
    this.#closed.resolve(info)
  }
}

class LightConnection implements Connection {
  readonly id = ''
  readonly transport = 'light'
  readonly security = ''
  readonly muxer = ''
  readonly limited = undefined
  readonly rttMs = undefined
  readonly bytesIn = 0
  readonly bytesOut = 0
  readonly streams = []
  readonly agent = undefined
  readonly direction: 'inbound' | 'outbound'
  readonly openedAt: number
  readonly localAddr: Multiaddr
  readonly remoteAddr: Multiaddr
  readonly local: LightHost
  readonly remote: LightHost
  usedAt: number
  protocols: readonly string[] | undefined
  other: LightConnection | undefined
  readonly #closed = deferred<CloseInfo>()

  constructor(local: LightHost, remote: LightHost, direction: 'inbound' | 'outbound') {
    this.local = local
    this.remote = remote
    this.direction = direction
    this.localAddr = local.addr
    this.remoteAddr = remote.addr
    this.openedAt = local.env.clock.wallTime()
    this.usedAt = local.env.clock.now()
  }

  get peer(): PeerId {
    return this.remote.peerId
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  newStream(protocols: ConnectionProtocols): Promise<ProtocolStream> {
    const protocol = [protocols].flat().find((id) => typeof id === 'string') ?? ''
    const { local, remote } = this
    this.usedAt = local.env.clock.now()
    const ours = new LightStream(protocol, 'outbound', local, remote)
    const theirs = new LightStream(protocol, 'inbound', remote, local)
    LightStream.join(ours, theirs)
    theirs.onFirst = () => {
      if (this.other !== undefined) this.other.usedAt = this.usedAt
      remote.accept(theirs, this.other as LightConnection)
    }
    return Promise.resolve(ours)
  }

  close(): Promise<void> {
    this.abort()
    return Promise.resolve()
  }

  abort(): void {
    const { local, remote, other } = this
    local.dropped(this)
    this.#closed.resolve({ by: 'local', code: 0 })
    local.time.setTimer(local.way.latencyMs(local, remote), () => {
      if (other !== undefined && local.up) remote.dropped(other)
    })
  }
}

export class LightHost implements KadHost {
  readonly index: number
  readonly peerId: PeerId
  readonly env: Env
  readonly time: VirtualTime
  readonly way: Way
  readonly book: AddressBook
  readonly random: Random
  readonly addr: Multiaddr
  /** False: it has crashed. Its peers find out by themselves. */
  up = true
  #reachability: Reachability = 'public'
  readonly #max: number
  readonly #handlers = new Map<string, StreamHandler>()
  readonly #connections = new Map<string, LightConnection>()
  readonly #listeners = new Map<string, Set<(detail: never) => void>>()
  readonly #failedUntil = new Map<string, number>()
  readonly #dialling = new Map<string, Promise<Connection>>()

  constructor({ seed, index, time, way, addr, identity, maxConnections = 200 }: LightOptions) {
    // Nothing is signed here: an id is enough, and costs no key.
    const id = identity ?? somePeer(index, seed)
    this.index = index
    this.peerId = id
    this.time = time
    this.way = way
    this.env = time.env(seed * 65_537 + index)
    this.random = this.env.random
    this.book = new AddressBook({ publicKey: { peerId: id } } as PrivateKey, { env: this.env })
    this.addr = multiaddr(addr)
    this.#max = maxConnections
  }

  get reachability(): Reachability {
    return this.#reachability
  }

  set reachability(reachability: Reachability) {
    this.#reachability = reachability
    this.#emit('reachability', reachability)
  }

  addrs(): Multiaddr[] {
    return [this.addr.withPeer(this.peerId)]
  }

  handle(protocol: string | readonly string[], handler: StreamHandler): void {
    for (const id of [protocol].flat()) this.#handlers.set(id, handler)
    this.#announce()
  }

  unhandle(protocol: string | readonly string[]): void {
    for (const id of [protocol].flat()) this.#handlers.delete(id)
    this.#announce()
  }

  /** Identify push: all who are connected hear of it. */
  #announce(): void {
    for (const { other } of this.#connections.values()) if (other !== undefined) this.#identify(other)
  }

  /** `theirs` is the remote end of a connection of ours. */
  #identify(theirs: LightConnection): void {
    const ms = this.way.latencyMs(this, theirs.local)
    const protocols = [...this.#handlers.keys()]
    this.time.setTimer(ms, () => {
      if (!this.up || !theirs.local.#holds(theirs)) return
      theirs.protocols = protocols
      theirs.local.book.add(this.peerId, [this.addr], { source: 'identify' })
      theirs.local.#emit('peer:identify', { peer: this.peerId, connection: theirs })
    })
  }

  accept(stream: ProtocolStream, connection: LightConnection): void {
    const handler = this.#handlers.get(stream.protocol)
    if (handler === undefined) {
      stream.reset(0, new UnavailableError('no-protocol', `${this.peerId} does not speak ${stream.protocol}`))
      return
    }
    const { signal } = new AbortController()
    const work = async (): Promise<void> => handler(stream, { connection, protocol: stream.protocol, signal })
    work().catch((error: unknown) => stream.reset(0, asError(error)))
  }

  async newStream(
    to: PeerId | Multiaddr | string,
    protocols: ConnectionProtocols,
    options?: NewStreamOptions,
  ): Promise<ProtocolStream> {
    return (await this.dial(to, options)).newStream(protocols, options)
  }

  dial(to: DialTarget, { signal, timeoutMs = 15_000 }: { signal?: AbortSignal; timeoutMs?: number } = {}) {
    const targets = (Array.isArray(to) ? to : [to]) as (Multiaddr | string)[]
    const text = targets.map(String).join()
    let work = this.#dialling.get(text)
    if (work === undefined) {
      work = this.#dial(targets.map(multiaddr), timeoutMs).finally(() => this.#dialling.delete(text))
      work.catch(() => {})
      this.#dialling.set(text, work)
    }
    return raceAbort(work, signal)
  }

  async #dial(targets: Multiaddr[], timeoutMs: number): Promise<Connection> {
    const wanted = targets[0]?.peerId()
    const open = wanted && this.#connections.get(wanted.toString())
    if (open !== undefined) return open
    const now = this.env.clock.now()
    const text = targets.map(String).join()
    // As the dialler does: who did not answer a moment ago does not now.
    if (now < (this.#failedUntil.get(text) ?? 0))
      throw new UnavailableError('unreachable', `${text}: not again so soon`)
    this.way.dialled()
    for (const target of targets) {
      const remote = this.way.at(target.withoutPeer().toString())
      if (remote === undefined || !remote.up) continue
      // TCP, then Noise and the muxer.
      await sleep(this.env, 4 * this.way.latencyMs(this, remote) + this.way.lossMs(this), undefined)
      if (!remote.up || !this.up) continue
      if (wanted?.equals(remote.peerId) === false) continue
      return this.join(remote)
    }
    // A firewall or nobody: no answer comes at all.
    await sleep(this.env, timeoutMs, undefined)
    if (this.#failedUntil.size > 2_000) this.#failedUntil.clear()
    this.#failedUntil.set(text, this.env.clock.now() + 60_000)
    throw new TimeoutError(`dialling ${targets.join(', ')}`, timeoutMs)
  }

  /** A connection at once. */
  join(remote: LightHost): LightConnection {
    const known = this.#connections.get(remote.peerId.toString())
    if (known !== undefined) return known
    const ours = new LightConnection(this, remote, 'outbound')
    const theirs = new LightConnection(remote, this, 'inbound')
    ours.other = theirs
    theirs.other = ours
    this.book.add(remote.peerId, [remote.addr], { source: 'dial' })
    this.#opened(ours)
    remote.#opened(theirs)
    this.#identify(theirs)
    remote.#identify(ours)
    return ours
  }

  #holds(connection: LightConnection): boolean {
    return this.#connections.get(connection.peer.toString()) === connection
  }

  #opened(connection: LightConnection): void {
    this.#connections.set(connection.peer.toString(), connection)
    this.book.connected(connection.peer)
    this.#emit('peer:connect', connection.peer)
    if (this.#connections.size <= this.#max) return
    let oldest: LightConnection | undefined
    for (const each of this.#connections.values()) {
      if (each !== connection && (oldest === undefined || each.usedAt < oldest.usedAt)) oldest = each
    }
    oldest?.abort()
  }

  dropped(connection: LightConnection): void {
    if (!this.#holds(connection)) return
    this.#connections.delete(connection.peer.toString())
    this.book.disconnected(connection.peer)
    this.#emit('peer:disconnect', connection.peer)
  }

  hangUp(peer: PeerId | Multiaddr | string): Promise<void> {
    this.#connections.get(String(peer))?.abort()
    return Promise.resolve()
  }

  connections(peer?: PeerId): readonly Connection[] {
    if (peer === undefined) return [...this.#connections.values()]
    const one = this.#connections.get(peer.toString())
    return one === undefined ? [] : [one]
  }

  on<K extends keyof HostEvents>(event: K, listener: (detail: HostEvents[K]) => void): () => void {
    const all = this.#listeners.get(event) ?? new Set()
    this.#listeners.set(event, all)
    all.add(listener)
    return () => void all.delete(listener)
  }

  #emit<K extends keyof HostEvents>(event: K, detail: HostEvents[K]): void {
    for (const listener of this.#listeners.get(event) ?? []) (listener as (detail: HostEvents[K]) => void)(detail)
  }

  addPeerRouting(): () => void {
    return () => {}
  }

  /** Without a word: keepalive tells its peers half a minute later. */
  crash(): void {
    this.up = false
    for (const { other } of this.#connections.values()) {
      if (other !== undefined) this.time.setTimer(30_000, () => other.local.dropped(other))
    }
    this.#connections.clear()
  }

  /** How long what we heard of a peer stays: for seeding. */
  learn(other: LightHost): void {
    this.book.add(other.peerId, [other.addr], { source: 'kad', ttlMs: addressTtlMs.told })
  }
}
