import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TokenBucket } from '../src/token-bucket.ts'

describe('a token bucket', () => {
  it('gives its burst at once, then what comes back with time, and never more than its burst', () => {
    const bucket = new TokenBucket(3, 2, 1_000)
    const take = (now: number): boolean => bucket.take(1, now)
    expect([take(1_000), take(1_000), take(1_000), take(1_000)]).toEqual([true, true, true, false])
    expect([take(1_499), take(1_500), take(1_500)]).toEqual([false, true, false])
    expect(bucket.level(1e9)).toBe(3)
    // A clock that stands still, or an older look at it, brings nothing.
    expect([bucket.take(3, 1e9), take(1e9), take(5)]).toEqual([true, false, false])
  })

  it('with an infinite rate is always full', () => {
    const bucket = new TokenBucket(Infinity, Infinity, 0)
    for (let i = 0; i < 10; i++) expect(bucket.take(1e6, 0)).toBe(true)
  })

  it('never gives more than burst and rate allow, whenever it is asked', () => {
    const steps = fc.array(fc.tuple(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: 0, max: 5 })))
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 20 }), steps, (burst, rate, asked) => {
        const bucket = new TokenBucket(burst, rate, 0)
        let now = 0
        let given = 0
        for (const [pause, cost] of asked) {
          now += pause
          if (bucket.take(cost, now)) given += cost
          expect(given).toBeLessThanOrEqual(burst + (rate * now) / 1000 + 1e-6)
        }
      }),
    )
  })
})
