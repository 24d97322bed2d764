/*
 * The fast lane on a socket of node:net, or on what behaves like one: a TLSSocket. Node only; TCP and TLS are made of it.
 */
import type net from 'node:net'
import { ClosedError, asError, type CloseInfo } from './errors.ts'
import { deferred, quiet, rejected } from './inbox.ts'
import { release, worthReleasing } from './release.ts'
import type { BareSocket, Wire, WireSink } from './wire.ts'

/** Bytes that may wait in this process for the kernel to take them. */
export const socketHighWaterBytes = 256 * 1024

export const errno = (error: Error): string => ('code' in error && typeof error.code === 'string' ? error.code : '')

/** What ended an open connection: the peer for a reset, otherwise the network between us. */
export function broken(error: Error): ClosedError {
  const by = ['ECONNRESET', 'EPIPE', 'ECONNABORTED'].includes(errno(error)) ? 'remote' : 'transport'
  return new ClosedError('connection lost', { by, code: 0, reason: error }, 'reset')
}

export interface SocketWireOptions {
  /** What an error of the socket means. */
  explain?: (error: Error) => Error
  /** Resets the connection, where the socket itself cannot. */
  cut?: (reason?: Error) => void
}

/** A Wire right on a socket: bytes reach the sink in the call stack of the socket's read. */
export class SocketWire implements Wire {
  readonly #socket: net.Socket
  readonly #highWaterBytes: number
  #sink: WireSink | undefined
  /** put() said that there is no room: the sink waits to hear of it. */
  #full = false
  #paused = false
  #ended = false
  #over = false
  #closing: Promise<void> | undefined
  #info: CloseInfo | undefined
  /** Somebody else reads and writes the socket now. */
  #given = false
  readonly #cut: ((reason?: Error) => void) | undefined
  readonly #onDrain = (): void => this.#drained()
  readonly #onEnd = (): void => this.#end()
  readonly #onData = (bytes: Buffer): void => this.#data(bytes)
  readonly #closed = deferred<CloseInfo>()

  /** Takes over a connected socket that was made with allowHalfOpen. */
  constructor(
    socket: net.Socket,
    highWaterBytes: number = socketHighWaterBytes,
    { explain = broken, cut }: SocketWireOptions = {},
  ) {
    this.#socket = socket
    this.#highWaterBytes = highWaterBytes
    this.#cut = cut
    socket.on('error', (error) => this.#fail(explain(error)))
    socket.on('close', () => {
      const whole = this.#given || (this.#ended && socket.writableFinished)
      // A TLSSocket's close may come before its error.
      if (!this.#over && !whole) this.#fail(explain(socket.errored ?? new Error('socket closed')))
      this.#over = true
      this.#sink = undefined
      this.#closed.resolve(this.#info ?? { by: 'local', code: 0 })
    })
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get room(): number {
    return this.#over || this.#closing !== undefined ? 0 : this.#highWaterBytes - this.#socket.writableLength
  }

  start(sink: WireSink): void {
    this.#sink = sink
    const socket = this.#socket
    if (this.#over) {
      const reason = this.#info?.reason
      if (reason !== undefined && this.#info?.by !== 'local') queueMicrotask(() => sink.end(reason))
      return
    }
    socket.on('drain', this.#onDrain)
    socket.on('end', this.#onEnd)
    socket.on('data', this.#onData)
    // A TLSSocket reads before anybody listens.
    if (socket.readableEnded) queueMicrotask(this.#onEnd)
    if (!this.#paused) socket.resume()
  }

  #data({ buffer, byteOffset, length }: Buffer): void {
    try {
      if (this.#sink?.data(new Uint8Array(buffer, byteOffset, length)) === false) this.pause()
    } catch (error) {
      // A defect above costs this connection, not the process.
      const reason = asError(error)
      const sink = this.#sink
      this.abort(reason)
      sink?.end(reason)
    }
  }

  #end(): void {
    if (this.#over || this.#ended) return
    this.#ended = true
    if (this.#closing === undefined) this.#info = { by: 'remote', code: 0 }
    this.#sink?.end()
  }

  #drained(): void {
    if (!this.#full || this.room <= 0) return
    this.#full = false
    this.#sink?.onRoom()
  }

  #fail(reason: Error): void {
    if (this.#over) return
    this.#over = true
    this.#info = reason instanceof ClosedError ? { ...reason.info, reason } : { by: 'transport', code: 0, reason }
    const sink = this.#sink
    this.#sink = undefined
    if (!this.#ended) sink?.end(reason)
  }

  detachSocket(): BareSocket | undefined {
    if (this.#over || this.#ended || this.#closing !== undefined) return undefined
    const socket = this.#socket
    this.#given = true
    this.#sink = undefined
    socket.off('drain', this.#onDrain).off('end', this.#onEnd).off('data', this.#onData)
    socket.pause()
    return { socket, unread: [] }
  }

  put(chunks: Uint8Array[], forgotten = false): boolean {
    if (this.#over || this.#closing !== undefined) return false
    const socket = this.#socket
    const corked = chunks.length > 1
    if (corked) socket.cork()
    for (const chunk of chunks) {
      if (chunk.length === 0) continue
      // A write that failed may still be under way.
      if (!forgotten || chunk.length < worthReleasing) socket.write(chunk)
      else
        socket.write(chunk, (error) => {
          if (!error) release(chunk)
        })
    }
    if (corked) socket.uncork()
    this.#full = socket.writableLength >= this.#highWaterBytes
    return !this.#full
  }

  pause(): void {
    this.#paused = true
    this.#socket.pause()
  }

  resume(): void {
    this.#paused = false
    // Before start() nobody listens: what flowed then would be lost.
    if (this.#sink !== undefined) this.#socket.resume()
  }

  closeWrite(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing
    if (this.#over) return rejected(this.#gone())
    const done = deferred<void>()
    this.#closing = quiet(done.promise)
    if (!this.#ended) this.#info = { by: 'local', code: 0 }
    // At the end of a destroyed socket the callback gets an error: the FIN never left.
    this.#socket.end((error?: Error | null) => (error ? done.reject(this.#gone()) : done.resolve()))
    return done.promise
  }

  #gone(): ClosedError {
    const info = this.#info ?? { by: 'local', code: 0 }
    return info.reason instanceof ClosedError ? info.reason : new ClosedError('connection is closed', info)
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#sink = undefined
    this.#info = { by: 'local', code: 0, ...(reason && { reason }) }
    // A bare close looks like a clean end to the peer; only where all has left and the FIN follows is it right. There a
    // reset would fail (libuv refuses it while it shuts down), and Node would never close the descriptor.
    const { writableEnded, writableLength } = this.#socket
    if (this.#cut !== undefined) this.#cut(reason)
    else if (writableEnded && writableLength === 0) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }
}
