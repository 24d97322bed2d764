/*
 * GossipSub at scale and under attack, in virtual time (test/sim/gossipsub-net.ts). Parts, all of them by default:
 * `scale` (one publisher to 1,000 nodes), `large` (128 KiB and 1 MiB), `topics` (200 on one node), `memory` (bytes per
 * peer, topic and message; wants --expose-gc), `attacks` (--seeds 5, --kind eclipse). `--quick` is a fifth of it, to try it out.
 */
import { parseArgs } from 'node:util'
import type { Version } from '../src/protocols/gossipsub/peers.ts'
import { attack, type AttackOptions } from '../test/sim/gossipsub-attacks.ts'
import { Net, quantile, type GossipNode, type NetOptions, type NodeOptions } from '../test/sim/gossipsub-net.ts'

const say = (line: string): void => void process.stdout.write(`${line}\n`)
const ms = (value: number): string => `${Math.round(value)}`
const percent = (value: number): string => `${(100 * value).toFixed(value === 1 ? 0 : 3)}%`
const mean = (list: readonly number[]): number => list.reduce((sum, one) => sum + one, 0) / Math.max(1, list.length)

interface Spread {
  nodes: number
  size: number
  version: Version
  mbit?: number
  messages: number
  everyMs: number
  floodPublish: boolean
}

/** What one publisher's messages cost, and when they are where. */
function spread({ nodes, size, version, mbit, messages, everyMs, floodPublish }: Spread) {
  const options: NetOptions = { seed: 1, latencyMs: [50, 100], ...(mbit !== undefined && { mbit }) }
  const net = new Net(options)
  const of: NodeOptions = { topics: ['t'], version, params: { floodPublish } }
  for (let i = 0; i < nodes; i++) net.add(of)
  net.wire(net.nodes, 20)
  net.run(15_000)
  const publisher = net.nodes[0] as GossipNode
  const copies = (): number => net.nodes.reduce((sum, node) => sum + node.router.duplicates, 0)
  const before = copies()
  const { bytes } = net
  for (let i = 0; i < messages; i++) {
    publisher.publish('t', new Uint8Array(size))
    net.run(everyMs)
  }
  net.run(10_000)
  const latencies = net.tracks
    .values()
    .toArray()
    .flatMap(({ got }) => got.values().toArray())
  const deliveries = messages * (nodes - 1)
  return {
    delivered: latencies.length / deliveries,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    max: latencies.reduce((most, one) => Math.max(most, one), 0),
    duplicates: (copies() - before) / deliveries,
    // Of everything on the wire, against each node getting each message once.
    traffic: (net.bytes - bytes) / (deliveries * size),
  }
}

function table(rows: readonly (readonly [name: string, spread: Spread])[]): void {
  say('| | IDONTWANT | delivered | p50 ms | p99 ms | last ms | duplicates | bytes |')
  say('| --- | --- | --- | --- | --- | --- | --- | --- |')
  for (const [name, of] of rows) {
    for (const version of [11, 13] as const) {
      const { delivered, p50, p99, max, duplicates, traffic } = spread({ ...of, version })
      const cells = [percent(delivered), ms(p50), ms(p99), ms(max), duplicates.toFixed(2), `${traffic.toFixed(2)}x`]
      say(`| ${name} | ${version === 13 ? 'yes' : 'no'} | ${cells.join(' | ')} |`)
    }
  }
}

function scale(quick: boolean): void {
  const nodes = quick ? 200 : 1_000
  const base: Spread = { nodes, size: 2_048, version: 13, messages: 20, everyMs: 500, floodPublish: true }
  say(`\none publisher to ${nodes} nodes, 50 to 100 ms a link, about 20 connections each`)
  table([
    ['2 KiB', base],
    ['2 KiB, no flood publish', { ...base, floodPublish: false }],
    ['2 KiB, 10 Mbit/s', { ...base, mbit: 10 }],
    ['20 KiB, 20 Mbit/s', { ...base, size: 20_480, mbit: 20, messages: 10, everyMs: 1_000 }],
  ])
}

const largeOf = (size: number, mbit: number, nodes: number): Spread => ({
  nodes,
  size,
  version: 13,
  mbit,
  messages: 4,
  everyMs: 5_000,
  floodPublish: false,
})

function large(quick: boolean): void {
  const few = quick ? 60 : 300
  say(`\nlarge messages, every 5 s, the line of a node shared by its connections`)
  table([
    [`128 KiB, 100 Mbit/s, ${few} nodes`, largeOf(128 * 1024, 100, few)],
    [`128 KiB, 25 Mbit/s, ${few} nodes`, largeOf(128 * 1024, 25, few)],
    [`1 MiB less 1 KiB, 100 Mbit/s, ${few / 3} nodes`, largeOf(1023 * 1024, 100, few / 3)],
    [`1 MiB less 1 KiB, 1 Gbit/s, ${few / 3} nodes`, largeOf(1023 * 1024, 1_000, few / 3)],
  ])
}

const cpu = (): number => process.cpuUsage().user / 1000

function topics(quick: boolean): void {
  const count = quick ? 40 : 200
  const names = Array.from({ length: count }, (_, i) => `topic ${i}`)
  const net = new Net({ seed: 1 })
  for (let i = 0; i < 40; i++) net.add({ topics: names })
  net.wire(net.nodes, 15)
  net.run(15_000)
  const idle = net.bytes
  let began = cpu()
  net.run(10_000)
  const idleRate = (net.bytes - idle) / 10 / net.nodes.length
  const idleMs = (cpu() - began) / 10 / net.nodes.length
  began = cpu()
  for (const name of names) {
    for (let i = 0; i < 2; i++) net.pick(net.nodes).publish(name, new Uint8Array(500))
    net.run(100)
  }
  net.run(5_000)
  const busyMs = cpu() - began
  const tracks = [...net.tracks.values()]
  const got = tracks.reduce((sum, track) => sum + track.got.size, 0)
  const degrees = net.nodes.flatMap((node) => names.map((name) => node.router.mesh(name).length))
  say(`\n${count} topics on each of ${net.nodes.length} nodes`)
  say(
    JSON.stringify({
      delivered: got / (tracks.length * (net.nodes.length - 1)),
      mesh: [degrees.reduce((a, b) => Math.min(a, b)), mean(degrees), degrees.reduce((a, b) => Math.max(a, b))],
      idleBytesPerSecondAndNode: Math.round(idleRate),
      idleCpuMsPerSecondAndNode: Number(idleMs.toFixed(2)),
      // Of all that it takes to get one message to one node, the simulation's own work included.
      cpuMicrosecondsPerDelivery: Math.round((1000 * busyMs) / got),
    }),
  )
}

function used(): number {
  globalThis.gc?.()
  globalThis.gc?.()
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return heapUsed + Math.max(external, arrayBuffers)
}

const peer = (i: number): string => `12D3KooW${String(i).padStart(44, '.')}`

/** Bytes that each of them takes. */
function measure(count: number, fill: (i: number) => void): number {
  const before = used()
  for (let i = 0; i < count; i++) fill(i)
  return Math.round((used() - before) / count)
}

function memory(quick: boolean): void {
  if (globalThis.gc === undefined) throw new Error('memory wants --expose-gc: npm run sim:gossip')
  const many = quick ? 500 : 2_000
  const net = new Net({ seed: 1 })
  const node = net.add({ topics: ['t'] })
  node.stop()
  const connect = (i: number): void => {
    node.router.connected(
      peer(i),
      { bytes: new Uint8Array(38).fill(i), outbound: false, ips: [`10.${i >> 8}.${i & 255}.1`] },
      0,
    )
    node.router.opened(peer(i), 13, 0)
    while (node.router.transmit(peer(i), 0) !== undefined);
    while (node.router.next() !== undefined);
  }
  const subscribe = (i: number, topic: string): void => {
    const name = new TextEncoder().encode(topic)
    const inner = Uint8Array.of(0x08, 1, 0x12, name.length, ...name)
    node.router.receive(peer(i), Uint8Array.of(0x0a, inner.length, ...inner), 0)
    while (node.router.next() !== undefined);
  }
  // Of their tables the first has to be there before anything is counted.
  for (let i = 0; i < 50; i++) connect(60_000 + i)
  const perPeer = measure(many, connect)
  const perSubscription = measure(many * 10, (i) => subscribe(i % many, `some/topic/name/${Math.floor(i / many)}`))
  const ours = new Net({ seed: 2 }).add({})
  ours.stop()
  const perTopic = measure(many, (i) => ours.subscribe(`some/topic/of/ours/${i}`))
  const writer = new Net({ seed: 3 }).add({ topics: ['t'], params: { historyLength: 5 } })
  writer.stop()
  const size = 1_024
  const perMessage = measure(10 * many, () => void writer.publish('t', new Uint8Array(size))) - size
  say('\nbytes of memory')
  say(
    JSON.stringify({
      perPeer,
      perSubscriptionOfAPeer: perSubscription,
      perTopicOfOurs: perTopic,
      perMessageBesidesItsData: perMessage,
    }),
  )
}

function attacks(seeds: number, quick: boolean, only: string | undefined): void {
  const small = quick ? 0.4 : 1
  const kinds: readonly (readonly [AttackOptions['kind'], Omit<AttackOptions, 'seed' | 'scoring' | 'kind'>])[] = [
    ['none', { honest: 60 * small, sybils: 0, sybilDegree: 0, calmMs: 10_000, measureMs: 30_000 }],
    ['cold boot', { honest: 60 * small, sybils: 240 * small, sybilDegree: 120 * small, calmMs: 15_000 }],
    [
      'covert flash',
      { honest: 30 * small, sybils: 120 * small, sybilDegree: 40 * small, calmMs: 60_000, measureMs: 90_000 },
    ],
    ['eclipse', { honest: 60 * small, sybils: 240 * small, sybilDegree: 240 * small, calmMs: 15_000 }],
  ]
  const ways: readonly (readonly [string, Pick<AttackOptions, 'scoring' | 'floodPublish'>])[] = [
    ['scored', { scoring: true }],
    ['not scored', { scoring: false }],
    ['not scored, no flood publish (v1.0)', { scoring: false, floodPublish: false }],
  ]
  say(`\nattacks: 10 messages a second of 2 KiB, 20 to 100 ms a link, 20 honest connections each, ${seeds} seeds`)
  say('| attack | defence | worst delivery | p50 ms | p99 ms | last ms | mesh links to Sybils, before and after |')
  say('| --- | --- | --- | --- | --- | --- | --- |')
  for (const [kind, of] of kinds) {
    if (only !== undefined && only !== kind) continue
    for (const [name, defence] of ways) {
      const results = Array.from({ length: seeds }, (_, i) => attack({ ...of, ...defence, kind, seed: i + 1 }))
      const worst = results.reduce((least, { delivery }) => Math.min(least, delivery), 1)
      const last = results.reduce((most, { maxMs }) => Math.max(most, maxMs), 0)
      const links = [0, 1].map((i) => `${Math.round(100 * mean(results.map((one) => one.sybilLinks[i] as number)))}%`)
      const cells = [
        percent(worst),
        ms(mean(results.map((one) => one.p50))),
        ms(mean(results.map((one) => one.p99))),
        ms(last),
        links.join(', '),
      ]
      say(`| ${kind} | ${name} | ${cells.join(' | ')} |`)
    }
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: 'string', default: '5' },
    kind: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
})
const wants = (part: string): boolean => positionals.length === 0 || positionals.includes(part)
if (wants('memory')) memory(values.quick)
if (wants('scale')) scale(values.quick)
if (wants('large')) large(values.quick)
if (wants('topics')) topics(values.quick)
if (wants('attacks')) attacks(Number(values.seeds), values.quick, values.kind)
