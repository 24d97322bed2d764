/*
 * Who has what, told over a topic: one JSON object a message, in the form and on the topic of ipfs_kit_py:
 * {"cid", "provider", "timestamp" (Unix seconds), "addrs", "size"?, "type"?, ...more}. A message must be signed by the
 * provider that it names. What is heard is remembered for a while, and answers findProviders().
 */
import { equals, fromUtf8, toUtf8 } from '../bytes.ts'
import type { PeerInfo } from '../dht/dht.ts'
import { ProtocolError, asError } from '../errors.ts'
import { Events } from '../events.ts'
import { parseCid, type CID } from '../ipld/cid.ts'
import { multiaddr, type Multiaddr } from '../multiaddr.ts'
import type { Node } from '../node.ts'
import { PeerId } from '../peer/id.ts'
import type { Gossipsub, PubSubMessage, PublishResult } from '../protocols/gossipsub/gossipsub.ts'

export const contentTopic = 'ipfs-kit/content-announce'

export interface AnnounceOptions {
  /** Bytes. */
  size?: number
  /** What it is, a media type for instance. */
  type?: string
  /** More that everybody hears: plain JSON. */
  metadata?: Readonly<Record<string, unknown>>
  signal?: AbortSignal
}

export interface ContentAnnouncement {
  readonly cid: CID
  readonly provider: PeerId
  /** Without /p2p. */
  readonly addrs: readonly Multiaddr[]
  /** When it was said, by the provider's clock: Unix milliseconds. */
  readonly timestamp: number
  readonly size: number | undefined
  readonly type: string | undefined
  readonly metadata: Readonly<Record<string, unknown>>
}

export interface ContentTopicOptions {
  /** Default `ipfs-kit/content-announce`. */
  topic?: string
  /** Announcements that are remembered, one for each CID and provider. Default 4,096. */
  maxAnnouncements?: number
  /** Of one provider. Default 512. */
  maxPerProvider?: number
  /** How long. Default 1 h. */
  ttlMs?: number
}

const defaults = { topic: contentTopic, maxAnnouncements: 4_096, maxPerProvider: 512, ttlMs: 3_600_000 }
/** Bytes of one announcement. */
const maxBytes = 4_096
const maxAddrs = 16
/** How far clocks may differ. */
const skewMs = 600_000

export interface ContentTopic {
  /** Tells that we have it. Rejects like publish, with RangeError where all of it is more than 4 KiB. */
  announce(cid: CID, options?: AnnounceOptions): Promise<PublishResult>
  /** Who said to have it, the latest first. */
  findProviders(cid: CID, options?: { signal?: AbortSignal; count?: number }): AsyncIterable<PeerInfo>
  on(event: 'announced', listener: (announcement: ContentAnnouncement) => void): () => void
  start(): void
  stop(): void
}

function bad(what: string): ProtocolError {
  return new ProtocolError('bad-message', `content announcement: ${what}`)
}

/** Throws ProtocolError. */
export function decodeAnnouncement({ data, from }: Pick<PubSubMessage, 'data' | 'from'>): ContentAnnouncement {
  if (data.length > maxBytes) throw new ProtocolError('oversized', `announcement of ${data.length} bytes`)
  let value: unknown
  try {
    value = JSON.parse(toUtf8(data))
  } catch {
    throw bad('it is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('it is no object')
  const { cid, provider, timestamp, addrs = [], size, type, ...metadata } = value as Record<string, unknown>
  if (typeof cid !== 'string' || typeof provider !== 'string') throw bad('want cid and provider as texts')
  if (typeof timestamp !== 'number') throw bad('want timestamp as a number')
  if (size !== undefined && !(Number.isSafeInteger(size) && (size as number) >= 0)) throw bad('its size is none')
  if (type !== undefined && typeof type !== 'string') throw bad('its type is no text')
  if (!Array.isArray(addrs) || addrs.length > maxAddrs) throw bad(`want at most ${maxAddrs} addrs`)
  let read: Pick<ContentAnnouncement, 'cid' | 'provider' | 'addrs'>
  try {
    const peer = PeerId.parse(provider)
    read = { cid: parseCid(cid), provider: peer, addrs: addrs.flatMap((addr) => readAddr(addr, peer)) }
  } catch (error) {
    throw bad(asError(error).message)
  }
  if (from !== undefined && !from.equals(read.provider))
    throw new ProtocolError('wrong-peer', `${from} says that ${read.provider} has something: want it from itself`)
  return { ...read, timestamp: timestamp * 1_000, size: size as number | undefined, type, metadata }
}

/** None where we can not read it, or where it leads to somebody else. */
function readAddr(text: unknown, peer: PeerId): Multiaddr[] {
  if (typeof text !== 'string') return []
  try {
    const addr = multiaddr(text)
    return addr.peerId()?.equals(peer) === false ? [] : [addr.withoutPeer()]
  } catch {
    return []
  }
}

class Announcements implements ContentTopic {
  readonly #pubsub: Gossipsub
  readonly #node: Pick<Node, 'peerId' | 'env' | 'addrs'>
  readonly #options: typeof defaults
  readonly #events: Events<{ announced: ContentAnnouncement }>
  /** By CID and provider, the latest at the end. */
  readonly #heard = new Map<string, { announcement: ContentAnnouncement; until: number }>()
  readonly #perProvider = new Map<string, Set<string>>()
  #undo: (() => void)[] = []

  constructor(pubsub: Gossipsub, node: Pick<Node, 'peerId' | 'env' | 'addrs'>, options: ContentTopicOptions) {
    this.#pubsub = pubsub
    this.#node = node
    this.#options = { ...defaults, ...options }
    const { env } = node
    this.#events = new Events((event, error) => env.trace?.('kit.listener-threw', { event, error }))
  }

  on(event: 'announced', listener: (announcement: ContentAnnouncement) => void): () => void {
    return this.#events.on(event, listener)
  }

  start(): void {
    if (this.#undo.length > 0) return
    const { topic } = this.#options
    const unchecked = this.#pubsub.addValidator(topic, (message) => {
      try {
        const { timestamp } = decodeAnnouncement(message)
        const now = this.#node.env.clock.wallTime()
        return timestamp > now + skewMs || timestamp < now - this.#options.ttlMs - skewMs ? 'ignore' : 'accept'
      } catch {
        return 'reject'
      }
    })
    const subscription = this.#pubsub.subscribe(topic, (message) => this.#hear(decodeAnnouncement(message)))
    this.#undo = [() => subscription.unsubscribe(), unchecked]
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo()
  }

  async announce(cid: CID, { size, type, metadata = {}, signal }: AnnounceOptions = {}): Promise<PublishResult> {
    const { peerId, env } = this.#node
    const announcement = {
      ...metadata,
      cid: cid.toString(),
      provider: peerId.toString(),
      timestamp: env.clock.wallTime() / 1_000,
      addrs: this.#node.addrs().slice(0, maxAddrs).map(String),
      size,
      type,
    }
    const data = fromUtf8(JSON.stringify(announcement))
    if (data.length > maxBytes)
      throw new RangeError(`an announcement has at most ${maxBytes} bytes, got ${data.length}: tell less in metadata`)
    return this.#pubsub.publish(this.#options.topic, data, signal && { signal })
  }

  async *findProviders(
    cid: CID,
    { count = Infinity, signal }: { signal?: AbortSignal; count?: number } = {},
  ): AsyncGenerator<PeerInfo, void, undefined> {
    const now = this.#node.env.clock.now()
    const found = [...this.#heard.values()].filter(
      ({ announcement, until }) => until > now && equals(announcement.cid.multihash.bytes, cid.multihash.bytes),
    )
    for (const { announcement } of found.toReversed().slice(0, count)) {
      signal?.throwIfAborted()
      yield { peer: announcement.provider, addrs: announcement.addrs }
    }
  }

  #hear(announcement: ContentAnnouncement): void {
    const { maxAnnouncements, maxPerProvider, ttlMs } = this.#options
    const provider = announcement.provider.toString()
    const key = `${provider} ${announcement.cid}`
    this.#forget(key)
    // Its own first: who tells much does not make others forgotten.
    const own = this.#perProvider.get(provider) ?? new Set()
    const [first] = own
    if (own.size >= maxPerProvider && first !== undefined) this.#forget(first)
    const [oldest] = this.#heard.keys()
    if (this.#heard.size >= maxAnnouncements && oldest !== undefined) this.#forget(oldest)
    this.#perProvider.set(provider, own.add(key))
    this.#heard.set(key, { announcement, until: this.#node.env.clock.now() + ttlMs })
    this.#events.emit('announced', announcement)
  }

  #forget(key: string): void {
    if (!this.#heard.delete(key)) return
    const [provider = ''] = key.split(' ')
    const own = this.#perProvider.get(provider)
    own?.delete(key)
    if (own?.size === 0) this.#perProvider.delete(provider)
  }
}

/** Nothing is heard until start(). */
export function createContentTopic(
  pubsub: Gossipsub,
  node: Pick<Node, 'peerId' | 'env' | 'addrs'>,
  options: ContentTopicOptions = {},
): ContentTopic {
  return new Announcements(pubsub, node, options)
}
