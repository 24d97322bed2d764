/*
 * Protected peers: a connection with one that is lost is dialled again, ever more slowly (half a second to five
 * minutes, with jitter, so that many who lost the same peer do not come back at once), until it is there or nobody
 * protects the peer any more. A connection that we closed on purpose is not lost.
 */
import type { Connections } from '../connection/connections.ts'
import type { Env, Timer } from '../env.ts'
import { ClosedError } from '../errors.ts'
import type { Connection } from '../host.ts'
import { cleanClose } from '../inbox.ts'
import type { Multiaddr } from '../multiaddr.ts'
import type { PeerId } from '../peer/id.ts'
import type { Dialer } from './dialer.ts'

const firstMs = 1_000
const maxMs = 300_000
/** A connection that lasted this long shows that the peer is well: waiting starts anew. */
const steadyMs = 60_000
/** Addresses at which we reached a peer, the last one first. */
const keptAddrs = 4

interface Entry {
  peer: PeerId
  tags: Set<string>
  addrs: Multiaddr[]
  failures: number
  since: number
  timer?: Timer | undefined
  dialling?: AbortController | undefined
}

export class Reconnect {
  readonly #env: Env
  readonly #connections: Pick<Connections, 'of'>
  readonly #dialer: Pick<Dialer, 'dial'>
  readonly #entries = new Map<string, Entry>()
  #stopped = false

  constructor(env: Env, connections: Pick<Connections, 'of'>, dialer: Pick<Dialer, 'dial'>) {
    this.#env = env
    this.#connections = connections
    this.#dialer = dialer
  }

  /** A peer may be protected for several reasons; each tag is taken back on its own. */
  protect(peer: PeerId, tag: string): void {
    const key = peer.toString()
    const since = this.#env.clock.now()
    const entry = this.#entries.get(key) ?? { peer, tags: new Set(), addrs: [], failures: 0, since }
    this.#entries.set(key, entry)
    entry.tags.add(tag)
    for (const connection of this.#connections.of(peer)) this.opened(connection)
  }

  /** Whether the peer is still protected, by another tag. */
  unprotect(peer: PeerId, tag: string): boolean {
    const entry = this.#entries.get(peer.toString())
    entry?.tags.delete(tag)
    if (entry === undefined || entry.tags.size > 0) return entry !== undefined
    this.#entries.delete(peer.toString())
    this.#rest(entry, new ClosedError('the peer is not protected any more', cleanClose))
    return false
  }

  isProtected(peer: PeerId): boolean {
    return this.#entries.has(peer.toString())
  }

  /** Where a protected peer was reached. */
  addressesOf(peer: PeerId): readonly Multiaddr[] {
    return this.#entries.get(peer.toString())?.addrs ?? []
  }

  opened({ peer, direction, remoteAddr }: Connection): void {
    const entry = this.#entries.get(peer.toString())
    if (entry === undefined) return
    entry.since = this.#env.clock.now()
    entry.timer?.cancel()
    // An inbound connection comes from a port that nobody listens at.
    if (direction === 'inbound') return
    const addr = remoteAddr.withPeer(peer)
    entry.addrs = [addr, ...entry.addrs.filter((other) => !other.equals(addr))].slice(0, keptAddrs)
  }

  async lost(connection: Connection): Promise<void> {
    const { by, reason } = await connection.closed
    const entry = this.#entries.get(connection.peer.toString())
    if (entry === undefined || (by === 'local' && reason === undefined)) return
    if (this.#env.clock.now() - entry.since >= steadyMs) entry.failures = 0
    this.#schedule(entry)
  }

  /** Nothing is dialled until start(). */
  stop(reason: Error): void {
    this.#stopped = true
    for (const entry of this.#entries.values()) this.#rest(entry, reason)
  }

  start(): void {
    if (!this.#stopped) return
    this.#stopped = false
    for (const entry of this.#entries.values()) this.#schedule(entry)
  }

  #rest(entry: Entry, reason: Error): void {
    entry.timer?.cancel()
    entry.dialling?.abort(reason)
  }

  #schedule(entry: Entry): void {
    const { peer, failures } = entry
    if (this.#stopped || entry.dialling !== undefined || this.#connections.of(peer).length > 0) return
    entry.timer?.cancel()
    const waitMs = Math.min(maxMs, firstMs * 2 ** failures) * (0.5 + this.#env.random.unit() / 2)
    entry.failures = Math.min(failures + 1, 30)
    entry.timer = this.#env.clock.setTimer(waitMs, () => void this.#dial(entry))
  }

  async #dial(entry: Entry): Promise<void> {
    const { peer } = entry
    const controller = new AbortController()
    const { signal } = controller
    entry.dialling = controller
    try {
      // Our own waiting is enough: what failed a moment ago may be tried again.
      await this.#dialer.dial({ addrs: [], peer }, { signal, force: true })
    } catch (error) {
      this.#env.trace?.('dial.reconnect-failed', { peer: peer.toString(), error })
    }
    entry.dialling = undefined
    if (this.#entries.get(entry.peer.toString()) === entry) this.#schedule(entry)
  }
}
