import { describe, expect, it } from 'vitest'
import { fakeEnv, settle } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { MemoryNetwork, Road, memory, memoryWirePair } from '../../src/transport/memory.ts'
import type { TransportConnection } from '../../src/transport/transport.ts'
import { record, until, wireTable } from '../wire-table.ts'

wireTable('memory', () => {
  const [a, b] = memoryWirePair()
  return Promise.resolve({ a, b })
})

wireTable('memory, in pieces of 7 bytes', () => {
  const [a, b] = memoryWirePair({ pieceBytes: 7, highWaterBytes: 100 })
  return Promise.resolve({ a, b })
})

describe('a memory link with latency', () => {
  it('lets through what its rate allows, one write behind the other', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 50, bytesPerSecond: 1000 })
    const rb = record(b)
    a.put([new Uint8Array(100), new Uint8Array(200)])
    await env.clock.advance(149)
    expect(rb.size).toBe(0)
    await env.clock.advance(1)
    expect(rb.size).toBe(100)
    await env.clock.advance(200)
    expect(rb.size).toBe(300)
  })

  it('delivers when its clock says so, FIN and resets too', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 50 })
    const [ra, rb] = [record(a), record(b)]
    a.put([new Uint8Array(3)])
    await env.clock.advance(49)
    expect(rb.size).toBe(0)
    await env.clock.advance(1)
    expect(rb.size).toBe(3)
    await a.closeWrite()
    await env.clock.advance(49)
    expect(rb.ends).toEqual([])
    await env.clock.advance(1)
    expect(rb.ends).toEqual([undefined])
    b.abort()
    await env.clock.advance(49)
    expect(ra.ends).toEqual([])
    await env.clock.advance(1)
    expect(ra.ends.length).toBe(1)
    expect(env.clock.waiting).toBe(0)
  })

  it('a lost write comes later, and so does all behind it', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 10, lossRate: 1, retransmitMs: 100 })
    const rb = record(b)
    a.put([new Uint8Array(1)])
    await env.clock.advance(109)
    expect(rb.size).toBe(0)
    await env.clock.advance(1)
    expect(rb.size).toBe(1)
    a.abort()
    await env.clock.advance(10)
    expect(env.clock.waiting).toBe(0)
  })

  it('leaves no timer behind when it is aborted with bytes under way', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 10 })
    record(a)
    record(b)
    a.put([new Uint8Array(1)])
    b.put([new Uint8Array(1)])
    a.abort()
    await env.clock.advance(10)
    expect(env.clock.waiting).toBe(0)
    await b.closed
  })
})

describe('a closed road', () => {
  it('holds bytes, FIN and resets until it is open again', async () => {
    const env = fakeEnv()
    const road = new Road()
    const [a, b] = memoryWirePair({ env, latencyMs: 10, road })
    const [ra, rb] = [record(a), record(b)]
    a.put([new Uint8Array(3)])
    road.open = false
    await a.closeWrite()
    await env.clock.advance(60_000)
    expect([rb.size, rb.ends]).toEqual([0, []])
    road.open = true
    await settle()
    expect([rb.size, rb.ends]).toEqual([3, [undefined]])
    road.open = false
    b.abort()
    await env.clock.advance(60_000)
    expect(ra.ends).toEqual([])
    road.open = true
    expect(ra.ends.length).toBe(1)
    expect(env.clock.waiting).toBe(0)
  })

  it('keeps a dial waiting, which an abort ends', async () => {
    const road = new Road()
    const network = new MemoryNetwork({}, (from, to) => (from === 'cut off' && to === 7n ? { road } : {}))
    const listener = network.listen(multiaddr('/memory/7'), () => {})
    road.open = false
    const controller = new AbortController()
    const gone = new Error('gone')
    const dial = memory(network, 'cut off').dial(multiaddr('/memory/7'), { signal: controller.signal })
    const other = await memory(network, 'free').dial(multiaddr('/memory/7'), { signal: controller.signal })
    expect(other.kind).toBe('raw')
    controller.abort(gone)
    await expect(dial).rejects.toBe(gone)
    await listener.close()
  })
})

it('bytes arrive in a later turn, never inside put', async () => {
  const [a, b] = memoryWirePair()
  const rb = record(b)
  a.put([new Uint8Array(1)])
  expect(rb.size).toBe(0)
  await Promise.resolve()
  expect(rb.size).toBe(0)
  await settle()
  await until(() => rb.size === 1)
})

describe('a memory network', () => {
  const never = new AbortController().signal

  it('dials what listens, on a number of its own where asked for 0', async () => {
    const network = new MemoryNetwork()
    const [a, b] = [memory(network), memory(network)]
    const accepted: TransportConnection[] = []
    const listener = await a.listen(multiaddr('/memory/0'), (connection) => accepted.push(connection))
    const [at] = listener.addrs()
    if (at === undefined) throw new Error('no address')
    expect(a.canListen(multiaddr('/memory/0'))).toBe(true)
    expect(a.canDial(multiaddr('/memory/0'))).toBe(false)
    expect(a.canDial(at)).toBe(true)
    expect(a.canDial(multiaddr('/ip4/1.2.3.4/tcp/1'))).toBe(false)
    const dialled = await b.dial(at, { signal: never })
    const [other] = accepted
    if (dialled.kind !== 'raw' || other?.kind !== 'raw') throw new Error('not raw')
    expect(other.remoteAddr.equals(dialled.localAddr)).toBe(true)
    expect(dialled.remoteAddr.equals(at)).toBe(true)
    await dialled.stream.write(new Uint8Array([1]))
    expect(await other.stream.read()).toEqual(new Uint8Array([1]))
    await listener.close()
    await expect(b.dial(at, { signal: never })).rejects.toMatchObject({ code: 'unreachable' })
    dialled.stream.reset()
    expect((await other.stream.closed).by).toBe('remote')
  })

  it('refuses a number that is taken, gives it away after close', async () => {
    const transport = memory(new MemoryNetwork())
    const first = await transport.listen(multiaddr('/memory/5'), () => {})
    await expect(transport.listen(multiaddr('/memory/5'), () => {})).rejects.toBeInstanceOf(UnavailableError)
    await first.close()
    const second = await transport.listen(multiaddr('/memory/5'), () => {})
    await first.close()
    await expect(transport.listen(multiaddr('/memory/5'), () => {})).rejects.toMatchObject({ code: 'refused' })
    await second.close()
  })

  it('networks do not see each other; without one, all share the process', async () => {
    const listener = await memory().listen(multiaddr('/memory/77'), () => {})
    const at = multiaddr('/memory/77')
    const elsewhere = memory(new MemoryNetwork())
    await expect(elsewhere.dial(at, { signal: never })).rejects.toMatchObject({ code: 'unreachable' })
    expect((await memory().dial(at, { signal: never })).kind).toBe('raw')
    await listener.close()
  })

  it('an abort half-way ends the dial with its reason; the listener sees a reset', async () => {
    const env = fakeEnv()
    const transport = memory(new MemoryNetwork({ env, latencyMs: 30 }))
    const accepted: TransportConnection[] = []
    await transport.listen(multiaddr('/memory/1'), (connection) => accepted.push(connection))
    const controller = new AbortController()
    const dialling = transport.dial(multiaddr('/memory/1'), { signal: controller.signal })
    const caught = dialling.catch((error: unknown) => error)
    await env.clock.advance(45)
    const [connection] = accepted
    if (connection?.kind !== 'raw') throw new Error('not accepted')
    const reason = new Error('too late')
    controller.abort(reason)
    expect(await caught).toBe(reason)
    await env.clock.advance(30)
    await expect(connection.stream.read()).rejects.toThrow(/reset/)
    expect(env.clock.waiting).toBe(0)
  })
})
