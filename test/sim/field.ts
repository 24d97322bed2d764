/*
 * A Kademlia network of light hosts: joined one by one or with tables that are filled from the start, with latency,
 * losses, firewalls, churn, and members that lie. Everything a member does besides is the real code.
 */
import { equals } from '../../src/bytes.ts'
import { createDht, type Dht, type DhtOptions, type PeerInfo } from '../../src/dht/dht.ts'
import type { Kad } from '../../src/dht/kad.ts'
import { commonPrefixLength, compareDistance, keyOf, keyOfPeer, type Key } from '../../src/dht/key.ts'
import { FakeRandom } from '../../src/env.ts'
import type { Multiaddr } from '../../src/multiaddr.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { LightHost, type Way } from './light.ts'
import { VirtualTime } from './time.ts'

export interface FieldOptions {
  seed: number
  /** One way, between the nearest and between the farthest. Default 5 to 100 ms. */
  latencyMs?: readonly [number, number]
  /** Chance that a write is lost and comes 200 ms later. Default 0. */
  lossRate?: number
  /** Share of members that nobody can dial: clients behind a firewall. Default 0. */
  unreachable?: number
  /** `/memory/N` (default), or public IPv4 addresses, each in a network of its own unless told. */
  addr?: (index: number) => string
  dht?: Partial<DhtOptions>
  maxConnections?: number
}

export interface Member {
  readonly host: LightHost
  readonly dht: Dht
  readonly kad: Kad
  readonly key: Key
  readonly reachable: boolean
  /** Where its latencies come from. */
  readonly x: number
  readonly y: number
}

export class Field {
  readonly time = new VirtualTime(5)
  /** Alive, in the order they came. */
  members: Member[] = []
  readonly random: FakeRandom
  messages = 0
  bytes = 0
  dials = 0
  readonly #options: FieldOptions
  readonly #byAddr = new Map<string, Member>()
  readonly #places = new Map<LightHost, Member>()
  readonly #all: Member[] = []
  #count = 0
  readonly way: Way

  constructor(options: FieldOptions) {
    this.#options = options
    this.random = new FakeRandom(options.seed)
    const [near, far] = options.latencyMs ?? [5, 100]
    const { lossRate = 0 } = options
    this.way = {
      latencyMs: (from, to) => {
        const [a, b] = [this.#places.get(from), this.#places.get(to)]
        if (a === undefined || b === undefined) return far
        return near + ((far - near) * Math.hypot(a.x - b.x, a.y - b.y)) / Math.SQRT2
      },
      lossMs: (from) => (lossRate > 0 && from.random.unit() < lossRate ? 200 : 0),
      at: (addr) => {
        const member = this.#byAddr.get(addr)
        return member?.reachable === true ? member.host : undefined
      },
      sent: (bytes) => {
        this.messages++
        this.bytes += bytes
      },
      dialled: () => void this.dials++,
    }
  }

  /** One more, not started. */
  make(more: Partial<DhtOptions> = {}, addr?: string, identity?: PeerId): Member {
    const { seed, unreachable = 0, addr: addrOf = (i: number) => `/memory/${i + 1}`, maxConnections } = this.#options
    const index = this.#count++
    const { time, way } = this
    const reachable = this.random.unit() >= unreachable
    const host = new LightHost({
      seed,
      index,
      time,
      way,
      ...(identity && { identity }),
      addr: addr ?? addrOf(index),
      ...(maxConnections !== undefined && { maxConnections }),
    })
    const mode = reachable ? 'server' : 'client'
    const dht = createDht(host, {
      ...(this.#options.dht?.networks === undefined && { prefix: '/sim' }),
      mode,
      ...this.#options.dht,
      ...more,
    })
    const [kad] = dht.networks
    if (kad === undefined) throw new Error('a member without a network')
    const member: Member = {
      host,
      dht,
      kad,
      key: keyOfPeer(host.peerId),
      reachable,
      x: this.random.unit(),
      y: this.random.unit(),
    }
    this.#byAddr.set(host.addr.toString(), member)
    this.#places.set(host, member)
    this.#all.push(member)
    return member
  }

  async start(member: Member): Promise<Member> {
    this.members.push(member)
    await this.time.until(member.dht.start())
    return member
  }

  /** One more that joins through a few that are there. */
  async join(more: Partial<DhtOptions> = {}, through = 1): Promise<Member> {
    const member = this.make(more)
    const doors = this.members.filter(({ reachable }) => reachable)
    await this.start(member)
    for (let i = 0; i < through && doors.length > 0; i++) {
      const door = this.pick(doors)
      await this.time.until(member.host.dial(door.host.addrs()))
    }
    return member
  }

  /**
   * `count` members whose tables hold what they would hold after many refreshes: of each bucket up to `perBucket` at
   * random. Joining costs the square of their number, this does not.
   */
  async seed(count: number, perBucket = 20): Promise<void> {
    const fresh = Array.from({ length: count }, () => this.make())
    for (const member of fresh) await this.start(member)
    for (const member of fresh) this.fill(member, perBucket)
  }

  fill(member: Member, perBucket = 20): void {
    const buckets = new Map<number, Member[]>()
    for (const other of this.members) {
      if (other === member || !other.reachable) continue
      const bits = commonPrefixLength(member.key, other.key)
      const bucket = buckets.get(bits) ?? []
      bucket.push(other)
      buckets.set(bits, bucket)
    }
    for (const bucket of buckets.values()) {
      for (let left = Math.min(perBucket, bucket.length); left > 0; left--) {
        const [other] = bucket.splice(Math.floor(this.random.unit() * bucket.length), 1)
        if (other === undefined) break
        member.host.learn(other.host)
        member.kad.table.add(other.host.peerId, groups(member.kad, other.host.addr), this.time.now())
      }
    }
  }

  pick<T>(list: readonly T[]): T {
    const one = list[Math.floor(this.random.unit() * list.length)]
    if (one === undefined) throw new Error('nobody to pick from')
    return one
  }

  /** Goes without a word. */
  async crash(member: Member): Promise<void> {
    member.host.crash()
    this.members = this.members.filter((m) => m !== member)
    await this.time.until(member.dht.stop())
  }

  /** The closest that can be asked, who is asked not among them. */
  closest(key: Uint8Array, count = 20, but?: Member): Member[] {
    const target = keyOf(key)
    return this.members
      .filter((m) => m.reachable && m !== but)
      .toSorted((a, b) => compareDistance(target, a.key, b.key))
      .slice(0, count)
  }

  async all(found: AsyncIterable<PeerInfo>): Promise<string[]> {
    const collect = async (): Promise<string[]> => {
      const out: string[] = []
      for await (const { peer } of found) out.push(peer.toString())
      return out
    }
    return this.time.until(collect())
  }

  async stop(): Promise<void> {
    await this.time.until(Promise.all(this.#all.map(({ dht }) => dht.stop())))
  }
}

/** Groups as Kad itself would give them; none where it limits none. */
export function groups(kad: Kad, addr: Multiaddr): string[] {
  const group = kad.groupOf(addr)
  return group === undefined ? [] : [group]
}

/** Is this peer among them? */
export function among(members: readonly Member[], id: Uint8Array): boolean {
  return members.some(({ host }) => equals(host.peerId.bytes, id))
}

/** A public IPv4 address of its own network for each. */
export function publicAddr(index: number): string {
  // 23.0.0.0 to 50.255.0.0 without what is grouped by its first byte alone.
  const whole = new Set([38, 48])
  const first = Array.from({ length: 28 }, (_, i) => 23 + i).filter((n) => !whole.has(n))
  const a = first[index % first.length] ?? 23
  return `/ip4/${a}.${Math.floor(index / first.length) % 256}.${1 + (index % 200)}.1/tcp/4001`
}
