/*
 * In which order, and how long after the first, the addresses of a peer are dialled: go-libp2p's DefaultDialRanker
 * (v0.4x; no spec says it). QUIC comes first, TCP a moment later, a relay when the direct way does not answer; of each
 * kind one IPv6 and one IPv4 address go ahead of the rest (Happy Eyeballs, RFC 8305).
 */
import type { Attempt } from '../errors.ts'
import { isGlobal, isUnspecified } from '../ip.ts'
import { hostComponent, hostPort, ipOf, type Multiaddr } from '../multiaddr.ts'

export interface Ranked {
  addr: Multiaddr
  /** After the first address; shorter when those before it fail. */
  delayMs: number
  /** For this address alone. */
  timeoutMs: number
}

export interface RankOptions {
  /** Addresses that no transport can dial are left out. */
  canDial(addr: Multiaddr): boolean
  /** Without /p2p: where we listen ourselves, no other peer does. */
  own: readonly Multiaddr[]
}

interface Delays {
  quic: number
  tcp: number
  other: number
}

const publicMs: Delays = { quic: 250, tcp: 250, other: 1_000 }
const privateMs: Delays = { quic: 30, tcp: 30, other: 100 }
const relayMs = 500
const timeoutMs = 15_000
/** In our own network an answer comes soon or never. */
const nearTimeoutMs = 5_000

type Scope = 'private' | 'public' | 'relay' | 'elsewhere'
type Kind = keyof Delays

interface Judged {
  addr: Multiaddr
  scope: Scope
  kind: Kind
  /** What goes ahead of what within a kind. */
  order: readonly number[]
  ip: 4 | 6 | undefined
}

const names = (addr: Multiaddr): Set<string> => new Set(addr.components().map(({ name }) => name))

/** Not that of a name, which is dialled by name. A WebSocket's address has one without a port, too. */
function hostIp(addr: Multiaddr): Uint8Array | undefined {
  return hostComponent(addr)?.name.startsWith('ip') === true ? ipOf(addr) : undefined
}

function scopeOf(has: Set<string>, ip: Uint8Array | undefined): Scope {
  if (has.has('p2p-circuit')) return 'relay'
  if (ip !== undefined) return isGlobal(ip) ? 'public' : 'private'
  // A name that is left as it is: a transport dials it by name.
  return has.has('dns') || has.has('dns4') || has.has('dns6') ? 'public' : 'elsewhere'
}

function judge(addr: Multiaddr): Judged {
  const has = names(addr)
  const ip = hostIp(addr)
  const quic = has.has('quic-v1') || has.has('quic') || has.has('webtransport')
  const web = has.has('ws') || has.has('wss')
  const kind = quic ? 'quic' : has.has('tcp') || web ? 'tcp' : 'other'
  const layers = Number(has.has('webtransport')) + Number(web) + Number(web && !has.has('tls') && !has.has('wss'))
  // A low port was more likely chosen by a person than by a NAT.
  const order = [layers, ip?.length === 16 ? 0 : 1, hostPort(addr)?.port ?? 0]
  return { addr, scope: scopeOf(has, ip), kind, order, ip: ip && (ip.length === 16 ? 6 : 4) }
}

function compare(a: Judged, b: Judged): number {
  for (const [i, x] of a.order.entries()) {
    const y = b.order[i] ?? 0
    if (x !== y) return x - y
  }
  return 0
}

/** Those of one kind: the first at once, an IPv4 address after an IPv6 one a step later, the rest another step later. */
function stagger(all: readonly Judged[], stepMs: number): [Judged, number][] {
  const sorted = all.toSorted(compare)
  const four = sorted.findIndex(({ ip }) => ip === 4)
  const eyeballs = sorted[0]?.ip === 6 && four > 0
  if (eyeballs) sorted.splice(1, 0, ...sorted.splice(four, 1))
  return sorted.map((one, i) => [one, Math.min(i, eyeballs ? 2 : 1) * stepMs])
}

function delaysOf(all: readonly Judged[], steps: Delays, sinceMs: number): [Judged, number][] {
  const out: [Judged, number][] = []
  for (const kind of ['quic', 'tcp', 'other'] as const) {
    const last = out.at(-1)?.[1]
    const from = last === undefined ? sinceMs : last + steps[kind]
    for (const [one, ms] of stagger(
      all.filter((a) => a.kind === kind),
      steps[kind],
    )) {
      out.push([one, from + ms])
    }
  }
  return out
}

/** The addresses worth dialling, the first first, and why the others are not. Each address stands in one of the two. */
export function rank(addrs: readonly Multiaddr[], options: RankOptions): { ranked: Ranked[]; leftOut: Attempt[] } {
  const leftOut: Attempt[] = []
  const wanted = new Map<string, Judged>()
  const own = new Set(options.own.map(String))
  const omit = (addr: Multiaddr, reason: string): void => void leftOut.push({ what: String(addr), reason })
  const seen = new Set<string>()
  for (const addr of addrs) {
    const text = String(addr)
    if (seen.has(text)) continue
    seen.add(text)
    const bare = addr.withoutPeer()
    const ip = hostIp(addr)
    if (own.has(String(bare))) omit(addr, 'we listen there ourselves')
    else if (ip !== undefined && isUnspecified(ip)) omit(addr, 'the wildcard is the address of nobody')
    else if (bare.peerId() !== undefined) omit(addr, 'it names two peers')
    else if (!options.canDial(bare)) omit(addr, 'no transport can dial it')
    else wanted.set(text, judge(addr))
  }
  const of = (scope: Scope): Judged[] => [...wanted.values()].filter((one) => one.scope === scope)
  const direct = [...delaysOf(of('private'), privateMs, 0), ...delaysOf(of('public'), publicMs, 0)]
  // Private addresses of a peer elsewhere lead nowhere: only public ones hold the relay back.
  const relayed = delaysOf(of('relay'), publicMs, of('public').length > 0 ? relayMs : 0)
  const known = [...direct, ...relayed]
  const rest = known.length === 0 ? 0 : Math.max(...known.map(([, ms]) => ms)) + publicMs.other
  for (const one of of('elsewhere')) known.push([one, rest])
  const ranked = known.map(([{ addr, scope }, delayMs]) => ({
    addr,
    delayMs,
    timeoutMs: scope === 'private' ? nearTimeoutMs : timeoutMs,
  }))
  return { ranked: ranked.toSorted((a, b) => a.delayMs - b.delayMs), leftOut }
}
