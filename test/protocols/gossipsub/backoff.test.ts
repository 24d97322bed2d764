import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Backoff } from '../../../src/protocols/gossipsub/backoff.ts'

const hour = 3_600_000

describe('a back-off', () => {
  it('is of one peer in one topic', () => {
    const backoff = new Backoff()
    backoff.add('t', 'p', 60_000, 0)
    expect(backoff.until('t', 'p')).toBe(60_000)
    expect(backoff.until('t', 'q')).toBeUndefined()
    expect(backoff.until('u', 'p')).toBeUndefined()
  })

  it('keeps us away for the slack longer', () => {
    const backoff = new Backoff({ slackMs: 1000 })
    backoff.add('t', 'p', 60_000, 0)
    const held = [0, 59_999, 60_000, 60_999, 61_000].map((now) => backoff.backingOff('t', 'p', now))
    expect(held).toEqual([true, true, true, true, false])
  })

  it('grows but never shrinks', () => {
    const backoff = new Backoff()
    backoff.add('t', 'p', 60_000, 0)
    backoff.add('t', 'p', 10_000, 0)
    expect(backoff.until('t', 'p')).toBe(60_000)
    backoff.add('t', 'p', 60_000, 30_000)
    expect(backoff.until('t', 'p')).toBe(90_000)
    backoff.clear(62_000)
    expect(backoff.until('t', 'p')).toBe(90_000)
    backoff.clear(93_000)
    expect(backoff.size).toBe(0)
  })

  it.each([
    [Number.MAX_SAFE_INTEGER * 1000, hour],
    [2 ** 64 * 1000, hour],
    [Infinity, hour],
    [Number.NaN, hour],
    [hour + 1, hour],
    [hour - 1, hour - 1],
    [-5, 0],
  ])('of %d ms is one of %d', (asked, given) => {
    const backoff = new Backoff()
    backoff.add('t', 'p', asked, 1_000)
    expect(backoff.until('t', 'p')).toBe(1_000 + given)
    backoff.clear(1_000 + given + 3_000)
    expect(backoff.size).toBe(0)
  })

  it('gives way to a longer one when there are too many', () => {
    const backoff = new Backoff({ maxEntries: 2 })
    backoff.add('t', 'short', 5_000, 0)
    backoff.add('t', 'long', 50_000, 0)
    backoff.add('u', 'new', 20_000, 0)
    expect(backoff.size).toBe(2)
    expect(backoff.evicted).toBe(1)
    expect(backoff.until('t', 'short')).toBeUndefined()
    expect([backoff.until('t', 'long'), backoff.until('u', 'new')]).toEqual([50_000, 20_000])
  })

  it('is forgotten once it is over, not before, whatever the clock does', () => {
    const step = fc.record({
      topic: fc.constantFrom('s', 't'),
      peer: fc.constantFrom('p', 'q', 'r'),
      ms: fc.oneof(fc.nat(5_000), fc.nat(2 * hour)),
      after: fc.oneof(fc.nat(3_000), fc.nat(10 * hour), fc.constant(1e12)),
      clear: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const backoff = new Backoff({ slackMs: 1000 })
        const until = new Map<string, number>()
        let now = 0
        for (const { topic, peer, ms, after, clear } of steps) {
          now += after
          if (clear) backoff.clear(now)
          const key = topic + peer
          const before = until.get(key)
          expect(backoff.backingOff(topic, peer, now)).toBe(before !== undefined && now < before + 1000)
          backoff.add(topic, peer, ms, now)
          until.set(key, Math.max(before ?? 0, now + Math.min(ms, hour)))
          expect(backoff.backingOff(topic, peer, now)).toBe(true)
          if (clear) {
            const live = [...until.values()].filter((end) => now < end + 3000).length
            expect(backoff.size).toBeLessThanOrEqual(live)
          }
        }
        backoff.clear(now + 3 * hour)
        expect(backoff.size).toBe(0)
      }),
    )
  })

  it('of any number of peers takes the room of the bound', () => {
    const adds = fc.array(fc.tuple(fc.nat(30), fc.nat(hour), fc.nat(5_000)), { maxLength: 200 })
    fc.assert(
      fc.property(adds, (list) => {
        const backoff = new Backoff({ maxEntries: 8 })
        let now = 0
        for (const [peer, ms, after] of list) {
          now += after
          if (peer % 7 === 0) backoff.clear(now)
          backoff.add('t', `${peer}`, ms, now)
          expect(backoff.until('t', `${peer}`)).toBeGreaterThanOrEqual(now + ms)
          expect(backoff.size).toBeLessThanOrEqual(8)
        }
        backoff.clear(now + 3 * hour)
        expect(backoff.size).toBe(0)
      }),
    )
  })

  it.each([{ maxMs: 0 }, { maxMs: Infinity }, { slackMs: -1 }, { slackMs: Number.NaN }, { maxEntries: 0 }])(
    'does not work with %j',
    (options) => expect(() => new Backoff(options)).toThrow(RangeError),
  )
})
