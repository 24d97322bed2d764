import { describe, expect, it } from 'vitest'
import { FakeClock, FakeRandom, fakeEnv, settle, systemEnv } from '../src/env.ts'

describe('the fake clock', () => {
  it('stands still, and fires timers in order of time, then of setting', async () => {
    const clock = new FakeClock(100)
    const fired: string[] = []
    const at = (ms: number, name: string): void => void clock.setTimer(ms, () => fired.push(`${name}@${clock.now()}`))
    at(30, 'c')
    at(10, 'a')
    at(10, 'b')
    at(-5, 'now')
    expect(clock.next).toBe(100)
    await settle()
    expect(fired).toEqual([])
    await clock.advance(29)
    expect(fired).toEqual(['now@100', 'a@110', 'b@110'])
    await clock.advance(1)
    expect(fired.at(-1)).toBe('c@130')
    expect(clock.waiting).toBe(0)
    expect(clock.next).toBe(Infinity)
    expect(clock.wallTime() - new FakeClock(100).wallTime()).toBe(30)
  })

  it('fires what a timer sets on the way, and not what it cancels', async () => {
    const clock = new FakeClock()
    const fired: number[] = []
    const second = clock.setTimer(20, () => fired.push(0))
    clock.setTimer(10, () => {
      second.cancel()
      second.cancel()
      clock.setTimer(5, () => fired.push(clock.now()))
    })
    await clock.advance(15)
    expect(fired).toEqual([15])
    expect(clock.waiting).toBe(0)
  })

  it('lets promises settle between two timers', async () => {
    const clock = new FakeClock()
    const seen: string[] = []
    clock.setTimer(1, () => {
      void settle().then(() => seen.push('promise'))
    })
    clock.setTimer(2, () => seen.push('timer'))
    await clock.advance(2)
    expect(seen).toEqual(['promise', 'timer'])
  })

  it('refuses NaN, which would never fall due', () => {
    expect(() => new FakeClock().setTimer(NaN, () => {})).toThrow(RangeError)
  })
})

function draw(seed: number): unknown {
  const random = new FakeRandom(seed)
  return [random.bytes(20), random.unit(), random.unit()]
}

describe('randomness', () => {
  it('of a seed repeats, of another seed differs', () => {
    expect(draw(1)).toEqual(draw(1))
    expect(draw(1)).not.toEqual(draw(2))
    expect(draw(0)).not.toEqual(draw(-1))
  })

  it('units lie in [0, 1) and spread; bytes take every value', () => {
    for (const { random } of [fakeEnv(3), systemEnv()]) {
      const units = Array.from({ length: 2000 }, () => random.unit())
      expect(units.every((x) => x >= 0 && x < 1)).toBe(true)
      expect(new Set(units.map((x) => Math.floor(x * 10))).size).toBe(10)
      expect(new Set(random.bytes(10_000)).size).toBe(256)
    }
  })

  it('the real one gives more than the 65,536 bytes of one platform call', () => {
    const bytes = systemEnv().random.bytes(150_000)
    expect(bytes.length).toBe(150_000)
    expect(bytes.subarray(140_000).some((byte) => byte !== 0)).toBe(true)
  })
})

describe('the real environment', () => {
  it('runs turns after all microtasks, in order', async () => {
    const env = systemEnv()
    const seen: string[] = []
    await new Promise<void>((resolve) => {
      env.turn(() => seen.push('turn 1'))
      env.turn(() => {
        seen.push('turn 2')
        resolve()
      })
      queueMicrotask(() => seen.push('microtask'))
    })
    expect(seen).toEqual(['microtask', 'turn 1', 'turn 2'])
  })

  it('a timer fires once, a cancelled one never; beyond 24 days it does not fire at once', async () => {
    const { clock } = systemEnv()
    let fired = 0
    const far = clock.setTimer(2 ** 40, () => (fired += 10))
    clock.setTimer(1, () => (fired += 100)).cancel()
    const before = clock.now()
    await new Promise<void>((resolve) => clock.setTimer(2, resolve))
    expect(clock.now()).toBeGreaterThan(before)
    far.cancel()
    expect(fired).toBe(0)
  })
})
