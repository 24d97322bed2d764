/*
 * The slow plain twin of src/protocols/gossipsub/score.ts: a second reading of gossipsub v1.1 §Peer Scoring that keeps
 * nothing but what happened. Each counter is worked out anew from the whole log, by one function a parameter. It shares
 * no code with the machine; where the two differ, one of them has read the spec wrongly.
 */

export type ScoreEvent = { at: number } & (
  | { do: 'add' | 'remove'; peer: string }
  | { do: 'setIps'; peer: string; ips: string[] }
  | { do: 'graft' | 'prune' | 'invalid'; peer: string; topic: string }
  | { do: 'validating' | 'ignored' | 'throttled'; id: string }
  | { do: 'duplicate' | 'delivered' | 'rejected'; id: string; topic: string; peer: string }
  | { do: 'penalize'; peer: string; count: number }
  | { do: 'refresh' }
)

export interface TwinTopic {
  topicWeight: number
  timeInMeshWeight: number
  timeInMeshQuantumMs: number
  timeInMeshCap: number
  firstMessageDeliveriesWeight: number
  firstMessageDeliveriesDecay: number
  firstMessageDeliveriesCap: number
  meshMessageDeliveriesWeight: number
  meshMessageDeliveriesDecay: number
  meshMessageDeliveriesCap: number
  meshMessageDeliveriesThreshold: number
  meshMessageDeliveriesWindowMs: number
  meshMessageDeliveriesActivationMs: number
  meshFailurePenaltyWeight: number
  meshFailurePenaltyDecay: number
  invalidMessageDeliveriesWeight: number
  invalidMessageDeliveriesDecay: number
}

export interface TwinParams {
  topics: Record<string, TwinTopic>
  topicScoreCap: number
  appSpecificScore: (peer: string) => number
  appSpecificWeight: number
  ipColocationFactorWeight: number
  ipColocationFactorThreshold: number
  behaviourPenaltyWeight: number
  behaviourPenaltyThreshold: number
  behaviourPenaltyDecay: number
  decayIntervalMs: number
  decayToZero: number
  retainScoreMs: number
  seenTtlMs: number
}

export class Twin {
  readonly #log: readonly ScoreEvent[]
  readonly #params: TwinParams
  /** What an address counts as; nothing where it is not counted. */
  readonly #groupsOf: (ip: string) => string[]
  /** Refreshes that fell due, by their place in the log. */
  readonly #decays = new Set<number>()
  /** Removes after which the record was dropped. */
  readonly #dropped = new Set<number>()
  /** A score was so near to 0 that rounding decides whether it is kept. */
  doubtful = false

  constructor(params: TwinParams, log: readonly ScoreEvent[], groupsOf: (ip: string) => string[]) {
    this.#params = params
    this.#log = log
    this.#groupsOf = groupsOf
    let first: number | undefined
    let ticks = 0
    for (const [i, event] of log.entries()) {
      if (event.do === 'refresh') {
        first ??= event.at
        // Ticks of a clock that started with the first: each counts once, several at a time count as one.
        const due = 1 + Math.floor((event.at - first) / params.decayIntervalMs)
        if (due > ticks) this.#decays.add(i)
        ticks = Math.max(ticks, due)
      }
      if (event.do === 'remove' && this.#connected(event.peer, i)) {
        const score = this.score(event.peer, i)
        if (params.retainScoreMs === 0 || score > 0) this.#dropped.add(i)
        if (Math.abs(score) < 1e-9 && this.#parts(event.peer, i).some((part) => part !== 0)) this.doubtful = true
      }
    }
  }

  /** After the first `end` events, as of the last of them or `now`. */
  score(peer: string, end = this.#log.length, now = this.#log[end - 1]?.at ?? 0): number {
    const life = this.#life(peer, end)
    if (life === undefined) return 0
    if (life.left !== undefined && now > life.left + this.#params.retainScoreMs) return 0
    return this.#parts(peer, end).reduce((sum, part) => sum + part, 0)
  }

  #parts(peer: string, end: number): number[] {
    const params = this.#params
    let topics = 0
    for (const topic of Object.keys(params.topics)) topics += this.#topic(peer, topic, end)
    if (params.topicScoreCap > 0 && topics > params.topicScoreCap) topics = params.topicScoreCap
    const surplus = Math.max(0, this.#penalty(peer, end) - params.behaviourPenaltyThreshold)
    return [
      topics,
      params.appSpecificWeight * params.appSpecificScore(peer),
      params.ipColocationFactorWeight * this.#colocation(peer, end),
      params.behaviourPenaltyWeight * surplus * surplus,
    ]
  }

  #topic(peer: string, topic: string, end: number): number {
    const t = this.#of(topic)
    const mesh = this.#mesh(peer, topic, end)
    const quanta = mesh === undefined ? 0 : Math.floor(mesh.time / t.timeInMeshQuantumMs)
    const invalid = this.#invalid(peer, topic, end)
    return (
      t.topicWeight *
      (t.timeInMeshWeight * Math.min(quanta, t.timeInMeshCap) +
        t.firstMessageDeliveriesWeight * this.#first(peer, topic, end) +
        t.meshMessageDeliveriesWeight * this.#deficit(peer, topic, end) +
        t.meshFailurePenaltyWeight * this.#failure(peer, topic, end) +
        t.invalidMessageDeliveriesWeight * invalid * invalid)
    )
  }

  #of(topic: string): TwinTopic {
    const params = this.#params.topics[topic]
    if (params === undefined) throw new Error(`${topic} is not scored`)
    return params
  }

  /** Where the record that counts began, and when the peer left if it is gone. */
  #life(peer: string, end: number): { from: number; left: number | undefined } | undefined {
    let life: { from: number; left: number | undefined } | undefined
    for (const [i, event] of this.#log.slice(0, end).entries()) {
      if (event.do === 'add' && event.peer === peer) {
        if (life?.left !== undefined && event.at > life.left + this.#params.retainScoreMs) life = undefined
        life = { from: life?.from ?? i, left: undefined }
      }
      if (event.do === 'remove' && event.peer === peer && life !== undefined && life.left === undefined)
        life = this.#dropped.has(i) ? undefined : { from: life.from, left: event.at }
    }
    return life
  }

  #connected(peer: string, end: number): boolean {
    const life = this.#life(peer, end)
    return life !== undefined && life.left === undefined
  }

  /** One counter: `change` says what an event does to it; it decays while the peer is connected. */
  #counter(
    peer: string,
    end: number,
    decay: number,
    change: (value: number, event: ScoreEvent, i: number) => number,
  ): number {
    const from = this.#life(peer, end)?.from ?? end
    let value = 0
    for (let i = from; i < end; i++) {
      const event = this.#log[i] as ScoreEvent
      if (this.#decays.has(i) && this.#connected(peer, i)) {
        value *= decay
        if (value < this.#params.decayToZero) value = 0
      }
      value = change(value, event, i)
    }
    return value
  }

  /** The peer in the mesh: since when, and for how long as of the last decay. */
  #mesh(peer: string, topic: string, end: number): { since: number; time: number } | undefined {
    let mesh: { since: number; time: number } | undefined
    for (const [i, event] of this.#log.slice(0, end).entries()) {
      if (event.do === 'remove' && event.peer === peer) mesh = undefined
      if (event.do === 'prune' && event.peer === peer && event.topic === topic) mesh = undefined
      if (event.do === 'graft' && event.peer === peer && event.topic === topic && this.#connected(peer, i))
        mesh ??= { since: event.at, time: 0 }
      if (this.#decays.has(i) && mesh !== undefined) mesh = { since: mesh.since, time: event.at - mesh.since }
    }
    return mesh
  }

  /** P2 */
  #first(peer: string, topic: string, end: number): number {
    const t = this.#of(topic)
    return this.#counter(peer, end, t.firstMessageDeliveriesDecay, (value, event, i) => {
      if (event.do === 'remove' && event.peer === peer && this.#connected(peer, i)) return 0
      if (event.do !== 'delivered' || event.peer !== peer || event.topic !== topic || !this.#decides(i)) return value
      return Math.min(value + 1, t.firstMessageDeliveriesCap)
    })
  }

  /** The counter of P3. */
  #deliveries(peer: string, topic: string, end: number): number {
    const t = this.#of(topic)
    return this.#counter(peer, end, t.meshMessageDeliveriesDecay, (value, event, i) => {
      if (!('topic' in event) || event.topic !== topic || this.#mesh(peer, topic, i) === undefined) return value
      let credit = false
      if (event.do === 'delivered' && this.#decides(i))
        credit = event.peer === peer || this.#copies(event.id, i).includes(peer)
      if (event.do === 'duplicate' && event.peer === peer) {
        const record = this.#record(event.id, i, event.at)
        const { verdict } = record ?? {}
        credit =
          verdict?.do === 'delivered' &&
          event.at - verdict.at <= t.meshMessageDeliveriesWindowMs &&
          !this.#copies(event.id, i).includes(peer)
      }
      return credit ? Math.min(value + 1, t.meshMessageDeliveriesCap) : value
    })
  }

  /** P3 */
  #deficit(peer: string, topic: string, end: number): number {
    const t = this.#of(topic)
    const mesh = this.#mesh(peer, topic, end)
    if (mesh === undefined || mesh.time <= t.meshMessageDeliveriesActivationMs) return 0
    const deliveries = this.#deliveries(peer, topic, end)
    return deliveries < t.meshMessageDeliveriesThreshold ? (t.meshMessageDeliveriesThreshold - deliveries) ** 2 : 0
  }

  /** P3b */
  #failure(peer: string, topic: string, end: number): number {
    return this.#counter(peer, end, this.#of(topic).meshFailurePenaltyDecay, (value, event, i) => {
      const leaves =
        (event.do === 'remove' && event.peer === peer) ||
        (event.do === 'prune' && event.peer === peer && event.topic === topic)
      return leaves ? value + this.#deficit(peer, topic, i) : value
    })
  }

  /** The counter of P4. */
  #invalid(peer: string, topic: string, end: number): number {
    return this.#counter(peer, end, this.#of(topic).invalidMessageDeliveriesDecay, (value, event, i) => {
      if (!('topic' in event) || event.topic !== topic) return value
      const own = event.peer === peer ? 1 : 0
      if (event.do === 'invalid') return value + own
      if (event.do === 'rejected' && this.#decides(i))
        return value + own + (this.#copies(event.id, i).includes(peer) ? 1 : 0)
      if (event.do === 'duplicate' && this.#record(event.id, i, event.at)?.verdict?.do === 'rejected')
        return value + own
      return value
    })
  }

  /** The counter of P7. */
  #penalty(peer: string, end: number): number {
    return this.#counter(peer, end, this.#params.behaviourPenaltyDecay, (value, event) =>
      event.do === 'penalize' && event.peer === peer ? value + event.count : value,
    )
  }

  /** P6 */
  #colocation(peer: string, end: number): number {
    let sum = 0
    for (const group of this.#groups(peer, end)) {
      const names = new Set(this.#log.slice(0, end).flatMap((event) => (event.do === 'add' ? [event.peer] : [])))
      const peers = [...names].filter((name) => this.#groups(name, end).has(group)).length
      sum += Math.max(0, peers - this.#params.ipColocationFactorThreshold) ** 2
    }
    return sum
  }

  #groups(peer: string, end: number): Set<string> {
    const life = this.#life(peer, end)
    if (life === undefined) return new Set()
    let groups = new Set<string>()
    for (let i = life.from; i < end; i++) {
      const event = this.#log[i] as ScoreEvent
      if (event.do === 'setIps' && event.peer === peer && this.#connected(peer, i))
        groups = new Set(event.ips.flatMap((ip) => this.#groupsOf(ip)))
      // Who is remembered no more is counted no more, once somebody looks.
      if (life.left !== undefined && this.#decays.has(i) && event.at > life.left + this.#params.retainScoreMs)
        return new Set()
    }
    return groups
  }

  /** What is known of a message before the event `end`, which is at `now`. */
  #record(id: string, end: number, now: number): { from: number; verdict: ScoreEvent | undefined } | undefined {
    let record: { from: number; at: number; verdict: ScoreEvent | undefined } | undefined
    const over = (at: number): boolean => record !== undefined && at > record.at + this.#params.seenTtlMs
    for (const [i, event] of this.#log.slice(0, end).entries()) {
      if (!('id' in event) || event.id !== id || event.do === 'duplicate') continue
      if (over(event.at)) record = undefined
      record ??= { from: i, at: event.at, verdict: undefined }
      if (event.do !== 'validating') record.verdict ??= event
    }
    return over(now) ? undefined : record
  }

  /** Is the event the message's verdict? A second one is none. */
  #decides(i: number): boolean {
    const event = this.#log[i] as ScoreEvent
    return 'id' in event && this.#record(event.id, i, event.at)?.verdict === undefined
  }

  /** Connected peers that had sent a copy in time before the event `end`: they are not credited again. */
  #copies(id: string, end: number): string[] {
    const record = this.#record(id, end, this.#log[end]?.at ?? 0)
    const out: string[] = []
    for (let i = record?.from ?? end; i < end; i++) {
      const event = this.#log[i] as ScoreEvent
      if (!('id' in event) || event.id !== id || !('peer' in event) || !this.#connected(event.peer, i)) continue
      if (event.do === 'delivered' && this.#decides(i)) out.push(event.peer)
      if (event.do !== 'duplicate') continue
      const { verdict } = this.#record(id, i, event.at) ?? {}
      const late =
        verdict !== undefined &&
        (verdict.do !== 'delivered' || event.at - verdict.at > this.#of(event.topic).meshMessageDeliveriesWindowMs)
      if (!late) out.push(event.peer)
    }
    return out
  }
}
