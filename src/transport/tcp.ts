/*
 * TCP over node:net: addresses /ip4|ip6|dns|dns4|dns6/.../tcp/N, a zone before ip6 where it needs one (libp2p addressing
 * 3A r0). Node only: no browser entry imports this file. Names go to the system's resolver.
 * Left out: port reuse for dialling (Node cannot), keep-alive probes (the muxer pings).
 */
import net from 'node:net'
import { deadline } from '../deadline.ts'
import { systemEnv, type Env } from '../env.ts'
import { ClosedError, UnavailableError, asError, type CloseInfo } from '../errors.ts'
import { deferred, quiet, rejected } from '../inbox.ts'
import { fromHostPort, hostPort, type HostPort, type Multiaddr } from '../multiaddr.ts'
import { release, worthReleasing } from '../release.ts'
import { WireStream, type Wire, type WireSink } from '../wire.ts'
import { broken, explain, listenProblems, reachable, unreachable } from './system.ts'
import type { Listener, RawConnection, Transport, TransportConnection } from './transport.ts'

export interface TcpOptions {
  env?: Env
  /** From the call of dial to the connected socket, name lookup included. Default 15 s (go-libp2p). */
  dialTimeoutMs?: number
  /** Bytes that may wait in this process for the kernel to take them, per socket. Default 256 KiB. */
  highWaterBytes?: number
  /** Connections the kernel holds until we accept them. Default 511 (Node's own). */
  backlog?: number
}

const defaults = {
  dialTimeoutMs: 15_000,
  highWaterBytes: 256 * 1024,
  backlog: 511,
} satisfies Omit<Required<TcpOptions>, 'env'>

type Options = typeof defaults & { env: Env }

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
  readonly #closed = deferred<CloseInfo>()

  /** Takes over a connected socket that was made with allowHalfOpen. */
  constructor(socket: net.Socket, highWaterBytes: number = defaults.highWaterBytes) {
    this.#socket = socket
    this.#highWaterBytes = highWaterBytes
    socket.on('error', (error) => this.#fail(broken(error)))
    socket.on('close', () => {
      if (!this.#over && !(this.#ended && socket.writableFinished)) this.#fail(broken(new Error('socket closed')))
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
    socket.on('drain', () => this.#drained())
    socket.on('end', () => this.#end())
    socket.on('data', (bytes: Buffer) => this.#data(bytes))
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

  #fail(reason: ClosedError): void {
    if (this.#over) return
    this.#over = true
    this.#info = { ...reason.info, reason }
    const sink = this.#sink
    this.#sink = undefined
    if (!this.#ended) sink?.end(reason)
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
    if (writableEnded && writableLength === 0) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }
}

/** Undefined where the socket is gone already and has no addresses any more. */
function connection(socket: net.Socket, highWaterBytes: number): RawConnection | undefined {
  const { localAddress, localPort, remoteAddress, remotePort } = socket
  if (!localAddress || !localPort || !remoteAddress || !remotePort) return undefined
  const stream = new WireStream(new SocketWire(socket, highWaterBytes))
  return {
    kind: 'raw',
    stream,
    localAddr: fromHostPort(localAddress, localPort),
    remoteAddr: fromHostPort(remoteAddress, remotePort),
  }
}

/** Host and port where the address is TCP and nothing more (a /p2p at the end aside). */
function target(addr: Multiaddr): HostPort | undefined {
  const at = hostPort(addr)
  const size = addr.withoutPeer().components().length
  return at?.network === 'tcp' && size === (at.host.includes('%') ? 3 : 2) ? at : undefined
}

const families = { 4: 4, 6: 6, dns: 0, dns4: 4, dns6: 6 } as const

async function dial(addr: Multiaddr, outer: AbortSignal, options: Options): Promise<RawConnection> {
  outer.throwIfAborted()
  const at = target(addr)
  if (at === undefined) throw new UnavailableError('no-transport', `${addr} is not an address that TCP can dial`)
  const { env, dialTimeoutMs, highWaterBytes } = options
  const bound = deadline({ env, timeoutMs: dialTimeoutMs, what: `dialling ${addr}`, signal: outer })
  const { signal } = bound
  const done = deferred<void>()
  const { host, port, family } = at
  const socket = net.connect({ host, port, family: families[family], allowHalfOpen: true, noDelay: true })
  const cut = (): void => done.reject(asError(signal.reason))
  signal.addEventListener('abort', cut, { once: true })
  const failed = (error: Error): void => done.reject(unreachable(addr, error))
  socket.once('connect', () => done.resolve()).on('error', failed)
  try {
    await done.promise
    const raw = connection(socket, highWaterBytes)
    if (raw === undefined) throw unreachable(addr, Object.assign(new Error('reset'), { code: 'ECONNRESET' }))
    socket.off('error', failed)
    return raw
  } catch (error) {
    // The listener for errors stays: a name lookup that is still under way may report one.
    socket.destroy()
    throw error
  } finally {
    bound.done()
    signal.removeEventListener('abort', cut)
  }
}

async function listen(
  addr: Multiaddr,
  onConnection: (connection: TransportConnection) => void,
  { env, highWaterBytes, backlog }: Options,
): Promise<Listener> {
  const at = target(addr)
  if (at === undefined || (at.family !== 4 && at.family !== 6)) {
    throw new UnavailableError('no-transport', `${addr} is not an address that TCP can listen on`)
  }
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const raw = connection(socket, highWaterBytes)
    if (raw === undefined) {
      socket.on('error', (error) => env.trace?.('tcp.accept', { error })).destroy()
      return
    }
    try {
      onConnection(raw)
    } catch (error) {
      env.trace?.('tcp.accept', { error })
      raw.stream.reset(0, asError(error))
    }
  })
  const done = deferred<void>()
  server.once('listening', () => done.resolve())
  // Later errors are those of single accepts (no more file descriptors): the next one may do.
  server.on('error', (error) => {
    env.trace?.('tcp.accept', { error })
    done.reject(new UnavailableError('refused', `cannot listen on ${addr}: ${explain(error, listenProblems)}`))
  })
  server.listen({ host: at.host, port: at.port, backlog, ipv6Only: at.family === 6 })
  await done.promise
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new UnavailableError('refused', `${addr} is not bound`)
  const { address, family, port } = bound
  return {
    addrs: () => reachable(address, family, port),
    // The operating system does not tell us when an interface comes or goes; addrs() looks each time.
    onAddrs: () => () => {},
    close() {
      // The socket that listens is closed at once; close's own callback waits for all connections, which are not ours.
      server.close()
      return Promise.resolve()
    },
  }
}

/** The TCP transport. Its `listen` on a wildcard address gives one address for each interface. */
export function tcp(options: TcpOptions = {}): Transport {
  const all: Options = { env: systemEnv(), ...defaults, ...options }
  for (const name of ['dialTimeoutMs', 'highWaterBytes', 'backlog'] as const) {
    if (!(all[name] > 0)) throw new RangeError(`tcp: ${name} is ${all[name]}, want more than 0`)
  }
  return {
    name: 'tcp',
    canDial: (addr) => target(addr) !== undefined,
    canListen: (addr) => {
      const family = target(addr)?.family
      return family === 4 || family === 6
    },
    dial: (addr, { signal }) => dial(addr, signal, all),
    listen: (addr, onConnection) => listen(addr, onConnection, all),
  }
}
