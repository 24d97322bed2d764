/*
 * One Kademlia network over a Host (libp2p kad-dht 3A r2; Amino: ipfs/specs kad-dht.md): its routing table, kept alive,
 * and its lookups, as client or as server. content.ts says what is looked up, dht.ts puts two networks together.
 */
import { equals } from '../bytes.ts'
import { sleep } from '../deadline.ts'
import { LimitError, asError } from '../errors.ts'
import type { Connection, Host, Reachability } from '../host.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { addressTtlMs, type AddressBook } from '../peer/book.ts'
import { PeerId } from '../peer/id.ts'
import type { RecordStore } from '../store/records.ts'
import { groupOf, inScope, readAddrs, type Scope } from './addresses.ts'
import { commonPrefixLength, keyOf, keyOfPeer } from './key.ts'
import { KnownPeers } from './known-peers.ts'
import { Lookup, type LookupOptions } from './lookup.ts'
import { KadNetwork, type PeerInfo } from './network.ts'
import { ProviderStore, type ProviderLimits } from './providers.ts'
import { runQuery, type QueryEvent, type QueryResult } from './query.ts'
import { KadServer } from './server.ts'
import { RoutingTable, type TableOptions } from './table.ts'
import type { Validators } from './validators.ts'
import { ValueStore, type ValueLimits } from './values.ts'
import type { Message, MessageType, WirePeer } from './wire.ts'

/** A node, as the DHT needs it. */
export interface KadHost extends Host {
  /** Where peers can dial us. */
  addrs(): Multiaddr[]
  readonly book: AddressBook
  readonly reachability: Reachability
  addPeerRouting(find: (peer: PeerId, options: { signal: AbortSignal }) => Promise<readonly Multiaddr[]>): () => void
}

export interface KadTuning {
  lookup?: LookupOptions
  table?: TableOptions
  providers?: ProviderLimits
  values?: ValueLimits
  /** One request, and a dial for it, each. Default 10 s. */
  requestTimeoutMs?: number
  /** One lookup. Default 60 s. */
  lookupTimeoutMs?: number
  /** Between two refreshes of the table. Default 10 min. */
  refreshMs?: number
  /** Whether the peers of one IP group are limited. Default: in the public network. */
  diversity?: boolean
  /** Peers come into the table once they have answered. Default true; false is for experiments: whoever is named. */
  verify?: boolean
  /** Lookups reach as far as k peers usually do, so that nobody takes a key over by crowding around it. Default true. */
  widen?: boolean
  /** The group of a peer by the address of its connection; undefined: it is not limited. Default by IP network. */
  groupOf?: (addr: Multiaddr) => string | undefined
}

export interface KadParts extends KadTuning {
  host: KadHost
  /** `/ipfs/kad/1.0.0`. */
  protocol: string
  scope: Scope
  records: RecordStore
  validators: Validators
}

const defaults = {
  requestTimeoutMs: 10_000,
  lookupTimeoutMs: 60_000,
  refreshMs: 600_000,
  groupOf,
  verify: true as boolean,
  widen: true as boolean,
}

/** Lookups by which the density of the network is known: of how many, and from how many on. */
const spansKept = 32
const spansWanted = 5

/** Newcomers that are asked for a sign of life at a time, and that wait for it. */
const checksAtOnce = 8
const checksWaiting = 256
/** Addresses of one peer that we believe an answer, and peers of one list: k closer ones, or enough providers. */
const addrsPerPeer = 16
const peersPerAnswer = 200

export interface LookupRequest {
  type: Extract<MessageType, 'FIND_NODE' | 'GET_PROVIDERS' | 'GET_VALUE'>
  /** A peer id's bytes, a multihash, a record key. */
  key: Uint8Array
  /** Looks at each answer; true: that is enough. */
  onAnswer?: (from: PeerId, answer: Message) => boolean | void
  /** Is told of each peer that could not be asked; true: that is enough. */
  onFailure?: (peer: PeerId) => boolean
  onEvent?: ((event: QueryEvent) => void) | undefined
  signal?: AbortSignal | undefined
  options?: LookupOptions
}

export interface LookupOutcome extends QueryResult {
  /** The k closest that answered. */
  closest: PeerInfo[]
}

export class Kad {
  readonly host: KadHost
  readonly protocol: string
  readonly scope: Scope
  readonly table: RoutingTable
  readonly network: KadNetwork
  readonly providers: ProviderStore
  readonly values: ValueStore
  readonly validators: Validators
  readonly #parts: KadParts & typeof defaults
  readonly #server: KadServer
  readonly #knownPeers: KnownPeers
  readonly #toCheck = new Map<string, Connection>()
  #checking = 0
  /** How far the k-th closest was in lookups that ended well, as a share of the keyspace. */
  readonly #spans: number[] = []
  #undo: (() => void)[] = []
  #controller: AbortController | undefined
  #serving = false
  #maintenance: Promise<void> | undefined
  #refreshSoon = false
  /** Ends the wait between two refreshes. */
  #wake: (() => void) | undefined

  constructor(parts: KadParts) {
    const { host, protocol, scope, records, validators } = parts
    this.#parts = { ...defaults, ...parts }
    this.host = host
    this.protocol = protocol
    this.scope = scope
    this.validators = validators
    const limits = this.#diverse ? {} : { maxPerGroup: Infinity, maxPerGroupAndBucket: Infinity }
    this.table = new RoutingTable(keyOfPeer(host.peerId), { ...limits, ...parts.table })
    this.network = new KadNetwork(host, protocol, this.#parts.requestTimeoutMs)
    const namespace = `/dht${protocol.slice(0, -'/kad/1.0.0'.length)}`
    this.providers = new ProviderStore(records, host.env, namespace, parts.providers)
    this.values = new ValueStore(records, host.env, namespace, validators, parts.values)
    this.#knownPeers = new KnownPeers(records, namespace)
    const { table, providers, values } = this
    const addrsOf = (peer: PeerId): PeerInfo['addrs'] =>
      peer.equals(host.peerId) ? this.ownAddrs() : this.#scoped(this.known(peer))
    this.#server = new KadServer({ host, scope, k: this.k, table, providers, values, addrsOf })
  }

  get #diverse(): boolean {
    return this.#parts.diversity ?? this.scope === 'wan'
  }

  /** Whose places in the table a peer at this address takes; undefined: nobody's. */
  groupOf(addr: Multiaddr): string | undefined {
    return this.#diverse ? this.#parts.groupOf(addr) : undefined
  }

  /** Aborts when the network is stopped; undefined while it is not started. */
  get signal(): AbortSignal | undefined {
    return this.#controller?.signal
  }

  get serving(): boolean {
    return this.#serving
  }

  /** A server answers and is announced by identify; a client is neither. */
  serve(serving: boolean): void {
    if (this.#serving === serving) return
    this.#serving = serving
    if (serving) this.host.handle(this.protocol, (stream, context) => this.#server.serve(stream, context))
    else this.host.unhandle(this.protocol)
  }

  async start(): Promise<void> {
    if (this.#controller !== undefined) return
    this.#controller = new AbortController()
    await this.providers.load()
    await this.values.load()
    this.#undo = [
      this.host.on('peer:identify', ({ connection }) => this.#met(connection)),
      this.host.on('peer:disconnect', (peer) => void this.#toCheck.delete(peer.toString())),
    ]
    for (const connection of this.host.connections()) this.#met(connection)
    this.#maintenance = this.#maintain(this.#controller.signal)
  }

  /** Ends what is under way; what was stored is durable then. */
  async stop(): Promise<void> {
    this.serve(false)
    for (const undo of this.#undo.splice(0)) undo()
    this.#toCheck.clear()
    this.#controller?.abort(new Error('the DHT was stopped'))
    await this.#maintenance
    this.#controller = undefined
    await this.#remember()
    await this.providers.flush()
  }

  /** Walks towards `key`; at its deadline it ends with what it has. Rejects with signal.reason. */
  async lookup({ type, key, onAnswer, onFailure, onEvent, signal, options }: LookupRequest): Promise<LookupOutcome> {
    const { host, table } = this
    const { lookupTimeoutMs: timeoutMs, lookup: tuned } = this.#parts
    const target = keyOf(key)
    const seeds = table.closest(target, this.k).map(({ peer }) => peer)
    const lookup = new Lookup(host.peerId, target, seeds, { radius: this.#radius(), ...tuned, ...options })
    const heard = new Map<string, readonly Multiaddr[]>()
    const infoOf = (peer: PeerId): PeerInfo => {
      const known = this.known(peer)
      return { peer, addrs: known.length > 0 ? known : (heard.get(peer.toString()) ?? []) }
    }
    const request: Message = { type, key, closerPeers: [], providerPeers: [] }
    const result = await runQuery({
      lookup,
      signal,
      timeoutMs,
      clock: host.env.clock,
      onEvent,
      ask: (peer, until) => this.network.ask(infoOf(peer), request, { signal: until }),
      onAnswer: (peer, answer) => {
        this.#answered(peer)
        const closer = this.readPeers(answer.closerPeers)
        for (const info of closer) if (!heard.has(info.peer.toString())) heard.set(info.peer.toString(), info.addrs)
        if (onAnswer?.(peer, answer) === true) lookup.stop()
        return closer
      },
      onFailure: (peer, error) => {
        this.#failed(peer, error)
        if (onFailure?.(peer) === true) lookup.stop()
      },
    })
    if (result.reason === 'converged') this.#spanned(lookup.span())
    return { ...result, closest: lookup.closest().map(infoOf) }
  }

  #spanned(span: number | undefined): void {
    if (span === undefined) return
    this.#spans.push(span)
    if (this.#spans.length > spansKept) this.#spans.shift()
  }

  /** Within which k peers are as a rule: the median, which those who crowd around a few keys do not move. */
  #radius(): number {
    if (!this.#parts.widen || this.#spans.length < spansWanted) return 0
    return this.#spans.toSorted((a, b) => a - b)[this.#spans.length >> 1] ?? 0
  }

  get k(): number {
    return this.#parts.lookup?.k ?? 20
  }

  /** The peers of an answer that are ours to use: not ourselves, ids that are ids, with addresses of this network. */
  readPeers(list: readonly WirePeer[]): PeerInfo[] {
    const out: PeerInfo[] = []
    for (const { id, addrs } of list.slice(0, peersPerAnswer)) {
      if (equals(id, this.host.peerId.bytes)) continue
      const peer = decodePeer(id)
      if (peer === undefined) continue
      const read = readAddrs(addrs, this.scope, addrsPerPeer)
      // Without an address it can only be asked when we know one, or are connected.
      if (read.length === 0 && this.known(peer).length === 0 && this.host.connections(peer).length === 0) continue
      if (read.length > 0) this.host.book.add(peer, read, { ttlMs: addressTtlMs.temporary, source: 'kad' })
      out.push({ peer, addrs: read })
      if (!this.#parts.verify)
        this.table.add(
          peer,
          groupsOf(read, (addr) => this.groupOf(addr)),
          this.host.env.clock.now(),
        )
    }
    return out
  }

  /** Our addresses as this network may know them. */
  ownAddrs(): Multiaddr[] {
    return this.#scoped(this.host.addrs().map((addr) => addr.withoutPeer()))
  }

  /** Looks up ourselves, and something random in each bucket that is due; asks the silent for a sign of life. */
  async refresh({ force = false, signal }: { force?: boolean; signal?: AbortSignal } = {}): Promise<void> {
    const { env, peerId } = this.host
    const now = env.clock.now()
    for (const { peer } of this.table.silent(now)) this.#check(peer, undefined)
    await this.lookup({ type: 'FIND_NODE', key: peerId.bytes, signal })
    for (const prefixBits of this.table.prefixesToRefresh(now, force ? 0 : this.#parts.refreshMs)) {
      const key = this.#keyWithPrefix(prefixBits)
      this.table.refreshed(prefixBits, now)
      await this.lookup({ type: 'FIND_NODE', key, signal, options: { complete: this.#spans.length < spansWanted } })
    }
  }

  /** An empty table is no news: the next start has the one before. */
  async #remember(): Promise<void> {
    const infos = this.table.peers().map(({ peer }) => ({ peer, addrs: this.#scoped(this.known(peer)) }))
    const found = infos.filter(({ addrs }) => addrs.length > 0)
    if (found.length > 0) await this.#knownPeers.save(found, this.host.env.clock.wallTime())
  }

  /** Asks those who were in the table when we stopped: who answers comes into it again. */
  async #recall(signal: AbortSignal): Promise<void> {
    const waiting = await this.#knownPeers.load()
    const work = async (): Promise<void> => {
      for (let info = waiting.shift(); info !== undefined && !signal.aborted; info = waiting.shift()) {
        this.host.book.add(info.peer, info.addrs, { source: 'kad' })
        if (!this.table.has(info.peer)) await this.#checkNow(info.peer)
      }
    }
    await Promise.all(Array.from({ length: checksAtOnce }, work))
  }

  async #maintain(signal: AbortSignal): Promise<void> {
    const { env } = this.host
    await this.#recall(signal).catch((error: unknown) =>
      env.trace?.('dht.refresh-failed', { protocol: this.protocol, error }),
    )
    while (!signal.aborted) {
      try {
        if (this.table.size > 0) await this.refresh({ signal })
        await this.#remember()
        this.providers.sweep()
        this.values.sweep()
      } catch (error) {
        // The next one may do better.
        if (!signal.aborted) env.trace?.('dht.refresh-failed', { protocol: this.protocol, error })
      }
      const next = new AbortController()
      this.#wake = () => next.abort()
      // Newcomers that came during the refresh, or the first ever: not ten minutes later.
      const waitMs = this.#refreshSoon ? 1_000 : this.#parts.refreshMs
      this.#refreshSoon = false
      await sleep(env, waitMs, AbortSignal.any([signal, next.signal])).catch(() => {})
    }
  }

  /** Somebody is connected and has said what it speaks. */
  #met(connection: Connection): void {
    const { peer, protocols } = connection
    if (protocols?.includes(this.protocol) !== true) {
      // A server that became a client.
      if (protocols !== undefined) this.table.remove(peer)
      return
    }
    if (!inScope(connection.remoteAddr, this.scope)) return
    if (!this.table.has(peer)) this.#check(peer, connection)
  }

  /** Asks it something: who does not answer does not come into the table, or leaves it. */
  #check(peer: PeerId, connection: Connection | undefined): void {
    const [open = connection] = this.host.connections(peer)
    if (open === undefined && !this.table.has(peer)) return
    if (this.#checking >= checksAtOnce) {
      if (open !== undefined && this.#toCheck.size < checksWaiting) this.#toCheck.set(peer.toString(), open)
      return
    }
    this.#checking++
    void this.#checkNow(peer).finally(() => {
      this.#checking--
      for (const [text, waiting] of this.#toCheck) {
        this.#toCheck.delete(text)
        this.#check(waiting.peer, waiting)
        break
      }
    })
  }

  async #checkNow(peer: PeerId): Promise<void> {
    const key = this.host.peerId.bytes
    const signal = this.#controller?.signal
    const to = { peer, addrs: this.known(peer) }
    try {
      const answer = await this.network.ask(
        to,
        { type: 'FIND_NODE', key, closerPeers: [], providerPeers: [] },
        { signal },
      )
      this.#answered(peer)
      this.readPeers(answer.closerPeers)
    } catch (error) {
      if (signal?.aborted !== true) this.#failed(peer, asError(error))
    }
  }

  #answered(peer: PeerId): void {
    const now = this.host.env.clock.now()
    if (this.table.has(peer)) {
      this.table.alive(peer, now)
      return
    }
    const [connection] = this.host.connections(peer)
    if (connection === undefined || !inScope(connection.remoteAddr, this.scope)) return
    const group = this.groupOf(connection.remoteAddr)
    if (this.table.add(peer, group === undefined ? [] : [group], now) !== 'added') return
    // As long as we know hardly anybody, each newcomer may know others.
    if (this.table.size > this.k) return
    this.#refreshSoon = true
    if (this.table.size === 1) this.#wake?.()
  }

  #failed(peer: PeerId, error: Error): void {
    // Our own limits say nothing about the peer.
    if (error instanceof LimitError) return
    this.table.remove(peer)
    this.host.env.trace?.('dht.peer-failed', { protocol: this.protocol, peer: peer.toString(), error })
  }

  /** What the address book has, of whatever network. */
  known(peer: PeerId): Multiaddr[] {
    return this.host.book.addrs(peer).map(({ addr }) => addr)
  }

  #scoped(addrs: readonly Multiaddr[]): Multiaddr[] {
    return addrs.filter((addr) => inScope(addr, this.scope))
  }

  /** Bytes whose key shares exactly so many bits with ours: some 2^(bits + 1) hashes. */
  #keyWithPrefix(prefixBits: number): Uint8Array {
    const { random } = this.host.env
    const bytes = random.bytes(32)
    const counter = new DataView(bytes.buffer)
    const first = counter.getUint32(0)
    // Every count is another hash: whatever goes round in circles may never meet the prefix.
    for (let count = 0; ; count++) {
      counter.setUint32(0, (first + count) >>> 0)
      if (commonPrefixLength(keyOf(bytes), this.table.self) === prefixBits) return bytes
    }
  }
}

function groupsOf(addrs: readonly Multiaddr[], groupOfOne: (addr: Multiaddr) => string | undefined): string[] {
  return [...new Set(addrs.map(groupOfOne).filter((group) => group !== undefined))]
}

/**
 * Ids by their last bytes: the same few hundred peers are named again and again, and each would have to be parsed,
 * hashed and written out as text.
 */
const ids = new Map<number, PeerId>()
const maxIds = 8_192

function decodePeer(id: Uint8Array): PeerId | undefined {
  let tail = 0
  for (let at = Math.max(0, id.length - 6); at < id.length; at++) tail = tail * 256 + (id[at] ?? 0)
  const known = ids.get(tail)
  if (known !== undefined && equals(known.bytes, id)) return known
  try {
    const peer = PeerId.decode(id)
    if (ids.size >= maxIds) ids.clear()
    ids.set(tail, peer)
    return peer
  } catch {
    // An id of a kind that we do not know, or none at all.
    return undefined
  }
}
