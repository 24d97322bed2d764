/* The YAML that the suites read from a dialer's stdout, and the statistics in it. */

export interface Stats {
  /** Without the outliers. */
  min: number
  max: number
  q1: number
  median: number
  q3: number
  outliers: number[]
  /** Ascending, all of them. */
  samples: number[]
}

/** Linear between the two nearest ranks. */
function percentile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1)
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return low + (high - low) * (at - Math.floor(at))
}

export function statsOf(values: readonly number[]): Stats {
  const samples = values.toSorted((a, b) => a - b)
  const [q1, median, q3] = [0.25, 0.5, 0.75].map((share) => percentile(samples, share)) as [number, number, number]
  const reach = 1.5 * (q3 - q1)
  const isOutlier = (value: number): boolean => value < q1 - reach || value > q3 + reach
  const inliers = samples.filter((value) => !isOutlier(value))
  const outliers = samples.filter(isOutlier)
  return { min: inliers[0] ?? Number.NaN, max: inliers.at(-1) ?? Number.NaN, q1, median, q3, outliers, samples }
}

const list = (values: readonly number[], digits: number): string =>
  `[${values.map((value) => value.toFixed(digits)).join(', ')}]`

export function statsYaml(name: string, values: readonly number[], unit: 'Gbps' | 'ms'): string {
  const stats = statsOf(values)
  const digits = 3
  return [
    `${name}:`,
    `  iterations: ${values.length}`,
    ...(['min', 'q1', 'median', 'q3', 'max'] as const).map((field) => `  ${field}: ${stats[field].toFixed(digits)}`),
    `  outliers: ${list(stats.outliers, digits)}`,
    `  samples: ${list(stats.samples, digits)}`,
    `  unit: ${unit}`,
    '',
  ].join('\n')
}

export function latencyYaml(handshakePlusOneRttMs: number, pingRttMs: number): string {
  return [
    'latency:',
    `  handshake_plus_one_rtt: ${handshakePlusOneRttMs.toFixed(3)}`,
    `  ping_rtt: ${pingRttMs.toFixed(3)}`,
    '  unit: ms',
    '',
  ].join('\n')
}
