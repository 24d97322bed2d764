/*
 * The fast lane below the muxer: a promise per layer and chunk costs 15% of bulk throughput, so sockets and secure
 * channels hand bytes on in one call stack. WireStream makes a Stream of a Wire, StreamWire a Wire of any Stream;
 * the same tests run over both.
 */
import { byteLength } from './bytes.ts'
import { ClosedError, asError, type CloseInfo } from './errors.ts'
import {
  Inbox,
  cleanClose,
  closedBy,
  cutOff,
  deferred,
  done,
  iterate,
  quiet,
  rejected,
  type Deferred,
} from './inbox.ts'
import type { Stream } from './stream.ts'

/** What a Wire calls. Never called before start(), nor after our own abort(). */
export interface WireSink {
  /**
   * Bytes, never empty; they are the sink's from now on: nobody writes into them again, and the sink may give their
   * memory back (release.ts). False pauses the wire:
   * what the wire had already taken from below may still come, bounded by one read.
   */
  data(bytes: Uint8Array): boolean
  /**
   * Once: the peer's FIN, or with `reason` the end of both directions. After a FIN our direction is still open:
   * onRoom may come, and what ends it later shows in the wire's `closed` only.
   */
  end(reason?: Error): void
  /** There is room again after put() returned false. */
  onRoom(): void
}

export interface Wire {
  start(sink: WireSink): void
  /**
   * Takes the chunks over, in order, as one write. False: no more room, onRoom will be called. Ignored after an end.
   * `forgotten`: nobody else will ever look at them, so that their memory may be given back once they are sent.
   */
  put(chunks: Uint8Array[], forgotten?: boolean): boolean
  /** Bytes that may be put now; 0 or less: wait for onRoom. */
  readonly room: number
  pause(): void
  resume(): void
  /** Resolves when all that was put and the FIN were handed to the layer below; rejects with ClosedError. */
  closeWrite(): Promise<void>
  /** Both directions, at once. Idempotent; the sink hears no more. */
  abort(reason?: Error): void
  /** Never rejects. Both directions are done and nothing is held open. */
  readonly closed: Promise<CloseInfo>
  /**
   * Before start(), where the wire lies right on a socket of the platform: gives it away, for TLS only. Nothing but
   * abort() and `closed` works afterwards. Undefined where there is none, or an end has come: the wire then goes on.
   */
  detachSocket?(): BareSocket | undefined
}

/** A socket (a net.Socket on Node) and what was read from it too early. */
export interface BareSocket {
  readonly socket: object
  readonly unread: readonly Uint8Array[]
}

/** `wire` with another way to start it. */
function restarted(wire: Wire, start: (sink: WireSink) => void): Wire {
  return {
    start,
    put: (chunks, forgotten) => wire.put(chunks, forgotten),
    get room() {
      return wire.room
    },
    pause: () => wire.pause(),
    resume: () => wire.resume(),
    closeWrite: () => wire.closeWrite(),
    abort: (reason) => wire.abort(reason),
    closed: wire.closed,
    detachSocket: () => wire.detachSocket?.(),
  }
}

/** `wire` with `bytes`, which were read from it too early, before everything else. */
export function startBehind(wire: Wire, bytes: Uint8Array): Wire {
  const behind = restarted(wire, (sink) => {
    const more = sink.data(bytes)
    wire.start(sink)
    if (!more) wire.pause()
  })
  behind.detachSocket = () => {
    const bare = wire.detachSocket?.()
    return bare && { socket: bare.socket, unread: [bytes, ...bare.unread] }
  }
  return behind
}

/** Whether `info` is a clean end: both FINs, nothing lost. */
const isClean = ({ code, reason }: CloseInfo): boolean => code === 0 && reason === undefined

/** A Stream over a Wire. Reading pauses the wire while `highWaterBytes` wait to be read. */
export class WireStream implements Stream {
  readonly #wire: Wire
  readonly #highWaterBytes: number
  readonly #inbox: Inbox
  #paused = false
  #detached = false
  #closing: Promise<void> | undefined
  #gone: ClosedError | undefined
  #waiting: Deferred<void>[] = []
  /** Who gets everything after detach() and start(). */
  #sink: WireSink | undefined

  constructor(wire: Wire, { highWaterBytes = 256 * 1024 }: { highWaterBytes?: number } = {}) {
    this.#wire = wire
    this.#highWaterBytes = highWaterBytes
    this.#inbox = new Inbox(() => {
      // Half-way down, so that a slow reader does not stop and start the socket for every chunk.
      if (!this.#paused || this.#inbox.size > highWaterBytes / 2) return
      this.#paused = false
      wire.resume()
    })
    wire.start({
      data: (bytes) => {
        if (this.#sink !== undefined) return this.#sink.data(bytes)
        this.#inbox.push(bytes)
        if (this.#inbox.size >= this.#highWaterBytes) this.#paused = true
        return !this.#paused
      },
      end: (reason) => {
        if (this.#sink !== undefined) this.#sink.end(reason)
        else if (reason === undefined) this.#inbox.end()
        else this.#fail(endOf(reason))
      },
      onRoom: () => {
        if (this.#sink !== undefined) this.#sink.onRoom()
        else this.#admit()
      },
    })
    // After the peer's FIN the sink hears of no failure: a write that waits would wait for ever.
    void wire.closed.then((info) => {
      if (this.#sink === undefined && (!isClean(info) || this.#waiting.length > 0)) this.#fail(info)
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#wire.closed
  }

  read(): Promise<Uint8Array | null> {
    return this.#inbox.read()
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#gone !== undefined) return rejected(this.#gone)
    if (this.#closing !== undefined || this.#detached) {
      return rejected(new ClosedError('write after closeWrite', cleanClose))
    }
    if (this.#wire.put(chunks) || byteLength(chunks) === 0) return done
    const waiter = deferred<void>()
    this.#waiting.push(waiter)
    return waiter.promise
  }

  #admit(): void {
    if (this.#waiting.length > 0) for (const waiter of this.#waiting.splice(0)) waiter.resolve()
  }

  closeWrite(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing
    if (this.#gone !== undefined || this.#detached) return done
    this.#closing = quiet(this.#wire.closeWrite().then(() => this.#admit()))
    return this.#closing
  }

  closeRead(): void {
    this.#inbox.discard()
  }

  reset(code = 0, reason?: Error): void {
    // Whoever took the wire over learns of it as of any other end: abort() itself tells nobody.
    const sink = this.#gone === undefined ? this.#sink : undefined
    this.#sink = undefined
    this.#fail({ by: 'local', code, ...(reason && { reason }) })
    this.#wire.abort(reason)
    sink?.end(reason ?? this.#gone)
  }

  #fail(info: CloseInfo): void {
    if (this.#gone !== undefined) return
    this.#gone = cutOff(info, this.#inbox, this.#waiting)
  }

  detach(): Wire | undefined {
    if (this.#detached || this.#closing !== undefined || this.#gone !== undefined || this.#inbox.reading) {
      return undefined
    }
    this.#detached = true
    this.#admit()
    const wire = this.#wire
    let aborted = false
    const detached = restarted(wire, (sink) => {
      // The wire was started long ago: what it delivered meanwhile comes first, then the sink takes over.
      let more = true
      for (const chunk of this.#inbox.drain()) {
        more = sink.data(chunk) && more
        if (aborted) return
      }
      if (this.#gone !== undefined) {
        sink.end(this.#gone.info.reason ?? this.#gone)
        return
      }
      this.#sink = sink
      if (this.#inbox.ended) sink.end()
      else if (!more) wire.pause()
      else if (this.#paused) wire.resume()
    })
    detached.detachSocket = () => {
      const bare = this.#gone === undefined && !this.#inbox.ended ? wire.detachSocket?.() : undefined
      return bare && { socket: bare.socket, unread: [...this.#inbox.drain(), ...bare.unread] }
    }
    detached.abort = (reason) => {
      aborted = true
      this.#sink = undefined
      wire.abort(reason)
    }
    return detached
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** What a wire's last word says about who ended it: a ClosedError knows. */
function endOf(reason: Error): CloseInfo {
  if (reason instanceof ClosedError) return { ...reason.info, reason }
  return { by: 'transport', code: 0, reason }
}

/** A Wire pumped over any Stream, for those that have no fast lane. `highWaterBytes` bounds what put() queues. */
export class StreamWire implements Wire {
  readonly #stream: Stream
  readonly #highWaterBytes: number
  #queued = 0
  #writing: Promise<void> = done
  #full = false
  #sink: WireSink | undefined
  #ended = false
  #over = false
  #closing: Promise<void> | undefined
  #failure: Error | undefined
  #gate: Deferred<void> | undefined

  constructor(stream: Stream, { highWaterBytes = 256 * 1024 }: { highWaterBytes?: number } = {}) {
    this.#stream = stream
    this.#highWaterBytes = highWaterBytes
    // While the sink has us paused we do not read: a reset shows here only.
    void stream.closed.then((info) => {
      if (!isClean(info)) this.#fail(info.reason ?? closedBy(info))
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#stream.closed
  }

  get room(): number {
    return this.#over || this.#closing !== undefined ? 0 : this.#highWaterBytes - this.#queued
  }

  start(sink: WireSink): void {
    this.#sink = sink
    void this.#pump(sink)
  }

  async #pump(sink: WireSink): Promise<void> {
    try {
      for (;;) {
        const bytes = await this.#stream.read()
        while (this.#gate !== undefined) await this.#gate.promise
        if (this.#over) break
        if (bytes === null) {
          this.#ended = true
          sink.end()
          return
        }
        if (!sink.data(bytes)) this.pause()
      }
    } catch (error) {
      this.#fail(asError(error))
    }
    if (this.#failure !== undefined && !this.#ended) sink.end(this.#failure)
  }

  /** Both directions are done, by no wish of ours. */
  #fail(reason: Error): void {
    if (this.#over) return
    this.#over = true
    this.#failure = reason
    const gate = this.#gate
    this.#gate = undefined
    this.#stream.reset(0, reason)
    // The pump stands at the gate or at a read that rejects now: it says so.
    gate?.resolve()
  }

  put(chunks: Uint8Array[]): boolean {
    if (this.#over || this.#closing !== undefined) return false
    const size = byteLength(chunks)
    this.#queued += size
    this.#writing = this.#writing
      .then(() => (this.#over ? undefined : this.#stream.write(...chunks)))
      .then(
        () => {
          this.#queued -= size
          if (!this.#full || this.room <= 0) return
          this.#full = false
          this.#sink?.onRoom()
        },
        (error: unknown) => this.#fail(asError(error)),
      )
    this.#full = this.room <= 0
    return !this.#full
  }

  pause(): void {
    if (!this.#over) this.#gate ??= deferred()
  }

  resume(): void {
    this.#gate?.resolve()
    this.#gate = undefined
  }

  closeWrite(): Promise<void> {
    this.#closing ??= quiet(this.#finish())
    return this.#closing
  }

  async #finish(): Promise<void> {
    await this.#writing
    if (this.#over)
      throw new ClosedError('stream is closed', this.#failure === undefined ? cleanClose : endOf(this.#failure))
    await this.#stream.closeWrite()
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#sink = undefined
    this.resume()
    this.#stream.reset(0, reason)
  }
}

/** The fast lane of `stream`, or a pump where it has none. */
export function toWire(stream: Stream): Wire {
  return stream.detach?.() ?? new StreamWire(stream)
}
