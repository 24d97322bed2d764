import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Seen } from '../../../src/protocols/gossipsub/seen.ts'

describe('ids that were seen', () => {
  it('are known for the window, and not much longer', () => {
    const seen = new Seen({ ttlMs: 1000 })
    expect(seen.add('a', 0)).toBe(true)
    expect(seen.add('a', 500)).toBe(false)
    expect(seen.has('a', 999)).toBe(true)
    expect(seen.has('a', 1250)).toBe(false)
    expect(seen.add('a', 1250)).toBe(true)
  })

  it('are known from when they were first seen, or last, as one likes', () => {
    for (const [expiry, known] of [
      ['first', false],
      ['last', true],
    ] as const) {
      for (const touch of ['has', 'add'] as const) {
        const renewed = new Seen({ ttlMs: 1000, expiry })
        renewed.add('a', 0)
        renewed[touch]('a', 900)
        expect(renewed.has('a', 1800), `${expiry} ${touch}`).toBe(known)
      }
    }
  })

  it('take one place each, however often they are seen again', () => {
    const seen = new Seen({ ttlMs: 1000, expiry: 'last' })
    for (let i = 0; i < 100; i++) seen.add('a', 0)
    expect(seen.size).toBe(1)
  })

  it('are forgotten without being asked for', () => {
    const seen = new Seen({ ttlMs: 1000 })
    for (let i = 0; i < 100; i++) seen.add(`${i}`, i * 10)
    expect(seen.size).toBe(100)
    seen.clear(1500)
    expect(seen.size).toBeLessThan(75)
    seen.clear(5000)
    expect(seen.size).toBe(0)
  })

  it('make room for new ones, the oldest first, when there are too many, and it is counted', () => {
    const seen = new Seen({ ttlMs: 1000, maxEntries: 100 })
    for (let i = 0; i < 1000; i++) {
      expect(seen.add(`${i}`, 1)).toBe(true)
      expect(seen.size).toBeLessThanOrEqual(100)
      // Of a full one at least three quarters are the newest.
      for (let back = 0; back < Math.min(i, 75); back += 5) expect(seen.has(`${i - back}`, 1)).toBe(true)
    }
    expect(seen.evicted).toBe(1000 - seen.size)
  })

  it.each(['first', 'last'] as const)('are what a plain list says, within its slack (%s)', (expiry) => {
    const step = fc.record({
      id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      add: fc.boolean(),
      after: fc.oneof(fc.nat(60), fc.constant(0), fc.nat(500)),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const ttlMs = 400
        const seen = new Seen({ ttlMs, expiry })
        const at = new Map<string, number>()
        let now = 1000
        for (const { id, add, after } of steps) {
          now += after
          const age = now - (at.get(id) ?? -Infinity)
          const known = add ? !seen.add(id, now) : seen.has(id, now)
          if (age < ttlMs) expect(known).toBe(true)
          if (age >= ttlMs * 1.25) expect(known).toBe(false)
          if (known ? expiry === 'last' : add) at.set(id, now)
        }
        expect(seen.evicted).toBe(0)
      }),
    )
  })

  it('never pass the bound, whatever comes when', () => {
    const step = fc.tuple(fc.nat(200), fc.nat(300), fc.boolean())
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 200 }),
        fc.constantFrom('first' as const, 'last' as const),
        (steps, expiry) => {
          const seen = new Seen({ ttlMs: 1000, maxEntries: 16, expiry })
          let now = 0
          for (const [id, after, add] of steps) {
            now += after
            if (add) seen.add(`${id}`, now)
            else seen.has(`${id}`, now)
            expect(seen.size).toBeLessThanOrEqual(16)
            if (add) expect(seen.has(`${id}`, now)).toBe(true)
          }
        },
      ),
    )
  })

  it.each([{ ttlMs: 0 }, { ttlMs: Number.NaN }, { maxEntries: 7 }, { maxEntries: 1e3 + 0.5 }])(
    'want better than %j',
    (o) => {
      expect(() => new Seen(o)).toThrow(RangeError)
    },
  )
})
