/*
 * Attacks on GossipSub in virtual time, after "Gossipsub-v1.1 Evaluation Report" (Vyzovitis et al., 2020) at a smaller
 * scale: Sybils that sit on most connections and pass nothing on, from the start (cold boot), after a while of good
 * behaviour (covert flash), or around one node (eclipse). Honest nodes are the real thing, and so are covert Sybils.
 */
import type { GossipParams } from '../../src/protocols/gossipsub/params.ts'
import type { ScoreParams, Thresholds } from '../../src/protocols/gossipsub/score-params.ts'
import { encodeControl, rpcChunks } from '../../src/protocols/gossipsub/wire.ts'
import { Net, Uplink, quantile, type Actor, type GossipNode, type NodeOptions, type Way } from './gossipsub-net.ts'

export const topic = 'blocks'

/** The report's. */
export const reportParams: Partial<GossipParams> = {
  D: 8,
  Dlo: 6,
  Dhi: 12,
  Dscore: 6,
  Dlazy: 12,
  gossipFactor: 0.25,
  opportunisticGraftTicks: 10,
}

/** The report's, for 120 messages a second; P3's threshold and cap shrink with the rate, what it costs to miss it does not. */
export function reportScore(rate: number, activationMs = 60_000): { score: ScoreParams; thresholds: Thresholds } {
  const threshold = Math.max(1, (10 * rate) / 120)
  const meshWeight = (-0.25 * 10 ** 2) / threshold ** 2
  return {
    score: {
      topics: {
        [topic]: {
          topicWeight: 0.25,
          timeInMeshWeight: 0.0027,
          timeInMeshQuantumMs: 1_000,
          timeInMeshCap: 3_600,
          firstMessageDeliveriesWeight: 0.664,
          firstMessageDeliveriesDecay: 0.9916,
          firstMessageDeliveriesCap: 1_500,
          meshMessageDeliveriesWeight: meshWeight,
          meshMessageDeliveriesDecay: 0.997,
          meshMessageDeliveriesCap: 40 * threshold,
          meshMessageDeliveriesThreshold: threshold,
          meshMessageDeliveriesActivationMs: activationMs,
          meshMessageDeliveriesWindowMs: 5,
          meshFailurePenaltyWeight: meshWeight,
          meshFailurePenaltyDecay: 0.997,
          invalidMessageDeliveriesWeight: -99,
          invalidMessageDeliveriesDecay: 0.9994,
        },
      },
    },
    // No peer exchange, and a median that a few first deliveries reach.
    thresholds: { gossip: -4_000, publish: -5_000, graylist: -10_000, acceptPX: 0, opportunisticGraft: 1 },
  }
}

/** Nothing counts. */
const unscored: NodeOptions = {
  score: { behaviourPenaltyWeight: 0, ipColocationFactorWeight: 0 },
  thresholds: { gossip: 0, publish: 0, graylist: 0, acceptPX: 0, opportunisticGraft: 0 },
}

/** Grafts whomever it meets, again whenever it was pruned and the back-off is over, and passes nothing on. */
export class Sybil implements Actor {
  readonly id: string
  readonly ways = new Map<string, Way>()
  readonly link = new Uplink(Infinity)
  readonly version = 13
  readonly ip = undefined
  readonly #net: Net
  readonly #regraftMs: number
  readonly #out = new Map<string, (readonly Uint8Array[])[]>()

  constructor(net: Net, regraftMs: number) {
    this.#net = net
    this.#regraftMs = regraftMs
    this.id = net.name('sybil')
  }

  connected(peer: Actor): void {
    this.#say(peer.id, true)
    this.#again(peer.id)
  }

  #say(to: string, hello: boolean): void {
    const control = encodeControl({ graft: [topic] })
    const chunks = rpcChunks({ ...(hello && { subscriptions: [{ subscribe: true, topic }] }), control })
    const out = this.#out.get(to) ?? []
    out.push(chunks)
    this.#out.set(to, out)
    this.#net.after(0.1, () => {
      const way = this.ways.get(to)
      if (way !== undefined) this.#net.send(way)
    })
  }

  #again(to: string): void {
    this.#net.after(this.#regraftMs * (1 + this.#net.random.unit() / 10), () => {
      if (!this.ways.has(to)) return
      this.#say(to, false)
      this.#again(to)
    })
  }

  disconnected(peer: Actor): void {
    this.#out.delete(peer.id)
  }

  receive(): void {}

  pull(to: string): readonly Uint8Array[] | undefined {
    return this.#out.get(to)?.shift()
  }
}

export interface AttackOptions {
  seed: number
  kind: 'none' | 'cold boot' | 'covert flash' | 'eclipse'
  honest: number
  sybils: number
  /** Connections of an honest node among honest ones, and how many Sybils connect to each. */
  honestDegree?: number
  sybilDegree: number
  scoring: boolean
  /** As in v1.0: own messages to the mesh only. Default true. */
  floodPublish?: boolean
  /** Messages a second of all together, 2 KiB each. Default 10. */
  rate?: number
  /** Measured from the attack on. Default 60 s. */
  measureMs?: number
  /** Of good behaviour, in a covert flash; before anything is published in a cold boot. */
  calmMs?: number
  activationMs?: number
}

export interface AttackResult {
  delivery: number
  p50: number
  p99: number
  maxMs: number
  /** Of mesh links of honest nodes, those to Sybils: when the attack begins, and at the end. */
  sybilLinks: [number, number]
  messages: number
  twice: number
}

const shareOf = (nodes: readonly GossipNode[], sybils: ReadonlySet<string>): number => {
  const links = nodes.flatMap((node) => node.router.mesh(topic))
  return links.filter((id) => sybils.has(id)).length / Math.max(1, links.length)
}

export function attack(options: AttackOptions): AttackResult {
  const { seed, kind, scoring, sybilDegree, honestDegree = 20, rate = 10, measureMs = 60_000 } = options
  const net = new Net({ seed, latencyMs: [20, 100] })
  const calmMs = options.calmMs ?? (kind === 'covert flash' ? 120_000 : 30_000)
  const of: NodeOptions = {
    topics: [topic],
    ...(scoring ? reportScore(rate, options.activationMs) : unscored),
    params: { ...reportParams, floodPublish: options.floodPublish ?? true },
  }
  const honest = Array.from({ length: options.honest }, () => net.add(of))
  let attacking = false
  const covert = kind === 'covert flash'
  const sybils: Actor[] = Array.from({ length: kind === 'none' ? 0 : options.sybils }, () =>
    covert
      ? // It gets a message and keeps it: neither forwarded nor gossiped about.
        net.add({ ...of, judge: () => (attacking ? 'ignore' : 'accept') }, net.name('covert'))
      : new Sybil(net, 15_000),
  )
  const names = new Set(sybils.map(({ id }) => id))
  const victims = kind === 'eclipse' ? honest.slice(0, 1) : honest
  const infest = (): void => {
    for (const victim of victims) {
      for (const one of net.shuffled(sybils).slice(0, sybilDegree)) net.connect(one, victim)
    }
  }
  // Everybody comes at once; where Sybils gather around one node that is there already, later.
  if (kind === 'cold boot' || covert) infest()
  net.wire(honest, honestDegree + (kind === 'cold boot' || covert ? sybilDegree : 0))
  const data = new Uint8Array(2_048)
  let publishing = kind !== 'cold boot'
  const beat = (): void => {
    if (publishing) net.pick(honest).publish(topic, data)
    net.after(1_000 / rate, beat)
  }
  beat()
  net.run(calmMs)
  if (kind === 'eclipse') infest()
  publishing = true
  attacking = true
  const from = net.now
  const before = shareOf(victims, names)
  net.run(measureMs)
  publishing = false
  const after = shareOf(victims, names)
  net.run(15_000)
  const latencies: number[] = []
  let wanted = 0
  let messages = 0
  const who = new Set(victims)
  for (const track of net.tracks.values()) {
    if (track.at < from) continue
    messages++
    for (const node of who) {
      if (node.id === track.source) continue
      wanted++
      const ms = track.got.get(node)
      if (ms !== undefined) latencies.push(ms)
    }
  }
  return {
    delivery: latencies.length / wanted,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    maxMs: latencies.reduce((most, ms) => Math.max(most, ms), 0),
    sybilLinks: [before, after],
    messages,
    twice: net.twice.length,
  }
}
