/*
 * How others see us: which of our listen addresses has which address outside, as a machine without a clock. What one peer
 * says is worth nothing; an address counts once peers of four groups agree (go-libp2p ActivationThresh), a group being
 * what one party can hold: an IPv4 /16, an IPv6 /32. A group has one vote for each listen address, its latest: that bounds
 * memory too. A vote lasts while a connection of the group stands behind it, and 40 minutes more.
 */
import { isGlobal, isLoopback, isUnspecified, parseIp } from '../ip.ts'
import { hostPort, type HostPort, type Multiaddr } from '../multiaddr.ts'

export interface ObservedOptions {
  /** Groups that must agree. Default 4. */
  threshold?: number
  /** Default 40 minutes. */
  lastingMs?: number
  /** Votes in all; the one that ends first makes room. Default 1,024. */
  maxVotes?: number
}

const defaults = { threshold: 4, lastingMs: 40 * 60_000, maxVotes: 1_024 } satisfies Required<ObservedOptions>

/** Outside addresses of one listen address (go-libp2p maxExternalThinWaistAddrsPerLocalAddr). */
const maxOutside = 3

/** What a peer said: `observed` is our end of its connection with us as it sees it. */
export interface Observation {
  connection: string
  local: Multiaddr
  remote: Multiaddr
  observed: Multiaddr
}

interface Vote {
  local: string
  outside: string
  connections: Set<string>
  /** Without a connection it ends then. */
  until: number
}

/** IP and port, the part that NATs change: `/ip4/1.2.3.4/tcp/5`. Undefined where it does not start with them. */
function waist(addr: Multiaddr): { text: string; at: HostPort; ip: Uint8Array } | undefined {
  const at = hostPort(addr)
  const ip = at === undefined ? undefined : parseIp(at.host)
  if (at === undefined || ip === undefined) return undefined
  return { text: `/ip${ip.length === 4 ? 4 : 6}/${at.host}/${at.network}/${at.port}`, at, ip }
}

/** `addr` without its IP and port: `/ws` of `/ip4/1.2.3.4/tcp/5/ws`. */
function above(addr: Multiaddr): string {
  return addr.toString().split('/').slice(5).join('/')
}

function groupOf(ip: Uint8Array): string {
  return (ip.length === 4 ? ip.subarray(0, 2) : ip.subarray(0, 4)).join('.')
}

export class Observed {
  readonly #options: Required<ObservedOptions>
  /** By listen address and group; the latest last. */
  readonly #votes = new Map<string, Vote>()
  readonly #byConnection = new Map<string, string>()

  constructor(options: ObservedOptions = {}) {
    this.#options = { ...defaults, ...options }
  }

  get size(): number {
    return this.#votes.size
  }

  /** Whether it was of use: a hint to ask for `confirmed` again. `listen` are our listen addresses. */
  observe({ connection, local, remote, observed }: Observation, listen: readonly Multiaddr[], now: number): boolean {
    const outside = waist(observed)
    if (outside === undefined || isLoopback(outside.ip) || isUnspecified(outside.ip)) return false
    const [here, there] = [waist(local), waist(remote)]
    if (here === undefined || there === undefined) return false
    // A port that we do not listen on tells nothing about those that we do.
    if (!listen.some((addr) => waist(addr)?.text === here.text)) return false
    if (outside.ip.length !== here.ip.length || outside.at.network !== here.at.network || outside.at.port === 0)
      return false
    // A neighbour can't know how the internet sees us, nor the other way round.
    if (isGlobal(outside.ip) !== isGlobal(there.ip)) return false
    const key = `${here.text} ${groupOf(there.ip)}`
    this.closed(connection, now)
    const old = this.#votes.get(key)
    const connections = old?.outside === outside.text ? old.connections : new Set<string>()
    if (old !== undefined && old.outside !== outside.text) this.#drop(key, old)
    this.#votes.delete(key)
    this.#votes.set(key, {
      local: here.text,
      outside: outside.text,
      connections: connections.add(connection),
      until: now + this.#options.lastingMs,
    })
    this.#byConnection.set(connection, key)
    this.#expire(now)
    return true
  }

  /** Its vote lasts for a while. */
  closed(connection: string, now: number): void {
    const key = this.#byConnection.get(connection)
    const vote = key === undefined ? undefined : this.#votes.get(key)
    this.#byConnection.delete(connection)
    if (vote?.connections.delete(connection) === true) vote.until = now + this.#options.lastingMs
  }

  /** Listen addresses as they are outside, those with most votes first: `/ws` and the like stay. */
  confirmed(listen: readonly Multiaddr[], now: number): string[] {
    this.#expire(now)
    if (this.#votes.size === 0) return []
    const byLocal = new Map<string, Map<string, number>>()
    for (const { local, outside } of this.#votes.values()) {
      const counts = byLocal.get(local) ?? new Map<string, number>()
      byLocal.set(local, counts.set(outside, (counts.get(outside) ?? 0) + 1))
    }
    return listen.flatMap((addr) => {
      const counts = byLocal.get(waist(addr)?.text ?? '') ?? new Map<string, number>()
      return [...counts]
        .filter(([, count]) => count >= this.#options.threshold)
        .toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
        .slice(0, maxOutside)
        .map(([outside]) => [outside, above(addr)].filter((part) => part !== '').join('/'))
    })
  }

  /** When the next vote ends; Infinity when none does. */
  get deadline(): number {
    let at = Infinity
    for (const { connections, until } of this.#votes.values()) if (connections.size === 0) at = Math.min(at, until)
    return at
  }

  #expire(now: number): void {
    for (const [key, vote] of this.#votes) {
      if (vote.connections.size === 0 && vote.until <= now) this.#drop(key, vote)
    }
    for (const [key, vote] of this.#votes) {
      if (this.#votes.size <= this.#options.maxVotes) return
      this.#drop(key, vote)
    }
  }

  #drop(key: string, vote: Vote): void {
    this.#votes.delete(key)
    for (const connection of vote.connections) this.#byConnection.delete(connection)
  }
}
