/*
 * bench/results.json as a markdown table: rhiza beside its peers, and what we hold ourselves to.
 * Prints it, or with `--write FILE` puts it between the lines <!-- bench --> and <!-- /bench --> of FILE.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Work } from './lib.ts'

/** Ratios to js and go, or a figure of our own. */
type Bound = Partial<Record<'js' | 'go' | 'own', number>>

interface Row {
  what: string
  bench: string
  work: string
  must?: Bound
  goal?: Bound
}

interface Result {
  bench: string
  rounds: number
  scale: number
  load: number[]
  works: Record<string, Work>
}

const rows: Row[] = [
  {
    what: 'one stream, up',
    bench: 'throughput',
    work: 'upload',
    must: { js: 1.8, go: 0.85 },
    goal: { js: 2.2, go: 1 },
  },
  {
    what: 'one stream, down',
    bench: 'throughput',
    work: 'download',
    must: { js: 1.8, go: 0.85 },
    goal: { js: 2.2, go: 1 },
  },
  { what: 'the same in 1 KiB writes', bench: 'throughput', work: 'upload in 1 KiB writes' },
  {
    what: '1 KiB writes / own 64 KiB writes',
    bench: 'throughput',
    work: '1 KiB writes to own 64 KiB writes',
    must: { own: 0.55 },
    goal: { own: 0.7 },
  },
  {
    what: 'one stream over TLS, up; go over Noise',
    bench: 'tls',
    work: 'upload',
    must: { go: 1 },
    goal: { go: 1.3 },
  },
  {
    what: 'one stream over TLS, down; go over Noise',
    bench: 'tls',
    work: 'download',
    must: { go: 1 },
    goal: { go: 1.3 },
  },
  { what: 'ping p50, one CPU', bench: 'ping', work: 'p50', must: { js: 0.4 }, goal: { js: 0.27 } },
  { what: 'ping p99, one CPU', bench: 'ping', work: 'p99', must: { js: 0.25 }, goal: { js: 0.12 } },
  {
    what: 'streams, one after another',
    bench: 'streams',
    work: 'sequential',
    must: { js: 5, go: 0.8 },
    goal: { js: 7, go: 1.1 },
  },
  {
    what: 'streams, 32 at a time',
    bench: 'streams',
    work: '32 at a time',
    must: { js: 8, go: 1.3 },
    goal: { js: 12, go: 2 },
  },
  {
    what: 'dial to first ping',
    bench: 'dial',
    work: 'dial to first ping',
    must: { js: 0.4, go: 1.4 },
    goal: { js: 0.3, go: 1.1 },
  },
  {
    what: 'connections, 8 clients',
    bench: 'dial',
    work: 'connections with 8 clients',
    must: { js: 3.5, go: 0.6 },
    goal: { js: 4.5, go: 0.85 },
  },
  {
    what: 'memory of an idle connection',
    bench: 'dial',
    work: 'idle connection',
    must: { own: 60 },
    goal: { own: 45 },
  },
  { what: 'memory of an idle node', bench: 'cold-start', work: 'idle node', must: { own: 70 }, goal: { own: 60 } },
  {
    what: 'Bitswap, 1 GB onto disk; peers into memory',
    bench: 'bitswap',
    work: 'into a disk store',
    must: { js: 1.5 },
    goal: { go: 1 },
  },
  { what: 'Bitswap, 1 GB into memory', bench: 'bitswap', work: 'into a memory store' },
  {
    what: 'growth of the client, disk store',
    bench: 'bitswap',
    work: 'client memory growth, disk store',
    must: { own: 200 },
    goal: { own: 120 },
  },
  {
    what: 'UnixFS add, 1 GB into memory',
    bench: 'unixfs-add',
    work: 'into memory',
    must: { js: 1.6 },
    goal: { go: 1 },
  },
  { what: 'UnixFS add, 1 GB onto disk, synced; peers into memory', bench: 'unixfs-add', work: 'onto disk' },
  { what: 'cold start to listening', bench: 'cold-start', work: 'to listening', must: { js: 0.5 }, goal: { js: 0.3 } },
  {
    what: 'DHT of 50 nodes: provide',
    bench: 'kad',
    work: 'provide',
    must: { js: 0.3 },
    goal: { js: 0.1 },
  },
  {
    what: 'DHT of 50 nodes: first provider',
    bench: 'kad',
    work: 'first provider',
    must: { js: 0.3 },
    goal: { js: 0.1 },
  },
  {
    what: 'GossipSub of 10 nodes: deliveries of 1 KiB',
    bench: 'gossipsub',
    work: 'deliveries of 1 KiB',
    must: { js: 5 },
    goal: { js: 10 },
  },
  {
    what: 'GossipSub latency p50, 50 messages/s',
    bench: 'gossipsub',
    work: 'p50 at 50 messages/s',
    must: { js: 0.5 },
    goal: { js: 0.25 },
  },
  {
    what: 'GossipSub latency p99, 50 messages/s',
    bench: 'gossipsub',
    work: 'p99 at 50 messages/s',
    must: { js: 0.5 },
    goal: { js: 0.25 },
  },
  { what: 'CPU of 1,000 deliveries of 1 KiB', bench: 'gossipsub', work: 'CPU of 1,000 deliveries of 1 KiB' },
  { what: 'deliveries of 128 KiB', bench: 'gossipsub', work: 'deliveries of 128 KiB' },
  { what: 'the same, latency p50', bench: 'gossipsub', work: 'p50 of 128 KiB' },
  { what: 'deliveries of 1 MiB', bench: 'gossipsub', work: 'deliveries of 1 MiB' },
  { what: 'the same, latency p50', bench: 'gossipsub', work: 'p50 of 1 MiB' },
  { what: 'CPU of a heartbeat with 200 topics', bench: 'gossipsub', work: 'heartbeat with 200 topics' },
  { what: 'memory of a node with 200 topics', bench: 'gossipsub', work: 'memory with 200 topics' },
  { what: 'GraphSync, a file of 1 GB', bench: 'graphsync', work: 'file, MB/s', must: { go: 1 } },
  { what: 'GraphSync, a tree of 100,000 dag-cbor nodes', bench: 'graphsync', work: 'tree, nodes/s', must: { go: 1 } },
  { what: 'install, packages', bench: 'size', work: 'packages', must: { own: 15 }, goal: { own: 11 } },
  { what: 'install, size', bench: 'size', work: 'install', must: { own: 9 }, goal: { own: 6 } },
  {
    what: 'browser bundle: noise, yamux, identify, ping',
    bench: 'size',
    work: 'bundle: noise, yamux, identify, ping',
    must: { own: 55 },
    goal: { own: 45 },
  },
  {
    what: 'the same with all that is loaded when first used',
    bench: 'size',
    work: 'bundle: noise, yamux, identify, ping, all',
  },
  {
    what: 'browser bundle: and kad, gossipsub',
    bench: 'size',
    work: 'bundle: and kad, gossipsub',
    must: { own: 85 },
    goal: { own: 70 },
  },
  {
    what: 'the same with all that is loaded when first used',
    bench: 'size',
    work: 'bundle: and kad, gossipsub, all',
  },
  {
    what: 'browser bundle: and bitswap, unixfs',
    bench: 'size',
    work: 'bundle: and bitswap, unixfs',
    must: { own: 110 },
    goal: { own: 90 },
  },
  {
    what: 'the same with all that is loaded when first used',
    bench: 'size',
    work: 'bundle: and bitswap, unixfs, all',
  },
]

const number = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString('en') : Number.isInteger(value) ? String(value) : value.toPrecision(2)

function bound(limit: Bound | undefined, { unit }: Work): string {
  const parts = Object.entries(limit ?? {}).map(([to, value]) =>
    to === 'own' ? `${value}${unit === 'x' ? 'x' : ` ${unit}`}` : `${value}x ${to}`,
  )
  return parts.join(', ')
}

function met(limit: Bound | undefined, { better, median, ratio }: Work): boolean | undefined {
  if (limit === undefined) return undefined
  for (const [to, want] of Object.entries(limit)) {
    const got = to === 'own' ? median['rhiza'] : ratio[to]?.median
    if (got === undefined) return undefined
    if (better === 'higher' ? got < want : got > want) return false
  }
  return true
}

function verdict(row: Row, work: Work): string {
  if (row.must === undefined) return ''
  if (met(row.goal, work) === true) return 'goal'
  const must = met(row.must, work)
  return must === undefined ? '?' : must ? 'must' : '**no**'
}

function line(row: Row, work: Work): string {
  const figure = (kind: string): string => {
    const value = work.median[kind]
    return value === undefined ? '' : number(value)
  }
  const against = (kind: string): string => {
    const ratio = work.ratio[kind]
    return ratio === undefined ? '' : `${ratio.median.toPrecision(2)}x (${figure(kind)})`
  }
  const own = work.unit === 'x' ? `${figure('rhiza')}x` : `${figure('rhiza')} ${work.unit}`
  const cells = [
    row.what,
    own,
    against('js'),
    against('go'),
    bound(row.must, work),
    bound(row.goal, work),
    verdict(row, work),
  ]
  return `| ${cells.join(' | ')} |`
}

function table(): string {
  const file = fileURLToPath(new URL('results.json', import.meta.url))
  const { node, machine, date, results } = JSON.parse(readFileSync(file, 'utf8')) as {
    node: string
    machine: string
    date: string
    results: Result[]
  }
  const lines = rows.flatMap((row) => {
    const work = results.find(({ bench }) => bench === row.bench)?.works[row.work]
    return work === undefined ? [] : [line(row, work)]
  })
  const loads = results.flatMap(({ load }) => load)
  const busy = `${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}`
  const rounds = results.map(({ bench, rounds }) => `${bench} ${rounds}`).join(', ')
  return [
    '| work | rhiza | to js (js) | to go (go) | must | goal | reached |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...lines,
    '',
    `Ratios are rhiza's figure through the peer's, the median of interleaved rounds (${rounds}), with the peer's own`,
    `figure in brackets; two processes on loopback. ${date}, Node ${node}, ${machine}, load average ${busy} meanwhile.`,
    'Machines differ: only ratios mean something.',
  ].join('\n')
}

const marks = ['<!-- bench -->', '<!-- /bench -->'] as const

function main(): void {
  const { values } = parseArgs({ options: { write: { type: 'string' } } })
  if (values.write === undefined) {
    process.stdout.write(`${table()}\n`)
    return
  }
  const text = readFileSync(values.write, 'utf8')
  const [begin, end] = [text.indexOf(marks[0]), text.indexOf(marks[1])]
  if (begin < 0 || end < begin) throw new Error(`${values.write} has no ${marks.join(' … ')}`)
  writeFileSync(values.write, `${text.slice(0, begin + marks[0].length)}\n\n${table()}\n\n${text.slice(end)}`)
}

main()
