import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, fromUtf8, toUtf8 } from '../src/bytes.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, UnavailableError } from '../src/errors.ts'
import { systemEnv, type Trace } from '../src/env.ts'
import { multiaddr } from '../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../src/node.ts'
import { generateKey } from '../src/peer/keys.ts'
import { BufferedStream } from '../src/stream.ts'
import { MemoryNetwork, memory } from '../src/transport/memory.ts'
import { tcp } from '../src/transport/tcp.ts'

const echoId = '/echo/1.0.0'

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode(options)
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

async function serveEcho(node: Node): Promise<void> {
  node.handle(echoId, async (stream) => {
    for await (const chunk of stream) await stream.write(chunk.slice())
    await stream.closeWrite()
  })
}

async function echo(node: Node, to: Parameters<Node['newStream']>[0], text: string): Promise<string> {
  const stream = await node.newStream(to, echoId)
  await stream.write(fromUtf8(text))
  await stream.closeWrite()
  return toUtf8(await new BufferedStream(stream).readAll(1 << 20))
}

const links = {
  memory: () => {
    const network = new MemoryNetwork()
    return (): NodeOptions => ({ transports: [memory(network)], listen: ['/memory/0'] })
  },
  tcp: () => (): NodeOptions => ({ transports: [tcp()], listen: ['/ip4/127.0.0.1/tcp/0'] }),
  'tcp over IPv6': () => (): NodeOptions => ({ transports: [tcp()], listen: ['/ip6/::1/tcp/0'] }),
}

function addrOf(node: Node): string {
  const [addr] = node.addrs()
  if (addr === undefined) throw new Error('the node does not listen')
  return addr.toString()
}

describe.each(Object.entries(links))('two nodes over %s', (_name, link) => {
  it('dial, identify, echo and ping in both directions', async () => {
    const options = link()
    const [a, b] = [await started(options()), await started(options())]
    await serveEcho(a)
    await serveEcho(b)
    const identified = new Promise<void>((resolve) => a.on('peer:identify', () => resolve()))
    const connection = await a.dial(addrOf(b))
    expect(connection.peer.equals(b.peerId)).toBe(true)
    expect(connection).toMatchObject({ direction: 'outbound', security: '/noise', muxer: '/yamux/1.0.0' })
    await identified
    expect(connection.protocols).toContain(echoId)
    expect(connection.agent).toMatch(/^rhiza\//)
    expect(await echo(a, b.peerId, 'there')).toBe('there')
    expect(await echo(b, a.peerId, 'and back')).toBe('and back')
    const times = await Array.fromAsync(a.ping(b.peerId, { count: 3 }))
    expect(times).toHaveLength(3)
    expect(a.connections()).toHaveLength(1)
    expect(b.connections(a.peerId)[0]?.direction).toBe('inbound')
  })

  it('tells identify who we are and how we see the peer', async () => {
    const options = link()
    const [a, b] = [await started(options()), await started(options())]
    const result = await a.identify(addrOf(b))
    expect(result.protocols).toEqual(b.protocols())
    expect(result.listenAddrs.map(String)).toEqual(b.addrs().map((x) => x.withoutPeer().toString()))
    expect(result.observedAddr?.toString()).toBe(a.connections()[0]?.localAddr.toString())
  })

  it('rejects a peer id that is not the one dialled, and keeps nothing', async () => {
    const options = link()
    const [a, b] = [await started(options()), await started(options())]
    const wrong = multiaddr(addrOf(b)).withoutPeer().withPeer(generateKey().publicKey.peerId)
    await expect(a.dial(wrong)).rejects.toMatchObject({ name: 'ProtocolError', code: 'wrong-peer' })
    expect(a.connections()).toHaveLength(0)
  })

  it('emits connect and disconnect once, with the reason of a close', async () => {
    const options = link()
    const [a, b] = [await started(options()), await started(options())]
    const seen: string[] = []
    b.on('peer:connect', () => seen.push('connect'))
    b.on('peer:disconnect', () => seen.push('disconnect'))
    const connection = await a.dial(addrOf(b))
    await a.hangUp(b.peerId)
    expect((await connection.closed).by).toBe('local')
    await expect.poll(() => seen).toEqual(['connect', 'disconnect'])
    expect(a.connections()).toHaveLength(0)
  })

  it('loses no stream when both dial at the same instant', async () => {
    const options = link()
    const [a, b] = [await started(options()), await started(options())]
    await serveEcho(a)
    await serveEcho(b)
    const rounds = _name === 'memory' ? 1_000 : 100
    for (let round = 0; round < rounds; round++) {
      const answers = await Promise.all([
        echo(a, addrOf(b), `a${round}`),
        echo(b, addrOf(a), `b${round}`),
        echo(a, addrOf(b), 'again'),
        echo(b, addrOf(a), 'again'),
      ])
      expect(answers).toEqual([`a${round}`, `b${round}`, 'again', 'again'])
      if (round % 2 === 0) await Promise.all([a.hangUp(b.peerId), b.hangUp(a.peerId)])
      else await a.hangUp(b.peerId)
      await expect.poll(() => a.connections().length + b.connections().length, { interval: 1 }).toBe(0)
    }
  }, 60_000)
})

async function pairOf(more: NodeOptions = {}): Promise<[Node, Node]> {
  const options = links.memory()
  return [await started({ ...options(), ...more }), await started({ ...options(), ...more })]
}

describe('a node', () => {
  it('opens nothing until start, listens once, and starts again after stop', async () => {
    const node = await createNode({ transports: [tcp()], listen: ['/ip4/127.0.0.1/tcp/0'] })
    expect(node.addrs()).toEqual([])
    await Promise.all([node.start(), node.start()])
    expect(node.addrs()).toHaveLength(1)
    await node.stop()
    await node.stop()
    expect(node.addrs()).toEqual([])
    await node.start()
    expect(node.addrs()).toHaveLength(1)
    await node.stop()
  })

  it('closes what it opened when one address can not be listened on', async () => {
    const taken = await started({ transports: [tcp()], listen: ['/ip4/127.0.0.1/tcp/0'] })
    const port = multiaddr(addrOf(taken)).value('tcp') ?? ''
    const node = await createNode({
      transports: [tcp()],
      listen: ['/ip4/127.0.0.1/tcp/0', `/ip4/127.0.0.1/tcp/${port}`],
    })
    await expect(node.start()).rejects.toMatchObject({ name: 'UnavailableError', code: 'refused' })
    expect(node.addrs()).toEqual([])
    await expect(createNode({ listen: ['/ip4/1.2.3.4/udp/1/quic-v1'] }).then((n) => n.start())).rejects.toMatchObject({
      code: 'no-transport',
    })
  })

  it('shares one dial among callers, and ends it when the last gives up', async () => {
    const [a, b] = await pairOf()
    const opened: unknown[] = []
    a.on('connection:open', (c) => opened.push(c))
    const connections = await Promise.all(Array.from({ length: 8 }, () => a.dial(addrOf(b))))
    expect(new Set(connections).size).toBe(1)
    expect(opened).toHaveLength(1)
    await a.hangUp(b.peerId)
    const controller = new AbortController()
    const dial = a.dial(addrOf(b), { signal: controller.signal })
    const reason = new Error('changed my mind')
    controller.abort(reason)
    await expect(dial).rejects.toBe(reason)
    await expect.poll(() => a.connections().length).toBe(0)
  })

  it('tries the addresses of one peer side by side, and keeps one connection', async () => {
    const network = new MemoryNetwork()
    const options = { transports: [memory(network)], listen: ['/memory/0'] }
    const [a, b] = [await started(options), await started(options)]
    const [silent] = network.listen(multiaddr('/memory/0'), () => {}).addrs()
    const bad = `${silent}/p2p/${b.peerId}`
    const dead = a.dial(bad)
    const byId = a.dial(b.peerId)
    const good = await a.dial(addrOf(b))
    expect(await dead).toBe(good)
    expect(await byId).toBe(good)
    expect(a.connections()).toHaveLength(1)
  })

  it('refuses options that make no sense', async () => {
    await expect(createNode({ maxConnections: -1 })).rejects.toBeInstanceOf(RangeError)
    await expect(createNode({ dialTimeoutMs: Number.NaN })).rejects.toBeInstanceOf(RangeError)
    await expect(createNode({ listen: ['nonsense'] })).rejects.toBeInstanceOf(TypeError)
  })

  it('tells its peers when a protocol comes or goes', async () => {
    const [a, b] = await pairOf()
    const connection = await a.dial(addrOf(b))
    await expect.poll(() => connection.protocols).not.toBeUndefined()
    await expect.poll(() => b.connections(a.peerId)[0]?.protocols).not.toBeUndefined()
    const heard: unknown[] = []
    a.on('peer:identify', ({ peer }) => heard.push(peer.toString()))
    b.handle(['/one/1.0.0', '/two/1.0.0'], () => {})
    b.unhandle('/two/1.0.0')
    await expect.poll(() => connection.protocols).toContain('/one/1.0.0')
    expect(connection.protocols).not.toContain('/two/1.0.0')
    expect(heard).toEqual([b.peerId.toString()])
    b.unhandle('/one/1.0.0')
    await expect.poll(() => connection.protocols, { timeout: 10_000 }).not.toContain('/one/1.0.0')
    await expect.poll(() => [...connection.streams, ...b.connections().flatMap((c) => c.streams)]).toEqual([])
  })

  it('knows a peer by its id in every text form', async () => {
    const [a, b] = await pairOf()
    await serveEcho(b)
    const bare = addrOf(b).split('/p2p/')[0] ?? ''
    const forms = [b.peerId.toString(), b.peerId.toCid('base32'), b.peerId.toCid('base36')]
    await expect(a.dial(forms[1] ?? '')).rejects.toMatchObject({ code: 'no-address' })
    for (const form of forms) {
      const connection = await a.dial(`${bare}/p2p/${form}`)
      for (const other of forms) {
        expect(await a.dial(other)).toBe(connection)
        expect(await echo(a, other, other)).toBe(other)
      }
      await a.hangUp(form)
      expect(a.connections()).toHaveLength(0)
    }
  })

  it('refuses a second handler, and answers na once it is gone', async () => {
    const [a, b] = await pairOf()
    await serveEcho(b)
    expect(() => b.handle(echoId, () => {})).toThrow(TypeError)
    expect(await echo(a, addrOf(b), 'x')).toBe('x')
    // What is asked already may be shared.
    await a.identify(b.peerId)
    b.unhandle(echoId)
    await a.identify(b.peerId)
    const error = await a.newStream(b.peerId, [echoId, '/other/1']).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UnavailableError)
    expect(error).toMatchObject({ code: 'no-protocol', tried: [{ what: echoId }, { what: '/other/1' }] })
  })

  it('tells a reader of an optimistic stream that the protocol is not there any more', async () => {
    const [a, b] = await pairOf()
    await serveEcho(b)
    await a.identify(addrOf(b))
    b.unhandle(echoId)
    const stream = await a.newStream(b.peerId, echoId)
    await stream.write(fromUtf8('hello'))
    await expect(stream.read()).rejects.toMatchObject({ code: 'no-protocol' })
  })

  it('falls back to the next protocol that the peer has', async () => {
    const [a, b] = await pairOf()
    await serveEcho(b)
    const stream = await a.newStream(addrOf(b), ['/new/2.0.0', echoId])
    expect(stream.protocol).toBe(echoId)
    stream.reset()
  })

  it('resets the stream of a handler that throws and hurts nobody else', async () => {
    const failures: unknown[] = []
    const trace: Trace = (what, fields) =>
      void (what === 'connection.inbound-stream-failed' && failures.push(fields['error']))
    const [a, b] = await pairOf({ env: systemEnv(trace) })
    await serveEcho(b)
    const boom = new Error('boom')
    b.handle('/bad/1', async (stream) => {
      await stream.read()
      throw boom
    })
    const stream = await a.newStream(addrOf(b), '/bad/1')
    await stream.write(fromUtf8('go'))
    await expect(stream.read()).rejects.toBeInstanceOf(ClosedError)
    expect(failures).toContain(boom)
    expect(await echo(a, b.peerId, 'still here')).toBe('still here')
  })

  it('bounds the inbound streams of one protocol', async () => {
    const [a, b] = await pairOf()
    b.handle('/hold/1', () => new Promise(() => {}), { maxInboundStreams: 2 })
    const streams = [await a.newStream(addrOf(b), '/hold/1'), await a.newStream(b.peerId, '/hold/1')]
    // The reset may come with the answer to the negotiation, or behind it.
    const third = a.newStream(b.peerId, '/hold/1').then((stream) => stream.read())
    await expect(third).rejects.toBeInstanceOf(ClosedError)
    streams[0]?.reset()
    await expect
      .poll(async () => {
        const next = await a.newStream(b.peerId, '/hold/1').catch(() => undefined)
        if (next === undefined) return 'reset'
        const state = await Promise.race([
          next.read().catch(() => 'reset'),
          new Promise((r) => setTimeout(() => r('open'), 20)),
        ])
        next.reset()
        return state
      })
      .toBe('open')
  })

  it('serves a protocol only over the transports it was bound to', async () => {
    const [a, b] = await pairOf()
    b.handle('/tcp-only/1', () => {}, { transports: ['tcp'] })
    await expect(a.newStream(addrOf(b), '/tcp-only/1')).rejects.toMatchObject({ code: 'no-protocol' })
  })

  it('bounds its connections', async () => {
    const network = new MemoryNetwork()
    const make = (more: NodeOptions = {}): Promise<Node> =>
      started({ transports: [memory(network)], listen: ['/memory/0'], ...more })
    const [a, b, c] = [await make({ maxConnections: 1 }), await make(), await make()]
    await a.dial(addrOf(b))
    await expect(a.dial(addrOf(c))).rejects.toBeInstanceOf(LimitError)
    await expect(c.dial(addrOf(a))).rejects.toThrow()
    expect(a.connections()).toHaveLength(1)
  })

  it('gives up on a peer that accepts and says nothing', async () => {
    const network = new MemoryNetwork()
    const silent = memory(network)
    const listener = await silent.listen(multiaddr('/memory/7'), () => {})
    onTestFinished(() => listener.close())
    const a = await started({ transports: [memory(network)], dialTimeoutMs: 50 })
    await expect(a.dial('/memory/7')).rejects.toBeInstanceOf(TimeoutError)
  })

  it('refuses a peer that sends garbage instead of a handshake', async () => {
    const network = new MemoryNetwork()
    const rude = memory(network)
    const listener = await rude.listen(multiaddr('/memory/8'), (connection) => {
      if (connection.kind === 'raw') void connection.stream.write(fromUtf8('GET / HTTP/1.1\r\n\r\n')).catch(() => {})
    })
    onTestFinished(() => listener.close())
    const a = await started({ transports: [memory(network)] })
    await expect(a.dial('/memory/8')).rejects.toBeInstanceOf(ProtocolError)
    await expect(a.dial('/memory/8')).rejects.toThrow('what listens at /memory/8 does not speak libp2p')
    await expect(a.dial('/memory/8')).rejects.toThrow('whether /ws belongs behind it')
  })

  it('says what is missing when it can not dial', async () => {
    const [a] = await pairOf()
    await expect(a.dial('/ip4/127.0.0.1/udp/1/quic-v1')).rejects.toMatchObject({ code: 'no-transport' })
    await expect(a.dial(generateKey().publicKey.peerId)).rejects.toMatchObject({ code: 'no-address' })
    await expect(a.dial(a.peerId)).rejects.toBeInstanceOf(TypeError)
    await expect(a.dial('/memory/999999')).rejects.toMatchObject({ name: 'UnavailableError' })
  })

  it('closes a spare connection only after its grace without streams, and keeps the other', async () => {
    const network = new MemoryNetwork()
    const options = (): NodeOptions => ({ transports: [memory(network)], listen: ['/memory/0'], spareGraceMs: 250 })
    const [a, b] = [await started(options()), await started(options())]
    await serveEcho(a)
    await serveEcho(b)
    await Promise.all([a.dial(addrOf(b)), b.dial(addrOf(a))])
    await expect.poll(() => a.connections().length, { interval: 5 }).toBe(2)
    await expect.poll(() => a.connections().length).toBe(1)
    await expect.poll(() => b.connections().length).toBe(1)
    expect(await echo(a, b.peerId, 'one left')).toBe('one left')
  })

  it('reports what it can do', async () => {
    const [a] = await pairOf()
    expect(a.capabilities()).toEqual({
      memory: true,
      tcp: false,
      websocket: false,
      quic: false,
      webtransport: false,
      webrtc: false,
      '/noise': true,
      '/tls/1.0.0': true,
      '/yamux/1.0.0': true,
      'crypto:native': true,
      'crypto:portable': false,
      'crypto:noble': false,
      'node-datachannel': false,
    })
    const other = await createNode({ transports: [tcp()], crypto: 'noble' })
    expect(other.capabilities()).toMatchObject({
      tcp: true,
      memory: false,
      'crypto:noble': true,
      'crypto:native': false,
    })
  })

  it.each(['portable', 'noble'] as const)('talks to a node that is forced to the %s primitives', async (crypto) => {
    const options = links.memory()
    const [a, b] = [await started({ ...options(), crypto }), await started(options())]
    await serveEcho(b)
    expect(await echo(a, addrOf(b), 'text')).toBe('text')
    expect(a.capabilities()).toMatchObject({ [`crypto:${crypto}`]: true, 'crypto:native': false })
  })

  it('carries large data in both directions at once', async () => {
    const [a, b] = await pairOf()
    await serveEcho(b)
    const stream = await a.newStream(addrOf(b), echoId)
    const block = Uint8Array.from({ length: 200_000 }, (_, i) => i % 251)
    const read = new BufferedStream(stream).readAll(1 << 26)
    for (let i = 0; i < 40; i++) await stream.write(block.slice())
    await stream.closeWrite()
    const all = await read
    expect(all.length).toBe(block.length * 40)
    expect(concat([all.subarray(block.length * 39)])).toEqual(block)
  })

  it('rejects everything under way when it stops', async () => {
    const [a, b] = await pairOf()
    b.handle('/hold/1', () => new Promise(() => {}))
    const stream = await a.newStream(addrOf(b), '/hold/1')
    const read = stream.read()
    const failed = expect(read).rejects.toBeInstanceOf(ClosedError)
    await a.stop()
    await failed
    await expect.poll(() => b.connections().length).toBe(0)
  })
})
