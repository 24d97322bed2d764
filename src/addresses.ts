/*
 * The one place that decides what we announce: where we listen, how several peers see us, what other sources know (a
 * router's mapping, relays), or what the user said instead. Wildcard addresses come here expanded: listeners do that.
 */
import { isGlobal, isLoopback, isPrivate, isUnspecified } from './ip.ts'
import { hostComponent, ipOf, multiaddr, type Multiaddr } from './multiaddr.ts'

export interface AddressesOptions {
  /** Announced in the place of everything that we find out ourselves. */
  announce?: readonly (string | Multiaddr)[]
  /** Not announced: these addresses, what starts with them, and networks: `/ip4/10.0.0.0/ipcidr/8`. */
  noAnnounce?: readonly (string | Multiaddr)[]
}

/** Bytes of all that we announce: a record of them, and rust-libp2p's first 4 KiB of identify, must hold them. */
const maxBytes = 2 * 1024

/** How far an address reaches, as far as it tells; names reach everywhere, what has neither IP nor name is `unknown`. */
export type Reach = 'public' | 'private' | 'loopback' | 'unknown'

/** 0.0.0.0 and :: are where we listen, and no place to dial. */
function isWildcard(addr: Multiaddr): boolean {
  const ip = ipOf(addr)
  return ip !== undefined && isUnspecified(ip)
}

export function reachOf(addr: Multiaddr): Reach {
  if (hostComponent(addr)?.name.startsWith('dns') === true) return 'public'
  const ip = ipOf(addr)
  if (ip === undefined) return 'unknown'
  if (isLoopback(ip)) return 'loopback'
  if (isPrivate(ip)) return 'private'
  return isGlobal(ip) ? 'public' : 'unknown'
}

/**
 * Whether a peer at `remote` can mean us with `addr` (go-libp2p identify filterAddrs): one that comes from the internet
 * has nothing to say of our own machine and network, and a neighbour nothing of our machine.
 */
export function isPlausible(addr: Multiaddr, remote: Multiaddr): boolean {
  const [reach, from] = [reachOf(addr), reachOf(remote)]
  if (from === 'private') return reach !== 'loopback'
  return (
    from !== 'public' || reach === 'public' || (reach === 'unknown' && !addr.components()[0]?.name.startsWith('ip'))
  )
}

function covers(pattern: Multiaddr, addr: Multiaddr): boolean {
  const [net, mask] = pattern.components()
  if (mask?.name !== 'ipcidr') return `${addr}/`.startsWith(`${pattern}/`)
  const [host] = addr.components()
  if (net === undefined || host?.name !== net.name) return false
  const bits = Number(mask.value)
  return host.bytes.every(
    (byte, i) => ((byte ^ (net.bytes[i] ?? 0)) & (0xff << Math.max(0, 8 - Math.max(0, bits - 8 * i))) & 0xff) === 0,
  )
}

const order: Readonly<Record<Reach, number>> = { public: 0, unknown: 1, private: 2, loopback: 3 }

export class Addresses {
  readonly #sources = new Set<() => readonly Multiaddr[]>()
  readonly #announce: readonly Multiaddr[] | undefined
  readonly #noAnnounce: readonly Multiaddr[]
  #last = ''

  /** Throws TypeError for an address that is none, or that nobody can dial. */
  constructor({ announce, noAnnounce = [] }: AddressesOptions = {}) {
    this.#announce = announce?.map((a) => multiaddr(a).withoutPeer())
    const wild = this.#announce?.find(isWildcard)
    if (wild !== undefined) throw new TypeError(`announce ${wild}: nobody can dial the wildcard`)
    this.#noAnnounce = noAnnounce.map((a) => multiaddr(a).withoutPeer())
  }

  /** Who knows addresses of ours; asked each time, in this order. Returns the undo. */
  addSource(source: () => readonly Multiaddr[]): () => void {
    this.#sources.add(source)
    return () => void this.#sources.delete(source)
  }

  /** What we announce, without /p2p. */
  all(): Multiaddr[] {
    const found = this.#announce ?? [...this.#sources].flatMap((source) => source())
    const shown = new Map(found.map((addr) => [addr.toString(), addr]))
    for (const [text, addr] of shown) {
      if (isWildcard(addr) || this.#noAnnounce.some((no) => covers(no, addr))) shown.delete(text)
    }
    const addrs = [...shown.values()]
    let bytes = 0
    const fits = (addr: Multiaddr): boolean => (bytes += addr.bytes.length + 8) <= maxBytes
    if (addrs.every(fits)) return addrs
    bytes = 0
    return addrs.toSorted((a, b) => order[reachOf(a)] - order[reachOf(b)]).filter(fits)
  }

  /** Whether they are others than at the last call. */
  changed(): boolean {
    const now = this.all().map(String).toSorted().join(' ')
    if (now === this.#last) return false
    this.#last = now
    return true
  }
}
