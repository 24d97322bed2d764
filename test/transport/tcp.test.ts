import net from 'node:net'
import { networkInterfaces } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { concat, equals } from '../../src/bytes.ts'
import { fakeEnv, settle } from '../../src/env.ts'
import { ClosedError, TimeoutError, UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { SocketWire, tcp } from '../../src/transport/tcp.ts'
import type { Listener, RawConnection, TransportConnection } from '../../src/transport/transport.ts'
import { WireStream } from '../../src/wire.ts'
import { record, until, wireTable } from '../wire-table.ts'

const open: (() => unknown)[] = []
afterEach(async () => {
  for (const close of open.splice(0)) await close()
})

const hasIp6 = Object.values(networkInterfaces()).some((list) => list?.some((a) => a.family === 'IPv6') === true)
const tcpHandles = (): number => process.getActiveResourcesInfo().filter((name) => name.includes('TCP')).length
const never = new AbortController().signal
const transport = tcp()

function raw(connection: TransportConnection): RawConnection {
  if (connection.kind !== 'raw') throw new Error('not raw')
  open.push(() => connection.stream.reset())
  return connection
}

interface Server {
  listener: Listener
  accepted: RawConnection[]
}

async function serve(addr = '/ip4/127.0.0.1/tcp/0'): Promise<Server> {
  const accepted: RawConnection[] = []
  const listener = await transport.listen(multiaddr(addr), (connection) => accepted.push(raw(connection)))
  open.push(() => listener.close())
  return { listener, accepted }
}

async function connect(addr?: string): Promise<{ dialled: RawConnection; accepted: RawConnection; server: Server }> {
  const server = await serve(addr)
  const [at] = server.listener.addrs()
  if (at === undefined) throw new Error('no address')
  const dialled = raw(await transport.dial(at, { signal: never }))
  await until(() => server.accepted.length > 0)
  const [accepted] = server.accepted
  if (accepted === undefined) throw new Error('not accepted')
  return { dialled, accepted, server }
}

async function sockets(): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as net.AddressInfo
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve))
  const a = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const b = await accepted
  await new Promise<void>((resolve) => (a.connecting ? a.once('connect', () => resolve()) : resolve()))
  server.close()
  open.push(
    () => a.destroy(),
    () => b.destroy(),
  )
  return [a, b]
}

wireTable('socket', async () => {
  const [a, b] = await sockets()
  return { a: new SocketWire(a), b: new SocketWire(b) }
})

describe('a socket wire', () => {
  it('sends several chunks as one vectored write', async () => {
    const [a, b] = await sockets()
    const writes: number[] = []
    const writev = a._writev?.bind(a)
    a._writev = (chunks, done) => {
      writes.push(chunks.length)
      writev?.(chunks, done)
    }
    const wire = new SocketWire(a)
    const rb = record(new SocketWire(b))
    wire.put([new Uint8Array(10), new Uint8Array(20), new Uint8Array(0), new Uint8Array(30)])
    await until(() => rb.size === 60)
    expect(writes).toEqual([3])
  })

  it('gives back the memory of forgotten chunks once they are sent, and of no others', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    const rb = record(new SocketWire(b))
    const size = 1 << 20
    const chunks = Array.from({ length: 12 }, (_, i) => new Uint8Array(size).fill(i))
    const kept = chunks.map((chunk) => chunk.slice())
    // Much more than the kernel takes at once: most of it waits in this process.
    for (const chunk of chunks) wire.put([chunk, chunk.slice(0, 1)], chunk[0] !== 3)
    await until(() => rb.size === 12 * (size + 1))
    expect(equals(rb.all, concat(kept.flatMap((chunk) => [chunk, chunk.subarray(0, 1)])))).toBe(true)
    await until(() => chunks.filter((chunk) => chunk.length > 0).length === 1)
    expect(chunks[3]).toEqual(kept[3])
  })

  it('is told of a peer that vanishes, once, with a typed error', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    const ra = record(wire)
    b.resetAndDestroy()
    const info = await wire.closed
    expect(info.by).toBe('remote')
    expect(info.reason).toBeInstanceOf(ClosedError)
    expect(ra.ends).toEqual([info.reason])
    await expect(wire.closeWrite()).rejects.toBeInstanceOf(ClosedError)
  })

  it('tells a sink that starts too late why it is over', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    b.resetAndDestroy()
    await wire.closed
    const ra = record(wire)
    await until(() => ra.ends.length === 1)
    expect(ra.ends[0]).toBeInstanceOf(ClosedError)
  })

  it('tells a sink that starts too late of an end that was read before', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    b.end()
    // As a TLSSocket does for its handshake.
    a.read(0)
    await until(() => a.readableEnded)
    const ra = record(wire)
    await until(() => ra.ends.length === 1)
    expect(ra.ends).toEqual([undefined])
  })

  it('a closeWrite that never gets through rejects when the peer resets', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    const ra = record(wire)
    b.pause()
    while (wire.put([new Uint8Array(1 << 20)])) await setImmediate()
    for (let i = 0; i < 40; i++) wire.put([new Uint8Array(1 << 20)])
    const closing = wire.closeWrite()
    b.resetAndDestroy()
    await expect(closing).rejects.toBeInstanceOf(ClosedError)
    expect(ra.ends.length).toBe(1)
  })

  it('an abort on the heels of the FIN leaves no descriptor open, whatever waits', async () => {
    const before = tcpHandles()
    for (const size of [0, 10, 4_000_000]) {
      for (const turns of [0, 1, 3]) {
        const [a, b] = await sockets()
        const wire = new SocketWire(a)
        record(wire)
        wire.put([new Uint8Array(size)])
        wire.closeWrite().catch(() => {})
        for (let i = 0; i < turns; i++) await setImmediate()
        wire.abort()
        await wire.closed
        b.destroy()
      }
    }
    await until(() => tcpHandles() <= before)
  })

  it('a sink that throws costs its connection, not the process', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    const reason = new Error('a defect')
    const ends: unknown[] = []
    wire.start({
      data: () => {
        throw reason
      },
      end: (error) => ends.push(error),
      onRoom: () => {},
    })
    b.on('error', () => {})
    b.write('x')
    expect(await wire.closed).toEqual({ by: 'local', code: 0, reason })
    expect(ends).toEqual([reason])
  })

  it('a write that waits for room is freed by the closeWrite behind it', async () => {
    const [a, b] = await sockets()
    const stream = new WireStream(new SocketWire(a))
    b.pause()
    let writing = stream.write(new Uint8Array(8 << 20))
    writing = Promise.all([writing, stream.write(new Uint8Array(8 << 20))]).then(() => undefined)
    const closing = stream.closeWrite()
    b.resume()
    await closing
    await writing
  })

  it('resume before start loses nothing', async () => {
    const [a, b] = await sockets()
    const wire = new SocketWire(a)
    wire.pause()
    wire.resume()
    b.write('abc')
    for (let i = 0; i < 3; i++) await settle()
    const ra = record(wire)
    await until(() => ra.size === 3)
  })
})

describe('tcp', () => {
  it('knows which addresses are its own', () => {
    const dials: Record<string, boolean> = {
      '/ip4/1.2.3.4/tcp/1': true,
      '/ip6/::1/tcp/1': true,
      '/ip6zone/lo/ip6/fe80::1/tcp/1': true,
      '/dns/example.com/tcp/1': true,
      '/dns4/example.com/tcp/1': true,
      '/dns6/example.com/tcp/1': true,
      '/ip4/1.2.3.4/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5': true,
      '/dnsaddr/example.com': false,
      '/ip4/1.2.3.4/udp/1': false,
      '/ip4/1.2.3.4/tcp/1/ws': false,
      '/ip4/1.2.3.4/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit': false,
      '/memory/1': false,
    }
    for (const [text, yes] of Object.entries(dials)) {
      expect([text, transport.canDial(multiaddr(text))]).toEqual([text, yes])
      expect([text, transport.canListen(multiaddr(text))]).toEqual([text, yes && !text.startsWith('/dns')])
    }
  })

  it('dials and listens on IPv4: both ends agree on both addresses', async () => {
    const { dialled, accepted, server } = await connect()
    const [at] = server.listener.addrs()
    expect(at?.toString()).toMatch(/^\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*$/)
    expect(dialled.remoteAddr.toString()).toBe(at?.toString())
    expect(accepted.localAddr.toString()).toBe(at?.toString())
    expect(accepted.remoteAddr.toString()).toBe(dialled.localAddr.toString())
    await dialled.stream.write(new Uint8Array([1, 2]), new Uint8Array([3]))
    await dialled.stream.closeWrite()
    const got: number[] = []
    for await (const chunk of accepted.stream) got.push(...chunk)
    expect(got).toEqual([1, 2, 3])
    await accepted.stream.closeWrite()
    expect(await dialled.stream.read()).toBe(null)
    expect((await dialled.stream.closed).code).toBe(0)
    expect((await accepted.stream.closed).code).toBe(0)
  })

  it.runIf(hasIp6)('dials and listens on IPv6', async () => {
    const { dialled } = await connect('/ip6/::1/tcp/0')
    expect(dialled.remoteAddr.toString()).toMatch(/^\/ip6\/::1\/tcp\/\d+$/)
  })

  it('dials by name and reports the address behind it', async () => {
    const { listener } = await serve()
    const port = listener.addrs()[0]?.value('tcp')
    for (const kind of ['dns', 'dns4']) {
      const { remoteAddr } = raw(await transport.dial(multiaddr(`/${kind}/localhost/tcp/${port}`), { signal: never }))
      expect(remoteAddr.toString()).toBe(`/ip4/127.0.0.1/tcp/${port}`)
    }
  })

  it('a wildcard listens on every interface and says which', async () => {
    const { listener } = await serve('/ip4/0.0.0.0/tcp/0')
    const hosts = listener.addrs().map((a) => a.value('ip4'))
    expect(hosts).toContain('127.0.0.1')
    expect(hosts).not.toContain('0.0.0.0')
    expect(new Set(listener.addrs().map((a) => a.value('tcp'))).size).toBe(1)
  })

  it.runIf(hasIp6)('an IPv6 wildcard takes no IPv4, so both can have the same port', async () => {
    const { listener } = await serve('/ip6/::/tcp/0')
    const port = listener.addrs()[0]?.value('tcp')
    expect(listener.addrs().every((a) => a.has('ip6') && !a.toString().includes('fe80'))).toBe(true)
    const other = await serve(`/ip4/0.0.0.0/tcp/${port}`)
    expect(other.listener.addrs().length).toBeGreaterThan(0)
  })

  it('says that a port is taken, by whom and what to do', async () => {
    const { listener } = await serve()
    const [at] = listener.addrs()
    const error: unknown = await serve(at?.toString()).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UnavailableError)
    expect(error).toMatchObject({ code: 'refused' })
    expect(String(error)).toContain(`${at}: another program listens there`)
  })

  it('says that an address is not ours', async () => {
    await expect(serve('/ip4/192.0.2.1/tcp/0')).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('no interface of this machine has that address') as string,
    })
  })

  it('says that nothing listens there', async () => {
    const { listener } = await serve()
    const [at] = listener.addrs()
    await listener.close()
    if (at === undefined) throw new Error('no address')
    const dialling = transport.dial(at, { signal: never })
    await expect(dialling).rejects.toBeInstanceOf(UnavailableError)
    await expect(dialling).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('connection refused: nothing listens there') as string,
    })
  })

  it('says that a name does not exist', async () => {
    await expect(transport.dial(multiaddr('/dns4/nobody.invalid/tcp/1'), { signal: never })).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(/nobody\.invalid.*name/) as string,
    })
  })

  it('an abort ends a dial with its reason and leaves no socket', async () => {
    const { listener, accepted } = await serve()
    const [at] = listener.addrs()
    if (at === undefined) throw new Error('no address')
    for (let i = 0; i < 5; i++) await settle()
    const before = tcpHandles()
    const controller = new AbortController()
    const dialling = transport.dial(at, { signal: controller.signal })
    const reason = new Error('changed my mind')
    controller.abort(reason)
    await expect(dialling).rejects.toBe(reason)
    for (let i = 0; i < 5; i++) await settle()
    expect(tcpHandles()).toBe(before)
    expect(accepted).toEqual([])
    await expect(transport.dial(at, { signal: controller.signal })).rejects.toBe(reason)
  })

  it('a dial ends at its deadline and leaves no timer', async () => {
    const env = fakeEnv()
    const slow = tcp({ env, dialTimeoutMs: 100 })
    const dialling = slow.dial(multiaddr('/ip4/127.0.0.1/tcp/9'), { signal: never })
    const caught = dialling.catch((error: unknown) => error)
    const timer = env.clock.waiting
    void env.clock.advance(100)
    expect(timer).toBe(1)
    expect(await caught).toBeInstanceOf(TimeoutError)
    expect(env.clock.waiting).toBe(0)
  })

  it('close stops accepting at once and leaves open connections alone', async () => {
    const { dialled, accepted, server } = await connect()
    await server.listener.close()
    await server.listener.close()
    await expect(transport.dial(dialled.remoteAddr, { signal: never })).rejects.toMatchObject({ code: 'unreachable' })
    await dialled.stream.write(new Uint8Array([1]))
    expect(await accepted.stream.read()).toEqual(new Uint8Array([1]))
  })

  it('a handler that throws costs that connection only', async () => {
    let calls = 0
    const listener = await transport.listen(multiaddr('/ip4/127.0.0.1/tcp/0'), (connection) => {
      calls++
      if (calls === 1) throw new Error('a defect')
      raw(connection)
    })
    open.push(() => listener.close())
    const [at] = listener.addrs()
    if (at === undefined) throw new Error('no address')
    // The reset may come before or after the dial is done.
    const first = transport.dial(at, { signal: never }).then((connection) => raw(connection).stream.read())
    await expect(first).rejects.toThrow(/reset/)
    raw(await transport.dial(at, { signal: never }))
    await until(() => calls === 2)
  })

  it('refuses options that make no sense', () => {
    expect(() => tcp({ dialTimeoutMs: 0 })).toThrow(RangeError)
    expect(() => tcp({ highWaterBytes: Number.NaN })).toThrow(RangeError)
  })
})
