import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createNode } from '../../../src/node.ts'
import { generateKey } from '../../../src/peer/keys.ts'
import { createGossipsub, type Gossipsub, type SubscribeOptions } from '../../../src/protocols/gossipsub/gossipsub.ts'
import {
  PartialGroups,
  partialParts,
  type PartialAction,
  type PartialApplication,
  type PartialParts,
  type PartsOptions,
  type WholeGroup,
} from '../../../src/protocols/gossipsub/partial.ts'
import type { PartialMessages } from '../../../src/protocols/gossipsub/wire.ts'
import { MemoryNetwork, memory } from '../../../src/transport/memory.ts'

const bytes = (...list: number[]): Uint8Array => Uint8Array.from(list)
const groupId = bytes(7, 7)

const name = (i: number): string => `n${i}`
const fails = (): never => {
  throw new Error('the application fails')
}

/** Part i is i + 1, written twice: so any other is known for a forgery. */
const part = (i: number): Uint8Array => bytes(i + 1, i + 1)
const genuine: PartsOptions['verify'] = ({ index, bytes: [a, b] }) => a === index + 1 && b === index + 1
const partsOf = (have: number, count = 4): (Uint8Array | undefined)[] =>
  Array.from({ length: count }, (_, i) => (((have >> i) & 1) === 1 ? part(i) : undefined))

interface Sent extends PartialMessages {
  from: string
  to: string
}

/** Some of one topic, wired by hand: what is sent waits in `wire` until it is delivered. */
class Net {
  readonly members = new Map<
    string,
    { parts: PartialParts; whole: WholeGroup[]; mesh: Set<string>; requests: boolean }
  >()
  wire: Sent[] = []
  readonly all: Sent[] = []
  /** Those whose queue is full. */
  readonly full = new Set<string>()

  add(id: string, requests = true, options: Partial<PartsOptions> = {}): PartialParts {
    const whole: WholeGroup[] = []
    const parts = partialParts({
      partCount: 4,
      partBytes: 2,
      verify: genuine,
      complete: (group) => whole.push(group),
      ...options,
    })
    const mesh = new Set<string>()
    this.members.set(id, { parts, whole, mesh, requests })
    parts.attach(
      {
        ownPartial: (topic) => (topic === 't' ? { requestsPartial: requests, supportsPartial: true } : undefined),
        partialPeers: () => [...mesh],
        requestsPartial: (peer) => this.members.get(peer)?.requests === true,
        sendPartial: (to, partial) => {
          if (this.full.has(to)) return false
          const sent = { from: id, to, ...partial }
          this.wire.push(sent)
          this.all.push(sent)
          return true
        },
      },
      () => {},
    )
    return parts
  }

  link(a: string, b: string): void {
    this.members.get(a)?.mesh.add(b)
    this.members.get(b)?.mesh.add(a)
  }

  get(id: string): PartialParts {
    const member = this.members.get(id)
    if (member === undefined) throw new Error(`no ${id}`)
    return member.parts
  }

  /** Until nothing is under way; `pick` says which of so many is next. */
  run(pick: (count: number) => number = () => 0): void {
    for (let i = 0; this.wire.length > 0; i++) {
      if (i > 10_000) throw new Error('they never stop')
      const [next] = this.wire.splice(pick(this.wire.length), 1)
      if (next !== undefined) this.hears(next.to, next.from, next)
    }
  }

  hears(id: string, from: string, partial: PartialMessages): void {
    const { topic, groupId: group, message, metadata } = partial
    this.get(id).event({ kind: 'partial', peer: from, partial: { topic, groupId: group, message, metadata } })
  }

  has(id: string): number {
    const held = this.get(id).get('t', groupId) ?? []
    let have = 0
    for (const [i, one] of held.entries()) {
      if (one === undefined) continue
      expect(one).toEqual(part(i))
      have |= 1 << i
    }
    return have
  }
}

/** Of one, whose peers are made up. */
function alone(options: Partial<PartsOptions> = {}): Net {
  const net = new Net()
  net.add('a', true, options)
  return net
}

describe('partial messages among peers', () => {
  it('exchanges what each lacks, once', () => {
    const net = new Net()
    net.add('a')
    net.add('b')
    net.link('a', 'b')
    net.get('a').publish('t', groupId, partsOf(0b0101))
    net.get('b').publish('t', groupId, partsOf(0b1010))
    net.run()
    expect([net.has('a'), net.has('b')]).toEqual([15, 15])
    const carried = net.all.filter(({ message }) => message !== undefined)
    expect(carried.map(({ from, message }) => [from, message])).toEqual([
      ['b', bytes(0b1010, 2, 2, 4, 4)],
      ['a', bytes(0b0101, 1, 1, 3, 3)],
    ])
    // Both said what they have, and both know what the parts make of that.
    expect(net.all).toHaveLength(4)
    for (const id of ['a', 'b']) expect(net.members.get(id)?.whole).toHaveLength(1)
    expect(net.members.get('a')?.whole[0]).toEqual({ topic: 't', groupId, from: 'b', parts: partsOf(15) })
  })

  it('asks for a group that it hears of, and pushes eagerly only when told to', () => {
    const net = new Net()
    net.add('a')
    net.add('b')
    net.link('a', 'b')
    net.get('a').publish('t', groupId, partsOf(15))
    expect(net.all).toEqual([{ from: 'a', to: 'b', topic: 't', groupId, message: undefined, metadata: bytes(15) }])
    net.run()
    expect(net.has('b')).toBe(15)
    const other = bytes(9)
    net.get('a').publish('t', other, partsOf(1), { eager: true })
    expect(net.wire.map(({ message }) => message)).toEqual([bytes(1, 1, 1)])
    net.run()
    // Only then, and only what is whole is called so.
    net.add('c')
    net.link('a', 'c')
    net.get('a').heartbeat()
    expect(net.wire.filter(({ to }) => to === 'c').map(({ message }) => message)).toEqual([undefined, undefined])
    expect(net.members.get('b')?.whole).toHaveLength(1)
  })

  it('never sends parts to who only supports sending them, and takes none where it does not request them', () => {
    const net = new Net()
    net.add('a')
    net.add('b', false)
    net.link('a', 'b')
    net.get('a').publish('t', groupId, partsOf(3), { eager: true })
    net.get('b').publish('t', groupId, partsOf(12))
    net.run()
    expect(net.all.filter(({ to, message }) => to === 'b' && message !== undefined)).toEqual([])
    expect([net.has('a'), net.has('b')]).toEqual([15, 12])
    net.hears('b', 'a', { topic: 't', groupId, message: bytes(1, 1, 1) })
    expect(net.has('b')).toBe(12)
  })

  it('tells peers outside of the mesh by gossip, and those that came into it at the next heartbeat', () => {
    const net = new Net()
    for (const id of ['a', 'b', 'c']) net.add(id)
    net.get('a').publish('t', groupId, partsOf(15))
    expect(net.wire).toEqual([])
    net.get('a').event({ kind: 'partial-gossip', topic: 't', peers: ['b'] })
    expect(net.wire).toEqual([{ from: 'a', to: 'b', topic: 't', groupId, message: undefined, metadata: bytes(15) }])
    net.run()
    net.link('a', 'c')
    net.get('a').heartbeat()
    net.run()
    expect([net.has('b'), net.has('c')]).toEqual([15, 15])
    const before = net.all.length
    net.get('a').event({ kind: 'partial-gossip', topic: 't', peers: ['b', 'c'] })
    net.get('a').heartbeat()
    expect(net.all).toHaveLength(before)
  })

  it('says again what had no room in a queue', () => {
    const net = new Net()
    net.add('a')
    net.add('b')
    net.link('a', 'b')
    net.full.add('b')
    net.get('a').publish('t', groupId, partsOf(15))
    net.full.clear()
    net.get('a').publish('t', groupId, [])
    net.run()
    expect(net.has('b')).toBe(15)
  })

  it('starts anew with a peer that was gone', () => {
    const net = new Net()
    net.add('a')
    net.add('b')
    net.link('a', 'b')
    net.get('a').publish('t', groupId, partsOf(15))
    net.run()
    net.add('b')
    net.get('a').event({ kind: 'partial-peer-gone', peer: 'b' })
    net.link('a', 'b')
    net.get('a').heartbeat()
    net.run()
    expect(net.has('b')).toBe(15)
  })

  it('brings all parts to all, in any order, each to a peer at most once by each neighbour', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1_000), { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 0, max: 2 ** 11 - 1 }), { minLength: 7, maxLength: 7 }),
        fc.infiniteStream(fc.nat()),
        (tree, haves, order) => {
          const net = new Net()
          const count = tree.length + 1
          for (let i = 0; i < count; i++) net.add(name(i), true, { partCount: 11 })
          // A tree, and an edge more.
          for (const [i, parent] of tree.entries()) net.link(name(i + 1), name(parent % (i + 1)))
          if (count > 2) net.link(name(0), name(count - 1))
          let union = 0
          for (let i = 0; i < count; i++) {
            union |= haves[i] as number
            net.get(name(i)).publish('t', groupId, partsOf(haves[i] as number, 11))
          }
          net.run((left) => (order.next().value as number) % left)
          for (let i = 0; i < count; i++) expect(net.has(name(i))).toBe(union)
          const once = new Set<string>()
          for (const { from, to, message } of net.all) {
            if (message === undefined) continue
            const bitmap = (message[0] as number) | ((message[1] as number) << 8)
            for (let i = 0; i < 11; i++) {
              if (((bitmap >> i) & 1) === 0) continue
              const way = `${from} ${to} ${i}`
              expect(once.has(way)).toBe(false)
              once.add(way)
            }
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('partial messages of peers that mean no good', () => {
  const group = (i: number): Uint8Array => bytes(i >> 8, i & 255)
  const claim = (to: Net, from: string, i: number): void =>
    to.hears('a', from, { topic: 't', groupId: group(i), metadata: bytes(1) })

  it('are not read in topics that we exchange no parts of, or without a topic or group', () => {
    const at = alone()
    for (const partial of [
      { topic: 'other', groupId, metadata: bytes(1) },
      { groupId, metadata: bytes(1) },
      { topic: 't', metadata: bytes(1) },
      { topic: 't', groupId },
      { topic: 't', groupId, metadata: bytes(), message: bytes() },
    ])
      at.hears('a', 'm', partial)
    expect(at.all).toEqual([])
    for (const topic of ['other', 't', '']) expect(at.get('a').size(topic)).toBe(0)
  })

  it('make us hold 8 groups each and 255 in all, and none of them keeps us from publishing', () => {
    const at = alone()
    for (let i = 0; i < 8; i++) claim(at, 'm', i)
    expect(() => claim(at, 'm', 8)).toThrow(expect.objectContaining({ limit: 'maxGroupsPerPeer', max: 8 }))
    // What is held already may be spoken of.
    claim(at, 'm', 3)
    for (let i = 8; i < 255; i++) claim(at, `m${i >> 3}`, i)
    expect(() => claim(at, 'fresh', 255)).toThrow(expect.objectContaining({ limit: 'maxPeerGroups', max: 255 }))
    expect(at.get('a').size('t')).toBe(255)
    for (let i = 0; i < 1_024 - 255; i++) at.get('a').publish('t', bytes(3, i >> 8, i & 255), partsOf(1))
    expect(() => at.get('a').publish('t', groupId, partsOf(1))).toThrow(expect.objectContaining({ limit: 'maxGroups' }))
    expect(at.get('a').get('t', groupId)).toBeUndefined()
  })

  it('are forgotten with the peer, or when their time is over', () => {
    const at = alone({ groupTtl: 3 })
    for (let i = 0; i < 8; i++) claim(at, 'm', i)
    at.get('a').event({ kind: 'partial-peer-gone', peer: 'm' })
    expect(at.get('a').size('t')).toBe(0)
    for (let i = 0; i < 8; i++) claim(at, 'm', i)
    claim(at, 'n', 0)
    at.get('a').event({ kind: 'partial-peer-gone', peer: 'm' })
    expect(at.get('a').size('t')).toBe(1)
    for (let i = 0; i < 3; i++) {
      // Talk does not lengthen it.
      claim(at, 'n', 0)
      at.get('a').heartbeat()
    }
    expect(at.get('a').size('t')).toBe(0)
    for (let i = 0; i < 8; i++) claim(at, 'n', i)
  })

  it('make room for others again when they are gone', () => {
    const at = alone({ maxPeerGroups: 10 })
    at.get('a').publish('t', groupId, partsOf(1))
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 10; i++) claim(at, i < 5 ? 'm' : 'n', i)
      expect(() => claim(at, 'o', 10)).toThrow(expect.objectContaining({ limit: 'maxPeerGroups' }))
      for (const peer of ['m', 'n']) at.get('a').event({ kind: 'partial-peer-gone', peer })
    }
  })

  it('are told to nobody else, and to nobody who spoke nonsense', () => {
    const at = alone()
    claim(at, 'm', 0)
    const before = at.all.length
    at.get('a').event({ kind: 'partial-gossip', topic: 't', peers: ['n'] })
    expect(at.all).toHaveLength(before)
    at.get('a').publish('t', groupId, partsOf(1))
    expect(() => at.hears('a', 'n', { topic: 't', groupId, metadata: bytes(99) })).toThrow('a bitmap with part')
    at.get('a').publish('t', groupId, partsOf(2))
    expect(at.all.filter(({ to }) => to === 'n')).toEqual([])
  })

  it('live on with what is published of them', () => {
    const at = alone({ groupTtl: 3 })
    for (let i = 0; i < 10; i++) {
      at.get('a').publish('t', groupId, i === 0 ? partsOf(1) : [])
      at.get('a').heartbeat()
    }
    expect(at.has('a')).toBe(1)
  })

  it('are remembered as complete only so far back', () => {
    const at = alone({ groupTtl: 1, maxComplete: 2 })
    for (let i = 0; i < 3; i++) {
      at.hears('a', 'm', { topic: 't', groupId: group(i), message: bytes(15, 1, 1, 2, 2, 3, 3, 4, 4) })
      at.get('a').heartbeat()
    }
    for (let i = 0; i < 3; i++) claim(at, 'm', i)
    expect(at.get('a').size('t')).toBe(1)
  })

  it('are no longer theirs once a genuine part came, and are not asked for again once complete', () => {
    const at = alone({ groupTtl: 2 })
    for (let i = 0; i < 50; i++) {
      at.hears('a', 'm', { topic: 't', groupId: group(i), metadata: bytes(15) })
      at.hears('a', 'm', { topic: 't', groupId: group(i), message: bytes(15, 1, 1, 2, 2, 3, 3, 4, 4) })
    }
    expect(at.get('a').size('t')).toBe(50)
    expect(at.members.get('a')?.whole).toHaveLength(50)
    for (let i = 0; i < 2; i++) at.get('a').heartbeat()
    expect(at.get('a').size('t')).toBe(0)
    const before = at.all.length
    at.hears('a', 'm', { topic: 't', groupId: group(0), metadata: bytes(15) })
    expect(at.get('a').size('t')).toBe(0)
    expect(at.all).toHaveLength(before)
  })

  it.each([
    ['metadata of another length', { metadata: bytes(1, 1) }, 'bad-message'],
    ['metadata of parts that there are not', { metadata: bytes(16) }, 'bad-message'],
    ['parts that there are not', { message: bytes(16, 1, 1) }, 'bad-message'],
    ['fewer bytes than the bitmap says', { message: bytes(3, 1, 1, 2) }, 'bad-message'],
    ['more bytes than the bitmap says', { message: bytes(1, 1, 1, 2) }, 'bad-message'],
    ['a forged part behind a genuine one', { message: bytes(3, 1, 1, 9, 9) }, 'bad-message'],
    ['much metadata', { metadata: new Uint8Array(17 * 1024) }, 'oversized'],
    ['a long group id', { groupId: new Uint8Array(257), metadata: bytes(1) }, 'oversized'],
    ['a huge partial message', { message: new Uint8Array(1024 * 1024) }, 'oversized'],
  ])('are refused and leave nothing behind: %s', (_, partial, code) => {
    const at = alone()
    const hear = (): void => at.hears('a', 'm', { topic: 't', groupId, ...partial })
    expect(hear).toThrow(expect.objectContaining({ name: 'ProtocolError', code }))
    expect(at.get('a').size('t')).toBe(0)
    expect(at.get('a').get('t', groupId)).toBeUndefined()
    at.get('a').publish('t', groupId, partsOf(8))
    expect(hear).toThrow(expect.objectContaining({ code }))
    expect(at.has('a')).toBe(8)
  })

  it('can not make us hold more bytes than allowed', () => {
    const at = alone({ maxHeldBytes: 10 })
    const hear = (i: number): void =>
      at.hears('a', 'm', { topic: 't', groupId: group(i), message: bytes(15, 1, 1, 2, 2, 3, 3, 4, 4) })
    hear(0)
    expect(() => hear(1)).toThrow(expect.objectContaining({ limit: 'maxHeldBytes', max: 10 }))
    expect(() => at.get('a').publish('t', group(2), partsOf(7))).toThrow(
      expect.objectContaining({ limit: 'maxHeldBytes' }),
    )
    // What did not fit is not counted.
    at.get('a').publish('t', group(3), partsOf(1))
  })

  it('never hurt by what they say: only typed errors come of random ones', () => {
    const at = alone()
    fc.assert(
      fc.property(
        fc.constantFrom('m', 'n'),
        fc.record(
          {
            topic: fc.constantFrom('t', 'u'),
            groupId: fc.uint8Array({ maxLength: 2 }),
            message: fc.uint8Array({ maxLength: 10 }),
            metadata: fc.uint8Array({ maxLength: 2 }),
          },
          { requiredKeys: [] },
        ),
        (from, partial) => {
          try {
            at.hears('a', from, partial)
          } catch (error) {
            expect((error as Error).name).toMatch(/^(ProtocolError|LimitError)$/)
          }
          expect(at.get('a').size('t')).toBeLessThanOrEqual(1_024)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

describe('an application of partial messages', () => {
  const quiet: PartialApplication<object> = { newState: () => ({}), received: () => undefined, send: () => {} }

  it('is told at once that a topic or an option is not what it takes', () => {
    const groups = new PartialGroups(quiet)
    expect(() => groups.publishPartial('t', groupId)).toThrow(expect.objectContaining({ code: 'not-found' }))
    expect(() => new PartialGroups(quiet, { groupTtl: 0 })).toThrow('groupTtl of 0')
    expect(() => partialParts({ partCount: 0, partBytes: 1, verify: genuine })).toThrow('partCount of 0')
    expect(() => partialParts({ partCount: 4, partBytes: 0.5, verify: genuine })).toThrow('partBytes of 0.5')
    expect(() => partialParts({ partCount: 4, partBytes: 1 << 18, verify: genuine })).toThrow(
      'do not fit into maxPartialBytes',
    )
    const net = new Net()
    const parts = net.add('a')
    expect(() => parts.publish('t', groupId, [bytes(1)])).toThrow('a part of 1 bytes, want 2')
    expect(() => parts.publish('t', groupId, partsOf(31, 5))).toThrow('5 parts, want at most 4')
    expect(() => parts.publish('other', groupId, partsOf(1))).toThrow(expect.objectContaining({ code: 'not-found' }))
    expect(parts.get('other', groupId)).toBeUndefined()
  })

  it('sends no parts to who does not request them, whatever it says', () => {
    const sent: PartialMessages[] = []
    const groups = new PartialGroups({
      ...quiet,
      send: (_, out) => void out.send('b', { message: bytes(1), metadata: bytes(2) }),
    })
    groups.attach(
      {
        ownPartial: () => ({ requestsPartial: true, supportsPartial: true }),
        partialPeers: () => ['b'],
        requestsPartial: () => false,
        sendPartial: (_, partial) => sent.push(partial) > 0,
      },
      () => {},
    )
    groups.publishPartial('t', groupId)
    expect(sent).toEqual([{ topic: 't', groupId, message: undefined, metadata: bytes(2) }])
    expect(() => groups.attach({} as never, () => {})).toThrow('belong to one GossipSub')
  })

  it('can not send more than peers read', () => {
    const sent: PartialAction = { message: new Uint8Array(1024 * 1024) }
    const groups = new PartialGroups({ ...quiet, send: (_, out) => void out.send('b', sent) })
    groups.attach(
      {
        ownPartial: () => ({ requestsPartial: true, supportsPartial: true }),
        partialPeers: () => ['b'],
        requestsPartial: () => true,
        sendPartial: () => true,
      },
      () => {},
    )
    expect(() => groups.publishPartial('t', groupId)).toThrow(expect.objectContaining({ limit: 'maxPartialBytes' }))
  })
})

describe('nodes with partial messages', () => {
  const forgiving = { timeInMeshWeight: 1, timeInMeshQuantumMs: 1_000, timeInMeshCap: 1 }
  const score = {
    topics: { t: { ...forgiving, invalidMessageDeliveriesWeight: -1, invalidMessageDeliveriesDecay: 0.99 } },
  }

  /** Two that know each other and are in each other's mesh. */
  async function pair(
    a: PartsOptions,
    b: PartsOptions,
    subscribeB: SubscribeOptions = { requestsPartial: true },
  ): Promise<
    {
      nodes: { pubsub: Gossipsub; parts: PartialParts; peer: string; whole: string[]; failed: Error[] }[]
    } & AsyncDisposable
  > {
    const network = new MemoryNetwork()
    const make = async (options: PartsOptions, subscribe: SubscribeOptions) => {
      const privateKey = generateKey('Ed25519')
      const failed: Error[] = []
      const node = await createNode({
        privateKey,
        transports: [memory(network)],
        listen: ['/memory/0'],
        trace: (what, { error }) => {
          if (what === 'gossipsub.partial-failed' && error instanceof Error) failed.push(error)
        },
      })
      await node.start()
      const parts = partialParts(options)
      const pubsub = createGossipsub(node, { privateKey, partial: parts, heartbeatIntervalMs: 50, score })
      pubsub.start()
      const whole: string[] = []
      pubsub.subscribe('t', ({ data }) => whole.push(new TextDecoder().decode(data)), subscribe)
      return { node, pubsub, parts, peer: String(node.peerId), whole, failed }
    }
    const nodes = [await make(a, { requestsPartial: true }), await make(b, subscribeB)] as const
    await nodes[0].node.dial(nodes[1].node.addrs()[0] ?? '')
    await expect.poll(() => nodes.map(({ pubsub }) => pubsub.mesh('t').length)).toEqual([1, 1])
    return {
      nodes: [...nodes],
      [Symbol.asyncDispose]: async () => {
        for (const { pubsub, node } of nodes) {
          await pubsub.stop()
          await node.stop()
        }
      },
    }
  }

  it('send a group in parts where the peer requests them, and nothing whole', async () => {
    const options = { partCount: 4, partBytes: 2, verify: genuine }
    await using lab = await pair(options, options)
    const [a, b] = lab.nodes
    a?.parts.publish('t', groupId, partsOf(5))
    b?.parts.publish('t', groupId, partsOf(10))
    await expect.poll(() => b?.parts.get('t', groupId)).toEqual(partsOf(15))
    await expect.poll(() => a?.parts.get('t', groupId)).toEqual(partsOf(15))
    await expect(a?.pubsub.publish('t', 'whole')).rejects.toThrow(
      'the 1 peers in topic t that we would send to want parts',
    )
  })

  it('send whole messages where the peer only supports parts, and take them', async () => {
    const options = { partCount: 4, partBytes: 2, verify: genuine }
    await using lab = await pair(options, options, { supportsPartial: true })
    const [a, b] = lab.nodes
    await a?.pubsub.publish('t', 'whole')
    await expect.poll(() => b?.whole).toEqual(['whole'])
    b?.parts.publish('t', groupId, partsOf(15))
    await expect.poll(() => a?.parts.get('t', groupId)).toEqual(partsOf(15))
    expect(b?.whole).toEqual(['whole'])
  })

  it('count a partial message of another form like an invalid message', async () => {
    await using lab = await pair(
      { partCount: 4, partBytes: 2, verify: genuine },
      // Two bytes of metadata.
      { partCount: 9, partBytes: 2, verify: genuine },
    )
    const [a, b] = lab.nodes
    b?.parts.publish('t', groupId, partsOf(5, 9))
    const invalid = (): unknown => a?.pubsub.scores().get(b?.peer ?? '')?.topics['t']?.invalidMessageDeliveries
    await expect.poll(invalid).toBeCloseTo(1, 1)
    expect(a?.failed[0]).toMatchObject({ name: 'ProtocolError', code: 'bad-message' })
    expect(a?.parts.size('t')).toBe(0)
  })

  it('outlive an application that throws', async () => {
    const options = { partCount: 4, partBytes: 2, verify: genuine }
    await using lab = await pair({ ...options, complete: fails }, options)
    const [a, b] = lab.nodes
    for (const id of [bytes(1), bytes(2)]) {
      b?.parts.publish('t', id, partsOf(15))
      await expect.poll(() => a?.parts.get('t', id)).toEqual(partsOf(15))
    }
    expect(a?.failed.map(({ message }) => message)).toEqual(['the application fails', 'the application fails'])
    expect(a?.pubsub.scores().get(b?.peer ?? '')?.topics['t']?.invalidMessageDeliveries).toBe(0)
  })
})
