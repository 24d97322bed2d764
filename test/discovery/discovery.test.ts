import { describe, expect, it, onTestFinished } from 'vitest'
import {
  bootstrap,
  createDiscovery,
  randomWalk,
  type Discovery,
  type Found,
  type FoundPeer,
} from '../../src/discovery/discovery.ts'
import { fakeEnv, settle, systemEnv, type Env, type FakeClock } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

async function started(network: MemoryNetwork, options: NodeOptions = {}): Promise<Node> {
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'], ...options })
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

/** A source of which the test says what it finds. */
function byHand(): Discovery & { say(found: Found): void } {
  const queue: Found[] = []
  let wake: (() => void) | undefined
  return {
    source: 'by-hand',
    say(found) {
      queue.push(found)
      wake?.()
    },
    async *find(_host, signal) {
      signal.addEventListener('abort', () => wake?.())
      while (!signal.aborted) {
        for (let one = queue.shift(); one !== undefined; one = queue.shift()) yield one
        await new Promise<void>((resolve) => (wake = resolve))
      }
    },
  }
}

/** Counts dials; those to `dead` ports fail. */
function counting(node: Node): { dials: string[]; node: Node } {
  const dials: string[] = []
  const dial = node.dial.bind(node)
  node.dial = (to, options) => {
    dials.push(String(to))
    return dial(to, options)
  }
  return { dials, node }
}

async function pass(clock: FakeClock, ms: number, stepMs = 250): Promise<void> {
  for (let at = 0; at < ms; at += stepMs) {
    await clock.advance(stepMs)
    await settle()
  }
}

const deadAddr = (port: number): string => `/memory/${port}/p2p/${generateKey().publicKey.peerId}`

describe('discovery', () => {
  it("dials what a user's own source finds, notes where it is and who said so", async () => {
    const network = new MemoryNetwork()
    const a = await started(network)
    const b = await started(network)
    const source = byHand()
    const discovery = createDiscovery(a, [source])
    onTestFinished(() => discovery.stop())
    const found: FoundPeer[] = []
    discovery.on('found', (one) => found.push(one))
    discovery.start()
    source.say({ peer: a.peerId, addrs: a.addrs() })
    source.say({ peer: b.peerId, addrs: b.addrs() })
    await expect.poll(() => a.connections(b.peerId).length).toBe(1)
    expect(found.map(({ peer, source: by }) => [peer.toString(), by])).toEqual([[b.peerId.toString(), 'by-hand']])
    await discovery.stop()
    const third = await started(network)
    source.say({ peer: third.peerId, addrs: third.addrs() })
    await settle()
    expect(found).toHaveLength(1)
  })

  it('names the source of an address in the address book', async () => {
    const network = new MemoryNetwork()
    const a = await started(network)
    const source = byHand()
    const discovery = createDiscovery(a, [source], { connectBelow: 0 })
    onTestFinished(() => discovery.stop())
    discovery.start()
    const { peerId } = generateKey().publicKey
    source.say({ peer: peerId, addrs: [multiaddr('/ip4/192.168.7.7/tcp/1').withPeer(peerId)] })
    await expect.poll(() => a.book.addrs(peerId)).toMatchObject([{ source: 'by-hand' }])
    expect(a.peers()).toEqual([])
  })

  it('never dials more than a few at a time, nor when enough are connected, nor one that failed again and again', async () => {
    const env = fakeEnv()
    const { node, dials } = counting(await started(new MemoryNetwork({ env }), { env }))
    let open = 0
    let most = 0
    node.dial = async (to) => {
      dials.push(String(to))
      most = Math.max(most, ++open)
      await new Promise((resolve) => void env.clock.setTimer(100, () => resolve(undefined)))
      open--
      throw new UnavailableError('unreachable', 'nobody there')
    }
    const source = byHand()
    const discovery = createDiscovery(node, [source], { maxDials: 3 })
    discovery.start()
    const peers = Array.from({ length: 100 }, () => generateKey().publicKey.peerId)
    for (const peer of peers) source.say({ peer, addrs: [multiaddr('/memory/7')] })
    await pass(env.clock, 1_000)
    expect(most).toBe(3)
    expect(dials).toHaveLength(3)
    const [first] = peers
    if (first === undefined) throw new Error('no peer')
    dials.length = 0
    for (let i = 0; i < 600; i++) {
      source.say({ peer: first, addrs: [multiaddr('/memory/7')] })
      await pass(env.clock, 1_000, 500)
    }
    // After 10, 20, 40, ... seconds.
    expect(dials.length).toBeGreaterThan(3)
    expect(dials.length).toBeLessThan(10)
    await discovery.stop()
  })

  it('goes on with the other sources when one breaks, and starts that one again', async () => {
    const env = fakeEnv()
    const node = await started(new MemoryNetwork({ env }), { env })
    let starts = 0
    const broken: Discovery = {
      source: 'broken',
      // oxlint-disable-next-line require-yield
      async *find() {
        starts++
        throw new Error('no such thing')
      },
    }
    const source = byHand()
    const discovery = createDiscovery(node, [broken, source], { connectBelow: 0 })
    const seen: string[] = []
    discovery.on('found', ({ source: by }) => seen.push(by))
    discovery.on('failed', ({ source: by, error }) => seen.push(`${by}: ${error.message}`))
    discovery.start()
    source.say({ peer: generateKey().publicKey.peerId, addrs: [] })
    await pass(env.clock, 60_000)
    expect(seen).toContain('broken: no such thing')
    expect(seen).toContain('by-hand')
    expect(starts).toBeGreaterThan(3)
    expect(starts).toBeLessThan(12)
    await discovery.stop()
  })

  it('refuses limits that are none', async () => {
    const node = await started(new MemoryNetwork())
    expect(() => createDiscovery(node, [], { maxDials: Number.NaN })).toThrow(RangeError)
  })
})

const none = (): Promise<string[]> => Promise.resolve([])

describe('bootstrap', () => {
  it('connects to those that answer, whether others do or not', async () => {
    const network = new MemoryNetwork()
    const a = await started(network)
    const b = await started(network)
    const c = await started(network)
    const [plain = ''] = c.addrs().map((addr) => addr.withoutPeer().toString())
    const discovery = createDiscovery(a, [bootstrap([deadAddr(9_999), ...b.addrs(), plain])])
    onTestFinished(() => discovery.stop())
    const found: FoundPeer[] = []
    discovery.on('found', (one) => found.push(one))
    discovery.start()
    await expect.poll(() => a.peers().length).toBe(2)
    await expect.poll(() => found.map(({ source }) => source)).toEqual(['bootstrap', 'bootstrap'])
    expect(found.map(({ peer }) => peer.toString()).toSorted()).toEqual([b, c].map((n) => String(n.peerId)).toSorted())
  })

  it('takes names: /dnsaddr leads to where the peer is', async () => {
    const network = new MemoryNetwork()
    const b = await started(network)
    const asked: string[] = []
    const resolver = {
      resolve4: none,
      resolve6: none,
      resolveTxt: (name: string) => {
        asked.push(name)
        return Promise.resolve(b.addrs().map((addr) => `dnsaddr=${addr}`))
      },
    }
    const a = await started(network, { resolver })
    const discovery = createDiscovery(a, [bootstrap([`/dnsaddr/entrance.test/p2p/${b.peerId}`])])
    onTestFinished(() => discovery.stop())
    discovery.start()
    await expect.poll(() => a.connections(b.peerId).length).toBe(1)
    expect(asked).toEqual(['_dnsaddr.entrance.test'])
  })

  it('dials again when a peer is lost, and waits ever longer for one that is not there', async () => {
    const env = fakeEnv()
    const { node, dials } = counting(await started(new MemoryNetwork({ env }), { env }))
    const discovery = createDiscovery(node, [bootstrap([deadAddr(9_999)])])
    discovery.start()
    await pass(env.clock, 10_000)
    const soon = dials.length
    expect(soon).toBeGreaterThan(2)
    await pass(env.clock, 1_800_000, 1_000)
    // Every 5 minutes in the end.
    expect(dials.length - soon).toBeGreaterThan(5)
    expect(dials.length - soon).toBeLessThan(25)
    await discovery.stop()
  })

  it('leaves the list alone when enough are connected', async () => {
    const env: Env = systemEnv()
    const network = new MemoryNetwork()
    const { node, dials } = counting(await started(network, { env }))
    const others = await Promise.all([1, 2, 3, 4].map(() => started(network)))
    for (const other of others) await node.dial(other.addrs()[0] ?? '')
    dials.length = 0
    const fifth = await started(network)
    const discovery = createDiscovery(node, [bootstrap(fifth.addrs(), { checkMs: 20 })])
    onTestFinished(() => discovery.stop())
    discovery.start()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(dials).toEqual([])
    await node.hangUp(others[0]?.peerId ?? '')
    await expect.poll(() => node.connections(fifth.peerId).length).toBe(1)
  })

  it('tries whom we met before when nobody of the list answers', async () => {
    const network = new MemoryNetwork()
    const a = await started(network)
    const b = await started(network)
    a.book.add(b.peerId, b.addrs(), { source: 'dial' })
    const discovery = createDiscovery(a, [bootstrap([deadAddr(9_999)])])
    onTestFinished(() => discovery.stop())
    discovery.start()
    await expect.poll(() => a.connections(b.peerId).length).toBe(1)
  })

  it('refuses what is no address', () => {
    expect(() => bootstrap(['nonsense'])).toThrow(TypeError)
  })
})

describe('a random walk', () => {
  it('finds whoever answers on the way to random keys, and waits while nobody can be asked', async () => {
    const env = fakeEnv()
    const node = await started(new MemoryNetwork({ env }), { env })
    const { peerId } = generateKey().publicKey
    const keys: string[] = []
    let empty = true
    const dht = {
      async closestPeers(key: Uint8Array): Promise<Found[]> {
        keys.push(key.join())
        if (empty) throw new UnavailableError('unreachable', 'the routing table is empty')
        return [{ peer: peerId, addrs: [] }]
      },
    }
    const discovery = createDiscovery(node, [randomWalk(dht, { firstMs: 1_000, intervalMs: 60_000 })], {
      connectBelow: 0,
    })
    const found: FoundPeer[] = []
    discovery.on('found', (one) => found.push(one))
    discovery.start()
    await pass(env.clock, 30_000)
    expect(found).toEqual([])
    expect(keys.length).toBeGreaterThan(2)
    expect(keys.length).toBeLessThan(8)
    empty = false
    await pass(env.clock, 300_000, 1_000)
    expect(found.length).toBeGreaterThan(2)
    expect(found.length).toBeLessThan(8)
    expect(found[0]).toMatchObject({ source: 'random-walk' })
    expect(new Set(keys).size).toBe(keys.length)
    await discovery.stop()
  })
})
