import net from 'node:net'
import tls from 'node:tls'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { byteLength, concat, equals } from '../../src/bytes.ts'
import { fakeEnv, settle, systemEnv } from '../../src/env.ts'
import { LimitError, TimeoutError, UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { target, url } from '../../src/transport/websocket/address.ts'
import { platform as browser } from '../../src/transport/websocket/browser.ts'
import { maskedFrame } from '../../src/transport/websocket/node-wire.ts'
import { defaults, messageBytes, messages, type Settings } from '../../src/transport/websocket/options.ts'
import { tcp } from '../../src/transport/tcp.ts'
import type { Listener, RawConnection, TransportConnection } from '../../src/transport/transport.ts'
import { websocket, type WebSocketOptions, type WebSocketTransport } from '../../src/transport/websocket/websocket.ts'
import type { Wire } from '../../src/wire.ts'
import { certificate } from '../certificate.ts'
import { record, until, wireTable, type WirePair } from '../wire-table.ts'

const open: (() => unknown)[] = []
afterEach(async () => {
  for (const close of open.splice(0).toReversed()) await close()
})

const handles = (): number => process.getActiveResourcesInfo().filter((name) => /TCP|TLS|Timeout/.test(name)).length
const never = new AbortController().signal
const local = certificate(['localhost', '127.0.0.1'])
const trusting: WebSocketOptions = { tls: { ...local, ca: local.cert } }
const plain = '/ip4/127.0.0.1/tcp/0/ws'
const secure = '/ip4/127.0.0.1/tcp/0/tls/ws'

function raw(connection: TransportConnection): RawConnection {
  if (connection.kind !== 'raw') throw new Error('not raw')
  open.push(() => connection.stream.reset())
  return connection
}

interface Server {
  transport: WebSocketTransport
  listener: Listener
  accepted: RawConnection[]
  port: number
}

async function serve(addr: string, options: WebSocketOptions = trusting): Promise<Server> {
  const transport = websocket(options)
  const accepted: RawConnection[] = []
  const listener = await transport.listen(multiaddr(addr), (connection) => accepted.push(raw(connection)))
  open.push(() => listener.close())
  return { transport, listener, accepted, port: Number(listener.addrs()[0]?.value('tcp')) }
}

type Dial = (addr: string) => Promise<TransportConnection>
const dialWith =
  (options: WebSocketOptions = trusting): Dial =>
  (addr) =>
    websocket(options).dial(multiaddr(addr), { signal: never })
const dial = dialWith()

/** As a browser would, by the WebSocket that Node has too. */
const asBrowser =
  (options: Partial<Settings> = {}): Dial =>
  (addr) => {
    const to = target(multiaddr(addr))
    if (to === undefined) throw new Error(addr)
    const settings = {
      ...defaults,
      ...browser.defaults,
      env: systemEnv(),
      tls: {},
      reloads: new Set<never>(),
      ...options,
    }
    return browser.dial(to, multiaddr(addr), never, settings)
  }

interface Connected {
  dialled: RawConnection
  accepted: RawConnection
  server: Server
}

async function connect(addr: string, dialling: Dial = dial): Promise<Connected> {
  const server = await serve(addr)
  const dialled = raw(await dialling(String(server.listener.addrs()[0])))
  await until(() => server.accepted.length > 0)
  const [accepted] = server.accepted
  if (accepted === undefined) throw new Error('not accepted')
  return { dialled, accepted, server }
}

function wireOf({ stream }: RawConnection): Wire {
  const wire = stream.detach?.()
  if (wire === undefined) throw new Error('no fast lane')
  return wire
}

const ends = async (addr: string, dialling: Dial): Promise<[Wire, Wire]> => {
  const { dialled, accepted } = await connect(addr, dialling)
  return [wireOf(dialled), wireOf(accepted)]
}

for (const [name, addr] of [
  ['WebSocket', plain],
  ['WebSocket over TLS', secure],
] as const) {
  const dialler = async (): Promise<WirePair> => {
    const [a, b] = await ends(addr, dial)
    return { a, b }
  }
  const listener = async (): Promise<WirePair> => {
    const [b, a] = await ends(addr, dial)
    return { a, b }
  }
  wireTable(`${name}, the dialler first`, dialler, { halfClose: false })
  wireTable(`${name}, the listener first`, listener, { halfClose: false })
}

// Not the other way round: a platform's WebSocket can't be paused, so it never holds its peer up.
wireTable(
  'the WebSocket of a platform',
  async () => {
    const [a, b] = await ends(plain, asBrowser())
    return { a, b }
  },
  { halfClose: false, resets: false },
)

const sizes = (...chunks: number[]): number[] =>
  [...messages(chunks.map((size) => new Uint8Array(size)))].map((bytes) => bytes.length)

describe('a WebSocket wire', () => {
  it('puts small chunks into one message, and cuts large ones', () => {
    expect(sizes(1, 2, 0, 3)).toEqual([6])
    expect(sizes(0)).toEqual([])
    expect(sizes(5, 65_537, 5)).toEqual([5, 65_537, 5])
    expect(sizes(3 * messageBytes + 1)).toEqual([messageBytes, messageBytes, messageBytes, 1])
    expect(sizes(...Array.from({ length: 20 }, () => 16_384))).toEqual([messageBytes, messageBytes, 65_536])
  })

  it('keeps every byte in order, however it is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 40_000 }), { maxLength: 12 }), (sizes) => {
        const chunks = sizes.map((size, i) => new Uint8Array(size).fill(i))
        const out = [...messages(chunks)]
        expect(equals(concat(out), concat(chunks))).toBe(true)
        expect(out.every(({ length }) => length > 0 && length <= messageBytes)).toBe(true)
      }),
    )
  })

  it('masks a message of any length so that the peer has the same bytes', async () => {
    const [a, b] = await ends(plain, dial)
    record(a)
    const rb = record(b)
    const sent: Uint8Array[] = []
    for (const size of [1, 2, 3, 4, 5, 125, 126, 127, 65_535, 65_536, 65_537, messageBytes]) {
      const bytes = new Uint8Array(size).map((_, i) => (i * 31) >> 3)
      sent.push(bytes)
      a.put([bytes])
      await until(() => rb.size === byteLength(sent))
    }
    expect(equals(rb.all, concat(sent))).toBe(true)
    const zeros = new Uint8Array(200)
    const [one, two] = [maskedFrame(zeros), maskedFrame(zeros)]
    expect(equals(one.subarray(0, 4), two.subarray(0, 4))).toBe(true)
    expect(equals(one, two)).toBe(false)
  })

  it('gives back the memory of forgotten chunks once they are sent, and of no others', async () => {
    const [a, b] = await ends(plain, dial)
    record(a)
    const rb = record(b)
    const chunks = Array.from({ length: 4 }, (_, i) => new Uint8Array(65_537).fill(i))
    const kept = chunks.map((chunk) => chunk.slice())
    for (const chunk of chunks) a.put([chunk], chunk[0] !== 3)
    await until(() => rb.size === 4 * 65_537)
    expect(equals(rb.all, concat(kept))).toBe(true)
    await until(() => chunks.filter((chunk) => chunk.length > 0).length === 1)
    expect(chunks[3]).toEqual(kept[3])
  })

  it('is told of a peer that vanishes, once, with a typed error, in every state', async () => {
    for (const state of ['fresh', 'started', 'paused', 'closing'] as const) {
      const { dialled, accepted } = await connect(plain)
      const wire = wireOf(dialled)
      const ra = state === 'fresh' ? undefined : record(wire)
      if (state === 'paused') wire.pause()
      const closing = state === 'closing' ? wire.closeWrite() : undefined
      accepted.stream.reset()
      const info = await wire.closed
      if (state !== 'closing') {
        expect(info).toMatchObject({ by: 'remote', reason: { name: 'ClosedError', code: 'reset' } })
        expect((ra ?? record(wire)).ends).toEqual([expect.any(Error)])
        await expect(wire.closeWrite()).rejects.toBe(info.reason)
      }
      await closing?.catch(() => {})
    }
  })

  it('a sink that throws costs its connection, not the process', async () => {
    for (const dialling of [dial, asBrowser()]) {
      const [a, b] = await ends(plain, dialling)
      record(b)
      const reason = new Error('a defect')
      const ended: unknown[] = []
      a.start({
        data: () => {
          throw reason
        },
        end: (error) => ended.push(error),
        onRoom: () => {},
      })
      b.put([Uint8Array.of(1)])
      expect(await a.closed).toEqual({ by: 'local', code: 0, reason })
      expect(ended).toEqual([reason])
    }
  })

  it('in a browser, gives up on a peer that sends more than its unread bound', async () => {
    const [a, b] = await ends(plain, asBrowser({ maxUnreadBytes: 100_000 }))
    const ra = record(a)
    record(b)
    a.pause()
    for (let i = 0; i < 10; i++) b.put([new Uint8Array(10_000)])
    for (let i = 0; i < 20; i++) await settle()
    expect(ra.ends).toEqual([])
    b.put([new Uint8Array(1)])
    expect((await a.closed).reason).toBeInstanceOf(LimitError)
    expect(ra.ends).toEqual([(await a.closed).reason])
    expect((await b.closed).by).toBe('remote')
  })
})

describe('websocket addresses', () => {
  it('are known by their form', () => {
    const peer = '/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5'
    const dials: Record<string, string | undefined> = {
      '/ip4/1.2.3.4/tcp/1/ws': 'ws://1.2.3.4:1/',
      '/ip6/::1/tcp/1/ws': 'ws://[::1]:1/',
      '/ip6zone/lo/ip6/fe80::1/tcp/1/ws': 'ws://[fe80::1]:1/',
      '/dns4/example.com/tcp/1/ws': 'ws://example.com:1/',
      '/dns/example.com/ws': 'ws://example.com:80/',
      '/dns6/example.com/tls/ws': 'wss://example.com:443/',
      '/dns/example.com/tcp/1/tls/ws': 'wss://example.com:1/',
      '/dns/example.com/tcp/1/wss': 'wss://example.com:1/',
      '/ip4/1.2.3.4/tcp/1/tls/sni/example.com/ws': 'wss://example.com:1/',
      '/ip4/1.2.3.4/tcp/1/ws/http-path/a%2Fb%3Fc': 'ws://1.2.3.4:1/a/b%3Fc',
      [`/ip4/1.2.3.4/tcp/1/ws${peer}`]: 'ws://1.2.3.4:1/',
      [`/ip4/1.2.3.4/tcp/1/ws${peer}/p2p-circuit`]: undefined,
      '/ip4/1.2.3.4/tcp/1': undefined,
      '/ip4/1.2.3.4/udp/1/ws': undefined,
      '/ip4/1.2.3.4/tcp/1/tls': undefined,
      '/ip4/1.2.3.4/tcp/1/sni/x/ws': undefined,
      '/ip4/1.2.3.4/tcp/1/ws/ws': undefined,
      '/dnsaddr/example.com/ws': undefined,
      '/dns/user@example.com/tcp/1/ws': undefined,
      '/dns/example.com?x/tcp/1/ws': undefined,
      '/memory/1/ws': undefined,
    }
    for (const [text, want] of Object.entries(dials)) {
      const to = target(multiaddr(text))
      expect([text, to && url(to)]).toEqual([text, want])
      expect(websocket().canDial(multiaddr(text))).toBe(want !== undefined)
      expect([text, websocket().canListen(multiaddr(text))]).toEqual([
        text,
        want !== undefined && !text.startsWith('/dns'),
      ])
      expect(tcp().canDial(multiaddr(text))).toBe(text === '/ip4/1.2.3.4/tcp/1')
    }
  })
})

describe('websocket', () => {
  it.each([
    [plain, '/ws'],
    [secure, '/tls/ws'],
    ['/ip4/127.0.0.1/tcp/0/wss', '/tls/ws'],
    ['/ip4/127.0.0.1/tcp/0/ws/http-path/p2p%2Fhere', '/ws/http-path/p2p%2Fhere'],
  ])('dials and listens on %s: both ends agree on both addresses', async (addr, suffix) => {
    const { dialled, accepted, server } = await connect(addr)
    const at = `/ip4/127.0.0.1/tcp/${server.port}${suffix}`
    expect(server.listener.addrs().map(String)).toEqual([at])
    expect(dialled.remoteAddr.toString()).toBe(at)
    expect(accepted.localAddr.toString()).toBe(at)
    expect(accepted.remoteAddr.toString()).toBe(dialled.localAddr.toString())
    expect(accepted.remoteAddr.toString()).toMatch(/^\/ip4\/127\.0\.0\.1\/tcp\/\d+(\/tls)?\/ws/)
    await dialled.stream.write(Uint8Array.of(1, 2), Uint8Array.of(3))
    await dialled.stream.closeWrite()
    const got: number[] = []
    for await (const chunk of accepted.stream) got.push(...chunk)
    expect(got).toEqual([1, 2, 3])
    expect(await dialled.stream.read()).toBe(null)
    expect(await dialled.stream.closed).toEqual({ by: 'local', code: 0 })
    expect(await accepted.stream.closed).toEqual({ by: 'remote', code: 0 })
  })

  it('is dialled by a browser, which knows no addresses of its own', async () => {
    const { dialled, accepted, server } = await connect(plain, asBrowser())
    expect(dialled.remoteAddr.toString()).toBe(String(server.listener.addrs()[0]))
    await accepted.stream.write(Uint8Array.of(7))
    expect(await dialled.stream.read()).toEqual(Uint8Array.of(7))
  })

  it('proves by the certificate the name of /sni, the name of DNS, or the IP address', async () => {
    const named = certificate(['peer.example'])
    const tlsOptions = { tls: { ...named, ca: named.cert } }
    const { port } = await serve(secure, tlsOptions)
    const dialling = dialWith(tlsOptions)
    const there = raw(await dialling(`/ip4/127.0.0.1/tcp/${port}/tls/sni/peer.example/ws`))
    expect(there.remoteAddr.toString()).toBe(`/ip4/127.0.0.1/tcp/${port}/tls/sni/peer.example/ws`)
    for (const addr of [
      `/ip4/127.0.0.1/tcp/${port}/tls/ws`,
      `/ip4/127.0.0.1/tcp/${port}/tls/sni/other.example/ws`,
      `/dns4/localhost/tcp/${port}/wss`,
    ]) {
      await expect(dialling(addr)).rejects.toMatchObject({ code: 'unreachable' })
    }
    const server = await serve(secure)
    raw(await dial(`/dns4/localhost/tcp/${server.port}/wss`))
    raw(await dial(`/ip4/127.0.0.1/tcp/${server.port}/tls/ws`))
  })

  it('asks for the name of /sni or of DNS in its TLS hello, and for none with a bare IP address', async () => {
    const names: string[] = []
    const SNICallback = (name: string, done: (error: null) => void): void => {
      names.push(name)
      done(null)
    }
    const server = tls.createServer({ ...local, SNICallback }, (socket) => socket.on('error', () => {}).destroy())
    server.on('tlsClientError', () => {}).listen(0, '127.0.0.1')
    open.push(() => server.close())
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as net.AddressInfo
    for (const form of ['ip4/127.0.0.1', 'dns4/localhost']) {
      for (const end of ['tls/ws', 'tls/sni/peer.example/ws']) {
        await expect(dial(`/${form}/tcp/${port}/${end}`)).rejects.toBeInstanceOf(UnavailableError)
      }
    }
    expect(names).toEqual(['peer.example', 'localhost', 'peer.example'])
  })

  it('trusts nobody whom the platform does not, unless told to', async () => {
    const { port } = await serve(secure)
    const addr = `/ip4/127.0.0.1/tcp/${port}/tls/ws`
    await expect(dialWith({})(addr)).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('tls.ca') as string,
    })
    raw(await dialWith({ tls: { rejectUnauthorized: false } })(addr))
  })

  it('presents another certificate from the next connection on, and keeps the old one when the new is no pair', async () => {
    const { transport, port, accepted } = await serve(secure)
    const addr = `/ip4/127.0.0.1/tcp/${port}/tls/ws`
    const before = raw(await dial(addr))
    const renewed = certificate(['127.0.0.1'])
    expect(() => transport.setCertificate({ cert: renewed.cert, key: local.key })).toThrow(/key/)
    raw(await dial(addr))
    transport.setCertificate(renewed)
    await expect(dial(addr)).rejects.toThrow(/certificate/)
    raw(await dialWith({ tls: { ca: renewed.cert } })(addr))
    await until(() => accepted.length === 3)
    await before.stream.write(Uint8Array.of(5))
    expect(await accepted[0]?.stream.read()).toEqual(Uint8Array.of(5))
  })

  it('wants a certificate to listen with TLS', async () => {
    await expect(serve(secure, {})).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('tls: { cert, key }') as string,
    })
  })

  it('says that a port is taken, that nothing listens, and that something else does', async () => {
    const { listener, port } = await serve(plain)
    await expect(serve(`/ip4/127.0.0.1/tcp/${port}/ws`)).rejects.toThrow(/another program listens there/)
    await expect(dial(`/ip4/127.0.0.1/tcp/${port}/tls/ws`)).rejects.toThrow(/TLS/)
    await expect(dial(`/ip4/127.0.0.1/tcp/${port}/ws/http-path/elsewhere`)).rejects.toThrow(/HTTP 404/)
    await expect(asBrowser()(`/ip4/127.0.0.1/tcp/${port}/ws/http-path/elsewhere`)).rejects.toThrow(UnavailableError)
    await listener.close()
    for (const dialling of [dial, asBrowser()]) {
      const error: unknown = await dialling(`/ip4/127.0.0.1/tcp/${port}/ws`).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(UnavailableError)
      expect(error).toMatchObject({ code: 'unreachable' })
    }
    const ssh = net
      .createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-none\r\n'))
      .listen(0, '127.0.0.1')
    open.push(() => ssh.close())
    await new Promise((resolve) => ssh.once('listening', resolve))
    const other = (ssh.address() as net.AddressInfo).port
    await expect(dial(`/ip4/127.0.0.1/tcp/${other}/ws`)).rejects.toMatchObject({ code: 'unreachable' })
    await expect(dial(`/ip4/127.0.0.1/tcp/${other}/tls/ws`)).rejects.toMatchObject({ code: 'unreachable' })
  })

  it('ends a dial that is cut at any stage with the reason, and leaves nothing open', async () => {
    // Accepts, and says nothing: neither TLS nor HTTP gets an answer.
    const silent = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    const taken: net.Socket[] = []
    silent.on('connection', (socket: net.Socket) => taken.push(socket.resume()))
    open.push(() => silent.close())
    await new Promise((resolve) => silent.once('listening', resolve))
    const { port } = silent.address() as net.AddressInfo
    for (const form of ['ws', 'tls/ws']) {
      const addr = multiaddr(`/ip4/127.0.0.1/tcp/${port}/${form}`)
      const env = fakeEnv()
      const late = websocket({ env, dialTimeoutMs: 100 }).dial(addr, { signal: never })
      const caught = late.catch((error: unknown) => error)
      await until(() => taken.length === 1)
      await env.clock.advance(100)
      expect(await caught).toBeInstanceOf(TimeoutError)
      expect(env.clock.waiting).toBe(0)
      const controller = new AbortController()
      const dialling = websocket().dial(addr, { signal: controller.signal })
      await until(() => taken.length === 2)
      const reason = new Error('changed my mind')
      controller.abort(reason)
      await expect(dialling).rejects.toBe(reason)
      await expect(websocket().dial(addr, { signal: controller.signal })).rejects.toBe(reason)
      await until(() => taken.every((socket) => socket.readableEnded || socket.destroyed))
      for (const socket of taken.splice(0)) socket.destroy()
    }
  })

  it('close stops accepting at once, hangs up on those that wait, and leaves open connections alone', async () => {
    const { dialled, accepted, server } = await connect(plain)
    const waiting = net.connect(server.port, '127.0.0.1').on('error', () => {})
    await new Promise((resolve) => waiting.once('connect', resolve))
    await settle()
    await server.listener.close()
    await server.listener.close()
    await until(() => waiting.destroyed)
    await expect(dial(dialled.remoteAddr.toString())).rejects.toMatchObject({ code: 'unreachable' })
    await dialled.stream.write(Uint8Array.of(1))
    expect(await accepted.stream.read()).toEqual(Uint8Array.of(1))
  })

  it('a handler that throws costs that connection only', async () => {
    let calls = 0
    const listener = await websocket().listen(multiaddr(plain), (connection) => {
      calls++
      if (calls === 1) throw new Error('a defect')
      raw(connection)
    })
    open.push(() => listener.close())
    const addr = String(listener.addrs()[0])
    // The reset may come before or after the dial is done.
    const first = dial(addr).then((connection) => raw(connection).stream.read())
    await expect(first).rejects.toThrow(/reset|hung up|hang up|lost/)
    raw(await dial(addr))
    await until(() => calls === 2)
  })

  it('refuses options that make no sense', () => {
    expect(() => websocket({ dialTimeoutMs: 0 })).toThrow(RangeError)
    expect(() => websocket({ maxMessageBytes: Number.NaN })).toThrow(RangeError)
  })
})

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode({ transports: [tcp(), websocket(trusting)], ...options })
  open.push(() => node.stop())
  node.handle('/echo/1', async (stream) => {
    for await (const chunk of stream) await stream.write(chunk)
    await stream.closeWrite()
  })
  await node.start()
  return node
}

describe('nodes over WebSocket', () => {
  it.each([plain, secure])('identify, ping and carry a megabyte there and back over %s', async (addr) => {
    const before = handles()
    const server = await started({ listen: [addr] })
    const client = await started({})
    const [at = ''] = server.addrs().map(String)
    expect((await client.identify(at)).observedAddr?.toString()).toMatch(/\/ws$/)
    expect(client.connections()[0]).toMatchObject({ transport: 'websocket', security: '/noise' })
    expect(await Array.fromAsync(client.ping(at, { count: 2 }))).toHaveLength(2)
    const stream = await client.newStream(at, '/echo/1')
    const bytes = crypto.getRandomValues(new Uint8Array(65_536))
    const sending = (async () => {
      for (let i = 0; i < 16; i++) await stream.write(bytes.slice())
      await stream.closeWrite()
    })()
    let size = 0
    for await (const chunk of stream) size += chunk.length
    await sending
    expect(size).toBe(1 << 20)
    await client.stop()
    await server.stop()
    await until(() => handles() <= before)
  })

  it('are what createNode makes when it is told nothing', async () => {
    const server = await started({ listen: [plain], transports: undefined as never })
    const client = await createNode()
    open.push(() => client.stop())
    expect(await Array.fromAsync(client.ping(server.addrs()[0] ?? '', { count: 1 }))).toHaveLength(1)
  })
})
