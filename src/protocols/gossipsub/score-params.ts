/*
 * gossipsub v1.1 (r8) §Peer Scoring: the parameters of the score, and which of the spec's rules a set breaks.
 * A topic's parameter that is left out is off: its weight is 0. A group (P1, P2, ...) that has a weight must be whole;
 * that is what go calls validation that is not atomic. Weights and decays are plain numbers, times are milliseconds.
 */
import { mappedIp4, parseIp } from '../../ip.ts'

/** What a peer does in one topic. Every weight is 0 (off) unless given. */
export interface TopicScoreParams {
  /** Times the sum of the topic's parts, >= 0. Default 1. */
  topicWeight?: number

  /** P1, time in the mesh: whole quanta since the GRAFT, at most `cap`; weight >= 0. */
  timeInMeshWeight?: number
  timeInMeshQuantumMs?: number
  timeInMeshCap?: number

  /** P2, valid messages that the peer brought first: a counter, at most `cap`; weight >= 0. */
  firstMessageDeliveriesWeight?: number
  firstMessageDeliveriesDecay?: number
  firstMessageDeliveriesCap?: number

  /** P3, messages brought first or nearly first while in the mesh: (threshold - counter)² below it; weight <= 0. */
  meshMessageDeliveriesWeight?: number
  meshMessageDeliveriesDecay?: number
  meshMessageDeliveriesCap?: number
  meshMessageDeliveriesThreshold?: number
  /** A copy counts as nearly first when it comes during validation, or at most so long after it. */
  meshMessageDeliveriesWindowMs?: number
  /** Time in the mesh until P3 counts: 1 s at least. */
  meshMessageDeliveriesActivationMs?: number

  /** P3b: what P3 was when the peer left the mesh, added up; weight <= 0. */
  meshFailurePenaltyWeight?: number
  meshFailurePenaltyDecay?: number

  /** P4, invalid messages: the square of a counter; weight <= 0. */
  invalidMessageDeliveriesWeight?: number
  invalidMessageDeliveriesDecay?: number
}

export interface ScoreParams {
  /** By name. What peers do in other topics is not counted. */
  topics?: Readonly<Record<string, TopicScoreParams>>
  /** Most that all topics together add to a score; 0: no cap. Default 0. */
  topicScoreCap?: number

  /** P5: whatever the application thinks of a peer, finite. Asked whenever the score is. Default 0 for everybody. */
  appSpecificScore?: (peer: string) => number
  /** Default 1. */
  appSpecificWeight?: number

  /** P6: (peers - threshold)² for an IP address with more peers than the threshold; weight <= 0. Default -5 (js, rust). */
  ipColocationFactorWeight?: number
  /** 1 at least. Default 10 (js, rust). */
  ipColocationFactorThreshold?: number
  /** Addresses (`192.0.2.1`) and networks (`2001:db8::/32`) that P6 does not count. Default none. */
  ipColocationFactorAllow?: readonly string[]

  /** P7, misbehaviour that the router sees: (counter - threshold)²; weight <= 0. Default -10 (js, rust, Filecoin). */
  behaviourPenaltyWeight?: number
  /** Default 0. */
  behaviourPenaltyThreshold?: number
  /** Default: forgotten after 10 minutes. */
  behaviourPenaltyDecay?: number

  /** Counters decay so often: 1 s at least. Default 1 s. */
  decayIntervalMs?: number
  /** A counter below this is 0. Default 0.01 (go). */
  decayToZero?: number
  /** How long a score of 0 or less outlives the connection; 0: not at all. Default 1 h. */
  retainScoreMs?: number
  /** How long a message is remembered: that of the duplicate window. Default 120 s. */
  seenTtlMs?: number

  /** Disconnected peers that are remembered; one more costs the one with the best score. Default 4,096. */
  maxRetainedPeers?: number
  /** Messages that are remembered; one more costs the oldest. Default 65,536. */
  maxMessages?: number
  /** Senders that are remembered, over all messages; one more costs the oldest message. Default 1,048,576. */
  maxSenders?: number
}

/** §Score Thresholds. */
export interface Thresholds {
  /** Below: no gossip to or from the peer. <= 0. */
  gossip: number
  /** Below: our own messages are not flooded to the peer. <= gossip. */
  publish: number
  /** Below: its RPCs are not read. <= publish. */
  graylist: number
  /** From here on its peer exchange is believed. >= 0. */
  acceptPX: number
  /** A mesh whose median is below gets better peers. >= 0. */
  opportunisticGraft: number
}

/** As js and rust have them. */
export const defaultThresholds = {
  gossip: -10,
  publish: -50,
  graylist: -80,
  acceptPX: 10,
  opportunisticGraft: 20,
} satisfies Thresholds

const topicDefaults = {
  topicWeight: 1,
  timeInMeshWeight: 0,
  timeInMeshQuantumMs: 1000,
  timeInMeshCap: 0,
  firstMessageDeliveriesWeight: 0,
  firstMessageDeliveriesDecay: 0,
  firstMessageDeliveriesCap: 0,
  meshMessageDeliveriesWeight: 0,
  meshMessageDeliveriesDecay: 0,
  meshMessageDeliveriesCap: 0,
  meshMessageDeliveriesThreshold: 0,
  meshMessageDeliveriesWindowMs: 0,
  meshMessageDeliveriesActivationMs: 0,
  meshFailurePenaltyWeight: 0,
  meshFailurePenaltyDecay: 0,
  invalidMessageDeliveriesWeight: 0,
  invalidMessageDeliveriesDecay: 0,
} satisfies Required<TopicScoreParams>

const defaults = {
  topics: {},
  topicScoreCap: 0,
  appSpecificScore: () => 0,
  appSpecificWeight: 1,
  ipColocationFactorWeight: -5,
  ipColocationFactorThreshold: 10,
  ipColocationFactorAllow: [],
  behaviourPenaltyWeight: -10,
  behaviourPenaltyThreshold: 0,
  behaviourPenaltyDecay: decayFor({ zeroAfterMs: 600_000 }),
  decayIntervalMs: 1000,
  decayToZero: 0.01,
  retainScoreMs: 3_600_000,
  seenTtlMs: 120_000,
  maxRetainedPeers: 4096,
  maxMessages: 65_536,
  maxSenders: 1_048_576,
} satisfies Required<ScoreParams>

/**
 * The factor that takes a counter of 1 to zero in `zeroAfterMs`, or halves it every `halfLifeMs`, when it decays every
 * `intervalMs` and counts as zero below `decayToZero` (go's ScoreParameterDecay).
 */
export function decayFor(
  time: { zeroAfterMs: number } | { halfLifeMs: number },
  intervalMs = 1000,
  decayToZero = 0.01,
): number {
  const [end, afterMs] = 'halfLifeMs' in time ? [0.5, time.halfLifeMs] : [decayToZero, time.zeroAfterMs]
  for (const [name, ms] of Object.entries({ ...time, intervalMs }))
    if (!(ms > 0 && ms < Infinity)) throw new RangeError(`${name} is ${ms}, want more than 0`)
  fraction('decayToZero', decayToZero)
  return end ** (intervalMs / afterMs)
}

/** An address block: `192.0.2.1` is one of 32 bits. IPv4 in IPv6 is IPv4. */
export interface IpBlock {
  readonly bytes: Uint8Array
  readonly bits: number
}

export type TopicSettings = Required<TopicScoreParams>

/** ScoreParams, whole and good. */
export interface ScoreSettings extends Omit<Required<ScoreParams>, 'topics' | 'ipColocationFactorAllow'> {
  readonly topics: ReadonlyMap<string, TopicSettings>
  readonly ipColocationFactorAllow: readonly IpBlock[]
}

/** Fills in what was left out. Throws RangeError that names the parameter and the rule that it breaks. */
export function validateScoreParams(params: ScoreParams): ScoreSettings {
  const whole: Required<ScoreParams> = { ...defaults, ...params }
  const { topics, ipColocationFactorAllow, ...s } = whole
  check('topicScoreCap', s.topicScoreCap, s.topicScoreCap >= 0, '0 (no cap) or more')
  finite('appSpecificWeight', s.appSpecificWeight)
  penalty('ipColocationFactorWeight', s.ipColocationFactorWeight)
  count('ipColocationFactorThreshold', s.ipColocationFactorThreshold)
  penalty('behaviourPenaltyWeight', s.behaviourPenaltyWeight)
  check('behaviourPenaltyThreshold', s.behaviourPenaltyThreshold, s.behaviourPenaltyThreshold >= 0, '0 or more')
  decay('behaviourPenaltyDecay', s.behaviourPenaltyDecay, s.behaviourPenaltyWeight)
  check('decayIntervalMs', s.decayIntervalMs, s.decayIntervalMs >= 1000, '1000 (1 s) or more')
  fraction('decayToZero', s.decayToZero)
  check('retainScoreMs', s.retainScoreMs, s.retainScoreMs >= 0, '0 (not at all) or more')
  check('seenTtlMs', s.seenTtlMs, s.seenTtlMs > 0, 'more than 0')
  count('maxRetainedPeers', s.maxRetainedPeers)
  count('maxMessages', s.maxMessages)
  count('maxSenders', s.maxSenders)
  return {
    ...s,
    topics: new Map(Object.entries(topics).map(([topic, of]) => [topic, validateTopicParams(topic, of)])),
    ipColocationFactorAllow: ipColocationFactorAllow.map((text) => parseBlock(text)),
  }
}

/** One topic's. Throws RangeError like validateScoreParams. */
export function validateTopicParams(topic: string, params: TopicScoreParams): TopicSettings {
  const t = { ...topicDefaults, ...params }
  const at = (name: keyof TopicScoreParams): string => `topics[${JSON.stringify(topic)}].${name}`
  /** A weight that is not 0 needs it. */
  const needs = (name: keyof TopicScoreParams, weight: number, least: number, want: string): void =>
    check(at(name), t[name], weight === 0 ? t[name] >= 0 : t[name] >= least && t[name] > 0, want)

  check(at('topicWeight'), t.topicWeight, t.topicWeight >= 0, '0 or more')
  reward(at('timeInMeshWeight'), t.timeInMeshWeight)
  check(at('timeInMeshQuantumMs'), t.timeInMeshQuantumMs, t.timeInMeshQuantumMs > 0, 'more than 0')
  needs('timeInMeshCap', t.timeInMeshWeight, 0, 'more than 0, as P1 has a weight')

  reward(at('firstMessageDeliveriesWeight'), t.firstMessageDeliveriesWeight)
  decay(at('firstMessageDeliveriesDecay'), t.firstMessageDeliveriesDecay, t.firstMessageDeliveriesWeight)
  needs('firstMessageDeliveriesCap', t.firstMessageDeliveriesWeight, 0, 'more than 0, as P2 has a weight')

  const w3 = t.meshMessageDeliveriesWeight
  penalty(at('meshMessageDeliveriesWeight'), w3)
  decay(at('meshMessageDeliveriesDecay'), t.meshMessageDeliveriesDecay, w3)
  needs('meshMessageDeliveriesCap', w3, 0, 'more than 0, as P3 has a weight')
  needs('meshMessageDeliveriesThreshold', w3, 0, 'more than 0, as P3 has a weight')
  needs('meshMessageDeliveriesWindowMs', 0, 0, '0 or more')
  needs('meshMessageDeliveriesActivationMs', w3, 1000, '1000 (1 s) or more, as P3 has a weight')

  penalty(at('meshFailurePenaltyWeight'), t.meshFailurePenaltyWeight)
  decay(at('meshFailurePenaltyDecay'), t.meshFailurePenaltyDecay, t.meshFailurePenaltyWeight)

  penalty(at('invalidMessageDeliveriesWeight'), t.invalidMessageDeliveriesWeight)
  decay(at('invalidMessageDeliveriesDecay'), t.invalidMessageDeliveriesDecay, t.invalidMessageDeliveriesWeight)
  return t
}

/** Throws RangeError that names the threshold and the rule that it breaks. */
export function validateThresholds(thresholds: Partial<Thresholds>): Thresholds {
  const t = { ...defaultThresholds, ...thresholds }
  check('gossip', t.gossip, t.gossip <= 0, '0 or less')
  check('publish', t.publish, t.publish <= t.gossip, `not above gossip (${t.gossip})`)
  check('graylist', t.graylist, t.graylist <= t.publish, `not above publish (${t.publish})`)
  check('acceptPX', t.acceptPX, t.acceptPX >= 0, '0 or more')
  check('opportunisticGraft', t.opportunisticGraft, t.opportunisticGraft >= 0, '0 or more')
  return t
}

function check(name: string, value: number, ok: boolean, want: string): void {
  if (!Number.isFinite(value)) throw new RangeError(`${name} is ${value}, want a finite number, ${want}`)
  if (!ok) throw new RangeError(`${name} is ${value}, want ${want}`)
}

const finite = (name: string, value: number): void => check(name, value, true, 'positive or negative')
const reward = (name: string, value: number): void => check(name, value, value >= 0, '0 (off) or more: it rewards')
const penalty = (name: string, value: number): void => check(name, value, value <= 0, '0 (off) or less: it punishes')
const count = (name: string, value: number): void =>
  check(name, value, Number.isSafeInteger(value) && value >= 1, 'a whole number above 0')

function fraction(name: string, value: number): void {
  check(name, value, value > 0 && value < 1, 'a number between 0 and 1')
}

function decay(name: string, value: number, weight: number): void {
  if (weight === 0) check(name, value, value >= 0 && value < 1, 'a number from 0 to below 1')
  else check(name, value, value > 0 && value < 1, 'a number between 0 and 1, as there is a weight')
}

function parseBlock(text: string): IpBlock {
  const [ip = '', bits, ...more] = text.split('/')
  const bytes = parseIp(ip)
  const most = 8 * (bytes?.length ?? 0)
  const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : Infinity
  if (bytes === undefined || more.length > 0 || length > most)
    throw new RangeError(`ipColocationFactorAllow has ${JSON.stringify(text)}, want an IP address or a network`)
  const ip4 = length >= 96 ? mappedIp4(bytes) : undefined
  return ip4 === undefined ? { bytes, bits: length } : { bytes: ip4, bits: length - 96 }
}
