/* What the tests of pubsub with other stacks share: nodes of ours and theirs, and waiting until they know each other. */
import { expect } from 'vitest'
import { readFrames } from '../../src/frames.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type KeyType, type PrivateKey } from '../../src/peer/keys.ts'
import type { GossipsubOptions } from '../../src/protocols/gossipsub/api.ts'
import { createGossipsub, type Gossipsub, type PubSubMessage } from '../../src/protocols/gossipsub/gossipsub.ts'
import {
  decodeRpc,
  floodsubId,
  meshsubIds,
  rpcChunks,
  type OutgoingRpc,
  type Rpc,
} from '../../src/protocols/gossipsub/wire.ts'
import { startPeer, type Peer, type PeerKind, type PeerNode } from './peers.ts'

export const names = { go: 'go-libp2p', js: 'js-libp2p', rust: 'rust-libp2p', py: 'py-libp2p' } as const
export const kinds = ['go', 'js', 'rust', 'py'] as const
export const heartbeatIntervalMs = 200

export const base64 = (data: string | Uint8Array): string => Buffer.from(data).toString('base64')

/** The protocols up to a version, as the lab's flag has them. */
export function upTo(version: string): string[] {
  if (version === 'floodsub') return [floodsubId]
  const from = meshsubIds.findIndex((id) => id.endsWith(`/${version}`))
  if (from === -1) throw new Error(`no such version: ${version}`)
  return [...meshsubIds.slice(from), floodsubId]
}

export interface Ours {
  readonly node: Node
  readonly pubsub: Gossipsub
  readonly peerId: string
  readonly addr: string
  /** All messages of the topics that follow() was called for. */
  readonly got: PubSubMessage[]
  follow(topic: string): void
  [Symbol.asyncDispose](): Promise<void>
}

/** A node of ours that listens on loopback. */
export async function ours(options: GossipsubOptions & { key?: KeyType } = {}): Promise<Ours> {
  const { key = 'Ed25519', ...rest } = options
  const privateKey = await generateKey(key)
  const node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'] })
  await node.start()
  const pubsub = createGossipsub(node, { privateKey, heartbeatIntervalMs, ...rest })
  pubsub.start()
  const got: PubSubMessage[] = []
  return {
    node,
    pubsub,
    peerId: String(node.peerId),
    addr: String(node.addrs()[0]),
    got,
    follow: (topic) => void pubsub.subscribe(topic, (message) => got.push(message)),
    [Symbol.asyncDispose]: async () => {
      await pubsub.stop()
      await node.stop()
    },
  }
}

/** A peer of the lab with pubsub. */
export function theirs(kind: PeerKind, args: readonly string[] = [], heartbeatMs = heartbeatIntervalMs): Promise<Peer> {
  const flags = ['--pubsub', 'gossip', '--pubsub-heartbeat-ms', String(heartbeatMs), ...args]
  return startPeer(kind, kind === 'go' || kind === 'js' ? ['--bitswap', 'none', ...flags] : flags)
}

/** Resolves once each knows that the other is in the topic. */
export async function acquainted(us: Ours, them: PeerNode, topic: string): Promise<void> {
  await expect
    .poll(
      async () => [
        us.pubsub.topicPeers(topic).map(String).includes(them.peerId),
        ((await them.call('topicPeers', { topic }))['peers'] as string[]).includes(us.peerId),
      ],
      { timeout: 10_000 },
    )
    .toEqual([true, true])
}

/** The same for their meshes. */
export async function meshed(us: Ours, them: PeerNode, topic: string): Promise<void> {
  await expect
    .poll(
      async () => [
        us.pubsub.mesh(topic).map(String).includes(them.peerId),
        ((await them.call('mesh', { topic }))['peers'] as string[]).includes(us.peerId),
      ],
      { timeout: 10_000 },
    )
    .toEqual([true, true])
}

/** One message each way, seen by the other as it was sent. */
export async function exchange(us: Ours, them: PeerNode, topic: string, signed = true): Promise<void> {
  const mine = `from rhiza ${topic} ${us.got.length}`
  const { id } = await us.pubsub.publish(topic, mine)
  const told = await them.event('message', ({ data }) => data === base64(mine))
  expect(told).toMatchObject({ topic, from: signed ? us.peerId : null })
  if (signed) expect(Buffer.from(id).toString('hex')).toBe(told['id'])

  const yours = `from ${them.kind} ${topic} ${us.got.length}`
  await them.call('pub', { topic, data: base64(yours) })
  await expect.poll(() => us.got.some(({ data }) => base64(data) === base64(yours)), { timeout: 10_000 }).toBe(true)
  const message = us.got.find(({ data }) => base64(data) === base64(yours))
  expect(message?.from?.toString()).toBe(signed ? them.peerId : undefined)
  expect(message?.seqno === undefined).toBe(!signed)
  expect(String(message?.receivedFrom)).toBe(them.peerId)
}

export interface Heard {
  protocol: string
  /** An RPC without its length prefix. */
  frame: Uint8Array
  rpc: Rpc
}

/** A node without a router: it keeps what it hears, and says what it is told to. */
export interface Scripted {
  readonly node: Node
  readonly peerId: string
  readonly privateKey: PrivateKey
  readonly addr: string
  readonly heard: Heard[]
  say(to: PeerNode | Ours, rpc: OutgoingRpc): Promise<void>
  /** The first RPC that fits, be it here already or to come. */
  hears(what: string, fits: (rpc: Rpc) => boolean): Promise<Heard>
  [Symbol.asyncDispose](): Promise<void>
}

export async function scripted(protocols: readonly string[]): Promise<Scripted> {
  const privateKey = generateKey('Ed25519')
  const node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'] })
  const heard: Heard[] = []
  const limits = { maxBytes: 2 * 1024 * 1024, frameTimeoutMs: 10_000, what: 'an RPC' }
  node.handle(protocols, (stream, { protocol }) =>
    readFrames(stream, node.env, limits, (bytes) => {
      const frame = bytes.slice()
      heard.push({ protocol, frame, rpc: decodeRpc(frame) })
    }).catch(() => {}),
  )
  await node.start()
  const streams = new Map<string, Promise<ProtocolStream>>()
  return {
    node,
    peerId: String(node.peerId),
    privateKey,
    addr: String(node.addrs()[0]),
    heard,
    async say({ peerId }, rpc) {
      let stream = streams.get(peerId)
      if (stream === undefined) streams.set(peerId, (stream = node.newStream(peerId, protocols)))
      await (await stream).write(...rpcChunks(rpc))
    },
    async hears(what, fits) {
      await expect.poll(() => heard.some(({ rpc }) => fits(rpc)), { timeout: 10_000, message: what }).toBe(true)
      return heard.find(({ rpc }) => fits(rpc)) as Heard
    },
    [Symbol.asyncDispose]: () => node.stop(),
  }
}
