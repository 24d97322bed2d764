/* IPNS over pubsub: over memory, with the real GossipSub and the real fetch protocol. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { systemEnv } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import {
  createNames,
  formatName,
  nameOf,
  nameRoutings,
  type NameRouting,
  type PubsubRouting,
} from '../../src/ipns/ipns.ts'
import { pubsubRouting, topicOfKey, type PubsubRoutingOptions } from '../../src/ipns/ipns-pubsub.ts'
import { createRecord, decodeRecord } from '../../src/ipns/record.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { PeerId } from '../../src/peer/peer.ts'
import { fetch, serveFetch } from '../../src/protocols/fetch/fetch.ts'
import { createGossipsub, type Gossipsub } from '../../src/protocols/gossipsub/gossipsub.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const first = '/ipfs/bafkqaaa'
const second = '/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi'

interface Side {
  node: Node
  pubsub: Gossipsub
  routing: PubsubRouting
  /** Keys that others asked for. */
  asked: number
}

async function side(network: MemoryNetwork, options: Partial<PubsubRoutingOptions> = {}): Promise<Side> {
  const privateKey = generateKey()
  const node = await createNode({ privateKey, transports: [memory(network)], listen: ['/memory/0'] })
  const pubsub = createGossipsub(node, { privateKey, heartbeatIntervalMs: 100 })
  const service = serveFetch(node)
  const out: Side = { node, pubsub, asked: 0, routing: undefined as unknown as PubsubRouting }
  out.routing = pubsubRouting({
    pubsub,
    host: node,
    fetch: {
      get: (peer, key, bound) => fetch(node, peer, key, bound),
      serve: (prefix, lookup) =>
        service.register(prefix, (key) => {
          out.asked++
          return lookup(key)
        }),
    },
    waitMs: 5_000,
    settleMs: 2_000,
    ...options,
  })
  onTestFinished(async () => {
    await out.routing.stop()
    await pubsub.stop()
    await node.stop()
  })
  await node.start()
  pubsub.start()
  out.routing.start()
  return out
}

const connect = (from: Side, to: Side): Promise<unknown> => from.node.dial(to.node.addrs())
const keyOf = (key: PrivateKey): Uint8Array => concat([fromUtf8('/ipns/'), nameOf(key.publicKey).bytes])
const recordOf = (key: PrivateKey, value: string, sequence: bigint, lifetimeMs = 3_600_000): Promise<Uint8Array> =>
  createRecord(key, { value, sequence, now: Date.now(), lifetimeMs })
const follows = (a: Side, key: Uint8Array): Promise<unknown> =>
  expect.poll(() => a.pubsub.topicPeers(topicOfKey(key)).length).toBeGreaterThan(0)

async function valueAt({ routing }: Side, key: Uint8Array): Promise<string> {
  return decodeRecord(await routing.get(key, {})).value
}

describe('IPNS over pubsub', () => {
  it('names topics as the spec does', () => {
    // go-libp2p-pubsub-router, KeyToTopic
    expect(topicOfKey(fromUtf8('/ipns/\xff?'))).toBe(`/record/${Buffer.from('/ipns/\xff?').toString('base64url')}`)
    const key = concat([fromUtf8('/ipns/'), Uint8Array.of(0xfb, 0xff)])
    expect(topicOfKey(key)).toBe('/record/L2lwbnMv-_8')
  })

  it('brings a record to those who followed the name before, and its updates', async () => {
    const network = new MemoryNetwork()
    const [ana, ben] = [await side(network), await side(network)]
    await connect(ana, ben)
    const owner = generateKey()
    const key = keyOf(owner)
    const waiting = valueAt(ben, key)
    await follows(ana, key)
    expect(await ana.routing.put(key, await recordOf(owner, first, 1n), {})).toBe(1)
    expect(await waiting).toBe(first)
    await ana.routing.put(key, await recordOf(owner, second, 2n), {})
    await expect.poll(() => valueAt(ben, key)).toBe(second)
    expect(ben.routing.names().map(String)).toEqual([String(nameOf(owner.publicKey))])
  })

  it('brings it to those who come later, from anybody who has it, while its publisher is gone', async () => {
    const network = new MemoryNetwork()
    const [ana, ben, cleo] = [await side(network), await side(network), await side(network)]
    await connect(ana, ben)
    const owner = generateKey()
    const key = keyOf(owner)
    expect(await ana.routing.put(key, await recordOf(owner, first, 1n), {})).toBe(0)
    expect(await valueAt(ben, key)).toBe(first)
    // Whoever comes into the topic is asked, Ben by Ana too.
    await expect.poll(() => ben.asked).toBe(1)
    await ana.node.stop()
    await connect(cleo, ben)
    expect(await valueAt(cleo, key)).toBe(first)
    expect(ben.asked).toBe(2)
  })

  it('tells the others of a newer record that a peer had', async () => {
    const network = new MemoryNetwork()
    const [ana, ben, cleo] = [await side(network), await side(network), await side(network)]
    const owner = generateKey()
    const key = keyOf(owner)
    // Ana and Ben know an old one; Cleo comes with a newer one, and knows Ben only.
    await ana.routing.put(key, await recordOf(owner, first, 1n), {})
    await connect(ben, ana)
    expect(await valueAt(ben, key)).toBe(first)
    await cleo.routing.put(key, await recordOf(owner, second, 2n), {})
    await connect(cleo, ben)
    await expect.poll(() => valueAt(ben, key)).toBe(second)
    await expect.poll(() => valueAt(ana, key)).toBe(second)
  })

  it('keeps the newest, refuses to go back, and does not take what does not hold', async () => {
    const network = new MemoryNetwork()
    const [ana, ben, cleo] = [await side(network), await side(network), await side(network)]
    await connect(ana, ben)
    await connect(ben, cleo)
    const owner = generateKey()
    const key = keyOf(owner)
    const topic = topicOfKey(key)
    for (const one of [ben, cleo]) void one.routing.get(key, {}).catch(() => {})
    await follows(ana, key)
    await follows(cleo, key)
    await ana.routing.put(key, await recordOf(owner, second, 5n), {})
    await expect.poll(() => valueAt(cleo, key)).toBe(second)
    await expect(ana.routing.put(key, await recordOf(owner, first, 4n), {})).rejects.toMatchObject({ code: 'refused' })
    const stranger = await createRecord(generateKey(), { value: first, sequence: 9n, now: Date.now() })
    await expect(ana.routing.put(key, stranger, {})).rejects.toMatchObject({ code: 'bad-signature' })
    const late = await recordOf(owner, first, 9n, -1_000)
    await expect(ana.routing.put(key, late, {})).rejects.toMatchObject({ code: 'bad-message' })
    // Somebody sends them by hand, whatever our own side says of them.
    const mallory = await side(network)
    await connect(mallory, ben)
    await expect.poll(() => mallory.pubsub.topicPeers(topic).length).toBe(1)
    const before = ben.pubsub.stats()
    for (const data of [await recordOf(owner, first, 4n), late, stranger, fromUtf8('no record')])
      await mallory.pubsub.publish(topic, data)
    await expect.poll(() => ben.pubsub.stats().rejected - before.rejected).toBe(2)
    await expect.poll(() => ben.pubsub.stats().ignored - before.ignored).toBe(2)
    expect(await valueAt(ben, key)).toBe(second)
    expect(await valueAt(cleo, key)).toBe(second)
  })

  it('does not take what a peer answers that does not hold', async () => {
    const network = new MemoryNetwork()
    const owner = generateKey()
    const key = keyOf(owner)
    const liar = await side(network, {
      fetch: { get: () => Promise.resolve(undefined), serve: () => () => {} },
    })
    const service = serveFetchOf(liar)
    const lie = await createRecord(generateKey(), { value: first, sequence: 9n, now: Date.now() })
    service(() => lie)
    liar.pubsub.subscribe(topicOfKey(key), () => {})
    const ana = await side(network, { settleMs: 500 })
    await connect(ana, liar)
    await follows(ana, key).catch(() => {})
    await expect(ana.routing.get(key, {})).rejects.toMatchObject({ code: 'not-found' })
    service(() => new Uint8Array(50_000))
    ana.routing.forget(nameOf(owner.publicKey))
    await expect(ana.routing.get(key, {})).rejects.toMatchObject({ code: 'not-found' })
  })

  it('publishes again now and then, for those who missed it and can not be asked', async () => {
    const network = new MemoryNetwork()
    const owner = generateKey()
    const key = keyOf(owner)
    const ana = await side(network, { rebroadcastMs: 300 })
    const deaf = await side(network, {
      fetch: { get: () => Promise.reject(new UnavailableError('no-protocol', 'no')), serve: () => () => {} },
    })
    await ana.routing.put(key, await recordOf(owner, first, 1n), {})
    // Gossip forgets it meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 700))
    await connect(deaf, ana)
    expect(await valueAt(deaf, key)).toBe(first)
  })

  it('follows so many names, and makes room by forgetting the one looked up longest ago that is not our own', async () => {
    const network = new MemoryNetwork()
    const ana = await side(network, { maxNames: 2, settleMs: 20 })
    const owners = [generateKey(), generateKey(), generateKey()]
    const [own, other, third] = owners.map(keyOf) as [Uint8Array, Uint8Array, Uint8Array]
    await ana.routing.put(own, await recordOf(owners[0] as PrivateKey, first, 1n), {})
    for (const key of [other, third]) await ana.routing.get(key, {}).catch(() => 0)
    expect(ana.pubsub.topics()).toEqual([own, third].map(topicOfKey))
    const last = nameOf((owners[2] as PrivateKey).publicKey)
    expect([ana.routing.forget(last), ana.routing.forget(last)]).toEqual([true, false])
    await ana.routing.put(other, await recordOf(owners[1] as PrivateKey, first, 1n), {})
    await expect(ana.routing.get(third, {})).rejects.toMatchObject({ code: 'limit' })
  })

  it('says what to do where nobody follows the name, and stops for a signal or for good', async () => {
    const network = new MemoryNetwork()
    const [ana, ben] = [await side(network, { settleMs: 50 }), await side(network, { settleMs: 60_000 })]
    const key = keyOf(generateKey())
    await expect(ana.routing.get(key, {})).rejects.toThrow(/none of our peers follows .*: connect to/)
    await connect(ana, ben)
    const controller = new AbortController()
    const waiting = ben.routing.get(key, { signal: controller.signal })
    const other = ben.routing.get(keyOf(generateKey()), {})
    await follows(ana, key)
    await expect(ana.routing.get(key, {})).rejects.toThrow(/that follow .* \(1\) has a record/)
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await Promise.all([expect(other).rejects.toMatchObject({ code: 'stopped' }), ben.routing.stop()])
    expect(ben.pubsub.topics()).toEqual([])
    await expect(ben.routing.get(key, {})).rejects.toMatchObject({ code: 'not-started' })
    await expect(ana.routing.get(fromUtf8('/pk/x'), {})).rejects.toThrow(TypeError)
  })

  it('is a routing for names', async () => {
    const network = new MemoryNetwork()
    const [ana, ben] = [await side(network, { settleMs: 100 }), await side(network)]
    await connect(ana, ben)
    const { env } = ana.node
    const owner = generateKey()
    const name = formatName(nameOf(owner.publicKey))
    const reading = createNames({ routing: ben.routing, records: memoryRecords({ env }), env })
    const waiting = reading.resolve(name)
    await follows(ana, keyOf(owner))
    const writing = createNames({ routing: ana.routing, records: memoryRecords({ env }), env })
    expect((await writing.publish(owner, first)).peers).toBe(1)
    expect((await waiting).path).toBe(first)
    await writing.publish(owner, second)
    await expect.poll(async () => (await reading.resolve(name, { noCache: true })).path).toBe(second)
  })
})

/** Answers fetches of a side whose own routing serves none. */
function serveFetchOf({ node }: Side): (answer: () => Uint8Array) => void {
  let given: (() => Uint8Array) | undefined
  node.unhandle('/libp2p/fetch/0.0.1')
  serveFetch(node).register('/ipns/', () => given?.())
  return (answer) => (given = answer)
}

const fails = (code: 'not-found' | 'unreachable'): NameRouting => ({
  get: () => Promise.reject(new UnavailableError(code, `${code} here`)),
  put: () => Promise.reject(new UnavailableError(code, `${code} here`)),
})
const has = (record: Uint8Array, ms = 0): NameRouting => ({
  get: () => new Promise((resolve) => void setTimeout(() => resolve(record), ms)),
  put: () => Promise.resolve(3),
})

describe('several routings as one', () => {
  const key = concat([fromUtf8('/ipns/'), PeerId.parse(String(nameOf(generateKey().publicKey))).bytes])
  const owner = generateKey()
  const env = systemEnv()

  it('give the newest of what comes soon, and do not wait long for the slow', async () => {
    const [old, young] = [await recordOf(owner, first, 1n), await recordOf(owner, second, 2n)]
    const all = nameRoutings([has(old), fails('not-found'), has(young, 100)], env)
    expect(await all.get(key, {})).toBe(young)
    const slow = nameRoutings([has(old), has(young, 60_000)], env)
    expect(await slow.get(key, {})).toBe(old)
  })

  it('put by all of them, and fail where none of them takes it', async () => {
    const record = await recordOf(owner, first, 1n)
    expect(await nameRoutings([has(record), fails('not-found'), has(record)], env).put(key, record, {})).toBe(6)
    const nobody = { ...has(record), put: () => Promise.resolve(0) }
    expect(await nameRoutings([nobody], env).put(key, record, {})).toBe(0)
    await expect(nameRoutings([nobody, fails('unreachable')], env).put(key, record, {})).rejects.toMatchObject({
      code: 'unreachable',
    })
    const none = nameRoutings([fails('not-found'), fails('unreachable')], env)
    await expect(none.put(key, record, {})).rejects.toThrow(/not-found here; unreachable here/)
    await expect(none.get(key, {})).rejects.toMatchObject({ code: 'not-found' })
    await expect(nameRoutings([fails('unreachable')], env).get(key, {})).rejects.toMatchObject({ code: 'unreachable' })
  })

  it('end with the signal of the caller', async () => {
    const controller = new AbortController()
    const getting = nameRoutings([has(new Uint8Array(0), 60_000)], env).get(key, { signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(getting).rejects.toThrow('enough')
  })
})
