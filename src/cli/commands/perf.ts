import { createNode, type Node } from '../../node.ts'
import { UnavailableError, errorCode } from '../../errors.ts'
import { perf as measure, perfId, type PerfReport, type Transferred } from '../../protocols/perf.ts'
import type { PeerId } from '../../peer/id.ts'
import { UsageError, multiaddrOf, networkOptions, parseSize, stopTimeoutMs, type Command } from '../args.ts'
import { formatBytes, type Output } from '../output.ts'

const defaultBytes = 256 * 1024 * 1024
/** Rounds of ping: at most so many, and no new one after so long. */
const pingRounds = 100
const pingRoundsLeast = 5
const pingForMs = 2_000
const progressMs = 100

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

interface PingTimes {
  min: number
  p50: number
  p99: number
  count: number
}

async function pingTimes(
  node: Node,
  peer: PeerId,
  bound: { timeoutMs: number; signal: AbortSignal },
): Promise<PingTimes> {
  const times: number[] = []
  const { clock } = node.env
  const startedAt = clock.now()
  for await (const rttMs of node.ping(peer, { count: pingRounds, ...bound })) {
    times.push(rttMs)
    if (times.length >= pingRoundsLeast && clock.now() - startedAt > pingForMs) break
  }
  times.sort((a, b) => a - b)
  return { min: times[0] ?? Number.NaN, p50: quantile(times, 0.5), p99: quantile(times, 0.99), count: times.length }
}

/** Shows the reports; resolves to the last. */
async function follow(out: Output, bytes: number, reports: AsyncIterable<PerfReport>): Promise<PerfReport | undefined> {
  const bars = { upload: out.progress('upload', bytes), download: out.progress('download', bytes) }
  const shown = { upload: 0, download: 0 }
  let last: PerfReport | undefined
  try {
    for await (const report of reports) {
      last = report
      if (report.type === 'result') continue
      bars[report.direction].add(report.bytes - shown[report.direction])
      shown[report.direction] = report.bytes
    }
  } finally {
    bars.download.done()
  }
  return last
}

function line(what: string, { bytes, seconds }: Transferred): string {
  const rate = (bytes / 1e6 / Math.max(seconds, 1e-6)).toFixed(1)
  return `${what.padEnd(8)}  ${formatBytes(bytes)} in ${seconds.toFixed(3)} s, ${rate} MB/s`
}

export const perf: Command = {
  name: 'perf',
  summary: 'measure round trip, upload and download to a peer that serves it',
  usage: 'ADDR',
  more: [
    'The peer must serve /perf/1.0.0: rhiza serve --perf. Uploads and downloads N bytes on one stream, in writes of',
    '64 KiB, after a warm-up of at most 16 MiB each way.',
    'With --json: {"upload":{"bytes":N,"seconds":S},"download":{"bytes":N,"seconds":S},"pingMs":{"min":M,"p50":M,"p99":M,"count":C}}',
    'Example: rhiza perf /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW... --bytes 1GiB',
  ].join('\n'),
  options: {
    bytes: { type: 'string', short: 'n', value: 'N', help: 'each way: 1000000, 64KiB, 10MiB, 1GiB (default 256MiB)' },
    timeout: { ...networkOptions.timeout, help: 'for the dial, and without a byte moved: 500ms, 30s (default 30s)' },
  },
  arity: [1, 1],
  async run({ args, options, out, signal, timeoutMs }) {
    const addr = multiaddrOf('ADDR', args[0] ?? '')
    const bytes = options['bytes'] === undefined ? defaultBytes : parseSize(String(options['bytes']))
    if (bytes < 1) throw new UsageError('--bytes 0: want at least one')
    const node = await createNode({ stopTimeoutMs })
    try {
      await node.start()
      const { peer, remoteAddr } = await node.dial(addr, { signal, timeoutMs })
      out.note(`perf ${peer} at ${remoteAddr}`)
      const pingMs = await pingTimes(node, peer, { timeoutMs, signal })
      const sizes = { uploadBytes: bytes, downloadBytes: bytes, timeoutMs: Infinity }
      const reports = measure(node, peer, { ...sizes, progressMs, stallTimeoutMs: timeoutMs, signal })
      const result = await follow(out, bytes, reports).catch((error: unknown) => {
        if (errorCode(error) !== 'no-protocol') throw error
        throw new UnavailableError('no-protocol', `${peer} does not serve ${perfId}: start it with rhiza serve --perf`)
      })
      if (result?.type !== 'result') throw new Error('the measurement ended without a result')
      const { upload, download } = result
      const { min, p50, p99, count } = pingMs
      await out.result(
        { upload, download, pingMs },
        [
          `ping      min ${min.toFixed(3)}, p50 ${p50.toFixed(3)}, p99 ${p99.toFixed(3)} ms in ${count} rounds`,
          line('upload', upload),
          line('download', download),
        ].join('\n'),
      )
    } finally {
      await node.stop()
    }
  },
}
