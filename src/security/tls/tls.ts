/*
 * libp2p tls (3A r0, 2019-03-23), protocol id /tls/1.0.0: TLS 1.3 over node:tls, identities in the certificates, early
 * muxer negotiation by ALPN (inlined-muxer-negotiation.md 1A r1). Node only.
 * Right on a native socket where the stream lies on one, through a Duplex otherwise.
 * Left out: SNI, session resumption and early data (the spec allows none of them).
 */
import { constants } from 'node:crypto'
import type net from 'node:net'
import type tls from 'node:tls'
import { platformCrypto } from '#crypto'
import { byteLength, concat } from '../../bytes.ts'
import type { Crypto } from '../../crypto/crypto.ts'
import type { Env } from '../../env.ts'
import { ProtocolError, TimeoutError, asError } from '../../errors.ts'
import { deferred, quiet } from '../../inbox.ts'
import type { PrivateKey } from '../../peer/keys.ts'
import { SocketWire, socketHighWaterBytes } from '../../socket-wire.ts'
import type { Stream } from '../../stream.ts'
import { toWire } from '../../wire.ts'
import type { SecureOptions, Secured, SecurityProtocol } from '../security.ts'
import { alpnOf, explainTls, noMuxer } from './alerts.ts'
import { makeCredentials, verifyCertificate } from './credentials.ts'
import { WireDuplex } from './duplex.ts'

export interface TlsOptions {
  /** Our identity: signs the key of the certificate. */
  privateKey: PrivateKey
  env: Env
  crypto?: Crypto
  /** Milliseconds from the first byte to the peer's verified identity; default 10,000. */
  handshakeTimeoutMs?: number
  /** Bytes that may wait in this process for the layer below to take them. Default 256 KiB. */
  highWaterBytes?: number
}

const defaults = {
  // As for Noise.
  handshakeTimeoutMs: 10_000,
  highWaterBytes: socketHighWaterBytes,
} satisfies Omit<Required<TlsOptions>, 'privateKey' | 'env' | 'crypto'>

/** AES with 128 bits first: all that the peers choose from is strong, and it is the fastest. */
const ciphers = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256'

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes).toString('base64')}\n-----END ${label}-----\n`

/**
 * TLS 1.3 for a connection's upgrade; loads node:tls, makes a certificate and signs it when the first handshake begins,
 * and keeps it. Throws RangeError on numbers that make no sense.
 */
export function createTls(options: TlsOptions): SecurityProtocol {
  return new Tls(options)
}

/** What TLS runs over. */
interface Carrier {
  socket: net.Socket
  /** Resets it, and the TLSSocket over it with it. */
  reset(reason: Error | undefined, secure?: tls.TLSSocket): void
}

/** The socket that `stream` lies on with what was read too early put back, or else a Duplex over it. */
function carrierOf(stream: Stream, env: Env): Carrier {
  const wire = toWire(stream)
  const bare = wire.detachSocket?.()
  if (bare !== undefined) {
    const socket = bare.socket as net.Socket
    if (byteLength(bare.unread) > 0) socket.unshift(concat(bare.unread))
    // Danger: a TLSSocket that is destroyed while the socket below is being reset crashes Node (24.21 at least). Its end
    // follows that of the socket by itself.
    return {
      socket,
      reset(reason, secure) {
        // As for a plain socket: a reset fails while the FIN leaves, and nothing is left to cut off then.
        if (secure?.writableEnded === true && secure.writableLength === 0) secure.destroy()
        else wire.abort(reason)
      },
    }
  }
  const duplex = new WireDuplex(wire, env)
  // The TLSSocket over it reports the same.
  duplex.on('error', () => {})
  return {
    socket: duplex as unknown as net.Socket,
    reset(reason, secure) {
      wire.abort(reason)
      duplex.destroy(reason)
      secure?.destroy()
    },
  }
}

class Tls implements SecurityProtocol {
  readonly id = '/tls/1.0.0'
  readonly #options: TlsOptions & typeof defaults & { crypto: Crypto }
  #context: Promise<tls.SecureContext> | undefined

  constructor(options: TlsOptions) {
    this.#options = { ...defaults, crypto: platformCrypto, ...options }
    for (const name of ['handshakeTimeoutMs', 'highWaterBytes'] as const) {
      if (!(this.#options[name] > 0)) throw new RangeError(`${name} is ${this.#options[name]}, want more than 0`)
    }
  }

  /** Ours is the same for every handshake; one that could not be made is tried again by the next. */
  #secureContext(module: typeof tls): Promise<tls.SecureContext> {
    const made = (this.#context ??= this.#makeContext(module))
    made.catch(() => (this.#context = undefined))
    return made
  }

  async #makeContext(module: typeof tls): Promise<tls.SecureContext> {
    const { privateKey, env } = this.#options
    const { certificate, key } = await makeCredentials(privateKey, env)
    return module.createSecureContext({
      cert: pem('CERTIFICATE', certificate),
      key: pem('PRIVATE KEY', key),
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      ciphers,
      // Tickets then name a session of a cache that there is none of: nothing is ever resumed.
      secureOptions: constants.SSL_OP_NO_TICKET,
    })
  }

  async secure(role: 'initiator' | 'responder', stream: Stream, options: SecureOptions): Promise<Secured> {
    const { env, handshakeTimeoutMs } = this.#options
    const { signal } = options
    const cut = deferred<never>()
    void quiet(cut.promise)
    let reason: Error | undefined
    let reset = (why: Error): void => stream.reset(0, why)
    const stop = (why: Error): void => {
      if (reason !== undefined) return
      reason = why
      cut.reject(why)
      reset(why)
    }
    const onAbort = (): void => stop(asError(signal?.reason))
    const timer = env.clock.setTimer(handshakeTimeoutMs, () =>
      stop(new TimeoutError('the TLS handshake', handshakeTimeoutMs)),
    )
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted === true) onAbort()
    const until = async <T>(work: Promise<T>): Promise<T> => {
      const value = await Promise.race([work, cut.promise])
      if (reason !== undefined) throw reason
      return value
    }
    try {
      const module = await until(import('node:tls'))
      const secureContext = await until(this.#secureContext(module))
      const carrier = carrierOf(stream, env)
      const socket = this.#socket(module, role, carrier, secureContext, options.muxers)
      reset = (why) => carrier.reset(why, socket)
      const secured = await this.#handshake(role, socket, carrier, options, until)
      env.trace?.('tls.secured', { role, peer: secured.remotePeer, muxer: secured.muxer })
      return secured
    } catch (error) {
      const why = reason ?? asError(error)
      reset(why)
      env.trace?.('tls.failed', { role, reason: why })
      throw why
    } finally {
      timer.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #socket(
    { TLSSocket, connect }: typeof tls,
    role: 'initiator' | 'responder',
    { socket }: Carrier,
    secureContext: tls.SecureContext,
    muxers: readonly string[],
  ): tls.TLSSocket {
    if (role === 'initiator') {
      // §Future Extensibility: no SNI. The certificate is verified by us, not by OpenSSL.
      return connect({ socket, secureContext, rejectUnauthorized: false, ALPNProtocols: alpnOf(muxers) })
    }
    const ours = new Set(alpnOf(muxers))
    return new TLSSocket(socket, {
      isServer: true,
      secureContext,
      requestCert: true,
      // On a bare TLSSocket this says no more than that there must be a certificate; Bun wants an authority for it, too.
      rejectUnauthorized: process.versions['bun'] === undefined,
      // The client's order counts; undefined aborts with no_application_protocol (§ALPN).
      ALPNCallback: ({ protocols }) => protocols.find((id) => ours.has(id)),
    })
  }

  async #handshake(
    role: 'initiator' | 'responder',
    socket: tls.TLSSocket,
    carrier: Carrier,
    { expectedPeer, muxers }: SecureOptions,
    until: <T>(work: Promise<T>) => Promise<T>,
  ): Promise<Secured> {
    const { env, crypto, highWaterBytes } = this.#options
    const established = deferred<void>()
    void quiet(established.promise)
    let verified = false
    const explain = (error: Error): Error =>
      explainTls(error, {
        // §Peer Authentication: a server looks at our certificate only after our handshake is done.
        unproven: !verified || (role === 'initiator' && socket.bytesRead === 0),
        handshaking: !verified,
      })
    const wire = new SocketWire(socket, highWaterBytes, {
      explain,
      cut: (why) => carrier.reset(why, socket),
    })
    socket.on('secure', () => {
      // Node keeps errors of a bare server's socket to itself: `error` is told for those of its handshake alone.
      socket.on('_tlsError', (error: Error) => void (socket.destroyed || socket.destroy(error)))
      established.resolve()
    })
    // Node leaves the socket open after an alert.
    socket.on('error', (error: Error) => {
      established.reject(explain(error))
      carrier.reset(error, socket)
    })
    const ended = (): Error =>
      explain(socket.errored ?? carrier.socket.errored ?? new Error('the stream ended within the handshake'))
    socket.on('close', () => established.reject(ended()))
    // What lies below may be gone before the TLSSocket has anything to say of it.
    carrier.socket.on('close', () => established.reject(ended()))
    if (carrier.socket.destroyed) established.reject(ended())
    // Our flight may be what meets the reset; it keeps that to itself, and the read after it finds no more than an end,
    // which does not close a socket that may be half open.
    socket.on('end', () => established.reject(ended()))
    await until(established.promise)
    // Asked once: the second certificate is missing from every later answer (and only here is it told at all).
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) throw new ProtocolError('bad-handshake', 'the peer sent no certificate')
    if (certificate.issuerCertificate !== undefined) {
      throw new ProtocolError('bad-handshake', 'the peer sent more than one certificate')
    }
    const remoteKey = await until(verifyCertificate(certificate.raw, { env, crypto, expectedPeer }))
    const alpn = socket.alpnProtocol
    // A peer without ALPN negotiates the muxer over the wire, like one that chose "libp2p".
    const muxer = alpn === false || alpn === null || alpn === 'libp2p' ? undefined : alpn
    if (muxer !== undefined && !muxers.includes(muxer)) throw noMuxer(`the peer chose ${muxer.slice(0, 100)}`)
    if (socket.destroyed || socket.readableEnded) throw ended()
    verified = true
    return { wire, remotePeer: remoteKey.peerId, remoteKey, muxer }
  }
}
