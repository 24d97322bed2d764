import { describe, expect, it } from 'vitest'
import { ProtocolError } from '../../../src/errors.ts'
import { fromUtf8 } from '../../../src/bytes.ts'
import { Lab, message } from './router-lab.ts'

describe('hello', () => {
  it('is the first RPC: what we are subscribed to, and extensions for 1.3', () => {
    const lab = new Lab({ topics: ['t', 'u'], extensions: { partialMessages: true } })
    for (const version of [10, 11, 12, 13] as const) {
      lab.peer(`v${version}`, { version, topics: [] })
      const rpcs = lab.sent(`v${version}`)
      expect(rpcs).toHaveLength(1)
      expect(rpcs[0]?.subscriptions.map(({ topic, subscribe }) => [topic, subscribe])).toEqual([
        ['t', true],
        ['u', true],
      ])
      expect(rpcs[0]?.extensionsCount).toBe(version === 13 ? 1 : 0)
      expect(rpcs[0]?.extensions?.partialMessages).toBe(version === 13 ? true : undefined)
    }
  })

  it('comes first also when much else was to be said before the stream was open', () => {
    const lab = new Lab()
    lab.router.connected('p', { bytes: fromUtf8('p'), outbound: true, ips: [] }, 0)
    lab.send('p', { subscriptions: [{ subscribe: true, topic: 't' }], control: { graft: ['t'] } })
    lab.subscribe('u')
    expect(lab.sent('p')).toEqual([])
    lab.router.opened('p', 13, 0)
    const rpcs = lab.sent('p')
    expect(rpcs[0]?.subscriptions.map(({ topic }) => topic)).toEqual(['t', 'u'])
    expect(rpcs.map(({ extensionsCount }) => extensionsCount)).toEqual([1])
  })

  it('is said again on a stream that was opened again, as things are then', () => {
    const lab = new Lab()
    lab.peer('p')
    lab.quiet()
    lab.router.closed('p')
    expect(lab.router.mesh('t')).toEqual([])
    lab.router.unsubscribe('t', 0)
    lab.subscribe('u')
    expect(lab.sent('p')).toEqual([])
    lab.router.opened('p', 13, 0)
    const [first, ...more] = lab.sent('p')
    expect(first?.subscriptions.map(({ topic, subscribe }) => [topic, subscribe])).toEqual([['u', true]])
    expect(first?.extensionsCount).toBe(1)
    expect(more).toEqual([])
  })

  it('tells all of what we subscribe to later, and leave', () => {
    const lab = new Lab({ topics: [] })
    lab.crowd(2, { topics: [] })
    lab.subscribe('u')
    expect(lab.sent('p1').flatMap(({ subscriptions }) => subscriptions.map((s) => s.subscribe))).toEqual([true])
    lab.subscribe('u')
    expect(lab.sent('p1')).toEqual([])
    lab.router.unsubscribe('u', 0)
    lab.router.unsubscribe('u', 0)
    expect(lab.sent('p1').flatMap(({ subscriptions }) => subscriptions.map((s) => s.subscribe))).toEqual([false])
  })
})

describe('extensions of a peer', () => {
  it('count when they are in its first RPC, once', () => {
    const lab = new Lab({ extensions: { testExtension: true } })
    lab.peer('p', { topics: [] })
    lab.quiet()
    lab.control('p', { extensions: { testExtension: true } })
    expect(lab.sent('p').map(({ testExtension }) => testExtension)).toEqual([true])
    expect(lab.blame('p')).toBe(0)
    lab.control('p', { extensions: { testExtension: true } })
    expect(lab.blame('p')).toBeCloseTo(10)
    expect(lab.sent('p')).toEqual([])
  })

  it('are misbehaviour in a later RPC, where the first had none', () => {
    const lab = new Lab({ extensions: { testExtension: true }, score: { behaviourPenaltyWeight: -0.001 } })
    lab.peer('p')
    lab.peer('q', { topics: [] })
    lab.send('q', { subscriptions: [{ subscribe: true, topic: 't' }] })
    lab.quiet()
    lab.control('q', { extensions: { testExtension: true } })
    expect(lab.blame('q')).toBeCloseTo(10)
    expect(lab.router.peer('q')?.extensions).toEqual({})
    expect(lab.blame('p')).toBe(0)
  })

  it('may be said anew on a new stream of it', () => {
    const lab = new Lab()
    lab.peer('p')
    lab.router.greeted('p')
    lab.control('p', { extensions: {} })
    expect(lab.blame('p')).toBe(0)
  })
})

describe('what a peer sends', () => {
  it('is a violation where it is no RPC, and changes nothing', () => {
    const lab = new Lab()
    lab.peer('p')
    lab.quiet()
    lab.router.receive('p', Uint8Array.of(0x0a, 0x7f), 0)
    const [event] = lab.events()
    expect(event).toMatchObject({ kind: 'violation', peer: 'p' })
    expect(event?.kind === 'violation' && event.error).toBeInstanceOf(ProtocolError)
    lab.router.receive('stranger', Uint8Array.of(0x0a, 0x7f), 0)
    expect(lab.events()).toEqual([])
  })

  it('is its subscriptions alone when it is graylisted', () => {
    const lab = new Lab({ thresholds: { graylist: -80, publish: -50, gossip: -10 } })
    lab.crowd(5)
    lab.peer('p')
    lab.quiet()
    // -90
    lab.score.penalize('p', 3)
    lab.send('p', {
      subscriptions: [
        { subscribe: true, topic: 'u' },
        { subscribe: false, topic: 't' },
      ],
      publish: [message('author', 1).raw],
      control: { graft: ['t'], iwant: [['id']], ihave: [{ topic: 't', ids: ['id'] }], idontwant: [['id']] },
    })
    expect(lab.of('subscription').map(({ topic, subscribed }) => [topic, subscribed])).toEqual([
      ['u', true],
      ['t', false],
    ])
    expect(lab.sent('p')).toEqual([])
    expect(lab.router.peer('p')?.unwanted.size).toBe(0)
    expect(lab.promises.size).toBe(0)
  })

  it('counts in full when it is direct, whatever its score', () => {
    const lab = new Lab({ direct: ['friend'] })
    lab.peer('friend')
    lab.score.penalize('friend', 10)
    lab.publishes('friend', message('author', 1))
    expect(lab.settle()).toHaveLength(1)
    lab.control('friend', { ihave: [{ topic: 't', ids: ['id'] }] })
    expect(lab.sent('friend').flatMap(({ iwant }) => iwant)).toEqual(['id'])
  })

  it('is of so many topics and no more', () => {
    const lab = new Lab({ limits: { maxTopicsPerPeer: 10, maxTopicCharsPerPeer: 1_000 } })
    lab.peer('p', { topics: Array.from({ length: 20 }, (_, i) => `x${i}`) })
    expect(lab.router.peer('p')?.topics.size).toBe(10)
    lab.peer('q', { topics: ['a'.repeat(600), 'b'.repeat(600), 'c'.repeat(300)] })
    expect(lab.router.peer('q')?.topics.size).toBe(2)
    // Who leaves some may have others.
    lab.send('p', { subscriptions: [{ subscribe: false, topic: 'x0' }] })
    lab.send('p', { subscriptions: [{ subscribe: true, topic: 'x19' }] })
    expect(lab.router.topicPeers('x19')).toEqual(['p'])
    lab.router.disconnected('p', 0)
    expect(lab.router.topicPeers('x19')).toEqual([])
  })
})

describe('direct peers', () => {
  it('are asked for at the first heartbeat, then now and then, while they are not connected', () => {
    const lab = new Lab({ direct: ['friend', 'other'], params: { directConnectTicks: 5 } })
    lab.peer('other')
    lab.quiet()
    const asked: number[] = []
    for (let tick = 1; tick <= 12; tick++) {
      lab.wait(1_000)
      for (const { peer } of lab.of('direct')) {
        expect(peer).toBe('friend')
        asked.push(tick)
      }
    }
    expect(asked).toEqual([1, 5, 10])
  })

  it('get every message of a topic and are in no mesh', () => {
    const lab = new Lab({ direct: ['friend'], params: { floodPublish: false } })
    lab.peer('friend')
    lab.crowd(20)
    lab.wait(3_000)
    lab.quiet()
    expect(lab.router.mesh('t')).not.toContain('friend')
    const first = message('author', 1)
    lab.publishes('p0', first)
    lab.settle()
    expect(Object.keys(lab.got(['friend']))).toEqual(['friend'])
    expect(lab.publish(1).recipients).toContain('friend')
  })
})

describe('time', () => {
  it('plans the first heartbeat soon and the others by the interval; a sleep is made up for by one', () => {
    const lab = new Lab()
    expect(lab.router.deadline).toBe(100)
    lab.wait(100)
    expect(lab.router.deadline).toBe(1_100)
    lab.now = 50_000
    lab.router.tick(lab.now)
    expect(lab.router.deadline).toBe(51_000)
    lab.router.stop()
    expect(lab.router.deadline).toBe(Infinity)
  })

  it('forgets what a peer does not want after idontwantTtl heartbeats', () => {
    const lab = new Lab()
    lab.crowd(1)
    lab.control('p0', { idontwant: [['a']] })
    lab.wait(1_100)
    lab.control('p0', { idontwant: [['b']] })
    const left = (): string[] => [...(lab.router.peer('p0')?.unwanted.keys() ?? [])]
    lab.wait(1_000)
    expect(left()).toEqual(['b'])
    lab.wait(2_000)
    expect(left()).toEqual([])
  })
})
