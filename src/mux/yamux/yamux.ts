/*
 * yamux/README.md r0 (libp2p specs), `/yamux/1.0.0`: the adapter. Runs the session in the call stack of the wire and
 * gives out Streams. Nothing here waits: promises are only made for those who asked to wait.
 */
import { codeOfStream, codeText, connectionCode, endError, streamCodeOf } from '../../close-codes.ts'
import {
  ClosedError,
  LimitError,
  ProtocolError,
  TimeoutError,
  UnavailableError,
  asError,
  type CloseInfo,
} from '../../errors.ts'
import type { Env, Timer } from '../../env.ts'
import { drive, type Drive } from '../../core.ts'
import { Inbox, cleanClose, deferred, iterate, type Deferred } from '../../inbox.ts'
import type { Muxer, Stream } from '../../stream.ts'
import type { Wire } from '../../wire.ts'
import type { Channel } from './channel.ts'
import { sessionOptions, type SessionOptions } from './options.ts'
import type { SessionEvent } from './events.ts'
import { Session } from './session.ts'

export const yamuxId = '/yamux/1.0.0'

export type YamuxOptions = SessionOptions

const done: Promise<void> = Promise.resolve()
const ignore = (): void => {}

/** Without ever becoming an unhandled rejection: a caller that does not look must not bring the process down. */
function rejectQuietly<T>(waiter: Deferred<T>, error: Error): Promise<T> {
  waiter.promise.catch(ignore)
  waiter.reject(error)
  return waiter.promise
}

function rejected<T>(error: Error): Promise<T> {
  return rejectQuietly(deferred<T>(), error)
}

/** Milliseconds that a connection which is cut off with a code may take to say so. */
const goodbyeMs = 1_000

/** What the peer did, with an error that says so in words; a connection may end cleanly. */
function remoteEnd(of: 'stream' | 'connection', code = 0): CloseInfo {
  const info: CloseInfo = { by: 'remote', code }
  return of === 'connection' && code === 0 ? info : { ...info, reason: endError(of, info) }
}

/** Why nothing goes over a connection any more. */
function closedBy(info: CloseInfo): Error {
  return info.reason instanceof ClosedError || info.by === 'local'
    ? (info.reason ?? endError('connection', info))
    : endError('connection', info)
}

interface Opener {
  waiter: Deferred<Stream>
  priority: number
  off(): void
}

/** What a stream needs of its muxer. */
interface Home {
  readonly session: Session<YamuxStream>
  /** Something in the session changed by a command. */
  changed(): void
}

class YamuxStream implements Stream {
  readonly #home: Home
  readonly channel: Channel<YamuxStream>
  readonly #inbox: Inbox
  #writers: Deferred<void>[] | undefined
  #finisher: Deferred<void> | undefined
  #info: CloseInfo | undefined
  #gone: Error | undefined
  #closed: Deferred<CloseInfo> | undefined

  constructor(home: Home, channel: Channel<YamuxStream>) {
    this.#home = home
    this.channel = channel
    this.#inbox = new Inbox((size) => {
      home.session.taken(channel, size)
      home.changed()
    })
    channel.owner = this
  }

  get closed(): Promise<CloseInfo> {
    if (this.#closed === undefined) {
      this.#closed = deferred()
      if (this.#info !== undefined) this.#closed.resolve(this.#info)
    }
    return this.#closed.promise
  }

  read(): Promise<Uint8Array | null> {
    return this.#inbox.read()
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    const { channel } = this
    if (this.#gone !== undefined) return rejected(this.#gone)
    if (channel.sending !== 'open') return rejected(new ClosedError('write after closeWrite', cleanClose))
    const more = this.#home.session.write(channel, chunks)
    this.#home.changed()
    if (more) return done
    const waiter = deferred<void>()
    this.#writers ??= []
    this.#writers.push(waiter)
    return waiter.promise
  }

  closeWrite(): Promise<void> {
    const { channel } = this
    if (this.#gone !== undefined || channel.sending === 'finished') return done
    this.#home.session.finish(channel)
    this.#home.changed()
    this.#finisher ??= deferred()
    return this.#finisher.promise
  }

  closeRead(): void {
    this.#home.session.discard(this.channel)
    this.#inbox.discard()
  }

  reset(given = 0, reason?: Error): void {
    if (this.#gone !== undefined) return
    const code = given >>> 0 || codeOfStream(reason)
    this.#home.session.reset(this.channel, code)
    this.lose({ by: 'local', code, ...(reason && { reason }) })
    this.#home.changed()
  }

  // What the muxer tells.

  arrived(bytes: Uint8Array): void {
    this.#inbox.push(bytes)
  }

  ended(): void {
    this.#inbox.end()
  }

  writable(): void {
    const writers = this.#writers
    this.#writers = undefined
    if (writers !== undefined) for (const writer of writers) writer.resolve()
  }

  finished(): void {
    this.#finisher?.resolve()
    this.#finisher = undefined
  }

  /** Both FINs are done. */
  settle(info: CloseInfo): void {
    if (this.#info !== undefined) return
    this.#info = info
    this.#closed?.resolve(info)
  }

  /** Reset, by whomever. What came in full before the peer's own FIN stays readable, unless we reset it ourselves. */
  lose(info: CloseInfo, keep = false): void {
    if (this.#gone !== undefined) return
    const { by, reason } = info
    const told = by === 'local' || reason instanceof ClosedError ? reason : undefined
    const error = told ?? endError('stream', info)
    this.#gone = error
    if (!keep || !this.#inbox.ended) this.#inbox.fail(error)
    if (this.#writers !== undefined) for (const writer of this.#writers) void rejectQuietly(writer, error)
    this.#writers = undefined
    if (this.#finisher !== undefined) void rejectQuietly(this.#finisher, error)
    this.#finisher = undefined
    this.settle(info)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

class Yamux implements Muxer, Home {
  readonly session: Session<YamuxStream>
  readonly #wire: Wire
  readonly #env: Env
  readonly #drive: Drive<Uint8Array>
  readonly #closeTimeoutMs: number
  #accepted: YamuxStream[] = []
  #acceptors: Deferred<Stream | null>[] = []
  #openers: Opener[] = []
  #info: CloseInfo | undefined
  #localInfo: CloseInfo | undefined
  #linger: Timer | undefined
  readonly #closed = deferred<CloseInfo>()
  bytesIn = 0
  bytesOut = 0
  rttMs: number | undefined = undefined

  constructor(wire: Wire, role: 'initiator' | 'responder', env: Env, options: Required<SessionOptions>) {
    this.#wire = wire
    this.#env = env
    this.#closeTimeoutMs = options.closeTimeoutMs
    const session = new Session<YamuxStream>(role, env.clock.now(), options)
    this.session = session
    this.#drive = drive<Uint8Array, SessionEvent<YamuxStream>, Uint8Array[]>(session, {
      env,
      event: (event) => this.#event(event),
      send: (chunks) => {
        for (const chunk of chunks) this.bytesOut += chunk.length
        wire.put(chunks)
      },
      room: () => wire.room,
    })
    // Deadlines count from now on.
    this.#drive.changed()
    wire.start({
      data: (bytes) => {
        this.bytesIn += bytes.length
        this.#drive.receive(bytes)
        if (this.#accepted.length > 0) this.#serveAcceptors()
        return true // what may come is bounded by the credit we gave
      },
      end: (reason) => this.#wireEnded(reason),
      onRoom: () => this.#drive.flush(),
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  changed(): void {
    this.#drive.changed()
  }

  // --- streams ------------------------------------------------------------------------------------------------------

  open({
    signal,
    priority = 0,
    timeoutMs = Infinity,
  }: { signal?: AbortSignal; priority?: number; timeoutMs?: number } = {}): Promise<Stream> {
    if (signal?.aborted === true) return rejected(asError(signal.reason))
    const refused = this.#refusal()
    if (refused !== undefined) return rejected(refused)
    const stream = this.#openers.length === 0 ? this.#open(priority) : undefined
    if (stream !== undefined) return Promise.resolve(stream)
    const waiter = deferred<Stream>()
    const giveUp = (error: Error): void => {
      opener.off()
      this.#openers = this.#openers.filter((other) => other !== opener)
      waiter.reject(error)
    }
    const abort = (): void => giveUp(asError(signal?.reason))
    signal?.addEventListener('abort', abort, { once: true })
    const late = (): void =>
      giveUp(new TimeoutError('opening a stream that waits for the peer to accept others', timeoutMs))
    const timer = timeoutMs === Infinity ? undefined : this.#env.clock.setTimer(timeoutMs, late)
    const off = (): void => {
      timer?.cancel()
      signal?.removeEventListener('abort', abort)
    }
    const opener: Opener = { waiter, priority, off }
    this.#openers.push(opener)
    return waiter.promise
  }

  #open(priority: number): YamuxStream | undefined {
    const channel = this.session.open(priority)
    if (channel === undefined) return undefined
    const stream = new YamuxStream(this, channel)
    this.#drive.changed()
    return stream
  }

  #refusal(): Error | undefined {
    if (this.#info !== undefined) return closedBy(this.#info)
    switch (this.session.refusal) {
      case undefined:
        return undefined
      case 'closed':
        return new ClosedError('connection is closing', this.#localInfo ?? cleanClose)
      case 'remote':
        return new ClosedError('the peer takes no more streams', remoteEnd('connection', this.session.remoteGoAway))
      default:
        return new UnavailableError('unsupported', 'all 2^31 stream ids of this connection are used up')
    }
  }

  #serveOpeners(): void {
    while (this.#openers.length > 0) {
      const refused = this.#refusal()
      const stream = refused === undefined ? this.#open((this.#openers[0] as Opener).priority) : undefined
      if (refused === undefined && stream === undefined) return
      const opener = this.#openers.shift() as Opener
      opener.off()
      if (stream !== undefined) opener.waiter.resolve(stream)
      else if (refused !== undefined) void rejectQuietly(opener.waiter, refused)
    }
  }

  accept(): Promise<Stream | null> {
    const stream = this.#accepted.shift()
    if (stream !== undefined) return Promise.resolve(this.#admit(stream))
    if (this.#info !== undefined) return Promise.resolve(null)
    const waiter = deferred<Stream | null>()
    this.#acceptors.push(waiter)
    return waiter.promise
  }

  #serveAcceptors(): void {
    while (this.#accepted.length > 0 && this.#acceptors.length > 0) {
      const stream = this.#accepted.shift() as YamuxStream
      this.#acceptors.shift()?.resolve(this.#admit(stream))
    }
  }

  #admit(stream: YamuxStream): YamuxStream {
    this.session.accepted(stream.channel)
    this.#drive.changed()
    return stream
  }

  // --- events -------------------------------------------------------------------------------------------------------

  #event(event: SessionEvent<YamuxStream>): void {
    switch (event.type) {
      case 'data':
        event.channel.owner?.arrived(event.bytes)
        return
      case 'open':
        // Given out when all that came with it has been looked at: what is reset in the same breath costs no more.
        this.#accepted.push(new YamuxStream(this, event.channel))
        return
      case 'end':
        event.channel.owner?.ended()
        return
      case 'writable':
        event.channel.owner?.writable()
        return
      case 'finished':
        event.channel.owner?.finished()
        return
      case 'done':
        event.channel.owner?.settle(cleanClose)
        return
      case 'reset': {
        const { owner } = event.channel
        const { code, reason } = event
        if (owner === undefined) return
        if (reason === undefined) owner.lose(remoteEnd('stream', code), true)
        else {
          this.#env.trace?.('yamux.limit', { limit: reason.limit, max: reason.max, current: reason.current })
          owner.lose({ by: 'local', code, reason })
        }
        // Nobody has taken it, and there is nothing left to take.
        const { receiving, receiveWindow } = event.channel
        const at = receiving === 'reset' || receiveWindow.unread === 0 ? this.#accepted.indexOf(owner) : -1
        if (at >= 0) this.#accepted.splice(at, 1)
        return
      }
      case 'slot':
        this.#serveOpeners()
        return
      case 'refused':
        this.#env.trace?.('yamux.refused', { id: event.id, code: event.code, reason: event.reason })
        return
      case 'rtt':
        this.rttMs = event.ms
        return
      case 'goaway':
        this.#env.trace?.('yamux.goaway', { code: event.code, text: codeText('connection', event.code) })
        // Another code than 0 says that the peer is gone already (go-libp2p closes with one).
        if (event.code === 0) this.#serveOpeners()
        else this.#end(remoteEnd('connection', event.code))
        return
      case 'failed':
        this.#env.trace?.('yamux.failed', { reason: event.reason })
        this.#failed(event.reason)
        return
      case 'drained':
        this.#end(this.#localInfo ?? cleanClose)
        return
    }
  }

  // --- the end ------------------------------------------------------------------------------------------------------

  async close(code = 0): Promise<void> {
    if (this.#info === undefined && this.#localInfo === undefined) {
      this.#localInfo = { by: 'local', code: code >>> 0 }
      this.session.close(code >>> 0, this.#env.clock.now())
      this.#drive.changed()
      this.#serveOpeners()
    }
    await this.#closed.promise
  }

  abort(code = 0, reason?: Error): void {
    const info: CloseInfo = { by: 'local', code: code >>> 0, ...(reason && { reason }) }
    // Who is to hear why gets a moment for it; without a code there is nothing to say.
    const says = info.code !== 0 && this.#info === undefined
    if (says) {
      this.session.abort(info.code)
      this.#drive.flush()
    }
    this.#end(info, says ? goodbyeMs : 0)
    if (!says) this.#drop(reason)
  }

  #failed(reason: Error): void {
    this.#drive.flush() // the Go Away, when there is room
    const limited = reason instanceof LimitError ? connectionCode.rateLimited : 0
    const code = reason instanceof ProtocolError ? connectionCode.protocolViolation : limited
    const dead = reason instanceof TimeoutError
    // Whoever breaks the rules is not listened to for longer than it takes to say so.
    this.#end({ by: dead ? 'transport' : 'local', code, reason }, goodbyeMs)
    // Who is dead takes no goodbye, and nobody should be given this connection meanwhile.
    if (dead) this.#drop(reason)
  }

  #wireEnded(reason: Error | undefined): void {
    if (reason === undefined) {
      this.#end(this.#localInfo ?? remoteEnd('connection', this.session.remoteGoAway))
      return
    }
    this.#end({ by: 'transport', code: 0, reason })
    this.#drop(reason)
  }

  #end(info: CloseInfo, lingerMs = this.#closeTimeoutMs): void {
    if (this.#info !== undefined) return
    this.#info = info
    this.#accepted = []
    let ofStreams: CloseInfo | undefined
    for (const channel of this.session.live()) {
      ofStreams ??= { by: info.by, code: streamCodeOf(info.code), reason: closedBy(info) }
      channel.owner?.lose(ofStreams, true)
    }
    for (const acceptor of this.#acceptors.splice(0)) acceptor.resolve(null)
    this.#serveOpeners()
    this.#drive.stop()
    this.#linger = this.#env.clock.setTimer(lingerMs, () => this.#drop(info.reason))
    const gone = (): void => this.#finish()
    this.#wire.closed.then(gone, gone)
    this.#wire.closeWrite().catch((error: unknown) => this.#drop(asError(error)))
  }

  #drop(reason: Error | undefined): void {
    this.#wire.abort(reason)
    this.#finish()
  }

  #finish(): void {
    this.#linger?.cancel()
    this.#closed.resolve(this.#info ?? cleanClose)
  }
}

/**
 * Streams over `wire`, which is started here and belongs to the muxer from then on. Throws RangeError on options that
 * make no sense. `role` is by who dialled.
 */
export function createYamux(
  wire: Wire,
  { role, env, ...options }: { role: 'initiator' | 'responder'; env: Env } & YamuxOptions,
): Muxer {
  return new Yamux(wire, role, env, sessionOptions(options))
}

/** For the list of muxers that a connection may negotiate. */
export function yamux(options: YamuxOptions = {}): {
  readonly id: string
  create(wire: Wire, role: 'initiator' | 'responder', env: Env): Muxer
} {
  return { id: yamuxId, create: (wire, role, env) => createYamux(wire, { ...options, role, env }) }
}
