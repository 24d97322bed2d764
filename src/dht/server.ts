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
  maxRequestBytes,
  smallAnswerBytes,
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
  /** In this network's scope; of ourselves too. */
  addrsOf: (peer: PeerId) => PeerInfo['addrs']
}

/** A stream without a request for so long is closed (kad-dht.md: a minute). */
const idleMs = 60_000
/** Addresses that we keep of a provider and tell of a peer, and their bytes. */
const addrsPerPeer = 16
const addrBytesPerPeer = 512
const providersPerAnswer = 200
/** What an answer has for the closer peers, and for all besides its type and key; providers and records get the rest. */
const closerBytes = 8 * 1024
const listBytes = smallAnswerBytes - 256

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
        const frame = await framed.readPrefixed(maxRequestBytes)
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
        const closerPeers = this.#closer(from, key, false)
        const providerPeers = providers.map(({ peer, addrs }) =>
          this.#wire(peer, addrs.length > 0 ? addrs : this.#parts.addrsOf(peer)),
        )
        return { ...plain, closerPeers, providerPeers: fitting(providerPeers, listBytes - sizeOf(closerPeers)) }
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
        const closerPeers = fitting(this.#closer(from, key, false), listBytes - (record?.value.length ?? 0))
        return { ...plain, closerPeers, ...(record && { record }) }
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
    const near = table
      .closest(keyOf(key), k + 1)
      .map(({ peer }) => peer)
      .filter((peer) => !peer.equals(from) && !peer.equals(host.peerId))
      .slice(0, k)
    // kad-dht.md §Discovering non-DHT Servers: who is looked for is told, though it serves no DHT, asks, or is asked:
    // Kubo takes nobody into its table who does not know itself.
    const asked = exact ? this.#peerOf(key) : undefined
    if (asked !== undefined && !near.some((peer) => peer.equals(asked))) near.unshift(asked)
    const told = near.map((peer) => this.#wire(peer, addrsOf(peer))).filter(({ addrs }) => addrs.length > 0)
    return fitting(told, closerBytes)
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
      addrs: fewAddrs(addrs),
      connection: connected ? connectionTypes.connected : connectionTypes.notConnected,
    }
  }
}

/** The first of a peer's addresses, of which none is so long that the others have no room. */
function fewAddrs(addrs: PeerInfo['addrs']): Uint8Array[] {
  let left = addrBytesPerPeer
  return addrs
    .filter(({ bytes }) => {
      if (bytes.length > left) return false
      left -= bytes.length
      return true
    })
    .slice(0, addrsPerPeer)
    .map(({ bytes }) => bytes)
}

/** Their bytes in the message, or a little more. */
function sizeOf(peers: readonly WirePeer[]): number {
  return peers.reduce(
    (total, { id, addrs }) => total + 10 + id.length + addrs.reduce((sum, addr) => sum + 3 + addr.length, 0),
    0,
  )
}

function fitting(peers: readonly WirePeer[], maxBytes: number): WirePeer[] {
  let left = maxBytes
  const over = peers.findIndex((peer) => (left -= sizeOf([peer])) < 0)
  return over < 0 ? [...peers] : peers.slice(0, over)
}
