import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromUtf8, toHex } from '../src/bytes.ts'
import { fakeEnv, settle } from '../src/env.ts'
import { readFrames } from '../src/frames.ts'
import { deferred } from '../src/inbox.ts'
import { pair, prefixed } from '../src/stream.ts'

describe('readFrames', () => {
  const limits = { maxBytes: 5000, frameTimeoutMs: 1000, what: 'a message' }

  it('gives the same messages however the bytes are split', async () => {
    const frames = [new Uint8Array(0), fromUtf8('a'), fromUtf8('hello'), new Uint8Array(200).fill(7), fromUtf8('end')]
    const bytes = concat(frames.map((f) => concat(prefixed(f))))
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 40 }), async (cuts) => {
        const [ours, theirs] = pair({ highWaterBytes: 1e6 })
        let at = 0
        for (const cut of cuts) await theirs.write(bytes.slice(at, (at += cut)))
        await theirs.write(bytes.slice(at))
        await theirs.closeWrite()
        const got: string[] = []
        await readFrames(ours, fakeEnv(), limits, (frame) => void got.push(toHex(frame)))
        expect(got).toEqual(frames.filter((f) => f.length > 0).map(toHex))
      }),
      { numRuns: 100 },
    )
  })

  it('refuses a frame above the limit before it is there, and one that ends early', async () => {
    const [ours, theirs] = pair()
    await theirs.write(Uint8Array.of(0x89, 0x27))
    const env = fakeEnv()
    await expect(readFrames(ours, env, limits, () => {})).rejects.toMatchObject({ code: 'oversized' })
    const [ours2, theirs2] = pair()
    await theirs2.write(Uint8Array.of(5, 1, 2))
    await theirs2.closeWrite()
    await expect(readFrames(ours2, env, limits, () => {})).rejects.toMatchObject({ code: 'truncated' })
  })

  it('waits for ever between messages, but not within one', async () => {
    const env = fakeEnv()
    const [ours, theirs] = pair()
    const reading = readFrames(ours, env, limits, () => {})
    const failed = expect(reading).rejects.toMatchObject({ code: 'timeout' })
    await env.clock.advance(100_000)
    await theirs.write(Uint8Array.of(2, 1))
    await env.clock.advance(999)
    await theirs.write(Uint8Array.of(1, 2))
    await env.clock.advance(2000)
    await failed
    expect(env.clock.waiting).toBe(0)
  })

  it('reads on only when the last message is dealt with, and nothing after a refusal', async () => {
    const [ours, theirs] = pair()
    await theirs.write(...prefixed(Uint8Array.of(1)), ...prefixed(Uint8Array.of(2)))
    const got: number[] = []
    const gate = deferred<void>()
    const reading = readFrames(ours, fakeEnv(), limits, (frame) => {
      got.push(frame[0] ?? 0)
      return gate.promise
    })
    await settle()
    expect(got).toEqual([1])
    gate.reject(new Error('enough'))
    await expect(reading).rejects.toThrow('enough')
    expect(got).toEqual([1])
  })
})
