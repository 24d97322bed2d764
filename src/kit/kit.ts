/// <reference lib="esnext.disposable" preserve="true" />
/*
 * createKit(): a node, a block store, Bitswap and UnixFS behind a few verbs. What most users import.
 * Reading asks the store first, then the peers named in the call or, when none is, every peer that is connected.
 */
import { UnavailableError, asError } from '../errors.ts'
import type { CID } from '../ipld/cid.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../node.ts'
import type { PeerId } from '../peer/id.ts'
import { createBitswap, type Bitswap, type BitswapOptions } from '../protocols/bitswap/bitswap.ts'
import type { BlockOptions, BlockPair, Blockstore } from '../store/blocks.ts'
import { MemoryBlocks } from '../store/memory-blocks.ts'
import {
  addDirectory,
  addFile,
  type AddDirectoryOptions,
  type AddEntry,
  type AddOptions,
  type Added,
} from '../unixfs/import.ts'
import type { ByteSource } from '../unixfs/chunk.ts'
import { parsePath, resolve } from '../unixfs/path.ts'
import { cat, ls, stat, type Listed, type Stat } from '../unixfs/read.ts'
import { walk, type WalkEntry } from '../unixfs/walk.ts'
import { Patience } from './patience.ts'
import { fetching, type Fetching } from './source.ts'

export interface KitOptions extends NodeOptions {
  /** Where blocks lie; default in memory. A repo (rhiza/repo) gives its blocks. */
  repo?: { readonly blocks: Blockstore }
  bitswap?: BitswapOptions
}

export interface FetchOptions {
  /** Whom to ask; dialled when not connected. Default: every connected peer. */
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

export interface Kit {
  readonly node: Node
  readonly blocks: Blockstore
  readonly bitswap: Bitswap
  start(): Promise<void>
  /** Stops the node; the repo stays open: who opened it closes it. */
  stop(): Promise<void>
  /** Resolves once every block is durable. Text is UTF-8. */
  add(content: ByteSource | string, options?: AddOptions): Promise<Added>
  addDirectory(entries: Iterable<AddEntry> | AsyncIterable<AddEntry>, options?: AddDirectoryOptions): Promise<Added>
  /** The bytes of a file; what came from peers is in the store when it ends. */
  cat(path: ContentPath, options?: CatOptions): AsyncGenerator<Uint8Array, void, undefined>
  ls(path: ContentPath, options?: FetchOptions): AsyncGenerator<Listed, void, undefined>
  stat(path: ContentPath, options?: FetchOptions): Promise<Stat>
  /** The whole tree, parents first: for writing it elsewhere. */
  walk(path: ContentPath, options?: FetchOptions): AsyncGenerator<WalkEntry, void, undefined>
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

/** Rejects like createNode. Nothing is open until start. */
export async function createKit(options: KitOptions = {}): Promise<Kit> {
  const { repo, bitswap: bitswapOptions, ...nodeOptions } = options
  const node = await createNode(nodeOptions)
  const blocks = repo?.blocks ?? new MemoryBlocks()
  const bitswap = createBitswap({ host: node, blocks, ...bitswapOptions })
  /** Tells the peers that wait for them of the blocks that come into the store. */
  const sink = {
    get: (cid: CID, bound?: BlockOptions) => blocks.get(cid, bound),
    async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, bound?: BlockOptions): Promise<void> {
      const cids: CID[] = []
      await blocks.putMany(noting(pairs, cids), bound)
      bitswap.notify(cids)
    },
  }

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

  /** A source that lives as long as one call. */
  async function open(
    path: ContentPath,
    { peers, timeoutMs = defaultTimeoutMs, signal }: FetchOptions,
  ): Promise<Fetching & { end(): Promise<void> }> {
    const asked = peers === undefined ? node.peers() : await connect(peers, signal)
    if (asked.length === 0) {
      const none = {
        get: (cid: CID) =>
          Promise.reject(
            new UnavailableError(
              'not-found',
              `block ${cid} is not in the store, and no peer was named to ask for it: peers, or --peer MULTIADDR`,
            ),
          ),
      }
      const local = fetching(sink, none)
      return { ...local, end: () => local.flush() }
    }
    const patience = new Patience(node.env, timeoutMs, `waiting for any block of ${String(path)}`)
    const ends = signal === undefined ? patience.signal : AbortSignal.any([signal, patience.signal])
    const session = bitswap.session({ peers: asked, timeoutMs: Infinity, signal: ends })
    const source = fetching(sink, {
      get: (cid, bound) => patience.wait(session.get(cid, bound?.signal === undefined ? {} : { signal: bound.signal })),
    })
    return {
      ...source,
      async end() {
        session.close()
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
    await bitswap.stop()
    await node.stop()
  }

  return {
    node,
    blocks,
    bitswap,
    async start() {
      bitswap.start()
      await node.start()
    },
    stop,
    async add(content, addOptions) {
      return addFile(sink, typeof content === 'string' ? new TextEncoder().encode(content) : content, addOptions)
    },
    addDirectory: (entries, addOptions) => addDirectory(sink, entries, addOptions),
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
    [Symbol.asyncDispose]() {
      return stop()
    },
  }
}
