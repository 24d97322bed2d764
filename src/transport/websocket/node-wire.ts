/*
 * A Wire on a WebSocket of the `ws` package: messages reach the sink in the call stack of the socket's read, a sink that
 * is full pauses the socket. Handshakes, control frames and all that is received are the business of `ws`.
 */
import type net from 'node:net'
import type { WebSocket } from 'ws'
import { allocUnsafe, empty } from '../../bytes.ts'
import { ClosedError, ProtocolError, asError, type CloseInfo } from '../../errors.ts'
import { deferred, done, quiet, rejected } from '../../inbox.ts'
import { release, worthReleasing } from '../../release.ts'
import type { Wire, WireSink } from '../../wire.ts'
import { broken } from '../system.ts'
import { isCleanCode, messages, type Settings } from './options.ts'

/** What both ends of `ws` are made with. */
export function receiving({ maxMessageBytes }: Settings): object {
  return {
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    maxFragments: 1024,
    skipUTF8Validation: true,
    // A peer that pings and does not read what we answer is cut off.
    maxPendingAutoPongs: 60,
    closeTimeout: 5_000,
  }
}

/** PEM as node:tls wants it. */
export const asPem = (pem: string | Uint8Array): string | Buffer => (typeof pem === 'string' ? pem : Buffer.from(pem))

/** Masking keys nobody can guess (§5.3), drawn many at a time. */
let keys = new Uint32Array(0)
let keysUsed = 0

function nextKey(): number {
  if (keysUsed === keys.length) {
    keys = crypto.getRandomValues(new Uint32Array(1024))
    keysUsed = 0
  }
  return keys[keysUsed++] ?? 0
}

/** Where the payload starts in memory: behind the longest head, and where whole words lie. */
const payloadAt = 16

/** RFC 6455 §5.2: one binary message as a client sends it. `ws` masks byte by byte, which is half of a bulk transfer. */
export function maskedFrame(bytes: Uint8Array): Uint8Array {
  const { length } = bytes
  const size = length < 126 ? 6 : length < 65_536 ? 8 : 14
  const memory = allocUnsafe(payloadAt + ((length + 3) & ~3))
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length >> 2)
  const frame = memory.subarray(payloadAt - size, payloadAt + length)
  const view = new DataView(frame.buffer, frame.byteOffset)
  frame[0] = 0x82
  frame[1] = 0x80 | (size === 6 ? length : size === 8 ? 126 : 127)
  if (size === 8) view.setUint16(2, length)
  if (size === 14) view.setBigUint64(2, BigInt(length))
  const key = nextKey()
  words[(payloadAt >> 2) - 1] = key
  frame.set(bytes, size)
  for (let i = payloadAt >> 2; i < words.length; i++) words[i] = (words[i] ?? 0) ^ key
  return frame
}

export class MessageWire implements Wire {
  readonly #ws: WebSocket
  readonly #socket: net.Socket
  /** The TCP socket: #socket itself, or below TLS. */
  readonly #carrier: net.Socket
  readonly #highWaterBytes: number
  readonly #isClient: boolean
  #sink: WireSink | undefined
  /** put() said that there is no room: the sink waits to hear of it. */
  #full = false
  #paused = false
  #over = false
  #closing: Promise<void> | undefined
  #info: CloseInfo | undefined
  /** What the socket said before `ws` says that it is closed. */
  #problem: Error | undefined
  readonly #closed = deferred<CloseInfo>()

  /** Takes over a WebSocket that was opened in this turn. */
  constructor(ws: WebSocket, socket: net.Socket, carrier: net.Socket, highWaterBytes: number, isClient: boolean) {
    this.#ws = ws
    this.#socket = socket
    this.#carrier = carrier
    this.#highWaterBytes = highWaterBytes
    this.#isClient = isClient
    ws.pause()
    ws.on('message', (bytes: Buffer, isBinary) => this.#message(bytes, isBinary))
    ws.on('error', (error) => this.#violated(error))
    ws.on('close', (code, reason) => this.#end(code, reason.toString()))
    socket.on('error', (error) => void (this.#problem = error))
    socket.on('drain', () => this.#drained())
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get #open(): boolean {
    return !this.#over && this.#closing === undefined && this.#ws.readyState === this.#ws.OPEN
  }

  get room(): number {
    return this.#open ? this.#highWaterBytes - this.#socket.writableLength : 0
  }

  start(sink: WireSink): void {
    this.#sink = sink
    if (!this.#over) {
      if (!this.#paused) this.#ws.resume()
      return
    }
    const info = this.#info
    if (info !== undefined && info.by !== 'local') queueMicrotask(() => sink.end(info.reason))
  }

  #message({ buffer, byteOffset, length }: Buffer, isBinary: boolean): void {
    if (this.#over) return
    // §Spec: binary frames.
    if (!isBinary) {
      this.#ws.close(1003)
      this.#violated(new ProtocolError('bad-frame', 'got a text message, want binary ones'))
      return
    }
    if (length === 0) return
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

  /** The peer breaks RFC 6455, or the limits it was made with: `ws` has said so to the peer already. */
  #violated(error: Error): void {
    if (this.#over) return
    const tooLong = 'code' in error && error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH'
    const reason =
      error instanceof ProtocolError
        ? error
        : new ProtocolError(tooLong ? 'oversized' : 'bad-frame', `WebSocket: ${error.message}`, { cause: error })
    this.#finish({ by: 'local', code: 0, reason })
    this.#ws.terminate()
  }

  /** The connection is closed, whoever wished it. */
  #end(code: number, text: string): void {
    if (isCleanCode(code)) {
      this.#finish({ by: this.#closing === undefined ? 'remote' : 'local', code: 0 })
    } else {
      const said = text === '' ? '' : `, ${JSON.stringify(text)}`
      const what = code === 1006 ? 'the connection ended without a goodbye' : `the peer closed with code ${code}${said}`
      const reason = broken(this.#problem ?? Object.assign(new Error(what), { code: 'ECONNRESET' }))
      this.#finish({ ...reason.info, reason })
    }
    this.#closed.resolve(this.#info ?? { by: 'local', code: 0 })
  }

  #finish(info: CloseInfo): void {
    if (this.#over) return
    this.#over = true
    this.#info = info
    const sink = this.#sink
    this.#sink = undefined
    sink?.end(info.reason)
  }

  #drained(): void {
    if (!this.#full || this.room <= 0) return
    this.#full = false
    this.#sink?.onRoom()
  }

  put(chunks: Uint8Array[], forgotten = false): boolean {
    if (!this.#open) return false
    const socket = this.#socket
    socket.cork()
    for (const bytes of messages(chunks)) {
      if (this.#isClient) {
        socket.write(maskedFrame(bytes))
        if (forgotten) release(bytes)
      } else if (!forgotten || bytes.length < worthReleasing) this.#ws.send(bytes)
      else {
        this.#ws.send(bytes, (error) => {
          // A write that failed may still be under way.
          if (!error) release(bytes)
        })
      }
    }
    socket.uncork()
    this.#full = socket.writableLength >= this.#highWaterBytes
    return !this.#full
  }

  pause(): void {
    this.#paused = true
    this.#ws.pause()
  }

  resume(): void {
    this.#paused = false
    // Before start() nobody listens: what flowed then would be lost.
    if (this.#sink !== undefined) this.#ws.resume()
  }

  closeWrite(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing
    if (this.#over) return this.#info?.by === 'remote' && !this.#info.reason ? done : rejected(this.#gone())
    const sent = deferred<void>()
    this.#closing = quiet(sent.promise)
    if (this.#ws.readyState !== this.#ws.OPEN) {
      // The peer was first: `ws` answers it.
      void this.closed.then(({ reason }) => (reason === undefined ? sent.resolve() : sent.reject(this.#gone())))
      return sent.promise
    }
    this.#ws.close(1000)
    // `ws` does not tell when its Close frame has left: this leaves behind it.
    this.#socket.write(empty, (error) => (error ? sent.reject(this.#gone()) : sent.resolve()))
    return sent.promise
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
    // A reset also reaches a peer that has paused its reading; not where all has left and a Close frame tells the rest.
    if (this.#closing === undefined || this.#socket.writableLength > 0) this.#carrier.resetAndDestroy()
    this.#ws.terminate()
  }
}
