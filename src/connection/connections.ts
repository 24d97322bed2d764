/*
 * The open connections of a node, and those on their way. One connection per peer is reused; when two exist (both
 * dialled at once) both stay valid: new streams go to the best (direct before limited, then oldest), a spare closes
 * once it has long had no stream.
 */
import { codeOfConnection, codeText, connectionCode } from '../close-codes.ts'
import { UpgradedConnection } from './connection.ts'
import type { Env, Timer } from '../env.ts'
import { ClosedError, LimitError, ProtocolError, type CloseInfo } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Handlers } from './handlers.ts'
import type { Connection, HostEvents } from '../host.ts'
import { cleanClose } from '../inbox.ts'
import type { PeerId } from '../peer/id.ts'
import type { TransportConnection } from '../transport/transport.ts'
import type { Upgraded } from './upgrade.ts'

export interface ConnectionsOptions {
  maxConnections: number
  maxConnectionsPerPeer: number
  spareGraceMs: number
  negotiationTimeoutMs: number
}

interface Around {
  env: Env
  self: PeerId
  handlers: Handlers
  events: Events<HostEvents>
}

function rank(a: Connection, b: Connection): number {
  return Number(a.limited !== undefined) - Number(b.limited !== undefined) || a.openedAt - b.openedAt
}

export class Connections {
  readonly #options: ConnectionsOptions
  readonly #around: Around
  readonly #byPeer = new Map<string, UpgradedConnection[]>()
  readonly #spareTimers = new Map<UpgradedConnection, Timer>()
  /** Handshakes under way, in both directions: stop() waits for their end. */
  readonly #upgrading = new Set<Promise<unknown>>()
  #count = 0
  /** No connection comes any more. */
  stopping = false

  constructor(options: ConnectionsOptions, around: Around) {
    this.#options = options
    this.#around = around
  }

  get count(): number {
    return this.#count
  }

  peers(): PeerId[] {
    return [...this.#byPeer.values()].flatMap(([first]) => (first === undefined ? [] : [first.peer]))
  }

  all(): UpgradedConnection[] {
    return [...this.#byPeer.values()].flat()
  }

  /** The best first. */
  of(peer: PeerId): readonly UpgradedConnection[] {
    const all = this.#byPeer.get(peer.toString()) ?? []
    return all.length < 2 ? all : all.toSorted(rank)
  }

  best(peer: PeerId | undefined): UpgradedConnection | undefined {
    return peer === undefined ? undefined : this.of(peer)[0]
  }

  /** Why there can't be one more, with anybody. */
  refusal(): Error | undefined {
    const { maxConnections } = this.#options
    if (this.stopping) return new ClosedError('the node is stopping', cleanClose, 'stopped')
    return this.#count < maxConnections ? undefined : new LimitError('maxConnections', maxConnections, this.#count + 1)
  }

  /** Counts a handshake as under way until it is settled. */
  underWay<T>(work: Promise<T>): Promise<T> {
    const gone = (): void => void this.#upgrading.delete(work)
    this.#upgrading.add(work)
    work.then(gone, gone)
    return work
  }

  async settled(): Promise<void> {
    await Promise.allSettled(this.#upgrading)
  }

  /** Takes a connection in and serves it. Throws LimitError, ProtocolError or ClosedError; it is then cut off. */
  add(
    upgraded: Upgraded,
    carrier: TransportConnection,
    direction: 'inbound' | 'outbound',
    transport: string,
  ): UpgradedConnection {
    const { env, events, handlers } = this.#around
    const { peer, muxer } = upgraded
    const key = peer.toString()
    const list = this.#byPeer.get(key) ?? []
    const refusal = this.refusal() ?? this.#refusalOf(peer, list.length)
    if (refusal !== undefined) {
      const code = codeOfConnection(refusal)
      muxer.abort(code, refusal)
      env.trace?.('connection.refused', { peer, direction, code, error: refusal })
      // It may take a moment to say so.
      void this.underWay(muxer.closed)
      throw refusal
    }
    const { negotiationTimeoutMs } = this.#options
    const connection = new UpgradedConnection(upgraded, carrier, direction, transport, {
      env,
      negotiationTimeoutMs,
      handlers,
    })
    list.push(connection)
    this.#byPeer.set(key, list)
    this.#count++
    const { id, security, muxer: muxerId, remoteAddr } = connection
    env.trace?.('connection.opened', {
      connection: id,
      peer,
      direction,
      remoteAddr,
      transport,
      security,
      muxer: muxerId,
    })
    void connection.closed.then((info) => this.#forget(connection, info))
    events.emit('connection:open', connection)
    if (list.length === 1) events.emit('peer:connect', peer)
    else this.#watchSpares(peer)
    void connection.serve()
    return connection
  }

  #refusalOf(peer: PeerId, open: number): Error | undefined {
    const { maxConnectionsPerPeer: max } = this.#options
    if (peer.equals(this.#around.self)) return new ProtocolError('wrong-peer', 'the peer has our own peer id')
    return open < max ? undefined : new LimitError('maxConnectionsPerPeer', max, open + 1)
  }

  #forget(connection: UpgradedConnection, { by, code, reason }: CloseInfo): void {
    const { env, events } = this.#around
    env.trace?.('connection.closed', {
      connection: connection.id,
      peer: connection.peer,
      by,
      code,
      text: codeText('connection', code),
      reason,
      ms: env.clock.wallTime() - connection.openedAt,
    })
    const key = connection.peer.toString()
    const left = (this.#byPeer.get(key) ?? []).filter((c) => c !== connection)
    this.#count--
    this.#spareTimers.get(connection)?.cancel()
    this.#spareTimers.delete(connection)
    if (left.length > 0) this.#byPeer.set(key, left)
    else this.#byPeer.delete(key)
    events.emit('connection:close', connection)
    if (left.length === 0) events.emit('peer:disconnect', connection.peer)
  }

  /**
   * One side alone decides, the one with the smaller peer id: were both to close what each holds for the spare, they
   * could close both. A stream that the peer opens meanwhile is younger than the grace and keeps the spare open.
   */
  #watchSpares(peer: PeerId): void {
    if (this.#around.self.toString() > peer.toString()) return
    for (const spare of this.of(peer).slice(1)) {
      if (!this.#spareTimers.has(spare)) this.#armSpare(spare)
    }
  }

  #armSpare(spare: UpgradedConnection): void {
    const seen = spare.streamCount
    const timer = this.#around.env.clock.setTimer(this.#options.spareGraceMs, () => {
      this.#spareTimers.delete(spare)
      if (this.best(spare.peer) === spare) return
      if (spare.streams.length === 0 && spare.streamCount === seen) void spare.close(connectionCode.supplanted)
      else this.#armSpare(spare)
    })
    this.#spareTimers.set(spare, timer)
  }
}
