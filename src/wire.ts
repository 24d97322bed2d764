/*
 * The fast lane below the muxer: a promise per layer and chunk costs 15% of bulk throughput, so sockets and secure
 * channels hand bytes on in one call stack. WireStream makes a Stream of a Wire, StreamWire a Wire of any Stream;
 * the same tests run over both.
 */
import { byteLength } from './bytes.ts'
import { ClosedError, asError, type CloseInfo } from './errors.ts'
import { Inbox, cleanClose, deferred, iterate, type Deferred } from './inbox.ts'
import type { Stream } from './stream.ts'

/** What a Wire calls. Never called before start(), nor after end(), nor after our own abort(). */
export interface WireSink {
  /**
   * Bytes, never empty; they are the sink's from now on (nobody writes into them again). False pauses the wire:
   * what the wire had already taken from below may still come, bounded by one read.
   */
  data(bytes: Uint8Array): boolean
  /** Once: the peer's FIN, or with `reason` the end of both directions. */
  end(reason?: Error): void
  /** There is room again after put() returned false. */
  onRoom(): void
}

export interface Wire {
  start(sink: WireSink): void
  /** Takes the chunks over, in order, as one write. False: no more room, onRoom will be called. Ignored after an end. */
  put(chunks: Uint8Array[]): boolean
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
}

/** `wire` with another way to start it. */
function restarted(wire: Wire, start: (sink: WireSink) => void): Wire {
  return {
    start,
    put: (chunks) => wire.put(chunks),
    get room() {
      return wire.room
    },
    pause: () => wire.pause(),
    resume: () => wire.resume(),
    closeWrite: () => wire.closeWrite(),
    abort: (reason) => wire.abort(reason),
    closed: wire.closed,
  }
}

/** `wire` with `bytes`, which were read from it too early, before everything else. */
export function startBehind(wire: Wire, bytes: Uint8Array): Wire {
  return restarted(wire, (sink) => {
    const more = sink.data(bytes)
    wire.start(sink)
    if (!more) wire.pause()
  })
}

/** A Stream over a Wire. Reading pauses the wire while `highWaterBytes` wait to be read. */
export class WireStream implements Stream {
  readonly #wire: Wire
  readonly #highWaterBytes: number
  readonly #inbox: Inbox
  #paused = false
  #detached = false
  #wrote = false
  #gone: ClosedError | undefined
  #waiting: Deferred<void>[] = []
  #sink: WireSink | undefined

  constructor(wire: Wire, { highWaterBytes = 256 * 1024 }: { highWaterBytes?: number } = {}) {
    this.#wire = wire
    this.#highWaterBytes = highWaterBytes
    this.#inbox = new Inbox(() => {
      if (!this.#paused || this.#inbox.size >= this.#highWaterBytes) return
      this.#paused = false
      wire.resume()
    })
    wire.start({
      data: (bytes) => {
        if (this.#sink !== undefined) return this.#sink.data(bytes)
        this.#inbox.push(bytes)
        this.#paused = this.#inbox.size >= this.#highWaterBytes
        return !this.#paused
      },
      end: (reason) => {
        if (this.#sink !== undefined) this.#sink.end(reason)
        else if (reason === undefined) this.#inbox.end()
        else this.#fail({ by: 'transport', code: 0, reason }, reason)
      },
      onRoom: () => {
        if (this.#sink !== undefined) this.#sink.onRoom()
        else for (const waiter of this.#waiting.splice(0)) waiter.resolve()
      },
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#wire.closed
  }

  read(): Promise<Uint8Array | null> {
    return this.#inbox.read()
  }

  async write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#gone !== undefined) throw this.#gone
    if (this.#wrote || this.#detached) throw new ClosedError('write after closeWrite', cleanClose)
    if (byteLength(chunks) === 0 || this.#wire.put(chunks)) return
    const waiter = deferred<void>()
    this.#waiting.push(waiter)
    await waiter.promise
  }

  closeWrite(): Promise<void> {
    if (this.#gone !== undefined || this.#wrote) return Promise.resolve()
    this.#wrote = true
    return this.#wire.closeWrite()
  }

  closeRead(): void {
    this.#inbox.discard()
  }

  reset(code = 0, reason?: Error): void {
    this.#fail({ by: 'local', code, ...(reason && { reason }) }, reason)
    this.#wire.abort(reason)
  }

  #fail(info: CloseInfo, reason: Error | undefined): void {
    if (this.#gone !== undefined) return
    this.#gone = new ClosedError(`stream closed by ${info.by}`, info, 'reset')
    this.#inbox.fail(info.by === 'local' && reason !== undefined ? reason : this.#gone)
    for (const waiter of this.#waiting.splice(0)) waiter.reject(this.#gone)
  }

  detach(): Wire | undefined {
    if (this.#detached || this.#wrote || this.#gone !== undefined) return undefined
    this.#detached = true
    const wire = this.#wire
    return restarted(wire, (sink) => {
      // The wire was started long ago: what it delivered meanwhile comes first, then the sink takes over.
      let more = true
      for (const chunk of this.#inbox.drain()) more = sink.data(chunk) && more
      this.#sink = sink
      if (this.#inbox.ended) sink.end()
      else if (this.#gone !== undefined) sink.end(this.#gone.info.reason ?? this.#gone)
      else if (!more) wire.pause()
      else if (this.#paused) wire.resume()
    })
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** A Wire pumped over any Stream, for those that have no fast lane. `highWaterBytes` bounds what put() queues. */
export class StreamWire implements Wire {
  readonly #stream: Stream
  readonly #highWaterBytes: number
  #queued = 0
  #writing: Promise<void> = Promise.resolve()
  #full = false
  #sink: WireSink | undefined
  #over = false
  #gate: Deferred<void> | undefined

  constructor(stream: Stream, { highWaterBytes = 256 * 1024 }: { highWaterBytes?: number } = {}) {
    this.#stream = stream
    this.#highWaterBytes = highWaterBytes
  }

  get closed(): Promise<CloseInfo> {
    return this.#stream.closed
  }

  get room(): number {
    return this.#over ? 0 : this.#highWaterBytes - this.#queued
  }

  start(sink: WireSink): void {
    this.#sink = sink
    void this.#pump(sink)
  }

  async #pump(sink: WireSink): Promise<void> {
    try {
      for (;;) {
        const bytes = await this.#stream.read()
        if (this.#over) return
        if (bytes === null) break
        if (!sink.data(bytes)) this.pause()
        await this.#gate?.promise
      }
      if (!this.#over) sink.end()
    } catch (error) {
      this.#end(asError(error))
    }
  }

  #end(reason: Error): void {
    if (this.#over) return
    this.#over = true
    this.#sink?.end(reason)
  }

  put(chunks: Uint8Array[]): boolean {
    if (this.#over) return false
    const size = byteLength(chunks)
    this.#queued += size
    this.#writing = this.#writing
      .then(() => (this.#over ? undefined : this.#stream.write(...chunks)))
      .then(
        () => {
          this.#queued -= size
          if (!this.#full || this.#over || this.room <= 0) return
          this.#full = false
          this.#sink?.onRoom()
        },
        (error: unknown) => this.#end(asError(error)),
      )
    this.#full = this.room <= 0
    return !this.#full
  }

  pause(): void {
    this.#gate ??= deferred()
  }

  resume(): void {
    this.#gate?.resolve()
    this.#gate = undefined
  }

  async closeWrite(): Promise<void> {
    await this.#writing
    await this.#stream.closeWrite()
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#over = true
    this.resume()
    this.#stream.reset(0, reason)
  }
}

/** The fast lane of `stream`, or a pump where it has none. */
export function toWire(stream: Stream): Wire {
  return stream.detach?.() ?? new StreamWire(stream)
}
