/* What a WebSocket transport may be told, and what each platform has to bring. */
import { concat, empty } from '../../bytes.ts'
import type { Env } from '../../env.ts'
import type { Multiaddr } from '../../multiaddr.ts'
import type { Listener, RawConnection, TransportConnection } from '../transport.ts'
import type { Target } from './address.ts'

/** PEM, as text or bytes. */
export interface WebSocketCertificate {
  cert: string | Uint8Array
  key: string | Uint8Array
}

/** Node only: browsers have their own certificates and ask nobody. */
export interface WebSocketTls extends Partial<WebSocketCertificate> {
  /** PEM of authorities to trust instead of the platform's, for dialling. */
  ca?: string | Uint8Array | readonly (string | Uint8Array)[]
  /** False dials servers whose certificate nobody vouches for: Noise still proves the peer. Default true. */
  rejectUnauthorized?: boolean
}

export interface WebSocketOptions {
  env?: Env
  /** From the call of dial to the finished upgrade. Default 15 s (go-libp2p). */
  dialTimeoutMs?: number
  /** Bytes that may wait in this process for the wire, per connection. Default 256 KiB; in browsers 1 MiB. */
  highWaterBytes?: number
  /** Bytes of one message of the peer's; a longer one ends the connection. Default 1 MiB. */
  maxMessageBytes?: number
  /** Browsers cannot pause a WebSocket: bytes that may wait unread until the connection is given up. Default 32 MiB. */
  maxUnreadBytes?: number
  /** What an inbound connection has for TLS and its upgrade request. Default 10 s (go-libp2p has 60 s). */
  upgradeTimeoutMs?: number
  /** Inbound connections that are not upgraded yet; one more costs the oldest of the host that has most. Default 128. */
  maxPendingUpgrades?: number
  /** Bytes of an upgrade request's headers. Default 8 KiB. */
  maxHeaderBytes?: number
  /** Connections the kernel holds until we accept them. Default 511 (Node's own). */
  backlog?: number
  /** For /tls/ws: `cert` and `key` to listen, `ca` and `rejectUnauthorized` to dial. */
  tls?: WebSocketTls
}

export const defaults = {
  dialTimeoutMs: 15_000,
  highWaterBytes: 256 * 1024,
  maxMessageBytes: 1024 * 1024,
  maxUnreadBytes: 32 * 1024 * 1024,
  upgradeTimeoutMs: 10_000,
  maxPendingUpgrades: 128,
  maxHeaderBytes: 8 * 1024,
  backlog: 511,
} satisfies Omit<Required<WebSocketOptions>, 'env' | 'tls'>

export type Settings = typeof defaults & {
  env: Env
  tls: WebSocketTls
  /** Listeners that present the certificate: called when it is another one. */
  reloads: Set<(certificate: WebSocketCertificate) => void>
}

/** What `#websocket` is. */
export interface Platform {
  dial(to: Target, addr: Multiaddr, outer: AbortSignal, settings: Settings): Promise<RawConnection>
  /** Undefined where nobody can listen. */
  listen:
    | ((
        at: Target,
        addr: Multiaddr,
        onConnection: (connection: TransportConnection) => void,
        settings: Settings,
      ) => Promise<Listener>)
    | undefined
  /** What the platform does better with. */
  defaults: Partial<typeof defaults>
}

/** Bytes of a message of ours: what a Noise record needs, and what a browser hands on quickly. */
export const messageBytes = 128 * 1024

/** Chunks up to this many bytes share a message with their neighbours. */
export const gatherBytes = 16 * 1024

/** RFC 6455 §7.4.1: normal closure, going away (a page that is left), and no code at all. Everything else is a reset. */
export const isCleanCode = (code: number): boolean => code === 1000 || code === 1001 || code === 1005

/** The chunks of one write as the messages that carry them: small ones together, large ones cut, nothing empty. */
export function* messages(chunks: readonly Uint8Array[]): Generator<Uint8Array> {
  let small: Uint8Array[] = []
  let size = 0
  for (const chunk of chunks) {
    const { length } = chunk
    if (size > 0 && (length > gatherBytes || size + length > messageBytes)) {
      yield gathered(small)
      small = []
      size = 0
    }
    if (length > gatherBytes) {
      for (let at = 0; at < length; at += messageBytes) {
        yield length <= messageBytes ? chunk : chunk.subarray(at, at + messageBytes)
      }
    } else if (length > 0) {
      small.push(chunk)
      size += length
    }
  }
  if (size > 0) yield gathered(small)
}

const gathered = (chunks: Uint8Array[]): Uint8Array => (chunks.length === 1 ? (chunks[0] ?? empty) : concat(chunks))
