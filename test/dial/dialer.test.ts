/* Dialling as users do it: nodes on a memory network or on sockets, with an address book, names and a clock by hand. */
import { createServer, type Server } from 'node:net'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import type { Resolver } from '../../src/dial/resolve.ts'
import { systemResolver } from '../../src/dial/system-dns.ts'
import { fakeEnv, settle, systemEnv } from '../../src/env.ts'
import { TimeoutError, UnavailableError } from '../../src/errors.ts'
import { deferred } from '../../src/inbox.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { yamux } from '../../src/mux/yamux/yamux.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { memory, MemoryNetwork, memoryWirePair } from '../../src/transport/memory.ts'
import { tcp } from '../../src/transport/tcp.ts'
import type { Transport } from '../../src/transport/transport.ts'
import { nameServer } from './dns-server.ts'

const nodes: Node[] = []
const servers: Server[] = []

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode(options)
  nodes.push(node)
  await node.start()
  return node
}

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()))
  for (const server of servers.splice(0)) server.close()
})

const local = { transports: [tcp()], listen: ['/ip4/127.0.0.1/tcp/0'] }
const addrOf = (node: Node): string => String(node.addrs()[0])
const reasons = (error: unknown): [string, string][] => {
  if (!(error instanceof UnavailableError)) throw error
  return error.tried.map(({ what, reason }) => [what, reason instanceof Error ? reason.message : reason])
}

async function failure(promise: Promise<unknown>): Promise<[string, string][]> {
  return promise.then(
    () => {
      throw new Error('it came through')
    },
    (error: unknown) => reasons(error),
  )
}

/** Accepts and says nothing. */
async function silent(): Promise<{ addr: string; sockets: Set<unknown> }> {
  const sockets = new Set<unknown>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    socket.resume()
  })
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { addr: `/ip4/127.0.0.1/tcp/${(server.address() as AddressInfo).port}`, sockets }
}

/** A port that nobody listens at. */
async function closed(): Promise<string> {
  const { addr } = await silent()
  servers.at(-1)?.close()
  return addr
}

const broken = (): Promise<never> => Promise.reject(new Error('disk gone'))
const none = (): Promise<string[]> => Promise.resolve([])
const never = (): Promise<never> => new Promise(() => {})

describe('a dial of several addresses', () => {
  it('goes past dead and silent ones to the one that works, and leaves no socket', async () => {
    const [a, b] = [await started(local), await started(local)]
    const mute = await silent()
    const dead = await closed()
    const connection = await a.dial([mute.addr, dead, addrOf(b)])
    expect(connection.peer.equals(b.peerId)).toBe(true)
    expect(a.connections()).toEqual([connection])
    await expect.poll(() => mute.sockets.size).toBe(0)
  })

  it('keeps one connection when two answer in one moment', async () => {
    const listen = Array.from({ length: 6 }, () => '/ip4/127.0.0.1/tcp/0')
    const [a, b] = [await started(local), await started({ ...local, listen })]
    for (let round = 0; round < 20; round++) {
      const all = await Promise.all([a.dial(b.addrs()), a.dial(b.addrs().toReversed()), a.dial(String(b.addrs()[3]))])
      expect(new Set(all).size).toBe(1)
      expect(a.connections()).toHaveLength(1)
      await expect.poll(() => b.connections().length).toBe(1)
      await a.hangUp(b.peerId)
      await expect.poll(() => b.connections().length).toBe(0)
    }
  })

  it('takes in the first only when all answer in the same moment', async () => {
    const { peerId: peer } = generateKey().publicKey
    const gate = deferred<void>()
    let cut = 0
    const transport: Transport = {
      ...memory(new MemoryNetwork()),
      async dial(addr) {
        const [ours, theirs] = memoryWirePair()
        const muxer = yamux().create(ours, 'initiator', systemEnv())
        void yamux()
          .create(theirs, 'responder', systemEnv())
          .closed.then(() => cut++)
        await gate.promise
        return { kind: 'muxed', peer, muxer, security: 'none', localAddr: addr, remoteAddr: addr }
      },
    }
    const a = await started({ transports: [transport] })
    const opened: unknown[] = []
    a.on('connection:open', (connection) => opened.push(connection))
    const dial = a.dial([1, 2, 3, 4].map((n) => `/memory/${n}/p2p/${peer}`))
    await settle()
    gate.resolve()
    const connection = await dial
    expect(opened).toEqual([connection])
    expect(a.connections()).toEqual([connection])
    await expect.poll(() => cut).toBe(3)
    connection.abort()
  })

  it('says of every address why it did not do', async () => {
    const a = await started(local)
    const b = await started(local)
    const peer = generateKey().publicKey.peerId
    const dead = await closed()
    const addrs = [
      dead,
      '/ip4/127.0.0.1/udp/1/quic-v1',
      addrOf(a),
      '/ip4/0.0.0.0/tcp/1',
      String(multiaddr(addrOf(b)).withoutPeer()),
    ]
    const own = String(multiaddr(addrOf(a)).withoutPeer())
    addrs[2] = own
    const tried = await failure(a.dial(addrs.map((addr) => `${addr}/p2p/${peer}`)))
    expect(new Map(tried.map(([what, why]) => [addrs.find((addr) => what.startsWith(addr)), why]))).toEqual(
      new Map([
        [addrs[1], 'no transport can dial it'],
        [own, 'we listen there ourselves'],
        [addrs[3], 'the wildcard is the address of nobody'],
        [dead, expect.stringContaining('connection refused')],
        [addrs[4], expect.stringContaining(`got ${b.peerId}`)],
      ]),
    )
    expect(a.connections()).toEqual([])
  })

  it('is to one peer', async () => {
    const a = await started(local)
    const [p, q] = [generateKey(), generateKey()].map((key) => key.publicKey.peerId)
    await expect(a.dial([`/memory/1/p2p/${p}`, `/memory/1/p2p/${q}`])).rejects.toThrow('one dial is to one peer')
    await expect(a.dial([])).rejects.toBeInstanceOf(TypeError)
    await expect(a.dial(`/memory/1/p2p/${p}/p2p/${q}`)).rejects.toThrow('names two peers')
  })

  it.each(['/ip4/0.0.0.0', '/ip6/::', '/ip6/::ffff:0.0.0.0'])('is never to the wildcard %s', async (wildcard) => {
    const [a, b] = [await started(local), await started(local)]
    const at = `${wildcard}/tcp/${b.addrs()[0]?.value('tcp')}/p2p/${b.peerId}`
    expect(await failure(a.dial(at))).toEqual([[at, 'the wildcard is the address of nobody']])
  })

  it('takes for the peer what names none', async () => {
    const [a, b, c] = [await started(local), await started(local), await started(local)]
    const bare = String(multiaddr(addrOf(c)).withoutPeer())
    const connection = await a.dial([bare, addrOf(b)])
    expect(connection.peer.equals(b.peerId)).toBe(true)
  })

  it('ends when its time is up, and tells how far it came', async () => {
    const a = await started(local)
    const [one, two] = [await silent(), await silent()]
    const tried = await failure(a.dial([one.addr, two.addr], { timeoutMs: 100 }))
    expect(tried.map(([, why]) => why)).toEqual(['no answer until the end', 'no answer until the end'])
    await expect.poll(() => one.sockets.size + two.sockets.size).toBe(0)
    await expect(a.dial(one.addr, { timeoutMs: 50 })).rejects.toBeInstanceOf(TimeoutError)
    const reason = new Error('changed my mind')
    await expect(a.dial([one.addr, two.addr], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })
})

/** Counts the dials of each address. */
function counting(transport: Transport): Transport & { dials: Map<string, number> } {
  const dials = new Map<string, number>()
  return {
    ...transport,
    dials,
    dial(addr, options) {
      dials.set(String(addr), (dials.get(String(addr)) ?? 0) + 1)
      return transport.dial(addr, options)
    },
  }
}

describe('a dial by peer id', () => {
  const peer = generateKey().publicKey.peerId

  it('takes the addresses of the book, then searches the network', async () => {
    const b = await started(local)
    const asked: string[] = []
    const dead = await closed()
    const a = await started({
      ...local,
      addressesOf: async () => {
        asked.push('book')
        return [multiaddr(dead)]
      },
      findPeer: async () => {
        asked.push('network')
        return [multiaddr(dead), ...b.addrs()]
      },
    })
    const connection = await a.dial(b.peerId)
    expect(asked).toEqual(['book', 'network'])
    await a.hangUp(b.peerId)
    // dead is now left alone, and has not been dialled twice
    expect(await failure(a.dial(peer))).toEqual(expect.arrayContaining([[`${dead}/p2p/${peer}`, expect.any(String)]]))
    expect(connection.remoteAddr).toBeDefined()
  })

  it('may be by an address that says who and not where', async () => {
    const b = await started(local)
    const a = await started({ ...local, addressesOf: async () => b.addrs() })
    const connection = await a.dial(`/p2p/${b.peerId}`)
    expect(connection.peer.equals(b.peerId)).toBe(true)
    expect(await a.dial([multiaddr(`/p2p/${b.peerId}`)])).toBe(connection)
    await expect(a.dial(`/p2p/${peer}`)).rejects.toMatchObject({ code: 'unreachable' })
    const alone = await started(local)
    await expect(alone.dial(`/p2p/${b.peerId}`)).rejects.toMatchObject({ code: 'no-address' })
  })

  it('goes on when the book is broken', async () => {
    const b = await started(local)
    const a = await started({ ...local, addressesOf: broken, findPeer: async () => b.addrs() })
    expect((await a.dial(b.peerId)).peer.equals(b.peerId)).toBe(true)
    const alone = await started({ ...local, addressesOf: broken })
    expect(await failure(alone.dial(peer))).toEqual([[`looking for addresses of ${peer}`, 'disk gone']])
  })

  it('says that nobody knows an address', async () => {
    const a = await started({ ...local, addressesOf: async () => [] })
    await expect(a.dial(peer)).rejects.toMatchObject({ code: 'no-address' })
  })

  it('leaves an address alone that failed, unless told to', async () => {
    const network = new MemoryNetwork()
    const transport = counting(memory(network))
    const clock = fakeEnv().clock
    const addr = multiaddr('/memory/77')
    const a = await started({
      transports: [transport],
      env: { ...systemEnv(), clock },
      addressesOf: async () => [addr],
    })
    const count = (): number | undefined => transport.dials.get('/memory/77')
    await failure(a.dial(peer))
    expect(count()).toBe(1)
    expect(await failure(a.dial(peer))).toEqual([
      [`/memory/77/p2p/${peer}`, expect.stringContaining('left alone for 5 s')],
    ])
    expect(count()).toBe(1)
    await failure(a.dial(peer, { force: true }))
    expect(count()).toBe(2)
    // Whoever names the address gets it dialled.
    await expect(a.dial(addr.withPeer(peer))).rejects.toMatchObject({ code: 'unreachable' })
    expect(count()).toBe(3)
    await clock.advance(10_000)
    await failure(a.dial(peer))
    expect(count()).toBe(4)
    expect(clock.waiting).toBe(0)
  })

  it('keeps in mind that another peer answered at an address', async () => {
    const network = new MemoryNetwork()
    const transport = counting(memory(network))
    const clock = fakeEnv().clock
    await started({ transports: [memory(network)], listen: ['/memory/5'] })
    const a = await started({
      transports: [transport],
      env: { ...systemEnv(), clock },
      addressesOf: async () => [multiaddr('/memory/5')],
    })
    await failure(a.dial(peer))
    await clock.advance(600_000)
    expect((await failure(a.dial(peer)))[0]?.[1]).toContain('left alone')
    expect(transport.dials.get('/memory/5')).toBe(1)
  })

  it('ends with the node, also while it still searches', async () => {
    const a = await started({ ...local, addressesOf: () => new Promise<Multiaddr[]>(() => {}) })
    const dial = a.dial(peer)
    dial.catch(() => {})
    await settle()
    await a.stop()
    await expect(dial).rejects.toMatchObject({ code: 'stopped' })
  })
})

describe('a dial by name', () => {
  it('goes by the hosts of the machine', async () => {
    const [a, b] = [await started(local), await started(local)]
    const { peerId } = b
    const port = multiaddr(addrOf(b)).value('tcp')
    expect((await a.dial(`/dns4/localhost/tcp/${port}/p2p/${peerId}`)).remoteAddr.value('ip4')).toBe('127.0.0.1')
    await a.hangUp(peerId)
    expect((await a.dial(`/dns/localhost/tcp/${port}`)).peer.equals(peerId)).toBe(true)
  })

  it('follows dnsaddr records of a real name server to the peer that was meant', async () => {
    const [b, c] = [await started(local), await started(local)]
    const [port, elsewhere] = [b, c].map((node) => multiaddr(addrOf(node)).value('tcp'))
    const server = await nameServer({
      '_dnsaddr.boot.test': [
        `dnsaddr=/dnsaddr/one.test/p2p/${b.peerId}`,
        `dnsaddr=/dnsaddr/boot.test/p2p/${b.peerId}`,
        `dnsaddr=/ip4/127.0.0.1/tcp/${elsewhere}/p2p/${c.peerId}`,
        'v=spf1 -all',
      ],
      '_dnsaddr.one.test': [`dnsaddr=/dns4/host.test/tcp/${port}/p2p/${b.peerId}`],
      'host.test': ['127.0.0.1'],
    })
    const a = await started({ ...local, resolver: systemResolver({ servers: [server.at] }) })
    expect((await a.dial(`/dnsaddr/boot.test/p2p/${b.peerId}`)).peer.equals(b.peerId)).toBe(true)
    await a.hangUp(b.peerId)
    // Without a peer any of them will do.
    expect([String(b.peerId), String(c.peerId)]).toContain(String((await a.dial('/dnsaddr/boot.test')).peer))
    expect(await failure(a.dial('/dnsaddr/nowhere.test'))).toEqual([
      ['/dnsaddr/nowhere.test', 'the name _dnsaddr.nowhere.test does not exist; check its spelling'],
    ])
    server.close()
  })

  it('lets nobody be taken for the peer by a record that says so', async () => {
    const [a, b] = [await started(local), await started(local)]
    const peer = generateKey().publicKey.peerId
    const lie = [`dnsaddr=${String(multiaddr(addrOf(b)).withoutPeer())}/p2p/${peer}`]
    const resolver: Resolver = { resolve4: none, resolve6: none, resolveTxt: async () => lie }
    const c = await started({ ...local, resolver })
    const tried = await failure(c.dial(`/dnsaddr/a.b/p2p/${peer}`))
    expect(tried).toEqual([[expect.stringContaining(String(peer)), expect.stringContaining(`got ${b.peerId}`)]])
    expect(a.connections()).toEqual([])
  })

  it('ends with its deadline when the resolver never answers', async () => {
    const a = await started({ ...local, resolver: { resolve4: never, resolve6: never, resolveTxt: never } })
    await expect(a.dial('/dns4/a.b/tcp/1', { timeoutMs: 50 })).rejects.toBeInstanceOf(TimeoutError)
    const dial = a.dial('/dnsaddr/a.b')
    dial.catch(() => {})
    await settle()
    await a.stop()
    await expect(dial).rejects.toMatchObject({ code: 'stopped' })
  })
})
