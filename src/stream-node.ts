/* Node's Duplex at the edge, for users whose code is written against it; nothing in this package is. Node only. */
import { Duplex } from 'node:stream'
import { ClosedError, asError } from './errors.ts'
import { Inbox, cleanClose, closedBy, deferred, done, iterate, quiet, rejected, type Deferred } from './inbox.ts'
import type { CloseInfo, Stream } from './stream.ts'

/** `stream` as a Duplex: end() is closeWrite, destroy() a reset; the peer's FIN ends the readable half only. */
export function toNode(stream: Stream): Duplex {
  const duplex = new Duplex({
    allowHalfOpen: true,
    // One chunk is read when it is asked for: what waits here would be credit granted for bytes that nobody has read.
    readableHighWaterMark: 1,
    read() {
      stream.read().then(
        (chunk) => this.push(chunk),
        (error: unknown) => this.destroy(asError(error)),
      )
    },
    write(chunk: Uint8Array, _encoding, callback) {
      stream.write(chunk).then(() => callback(), callback)
    },
    writev(chunks, callback) {
      stream.write(...chunks.map(({ chunk }) => chunk as Uint8Array)).then(() => callback(), callback)
    },
    final(callback) {
      stream.closeWrite().then(() => callback(), callback)
    },
    destroy(error, callback) {
      // After both FINs this changes nothing; before, it tells the peer that bytes are missing.
      if (!this.readableEnded || !this.writableFinished) stream.reset(0, error ?? undefined)
      callback(error)
    },
  })
  void stream.closed.then(({ by, reason }) => by !== 'local' && reason && duplex.destroy(reason))
  return duplex
}

class FromNode implements Stream {
  readonly #duplex: Duplex
  readonly #inbox: Inbox
  #waiting: Deferred<void>[] = []
  #closing: Promise<void> | undefined
  #info: CloseInfo | undefined
  #gone: ClosedError | undefined
  readonly #closed = deferred<CloseInfo>()

  constructor(duplex: Duplex) {
    this.#duplex = duplex
    this.#inbox = new Inbox(() => {
      if (this.#inbox.size < duplex.readableHighWaterMark) duplex.resume()
    })
    duplex.on('data', ({ buffer, byteOffset, length }: Buffer) => {
      this.#inbox.push(new Uint8Array(buffer, byteOffset, length))
      if (this.#inbox.size >= duplex.readableHighWaterMark) duplex.pause()
    })
    duplex.on('end', () => this.#inbox.end())
    duplex.on('drain', () => this.#admit())
    duplex.on('error', (reason) => this.#fail({ by: 'transport', code: 0, reason }))
    duplex.on('close', () => {
      const whole = duplex.readableEnded && duplex.writableFinished
      if (!whole) this.#fail({ by: 'transport', code: 0, reason: new Error('closed before both ends were done') })
      this.#admit()
      this.#closed.resolve(this.#info ?? cleanClose)
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  #admit(): void {
    for (const waiter of this.#waiting.splice(0)) waiter.resolve()
  }

  #fail(info: CloseInfo): void {
    if (this.#gone !== undefined) return
    this.#info = info
    const gone = closedBy(info)
    this.#gone = gone
    if (info.by === 'local') this.#inbox.fail(info.reason ?? gone)
    else if (!this.#inbox.ended) this.#inbox.fail(gone)
    for (const { promise, reject } of this.#waiting.splice(0)) {
      void quiet(promise)
      reject(gone)
    }
  }

  read(): Promise<Uint8Array | null> {
    return this.#inbox.read()
  }

  write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#gone !== undefined) return rejected(this.#gone)
    if (this.#closing !== undefined) return rejected(new ClosedError('write after closeWrite', cleanClose))
    const duplex = this.#duplex
    duplex.cork()
    for (const chunk of chunks) duplex.write(chunk)
    duplex.uncork()
    if (!duplex.writableNeedDrain) return done
    const waiter = deferred<void>()
    this.#waiting.push(waiter)
    return waiter.promise
  }

  closeWrite(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing
    if (this.#gone !== undefined) return done
    const ended = deferred<void>()
    this.#closing = quiet(ended.promise)
    this.#duplex.end((error?: Error | null) => {
      if (error) ended.reject(this.#gone ?? error)
      else ended.resolve()
      this.#admit()
    })
    return this.#closing
  }

  closeRead(): void {
    this.#inbox.discard()
    this.#duplex.resume()
  }

  reset(code = 0, reason?: Error): void {
    this.#fail({ by: 'local', code, ...(reason && { reason }) })
    this.#duplex.destroy(reason)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return iterate(this)
  }
}

/** A Stream over a Duplex of bytes (no objectMode), which is ours from then on. Make sockets with allowHalfOpen. */
export function fromNode(duplex: Duplex): Stream {
  return new FromNode(duplex)
}
