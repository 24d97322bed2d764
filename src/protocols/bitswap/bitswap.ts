/*
 * Bitswap 1.2.0, 1.1.0, 1.0.0 (ipfs/specs bitswap-protocol.md) over a Host and a Blockstore: asks peers for blocks and
 * serves those that the store has. Wants and answers go on two streams of our own per peer; the peer's come on its own.
 * The store is not asked before the network, and received blocks are not put into it: the caller composes.
 */
import { CID } from 'multiformats/cid'
import { leash } from '../../deadline.ts'
import { ClosedError, ProtocolError, TimeoutError, UnavailableError, asError, type Attempt } from '../../errors.ts'
import type { Connection, Host } from '../../host.ts'
import { hash, hashers } from '../../ipld/cid.ts'
import type { PeerId } from '../../peer/id.ts'
import { getMany, type FetchedBlock, type GetManyOptions } from './get-many.ts'
import { Responder, type Ledger, type ResponderOptions } from './ledger.ts'
import { Network, type BlockSource, type NetworkOptions } from './network.ts'
import { Fetcher, type FetchOptions, type Session } from './session.ts'
import { keyOf, protocolIds } from './wire.ts'

export type { BlockSource } from './network.ts'
export type { Ledger } from './ledger.ts'
export type { FetchedBlock, GetManyOptions } from './get-many.ts'

export interface BitswapOptions extends FetchOptions, ResponderOptions, Partial<NetworkOptions> {
  /** For one block, unless the call says otherwise: 30 s. */
  timeoutMs?: number
  /** Digests by multihash code, besides those of ipld/cid.ts when this is made. */
  hashers?: ReadonlyMap<number, (data: Uint8Array) => Uint8Array>
}

const defaults = {
  timeoutMs: 30_000,
  openTimeoutMs: 10_000,
  sendTimeoutMs: 30_000,
  frameTimeoutMs: 30_000,
  // boxo opens one per answer, eight at a time.
  inboundStreams: 32,
  // boxo
  replaceHaveBytes: 1024,
  limited: false as boolean,
} satisfies NetworkOptions & { timeoutMs: number }

/** Digests shorter than this are not worth a check (boxo verifcid). */
const smallestDigest = 20

export interface GetOptions {
  signal?: AbortSignal
  timeoutMs?: number
}

export interface SessionOptions {
  /** Whom to ask, the likeliest first; without: every connected peer that may speak Bitswap. */
  peers?: readonly PeerId[]
  /** Ends every request of the session. */
  signal?: AbortSignal
  /** Per block. */
  timeoutMs?: number
}

/** Requests that belong together: who had one block is asked first for the next. */
export interface BitswapSession {
  /** As Bitswap.get. */
  get(cid: CID, options?: GetOptions): Promise<Uint8Array>
  /** Many blocks at once, in the order of `cids` unless told. Draws from `cids` only as room allows. Ends at the first failure. */
  getMany(cids: Iterable<CID> | AsyncIterable<CID>, options?: GetManyOptions): AsyncIterable<FetchedBlock>
  /** Also ask these from now on, for what is under way too. */
  addPeers(peers: readonly PeerId[]): void
  /** Requests under way reject with ClosedError, later ones too. */
  close(): void
}

export interface Bitswap {
  /** Idempotent; a stopped one may be started again. */
  start(): void
  /** Every request rejects with ClosedError `stopped`. Resolves when nothing is left running. */
  stop(): Promise<void>
  /**
   * The block, checked against its CID and not to be changed. Rejects with UnavailableError (`not-found` when all peers
   * were asked, `unreachable` when none could be, `unsupported` for an unknown hash), TimeoutError, ClosedError or
   * signal.reason; or with ProtocolError (`bad-block` for one that does not match) where every peer broke the protocol.
   * The bytes of an identity CID come out of the CID.
   */
  get(cid: CID, options?: GetOptions & SessionOptions): Promise<Uint8Array>
  session(options?: SessionOptions): BitswapSession
  /** These blocks are in the store now: peers that wait for them get them. */
  notify(cids: Iterable<CID>): void
  /** Gives up a block for everybody who waits for it: they reject with ClosedError. */
  cancel(cid: CID): void
  /** What we want, or what `peer` wants from us. */
  wantlist(peer?: PeerId): CID[]
  /** The accounts of the peers we are connected to. */
  ledgers(): ({ peer: string } & Ledger)[]
  stats(): BitswapStats
}

export interface BitswapStats {
  /** Blocks that we want. */
  wants: number
  /** Wants of all peers with us. */
  peerWants: number
  /** Bytes read for peers and not yet taken by the wire. */
  outstandingBytes: number
  peers: number
}

/** Ends many requests with one listener: AbortSignal.any per block would cost more than the block. */
class Scope {
  readonly #signal: AbortSignal | undefined
  readonly #waiters = new Set<Waiter>()
  readonly #abort = (): void => {
    for (const waiter of this.#waiters) waiter.reject(asError(this.#signal?.reason))
  }

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal
  }

  get reason(): Error | undefined {
    return this.#signal?.aborted === true ? asError(this.#signal.reason) : undefined
  }

  add(waiter: Waiter): void {
    if (this.#waiters.size === 0) this.#signal?.addEventListener('abort', this.#abort)
    this.#waiters.add(waiter)
  }

  delete(waiter: Waiter): void {
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0) this.#signal?.removeEventListener('abort', this.#abort)
  }
}

interface Waiter {
  resolve(bytes: Uint8Array): void
  reject(error: Error): void
}

interface Request {
  readonly cid: CID
  readonly waiters: Set<Waiter>
  /** Peers that connect meanwhile are asked too. */
  open: Session | undefined
}

class Adapter implements Bitswap {
  readonly #host: Host
  readonly #options: BitswapOptions & typeof defaults
  readonly #hashers: Map<number, (data: Uint8Array) => Uint8Array>
  readonly #fetcher: Fetcher
  readonly #responder: Responder
  readonly #network: Network
  readonly #requests = new Map<string, Request>()
  #state: 'new' | 'started' | 'stopped' = 'new'
  #off: () => void = () => {}

  constructor(host: Host, blocks: BlockSource, options: BitswapOptions) {
    this.#host = host
    this.#options = { ...defaults, ...options }
    for (const name of ['timeoutMs', 'openTimeoutMs', 'sendTimeoutMs', 'frameTimeoutMs', 'inboundStreams'] as const) {
      if (!(this.#options[name] > 0)) throw new RangeError(`${name} is ${this.#options[name]}, want a number above 0`)
    }
    this.#hashers = new Map([...hashers, ...(options.hashers ?? [])])
    // An identity CID is its block: nobody is asked for it.
    this.#hashers.delete(hash.identity)
    const { peerTimeoutMs, peerWindow, peerWindowBytes, broadcast, peerHaves, banMs } = options
    const { wantlistEntries, outstandingBytes, totalOutstandingBytes, lookups, messageBytes } = options
    const asking = given({ peerTimeoutMs, peerWindow, peerWindowBytes, broadcast, peerHaves, banMs })
    this.#responder = new Responder(
      given({ wantlistEntries, outstandingBytes, totalOutstandingBytes, lookups, messageBytes }),
    )
    this.#fetcher = new Fetcher((code, data) => this.#hashers.get(code)?.(data), asking)
    const outcome = {
      block: (key: string, data: Uint8Array) => this.#block(key, data),
      unavailable: (key: string, tried: Attempt[], reached: boolean) => this.#unavailable(key, tried, reached),
    }
    this.#network = new Network(host, blocks, this.#options, this.#fetcher, this.#responder, outcome)
  }

  start(): void {
    if (this.#state === 'started') return
    this.#state = 'started'
    this.#network.start()
    this.#off = this.#host.on('peer:identify', ({ peer, connection }) => {
      if (speaksBitswap(connection)) this.#arrived(peer)
    })
  }

  async stop(): Promise<void> {
    if (this.#state === 'started') this.#off()
    this.#state = 'stopped'
    for (const key of this.#requests.keys()) this.#settle(key, (waiter) => waiter.reject(stopped()))
    await this.#network.stop(stopped())
  }

  get(cid: CID, options: GetOptions & SessionOptions = {}): Promise<Uint8Array> {
    return this.#fetch(cid, new Map(), new Scope(undefined), options.peers, options)
  }

  session({ peers, signal, timeoutMs }: SessionOptions = {}): BitswapSession {
    const session: Session = new Map()
    const own = leash(signal)
    const scope = new Scope(own.signal)
    let asked = peers
    const get = (cid: CID, options: GetOptions = {}): Promise<Uint8Array> =>
      this.#fetch(cid, session, scope, asked, timeoutMs === undefined ? options : { timeoutMs, ...options })
    return {
      get,
      getMany: (cids, options) => getMany(get, cids, options),
      addPeers: (more) => {
        asked = [...(asked ?? []), ...more]
        for (const [key, { cid }] of this.#requests) {
          if (this.#fetcher.sessionOf(key) === session) this.#ask(key, cid, session, more)
        }
      },
      close: () => own.end(new ClosedError('session closed', { by: 'local', code: 0 })),
    }
  }

  #fetch(
    cid: CID,
    session: Session,
    scope: Scope,
    peers: readonly PeerId[] | undefined,
    { signal, timeoutMs = this.#options.timeoutMs }: GetOptions,
  ): Promise<Uint8Array> {
    const { code, digest, bytes: multihash } = cid.multihash
    if (code === 0) return Promise.resolve(digest)
    const refused = this.#refusal(cid)
    if (refused !== undefined) return Promise.reject(refused)
    if (scope.reason !== undefined) return Promise.reject(scope.reason)
    if (signal?.aborted === true) return Promise.reject(asError(signal.reason))
    const asked = (peers ?? this.#connected()).filter((peer) => !peer.equals(this.#host.peerId))
    if (asked.length === 0) {
      return Promise.reject(new UnavailableError('unreachable', `no peer to ask for ${cid.toString()}`))
    }
    const key = keyOf(multihash)
    return new Promise((resolve, reject) => {
      let request = this.#requests.get(key)
      if (request === undefined) {
        request = { cid, waiters: new Set(), open: undefined }
        this.#requests.set(key, request)
      }
      if (peers === undefined) request.open ??= session
      const { waiters } = request
      const settle = (): void => {
        waiters.delete(waiter)
        scope.delete(waiter)
        timer.cancel()
        signal?.removeEventListener('abort', abort)
      }
      const waiter: Waiter = {
        resolve: (bytes) => {
          settle()
          resolve(bytes)
        },
        reject: (error) => {
          settle()
          reject(error)
          if (waiters.size > 0 || this.#requests.get(key) !== request) return
          this.#requests.delete(key)
          this.#network.cancel(key)
        },
      }
      const abort = (): void => waiter.reject(asError(signal?.reason))
      const timer = this.#host.env.clock.setTimer(timeoutMs, () =>
        waiter.reject(new TimeoutError(`fetching block ${cid.toString()}`, timeoutMs)),
      )
      signal?.addEventListener('abort', abort, { once: true })
      waiters.add(waiter)
      scope.add(waiter)
      this.#ask(key, cid, session, asked)
    })
  }

  #refusal(cid: CID): Error | undefined {
    const { code, digest } = cid.multihash
    if (this.#state !== 'started') {
      const why = this.#state === 'new' ? 'not-started' : 'stopped'
      return new ClosedError(`bitswap is ${why === 'stopped' ? why : 'not started'}`, { by: 'local', code: 0 }, why)
    }
    if (!this.#hashers.has(code)) {
      return new UnavailableError(
        'unsupported',
        `no hash function for multihash code 0x${code.toString(16)} of ${cid.toString()}`,
      )
    }
    if (digest.length < smallestDigest) {
      return new UnavailableError(
        'unsupported',
        `digest of ${digest.length} bytes in ${cid.toString()}, want at least ${smallestDigest}: too short to check a block`,
      )
    }
    return undefined
  }

  #ask(key: string, cid: CID, session: Session, peers: readonly PeerId[]): void {
    this.#network.want(key, cid.bytes, session, peers)
  }

  #connected(): PeerId[] {
    const peers = new Map<string, PeerId>()
    for (const c of this.#host.connections()) {
      const usable = c.limited === undefined || this.#options.limited
      if (usable && (c.protocols === undefined || speaksBitswap(c))) peers.set(c.peer.toString(), c.peer)
    }
    return [...peers.values()]
  }

  notify(cids: Iterable<CID>): void {
    this.#network.notify(Array.from(cids, (cid) => keyOf(cid.multihash.bytes)))
  }

  cancel(cid: CID): void {
    const cancelled = new ClosedError(`want of ${cid.toString()} cancelled`, { by: 'local', code: 0 })
    this.#settle(keyOf(cid.multihash.bytes), (waiter) => waiter.reject(cancelled))
  }

  wantlist(peer?: PeerId): CID[] {
    const bytes = peer === undefined ? this.#fetcher.wants() : this.#responder.wantsOf(peer.toString())
    return Array.from(bytes, (cid) => CID.decode(cid))
  }

  ledgers(): ({ peer: string } & Ledger)[] {
    return this.#network.ledgers()
  }

  stats(): BitswapStats {
    return {
      wants: this.#fetcher.size,
      peerWants: this.#responder.wants,
      outstandingBytes: this.#responder.outstandingBytes,
      peers: this.#network.peers,
    }
  }

  #settle(key: string, each: (waiter: Waiter) => void): void {
    for (const waiter of this.#requests.get(key)?.waiters ?? []) each(waiter)
  }

  #arrived(peer: PeerId): void {
    for (const [key, { open, cid }] of this.#requests) if (open !== undefined) this.#ask(key, cid, open, [peer])
  }

  #block(key: string, data: Uint8Array): void {
    const request = this.#requests.get(key)
    this.#requests.delete(key)
    for (const waiter of request?.waiters ?? []) waiter.resolve(data)
  }

  #unavailable(key: string, tried: Attempt[], reached: boolean): void {
    const request = this.#requests.get(key)
    if (request === undefined) return
    this.#requests.delete(key)
    const cid = request.cid.toString()
    // Where everybody asked lied, that is the answer: nobody said that it has nothing.
    const lies = tried.map(({ reason }) => (reason instanceof ProtocolError ? reason : undefined))
    const [lie] = lies
    const lied = (because: ProtocolError): ProtocolError => {
      const each = tried.map(({ what }, i) => `peer ${what} ${lies[i]?.message ?? ''}`)
      return new ProtocolError(because.code, `no peer gave block ${cid}: ${each.join('; ')}`, { cause: because })
    }
    const error =
      lie !== undefined && !lies.includes(undefined)
        ? lied(lie)
        : reached
          ? new UnavailableError('not-found', `no peer has block ${cid}`, tried)
          : new UnavailableError('unreachable', `no peer to be reached for block ${cid}`, tried)
    for (const waiter of request.waiters) waiter.reject(error)
  }
}

function stopped(): ClosedError {
  return new ClosedError('bitswap is stopped', { by: 'local', code: 0 }, 'stopped')
}

function speaksBitswap(connection: Connection): boolean {
  return connection.protocols?.some((id) => (protocolIds as readonly string[]).includes(id)) ?? false
}

/** Without the keys that are undefined, so that defaults hold. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

/**
 * Bitswap over `host`, serving what `blocks` has; nothing happens before start(). Throws RangeError on options that make
 * no sense.
 */
export function createBitswap({
  host,
  blocks,
  ...options
}: { host: Host; blocks: BlockSource } & BitswapOptions): Bitswap {
  return new Adapter(host, blocks, options)
}
