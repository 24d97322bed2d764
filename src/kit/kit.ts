/// <reference lib="esnext.disposable" preserve="true" />
/*
 * createKit(): a node, a block store, Bitswap and UnixFS behind a few verbs. What most users import.
 * Reading asks the store first, then the peers named in the call or, when none is, every peer that is connected.
 */
import { UnavailableError, asError } from '../errors.ts'
import type { Dht } from '../dht/dht.ts'
import type { Discoverer } from '../discovery/discovery.ts'
import type { NameRouting } from '../ipns/ipns.ts'
import type { CID } from '../ipld/cid.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../node.ts'
import type { PeerId } from '../peer/id.ts'
import { generateKey } from '../peer/keys.ts'
import { createBitswap, type Bitswap, type BitswapOptions, type BitswapSession } from '../protocols/bitswap/bitswap.ts'
import type { Gossipsub } from '../protocols/gossipsub/gossipsub.ts'
import type { Graphsync, GraphsyncOptions } from '../protocols/graphsync/graphsync.ts'
import type { BlockOptions, BlockPair, Blockstore } from '../store/blocks.ts'
import { MemoryBlocks } from '../store/memory-blocks.ts'
import { memoryRecords } from '../store/records.ts'
import {
  addDirectory,
  addFile,
  type AddDirectoryOptions,
  type AddEntry,
  type AddOptions,
  type Added,
} from '../unixfs/import.ts'
import type { ByteSource } from '../unixfs/chunk.ts'
import type { BlockSource } from '../unixfs/blocks.ts'
import { parsePath, resolve } from '../unixfs/path.ts'
import { cat, ls, stat, type Listed, type Stat } from '../unixfs/read.ts'
import { walk, type WalkEntry } from '../unixfs/walk.ts'
import { Patience } from './patience.ts'
import type { ProviderSearch } from './provider-search.ts'
import type { ContentTopic } from './pubsub-content.ts'
import { topicMethods, type TopicMethods } from './pubsub-methods.ts'
import type { KitPubsub, PubsubOptions } from './pubsub.ts'
import { createRouting, type Routing, type RoutingOptions } from './routing.ts'
import { fetching, type Fetching } from './source.ts'

export interface KitOptions extends NodeOptions, RoutingOptions {
  /** Where blocks lie; default in memory. A repo (rhiza/repo) gives its blocks. */
  repo?: { readonly blocks: Blockstore }
  bitswap?: BitswapOptions
  /** GossipSub: topics, and what goes over them. Default false: none. */
  pubsub?: boolean | PubsubOptions
  /** GraphSync: parts of graphs, asked for and answered from the store. Default false: none. */
  graphsync?: boolean | GraphsyncOptions
  /** Tells the DHT of the roots that are added, and again every so long. Default 22 h; false: not at all. */
  provideEveryMs?: number | false
  /** Hears of each root that the DHT was told of, and how many peers took it. */
  onProvided?: (cid: CID, peers: number) => void
}

export interface FetchOptions {
  /** Whom to ask; dialled when not connected. Default: every connected peer. Those that the DHT finds come on top. */
  peers?: readonly (PeerId | Multiaddr | string)[]
  /** Without any block for this long, the call rejects. Default 30 s. */
  timeoutMs?: number
  signal?: AbortSignal
}

export interface CatOptions extends FetchOptions {
  /** Bytes to leave out at the start. */
  offset?: number
  /** Bytes at most; default all. */
  length?: number
}

/** `CID`, `CID/path`, `/ipfs/CID/path`, or a CID. */
export type ContentPath = CID | string

/** Blocks from the store, then from the peers. */
export interface KitSource extends BlockSource {
  /** Ends what is under way; resolves once all that came from peers is in the store. */
  end(): Promise<void>
}

export interface Kit extends TopicMethods {
  readonly node: Node
  readonly blocks: Blockstore
  readonly bitswap: Bitswap
  /** Where options.dht asks for it. */
  readonly dht: Dht | undefined
  /** Where options.pubsub asks for it. */
  readonly pubsub: Gossipsub | undefined
  /** Where options.graphsync asks for it. What it fetches lies in the store, as what Bitswap fetches does. */
  readonly graphsync: Graphsync | undefined
  /** Where IPNS records travel: the DHT, topics (options.pubsub.names), or both. For createNames() of rhiza/ipns. */
  readonly nameRouting: NameRouting | undefined
  /** Where options.pubsub.announcements asks for it. */
  readonly announcements: ContentTopic | undefined
  /** What finds peers: its events say whom, and by what. */
  readonly discovery: Discoverer | undefined
  start(): Promise<void>
  /** Stops the node; the repo stays open: who opened it closes it. */
  stop(): Promise<void>
  /** Resolves once every block is durable. Text is UTF-8. */
  add(content: ByteSource | string, options?: AddOptions): Promise<Added>
  addDirectory(entries: Iterable<AddEntry> | AsyncIterable<AddEntry>, options?: AddDirectoryOptions): Promise<Added>
  /**
   * Tells the DHT now that we have it, and from then on as often as roots that were added; to how many peers. Rejects
   * with UnavailableError where there is no DHT, or nobody takes it.
   */
  provide(cid: CID, options?: { signal?: AbortSignal }): Promise<number>
  /** Waits for the first peer of the DHT; false where none comes within 15 s, or there is no DHT. */
  reachDht(options?: { signal?: AbortSignal }): Promise<boolean>
  /** The bytes of a file; what came from peers is in the store when it ends. */
  cat(path: ContentPath, options?: CatOptions): AsyncGenerator<Uint8Array, void, undefined>
  ls(path: ContentPath, options?: FetchOptions): AsyncGenerator<Listed, void, undefined>
  stat(path: ContentPath, options?: FetchOptions): Promise<Stat>
  /** The whole tree, parents first: for writing it elsewhere. */
  walk(path: ContentPath, options?: FetchOptions): AsyncGenerator<WalkEntry, void, undefined>
  /** The blocks themselves, whatever they are; `path` says in errors what they are for. End it when done. */
  open(path: ContentPath, options?: FetchOptions): Promise<KitSource>
  [Symbol.asyncDispose](): Promise<void>
}

const defaultTimeoutMs = 30_000

/** The same pairs; their CIDs are added to `cids` as they are drawn. */
async function* noting(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, cids: CID[]): AsyncGenerator<BlockPair> {
  for await (const pair of pairs) {
    cids.push(pair.cid)
    yield pair
  }
}

/** What is found over topics counts like the rest. */
function overTopics(
  { discovery = [], content = [], ...options }: KitOptions,
  topics: KitPubsub | undefined,
): RoutingOptions {
  return {
    ...options,
    discovery: topics?.discovery === undefined ? discovery : [...discovery, topics.discovery],
    content: topics?.announcements === undefined ? content : [...content, topics.announcements],
  }
}

/** Rejects like createNode. Nothing is open until start. */
export async function createKit(options: KitOptions = {}): Promise<Kit> {
  const { repo, bitswap: bitswapOptions, pubsub: wanted = false, provideEveryMs, onProvided, ...others } = options
  const { graphsync: graphs = false, ...nodeOptions } = others
  // It signs messages, too.
  const privateKey = options.privateKey ?? (wanted === false ? undefined : generateKey())
  const node = await createNode({ ...nodeOptions, ...(privateKey && { privateKey }) })
  const blocks = repo?.blocks ?? new MemoryBlocks()
  const bitswap = createBitswap({ host: node, blocks, ...bitswapOptions })
  const topics =
    wanted === false || privateKey === undefined
      ? undefined
      : await (await import('./pubsub.ts')).createPubsub(node, privateKey, wanted === true ? {} : wanted)
  const routing = await createRouting(node, overTopics(options, topics), options.records)
  const dht = routing?.dht
  const nameRoutes = [dht, topics?.names].filter((one) => one !== undefined)
  const nameRouting =
    nameRoutes.length > 1
      ? (await import('../ipns/name-routings.ts')).nameRoutings(nameRoutes, node.env)
      : nameRoutes[0]
  const records = options.records ?? memoryRecords({ env: node.env })
  const announcing = dht === undefined || provideEveryMs === false ? undefined : await import('./announcer.ts')
  const announcer =
    dht &&
    announcing &&
    new announcing.Announcer({ dht, records, env: node.env, intervalMs: provideEveryMs || undefined, onProvided })
  /** Tells the peers that wait for them of the blocks that come into the store. */
  const sink = {
    get: (cid: CID, bound?: BlockOptions) => blocks.get(cid, bound),
    async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, bound?: BlockOptions): Promise<void> {
      const cids: CID[] = []
      await blocks.putMany(noting(pairs, cids), bound)
      bitswap.notify(cids)
    },
  }

  const graphsync =
    graphs === false
      ? undefined
      : (await import('../protocols/graphsync/graphsync.ts')).createGraphsync(node, sink, graphs === true ? {} : graphs)

  /** At least one of the peers must answer; else the error lists why each did not. */
  async function connect(
    peers: readonly (PeerId | Multiaddr | string)[],
    signal: AbortSignal | undefined,
  ): Promise<PeerId[]> {
    const results = await Promise.allSettled(
      peers.map((peer) => node.dial(peer, signal === undefined ? {} : { signal })),
    )
    signal?.throwIfAborted()
    const found = results.flatMap((r) => (r.status === 'fulfilled' ? [r.value.peer] : []))
    if (found.length > 0) return found
    const tried = results.flatMap((r, i) =>
      r.status === 'rejected' ? [{ what: String(peers[i]), reason: asError(r.reason) }] : [],
    )
    const [only] = tried
    if (tried.length === 1 && only !== undefined) throw only.reason
    throw new UnavailableError('unreachable', 'none of the peers could be reached', tried)
  }

  /** Asks `asked`, or everybody who is connected, and looks for providers of what they have not. */
  async function searching(
    finder: Routing,
    session: BitswapSession,
    asked: readonly PeerId[] | undefined,
  ): Promise<ProviderSearch<{ peer: PeerId }>> {
    const { ProviderSearch } = await import('./provider-search.ts')
    const named = asked && new Set(asked.map(String))
    const search = new ProviderSearch({
      env: node.env,
      ask: (cid, bound) => session.get(cid, bound),
      hasPeers: () => (named?.size ?? node.connections().length) > 0,
      find: (cid, signal) => finder.providers(cid, signal),
      async join({ peer, addrs }, signal) {
        const had = named === undefined ? node.connections(peer).length > 0 : named.has(peer.toString())
        if (had) return false
        await node.dial(addrs.length === 0 ? peer : addrs.map((addr) => addr.withPeer(peer)), { signal })
        if (named === undefined) return true
        named.add(peer.toString())
        session.addPeers([peer])
        return true
      },
    })
    return search
  }

  /** A source that lives as long as one call. */
  async function open(
    path: ContentPath,
    { peers, timeoutMs = defaultTimeoutMs, signal }: FetchOptions = {},
  ): Promise<Fetching & { end(): Promise<void> }> {
    let asked = routing === undefined && peers === undefined ? node.peers() : undefined
    if (peers !== undefined) {
      asked = await connect(peers, signal).catch((error: unknown) => {
        signal?.throwIfAborted()
        // Others may have it.
        if (dht === undefined) throw error
        return []
      })
    }
    if (routing === undefined && asked?.length === 0) {
      const none = {
        get: (cid: CID) =>
          Promise.reject(
            new UnavailableError(
              'not-found',
              `block ${cid} is not in the store, and no peer was named to ask for it: peers, or --peer MULTIADDR; or how to find some: dht and bootstrap, or --bootstrap ADDR`,
            ),
          ),
      }
      const local = fetching(sink, none)
      return { ...local, end: () => local.flush() }
    }
    const patience = new Patience(node.env, timeoutMs, `waiting for any block of ${String(path)}`)
    const ends = signal === undefined ? patience.signal : AbortSignal.any([signal, patience.signal])
    const session = bitswap.session({ ...(asked && { peers: asked }), timeoutMs: Infinity, signal: ends })
    const searches = routing !== undefined && (peers === undefined || dht !== undefined)
    const search = searches ? await searching(routing, session, asked) : undefined
    const arrivals = asked === undefined ? node.on('peer:identify', () => search?.arrived()) : undefined
    const late = (): void => void search?.stop(ends.reason)
    if (search !== undefined) ends.addEventListener('abort', late, { once: true })
    const asking = search ?? session
    const source = fetching(sink, {
      get: (cid, bound) => patience.wait(asking.get(cid, bound?.signal === undefined ? {} : { signal: bound.signal })),
    })
    return {
      ...source,
      async end() {
        arrivals?.()
        ends.removeEventListener('abort', late)
        session.close()
        await search?.stop(new Error('the fetch is over'))
        await source.flush()
      },
    }
  }

  /** Runs `work` over a source; what it fetched is durable when it ends well. */
  async function* over<T>(
    path: ContentPath,
    options: FetchOptions,
    work: (source: Fetching, cid: CID) => AsyncIterable<T>,
  ): AsyncGenerator<T, void, undefined> {
    const { cid, segments } = parsePath(String(path))
    const source = await open(path, options)
    try {
      const bound = options.signal === undefined ? {} : { signal: options.signal }
      yield* work(source, await resolve(source, cid, segments, bound))
    } finally {
      await source.end()
    }
  }

  async function stop(): Promise<void> {
    await announcer?.stop()
    await routing?.stop()
    await topics?.stop()
    await graphsync?.stop()
    await bitswap.stop()
    await node.stop()
  }

  /** The DHT hears of it when it can. */
  async function noted(adding: Promise<Added>): Promise<Added> {
    const added = await adding
    if (announcer !== undefined) await announcing?.noteRoot(records, added.cid)
    return added
  }

  return {
    node,
    blocks,
    bitswap,
    dht,
    pubsub: topics?.gossipsub,
    graphsync,
    nameRouting,
    announcements: topics?.announcements,
    discovery: routing?.discovery,
    ...topicMethods(topics?.gossipsub, () => node.env.clock.wallTime()),
    async start() {
      bitswap.start()
      graphsync?.start()
      await node.start()
      topics?.start()
      await routing?.start()
      announcer?.start()
    },
    stop,
    add: (content, addOptions) =>
      noted(addFile(sink, typeof content === 'string' ? new TextEncoder().encode(content) : content, addOptions)),
    addDirectory: (entries, addOptions) => noted(addDirectory(sink, entries, addOptions)),
    async provide(cid, bound = {}) {
      if (dht === undefined) throw new UnavailableError('unsupported', 'this kit has no DHT: createKit({ dht })')
      const peers = await dht.provide(cid, bound)
      await announcing?.noteTold(records, cid, node.env.clock.wallTime(), peers)
      onProvided?.(cid, peers)
      return peers
    },
    reachDht: async ({ signal } = {}) => (await routing?.ready(signal ?? new AbortController().signal)) ?? false,
    cat: (path, { offset, length, ...fetch } = {}) =>
      over(path, fetch, (source, cid) => cat(source, cid, { offset, length, signal: fetch.signal })),
    ls: (path, fetch = {}) => over(path, fetch, (source, cid) => ls(source, cid, { signal: fetch.signal })),
    async stat(path, fetch = {}) {
      for await (const found of over(path, fetch, async function* (source, cid) {
        yield await stat(source, cid, { signal: fetch.signal })
      })) {
        return found
      }
      throw new UnavailableError('not-found', `nothing at ${String(path)}`)
    },
    walk: (path, fetch = {}) => over(path, fetch, (source, cid) => walk(source, cid, { signal: fetch.signal })),
    open,
    [Symbol.asyncDispose]() {
      return stop()
    },
  }
}
