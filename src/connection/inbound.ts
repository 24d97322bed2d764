/* Listening: what comes in is secured within its deadline and its limits, or refused with a reason that is traced. */
import { codeOfConnection } from '../close-codes.ts'
import type { Connections } from './connections.ts'
import { deadline } from '../deadline.ts'
import { LimitError, UnavailableError, asError } from '../errors.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { HostRate, type HostRateOptions } from '../peer/host-rate.ts'
import { PendingInbound, hostOf } from '../peer/pending.ts'
import { Turnstile } from '../turnstile.ts'
import { transportNames, type Listener, type Transport, type TransportConnection } from '../transport/transport.ts'
import { upgrade, type Upgrade } from './upgrade.ts'

export interface InboundOptions extends HostRateOptions {
  maxPendingInbound: number
}

/** Handshakes of strangers that are worked on in one turn of the event loop. */
const strangersPerTurn = 1

export class Inbound {
  readonly #transports: readonly Transport[]
  readonly #upgrade: Upgrade
  readonly #connections: Connections
  readonly #maxPending: number
  readonly #pending: PendingInbound<AbortController>
  readonly #rate: HostRate
  readonly #strangers: Turnstile
  #listeners: Listener[] = []

  constructor(transports: readonly Transport[], by: Upgrade, connections: Connections, options: InboundOptions) {
    this.#transports = transports
    this.#upgrade = by
    this.#connections = connections
    this.#maxPending = options.maxPendingInbound
    this.#pending = new PendingInbound(this.#maxPending)
    this.#rate = new HostRate(options)
    this.#strangers = new Turnstile(by.env, strangersPerTurn)
  }

  /** Where peers reach us, without /p2p. */
  addrs(): Multiaddr[] {
    return this.#listeners.flatMap((l) => l.addrs())
  }

  /** Listens on all of them, or on none: rejects with UnavailableError. `changed` hears of addresses that change. */
  async listen(addrs: readonly Multiaddr[], changed: () => void): Promise<void> {
    try {
      for (const addr of addrs) {
        const transport = this.#transports.find((t) => t.canListen(addr))
        if (transport === undefined) {
          const have = transportNames(this.#transports)
          throw new UnavailableError('no-transport', `no transport can listen on ${addr}; have ${have}`)
        }
        const listener = await transport.listen(addr, (carrier) => {
          void this.#connections.underWay(this.#accept(carrier, transport.name))
        })
        this.#listeners.push(listener)
        listener.onAddrs(changed)
      }
    } catch (error) {
      await this.closeListeners()
      throw error
    }
  }

  async closeListeners(): Promise<void> {
    await Promise.all(this.#listeners.splice(0).map((l) => l.close()))
  }

  /** Ends the handshakes under way. */
  abort(reason: Error): void {
    for (const controller of this.#pending.values()) controller.abort(reason)
  }

  async #accept(carrier: TransportConnection, transport: string): Promise<void> {
    const { env, timeoutMs } = this.#upgrade
    const refused = (reason: Error): void =>
      env.trace?.('node.inbound-refused', { remoteAddr: carrier.remoteAddr.toString(), error: reason })
    const host = hostOf(carrier.remoteAddr)
    const refusal = this.#connections.refusal() ?? this.#rate.refusal(host, env.clock.now())
    if (refusal !== undefined) {
      if (carrier.kind === 'raw') carrier.stream.reset(0, refusal)
      else carrier.muxer.abort(codeOfConnection(refusal), refusal)
      return refused(refusal)
    }
    const controller = new AbortController()
    const oldest = this.#pending.add(host, controller)
    oldest?.abort(new LimitError('maxPendingInbound', this.#maxPending, this.#maxPending + 1))
    const bound = deadline({ env, timeoutMs, what: 'an inbound handshake', signal: controller.signal })
    try {
      const upgraded = await upgrade(carrier, 'responder', {
        ...this.#upgrade,
        signal: bound.signal,
        pace: () => this.#strangers.pass(),
      })
      this.#connections.add(upgraded, carrier, 'inbound', transport)
    } catch (error) {
      // It is cut off already, with its code.
      refused(asError(error))
    } finally {
      bound.done()
      this.#pending.delete(host, controller)
    }
  }
}
