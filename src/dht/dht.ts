/*
 * The DHT as a node uses it: the public network (WAN) and the one of private addresses (LAN) side by side, as Kubo has
 * them, or one private network under a prefix of its own. Both are asked at once; what is found first comes first.
 */
import { leash } from '../deadline.ts'
import { UnavailableError, asError, type Attempt } from '../errors.ts'
import { quiet } from '../inbox.ts'
import type { CID } from '../ipld/cid.ts'
import type { PeerId } from '../peer/id.ts'
import { decodePublicKey, type PublicKey } from '../peer/keys.ts'
import { memoryRecords, type RecordStore } from '../store/records.ts'
import * as content from './content.ts'
import { Kad, type KadHost, type KadTuning } from './kad.ts'
import type { PeerInfo } from './network.ts'
import { defaultValidators, recordKey, validatorFor, type RecordKey, type Validators } from './validators.ts'
import { aminoId, lanId } from './wire.ts'

export type { QueryEvent } from './query.ts'
export type { PeerInfo } from './network.ts'
export type { GetOptions, RoutingOptions } from './content.ts'
export type { Validator, Validators } from './validators.ts'
export { recordKey } from './validators.ts'

export type DhtMode = 'client' | 'server' | 'auto'

export interface DhtOptions extends KadTuning {
  /**
   * `auto` (the default) serves the public network, or the one under a prefix, while the node's reachability is
   * `public`. The network of private addresses has servers only, except in mode `client`.
   */
  mode?: DhtMode
  /**
   * A network of its own instead of the two of IPFS: `/name` makes the id `/name/kad/1.0.0`. It takes all addresses and
   * limits no IP group, unless `diversity` says so.
   */
  prefix?: string
  /** Which of the two of IPFS. Default both. */
  networks?: readonly ('wan' | 'lan')[]
  /** Values and providers outlive a restart here. Default: in memory. */
  records?: RecordStore
  /** By namespace, besides `pk`. */
  validators?: Validators
}

export interface NetworkStats {
  protocol: string
  serving: boolean
  peers: number
  buckets: { prefixBits: number; peers: number; waiting: number }[]
  providers: number
  values: number
}

export interface Dht {
  readonly mode: DhtMode
  start(): Promise<void>
  stop(): Promise<void>
  /** Announces that we have it; to how many peers. Rejects with UnavailableError when nobody takes it. */
  provide(cid: CID, options?: content.RoutingOptions): Promise<number>
  /** Ends after `count` (default 20) or when all is asked. Nobody known who could be asked: it ends at once. */
  findProviders(
    cid: CID,
    options?: content.RoutingOptions & { count?: number },
  ): AsyncGenerator<PeerInfo, void, undefined>
  /** Rejects with UnavailableError `not-found` or `unreachable`. */
  findPeer(peer: PeerId, options?: content.RoutingOptions): Promise<PeerInfo>
  /** The k closest peers to a peer id, a multihash or a record key. */
  closestPeers(key: Uint8Array, options?: content.RoutingOptions): Promise<PeerInfo[]>
  get(key: RecordKey, options?: content.GetOptions): Promise<Uint8Array>
  /** To how many peers it went. */
  put(key: RecordKey, value: Uint8Array, options?: content.RoutingOptions): Promise<number>
  /** From the id itself where it holds the key, else from `/pk/`. */
  getPublicKey(peer: PeerId, options?: content.GetOptions): Promise<PublicKey>
  refresh(options?: { signal?: AbortSignal }): Promise<void>
  stats(): NetworkStats[]
  readonly networks: readonly Kad[]
}

const defaults = { mode: 'auto', networks: ['wan', 'lan'], count: 20 } as const

class DualDht implements Dht {
  readonly mode: DhtMode
  readonly networks: readonly Kad[]
  readonly #host: KadHost
  #undo: (() => void)[] = []
  #started = false

  constructor(host: KadHost, options: DhtOptions) {
    const { mode, networks, prefix, validators, records, ...tuning } = { ...defaults, ...options }
    this.mode = mode
    this.#host = host
    const shared = {
      ...tuning,
      host,
      records: records ?? memoryRecords({ env: host.env }),
      validators: { ...defaultValidators, ...validators },
    }
    if (prefix !== undefined) {
      if (!/^(\/[^\s/]+)+$/.test(prefix)) throw new TypeError(`DHT prefix ${JSON.stringify(prefix)}: want /name`)
      this.networks = [new Kad({ ...shared, protocol: `${prefix}/kad/1.0.0`, scope: 'any' })]
      return
    }
    if (networks.length === 0) throw new TypeError('a DHT wants at least one network: wan, lan')
    this.networks = networks.map((scope) => new Kad({ ...shared, scope, protocol: scope === 'wan' ? aminoId : lanId }))
  }

  /** Clients do not announce the protocol. */
  #serve(): void {
    for (const kad of this.networks) {
      const open = kad.scope === 'lan' || this.#host.reachability === 'public'
      kad.serve(this.mode === 'server' || (this.mode === 'auto' && open))
    }
  }

  async start(): Promise<void> {
    if (this.#started) return
    this.#started = true
    await Promise.all(this.networks.map((kad) => kad.start()))
    this.#serve()
    this.#undo = [
      this.#host.on('reachability', () => this.#serve()),
      this.#host.addPeerRouting(async (peer, { signal }) => (await this.findPeer(peer, { signal })).addrs),
    ]
  }

  async stop(): Promise<void> {
    this.#started = false
    for (const undo of this.#undo.splice(0)) undo()
    await Promise.all(this.networks.map((kad) => kad.stop()))
  }

  /** Networks that know somebody to ask; all, where none does: their errors say what to do. */
  #live(): readonly Kad[] {
    const live = this.networks.filter((kad) => kad.table.size > 0)
    return live.length > 0 ? live : this.networks
  }

  async provide(cid: CID, options: content.RoutingOptions = {}): Promise<number> {
    const told = await this.#all('no network takes the provider record', (kad) =>
      content.provide(kad, cid.multihash.bytes, options),
    )
    return told.flat().length
  }

  async *findProviders(
    cid: CID,
    { count = defaults.count, ...options }: content.RoutingOptions & { count?: number } = {},
  ): AsyncGenerator<PeerInfo, void, undefined> {
    const seen = new Set<string>()
    const { signal, end } = leash(options.signal)
    const each = { count, ...options, signal }
    const sources = this.networks.map((kad) => content.findProviders(kad, cid.multihash.bytes, each))
    try {
      for await (const info of merge(sources)) {
        const text = info.peer.toString()
        if (seen.has(text)) continue
        seen.add(text)
        yield info
        if (seen.size >= count) return
      }
    } finally {
      end(new Error('nobody wants more providers'))
    }
  }

  async findPeer(peer: PeerId, options: content.RoutingOptions = {}): Promise<PeerInfo> {
    return this.#first(`no network knows where ${peer} is`, options, (kad, more) => content.findPeer(kad, peer, more))
  }

  async closestPeers(key: Uint8Array, options: content.RoutingOptions = {}): Promise<PeerInfo[]> {
    const found = await this.#all('no network has peers', (kad) => content.closestPeers(kad, key, options))
    return found.flat()
  }

  async get(key: RecordKey, options: content.GetOptions = {}): Promise<Uint8Array> {
    const values = await this.#all('no network has the record', (kad) => content.getValue(kad, key, options))
    const [first] = this.networks
    if (values.length === 1 || first === undefined) return values[0] as Uint8Array
    return values[validatorFor(first.validators, key).select(key, values)] as Uint8Array
  }

  async put(key: RecordKey, value: Uint8Array, options: content.RoutingOptions = {}): Promise<number> {
    const told = await this.#all('no network takes the record', (kad) => content.putValue(kad, key, value, options))
    return told.flat().length
  }

  async getPublicKey(peer: PeerId, options: content.GetOptions = {}): Promise<PublicKey> {
    const { publicKeyBytes } = peer
    return decodePublicKey(publicKeyBytes ?? (await this.get(recordKey('pk', peer.bytes), options)))
  }

  async refresh({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await Promise.all(this.#live().map((kad) => kad.refresh({ force: true, ...(signal && { signal }) })))
  }

  stats(): NetworkStats[] {
    return this.networks.map(({ protocol, serving, table, providers, values }) => ({
      protocol,
      serving,
      peers: table.size,
      buckets: table.buckets().map(({ prefixBits, peers, waiting }) => ({
        prefixBits,
        peers: peers.length,
        waiting: waiting.length,
      })),
      providers: providers.size,
      values: values.size,
    }))
  }

  /** What the networks that succeed give; rejects when none does. */
  async #all<T>(what: string, work: (kad: Kad) => Promise<T>): Promise<T[]> {
    const live = this.#live()
    const results = await Promise.allSettled(live.map((kad) => work(kad)))
    const good = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    if (good.length > 0) return good
    throw failure(
      what,
      live,
      results.map((result) => (result.status === 'rejected' ? result.reason : undefined)),
    )
  }

  /** The first to succeed; the others are ended. */
  async #first<T>(
    what: string,
    options: content.RoutingOptions,
    work: (kad: Kad, options: content.RoutingOptions) => Promise<T>,
  ): Promise<T> {
    const live = this.#live()
    const { signal, end } = leash(options.signal)
    try {
      return await Promise.any(live.map((kad) => work(kad, { ...options, signal })))
    } catch (error) {
      throw error instanceof AggregateError ? failure(what, live, error.errors) : asError(error)
    } finally {
      end(new Error('another network answered first'))
    }
  }
}

/** Why all of `networks` failed: the reason itself where there is one alone. */
function failure(what: string, networks: readonly Kad[], reasons: readonly unknown[]): Error {
  const attempts = networks.map(({ protocol }, i): Attempt => ({ what: protocol, reason: asError(reasons[i]) }))
  const [only, ...others] = attempts
  if (only?.reason instanceof Error && others.length === 0) return only.reason
  const notFound = attempts.every(({ reason }) => reason instanceof UnavailableError && reason.code === 'not-found')
  return new UnavailableError(notFound ? 'not-found' : 'unreachable', what, attempts)
}

/** What the generators give, as it comes. Rejects when one does; all are ended when nobody wants more. */
async function* merge<T>(sources: readonly AsyncGenerator<T, void, undefined>[]): AsyncGenerator<T, void, undefined> {
  type Turn = { source: AsyncGenerator<T, void, undefined>; result: IteratorResult<T, void> }
  const pull = (source: Turn['source']): Promise<Turn> => quiet(source.next().then((result) => ({ source, result })))
  const pending = new Map(sources.map((source) => [source, pull(source)]))
  try {
    while (pending.size > 0) {
      const { source, result } = await Promise.race(pending.values())
      if (result.done === true) {
        pending.delete(source)
        continue
      }
      pending.set(source, pull(source))
      yield result.value
    }
  } finally {
    // A source that waits for its network ends when its signal does.
    for (const source of pending.keys()) void quiet(source.return())
  }
}

/** A DHT over `host`, not started yet. Throws TypeError on bad options. */
export function createDht(host: KadHost, options: DhtOptions = {}): Dht {
  return new DualDht(host, options)
}
