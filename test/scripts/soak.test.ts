import { describe, expect, it } from 'vitest'
import { judge, regression, type Sample } from '../../scripts/soak/figures.ts'

const MiB = 1024 * 1024

/** A sample every ten seconds; `heap` in MiB by minute. */
function samples(heap: (minute: number) => number, change: (i: number) => Partial<Sample> = () => ({})): Sample[] {
  return Array.from({ length: 49 }, (_, i) =>
    Object.assign(
      {
        seconds: 120 + 10 * i,
        heapBytes: heap((10 * i) / 60) * MiB,
        externalBytes: 0,
        rssBytes: 100 * MiB,
        handles: 4,
        timers: 0,
        connections: 0,
        streams: 0,
      },
      change(i),
    ),
  )
}

const noise = (i: number): number => 0.05 * Math.sin(i * 37)

describe('the verdict of a soak', () => {
  it('is the slope of a line through what the heap was, in MiB for 10 minutes', () => {
    expect(
      regression([
        [0, 1],
        [1, 3],
        [2, 5],
      ]),
    ).toEqual({ slope: 2, error: 0 })
    const still = judge(
      samples((minute) => 13 + noise(minute)),
      1,
    )
    expect(Math.abs(still.heapMiBPer10Minutes)).toBeLessThan(0.2)
    expect(still).toMatchObject({ problems: [], samples: 49, heapMiB: { first: 13 }, handles: { first: 4, last: 4 } })
  })

  it('finds a leak of 2 KiB a second under the noise', () => {
    const { heapMiBPer10Minutes, error, problems } = judge(
      samples((minute) => 13 + (minute * 60 * 2) / 1024 + noise(minute * 7)),
      1,
    )
    expect(heapMiBPer10Minutes).toBeCloseTo(1.17, 1)
    expect(error).toBeLessThan(0.1)
    expect(problems).toEqual([expect.stringContaining('the heap grows by 1.1')])
  })

  it.each([
    ['handles', { handles: 5 }, 'handles grew from 4 to 5'],
    ['timers', { timers: 1 }, 'timers grew from 0 to 1'],
    ['connections', { connections: 1 }, '1 connections were left at rest'],
    ['streams', { streams: 2 }, '2 streams were left at rest'],
  ])('counts %s that are left', (_what, change, problem) => {
    const found = judge(
      samples(
        () => 13,
        (i) => (i === 48 ? change : {}),
      ),
      1,
    )
    expect(found.problems).toEqual([problem])
  })

  it('wants more than two samples', () => {
    expect(() => judge(samples(() => 13).slice(0, 2), 1)).toThrow(RangeError)
    expect(judge(samples(() => Number.NaN).slice(0, 3), 1).problems).toHaveLength(1)
  })
})
