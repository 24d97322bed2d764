import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FakeRandom } from '../../../src/env.ts'
import { heartbeat, type HeartbeatPlan, type MeshView } from '../../../src/protocols/gossipsub/heartbeat.ts'
import { gossipDefaults, gossipParams, type GossipParams } from '../../../src/protocols/gossipsub/params.ts'

interface Case {
  /** Of topic `t`. */
  mesh?: readonly string[]
  /** Connected subscribers of `t`, and of `f`; those of the mesh are among them. */
  peers?: readonly string[]
  fanout?: { peers: readonly string[]; lastPublishedMs: number }
  scores?: Readonly<Record<string, number>>
  outbound?: readonly string[]
  direct?: readonly string[]
  backoff?: readonly string[]
  params?: Partial<GossipParams>
  opportunisticGraft?: number
  tick?: number
  now?: number
  seed?: number
}

function beat(given: Case): HeartbeatPlan {
  const { mesh, peers = [], fanout, scores = {}, outbound = [], direct = [], backoff = [] } = given
  const view: MeshView = {
    mesh: new Map(mesh === undefined ? [] : [['t', new Set(mesh)]]),
    fanout: new Map(fanout === undefined ? [] : [['f', { ...fanout, peers: new Set(fanout.peers) }]]),
    gossipPeers: () => new Set([...(mesh ?? []), ...peers]),
    isOutbound: (peer) => outbound.includes(peer),
    isDirect: (peer) => direct.includes(peer),
    isBackingOff: (topic, peer) => topic === 't' && backoff.includes(peer),
  }
  const random = new FakeRandom(given.seed ?? 1)
  return heartbeat({
    view,
    scoreOf: (peer) => scores[peer] ?? 0,
    unit: () => random.unit(),
    params: gossipParams(given.params),
    thresholds: { gossip: -10, publish: -50, opportunisticGraft: given.opportunisticGraft ?? 20 },
    tick: given.tick ?? 1,
    now: given.now ?? 0,
  })
}

const some = (count: number, prefix = 'p'): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`)
const pruned = (plan: HeartbeatPlan): string[] => plan.prune.map(({ peer }) => peer)
const grafted = (plan: HeartbeatPlan): string[] => plan.graft.map(({ peer }) => peer)
const listeners = (given: Case): string[] => beat(given).gossip.flatMap(({ peers }) => peers)
const all = (names: readonly string[], score: number): Record<string, number> =>
  Object.fromEntries(names.map((name) => [name, score]))

describe('the heartbeat of a mesh', () => {
  it('leaves a mesh of good size alone', () => {
    for (const size of [5, 6, 11]) {
      const mesh = some(size)
      const plan = beat({ mesh, peers: some(30, 'q'), outbound: mesh })
      expect([plan.prune, plan.graft], `${size} peers`).toEqual([[], []])
    }
  })

  it('prunes who has a negative score, without peer exchange, and does not take it back in the same beat', () => {
    const plan = beat({ mesh: some(6), scores: { p0: -0.1, p1: -5 }, peers: [] })
    expect(plan.prune).toEqual([
      { topic: 't', peer: 'p0', noPX: true },
      { topic: 't', peer: 'p1', noPX: true },
    ])
    expect(plan.graft).toEqual([])
  })

  it('fills up what the negative ones leave empty, from others', () => {
    const plan = beat({ mesh: some(6), scores: { p0: -1, p1: -1 }, peers: some(4, 'q') })
    // 4 are left, less than Dlo: up to D
    expect(grafted(plan)).toHaveLength(2)
    expect(grafted(plan).every((peer) => peer.startsWith('q'))).toBe(true)
  })

  it('grafts up to D when there are fewer than Dlo, and not before', () => {
    expect(grafted(beat({ mesh: some(4), peers: some(20, 'q') }))).toHaveLength(2)
    expect(grafted(beat({ mesh: [], peers: some(20, 'q') }))).toHaveLength(6)
    expect(grafted(beat({ mesh: [], peers: some(3, 'q') }))).toHaveLength(3)
    expect(grafted(beat({ mesh: some(5), peers: some(20, 'q') }))).toHaveLength(0)
  })

  it('grafts nobody who is direct, backing off, of negative score, or there already', () => {
    const plan = beat({
      mesh: ['m'],
      peers: ['direct', 'backoff', 'negative', 'm', 'good', 'zero'],
      direct: ['direct'],
      backoff: ['backoff'],
      scores: { negative: -0.001, good: 3 },
    })
    expect(grafted(plan).toSorted()).toEqual(['good', 'zero'])
  })

  it('prunes down to D from Dhi on, with peer exchange', () => {
    const plan = beat({ mesh: some(12), outbound: some(12) })
    expect(plan.prune).toHaveLength(6)
    expect(plan.prune.every(({ noPX }) => !noPX)).toBe(true)
    expect(beat({ mesh: some(11), outbound: some(11) }).prune).toEqual([])
  })

  it('keeps the best Dscore by score, the rest by chance', () => {
    const mesh = some(20)
    const best = ['p3', 'p8', 'p11', 'p19']
    const stayed = new Set<string>()
    for (let seed = 1; seed <= 40; seed++) {
      const gone = pruned(beat({ mesh, scores: all(best, 5), seed }))
      expect(gone).toHaveLength(14)
      for (const peer of best) expect(gone).not.toContain(peer)
      for (const peer of mesh) if (!gone.includes(peer)) stayed.add(peer)
    }
    expect(stayed.size).toBe(20)
  })

  it('keeps Dout outbound peers when it prunes, but never at the cost of the best', () => {
    const mesh = some(16)
    for (let seed = 1; seed <= 40; seed++) {
      const gone = pruned(beat({ mesh, outbound: ['p9', 'p15'], scores: all(some(4), 9), seed }))
      expect(gone).toHaveLength(10)
      for (const peer of ['p0', 'p1', 'p2', 'p3', 'p9', 'p15']) expect(gone).not.toContain(peer)
    }
    const scores = all(some(6), 9)
    const gone = pruned(beat({ mesh, outbound: ['p14', 'p15'], scores, params: { Dscore: 6 } }))
    expect(gone.toSorted()).toEqual(mesh.slice(6).toSorted())
  })

  it('grafts outbound peers until the quota is filled, in a mesh of at least Dlo', () => {
    const plan = beat({
      mesh: some(7),
      peers: ['in1', 'in2', 'out1', 'out2', 'out3'],
      outbound: ['out1', 'out2', 'out3'],
    })
    expect(grafted(plan)).toHaveLength(2)
    expect(grafted(plan).every((peer) => peer.startsWith('out'))).toBe(true)
    const one = beat({ mesh: some(7), peers: ['out1', 'out2'], outbound: ['p0', 'out1', 'out2'] })
    expect(grafted(one)).toHaveLength(1)
    const refused = beat({
      mesh: some(7),
      peers: ['out1', 'out2'],
      outbound: ['out1', 'out2'],
      backoff: ['out1'],
      scores: { out2: -1 },
    })
    expect(refused.graft).toEqual([])
  })

  it('grafts better ones into a poor mesh, every opportunisticGraftTicks heartbeats', () => {
    const mesh = some(6)
    const poor = { mesh, outbound: mesh, peers: ['worse', 'same', 'q1', 'q2', 'q3'] }
    const scores = { ...all(mesh, 2), worse: 1, same: 2, q1: 3, q2: 4, q3: 5 }
    for (const tick of [1, 59, 61]) expect(beat({ ...poor, scores, tick }).graft).toEqual([])
    for (let seed = 1; seed <= 20; seed++) {
      const plan = beat({ ...poor, scores, tick: 60 * seed, seed })
      expect(grafted(plan)).toHaveLength(2)
      // Above the median, not as good as it.
      expect(grafted(plan).every((peer) => peer.startsWith('q'))).toBe(true)
    }
    // The median counts, not the mean: half of it is good enough.
    const good = { ...scores, p3: 20, p4: 20, p5: 20 }
    expect(beat({ ...poor, scores: good, tick: 60 }).graft).toEqual([])
  })

  it('has no mesh where the parameters say so: bootstrap nodes', () => {
    const params = { D: 0, Dlo: 0, Dhi: 0, Dout: 0, Dscore: 0 }
    expect(beat({ mesh: [], peers: some(10), params }).graft).toEqual([])
    expect(pruned(beat({ mesh: some(2), peers: some(10), params }))).toHaveLength(2)
  })
})

describe('the heartbeat of a fanout', () => {
  it('ends when we have not published for fanoutTtl', () => {
    const fanout = { peers: ['p0'], lastPublishedMs: 1000 }
    expect(beat({ fanout, now: 61_000 }).expiredFanout).toEqual([])
    const plan = beat({ fanout, now: 61_001 })
    expect(plan.expiredFanout).toEqual(['f'])
    expect(plan.fanout.size).toBe(0)
    expect(plan.gossip).toEqual([])
  })

  it('keeps who is still there above the publish threshold, and fills up to D', () => {
    const plan = beat({
      fanout: { peers: ['stays', 'gone', 'bad'], lastPublishedMs: 0 },
      peers: ['stays', 'bad', 'bad2', 'direct', ...some(9)],
      direct: ['direct'],
      scores: { bad: -50.1, bad2: -51, stays: -50 },
    })
    const peers = plan.fanout.get('f')
    expect(peers?.size).toBe(6)
    expect(peers?.has('stays')).toBe(true)
    for (const peer of ['gone', 'bad', 'bad2', 'direct']) expect(peers?.has(peer)).toBe(false)
  })
})

describe('whom the heartbeat gossips to', () => {
  it('are Dlazy peers outside of the mesh, or a share of them where that is more', () => {
    const mesh = some(6)
    expect(listeners({ mesh, outbound: mesh, peers: some(20, 'q') })).toHaveLength(6)
    expect(listeners({ mesh, outbound: mesh, peers: some(3, 'q') })).toHaveLength(3)
    expect(listeners({ mesh, outbound: mesh, peers: some(100, 'q') })).toHaveLength(25)
    expect(listeners({ mesh, outbound: mesh, peers: some(100, 'q'), params: { gossipFactor: 0.4 } })).toHaveLength(40)
    expect(listeners({ mesh, outbound: mesh })).toEqual([])
  })

  it('are neither direct, nor of the mesh as it will be, nor below the gossip threshold', () => {
    const heard = listeners({
      mesh: ['m', 'negative'],
      peers: ['direct', 'bad', 'fair', ...some(4, 'q')],
      direct: ['direct'],
      backoff: ['fair'],
      scores: { bad: -10.1, fair: -10, negative: -1 },
    })
    // The q's are grafted in this very beat; who was pruned in it hears gossip again.
    expect(heard.toSorted()).toEqual(['fair', 'negative'])
  })

  it('are others of the topic, for a fanout, too', () => {
    const plan = beat({ fanout: { peers: some(6), lastPublishedMs: 0 }, peers: [...some(6), ...some(8, 'q')] })
    expect(plan.gossip).toHaveLength(1)
    expect(plan.gossip[0]?.peers).toHaveLength(6)
    expect(plan.gossip[0]?.peers.every((peer) => peer.startsWith('q'))).toBe(true)
  })
})

describe('any heartbeat', () => {
  const arbitrary = fc
    .array(
      fc.record({
        inMesh: fc.boolean(),
        inFanout: fc.boolean(),
        score: fc.oneof(fc.constant(0), fc.integer({ min: -60, max: 30 })),
        outbound: fc.boolean(),
        direct: fc.boolean(),
        backoff: fc.boolean(),
      }),
      { maxLength: 40 },
    )
    .chain((peers) =>
      fc.record({
        peers: fc.constant(peers.map((peer, i) => ({ ...peer, inMesh: peer.inMesh && !peer.direct, name: `p${i}` }))),
        tick: fc.constantFrom(1, 60),
        seed: fc.integer({ min: 1, max: 1e6 }),
      }),
    )
  const { D, Dlo, Dhi, Dout } = gossipDefaults

  it('keeps a mesh in its bounds whenever there are enough peers, and keeps to the rules', () => {
    fc.assert(
      fc.property(arbitrary, ({ peers, tick, seed }) => {
        const names = (of: (peer: (typeof peers)[number]) => boolean): string[] =>
          peers.filter(of).map(({ name }) => name)
        const given: Case = {
          mesh: names((p) => p.inMesh),
          peers: names(() => true),
          fanout: { peers: names((p) => p.inFanout), lastPublishedMs: 0 },
          scores: Object.fromEntries(peers.map(({ name, score }) => [name, score])),
          outbound: names((p) => p.outbound),
          direct: names((p) => p.direct),
          backoff: names((p) => p.backoff),
          tick,
          seed,
        }
        const plan = beat(given)
        // Chance comes from `unit` alone.
        expect(beat(given)).toEqual(plan)

        const by = new Map(peers.map((peer) => [peer.name, peer]))
        const after = new Set(given.mesh)
        for (const { peer } of plan.prune) expect(after.delete(peer)).toBe(true)
        for (const { peer } of plan.graft) {
          expect(after.has(peer)).toBe(false)
          after.add(peer)
          const { direct, backoff, score, inMesh } = by.get(peer) as (typeof peers)[number]
          expect([direct, backoff, score < 0, inMesh]).toEqual([false, false, false, false])
        }
        for (const { peer, noPX } of plan.prune) expect(noPX).toBe((by.get(peer)?.score ?? 0) < 0)
        for (const peer of after) expect(by.get(peer)?.score).toBeGreaterThanOrEqual(0)

        const good = peers.filter((p) => p.inMesh && p.score >= 0).length
        const more = peers.filter((p) => !p.inMesh && !p.direct && !p.backoff && p.score >= 0)
        expect(after.size).toBeLessThan(Dhi + Dout + 2)
        if (good < Dlo) expect(after.size).toBeGreaterThanOrEqual(Math.min(D, good + more.length))
        else expect(after.size).toBeGreaterThanOrEqual(Dlo)
        const outbound = [...after].filter((name) => by.get(name)?.outbound === true).length
        if (after.size >= Dlo && good < Dhi) {
          const spare = more.filter((p) => p.outbound && !after.has(p.name)).length
          expect(outbound >= Dout || spare === 0).toBe(true)
        }

        const fanout = plan.fanout.get('f') ?? new Set()
        for (const name of fanout) {
          expect(by.get(name)?.direct).toBe(false)
          expect(by.get(name)?.score).toBeGreaterThanOrEqual(-50)
        }
        for (const { topic, peers: heard } of plan.gossip) {
          for (const name of heard) {
            expect((topic === 't' ? after : fanout).has(name)).toBe(false)
            expect(by.get(name)?.direct).toBe(false)
            expect(by.get(name)?.score).toBeGreaterThanOrEqual(-10)
          }
        }
      }),
      { numRuns: 500 },
    )
  })
})
