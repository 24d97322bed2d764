/*
 * Hundreds of GossipSub machines in virtual time: the real router and all that it holds, on a wire of latency, bandwidth
 * and connections that break. Nothing here is a promise, so that a thousand nodes run in one process; left out are
 * sockets, streams and real signatures (a message's signature is one word, and `check` takes its time).
 */
import { concat, equals, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { FakeRandom } from '../../src/env.ts'
import { Backoff } from '../../src/protocols/gossipsub/backoff.ts'
import { MessageCache } from '../../src/protocols/gossipsub/message-cache.ts'
import { gossipParams, type GossipParams } from '../../src/protocols/gossipsub/params.ts'
import { peerDefaults, type Version } from '../../src/protocols/gossipsub/peers.ts'
import { Promises } from '../../src/protocols/gossipsub/promises.ts'
import { queueDefaults } from '../../src/protocols/gossipsub/queue.ts'
import { Router } from '../../src/protocols/gossipsub/router.ts'
import { validateThresholds, type ScoreParams, type Thresholds } from '../../src/protocols/gossipsub/score-params.ts'
import { PeerScore } from '../../src/protocols/gossipsub/score.ts'
import { Seen } from '../../src/protocols/gossipsub/seen.ts'
import {
  routerDefaults,
  type Incoming,
  type Published,
  type RouterLimits,
  type Verdict,
} from '../../src/protocols/gossipsub/state.ts'
import { encodeMessage, idKey, type WireMessage } from '../../src/protocols/gossipsub/wire.ts'
import { readVarint, varintLength } from '../../src/varint.ts'

export interface NetOptions {
  seed: number
  /** One way, of each connection. Default 50 to 100 ms. */
  latencyMs?: readonly [number, number]
  /** Chance that an RPC is lost and comes 200 ms later. Default 0. */
  lossRate?: number
  /** Mbit/s of each node, up and down; its connections share it. Default: no limit. */
  mbit?: number
}

export interface NodeOptions {
  params?: Partial<GossipParams>
  limits?: Partial<RouterLimits>
  score?: ScoreParams
  thresholds?: Partial<Thresholds>
  version?: Version
  topics?: readonly string[]
  direct?: readonly string[]
  /** Until the signature is checked. Default 0.2 ms. */
  checkMs?: number
  /** What the validators say. */
  judge?: (incoming: Incoming, node: GossipNode) => Verdict
  /** Mbit/s of this one. */
  mbit?: number
  ip?: string
}

/** Who takes part: a node, or somebody who only plays one. */
export interface Actor {
  readonly id: string
  readonly ways: Map<string, Way>
  readonly link: Uplink
  readonly version: Version
  readonly ip: string | undefined
  connected(peer: Actor, outbound: boolean): void
  disconnected(peer: Actor): void
  receive(from: string, chunks: readonly Uint8Array[]): void
  /** What goes out next to a peer. */
  pull(to: string): readonly Uint8Array[] | undefined
}

/** One direction of a connection. */
export interface Way {
  readonly from: Actor
  readonly to: Actor
  readonly latencyMs: number
  open: boolean
  /** What is being sent; bytes of it that have not left yet. */
  sending: readonly Uint8Array[] | undefined
  left: number
  lastAt: number
}

/** A node's line: its connections take turns, a piece at a time. */
export class Uplink {
  readonly bytesPerMs: number
  readonly turn: Way[] = []
  busy = false
  /** When what comes down is through. */
  downAt = 0

  constructor(mbit: number) {
    this.bytesPerMs = (mbit * 1e6) / 8 / 1000
  }
}

const pieceBytes = 16 * 1024
/** What a turn of a node's event loop takes. */
const turnMs = 0.1

interface Planned {
  at: number
  order: number
  fn: () => void
}

/** A message and who got it when. */
export interface Track {
  readonly id: string
  readonly topic: string
  readonly at: number
  readonly source: string
  /** From publish to delivery, by node. */
  readonly got: Map<GossipNode, number>
}

export class Net {
  now = 0
  readonly random: FakeRandom
  readonly nodes: GossipNode[] = []
  readonly tracks = new Map<string, Track>()
  rpcs = 0
  bytes = 0
  /** Somebody got a message twice. */
  readonly twice: string[] = []
  readonly options: NetOptions
  readonly #heap: Planned[] = []
  #order = 0
  #names = 0

  constructor(options: NetOptions) {
    this.options = options
    this.random = new FakeRandom(options.seed)
  }

  name(kind = 'n'): string {
    return `${kind}${this.#names++}`
  }

  add(options: NodeOptions = {}, id = this.name()): GossipNode {
    const node = new GossipNode(this, id, options)
    this.nodes.push(node)
    node.start()
    return node
  }

  /** `from` dials `to`. */
  connect(from: Actor, to: Actor): void {
    if (from === to || from.ways.has(to.id)) return
    const [near, far] = this.options.latencyMs ?? [50, 100]
    const latencyMs = near + (far - near) * this.random.unit()
    const way = (a: Actor, b: Actor): Way => ({
      from: a,
      to: b,
      latencyMs,
      open: true,
      sending: undefined,
      left: 0,
      lastAt: 0,
    })
    from.ways.set(to.id, way(from, to))
    to.ways.set(from.id, way(to, from))
    from.connected(to, true)
    to.connected(from, false)
  }

  /** What is on its way is lost. */
  cut(a: Actor, b: Actor): void {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const way = one.ways.get(other.id)
      if (way === undefined) continue
      way.open = false
      one.ways.delete(other.id)
      one.disconnected(other)
    }
  }

  /** Gone, with all its connections. */
  remove(node: GossipNode): void {
    for (const way of node.ways.values()) this.cut(node, way.to)
    node.stop()
    this.nodes.splice(this.nodes.indexOf(node), 1)
  }

  /** A connected graph where each has about `degree` connections: a ring through all, and chance. */
  wire(actors: readonly Actor[], degree: number): void {
    const ring = this.shuffled(actors)
    for (const [i, actor] of ring.entries()) this.connect(actor, ring[(i + 1) % ring.length] as Actor)
    for (const actor of ring) {
      for (let tries = 0; actor.ways.size < degree && tries < 10 * degree; tries++) {
        const other = this.pick(ring)
        if (other.ways.size < degree + 2) this.connect(actor, other)
      }
    }
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.random.unit() * list.length)] as T
  }

  shuffled<T>(list: readonly T[]): T[] {
    const out = [...list]
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(this.random.unit() * (i + 1))
      ;[out[i], out[j]] = [out[j] as T, out[i] as T]
    }
    return out
  }

  // Time

  at(ms: number, fn: () => void): void {
    const heap = this.#heap
    const planned = { at: ms, order: this.#order++, fn }
    let i = heap.length
    heap.push(planned)
    while (i > 0) {
      const up = (i - 1) >> 1
      const parent = heap[up] as Planned
      if (!before(planned, parent)) break
      heap[i] = parent
      i = up
    }
    heap[i] = planned
  }

  after(ms: number, fn: () => void): void {
    this.at(this.now + ms, fn)
  }

  run(ms: number): void {
    const until = this.now + ms
    for (let head = this.#heap[0]; head !== undefined && head.at <= until; head = this.#heap[0]) {
      this.#pop()
      this.now = Math.max(this.now, head.at)
      head.fn()
    }
    this.now = until
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let i = 0
    for (;;) {
      let down = 2 * i + 1
      if (down >= heap.length) break
      if (down + 1 < heap.length && before(heap[down + 1] as Planned, heap[down] as Planned)) down++
      if (!before(heap[down] as Planned, last)) break
      heap[i] = heap[down] as Planned
      i = down
    }
    heap[i] = last
  }

  // The wire

  /** Sends what an actor has for a peer, as far as its line takes it. */
  send(way: Way): void {
    const { link } = way.from
    while (way.open && way.sending === undefined) {
      const chunks = way.from.pull(way.to.id)
      if (chunks === undefined) return
      const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
      this.rpcs++
      this.bytes += bytes
      if (link.bytesPerMs === Infinity) {
        this.#arrives(way, chunks, bytes)
        continue
      }
      way.sending = chunks
      way.left = bytes
      link.turn.push(way)
      this.#serve(link)
    }
  }

  #serve(link: Uplink): void {
    if (link.busy) return
    const way = link.turn.shift()
    if (way === undefined) return
    const piece = Math.min(pieceBytes, way.left)
    link.busy = true
    this.after(piece / link.bytesPerMs, () => {
      link.busy = false
      way.left -= piece
      if (way.left > 0 && way.open) {
        link.turn.push(way)
      } else {
        const chunks = way.sending ?? []
        way.sending = undefined
        this.#arrives(
          way,
          chunks,
          chunks.reduce((sum, chunk) => sum + chunk.length, 0),
        )
        this.send(way)
      }
      this.#serve(link)
    })
  }

  /** In order, whatever was lost on the way. */
  #arrives(way: Way, chunks: readonly Uint8Array[], bytes: number): void {
    const { lossRate = 0 } = this.options
    const lost = lossRate > 0 && this.random.unit() < lossRate ? 200 : 0
    way.lastAt = Math.max(way.lastAt, this.now + way.latencyMs + lost)
    this.at(way.lastAt, () => {
      if (!way.open) return
      const { link } = way.to
      link.downAt = Math.max(this.now, link.downAt + bytes / link.bytesPerMs)
      if (link.downAt > this.now) this.at(link.downAt, () => way.open && way.to.receive(way.from.id, chunks))
      else way.to.receive(way.from.id, chunks)
    })
  }

  // Messages

  /** Delivered to `node` for the first time in its life, or again. */
  delivered(id: string, node: GossipNode): void {
    const track = this.tracks.get(id)
    if (track === undefined) return
    if (node.got.has(id)) this.twice.push(`${node.id} got ${track.topic} of ${track.source} twice`)
    node.got.add(id)
    if (!track.got.has(node)) track.got.set(node, this.now - track.at)
  }
}

const before = (a: Planned, b: Planned): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

const genuine = fromUtf8('genuine')

export class GossipNode implements Actor {
  readonly id: string
  readonly bytes: Uint8Array
  readonly ways = new Map<string, Way>()
  readonly link: Uplink
  readonly version: Version
  readonly ip: string | undefined
  readonly #net: Net
  readonly #options: NodeOptions
  router: Router
  score: PeerScore
  /** Messages that it was handed. */
  readonly got = new Set<string>()
  forged = 0
  #seqno = 0
  #flushing = false
  #life = 0

  constructor(net: Net, id: string, options: NodeOptions) {
    this.#net = net
    this.#options = options
    this.id = id
    this.bytes = fromUtf8(id)
    this.link = new Uplink(options.mbit ?? net.options.mbit ?? Infinity)
    this.version = options.version ?? 13
    this.ip = options.ip
    ;({ router: this.router, score: this.score } = this.#made())
  }

  #made(): { router: Router; score: PeerScore } {
    const { params: given, limits, score: scoring, thresholds, direct = [] } = this.#options
    const params = gossipParams(given)
    const random = new FakeRandom(Math.floor(this.#net.random.unit() * 2 ** 32))
    const score = new PeerScore({ seenTtlMs: params.seenTtlMs, ...scoring })
    const router = new Router({
      selfBytes: this.bytes,
      params,
      limits: { ...routerDefaults, ...peerDefaults, ...queueDefaults, ...limits },
      thresholds: validateThresholds(thresholds ?? {}),
      score,
      cache: new MessageCache({ history: params.historyLength, gossip: params.historyGossip }),
      seen: new Seen({ ttlMs: params.seenTtlMs }),
      backoff: new Backoff({ slackMs: params.heartbeatIntervalMs }),
      promises: new Promises(random, { followupMs: params.iwantFollowupMs }),
      unit: () => random.unit(),
      direct: new Set(direct),
      idOf: ({ from, seqno }) => idKey(from ?? new Uint8Array()) + idKey(seqno ?? new Uint8Array()),
      refuse: ({ signature }) => (signature === undefined ? 'missing-signature' : undefined),
      signed: true,
      exchanged: (peer) => ({ id: fromUtf8(peer) }),
      extensions: {},
    })
    return { router, score }
  }

  start(): void {
    const life = ++this.#life
    // Nodes do not beat in step.
    this.#net.after(this.#net.random.unit() * 900, () => {
      if (life !== this.#life) return
      this.router.start(this.#net.now)
      this.#beat(life)
    })
    for (const topic of this.#options.topics ?? []) this.subscribe(topic)
  }

  #beat(life: number): void {
    this.#net.at(this.router.deadline, () => {
      if (life !== this.#life) return
      this.router.tick(this.#net.now)
      this.#changed()
      this.#beat(life)
    })
  }

  stop(): void {
    this.#life++
  }

  /** Everything forgotten; its connections were cut before. */
  restart(): void {
    this.stop()
    ;({ router: this.router, score: this.score } = this.#made())
    this.got.clear()
    // As a clock does that is not set back.
    this.#seqno += 1_000_000
    this.start()
  }

  subscribe(topic: string): void {
    this.router.subscribe(topic, { requestsPartial: false, supportsPartial: false }, this.#net.now)
    this.#changed()
  }

  unsubscribe(topic: string): void {
    this.router.unsubscribe(topic, this.#net.now)
    this.#changed()
  }

  publish(topic: string, data: Uint8Array, allowNone = true): Published & { id: string } {
    const seqno = new Uint8Array(8)
    new DataView(seqno.buffer).setBigUint64(0, BigInt(++this.#seqno))
    const fields = { from: this.bytes, data, seqno, topic, signature: genuine, key: undefined }
    const message: WireMessage = { ...fields, raw: encodeMessage(fields) }
    const id = idKey(this.bytes) + idKey(seqno)
    this.#net.tracks.set(id, { id, topic, at: this.#net.now, source: this.id, got: new Map() })
    const published = this.router.publish(id, message, allowNone, this.#net.now)
    this.#changed()
    return { ...(published as Published), id }
  }

  connected(peer: Actor, outbound: boolean): void {
    const ips = peer.ip === undefined ? [] : [peer.ip]
    this.router.connected(peer.id, { bytes: fromUtf8(peer.id), outbound, ips }, this.#net.now)
    const version = Math.min(this.version, peer.version) as Version
    this.router.opened(peer.id, version, this.#net.now)
    this.router.greeted(peer.id)
    this.#changed()
  }

  disconnected(peer: Actor): void {
    this.router.disconnected(peer.id, this.#net.now)
    this.#changed()
  }

  receive(from: string, chunks: readonly Uint8Array[]): void {
    const whole = concat(chunks)
    this.router.receive(from, whole.subarray(varintLength(readVarint(whole) ?? 0)), this.#net.now)
    this.#changed()
  }

  pull(to: string): readonly Uint8Array[] | undefined {
    const tx = this.router.transmit(to, this.#net.now)
    // What is held back wants another turn.
    if (tx === undefined) this.#flush()
    return tx?.chunks
  }

  #changed(): void {
    for (let event = this.router.next(); event !== undefined; event = this.router.next()) {
      if (event.kind === 'incoming') this.#check(event.incoming)
      else if (event.kind === 'violation') throw event.error
      else if (event.kind === 'exchange') this.onExchange?.(event.peers.map(({ id }) => toUtf8(id)))
    }
    this.#flush()
  }

  onExchange: ((peers: string[]) => void) | undefined

  #check(incoming: Incoming): void {
    const { router } = this
    this.#net.after(this.#options.checkMs ?? 0.2, () => {
      if (router !== this.router) return
      if (!equals(incoming.message.signature ?? new Uint8Array(), genuine)) {
        this.forged++
        router.invalid(incoming)
      } else if (router.claim(incoming, this.#net.now)) {
        const verdict = this.#options.judge?.(incoming, this) ?? 'accept'
        router.settle(incoming, verdict, this.#net.now)
        if (verdict === 'accept') this.#net.delivered(incoming.id, this)
      }
      this.#changed()
    })
  }

  /** Once a turn, as the adapter does. */
  #flush(): void {
    if (!this.router.pending || this.#flushing) return
    this.#flushing = true
    this.#net.after(turnMs, () => {
      this.#flushing = false
      for (const id of this.router.dirty()) {
        const way = this.ways.get(id)
        if (way !== undefined) this.#net.send(way)
      }
      this.#flush()
    })
  }
}

/** The value below which a share of them lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}
