/* Floods of what is not a message: topics, gossip, GRAFTs and PRUNEs, bounded before they are decoded. */
import { describe, expect, it, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { sealPeerRecord } from '../../src/peer/envelope.ts'
import { generateKey } from '../../src/peer/keys.ts'
import type { Subscription } from '../../src/protocols/gossipsub/wire.ts'
import { hostileListener, memory, patience, watchProcess } from './hostile.ts'
import { field, framed, hostile, idOf, mebi, net, topic, v13, type Hostile, type Net } from './gossipsub-net.ts'

/** Message ids become text in one place: so many were made. */
const made = vi.hoisted(() => {
  const counter = { strings: 0 }
  const { prototype } = Buffer as unknown as { prototype: { latin1Slice: (start: number, end: number) => string } }
  const { latin1Slice } = prototype
  prototype.latin1Slice = function (this: unknown, start, end) {
    counter.strings++
    return latin1Slice.call(this as never, start, end)
  }
  return counter
})

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

/** How many ids (and topics) the victim has made of what was sent; honest talk takes a few hundred. */
const slack = 1_500
async function stringsOf(v: Net, one: Hostile, send: () => Promise<void>): Promise<number> {
  const before = made.strings
  await send()
  await read(v, one)
  return made.strings - before
}

let marks = 0
/** All that was sent before has been read: a topic that came last is there. */
async function read(v: Net, one: Hostile): Promise<void> {
  const mark = `mark-${++marks}`
  await one.say({ subscriptions: [{ subscribe: true, topic: mark }] })
  await expect.poll(() => v.gossip.topicPeers(mark).length, patience).toBe(1)
  await one.say({ subscriptions: [{ subscribe: false, topic: mark }] })
}

const names = (count: number, prefix: string): Subscription[] =>
  Array.from({ length: count }, (_, i) => ({ subscribe: true, topic: `${prefix}-${i}` }))
const partsOf = (v: Net, { node }: Hostile) => v.gossip.scores().get(String(node.peerId))
const heardOf = (one: Hostile, kind: 'graft' | 'iwant'): string[] => one.heard.flatMap((rpc) => rpc[kind])
const pruned = (one: Hostile) => one.heard.flatMap(({ prune }) => prune)
const inMesh = (v: Net, { node }: Hostile): boolean => v.gossip.mesh(topic).some((id) => id.equals(node.peerId))

const ids = (count: number, prefix: string): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}-${i}`.padEnd(38, '.'))
/** One RPC of about a mebibyte: 25 entries of 1,000 ids. */
const megabyte = (prefix: string): string[][] => Array.from({ length: 25 }, (_, i) => ids(1_000, `${prefix}-${i}`))

const long = (i: number): string => `${i}`.padEnd(1_024, 'x')

describe('topics', () => {
  it('without end: the first 1,024 of a peer are kept, and nothing of the rest', async () => {
    const v = await net()
    const a = await hostile(v, { topics: [] })
    let events = 0
    v.gossip.on('subscription', () => events++)
    const before = memory()
    for (let i = 0; i < 150; i++) {
      await a.say({ subscriptions: names(2_000, `endless-${i}`) })
      if (i % 30 === 0) await v.talk(2)
    }
    // Its last word about one that is there is heard, too.
    await a.say({ subscriptions: [{ subscribe: false, topic: 'endless-0-0' }] })
    await expect.poll(() => v.gossip.topicPeers('endless-0-0').length, patience).toBe(0)
    expect(v.gossip.topicPeers('endless-0-1023')).toHaveLength(1)
    expect(v.gossip.topicPeers('endless-0-1024')).toHaveLength(0)
    expect(v.gossip.topicPeers('endless-149-0')).toHaveLength(0)
    expect(events).toBe(1_025)
    expect(memory() - before).toBeLessThan(16 * mebi)
    await v.expectUnharmed(a)
  })

  it('with long names: 64 Ki characters of a peer are kept', async () => {
    const v = await net()
    const a = await hostile(v, { topics: [] })
    for (let i = 0; i < 200; i += 50) {
      await a.say({ subscriptions: Array.from({ length: 50 }, (_, n) => ({ subscribe: true, topic: long(i + n) })) })
    }
    await a.say({ subscriptions: [{ subscribe: false, topic: long(0) }] })
    await read(v, a)
    expect([1, 63, 64, 199].map((i) => v.gossip.topicPeers(long(i)).length)).toEqual([1, 1, 0, 0])
    await v.expectUnharmed(a)
  })

  it.each([
    ['a subscription', field(1, concat([Uint8Array.of(8, 1), field(2, 'x'.repeat(1_025))]))],
    ['a GRAFT', field(3, field(3, field(1, 'x'.repeat(1_025))))],
    ['an IHAVE', field(3, field(1, field(1, 'x'.repeat(1_025))))],
    ['a subscription that is not UTF-8', field(1, concat([Uint8Array.of(8, 1), field(2, Uint8Array.of(0xff))]))],
  ])('with a name that is none in %s: the stream is reset', async (what, rpc) => {
    const v = await net()
    const a = await hostile(v)
    const stream = await a.stream()
    await a.write(framed(rpc))
    await stream.closed
    expect(v.codes('gossipsub.violation')).toEqual([what.endsWith('UTF-8') ? 'bad-utf8' : 'oversized'])
    await v.expectUnharmed(a)
  })

  it('taken and left all the time: an RPC counts by its last word, and costs one event', async () => {
    const v = await net()
    const a = await hostile(v, { topics: [] })
    let events = 0
    v.gossip.on('subscription', () => events++)
    const storm = Array.from({ length: 2_001 }, (_, i) => ({ subscribe: i % 2 === 0, topic }))
    const calm = [...storm, { subscribe: false, topic }]
    for (let i = 0; i < 50; i++) {
      await a.say({ subscriptions: storm })
      await a.say({ subscriptions: calm })
      if (i % 10 === 0) await v.talk(2)
    }
    await read(v, a)
    // One for each RPC, and two for the mark.
    expect(events).toBeLessThanOrEqual(102)
    expect(inMesh(v, a)).toBe(false)
    expect(v.gossip.mesh(topic)).toHaveLength(2)
    await v.expectUnharmed(a)
  })
})

describe('gossip', () => {
  it('IHAVE: 5,000 ids are read and asked for in a heartbeat; broken promises end it', async () => {
    const v = await net()
    const a = await hostile(v)
    const flood = async (name: string, times: number): Promise<void> => {
      for (let i = 0; i < times; i++) {
        await a.control({ ihave: megabyte(`${name}${i}`).map((list) => ({ topic, ids: list })) })
      }
      await v.talk(2)
    }
    const asked = (): number => heardOf(a, 'iwant').length
    const first = await stringsOf(v, a, () => flood('first', 20))
    await expect.poll(asked, patience).toBe(5_000)
    // The same ids are read once more by the hostile peer itself, which is here, too.
    expect(first).toBeLessThan(2 * 5_000 + slack)
    await v.beats(1)
    await flood('second', 20)
    await expect.poll(asked, patience).toBe(10_000)
    await v.beats(5)
    // Two IWANTs of which nothing came: -10 * 2 ** 2, below the threshold of gossip.
    expect(partsOf(v, a)?.p7).toBeLessThan(-35)
    expect(await stringsOf(v, a, () => flood('third', 20))).toBeLessThan(slack)
    expect(asked()).toBe(10_000)
    await v.expectUnharmed(a)
  })

  it('IHAVE of topics that we are not in, or in bits: ten RPCs are read in a heartbeat', async () => {
    const v = await net()
    const a = await hostile(v)
    const strings = await stringsOf(v, a, async () => {
      for (let i = 0; i < 1_000; i++) await a.control({ ihave: [{ topic: 'elsewhere', ids: ids(100, `bit-${i}`) }] })
    })
    expect(strings).toBeLessThan(10 * 101 + slack)
    expect(heardOf(a, 'iwant')).toEqual([])
    await v.expectUnharmed(a)
  })

  it('IWANT: 5,000 ids are read in a heartbeat, and a message is given three times', async () => {
    const v = await net()
    const a = await hostile(v)
    const { id } = await v.gossip.publish(topic, 'give me')
    const key = String.fromCharCode(...id)
    const copies = (): number => a.heard.flatMap(({ publish }) => publish).filter((one) => idOf(one) === key).length
    await expect.poll(copies, patience).toBe(1)
    for (let i = 0; i < 20; i++) {
      await a.control({ iwant: [Array.from({ length: 100 }, () => key)] })
      await read(v, a)
    }
    await expect.poll(copies, patience).toBe(4)
    const strings = await stringsOf(v, a, async () => {
      for (let i = 0; i < 20; i++) await a.control({ iwant: megabyte(`want${i}`) })
      await v.talk(2)
    })
    expect(strings).toBeLessThan(5_000 + slack)
    await v.beats(1)
    expect(copies()).toBe(4)
    expect(v.gossip.stats().queuedBytes).toBe(0)
    await v.expectUnharmed(a)
  })

  it('IDONTWANT: ten ids of an RPC are read, in a thousand RPCs of a heartbeat', async () => {
    const v = await net()
    const a = await hostile(v)
    const big = await stringsOf(v, a, async () => {
      for (let i = 0; i < 20; i++) await a.control({ idontwant: megabyte(`dont${i}`) })
    })
    expect(big).toBeLessThan(20 * 10 + slack)
    await v.beats(1)
    const before = memory()
    const many = await stringsOf(v, a, async () => {
      for (let i = 0; i < 3_000; i++) await a.control({ idontwant: [ids(50, `m${i}`)] })
      await v.talk(2)
    })
    expect(many).toBeLessThan(1_000 * 10 + slack)
    expect(memory() - before).toBeLessThan(16 * mebi)
    await v.expectUnharmed(a)
  })

  it('ids of more than 128 bytes are passed over', async () => {
    const v = await net()
    const a = await hostile(v)
    const huge = Array.from({ length: 5 }, (_, i) => `${i}`.padEnd(100_000, 'x'))
    const strings = await stringsOf(v, a, async () => {
      await a.control({ ihave: [{ topic, ids: huge }] })
      await a.control({ iwant: [huge] })
      await a.control({ idontwant: [huge] })
    })
    expect(strings).toBeLessThan(slack)
    expect(heardOf(a, 'iwant')).toEqual([])
    await v.expectUnharmed(a)
  })
})

describe('PRUNE', () => {
  it('with a back-off of 2^64-1 seconds ends the peer in the mesh and no heartbeat', async () => {
    const v = await net()
    const a = await hostile(v)
    await expect.poll(() => inMesh(v, a), patience).toBe(true)
    const most = concat([new Uint8Array(9).fill(0xff), Uint8Array.of(1)])
    for (let i = 0; i < 3; i++) {
      await a.write(framed(field(3, field(4, concat([field(1, topic), Uint8Array.of(0x18), most])))))
      await read(v, a)
      expect(inMesh(v, a)).toBe(false)
      await v.beats(3)
    }
    // It is not asked back, and may not come back itself.
    expect(heardOf(a, 'graft')).toEqual([topic])
    await a.control({ graft: [topic] })
    await expect.poll(() => pruned(a).length, patience).toBe(1)
    expect(partsOf(v, a)?.p7).toBe(-40)
    await v.expectUnharmed(a)
  })

  it('of topics without end: nothing is kept of those that we are not in', async () => {
    const v = await net()
    const a = await hostile(v)
    const before = memory()
    for (let i = 0; i < 100; i++) {
      const prune = Array.from({ length: 1_000 }, (_, n) => ({ topic: `p-${i}-${n}`, peers: [], backoffSeconds: 9 }))
      await a.control({ prune, graft: prune.map((one) => one.topic) })
    }
    await read(v, a)
    expect(memory() - before).toBeLessThan(8 * mebi)
    // Who grafts a topic that we are not in gets no answer.
    expect(pruned(a)).toEqual([])
    await v.expectUnharmed(a)
  })

  it.each([
    ['below the threshold: none of them is looked at', 10, 0],
    ['above it: 16 are, and nobody is dialled where another one says', 0, 16],
  ])('with 1,000 forged records, from a peer %s', async (_what, acceptPX, looked) => {
    const v = await net({ thresholds: { acceptPX } })
    const a = await hostile(v)
    await expect.poll(() => inMesh(v, a), patience).toBe(true)
    let dialled = 0
    const port = await hostileListener((socket) => {
      dialled++
      socket.destroy()
    })
    const addrs = [multiaddr(`/ip4/127.0.0.1/tcp/${port}`)]
    const signed = await sealPeerRecord(a.key, { seq: 1n, addrs })
    const torn = signed.slice()
    torn[torn.length - 1] = (torn.at(-1) ?? 0) ^ 1
    const peers = Array.from({ length: 1_000 }, (_, i) => ({
      id: i % 4 === 3 ? fromUtf8('nobody') : generateKey().publicKey.peerId.bytes,
      record: [signed, torn, fromUtf8('garbage'), signed][i % 4] as Uint8Array,
    }))
    await a.control({ prune: [{ topic, peers, backoffSeconds: 60 }] })
    await read(v, a)
    await v.talk()
    // At most eight at a time: the rest of the sixteen may be left out.
    const failed = (): number => v.traces.filter(({ what }) => what === 'gossipsub.exchange-failed').length
    if (looked > 0) await expect.poll(failed, patience).toBeGreaterThan(0)
    expect(failed()).toBeLessThanOrEqual(looked)
    expect(dialled).toBe(0)
    await v.expectUnharmed(a)
  })
})

describe('GRAFT', () => {
  it('in back-off: PRUNE and blame each time, twice the blame for a flood, until nothing is read any more', async () => {
    const v = await net({ score: { topics: { [topic]: {} } } })
    const a = await hostile(v)
    await expect.poll(() => inMesh(v, a), patience).toBe(true)
    await a.control({ prune: [{ topic, peers: [], backoffSeconds: 60 }] })
    const scores: number[] = []
    for (let i = 0; i < 3; i++) {
      await a.control({ graft: [topic] })
      await read(v, a)
      scores.push(v.scoreOf(a))
    }
    // -10 * 2 ** 2, -10 * 4 ** 2: graylisted, the third is not read.
    expect(scores).toEqual([-40, -160, -160])
    await expect
      .poll(() => pruned(a).map((one) => [one.topic, one.backoffSeconds, one.peers]), patience)
      .toEqual([
        [topic, 60, []],
        [topic, 60, []],
      ])
    const strings = await stringsOf(v, a, async () => {
      for (let i = 0; i < 100; i++) {
        await a.control({
          graft: [topic],
          iwant: [ids(100, 'g')],
          ihave: [{ topic, ids: ids(100, 'g') }],
          idontwant: [ids(100, 'g')],
        })
        await a.publish(await a.message(`graylisted ${i}`))
      }
      await v.talk(2)
    })
    expect(strings).toBeLessThan(slack)
    expect(v.got).toEqual([])
    expect(v.scoreOf(a)).toBe(-160)
    expect(pruned(a)).toHaveLength(2)
    await v.expectUnharmed(a)
  })

  it('of one RPC a thousand times counts once', async () => {
    const v = await net()
    const a = await hostile(v)
    await expect.poll(() => inMesh(v, a), patience).toBe(true)
    await a.control({ prune: [{ topic, peers: [], backoffSeconds: 60 }] })
    await a.control({ graft: Array.from({ length: 1_000 }, () => topic) })
    await expect.poll(() => pruned(a).length, patience).toBe(1)
    expect(v.scoreOf(a)).toBe(-40)
    await v.expectUnharmed(a)
  })

  it('of a peer that lets us open no stream: it holds no place in the mesh', async () => {
    const v = await net()
    const a = await hostile(v, { topics: [] })
    a.node.unhandle(['/meshsub/1.2.0', '/meshsub/1.1.0', '/meshsub/1.0.0', '/floodsub/1.0.0'])
    for (const { streams } of a.node.connections(v.node.peerId)) {
      for (const stream of streams) if (stream.direction === 'inbound') stream.reset()
    }
    await expect.poll(() => v.gossip.stats().peers, patience).toBe(2)
    await a.say({ subscriptions: [{ subscribe: true, topic }], control: { graft: [topic] } })
    await expect.poll(() => v.gossip.topicPeers(topic).length, patience).toBe(3)
    await v.beats(10)
    await expect.poll(() => inMesh(v, a), patience).toBe(false)
    await v.expectUnharmed(a)
  })
})

describe('extensions', () => {
  it.each([
    ['twice in the first RPC', [2]],
    ['again in a later one', [1, 1]],
    ['late', [0, 1]],
  ])('sent %s: blame that graylists at once', async (_what, counts) => {
    const v = await net()
    const a = await hostile(v, { protocol: v13, topics: [] })
    await a.stream(v13)
    for (const count of counts) {
      const extensions = Array.from({ length: count }, () => field(6, new Uint8Array()))
      await a.write(framed(field(3, concat([...extensions, field(3, field(1, 'other'))]))))
    }
    await read(v, a)
    expect(v.scoreOf(a)).toBe(-1_000)
    await a.say({ subscriptions: [{ subscribe: true, topic }] })
    await a.publish(await a.message('unread'))
    await read(v, a)
    expect(v.got).toEqual([])
    await v.expectUnharmed(a)
  })

  it('partial messages without the extension are passed over, of peers and of us', async () => {
    const v = await net()
    const a = await hostile(v, { protocol: v13 })
    await a.stream(v13)
    const partial = { topic, groupId: fromUtf8('g'), message: new Uint8Array(1_000), metadata: fromUtf8('m') }
    // First without, then with the extension said: we have it not.
    await a.say({ partial })
    await a.stream(v13)
    await a.say({ control: { extensions: { partialMessages: true } }, partial })
    for (let i = 0; i < 100; i++) await a.say({ partial })
    await read(v, a)
    expect(v.scoreOf(a)).toBe(0)
    expect(a.heard.some((rpc) => rpc.partial !== undefined)).toBe(false)
    await a.publish(await a.message('still read'))
    await expect.poll(() => v.got.length, patience).toBe(1)
    await v.expectUnharmed(a)
  })
})
