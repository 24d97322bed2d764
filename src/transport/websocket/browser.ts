/*
 * WebSocket where the platform has its own: browsers, workers. It tells neither why a dial failed nor which addresses
 * the connection has, cannot be paused, and has no event for room: this file makes of it what can be made.
 */
import { deadline, raceAbort } from '../../deadline.ts'
import type { Env, Timer } from '../../env.ts'
import { ClosedError, LimitError, ProtocolError, UnavailableError, asError, type CloseInfo } from '../../errors.ts'
import { deferred, done, quiet, rejected } from '../../inbox.ts'
import { multiaddr, type Multiaddr } from '../../multiaddr.ts'
import { WireStream, type Wire, type WireSink } from '../../wire.ts'
import type { RawConnection } from '../transport.ts'
import { url, type Target } from './address.ts'
import { isCleanCode, messages, type Platform, type Settings } from './options.ts'

/** How often to look whether there is room again: what browsers make of a shorter timeout. */
const pollMs = 4

/** RFC 6455 §7.4.2: of those for private use, so that the peer does not take it for a clean end. */
const abortedCode = 4000

export class PlatformWire implements Wire {
  readonly #socket: WebSocket
  readonly #env: Env
  readonly #highWaterBytes: number
  readonly #maxUnreadBytes: number
  /** What came while the sink was paused, or before there was one. */
  #unread: Uint8Array[] = []
  #unreadBytes = 0
  #sink: WireSink | undefined
  #paused = true
  #delivering = false
  #poll: Timer | undefined
  #over = false
  #closing = false
  /** The peer's goodbye, behind what is unread. */
  #ended = false
  #info: CloseInfo | undefined
  readonly #closed = deferred<CloseInfo>()

  /** Takes over a WebSocket, open or not. */
  constructor(socket: WebSocket, { env, highWaterBytes, maxUnreadBytes }: Settings) {
    this.#socket = socket
    this.#env = env
    this.#highWaterBytes = highWaterBytes
    this.#maxUnreadBytes = maxUnreadBytes
    socket.binaryType = 'arraybuffer'
    socket.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer | string>) => this.#message(data))
    socket.addEventListener('close', ({ code, reason }) => this.#end(code, reason))
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get #open(): boolean {
    return !this.#over && !this.#closing && this.#socket.readyState === 1
  }

  get room(): number {
    return this.#open ? this.#highWaterBytes - this.#socket.bufferedAmount : 0
  }

  start(sink: WireSink): void {
    this.#sink = sink
    this.resume()
    if (!this.#over) return
    const info = this.#info
    if (info?.reason !== undefined && info.by !== 'local') queueMicrotask(() => sink.end(info.reason))
  }

  #message(data: ArrayBuffer | string): void {
    if (this.#over) return
    if (typeof data === 'string') {
      this.#cut(new ProtocolError('bad-frame', 'got a text message, want binary ones'))
      return
    }
    if (data.byteLength === 0) return
    this.#unread.push(new Uint8Array(data))
    this.#unreadBytes += data.byteLength
    this.#deliver()
    if (this.#unreadBytes > this.#maxUnreadBytes) {
      this.#cut(new LimitError('maxUnreadBytes', this.#maxUnreadBytes, this.#unreadBytes))
    }
  }

  #deliver(): void {
    if (this.#delivering) return
    this.#delivering = true
    while (!this.#paused && !this.#over) {
      const bytes = this.#unread.shift()
      if (bytes === undefined) break
      this.#unreadBytes -= bytes.length
      try {
        if (this.#sink?.data(bytes) === false) this.#paused = true
      } catch (error) {
        // A defect above costs this connection, not the page.
        this.#cut(asError(error))
      }
    }
    this.#delivering = false
    if (this.#ended && this.#unread.length === 0 && !this.#paused) {
      this.#finish({ by: this.#closing ? 'local' : 'remote', code: 0 })
    }
  }

  /** We end it, for what the peer or the sink did. */
  #cut(reason: Error): void {
    if (this.#over) return
    this.#finish({ by: 'local', code: 0, reason })
    this.#socket.close(abortedCode)
  }

  #end(code: number, text: string): void {
    if (this.#over) return
    if (isCleanCode(code)) {
      this.#ended = true
      this.#deliver()
      return
    }
    const said = text === '' ? '' : `, ${JSON.stringify(text)}`
    const reason = new Error(`WebSocket closed with code ${code}${said}`)
    const by = code === 1006 ? 'transport' : 'remote'
    this.#finish({ by, code: 0, reason: new ClosedError('connection lost', { by, code: 0, reason }, 'reset') })
  }

  #finish(info: CloseInfo): void {
    if (this.#over) return
    const sink = this.#sink
    this.#forget(info)
    sink?.end(info.reason)
  }

  #forget(info: CloseInfo): void {
    this.#over = true
    this.#info = info
    this.#sink = undefined
    this.#unread = []
    this.#unreadBytes = 0
    this.#poll?.cancel()
    this.#poll = undefined
    this.#closed.resolve(info)
  }

  put(chunks: Uint8Array[]): boolean {
    if (!this.#open) return false
    for (const bytes of messages(chunks)) this.#socket.send(bytes as Uint8Array<ArrayBuffer>)
    if (this.room > 0) return true
    this.#lookLater()
    return false
  }

  #lookLater(): void {
    this.#poll ??= this.#env.clock.setTimer(pollMs, () => {
      this.#poll = undefined
      if (!this.#open) return
      if (this.room > this.#highWaterBytes / 2) this.#sink?.onRoom()
      else this.#lookLater()
    })
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    if (this.#sink === undefined) return
    this.#paused = false
    this.#deliver()
  }

  closeWrite(): Promise<void> {
    if (this.#closing) return done
    const { reason = new ClosedError('connection is closed', { by: 'local', code: 0 }), by } = this.#info ?? {}
    if (this.#over) return by === 'remote' && this.#info?.reason === undefined ? done : rejected(reason)
    this.#closing = true
    // The platform sends what is queued first.
    this.#socket.close(1000)
    return done
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#forget({ by: 'local', code: 0, ...(reason && { reason }) })
    this.#socket.close(abortedCode)
  }
}

async function dial(to: Target, addr: Multiaddr, outer: AbortSignal, settings: Settings): Promise<RawConnection> {
  outer.throwIfAborted()
  const { env, dialTimeoutMs: timeoutMs } = settings
  const bound = deadline({ env, timeoutMs, what: `dialling ${addr}`, signal: outer })
  let wire: PlatformWire | undefined
  try {
    const socket = new WebSocket(url(to))
    wire = new PlatformWire(socket, settings)
    const opened = new Promise<void>((resolve, reject) => {
      socket.addEventListener('open', () => resolve())
      socket.addEventListener('close', () => reject(new Error('no WebSocket there, or the platform forbids it')))
    })
    await raceAbort(quiet(opened), bound.signal)
    return {
      kind: 'raw',
      stream: new WireStream(wire),
      // The platform does not tell which.
      localAddr: multiaddr('/ip4/0.0.0.0/tcp/0/ws'),
      remoteAddr: addr,
    }
  } catch (error) {
    wire?.abort()
    if (bound.signal.aborted) throw bound.signal.reason
    throw new UnavailableError('unreachable', `cannot reach ${addr}: ${asError(error).message}`)
  } finally {
    bound.done()
  }
}

export const platform: Platform = { dial, listen: undefined, defaults: { highWaterBytes: 1024 * 1024 } }
