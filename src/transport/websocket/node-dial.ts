/* Dials a WebSocket on Node, step by step: TCP, TLS where the address has it, the upgrade. */
import type { IncomingMessage } from 'node:http'
import net from 'node:net'
import tls from 'node:tls'
import { WebSocket } from 'ws'
import { deadline, raceAbort } from '../../deadline.ts'
import { UnavailableError, asError } from '../../errors.ts'
import { quiet } from '../../inbox.ts'
import { fromHostPort, type Multiaddr } from '../../multiaddr.ts'
import { WireStream } from '../../wire.ts'
import { dialProblems, unreachable } from '../system.ts'
import type { RawConnection } from '../transport.ts'
import { url, type Target } from './address.ts'
import { MessageWire, asPem, receiving } from './node-wire.ts'
import type { Settings } from './options.ts'

const families = { 4: 4, 6: 6, dns: 0, dns4: 4, dns6: 6 } as const

const untrusted =
  'nobody that we trust vouches for its certificate; name its authority with the option tls.ca, or dial with tls.rejectUnauthorized: false'

const problems: Readonly<Record<string, string>> = {
  ...dialProblems,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  CERT_HAS_EXPIRED: 'its certificate has expired; check the clock here and the renewal there',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet; check the clock here',
  ECONNRESET: `${dialProblems['ECONNRESET']}, and that it speaks WebSocket`,
  ERR_SSL_WRONG_VERSION_NUMBER: 'what listens there does not speak TLS; try /ws without /tls',
}

function explained(addr: Multiaddr, error: Error): UnavailableError {
  const code = 'code' in error ? String(error.code) : ''
  const text = problems[code]
  if (text === undefined || text === dialProblems[code]) return unreachable(addr, error)
  return new UnavailableError('unreachable', `cannot reach ${addr}: ${text}`)
}

/** Resolves at `event`; rejects at the first error. The socket's errors stay heard afterwards. */
function when(event: 'connect' | 'secureConnect', socket: net.Socket): Promise<void> {
  return quiet(
    new Promise((resolve, reject) => {
      socket.once(event, resolve).on('error', reject)
      socket.once('close', () => reject(Object.assign(new Error('hung up'), { code: 'ECONNRESET' })))
    }),
  )
}

/** TLS over a connected socket: the name of /sni or of DNS must be the certificate's, else the IP address. */
function secured(carrier: net.Socket, { host, name }: Target, options: Settings['tls']): tls.TLSSocket {
  const { ca, rejectUnauthorized = true } = options
  return tls.connect({
    socket: carrier,
    host: name ?? host.replace(/%.*/, ''),
    servername: name ?? '',
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized,
    ...(ca !== undefined && { ca: (Array.isArray(ca) ? ca : [ca]).map((pem: string | Uint8Array) => asPem(pem)) }),
  })
}

interface Upgrading {
  ws: WebSocket
  opened: Promise<MessageWire>
}

function upgrade(to: Target, addr: Multiaddr, socket: net.Socket, carrier: net.Socket, settings: Settings): Upgrading {
  const ws = new WebSocket(url(to), {
    ...receiving(settings),
    maxHeaderSize: settings.maxHeaderBytes,
    createConnection: () => socket,
  })
  const opened = new Promise<MessageWire>((resolve, reject) => {
    ws.once('open', () => resolve(new MessageWire(ws, socket, carrier, settings.highWaterBytes, true)))
    ws.once('unexpected-response', (_request, { statusCode }: IncomingMessage) => {
      const text = `it answers HTTP ${statusCode} where a WebSocket should be; check the port and the /http-path`
      reject(new UnavailableError('unreachable', `cannot reach ${addr}: ${text}`))
    })
    ws.on('error', reject)
  })
  return { ws, opened: quiet(opened) }
}

export async function dial(
  to: Target,
  addr: Multiaddr,
  outer: AbortSignal,
  settings: Settings,
): Promise<RawConnection> {
  outer.throwIfAborted()
  const { env, dialTimeoutMs: timeoutMs } = settings
  const bound = deadline({ env, timeoutMs, what: `dialling ${addr}`, signal: outer })
  const { signal } = bound
  const { host, port, family, secure, suffix } = to
  const carrier = net.connect({ host, port, family: families[family], noDelay: true })
  const sockets: net.Socket[] = [carrier]
  try {
    await raceAbort(when('connect', carrier), signal)
    let socket = carrier
    if (secure) {
      const encrypted = secured(carrier, to, settings.tls)
      sockets.unshift(encrypted)
      await raceAbort(when('secureConnect', encrypted), signal)
      socket = encrypted
    }
    const { localAddress = '', localPort = 0, remoteAddress = '', remotePort = 0 } = carrier
    const { ws, opened } = upgrade(to, addr, socket, carrier, settings)
    const wire = await raceAbort(opened, signal).catch((error: unknown) => {
      ws.terminate()
      throw error
    })
    return {
      kind: 'raw',
      stream: new WireStream(wire),
      localAddr: fromHostPort(localAddress, localPort).encapsulate(suffix),
      remoteAddr: fromHostPort(remoteAddress, remotePort).encapsulate(suffix),
    }
  } catch (error) {
    for (const socket of sockets) socket.destroy()
    if (signal.aborted || error instanceof UnavailableError) throw signal.aborted ? signal.reason : error
    throw explained(addr, asError(error))
  } finally {
    bound.done()
  }
}
