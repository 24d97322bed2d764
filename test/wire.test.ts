import { describe, expect, it } from 'vitest'
import { byteLength, concat, equals } from '../src/bytes.ts'
import { settle } from '../src/env.ts'
import { ClosedError } from '../src/errors.ts'
import { BufferedStream, pair, type Stream } from '../src/stream.ts'
import { memoryWirePair } from '../src/transport/memory.ts'
import { StreamWire, WireStream, startBehind, toWire, type Wire } from '../src/wire.ts'
import { streamTable } from './stream-table.ts'
import { record, until, wireTable } from './wire-table.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

/** A stream without a fast lane. */
function slow(stream: Stream): Stream {
  return Object.assign(new BufferedStream(stream), { detach: undefined })
}

wireTable('StreamWire over pair', () => {
  const [a, b] = pair()
  return Promise.resolve({ a: new StreamWire(a), b: new StreamWire(b) })
})

wireTable('StreamWire over WireStream over memory', () => {
  const [a, b] = memoryWirePair({ highWaterBytes: 32 * 1024 })
  return Promise.resolve({ a: new StreamWire(slow(new WireStream(a))), b: new StreamWire(slow(new WireStream(b))) })
})

wireTable('detached from a WireStream', () => {
  const [a, b] = memoryWirePair()
  return Promise.resolve({ a: toWire(new WireStream(a)), b: toWire(new BufferedStream(new WireStream(b))) })
})

streamTable('WireStream over memory', () => {
  const [a, b] = memoryWirePair()
  return [new WireStream(a), new WireStream(b)]
})

streamTable('WireStream over StreamWire over pair', () => {
  const [a, b] = pair()
  return [new WireStream(new StreamWire(a)), new WireStream(new StreamWire(b))]
})

function ends(): { raw: Wire; stream: WireStream } {
  const [raw, b] = memoryWirePair()
  return { raw, stream: new WireStream(b) }
}

describe('detach', () => {
  it('hands over what came before it, between it and start, and after', async () => {
    const { raw, stream } = ends()
    record(raw)
    raw.put([bytesOf(1)])
    await settle()
    const wire = stream.detach()
    if (wire === undefined) throw new Error('no wire')
    raw.put([bytesOf(2)])
    await settle()
    const sink = record(wire)
    raw.put([bytesOf(3)])
    await until(() => sink.size === 3)
    expect(sink.all).toEqual(bytesOf(1, 2, 3))
    expect(stream.detach()).toBe(undefined)
    await expect(stream.write(bytesOf(1))).rejects.toBeInstanceOf(ClosedError)
    raw.abort()
  })

  it('puts what a BufferedStream read too much first', async () => {
    const { raw, stream } = ends()
    record(raw)
    raw.put([bytesOf(1, 9, 2, 3)])
    const framed = new BufferedStream(stream)
    expect(await framed.readPrefixed(10)).toEqual(bytesOf(9))
    raw.put([bytesOf(4)])
    await settle()
    const wire = framed.detach()
    if (wire === undefined) throw new Error('no wire')
    const sink = record(wire)
    await until(() => sink.size === 3)
    expect(sink.all).toEqual(bytesOf(2, 3, 4))
    raw.abort()
  })

  it('hands over a FIN that came before', async () => {
    const { raw, stream } = ends()
    record(raw)
    raw.put([bytesOf(1)])
    await raw.closeWrite()
    await settle()
    const sink = record(toWire(stream))
    await until(() => sink.ends.length === 1)
    expect(sink.all).toEqual(bytesOf(1))
    expect(sink.ends).toEqual([undefined])
    raw.abort()
  })

  it('hands over a reset that came between detach and start', async () => {
    const { raw, stream } = ends()
    record(raw)
    const wire = toWire(stream)
    raw.abort()
    await settle()
    const sink = record(wire)
    await until(() => sink.ends.length === 1)
    expect(sink.ends[0]).toBeInstanceOf(ClosedError)
  })

  it('there is none after a reset, a closeWrite, or while a read is under way', async () => {
    for (const spoil of [
      (s: WireStream) => s.reset(),
      (s: WireStream) => void s.closeWrite(),
      (s: WireStream) => void s.read().catch(() => null),
    ]) {
      const { raw, stream } = ends()
      spoil(stream)
      expect(stream.detach()).toBe(undefined)
      raw.abort()
      await settle()
    }
  })

  it('a reset of the stream reaches whoever took the wire over', async () => {
    const { raw, stream } = ends()
    const far = record(raw)
    const sink = record(toWire(stream))
    const reason = new Error('deadline')
    stream.reset(0, reason)
    expect(sink.ends).toEqual([reason])
    await until(() => far.ends.length === 1)
    expect((await stream.closed).reason).toBe(reason)
  })

  it('a sink that aborts on the first unread chunk hears no more', async () => {
    const { raw, stream } = ends()
    record(raw)
    raw.put([new Uint8Array(5000)])
    raw.put([new Uint8Array(5000)])
    await settle()
    const wire = toWire(stream)
    let calls = 0
    wire.start({
      data: () => {
        calls++
        wire.abort()
        return true
      },
      end: () => calls++,
      onRoom: () => calls++,
    })
    await settle()
    expect(calls).toBe(1)
  })

  it('resumes a wire that the stream had paused, and keeps it paused for a sink that has enough', async () => {
    for (const holding of [false, true]) {
      const [raw, b] = memoryWirePair()
      record(raw)
      const stream = new WireStream(b, { highWaterBytes: 100 })
      raw.put([new Uint8Array(150)])
      await settle()
      raw.put([new Uint8Array(150)])
      await settle()
      const wire = toWire(stream)
      const chunks: Uint8Array[] = []
      let hold = holding
      wire.start({ data: (bytes) => chunks.push(bytes) > 0 && !hold, end: () => {}, onRoom: () => {} })
      for (let i = 0; i < 5; i++) await settle()
      expect(byteLength(chunks)).toBe(holding ? 150 : 300)
      hold = false
      wire.resume()
      await until(() => byteLength(chunks) === 300)
      raw.abort()
    }
  })

  it('lets a write go that waited for room', async () => {
    const [raw, b] = memoryWirePair({ highWaterBytes: 10 })
    const stream = new WireStream(b)
    const writing = stream.write(new Uint8Array(20))
    const wire = toWire(stream)
    await writing
    wire.abort()
    raw.abort()
  })
})

describe('startBehind', () => {
  it('gives the bytes first and pauses the wire when they were enough', async () => {
    const [a, b] = memoryWirePair()
    record(a)
    a.put([bytesOf(2)])
    const wire = startBehind(b, bytesOf(1))
    const chunks: Uint8Array[] = []
    wire.start({ data: (bytes) => chunks.push(bytes) > 1, end: () => {}, onRoom: () => {} })
    for (let i = 0; i < 3; i++) await settle()
    expect(chunks).toEqual([bytesOf(1)])
    wire.resume()
    await until(() => chunks.length === 2)
    a.abort()
  })
})

describe('WireStream', () => {
  it('a write that waits is freed when the peer, whose FIN came before, resets', async () => {
    const [a, b] = memoryWirePair({ highWaterBytes: 10 })
    record(a)
    await a.closeWrite()
    const stream = new WireStream(b)
    expect(await stream.read()).toBe(null)
    a.pause()
    const writing = stream.write(new Uint8Array(20))
    a.abort()
    await expect(writing).rejects.toBeInstanceOf(ClosedError)
    await expect(stream.write(new Uint8Array(1))).rejects.toBeInstanceOf(ClosedError)
    expect(await stream.read()).toBe(null)
  })

  it('what came before the peer’s FIN is read even when the connection breaks later', async () => {
    const [a, b] = memoryWirePair()
    const stream = new WireStream(b)
    record(a)
    a.put([bytesOf(1, 2)])
    await a.closeWrite()
    await settle()
    a.abort()
    await stream.closed
    await settle()
    expect(await stream.read()).toEqual(bytesOf(1, 2))
    expect(await stream.read()).toBe(null)
  })

  it('pauses the wire at its bound and goes on when the application has read', async () => {
    const [a, b] = memoryWirePair({ highWaterBytes: 1 << 20 })
    record(a)
    const stream = new WireStream(b, { highWaterBytes: 1000 })
    const sent = Uint8Array.from({ length: 20_000 }, (_, i) => i)
    for (let at = 0; at < sent.length; at += 500) a.put([sent.slice(at, at + 500)])
    for (let i = 0; i < 5; i++) await settle()
    expect((1 << 20) - a.room).toBeGreaterThanOrEqual(18_500)
    void a.closeWrite()
    const got: Uint8Array[] = []
    for await (const chunk of stream) got.push(chunk)
    expect(equals(concat(got), sent)).toBe(true)
    stream.reset()
  })
})
