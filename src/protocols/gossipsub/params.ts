/*
 * GossipSub parameters (gossipsub v1.0 §Parameters, v1.1 §New parameters, v1.2), with go-libp2p-pubsub's values where
 * the specs leave one open. Counts are peers, messages or heartbeats; times are milliseconds.
 */

export interface GossipParams {
  /** Peers of a topic's mesh that we aim at. Default 6. */
  D: number
  /** With fewer than this we graft. Default 5 (go-libp2p-pubsub; the spec says 4). */
  Dlo: number
  /** With this many or more we prune, and refuse grafts of inbound peers. Default 12. */
  Dhi: number
  /** Of those that stay when we prune, so many are the best by score. Default 4. */
  Dscore: number
  /** Outbound connections a mesh should have. Default 2. */
  Dout: number
  /** Peers outside of the mesh that hear our gossip at each heartbeat, at least. Default 6. */
  Dlazy: number
  /** The same as a share of all peers outside of the mesh. Default 0.25. */
  gossipFactor: number
  /** Default 1 s. */
  heartbeatIntervalMs: number
  /** From start to the first heartbeat. Default 100 ms. */
  heartbeatInitialDelayMs: number
  /** Heartbeats that a message stays in the cache. Default 5. */
  historyLength: number
  /** Heartbeats whose messages are gossiped about. Default 3. */
  historyGossip: number
  /** How long a topic's fanout outlives our last message to it. Default 60 s. */
  fanoutTtlMs: number
  /** How long a message is known as seen. Default 120 s. */
  seenTtlMs: number
  /** How long a pruned peer must not be grafted again. Default 60 s. */
  pruneBackoffMs: number
  /** The same where we leave the topic. Default 10 s. */
  unsubscribeBackoffMs: number
  /** A GRAFT so soon after the PRUNE costs twice. Default 10 s. */
  graftFloodThresholdMs: number
  /** Peers that a PRUNE names. Default 16. */
  prunePeers: number
  /** Times a peer may ask for one message. Default 3. */
  gossipRetransmission: number
  /** Ids in one IHAVE, and ids that we ask one peer for in a heartbeat. Default 5,000. */
  maxIHaveLength: number
  /** IHAVEs of one peer that we read in a heartbeat. Default 10. */
  maxIHaveMessages: number
  /** Ids in one RPC's IDONTWANTs that we read. Default 10. */
  maxIDontWantLength: number
  /** RPCs with an IDONTWANT of one peer that we read in a heartbeat. Default 1,000. */
  maxIDontWantMessages: number
  /** Smaller messages are not worth an IDONTWANT. Default 1,024 bytes. */
  idontwantThresholdBytes: number
  /** Heartbeats that we remember what a peer does not want. Default 3. */
  idontwantTtl: number
  /** In which a peer must send what we asked for. Default 3 s. */
  iwantFollowupMs: number
  /** Direct peers that are gone are dialled every so many heartbeats. Default 300. */
  directConnectTicks: number
  /** Every so many heartbeats a poor mesh is improved. Default 60. */
  opportunisticGraftTicks: number
  /** By so many peers. Default 2. */
  opportunisticGraftPeers: number
  /** Our own messages go to every peer of the topic. Default true. */
  floodPublish: boolean
  /** A PRUNE names other peers to go to (peer exchange); the spec has it for bootstrap nodes. Default false. */
  doPX: boolean
}

export const gossipDefaults: GossipParams = {
  D: 6,
  Dlo: 5,
  Dhi: 12,
  Dscore: 4,
  Dout: 2,
  Dlazy: 6,
  gossipFactor: 0.25,
  heartbeatIntervalMs: 1_000,
  heartbeatInitialDelayMs: 100,
  historyLength: 5,
  historyGossip: 3,
  fanoutTtlMs: 60_000,
  seenTtlMs: 120_000,
  pruneBackoffMs: 60_000,
  unsubscribeBackoffMs: 10_000,
  graftFloodThresholdMs: 10_000,
  prunePeers: 16,
  gossipRetransmission: 3,
  maxIHaveLength: 5_000,
  maxIHaveMessages: 10,
  maxIDontWantLength: 10,
  maxIDontWantMessages: 1_000,
  idontwantThresholdBytes: 1_024,
  idontwantTtl: 3,
  iwantFollowupMs: 3_000,
  directConnectTicks: 300,
  opportunisticGraftTicks: 60,
  opportunisticGraftPeers: 2,
  floodPublish: true,
  doPX: false,
}

const whole = [
  'D',
  'Dlo',
  'Dhi',
  'Dscore',
  'Dout',
  'Dlazy',
  'historyLength',
  'historyGossip',
  'prunePeers',
  'gossipRetransmission',
  'maxIHaveLength',
  'maxIHaveMessages',
  'maxIDontWantLength',
  'maxIDontWantMessages',
  'idontwantThresholdBytes',
  'idontwantTtl',
  'opportunisticGraftPeers',
] as const
const positive = [
  'heartbeatIntervalMs',
  'fanoutTtlMs',
  'seenTtlMs',
  'pruneBackoffMs',
  'unsubscribeBackoffMs',
  'iwantFollowupMs',
  'directConnectTicks',
  'opportunisticGraftTicks',
  'historyLength',
  'historyGossip',
] as const

function refuse(rule: string): never {
  throw new RangeError(`GossipSub parameters: want ${rule}`)
}

/** Throws RangeError that names the rule which the set breaks. */
export function gossipParams(given: Partial<GossipParams> = {}): GossipParams {
  const params = { ...gossipDefaults, ...given }
  for (const name of whole) {
    const value = params[name]
    if (!Number.isSafeInteger(value) || value < 0) refuse(`${name} to be a whole number, got ${value}`)
  }
  for (const name of positive) {
    const value = params[name]
    if (!(value > 0 && Number.isFinite(value))) refuse(`${name} above 0, got ${value}`)
  }
  const { D, Dlo, Dhi, Dscore, Dout, historyGossip, historyLength, gossipFactor } = params
  if (historyGossip > historyLength) refuse(`historyGossip <= historyLength, got ${historyGossip} and ${historyLength}`)
  if (!(gossipFactor >= 0 && gossipFactor <= 1)) refuse(`gossipFactor from 0 to 1, got ${gossipFactor}`)
  // v1.1 §Recommendations for network operators: bootstrappers have no mesh
  if (D === 0 && Dlo === 0 && Dhi === 0 && Dout === 0) return params
  if (!(Dlo <= D && D <= Dhi)) refuse(`Dlo <= D <= Dhi, got ${Dlo}, ${D} and ${Dhi}`)
  if (Dscore > D) refuse(`Dscore <= D, got ${Dscore} and ${D}`)
  // v1.1 §Outbound mesh quotas
  if (!(Dout < Dlo || Dout === 0) || Dout > D / 2) {
    refuse(`Dout < Dlo and Dout <= D / 2, got ${Dout}, ${Dlo} and ${D}`)
  }
  return params
}
