import { describe, expect, it } from 'vitest'
import {
  decayFor,
  defaultThresholds,
  validateScoreParams,
  validateThresholds,
  validateTopicParams,
  type ScoreParams,
  type Thresholds,
  type TopicScoreParams,
} from '../../../src/protocols/gossipsub/score-params.ts'

/** Every group on, with values that are fine. */
const whole: TopicScoreParams = {
  topicWeight: 1,
  timeInMeshWeight: 0.01,
  timeInMeshQuantumMs: 1000,
  timeInMeshCap: 10,
  firstMessageDeliveriesWeight: 1,
  firstMessageDeliveriesDecay: 0.5,
  firstMessageDeliveriesCap: 10,
  meshMessageDeliveriesWeight: -1,
  meshMessageDeliveriesDecay: 0.5,
  meshMessageDeliveriesCap: 10,
  meshMessageDeliveriesThreshold: 5,
  meshMessageDeliveriesWindowMs: 1,
  meshMessageDeliveriesActivationMs: 1000,
  meshFailurePenaltyWeight: -1,
  meshFailurePenaltyDecay: 0.5,
  invalidMessageDeliveriesWeight: -1,
  invalidMessageDeliveriesDecay: 0.5,
}

describe('topic parameters', () => {
  it('may be whole, or left out group by group', () => {
    expect(validateTopicParams('t', whole)).toEqual(whole)
    expect(validateTopicParams('t', {})).toMatchObject({
      topicWeight: 1,
      timeInMeshWeight: 0,
    })
    expect(() =>
      validateTopicParams('t', {
        firstMessageDeliveriesWeight: 1,
        firstMessageDeliveriesDecay: 0.9,
        firstMessageDeliveriesCap: 1,
      }),
    ).not.toThrow()
  })

  it.each<[keyof TopicScoreParams, number[]]>([
    ['topicWeight', [-1]],
    ['timeInMeshWeight', [-1]],
    ['timeInMeshQuantumMs', [0, -1]],
    ['timeInMeshCap', [0, -1]],
    ['firstMessageDeliveriesWeight', [-1]],
    ['firstMessageDeliveriesDecay', [0, 1, 2, -1]],
    ['firstMessageDeliveriesCap', [0, -1]],
    ['meshMessageDeliveriesWeight', [1]],
    ['meshMessageDeliveriesDecay', [0, 1, 2, -1]],
    ['meshMessageDeliveriesCap', [0, -1]],
    ['meshMessageDeliveriesThreshold', [0, -3]],
    ['meshMessageDeliveriesWindowMs', [-1]],
    ['meshMessageDeliveriesActivationMs', [0, 999]],
    ['meshFailurePenaltyWeight', [1]],
    ['meshFailurePenaltyDecay', [0, 1, 2, -1]],
    ['invalidMessageDeliveriesWeight', [1]],
    ['invalidMessageDeliveriesDecay', [0, 1, 2, -1]],
  ])('with a bad %s are refused by its name', (name, values) => {
    for (const value of [...values, Number.NaN, Infinity, -Infinity]) {
      const refuse = (): unknown => validateScoreParams({ topics: { 'a "b"': { ...whole, [name]: value } } })
      expect(refuse).toThrow(RangeError)
      expect(refuse).toThrow(`topics["a \\"b\\""].${name} is ${value}, want `)
    }
  })

  it.each<TopicScoreParams>([
    { timeInMeshWeight: 1 },
    { firstMessageDeliveriesWeight: 1, firstMessageDeliveriesCap: 1 },
    { firstMessageDeliveriesWeight: 1, firstMessageDeliveriesDecay: 0.5 },
    { ...whole, meshMessageDeliveriesThreshold: 0 },
    { meshFailurePenaltyWeight: -1 },
    { invalidMessageDeliveriesWeight: -1 },
  ])('with half a group are refused: %o', (half) => {
    expect(() => validateTopicParams('t', half)).toThrow(/weight/)
  })

  it('whose weight is off need no more than numbers in range (Ethereum at genesis, Filecoin)', () => {
    const off = { ...whole, meshMessageDeliveriesWeight: 0, meshMessageDeliveriesThreshold: 0 }
    expect(() => validateTopicParams('t', off)).not.toThrow()
    expect(() => validateTopicParams('t', { meshMessageDeliveriesDecay: 0 })).not.toThrow()
    expect(() => validateTopicParams('t', { meshMessageDeliveriesDecay: 1 })).toThrow(RangeError)
  })
})

describe('score parameters', () => {
  it('left out are filled in, and what was given stays', () => {
    const full = validateScoreParams({ topicScoreCap: 7 })
    expect(full).toMatchObject({ topicScoreCap: 7, decayIntervalMs: 1000, decayToZero: 0.01, retainScoreMs: 3_600_000 })
    expect(full.appSpecificScore('anybody')).toBe(0)
    expect(full.behaviourPenaltyDecay ** 600).toBeCloseTo(0.01, 12)
    expect(full.topics.size).toBe(0)
  })

  it.each<[keyof ScoreParams, number[]]>([
    ['topicScoreCap', [-1]],
    ['appSpecificWeight', []],
    ['ipColocationFactorWeight', [1]],
    ['ipColocationFactorThreshold', [0, -1, 1.5]],
    ['behaviourPenaltyWeight', [1]],
    ['behaviourPenaltyThreshold', [-1]],
    ['behaviourPenaltyDecay', [0, 1, 2, -1]],
    ['decayIntervalMs', [0, 999]],
    ['decayToZero', [0, 1, 2, -1]],
    ['retainScoreMs', [-1]],
    ['seenTtlMs', [0, -1]],
    ['maxRetainedPeers', [0, 0.5]],
    ['maxMessages', [0, 0.5]],
    ['maxSenders', [0, 0.5]],
  ])('with a bad %s are refused by its name', (name, values) => {
    for (const value of [...values, Number.NaN, Infinity, -Infinity]) {
      expect(() => validateScoreParams({ [name]: value })).toThrow(RangeError)
      expect(() => validateScoreParams({ [name]: value })).toThrow(`${name} is ${value}, want `)
    }
  })

  it.each([
    '',
    'example.org',
    '192.0.2.1/33',
    '192.0.2.1/',
    '192.0.2.1/8/8',
    '192.0.2/24',
    '::/129',
    '::/-1',
    '1.2.3.4/x',
  ])('refuse to allow %j, which is no address', (text) => {
    expect(() => validateScoreParams({ ipColocationFactorAllow: [text] })).toThrow(RangeError)
  })
})

describe('thresholds', () => {
  it('left out are those of js and rust', () => {
    expect(validateThresholds({})).toEqual(defaultThresholds)
    expect(validateThresholds({ gossip: -1 })).toEqual({ ...defaultThresholds, gossip: -1 })
  })

  it.each<[keyof Thresholds, Partial<Thresholds>]>([
    ['gossip', { gossip: 1 }],
    ['publish', { gossip: -2, publish: -1 }],
    ['publish', { gossip: 0, publish: 1 }],
    ['graylist', { publish: -20, graylist: -10 }],
    ['acceptPX', { acceptPX: -1 }],
    ['opportunisticGraft', { opportunisticGraft: -1 }],
  ])('with a bad %s are refused by its name: %o', (name, set) => {
    expect(() => validateThresholds(set)).toThrow(RangeError)
    expect(() => validateThresholds(set)).toThrow(`${name} is `)
    for (const value of [Number.NaN, Infinity, -Infinity])
      expect(() => validateThresholds({ [name]: value })).toThrow(`${name} is ${value}`)
  })

  it('may all be the same', () => {
    expect(() => validateThresholds({ gossip: -1, publish: -1, graylist: -1 })).not.toThrow()
    expect(() => validateThresholds({ gossip: 0, publish: 0, graylist: 0 })).not.toThrow()
  })
})

describe('decayFor', () => {
  it.each([
    [{ zeroAfterMs: 3_600_000 }, 1000, 0.01, 3600],
    [{ zeroAfterMs: 12_000 * 32 }, 12_000, 0.01, 32],
    [{ zeroAfterMs: 10_000 }, 2000, 0.1, 5],
  ])('takes a counter of 1 to zero in the time given: %o every %i ms', (time, intervalMs, decayToZero, ticks) => {
    const factor = decayFor(time, intervalMs, decayToZero)
    expect(factor ** ticks).toBeCloseTo(decayToZero, 12)
    expect(factor ** (ticks - 1)).toBeGreaterThan(decayToZero)
  })

  it('halves a counter in its half-life', () => {
    expect(decayFor({ halfLifeMs: 60_000 }, 1000) ** 60).toBeCloseTo(0.5, 12)
    expect(decayFor({ halfLifeMs: 1000 })).toBe(0.5)
  })

  it('wants times above 0 and a fraction', () => {
    expect(() => decayFor({ zeroAfterMs: 0 })).toThrow('zeroAfterMs')
    expect(() => decayFor({ halfLifeMs: Number.NaN })).toThrow('halfLifeMs')
    expect(() => decayFor({ zeroAfterMs: 1000 }, 0)).toThrow('intervalMs')
    expect(() => decayFor({ zeroAfterMs: 1000 }, 1000, 1)).toThrow('decayToZero')
  })
})
