import { describe, expect, it } from 'vitest'
import { fromUtf8, toUtf8 } from '../../../src/bytes.ts'
import { Lab, message } from './router-lab.ts'

const prunes = (lab: Lab, id: string): (number | undefined)[] =>
  lab.sent(id).flatMap(({ prune }) => prune.map(({ backoffSeconds }) => backoffSeconds))
const grafts = (lab: Lab, id: string): string[] => lab.sent(id).flatMap(({ graft }) => graft)

describe('a late subscriber', () => {
  it('is grafted at once as long as the mesh has fewer than Dlo', () => {
    const lab = new Lab()
    for (let i = 0; i < 8; i++) lab.peer(`p${i}`)
    expect(lab.router.mesh('t')).toEqual(['p0', 'p1', 'p2', 'p3', 'p4'])
    expect(grafts(lab, 'p0')).toEqual(['t'])
    expect(grafts(lab, 'p5')).toEqual([])
  })

  it('is grafted when its subscription comes later, or our stream to it', () => {
    const lab = new Lab()
    lab.peer('later', { topics: [] })
    expect(lab.router.mesh('t')).toEqual([])
    lab.send('later', { subscriptions: [{ subscribe: true, topic: 't' }] })
    lab.router.connected('stream', { bytes: fromUtf8('stream'), outbound: false, ips: [] }, 0)
    lab.send('stream', { subscriptions: [{ subscribe: true, topic: 't' }] })
    expect(lab.router.mesh('t')).toEqual(['later'])
    lab.router.opened('stream', 11, 0)
    expect(lab.router.mesh('t')).toEqual(['later', 'stream'])
  })

  it('is not grafted when it speaks floodsub, is direct, backs off, or has a negative score', () => {
    const lab = new Lab({ direct: ['direct'] })
    lab.backoff.add('t', 'backoff', 60_000, 0)
    lab.router.connected('bad', { bytes: fromUtf8('bad'), outbound: false, ips: [] }, 0)
    lab.score.penalize('bad', 1)
    lab.peer('floodsub', { version: 0 })
    for (const name of ['direct', 'backoff', 'bad']) lab.peer(name)
    expect(lab.router.mesh('t')).toEqual([])
    for (const name of ['floodsub', 'direct', 'backoff', 'bad']) expect(grafts(lab, name)).toEqual([])
  })
})

describe('a GRAFT', () => {
  it('brings the peer into the mesh, said or not said that it is subscribed', () => {
    const lab = new Lab({ params: { Dlo: 0, D: 2, Dout: 0, Dscore: 0 } })
    lab.peer('p', { topics: [] })
    lab.control('p', { graft: ['t'] })
    expect(lab.router.mesh('t')).toEqual(['p'])
    expect(lab.of('mesh')).toEqual([{ kind: 'mesh', peer: 'p', topic: 't', joined: true, by: 'peer' }])
    expect(lab.router.topicPeers('t')).toEqual(['p'])
    // Again: nothing.
    lab.control('p', { graft: ['t', 't'] })
    expect(lab.of('mesh')).toEqual([])
    expect(prunes(lab, 'p')).toEqual([])
  })

  it('of a topic that we are not in is neither answered nor punished', () => {
    const lab = new Lab()
    lab.peer('p')
    lab.quiet()
    lab.control('p', { graft: ['unknown'] })
    expect(lab.sent('p')).toEqual([])
    expect(lab.blame('p')).toBe(0)
  })

  it('of a direct peer, or one of negative score, is answered with a PRUNE', () => {
    const lab = new Lab({ direct: ['direct'], params: { doPX: true } })
    lab.crowd(5)
    lab.peer('direct')
    lab.peer('bad')
    lab.score.penalize('bad', 1)
    lab.quiet()
    for (const name of ['direct', 'bad']) {
      lab.control(name, { graft: ['t'] })
      const [rpc] = lab.sent(name)
      expect(rpc?.prune).toEqual([{ topic: 't', peers: [], backoffSeconds: 60 }])
      expect(lab.router.mesh('t')).not.toContain(name)
    }
    expect(lab.blame('direct')).toBe(0)
  })

  it('within the back-off is refused and costs one, so soon after the PRUNE that it is a flood, two', () => {
    const lab = new Lab({ score: { behaviourPenaltyWeight: -0.001 } })
    lab.crowd(1)
    lab.control('p0', { prune: [{ topic: 't', peers: [], backoffSeconds: 60 }] })
    lab.now = 9_999
    lab.control('p0', { graft: ['t'] })
    expect(prunes(lab, 'p0')).toEqual([60])
    expect(lab.blame('p0')).toBeCloseTo(2)
    // The refusal began the back-off anew.
    lab.now = 20_000
    lab.control('p0', { graft: ['t'] })
    expect(lab.blame('p0')).toBeCloseTo(3)
    lab.now = 79_999
    lab.control('p0', { graft: ['t'] })
    expect(lab.blame('p0')).toBeCloseTo(4)
    expect(lab.router.mesh('t')).toEqual([])
    // It is over now: no blame, but a score below 0 is reason enough.
    lab.now = 139_999
    lab.control('p0', { graft: ['t'] })
    expect(lab.blame('p0')).toBeCloseTo(4)
    expect(lab.router.mesh('t')).toEqual([])
    expect(prunes(lab, 'p0')).toEqual([60])
  })

  it('into a full mesh is only for peers that we dialled', () => {
    const lab = new Lab({ params: { doPX: true } })
    lab.crowd(12)
    for (let i = 5; i < 12; i++) lab.control(`p${i}`, { graft: ['t'] })
    expect(lab.router.mesh('t')).toHaveLength(12)
    lab.peer('in')
    lab.peer('out', { outbound: true })
    lab.quiet()
    lab.control('in', { graft: ['t'] })
    lab.control('out', { graft: ['t'] })
    expect(lab.router.mesh('t')).toHaveLength(13)
    expect(lab.router.mesh('t')).toContain('out')
    // It is told of others, whom it may have more luck with.
    const [rpc] = lab.sent('in')
    expect(rpc?.prune[0]?.peers).toHaveLength(13)
    expect(lab.sent('out')).toEqual([])
  })

  it('flood of many topics in one RPC is answered by topics of ours alone', () => {
    const lab = new Lab()
    lab.crowd(12)
    for (let i = 5; i < 12; i++) lab.control(`p${i}`, { graft: ['t'] })
    lab.peer('p')
    lab.quiet()
    lab.control('p', { graft: [...Array.from({ length: 3_000 }, (_, i) => `x${i}`), 't'] })
    // Beyond the budget: passed over.
    expect(lab.sent('p')).toEqual([])
    lab.control('p', { graft: Array.from({ length: 1_000 }, () => 't') })
    expect(lab.sent('p').flatMap(({ prune }) => prune)).toHaveLength(1)
  })
})

describe('a PRUNE', () => {
  it('takes the peer out of the mesh, for as long as it says', () => {
    const lab = new Lab()
    lab.crowd(1)
    lab.control('p0', { prune: [{ topic: 't', peers: [], backoffSeconds: 5 }] })
    expect(lab.of('mesh')).toEqual([{ kind: 'mesh', peer: 'p0', topic: 't', joined: false, by: 'peer' }])
    // And the slack of a heartbeat.
    lab.wait(5_999)
    expect(lab.router.mesh('t')).toEqual([])
    lab.wait(2_000)
    expect(lab.router.mesh('t')).toEqual(['p0'])
  })

  it('without a back-off (v1.0) means ours, and one of centuries is cut to an hour', () => {
    const lab = new Lab()
    lab.crowd(2)
    lab.control('p0', { prune: [{ topic: 't', peers: [] }] })
    lab.control('p1', { prune: [{ topic: 't', peers: [], backoffSeconds: Number.MAX_SAFE_INTEGER }] })
    expect(lab.backoff.until('t', 'p0')).toBe(60_000)
    expect(lab.backoff.until('t', 'p1')).toBe(3_600_000)
    lab.wait(62_000)
    expect(lab.router.mesh('t')).toEqual(['p0'])
    lab.wait(3_600_000)
    expect(lab.router.mesh('t')).toEqual(['p0', 'p1'])
  })

  it('of a topic that we are not in is nothing', () => {
    const lab = new Lab({ thresholds: { acceptPX: 0 } })
    lab.crowd(1)
    lab.control('p0', { prune: [{ topic: 'x', peers: [{ id: fromUtf8('q') }], backoffSeconds: 60 }] })
    expect(lab.events()).toEqual([])
    expect(lab.backoff.size).toBe(0)
  })

  it('names peers that are believed from acceptPX on, 16 at most', () => {
    const named = Array.from({ length: 40 }, (_, i) => ({ id: fromUtf8(`q${i}`) }))
    const prune = [{ topic: 't', peers: named, backoffSeconds: 60 }]
    const strict = new Lab({ thresholds: { acceptPX: 1 } })
    strict.crowd(1)
    strict.control('p0', { prune })
    expect(strict.of('exchange')).toEqual([])
    const open = new Lab({ thresholds: { acceptPX: 1 }, score: { appSpecificScore: () => 1 } })
    open.crowd(1)
    open.control('p0', { prune })
    const [event] = open.of('exchange')
    expect(event?.peers).toHaveLength(16)
  })
})

describe('our PRUNE', () => {
  it('of an overfull mesh names good peers of the topic, and the back-off, to who can read it', () => {
    const lab = new Lab({ params: { doPX: true, D: 1, Dlo: 1, Dhi: 2, Dscore: 0, Dout: 0 } })
    lab.peer('a', { version: 10 })
    lab.peer('b', { version: 11 })
    lab.peer('bad')
    lab.score.penalize('bad', 1)
    lab.peer('floodsub', { version: 0 })
    for (const name of ['a', 'b']) lab.control(name, { graft: ['t'] })
    lab.quiet()
    const seen: string[] = []
    for (let i = 0; i < 40 && seen.length < 2; i++) {
      lab.wait(1_000)
      for (const name of ['a', 'b']) {
        for (const prune of lab.sent(name).flatMap((rpc) => rpc.prune)) {
          if (seen.includes(name)) continue
          seen.push(name)
          if (name === 'a') expect(prune).toEqual({ topic: 't', peers: [], backoffSeconds: undefined })
          else {
            expect(prune.backoffSeconds).toBe(60)
            expect(prune.peers.map(({ id }) => toUtf8(id))).toEqual(['a'])
          }
        }
      }
      // Whoever was left is pruned the next time.
      lab.now += 120_000
      for (const name of ['a', 'b']) lab.control(name, { graft: ['t'] })
    }
    expect(seen.toSorted()).toEqual(['a', 'b'])
  })

  it('for a negative score names nobody', () => {
    const lab = new Lab({ params: { doPX: true } })
    lab.crowd(3)
    lab.score.penalize('p1', 1)
    lab.wait(1_000)
    const rpcs = lab.sent('p1').flatMap(({ prune }) => prune)
    expect(rpcs).toEqual([{ topic: 't', peers: [], backoffSeconds: 60 }])
    expect(lab.router.mesh('t')).toEqual(['p0', 'p2'])
  })

  it('when we leave a topic asks for less patience, and we keep to it ourselves', () => {
    const lab = new Lab()
    lab.crowd(2)
    lab.router.unsubscribe('t', lab.now)
    const [rpc] = lab.sent('p0')
    expect(rpc?.subscriptions.map(({ subscribe }) => subscribe)).toEqual([false])
    expect(rpc?.prune).toEqual([{ topic: 't', peers: [], backoffSeconds: 10 }])
    expect(lab.of('mesh').map(({ joined, by }) => [joined, by])).toEqual([
      [false, 'us'],
      [false, 'us'],
    ])
    lab.now = 5_000
    lab.subscribe('t')
    expect(lab.router.mesh('t')).toEqual([])
    lab.wait(5_999)
    expect(lab.router.mesh('t')).toEqual([])
    lab.wait(2_000)
    expect(lab.router.mesh('t')).toHaveLength(2)
  })
})

describe('a topic that we join', () => {
  it('takes its fanout first, then others, up to D', () => {
    const lab = new Lab({ topics: [], params: { floodPublish: false } })
    const peers = lab.crowd(30)
    const { recipients } = lab.publish(1)
    expect(recipients).toHaveLength(6)
    expect(lab.router.mesh('t').toSorted()).toEqual(recipients.toSorted())
    lab.quiet()
    lab.subscribe('t')
    expect(lab.router.mesh('t').toSorted()).toEqual(recipients.toSorted())
    const told = peers.filter((peer) => grafts(lab, peer).length > 0)
    expect(told.toSorted()).toEqual(recipients.toSorted())
  })

  it('leaves peers behind that are gone, say that they left, or lost their stream', () => {
    const lab = new Lab()
    lab.crowd(4)
    lab.router.disconnected('p0', 0)
    lab.send('p1', { subscriptions: [{ subscribe: false, topic: 't' }] })
    lab.router.closed('p2')
    expect(lab.router.mesh('t')).toEqual(['p3'])
    expect(lab.router.topicPeers('t')).toContain('p3')
    for (const gone of ['p0', 'p1']) expect(lab.router.topicPeers('t')).not.toContain(gone)
  })
})

describe('a fanout', () => {
  it('is chosen once, kept, refilled by the heartbeat and given up after its time', () => {
    const lab = new Lab({ topics: [], params: { floodPublish: false } })
    lab.crowd(20)
    const first = lab.publish(1).recipients
    expect(lab.publish(2).recipients.toSorted()).toEqual(first.toSorted())
    lab.router.disconnected(first[0] as string, lab.now)
    lab.wait(1_000)
    const kept = lab.router.mesh('t')
    expect(kept).toHaveLength(6)
    expect(first.filter((peer) => kept.includes(peer))).toHaveLength(5)
    lab.wait(59_000)
    expect(lab.router.mesh('t')).toHaveLength(6)
    lab.wait(2_000)
    expect(lab.router.mesh('t')).toEqual([])
  })

  it('leaves out direct peers, floodsub peers and bad ones, who get the message otherwise or not at all', () => {
    const lab = new Lab({ topics: [], params: { floodPublish: false }, direct: ['direct'] })
    lab.peer('direct')
    lab.peer('floodsub', { version: 0 })
    lab.peer('bad')
    lab.score.penalize('bad', 3)
    lab.peer('good')
    expect(lab.publish(1).recipients.toSorted()).toEqual(['direct', 'floodsub', 'good'])
    expect(lab.router.mesh('t')).toEqual(['good'])
  })

  it('is not remembered without peers: topics do not pile up', () => {
    const lab = new Lab({ topics: [], params: { floodPublish: false } })
    lab.peer('p')
    for (let i = 0; i < 100; i++) lab.publish(i, { topic: `t${i}`, allowNone: true })
    lab.wait(1_000)
    expect(lab.router.mesh('t1')).toEqual([])
    lab.send('p', { subscriptions: [{ subscribe: true, topic: 't1' }] })
    lab.wait(1_000)
    expect(lab.router.mesh('t1')).toEqual([])
  })

  it('forwards nothing: a message of a topic that we are not in is not even read', () => {
    const lab = new Lab({ topics: [], params: { floodPublish: false } })
    lab.crowd(3)
    lab.publish(1)
    lab.quiet()
    lab.publishes('p0', message('author', 1))
    expect(lab.events()).toEqual([])
  })
})
