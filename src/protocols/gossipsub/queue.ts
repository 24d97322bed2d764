/*
 * What waits to be sent to one peer. Control goes before messages, our own messages before others', replies to IWANT
 * last. What is control coalesces: per topic the last word counts, so that it is bounded by our topics.
 * The drop rule, where messages pass their byte bound: replies go first, then forwarded ones, the oldest first; a
 * forwarded message that waited too long is not worth sending either. One of our own is refused when nothing but our
 * own is left. IHAVEs of an earlier heartbeat give way to the next. A slow peer costs nobody else anything.
 */
import {
  encodeControl,
  rpcChunks,
  type ControlExtensions,
  type PartialMessages,
  type PrunedPeer,
  type Subscription,
} from './wire.ts'

export interface QueueLimits {
  /** Messages waiting for one peer. Default 4 MiB. */
  maxQueueBytes: number
  /** A forwarded message or a reply waits so long for a slow peer. Default 5 s. */
  maxQueueMs: number
  /** Ids of IWANT, and of IDONTWANT, that wait for one peer. Default 5,000. */
  maxQueuedIds: number
}

export const queueDefaults: QueueLimits = {
  maxQueueBytes: 4 * 1024 * 1024,
  maxQueueMs: 5_000,
  maxQueuedIds: 5_000,
}

/** Once an RPC has so many bytes of messages, the next one goes into the next RPC: a record's worth. */
const rpcTargetBytes = 60 * 1024
/** Bytes of ids in one RPC: go-libp2p-pubsub resets the stream above 512 KiB of control. */
const controlBytes = 256 * 1024
const maxMessagesPerRpc = 256
/** Of topics' names in one RPC. */
const subscriptionChars = 128 * 1024
/** go-libp2p-pubsub reads no more of one RPC (MaxIDontWantLength). */
const idontwantsPerRpc = 10

type Lane = 'own' | 'forwarded' | 'reply'

interface Waiting {
  raw: Uint8Array
  since: number
  /** Not before this turn. */
  turn: number
}

export interface Tx {
  /** One RPC with its length prefix. */
  chunks: Uint8Array[]
  bytes: number
  /** Ids of our own messages in it. */
  own: string[]
}

export class PeerQueue {
  readonly #limits: QueueLimits
  #extensions: ControlExtensions | undefined
  #testExtension = false
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #grafts = new Set<string>()
  readonly #prunes = new Map<string, { backoffSeconds: number | undefined; peers: PrunedPeer[] }>()
  readonly #ihave = new Map<string, string[]>()
  #iwant: string[] = []
  #idontwant: string[] = []
  readonly #partials: PartialMessages[] = []
  #partialBytes = 0
  /** By message id, in order. */
  readonly #lanes: Record<Lane, Map<string, Waiting>> = { own: new Map(), forwarded: new Map(), reply: new Map() }
  #bytes = 0
  #ownBytes = 0
  /** Messages that were dropped for want of room or time. */
  dropped = 0

  constructor(limits: QueueLimits) {
    this.#limits = limits
  }

  /** Of messages and partial messages. */
  get bytes(): number {
    return this.#bytes + this.#partialBytes
  }

  get pending(): boolean {
    return (
      this.#extensions !== undefined ||
      this.#testExtension ||
      this.#subscriptions.size > 0 ||
      this.#hasControl ||
      this.#partials.length > 0 ||
      this.#bytes > 0
    )
  }

  get #hasControl(): boolean {
    return (
      this.#grafts.size > 0 ||
      this.#prunes.size > 0 ||
      this.#ihave.size > 0 ||
      this.#iwant.length > 0 ||
      this.#idontwant.length > 0
    )
  }

  /** Of a stream's first RPC (v1.3 §Extensions control message: first and once). */
  greet(subscriptions: Iterable<Subscription>, extensions: ControlExtensions | undefined): void {
    this.#subscriptions.clear()
    for (const subscription of subscriptions) this.#subscriptions.set(subscription.topic, subscription)
    this.#extensions = extensions
  }

  subscription(subscription: Subscription): void {
    this.#subscriptions.set(subscription.topic, subscription)
  }

  testExtension(): void {
    this.#testExtension = true
  }

  graft(topic: string): void {
    this.#prunes.delete(topic)
    this.#grafts.add(topic)
  }

  prune(topic: string, backoffSeconds: number | undefined, peers: PrunedPeer[]): void {
    this.#grafts.delete(topic)
    this.#prunes.set(topic, { backoffSeconds, peers })
  }

  ihave(topic: string, ids: string[]): void {
    this.#ihave.set(topic, ids)
  }

  /** How many of them there was room for, from the first on. */
  iwant(ids: readonly string[]): number {
    const taken = Math.max(0, Math.min(ids.length, this.#limits.maxQueuedIds - this.#iwant.length))
    for (let i = 0; i < taken; i++) this.#iwant.push(ids[i] as string)
    return taken
  }

  idontwant(id: string): void {
    if (this.#idontwant.length < this.#limits.maxQueuedIds) this.#idontwant.push(id)
  }

  /** False: there was no room for it. */
  partial(partial: PartialMessages, size: number): boolean {
    if (this.#partialBytes + size > this.#limits.maxQueueBytes) return false
    this.#partials.push(partial)
    this.#partialBytes += size
    return true
  }

  /** Not before `turn` it goes out. False: there was no room for it. */
  message(id: string, raw: Uint8Array, lane: Lane, now: number, turn = 0): boolean {
    const { own, forwarded, reply } = this.#lanes
    if (own.has(id) || forwarded.has(id) || reply.has(id)) return true
    if (!this.#makeRoom(raw.length, lane)) {
      this.dropped++
      return false
    }
    this.#lanes[lane].set(id, { raw, since: now, turn })
    this.#bytes += raw.length
    if (lane === 'own') this.#ownBytes += raw.length
    return true
  }

  /** The peer has it already (v1.2 §IDONTWANT). */
  cancel(id: string): void {
    for (const lane of ['forwarded', 'reply', 'own'] as const) this.#remove(lane, id)
  }

  #remove(lane: Lane, id: string): void {
    const waiting = this.#lanes[lane].get(id)
    if (waiting === undefined) return
    this.#lanes[lane].delete(id)
    this.#bytes -= waiting.raw.length
    if (lane === 'own') this.#ownBytes -= waiting.raw.length
  }

  #makeRoom(size: number, lane: Lane): boolean {
    const { maxQueueBytes } = this.#limits
    // Nothing is dropped for what finds no room all the same.
    if (size > maxQueueBytes - this.#ownBytes) return false
    // Nothing makes room for what is worth less than itself.
    const gives: Lane[] = lane === 'reply' ? [] : ['reply', 'forwarded']
    for (const from of gives) {
      for (const id of this.#lanes[from].keys()) {
        if (this.#bytes + size <= maxQueueBytes) return true
        this.#remove(from, id)
        this.dropped++
      }
    }
    return this.#bytes + size <= maxQueueBytes
  }

  /** The next RPC, or undefined. */
  take(now: number, turn: number): Tx | undefined {
    if (!this.pending) return undefined
    const subscriptions: Subscription[] = []
    let before = 0
    for (const [topic, subscription] of this.#subscriptions) {
      if (before > subscriptionChars) break
      this.#subscriptions.delete(topic)
      subscriptions.push(subscription)
      before += topic.length + 16
    }
    const control = this.#takeControl()
    const testExtension = this.#testExtension
    this.#testExtension = false
    before += control?.length ?? 0
    // One of 1 MiB wants an RPC of its own: go-libp2p-pubsub, rust-libp2p and py-libp2p read none above that.
    const partial = before <= 1024 ? this.#partials.shift() : undefined
    if (partial !== undefined) this.#partialBytes -= partialSize(partial)
    if (this.#partials.length === 0) this.#partialBytes = 0
    const publish: Uint8Array[] = []
    const own: string[] = []
    if (partial !== undefined) before += partialSize(partial)
    this.#takeMessages(publish, own, before, now, turn)
    if (subscriptions.length + publish.length === 0 && control === undefined && partial === undefined) {
      if (!testExtension) return undefined
    }
    const chunks = rpcChunks({
      subscriptions,
      publish,
      ...(control && { control }),
      ...(partial && { partial }),
      ...(testExtension && { testExtension }),
    })
    let bytes = 0
    for (const chunk of chunks) bytes += chunk.length
    return { chunks, bytes, own }
  }

  #takeControl(): Uint8Array | undefined {
    const extensions = this.#extensions
    if (extensions === undefined && !this.#hasControl) return undefined
    this.#extensions = undefined
    let room = controlBytes
    const grafts = [...this.#grafts]
    this.#grafts.clear()
    const prune: { topic: string; backoffSeconds: number | undefined; peers: PrunedPeer[] }[] = []
    for (const [topic, { backoffSeconds, peers }] of this.#prunes) {
      if (room <= 0) break
      this.#prunes.delete(topic)
      prune.push({ topic, backoffSeconds, peers })
      for (const { record } of peers) room -= 64 + (record?.length ?? 0)
    }
    const idontwant = this.#idontwant.splice(0, idontwantsPerRpc)
    const iwant: string[] = []
    for (const id of this.#iwant) {
      if (room <= 0) break
      iwant.push(id)
      room -= id.length + 4
    }
    this.#iwant = iwant.length === this.#iwant.length ? [] : this.#iwant.slice(iwant.length)
    const ihave: { topic: string; ids: string[] }[] = []
    for (const [topic, ids] of this.#ihave) {
      if (room <= 0) break
      let count = 0
      while (count < ids.length && room > 0) room -= (ids[count++] as string).length + 4
      ihave.push({ topic, ids: count === ids.length ? ids : ids.slice(0, count) })
      if (count === ids.length) this.#ihave.delete(topic)
      else this.#ihave.set(topic, ids.slice(count))
    }
    return encodeControl({
      ihave,
      iwant: iwant.length === 0 ? [] : [iwant],
      graft: grafts,
      prune,
      idontwant: idontwant.length === 0 ? [] : [idontwant],
      ...(extensions && { extensions }),
    })
  }

  /** `bytes`: how much is in the RPC already. */
  #takeMessages(publish: Uint8Array[], own: string[], bytes: number, now: number, turn: number): void {
    const { maxQueueMs } = this.#limits
    for (const lane of ['own', 'forwarded', 'reply'] as const) {
      for (const [id, { raw, since, turn: notBefore }] of this.#lanes[lane]) {
        // Those behind it are no older.
        if (notBefore > turn) break
        const late = lane !== 'own' && now - since > maxQueueMs
        if (!late && bytes > 0 && bytes + raw.length > rpcTargetBytes) return
        if (publish.length >= maxMessagesPerRpc) return
        this.#remove(lane, id)
        if (late) {
          this.dropped++
          continue
        }
        publish.push(raw)
        if (lane === 'own') own.push(id)
        bytes += raw.length
      }
    }
  }
}

export function partialSize({ topic, groupId, message, metadata }: PartialMessages): number {
  return 32 + (topic?.length ?? 0) + (groupId?.length ?? 0) + (message?.length ?? 0) + (metadata?.length ?? 0)
}
