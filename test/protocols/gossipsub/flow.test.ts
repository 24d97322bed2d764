import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../../src/bytes.ts'
import { encodeMessage, idKey } from '../../../src/protocols/gossipsub/wire.ts'
import { Lab, message } from './router-lab.ts'

/** Scores that count an invalid message as -1. */
const scored = {
  topics: { t: { invalidMessageDeliveriesWeight: -1, invalidMessageDeliveriesDecay: 0.5 } },
}
const invalid = (lab: Lab, id: string): number =>
  lab.score.inspect(lab.now).get(id)?.topics['t']?.invalidMessageDeliveries ?? 0
const idontwants = (lab: Lab, id: string): string[] => lab.sent(id).flatMap(({ idontwant }) => idontwant)
/** Ids that were asked of a peer. */
const asked = (lab: Lab, id: string): string[] => lab.sent(id).flatMap(({ iwant }) => iwant)
const ids = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `id${from + i}`)
const large = { size: 2_000 }

describe('a message that comes in', () => {
  it('goes to the mesh, but neither to who sent it, nor to its author, nor to who sent a copy meanwhile', () => {
    const lab = new Lab()
    const peers = [...lab.crowd(4), 'author']
    lab.peer('author')
    lab.quiet()
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.publishes('p1', first)
    expect(lab.settle()).toEqual([first.id])
    expect(lab.got(peers)).toEqual({ p2: [first.id], p3: [first.id] })
    // Later copies are duplicates and go nowhere.
    lab.publishes('p2', first)
    expect(lab.settle()).toEqual([])
    expect(lab.got(peers)).toEqual({})
    expect(lab.router.duplicates).toBe(2)
  })

  it('goes on as the bytes that it came as', () => {
    const lab = new Lab()
    lab.crowd(2)
    const raw = Uint8Array.of(...message('author', 1).raw, 0x98, 0x06, 0x01)
    lab.send('p0', { publish: [raw] })
    lab.settle()
    expect(lab.sent('p1').flatMap(({ publish }) => publish.map((one) => [...one.raw]))).toEqual([[...raw]])
  })

  it('is dropped unread where we are not in its topic, also when we were once', () => {
    const lab = new Lab({ topics: ['t', 'u'] })
    lab.crowd(2)
    lab.publishes('p0', message('author', 1, { topic: 'x' }))
    expect(lab.incoming()).toEqual([])
    lab.router.unsubscribe('u', 0)
    lab.publishes('p0', message('author', 2, { topic: 'u' }))
    expect(lab.incoming()).toEqual([])
  })

  it('that was seen stays seen when we leave the topic and come back', () => {
    const lab = new Lab()
    lab.crowd(2)
    lab.publishes('p0', message('author', 1))
    lab.settle()
    lab.router.unsubscribe('t', 0)
    // One that comes while we are away is not seen.
    lab.publishes('p0', message('author', 2))
    lab.subscribe('t')
    lab.publishes('p1', message('author', 1), message('author', 2))
    expect(lab.settle()).toEqual([message('author', 2).id])
  })

  it.each([
    ['accept', true],
    ['reject', false],
    ['ignore', false],
    ['throttled', false],
  ] as const)('is forwarded and cached when the validators %s: %s', (verdict, forwarded) => {
    const lab = new Lab({ score: scored })
    lab.crowd(3)
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.publishes('p1', first)
    lab.settle(verdict)
    expect(Object.keys(lab.got(['p1', 'p2']))).toEqual(forwarded ? ['p2'] : [])
    expect(lab.cache.has(first.id)).toBe(forwarded)
    expect(lab.seen.has(first.id, 0)).toBe(true)
    // All who sent it are to blame for what is invalid.
    expect(['p0', 'p1', 'p2'].map((id) => invalid(lab, id))).toEqual(verdict === 'reject' ? [1, 1, 0] : [0, 0, 0])
    // Nobody is asked for it again.
    lab.control('p2', { ihave: [{ topic: 't', ids: [first.id] }] })
    expect(lab.sent('p2').flatMap(({ iwant }) => iwant)).toEqual([])
  })

  it('without the fields that the policy wants costs its sender, and is not checked', () => {
    const lab = new Lab({ score: scored })
    lab.crowd(2)
    const { from, seqno, topic } = message('author', 1)
    lab.send('p0', { publish: [encodeMessage({ from, seqno, topic })] })
    expect(lab.incoming()).toEqual([])
    expect([invalid(lab, 'p0'), invalid(lab, 'p1')]).toEqual([1, 0])
  })

  it('that says it is ours is a copy where it is ours, and a lie where it is not', () => {
    const lab = new Lab({ score: scored })
    lab.crowd(2)
    const { id } = lab.publish(1)
    lab.publishes('p0', message('self', 1))
    expect([lab.incoming(), invalid(lab, 'p0'), lab.router.duplicates]).toEqual([[], 0, 1])
    lab.publishes('p1', message('self', 2))
    expect([lab.incoming(), invalid(lab, 'p1')]).toEqual([[], 1])
    expect(lab.seen.has(id, 0)).toBe(true)
  })

  it('finds no room when too many bytes are being checked, which is nobody to blame for', () => {
    const lab = new Lab({ limits: { maxCheckingBytes: 5_000 }, score: scored })
    lab.crowd(2)
    lab.publishes('p0', message('a', 1, large), message('a', 2, large), message('a', 3, large))
    const open = lab.incoming()
    expect(open).toHaveLength(2)
    expect(invalid(lab, 'p0')).toBe(0)
    // It is not seen either: later it may come again.
    for (const one of open) {
      lab.router.claim(one, 0)
      lab.router.settle(one, 'accept', 0)
    }
    lab.publishes('p1', message('a', 3, large))
    expect(lab.settle()).toHaveLength(1)
    expect(lab.router.peer('p0')?.checking).toBe(0)
  })
})

describe('a forged copy of a genuine message', () => {
  const truth = message('author', 1, large)
  const forgery = message('author', 1, { ...large, forged: true })

  it.each([
    ['before', true],
    ['after', false],
  ])('that comes %s it, while both are checked, does not suppress it', (_when, before) => {
    for (const first of [0, 1]) {
      const lab = new Lab({ score: scored })
      lab.crowd(3)
      if (before) lab.publishes('p0', forgery)
      lab.publishes('p1', truth)
      if (!before) lab.publishes('p0', forgery)
      const both = lab.incoming()
      expect(both).toHaveLength(2)
      for (const one of first === 0 ? both : both.toReversed()) {
        if (one.message.data?.[0] === 1) lab.router.invalid(one)
        else {
          expect(lab.router.claim(one, 0)).toBe(true)
          lab.router.settle(one, 'accept', 0)
        }
      }
      expect(Object.keys(lab.got(['p0', 'p1', 'p2']))).toEqual(['p0', 'p2'])
      expect(['p0', 'p1', 'p2'].map((id) => invalid(lab, id))).toEqual([1, 0, 0])
    }
  })

  it('is not known as seen, and nobody is told not to send the genuine one', () => {
    const lab = new Lab()
    lab.crowd(3)
    lab.publishes('p0', forgery)
    expect(idontwants(lab, 'p1')).toEqual([])
    expect(lab.settle()).toEqual([])
    expect(idontwants(lab, 'p1')).toEqual([])
    expect(lab.seen.has(truth.id, 0)).toBe(false)
    // Gossip of it is still believed, and it is taken from whoever has it.
    lab.control('p1', { ihave: [{ topic: 't', ids: [truth.id] }] })
    expect(lab.sent('p1').flatMap(({ iwant }) => iwant)).toEqual([truth.id])
    lab.publishes('p1', truth)
    expect(lab.settle()).toEqual([truth.id])
  })

  it('costs who sends it after the genuine one nothing but a duplicate, as go has it', () => {
    const lab = new Lab({ score: scored })
    lab.crowd(2)
    lab.publishes('p1', truth)
    lab.settle()
    lab.publishes('p0', forgery)
    expect([lab.incoming(), invalid(lab, 'p0')]).toEqual([[], 0])
  })
})

describe('IDONTWANT', () => {
  it('is sent to the mesh once the signature holds, before the validators, from 1.2 on, but not to the sender', () => {
    const lab = new Lab()
    const peers = [11, 12, 13].map((version) => `v${version}`)
    for (const [i, id] of peers.entries()) lab.peer(id, { version: (11 + i) as 11 })
    lab.peer('sender')
    lab.quiet()
    const first = message('author', 1, large)
    lab.publishes('sender', first)
    const [incoming] = lab.incoming()
    if (incoming === undefined) throw new Error('nothing came')
    expect(lab.router.claim(incoming, 0)).toBe(true)
    expect(peers.map((id) => idontwants(lab, id))).toEqual([[], [first.id], [first.id]])
    expect(idontwants(lab, 'sender')).toEqual([])
    lab.router.settle(incoming, 'accept', 0)
    expect(idontwants(lab, 'v13')).toEqual([])
  })

  it('is right away where messages are not signed: the id is the content', () => {
    const lab = new Lab({ signed: false })
    lab.crowd(2)
    const data = new Uint8Array(2_000).fill(5)
    lab.send('p0', { publish: [encodeMessage({ data, topic: 't' })] })
    expect(idontwants(lab, 'p1')).toEqual([idKey(data.subarray(0, 32))])
  })

  it('is not worth it for small messages', () => {
    const lab = new Lab()
    lab.crowd(2)
    const overhead = message('author', 1, { size: 200 }).raw.length - 200
    lab.publishes('p0', message('author', 1, { size: 1_023 - overhead - 1 }))
    lab.settle()
    expect(idontwants(lab, 'p1')).toEqual([])
    lab.publishes('p0', message('author', 2, { size: 1_024 - overhead }))
    lab.settle()
    expect(idontwants(lab, 'p1')).toEqual([message('author', 2).id])
  })

  it('of a peer keeps a message from it: not queued, taken out of the queue, not given for an IWANT', () => {
    const lab = new Lab()
    lab.crowd(3)
    const first = message('author', 1, large)
    lab.control('p1', { idontwant: [[first.id]] })
    lab.publishes('p0', first)
    lab.settle()
    // In the queue of p2 it is, until it says so.
    lab.router.dirty()
    expect(lab.router.transmit('p2', 0)?.bytes).toBeLessThan(500)
    lab.control('p2', { idontwant: [[first.id]] })
    expect(lab.got(['p1', 'p2'])).toEqual({})
    lab.control('p1', { iwant: [[first.id]] })
    expect(lab.got(['p1'])).toEqual({})
  })

  it('is as good as said by a peer that sends a copy: what waits for it is taken out of its queue', () => {
    const lab = new Lab()
    lab.crowd(3)
    const first = message('author', 1, large)
    lab.publishes('p0', first)
    lab.settle()
    lab.publishes('p1', first)
    expect(lab.got(['p0', 'p1', 'p2'])).toEqual({ p2: [first.id] })
  })

  it('holds back what it is about for four turns, so that others can say it too; small messages go at once', () => {
    const lab = new Lab()
    lab.crowd(3)
    lab.publishes('p0', message('author', 1, large), message('author', 2))
    lab.settle()
    const counts = Array.from({ length: 5 }, () => lab.sent('p1', 1).flatMap(({ publish }) => publish).length)
    expect(counts).toEqual([0, 0, 0, 2, 0])
    const other = new Lab()
    other.crowd(2)
    other.publishes('p0', message('author', 2))
    other.settle()
    expect(other.sent('p1', 1).flatMap(({ publish }) => publish)).toHaveLength(1)
  })

  it('floods are bounded: ids of an RPC, RPCs of a heartbeat, and ids in all', () => {
    const lab = new Lab({ limits: { maxUnwanted: 25 }, params: { maxIDontWantMessages: 4 } })
    lab.crowd(1)
    let n = 0
    const flood = (): void =>
      lab.control('p0', { idontwant: Array.from({ length: 20 }, () => Array.from({ length: 20 }, () => `id${n++}`)) })
    const size = (): number | undefined => lab.router.peer('p0')?.unwanted.size
    flood()
    expect(size()).toBe(10)
    for (let i = 0; i < 10; i++) flood()
    expect(size()).toBe(25)
    const few = new Lab({ params: { maxIDontWantMessages: 4 } })
    few.crowd(1)
    for (let i = 0; i < 10; i++) few.control('p0', { idontwant: [[`a${i}`]] })
    expect(few.router.peer('p0')?.unwanted.size).toBe(4)
    few.wait(1_000)
    few.control('p0', { idontwant: [['b']] })
    expect(few.router.peer('p0')?.unwanted.has('b')).toBe(true)
  })
})

describe('IHAVE and IWANT', () => {
  it('asks for what is new, in topics of ours, once each', () => {
    const lab = new Lab()
    lab.crowd(1)
    const known = message('author', 1)
    lab.publishes('p0', known)
    lab.control('p0', { ihave: [{ topic: 't', ids: [known.id] }] })
    expect(asked(lab, 'p0')).toEqual([])
    lab.settle()
    lab.control('p0', {
      ihave: [
        { topic: 't', ids: [known.id, 'a', 'b', 'a'] },
        { topic: 'x', ids: ['c'] },
      ],
    })
    expect(asked(lab, 'p0').toSorted()).toEqual(['a', 'b'])
  })

  it('asks one peer for so many ids in a heartbeat, and reads so many IHAVEs of it', () => {
    const lab = new Lab({ params: { maxIHaveLength: 100, maxIHaveMessages: 3 } })
    lab.crowd(1)
    lab.control('p0', { ihave: [{ topic: 't', ids: ids(60) }] })
    lab.control('p0', { ihave: [{ topic: 't', ids: ids(60, 60) }] })
    expect(asked(lab, 'p0')).toHaveLength(100)
    lab.control('p0', { ihave: [{ topic: 't', ids: ids(60, 120) }] })
    expect(asked(lab, 'p0')).toEqual([])
    lab.wait(1_000)
    for (let i = 0; i < 5; i++) lab.control('p0', { ihave: [{ topic: 't', ids: [`x${i}`] }] })
    expect(asked(lab, 'p0').toSorted()).toEqual(['x0', 'x1', 'x2'])
  })

  it('neither asks nor answers below the gossip threshold', () => {
    const lab = new Lab()
    lab.crowd(2)
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.settle()
    lab.got(['p1'])
    lab.score.penalize('p1', 1.1)
    lab.control('p1', { ihave: [{ topic: 't', ids: ['a'] }], iwant: [[first.id]] })
    expect(lab.sent('p1')).toEqual([])
  })

  it('answers with what is cached, gossipRetransmission times for a peer', () => {
    const lab = new Lab()
    lab.crowd(2)
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.settle()
    lab.got(['p1'])
    lab.peer('q', { topics: [] })
    const times: number[] = []
    for (let i = 0; i < 5; i++) {
      lab.control('q', { iwant: [[first.id, first.id, 'unknown']] })
      times.push(lab.sent('q').flatMap(({ publish }) => publish).length)
    }
    expect(times).toEqual([1, 1, 1, 0, 0])
    // Another may ask as often.
    lab.control('p1', { iwant: [[first.id]] })
    expect(lab.sent('p1').flatMap(({ publish }) => publish)).toHaveLength(1)
  })

  it('forgets a message after historyLength heartbeats, and gossips of it for historyGossip', () => {
    const lab = new Lab()
    lab.crowd(20)
    lab.wait(100)
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.settle()
    lab.quiet()
    const told: number[] = []
    for (let beat = 1; beat <= 6; beat++) {
      lab.wait(1_000)
      const mesh = lab.router.mesh('t')
      let heard = 0
      for (let i = 0; i < 20; i++) {
        const ihaves = lab.sent(`p${i}`).flatMap(({ ihave }) => ihave)
        if (ihaves.length === 0) continue
        expect(ihaves).toEqual([{ topic: 't', ids: [first.id] }])
        expect(mesh).not.toContain(`p${i}`)
        heard++
      }
      told.push(heard)
    }
    expect(told).toEqual([6, 6, 6, 0, 0, 0])
    expect(lab.cache.has(first.id)).toBe(false)
  })

  it('counts a promise that is not kept within iwantFollowup as misbehaviour, a kept one not', () => {
    const lab = new Lab({ score: { behaviourPenaltyWeight: -0.001 } })
    lab.crowd(2)
    const kept = message('author', 1)
    lab.control('p0', { ihave: [{ topic: 't', ids: [kept.id] }] })
    lab.control('p1', { ihave: [{ topic: 't', ids: ids(10) }] })
    lab.publishes('p1', kept)
    lab.settle()
    lab.wait(3_000)
    expect(lab.blame('p1')).toBe(0)
    lab.wait(1_100)
    // One of ten ids was remembered.
    expect(lab.blame('p1')).toBeCloseTo(1, 1)
    expect(lab.blame('p0')).toBe(0)
  })

  it('does not take a forgery for a promise that was kept', () => {
    const lab = new Lab({ score: { behaviourPenaltyWeight: -0.001 } })
    lab.crowd(1)
    const forged = message('author', 1, { forged: true })
    lab.control('p0', { ihave: [{ topic: 't', ids: [forged.id] }] })
    lab.publishes('p0', forged)
    lab.settle()
    lab.wait(4_200)
    expect(lab.blame('p0')).toBeCloseTo(1, 1)
  })

  it('tells of parts of what is too much, each peer of others', () => {
    const lab = new Lab({ params: { maxIHaveLength: 10 } })
    lab.crowd(12)
    for (let n = 0; n < 50; n++) lab.publishes('p0', message('author', n))
    lab.settle()
    lab.quiet()
    lab.wait(1_000)
    const told = Array.from({ length: 12 }, (_, i) => lab.sent(`p${i}`).flatMap(({ ihave }) => ihave)).filter(
      (one) => one.length > 0,
    )
    expect(told).toHaveLength(6)
    for (const [one, ...more] of told) {
      expect(more).toEqual([])
      expect(new Set(one?.ids).size).toBe(10)
    }
    expect(new Set(told.flatMap((one) => one.flatMap((ihave) => ihave.ids))).size).toBeGreaterThan(10)
  })
})

describe('publish', () => {
  it('floods to all of the topic above the publish threshold', () => {
    const lab = new Lab()
    const peers = lab.crowd(20)
    lab.peer('floodsub', { version: 0 })
    lab.peer('elsewhere', { topics: ['x'] })
    lab.peer('bad')
    lab.score.penalize('bad', 3)
    lab.quiet()
    const { recipients, subscribers, belowThreshold } = lab.publish(1)
    expect(recipients.toSorted()).toEqual([...peers, 'floodsub'].toSorted())
    expect([subscribers, belowThreshold]).toEqual([22, 1])
    expect(Object.keys(lab.got([...peers, 'floodsub', 'elsewhere', 'bad']))).toEqual([...peers, 'floodsub'])
  })

  it('goes to the mesh alone where it does not flood, and to floodsub peers', () => {
    const lab = new Lab({ params: { floodPublish: false } })
    lab.crowd(20)
    lab.peer('floodsub', { version: 0 })
    const { recipients } = lab.publish(1)
    expect(recipients.toSorted()).toEqual([...lab.router.mesh('t'), 'floodsub'].toSorted())
  })

  it('says whether there was nobody, nobody good enough, or no room', () => {
    const lab = new Lab({ limits: { maxQueueBytes: 3_000 } })
    expect(lab.publish(1)).toMatchObject({ recipients: [], subscribers: 0, belowThreshold: 0, queueFull: 0 })
    lab.crowd(2)
    for (const id of ['p0', 'p1']) lab.score.penalize(id, 3)
    expect(lab.publish(2)).toMatchObject({ recipients: [], subscribers: 2, belowThreshold: 2, queueFull: 0 })
    lab.peer('slow')
    expect(lab.publish(3, { size: 2_500 }).recipients).toEqual(['slow'])
    expect(lab.publish(4, { size: 2_500 })).toMatchObject({ recipients: [], subscribers: 3, queueFull: 1 })
  })

  it('to nobody leaves no trace, so that it can be tried again, unless it may wait for who asks', () => {
    const lab = new Lab()
    const { id } = lab.publish(1)
    expect([lab.seen.has(id, 0), lab.cache.has(id)]).toEqual([false, false])
    expect(lab.publish(1, { allowNone: true }).recipients).toEqual([])
    expect([lab.seen.has(id, 0), lab.cache.has(id)]).toEqual([true, true])
    expect(() => lab.publish(1)).toThrow('published before')
    lab.crowd(1)
    lab.control('p0', { iwant: [[id]] })
    expect(lab.got(['p0'])).toEqual({ p0: [id] })
  })

  it('says IDONTWANT where the message has no author, as go does, and not where peers know the author', () => {
    const lab = new Lab()
    lab.crowd(1)
    const { id } = lab.publish(1, large)
    expect(idontwants(lab, 'p0')).toEqual([])
    expect(lab.cache.has(id)).toBe(true)
    const anonymous = new Lab({ signed: false })
    anonymous.crowd(1)
    const fields = { data: new Uint8Array(2_000), topic: 't' }
    const own = { ...fields, raw: encodeMessage(fields) }
    anonymous.router.publish('the id', own, false, 0)
    expect(idontwants(anonymous, 'p0')).toEqual(['the id'])
  })

  it('spares who said that it has the message', () => {
    const lab = new Lab()
    lab.crowd(2)
    lab.control('p0', { idontwant: [[message('self', 1).id]] })
    expect(lab.publish(1).recipients).toEqual(['p1'])
  })
})

describe('floodsub peers', () => {
  it('get everything of their topics, but from the mesh they stay away', () => {
    const lab = new Lab()
    lab.peer('floodsub', { version: 0 })
    lab.crowd(3)
    lab.wait(3_000)
    lab.quiet()
    lab.publishes('p0', message('author', 1))
    lab.settle()
    expect(Object.keys(lab.got(['floodsub', 'p0', 'p1', 'p2']))).toEqual(['floodsub', 'p1', 'p2'])
    lab.publishes('floodsub', message('author', 2))
    lab.settle()
    expect(Object.keys(lab.got(['floodsub', 'p0', 'p1', 'p2']))).toEqual(['p0', 'p1', 'p2'])
    expect(lab.router.mesh('t')).not.toContain('floodsub')
    lab.wait(1_000)
    expect(lab.sent('floodsub')).toEqual([])
  })

  it('below the publish threshold get nothing', () => {
    const lab = new Lab()
    lab.peer('floodsub', { version: 0 })
    lab.crowd(1)
    lab.score.penalize('floodsub', 3)
    lab.publishes('p0', message('author', 1))
    lab.settle()
    expect(lab.got(['floodsub'])).toEqual({})
  })
})

describe('what is kept of peers', () => {
  it('is nothing of a peer that is gone, whatever was under way', () => {
    const lab = new Lab()
    lab.crowd(3)
    lab.publishes('p0', message('author', 1))
    lab.router.disconnected('p0', 0)
    lab.router.disconnected('p1', 0)
    expect(lab.settle()).toHaveLength(1)
    expect(Object.keys(lab.got(['p0', 'p1', 'p2']))).toEqual(['p2'])
    lab.router.receive('p0', fromUtf8(''), 0)
    expect([...lab.router.peers()].map(({ id }) => id)).toEqual(['p2'])
  })
})
