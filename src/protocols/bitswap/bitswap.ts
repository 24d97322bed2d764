/*
 * Bitswap 1.2.0, 1.1.0, 1.0.0 (ipfs/specs bitswap-protocol.md) over a Host and a Blockstore: asks peers for blocks and
 * serves those that the store has. Wants and answers go on two streams of our own per peer; the peer's come on its own.
 * The store is not asked before the network, and received blocks are not put into it: the caller composes.
 */
import { CID } from 'multiformats/cid'
import { platformCrypto } from '#crypto'
import type { Timer } from '../../env.ts'
import { ClosedError, ProtocolError, TimeoutError, UnavailableError, asError, type Attempt } from '../../errors.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { messageBytes } from '../../limits.ts'
import type { PeerId } from '../../peer/id.ts'
import type { Blockstore } from '../../store/blocks.ts'
import { getMany, type GetManyOptions, type FetchedBlock } from './get-many.ts'
import { Responder, newLedger, type Ledger, type Lookup, type ResponderOptions } from './ledger.ts'
import { Outbound, readFrames, type LinkOptions } from './link.ts'
import { Fetcher, type FetchEvent, type FetchOptions, type Session } from './session.ts'
import { decodeMessage, encodeMessage, keyOf, protocolIds } from './wire.ts'

/** What serving needs of a store. `size`, in bytes, lets small blocks go out at once where a peer asks whether we have them. */
export type BlockSource = Pick<Blockstore, 'has' | 'get'> & { size?(cid: CID): Promise<number | undefined> }

export interface BitswapOptions extends FetchOptions, ResponderOptions, Partial<LinkOptions> {
  /** For one block, unless the call says otherwise: 30 s. */
  timeoutMs?: number
  /** For the rest of a message that began to arrive: 30 s. */
  frameTimeoutMs?: number
  /** Streams that a peer may have open with us on one connection: 32 (boxo opens one per answer, eight at a time). */
  inboundStreams?: number
  /** A peer that asks whether we have a block of up to this many bytes gets the block: 1,024 (boxo). */
  replaceHaveBytes?: number
  /** Digests by multihash code, besides sha2-256 and sha2-512. */
  hashers?: ReadonlyMap<number, (data: Uint8Array) => Uint8Array>
}

const defaults = {
  timeoutMs: 30_000,
  openTimeoutMs: 10_000,
  sendTimeoutMs: 30_000,
  frameTimeoutMs: 30_000,
  inboundStreams: 32,
  replaceHaveBytes: 1024,
  limited: false,
}

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
  start(): void
  /** Every request rejects with ClosedError `stopped`. Resolves when nothing is left running. */
  stop(): Promise<void>
  /**
   * The block, checked against its CID and not to be changed. Rejects with UnavailableError (`not-found` when all peers
   * were asked, `unreachable` when none could be, `unsupported` for an unknown hash), TimeoutError, ClosedError or
   * signal.reason. The bytes of an identity CID come out of the CID.
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

interface Link {
  readonly peer: PeerId
  readonly id: string
  wants: Outbound
  replies: Outbound
  ledger: Ledger
  connecting: boolean
  sendingWants: boolean
  sendingReplies: boolean
  readonly inbound: Set<ProtocolStream>
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
  readonly #blocks: BlockSource
  readonly #options: BitswapOptions & typeof defaults
  readonly #hashers: Map<number, (data: Uint8Array) => Uint8Array>
  readonly #fetcher: Fetcher
  readonly #responder: Responder
  readonly #links = new Map<string, Link>()
  readonly #requests = new Map<string, Request>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #undo: (() => void)[] = []
  #state: 'new' | 'started' | 'stopped' = 'new'
  #stopping = new AbortController()
  #timer: Timer | undefined
  #timerAt = Infinity
  #draining = false
  #scheduled = new Set<Link>()

  constructor(host: Host, blocks: BlockSource, options: BitswapOptions) {
    this.#host = host
    this.#blocks = blocks
    this.#options = { ...defaults, ...options }
    this.#hashers = new Map([
      [0x12, (data) => platformCrypto.sha256(data)],
      [0x13, (data) => platformCrypto.sha512(data)],
      ...(options.hashers ?? []),
    ])
    const { peerTimeoutMs, peerWindow, peerWindowBytes, broadcast, peerHaves, banMs } = options
    const hash = (code: number, data: Uint8Array): Uint8Array | undefined => this.#hashers.get(code)?.(data)
    const ledger = (id: string): Ledger => this.#links.get(id)?.ledger ?? newLedger()
    this.#fetcher = new Fetcher(
      hash,
      ledger,
      given({ peerTimeoutMs, peerWindow, peerWindowBytes, broadcast, peerHaves, banMs }),
    )
    const { wantlistEntries, outstandingBytes, totalOutstandingBytes, lookups, messageBytes } = options
    this.#responder = new Responder(
      given({ wantlistEntries, outstandingBytes, totalOutstandingBytes, lookups, messageBytes }),
    )
  }

  get #now(): number {
    return this.#host.env.clock.now()
  }

  start(): void {
    if (this.#state !== 'new') throw new TypeError(`bitswap is ${this.#state}`)
    this.#state = 'started'
    const { limited, inboundStreams: maxInboundStreams } = this.#options
    this.#host.handle(protocolIds, (stream, { connection }) => this.#inbound(stream, connection), {
      limited,
      maxInboundStreams,
    })
    this.#undo.push(
      () => this.#host.unhandle(protocolIds),
      this.#host.on('peer:disconnect', (peer) => this.#disconnected(peer)),
      this.#host.on('peer:identify', ({ peer, connection }) => {
        if (speaksBitswap(connection)) this.#arrived(peer)
      }),
    )
  }

  async stop(): Promise<void> {
    if (this.#state === 'started') for (const undo of this.#undo.splice(0)) undo()
    this.#state = 'stopped'
    const stopped = (): ClosedError => new ClosedError('bitswap is stopped', { by: 'local', code: 0 }, 'stopped')
    this.#stopping.abort(stopped())
    for (const key of this.#requests.keys()) this.#settle(key, (waiter) => waiter.reject(stopped()))
    this.#timer?.cancel()
    this.#timer = undefined
    for (const link of this.#links.values()) {
      this.#responder.disconnect(link.id)
      this.#closeLink(link)
    }
    this.#links.clear()
    await Promise.all(this.#tasks)
  }

  get(cid: CID, options: GetOptions & SessionOptions = {}): Promise<Uint8Array> {
    return this.#fetch(cid, new Map(), options.peers, options)
  }

  session({ peers, signal, timeoutMs }: SessionOptions = {}): BitswapSession {
    const session: Session = new Map()
    const end = new AbortController()
    const ends = signal === undefined ? end.signal : AbortSignal.any([signal, end.signal])
    let asked = peers
    const get = (cid: CID, options: GetOptions = {}): Promise<Uint8Array> =>
      this.#fetch(cid, session, asked, {
        ...(timeoutMs !== undefined && { timeoutMs }),
        ...options,
        signal: options.signal === undefined ? ends : AbortSignal.any([ends, options.signal]),
      })
    return {
      get,
      getMany: (cids, options) => getMany(get, cids, options),
      addPeers: (more) => {
        asked = [...(asked ?? []), ...more]
        for (const [key, { cid }] of this.#requests) {
          if (this.#fetcher.sessionOf(key) === session) this.#ask(key, cid, session, more)
        }
      },
      close: () => end.abort(new ClosedError('session closed', { by: 'local', code: 0 })),
    }
  }

  #fetch(
    cid: CID,
    session: Session,
    peers: readonly PeerId[] | undefined,
    { signal, timeoutMs = this.#options.timeoutMs }: GetOptions,
  ): Promise<Uint8Array> {
    const { code, digest, bytes: multihash } = cid.multihash
    if (code === 0) return Promise.resolve(digest)
    const refused = this.#refusal(cid)
    if (refused !== undefined) return Promise.reject(refused)
    if (signal?.aborted === true) return Promise.reject(asError(signal.reason))
    const asked = (peers ?? this.#connected()).filter((peer) => !peer.equals(this.#host.peerId))
    if (asked.length === 0) {
      return Promise.reject(new UnavailableError('unreachable', `no peer to ask for ${cid.toString()}`))
    }
    // A digest of text is what every Map here is keyed by.
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
          this.#fetcher.cancel(key, this.#now)
          this.#drain()
        },
      }
      const abort = (): void => waiter.reject(asError(signal?.reason))
      const timer = this.#host.env.clock.setTimer(timeoutMs, () =>
        waiter.reject(new TimeoutError(`fetching block ${cid.toString()}`, timeoutMs)),
      )
      signal?.addEventListener('abort', abort, { once: true })
      waiters.add(waiter)
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
    const ids = peers.map((peer) => this.#link(peer).id)
    this.#fetcher.want(key, cid.bytes, session, ids, this.#now)
    this.#drain()
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
    this.#responder.notify(Array.from(cids, (cid) => keyOf(cid.multihash.bytes)))
    this.#lookUp()
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
    return Array.from(this.#links.values(), ({ id, ledger }) => ({ peer: id, ...ledger }))
  }

  stats(): BitswapStats {
    return {
      wants: this.#fetcher.size,
      peerWants: this.#responder.wants,
      outstandingBytes: this.#responder.outstandingBytes,
      peers: this.#links.size,
    }
  }

  #settle(key: string, each: (waiter: Waiter) => void): void {
    for (const waiter of this.#requests.get(key)?.waiters ?? []) each(waiter)
  }

  #link(peer: PeerId): Link {
    const id = peer.toString()
    let link = this.#links.get(id)
    if (link === undefined) {
      const { openTimeoutMs, sendTimeoutMs, limited } = this.#options
      const options = { openTimeoutMs, sendTimeoutMs, limited }
      link = {
        peer,
        id,
        wants: new Outbound(this.#host, peer, options, () => {
          // Wants may have been lost with it.
          this.#fetcher.resync(id)
          this.#drain()
        }),
        replies: new Outbound(this.#host, peer, options),
        ledger: newLedger(),
        connecting: false,
        sendingWants: false,
        sendingReplies: false,
        inbound: new Set(),
      }
      this.#links.set(id, link)
    }
    return link
  }

  #closeLink(link: Link): void {
    link.wants.close()
    link.replies.close()
    for (const stream of link.inbound) stream.reset()
    link.inbound.clear()
  }

  #arrived(peer: PeerId): void {
    for (const [key, { open, cid }] of this.#requests) if (open !== undefined) this.#ask(key, cid, open, [peer])
  }

  #disconnected(peer: PeerId): void {
    const id = peer.toString()
    const link = this.#links.get(id)
    if (link === undefined) return
    this.#links.delete(id)
    this.#responder.disconnect(id)
    this.#closeLink(link)
    // Asks for a new connection, and thereby for a new link, while blocks are wanted from this peer alone.
    this.#fetcher.gone(id, 'connection lost', true, this.#now)
    this.#drain(peer)
  }

  #run(task: Promise<void>): void {
    const done = task
      .catch((error: unknown) => this.#host.env.trace?.('bitswap.error', { error: asError(error) }))
      .finally(() => this.#tasks.delete(done))
    this.#tasks.add(done)
  }

  /** Carries out what the machines want. */
  #drain(lost?: PeerId): void {
    if (this.#draining || this.#state !== 'started') return
    this.#draining = true
    for (let event = this.#fetcher.next(); event !== undefined; event = this.#fetcher.next()) this.#event(event, lost)
    this.#draining = false
    const { deadline } = this.#fetcher
    if (deadline >= this.#timerAt) return
    this.#timer?.cancel()
    this.#timerAt = deadline
    this.#timer = this.#host.env.clock.setTimer(deadline - this.#now, () => {
      this.#timerAt = Infinity
      this.#timer = undefined
      if (this.#now >= this.#fetcher.deadline) this.#fetcher.tick(this.#now)
      this.#drain()
    })
  }

  #event(event: FetchEvent, lost: PeerId | undefined): void {
    switch (event.type) {
      case 'connect': {
        const link = this.#links.get(event.peer) ?? (lost?.toString() === event.peer ? this.#link(lost) : undefined)
        if (link !== undefined) this.#run(this.#connect(link))
        break
      }
      case 'send': {
        const link = this.#links.get(event.peer)
        if (link !== undefined) this.#schedule(link)
        break
      }
      case 'block': {
        const data = owned(event.data)
        const waiters = this.#requests.get(event.key)?.waiters ?? []
        this.#requests.delete(event.key)
        for (const waiter of waiters) waiter.resolve(data)
        break
      }
      case 'unavailable':
        this.#unavailable(event.key, event.tried, event.reached)
        break
      case 'violation': {
        const link = this.#links.get(event.peer)
        if (link !== undefined) this.#violated(link, event.error)
        break
      }
    }
  }

  #unavailable(key: string, tried: Attempt[], reached: boolean): void {
    const request = this.#requests.get(key)
    if (request === undefined) return
    this.#requests.delete(key)
    const cid = request.cid.toString()
    const error = reached
      ? new UnavailableError('not-found', `no peer has block ${cid}`, tried)
      : new UnavailableError('unreachable', `no peer to be reached for block ${cid}`, tried)
    for (const waiter of request.waiters) waiter.reject(error)
  }

  #violated(link: Link, error: ProtocolError): void {
    link.ledger.violation = error.message
    this.#host.env.trace?.('bitswap.violation', { peer: link.id, error })
    this.#responder.disconnect(link.id)
    for (const stream of link.inbound) stream.reset(error.wireCode, error)
    link.inbound.clear()
  }

  async #connect(link: Link): Promise<void> {
    if (link.connecting) return
    link.connecting = true
    try {
      const version = await link.wants.ensure()
      this.#fetcher.ready(link.id, version === '1.2', this.#now)
    } catch (error) {
      this.#lost(link, asError(error).message)
    } finally {
      link.connecting = false
    }
    this.#drain()
  }

  #lost(link: Link, reason: string): void {
    if (this.#links.get(link.id) !== link) return
    this.#fetcher.gone(link.id, reason, false, this.#now)
    if (this.#host.connections(link.peer).length > 0) return
    this.#links.delete(link.id)
    this.#responder.disconnect(link.id)
    this.#closeLink(link)
  }

  /** Wants of one turn of the event loop share a message. */
  #schedule(link: Link): void {
    if (this.#scheduled.size === 0) {
      this.#host.env.turn(() => {
        const links = [...this.#scheduled]
        this.#scheduled.clear()
        for (const each of links) if (this.#links.get(each.id) === each) this.#run(this.#sendWants(each))
      })
    }
    this.#scheduled.add(link)
  }

  async #sendWants(link: Link): Promise<void> {
    if (link.sendingWants) return
    link.sendingWants = true
    let again = true
    try {
      for (let m = this.#fetcher.transmit(link.id); m !== undefined; m = this.#fetcher.transmit(link.id)) {
        const message = m
        try {
          await link.wants.send((version) => encodeMessage(message, version))
          again = true
        } catch (error) {
          // The peer may have let go of an idle stream: once more on a fresh one.
          if (!again || this.#links.get(link.id) !== link) throw error
          again = false
          this.#fetcher.resync(link.id)
        }
      }
    } catch (error) {
      this.#lost(link, asError(error).message)
    } finally {
      link.sendingWants = false
    }
    this.#drain()
  }

  async #inbound(stream: ProtocolStream, connection: Connection): Promise<void> {
    const link = this.#link(connection.peer)
    link.inbound.add(stream)
    try {
      // Nothing is ever answered on the peer's stream.
      await stream.closeWrite()
      const limits = { maxBytes: messageBytes, frameTimeoutMs: this.#options.frameTimeoutMs }
      await readFrames(stream, this.#host, limits, (frame) => this.#receive(link, frame))
    } catch (error) {
      if (error instanceof ProtocolError) {
        link.ledger.violation = error.message
        this.#host.env.trace?.('bitswap.bad-message', { peer: link.id, error })
        stream.reset(error.wireCode, error)
      } else {
        this.#host.env.trace?.('bitswap.stream-lost', { peer: link.id, error: asError(error) })
        stream.reset()
      }
    } finally {
      link.inbound.delete(stream)
    }
  }

  #receive(link: Link, frame: Uint8Array): void {
    if (this.#links.get(link.id) !== link) return
    const message = decodeMessage(frame)
    this.#fetcher.receive(link.id, message, this.#now)
    this.#responder.receive(link.id, link.ledger, message)
    this.#drain()
    this.#lookUp()
  }

  #lookUp(): void {
    if (this.#state !== 'started') return
    for (let l = this.#responder.nextLookup(); l !== undefined; l = this.#responder.nextLookup()) {
      this.#run(this.#answer(l))
    }
  }

  async #answer(lookup: Lookup): Promise<void> {
    let answer: Uint8Array | boolean = false
    try {
      answer = await this.#find(lookup)
    } catch (error) {
      // A block that cannot be read, or is not what it should be, is not had.
      this.#host.env.trace?.('bitswap.store-error', { peer: lookup.peer, error: asError(error) })
    }
    this.#responder.loaded(lookup, answer)
    const link = this.#links.get(lookup.peer)
    if (link !== undefined && this.#responder.pending(link.id)) this.#run(this.#sendReplies(link))
    this.#lookUp()
  }

  async #find({ cid: bytes, type }: Lookup): Promise<Uint8Array | boolean> {
    const cid = CID.decode(bytes)
    const { signal } = this.#stopping
    if (type === 'have') {
      if (this.#blocks.size === undefined) return this.#blocks.has(cid, { signal })
      const size = await this.#blocks.size(cid)
      if (size === undefined) return false
      if (size > this.#options.replaceHaveBytes) return true
    }
    return (await this.#blocks.get(cid, { signal })) ?? false
  }

  async #sendReplies(link: Link): Promise<void> {
    if (link.sendingReplies) return
    link.sendingReplies = true
    try {
      for (let r = this.#responder.transmit(link.id); r !== undefined; r = this.#responder.transmit(link.id)) {
        const reply = r
        await link.replies
          .send((version) => encodeMessage(reply.message, version))
          .catch((error: unknown) => {
            if (this.#links.get(link.id) !== link || this.#host.connections(link.peer).length === 0) throw error
            return link.replies.send((version) => encodeMessage(reply.message, version))
          })
        this.#responder.sent(reply)
        this.#lookUp()
      }
    } catch (error) {
      // Whom we cannot answer, we owe nothing.
      this.#host.env.trace?.('bitswap.reply-lost', { peer: link.id, error: asError(error) })
      this.#responder.disconnect(link.id)
    } finally {
      link.sendingReplies = false
    }
  }
}

function speaksBitswap(connection: Connection): boolean {
  return connection.protocols?.some((id) => (protocolIds as readonly string[]).includes(id)) ?? false
}

/** A block keeps no more foreign bytes alive than it has itself. */
function owned(data: Uint8Array): Uint8Array {
  return 2 * data.length < data.buffer.byteLength ? data.slice() : data
}

/** Without the keys that are undefined, so that defaults hold. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

export function createBitswap({
  host,
  blocks,
  ...options
}: { host: Host; blocks: BlockSource } & BitswapOptions): Bitswap {
  return new Adapter(host, blocks, options)
}
