/* Dialling: a peer or an address becomes a connection. */
import type { UpgradedConnection } from '../connection/connection.ts'
import type { Connections } from '../connection/connections.ts'
import { deadline } from '../deadline.ts'
import { Dials } from './dials.ts'
import { ClosedError, ProtocolError, UnavailableError } from '../errors.ts'
import { cleanClose } from '../inbox.ts'
import { multiaddr, type Multiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import { transportNames, type Transport } from '../transport/transport.ts'
import { upgrade, type Upgrade } from '../connection/upgrade.ts'

/** A dial target as its two halves. */
export interface Target {
  addr: Multiaddr | undefined
  peer: PeerId | undefined
}

export function target(to: PeerId | Multiaddr | string): Target {
  if (to instanceof PeerId) return { addr: undefined, peer: to }
  if (typeof to === 'string' && !to.startsWith('/')) return { addr: undefined, peer: PeerId.parse(to) }
  const addr = multiaddr(to)
  return { addr, peer: addr.peerId() }
}

export interface DialOptions {
  signal?: AbortSignal
  timeoutMs?: number
}

/** How a dial fails when a web server, an SSH server or the wrong port answers. */
const notLibp2p: ReadonlySet<string> = new Set(['oversized', 'truncated', 'bad-negotiation', 'bad-varint', 'bad-utf8'])

export class Dialer {
  readonly #self: PeerId
  readonly #transports: readonly Transport[]
  readonly #upgrade: Upgrade
  readonly #connections: Connections
  readonly #dials = new Dials<UpgradedConnection>((addr, signal) =>
    this.#connections.underWay(this.#connect(multiaddr(addr), signal)),
  )

  constructor(self: PeerId, transports: readonly Transport[], by: Upgrade, connections: Connections) {
    this.#self = self
    this.#transports = transports
    this.#upgrade = by
    this.#connections = connections
  }

  /** Ends the dials under way. */
  abort(reason: Error): void {
    this.#dials.abort(reason)
  }

  /** The best open connection with the peer, or a new one. */
  async dial(
    { addr, peer }: Target,
    { signal, timeoutMs = this.#upgrade.timeoutMs }: DialOptions,
  ): Promise<UpgradedConnection> {
    signal?.throwIfAborted()
    if (this.#connections.stopping) throw new ClosedError('the node is stopping', cleanClose, 'stopped')
    const open = this.#connections.best(peer)
    if (open !== undefined) return open
    if (peer?.equals(this.#self) === true) throw new TypeError('a node can not dial itself')
    // Callers that share an attempt each have a deadline of their own.
    const bound = deadline({ env: this.#upgrade.env, timeoutMs, what: `dialling ${addr ?? peer}`, signal })
    const id = peer?.toString()
    try {
      const dialling =
        addr === undefined
          ? this.#dials.toPeer(String(id), bound.signal)
          : this.#dials.to(String(addr), id, bound.signal)
      if (dialling !== undefined) return await dialling
      throw new UnavailableError('no-address', `no connection to ${id} and no address of it; dial a multiaddr`)
    } finally {
      bound.done()
    }
  }

  async #connect(addr: Multiaddr, signal: AbortSignal): Promise<UpgradedConnection> {
    const bare = addr.withoutPeer()
    const transport = this.#transports.find((t) => t.canDial(bare))
    if (transport === undefined) {
      const have = transportNames(this.#transports)
      throw new UnavailableError('no-transport', `no transport can dial ${addr}; have ${have}`)
    }
    const refusal = this.#connections.refusal()
    if (refusal !== undefined) throw refusal
    const carrier = await transport.dial(bare, { signal })
    const options = { ...this.#upgrade, signal, expectedPeer: addr.peerId() }
    const upgraded = await upgrade(carrier, 'initiator', options).catch((error: unknown) => {
      if (!(error instanceof ProtocolError) || !notLibp2p.has(error.code)) throw error
      const message = `what listens at ${addr} does not speak libp2p: ${error.message}`
      throw new ProtocolError(error.code, message, { cause: error })
    })
    return this.#connections.add(upgraded, carrier, 'outbound', transport.name)
  }
}
