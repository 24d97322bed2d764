/* What a DHT server answers (libp2p kad-dht §RPC messages): many requests per stream, each checked before it costs. */
import { LazyDeadline } from '../deadline.ts'
import { equals } from '../bytes.ts'
import { ProtocolError, TimeoutError } from '../errors.ts'
import type { Host, ProtocolStream, StreamContext } from '../host.ts'
import { PeerId } from '../peer/id.ts'
import { BufferedStream, prefixed } from '../stream.ts'
import { readAddrs, type Scope } from './addresses.ts'
import { keyOf } from './key.ts'
import type { PeerInfo } from './network.ts'
import type { ProviderStore } from './providers.ts'
import type { RoutingTable } from './table.ts'
import type { ValueStore } from './values.ts'
import {
  connectionTypes,
  decodeMessage,
  encodeMessage,
  maxKeyBytes,
  maxMessageBytes,
  type Message,
  type WirePeer,
} from './wire.ts'

export interface ServerParts {
  host: Host
  scope: Scope
  k: number
  table: RoutingTable
  providers: ProviderStore
  values: ValueStore
  addrsOf: (peer: PeerId) => PeerInfo['addrs']
}

/** A stream without a request for so long is closed (kad-dht.md: a minute). */
const idleMs = 60_000
/** Addresses that we keep of a provider and tell of a peer. */
const addrsPerPeer = 16
/** Providers in one answer: with their addresses they fit into the message. */
const providersPerAnswer = 100

export class KadServer {
  readonly #parts: ServerParts

  constructor(parts: ServerParts) {
    this.#parts = parts
  }

  /** Answers until the peer is done, or silent for a minute. A request that breaks the spec ends the stream. */
  async serve(stream: ProtocolStream, { connection }: Pick<StreamContext, 'connection'>): Promise<void> {
    const { env } = this.#parts.host
    const framed = new BufferedStream(stream)
    const idle = new LazyDeadline(env.clock)
    const late = (): void => stream.reset(0, new TimeoutError('a request on a kad stream', idleMs))
    try {
      for (;;) {
        idle.set(idleMs, late)
        const frame = await framed.readPrefixed(maxMessageBytes)
        if (frame === null) break
        const answer = await this.answer(connection.peer, decodeMessage(frame))
        if (answer !== undefined) await stream.write(...prefixed(encodeMessage(answer)))
      }
      await stream.closeWrite()
    } finally {
      idle.stop()
    }
  }

  /** Undefined: nothing is answered. Rejects with ProtocolError for a request that must not be answered. */
  async answer(from: PeerId, request: Message): Promise<Message | undefined> {
    const { type, key } = request
    const plain = { type, key, closerPeers: [], providerPeers: [] }
    if (type === 'PING') return plain
    if (key.length === 0 || key.length > maxKeyBytes) {
      throw new ProtocolError('bad-message', `${type} for a key of ${key.length} bytes, want 1 to ${maxKeyBytes}`)
    }
    switch (type) {
      case 'FIND_NODE':
        return { ...plain, closerPeers: this.#closer(from, key, true) }
      case 'GET_PROVIDERS': {
        const providers = this.#parts.providers.of(key, providersPerAnswer)
        const providerPeers = providers.map(({ peer, addrs }) =>
          this.#wire(peer, addrs.length > 0 ? addrs : this.#parts.addrsOf(peer)),
        )
        return { ...plain, closerPeers: this.#closer(from, key, false), providerPeers }
      }
      case 'ADD_PROVIDER':
        this.#addProvider(from, request)
        return undefined
      case 'GET_VALUE': {
        const stored = await this.#parts.values.get(key)
        const record = stored && {
          key,
          value: stored.value,
          timeReceived: new Date(stored.receivedAt).toISOString(),
        }
        return { ...plain, closerPeers: this.#closer(from, key, false), ...(record && { record }) }
      }
      case 'PUT_VALUE': {
        const { record } = request
        if (record === undefined || !equals(record.key, key)) {
          throw new ProtocolError('bad-message', 'PUT_VALUE without a record of its key')
        }
        await this.#parts.values.put(key, record.value)
        return { ...plain, record: { key, value: record.value } }
      }
      default:
        return type satisfies never
    }
  }

  /** Only for itself: what it says of others is passed over (kad-dht.md §ADD_PROVIDER). */
  #addProvider(from: PeerId, { key, providerPeers }: Message): void {
    const own = providerPeers.find(({ id }) => equals(id, from.bytes))
    if (own === undefined) throw new ProtocolError('bad-message', `${from} announces others, not itself`)
    const addrs = readAddrs(own.addrs, this.#parts.scope, addrsPerPeer)
    this.#parts.providers.add(key, from, addrs)
  }

  #closer(from: PeerId, key: Uint8Array, exact: boolean): WirePeer[] {
    const { table, k, host, addrsOf } = this.#parts
    const near = table.closest(keyOf(key), k + 1).map(({ peer }) => peer)
    // Whoever looks for one peer wants its addresses, though it serves no DHT.
    const asked = exact ? this.#peerOf(key) : undefined
    if (asked !== undefined && !near.some((peer) => peer.equals(asked))) near.unshift(asked)
    return near
      .filter((peer) => !peer.equals(from) && !peer.equals(host.peerId))
      .map((peer) => this.#wire(peer, addrsOf(peer)))
      .filter(({ addrs }) => addrs.length > 0)
      .slice(0, k)
  }

  #peerOf(key: Uint8Array): PeerId | undefined {
    try {
      return PeerId.decode(key)
    } catch (error) {
      // A lookup for a random key, as refreshes make them.
      if (error instanceof ProtocolError) return undefined
      throw error
    }
  }

  #wire(peer: PeerId, addrs: PeerInfo['addrs']): WirePeer {
    const connected = this.#parts.host.connections(peer).length > 0
    return {
      id: peer.bytes,
      addrs: addrs.slice(0, addrsPerPeer).map((addr) => addr.bytes),
      connection: connected ? connectionTypes.connected : connectionTypes.notConnected,
    }
  }
}
