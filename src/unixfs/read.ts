/*
 * Reading UnixFS DAGs of any layout (balanced, trickle, both CID versions). Depth, links and every size are checked on the
 * way: a DAG that lies about its sizes is ProtocolError `bad-dag`, and no more is fetched than the bytes it owns up to.
 * Blocks come in order, with many of them under way.
 */
import { fromUtf8 } from '../bytes.ts'
import { leash } from '../deadline.ts'
import { UnavailableError } from '../errors.ts'
import type { CID } from '../ipld/cid.ts'
import { blockBytes } from '../limits.ts'
import { ahead, type Budget } from './ahead.ts'
import { type BlockSource, fetchBlock, type FetchOptions } from './blocks.ts'
import { badDag, decodeUnixFS, type FileNode, type Metadata, type UnixFSNode } from './data.ts'
import { type DirEntry, shardEntries, shardLookup } from './hamt.ts'

export interface CatOptions extends FetchOptions {
  /** Bytes to leave out at the beginning; at or above the file's size there is nothing. */
  offset?: number | undefined
  /** Bytes to read at most; default all. */
  length?: number | undefined
  /** Blocks under way. */
  concurrency?: number | undefined
}

/** Levels below a file's root; real ones have 5. */
const fileDepth = 64
/** Parts of a file that wait to be read, on all levels together: two of the widest nodes that fit in 2 MiB have 90,000. */
const waitingParts = 131_072

const catDefaults = {
  offset: 0,
  length: Infinity,
  /** Enough to fill Bitswap's pipe at 100 ms and 1 MiB blocks. */
  concurrency: 64,
}

/** Bytes under way and not yet read, by the sizes the DAG declares. */
const windowBytes = 32 * 1024 * 1024
/** Directory entries that are looked up ahead. */
const entriesAhead = 32

function wholeNumber(name: string, value: number): number {
  if (value !== Infinity && (!Number.isSafeInteger(value) || value < 0))
    throw new RangeError(`${name} is ${value}, want a whole number of bytes`)
  return value
}

/** The node itself; nothing below it is fetched. */
export async function readNode(source: BlockSource, cid: CID, options: FetchOptions = {}): Promise<UnixFSNode> {
  return decodeUnixFS(cid, await fetchBlock(source, cid, options))
}

interface Part {
  cid: CID
  /** Where it begins in the file. */
  at: number
  /** Bytes of the file it stands for. */
  size: number
  depth: number
  block: Promise<Uint8Array> | undefined
  /** What it counts in the window while it is under way. */
  cost: number
}

/** The bytes of a file whose root is at hand: see cat. */
export async function* catFile(
  source: BlockSource,
  root: FileNode,
  options: CatOptions = {},
): AsyncGenerator<Uint8Array> {
  const start = wholeNumber('offset', options.offset ?? catDefaults.offset)
  const end = Math.min(root.size, start + wholeNumber('length', options.length ?? catDefaults.length))
  const concurrency = Math.max(1, options.concurrency ?? catDefaults.concurrency)
  const { signal, end: endLeash } = leash(options.signal)
  // The part that is next in the file lies at the end.
  const waiting: Part[] = []
  let blocks = 0
  let bytes = 0

  function fetchAhead(): void {
    for (let i = waiting.length - 1; i >= 0 && i >= waiting.length - concurrency; i--) {
      const part = waiting[i]
      if (part === undefined || part.block !== undefined) continue
      const first = i === waiting.length - 1
      if (!first && (blocks >= concurrency || bytes + part.cost > windowBytes)) return
      part.block = fetchBlock(source, part.cid, { signal })
      part.block.catch(() => undefined) // seen when its turn comes
      blocks++
      bytes += part.cost
    }
  }

  function expand(node: FileNode, at: number, depth: number): void {
    if (node.links.length > 0 && depth >= fileDepth) throw badDag(root.cid, `file is nested deeper than ${fileDepth}`)
    const parts: Part[] = []
    let from = at + node.data.length
    for (const { cid, size } of node.links) {
      // A part of no bytes adds nothing, whatever it links to.
      if (size > 0 && from < end && from + size > start)
        parts.push({ cid, at: from, size, depth: depth + 1, block: undefined, cost: Math.min(size, blockBytes) })
      from += size
    }
    for (let part = parts.pop(); part !== undefined; part = parts.pop()) waiting.push(part)
    if (waiting.length > waitingParts) throw badDag(root.cid, `file has more than ${waitingParts} parts waiting`)
  }

  function cut(data: Uint8Array, at: number): Uint8Array {
    return data.subarray(Math.max(0, start - at), Math.max(0, Math.min(data.length, end - at)))
  }

  try {
    const head = cut(root.data, 0)
    if (head.length > 0) yield head
    expand(root, 0, 0)
    while (waiting.length > 0) {
      signal.throwIfAborted()
      fetchAhead()
      const part = waiting.pop()
      if (part?.block === undefined) break
      const block = await part.block
      blocks--
      bytes -= part.cost
      const node = decodeUnixFS(part.cid, block)
      if (node.type !== 'file') throw badDag(root.cid, `file has a ${node.type} among its parts: ${part.cid}`)
      if (node.size !== part.size)
        throw badDag(root.cid, `part ${part.cid} is said to have ${part.size} bytes, but has ${node.size}`)
      expand(node, part.at, part.depth)
      const content = cut(node.data, part.at)
      if (content.length > 0) yield content
    }
  } finally {
    endLeash()
  }
}

/**
 * The bytes of a file, in order. What it gives may be the store's own memory: not to be changed.
 * Rejects with UnavailableError (`not-found` for a missing block, `not-a-file` for a directory or symlink), ProtocolError
 * (`bad-dag` for sizes that do not add up and whatever else breaks the spec), or signal.reason.
 */
export async function* cat(source: BlockSource, cid: CID, options: CatOptions = {}): AsyncGenerator<Uint8Array> {
  wholeNumber('offset', options.offset ?? 0)
  wholeNumber('length', options.length ?? Infinity)
  const root = await readNode(source, cid, options)
  if (root.type === 'directory') throw new UnavailableError('not-a-file', `${cid} is a directory`)
  if (root.type === 'symlink')
    throw new UnavailableError('not-a-file', `${cid} is a symlink to ${JSON.stringify(root.target)}`)
  yield* catFile(source, root, options)
}

export interface Stat extends Metadata {
  cid: CID
  type: UnixFSNode['type']
  /** Bytes of the file; of a symlink those of its target; 0 for directories. */
  size: number
  /** Bytes of all blocks, as the links claim: a hint. */
  dagSize: number
  /** Of a symlink. */
  target?: string
  /** Of a directory: it is spread over several blocks. */
  sharded?: boolean
}

export function statNode(node: UnixFSNode): Stat {
  const { cid, type, dagSize, mode, mtime } = node
  const stat: Stat = { cid, type, size: 0, dagSize }
  if (mode !== undefined) stat.mode = mode
  if (mtime !== undefined) stat.mtime = mtime
  if (node.type === 'file') stat.size = node.size
  else if (node.type === 'directory') stat.sharded = node.fanout !== undefined
  else [stat.target, stat.size] = [node.target, fromUtf8(node.target).length]
  return stat
}

/** What the root block alone tells. */
export async function stat(source: BlockSource, cid: CID, options: FetchOptions = {}): Promise<Stat> {
  return statNode(await readNode(source, cid, options))
}

/** The entries of a directory whose node is at hand: of names that come twice, the first (unixfs.md §Directory). */
export async function* entriesOf(
  source: BlockSource,
  node: UnixFSNode,
  options: FetchOptions = {},
  budget: Budget = { free: entriesAhead },
): AsyncGenerator<DirEntry> {
  if (node.type !== 'directory') throw new UnavailableError('not-a-directory', `${node.cid} is a ${node.type}`)
  const { fanout } = node
  if (fanout !== undefined) {
    yield* shardEntries(source, { ...node, fanout }, budget, options)
    return
  }
  const seen = new Set<string>()
  for (const { cid, name = '', tsize } of node.links) {
    if (seen.has(name)) continue
    seen.add(name)
    yield { name, cid, dagSize: tsize }
  }
}

/** The entry of that name, undefined when the directory has none. */
export async function lookup(
  source: BlockSource,
  node: UnixFSNode,
  name: string,
  options: FetchOptions = {},
): Promise<DirEntry | undefined> {
  if (node.type !== 'directory') throw new UnavailableError('not-a-directory', `${node.cid} is a ${node.type}`)
  const { fanout } = node
  if (fanout !== undefined) return shardLookup(source, { ...node, fanout }, name, options)
  const link = node.links.find((one) => (one.name ?? '') === name)
  return link === undefined ? undefined : { name, cid: link.cid, dagSize: link.tsize }
}

export interface Listed extends Stat {
  /** As stored: may hold control characters, '/' or '..'. */
  name: string
}

/**
 * The entries of a directory with type and size, in stored order. Fetches the root block of every entry.
 * A name alone, without fetching what it names: entriesOf.
 */
export async function* ls(source: BlockSource, cid: CID, options: FetchOptions = {}): AsyncGenerator<Listed> {
  const { signal, end } = leash(options.signal)
  try {
    const root = await readNode(source, cid, { signal })
    const entries = entriesOf(source, root, { signal })
    yield* ahead(entries, { free: entriesAhead }, async ({ name, cid }) => ({
      name,
      ...(await stat(source, cid, { signal })),
    }))
  } finally {
    end()
  }
}
