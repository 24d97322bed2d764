/* Parameter sets of real networks, against figures that their clients publish. */
import { describe, expect, it } from 'vitest'
import {
  validateScoreParams,
  validateThresholds,
  type TopicScoreParams,
} from '../../../src/protocols/gossipsub/score-params.ts'
import { PeerScore } from '../../../src/protocols/gossipsub/score.ts'
import { ethereum, ethereumTopic, filecoin, filecoinTopics } from './presets.ts'

/** As Teku's and Lodestar's own tests have them (GossipScoringConfiguratorTest, scoringParameters.test), to 5e-5. */
const published: Record<string, TopicScoreParams> = {
  voluntary_exit: {
    topicWeight: 0.05,
    firstMessageDeliveriesWeight: 1.8407,
    firstMessageDeliveriesDecay: 0.998_56,
    firstMessageDeliveriesCap: 21.730_35,
    invalidMessageDeliveriesWeight: -2200,
  },
  attester_slashing: {
    topicWeight: 0.05,
    firstMessageDeliveriesWeight: 36.814_86,
    firstMessageDeliveriesDecay: 0.998_561,
    firstMessageDeliveriesCap: 1.086_52,
    invalidMessageDeliveriesWeight: -2200,
  },
  beacon_aggregate_and_proof: {
    topicWeight: 0.5,
    firstMessageDeliveriesWeight: 0.335_09,
    firstMessageDeliveriesDecay: 0.865_96,
    firstMessageDeliveriesCap: 119.3712,
    invalidMessageDeliveriesWeight: -220,
    meshMessageDeliveriesWeight: -0.7474,
    meshMessageDeliveriesDecay: 0.930_572,
    meshMessageDeliveriesCap: 68.6255,
    meshMessageDeliveriesThreshold: 17.156_38,
    meshMessageDeliveriesActivationMs: 384_000,
    meshFailurePenaltyWeight: -0.7474,
    meshFailurePenaltyDecay: 0.930_57,
  },
  beacon_block: {
    topicWeight: 0.5,
    firstMessageDeliveriesWeight: 1.147_16,
    firstMessageDeliveriesDecay: 0.992_83,
    firstMessageDeliveriesCap: 34.8687,
    invalidMessageDeliveriesWeight: -220,
    meshMessageDeliveriesWeight: -468.9689,
    meshMessageDeliveriesDecay: 0.971_63,
    meshMessageDeliveriesCap: 2.054_757_4,
    meshMessageDeliveriesThreshold: 0.684_91,
    meshMessageDeliveriesActivationMs: 384_000,
    meshFailurePenaltyWeight: -468.9689,
    meshFailurePenaltyDecay: 0.971_63,
  },
  beacon_attestation_63: {
    topicWeight: 0.015_625,
    firstMessageDeliveriesWeight: 2.6807,
    firstMessageDeliveriesDecay: 0.865_96,
    firstMessageDeliveriesCap: 14.9214,
    invalidMessageDeliveriesWeight: -7040,
    meshMessageDeliveriesWeight: -369.0421,
    meshMessageDeliveriesDecay: 0.964_66,
    meshMessageDeliveriesCap: 69.882_48,
    meshMessageDeliveriesThreshold: 4.367_655,
    meshMessageDeliveriesActivationMs: 204_000,
    meshFailurePenaltyWeight: -369.0421,
    meshFailurePenaltyDecay: 0.964_66,
  },
}
const everywhere: TopicScoreParams = {
  timeInMeshWeight: 0.033_33,
  timeInMeshQuantumMs: 12_000,
  timeInMeshCap: 300,
  invalidMessageDeliveriesDecay: 0.997_13,
}

describe("Ethereum's parameters", () => {
  it.each(Object.entries(published))('of %s are those that Teku and Lodestar publish', (name, figures) => {
    const topic = ethereum({ validators: 16_384, currentSlot: 10_000 }).params.topics[ethereumTopic(name)] ?? {}
    for (const [key, figure] of Object.entries({ ...everywhere, ...figures })) {
      const ours = topic[key as keyof TopicScoreParams] ?? Number.NaN
      expect(Math.abs(ours - figure), `${key}: ${ours}, published ${figure}`).toBeLessThan(5e-5)
    }
  })

  it('have P3 off at genesis, and its failures not', () => {
    const { topics } = ethereum({ validators: 16_384, currentSlot: 0 }).params
    for (const name of ['beacon_block', 'beacon_aggregate_and_proof', 'beacon_attestation_0']) {
      const topic = topics[ethereumTopic(name)]
      expect(topic).toMatchObject({ meshMessageDeliveriesWeight: 0, meshMessageDeliveriesThreshold: 0 })
      expect(topic?.meshFailurePenaltyWeight).toBeLessThan(0)
    }
  })

  it.each([
    [16_384, 0],
    [16_384, 10_000],
    [262_144, 5_000_000],
    [1_050_000, 12_000_000],
  ])('are good for %i validators at slot %i', (validators, currentSlot) => {
    const { params, thresholds } = ethereum({ validators, currentSlot })
    expect(validateScoreParams(params).topics.size).toBe(70)
    expect(validateThresholds(thresholds)).toEqual(thresholds)
  })

  it('let a peer that is best everywhere earn the cap, 55', () => {
    const { params } = ethereum({ validators: 16_384, currentSlot: 10_000 })
    const score = new PeerScore(params)
    score.add('best', 0)
    for (const topic of Object.keys(params.topics)) score.graft('best', topic, 0)
    for (let slot = 1; slot <= 301; slot++) {
      for (const topic of Object.keys(params.topics))
        for (let i = 0; i < 30; i++) score.delivered(`${topic} ${slot} ${i}`, topic, 'best', slot * 12_000)
      score.refresh(slot * 12_000)
    }
    expect(score.score('best', 0)).toBeCloseTo(55, 9)
  })

  it('graylist a peer after 13 invalid blocks, and take gossip from it no more after 7', () => {
    const { params, thresholds } = ethereum({ validators: 16_384, currentSlot: 10_000 })
    const score = new PeerScore(params)
    score.add('bad', 0)
    const scores = Array.from({ length: 13 }, (_, i) => {
      score.rejected(`block ${i}`, ethereumTopic('beacon_block'), 'bad', i)
      return score.score('bad', i)
    })
    // -220 * 0.5 * n²
    expect(scores.findIndex((s) => s < thresholds.gossip) + 1).toBe(7)
    expect(scores.findIndex((s) => s < thresholds.publish) + 1).toBe(9)
    expect(scores.findIndex((s) => s < thresholds.graylist) + 1).toBe(13)
  })
})

describe("Filecoin's parameters", () => {
  it('are good', () => {
    const { params, thresholds } = filecoin()
    expect(validateScoreParams(params).topics.size).toBe(3)
    expect(validateThresholds(thresholds)).toEqual(thresholds)
  })

  it('make of each topic what their comments say: at most 50, 5 and 62.5, and -100 for one invalid message', () => {
    const { params } = filecoin()
    for (const [topic, most] of [
      [filecoinTopics.blocks, 50],
      [filecoinTopics.messages, 5],
      [filecoinTopics.drand, 62.5],
    ] as const) {
      const score = new PeerScore(params)
      score.add('peer', 0)
      score.graft('peer', topic, 0)
      for (let i = 0; i < 200; i++) score.delivered(`${i}`, topic, 'peer', 0)
      expect(score.score('peer', 0)).toBeCloseTo(most, 9)
    }
    const score = new PeerScore(params)
    score.add('peer', 0)
    score.rejected('1', filecoinTopics.blocks, 'peer', 0)
    expect(score.score('peer', 0)).toBe(-100)
  })

  it('forgive 6 misbehaviours, and graylist after 22', () => {
    const { params, thresholds } = filecoin()
    const score = new PeerScore(params)
    score.add('peer', 0)
    score.penalize('peer', 6)
    expect(score.score('peer', 0)).toBe(0)
    score.penalize('peer', 15)
    expect(score.score('peer', 0)).toBe(-2250)
    score.penalize('peer')
    expect(score.score('peer', 0)).toBeLessThan(thresholds.graylist)
  })

  it('take peer exchange from a bootstrapper and from nobody else', () => {
    const { params, thresholds } = filecoin()
    const score = new PeerScore({ ...params, appSpecificScore: (peer) => (peer === 'bootstrapper' ? 2500 : 0) })
    score.add('bootstrapper', 0)
    score.add('peer', 0)
    expect(score.score('bootstrapper', 0)).toBeGreaterThan(thresholds.acceptPX)
    for (const topic of Object.values(filecoinTopics))
      for (let i = 0; i < 200; i++) score.delivered(`${topic}${i}`, topic, 'peer', 0)
    expect(score.score('peer', 0)).toBeLessThan(thresholds.acceptPX)
  })
})
