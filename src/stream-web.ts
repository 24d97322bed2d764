/*
 * WHATWG streams at the edge: back-pressure both ways, cancel stops reading, abort resets. Portable.
 */
import { ClosedError, asError } from './errors.ts'
import { cleanClose, closedBy, deferred, done, iterate, quiet } from './inbox.ts'
import type { CloseInfo, Stream } from './stream.ts'

/** A WHATWG byte pair, as WebTransport and TransformStream have it. */
export interface WebPair {
  readable: ReadableStream<Uint8Array>
  writable: WritableStream<Uint8Array>
}

/**
 * `stream` as a WHATWG pair. Each chunk is pulled when it is asked for; a chunk written is the stream's own from then on.
 * cancel() is closeRead, abort() a reset, close() a closeWrite.
 */
export function toWeb(stream: Stream): WebPair {
  const readable = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const chunk = await stream.read()
        if (chunk !== null) controller.enqueue(chunk)
        else controller.close()
      },
      cancel: () => stream.closeRead(),
    },
    // Nothing is read ahead: what waits here would be credit granted for bytes that nobody has read.
    { highWaterMark: 0 },
  )
  const writable = new WritableStream<Uint8Array>(
    {
      start(controller) {
        void stream.closed.then(({ reason }) => reason && controller.error(reason))
      },
      write: (chunk) => stream.write(chunk),
      close: () => stream.closeWrite(),
      abort: (reason: unknown) => stream.reset(0, reason === undefined ? undefined : asError(reason)),
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }),
  )
  return { readable, writable }
}

class FromWeb implements Stream {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>
  readonly #closed = deferred<CloseInfo>()
  #reading = false
  #readClosed = false
  #closing: Promise<void> | undefined
  #gone: ClosedError | undefined
  #readError: Error | undefined

  constructor({ readable, writable }: WebPair) {
    this.#reader = readable.getReader()
    this.#writer = writable.getWriter()
    Promise.all([this.#reader.closed, this.#writer.closed]).then(
      () => this.#closed.resolve(cleanClose),
      (error: unknown) => this.#fail({ by: 'transport', code: 0, reason: asError(error) }),
    )
    // The other half may fail after the first one did.
    void quiet(this.#reader.closed)
    void quiet(this.#writer.closed)
    void quiet(this.#writer.ready)
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  read(): Promise<Uint8Array | null> {
    return quiet(this.#read())
  }

  async #read(): Promise<Uint8Array | null> {
    if (this.#reading) throw new TypeError('a read is under way: one at a time')
    this.#reading = true
    try {
      for (;;) {
        const value = this.#readError === undefined && !this.#readClosed ? await this.#next() : undefined
        // A cancelled reader says that it is done, whatever the reason.
        if (value === undefined && this.#readError !== undefined) throw asError(this.#readError)
        if (value === undefined) return null
        // An empty chunk is nothing to us.
        if (value.length > 0) return value
      }
    } finally {
      this.#reading = false
    }
  }

  async #next(): Promise<Uint8Array | undefined> {
    try {
      return (await this.#reader.read()).value
    } catch (error) {
      this.#fail({ by: 'transport', code: 0, reason: asError(error) })
      return undefined
    }
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    return quiet(this.#write(chunks))
  }

  async #write(chunks: Uint8Array[]): Promise<void> {
    if (this.#gone !== undefined) throw this.#gone
    if (this.#closing !== undefined) throw new ClosedError('write after closeWrite', cleanClose)
    for (const chunk of chunks) if (chunk.length > 0) void quiet(this.#writer.write(chunk))
    await this.#writer.ready
  }

  closeWrite(): Promise<void> {
    if (this.#closing === undefined && this.#gone !== undefined) return done
    this.#closing ??= quiet(this.#writer.close())
    return this.#closing
  }

  closeRead(): void {
    if (this.#readClosed) return
    this.#readClosed = true
    void quiet(this.#reader.cancel())
  }

  reset(code = 0, reason?: Error): void {
    this.#fail({ by: 'local', code, ...(reason && { reason }) })
  }

  #fail(info: CloseInfo): void {
    if (this.#gone !== undefined) return
    const gone = closedBy(info)
    this.#gone = gone
    this.#readError = info.by === 'local' ? (info.reason ?? gone) : gone
    void quiet(this.#reader.cancel(gone))
    void quiet(this.#writer.abort(gone))
    this.#closed.resolve(info)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** A Stream over a WHATWG pair, which is ours from then on. An error of either half ends both. */
export function fromWeb(pair: WebPair): Stream {
  return new FromWeb(pair)
}
