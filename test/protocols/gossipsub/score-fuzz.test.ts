/* The machine against its slow plain twin: the same random events, the same scores. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PeerScore } from '../../../src/protocols/gossipsub/score.ts'
import { Twin, type ScoreEvent, type TwinParams, type TwinTopic } from './score-twin.ts'

/** What the twin is told an address counts as: it can't read them. */
const groups: Record<string, string[]> = {
  '192.0.2.1': ['a'],
  '::ffff:192.0.2.1': ['a'],
  '192.0.2.2': ['b'],
  '2001:db8:0:1::1': ['c1', 'c'],
  '2001:db8:0:1:0::2': ['c2', 'c'],
  '2001:db8:0:2::1': ['d1', 'd'],
  '127.0.0.1': [],
  '198.51.100.7': [],
}
const allowed = ['198.51.100.0/24']
const peers = ['p', 'q', 'r']
/** `u` is not scored. */
const topics = ['s', 't', 'u']
const ids = ['1', '2', '3', '4']
const topicOf = (id: string): string => topics[Number(id) % 3] ?? ''

const decay = fc.constantFrom(0.5, 0.875, 0.97)
const upTo = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max: 4 * max }).map((n) => n / 4)
const off = (weight: fc.Arbitrary<number>): fc.Arbitrary<number> => fc.oneof(fc.constant(0), weight, weight, weight)
const reward = off(upTo(5))
const penalty = off(upTo(5).map((n) => -n))

const topic: fc.Arbitrary<TwinTopic> = fc.record({
  topicWeight: fc.constantFrom(0.5, 1, 2),
  timeInMeshWeight: reward,
  timeInMeshQuantumMs: fc.constantFrom(300, 1000),
  timeInMeshCap: upTo(5),
  firstMessageDeliveriesWeight: reward,
  firstMessageDeliveriesDecay: decay,
  firstMessageDeliveriesCap: upTo(3),
  meshMessageDeliveriesWeight: penalty,
  meshMessageDeliveriesDecay: decay,
  meshMessageDeliveriesCap: upTo(4),
  meshMessageDeliveriesThreshold: upTo(3),
  meshMessageDeliveriesWindowMs: fc.constantFrom(0, 100, 1000),
  meshMessageDeliveriesActivationMs: fc.constantFrom(1000, 2000),
  meshFailurePenaltyWeight: penalty,
  meshFailurePenaltyDecay: decay,
  invalidMessageDeliveriesWeight: penalty,
  invalidMessageDeliveriesDecay: decay,
})

const params: fc.Arbitrary<TwinParams> = fc.record({
  topics: fc.record({ s: topic, t: topic }),
  topicScoreCap: fc.constantFrom(0, 3),
  appSpecificScore: fc.constantFrom(
    () => 0,
    (peer: string) => (peer === 'p' ? 2 : -1),
  ),
  appSpecificWeight: fc.constantFrom(1, 0.5),
  ipColocationFactorWeight: penalty,
  ipColocationFactorThreshold: fc.constantFrom(1, 2),
  behaviourPenaltyWeight: penalty,
  behaviourPenaltyThreshold: fc.constantFrom(0, 1),
  behaviourPenaltyDecay: decay,
  decayIntervalMs: fc.constantFrom(1000, 2500),
  decayToZero: fc.constantFrom(0.01, 0.3),
  retainScoreMs: fc.constantFrom(0, 3000, 60_000),
  seenTtlMs: fc.constantFrom(2000, 120_000),
})

const peer = fc.constantFrom(...peers)
const message = fc.constantFrom(...ids).map((id) => ({ id, topic: topicOf(id) }))

type What = ScoreEvent extends infer E ? (E extends { at: number } ? Omit<E, 'at'> : never) : never

const what: fc.Arbitrary<What> = fc.oneof(
  { weight: 6, arbitrary: fc.constant({ do: 'refresh' as const }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('add' as const, 'remove' as const), peer }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('setIps' as const),
      peer,
      ips: fc.array(fc.constantFrom(...Object.keys(groups)), { maxLength: 3 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constantFrom('graft' as const, 'graft' as const, 'prune' as const, 'invalid' as const),
      peer,
      topic: fc.constantFrom(...topics),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('validating' as const, 'validating' as const, 'ignored' as const, 'throttled' as const),
      id: fc.constantFrom(...ids),
    }),
  },
  {
    weight: 10,
    arbitrary: fc
      .tuple(
        fc.constantFrom('duplicate' as const, 'duplicate' as const, 'delivered' as const, 'rejected' as const),
        message,
        peer,
      )
      .map(([doing, { id, topic }, peer]) => ({ do: doing, id, topic, peer })),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('penalize' as const), peer, count: fc.constantFrom(1, 2) }) },
)

/** All start connected, or most of what happens would happen to nobody. */
const log: fc.Arbitrary<ScoreEvent[]> = fc
  .array(fc.tuple(fc.constantFrom(0, 50, 300, 1000, 1500), what), { minLength: 10, maxLength: 60, size: 'max' })
  .map((steps) => {
    let at = 0
    const start = peers.map((peer): ScoreEvent => ({ at, do: 'add', peer }))
    return start.concat(steps.map(([later, event]) => Object.assign({ at: (at += later) }, event)))
  })

export function play(machine: PeerScore, event: ScoreEvent): void {
  const { at } = event
  switch (event.do) {
    case 'add':
    case 'remove':
      return machine[event.do](event.peer, at)
    case 'setIps':
      return machine.setIps(event.peer, event.ips)
    case 'graft':
      return machine.graft(event.peer, event.topic, at)
    case 'prune':
    case 'invalid':
      return machine[event.do](event.peer, event.topic)
    case 'validating':
    case 'ignored':
    case 'throttled':
      return machine[event.do](event.id, at)
    case 'duplicate':
    case 'delivered':
    case 'rejected':
      return machine[event.do](event.id, event.topic, event.peer, at)
    case 'penalize':
      return machine.penalize(event.peer, event.count)
    case 'refresh':
      return machine.refresh(at)
  }
}

const close = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a), Math.abs(b))

describe('the peer score and its slow plain twin', () => {
  it('agree after every event of thousands of random logs', { timeout: 120_000 }, () => {
    const seen = { scores: 0, negative: 0, positive: 0, doubtful: 0 }
    fc.assert(
      fc.property(params, log, fc.nat(5000), (params, log, later) => {
        const twin = new Twin(params, log, (ip) => groups[ip] ?? [])
        if (twin.doubtful) {
          seen.doubtful++
          return
        }
        const machine = new PeerScore({ ...params, ipColocationFactorAllow: allowed })
        for (const [i, event] of log.entries()) {
          play(machine, event)
          const now = event.at + (i === log.length - 1 ? later : 0)
          for (const peer of i % 7 === 0 || i === log.length - 1 ? peers : []) {
            const [ours, theirs] = [machine.score(peer, now), twin.score(peer, i + 1, now)]
            if (!close(ours, theirs)) throw new Error(`${peer} after ${i}: machine ${ours}, twin ${theirs}`)
            seen.scores++
            if (ours < 0) seen.negative++
            if (ours > 0) seen.positive++
          }
        }
        const parts = [...machine.inspect(log.at(-1)?.at ?? 0)]
        for (const [peer, { score, topics, p5, p6, p7 }] of parts) {
          let sum = Object.values(topics).reduce((sum, t) => sum + t.p1 + t.p2 + t.p3 + t.p3b + t.p4, 0)
          if (params.topicScoreCap > 0) sum = Math.min(params.topicScoreCap, sum)
          if (!close(score, sum + p5 + p6 + p7)) throw new Error(`${peer}: the parts do not add up to ${score}`)
        }
      }),
      { numRuns: 3000 },
    )
    // The logs are worth something: most scores are not 0.
    expect(seen.negative).toBeGreaterThan(seen.scores / 5)
    expect(seen.positive).toBeGreaterThan(seen.scores / 20)
    expect(seen.doubtful).toBeLessThan(300)
  })
})
