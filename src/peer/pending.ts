/*
 * Inbound connections that have not said who they are. When there are too many, the oldest of the host that has most
 * makes room: a flood from one place costs itself, and nobody can hold every place by saying nothing.
 */
import { formatIp } from '../ip.ts'
import { hostPort, ipOf, type Multiaddr } from '../multiaddr.ts'

/** What counts as one host: an IPv4 address, an IPv6 network of 64 bits (one customer), or the whole address. */
export function hostOf(addr: Multiaddr): string {
  const ip = hostPort(addr) && ipOf(addr)
  if (ip === undefined) return addr.toString()
  return formatIp(ip.length === 4 ? ip : ip.slice().fill(0, 8))
}

export class PendingInbound<T> {
  readonly #max: number
  /** By host, in the order they came. */
  readonly #byHost = new Map<string, Set<T>>()
  #size = 0

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#size
  }

  *values(): Generator<T> {
    for (const all of this.#byHost.values()) yield* all
  }

  /** Takes `one` in; gives back the one that has to go for it, which may be `one` itself where none is allowed. */
  add(host: string, one: T): T | undefined {
    const of = this.#byHost.get(host) ?? new Set<T>()
    this.#byHost.set(host, of)
    of.add(one)
    if (++this.#size <= this.#max) return undefined
    let most = of
    let from = host
    for (const [name, all] of this.#byHost) if (all.size > most.size) [from, most] = [name, all]
    const [oldest] = most
    if (oldest !== undefined) this.delete(from, oldest)
    return oldest
  }

  delete(host: string, one: T): void {
    const of = this.#byHost.get(host)
    if (of?.delete(one) !== true) return
    this.#size--
    if (of.size === 0) this.#byHost.delete(host)
  }
}
