/* What every Stream must do, whatever it lies on. */
import { describe, expect, it } from 'vitest'
import { concat } from '../src/bytes.ts'
import { settle } from '../src/env.ts'
import { ClosedError } from '../src/errors.ts'
import type { Stream } from '../src/stream.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

async function readAll(stream: Stream): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return concat(chunks)
}

/** Whether `promise` is settled a few turns later. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  void promise.then(
    () => (settled = true),
    () => (settled = true),
  )
  for (let i = 0; i < 5; i++) await settle()
  return settled
}

export function streamTable(name: string, make: () => [Stream, Stream]): void {
  describe(`a stream: ${name}`, () => {
    it('carries bytes both ways, each way ends by itself, then it is closed', async () => {
      const [a, b] = make()
      await a.write(bytesOf(1, 2), bytesOf(), bytesOf(3))
      await a.closeWrite()
      expect(await readAll(b)).toEqual(bytesOf(1, 2, 3))
      expect(await b.read()).toBe(null)
      await b.write(bytesOf(4))
      await b.closeWrite()
      expect(await readAll(a)).toEqual(bytesOf(4))
      for (const stream of [a, b]) {
        const info = await stream.closed
        expect([info.code, info.reason]).toEqual([0, undefined])
      }
    })

    it('gives a read that waits the bytes that come', async () => {
      const [a, b] = make()
      const reading = b.read()
      await a.write(bytesOf(1))
      expect(await reading).toEqual(bytesOf(1))
      const ending = b.read()
      await a.closeWrite()
      expect(await ending).toBe(null)
      a.reset()
    })

    it('allows one read at a time', async () => {
      const [a, b] = make()
      const first = b.read()
      await expect(b.read()).rejects.toBeInstanceOf(TypeError)
      await a.write(bytesOf(1))
      expect(await first).toEqual(bytesOf(1))
      a.reset()
    })

    it('a write waits while the other side does not read, and goes on when it does', async () => {
      const [a, b] = make()
      let wrote = 0
      const chunk = new Uint8Array(64 * 1024)
      let writing = Promise.resolve()
      for (; wrote < 64; wrote++) {
        writing = a.write(chunk)
        if (!(await isSettled(writing))) break
      }
      expect(wrote).toBeLessThan(64)
      let left = (wrote + 1) * chunk.length
      while (left > 0) left -= (await b.read())?.length ?? 0
      await writing
      expect(left).toBe(0)
      a.reset()
    })

    it('writes after closeWrite reject, closeWrite is idempotent', async () => {
      const [a, b] = make()
      await Promise.all([a.closeWrite(), a.closeWrite()])
      await a.closeWrite()
      await expect(a.write(bytesOf(1))).rejects.toBeInstanceOf(ClosedError)
      expect(await b.read()).toBe(null)
      a.reset()
    })

    it('reset ends both directions on both sides; the reason comes out where it was given', async () => {
      const [a, b] = make()
      const reading = [a.read(), b.read()]
      const reason = new Error('no more')
      a.reset(7, reason)
      a.reset(8, new Error('again'))
      await expect(reading[0]).rejects.toBe(reason)
      await expect(reading[1]).rejects.toBeInstanceOf(ClosedError)
      await expect(b.read()).rejects.toBeInstanceOf(ClosedError)
      await expect(a.write(bytesOf(1))).rejects.toBeInstanceOf(ClosedError)
      await expect(b.write(bytesOf(1))).rejects.toBeInstanceOf(ClosedError)
      await a.closeWrite()
      const [near, far] = await Promise.all([a.closed, b.closed])
      expect(near.by).toBe('local')
      expect(near.reason).toBe(reason)
      expect(far.by).not.toBe('local')
      expect(far.reason).toBeInstanceOf(Error)
    })

    it('a reset that nobody waits for is no unhandled rejection', async () => {
      const [a, b] = make()
      void a.read()
      void b.read()
      await a.write(new Uint8Array(300 * 1024)).catch(() => {})
      void b.write(new Uint8Array(300 * 1024))
      void b.write(new Uint8Array(300 * 1024))
      void b.closeWrite()
      a.reset(0, new Error('gone'))
      await Promise.all([a.closed, b.closed])
      void b.write(bytesOf(1))
      void b.read().catch(() => {})
      void b.closeWrite()
      for (let i = 0; i < 5; i++) await settle()
    })

    it('closeRead discards, frees a waiting writer, and writing goes on', async () => {
      const [a, b] = make()
      const writing = (async () => {
        for (let i = 0; i < 20; i++) await a.write(new Uint8Array(64 * 1024))
      })()
      const reading = b.read()
      b.closeRead()
      await reading
      await writing
      expect(await b.read()).toBe(null)
      await b.write(bytesOf(5))
      expect(await a.read()).toEqual(bytesOf(5))
      a.reset()
    })

    it('leaving a for await loop closes the read side only', async () => {
      const [a, b] = make()
      await a.write(bytesOf(1))
      for await (const chunk of b) {
        expect(chunk).toEqual(bytesOf(1))
        break
      }
      expect(await b.read()).toBe(null)
      await b.write(bytesOf(2))
      expect(await a.read()).toEqual(bytesOf(2))
      a.reset()
    })
  })
}
