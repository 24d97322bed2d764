/* Streams over a long link, in virtual time: what they reach, and what they hold when nobody reads. */
import { describe, expect, it } from 'vitest'
import { fakeEnv, settle, type Env, type FakeClock } from '../../../src/env.ts'
import { createYamux, type YamuxOptions } from '../../../src/mux/yamux/yamux.ts'
import type { Muxer, Stream } from '../../../src/stream.ts'
import { memoryWirePair } from '../../../src/transport/memory.ts'

const KiB = 1024
const MiB = 1024 * KiB
const rate = 50e6

interface Far {
  env: Env & { clock: FakeClock }
  /** Writes. */
  near: Muxer
  /** Reads. */
  far: Muxer
}

function link(latencyMs: number, options: YamuxOptions = {}): Far {
  const env = fakeEnv()
  const [a, b] = memoryWirePair({ env, latencyMs, bytesPerSecond: rate, highWaterBytes: 32 * MiB })
  return {
    env,
    near: createYamux(a, { role: 'initiator', env, ...options }),
    far: createYamux(b, { role: 'responder', env, ...options }),
  }
}

interface Flow {
  written: number
  read: number
  /** Milliseconds before each read; Infinity: it is not read. */
  pauseMs: number
}

/** What was begun goes on before time does. */
async function advance({ env }: Far, ms: number): Promise<void> {
  await settle()
  await env.clock.advance(ms)
}

/** A stream that is written to as fast as it takes it, and read at its pace. */
async function flow(link: Far, pauseMs = 0): Promise<Flow> {
  const { near, far, env } = link
  const chunk = new Uint8Array(64 * KiB)
  const ours = await near.open()
  const state: Flow = { written: 0, read: 0, pauseMs }
  void (async () => {
    for (;;) {
      await ours.write(chunk)
      state.written += chunk.length
    }
  })().catch(() => {})
  const accepted = far.accept()
  await advance(link, 200)
  const theirs = (await accepted) as Stream
  const pause = (ms: number) => new Promise<void>((resolve) => void env.clock.setTimer(ms, resolve))
  void (async () => {
    for (;;) {
      if (state.pauseMs > 0) await pause(Math.min(state.pauseMs, 50))
      if (state.pauseMs === Infinity) continue
      const bytes = await theirs.read()
      if (bytes === null) return
      state.read += bytes.length
    }
  })().catch(() => {})
  return state
}

/** Bytes a second that arrive during `ms`. */
async function measured(link: Far, one: Flow, ms: number): Promise<number> {
  const before = one.read
  await advance(link, ms)
  return ((one.read - before) * 1000) / ms
}

async function end(link: Far, ...flows: Flow[]): Promise<void> {
  const { near, far } = link
  near.abort()
  far.abort()
  for (const one of flows) one.pauseMs = 0
  await advance(link, 1000)
  expect(link.env.clock.waiting).toBe(0)
}

describe('a stream over a long way', () => {
  it.each([
    ['50 ms there and back', 25],
    ['50 ms each way', 50],
  ])('reaches 80% of a link of 50 MB/s, %s', async (_way, latencyMs) => {
    const far = link(latencyMs)
    const one = await flow(far)
    expect(await measured(far, one, 5_000)).toBeGreaterThan(0.8 * rate)
    // In the long run it fills the link.
    expect(await measured(far, one, 1_000)).toBeGreaterThan(0.97 * rate)
    await end(far, one)
  })

  it('would reach a fraction of that with 1 MiB of window', async () => {
    const far = link(50, { maxStreamWindowBytes: MiB })
    const one = await flow(far)
    expect(await measured(far, one, 5_000)).toBeLessThan(0.25 * rate)
    await end(far, one)
  })

  it('keeps 1 MiB of window when it is read slowly', async () => {
    const far = link(50)
    // 1 MB/s: half a window takes five round trips.
    const one = await flow(far, 50)
    await advance(far, 20_000)
    one.pauseMs = Infinity
    await advance(far, 2_000)
    expect(one.written - one.read).toBeLessThan(MiB + 512 * KiB)
    await end(far, one)
  })

  it('holds at most its window when it is not read: 256 KiB before the first read, the grown window after', async () => {
    const far = link(50)
    const never = await flow(far, Infinity)
    const later = await flow(far)
    await advance(far, 10_000)
    later.pauseMs = Infinity
    await advance(far, 10_000)
    // The window, and what the writer may queue on our side of the link.
    const queue = 320 * KiB
    expect(never.written).toBeLessThanOrEqual(256 * KiB + queue)
    const held = later.written - later.read
    expect(held).toBeGreaterThan(4 * MiB)
    expect(held).toBeLessThanOrEqual(16 * MiB + queue)
    const before = later.written
    await advance(far, 60_000)
    expect(later.written).toBe(before)
    await end(far, never, later)
  })

  it('shares the budget: none takes all of it, and together they stay within', async () => {
    const far = link(50)
    const all: Flow[] = []
    for (let i = 0; i < 8; i++) all.push(await flow(far, Infinity))
    for (const one of all) one.pauseMs = 0
    await advance(far, 10_000)
    for (const one of all) one.pauseMs = Infinity
    await advance(far, 5_000)
    const held = all.map((one) => one.written - one.read)
    expect(Math.min(...held)).toBeGreaterThanOrEqual(MiB)
    const queues = all.length * 320 * KiB
    expect(held.reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(32 * MiB + queues)
    await end(far, ...all)
  })
})
