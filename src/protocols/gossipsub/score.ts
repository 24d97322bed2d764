/*
 * gossipsub v1.1 (r8) §Peer Scoring: what each peer is worth to us, by what it did. One parameter a line of the spec:
 * P1 to P4 per topic, P5 to P7 for the peer. No clock, no promise: `now` is milliseconds of any clock that only moves on.
 * Counters are those of go's score.go, but for: P3 counts in the mesh only (as in rust and js; go goes on after a
 * PRUNE), a peer is credited once a message (go twice when the first to bring it brings it again); second GRAFTs,
 * PRUNEs and verdicts change nothing.
 */
import { Deliveries, type Delivery, type Verdict } from './score-deliveries.ts'
import { IpGroups, type IpGroup } from './score-ips.ts'
import { validateScoreParams, validateTopicParams } from './score-params.ts'
import type { ScoreParams, ScoreSettings, TopicScoreParams, TopicSettings } from './score-params.ts'

/** What a score is made of. p1 to p4 are with their weight and the topic's, p5 to p7 with their weight. */
export interface PeerScoreParts {
  /** min(topicScoreCap, all p1 to p4) + p5 + p6 + p7. */
  score: number
  /** False: it is gone, its score is kept. */
  connected: boolean
  topics: Record<string, TopicScoreParts>
  p5: number
  p6: number
  p7: number
  /** That P6 looks at: IPv4 addresses, IPv6 addresses and their /64. */
  ips: string[]
}

export interface TopicScoreParts {
  inMesh: boolean
  /** At the last decay; 0 outside the mesh. */
  timeInMeshMs: number
  /** The counters, decayed. */
  firstMessageDeliveries: number
  meshMessageDeliveries: number
  meshFailurePenalty: number
  invalidMessageDeliveries: number
  p1: number
  p2: number
  p3: number
  p3b: number
  p4: number
}

interface Topic {
  readonly name: string
  params: TopicSettings
}

/** One peer in one topic. */
interface Counters {
  readonly topic: Topic
  /** When it was grafted; undefined: not in the mesh. */
  graftedAt: number | undefined
  timeInMeshMs: number
  /** Long enough in the mesh for P3. */
  active: boolean
  firstMessageDeliveries: number
  meshMessageDeliveries: number
  meshFailurePenalty: number
  invalidMessageDeliveries: number
}

interface Peer {
  readonly name: string
  readonly topics: Map<string, Counters>
  ips: IpGroup[]
  behaviourPenalty: number
  /** What the topics add up to, before the cap; undefined: something changed. */
  topicSum: number | undefined
  /** Infinity while it is connected. */
  expiresAt: number
  /** Its score when it left. */
  leftWith: number
}

export class PeerScore {
  readonly #params: ScoreSettings
  readonly #topics = new Map<string, Topic>()
  readonly #connected = new Map<string, Peer>()
  /** Who left first comes first. */
  readonly #retained = new Map<string, Peer>()
  readonly #groups: IpGroups
  readonly #deliveries: Deliveries
  #refreshAt = -Infinity

  /** Throws RangeError that names the parameter and the rule that it breaks. */
  constructor(params: ScoreParams = {}) {
    this.#params = validateScoreParams(params)
    this.#groups = new IpGroups(this.#params.ipColocationFactorAllow)
    this.#deliveries = new Deliveries(this.#params)
    for (const [name, of] of this.#params.topics) this.#topics.set(name, { name, params: of })
  }

  /** How much is remembered, to be held against the limits. */
  get size(): { peers: number; retained: number; messages: number; senders: number; ips: number } {
    return {
      peers: this.#connected.size,
      retained: this.#retained.size,
      messages: this.#deliveries.messages,
      senders: this.#deliveries.senders,
      ips: this.#groups.size,
    }
  }

  /** New parameters for a topic, from now on; counters above a lower cap come down to it. Throws RangeError. */
  setTopicParams(topic: string, params: TopicScoreParams): void {
    const settings = validateTopicParams(topic, params)
    const known = this.#topics.get(topic)
    if (known === undefined) return void this.#topics.set(topic, { name: topic, params: settings })
    known.params = settings
    for (const peer of [...this.#connected.values(), ...this.#retained.values()]) {
      const counters = peer.topics.get(topic)
      if (counters === undefined) continue
      counters.firstMessageDeliveries = Math.min(counters.firstMessageDeliveries, settings.firstMessageDeliveriesCap)
      counters.meshMessageDeliveries = Math.min(counters.meshMessageDeliveries, settings.meshMessageDeliveriesCap)
      peer.topicSum = undefined
    }
  }

  /** It connected: who left with a score of 0 or less gets it back. */
  add(peer: string, now: number): void {
    if (this.#connected.has(peer)) return
    const old = this.#retained.get(peer)
    this.#retained.delete(peer)
    if (old !== undefined && now > old.expiresAt) this.#forget(old)
    else if (old !== undefined) {
      old.expiresAt = Infinity
      this.#connected.set(peer, old)
      return
    }
    this.#connected.set(peer, {
      name: peer,
      topics: new Map(),
      ips: [],
      behaviourPenalty: 0,
      topicSum: 0,
      expiresAt: Infinity,
      leftWith: 0,
    })
  }

  /** It disconnected. A score above 0 is forgotten: it is not worth earning again and again. */
  remove(peer: string, now: number): void {
    const record = this.#connected.get(peer)
    if (record === undefined) return
    this.#connected.delete(peer)
    if (this.#params.retainScoreMs === 0 || this.#score(record) > 0) return this.#forget(record)
    for (const [topic, counters] of record.topics) {
      leaveMesh(counters)
      counters.firstMessageDeliveries = 0
      const { meshMessageDeliveries, meshFailurePenalty, invalidMessageDeliveries } = counters
      if (meshMessageDeliveries + meshFailurePenalty + invalidMessageDeliveries === 0) record.topics.delete(topic)
    }
    record.topicSum = undefined
    record.leftWith = this.#score(record)
    record.expiresAt = now + this.#params.retainScoreMs
    this.#retained.set(peer, record)
    if (this.#retained.size > this.#params.maxRetainedPeers) this.#evict()
  }

  /** Whoever has the best score is missed least: nobody can wash away a bad one with many that did nothing. */
  #evict(): void {
    let best: Peer | undefined
    for (const record of this.#retained.values())
      if (best === undefined || record.leftWith > best.leftWith) best = record
    if (best === undefined) return
    this.#retained.delete(best.name)
    this.#forget(best)
  }

  #forget(record: Peer): void {
    record.ips = this.#groups.move(record.ips, [])
  }

  /** P6: the addresses that the peer is connected from now, directly. Throws TypeError for text that is none. */
  setIps(peer: string, ips: readonly string[]): void {
    const record = this.#connected.get(peer)
    if (record !== undefined) record.ips = this.#groups.move(record.ips, ips)
  }

  #find(peer: string): Peer | undefined {
    return this.#connected.get(peer) ?? this.#retained.get(peer)
  }

  /** To be changed by the caller; undefined where the peer is unknown or the topic is not scored. */
  #counters(record: Peer | undefined, name: string): Counters | undefined {
    if (record === undefined) return undefined
    record.topicSum = undefined
    const known = record.topics.get(name)
    if (known !== undefined) return known
    const topic = this.#topics.get(name)
    if (topic === undefined) return undefined
    const counters = {
      topic,
      graftedAt: undefined,
      timeInMeshMs: 0,
      active: false,
      firstMessageDeliveries: 0,
      meshMessageDeliveries: 0,
      meshFailurePenalty: 0,
      invalidMessageDeliveries: 0,
    }
    record.topics.set(name, counters)
    return counters
  }

  /** It is in the topic's mesh from now on. Again while it is in does nothing: P3 is not put off. */
  graft(peer: string, topic: string, now: number): void {
    const counters = this.#counters(this.#connected.get(peer), topic)
    if (counters?.graftedAt === undefined && counters !== undefined) counters.graftedAt = now
  }

  /** It is no more, whoever wanted it. */
  prune(peer: string, topic: string): void {
    const counters = this.#counters(this.#connected.get(peer), topic)
    if (counters !== undefined) leaveMesh(counters)
  }

  /** A first copy came and is looked at: copies that come meanwhile count as near-first. */
  validating(id: string, now: number): void {
    if (this.#topics.size > 0) this.#deliveries.open(id, now)
  }

  /** Another copy of a message came. */
  duplicate(id: string, topic: string, peer: string, now: number): void {
    const delivery = this.#deliveries.get(id, now)
    const params = this.#topics.get(topic)?.params
    if (delivery === undefined || params === undefined) return
    switch (delivery.verdict) {
      case 'validating':
        this.#sent(delivery, peer)
        return
      case 'valid':
        if (now - delivery.decidedAt > params.meshMessageDeliveriesWindowMs) this.#deliveries.forgetSenders(delivery)
        else if (this.#sent(delivery, peer)) this.#meshDelivery(peer, topic)
        return
      case 'invalid':
        this.invalid(peer, topic)
        return
      case 'ignored':
    }
  }

  /** False where it sent a copy before, or is not connected: strangers take no memory. */
  #sent(delivery: Delivery, peer: string): boolean {
    return this.#connected.has(peer) && this.#deliveries.sent(delivery, peer)
  }

  #decide(id: string, verdict: Verdict, now: number): Delivery | undefined {
    return this.#topics.size === 0 ? undefined : this.#deliveries.decide(id, verdict, now)
  }

  /** The message is valid; `peer` brought it first. Our own messages may come by here, too. */
  delivered(id: string, topic: string, peer: string, now: number): void {
    const delivery = this.#decide(id, 'valid', now)
    if (delivery === undefined) return
    const counters = this.#counters(this.#find(peer), topic)
    if (counters !== undefined) {
      const { firstMessageDeliveriesCap } = counters.topic.params
      counters.firstMessageDeliveries = Math.min(counters.firstMessageDeliveries + 1, firstMessageDeliveriesCap)
    }
    this.#meshDelivery(peer, topic)
    for (const sender of delivery.senders) if (sender !== peer) this.#meshDelivery(sender, topic)
    // Should it bring the message again, it was credited.
    this.#sent(delivery, peer)
  }

  /** §P3: a first or near-first delivery by a peer in the mesh. */
  #meshDelivery(peer: string, topic: string): void {
    const counters = this.#counters(this.#find(peer), topic)
    if (counters?.graftedAt === undefined) return
    const { meshMessageDeliveriesCap } = counters.topic.params
    counters.meshMessageDeliveries = Math.min(counters.meshMessageDeliveries + 1, meshMessageDeliveriesCap)
  }

  /** The message is invalid: `peer`, who brought it first, and all who sent a copy pay for it. */
  rejected(id: string, topic: string, peer: string, now: number): void {
    const delivery = this.#decide(id, 'invalid', now)
    if (delivery === undefined) return
    this.invalid(peer, topic)
    for (const sender of delivery.senders) this.invalid(sender, topic)
    this.#deliveries.forgetSenders(delivery)
  }

  /** The validator wants nobody to pay or to be paid. */
  ignored(id: string, now: number): void {
    const delivery = this.#decide(id, 'ignored', now)
    if (delivery !== undefined) this.#deliveries.forgetSenders(delivery)
  }

  /** There was no time to look at it: as if ignored. */
  throttled(id: string, now: number): void {
    this.ignored(id, now)
  }

  /** P4, for a message that never got an id: a bad signature, fields that are not allowed, our own from another. */
  invalid(peer: string, topic: string): void {
    const counters = this.#counters(this.#find(peer), topic)
    if (counters !== undefined) counters.invalidMessageDeliveries++
  }

  /** P7: `count` more for misbehaviour. */
  penalize(peer: string, count = 1): void {
    const record = this.#find(peer)
    if (record !== undefined) record.behaviourPenalty += count
  }

  /**
   * To be called at every heartbeat: once a decay interval has passed, counters decay and what is over is forgotten.
   * Intervals that were missed are not made up for (as in go): nobody delivers anything while we stand still.
   */
  refresh(now: number): void {
    const { decayIntervalMs, decayToZero, behaviourPenaltyDecay } = this.#params
    const late = now - this.#refreshAt
    if (late < 0) return
    this.#refreshAt = late === Infinity ? now + decayIntervalMs : now + decayIntervalMs - (late % decayIntervalMs)
    // §Parameter Decay
    const decayed = (counter: number, factor: number): number => {
      const value = counter * factor
      return value < decayToZero ? 0 : value
    }
    for (const record of this.#connected.values()) {
      for (const counters of record.topics.values()) {
        const { params } = counters.topic
        const { firstMessageDeliveriesDecay, meshMessageDeliveriesDecay } = params
        counters.firstMessageDeliveries = decayed(counters.firstMessageDeliveries, firstMessageDeliveriesDecay)
        counters.meshMessageDeliveries = decayed(counters.meshMessageDeliveries, meshMessageDeliveriesDecay)
        counters.meshFailurePenalty = decayed(counters.meshFailurePenalty, params.meshFailurePenaltyDecay)
        counters.invalidMessageDeliveries = decayed(
          counters.invalidMessageDeliveries,
          params.invalidMessageDeliveriesDecay,
        )
        if (counters.graftedAt === undefined) continue
        // §P1: lazily
        counters.timeInMeshMs = now - counters.graftedAt
        if (counters.timeInMeshMs > params.meshMessageDeliveriesActivationMs) counters.active = true
      }
      record.behaviourPenalty = decayed(record.behaviourPenalty, behaviourPenaltyDecay)
      record.topicSum = undefined
    }
    // Retained scores do not decay: nobody gets better by going away (go).
    for (const [name, record] of this.#retained) {
      if (now <= record.expiresAt) break
      this.#retained.delete(name)
      this.#forget(record)
    }
    this.#deliveries.expire(now)
  }

  /** 0 for a peer that nothing is known of. Throws RangeError when the application's own score is not finite. */
  score(peer: string, now: number): number {
    const record = this.#find(peer)
    return record === undefined || now > record.expiresAt ? 0 : this.#score(record)
  }

  /** §The Score Function. */
  #score(record: Peer): number {
    return this.#capped(record) + this.#p5(record) + this.#p6(record) + this.#p7(record)
  }

  #capped(record: Peer): number {
    const { topicScoreCap } = this.#params
    if (record.topicSum === undefined) {
      record.topicSum = 0
      for (const counters of record.topics.values()) {
        const { p1, p2, p3, p3b, p4 } = topicParts(counters)
        record.topicSum += p1 + p2 + p3 + p3b + p4
      }
    }
    return topicScoreCap > 0 ? Math.min(topicScoreCap, record.topicSum) : record.topicSum
  }

  #p5({ name }: Peer): number {
    const score = this.#params.appSpecificScore(name)
    if (!Number.isFinite(score)) throw new RangeError(`appSpecificScore(${name}) is ${score}, want a finite number`)
    return weighted(this.#params.appSpecificWeight, score)
  }

  #p6({ ips }: Peer): number {
    const { ipColocationFactorWeight, ipColocationFactorThreshold } = this.#params
    let p6 = 0
    for (const group of ips) p6 += Math.max(0, group.peers - ipColocationFactorThreshold) ** 2
    return weighted(ipColocationFactorWeight, p6)
  }

  #p7({ behaviourPenalty }: Peer): number {
    const { behaviourPenaltyWeight, behaviourPenaltyThreshold } = this.#params
    return weighted(behaviourPenaltyWeight, Math.max(0, behaviourPenalty - behaviourPenaltyThreshold) ** 2)
  }

  /** What every score is made of: connected peers, then those that left and are remembered. */
  inspect(now: number): Map<string, PeerScoreParts> {
    const out = new Map<string, PeerScoreParts>()
    for (const record of [...this.#connected.values(), ...this.#retained.values()]) {
      if (now > record.expiresAt) continue
      const topics = Array.from(record.topics, ([topic, counters]): [string, TopicScoreParts] => {
        const { topic: _, graftedAt, active: __, ...plain } = counters
        return [topic, { inMesh: graftedAt !== undefined, ...plain, ...topicParts(counters) }]
      })
      out.set(record.name, {
        score: this.#score(record),
        connected: record.expiresAt === Infinity,
        topics: Object.fromEntries(topics),
        p5: this.#p5(record),
        p6: this.#p6(record),
        p7: this.#p7(record),
        ips: record.ips.map((group) => group.text),
      })
    }
    return out
  }
}

/** Never -0. */
const weighted = (weight: number, value: number): number => weight * value + 0

/** What P3 lacks: 0 outside the mesh, before it is active, and from the threshold on. */
function deficit({ active, meshMessageDeliveries, topic }: Counters): number {
  return active ? Math.max(0, topic.params.meshMessageDeliveriesThreshold - meshMessageDeliveries) : 0
}

/** §P3b: what is missing when a peer leaves the mesh sticks to it. */
function leaveMesh(counters: Counters): void {
  counters.meshFailurePenalty += deficit(counters) ** 2
  counters.graftedAt = undefined
  counters.timeInMeshMs = 0
  counters.active = false
}

type Parts = Pick<TopicScoreParts, 'p1' | 'p2' | 'p3' | 'p3b' | 'p4'>

function topicParts(counters: Counters): Parts {
  const { params } = counters.topic
  const part = (weight: number, value: number): number => weighted(weight * params.topicWeight, value)
  const p1 = Math.min(Math.floor(counters.timeInMeshMs / params.timeInMeshQuantumMs), params.timeInMeshCap)
  return {
    p1: part(params.timeInMeshWeight, p1),
    p2: part(params.firstMessageDeliveriesWeight, counters.firstMessageDeliveries),
    p3: part(params.meshMessageDeliveriesWeight, deficit(counters) ** 2),
    p3b: part(params.meshFailurePenaltyWeight, counters.meshFailurePenalty),
    p4: part(params.invalidMessageDeliveriesWeight, counters.invalidMessageDeliveries ** 2),
  }
}
