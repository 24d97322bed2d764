import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { concat, equals } from '../../../src/bytes.ts'
import { fakeEnv, settle, systemEnv, type Env, type FakeClock } from '../../../src/env.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError } from '../../../src/errors.ts'
import { createYamux, yamux, yamuxId, type YamuxOptions } from '../../../src/mux/yamux/yamux.ts'
import { pair, type Muxer, type Stream } from '../../../src/stream.ts'
import { StreamWire, type Wire } from '../../../src/wire.ts'
import { frame, readFrames } from './lab.ts'
import { MemoryWire } from './wires.ts'

const KiB = 1024
const MiB = 1024 * KiB
const stray: unknown[] = []
const note = (reason: unknown): void => void stray.push(reason)

beforeEach(() => {
  stray.length = 0
  process.on('unhandledRejection', note)
})
afterEach(async () => {
  await settle()
  process.off('unhandledRejection', note)
  expect(stray).toEqual([])
})

const kinds: [string, () => [Wire, Wire]][] = [
  ['a wire', () => MemoryWire.pair()],
  [
    'a stream',
    () => {
      const [a, b] = pair()
      return [new StreamWire(a), new StreamWire(b)]
    },
  ],
]

function join([a, b]: [Wire, Wire], options: YamuxOptions = {}, env: Env = fakeEnv()): [Muxer, Muxer] {
  return [
    createYamux(a, { role: 'initiator', env, ...options }),
    createYamux(b, { role: 'responder', env, ...options }),
  ]
}

async function opened(client: Muxer, server: Muxer): Promise<[Stream, Stream]> {
  const [ours, theirs] = await Promise.all([client.open(), server.accept()])
  if (theirs === null) throw new Error('not accepted')
  return [ours, theirs]
}

async function readAll(stream: Stream): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return concat(chunks)
}

function pattern(size: number): Uint8Array {
  const out = new Uint8Array(size)
  for (let i = 0; i < size; i++) out[i] = (i * 7) ^ (i >> 8)
  return out
}

const make = (options: YamuxOptions) => () => {
  const [a] = MemoryWire.pair()
  createYamux(a, { role: 'initiator', env: fakeEnv(), ...options })
}

/** One side by hand: what `bytes` make of a muxer that answers nothing by itself. */
function byHand(options: YamuxOptions & { role?: 'initiator' | 'responder' } = {}): {
  muxer: Muxer
  env: Env & { clock: FakeClock }
  say: (...frames: Uint8Array[]) => Promise<void>
  heard: () => string[]
  wire: MemoryWire
  traces: string[]
} {
  const env = fakeEnv()
  const traces: string[] = []
  env.trace = (what) => void traces.push(what)
  const [a, b] = MemoryWire.pair()
  const muxer = createYamux(a, { role: 'responder', env, ...options })
  const got: Uint8Array[] = []
  b.start({ data: (bytes) => (got.push(bytes), true), end: () => void b.closeWrite(), onRoom: () => {} })
  return {
    muxer,
    env,
    wire: b,
    traces,
    say: async (...frames) => {
      b.put(frames)
      await settle()
    },
    heard: () => readFrames(concat(got.splice(0))).filter((f) => !f.startsWith('ping SYN')),
  }
}

describe.each(kinds)('yamux over %s', (_, wires) => {
  it('carries bytes both ways, FIN by FIN', async () => {
    const [client, server] = join(wires())
    const [ours, theirs] = await opened(client, server)
    const [up, down] = [pattern(300_000), pattern(200_001)]
    const sent = Promise.all([
      ours.write(up).then(() => ours.closeWrite()),
      theirs.write(down).then(() => theirs.closeWrite()),
    ])
    const [gotDown, gotUp] = await Promise.all([readAll(ours), readAll(theirs)])
    await sent
    expect([equals(gotUp, up), equals(gotDown, down)]).toEqual([true, true])
    expect(await ours.closed).toEqual({ by: 'local', code: 0 })
    expect(await theirs.closed).toEqual({ by: 'local', code: 0 })
    expect(await ours.read()).toBeNull()
    await expect(ours.write(up)).rejects.toBeInstanceOf(ClosedError)
    await client.close()
  })

  it('makes the writer wait for a slow reader: 200 MiB offered, little held', async () => {
    const [client, server] = join(wires())
    const [ours, theirs] = await opened(client, server)
    const chunk = new Uint8Array(64 * KiB)
    let written = 0
    const writing = (async () => {
      for (; written < 200 * MiB; written += chunk.length) await ours.write(chunk)
    })()
    const lost = expect(writing).rejects.toBeInstanceOf(ClosedError)
    await settle()
    await settle()
    // Its queue, the initial window and what the wires hold.
    expect(written).toBeLessThan(2 * MiB)
    let read = 0
    while (read < 3 * MiB) read += (await theirs.read())?.length ?? 0
    await settle()
    await settle()
    expect(written - read).toBeLessThan(3 * MiB)
    expect(written).toBeGreaterThanOrEqual(read)
    // Another stream is not held up by it.
    const [other, there] = await opened(client, server)
    await other.write(Uint8Array.of(42))
    expect(await there.read()).toEqual(Uint8Array.of(42))
    theirs.reset(5)
    await lost
    expect((await ours.closed).code).toBe(5)
    await client.close()
  })

  it('serves many streams at once', async () => {
    const [client, server] = join(wires())
    const serving = (async () => {
      for (let s = await server.accept(); s !== null; s = await server.accept()) {
        const stream = s
        void readAll(stream).then(async (all) => {
          await stream.write(all)
          await stream.closeWrite()
        })
      }
    })()
    await Promise.all(
      Array.from({ length: 500 }, async (__, i) => {
        const stream = await client.open()
        const message = pattern(i * 10 + 1)
        await stream.write(message)
        await stream.closeWrite()
        expect(equals(await readAll(stream), message)).toBe(true)
      }),
    )
    await client.close()
    await serving
    expect(await client.closed).toEqual({ by: 'local', code: 0 })
    expect(await server.closed).toEqual({ by: 'remote', code: 0 })
    expect([client.bytesIn, client.bytesOut]).toEqual([server.bytesOut, server.bytesIn])
    expect(client.rttMs).toBeDefined()
  })

  it('ends pending reads, writes, opens and accepts when the wire breaks', async () => {
    const [a, b] = wires()
    const [client, server] = join([a, b], { ackBacklog: 1 })
    const [ours, theirs] = await opened(client, server)
    const blocked = await client.open()
    const ends = [
      expect(ours.read()).rejects.toBeInstanceOf(ClosedError),
      expect(blocked.write(new Uint8Array(MiB))).rejects.toBeInstanceOf(ClosedError),
      expect(client.open()).rejects.toBeInstanceOf(ClosedError),
      expect(theirs.read()).rejects.toBeInstanceOf(ClosedError),
    ]
    await server.accept()
    const accepting = server.accept()
    b.abort(new Error('cable cut'))
    server.abort()
    await Promise.all(ends)
    expect(await accepting).toBeNull()
    expect((await client.closed).by).toBe('transport')
    await expect(client.open()).rejects.toBeInstanceOf(ClosedError)
  })

  it('leaves no timer behind once it is closed', async () => {
    const env = fakeEnv()
    const [client, server] = join(wires(), {}, env)
    await opened(client, server)
    expect(env.clock.waiting).toBe(2)
    await client.close()
    await server.closed
    expect(env.clock.waiting).toBe(0)
  })
})

describe('yamux streams', () => {
  it('send the ACK on the reply of a handler that answers at once', async () => {
    const { muxer, say, heard } = byHand()
    const echo = muxer.accept().then(async (stream) => {
      const bytes = await stream?.read()
      await stream?.write(bytes ?? new Uint8Array(0))
      await stream?.closeWrite()
    })
    await say(frame('data SYN', 1, Uint8Array.of(1, 2, 3)), frame('window FIN', 1))
    await echo
    expect(heard()).toEqual(['data ACK 1 3', 'window FIN 1 0'])
  })

  it('reset both directions, once, with a code the other side sees', async () => {
    const [client, server] = join(MemoryWire.pair())
    const [ours, theirs] = await opened(client, server)
    const why = new Error('had enough')
    const reads = [
      expect(ours.read()).rejects.toBe(why),
      expect(theirs.read()).rejects.toMatchObject({ code: 'reset', info: { by: 'remote', code: 77 } }),
    ]
    ours.reset(77, why)
    ours.reset(78)
    await Promise.all(reads)
    expect(await ours.closed).toEqual({ by: 'local', code: 77, reason: why })
    expect(await theirs.closed).toMatchObject({ by: 'remote', code: 77 })
    await expect(theirs.write(Uint8Array.of(1))).rejects.toBeInstanceOf(ClosedError)
    await theirs.closeWrite()
    await client.close()
  })

  it('may be reset after they ended, without harm', async () => {
    const [client, server] = join(MemoryWire.pair(), { maxInboundStreams: 1 })
    for (let i = 0; i < 3; i++) {
      const [ours, theirs] = await opened(client, server)
      await Promise.all([ours.closeWrite(), theirs.closeWrite(), ours.closed, theirs.closed])
      ours.reset(1)
      theirs.reset(1)
      theirs.reset(1)
    }
    await client.close()
  })

  it('discard after closeRead, credit what comes, and go on writing', async () => {
    const [client, server] = join(MemoryWire.pair())
    const [ours, theirs] = await opened(client, server)
    ours.closeRead()
    expect(await ours.read()).toBeNull()
    for (let i = 0; i < 64; i++) await theirs.write(new Uint8Array(64 * KiB))
    await theirs.closeWrite()
    await ours.write(Uint8Array.of(9))
    await ours.closeWrite()
    expect(await readAll(theirs)).toEqual(Uint8Array.of(9))
    await Promise.all([ours.closed, theirs.closed])
    await client.close()
  })

  it('own a huge chunk without a copy, and cut it into frames', async () => {
    const [a, b] = MemoryWire.pair({}, true)
    const [client, server] = join([a, b])
    const [ours, theirs] = await opened(client, server)
    const chunk = pattern(3 * MiB)
    const writing = ours.write(chunk)
    const got: Uint8Array[] = []
    for (let size = 0; size < chunk.length; size += got.at(-1)?.length ?? 0)
      got.push((await theirs.read()) as Uint8Array)
    await writing
    expect(equals(concat(got), chunk)).toBe(true)
    for (const put of a.puts ?? [])
      for (const piece of put) if (piece.length > 1000) expect(piece.buffer).toBe(chunk.buffer)
    await client.close()
  })

  it('resolve closeWrite only when the FIN has left', async () => {
    const { muxer, say, heard } = byHand({ role: 'initiator' })
    const stream = await muxer.open()
    await stream.write(new Uint8Array(200 * KiB))
    void stream.write(new Uint8Array(100 * KiB))
    let left = false
    const closing = stream.closeWrite().then(() => (left = true))
    await settle()
    expect(left).toBe(false)
    await say(frame('window ACK', 1, 100 * KiB))
    await closing
    expect(heard().at(-1)).toBe('window FIN 1 0')
    await stream.closeWrite()
    muxer.abort()
  })

  it('hold small pieces compactly while nobody reads', async () => {
    const { muxer, say } = byHand()
    const accepting = muxer.accept()
    await say(frame('window SYN', 1))
    const stream = await accepting
    const piece = frame('data', 1, Uint8Array.of(7))
    const many = concat(Array.from({ length: 5000 }, () => piece))
    for (let i = 0; i < 8; i++) await say(many)
    let [chunks, size] = [0, 0]
    for (; size < 40_000; chunks++) size += (await stream?.read())?.length ?? 0
    expect(size).toBe(40_000)
    expect(chunks).toBeLessThan(10)
    muxer.abort()
  })
})

describe('yamux connections', () => {
  it('refuse to open when the signal has aborted, and stop waiting when it does', async () => {
    const { muxer, say, heard } = byHand({ role: 'initiator', ackBacklog: 1 })
    await expect(muxer.open({ signal: AbortSignal.abort(new Error('early')) })).rejects.toThrow('early')
    await muxer.open()
    const control = new AbortController()
    const waiting = muxer.open({ signal: control.signal })
    const next = muxer.open()
    const late = expect(waiting).rejects.toThrow('late')
    control.abort(new Error('late'))
    await late
    await settle()
    await say(frame('window ACK', 1))
    await next
    await settle()
    expect(heard()).toEqual(['window SYN 1 0', 'window SYN 3 0'])
    muxer.abort()
  })

  it('open 257 at once only after an ACK', async () => {
    const { muxer, say } = byHand({ role: 'initiator' })
    let count = 0
    for (let i = 0; i < 257; i++) void muxer.open().then(() => count++)
    await settle()
    expect(count).toBe(256)
    await say(frame('window ACK', 3))
    expect(count).toBe(257)
    muxer.abort()
  })

  it('refuse stream 257 that nobody accepts and trace the limit', async () => {
    const { muxer, say, heard, traces } = byHand()
    await say(...Array.from({ length: 257 }, (_, i) => frame('window SYN', 2 * i + 1)))
    expect(heard()).toEqual(['window RST 513 4098'])
    expect(traces).toEqual(['yamux.refused'])
    muxer.abort()
  })

  it('never give out streams that are reset in the same breath', async () => {
    const { muxer, say } = byHand()
    let given: unknown = undefined
    void muxer.accept().then((stream) => (given = stream))
    await say(concat([1, 3, 5].flatMap((id) => [frame('window SYN', id), frame('window RST', id)])))
    await settle()
    expect(given).toBeUndefined()
    await say(frame('window SYN', 7), frame('window SYN', 9))
    await settle()
    expect(given).toBeDefined()
    expect(await muxer.accept()).not.toBe(given)
    muxer.abort()
  })

  it('forget streams that are reset before anybody accepts them', async () => {
    const { muxer, say } = byHand({ abandonedStreams: 10_000 })
    for (let i = 0; i < 1000; i++)
      await say(frame(i % 2 === 0 ? 'window SYN' : 'window SYN FIN', 2 * i + 1), frame('window RST', 2 * i + 1))
    await say(frame('data SYN FIN', 5001, Uint8Array.of(1)), frame('window RST', 5001))
    const stream = await muxer.accept()
    expect(await stream?.read()).toEqual(Uint8Array.of(1))
    muxer.abort()
  }, 20_000)

  it('reset the stream that would pass maxUnreadBytes with a LimitError', async () => {
    const { muxer, say, traces } = byHand({ maxUnreadBytes: 1000 })
    const accepting = muxer.accept()
    await say(frame('window SYN', 1))
    const stream = await accepting
    await say(frame('data', 1, new Uint8Array(1001)))
    await expect(stream?.read()).rejects.toBeInstanceOf(LimitError)
    expect((await stream?.closed)?.by).toBe('local')
    expect(traces).toEqual(['yamux.limit'])
    muxer.abort()
  })

  it('say go away and close after a violation', async () => {
    const { muxer, say, heard, env } = byHand()
    const accepting = muxer.accept()
    await say(frame('window SYN', 1))
    const stream = await accepting
    heard()
    const broken = expect(stream?.read()).rejects.toMatchObject({ code: 'flow-control' })
    await say(frame('data', 1, 256 * KiB + 1))
    await broken
    expect(heard()).toEqual(['goaway 0 1'])
    const info = await muxer.closed
    expect([info.by, info.code]).toEqual(['local', 0x1003])
    expect(info.reason).toBeInstanceOf(ProtocolError)
    expect(env.clock.waiting).toBe(0)
  })

  it('take a go away with a code for the end', async () => {
    const { muxer, say } = byHand({ role: 'initiator' })
    const stream = await muxer.open()
    const broken = expect(stream.read()).rejects.toMatchObject({
      message: 'connection closed by the remote: 0x1006 shutdown',
    })
    await say(frame('goaway', 0, 0x1006))
    await broken
    const { by, code, reason } = await muxer.closed
    expect([by, code, reason?.message]).toEqual(['remote', 0x1006, 'connection closed by the remote: 0x1006 shutdown'])
    expect(await stream.closed).toMatchObject({ by: 'remote', code: 0x1007, reason })
  })

  it('finish what is open after a go away without a code', async () => {
    const { muxer, say } = byHand({ role: 'initiator' })
    const stream = await muxer.open()
    await settle()
    await say(frame('goaway', 0, 0))
    await expect(muxer.open()).rejects.toBeInstanceOf(ClosedError)
    await stream.write(Uint8Array.of(1))
    await say(frame('data ACK', 1, Uint8Array.of(2)))
    expect(await stream.read()).toEqual(Uint8Array.of(2))
    muxer.abort()
  })

  it('end when a keep-alive ping stays without reply', async () => {
    const { muxer, env, heard } = byHand()
    await env.clock.advance(30_000)
    heard()
    await env.clock.advance(9_999)
    expect(heard()).toEqual([])
    await env.clock.advance(1)
    const info = await muxer.closed
    expect(info.reason).toBeInstanceOf(TimeoutError)
    expect(env.clock.waiting).toBe(0)
  })

  it('keep two quiet ends alive and measure the round trip', async () => {
    const env = fakeEnv()
    const [client, server] = join(MemoryWire.pair(), {}, env)
    await env.clock.advance(300_000)
    expect(client.rttMs).toBe(0)
    await client.close()
    expect((await server.closed).by).toBe('remote')
  })

  it('end when the peer reads nothing any more, and hold no more than their bounds meanwhile', async () => {
    const env = fakeEnv()
    const [a, b] = MemoryWire.pair()
    const client = createYamux(a, { role: 'initiator', env })
    b.start({ data: () => false, end: () => {}, onRoom: () => {} })
    let written = 0
    const lost: Promise<unknown>[] = []
    for (let i = 0; i < 20; i++) {
      const stream = await client.open()
      lost.push(
        (async () => {
          for (;;) {
            await stream.write(new Uint8Array(32 * KiB))
            written += 32 * KiB
          }
        })().catch((error: unknown) => error),
      )
    }
    await settle()
    expect(written).toBeLessThan(7 * MiB)
    await env.clock.advance(61_000)
    expect((await client.closed).reason).toBeInstanceOf(TimeoutError)
    for (const error of await Promise.all(lost)) expect(error).toBeInstanceOf(ClosedError)
    expect(env.clock.waiting).toBe(0)
  })

  it('close in bounded time though the peer reads nothing', async () => {
    const env = fakeEnv()
    const [a, b] = MemoryWire.pair()
    const client = createYamux(a, { role: 'initiator', env })
    b.start({ data: () => false, end: () => {}, onRoom: () => {} })
    const stream = await client.open()
    const writing = expect(stream.write(new Uint8Array(MiB))).rejects.toBeInstanceOf(ClosedError)
    await settle()
    const closing = client.close(3)
    await env.clock.advance(12_000)
    await closing
    await writing
    expect(await client.closed).toEqual({ by: 'local', code: 3 })
    expect(env.clock.waiting).toBe(0)
  })

  it('let what was written leave before they close', async () => {
    const [client, server] = join(MemoryWire.pair())
    const [ours, theirs] = await opened(client, server)
    const message = pattern(200_000)
    await ours.write(message)
    void ours.closeWrite()
    const [got] = await Promise.all([readAll(theirs), client.close()])
    expect(equals(got, message)).toBe(true)
  })

  it('abort at once: nothing pending stays pending', async () => {
    const env = fakeEnv()
    const [client, server] = join(MemoryWire.pair(), {}, env)
    const [ours] = await opened(client, server)
    const why = new Error('stop')
    const reading = expect(ours.read()).rejects.toBe(why)
    const accepting = client.accept()
    client.abort(9, why)
    await reading
    expect(await accepting).toBeNull()
    expect(await client.closed).toEqual({ by: 'local', code: 9, reason: why })
    // With a code it is told; without, it sees the wire end.
    expect(await server.closed).toMatchObject({ by: 'remote', code: 9 })
    const [third, fourth] = join(MemoryWire.pair(), {}, env)
    third.abort()
    expect((await fourth.closed).by).toBe('transport')
    await client.close()
    expect(env.clock.waiting).toBe(0)
  })

  it('leave writes nobody waits for without an unhandled rejection', async () => {
    const [client, server] = join(MemoryWire.pair())
    const [ours, theirs] = await opened(client, server)
    void ours.read()
    void ours.write(new Uint8Array(MiB))
    void ours.closeWrite()
    theirs.reset()
    await ours.closed
    void ours.write(Uint8Array.of(1))
    await client.close()
    void client.open()
  })

  it('refuse options that make no sense', () => {
    expect(make({ maxStreamWindowBytes: 1000 })).toThrow(RangeError)
    expect(make({ maxStreamWindowBytes: 2 ** 32 })).toThrow(RangeError)
    expect(make({ keepAliveMs: 0 })).toThrow(RangeError)
    expect(make({ acceptBacklog: Number.NaN })).toThrow(RangeError)
    expect(yamux().id).toBe(yamuxId)
  })

  it('flush by turns: many writes in one turn leave as one', async () => {
    const [a, b] = MemoryWire.pair({}, true)
    const [client, server] = join([a, b], {}, systemEnv())
    const [ours] = await opened(client, server)
    await settle()
    const before = a.puts?.length ?? 0
    for (let i = 0; i < 50; i++) await ours.write(Uint8Array.of(i))
    expect(a.puts?.length).toBe(before)
    await settle()
    expect(a.puts?.length).toBe(before + 1)
    await client.close()
  })
})
