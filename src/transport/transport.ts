/*
 * What every transport is to the rest of the house. TCP, WebSocket, memory and relayed circuits hand over a raw Stream
 * that connection.ts upgrades; QUIC, WebTransport and WebRTC hand over a ready Muxer with an authenticated peer.
 */
import type { PeerId } from '../peer/id.ts'
import type { Muxer, Stream } from '../stream.ts'
import type { Multiaddr } from '../multiaddr.ts'

interface Addressed {
  /** Our end; a getter, because QUIC may migrate. */
  readonly localAddr: Multiaddr
  /** The peer's end as we see it, without /p2p. */
  readonly remoteAddr: Multiaddr
  /** Set where a relay allows only so much. */
  readonly limited?: { bytes: number; untilMs: number }
}

/** Not secured, not multiplexed yet. */
export interface RawConnection extends Addressed {
  readonly kind: 'raw'
  readonly stream: Stream
}

/** Secured and multiplexed by the transport itself. */
export interface MuxedConnection extends Addressed {
  readonly kind: 'muxed'
  readonly peer: PeerId
  readonly muxer: Muxer
  readonly security: string
}

export type TransportConnection = RawConnection | MuxedConnection

export interface Listener {
  /** Real addresses: port 0 and wildcard addresses resolved to what peers can dial. Without /p2p. */
  addrs(): Multiaddr[]
  /** Certhashes, reservations, mappings and network interfaces change addresses. Returns the undo. */
  onAddrs(changed: () => void): () => void
  /** No more connections are taken; those that are open stay. */
  close(): Promise<void>
}

export interface Transport {
  /** `tcp`, `memory`, ...: the name in Connection.transport and in `handle`'s `transports` option. */
  readonly name: string
  canDial(addr: Multiaddr): boolean
  canListen(addr: Multiaddr): boolean
  /** Rejects with UnavailableError, TimeoutError or signal.reason. The socket of a dial that failed is gone. */
  dial(addr: Multiaddr, options: { signal: AbortSignal }): Promise<TransportConnection>
  /** Rejects with UnavailableError `refused` and the reason: port taken, address not ours, not permitted. */
  listen(addr: Multiaddr, onConnection: (connection: TransportConnection) => void): Promise<Listener>
}

/** For messages: what there is to choose from. */
export function transportNames(transports: readonly Transport[]): string {
  return transports.map((t) => t.name).join(', ') || 'none'
}
