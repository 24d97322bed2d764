import { describe, expect, it, onTestFinished } from 'vitest'
import { FakeClock, systemEnv } from '../../../src/env.ts'
import { multiaddr, type Multiaddr } from '../../../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../../../src/node.ts'
import { openPeerRecord } from '../../../src/peer/envelope.ts'
import { generateKey } from '../../../src/peer/keys.ts'
import { Identify, identifyId, identifyPushId } from '../../../src/protocols/identify/wire.ts'
import { memoryRecords } from '../../../src/store/records.ts'
import { prefixed } from '../../../src/stream.ts'
import { MemoryNetwork, memory } from '../../../src/transport/memory.ts'
import type { Transport } from '../../../src/transport/transport.ts'

const patience = { timeout: 10_000, interval: 5 }

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode(options)
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

const addrOf = (node: Node): string => String(node.addrs()[0])
const known = (node: Node, of: Node): string[] => node.book.addrs(of.peerId).map(({ addr }) => String(addr))
const certified = (node: Node, of: Node): string[] =>
  node.book.addrs(of.peerId).flatMap((a) => (a.certified ? [String(a.addr)] : []))
const bare = (node: Node): string[] => node.addrs().map((a) => String(a.withoutPeer()))

const isIp = (addr: Multiaddr): boolean => addr.value('ip4') !== undefined

/** A network in which every node has an IP address, and one router stands before some of them. */
class Internet {
  readonly #network = new MemoryNetwork()
  readonly #listening = new Map<string, Multiaddr>()
  #from = ''

  /** A node at `ip`; where it listens, its router makes `outside` of it. */
  options(ip: string, { listen = [], outside, ...options }: NodeOptions & { outside?: string } = {}): NodeOptions {
    const inner = memory(this.#network)
    const transport: Transport = {
      name: 'tcp',
      canDial: isIp,
      canListen: isIp,
      dial: async (remoteAddr, bound) => {
        const at = this.#listening.get(String(remoteAddr))
        if (at === undefined) throw new Error(`nobody listens at ${remoteAddr}`)
        this.#from = ip
        const carrier = await inner.dial(at, bound)
        return { ...carrier, localAddr: multiaddr(`/ip4/${ip}/tcp/50000`), remoteAddr }
      },
      listen: async (localAddr, accept) => {
        const listener = await inner.listen(multiaddr('/memory/0'), (carrier) => {
          accept({ ...carrier, localAddr, remoteAddr: multiaddr(`/ip4/${this.#from}/tcp/50000`) })
        })
        const [at] = listener.addrs()
        if (at !== undefined) this.#listening.set(outside ?? String(localAddr), at)
        return { addrs: () => [localAddr], onAddrs: () => () => {}, close: () => listener.close() }
      },
    }
    return { ...options, listen, transports: [transport] }
  }
}

describe('identify', () => {
  it('puts the signed record of each into the address book of the other', async () => {
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const [a, b] = [await started(options), await started(options)]
    const { signedPeerRecord } = await a.identify(addrOf(b))
    expect(certified(a, b)).toEqual(bare(b))
    await expect.poll(() => certified(b, a), patience).toEqual(bare(a))
    expect(a.book.record(b.peerId)).toEqual(signedPeerRecord)
    expect(b.book.record(b.peerId)).toEqual(signedPeerRecord)
    expect((await openPeerRecord(signedPeerRecord ?? new Uint8Array(0))).peerId.equals(b.peerId)).toBe(true)
    // The same one again: nothing has changed.
    expect((await a.identify(b.peerId)).signedPeerRecord).toEqual(signedPeerRecord)
    expect(b.book.record(b.peerId)).toEqual(signedPeerRecord)
  })

  it('sends no record where there never was an address, and takes one back with an empty record', async () => {
    const network = new MemoryNetwork()
    const a = await started({ transports: [memory(network)], listen: ['/memory/0'] })
    const b = await started({ transports: [memory(network)] })
    await b.dial(addrOf(a))
    await expect.poll(() => a.peers(), patience).toHaveLength(1)
    expect((await a.identify(b.peerId)).signedPeerRecord).toBeUndefined()
    await b.book.seal([multiaddr('/ip4/192.0.2.1/tcp/1')])
    const { signedPeerRecord } = await a.identify(b.peerId)
    expect((await openPeerRecord(signedPeerRecord ?? new Uint8Array(0))).addrs).toEqual([])
  })

  it('finds a peer by its id alone, also after a restart with the same records', async () => {
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const records = memoryRecords()
    const privateKey = generateKey()
    const b = await started(options)
    const a = await started({ ...options, records, privateKey })
    await a.identify(addrOf(b))
    await a.hangUp(b.peerId)
    expect((await a.dial(b.peerId)).peer.equals(b.peerId)).toBe(true)
    await a.stop()
    const again = await started({ ...options, records, privateKey })
    expect(certified(again, b)).toEqual(bare(b))
    expect((await again.dial(b.peerId)).peer.equals(b.peerId)).toBe(true)
    // It listens elsewhere now: its number is higher than before, whatever the clock says.
    await expect.poll(() => certified(b, again), patience).toEqual(bare(again))
  })

  it('believes an unsigned list, but certifies nothing, and replaces it by the next one', async () => {
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const [a, b] = [await started(options), await started(options)]
    const said = ['/ip4/8.8.8.8/tcp/1', '/ip4/8.8.4.4/tcp/1'].map((text) => multiaddr(text))
    b.unhandle(identifyId)
    b.handle(identifyId, async (stream) => {
      const one = said.shift()
      await stream.write(...prefixed(Identify.encode({ listenAddrs: one === undefined ? [] : [one.bytes] })))
      await stream.closeWrite()
    })
    const connection = await a.dial(addrOf(b))
    const dialled = String(connection.remoteAddr)
    await expect.poll(() => known(a, b).toSorted(), patience).toEqual(['/ip4/8.8.8.8/tcp/1', dialled].toSorted())
    await a.identify(b.peerId)
    expect(known(a, b).toSorted()).toEqual(['/ip4/8.8.4.4/tcp/1', dialled].toSorted())
    // An empty list says nothing.
    await a.identify(b.peerId)
    expect(known(a, b)).toHaveLength(2)
    expect(certified(a, b)).toEqual([])
  })

  it('takes from a peer on the internet no address of its house', async () => {
    const world = new Internet()
    const announce = ['/ip4/10.0.0.5/tcp/1', '/ip4/127.0.0.1/tcp/1', '/ip4/9.9.9.9/tcp/1', '/dns4/x.org/tcp/1']
    const far = await started(world.options('9.9.9.9', { listen: ['/ip4/9.9.9.9/tcp/1'], announce }))
    const near = await started(world.options('8.8.8.8'))
    const neighbour = await started(world.options('10.0.0.6', { listen: ['/ip4/10.0.0.6/tcp/1'] }))
    await near.identify('/ip4/9.9.9.9/tcp/1')
    expect(certified(near, far).toSorted()).toEqual(['/dns4/x.org/tcp/1', '/ip4/9.9.9.9/tcp/1'])
    await far.dial('/ip4/10.0.0.6/tcp/1')
    // A reach of its own for each: to this one the connection comes from 9.9.9.9 as well.
    await expect.poll(() => certified(neighbour, far).toSorted(), patience).toEqual(certified(near, far).toSorted())
  })
})

async function pair(): Promise<{ a: Node; b: Node; clock: FakeClock; pushes: () => number }> {
  const network = new MemoryNetwork()
  const options = { transports: [memory(network)], listen: ['/memory/0'] }
  const clock = new FakeClock()
  const a = await started({ ...options, env: { ...systemEnv(), clock } })
  const b = await started(options)
  let pushes = -1
  b.on('peer:identify', () => pushes++)
  await a.identify(addrOf(b))
  // The first is the answer that b has asked for.
  await expect.poll(() => pushes, patience).toBe(0)
  return { a, b, clock, pushes: () => pushes }
}
const protocols = (node: Node): readonly string[] => node.connections()[0]?.protocols ?? []

describe('identify push', () => {
  it('is one for what changes together, and at most one in half a second', async () => {
    const { a, b, clock, pushes } = await pair()
    for (let i = 0; i < 10; i++) a.handle(`/first/${i}`, () => {})
    await expect.poll(() => protocols(b), patience).toContain('/first/9')
    expect(pushes()).toBe(1)
    for (let i = 0; i < 10; i++) {
      a.handle(`/second/${i}`, () => {})
      await clock.advance(40)
    }
    expect(pushes()).toBe(1)
    await clock.advance(100)
    await expect.poll(() => protocols(b), patience).toContain('/second/9')
    expect(pushes()).toBe(2)
    a.unhandle('/second/0')
    await clock.advance(500)
    await expect.poll(() => protocols(b), patience).not.toContain('/second/0')
    expect(pushes()).toBe(3)
  })

  it('that says only what has changed leaves the rest as it was', async () => {
    const { a, b } = await pair()
    const said = async (message: Parameters<typeof Identify.encode>[0]): Promise<void> => {
      const stream = await b.newStream(a.peerId, identifyPushId)
      await stream.write(...prefixed(Identify.encode(message)))
      await stream.closeWrite()
      while ((await stream.read()) !== null);
    }
    const connection = a.connections()[0]
    const [before, addrs] = [protocols(a), certified(a, b)]
    await said({ agentVersion: 'another/1' })
    expect(connection?.agent).toBe('another/1')
    expect(protocols(a)).toEqual(before)
    expect(certified(a, b)).toEqual(addrs)
    await said({ protocols: ['/only/1'] })
    expect(protocols(a)).toEqual(['/only/1'])
    expect(connection?.agent).toBe('another/1')
    expect(certified(a, b)).toEqual(addrs)
    await said({})
    expect(protocols(a)).toEqual(['/only/1'])
    expect(a.book.record(b.peerId)).toBeDefined()
  })

  it('is refused from a connection that sends too many, until a second has passed', async () => {
    const { a, b, clock } = await pair()
    const said = async (agentVersion: string): Promise<void> => {
      const stream = await b.newStream(a.peerId, identifyPushId)
      const sent = stream.write(...prefixed(Identify.encode({ agentVersion }))).then(() => stream.closeWrite())
      // A refusal may come before all is sent.
      await sent.catch(() => undefined)
      await stream.closed
    }
    const agent = (): string | undefined => a.connections()[0]?.agent
    for (let i = 1; i <= 20; i++) await said(`${i}`)
    expect(agent()).toBe('20')
    await said('one too many')
    expect(agent()).toBe('20')
    await clock.advance(1_000)
    await said('in time')
    expect(agent()).toBe('in time')
    await said('again too many')
    expect(agent()).toBe('in time')
  })

  it('leaves no timer behind when the node stops', async () => {
    const { a, b, clock } = await pair()
    a.handle('/one', () => {})
    await expect.poll(() => protocols(b), patience).toContain('/one')
    a.handle('/two', () => {})
    expect(clock.waiting).toBeGreaterThan(0)
    await a.stop()
    expect(clock.waiting).toBe(0)
  })

  it('goes to those alone who announced it', async () => {
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const [a, b] = [await started(options), await started(options)]
    b.unhandle(identifyPushId)
    let asked = 0
    await a.identify(addrOf(b))
    b.handle(identifyPushId, () => void asked++)
    // a hears of that by a push of b's, before it has anything to say itself.
    await expect.poll(() => a.connections()[0]?.protocols?.includes(identifyPushId), patience).toBe(true)
    expect(asked).toBe(0)
    a.handle('/new', () => {})
    await expect.poll(() => asked, patience).toBe(1)
  })
})

describe('observed addresses', () => {
  const inside = '/ip4/192.168.0.2/tcp/4001'
  const outside = '/ip4/8.1.1.1/tcp/4001'

  it('are announced, and pushed, once four groups of peers have seen them', async () => {
    const world = new Internet()
    const node = await started(world.options('8.1.1.1', { listen: [inside], outside }))
    const peers: Node[] = []
    for (let i = 1; i <= 4; i++) {
      expect(bare(node)).toEqual([inside])
      const peer = await started(world.options(`9.${i}.0.1`))
      peers.push(peer)
      await peer.dial(outside)
      await expect.poll(() => node.connections(peer.peerId)[0]?.protocols, patience).toBeDefined()
    }
    await expect.poll(() => bare(node), patience).toEqual([inside, outside])
    for (const peer of peers) await expect.poll(() => certified(peer, node), patience).toEqual([outside])
  })

  it('are not, however many peers of one group say so', async () => {
    const world = new Internet()
    const node = await started(world.options('8.1.1.1', { listen: [inside], outside }))
    for (let i = 1; i <= 8; i++) {
      const peer = await started(world.options(`9.1.${i}.1`))
      await peer.dial(outside)
      await expect.poll(() => node.connections(peer.peerId)[0]?.protocols, patience).toBeDefined()
    }
    expect(bare(node)).toEqual([inside])
  })
})
