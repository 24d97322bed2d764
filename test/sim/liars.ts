/*
 * Members that lie, all in league: they swallow what they are given to keep, deny every provider, and name as closer
 * each other, peers that do not exist, or addresses that are none of anybody's business.
 */
import { fromUtf8, equals } from '../../src/bytes.ts'
import { compareDistance, keyOf } from '../../src/dht/key.ts'
import { decodeMessage, encodeMessage, type Message, type WirePeer } from '../../src/dht/wire.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { somePeer } from '../dht/peers.ts'
import { Field, publicAddr, type FieldOptions, type Member } from './field.ts'

/** What a liar names as closer peers. */
export type Naming = 'each other' | 'nobody there' | 'private' | 'thousands' | 'mixed'

const invented = (addr: (n: number) => string, seed: number): (() => WirePeer[]) => {
  let all: WirePeer[] | undefined
  return () =>
    (all ??= Array.from({ length: 3_000 }, (_, n) => ({
      id: somePeer(n, seed).bytes,
      addrs: [multiaddr(addr(n)).bytes],
    })))
}
const privatePeers = invented((n) => `/ip4/10.0.0.${n % 250}/tcp/4001`, 76)
const absentPeers = invented((n) => `/ip4/99.${n % 250}.7.7/tcp/4001`, 77)

export class Liars {
  readonly members: Member[] = []
  readonly naming: Naming
  asked = 0
  #made = 0

  constructor(naming: Naming) {
    this.naming = naming
  }

  /** From now on this member lies. */
  turn(member: Member): void {
    this.members.push(member)
    const { host, kad } = member
    host.handle(kad.protocol, async (stream, { connection }) => {
      const framed = new BufferedStream(stream)
      for (let frame = await framed.readPrefixed(1 << 20); frame !== null; frame = await framed.readPrefixed(1 << 20)) {
        const request = decodeMessage(frame)
        this.asked++
        if (request.type === 'ADD_PROVIDER') continue
        const closerPeers = this.#named(request, connection.peer.bytes)
        const { type, key } = request
        await stream.write(...prefixed(encodeMessage({ type, key, closerPeers, providerPeers: [] })))
      }
      await stream.closeWrite()
    })
  }

  #named({ key }: Message, asker: Uint8Array): WirePeer[] {
    const kinds = ['each other', 'nobody there', 'private', 'thousands'] as const
    const naming = this.naming === 'mixed' ? (kinds[this.asked % kinds.length] ?? 'private') : this.naming
    if (naming === 'each other') {
      const target = keyOf(key)
      return this.members
        .toSorted((a, b) => compareDistance(target, a.key, b.key))
        .slice(0, 20)
        .map(({ host }) => ({ id: host.peerId.bytes, addrs: [host.addr.bytes], connection: 1 }))
    }
    const count = naming === 'thousands' ? 1_000 : 20
    const pool = naming === 'private' ? privatePeers() : absentPeers()
    const made = Array.from({ length: count }, () => pool[this.#made++ % pool.length] as WirePeer)
    // The asker itself, and something that is no id at all.
    const addrs = [multiaddr('/ip4/10.1.1.1/tcp/1').bytes]
    return [{ id: asker, addrs }, { id: fromUtf8('no id'), addrs }, ...made].slice(0, 1_020)
  }
}

export interface Defences {
  diversity: boolean
  verify: boolean
  widen: boolean
  paths: number
  blame: boolean
}

export const allDefences: Defences = { diversity: true, verify: true, widen: true, paths: 1, blame: true }

export interface AttackOptions {
  seed: number
  nodes: number
  /** Share of liars, or, with `keys`, as many crowd around each key besides. */
  liars: number
  naming: Naming
  defences?: Partial<Defences>
  lookups: number
  /** Sybils around each of so many keys; 0: liars are anywhere, each lookup has a key of its own. */
  sybils?: { keys: number; each: number }
}

export interface AttackResult {
  found: number
  lookups: number
  /** The longest lookup, virtual. */
  maxMs: number
  meanQueries: number
  /** Share of liars in honest tables. */
  inTables: number
  largestTable: number
}

/** Liars sit in three networks; everybody else has one of its own. */
const liarAddr = (n: number): string => `/ip4/${60 + (n % 3)}.1.${(n >> 7) % 250}.${1 + (n % 120)}/tcp/${4001 + n}`

export async function attack(options: AttackOptions): Promise<AttackResult> {
  const { seed, nodes, liars: share, naming, lookups, sybils } = options
  const { diversity, verify, widen, paths, blame } = { ...allDefences, ...options.defences }
  const tuning: FieldOptions['dht'] = { diversity, verify, widen, lookup: { paths, blame }, refreshMs: 1e9 }
  const field = new Field({ seed, addr: publicAddr, dht: { ...tuning, networks: ['wan'] as const } })
  // Private networks by prefix are of no scope; this one is the public one.
  const liars = new Liars(naming)
  const make = (addr?: string): Member => field.make({ mode: 'server' }, addr)
  const honest: Member[] = []
  const evil: Member[] = []
  for (let i = 0; i < nodes; i++)
    (i < nodes * share ? evil : honest).push(make(i < nodes * share ? liarAddr(i) : undefined))
  const keys = Array.from({ length: sybils?.keys ?? lookups }, (_, i) => cidOf(0x55, fromUtf8(`${seed} wanted ${i}`)))
  for (const key of sybils === undefined ? [] : keys) {
    const target = keyOf(key.multihash.bytes)
    for (let i = 0; i < (sybils?.each ?? 0); i++) evil.push(crowd(field, target, nodes, liarAddr(evil.length)))
  }
  try {
    for (const member of [...honest, ...evil]) await field.start(member)
    for (const member of evil) liars.turn(member)
    for (const member of honest) field.fill(member)
    const askers = honest.slice(0, Math.min(10, honest.length))
    const providers = honest.slice(-5)
    for (const member of [...askers, ...providers]) {
      await field.time.until(
        member.dht.refresh().catch(() => {}),
        1e8,
      )
    }
    let found = 0
    let maxMs = 0
    let queries = 0
    for (let i = 0; i < keys.length; i++) {
      const provider = providers[i % providers.length] as Member
      await field.time.until(provider.dht.provide(keys[i] as never).catch(() => 0))
    }
    for (let i = 0; i < lookups; i++) {
      const provider = providers[(i % keys.length) % providers.length] as Member
      const asker = askers[i % askers.length] as Member
      const since = field.time.now()
      const onEvent = (event: { type: string; queries?: number }): void => void (queries += event.queries ?? 0)
      const got = await field.all(asker.dht.findProviders(keys[i % keys.length] as never, { count: 1, onEvent }))
      maxMs = Math.max(maxMs, field.time.now() - since)
      if (got.includes(provider.host.peerId.toString())) found++
    }
    const entries = askers.flatMap(({ kad }) => kad.table.peers())
    const bad = entries.filter(({ peer }) => !honest.some(({ host }) => equals(host.peerId.bytes, peer.bytes))).length
    return {
      found,
      lookups,
      maxMs,
      meanQueries: queries / lookups,
      inTables: bad / Math.max(1, entries.length),
      largestTable: Math.max(...askers.map(({ kad }) => kad.table.size)),
    }
  } finally {
    await field.stop()
  }
}

let ground = 1_000_000

/** A member whose id was ground until it lies closer to the target than a network of so many reaches. */
function crowd(field: Field, target: Uint8Array, nodes: number, addr: string): Member {
  for (;;) {
    const id = somePeer(ground++, 9)
    const key = keyOf(id.bytes)
    const share = ((key[0] ?? 0) ^ (target[0] ?? 0)) * 256 + ((key[1] ?? 0) ^ (target[1] ?? 0))
    if (share / 65_536 < 1.5 / nodes) return field.make({ mode: 'server' }, addr, id)
  }
}
