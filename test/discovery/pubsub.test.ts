/* Peers and content over topics: what is read of a message, and what is refused. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { createDiscovery, type Found, type FoundPeer } from '../../src/discovery/discovery.ts'
import {
  decodePeerMessage,
  encodePeerMessage,
  peerDiscoveryTopic,
  pubsubDiscovery,
} from '../../src/discovery/pubsub.ts'
import { ProtocolError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { createGossipsub, type Gossipsub } from '../../src/protocols/gossipsub/gossipsub.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

async function side(
  network: MemoryNetwork,
  options: NodeOptions = {},
): Promise<{ node: Node; pubsub: Gossipsub; privateKey: PrivateKey }> {
  const { privateKey = generateKey() } = options
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'], ...options, privateKey })
  const pubsub = createGossipsub(node, { privateKey, heartbeatIntervalMs: 100 })
  onTestFinished(async () => {
    await pubsub.stop()
    await node.stop()
  })
  await node.start()
  pubsub.start()
  return { node, pubsub, privateKey }
}

const addr = multiaddr('/ip4/192.0.2.7/tcp/4001')

describe('a message of peer discovery', () => {
  it('is the protobuf of js-libp2p: public key and addresses', () => {
    const { publicKey } = generateKey()
    const { peerId } = publicKey
    const data = encodePeerMessage(peerId, [addr])
    // 1: the key message of 36 bytes; 2: the address
    expect(toHex(data)).toBe(`0a24${toHex(publicKey.encoded)}1208${toHex(addr.bytes)}`)
    const found = decodePeerMessage({ data, from: peerId })
    expect([String(found.peer), found.addrs.map(String)]).toEqual([String(peerId), [String(addr)]])
    // An older one names protocols, too.
    const older = fromHex(`${toHex(data)}1a022f78`)
    expect(decodePeerMessage({ data: older, from: undefined }).addrs).toHaveLength(1)
  })

  it('holds a key that the id does not, where it is given', async () => {
    const { publicKey } = await generateKey('ECDSA')
    expect(() => encodePeerMessage(publicKey.peerId, [addr])).toThrow(TypeError)
    const data = encodePeerMessage(publicKey.peerId, [addr], publicKey)
    expect(String(decodePeerMessage({ data, from: publicKey.peerId }).peer)).toBe(String(publicKey.peerId))
  })

  it('is refused from anybody else, when it is none, and where it goes on and on', () => {
    const { peerId } = generateKey().publicKey
    const data = encodePeerMessage(peerId, [addr])
    expect(() => decodePeerMessage({ data, from: generateKey().publicKey.peerId })).toThrow(ProtocolError)
    const many = fromHex(toHex(data) + `1208${toHex(addr.bytes)}`.repeat(40))
    for (const bad of [new Uint8Array(0), fromUtf8('nonsense'), data.subarray(0, 20), many])
      expect(() => decodePeerMessage({ data: bad, from: peerId })).toThrow(ProtocolError)
  })

  it('leaves out addresses that can not be read, or lead to somebody else', () => {
    const { peerId } = generateKey().publicKey
    const other = addr.withPeer(generateKey().publicKey.peerId)
    const data = encodePeerMessage(peerId, [other, addr.withPeer(peerId)])
    const unknown = fromHex(`${toHex(data)}1203ffffff`)
    expect(decodePeerMessage({ data: unknown, from: peerId }).addrs.map(String)).toEqual([
      String(addr.withPeer(peerId)),
    ])
  })
})

describe('discovery over a topic', () => {
  it('finds who is in the topic, with its addresses, and is found', async () => {
    const network = new MemoryNetwork()
    const hub = await side(network)
    hub.pubsub.relay(peerDiscoveryTopic)
    const sides = [await side(network), await side(network, { privateKey: await generateKey('ECDSA') })]
    const found: FoundPeer[] = []
    for (const { node, pubsub, privateKey } of sides) {
      await node.dial(hub.node.addrs())
      const source = pubsubDiscovery(pubsub, { intervalMs: 200, publicKey: privateKey.publicKey })
      const discovery = createDiscovery(node, [source])
      discovery.on('found', (one) => void found.push(one))
      discovery.start()
      onTestFinished(() => discovery.stop())
    }
    const [a, b] = sides
    await expect.poll(() => a?.node.connections(b?.node.peerId).length, { timeout: 10_000 }).toBe(1)
    expect(found[0]?.source).toBe('pubsub')
    expect(found[0]?.addrs).toHaveLength(1)
  })

  it('says nothing of us when it only listens, and leaves the topic in the end', async () => {
    const network = new MemoryNetwork()
    const [a, b] = [await side(network), await side(network)]
    let heard = 0
    b.pubsub.subscribe(peerDiscoveryTopic, () => void heard++)
    await a.node.dial(b.node.addrs())
    const source = pubsubDiscovery(a.pubsub, { intervalMs: 50, listenOnly: true })
    const ends = new AbortController()
    const found: Found[] = []
    const finding = (async () => {
      for await (const one of source.find(a.node, ends.signal)) found.push(one)
    })()
    await expect.poll(() => b.pubsub.topicPeers(peerDiscoveryTopic).length).toBe(1)
    await b.pubsub.publish(peerDiscoveryTopic, encodePeerMessage(b.node.peerId, b.node.addrs()))
    // Of somebody else, and nonsense: refused, and b is to blame.
    await b.pubsub.publish(peerDiscoveryTopic, encodePeerMessage(generateKey().publicKey.peerId, [addr]))
    await b.pubsub.publish(peerDiscoveryTopic, 'nonsense')
    await expect.poll(() => a.pubsub.stats().rejected).toBe(2)
    await expect.poll(() => found.map(({ peer }) => String(peer))).toEqual([String(b.node.peerId)])
    ends.abort(new Error('enough'))
    await finding
    expect(a.pubsub.topics()).toEqual([])
    expect(heard).toBe(0)
  })

  it('does not take options that make no sense', () => {
    const pubsub = {} as Gossipsub
    expect(() => pubsubDiscovery(pubsub, { intervalMs: 0 })).toThrow(RangeError)
  })
})
