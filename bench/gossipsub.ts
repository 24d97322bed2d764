/*
 * GossipSub: 10 nodes in one process, each connected to each, StrictSign, no cache shared among nodes. Deliveries of
 * 1 KiB messages as fast as they go, 100 on their way at a time; latency at 50 messages a second; large messages; what
 * 200 topics cost a node. js and go with the same protocols, mesh and thresholds (test/interop/peers).
 */
import type { Peer } from '../test/interop/peers.ts'
import { bench, interleave, progress, quantile, start, startGossip, type Kind, type Sample } from './lib.ts'

const nodes = 10
const KiB = 1024

async function storm(peer: Peer, what: { count: number; size: number; parallel?: number; perSecond?: number }) {
  const answer = await peer.call('storm', { ...what, timeoutMs: 50_000 })
  const { seconds, cpuMs, latencyMs, expected } = answer as Record<'seconds' | 'cpuMs' | 'expected', number> & {
    latencyMs: number[]
  }
  if (latencyMs.length < expected) progress(`${peer.kind}: ${latencyMs.length} of ${expected} deliveries came`)
  return { seconds, cpuMs, latencyMs, deliveries: latencyMs.length }
}

/** CPU of an idle heartbeat of one node in `topics` topics, and memory of a node; nothing where they do not all get in. */
async function idle(kind: Kind, topics: number): Promise<{ heartbeatMs: number; rss: number } | undefined> {
  const peer = await startPeers(kind)
  try {
    try {
      await peer.call('stormJoin', { count: topics, timeoutMs: 50_000 })
    } catch (error) {
      progress(`${kind} in ${topics} topics: ${String(error)}`)
      return undefined
    }
    const before = await peer.call('usage')
    const beats = 10
    await new Promise((resolve) => setTimeout(resolve, beats * 1000))
    const after = await peer.call('usage')
    const heartbeatMs = (Number(after['cpuMs']) - Number(before['cpuMs'])) / beats / nodes
    return { heartbeatMs, rss: Number(after['rssBytes']) / nodes / 1e6 }
  } finally {
    await peer.stop()
  }
}

function startPeers(kind: Kind): Promise<Peer> {
  const many = ['--nodes', String(nodes)]
  if (kind === 'rhiza') return startGossip(many)
  const pubsub = ['--bitswap', 'none', '--pubsub', 'gossip']
  // Its bound is on the whole RPC.
  return start(kind, [...many, ...pubsub, ...(kind === 'go' ? ['--pubsub-max-bytes', String(2 * KiB * KiB)] : [])])
}

void bench('gossipsub', { rounds: 5, seconds: 1500 }, async ({ rounds, kinds, scale }) => {
  const peers = new Map<string, Peer>()
  const meshDegree: Record<string, number> = {}
  try {
    for (const kind of kinds) {
      const peer = await startPeers(kind)
      peers.set(kind, peer)
      meshDegree[kind] = Number((await peer.call('stormJoin'))['meshDegree'])
    }
    const measure = async (kind: string): Promise<Sample> => {
      const peer = peers.get(kind) as Peer
      // A slower peer gets less to do, so that each takes about as long.
      const few = kind === 'js' ? 10 : 1
      const count = (of: number): number => Math.ceil((of * scale) / few)
      const fast = await storm(peer, { count: count(3000), size: KiB, parallel: 100 })
      const paced = await storm(peer, { count: Math.ceil(250 * scale), size: KiB, perSecond: 50 })
      const large = await storm(peer, { count: count(200), size: 128 * KiB, parallel: 10 })
      const huge = await storm(peer, { count: count(50), size: KiB * KiB, parallel: 2 })
      return {
        'deliveries of 1 KiB': fast.deliveries / fast.seconds,
        'CPU of 1,000 deliveries of 1 KiB': (fast.cpuMs / fast.deliveries) * 1000,
        'p50 at 50 messages/s': quantile(paced.latencyMs, 0.5),
        'p99 at 50 messages/s': quantile(paced.latencyMs, 0.99),
        'CPU of 1,000 deliveries at 50 messages/s': (paced.cpuMs / paced.deliveries) * 1000,
        'deliveries of 128 KiB': (large.deliveries * 128 * KiB) / 1e6 / large.seconds,
        'p50 of 128 KiB': quantile(large.latencyMs, 0.5),
        'deliveries of 1 MiB': (huge.deliveries * KiB * KiB) / 1e6 / huge.seconds,
        'p50 of 1 MiB': quantile(huge.latencyMs, 0.5),
      }
    }
    for (const kind of kinds) await storm(peers.get(kind) as Peer, { count: 100, size: KiB, parallel: 20 })
    const time = { unit: 'ms', better: 'lower' } as const
    const bulk = { unit: 'MB/s', better: 'higher' } as const
    const works = await interleave(
      { rounds, kinds },
      {
        'deliveries of 1 KiB': { unit: 'deliveries/s', better: 'higher' },
        'CPU of 1,000 deliveries of 1 KiB': time,
        'p50 at 50 messages/s': time,
        'p99 at 50 messages/s': time,
        'CPU of 1,000 deliveries at 50 messages/s': time,
        'deliveries of 128 KiB': bulk,
        'p50 of 128 KiB': time,
        'deliveries of 1 MiB': bulk,
        'p50 of 1 MiB': time,
      },
      measure,
    )
    for (const peer of peers.values()) await peer.stop()
    peers.clear()
    const idling = await interleave(
      { rounds: 1, kinds },
      { 'heartbeat with 200 topics': time, 'memory with 200 topics': { unit: 'MB', better: 'lower' } },
      async (kind) => {
        const cost = await idle(kind as Kind, 200)
        return cost === undefined
          ? {}
          : { 'heartbeat with 200 topics': cost.heartbeatMs, 'memory with 200 topics': cost.rss }
      },
    )
    return { nodes, meshDegree, works: { ...works, ...idling } }
  } finally {
    await Promise.all([...peers.values()].map((peer) => peer.stop()))
  }
})
