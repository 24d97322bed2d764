/* Networks of GossipSub routers in virtual time: who gets what, what the meshes look like, and what a slow peer costs. */
import { describe, expect, it } from 'vitest'
import { Net, quantile, type GossipNode, type NodeOptions, type Track } from './gossipsub-net.ts'

const topic = 't'
const data = new Uint8Array(1_200)
const small: NodeOptions = { topics: [topic] }

function network(seed: number, count: number, degree: number, more: NodeOptions = {}): Net {
  const net = new Net({ seed, latencyMs: [10, 100], lossRate: 0.01 })
  for (let i = 0; i < count; i++) net.add({ ...small, ...more })
  net.wire(net.nodes, degree)
  return net
}

/** Who of these did not get it. */
const missing = (track: Track, nodes: readonly GossipNode[]): string[] =>
  nodes.filter((node) => node.id !== track.source && !track.got.has(node)).map(({ id }) => `${id} of ${track.source}`)

function everybody(net: Net, tracks: Iterable<Track> = net.tracks.values(), nodes = net.nodes): void {
  expect([...tracks].flatMap((track) => missing(track, nodes))).toEqual([])
  expect(net.twice).toEqual([])
}

/** As many as there are others to be had: those who are connected, and of the topic. */
function meshesInBounds(net: Net): void {
  const byId = new Map(net.nodes.map((node) => [node.id, node]))
  for (const node of net.nodes) {
    const mesh = node.router.mesh(topic)
    const label = `${node.id}: ${mesh.length} of ${node.ways.size}`
    // Dhi, and who was grafted since the last heartbeat because we had dialled them.
    expect(mesh.length, label).toBeLessThanOrEqual(12 + 2)
    expect(mesh.length, label).toBeGreaterThanOrEqual(Math.min(4, node.ways.size))
    for (const id of mesh) {
      expect(byId.get(id)?.router.mesh(topic), `${node.id} is in the mesh of ${id}`).toContain(node.id)
    }
  }
}

describe.each([1, 2, 3, 4, 5])('with seed %i', (seed) => {
  it('every subscriber of a line and of a ring gets every message once', () => {
    for (const ring of [false, true]) {
      const net = new Net({ seed, latencyMs: [10, 100], lossRate: 0.05 })
      const nodes = Array.from({ length: 5 }, () => net.add(small))
      for (let i = 0; i < (ring ? 5 : 4); i++) net.connect(nodes[i] as GossipNode, nodes[(i + 1) % 5] as GossipNode)
      net.run(3_000)
      for (let i = 0; i < 20; i++) {
        net.pick(nodes).publish(topic, data)
        net.run(100)
      }
      net.run(5_000)
      expect(net.tracks.size).toBe(20)
      everybody(net)
    }
  })

  it('every subscriber of 60 and of 200 gets every message once, in meshes that are in bounds and mutual', () => {
    for (const [count, degree] of [
      [60, 4 + 2 * seed],
      [200, 8 + 2 * seed],
    ] as const) {
      const net = network(seed, count, degree)
      net.run(5_000)
      for (let i = 0; i < 10; i++) {
        net.pick(net.nodes).publish(topic, data)
        net.run(100)
      }
      net.run(4_000)
      everybody(net)
      meshesInBounds(net)
    }
  })

  it('connections that break and come again, and nodes that restart, lose nobody who stays a message', () => {
    const net = network(seed, 60, 10)
    const stay = net.nodes.slice(0, 40)
    const others = net.nodes.slice(40)
    net.run(5_000)
    for (let round = 0; round < 40; round++) {
      // A connection somewhere goes, and comes back after a while.
      const node = net.pick(net.nodes)
      const way = net.pick([...node.ways.values()])
      if (node.ways.size > 5 && way.to.ways.size > 5) {
        net.cut(node, way.to)
        net.after(1_000 + 4_000 * net.random.unit(), () => net.connect(node, way.to))
      }
      // A node comes back with nothing in its memory, and dials others.
      if (round % 4 === 0) {
        const one = net.pick(others)
        const peers = [...one.ways.values()].map(({ to }) => to)
        for (const peer of peers) net.cut(one, peer)
        one.restart()
        net.after(2_000, () => {
          for (const peer of net.shuffled(net.nodes).slice(0, 10)) net.connect(one, peer)
        })
      }
      net.pick(stay).publish(topic, data)
      net.run(300)
    }
    net.run(15_000)
    expect(net.tracks.size).toBe(40)
    everybody(net, net.tracks.values(), stay)
    // And who came back is part of it again.
    const { id } = net.pick(stay).publish(topic, data)
    net.run(5_000)
    everybody(net, [net.tracks.get(id) as Track])
    meshesInBounds(net)
  })

  it('a split keeps each side whole, and once it heals all are one network again', () => {
    const net = network(seed, 60, 12)
    net.run(5_000)
    const side = new Map(net.shuffled(net.nodes).map((node, i) => [node.id, i % 2]))
    const cuts: [GossipNode, GossipNode][] = []
    for (const node of net.nodes) {
      for (const { to } of node.ways.values()) {
        if (side.get(node.id) === side.get(to.id)) continue
        cuts.push([node, to as GossipNode])
        net.cut(node, to)
      }
    }
    // Whoever lost too many looks for others, on its side.
    for (const half of [0, 1]) {
      const nodes = net.nodes.filter((node) => side.get(node.id) === half)
      net.wire(nodes, 8)
      expect(nodes.length).toBe(30)
    }
    net.run(3_000)
    const during: Track[] = []
    for (let i = 0; i < 10; i++) {
      const { id } = net.pick(net.nodes).publish(topic, data)
      during.push(net.tracks.get(id) as Track)
      net.run(300)
    }
    net.run(8_000)
    for (const track of during) {
      const here = net.nodes.filter((node) => side.get(node.id) === side.get(track.source))
      expect(missing(track, here)).toEqual([])
      expect(track.got.size).toBe(29)
    }
    for (const [a, b] of cuts) net.connect(a, b)
    net.run(3_000)
    for (let i = 0; i < 10; i++) {
      const { id } = net.pick(net.nodes).publish(topic, data)
      net.run(300)
      during[i] = net.tracks.get(id) as Track
    }
    net.run(6_000)
    everybody(net, during)
  })
})

/** 39 quick nodes, and one with a line of so many Mbit/s. */
function withOneAt(mbit: number): { others: number[]; slow: number; queued: number; missed: string[] } {
  const net = new Net({ seed: 5, latencyMs: [20, 60] })
  const limits = { maxQueueBytes: 256 * 1024 }
  for (let i = 0; i < 39; i++) net.add({ ...small, limits, mbit: 100 })
  const slow = net.add({ ...small, limits, mbit })
  net.wire(net.nodes, 10)
  net.run(5_000)
  let queued = 0
  const fast = net.nodes.filter((node) => node !== slow)
  for (let i = 0; i < 100; i++) {
    net.pick(fast).publish(topic, new Uint8Array(20_000))
    net.run(100)
    for (const node of fast) queued = Math.max(queued, node.router.peer(slow.id)?.queue.bytes ?? 0)
  }
  net.run(10_000)
  const tracks = [...net.tracks.values()]
  const others = tracks.flatMap(({ got }) => [...got].filter(([node]) => node !== slow).map(([, ms]) => ms))
  const slowGot = tracks.filter(({ got }) => got.has(slow)).length
  return { others, slow: slowGot, queued, missed: tracks.flatMap((track) => missing(track, fast)) }
}

describe('a slow subscriber', () => {
  it('costs only itself: the others get everything as fast as without it, and the queues for it stay bounded', () => {
    const quick = withOneAt(100)
    const hindered = withOneAt(0.2)
    expect(quick.slow).toBe(100)
    expect(hindered.missed).toEqual([])
    expect(hindered.queued).toBeLessThanOrEqual(256 * 1024)
    // 25 kB/s of some 200 kB/s
    expect(hindered.slow).toBeLessThan(60)
    for (const share of [0.5, 0.99]) {
      expect(quantile(hindered.others, share)).toBeLessThan(1.3 * quantile(quick.others, share))
    }
  })
})

describe('old and new side by side', () => {
  it('versions 1.0 to 1.3 and floodsub are one network', () => {
    const net = new Net({ seed: 8 })
    for (let i = 0; i < 50; i++) net.add({ ...small, version: ([0, 10, 11, 12, 13] as const)[i % 5] as 13 })
    net.wire(net.nodes, 10)
    net.run(5_000)
    for (let i = 0; i < 20; i++) {
      net.pick(net.nodes).publish(topic, data)
      net.run(200)
    }
    net.run(6_000)
    everybody(net)
  })

  it('publishers that are not in the topic reach all who are, through their fanout', () => {
    const net = network(9, 40, 10, { params: { floodPublish: false } })
    const outside = Array.from({ length: 5 }, () => net.add({ params: { floodPublish: false } }))
    for (const node of outside) for (const to of net.shuffled(net.nodes.slice(0, 40)).slice(0, 8)) net.connect(node, to)
    net.run(3_000)
    for (let i = 0; i < 10; i++) {
      net.pick(outside).publish(topic, data)
      net.run(500)
    }
    net.run(6_000)
    everybody(net, net.tracks.values(), net.nodes.slice(0, 40))
    for (const node of outside) expect(node.got.size).toBe(0)
  })

  it('a message that peers refuse goes no further than one hop', () => {
    const net = network(10, 40, 10, { judge: (_, node) => (node.id === 'n0' ? 'accept' : 'reject') })
    net.run(3_000)
    const { recipients } = (net.nodes[0] as GossipNode).publish(topic, data)
    net.run(6_000)
    const [track] = net.tracks.values()
    expect(track?.got.size).toBe(0)
    expect(recipients.length).toBeGreaterThan(5)
    expect(net.nodes.filter((node) => node.router.duplicates > 0)).toEqual([])
  })
})
