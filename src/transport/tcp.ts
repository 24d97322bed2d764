/*
 * TCP over node:net: addresses /ip4|ip6|dns|dns4|dns6/.../tcp/N, a zone before ip6 where it needs one (libp2p addressing
 * 3A r0). Node only: no browser entry imports this file. Names go to the system's resolver.
 * Left out: port reuse for dialling (Node cannot), keep-alive probes (the muxer pings).
 */
import net from 'node:net'
import { deadline } from '../deadline.ts'
import { systemEnv, type Env } from '../env.ts'
import { UnavailableError, asError } from '../errors.ts'
import { deferred } from '../inbox.ts'
import { fromHostPort, hostPort, type HostPort, type Multiaddr } from '../multiaddr.ts'
import { SocketWire, socketHighWaterBytes } from '../socket-wire.ts'
import { WireStream } from '../wire.ts'
import { explain, isWildcard, listenProblems, reachable, unreachable } from './system.ts'
import type { Listener, RawConnection, Transport, TransportConnection } from './transport.ts'

export { SocketWire } from '../socket-wire.ts'

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
  highWaterBytes: socketHighWaterBytes,
  backlog: 511,
} satisfies Omit<Required<TcpOptions>, 'env'>

type Options = typeof defaults & { env: Env }

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
  // The interfaces behind a wildcard come and go.
  const fixed = isWildcard(address) ? undefined : reachable(address, family, port)
  return {
    addrs: () => fixed ?? reachable(address, family, port),
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
