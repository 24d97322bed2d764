/* What every Wire must do, whatever it lies on. `make` gives two joined ends and what tears them down. */
import { describe, expect, it } from 'vitest'
import { byteLength, concat, equals } from '../src/bytes.ts'
import { settle } from '../src/env.ts'
import type { CloseInfo } from '../src/errors.ts'
import type { Wire, WireSink } from '../src/wire.ts'

/** Remembers everything; `hold()` makes it answer false, `free()` resumes the wire. */
export class Recorder implements WireSink {
  readonly wire: Wire
  readonly chunks: Uint8Array[] = []
  ends: (Error | undefined)[] = []
  rooms = 0
  holding = false

  constructor(wire: Wire) {
    this.wire = wire
  }

  data(bytes: Uint8Array): boolean {
    this.chunks.push(bytes)
    return !this.holding
  }

  end(reason?: Error): void {
    this.ends.push(reason)
  }

  onRoom(): void {
    this.rooms++
  }

  get size(): number {
    return byteLength(this.chunks)
  }

  get all(): Uint8Array {
    return concat(this.chunks)
  }

  free(): void {
    this.holding = false
    this.wire.resume()
  }
}

export function record(wire: Wire): Recorder {
  const recorder = new Recorder(wire)
  wire.start(recorder)
  return recorder
}

/** Turns of the event loop until `done`; fails after two seconds. */
export async function until(done: () => boolean): Promise<void> {
  const limit = performance.now() + 2_000
  while (!done()) {
    if (performance.now() > limit) throw new Error(`never happened: ${done.toString()}`)
    await settle()
  }
}

const of = (size: number, value = 7): Uint8Array => new Uint8Array(size).fill(value)
const counting = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, i) => (i * 31) >> 3)

async function isOpen(closed: Promise<CloseInfo>): Promise<boolean> {
  await settle()
  return (await Promise.race([closed, Promise.resolve('open')])) === 'open'
}

export interface WirePair {
  a: Wire
  b: Wire
}

/**
 * `halfClose: false`: the wire can end both directions only, as a WebSocket does. `resets: false`: a's abort is a message
 * behind all others, as in browsers.
 */
export function wireTable(
  name: string,
  make: () => Promise<WirePair>,
  { halfClose = true, resets = true }: { halfClose?: boolean; resets?: boolean } = {},
): void {
  describe(`a wire: ${name}`, () => {
    it('hands over what was put, in order, both ways', async () => {
      const { a, b } = await make()
      const [ra, rb] = [record(a), record(b)]
      const bytes = counting(5_000)
      a.put([bytes.slice(0, 1), bytes.slice(1, 3_000)])
      a.put([bytes.slice(3_000)])
      b.put([of(10)])
      await until(() => rb.size === 5_000 && ra.size === 10)
      expect(equals(rb.all, bytes)).toBe(true)
      expect(rb.chunks.every((chunk) => chunk.length > 0)).toBe(true)
      a.abort()
      b.abort()
    })

    it('keeps what arrives before start', async () => {
      const { a, b } = await make()
      record(a)
      a.put([of(100)])
      await a.closeWrite()
      await settle()
      const rb = record(b)
      await until(() => rb.ends.length === 1)
      expect(rb.size).toBe(100)
      a.abort()
      b.abort()
    })

    it('stays silent while paused, says when there is room again, loses nothing', async () => {
      const { a, b } = await make()
      const [ra, rb] = [record(a), record(b)]
      rb.holding = true
      const chunk = of(64 * 1024)
      let put = 0
      // Kernel buffers may take megabytes: go on until the wire says no and no room comes.
      for (let quiet = 0; quiet < 5; quiet++) {
        while (a.room > 0) {
          const more = a.put([chunk])
          put += chunk.length
          quiet = 0
          expect(more).toBe(a.room > 0)
        }
        await settle()
      }
      const before = rb.size
      const rooms = ra.rooms
      await settle()
      expect(rb.size).toBe(before)
      expect(before).toBeLessThan(put)
      rb.free()
      await until(() => rb.size === put)
      await until(() => ra.rooms > rooms)
      expect(a.room).toBeGreaterThan(0)
      a.abort()
      b.abort()
    })

    it('pauses by pause() and goes on by resume(), however often', async () => {
      const { a, b } = await make()
      record(a)
      const rb = record(b)
      b.pause()
      b.pause()
      a.put([of(10)])
      for (let i = 0; i < 3; i++) await settle()
      expect(rb.size).toBe(0)
      b.resume()
      b.resume()
      await until(() => rb.size === 10)
      a.abort()
      b.abort()
    })

    if (!halfClose)
      it('ends both directions at once, with all that was put', async () => {
        const { a, b } = await make()
        const [ra, rb] = [record(a), record(b)]
        b.put([of(5)])
        await until(() => ra.size === 5)
        a.put([of(3)])
        await a.closeWrite()
        await until(() => rb.ends.length === 1 && ra.ends.length === 1)
        expect([ra.size, rb.size]).toEqual([5, 3])
        expect([...ra.ends, ...rb.ends]).toEqual([undefined, undefined])
        expect(await a.closed).toEqual({ by: 'local', code: 0 })
        expect(await b.closed).toEqual({ by: 'remote', code: 0 })
        expect(b.put([of(1)])).toBe(false)
        expect(b.room).toBeLessThanOrEqual(0)
        await b.closeWrite()
      })

    if (halfClose)
      it('ends each direction by itself, then is closed', async () => {
        const { a, b } = await make()
        const [ra, rb] = [record(a), record(b)]
        a.put([of(3)])
        await a.closeWrite()
        await until(() => rb.ends.length === 1)
        expect(rb.size).toBe(3)
        expect(await isOpen(a.closed)).toBe(true)
        b.put([of(5)])
        await b.closeWrite()
        await until(() => ra.ends.length === 1)
        expect(ra.size).toBe(5)
        expect([...ra.ends, ...rb.ends]).toEqual([undefined, undefined])
        expect((await a.closed).code).toBe(0)
        expect((await b.closed).code).toBe(0)
      })

    it('sends all that was put before the FIN', async () => {
      const { a, b } = await make()
      record(a)
      const rb = record(b)
      const bytes = counting(300_000)
      for (let at = 0; at < bytes.length; at += 50_000) a.put([bytes.slice(at, at + 50_000)])
      void a.closeWrite()
      await until(() => rb.ends.length === 1)
      expect(equals(rb.all, bytes)).toBe(true)
      a.abort()
      b.abort()
    })

    it('closeWrite twice is one FIN, put after it does nothing', async () => {
      const { a, b } = await make()
      record(a)
      const rb = record(b)
      await Promise.all([a.closeWrite(), a.closeWrite()])
      expect(a.put([of(1)])).toBe(false)
      expect(a.room).toBeLessThanOrEqual(0)
      await until(() => rb.ends.length === 1)
      await settle()
      expect(rb.ends).toEqual([undefined])
      expect(rb.size).toBe(0)
      a.abort()
      b.abort()
    })

    it('abort ends both sides at once: ours hears nothing, the peer hears the reason', async () => {
      const { a, b } = await make()
      const [ra, rb] = [record(a), record(b)]
      a.put([of(10)])
      await until(() => rb.size === 10)
      const reason = new Error('enough')
      a.abort(reason)
      a.abort(new Error('again'))
      expect(a.put([of(1)])).toBe(false)
      expect(a.room).toBeLessThanOrEqual(0)
      expect((await a.closed).by).toBe('local')
      expect((await a.closed).reason).toBe(reason)
      await until(() => rb.ends.length === 1)
      expect(rb.ends[0]).toBeInstanceOf(Error)
      expect((await b.closed).by).not.toBe('local')
      expect(b.put([of(1)])).toBe(false)
      expect(ra.ends).toEqual([])
      await expect(a.closeWrite()).rejects.toThrow(/clos|reset|enough/)
    })

    if (resets)
      it('an abort reaches a peer that is paused', async () => {
        const { a, b } = await make()
        record(a)
        const rb = record(b)
        b.pause()
        a.put([of(10)])
        await settle()
        a.abort()
        await until(() => rb.ends.length === 1)
        expect((await b.closed).by).not.toBe('local')
      })

    it('a sink may put, pause, and abort from inside data', async () => {
      const { a, b } = await make()
      const ra = record(a)
      let got = 0
      b.start({
        data: (bytes) => {
          got += bytes.length
          b.put([bytes])
          if (got >= 3) b.abort()
          return true
        },
        end: () => {},
        onRoom: () => {},
      })
      a.put([of(1)])
      await until(() => ra.size === 1)
      a.put([of(1)])
      await until(() => ra.size === 2)
      a.put([of(1)])
      await b.closed
      await until(() => ra.ends.length === 1)
      await a.closed
    })
  })
}
