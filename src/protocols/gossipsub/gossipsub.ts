/*
 * GossipSub 1.0 to 1.3 and floodsub (libp2p specs pubsub/ and pubsub/gossipsub/) over a Host: runs the router, checks
 * signatures, asks validators, hands messages to who listens.
 */
import { platformCrypto } from '#crypto'
import { fromBigInt, fromUtf8, toBigInt } from '../../bytes.ts'
import { deadline, raceAbort } from '../../deadline.ts'
import type { Timer } from '../../env.ts'
import { ClosedError, LimitError, ProtocolError, UnavailableError, asError } from '../../errors.ts'
import { Events } from '../../events.ts'
import type { Host } from '../../host.ts'
import { cleanClose, deferred, type Deferred } from '../../inbox.ts'
import { multiaddr, type Multiaddr } from '../../multiaddr.ts'
import { PeerId } from '../../peer/id.ts'
import type {
  Gossipsub,
  GossipsubEvents,
  GossipsubOptions,
  GossipsubStats,
  PartialExtension,
  PublishOptions,
  PublishResult,
  SubscribeOptions,
  Subscription,
} from './api.ts'
import { Backoff } from './backoff.ts'
import { Exchange } from './exchange.ts'
import { Links, linkDefaults, type LinkOptions } from './links.ts'
import { MessageCache } from './message-cache.ts'
import { gossipDefaults, gossipParams, type GossipParams } from './params.ts'
import { peerDefaults } from './peers.ts'
import { Promises } from './promises.ts'
import { queueDefaults } from './queue.ts'
import { Router } from './router.ts'
import { routerDefaults, type Incoming, type RouterEvent, type Verdict } from './state.ts'
import { validateThresholds, type Thresholds } from './score-params.ts'
import { PeerScore, type PeerScoreParts } from './score.ts'
import { Seen } from './seen.ts'
import { AuthorKeys, checkFields, plainMessage, signMessage, verifyMessage, type SignaturePolicy } from './sign.ts'
import {
  Topics,
  checkTopic,
  type MessageHandler,
  type Messages,
  type MessagesOptions,
  type PubSubMessage,
} from './topics.ts'
import { Validators, type Validator, type ValidatorOptions } from './validators.ts'
import { fieldBytes, idBytes, idKey, type PrunedPeer, type WireMessage } from './wire.ts'

export type {
  DataTransform,
  Gossipsub,
  GossipsubEvents,
  GossipsubOptions,
  GossipsubStats,
  PartialExtension,
  PublishOptions,
  PublishResult,
  SubscribeOptions,
  Subscription,
} from './api.ts'
export type { GossipParams } from './params.ts'
export type { ScoreParams, Thresholds, TopicScoreParams } from './score-params.ts'
export type { PeerScoreParts } from './score.ts'
export type { MessageHandler, Messages, MessagesOptions, PubSubMessage } from './topics.ts'
export type { Validation, Validator, ValidatorOptions } from './validators.ts'
export { decayFor } from './score-params.ts'
export { increasingSeqno, type SeqnoOptions } from './seqno.ts'

const defaults = {
  signing: 'StrictSign' as SignaturePolicy,
  maxMessageBytes: 1024 * 1024,
  emitSelf: false,
  maxValidating: 8_192,
  maxSeen: 262_144,
  maxCacheBytes: 64 * 1024 * 1024,
  maxExchangeDials: 8,
}

/** How long a publish waits where the only peers of its topic have no stream of ours yet. */
const openingMs = 3_000

class Adapter implements Gossipsub {
  readonly #host: Host
  readonly #options: typeof defaults & GossipsubOptions
  readonly #params: GossipParams
  readonly #thresholds: Thresholds
  readonly #score: PeerScore
  readonly #seen: Seen
  readonly #cache: MessageCache
  readonly #keys = new AuthorKeys()
  readonly #router: Router
  readonly #links: Links
  readonly #topics: Topics
  readonly #validators: Validators
  readonly #events: Events<GossipsubEvents>
  readonly #relayed = new Map<string, number>()
  readonly #partial = new Map<string, SubscribeOptions>()
  readonly #direct = new Map<string, Multiaddr[]>()
  /** Of our own messages that somebody waits for: who hears that the wire took it. */
  readonly #taking = new Map<string, Deferred<void>>()
  readonly #counts = { delivered: 0, published: 0, rejected: 0, ignored: 0, throttled: 0 }
  readonly #exchange: Exchange
  #seqno: bigint
  #timer: Timer | undefined
  #timerAt = Infinity
  #settling = false
  #flushing = false
  #stop: AbortController | undefined

  constructor(host: Host, options: GossipsubOptions) {
    this.#host = host
    this.#options = { ...defaults, ...options }
    const { signing, privateKey, maxMessageBytes, maxSeen, maxCacheBytes, maxValidating } = this.#options
    if (signing === 'StrictSign' && privateKey === undefined) {
      throw new TypeError("GossipSub with signing 'StrictSign' wants the node's privateKey, or signing: 'StrictNoSign'")
    }
    if (privateKey !== undefined && !privateKey.publicKey.peerId.equals(host.peerId)) {
      throw new TypeError(`the privateKey is that of ${privateKey.publicKey.peerId}, the node is ${host.peerId}`)
    }
    if (!(maxMessageBytes > 0)) throw new RangeError(`maxMessageBytes is ${maxMessageBytes}, want more than 0`)
    this.#params = gossipParams(chosen(this.#options, gossipDefaults))
    this.#thresholds = validateThresholds(options.thresholds ?? {})
    const limits = chosen(this.#options, { ...routerDefaults, ...peerDefaults, ...queueDefaults })
    for (const [name, value] of Object.entries(limits)) {
      if (!(value > 0)) throw new RangeError(`${name} is ${value}, want more than 0`)
    }
    const { seenTtlMs, historyLength, historyGossip, heartbeatIntervalMs, iwantFollowupMs } = this.#params
    const { random } = host.env
    this.#score = new PeerScore({ seenTtlMs, ...options.score, appSpecificScore: (peer) => this.#appScore(peer) })
    this.#seen = new Seen({ ttlMs: seenTtlMs, maxEntries: maxSeen })
    this.#cache = new MessageCache({ history: historyLength, gossip: historyGossip, maxBytes: maxCacheBytes })
    for (const given of options.directPeers ?? []) {
      const addr = multiaddr(given)
      const peer = addr.peerId()
      if (peer === undefined) throw new TypeError(`a direct peer wants an address with /p2p, got ${addr}`)
      const id = peer.toString()
      this.#direct.set(id, [...(this.#direct.get(id) ?? []), addr])
    }
    this.#router = new Router({
      selfBytes: host.peerId.bytes,
      params: this.#params,
      limits,
      thresholds: this.#thresholds,
      score: this.#score,
      cache: this.#cache,
      seen: this.#seen,
      backoff: new Backoff({ slackMs: heartbeatIntervalMs }),
      promises: new Promises(random, { followupMs: iwantFollowupMs }),
      unit: () => random.unit(),
      direct: new Set(this.#direct.keys()),
      idOf: (message) => this.#idOf(message),
      refuse: (message) => this.#refuse(message),
      signed: signing === 'StrictSign',
      exchanged: (peer) => this.#exchanged(peer),
      extensions: {
        ...(options.partial && { partialMessages: true }),
        ...(options.testExtension === true && { testExtension: true }),
      },
    })
    const linking: LinkOptions = { ...linkDefaults, ...chosen(this.#options, linkDefaults) }
    if (options.maxRpcBytes === undefined)
      linking.maxRpcBytes = Math.max(linking.maxRpcBytes, maxMessageBytes + 64 * 1024)
    this.#links = new Links(host, this.#router, linking, {
      changed: () => this.#changed(),
      sent: (_peer, ids) => {
        for (const id of ids) this.#taking.get(id)?.resolve()
      },
    })
    this.#topics = new Topics(host.env, (topic) => this.#left(topic))
    this.#exchange = new Exchange(host, this.#options.maxExchangeDials)
    this.#validators = new Validators(host.env, host.peerId, maxValidating)
    this.#events = new Events((event, error) => host.env.trace?.('gossipsub.listener-threw', { event, error }))
    options.partial?.attach(this.#router, () => this.#changed())
    // pubsub §The Message: it goes up; the clock keeps it above what we sent before a restart.
    this.#seqno = BigInt(Math.floor(host.env.clock.wallTime())) * 1_000_000n
  }

  get #now(): number {
    return this.#host.env.clock.now()
  }

  /** The application's own mistake must not stop the heartbeat: then its opinion does not count. */
  #appScore(peer: string): number {
    try {
      const value = this.#options.score?.appSpecificScore?.(peer) ?? 0
      if (Number.isFinite(value)) return value
      throw new RangeError(`appSpecificScore of ${peer} is ${value}, want a finite number`)
    } catch (error) {
      this.#host.env.trace?.('gossipsub.app-score-failed', { peer, error: asError(error) })
      return 0
    }
  }

  start(): void {
    if (this.#stop !== undefined) return
    this.#stop = new AbortController()
    this.#router.start(this.#now)
    this.#links.start()
    this.#changed()
  }

  async stop(): Promise<void> {
    if (this.#stop === undefined) return
    const reason = new ClosedError('GossipSub was stopped', cleanClose, 'stopped')
    this.#stop.abort(reason)
    this.#stop = undefined
    this.#router.stop()
    this.#timer?.cancel()
    this.#timer = undefined
    this.#timerAt = Infinity
    this.#topics.end(reason)
    await this.#links.stop(reason)
  }

  // The machine: events out, frames out, time in

  #changed(): void {
    if (this.#settling || this.#stop === undefined) return
    this.#settling = true
    try {
      for (let event = this.#router.next(); event !== undefined; event = this.#router.next()) this.#event(event)
    } finally {
      this.#settling = false
    }
    this.#flush()
    if (this.#router.deadline < this.#timerAt) {
      this.#timer?.cancel()
      this.#timerAt = this.#router.deadline
      this.#timer = this.#host.env.clock.setTimer(this.#timerAt - this.#now, () => this.#due())
    }
  }

  /** Once this turn of the event loop is over, so that what belongs together goes out together. */
  #flush(): void {
    if (!this.#router.pending || this.#flushing) return
    this.#flushing = true
    this.#host.env.turn(() => {
      this.#flushing = false
      if (this.#stop === undefined) return
      this.#links.flush(this.#router.dirty())
      this.#flush()
    })
  }

  #due(): void {
    this.#timer = undefined
    this.#timerAt = Infinity
    const now = this.#now
    if (now >= this.#router.deadline) {
      this.#router.tick(now)
      this.#partialEvent({ kind: 'heartbeat' })
    }
    this.#changed()
  }

  #event(event: RouterEvent): void {
    switch (event.kind) {
      case 'incoming': {
        this.#incoming(event.incoming)
        break
      }
      case 'violation': {
        this.#links.refuse(event.peer, event.error)
        break
      }
      case 'subscription': {
        const { topic, subscribed } = event
        const peer = this.#links.peer(event.peer) ?? PeerId.parse(event.peer)
        this.#events.emit('subscription', { peer, topic, subscribed })
        break
      }
      case 'mesh': {
        const { topic, joined, by } = event
        const peer = this.#links.peer(event.peer) ?? PeerId.parse(event.peer)
        if (joined) this.#host.env.trace?.('gossipsub.grafted', { peer, topic, by })
        else this.#host.env.trace?.('gossipsub.pruned', { peer, topic, by })
        this.#events.emit('mesh', { peer, topic, joined, by })
        break
      }
      case 'exchange': {
        this.#exchange.meet(event.peers, this.#stop?.signal)
        break
      }
      case 'direct': {
        void this.#dialDirect(event.peer)
        break
      }
      default: {
        this.#partialEvent(event)
      }
    }
  }

  /** The application of partial messages may fail at it, and nothing else does. */
  #partialEvent(event: Parameters<PartialExtension['event']>[0] | { kind: 'heartbeat' }): void {
    try {
      if (event.kind === 'heartbeat') this.#options.partial?.heartbeat()
      else this.#options.partial?.event(event)
    } catch (error) {
      const peer = 'peer' in event ? event.peer : undefined
      this.#host.env.trace?.('gossipsub.partial-failed', { peer, error: asError(error) })
      if (event.kind !== 'partial' || !(error instanceof ProtocolError)) return
      this.#router.invalidPartial(event.peer, event.partial.topic ?? '')
    }
  }

  // Messages in

  #refuse(message: WireMessage): string | undefined {
    const { signing, maxMessageBytes } = this.#options
    if (fieldBytes(message.raw.length) > maxMessageBytes) return 'oversized'
    return checkFields(message, signing, this.#keys)
  }

  #idOf({ topic, data = new Uint8Array(0), from, seqno }: WireMessage): string {
    const { messageId, signing } = this.#options
    if (messageId !== undefined) return idKey(messageId({ topic, data, from, seqno }))
    if (signing === 'StrictNoSign' || from === undefined || seqno === undefined)
      return idKey(platformCrypto.sha256(data))
    return idKey(from) + idKey(seqno)
  }

  #incoming(incoming: Incoming): void {
    if (this.#options.signing === 'StrictNoSign') {
      this.#claimed(incoming)
      return
    }
    verifyMessage(incoming.message, this.#keys).then(
      (holds) => {
        if (!holds) {
          this.#counts.rejected++
          this.#router.invalid(incoming)
        } else if (this.#router.claim(incoming, this.#now)) {
          this.#claimed(incoming)
        }
        this.#links.checked(incoming.sender)
        this.#changed()
      },
      (error: unknown) => {
        // A key that this platform can't check: nobody is to blame, and nothing of it goes on.
        this.#host.env.trace?.('gossipsub.unchecked', { error: asError(error) })
        if (this.#router.claim(incoming, this.#now)) this.#settled(incoming, 'ignore', undefined)
        this.#links.checked(incoming.sender)
        this.#changed()
      },
    )
  }

  #claimed(incoming: Incoming): void {
    if (incoming.state !== 'claimed') return
    const receivedFrom = this.#links.peer(incoming.sender) ?? PeerId.parse(incoming.sender)
    let message: PubSubMessage
    try {
      message = this.#read(incoming, receivedFrom)
    } catch (error) {
      this.#host.env.trace?.('gossipsub.bad-data', { peer: receivedFrom, error: asError(error) })
      this.#settled(incoming, 'reject', undefined)
      return
    }
    const verdict = this.#validators.check(message, receivedFrom)
    if (verdict instanceof Promise) {
      void verdict.then((said) => {
        this.#settled(incoming, said, message)
        this.#changed()
      })
    } else {
      this.#settled(incoming, verdict, message)
    }
  }

  #settled(incoming: Incoming, verdict: Verdict, message: PubSubMessage | undefined): void {
    this.#router.settle(incoming, verdict, this.#now)
    if (verdict !== 'accept') {
      this.#counts[verdict === 'reject' ? 'rejected' : verdict === 'ignore' ? 'ignored' : 'throttled']++
    } else if (message !== undefined && this.#stop !== undefined) {
      this.#counts.delivered++
      this.#topics.deliver(message)
    }
  }

  /** As the application sees it. Throws what its transform throws. */
  #read({ id, message }: Incoming, receivedFrom: PeerId): PubSubMessage {
    const { transform, maxMessageBytes } = this.#options
    const { topic, data = new Uint8Array(0), from, seqno } = message
    const content = transform === undefined ? data : transform.incoming(topic, data, maxMessageBytes)
    if (content.length > maxMessageBytes) throw new LimitError('maxMessageBytes', maxMessageBytes, content.length)
    return {
      topic,
      data: content,
      id: idBytes(id),
      from: from && this.#author(message),
      seqno: seqno && toBigInt(seqno),
      receivedFrom,
    }
  }

  #author(message: WireMessage): PeerId | undefined {
    const key = this.#keys.of(message)
    return typeof key === 'string' ? undefined : key.peerId
  }

  // Messages out

  async publish(topic: string, data: string | Uint8Array, options: PublishOptions = {}): Promise<PublishResult> {
    const { signal, taken = false, allowNone = false } = options
    checkTopic(topic)
    signal?.throwIfAborted()
    this.#started()
    const { maxMessageBytes, transform, signing, privateKey } = this.#options
    const plain = typeof data === 'string' ? fromUtf8(data) : data.slice()
    const content = transform === undefined ? plain : transform.outgoing(topic, plain)
    const size = Math.max(plain.length, content.length)
    if (size > maxMessageBytes) throw new LimitError('maxMessageBytes', maxMessageBytes, size)
    const message =
      signing === 'StrictNoSign' || privateKey === undefined
        ? plainMessage(topic, content)
        : await signMessage(privateKey, { topic, data: content, seqno: fromBigInt(++this.#seqno, 8) })
    const whole = fieldBytes(message.raw.length)
    if (whole > maxMessageBytes) throw new LimitError('maxMessageBytes', maxMessageBytes, whole)
    const id = this.#idOf(message)
    const own: PubSubMessage = {
      topic,
      data: plain,
      id: idBytes(id),
      from: message.from && this.#host.peerId,
      seqno: message.seqno && toBigInt(message.seqno),
      receivedFrom: this.#host.peerId,
    }
    const verdict = await this.#validators.check(own, this.#host.peerId)
    if (verdict !== 'accept') {
      throw new UnavailableError('refused', `our own validators of ${topic} say ${verdict} to this message`)
    }
    signal?.throwIfAborted()
    this.#started()
    if (taken) return this.#untilTaken(own, id, message, signal)
    if (!allowNone) await this.#reachable(topic, signal)
    return this.#publish(own, id, message, allowNone)
  }

  /** Where the streams to all peers of the topic are still being opened, waits for the first. */
  async #reachable(topic: string, signal: AbortSignal | undefined): Promise<void> {
    const peers = this.#router.topicPeers(topic).map((id) => this.#router.peer(id))
    if (peers.length === 0 || peers.some((peer) => peer?.version !== undefined)) return
    const ends = AbortSignal.any([signal, this.#stop?.signal].filter((one) => one !== undefined))
    const bound = deadline({ env: this.#host.env, timeoutMs: openingMs, what: 'opening a stream', signal: ends })
    const news = deferred<void>()
    const off = this.on('subscription', (said) => {
      if (said.topic === topic && said.subscribed) news.resolve()
    })
    try {
      await raceAbort(news.promise, bound.signal)
    } catch (error) {
      // What publish says then is the better error.
      if (ends.aborted) throw error
    } finally {
      off()
      bound.done()
    }
  }

  #publish(own: PubSubMessage, id: string, message: WireMessage, allowNone: boolean): PublishResult {
    const { topic } = own
    const published = this.#router.publish(id, message, allowNone, this.#now)
    const result = { topic, id: own.id, recipients: [] as PeerId[], duplicate: published === undefined }
    if (published === undefined) return result
    const { recipients, subscribers, belowThreshold, queueFull, wantParts } = published
    if (recipients.length === 0 && !allowNone) {
      if (subscribers === 0) {
        throw new UnavailableError(
          'not-found',
          `none of our ${this.#size} GossipSub peers is in topic ${topic}: connect to some that are, or publish with allowNone`,
        )
      }
      if (queueFull > 0) throw new LimitError('maxQueueBytes', this.#limit('maxQueueBytes'), message.raw.length)
      if (wantParts > 0) {
        throw new UnavailableError(
          'refused',
          `the ${wantParts} peers in topic ${topic} that we would send to want parts: publish a group of them, or with allowNone`,
        )
      }
      throw new UnavailableError(
        'refused',
        `of the ${subscribers} peers in topic ${topic} ${belowThreshold} have a score below ${this.#thresholds.publish}, the publish threshold: see scores()`,
      )
    }
    this.#counts.published++
    for (const peer of recipients) result.recipients.push(this.#links.peer(peer) ?? PeerId.parse(peer))
    if (this.#options.emitSelf) this.#topics.deliver(own)
    this.#changed()
    return result
  }

  /** Published to whoever there is; waits for a peer of the topic, and until the wire to one has taken it. */
  async #untilTaken(
    own: PubSubMessage,
    id: string,
    message: WireMessage,
    signal: AbortSignal | undefined,
  ): Promise<PublishResult> {
    const ends = this.#stop?.signal
    const bound = signal === undefined || ends === undefined ? (signal ?? ends) : AbortSignal.any([signal, ends])
    const taking = deferred<void>()
    this.#taking.set(id, taking)
    try {
      for (;;) {
        const news = deferred<void>()
        const off = this.on('subscription', ({ topic, subscribed }) => {
          if (subscribed && topic === own.topic) news.resolve()
        })
        try {
          const result = this.#publish(own, id, message, false)
          if (result.duplicate) return result
          await raceAbort(taking.promise, bound)
          return result
        } catch (error) {
          if (!(error instanceof UnavailableError) || error.code !== 'not-found') throw error
          await raceAbort(news.promise, bound)
        } finally {
          off()
        }
      }
    } finally {
      this.#taking.delete(id)
    }
  }

  #started(): void {
    if (this.#stop === undefined) throw new ClosedError('GossipSub is not started', cleanClose, 'not-started')
  }

  get #size(): number {
    let count = 0
    for (const { version } of this.#router.peers()) if (version !== undefined) count++
    return count
  }

  #limit(name: keyof typeof queueDefaults): number {
    return this.#options[name] ?? queueDefaults[name]
  }

  // Topics

  subscribe(topic: string, handler: MessageHandler, options: SubscribeOptions = {}): Subscription {
    checkTopic(topic)
    this.#topics.add(topic, handler)
    this.#join(topic, options)
    let done = false
    return {
      topic,
      unsubscribe: () => {
        if (done) return
        done = true
        if (this.#topics.listens(topic, handler)) this.#topics.remove(topic, handler)
      },
    }
  }

  messages(topic: string, options: MessagesOptions & SubscribeOptions = {}): Messages {
    checkTopic(topic)
    const messages = this.#topics.messages(topic, options)
    this.#join(topic, options)
    return messages
  }

  relay(topic: string): () => void {
    checkTopic(topic)
    this.#relayed.set(topic, (this.#relayed.get(topic) ?? 0) + 1)
    this.#join(topic, {})
    let done = false
    return () => {
      if (done) return
      done = true
      const left = (this.#relayed.get(topic) ?? 1) - 1
      if (left > 0) {
        this.#relayed.set(topic, left)
        return
      }
      this.#relayed.delete(topic)
      if (!this.#topics.has(topic)) this.#left(topic)
    }
  }

  #join(topic: string, { requestsPartial, supportsPartial }: SubscribeOptions): void {
    const before = this.#partial.get(topic)
    const partial = {
      requestsPartial: requestsPartial ?? before?.requestsPartial ?? false,
      supportsPartial: requestsPartial === true || (supportsPartial ?? before?.supportsPartial ?? false),
    }
    this.#partial.set(topic, partial)
    this.#router.subscribe(topic, partial, this.#now)
    this.#changed()
  }

  #left(topic: string): void {
    if (this.#relayed.has(topic)) return
    this.#partial.delete(topic)
    this.#router.unsubscribe(topic, this.#now)
    this.#changed()
  }

  unsubscribe(topic: string, handler?: MessageHandler): void {
    this.#topics.remove(topic, handler)
  }

  topics(): string[] {
    return this.#router.topics()
  }

  topicPeers(topic: string): PeerId[] {
    return this.#named(this.#router.topicPeers(topic))
  }

  mesh(topic: string): PeerId[] {
    return this.#named(this.#router.mesh(topic))
  }

  #named(ids: readonly string[]): PeerId[] {
    return ids.map((id) => this.#links.peer(id) ?? PeerId.parse(id))
  }

  addValidator(topic: string | undefined, validator: Validator, options?: ValidatorOptions): () => void {
    if (topic !== undefined) checkTopic(topic)
    return this.#validators.add(topic, validator, options)
  }

  scores(): Map<string, PeerScoreParts> {
    return this.#score.inspect(this.#now)
  }

  stats(): GossipsubStats {
    let dropped = 0
    let queuedBytes = 0
    for (const { queue } of this.#router.peers()) {
      dropped += queue.dropped
      queuedBytes += queue.bytes
    }
    return {
      ...this.#counts,
      peers: this.#size,
      topics: this.#router.topics().length,
      duplicates: this.#router.duplicates,
      dropped,
      queuedBytes,
      seen: this.#seen.size,
      cached: this.#cache.size,
      cachedBytes: this.#cache.bytes,
    }
  }

  on<K extends keyof GossipsubEvents>(event: K, listener: (detail: GossipsubEvents[K]) => void): () => void {
    return this.#events.on(event, listener)
  }

  // Other peers (v1.1 §Prune Backoff and Peer Exchange, §Explicit Peering Agreements)

  #exchanged(peer: string): PrunedPeer {
    const id = this.#links.peer(peer) ?? PeerId.parse(peer)
    const record = this.#options.recordOf?.(id)
    return { id: id.bytes, ...(record && { record }) }
  }

  async #dialDirect(id: string): Promise<void> {
    const signal = this.#stop?.signal
    if (signal === undefined) return
    try {
      await this.#host.dial(this.#direct.get(id) ?? id, { signal })
    } catch (error) {
      this.#host.env.trace?.('gossipsub.direct-failed', { peer: id, error: asError(error) })
    }
  }
}

/** Of `options` those that `like` has. */
function chosen<T extends object>(options: object, like: T): T {
  const out = { ...like } as Record<string, unknown>
  for (const name of Object.keys(like)) {
    const value = (options as Record<string, unknown>)[name]
    if (value !== undefined) out[name] = value
  }
  return out as T
}

/** Nothing runs until start(). Throws TypeError or RangeError on options that do not fit together. */
export function createGossipsub(host: Host, options: GossipsubOptions = {}): Gossipsub {
  return new Adapter(host, options)
}
