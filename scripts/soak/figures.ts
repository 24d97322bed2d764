/* What a soak measures and how it judges it. */

/** Of one process at rest: no work under way, no connection open, garbage collected. */
export interface Sample {
  /** Since the soak began. */
  seconds: number
  heapBytes: number
  /** Outside of the heap, as V8 counts it. */
  externalBytes: number
  rssBytes: number
  /** Sockets and servers. */
  handles: number
  timers: number
  connections: number
  streams: number
}

/** What was done so far. */
export type Tally = Record<string, number>

export interface Verdict {
  heapMiBPer10Minutes: number
  /** Standard error of that slope. */
  error: number
  heapMiB: { first: number; last: number }
  externalMiB: { first: number; last: number }
  rssMiB: { first: number; last: number; per10Minutes: number }
  handles: { first: number; last: number }
  timers: { first: number; last: number }
  samples: number
  /** Empty: passed. */
  problems: string[]
}

const MiB = 1024 * 1024
const rounded = (value: number): number => Number(value.toFixed(3))

/** Least squares through (x, y): the slope and its standard error, which wants three points. */
export function regression(points: readonly (readonly [number, number])[]): { slope: number; error: number } {
  const n = points.length
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / n
  const [mx, my] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))]
  const sxx = points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0)
  const sxy = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0)
  const slope = sxy / sxx
  const rest = points.reduce((sum, [x, y]) => sum + (y - my - slope * (x - mx)) ** 2, 0)
  return { slope, error: n > 2 ? Math.sqrt(rest / (n - 2) / sxx) : Infinity }
}

/** `samples` are those after the warm-up; fewer than three prove nothing. */
export function judge(samples: readonly Sample[], maxMiBPer10Minutes: number): Verdict {
  const [first, last] = [samples[0], samples.at(-1)]
  if (samples.length < 3 || first === undefined || last === undefined) throw new RangeError('want at least 3 samples')
  const per10Minutes = (of: (sample: Sample) => number): { slope: number; error: number } =>
    regression(samples.map((sample) => [sample.seconds / 600, of(sample) / MiB]))
  const heap = per10Minutes((sample) => sample.heapBytes)
  const problems: string[] = []
  if (!(heap.slope <= maxMiBPer10Minutes))
    problems.push(`the heap grows by ${heap.slope.toFixed(2)} MiB in 10 minutes, at most ${maxMiBPer10Minutes} allowed`)
  for (const what of ['handles', 'timers'] as const) {
    if (last[what] > first[what]) problems.push(`${what} grew from ${first[what]} to ${last[what]}`)
  }
  for (const what of ['connections', 'streams'] as const) {
    const left = Math.max(...samples.map((sample) => sample[what]))
    if (left > 0) problems.push(`${left} ${what} were left at rest`)
  }
  const ends = (of: (sample: Sample) => number, unit = MiB): { first: number; last: number } => ({
    first: rounded(of(first) / unit),
    last: rounded(of(last) / unit),
  })
  return {
    heapMiBPer10Minutes: rounded(heap.slope),
    error: rounded(heap.error),
    heapMiB: ends((sample) => sample.heapBytes),
    externalMiB: ends((sample) => sample.externalBytes),
    rssMiB: { ...ends((sample) => sample.rssBytes), per10Minutes: rounded(per10Minutes((s) => s.rssBytes).slope) },
    handles: ends((sample) => sample.handles, 1),
    timers: ends((sample) => sample.timers, 1),
    samples: samples.length,
    problems,
  }
}
