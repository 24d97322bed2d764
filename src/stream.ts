/*
 * The one Stream: TCP, Noise, yamux streams, QUIC streams and relayed circuits are all this.
 * Here too: BufferedStream (framing) and pair() (two in memory).
 */
import { allocUnsafe, byteLength, concat } from './bytes.ts'
import { ClosedError, ProtocolError, asError, type CloseInfo } from './errors.ts'
import { readVarint, varintLength, writeVarint } from './varint.ts'
import { Inbox, cleanClose, cutOff, deferred, done, iterate, rejected, type Deferred } from './inbox.ts'
import { startBehind, type Wire } from './wire.ts'

export type { CloseInfo } from './errors.ts'

/** A reliable, ordered, two-way byte stream. */
export interface Stream extends AsyncIterable<Uint8Array> {
  /**
   * The next bytes, never empty; null after the peer's FIN. May share a larger buffer: copy what you keep.
   * One read at a time. Rejects with ClosedError once the stream is reset.
   */
  read(): Promise<Uint8Array | null>
  /**
   * Resolves when there is room for more. Several chunks are one vectored write; the stream owns them from the call on.
   * Rejects with ClosedError after closeWrite or a reset.
   */
  write(...chunks: Uint8Array[]): Promise<void>
  /** Resolves when the FIN is handed to the wire; no promise that the peer read it. Idempotent. */
  closeWrite(): Promise<void>
  /** We read no more: what still comes is discarded (the wire says STOP_SENDING where it can). Writing goes on. */
  closeRead(code?: number): void
  /**
   * Both directions, at once. Idempotent. Pending reads and writes reject; `code` (u32, close-codes.ts) travels where the
   * wire has room; without one the peer gets the code for `reason`.
   */
  reset(code?: number, reason?: Error): void
  /** Never rejects. Resolves when both directions are done. */
  readonly closed: Promise<CloseInfo>
  /**
   * Where the stream lies on a fast lane (wire.ts): hands it over with the bytes that were not read yet.
   * The stream is of no use afterwards. Undefined where there is none.
   */
  detach?(): Wire | undefined
}

/** Streams over one connection: yamux, or what QUIC, WebTransport and WebRTC bring with them. */
export interface Muxer {
  /**
   * Resolves when the stream may be written to, which takes a wait while the peer has yet to acknowledge many others.
   * Rejects with LimitError, ClosedError, signal.reason, or TimeoutError when it waited `timeoutMs` (default: for ever).
   */
  open(options?: { signal?: AbortSignal; priority?: number; timeoutMs?: number }): Promise<Stream>
  /** The next stream the peer opened; null once the muxer is closed. Streams not accepted count against the backlog. */
  accept(): Promise<Stream | null>
  /** Unreliable messages, where the transport has them. */
  datagrams?: Datagrams
  /** Tells the peer, lets what was written leave, then closes the connection. Streams still open are reset. */
  close(code?: number): Promise<void>
  /** At once, without waiting for anything; a `code` is told to the peer if it goes out within a second. */
  abort(code?: number, reason?: Error): void
  /** Never rejects. */
  readonly closed: Promise<CloseInfo>
  /** Bytes of the connection so far, as the muxer sees them. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** Last measured round trip in milliseconds; undefined before the first. */
  readonly rttMs: number | undefined
}

export interface Datagrams {
  readonly maxSize: number
  /** False when it was dropped because the queue is full. */
  send(datagram: Uint8Array): boolean
  receive(): AsyncIterable<Uint8Array>
}

/** Resets `stream` when `signal` aborts, until the returned function is called or the stream closes. */
export function resetOnAbort(stream: Stream, signal: AbortSignal | undefined): () => void {
  if (signal === undefined) return () => {}
  const abort = (): void => stream.reset(0, asError(signal.reason))
  if (signal.aborted) {
    abort()
    return () => {}
  }
  signal.addEventListener('abort', abort, { once: true })
  const off = (): void => signal.removeEventListener('abort', abort)
  void stream.closed.then(off)
  return off
}

/** The bytes of `message` behind their length as an unsigned varint, as one vectored write. */
export function prefixed(...message: Uint8Array[]): Uint8Array[] {
  const size = byteLength(message)
  const prefix = new Uint8Array(varintLength(size))
  writeVarint(size, prefix)
  return [prefix, ...message]
}

/** Bytes set aside for a message on its length prefix alone (a large block fits); beyond, memory follows the bytes. */
const promisedBytes = 1024 * 1024 + 64 * 1024

/**
 * Framing over any Stream, itself a Stream: what was read too much is read next, so nothing is ever pushed back
 * or unwrapped after a negotiation.
 */
export class BufferedStream implements Stream {
  readonly #stream: Stream
  #rest: Uint8Array | undefined
  #ended = false

  constructor(stream: Stream) {
    this.#stream = stream
  }

  get closed(): Promise<CloseInfo> {
    return this.#stream.closed
  }

  read(): Promise<Uint8Array | null> {
    const rest = this.#rest
    if (rest === undefined) return this.#stream.read()
    this.#rest = undefined
    return Promise.resolve(rest)
  }

  async #more(want: string): Promise<Uint8Array> {
    const chunk = this.#ended ? null : await this.#stream.read()
    if (chunk !== null) return chunk
    this.#ended = true
    throw new ProtocolError('truncated', `stream ended, want ${want}`)
  }

  /** Exactly `size` bytes; ProtocolError `truncated` when the stream ends before. */
  async readExact(size: number): Promise<Uint8Array> {
    let rest = this.#rest ?? (size === 0 ? new Uint8Array(0) : await this.#more(`${size} bytes`))
    if (rest.length < size) {
      let out = allocUnsafe(Math.min(size, promisedBytes))
      let at = 0
      for (;;) {
        const take = Math.min(rest.length, size - at)
        if (at + take > out.length) {
          const more = allocUnsafe(Math.min(size, 2 * (at + take)))
          more.set(out.subarray(0, at))
          out = more
        }
        out.set(rest.subarray(0, take), at)
        at += take
        this.#rest = take < rest.length ? rest.subarray(take) : undefined
        if (at === size) return out
        rest = await this.#more(`${size - at} more bytes`)
      }
    }
    this.#rest = size < rest.length ? rest.subarray(size) : undefined
    return rest.subarray(0, size)
  }

  /**
   * One message behind its varint length; null when the stream ends cleanly before it.
   * ProtocolError `oversized` when it announces more than `max` bytes, before any is read.
   */
  async readPrefixed(max: number): Promise<Uint8Array | null> {
    let head = this.#rest ?? (this.#ended ? null : await this.#stream.read())
    if (head === null) {
      this.#ended = true
      return null
    }
    let size = readVarint(head)
    while (size === undefined) {
      this.#rest = head
      head = concat([head, await this.#more('a length prefix')])
      size = readVarint(head)
    }
    if (size > max) throw new ProtocolError('oversized', `message of ${size} bytes, at most ${max} allowed`)
    const at = varintLength(size)
    this.#rest = at < head.length ? head.subarray(at) : undefined
    return size === 0 ? new Uint8Array(0) : this.readExact(size)
  }

  /** Everything up to the peer's FIN; ProtocolError `oversized` above `max` bytes. */
  async readAll(max: number): Promise<Uint8Array> {
    const chunks: Uint8Array[] = []
    let total = 0
    for (let chunk = await this.read(); chunk !== null; chunk = await this.read()) {
      total += chunk.length
      if (total > max) throw new ProtocolError('oversized', `more than ${max} bytes until the end of the stream`)
      chunks.push(chunk)
    }
    return concat(chunks)
  }

  /** Puts `bytes` before everything else: what a negotiation read too much. */
  unread(bytes: Uint8Array): void {
    this.#rest = this.#rest === undefined ? bytes : concat([bytes, this.#rest])
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    return this.#stream.write(...chunks)
  }

  /** One message behind its varint length. */
  writePrefixed(...message: Uint8Array[]): Promise<void> {
    return this.#stream.write(...prefixed(...message))
  }

  closeWrite(): Promise<void> {
    return this.#stream.closeWrite()
  }

  closeRead(code?: number): void {
    this.#rest = undefined
    this.#stream.closeRead(code)
  }

  reset(code?: number, reason?: Error): void {
    this.#rest = undefined
    this.#stream.reset(code, reason)
  }

  detach(): Wire | undefined {
    const wire = this.#stream.detach?.()
    if (wire === undefined) return undefined
    const rest = this.#rest
    this.#rest = undefined
    return rest === undefined ? wire : startBehind(wire, rest)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** `stream` with framing: itself where it has it already. */
export function buffered(stream: Stream): BufferedStream {
  return stream instanceof BufferedStream ? stream : new BufferedStream(stream)
}

class PairEnd implements Stream {
  readonly #highWaterBytes: number
  readonly #inbox: Inbox
  #other: PairEnd | undefined
  #waiting: Deferred<void>[] = []
  #wrote = false
  #gone: ClosedError | undefined
  readonly #closed = deferred<CloseInfo>()

  constructor(highWaterBytes: number) {
    this.#highWaterBytes = highWaterBytes
    this.#inbox = new Inbox(() => this.#admitOther())
  }

  static join(a: PairEnd, b: PairEnd): void {
    a.#other = b
    b.#other = a
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get #room(): boolean {
    const other = this.#other
    return other === undefined || other.#inbox.size < this.#highWaterBytes
  }

  /** Both sent their FIN: nothing is left to reset on the other side. */
  get #over(): boolean {
    const other = this.#other
    return this.#wrote && other !== undefined && other.#wrote
  }

  #admitOther(): void {
    const other = this.#other
    if (other === undefined || !other.#room) return
    for (const waiter of other.#waiting.splice(0)) waiter.resolve()
  }

  read(): Promise<Uint8Array | null> {
    return this.#inbox.read()
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#gone !== undefined) return rejected(this.#gone)
    if (this.#wrote) return rejected(new ClosedError('write after closeWrite', cleanClose))
    const other = this.#other
    for (const chunk of chunks) if (other !== undefined) other.#inbox.push(chunk)
    if (this.#room) return done
    const waiter = deferred<void>()
    this.#waiting.push(waiter)
    return waiter.promise
  }

  closeWrite(): Promise<void> {
    const other = this.#other
    if (this.#gone !== undefined || this.#wrote || other === undefined) return done
    this.#wrote = true
    other.#inbox.end()
    if (this.#over) {
      this.#closed.resolve(cleanClose)
      other.#closed.resolve(cleanClose)
    }
    return done
  }

  closeRead(): void {
    this.#inbox.discard()
  }

  reset(code = 0, reason?: Error): void {
    const other = this.#other
    const over = this.#over
    this.#fail({ by: 'local', code, ...(reason && { reason }) })
    if (over || other === undefined) return
    other.#fail({ by: 'remote', code, reason: new Error('reset by the other end') })
  }

  #fail(info: CloseInfo): void {
    if (this.#gone !== undefined) return
    this.#gone = cutOff(info, this.#inbox, this.#waiting)
    this.#closed.resolve(info)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** Two Streams joined back to back in memory; a write waits while the other side holds `highWaterBytes` unread. */
export function pair({ highWaterBytes = 256 * 1024 }: { highWaterBytes?: number } = {}): [Stream, Stream] {
  const a = new PairEnd(highWaterBytes)
  const b = new PairEnd(highWaterBytes)
  PairEnd.join(a, b)
  return [a, b]
}
