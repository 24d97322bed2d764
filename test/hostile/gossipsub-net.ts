/*
 * GossipSub under attack: a victim between two honest nodes that know each other through it alone, and talk all the
 * time; peers whose RPCs are made by hand; bytes of RPCs that no encoder of ours would write.
 */
import { expect, onTestFinished } from 'vitest'
import { concat, fromBigInt, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { readFrames } from '../../src/frames.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { systemEnv } from '../../src/env.ts'
import {
  createGossipsub,
  type Gossipsub,
  type GossipsubOptions,
  type PubSubMessage,
} from '../../src/protocols/gossipsub/gossipsub.ts'
import type { TopicScoreParams } from '../../src/protocols/gossipsub/score-params.ts'
import { signMessage } from '../../src/protocols/gossipsub/sign.ts'
import {
  decodeRpc,
  encodeControl,
  floodsubId,
  idKey,
  meshsubIds,
  rpcChunks,
  type Control,
  type OutgoingRpc,
  type Rpc,
  type WireMessage,
} from '../../src/protocols/gossipsub/wire.ts'
import { encodeVarint } from '../../src/varint.ts'
import { patience, victim, type Victim } from './hostile.ts'

export const topic = 't'
export const mebi = 1024 * 1024
export const v12 = '/meshsub/1.2.0'
export const v13 = '/meshsub/1.3.0'

/** An invalid message costs 1, the second 3 more, and so on. */
export const invalidCosts: TopicScoreParams = { invalidMessageDeliveriesWeight: -1, invalidMessageDeliveriesDecay: 0.9 }

interface Honest {
  node: Node
  gossip: Gossipsub
  /** What the other said, each as often as it came. */
  heard: string[]
  said: string[]
}

export interface Net extends Victim {
  gossip: Gossipsub
  /** What came to the victim's handler and was not honest talk. */
  got: PubSubMessage[]
  /** The victim's own time, heartbeat after heartbeat. */
  beats(count: number): Promise<void>
  /** So many messages each way between the honest, while the attack goes on. */
  talk(count?: number): Promise<void>
  /** Every word of the honest came, once; hostile peers and GossipSub leave nothing behind. */
  expectUnharmed(...hostile: Hostile[]): Promise<void>
  scoreOf(hostile: Hostile): number
}

const talk = 'talk:'

export async function net(options: GossipsubOptions = {}): Promise<Net> {
  const privateKey = generateKey()
  const v = await victim({ privateKey })
  const gossip = createGossipsub(v.node, { privateKey, ...options })
  gossip.start()
  onTestFinished(() => gossip.stop())
  const got: PubSubMessage[] = []
  const throughVictim: string[] = []
  gossip.subscribe(topic, (message) => {
    const text = message.data.length < 64 ? toUtf8(message.data) : ''
    if (text.startsWith(talk)) throughVictim.push(text)
    else got.push(message)
  })
  const { signing, messageId } = options
  const pair: Honest[] = []
  for (const name of ['a', 'b']) {
    const key = generateKey()
    const node = await createNode({ privateKey: key })
    const honest: Honest = {
      node,
      gossip: createGossipsub(node, {
        privateKey: key,
        heartbeatIntervalMs: 200,
        ...(signing && { signing }),
        ...(messageId && { messageId }),
      }),
      heard: [],
      said: [],
    }
    onTestFinished(async () => {
      await honest.gossip.stop()
      await node.stop()
    })
    honest.gossip.start()
    honest.gossip.subscribe(topic, ({ data, receivedFrom }) => {
      const text = data.length < 64 ? toUtf8(data) : ''
      if (!text.startsWith(talk)) return
      expect(receivedFrom.equals(v.node.peerId)).toBe(true)
      if (!text.startsWith(`${talk}${name}`)) honest.heard.push(text)
    })
    await node.dial(v.addr)
    pair.push(honest)
  }
  const inMesh = (): boolean => pair.every(({ node }) => gossip.mesh(topic).some((id) => id.equals(node.peerId)))
  await expect.poll(inMesh, patience).toBe(true)
  for (const one of pair) await expect.poll(() => one.gossip.mesh(topic).length, patience).toBe(1)

  const say = async (count = 10): Promise<void> => {
    for (let i = 0; i < count; i++) {
      for (const [at, { gossip: mouth, said }] of pair.entries()) {
        const text = `${talk}${at === 0 ? 'a' : 'b'}${said.length}`
        said.push(text)
        await mouth.publish(topic, text)
      }
    }
  }
  const whole = async (): Promise<void> => {
    const [a, b] = pair as [Honest, Honest]
    await expect.poll(() => [a.heard.length, b.heard.length], patience).toEqual([b.said.length, a.said.length])
    expect([...a.heard].toSorted()).toEqual([...b.said].toSorted())
    expect([...b.heard].toSorted()).toEqual([...a.said].toSorted())
    expect([...throughVictim].toSorted()).toEqual([...a.said, ...b.said].toSorted())
  }
  return {
    ...v,
    gossip,
    got,
    async beats(count) {
      for (let i = 0; i < count; i++) await v.clock.advance(1_000)
    },
    talk: say,
    scoreOf: ({ node }) => gossip.scores().get(String(node.peerId))?.score ?? 0,
    async expectUnharmed(...hostile) {
      await say(5)
      await whole()
      for (const { node } of hostile) await node.stop()
      const left = (): number => v.node.connections().length
      await expect.poll(left, patience).toBe(3)
      expect(gossip.stats()).toMatchObject({ peers: 2 })
      expect(inMesh()).toBe(true)
      // None of the honest was blamed for anything.
      for (const { node } of pair) expect(gossip.scores().get(String(node.peerId))?.score).toBeGreaterThanOrEqual(0)
      await gossip.stop()
      for (const { node, gossip: mouth } of pair) {
        await mouth.stop()
        await node.stop()
      }
      // identify tells peers that a protocol is gone, a moment later.
      await v.clock.advance(1_000)
      await v.expectUnharmed()
    },
  }
}

export interface Hostile {
  node: Node
  key: PrivateKey
  /** Opens a stream. */
  stream(protocol?: string): Promise<ProtocolStream>
  /** On the newest stream: whatever these bytes are. */
  write(...bytes: Uint8Array[]): Promise<void>
  say(rpc: Omit<OutgoingRpc, 'control'> & { control?: Control }): Promise<void>
  control(control: Control): Promise<void>
  publish(...messages: readonly { raw: Uint8Array }[]): Promise<void>
  /** RPCs of the victim. */
  heard: Rpc[]
  /** Signed, of this peer. */
  message(data: Uint8Array | string, n?: number, of?: string): Promise<WireMessage>
}

export interface HostileOptions {
  protocol?: string
  key?: PrivateKey
  /** Topics it says it is in. Default that of the honest. */
  topics?: readonly string[]
  /** Never reads what the victim sends. */
  deaf?: boolean
}

export async function hostile(
  v: Pick<Net, 'node' | 'addr' | 'gossip'>,
  options: HostileOptions = {},
): Promise<Hostile> {
  const { protocol = v12, key = generateKey(), topics = [topic], deaf = false } = options
  const node = await createNode({ privateKey: key })
  onTestFinished(() => node.stop())
  const heard: Rpc[] = []
  const at = [v13, v12, ...meshsubIds.slice(2), floodsubId].indexOf(protocol)
  const spoken = [v13, v12, ...meshsubIds.slice(2), floodsubId].slice(Math.max(0, at))
  let listening = false
  node.handle(spoken, async (inbound) => {
    listening = true
    if (deaf) {
      await inbound.closed
      return
    }
    const limits = { maxBytes: 8 * mebi, frameTimeoutMs: 60_000, what: 'an RPC' }
    try {
      await readFrames(inbound, systemEnv(), limits, (frame) => void heard.push(decodeRpc(frame)))
    } catch {
      // The victim may end it.
    }
  })
  await node.dial(v.addr)
  let out: ProtocolStream
  let seqno = 0
  const one: Hostile = {
    node,
    key,
    heard,
    async stream(of = protocol) {
      out = await node.newStream(v.node.peerId, of)
      return out
    },
    write: (...bytes) => out.write(...bytes),
    say: ({ control, ...rpc }) =>
      one.write(...rpcChunks({ ...rpc, ...(control && { control: encodeControl(control) }) })),
    control: (control) => one.say({ control }),
    publish: (...messages) => one.say({ publish: messages.map(({ raw }) => raw) }),
    message: (data, n = ++seqno, of = topic) =>
      signMessage(key, {
        topic: of,
        data: typeof data === 'string' ? fromUtf8(data) : data,
        seqno: fromBigInt(BigInt(n), 8),
      }),
  }
  await one.stream()
  await one.say({ subscriptions: topics.map((name) => ({ subscribe: true, topic: name })) })
  // Both sides know each other: our topics are there, and the victim's hello is here.
  await expect.poll(() => (deaf ? listening : heard.length > 0), patience).toBe(true)
  const known = (name: string): boolean => v.gossip.topicPeers(name).some((id) => id.equals(node.peerId))
  await expect.poll(() => topics.every(known), patience).toBe(true)
  return one
}

export const idOf = ({ from, seqno }: Pick<WireMessage, 'from' | 'seqno'>): string =>
  idKey(from ?? new Uint8Array()) + idKey(seqno ?? new Uint8Array())

/** A length-delimited field. */
export const field = (number: number, content: Uint8Array | string): Uint8Array => {
  const bytes = typeof content === 'string' ? fromUtf8(content) : content
  return concat([encodeVarint(number * 8 + 2), encodeVarint(bytes.length), bytes])
}

/** With its length before it. */
export const framed = (...parts: Uint8Array[]): Uint8Array => {
  const body = concat(parts)
  return concat([encodeVarint(body.length), body])
}
