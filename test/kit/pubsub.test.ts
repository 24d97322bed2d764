/* Kits that speak over topics: over memory, with the real GossipSub. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { toHex, toUtf8 } from '../../src/bytes.ts'
import { UnavailableError } from '../../src/errors.ts'
import { createKit, type Kit, type KitOptions } from '../../src/kit/kit.ts'
import { createNames, formatName, type Names } from '../../src/ipns/ipns.ts'
import { generateKey } from '../../src/peer/keys.ts'
import type { PubSubMessage } from '../../src/protocols/gossipsub/gossipsub.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const topic = 'kit-test'

async function started(network: MemoryNetwork, options: KitOptions = {}): Promise<Kit> {
  const pubsub = { heartbeatIntervalMs: 100 }
  const kit = await createKit({ transports: [memory(network)], listen: ['/memory/0'], pubsub, ...options })
  onTestFinished(() => kit.stop())
  await kit.start()
  return kit
}

async function connect(from: Kit, to: Kit): Promise<void> {
  await from.node.dial(to.node.addrs().map(String))
}

function namesOf(kit: Kit): Names {
  const { nameRouting: routing, node } = kit
  if (routing === undefined) throw new Error('the kit has no way for names')
  return createNames({ routing, records: memoryRecords({ env: node.env }), env: node.env })
}
const bad = (): Promise<void> => Promise.reject(new Error('a handler that fails'))
const ids = (peers: readonly unknown[]): string[] => peers.map(String)

async function pair(options: KitOptions = {}): Promise<[Kit, Kit]> {
  const network = new MemoryNetwork()
  const [ana, ben] = [await started(network, options), await started(network, options)]
  await connect(ana, ben)
  return [ana, ben]
}

describe('a kit with pubsub', () => {
  it('brings a message from one end of a line of five to the other, once', async () => {
    const network = new MemoryNetwork()
    const kits: Kit[] = []
    for (let i = 0; i < 5; i++) kits.push(await started(network))
    const got = kits.map(() => [] as string[])
    for (const [i, kit] of kits.entries()) {
      kit.subscribeToTopic(topic, ({ data }) => void got[i]?.push(toUtf8(data)))
      const before = kits[i - 1]
      if (before !== undefined) await connect(kit, before)
    }
    for (const [i, kit] of kits.entries()) {
      await expect.poll(() => kit.getTopicPeers(topic).peerCount).toBe(i === 0 || i === 4 ? 1 : 2)
    }
    await kits[0]?.publishToTopic(topic, 'down the line')
    await expect.poll(() => got[4]).toEqual(['down the line'])
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(got.map(({ length }) => length)).toEqual([0, 1, 1, 1, 1])
  })

  it('publishes text as UTF-8, and says under which id and to whom', async () => {
    const [ana, ben] = await pair()
    const got: PubSubMessage[] = []
    ben.subscribeToTopic(topic, (message) => void got.push(message))
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(1)
    const result = await ana.publishToTopic(topic, 'grüße')
    await expect.poll(() => got).toHaveLength(1)
    expect(got[0]?.data).toEqual(new TextEncoder().encode('grüße'))
    expect(got[0]).toMatchObject({ topic, from: ana.node.peerId, seqno: expect.any(BigInt) as bigint })
    expect(result).toMatchObject({ success: true, operation: 'publishToTopic', topic })
    expect(result.messageId).toBe(toHex(got[0]?.id ?? new Uint8Array(0)))
    expect(ids(result.recipients)).toEqual([String(ben.node.peerId)])
    expect(Math.abs(result.timestamp - Date.now())).toBeLessThan(60_000)
  })

  it('calls every handler, whatever the others do, and forgets one or all of them', async () => {
    const [ana, ben] = await pair()
    const got: string[] = []
    const first = (): void => void got.push('first')
    const second = (): void => void got.push('second')
    for (const handler of [bad, first, second])
      expect(ben.subscribeToTopic(topic, handler)).toMatchObject({
        success: true,
        operation: 'subscribeToTopic',
        topic,
      })
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(1)
    await ana.publishToTopic(topic, 'one')
    await expect.poll(() => got).toEqual(['first', 'second'])
    expect(ben.unsubscribeFromTopic(topic, first)).toMatchObject({ handlerRemoved: true, left: false })
    await ana.publishToTopic(topic, 'two')
    await expect.poll(() => got).toEqual(['first', 'second', 'second'])
    expect(ben.listTopics()).toMatchObject({ success: true, topics: [topic], topicCount: 1 })
    expect(ben.unsubscribeFromTopic(topic)).toMatchObject({ handlerRemoved: false, left: true })
    expect(ben.listTopics()).toMatchObject({ topics: [], topicCount: 0 })
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(0)
    expect(() => ben.unsubscribeFromTopic(topic)).toThrow(UnavailableError)
  })

  it('lists remote subscribers only, and none of a topic that nobody knows', async () => {
    const [ana, ben] = await pair()
    ana.subscribeToTopic(topic, () => {})
    ben.subscribeToTopic(topic, () => {})
    await expect.poll(() => ids(ana.getTopicPeers(topic).peers)).toEqual([String(ben.node.peerId)])
    expect(ana.getTopicPeers('nobody knows')).toMatchObject({ success: true, peers: [], peerCount: 0 })
  })

  it('says what is wrong, and what to do', async () => {
    const [ana] = await pair()
    await expect(ana.publishToTopic('', 'x')).rejects.toThrow(TypeError)
    await expect(ana.publishToTopic('x'.repeat(2_000), 'x')).rejects.toThrow(/at most 1024 bytes/)
    await expect(ana.publishToTopic(topic, new Uint8Array(2_000_000))).rejects.toMatchObject({ code: 'limit' })
    const alone = await ana.publishToTopic(topic, 'x').catch((error: unknown) => error)
    expect(alone).toMatchObject({ code: 'not-found' })
    expect(String(alone)).toMatch(/in topic kit-test: connect to/)
    expect(await ana.publishToTopic(topic, 'x', { allowNone: true })).toMatchObject({ recipients: [] })
    const without = await createKit({ transports: [memory(new MemoryNetwork())] })
    expect(without.pubsub).toBeUndefined()
    expect(() => without.listTopics()).toThrow(/createKit\(\{ pubsub: true \}\)/)
    await expect(without.publishToTopic(topic, 'x')).rejects.toMatchObject({ code: 'unsupported' })
  })

  it('signs with the key of its node, also one that its id does not hold, and may be told not to sign', async () => {
    const network = new MemoryNetwork()
    const ana = await started(network, { privateKey: await generateKey('ECDSA') })
    const ben = await started(network)
    await connect(ana, ben)
    const got: PubSubMessage[] = []
    ben.subscribeToTopic(topic, (message) => void got.push(message))
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(1)
    await ana.publishToTopic(topic, 'signed')
    await expect.poll(() => got.map(({ from }) => String(from))).toEqual([String(ana.node.peerId)])
    const [cleo, dan] = await pair({ pubsub: { signing: 'StrictNoSign', heartbeatIntervalMs: 100 } })
    dan.subscribeToTopic(topic, (message) => void got.push(message))
    await expect.poll(() => cleo.getTopicPeers(topic).peerCount).toBe(1)
    await cleo.publishToTopic(topic, 'plain')
    await expect.poll(() => got.map(({ from }) => from === undefined)).toEqual([false, true])
  })

  it('publishes at once to a peer that is shown in the topic, whichever stream came first', async () => {
    const network = new MemoryNetwork()
    const [ana, ben] = [await started(network), await started(network)]
    ben.subscribeToTopic(topic, () => {})
    // Ben's stream to Ana, with what he is in, comes long before hers to him.
    const open = ana.node.newStream.bind(ana.node)
    ana.node.newStream = async (...args) => {
      await new Promise((resolve) => setTimeout(resolve, 500))
      return open(...args)
    }
    await connect(ana, ben)
    const taken = ana.publishToTopic(topic, 'waits', { taken: true })
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(1)
    expect((await ana.publishToTopic(topic, 'at once')).recipients).toHaveLength(1)
    expect((await taken).recipients).toHaveLength(1)
    await ben.stop()
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(0)
  })

  it('stops with the kit, and starts again', async () => {
    const [ana, ben] = await pair({ pubsub: { heartbeatIntervalMs: 100, names: true, announcements: true } })
    const got: string[] = []
    ben.subscribeToTopic(topic, ({ data }) => void got.push(toUtf8(data)))
    await expect.poll(() => ana.getTopicPeers(topic).peerCount).toBe(1)
    const waiting = ana.publishToTopic('nobody is in it', 'x', { taken: true })
    // It is signed, and waits for somebody.
    await new Promise((resolve) => setTimeout(resolve, 100))
    await Promise.all([expect(waiting).rejects.toMatchObject({ code: 'stopped' }), ana.stop()])
    await expect(ana.publishToTopic(topic, 'x')).rejects.toMatchObject({ code: 'not-started' })
    await ana.stop()
    await ana.start()
    await connect(ana, ben)
    await ana.publishToTopic(topic, 'back', { taken: true })
    await expect.poll(() => got).toEqual(['back'])
    const key = generateKey()
    await namesOf(ana).publish(key, '/ipfs/bafkqaaa')
    await expect.poll(() => ana.getTopicPeers('ipfs-kit/content-announce').peerCount).toBe(1)
  })

  it('dials its direct peers', async () => {
    const network = new MemoryNetwork()
    const ana = await started(network)
    const ben = await started(network, { pubsub: { directPeers: ana.node.addrs() } })
    await expect.poll(() => ids(ben.node.peers())).toEqual([String(ana.node.peerId)])
  })
})

describe('what goes over topics', () => {
  it('tells where peers are: three who know one of them find each other', async () => {
    const network = new MemoryNetwork()
    const pubsub = { heartbeatIntervalMs: 100, discovery: { intervalMs: 200 } }
    const kits: Kit[] = []
    for (let i = 0; i < 4; i++) kits.push(await started(network, { pubsub }))
    const found: string[] = []
    kits[3]?.discovery?.on('found', ({ source }) => void found.push(source))
    for (const kit of kits.slice(1)) await connect(kit, kits[0] as Kit)
    for (const kit of kits) await expect.poll(() => kit.node.peers().length, { timeout: 10_000 }).toBe(3)
    expect(new Set(found)).toEqual(new Set(['pubsub']))
  })

  it('brings names by topics and by the DHT, whichever knows', async () => {
    const network = new MemoryNetwork()
    const dht = { mode: 'server', prefix: '/kit-test' } as const
    const both = { dht, pubsub: { heartbeatIntervalMs: 100, names: { settleMs: 200 } } }
    const ana = await started(network, both)
    const [byDht, byTopic] = [
      await started(network, { dht, pubsub: false }),
      await started(network, { pubsub: both.pubsub }),
    ]
    await connect(ana, byDht)
    await connect(ana, byTopic)
    await ana.reachDht()
    await byDht.reachDht()
    const key = generateKey()
    const name = formatName(key.publicKey.peerId)
    const { peers } = await namesOf(ana).publish(key, '/ipfs/bafkqaaa')
    expect(peers).toBe(1)
    for (const kit of [byDht, byTopic]) expect((await namesOf(kit).resolve(name)).path).toBe('/ipfs/bafkqaaa')
    // Whoever published it last by one of them is found by the other.
    await namesOf(byTopic).publish(key, '/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi')
    await expect
      .poll(async () => (await namesOf(ana).resolve(name, { noCache: true })).path)
      .toBe('/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi')
    expect(byTopic.nameRouting).not.toBe(byTopic.dht)
    expect(byDht.nameRouting).toBe(byDht.dht)
  })

  it('tells who has what: a block is fetched from a stranger who announced it', async () => {
    const network = new MemoryNetwork()
    const pubsub = { heartbeatIntervalMs: 100, announcements: true }
    const hub = await started(network, { pubsub })
    const ana = await started(network, { pubsub })
    const ben = await started(network, { pubsub })
    await connect(ana, hub)
    await connect(ben, hub)
    const { cid } = await ana.add('announced on a topic')
    const announcements = ana.announcements
    const heard = new Promise((resolve) => void ben.announcements?.on('announced', resolve))
    await expect.poll(() => ana.getTopicPeers('ipfs-kit/content-announce').peerCount).toBe(1)
    await expect.poll(() => ben.getTopicPeers('ipfs-kit/content-announce').peerCount).toBe(1)
    await announcements?.announce(cid, { size: 20, type: 'text/plain', metadata: { by: 'ana' } })
    expect(await heard).toMatchObject({
      size: 20,
      type: 'text/plain',
      metadata: { by: 'ana' },
      provider: ana.node.peerId,
    })
    expect(ben.node.connections(ana.node.peerId)).toEqual([])
    let text = ''
    for await (const bytes of ben.cat(cid)) text += toUtf8(bytes)
    expect(text).toBe('announced on a topic')
  })
})
