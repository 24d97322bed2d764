import { describe, expect, it } from 'vitest'
import { BackOff } from '../../src/dial/backoff.ts'

describe('back-off', () => {
  it('grows with the square of the failures up to five minutes, as in go-libp2p', () => {
    const backOff = new BackOff()
    let now = 0
    const waits: number[] = []
    for (let i = 0; i < 20; i++) {
      backOff.failed('/a', now, 'refused')
      const from = now
      while (backOff.refusal('/a', now) !== undefined) now += 1_000
      waits.push((now - from) / 1_000)
    }
    expect(waits.slice(0, 5)).toEqual([5, 6, 9, 14, 21])
    expect(waits.at(-1)).toBe(300)
  })

  it('says why and for how long, and is over after a success', () => {
    const backOff = new BackOff()
    backOff.failed('/a', 1_000, 'connection refused')
    expect(backOff.refusal('/a', 2_500)).toBe('left alone for 4 s after it failed: connection refused')
    expect(backOff.refusal('/b', 2_500)).toBeUndefined()
    backOff.succeeded('/a')
    expect(backOff.refusal('/a', 2_500)).toBeUndefined()
  })

  it('starts anew for an address that was let be for long', () => {
    const backOff = new BackOff()
    for (let i = 0; i < 10; i++) backOff.failed('/a', 0, 'x')
    expect(backOff.refusal('/a', 85_000)).toBeDefined()
    backOff.failed('/a', 1_000_000, 'x')
    expect(backOff.refusal('/a', 1_005_000)).toBeUndefined()
  })

  it('keeps an hour in mind where another peer answered', () => {
    const backOff = new BackOff()
    backOff.wrongPeer('/a/p2p/X', 0, 'got Y')
    expect(backOff.refusal('/a/p2p/X', 3_599_999)).toContain('got Y')
    expect(backOff.refusal('/a/p2p/X', 3_600_000)).toBeUndefined()
  })

  it('remembers so many addresses and no more of what a peer said', () => {
    const backOff = new BackOff({ maxEntries: 100 })
    for (let i = 0; i < 10_000; i++) backOff.failed(`/${i}`, 0, 'x'.repeat(10_000))
    expect(backOff.size).toBe(100)
    expect(backOff.refusal('/9899', 0)).toBeUndefined()
    expect(backOff.refusal('/9900', 0)?.length).toBeLessThan(300)
  })
})
