/* gossipsub v1.1 §The Score Function, parameter by parameter, with time by hand. */
import { describe, expect, it } from 'vitest'
import type { ScoreParams, TopicScoreParams } from '../../../src/protocols/gossipsub/score-params.ts'
import { PeerScore } from '../../../src/protocols/gossipsub/score.ts'

const off: ScoreParams = { ipColocationFactorWeight: 0, behaviourPenaltyWeight: 0 }

/** `a`, `b` and `c` are connected at 0; `a` and `b` are in the mesh of `t`. */
function scored(topic: TopicScoreParams, params: ScoreParams = {}): PeerScore {
  const score = new PeerScore({ ...off, ...params, topics: { t: topic } })
  for (const peer of ['a', 'b', 'c']) score.add(peer, 0)
  for (const peer of ['a', 'b']) score.graft(peer, 't', 0)
  return score
}

/** Refreshes every second until `to`, which counts. */
function pass(score: PeerScore, from: number, to: number): void {
  for (let now = from; now <= to; now += 1000) score.refresh(now)
}

let messages = 0
/** A message that `first` brings and that is valid at once. */
function deliver(score: PeerScore, first: string, now = 0): void {
  const id = `message ${messages++}`
  score.validating(id, now)
  score.delivered(id, 't', first, now)
}

const p1 = { timeInMeshWeight: 0.5, timeInMeshQuantumMs: 300_000, timeInMeshCap: 4 }
const p2 = { firstMessageDeliveriesWeight: 1, firstMessageDeliveriesDecay: 0.5, firstMessageDeliveriesCap: 200 }
const p3 = {
  meshMessageDeliveriesWeight: -1,
  meshMessageDeliveriesDecay: 0.5,
  meshMessageDeliveriesCap: 20,
  meshMessageDeliveriesThreshold: 10,
  meshMessageDeliveriesWindowMs: 10,
  meshMessageDeliveriesActivationMs: 5000,
}
const p3b = { ...p3, meshMessageDeliveriesWeight: 0, meshFailurePenaltyWeight: -1, meshFailurePenaltyDecay: 0.5 }
const p4 = { invalidMessageDeliveriesWeight: -1, invalidMessageDeliveriesDecay: 0.5 }

describe('P1, time in mesh', () => {
  it.each([
    [0, 0],
    [299_000, 0],
    [300_000, 1],
    [599_000, 1],
    [900_000, 3],
    [1_200_000, 4],
    [9_000_000, 4],
  ])('after %i ms of quanta of 5 minutes is %i', (ms, quanta) => {
    const score = scored(p1)
    score.refresh(ms)
    expect(score.score('a', ms)).toBe(0.5 * quanta)
  })

  it('is worked out at the refresh, not in between', () => {
    const score = scored(p1)
    score.refresh(1000)
    expect(score.score('a', 300_000)).toBe(0)
    score.refresh(300_000)
    expect(score.score('a', 300_000)).toBe(0.5)
  })

  it('is for those in the mesh, and starts anew with the next GRAFT', () => {
    const score = scored(p1)
    score.refresh(600_000)
    expect([score.score('a', 0), score.score('c', 0)]).toEqual([1, 0])
    score.prune('a', 't')
    expect(score.score('a', 600_000)).toBe(0)
    score.graft('a', 't', 700_000)
    score.refresh(1_000_000)
    expect(score.score('a', 1_000_000)).toBe(0.5)
  })
})

describe('P2, first message deliveries', () => {
  it('decay like the example of the spec: 120 and 0.97 make 116.4 (the spec says 110.4)', () => {
    const score = scored({ ...p2, firstMessageDeliveriesDecay: 0.97 })
    for (let i = 0; i < 120; i++) deliver(score, 'a')
    expect(score.score('a', 0)).toBe(120)
    score.refresh(1000)
    expect(score.score('a', 1000)).toBeCloseTo(116.4, 12)
  })

  it('are counted for who brought a message first, in the mesh or not', () => {
    const score = scored(p2)
    score.validating('1', 0)
    score.duplicate('1', 't', 'b', 0)
    score.delivered('1', 't', 'c', 0)
    score.duplicate('1', 't', 'a', 0)
    expect(['a', 'b', 'c'].map((peer) => score.score(peer, 0))).toEqual([0, 0, 1])
  })

  it('are capped when they are counted, so that they decay from the cap', () => {
    const score = scored({ ...p2, firstMessageDeliveriesCap: 50 })
    for (let i = 0; i < 120; i++) deliver(score, 'a')
    expect(score.score('a', 0)).toBe(50)
    score.refresh(1000)
    expect(score.score('a', 0)).toBe(25)
  })

  it('are 0 once they are below decayToZero', () => {
    const score = scored(p2, { decayToZero: 0.3 })
    deliver(score, 'a')
    score.refresh(1000)
    expect(score.score('a', 0)).toBe(0.5)
    score.refresh(2000)
    expect(score.score('a', 0)).toBe(0)
  })

  it('are counted at the verdict, once, and not when there is none', () => {
    const score = scored(p2)
    score.validating('1', 0)
    expect(score.score('a', 0)).toBe(0)
    score.delivered('1', 't', 'a', 0)
    score.delivered('1', 't', 'a', 0)
    score.rejected('1', 't', 'a', 0)
    score.validating('2', 0)
    score.ignored('2', 0)
    score.delivered('2', 't', 'a', 0)
    expect(score.score('a', 0)).toBe(1)
  })
})

describe('P3, mesh message deliveries', () => {
  it.each([
    [4000, 0],
    [5000, 0],
    [6000, -100],
  ])('are missed after more than the activation of 5 s: at %i ms %i', (ms, missed) => {
    const score = scored(p3)
    score.refresh(ms)
    expect(score.score('a', ms)).toBe(missed)
    expect(score.score('c', ms)).toBe(0)
  })

  it.each([
    [0, -100],
    [4, -36],
    [9, -1],
    [10, 0],
    [15, 0],
  ])('%i of 10 make %i', (deliveries, missed) => {
    const score = scored(p3)
    score.refresh(6000)
    for (let i = 0; i < deliveries; i++) deliver(score, 'a', 6000)
    expect(score.score('a', 6000)).toBe(missed)
  })

  it.each<[string, number, (score: PeerScore) => void]>([
    ['a copy during validation, however long it takes', -81, (s) => s.duplicate('1', 't', 'b', 6000)],
    [
      'two copies of one peer',
      -81,
      (s) => {
        s.duplicate('1', 't', 'b', 6000)
        s.duplicate('1', 't', 'b', 6000)
      },
    ],
    ['no copy', -100, () => undefined],
    ['a copy of who brought it first', -100, (s) => s.duplicate('1', 't', 'a', 6000)],
    ['a copy of another message', -100, (s) => s.duplicate('2', 't', 'b', 6000)],
  ])('count near-first ones: %s makes %i', (_, made, during) => {
    const score = scored(p3)
    score.refresh(6000)
    score.validating('1', 6000)
    during(score)
    score.delivered('1', 't', 'a', 8000)
    expect([score.score('a', 8000), score.score('b', 8000)]).toEqual([-81, made])
  })

  it.each([
    [0, -81],
    [10, -81],
    [10.5, -100],
  ])('count a copy %d ms after validation: %i', (ms, made) => {
    const score = scored(p3)
    score.refresh(6000)
    score.validating('1', 6000)
    score.delivered('1', 't', 'a', 7000)
    score.duplicate('1', 't', 'b', 7000 + ms)
    score.duplicate('1', 't', 'b', 7000 + ms)
    expect(score.score('b', 8000)).toBe(made)
  })

  it('count our own messages when they come back, to nobody as the first', () => {
    const score = scored({ ...p2, ...p3 })
    score.refresh(6000)
    score.delivered('own', 't', 'myself', 6000)
    score.duplicate('own', 't', 'b', 6005)
    expect([score.score('a', 0), score.score('b', 0), score.score('myself', 0)]).toEqual([-100, -81, 0])
  })

  it('count nothing of who is outside the mesh when the verdict falls', () => {
    const score = scored(p3)
    score.validating('1', 0)
    score.duplicate('1', 't', 'c', 0)
    score.delivered('1', 't', 'a', 0)
    score.graft('c', 't', 0)
    score.duplicate('1', 't', 'c', 0)
    score.refresh(6000)
    expect(score.score('c', 6000)).toBe(-100)
  })

  it('are capped when they are counted, decay, and count on after the next GRAFT', () => {
    const score = scored(p3)
    for (let i = 0; i < 100; i++) deliver(score, 'a')
    score.refresh(0) // 10
    score.refresh(6000) // 5
    expect(score.score('a', 0)).toBe(-25)
    score.prune('a', 't')
    expect(score.score('a', 0)).toBe(0)
    score.graft('a', 't', 6000)
    score.refresh(12_000) // 2.5
    expect(score.score('a', 0)).toBe(-56.25)
  })
})

describe('P3b, mesh failure penalty', () => {
  it.each<[string, number, number, (score: PeerScore) => void]>([
    ['a PRUNE', 6000, 4, (s) => s.prune('a', 't')],
    ['a disconnect', 6000, 4, (s) => s.remove('a', 6000)],
    ['a PRUNE before P3 is active', 5000, 4, (s) => s.prune('a', 't')],
    ['a PRUNE of who delivered enough', 6000, 10, (s) => s.prune('a', 't')],
  ])('sticks after %s', (_, ms, deliveries, leave) => {
    const score = scored(p3b)
    score.refresh(ms)
    for (let i = 0; i < deliveries; i++) deliver(score, 'a', ms)
    leave(score)
    const expected = ms > 5000 && deliveries < 10 ? -36 : 0
    expect(score.score('a', ms)).toBe(expected)
  })

  it('adds up, decays, and is not squared again', () => {
    const score = scored(p3b)
    score.refresh(6000)
    score.prune('a', 't')
    expect(score.score('a', 6000)).toBe(-100)
    score.graft('a', 't', 6000)
    score.refresh(12_000)
    expect(score.score('a', 12_000)).toBe(-50)
    score.prune('a', 't')
    expect(score.score('a', 12_000)).toBe(-150)
  })
})

describe('P4, invalid messages', () => {
  it('is the square of their number, decays, and has no cap', () => {
    const score = scored(p4)
    for (let i = 0; i < 100; i++) score.rejected(`${i}`, 't', 'c', 0)
    expect(score.score('c', 0)).toBe(-10_000)
    score.refresh(0)
    expect(score.score('c', 0)).toBe(-2500)
  })

  it('is paid by all who sent it, before the verdict or after', () => {
    const score = scored(p4)
    score.validating('1', 0)
    score.duplicate('1', 't', 'b', 0)
    score.rejected('1', 't', 'a', 0)
    score.duplicate('1', 't', 'c', 0)
    expect(['a', 'b', 'c'].map((peer) => score.score(peer, 0))).toEqual([-1, -1, -1])
    score.duplicate('1', 't', 'c', 0)
    expect(score.score('c', 0)).toBe(-4)
  })

  it.each(['ignored', 'throttled'] as const)('is not paid for a message that is %s, nor for its copies', (verdict) => {
    const score = scored(p4)
    score.validating('1', 0)
    score.duplicate('1', 't', 'b', 0)
    score[verdict]('1', 0)
    score.duplicate('1', 't', 'c', 0)
    score.rejected('1', 't', 'a', 0)
    expect(['a', 'b', 'c'].map((peer) => score.score(peer, 0))).toEqual([0, 0, 0])
  })

  it('is paid for messages without a record, too', () => {
    const score = scored(p4)
    score.invalid('a', 't')
    score.invalid('a', 't')
    score.invalid('a', 'not scored')
    score.invalid('nobody', 't')
    expect(score.score('a', 0)).toBe(-4)
    expect(score.score('nobody', 0)).toBe(0)
  })

  it('is paid by who left before the verdict, should it come back', () => {
    const score = scored(p4)
    score.validating('1', 0)
    score.remove('a', 0)
    score.rejected('1', 't', 'a', 1000)
    score.add('a', 2000)
    expect(score.score('a', 2000)).toBe(-1)
  })
})

describe('P5, the application', () => {
  it('is asked whenever the score is, and may say anything finite', () => {
    let says = 5
    const score = scored({}, { appSpecificScore: (peer) => (peer === 'a' ? says : 0), appSpecificWeight: 0.5 })
    expect([score.score('a', 0), score.score('b', 0)]).toEqual([2.5, 0])
    says = -1000
    expect(score.score('a', 0)).toBe(-500)
    says = Number.NaN
    expect(() => score.score('a', 0)).toThrow(RangeError)
    expect(() => score.score('a', 0)).toThrow('appSpecificScore(a) is NaN')
  })

  it('is not asked about a peer that nothing is known of', () => {
    expect(scored({}, { appSpecificScore: () => -1000 }).score('nobody', 0)).toBe(0)
  })
})

describe('P6, IP colocation', () => {
  const p6 = { ipColocationFactorWeight: -1, ipColocationFactorThreshold: 1 }
  const names = ['a', 'b', 'c', 'd']
  function colocated(ips: string[][], params: ScoreParams = p6): number[] {
    const score = new PeerScore({ ...off, ...params })
    for (const [i, peer] of names.entries()) {
      score.add(peer, 0)
      score.setIps(peer, ips[i] ?? [])
    }
    return names.map((peer) => score.score(peer, 0))
  }

  it.each<[string, string[][], number[]]>([
    ["go's example", [['1.2.3.4'], ['2.3.4.5'], ['2.3.4.5', '3.4.5.6'], ['2.3.4.5']], [0, -4, -4, -4]],
    ['no more than the threshold', [['1.2.3.4'], ['1.2.3.5']], [0, 0, 0, 0]],
    ['each of two addresses', [['1.2.3.4', '1.2.3.5'], ['1.2.3.4'], ['1.2.3.5']], [-2, -1, -1, 0]],
    ['an address once, however many connections', [['1.2.3.4', '1.2.3.4'], ['1.2.3.4']], [-1, -1, 0, 0]],
    ['the /64 of IPv6', [['2001:db8::1'], ['2001:db8::2'], ['2001:db8:0:1::1']], [-1, -1, 0, 0]],
    ['the IPv6 address and its /64', [['2001:db8::1'], ['2001:DB8:0::1']], [-2, -2, 0, 0]],
    ['the first address of a /64 and the /64', [['2001:db8::'], ['2001:db8::']], [-2, -2, 0, 0]],
    ['IPv4 in IPv6 as IPv4', [['1.2.3.4'], ['::ffff:1.2.3.4'], ['::ffff:1.2.3.5']], [-1, -1, 0, 0]],
    ['loopback not', [['127.0.0.1'], ['127.0.0.1'], ['::1'], ['::1']], [0, 0, 0, 0]],
  ])('counts %s', (_, ips, scores) => {
    expect(colocated(ips)).toEqual(scores)
  })

  it.each([[['2.3.0.0/16']], [['2.3.4.5']], [['0.0.0.0/0']], [['::ffff:2.3.4.0/120']]])(
    'does not count %j',
    (allow) => {
      const ips = [['2.3.4.5'], ['2.3.4.5'], ['2.3.4.5']]
      expect(colocated(ips, { ...p6, ipColocationFactorAllow: allow })).toEqual([0, 0, 0, 0])
    },
  )

  it.each([[['2.3.4.6']], [['2.2.0.0/16']], [['2.3.4.4/32']], [['::/0']]])('counts what is not in %j', (allow) => {
    expect(colocated([['2.3.4.5'], ['2.3.4.5']], { ...p6, ipColocationFactorAllow: allow })).toEqual([-1, -1, 0, 0])
  })

  it('does not count an allowed IPv6 address in its /64 either, and others there still', () => {
    const ips = [['2001:db8::1'], ['2001:db8::1'], ['2001:db8::2'], ['2001:db8::3']]
    expect(colocated(ips, { ...p6, ipColocationFactorAllow: ['2001:db8::1'] })).toEqual([0, 0, -1, -1])
    expect(colocated(ips, { ...p6, ipColocationFactorAllow: ['2001:db8::/65'] })).toEqual([0, 0, 0, 0])
  })

  it('follows a peer that moves, and those that leave for good', () => {
    const score = new PeerScore({ ...off, ...p6, retainScoreMs: 5000 })
    for (const peer of ['a', 'b']) {
      score.add(peer, 0)
      score.setIps(peer, ['1.2.3.4'])
    }
    expect(score.score('a', 0)).toBe(-1)
    score.setIps('b', ['1.2.3.5'])
    expect(score.score('a', 0)).toBe(0)
    score.setIps('b', ['1.2.3.4'])
    score.remove('b', 0)
    // Its score is remembered, so it still counts: ids are cheap, addresses are not.
    score.refresh(5000)
    expect(score.score('a', 5000)).toBe(-1)
    score.refresh(6000)
    expect(score.score('a', 6000)).toBe(0)
    expect(score.size).toMatchObject({ peers: 1, retained: 0, ips: 1 })
    score.setIps('a', [])
    expect(score.size.ips).toBe(0)
    score.setIps('nobody', ['1.2.3.4'])
    expect(score.size.ips).toBe(0)
    score.setIps('a', ['1.2.3.4'])
    score.remove('a', 6000)
    // Back too late, and before any refresh.
    score.add('a', 11_001)
    expect(score.size.ips).toBe(0)
  })

  it('wants addresses', () => {
    const score = scored({})
    expect(() => score.setIps('a', ['example.org'])).toThrow(TypeError)
  })
})

describe('P7, behaviour penalty', () => {
  it("is go's example: the square of the counter, which decays", () => {
    const score = scored({}, { behaviourPenaltyWeight: -1, behaviourPenaltyDecay: 0.99 })
    score.penalize('nobody')
    score.penalize('a')
    expect(score.score('a', 0)).toBe(-1)
    score.penalize('a')
    expect(score.score('a', 0)).toBe(-4)
    score.refresh(0)
    expect(score.score('a', 0)).toBeCloseTo(-3.9204, 12)
    expect(score.score('nobody', 0)).toBe(0)
  })

  it.each([
    [6, 0],
    [7, -10],
    [9, -90],
  ])('above a threshold of 6 counts what is more: %i make %i', (count, made) => {
    const score = scored({}, { behaviourPenaltyWeight: -10, behaviourPenaltyThreshold: 6 })
    score.penalize('a', count)
    expect(score.score('a', 0)).toBe(made)
  })
})

describe('the score', () => {
  it('adds topics up by their weights', () => {
    const score = new PeerScore({
      ...off,
      topics: { t: { ...p2, topicWeight: 0.5 }, u: { ...p4, topicWeight: 3 } },
    })
    score.add('a', 0)
    for (let i = 0; i < 10; i++) deliver(score, 'a')
    score.invalid('a', 'u')
    score.invalid('a', 'u')
    expect(score.score('a', 0)).toBe(0.5 * 10 - 3 * 4)
  })

  it('has a cap on what topics give, not on what they take or on the rest', () => {
    const score = scored({ ...p2, ...p4 }, { topicScoreCap: 10, appSpecificScore: (peer) => (peer === 'a' ? 7 : 0) })
    for (let i = 0; i < 50; i++) deliver(score, 'a')
    expect(score.score('a', 0)).toBe(17)
    for (let i = 0; i < 10; i++) score.invalid('b', 't')
    expect(score.score('b', 0)).toBe(-100)
  })

  it('is not moved by topics that are not scored', () => {
    const score = scored(p2)
    score.graft('a', 'other', 0)
    score.validating('1', 0)
    score.duplicate('1', 'other', 'b', 0)
    score.delivered('1', 'other', 'a', 0)
    score.prune('a', 'other')
    expect([...score.inspect(0).values()].map((parts) => Object.keys(parts.topics))).toEqual([['t'], ['t'], []])
    expect(score.score('a', 0)).toBe(0)
  })

  it('decays once an interval, and intervals that were missed are not made up', () => {
    const score = scored({ ...p2, firstMessageDeliveriesDecay: 0.5 }, { decayIntervalMs: 12_000 })
    for (let i = 0; i < 128; i++) deliver(score, 'a')
    const at = [0, 1000, 11_999, 12_000, 12_001, 23_999.9, 24_000.4, 61_000, 71_000, 72_000]
    expect(at.map((now) => (score.refresh(now), score.score('a', now)))).toEqual([64, 64, 64, 32, 32, 32, 16, 8, 8, 4])
  })

  it('takes new parameters of a topic, and a lower cap at once', () => {
    const score = scored(p2)
    for (let i = 0; i < 50; i++) deliver(score, 'a')
    score.remove('c', 0)
    expect(score.score('a', 0)).toBe(50)
    score.setTopicParams('t', { ...p2, firstMessageDeliveriesWeight: 2, firstMessageDeliveriesCap: 30 })
    expect(score.score('a', 0)).toBe(60)
    score.setTopicParams('new', p4)
    score.invalid('a', 'new')
    expect(score.score('a', 0)).toBe(59)
    expect(() => score.setTopicParams('t', { topicWeight: -1 })).toThrow('topics["t"].topicWeight')
  })
})

describe('a peer that disconnects', () => {
  it('loses a score above 0', () => {
    const score = scored(p2)
    deliver(score, 'a')
    score.remove('a', 0)
    expect(score.score('a', 0)).toBe(0)
    expect(score.size).toMatchObject({ peers: 2, retained: 0 })
    score.add('a', 0)
    expect(score.score('a', 0)).toBe(0)
  })

  it('keeps one of 0 or less, which does not decay, for the time it is retained', () => {
    const score = scored({ ...p2, ...p4 }, { retainScoreMs: 10_000 })
    deliver(score, 'a')
    for (let i = 0; i < 4; i++) score.invalid('a', 't')
    score.remove('a', 1000)
    // First deliveries are gone.
    expect(score.score('a', 1000)).toBe(-16)
    pass(score, 2000, 11_000)
    expect(score.score('a', 11_000)).toBe(-16)
    score.add('a', 11_000)
    expect(score.score('a', 11_000)).toBe(-16)
    score.refresh(12_000)
    expect(score.score('a', 12_000)).toBe(-4)
    score.remove('a', 12_000)
    expect(score.score('a', 22_001)).toBe(0)
    expect(score.inspect(22_001).has('a')).toBe(false)
    score.add('a', 22_001)
    expect(score.score('a', 22_001)).toBe(0)
  })

  it('keeps what it delivered in the mesh, for when it is grafted again', () => {
    const score = scored(p3, { appSpecificScore: () => -1 })
    for (let i = 0; i < 8; i++) deliver(score, 'a')
    score.remove('a', 0)
    score.add('a', 0)
    score.graft('a', 't', 0)
    score.refresh(6000)
    expect(score.score('a', 6000)).toBe(-36 - 1)
  })

  it('is forgotten by the refresh after that time', () => {
    const score = scored(p4, { retainScoreMs: 10_000 })
    score.invalid('a', 't')
    score.remove('a', 0)
    score.remove('b', 0)
    score.refresh(10_000)
    expect(score.size.retained).toBe(2)
    score.refresh(11_000)
    expect(score.size).toMatchObject({ peers: 1, retained: 0 })
  })

  it('is forgotten at once where nothing is to be retained', () => {
    const score = scored(p4, { retainScoreMs: 0 })
    score.invalid('a', 't')
    score.remove('a', 0)
    expect(score.size.retained).toBe(0)
    expect(score.score('a', 0)).toBe(0)
  })

  it('is out of the mesh, and remembered in no topic where it did nothing wrong', () => {
    const score = scored({ ...p1, ...p4 }, { appSpecificScore: () => -1 })
    score.invalid('b', 't')
    for (const peer of ['a', 'b']) score.remove(peer, 0)
    const parts = score.inspect(0)
    expect(parts.get('a')).toMatchObject({ connected: false, topics: {} })
    expect(parts.get('b')?.topics).toMatchObject({ t: { inMesh: false, invalidMessageDeliveries: 1 } })
  })
})

describe('memory', () => {
  it('holds so many messages: one more costs the oldest, whose copies count no more', () => {
    const score = scored(p4, { maxMessages: 3 })
    for (const id of ['1', '2', '3', '4']) score.rejected(id, 't', 'a', 0)
    expect(score.size.messages).toBe(3)
    score.duplicate('1', 't', 'b', 0)
    expect(score.score('b', 0)).toBe(0)
    score.duplicate('2', 't', 'b', 0)
    expect(score.score('b', 0)).toBe(-1)
  })

  it('holds a message as long as the duplicate window, and those who sent it', () => {
    const score = scored(p4, { seenTtlMs: 5000 })
    score.rejected('1', 't', 'a', 0)
    score.validating('2', 3000)
    score.duplicate('2', 't', 'c', 3000)
    score.duplicate('1', 't', 'b', 5000)
    expect(score.score('b', 0)).toBe(-1)
    score.duplicate('1', 't', 'b', 5001)
    expect(score.score('b', 0)).toBe(-1)
    score.refresh(6000)
    expect(score.size).toMatchObject({ messages: 1, senders: 1 })
    // Seen again later, it is a new one.
    score.rejected('1', 't', 'a', 6000)
    expect(score.score('a', 0)).toBe(-2.25)
    score.refresh(20_000)
    expect(score.size).toMatchObject({ messages: 0, senders: 0 })
    score.validating('1', 20_000)
    score.validating('2', 21_000)
    score.refresh(26_000)
    expect(score.size.messages).toBe(1)
  })

  it('holds so many senders over all messages, and only connected ones', () => {
    const score = scored(p3, { maxSenders: 4 })
    for (const id of ['1', '2', '3']) {
      score.validating(id, 0)
      for (const peer of ['b', 'c', 'nobody']) score.duplicate(id, 't', peer, 0)
    }
    expect(score.size).toEqual({ peers: 3, retained: 0, messages: 2, senders: 4, ips: 0 })
    score.ignored('2', 0)
    expect(score.size.senders).toBe(2)
    score.rejected('3', 't', 'a', 0)
    expect(score.size.senders).toBe(0)
  })

  it('forgets the senders of a valid message at the first copy that comes too late', () => {
    const score = scored(p3)
    score.validating('1', 0)
    score.duplicate('1', 't', 'b', 0)
    score.delivered('1', 't', 'a', 0)
    expect(score.size.senders).toBe(2)
    score.duplicate('1', 't', 'c', 11)
    expect(score.size.senders).toBe(0)
  })

  it('holds so many peers that left: one more costs the one with the best score, never the worst', () => {
    const score = new PeerScore({ ...off, topics: { t: p4 }, maxRetainedPeers: 3 })
    for (const [peer, invalid] of [
      ['bad', 5],
      ['worse', 9],
      ['fair', 2],
      ['good', 1],
    ] as const) {
      score.add(peer, 0)
      for (let i = 0; i < invalid; i++) score.invalid(peer, 't')
      score.remove(peer, 0)
    }
    // Many that did nothing can't wash away the bad ones.
    for (let i = 0; i < 100; i++) {
      score.add(`fresh ${i}`, 0)
      score.setIps(`fresh ${i}`, [`192.0.2.${i}`])
      score.remove(`fresh ${i}`, 0)
    }
    expect([...score.inspect(0).keys()]).toEqual(['bad', 'worse', 'fair'])
    expect(score.size).toMatchObject({ retained: 3, ips: 0 })
  })

  it('holds no message while no topic is scored', () => {
    const score = new PeerScore()
    score.add('a', 0)
    score.validating('1', 0)
    score.delivered('2', 't', 'a', 0)
    score.rejected('3', 't', 'a', 0)
    expect(score.size.messages).toBe(0)
  })
})

describe('inspect', () => {
  it('says what a score is made of', () => {
    const score = new PeerScore({
      topics: { t: { ...p1, ...p2, ...p3, ...p4, ...p3b, meshMessageDeliveriesWeight: -2, topicWeight: 0.5 } },
      appSpecificScore: () => 3,
      ipColocationFactorWeight: -1,
      ipColocationFactorThreshold: 1,
      behaviourPenaltyWeight: -1,
      behaviourPenaltyDecay: 0.5,
    })
    for (const peer of ['a', 'b']) {
      score.add(peer, 0)
      score.setIps(peer, ['1.2.3.4'])
    }
    score.graft('a', 't', 0)
    score.refresh(300_000)
    score.prune('a', 't')
    score.graft('a', 't', 300_000)
    for (let i = 0; i < 8; i++) deliver(score, 'a', 300_000)
    score.invalid('a', 't')
    score.penalize('a', 4)
    score.refresh(600_000)
    expect(score.inspect(600_000).get('a')).toEqual({
      score: 0.5 * (0.5 + 4 - 2 * 36 - 50 - 0.25) + 3 - 1 - 4,
      connected: true,
      topics: {
        t: {
          inMesh: true,
          timeInMeshMs: 300_000,
          firstMessageDeliveries: 4,
          meshMessageDeliveries: 4,
          meshFailurePenalty: 50,
          invalidMessageDeliveries: 0.5,
          p1: 0.25,
          p2: 2,
          p3: -36,
          p3b: -25,
          p4: -0.125,
        },
      },
      p5: 3,
      p6: -1,
      p7: -4,
      ips: ['1.2.3.4'],
    })
    expect(score.inspect(0).get('b')).toMatchObject({ score: 2, topics: {}, p5: 3, p6: -1, p7: 0 })
  })
})

/** go-libp2p-pubsub v0.17.0 gives the figures in brackets: docs/gossipsub-score.md says why ours differ. */
describe('unlike go', () => {
  it('P3 ends with the mesh: 0 (-4)', () => {
    const score = scored({ ...p3, meshMessageDeliveriesThreshold: 2 })
    score.refresh(6000)
    score.prune('a', 't')
    expect(score.score('a', 6000)).toBe(0)
    score.remove('b', 6000)
    expect(score.score('b', 6000)).toBe(0)
  })

  it('a second PRUNE adds nothing to P3b: -4 (-8)', () => {
    const score = scored({ ...p3b, meshMessageDeliveriesThreshold: 2 })
    score.refresh(6000)
    score.prune('a', 't')
    score.prune('a', 't')
    expect(score.score('a', 6000)).toBe(-4)
  })

  it('a peer that brings its own first message again is credited once: -1 (0)', () => {
    const score = scored({ ...p3, meshMessageDeliveriesThreshold: 2 })
    score.refresh(6000)
    score.validating('1', 6000)
    score.delivered('1', 't', 'a', 6000)
    score.duplicate('1', 't', 'a', 6000)
    expect(score.score('a', 6000)).toBe(-1)
  })

  it('a second GRAFT does not put P3 off: -4 (0)', () => {
    const score = scored({ ...p3, meshMessageDeliveriesThreshold: 2 })
    score.refresh(5000)
    score.graft('a', 't', 5000)
    score.refresh(6000)
    expect(score.score('a', 6000)).toBe(-4)
  })
})
