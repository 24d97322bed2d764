/*
 * Bootstrap: peers known beforehand, dialled while few are connected. Who does not answer is tried again ever less
 * often. Where none of the list answers, peers that we met before a restart may (the address book knows them).
 */
import { sleep } from '../deadline.ts'
import { asError } from '../errors.ts'
import { multiaddr, type Multiaddr } from '../multiaddr.ts'
import type { Discovery, DiscoveryHost, Found } from './discovery.ts'

/** Where the public IPFS network (Amino) is entered (Kubo's list). Used only where somebody asks for it. */
export const aminoBootstrap: readonly string[] = [
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN',
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa',
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb',
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt',
  '/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8',
  '/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ',
]

export interface BootstrapOptions {
  /** Enough are connected: nobody is dialled. Default 4 (Kubo). */
  minPeers?: number
  /** Dials at a time. Default 4. */
  maxDials?: number
  /** After the first failure; twice as long after each further one. Default 1 s. */
  retryMs?: number
  /** Default 5 min. */
  maxRetryMs?: number
  /** Looks at how many are connected, besides when one is lost. Default 30 s (Kubo). */
  checkMs?: number
  /** For one dial. Default 15 s. */
  dialTimeoutMs?: number
  /** Peers of the address book that are tried once a round when nobody of the list answers. Default 8. */
  remembered?: number
}

const defaults = {
  minPeers: 4,
  maxDials: 4,
  retryMs: 1_000,
  maxRetryMs: 300_000,
  checkMs: 30_000,
  dialTimeoutMs: 15_000,
  remembered: 8,
}

interface Entry {
  /** Several addresses of one peer, or one that names no peer. */
  readonly addrs: readonly Multiaddr[]
  failures: number
  dueAt: number
}

function entriesOf(addrs: readonly (string | Multiaddr)[]): Entry[] {
  const grouped = new Map<string, Multiaddr[]>()
  for (const addr of addrs.map((given) => multiaddr(given))) {
    const key = addr.peerId()?.toString() ?? addr.toString()
    grouped.set(key, [...(grouped.get(key) ?? []), addr])
  }
  return [...grouped.values()].map((of) => ({ addrs: of, failures: 0, dueAt: -Infinity }))
}

/** `addrs`: multiaddrs, with /p2p or without, names (/dnsaddr) too. Throws TypeError for what is none. */
export function bootstrap(addrs: readonly (string | Multiaddr)[], options: BootstrapOptions = {}): Discovery {
  const settings = { ...defaults, ...options }
  const { minPeers, maxDials, retryMs, maxRetryMs, checkMs, dialTimeoutMs, remembered } = settings
  entriesOf(addrs)

  async function* find(host: DiscoveryHost, signal: AbortSignal): AsyncGenerator<Found, void, undefined> {
    const { clock, random } = host.env
    const entries = entriesOf(addrs).filter(({ addrs: [addr] }) => addr?.peerId()?.equals(host.peerId) !== true)
    const peers = (): Set<string> => new Set(host.connections().map(({ peer }) => peer.toString()))
    let wake = new AbortController()
    const off = host.on('peer:disconnect', () => wake.abort(new Error('a peer is lost')))

    async function dial(entry: Entry): Promise<Found | undefined> {
      try {
        // Our own waiting is enough: an address that failed a moment ago may be tried again.
        const { peer, remoteAddr } = await host.dial(entry.addrs, { signal, timeoutMs: dialTimeoutMs, force: true })
        entry.failures = 0
        return { peer, addrs: [remoteAddr] }
      } catch (thrown) {
        const waitMs = Math.min(maxRetryMs, retryMs * 2 ** entry.failures) * (0.75 + random.unit() / 2)
        entry.failures = Math.min(entry.failures + 1, 30)
        entry.dueAt = clock.now() + waitMs
        const to = entry.addrs.map(String).join()
        host.env.trace?.('discovery.bootstrap-failed', { to, waitMs, error: asError(thrown) })
        return undefined
      }
    }

    /** Those of the list that may be dialled now, in no order: not all nodes shall ask the same one first. */
    function due(connected: ReadonlySet<string>): Entry[] {
      const now = clock.now()
      const open = entries.filter(({ addrs: [addr], dueAt }) => {
        const peer = addr?.peerId()?.toString()
        return dueAt <= now && (peer === undefined || !connected.has(peer))
      })
      return open
        .map((entry) => ({ entry, at: random.unit() }))
        .toSorted((a, b) => a.at - b.at)
        .map(({ entry }) => entry)
    }

    try {
      while (!signal.aborted) {
        wake = new AbortController()
        const connected = peers()
        const lack = minPeers - connected.size
        if (lack > 0) {
          const chosen = due(connected).slice(0, Math.min(lack, maxDials))
          const found = await Promise.all(chosen.map(dial))
          for (const one of found) {
            if (one === undefined) continue
            const entry = chosen[found.indexOf(one)]
            // Without a peer id we can not tell that it is connected already.
            if (entry !== undefined)
              entry.dueAt = entry.addrs[0]?.peerId() === undefined ? clock.now() + checkMs : -Infinity
            yield one
          }
          if (!signal.aborted && peers().size === 0 && remembered > 0) {
            for (const peer of host.book.peers().slice(-remembered)) yield { peer, addrs: [] }
          }
        }
        if (signal.aborted) return
        const now = clock.now()
        const still = peers().size < minPeers
        const next = Math.min(...(still ? entries.map(({ dueAt }) => (dueAt > now ? dueAt : Infinity)) : [Infinity]))
        const waitMs = Math.min(checkMs, Math.max(retryMs / 2, next - now))
        await sleep(host.env, waitMs, AbortSignal.any([signal, wake.signal])).catch(() => {})
      }
    } finally {
      off()
    }
  }

  return { source: 'bootstrap', find }
}
