/*
 * What stands at the end of the upgrade: a Connection whose streams are negotiated.
 * Optimistic opening: when identify announced a protocol, or our caller says so, header, proposal and first data leave
 * as one write.
 */
import { codeOfStream, codeText, streamCode } from '../close-codes.ts'
import { guard } from '../deadline.ts'
import { ClosedError, LimitError, UnavailableError, asError, type Attempt, type CloseInfo } from '../errors.ts'
import type { Env, Trace } from '../env.ts'
import { serves, type Handler, type Handlers } from './handlers.ts'
import type { Connection, ConnectionProtocols, NewStreamOptions, ProtocolStream, StreamContext } from '../host.ts'
import { iterate } from '../inbox.ts'
import type { Multiaddr } from '../multiaddr.ts'
import type { PeerId } from '../peer/id.ts'
import { answer, confirm, select, type Selected } from '../protocols/multistream/multistream.ts'
import { agreement } from '../protocols/multistream/wire.ts'
import type { Muxer, Stream } from '../stream.ts'
import type { TransportConnection } from '../transport/transport.ts'
import type { Upgraded } from './upgrade.ts'

const nothing: readonly Attempt[] = Object.freeze([])

/** A muxer's stream under its protocol; on an optimistic open it still owes the peer its hello, or has the reply to read. */
class NegotiatedStream implements ProtocolStream {
  readonly protocol: string
  readonly direction: 'inbound' | 'outbound'
  readonly tried: readonly Attempt[]
  readonly #stream: Stream
  #rest: Uint8Array | undefined
  #hello: Uint8Array | undefined
  /** How long the first read waits for the reply, which has not come yet. */
  #replyDue: { env: Env; timeoutMs: number } | undefined
  #replied: Promise<void> | undefined
  #discards = false

  constructor(
    stream: Stream,
    direction: 'inbound' | 'outbound',
    { protocol, rest }: Selected,
    hello?: { bytes: Uint8Array; env: Env; timeoutMs: number },
    tried: readonly Attempt[] = nothing,
  ) {
    this.#stream = stream
    this.tried = tried
    this.direction = direction
    this.protocol = protocol
    this.#rest = rest
    this.#hello = hello?.bytes
    this.#replyDue = hello
  }

  get closed(): Promise<CloseInfo> {
    return this.#stream.closed
  }

  read(): Promise<Uint8Array | null> {
    const rest = this.#rest
    if (rest !== undefined) {
      this.#rest = undefined
      return Promise.resolve(rest)
    }
    if (this.#replyDue === undefined) return this.#stream.read()
    this.#replied ??= this.#readReply(this.#replyDue)
    return this.#replied.then(() => this.read())
  }

  async #readReply({ env, timeoutMs }: { env: Env; timeoutMs: number }): Promise<void> {
    const bound = { env, timeoutMs, what: `negotiating ${this.protocol}`, code: negotiationFailed }
    const reply = await guard(this.#stream, bound, async () => {
      if (this.#hello !== undefined) await this.write()
      return confirm(this.#stream, [this.protocol]).catch((error: unknown) => {
        if (!this.#discards) throw error
      })
    })
    this.#replyDue = undefined
    if (!this.#discards) this.#rest = reply?.rest
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    const hello = this.#hello
    if (hello === undefined) return this.#stream.write(...chunks)
    this.#hello = undefined
    return this.#stream.write(hello, ...chunks)
  }

  closeWrite(): Promise<void> {
    const whole = this.#hello === undefined && this.#replyDue === undefined
    return whole ? this.#stream.closeWrite() : this.#closeUnanswered()
  }

  /** Who only writes must take the answer all the same: unread it would hold the stream for as long as the connection. */
  async #closeUnanswered(): Promise<void> {
    if (this.#hello !== undefined) await this.write()
    await this.#stream.closeWrite()
    if (this.#replyDue === undefined) return
    this.#replied ??= this.#readReply(this.#replyDue)
    // Told by `closed`, and by the next read if there is one.
    this.#replied.catch(() => {})
  }

  closeRead(code?: number): void {
    this.#rest = undefined
    this.#replyDue = undefined
    this.#discards = true
    this.#stream.closeRead(code)
  }

  reset(code?: number, reason?: Error): void {
    this.#rest = undefined
    this.#stream.reset(code, reason)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

export interface ConnectionOptions {
  env: Env
  handlers: Pick<Handlers, 'find' | 'has'>
  /** For each stream's negotiation; go-libp2p 10 s. */
  negotiationTimeoutMs: number
}

const defaultMaxInboundStreams = 256
const negotiationFailed = streamCode.protocolNegotiationFailed

/** What a handler is told besides its stream. */
class Context implements StreamContext {
  readonly connection: Connection
  readonly protocol: string
  readonly #stream: Stream
  #controller: AbortController | undefined

  constructor(connection: Connection, stream: ProtocolStream) {
    this.connection = connection
    this.protocol = stream.protocol
    this.#stream = stream
  }

  // Few handlers look at it, and an AbortController costs more than the rest of the stream's bookkeeping.
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const made = new AbortController()
      this.#controller = made
      void this.#stream.closed.then((info) => made.abort(info.reason ?? new ClosedError('the stream is closed', info)))
    }
    return this.#controller.signal
  }
}

let connectionCount = 0

export class UpgradedConnection implements Connection {
  readonly id: string
  readonly direction: 'inbound' | 'outbound'
  readonly peer: PeerId
  readonly transport: string
  readonly security: string
  readonly muxer: string
  readonly openedAt: number
  /** What identify announced; identify sets it, each time anew. */
  protocols: readonly string[] | undefined
  agent: string | undefined
  /** The first identify, while it is under way: whoever needs what it brings waits for it. */
  identifying: Promise<unknown> | undefined
  readonly #muxer: Muxer
  readonly #carrier: TransportConnection
  readonly #options: ConnectionOptions
  readonly #streams = new Set<NegotiatedStream>()
  #streamCount = 0
  /** Counted by handler: a range serves more ids than anybody counts. */
  readonly #inboundOf = new Map<Handler, number>()

  constructor(
    upgraded: Upgraded,
    carrier: TransportConnection,
    direction: 'inbound' | 'outbound',
    transport: string,
    options: ConnectionOptions,
  ) {
    this.id = `c${++connectionCount}`
    this.direction = direction
    this.peer = upgraded.peer
    this.transport = transport
    this.security = upgraded.security
    this.muxer = upgraded.muxerId
    this.openedAt = options.env.clock.wallTime()
    this.#muxer = upgraded.muxer
    this.#carrier = carrier
    this.#options = options
  }

  get localAddr(): Multiaddr {
    return this.#carrier.localAddr
  }

  get remoteAddr(): Multiaddr {
    return this.#carrier.remoteAddr
  }

  get limited(): { bytes: number; untilMs: number } | undefined {
    return this.#carrier.limited
  }

  get rttMs(): number | undefined {
    return this.#muxer.rttMs
  }

  get bytesIn(): number {
    return this.#muxer.bytesIn
  }

  get bytesOut(): number {
    return this.#muxer.bytesOut
  }

  get streams(): readonly ProtocolStream[] {
    return [...this.#streams]
  }

  /** Streams there ever were: tells whether anything happened between two looks. */
  get streamCount(): number {
    return this.#streamCount
  }

  get closed(): Promise<CloseInfo> {
    return this.#muxer.closed
  }

  /** Serves the streams that the peer opens, until the connection ends. Never rejects. */
  async serve(): Promise<void> {
    for (;;) {
      const stream = await this.#muxer.accept()
      if (stream === null) return
      void this.#inbound(stream)
    }
  }

  newStream(protocols: ConnectionProtocols, options: NewStreamOptions = {}): Promise<ProtocolStream> {
    return typeof protocols === 'string' ? this.#open(protocols, options) : this.#openBest(protocols, options)
  }

  async #openBest(protocols: Exclude<ConnectionProtocols, string>, options: NewStreamOptions): Promise<ProtocolStream> {
    if (!('name' in protocols)) return this.#open(protocols, options)
    const { env, negotiationTimeoutMs: timeoutMs } = this.#options
    const { openChosen } = await import('./query.ts')
    return openChosen(this, protocols, { timeoutMs, ...options }, env, (ids, left, tried) =>
      this.#open(ids, left, tried),
    )
  }

  /** `tried`: what would have been better than all of `protocols`. */
  async #open(
    protocols: string | readonly string[],
    options: NewStreamOptions,
    tried?: readonly Attempt[],
  ): Promise<ProtocolStream> {
    const ids = typeof protocols === 'string' ? [protocols] : protocols
    const { signal, priority, timeoutMs = this.#options.negotiationTimeoutMs } = options
    signal?.throwIfAborted()
    if (this.limited !== undefined && options.limited !== true) {
      throw new UnavailableError(
        'refused',
        `the connection to ${this.peer} is relayed with a budget; open the stream with limited: true`,
      )
    }
    const stream = await this.#muxer.open({
      timeoutMs,
      ...(signal && { signal }),
      ...(priority !== undefined && { priority }),
    })
    const { env } = this.#options
    const announced = ids.find((id) => this.protocols?.includes(id))
    const known = announced ?? (options.optimistic === true ? ids[0] : undefined)
    if (known !== undefined) {
      const hello = { bytes: agreement(known).bytes, env, timeoutMs }
      const better = this.#better(ids, known, 'not announced by the peer', tried)
      return this.#track(new NegotiatedStream(stream, 'outbound', { protocol: known, rest: undefined }, hello, better))
    }
    const what = `negotiating ${ids.join(', ')} with ${this.peer}`
    const selected = await guard(stream, { env, timeoutMs, what, signal, code: negotiationFailed }, () =>
      select(stream, ids),
    )
    const better = this.#better(ids, selected.protocol, 'not supported by the peer', tried)
    return this.#track(new NegotiatedStream(stream, 'outbound', selected, undefined, better))
  }

  /** What we would have liked better than `protocol`: all that stand before it. */
  #better(
    ids: readonly string[],
    protocol: string,
    reason: string,
    tried: readonly Attempt[] = nothing,
  ): readonly Attempt[] {
    if (tried.length === 0 && ids[0] === protocol) return nothing
    const better = [...tried, ...ids.slice(0, ids.indexOf(protocol)).map((what) => ({ what, reason }))]
    const { peer, id } = this
    this.#options.env.trace?.('connection.fell-back', {
      peer: peer.toString(),
      connection: id,
      protocol,
      tried: better,
    })
    return better
  }

  #track(stream: NegotiatedStream, done?: () => void): NegotiatedStream {
    this.#streams.add(stream)
    this.#streamCount++
    void stream.closed.then(() => {
      this.#streams.delete(stream)
      done?.()
    })
    const { trace } = this.#options.env
    if (trace !== undefined) this.#traced(stream, trace)
    return stream
  }

  #traced(stream: NegotiatedStream, trace: Trace): void {
    const { protocol, direction } = stream
    const which = { connection: this.id, peer: this.peer, protocol, direction }
    trace('stream.opened', which)
    void stream.closed.then(({ by, code, reason }) => {
      if (code === 0 && reason === undefined) return
      trace('stream.reset', { ...which, by, code, text: codeText('stream', code), reason })
    })
  }

  async #inbound(stream: Stream): Promise<void> {
    const { env, negotiationTimeoutMs: timeoutMs, handlers } = this.#options
    try {
      const what = `negotiating a stream from ${this.peer}`
      const bound = { env, timeoutMs, what, code: negotiationFailed }
      const selected = await guard(stream, bound, () => answer(stream, this.#accepts, this.#remembers))
      const { protocol } = selected
      const entry = handlers.find(protocol)
      if (entry === undefined) throw new UnavailableError('no-protocol', `no handler for ${protocol} any more`)
      const open = this.#inboundOf.get(entry) ?? 0
      const max = entry.options.maxInboundStreams ?? defaultMaxInboundStreams
      if (open >= max) throw new LimitError('maxInboundStreams', max, open + 1)
      this.#inboundOf.set(entry, open + 1)
      const negotiated = this.#track(new NegotiatedStream(stream, 'inbound', selected), () => {
        const left = (this.#inboundOf.get(entry) ?? 1) - 1
        if (left > 0) this.#inboundOf.set(entry, left)
        else this.#inboundOf.delete(entry)
      })
      await entry.handler(negotiated, new Context(this, negotiated))
    } catch (error) {
      const reason = asError(error)
      stream.reset(codeOfStream(reason), reason)
      env.trace?.('connection.inbound-stream-failed', {
        peer: this.peer.toString(),
        connection: this.id,
        error: reason,
      })
    }
  }

  readonly #accepts = (protocol: string): boolean => {
    const entry = this.#options.handlers.find(protocol)
    if (entry === undefined) return false
    if (this.limited !== undefined && entry.options.limited !== true) return false
    return serves(entry.options, this.transport)
  }

  readonly #remembers = (protocol: string): boolean => this.#options.handlers.has(protocol)

  close(code?: number): Promise<void> {
    return this.#muxer.close(code)
  }

  abort(code?: number, reason?: Error): void {
    this.#muxer.abort(code, reason)
  }
}
