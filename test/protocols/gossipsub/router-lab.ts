/* A router with fake time and no sockets: peers that connect, frames in, RPCs out. */
import { concat, equals, fromUtf8 } from '../../../src/bytes.ts'
import { FakeRandom } from '../../../src/env.ts'
import { Backoff } from '../../../src/protocols/gossipsub/backoff.ts'
import { MessageCache } from '../../../src/protocols/gossipsub/message-cache.ts'
import { gossipParams, type GossipParams } from '../../../src/protocols/gossipsub/params.ts'
import { peerDefaults, type Version } from '../../../src/protocols/gossipsub/peers.ts'
import { Promises } from '../../../src/protocols/gossipsub/promises.ts'
import { queueDefaults } from '../../../src/protocols/gossipsub/queue.ts'
import { Router } from '../../../src/protocols/gossipsub/router.ts'
import { validateThresholds, type ScoreParams, type Thresholds } from '../../../src/protocols/gossipsub/score-params.ts'
import { PeerScore } from '../../../src/protocols/gossipsub/score.ts'
import { Seen } from '../../../src/protocols/gossipsub/seen.ts'
import {
  routerDefaults,
  type Incoming,
  type Published,
  type RouterEvent,
  type RouterLimits,
  type Verdict,
} from '../../../src/protocols/gossipsub/state.ts'
import {
  decodeRpc,
  encodeControl,
  encodeMessage,
  idKey,
  rpcChunks,
  type Control,
  type ControlExtensions,
  type OutgoingRpc,
  type Rpc,
  type WireMessage,
} from '../../../src/protocols/gossipsub/wire.ts'
import { readVarint, varintLength } from '../../../src/varint.ts'

export interface LabOptions {
  params?: Partial<GossipParams>
  limits?: Partial<RouterLimits>
  thresholds?: Partial<Thresholds>
  score?: ScoreParams
  /** Default true: messages have a signature, `genuine` or not. */
  signed?: boolean
  direct?: readonly string[]
  extensions?: ControlExtensions
  topics?: readonly string[]
}

export interface PeerOptions {
  version?: Version
  /** We dialled it. Default false. */
  outbound?: boolean
  /** Default `['t']`. */
  topics?: readonly string[]
}

const genuine = fromUtf8('genuine')

/** A message of an author, its nth. `forged`: with the same id, but the author did not sign it. */
export function message(author: string, n: number, given: { topic?: string; size?: number; forged?: boolean } = {}) {
  const { topic = 't', size = 10, forged = false } = given
  const seqno = new Uint8Array(8)
  new DataView(seqno.buffer).setUint32(4, n)
  const data = new Uint8Array(size).fill(forged ? 1 : 0)
  const fields = { from: fromUtf8(author), data, seqno, topic, signature: forged ? fromUtf8('forged') : genuine }
  const whole: WireMessage = { ...fields, key: undefined, raw: encodeMessage({ ...fields, key: undefined }) }
  return Object.assign(whole, { id: idKey(fields.from) + idKey(seqno) })
}

const strip = (chunks: readonly Uint8Array[]): Uint8Array => {
  const whole = concat(chunks)
  return whole.subarray(varintLength(readVarint(whole) ?? 0))
}

export class Lab {
  readonly router: Router
  readonly score: PeerScore
  readonly seen: Seen
  readonly cache: MessageCache
  readonly backoff: Backoff
  readonly promises: Promises
  readonly #events: RouterEvent[] = []
  readonly #blameWeight: number
  now = 0

  constructor(options: LabOptions = {}) {
    const { limits, thresholds, score, signed = true, direct = [], extensions = {}, topics = ['t'] } = options
    const params = gossipParams(options.params)
    const random = new FakeRandom(7)
    this.score = new PeerScore(score ?? {})
    this.#blameWeight = score?.behaviourPenaltyWeight ?? -10
    this.seen = new Seen({ ttlMs: params.seenTtlMs })
    this.cache = new MessageCache({ history: params.historyLength, gossip: params.historyGossip })
    this.backoff = new Backoff({ slackMs: params.heartbeatIntervalMs })
    this.promises = new Promises(random, { followupMs: params.iwantFollowupMs })
    this.router = new Router({
      selfBytes: fromUtf8('self'),
      params,
      limits: { ...routerDefaults, ...peerDefaults, ...queueDefaults, ...limits },
      thresholds: validateThresholds(thresholds ?? {}),
      score: this.score,
      cache: this.cache,
      seen: this.seen,
      backoff: this.backoff,
      promises: this.promises,
      unit: () => random.unit(),
      direct: new Set(direct),
      idOf: ({ from, seqno, data }) =>
        signed
          ? idKey(from ?? new Uint8Array()) + idKey(seqno ?? new Uint8Array())
          : idKey((data ?? new Uint8Array()).subarray(0, 32)),
      refuse: ({ signature }) => (signed === (signature !== undefined) ? undefined : 'signature'),
      signed,
      exchanged: (peer) => ({ id: fromUtf8(peer) }),
      extensions,
    })
    for (const topic of topics) this.subscribe(topic)
    this.router.start(this.now)
  }

  subscribe(topic: string): void {
    this.router.subscribe(topic, { requestsPartial: false, supportsPartial: false }, this.now)
  }

  /** Connected, our stream open, its hello here; `quiet` of what we answer to that. */
  peer(id: string, { version = 13, outbound = false, topics = ['t'] }: PeerOptions = {}): void {
    this.router.connected(id, { bytes: fromUtf8(id), outbound, ips: [] }, this.now)
    this.router.opened(id, version, this.now)
    this.router.greeted(id)
    if (topics.length > 0) {
      this.send(id, {
        subscriptions: topics.map((topic) => ({ subscribe: true, topic })),
        ...(version === 13 && { control: { extensions: {} } }),
      })
    }
  }

  /** So many of them, `p0` and so on, in our mesh as far as there is room. */
  crowd(count: number, options: PeerOptions = {}, prefix = 'p'): string[] {
    const names = Array.from({ length: count }, (_, i) => `${prefix}${i}`)
    for (const name of names) this.peer(name, options)
    this.quiet()
    return names
  }

  /** An RPC of a peer. */
  send(id: string, { control, ...rpc }: Omit<OutgoingRpc, 'control'> & { control?: Control }): void {
    const chunks = rpcChunks({ ...rpc, ...(control && { control: encodeControl(control) }) })
    this.router.receive(id, strip(chunks), this.now)
  }

  control(id: string, control: Control): void {
    this.send(id, { control })
  }

  publishes(id: string, ...messages: readonly WireMessage[]): void {
    this.send(id, { publish: messages.map(({ raw }) => raw) })
  }

  /** What goes to a peer, within so many turns of the event loop. */
  sent(id: string, turns = 4): Rpc[] {
    const out: Rpc[] = []
    for (let i = 0; i < turns; i++) {
      this.router.dirty()
      for (let tx = this.router.transmit(id, this.now); tx !== undefined; tx = this.router.transmit(id, this.now)) {
        out.push(decodeRpc(strip(tx.chunks)))
      }
    }
    return out
  }

  /** Ids of messages that go to each of these peers; without those to whom nothing goes. */
  got(ids: readonly string[]): Record<string, string[]> {
    const out: Record<string, string[]> = {}
    for (const id of ids) {
      const messages = this.sent(id).flatMap(({ publish }) => publish)
      if (messages.length > 0) {
        out[id] = messages.map(({ from, seqno }) => idKey(from ?? new Uint8Array()) + idKey(seqno ?? new Uint8Array()))
      }
    }
    return out
  }

  /** Takes what is there for all, and forgets it. */
  quiet(): void {
    for (const { id } of this.router.peers()) this.sent(id)
    this.events()
  }

  events(): RouterEvent[] {
    for (let event = this.router.next(); event !== undefined; event = this.router.next()) this.#events.push(event)
    return this.#events.splice(0)
  }

  of<K extends RouterEvent['kind']>(kind: K): Extract<RouterEvent, { kind: K }>[] {
    return this.events().filter((event) => event.kind === kind) as Extract<RouterEvent, { kind: K }>[]
  }

  incoming(): Incoming[] {
    return this.of('incoming').map(({ incoming }) => incoming)
  }

  /** Checks what came, as the adapter does. Returns the ids of what was accepted. */
  settle(verdict: Verdict = 'accept'): string[] {
    const out: string[] = []
    for (const incoming of this.incoming()) {
      const { signature = genuine } = incoming.message
      if (!equals(signature, genuine)) this.router.invalid(incoming)
      else if (this.router.claim(incoming, this.now)) {
        this.router.settle(incoming, verdict, this.now)
        if (verdict === 'accept') out.push(incoming.id)
      }
    }
    return out
  }

  publish(n: number, given: { topic?: string; size?: number; allowNone?: boolean } = {}): Published & { id: string } {
    const own = message('self', n, given)
    const published = this.router.publish(own.id, own, given.allowNone ?? false, this.now)
    if (published === undefined) throw new Error('published before')
    return { ...published, id: own.id }
  }

  /** Heartbeats until then. */
  wait(ms: number): void {
    const until = this.now + ms
    while (this.router.deadline <= until) {
      this.now = this.router.deadline
      this.router.tick(this.now)
    }
    this.now = until
  }

  /** P7, before its weight: how often it misbehaved. */
  blame(id: string): number {
    return Math.sqrt(Math.abs((this.score.inspect(this.now).get(id)?.p7 ?? 0) / this.#blameWeight))
  }
}
