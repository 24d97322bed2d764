/*
 * UnixFS as views: InterpretAs `unixfs` and `unixfs-preload`, loading the blocks that go-unixfsnode 1.10 loads, in its
 * order. A directory, sharded or not, is a map of names to links, a file is bytes. As in go, dag-pb that is no UnixFS, a
 * symlink and a metadata node are maps of their links' names, and what is not the root of a dag-pb block stays what it is.
 * Other than in go, files and shards that contradict themselves are refused (ProtocolError `bad-dag`).
 */
import { LimitError, UnavailableError } from '../errors.ts'
import { badDag, Data, dataType, decodeUnixFS, type FileNode, unixFSNode, type UnixFSNode } from '../unixfs/data.ts'
import { asChildShard, checkPlace, NamePath, type Shard, shardLevels, type Slot, slots } from '../unixfs/shard.ts'
import type { CID } from './cid.ts'
import { decodeNode, type PBLink } from './dag-pb.ts'
import type { IpldNode, Segment } from './model.ts'
import { type Asking, type BytesView, type Chunk, type Entry, type MapView, type View, viewMark } from './view.ts'

/** Bytes of shards that a view of a sharded directory holds: names share what is on their way. */
const heldBytes = 32 * 1024 * 1024
/** Levels below a file's root; real ones have 5. */
const fileDepth = 64

export interface Reified {
  readonly cid: CID
  readonly bytes: Uint8Array
  /** Whether somebody will ask for entries; if not, what a preload loads need not be held. */
  readonly explored: boolean
}

/** What a dag-pb block is under the view: undefined for what stays a plain node. */
export type Reify = (block: Reified) => Asking<never, View | IpldNode>

/** The names of links; two of the same name are both entries, but only the first is found. */
class LinksView implements MapView {
  readonly [viewMark] = true
  readonly view = 'map'
  readonly #links: readonly PBLink[]

  constructor(links: readonly PBLink[]) {
    this.#links = links
  }

  *entries(): Asking<Entry, void> {
    for (const { name = '', cid } of this.#links) yield { segment: name, child: cid }
  }

  // oxlint-disable-next-line require-yield
  *lookup(segment: Segment): Asking<never, IpldNode | undefined> {
    const key = String(segment)
    return this.#links.find(({ name = '' }) => name === key)?.cid
  }
}

interface Level {
  readonly shard: Shard
  readonly slots: readonly Slot[]
  readonly byBucket: ReadonlyMap<number, Slot>
}

function levelOf(shard: Shard): Level {
  const all = slots(shard)
  return { shard, slots: all, byBucket: new Map(all.map((slot) => [slot.bucket, slot])) }
}

class ShardedView implements MapView {
  readonly [viewMark] = true
  readonly view = 'map'
  readonly #root: Level
  readonly #levels: number
  /** Shards below the root by their CID, the oldest first. */
  readonly #held = new Map<string, { level: Level; size: number }>()
  #heldBytes = 0

  constructor(root: Shard) {
    this.#root = levelOf(root)
    this.#levels = shardLevels(root)
  }

  /** The shard below `parent`, which is the `depth`th of its branch; undefined where it is missing. */
  *#child(parent: Shard, depth: number, cid: CID, hold: boolean): Asking<never, Level | undefined> {
    if (depth >= this.#levels) throw badDag(parent.cid, `shards are nested deeper than ${this.#levels}`)
    const key = cid.toString()
    const held = this.#held.get(key)
    if (held !== undefined) return held.level
    const bytes = yield { want: cid }
    if (bytes === undefined) return undefined
    const level = levelOf(asChildShard(parent, decodeUnixFS(cid, bytes)))
    if (hold) {
      this.#held.set(key, { level, size: bytes.length })
      this.#heldBytes += bytes.length
    }
    return level
  }

  *entries(): Asking<Entry, void> {
    const place: number[] = []
    const above = [{ level: this.#root, at: 0 }]
    for (let top = above.at(-1); top !== undefined; top = above.at(-1)) {
      const { shard } = top.level
      const slot = top.level.slots[top.at++]
      if (slot === undefined) {
        above.pop()
        place.pop()
        continue
      }
      place.push(slot.bucket)
      if (slot.name !== '') {
        checkPlace(shard, slot.name, place)
        place.pop()
        yield { segment: slot.name, child: slot.link.cid }
        continue
      }
      const level: Level | undefined = yield* this.#child(shard, above.length, slot.link.cid, false)
      if (level === undefined) place.pop()
      else above.push({ level, at: 0 })
    }
  }

  *lookup(segment: Segment): Asking<never, IpldNode | undefined> {
    const name = String(segment)
    const path = new NamePath(name, this.#root.shard.fanout)
    let level = this.#root
    for (let depth = 1; ; depth++) {
      const bucket = path.bucket(depth - 1)
      const slot = bucket === undefined ? undefined : level.byBucket.get(bucket)
      if (slot === undefined) return undefined
      if (slot.name !== '') return slot.name === name ? slot.link.cid : undefined
      const child: Level | undefined = yield* this.#child(level.shard, depth, slot.link.cid, true)
      if (child === undefined) return undefined
      level = child
      for (const [key, { size }] of this.#held) {
        if (this.#heldBytes <= heldBytes) break
        this.#held.delete(key)
        this.#heldBytes -= size
      }
    }
  }

  /** All shards, in the order of the entries. With `hold` they are there for what comes then. */
  *preload(hold: boolean): Asking<never, void> {
    const above = [{ level: this.#root, at: 0 }]
    for (let top = above.at(-1); top !== undefined; top = above.at(-1)) {
      const slot = top.level.slots[top.at++]
      if (slot === undefined) above.pop()
      else if (slot.name === '') {
        const level: Level | undefined = yield* this.#child(top.level.shard, above.length, slot.link.cid, hold)
        if (this.#heldBytes > heldBytes) throw new LimitError('preloadBytes', heldBytes, this.#heldBytes)
        if (level !== undefined) above.push({ level, at: 0 })
      }
    }
  }
}

/** A file in more than one block. */
class FileView implements BytesView {
  readonly [viewMark] = true
  readonly view = 'bytes'
  readonly #root: FileNode

  constructor(root: FileNode) {
    this.#root = root
  }

  get size(): number {
    return this.#root.size
  }

  *read(from: number, to: number | undefined): Asking<Chunk, boolean> {
    if (to !== undefined && from >= to) return true
    const end = to ?? Infinity
    const above = [openPart(this.#root, 0, from)]
    for (let top = above.at(-1); top !== undefined; top = above.at(-1)) {
      if (!top.opened) {
        top.opened = true
        const { data } = top.node
        const start = Math.max(0, from - top.offset)
        const stop = Math.min(data.length, end - top.offset)
        if (start < stop) yield { offset: top.offset + start, bytes: data.subarray(start, stop) }
      }
      const link = top.node.links[top.at++]
      if (link === undefined) {
        above.pop()
        continue
      }
      const offset = top.next
      if (offset >= end) return true
      top.next += link.size
      // As go's reader: what lies before the part is passed over, empty parts too, but not those further on.
      if (top.from >= top.next) continue
      const bytes: Uint8Array | undefined = yield { want: link.cid }
      if (bytes === undefined) return false
      if (above.length > fileDepth) throw badDag(top.node.cid, `file is nested deeper than ${fileDepth}`)
      const node: UnixFSNode = decodeUnixFS(link.cid, bytes)
      if (node.type !== 'file') throw badDag(top.node.cid, `a part of a file is a ${node.type}`)
      if (node.size !== link.size)
        throw badDag(top.node.cid, `a part of ${node.size} bytes (${link.cid}), its link says ${link.size}`)
      above.push(openPart(node, offset, from))
    }
    return true
  }
}

interface Part {
  node: FileNode
  /** Of its first byte in the file. */
  offset: number
  /** Where reading begins; never before this part. */
  from: number
  /** The next link, and where its bytes begin in the file. */
  at: number
  next: number
  opened: boolean
}

function openPart(node: FileNode, offset: number, from: number): Part {
  return { node, offset, from: Math.max(from, offset), at: 0, next: offset + node.data.length, opened: false }
}

function* reify({ cid, bytes, explored }: Reified, preload: boolean): Asking<never, View | IpldNode> {
  const { links, data: encoded } = decodeNode(bytes)
  if (encoded === undefined) return new LinksView(links)
  let data: ReturnType<typeof Data.decode>
  try {
    data = Data.decode(encoded)
  } catch {
    // Not UnixFS, as go reads it: no error.
    return new LinksView(links)
  }
  if (data.type === dataType.metadata || data.type === dataType.symlink || data.type === dataType.directory)
    return new LinksView(links)
  const node = unixFSNode(cid, bytes.length, links, data)
  if (node.type === 'directory') {
    const view = new ShardedView(node as Shard)
    if (preload) yield* view.preload(explored)
    return view
  }
  if (node.type !== 'file') throw new UnavailableError('unsupported', `${cid}: no view of a ${node.type}`)
  if (links.length === 0) return node.data
  const view = new FileView(node)
  if (preload && data.type === dataType.file) {
    const reading = view.read(0, undefined)
    for (let step = reading.next(); step.done !== true;)
      step = reading.next('want' in step.value ? yield step.value : undefined)
  }
  return view
}

/** The views by the name that InterpretAs calls them. */
export const unixfsViews: ReadonlyMap<string, Reify> = new Map<string, Reify>([
  ['unixfs', (block) => reify(block, false)],
  ['unixfs-preload', (block) => reify(block, true)],
])
