/*
 * Parameter sets that networks run, for tests: numbers only, as published.
 * Ethereum's consensus layer: by the formulas of Lodestar (packages/beacon-node/src/network/gossip/scoringParameters.ts,
 * 6de0736, 2024-10-25), which are Lighthouse's (service/gossipsub_scoring_parameters.rs, 2e0eb6d) and Teku's; the two
 * differ in P3's weight (Lighthouse: -topicWeight) and window (2 s), and in the peers allowed per IP (8).
 * Filecoin: lotus node/modules/lp2p/pubsub.go (b835fab, 2026-08-06), whose mesh delivery parameters are off on purpose.
 */
import {
  decayFor,
  type ScoreParams,
  type Thresholds,
  type TopicScoreParams,
} from '../../../src/protocols/gossipsub/score-params.ts'

export interface Preset {
  params: ScoreParams & { topics: Record<string, TopicScoreParams> }
  thresholds: Thresholds
}

/** Mainnet's slots an epoch, attestation subnets, and what its committees are made of. */
const slotsPerEpoch = 32
const subnets = 64
const maxCommitteesPerSlot = 64
const targetCommitteeSize = 128
const targetAggregators = 16

const weights = { block: 0.5, aggregate: 0.5, subnet: 1 / subnets, rare: 0.05 }
/** 10 for being in the mesh and 40 for first deliveries, in all topics together. */
const maxPositiveScore = (10 + 40) * (weights.block + weights.aggregate + weights.subnet * subnets + 4 * weights.rare)

/** What a counter with so many additions per decay comes to rest at. */
const convergence = (decay: number, rate: number): number => rate / (1 - decay)

export interface EthereumOptions {
  /** Active. Mainnet had 16,384 at least at genesis, and has about a million. */
  validators: number
  /** P3 is off until so many slots have gone by as its counter takes to decay. */
  currentSlot: number
  slotMs?: number
  /** Peers of a mesh. */
  D?: number
}

export const ethereumTopic = (name: string): string => `/eth2/01010101/${name}/ssz_snappy`

export function ethereum({ validators, currentSlot, slotMs = 12_000, D = 8 }: EthereumOptions): Preset {
  const epochMs = slotMs * slotsPerEpoch
  const zeroAfter = (zeroAfterMs: number): number => decayFor({ zeroAfterMs }, slotMs, 0.01)
  interface Mesh {
    decaySlots: number
    capFactor: number
    activationMs: number
  }
  const topic = (topicWeight: number, rate: number, firstDecayMs: number, mesh?: Mesh): TopicScoreParams => {
    const timeInMeshCap = 3_600_000 / slotMs
    const firstMessageDeliveriesDecay = zeroAfter(firstDecayMs)
    const firstMessageDeliveriesCap = convergence(firstMessageDeliveriesDecay, (2 * rate) / D)
    const out: TopicScoreParams = {
      topicWeight,
      timeInMeshWeight: 10 / timeInMeshCap,
      timeInMeshQuantumMs: slotMs,
      timeInMeshCap,
      firstMessageDeliveriesWeight: 40 / firstMessageDeliveriesCap,
      firstMessageDeliveriesDecay,
      firstMessageDeliveriesCap,
      invalidMessageDeliveriesWeight: -maxPositiveScore / topicWeight,
      invalidMessageDeliveriesDecay: zeroAfter(epochMs * 50),
    }
    if (mesh === undefined) return out
    const decay = zeroAfter(slotMs * mesh.decaySlots)
    const threshold = convergence(decay, rate / 50) * decay
    const weight = -maxPositiveScore / (topicWeight * threshold ** 2)
    const on = mesh.decaySlots < currentSlot
    return {
      ...out,
      meshMessageDeliveriesWeight: on ? weight : 0,
      meshMessageDeliveriesDecay: decay,
      meshMessageDeliveriesCap: Math.max(mesh.capFactor * threshold, 2),
      meshMessageDeliveriesThreshold: on ? threshold : 0,
      meshMessageDeliveriesWindowMs: 12_000,
      meshMessageDeliveriesActivationMs: mesh.activationMs,
      meshFailurePenaltyWeight: weight,
      meshFailurePenaltyDecay: decay,
    }
  }

  const { aggregatorsPerSlot, committeesPerSlot } = aggregators(validators)
  const bursts = committeesPerSlot >= (2 * subnets) / slotsPerEpoch
  const attestation = topic(
    weights.subnet,
    validators / subnets / slotsPerEpoch,
    bursts ? epochMs : epochMs * 4,
    bursts
      ? { decaySlots: slotsPerEpoch * 4, capFactor: 16, activationMs: slotMs * (slotsPerEpoch / 2 + 1) }
      : { decaySlots: slotsPerEpoch * 16, capFactor: 16, activationMs: epochMs },
  )
  const exits = topic(weights.rare, 4 / slotsPerEpoch, epochMs * 100)
  const slashings = topic(weights.rare, 1 / 5 / slotsPerEpoch, epochMs * 100)
  const topics: Record<string, TopicScoreParams> = {
    [ethereumTopic('beacon_block')]: topic(weights.block, 1, epochMs * 20, {
      decaySlots: slotsPerEpoch * 5,
      capFactor: 3,
      activationMs: epochMs,
    }),
    [ethereumTopic('beacon_aggregate_and_proof')]: topic(weights.aggregate, aggregatorsPerSlot, epochMs, {
      decaySlots: slotsPerEpoch * 2,
      capFactor: 4,
      activationMs: epochMs,
    }),
    [ethereumTopic('voluntary_exit')]: exits,
    [ethereumTopic('bls_to_execution_change')]: exits,
    [ethereumTopic('attester_slashing')]: slashings,
    [ethereumTopic('proposer_slashing')]: slashings,
  }
  for (let i = 0; i < subnets; i++) topics[ethereumTopic(`beacon_attestation_${i}`)] = attestation

  const behaviourPenaltyDecay = zeroAfter(epochMs * 10)
  const behaviourPenaltyThreshold = 6
  const target = convergence(behaviourPenaltyDecay, 10 / slotsPerEpoch) - behaviourPenaltyThreshold
  const thresholds = { gossip: -4000, publish: -8000, graylist: -16_000, acceptPX: 100, opportunisticGraft: 5 }
  return {
    thresholds,
    params: {
      topics,
      topicScoreCap: maxPositiveScore / 2,
      appSpecificWeight: 1,
      ipColocationFactorWeight: -maxPositiveScore / 2,
      ipColocationFactorThreshold: 3,
      behaviourPenaltyWeight: thresholds.gossip / target ** 2,
      behaviourPenaltyThreshold,
      behaviourPenaltyDecay,
      decayIntervalMs: slotMs,
      decayToZero: 0.01,
      retainScoreMs: epochMs * 100,
    },
  }
}

function aggregators(validators: number): { aggregatorsPerSlot: number; committeesPerSlot: number } {
  const wanted = Math.floor(validators / slotsPerEpoch / targetCommitteeSize)
  const committeesPerSlot = Math.max(1, Math.min(maxCommitteesPerSlot, wanted))
  const committees = committeesPerSlot * slotsPerEpoch
  const small = Math.floor(validators / committees)
  const largeCount = validators - small * committees
  const perEpoch = aggregatorsOf(small, committees - largeCount) + aggregatorsOf(small + 1, largeCount)
  return { aggregatorsPerSlot: Math.max(1, Math.floor(perEpoch / slotsPerEpoch)), committeesPerSlot }
}

/** Of so many committees of one size. */
const aggregatorsOf = (size: number, count: number): number =>
  Math.floor((size / Math.max(1, Math.floor(size / targetAggregators))) * count)

const hourMs = 3_600_000

export const filecoinTopics = {
  blocks: '/fil/blocks/testnetnet',
  messages: '/fil/msgs/testnetnet',
  drand: '/drand/pubsub/v0.0.0/8990e7a9aaed2ffed73dbd7092123d6f289930540d7651336225dc172e51b2ce',
}

export function filecoin(): Preset {
  const shared = {
    timeInMeshQuantumMs: 1000,
    timeInMeshCap: 1,
    invalidMessageDeliveriesWeight: -1000,
    invalidMessageDeliveriesDecay: decayFor({ zeroAfterMs: hourMs }),
  }
  return {
    thresholds: { gossip: -500, publish: -1000, graylist: -2500, acceptPX: 1000, opportunisticGraft: 3.5 },
    params: {
      topics: {
        [filecoinTopics.blocks]: {
          ...shared,
          topicWeight: 0.1,
          timeInMeshWeight: 0.000_27,
          firstMessageDeliveriesWeight: 5,
          firstMessageDeliveriesDecay: decayFor({ zeroAfterMs: hourMs }),
          firstMessageDeliveriesCap: 100,
        },
        [filecoinTopics.messages]: {
          ...shared,
          topicWeight: 0.1,
          timeInMeshWeight: 0.000_277_8,
          firstMessageDeliveriesWeight: 0.5,
          firstMessageDeliveriesDecay: decayFor({ zeroAfterMs: hourMs / 6 }),
          firstMessageDeliveriesCap: 100,
        },
        [filecoinTopics.drand]: {
          ...shared,
          topicWeight: 0.5,
          timeInMeshWeight: 0.000_27,
          firstMessageDeliveriesWeight: 5,
          firstMessageDeliveriesDecay: decayFor({ zeroAfterMs: hourMs }),
          firstMessageDeliveriesCap: 25,
        },
      },
      appSpecificWeight: 1,
      ipColocationFactorWeight: -100,
      ipColocationFactorThreshold: 5,
      behaviourPenaltyWeight: -10,
      behaviourPenaltyThreshold: 6,
      behaviourPenaltyDecay: decayFor({ zeroAfterMs: hourMs }),
      decayIntervalMs: 1000,
      decayToZero: 0.01,
      retainScoreMs: 6 * hourMs,
    },
  }
}
