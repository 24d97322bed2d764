/*
 * The heartbeat (gossipsub v1.0 §Heartbeat, v1.1 §Heartbeat maintenance): a pure function of what is, the scores and
 * random numbers. It changes nothing: the router carries the plan out.
 */
import { pick, shuffle } from './chance.ts'
import type { GossipParams } from './params.ts'

/** What the heartbeat looks at. Peers and topics are text. */
export interface MeshView {
  /** Of the topics that we are in: peers we exchange whole messages with. */
  readonly mesh: ReadonlyMap<string, ReadonlySet<string>>
  /** Of the topics that we publish to without being in them. */
  readonly fanout: ReadonlyMap<string, { readonly peers: ReadonlySet<string>; readonly lastPublishedMs: number }>
  /** Connected peers that subscribed to the topic and speak some version of GossipSub. */
  gossipPeers(topic: string): Iterable<string>
  isOutbound(peer: string): boolean
  /** Direct peers are never in a mesh and hear no gossip. */
  isDirect(peer: string): boolean
  /** Pruned a while ago, by either side; also within the slack after it. */
  isBackingOff(topic: string, peer: string): boolean
}

export interface MeshChange {
  topic: string
  peer: string
}

export interface HeartbeatPlan {
  prune: (MeshChange & { /** Negative score: it gets no peer exchange. */ noPX: boolean })[]
  graft: MeshChange[]
  /** Topics whose fanout ends. */
  expiredFanout: string[]
  /** Of the topics whose fanout goes on: its peers from now on. */
  fanout: Map<string, Set<string>>
  /** Who hears of the recent messages of a topic, in a mesh or fanout topic's order. */
  gossip: { topic: string; peers: string[] }[]
}

export interface HeartbeatInputs {
  view: MeshView
  /** Asked at least once and at most once for each peer. */
  scoreOf: (peer: string) => number
  unit: () => number
  params: GossipParams
  thresholds: { gossip: number; publish: number; opportunisticGraft: number }
  /** Counts heartbeats from 1. */
  tick: number
  now: number
}

export function heartbeat({ view, scoreOf, unit, params, thresholds, tick, now }: HeartbeatInputs): HeartbeatPlan {
  const { D, Dlo, Dhi, Dscore, Dout } = params
  const plan: HeartbeatPlan = { prune: [], graft: [], expiredFanout: [], fanout: new Map(), gossip: [] }
  const scores = new Map<string, number>()
  const score = (peer: string): number => {
    let value = scores.get(peer)
    if (value === undefined) scores.set(peer, (value = scoreOf(peer)))
    return value
  }

  for (const [topic, before] of view.mesh) {
    const peers = new Set(before)
    const prune = (peer: string, noPX: boolean): void => {
      peers.delete(peer)
      plan.prune.push({ topic, peer, noPX })
    }
    /** Grafts up to `count` peers that may be in the mesh and are `wanted`. */
    const graft = (count: number, wanted: (peer: string) => boolean): void => {
      const may: string[] = []
      for (const peer of view.gossipPeers(topic)) {
        if (peers.has(peer) || view.isDirect(peer) || view.isBackingOff(topic, peer)) continue
        if (score(peer) >= 0 && wanted(peer)) may.push(peer)
      }
      for (const peer of pick(may, count, unit)) {
        peers.add(peer)
        plan.graft.push({ topic, peer })
      }
    }
    const outbound = (list: Iterable<string>): number => {
      let count = 0
      for (const peer of list) if (view.isOutbound(peer)) count++
      return count
    }

    // Is there anybody whose score is negative? (v1.1: no peer exchange for them)
    const pruned = new Set<string>()
    for (const peer of before) {
      if (score(peer) >= 0) continue
      prune(peer, true)
      pruned.add(peer)
    }
    const fresh = (peer: string): boolean => !pruned.has(peer)

    // Do we have enough?
    if (peers.size < Dlo) graft(D - peers.size, fresh)

    // Do we have too many? (with Dhi or more, as go-libp2p-pubsub: inbound grafts are refused from there on)
    if (peers.size >= Dhi && peers.size > D) {
      for (const peer of excess([...peers], score, view, { D, Dscore, Dout }, unit)) {
        prune(peer, false)
        pruned.add(peer)
      }
    }

    // Do we have enough that we dialled ourselves? (v1.1 §Outbound mesh quotas)
    if (peers.size >= Dlo) {
      const missing = Dout - outbound(peers)
      if (missing > 0) graft(missing, (peer) => fresh(peer) && view.isOutbound(peer))
    }

    // Are they any good? (v1.1 §Opportunistic grafting)
    if (tick % params.opportunisticGraftTicks === 0 && peers.size > 1) {
      const sorted = [...peers].map(score).toSorted((a, b) => a - b)
      const median = sorted[Math.floor(sorted.length / 2)] as number
      if (median < thresholds.opportunisticGraft) {
        graft(params.opportunisticGraftPeers, (peer) => fresh(peer) && score(peer) > median)
      }
    }
    gossip(topic, peers)
  }

  for (const [topic, { peers: before, lastPublishedMs }] of view.fanout) {
    // Did we publish to it lately?
    if (lastPublishedMs + params.fanoutTtlMs < now) {
      plan.expiredFanout.push(topic)
      continue
    }
    const may: string[] = []
    const peers = new Set<string>()
    for (const peer of view.gossipPeers(topic)) {
      if (view.isDirect(peer) || score(peer) < thresholds.publish) continue
      if (before.has(peer)) peers.add(peer)
      else may.push(peer)
    }
    for (const peer of pick(may, D - peers.size, unit)) peers.add(peer)
    plan.fanout.set(topic, peers)
    gossip(topic, peers)
  }
  return plan

  // Who else should hear what is new?
  function gossip(topic: string, exclude: ReadonlySet<string>): void {
    const peers: string[] = []
    for (const peer of view.gossipPeers(topic)) {
      if (!exclude.has(peer) && !view.isDirect(peer) && score(peer) >= thresholds.gossip) peers.push(peer)
    }
    const count = Math.max(params.Dlazy, Math.floor(params.gossipFactor * peers.length))
    if (peers.length > 0) plan.gossip.push({ topic, peers: pick(peers, count, unit) })
  }
}

/** Who leaves a mesh that is too large: the best stay, then chance, with as many outbound peers as the quota wants. */
function excess(
  peers: string[],
  score: (peer: string) => number,
  view: MeshView,
  { D, Dscore, Dout }: Pick<GossipParams, 'D' | 'Dscore' | 'Dout'>,
  unit: () => number,
): string[] {
  // Shuffled before it is sorted: where scores are the same, chance decides.
  const sorted = shuffle(peers, unit).toSorted((a, b) => score(b) - score(a))
  const stay = sorted.slice(0, Dscore)
  const rest = shuffle(sorted.slice(Dscore), unit)
  // The quota comes before chance, but not before the best.
  let missing = Dout - stay.filter((peer) => view.isOutbound(peer)).length
  const out: string[] = []
  for (const peer of rest) {
    if (missing > 0 && stay.length + out.length < D && view.isOutbound(peer)) {
      out.push(peer)
      missing--
    }
  }
  const chosen = new Set(out)
  const others = rest.filter((peer) => !chosen.has(peer))
  return others.slice(D - stay.length - out.length)
}
