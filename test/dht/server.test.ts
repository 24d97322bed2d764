/* What a server answers with, and how much: the requests themselves are in test/interop/kademlia.test.ts. */
import { expect, it } from 'vitest'
import { KadServer, type ServerParts } from '../../src/dht/server.ts'
import { keyOf, keyOfPeer, compareDistance } from '../../src/dht/key.ts'
import { ProviderStore } from '../../src/dht/providers.ts'
import { RoutingTable } from '../../src/dht/table.ts'
import { defaultValidators } from '../../src/dht/validators.ts'
import { ValueStore } from '../../src/dht/values.ts'
import { encodeMessage, smallAnswerBytes, type Message, type MessageType } from '../../src/dht/wire.ts'
import { fakeEnv } from '../../src/env.ts'
import type { Host } from '../../src/host.ts'
import { parseMultiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { PeerId } from '../../src/peer/id.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { somePeer, somePeers } from './peers.ts'

const self = somePeer(0, 7)
const asker = somePeer(1, 7)
const addr = (i: number): Multiaddr => parseMultiaddr(`/ip4/10.0.${i >> 8}.${i & 255}/tcp/4001`)

function server(peers: readonly PeerId[], addrsOf: ServerParts['addrsOf'] = () => [addr(1)]) {
  const env = fakeEnv()
  const records = memoryRecords({ env })
  const table = new RoutingTable(keyOfPeer(self), { bucketPeers: 100 })
  for (const peer of peers) table.add(peer, [], 0)
  const providers = new ProviderStore(records, env, '/t', {})
  const values = new ValueStore(records, env, '/t', defaultValidators, {})
  // Of the host it wants the identity and who is connected.
  const host = { peerId: self, env, connections: () => [] } as unknown as Host
  const made = new KadServer({ host, scope: 'any', k: 20, table, providers, values, addrsOf })
  const ask = async (type: MessageType, key: Uint8Array): Promise<Message> => {
    const answer = await made.answer(asker, { type, key, closerPeers: [], providerPeers: [] })
    if (answer === undefined) throw new Error('no answer')
    return answer
  }
  return { ask, providers }
}

const ids = (list: Message['closerPeers']): string[] => list.map(({ id }) => PeerId.decode(id).toString())

it('tells the k closest, without itself and the asker, and first of all whom it is asked for', async () => {
  const peers = somePeers(60, 7)
  const { ask } = server(peers)
  const others = peers.filter((peer) => !peer.equals(self) && !peer.equals(asker))
  for (const target of [self, asker, somePeer(1, 8), others[5] as PeerId]) {
    const key = keyOfPeer(target)
    const nearest = others.toSorted((a, b) => compareDistance(key, keyOfPeer(a), keyOfPeer(b))).slice(0, 20)
    const want = nearest[0]?.equals(target) === true ? nearest : [target, ...nearest]
    expect(ids((await ask('FIND_NODE', target.bytes)).closerPeers)).toEqual(want.map(String))
  }
})

it('tells of itself, alone as it is, and of nobody whose address it does not know', async () => {
  const { ask } = server([asker], (peer) => (peer.equals(self) ? [addr(1)] : []))
  expect(ids((await ask('FIND_NODE', self.bytes)).closerPeers)).toEqual([self.toString()])
  expect((await ask('FIND_NODE', asker.bytes)).closerPeers).toEqual([])
  expect((await ask('GET_PROVIDERS', asker.bytes)).closerPeers).toEqual([])
})

it('answers in so few bytes that rust-libp2p takes it, whatever peers have announced', async () => {
  const long = Array.from({ length: 64 }, (_, i) => parseMultiaddr(`/dns4/${'a'.repeat(60)}.${i}.example/tcp/4001`))
  const everybody = somePeers(400, 7)
  const { ask, providers } = server(everybody, () => long)
  const key = keyOf(new Uint8Array(3))
  for (const [i, peer] of everybody.entries()) providers.add(key, peer, i % 2 === 0 ? long : [])
  for (const type of ['FIND_NODE', 'GET_PROVIDERS', 'GET_VALUE'] as const) {
    const answer = await ask(type, key)
    expect(encodeMessage(answer).length).toBeLessThanOrEqual(smallAnswerBytes)
    expect(answer.closerPeers.length).toBeGreaterThan(10)
    for (const { addrs } of answer.closerPeers) expect(addrs.length).toBeGreaterThan(0)
    if (type === 'GET_PROVIDERS') expect(answer.providerPeers.length).toBeGreaterThan(10)
  }
})

it('tells as many providers as have room, the last renewed first', async () => {
  const { ask, providers } = server(somePeers(40, 7), () => [addr(1), addr(2)])
  const key = keyOf(new Uint8Array(4))
  const all = somePeers(300, 9)
  for (const [i, peer] of all.entries()) providers.add(key, peer, [addr(i), addr(i + 300)])
  const answer = await ask('GET_PROVIDERS', key)
  expect(answer.closerPeers.length).toBe(20)
  expect(encodeMessage(answer).length).toBeLessThanOrEqual(smallAnswerBytes)
  expect(ids(answer.providerPeers)).toEqual(all.toReversed().slice(0, answer.providerPeers.length).map(String))
  expect(answer.providerPeers.length).toBeGreaterThan(120)
})
