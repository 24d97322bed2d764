/*
 * Listens for WebSockets on Node: an HTTP server that does nothing but upgrade. Until it has upgraded, a connection is
 * nobody's: it has a deadline, small headers, and its place can be taken.
 */
import http from 'node:http'
import https from 'node:https'
import type net from 'node:net'
import type { Duplex } from 'node:stream'
import { createSecureContext } from 'node:tls'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Timer } from '../../env.ts'
import { UnavailableError, asError } from '../../errors.ts'
import { deferred } from '../../inbox.ts'
import { fromHostPort, type Multiaddr } from '../../multiaddr.ts'
import { PendingInbound, hostOf } from '../../peer/pending.ts'
import { WireStream } from '../../wire.ts'
import { explain, listenProblems, reachable } from '../system.ts'
import type { Listener, TransportConnection } from '../transport.ts'
import { canonicalPath, type Target } from './address.ts'
import { MessageWire, asPem, receiving } from './node-wire.ts'
import type { Settings, WebSocketCertificate } from './options.ts'

/** A connection that is not upgraded yet. */
interface Pending {
  /** The TCP socket, below TLS. */
  carrier: net.Socket
  localAddr: Multiaddr
  remoteAddr: Multiaddr
  timer: Timer
}

const pair = ({ cert, key }: WebSocketCertificate): { cert: string | Buffer; key: string | Buffer } => ({
  cert: asPem(cert),
  key: asPem(key),
})

function refuse(socket: Duplex, status: string): void {
  socket.on('error', () => socket.destroy())
  socket.once('finish', () => socket.destroy())
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
}

/** Someone else's request: a browser's, a health check's. */
function answer({ headers }: http.IncomingMessage, response: http.ServerResponse): void {
  const text = 'This is a libp2p WebSocket; it speaks no other HTTP.\n'
  response.writeHead(426, {
    Connection: 'close, Upgrade',
    Upgrade: 'websocket',
    'Content-Type': 'text/plain',
    'Content-Length': text.length,
  })
  response.end(headers['content-length'] === undefined ? text : undefined)
}

class Listening implements Listener {
  readonly #at: Target
  readonly #settings: Settings
  readonly #onConnection: (connection: TransportConnection) => void
  readonly #server: http.Server
  readonly #upgrader: WebSocketServer
  readonly #waiting: PendingInbound<Pending>
  /** By the peer's address, the one thing that a TLS socket and the socket below it have in common. */
  readonly #pending = new Map<string, Pending>()
  #bound: { address: string; family: string; port: number } | undefined

  constructor(at: Target, settings: Settings, onConnection: (connection: TransportConnection) => void) {
    this.#at = at
    this.#settings = settings
    this.#onConnection = onConnection
    this.#waiting = new PendingInbound(settings.maxPendingUpgrades)
    this.#upgrader = new WebSocketServer({ noServer: true, clientTracking: false, ...receiving(settings) })
    const options = { maxHeaderSize: settings.maxHeaderBytes, keepAlive: false, noDelay: true }
    const { cert, key } = settings.tls
    if (!at.secure) this.#server = http.createServer(options, answer)
    else if (cert === undefined || key === undefined) {
      throw new UnavailableError('refused', 'listening with TLS wants a certificate: websocket({ tls: { cert, key } })')
    } else
      this.#server = https.createServer({ ...options, ...pair({ cert, key }), ALPNProtocols: ['http/1.1'] }, answer)
    // Ours is one deadline for everything before the upgrade.
    this.#server.headersTimeout = 0
    this.#server.requestTimeout = 0
    this.#server.on('connection', (carrier: net.Socket) => this.#arrived(carrier))
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket as net.Socket, head))
  }

  readonly #reload = (certificate: WebSocketCertificate): void => {
    const { cert, key } = pair(certificate)
    // Throws where they do not belong together; the old pair stays.
    createSecureContext({ cert, key })
    if (this.#server instanceof https.Server) this.#server.setSecureContext({ cert, key })
  }

  async open(addr: Multiaddr): Promise<void> {
    const { env, backlog, reloads } = this.#settings
    const { host, port, family, secure } = this.#at
    const done = deferred<void>()
    this.#server.once('listening', () => done.resolve())
    // Later errors are those of single accepts (no more file descriptors): the next one may do.
    this.#server.on('error', (error) => {
      env.trace?.('websocket.accept', { error })
      done.reject(new UnavailableError('refused', `cannot listen on ${addr}: ${explain(error, listenProblems)}`))
    })
    this.#server.listen({ host, port, backlog, ipv6Only: family === 6 })
    await done.promise
    const bound = this.#server.address()
    if (bound === null || typeof bound === 'string') throw new UnavailableError('refused', `${addr} is not bound`)
    this.#bound = bound
    if (secure) reloads.add(this.#reload)
  }

  #arrived(carrier: net.Socket): void {
    const { env, upgradeTimeoutMs } = this.#settings
    const { localAddress, localPort, remoteAddress, remotePort } = carrier
    carrier.on('error', (error) => env.trace?.('websocket.accept', { error }))
    if (!localAddress || !localPort || !remoteAddress || !remotePort) {
      carrier.destroy()
      return
    }
    const id = `${remoteAddress} ${remotePort}`
    const pending: Pending = {
      carrier,
      localAddr: fromHostPort(localAddress, localPort),
      remoteAddr: fromHostPort(remoteAddress, remotePort),
      timer: env.clock.setTimer(upgradeTimeoutMs, () => this.#drop(pending, 'no upgrade in time')),
    }
    this.#pending.set(id, pending)
    carrier.once('close', () => this.#settled(id, pending))
    const evicted = this.#waiting.add(hostOf(pending.remoteAddr), pending)
    if (evicted !== undefined) this.#drop(evicted, 'too many that wait for their upgrade')
  }

  #drop({ carrier, remoteAddr }: Pending, why: string): void {
    this.#settings.env.trace?.('websocket.upgrade-refused', { remoteAddr: remoteAddr.toString(), why })
    carrier.resetAndDestroy()
  }

  #settled(id: string, pending: Pending): void {
    pending.timer.cancel()
    this.#waiting.delete(hostOf(pending.remoteAddr), pending)
    if (this.#pending.get(id) === pending) this.#pending.delete(id)
  }

  #upgrade(request: http.IncomingMessage, socket: net.Socket, head: Buffer): void {
    const id = `${socket.remoteAddress} ${socket.remotePort}`
    const pending = this.#pending.get(id)
    if (pending === undefined) {
      socket.destroy()
      return
    }
    const [path = ''] = (request.url ?? '').split('?')
    if (canonicalPath(path) !== this.#at.path) {
      refuse(socket, '404 Not Found')
      return
    }
    // Any Origin may come: whatever a page can do here, its peer id has to answer for.
    this.#upgrader.handleUpgrade(request, socket, head, (ws) => {
      this.#settled(id, pending)
      this.#hand(ws, socket, pending)
    })
  }

  #hand(ws: WebSocket, socket: net.Socket, { carrier, localAddr, remoteAddr }: Pending): void {
    const { env, highWaterBytes } = this.#settings
    const stream = new WireStream(new MessageWire(ws, socket, carrier, highWaterBytes, false))
    const { suffix } = this.#at
    try {
      this.#onConnection({
        kind: 'raw',
        stream,
        localAddr: localAddr.encapsulate(suffix),
        remoteAddr: remoteAddr.encapsulate(suffix),
      })
    } catch (error) {
      env.trace?.('websocket.accept', { error })
      stream.reset(0, asError(error))
    }
  }

  addrs(): Multiaddr[] {
    if (this.#bound === undefined) return []
    const { address, family, port } = this.#bound
    return reachable(address, family, port).map((addr) => addr.encapsulate(this.#at.suffix))
  }

  // The operating system does not tell us when an interface comes or goes; addrs() looks each time.
  onAddrs(): () => void {
    return () => {}
  }

  close(): Promise<void> {
    this.#settings.reloads.delete(this.#reload)
    // The socket that listens is closed at once; close's own callback waits for all connections, which are not ours.
    this.#server.close()
    for (const { carrier } of this.#pending.values()) carrier.resetAndDestroy()
    return Promise.resolve()
  }
}

export async function listen(
  at: Target,
  addr: Multiaddr,
  onConnection: (connection: TransportConnection) => void,
  settings: Settings,
): Promise<Listener> {
  const listening = new Listening(at, settings, onConnection)
  await listening.open(addr)
  return listening
}
