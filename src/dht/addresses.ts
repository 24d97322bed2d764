/* Which addresses belong into which network, and which IP group an address is of (as go-libp2p-kad-dht filters them). */
import { formatIp, isGlobal, isLoopback, isUnspecified, mappedIp4 } from '../ip.ts'
import { decodeMultiaddr, hostPort, ipOf, type Multiaddr } from '../multiaddr.ts'
import { ProtocolError } from '../errors.ts'

/** `wan` is the public network, `lan` the one of private addresses, `any` (private networks, tests) takes every address. */
export type Scope = 'wan' | 'lan' | 'any'

/** May `addr` be told and asked for in a network of this scope? Names count as public: whoever resolves them sees. */
export function inScope(addr: Multiaddr, scope: Scope): boolean {
  if (scope === 'any') return true
  if (hostPort(addr) === undefined) return false
  const ip = ipOf(addr)
  if (ip === undefined) return scope === 'wan'
  return scope === 'wan' ? isGlobal(ip) : !isUnspecified(ip)
}

/** The addresses among `raw` that we can read and that are in scope, without /p2p and without doubles. */
export function readAddrs(raw: readonly Uint8Array[], scope: Scope, max: number): Multiaddr[] {
  const out = new Map<string, Multiaddr>()
  for (const bytes of raw) {
    if (out.size >= max) break
    try {
      const addr = decodeMultiaddr(bytes).withoutPeer()
      if (addr.bytes.length > 0 && inScope(addr, scope)) out.set(addr.toString(), addr)
    } catch (error) {
      // Peers name addresses of transports that we do not know.
      if (!(error instanceof ProtocolError)) throw error
    }
  }
  return [...out.values()]
}

/**
 * Who is likely one operator: IPv4 networks of 16 bits (8 in the old class A ranges, which one owner has whole), IPv6
 * of 32 bits, the least that a provider gets. Undefined for addresses that are not limited: loopback, names, memory.
 */
export function groupOf(addr: Multiaddr): string | undefined {
  const ip = hostPort(addr) && ipOf(addr)
  if (ip === undefined || isLoopback(ip)) return undefined
  const four = ip.length === 4 ? ip : mappedIp4(ip)
  if (four === undefined) return formatIp(ip.slice().fill(0, 4))
  // go-libp2p-kbucket's list of /8 networks with one owner.
  const whole = [12, 17, 19, 38, 48, 56, 73, 53].includes(four[0] ?? 0)
  return whole ? `${four[0]}` : `${four[0]}.${four[1]}`
}
