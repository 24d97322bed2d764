/*
 * What the node is to the protocols above it: Connection and Host. Bitswap, identify, the DHT and users' own protocols
 * are written against this file; node.ts implements it, a test may too.
 */
import type { Env } from './env.ts'
import type { Attempt } from './errors.ts'
import type { AcceptVersion, Version } from './protocols/multistream/semver.ts'
import type { CloseInfo, Stream } from './stream.ts'
import type { Multiaddr } from './multiaddr.ts'
import type { PeerId } from './peer/id.ts'

/** A secured, multiplexed connection with an authenticated peer, whatever transport it came by. */
export interface Connection {
  readonly id: string
  readonly direction: 'inbound' | 'outbound'
  readonly peer: PeerId
  /** Getters: QUIC may migrate. Without /p2p. */
  readonly localAddr: Multiaddr
  readonly remoteAddr: Multiaddr
  /** `tcp`, `memory`, ... */
  readonly transport: string
  /** `/noise`, `/tls/1.0.0`, or what the transport brought with it. */
  readonly security: string
  /** `/yamux/1.0.0`, or what the transport brought with it. */
  readonly muxer: string
  /** Set on a relayed connection with a budget: only protocols registered with `limited: true` may use it. */
  readonly limited: { bytes: number; untilMs: number } | undefined
  /** Unix milliseconds. */
  readonly openedAt: number
  readonly rttMs: number | undefined
  readonly bytesIn: number
  readonly bytesOut: number
  readonly streams: readonly ProtocolStream[]
  /** Protocol ids that identify announced; undefined before identify is done or when it failed. */
  readonly protocols: readonly string[] | undefined
  readonly agent: string | undefined
  /** Rejects with UnavailableError `no-protocol`, ProtocolError, LimitError, TimeoutError, ClosedError or signal.reason. */
  newStream(protocols: ConnectionProtocols, options?: NewStreamOptions): Promise<ProtocolStream>
  /** Lets what was written leave, tells the peer, closes. */
  close(code?: number): Promise<void>
  abort(code?: number, reason?: Error): void
  readonly closed: Promise<CloseInfo>
}

/** An exact id, ids in the order of our liking, or a version range of one protocol. */
export type ConnectionProtocols = string | readonly string[] | ProtocolQuery

/** Chooses the highest id that identify announced and this allows; waits for an identify that is under way. */
export interface ProtocolQuery {
  /** The ids without their version: `/app` for `/app/1.4.0`. */
  name: string
  /** In node-semver's grammar; default every release. */
  range?: string | ((version: Version) => boolean)
  /** What the peer must be able to do under the chosen id, as it tells itself in `/rhiza/capabilities/1.0.0`. */
  requires?: readonly string[]
  /** Ids to try in this order when identify announced none that is allowed; at most 64. */
  candidates?: readonly string[]
}

/** A stream whose protocol is negotiated. */
export interface ProtocolStream extends Stream {
  readonly protocol: string
  readonly direction: 'inbound' | 'outbound'
  /** Ids that were liked better than `protocol`, and why each was not to be had. */
  readonly tried?: readonly Attempt[]
}

export interface NewStreamOptions {
  signal?: AbortSignal
  /** Dial and negotiation together; default: what the node gives each (15 s and 10 s). */
  timeoutMs?: number
  priority?: number
  /** May run over a relayed connection with a budget. */
  limited?: boolean
  /**
   * Takes it that the peer has the (first) protocol, as if it had announced it: its agreement is not waited for, and a
   * refusal, UnavailableError `no-protocol`, comes from the first read. Default: only what identify has announced.
   */
  optimistic?: boolean
}

export interface StreamContext {
  connection: Connection
  protocol: string
  /** Aborts when the stream or the node ends. */
  signal: AbortSignal
}

/** May be async; when it throws or rejects, the stream is reset and the error is traced: nobody else is hurt. */
export type StreamHandler = (stream: ProtocolStream, context: StreamContext) => void | Promise<void>

export interface HandleOptions {
  /** Ours: the ids handled are then `NAME/VERSION`, and identify announces exactly those. */
  version?: string
  /**
   * Other versions of the same name that are served too: a range in node-semver's grammar, or a predicate (sameMinor and
   * sameMajor are two). The peer gets its own id back, the handler sees it as `stream.protocol`. An exact id comes
   * before a range, among ranges the handler with the highest version comes first.
   */
  accepts?: string | AcceptVersion
  /** What `requires` of a peer's newStream may ask for; at most 32, of up to 64 bytes. */
  capabilities?: readonly string[]
  /** Also over relayed connections with a budget. */
  limited?: boolean
  /** Only over these transports. */
  transports?: readonly string[]
  /** Inbound streams of this handler open at a time on one connection, in all versions; one more is reset. Default 256. */
  maxInboundStreams?: number
}

/** Whether others can dial a node from outside of its own network. */
export type Reachability = 'unknown' | 'public' | 'private'

export interface HostEvents {
  /** First connection to this peer. */
  'peer:connect': PeerId
  /** Last connection to this peer is gone. */
  'peer:disconnect': PeerId
  'connection:open': Connection
  'connection:close': Connection
  /** Identify is done (again): `connection.protocols` is known. */
  'peer:identify': { peer: PeerId; connection: Connection }
  /** Whether others can dial us is another than before. */
  reachability: Reachability
}

/** A peer, or where it is; several addresses are those of one peer. */
export type DialTarget = PeerId | Multiaddr | string | readonly (Multiaddr | string)[]

export interface Host {
  readonly peerId: PeerId
  readonly env: Env
  /** Throws TypeError when the id is taken, or the version or its range is none. */
  handle(protocol: string | readonly string[], handler: StreamHandler, options?: HandleOptions): void
  /** Ids, or names of which every version goes. */
  unhandle(protocol: string | readonly string[]): void
  /** Dials when there is no connection. Rejects with UnavailableError, TimeoutError, ClosedError or signal.reason. */
  newStream(
    peer: PeerId | Multiaddr | string,
    protocols: ConnectionProtocols,
    options?: NewStreamOptions,
  ): Promise<ProtocolStream>
  /** The connection with the peer that is open, or a new one. `force`: also addresses that failed a moment ago. */
  dial(to: DialTarget, options?: { signal?: AbortSignal; timeoutMs?: number; force?: boolean }): Promise<Connection>
  hangUp(peer: PeerId | Multiaddr | string): Promise<void>
  /** All open connections, or those with one peer, the best first. */
  connections(peer?: PeerId): readonly Connection[]
  /** Returns the undo. A listener that throws hurts nobody else. */
  on<K extends keyof HostEvents>(event: K, listener: (detail: HostEvents[K]) => void): () => void
}
