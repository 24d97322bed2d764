/*
 * The DHT at scale, in virtual time (test/sim/field.ts): `--nodes 50,200,1000 --seed 1` prints hops, messages, virtual
 * time and memory of lookups, and how many succeed while a third of the nodes leaves; the last line is JSON.
 * `--attack` prints the rate of provider lookups among liars, with each defence switched off.
 */
import { parseArgs } from 'node:util'
import { fromUtf8 } from '../src/bytes.ts'
import type { QueryEvent } from '../src/dht/dht.ts'
import { cidOf } from '../src/ipld/cid.ts'
import { Field, type Member } from '../test/sim/field.ts'
import { attack, type Defences } from '../test/sim/liars.ts'

const say = (line: string): void => void process.stdout.write(`${line}\n`)
const mean = (list: readonly number[]): number => list.reduce((sum, one) => sum + one, 0) / Math.max(1, list.length)
const round = (value: number): number => Number(value.toPrecision(3))

function heap(): number {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

async function providersFound(field: Field, askers: readonly Member[], wanted: readonly [Member, string][]) {
  let found = 0
  for (const [i, [provider, name]] of wanted.entries()) {
    const asker = askers[i % askers.length] as Member
    const got = await field.all(asker.dht.findProviders(cidOf(0x55, fromUtf8(name)), { count: 1 }))
    if (asker === provider || got.includes(provider.host.peerId.toString())) found++
  }
  return found / wanted.length
}

async function scale(nodes: number, seed: number, lookups: number): Promise<object> {
  const before = heap()
  // Some write is lost, some members sit behind a firewall: clients, whom nobody can dial.
  const field = new Field({ seed, lossRate: 0.01, unreachable: 0.1, dht: { refreshMs: 1e9 }, maxConnections: 100 })
  await field.seed(nodes)
  const perNode = (heap() - before) / nodes
  const servers = field.members.filter(({ reachable }) => reachable)
  const hops: number[] = []
  const queries: number[] = []
  const times: number[] = []
  let exact = 0
  const messages = field.messages
  for (let i = 0; i < lookups; i++) {
    const asker = field.pick(field.members)
    const key = fromUtf8(`somewhere ${i}`)
    let deepest = 0
    const onEvent = (event: QueryEvent): void => {
      if (event.type === 'answer') deepest = Math.max(deepest, event.hops)
      if (event.type === 'done') queries.push(event.queries)
    }
    const since = field.time.now()
    const got = await field.time.until(asker.dht.closestPeers(key, { onEvent }))
    times.push(field.time.now() - since)
    hops.push(deepest)
    const truth = field.closest(key, 20, asker)
    if (truth.every(({ host }) => got.some(({ peer }) => peer.equals(host.peerId)))) exact++
  }
  const perLookup = (field.messages - messages) / lookups
  const wanted = Array.from({ length: lookups }, (_, i): [Member, string] => [field.pick(servers), `content ${i}`])
  for (const [member, name] of wanted) await field.time.until(member.dht.provide(cidOf(0x55, fromUtf8(name))))
  // A third goes without a word, as many come; nobody has refreshed a table since.
  const providers = new Set(wanted.map(([member]) => member))
  const leaving = field.members.filter((member) => !providers.has(member)).slice(0, Math.floor(nodes / 3))
  const old = new Set(field.members)
  for (const member of leaving) await field.crash(member)
  for (let i = 0; i < Math.min(leaving.length, 100); i++) await field.join({}, 3)
  await field.time.run(60_000)
  const stayed = field.members.filter((member) => old.has(member))
  const underChurn = await providersFound(field, stayed, wanted)
  const result = {
    nodes,
    hops: round(mean(hops)),
    maxHops: Math.max(...hops),
    queries: round(mean(queries)),
    messages: round(perLookup),
    virtualMs: Math.round(mean(times)),
    exact: exact / lookups,
    underChurn,
    kibPerNode: Math.round(perNode / 1024),
  }
  await field.stop()
  return result
}

/** Bytes of heap for one provider record, in a store that keeps them in memory besides its index. */
async function perRecord(): Promise<number> {
  const field = new Field({ seed: 1 })
  const member = await field.start(field.make())
  const count = 20_000
  const before = heap()
  for (let i = 0; i < count; i++) member.kad.providers.add(fromUtf8(`key ${i}`), member.host.peerId, [member.host.addr])
  await field.time.until(member.kad.providers.flush())
  const bytes = (heap() - before) / count
  await field.stop()
  return Math.round(bytes)
}

const off: readonly [string, Partial<Defences>][] = [
  ['all defences', {}],
  ['without diversity', { diversity: false }],
  ['without verifying before adding', { verify: false }],
  ['without widening', { widen: false }],
  ['without blame', { blame: false }],
  ['three disjoint paths', { paths: 3 }],
  ['none', { diversity: false, verify: false, widen: false, blame: false }],
]

async function attacks(seeds: number, nodes: number): Promise<void> {
  say('| defences | 20% liars: found of 100, by seed | liars in tables | 25 Sybils around each key |')
  say('| --- | --- | --- | --- |')
  for (const [name, defences] of off) {
    const anywhere = []
    for (let seed = 1; seed <= seeds; seed++) {
      anywhere.push(await attack({ seed, nodes, liars: 0.2, naming: 'mixed', lookups: 100, defences }))
    }
    const sybils = { keys: 4, each: 25 }
    const crowd = await attack({ seed: 1, nodes, liars: 0, naming: 'each other', lookups: 40, defences, sybils })
    const rates = anywhere.map(({ found }) => found).join(', ')
    const inTables = `${Math.round(100 * mean(anywhere.map((one) => one.inTables)))}%`
    say(`| ${name} | ${rates} | ${inTables} | ${crowd.found} of ${crowd.lookups} |`)
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '50,200,1000' },
      seed: { type: 'string', default: '1' },
      lookups: { type: 'string', default: '100' },
      attack: { type: 'boolean', default: false },
      seeds: { type: 'string', default: '5' },
    },
  })
  if (values.attack) {
    await attacks(Number(values.seeds), values.nodes.includes(',') ? 100 : Number(values.nodes))
    return
  }
  const results = []
  for (const nodes of values.nodes.split(',').map(Number)) {
    const result = await scale(nodes, Number(values.seed), Number(values.lookups))
    say(JSON.stringify(result))
    results.push(result)
  }
  say(JSON.stringify({ sim: 'dht', seed: Number(values.seed), results, bytesPerRecord: await perRecord() }))
}

void main()
