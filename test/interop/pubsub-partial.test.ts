/* Partial messages of GossipSub 1.3 with go-libp2p-pubsub: the lab's application of 4 parts with a bitmap, both ways. */
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import type { GossipsubOptions, SubscribeOptions } from '../../src/protocols/gossipsub/api.ts'
import { partialParts, type PartialParts, type WholeGroup } from '../../src/protocols/gossipsub/partial.ts'
import { available, buildPeers, type Answer, type Peer } from './peers.ts'
import { acquainted, base64, heartbeatIntervalMs, meshed, ours, theirs, type Ours } from './pubsub-lab.ts'

await buildPeers()
const have = available()

const topic = 't'
const groupId = fromUtf8('group')
const part = (i: number): Uint8Array => new Uint8Array(16).fill(i + 65)
const partsOf = (bitmap: number): (Uint8Array | undefined)[] =>
  [0, 1, 2, 3].map((i) => (((bitmap >> i) & 1) === 1 ? part(i) : undefined))
const asked: SubscribeOptions = { requestsPartial: true }
const supporting: SubscribeOptions = { supportsPartial: true }

type WithParts = Ours & { parts: PartialParts; whole: WholeGroup[] }

async function withParts(subscribe: SubscribeOptions, options: GossipsubOptions = {}): Promise<WithParts> {
  const whole: WholeGroup[] = []
  const parts = partialParts({
    partCount: 4,
    partBytes: 16,
    verify: ({ index, bytes }) => bytes.every((byte) => byte === index + 65),
    complete: (group) => whole.push(group),
  })
  const us = await ours({ partial: parts, ...options })
  us.pubsub.subscribe(topic, (message) => us.got.push(message), subscribe)
  return { ...us, parts, whole }
}

async function goWith(use: 'request' | 'support'): Promise<Peer> {
  const them = await theirs('go', ['--pubsub-partial', use, '--pubsub-trace'])
  await them.call('sub', { topic })
  return them
}

const publish = (them: Peer, bitmap: number, eager = false): Promise<Answer> =>
  them.call('partialPub', {
    topic,
    group: base64(groupId),
    parts: partsOf(bitmap).map((bytes) => (bytes === undefined ? null : base64(bytes))),
    eager,
  })
const heldBy = async (them: Peer): Promise<unknown> =>
  (await them.call('partialGet', { topic, group: base64(groupId) }))['have']
const held = (us: WithParts): number =>
  (us.parts.get(topic, groupId) ?? []).reduce(
    (bitmap, bytes, i) => (bytes === undefined ? bitmap : bitmap | (1 << i)),
    0,
  )
const both = async (us: WithParts, them: Peer): Promise<unknown[]> => [held(us), await heldBy(them)]
/** Long enough for what would come, were it wrong, to be here. */
const settled = (): Promise<void> => sleep(4 * heartbeatIntervalMs)
/** What went from us to it, or from it to us, as far as it has this field. */
const rpcs = (them: Peer, event: 'rpcReceived' | 'rpcSent', what: string): unknown[] =>
  them.events.filter((rpc) => rpc['event'] === event && what in rpc).map((rpc) => rpc[what])

describe.skipIf(!have.go)('partial messages with go-libp2p', () => {
  it.each([
    ['we have all', 15, 0],
    ['it has all', 0, 15],
    ['each has half', 5, 10],
    ['both have some of the same', 7, 14],
  ])('are exchanged until both have all parts, each sent once: %s', async (_, mine, yours) => {
    await using us = await withParts(asked)
    await using them = await goWith('request')
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, topic)
    if (mine > 0) us.parts.publish(topic, groupId, partsOf(mine))
    if (yours > 0) await publish(them, yours)
    await expect.poll(() => both(us, them), { timeout: 5_000 }).toEqual([15, 15])
    await settled()
    expect(us.parts.get(topic, groupId)).toEqual(partsOf(15))
    expect(us.whole).toHaveLength(mine === 15 ? 0 : 1)
    for (const [event, lacked] of [
      ['rpcReceived', mine & ~yours],
      ['rpcSent', yours & ~mine],
    ] as const) {
      const messages = (rpcs(them, event, 'partial') as Answer[]).filter(({ message }) => message !== null)
      expect(messages.map(({ message }) => Buffer.from(String(message), 'base64')[0])).toEqual(
        lacked === 0 ? [] : [lacked],
      )
    }
    expect(them.events.filter(({ event, error }) => event === 'partial' && error !== undefined)).toEqual([])
  })

  it('begin when it dials, too, and carry what comes later', async () => {
    await using us = await withParts(asked)
    await using them = await goWith('request')
    us.parts.publish(topic, groupId, partsOf(1))
    await them.call('connect', { addr: us.addr })
    await meshed(us, them, topic)
    // Published before they met: the next heartbeat tells.
    await expect.poll(() => heldBy(them), { timeout: 5_000 }).toBe(1)
    us.parts.publish(topic, groupId, partsOf(2))
    await expect.poll(() => heldBy(them), { timeout: 5_000 }).toBe(3)
    await publish(them, 12)
    await expect.poll(() => both(us, them), { timeout: 5_000 }).toEqual([15, 15])
  })

  it('come eagerly, before we said what we have, and go so', async () => {
    await using us = await withParts(asked)
    await using them = await goWith('request')
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, topic)
    us.parts.publish(topic, groupId, partsOf(3), { eager: true })
    const first = await them.event('partial')
    expect(first).toMatchObject({ have: 3, metadata: base64(Uint8Array.of(3)) })
    await them.call('partialPub', {
      topic,
      group: base64('other'),
      parts: [null, null, null, base64(part(3))],
      eager: true,
    })
    await expect.poll(() => us.parts.get(topic, fromUtf8('other'))).toEqual(partsOf(8))
  })

  it('bring parts to nobody who only supports them: it hears metadata and gets whole messages', async () => {
    await using us = await withParts(asked)
    await using them = await goWith('support')
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, topic)
    us.parts.publish(topic, groupId, partsOf(3), { eager: true })
    await publish(them, 12)
    await expect.poll(() => held(us)).toBe(15)
    await us.pubsub.publish(topic, 'whole')
    await them.event('message', ({ data }) => data === base64('whole'))
    await settled()
    expect(await heldBy(them)).toBe(12)
    const told = rpcs(them, 'rpcReceived', 'partial') as Answer[]
    expect(told.length).toBeGreaterThan(0)
    expect(told.filter(({ message }) => message !== null)).toEqual([])
  })

  it('bring us none where we only support them, and whole messages instead', async () => {
    await using us = await withParts(supporting)
    await using them = await goWith('request')
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, topic)
    us.parts.publish(topic, groupId, partsOf(3))
    await publish(them, 12, true)
    await expect.poll(() => heldBy(them)).toBe(15)
    await them.call('pub', { topic, data: base64('whole') })
    await expect.poll(() => us.got.map(({ data }) => base64(data))).toEqual([base64('whole')])
    await settled()
    expect(held(us)).toBe(3)
    expect((rpcs(them, 'rpcSent', 'partial') as Answer[]).filter(({ message }) => message !== null)).toEqual([])
  })

  it('do not keep whole messages from who wants those, in a net of both', async () => {
    await using us = await withParts(asked)
    await using plain = await ours()
    await using them = await goWith('request')
    plain.follow(topic)
    for (const one of [us, plain]) {
      await one.node.dial(them.addrs[0] ?? '')
      await meshed(one, them, topic)
    }
    await plain.node.dial(us.addr)
    await expect.poll(() => us.pubsub.topicPeers(topic).length).toBe(2)
    // Whole ones come to all, and go to those that did not ask for parts.
    await plain.pubsub.publish(topic, 'from plain')
    await expect.poll(() => us.got.map(({ data }) => base64(data))).toEqual([base64('from plain')])
    await them.event('message', ({ data }) => data === base64('from plain'))
    const { recipients } = await us.pubsub.publish(topic, 'from us')
    expect(recipients.map(String)).toEqual([plain.peerId])
    await expect.poll(() => plain.got.map(({ data }) => base64(data))).toEqual([base64('from us')])
    us.parts.publish(topic, groupId, partsOf(5))
    await publish(them, 10)
    await expect.poll(() => both(us, them)).toEqual([15, 15])
    expect(plain.pubsub.stats()).toMatchObject({ rejected: 0, ignored: 0 })
  })

  it.each(['we have it', 'it has it'])(
    'are found by gossip of metadata instead of IHAVE outside of the mesh: %s',
    async (who) => {
      // Without a mesh of our own we refuse what it grafts.
      await using us = await withParts(asked, { D: 0, Dlo: 0, Dhi: 0, Dscore: 0, Dout: 0 })
      await using them = await goWith('request')
      await them.call('connect', { addr: us.addr })
      await acquainted(us, them, topic)
      await expect.poll(async () => (await them.call('mesh', { topic }))['peers']).toEqual([])
      if (who === 'we have it') us.parts.publish(topic, groupId, partsOf(15))
      else await publish(them, 15)
      await expect.poll(() => both(us, them), { timeout: 5_000 }).toEqual([15, 15])
      await us.pubsub.publish(topic, 'whole', { allowNone: true })
      await settled()
      expect(rpcs(them, 'rpcReceived', 'ihave')).toEqual([])
    },
  )

  it('are not spoken of with peers that do not know the extension', async () => {
    await using us = await withParts(asked)
    await using them = await theirs('go', ['--pubsub-trace'])
    await them.call('sub', { topic })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, topic)
    us.parts.publish(topic, groupId, partsOf(15))
    await us.pubsub.publish(topic, 'whole')
    await them.event('message', ({ data }) => data === base64('whole'))
    await settled()
    expect(rpcs(them, 'rpcReceived', 'partial')).toEqual([])
  })
})
