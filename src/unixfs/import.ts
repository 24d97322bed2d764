/*
 * Content into blocks: files, symlinks, directories, with the CIDs that Kubo's `ipfs add` gives for the same profile.
 * Left out: mode and mtime (off in both profiles), rabin and buzhash chunkers, trickle.
 */
import { fromUtf8 } from '../bytes.ts'
import type { CID } from '../ipld/cid.ts'
import { encodeNode, linkSize, type PBLink, sortLinks } from '../ipld/dag-pb.ts'
import { type BlockSink, BlockWriter } from './blocks.ts'
import { buildFile, type Built, type Emit, nodeCid, type Profile, type ProfileName, profiles } from './build.ts'
import type { ByteSource } from './chunk.ts'
import { Data, dataType } from './data.ts'
import { buildShards } from './hamt.ts'

export interface AddOptions {
  /** Default unixfs-v1-2025. */
  profile?: ProfileName | Profile | undefined
  /** Bytes of content read so far; called after every chunk. */
  onProgress?: ((bytes: number) => void) | undefined
  /** Aborting rejects with signal.reason; blocks already handed over stay in the store. */
  signal?: AbortSignal | undefined
}

export interface Added {
  cid: CID
  /** Bytes of content; of a directory those of all its files. */
  size: number
  /** Bytes of all blocks, repeated ones counted every time (Tsize). */
  dagSize: number
}

export type AddEntry =
  | { path: string; type: 'file'; content: ByteSource | (() => ByteSource) }
  | { path: string; type: 'symlink'; target: string }
  | { path: string; type: 'directory' }

export interface AddedEntry extends Added {
  /** Names from the root joined by '/'; '' is the root. */
  path: string
  type: AddEntry['type']
}

export interface AddDirectoryOptions extends AddOptions {
  /** Called for every file, symlink and directory once its CID is known, the root last; before it is durable. */
  onEntry?: ((entry: AddedEntry) => void) | undefined
}

function profileOf({ profile = 'unixfs-v1-2025' }: AddOptions): Profile {
  if (typeof profile === 'object') return profile
  if (!Object.hasOwn(profiles, profile))
    throw new TypeError(
      `profile ${JSON.stringify(profile)} is unknown, want one of ${Object.keys(profiles).join(', ')}`,
    )
  return profiles[profile]
}

/** Runs `build` with a writer and gives its result once everything is durable. A source that hangs does not outlive abort. */
async function writing<T>(
  sink: BlockSink,
  signal: AbortSignal | undefined,
  build: (emit: Emit) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted()
  const writer = new BlockWriter(sink, { signal })
  const emit: Emit = (cid, bytes) => {
    signal?.throwIfAborted()
    return writer.put(cid, bytes)
  }
  const work = (async () => {
    try {
      const built = await build(emit)
      await writer.finish()
      return built
    } catch (error) {
      await writer.settle()
      throw error
    }
  })()
  if (signal === undefined) return work
  let onAbort: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort)
    // Whatever the abandoned work ends with, the caller has heard the reason.
    work.catch(() => undefined)
  }
}

/**
 * Adds one file of any size, as a stream: memory stays below 64 MiB, whatever its size. Resolves once every block is durable.
 * Rejects with what the store rejects with, what the source throws, TypeError for a source that gives no bytes.
 */
export async function addFile(sink: BlockSink, content: ByteSource, options: AddOptions = {}): Promise<Added> {
  const profile = profileOf(options)
  return writing(sink, options.signal, (emit) => buildFile(content, profile, emit, options.onProgress))
}

async function buildNode(profile: Profile, emit: Emit, links: PBLink[], data: Uint8Array): Promise<Built> {
  const bytes = encodeNode({ links, data })
  const cid = nodeCid(profile, bytes)
  const full = emit(cid, bytes)
  if (full !== undefined) await full
  return { cid, size: 0, dagSize: links.reduce((sum, { tsize }) => sum + (tsize ?? 0), bytes.length) }
}

function buildSymlink(profile: Profile, emit: Emit, target: string): Promise<Built> {
  return buildNode(profile, emit, [], Data.encode({ type: dataType.symlink, data: fromUtf8(target) }))
}

interface Child extends Built {
  name: string
}

/** A plain directory, or shards above the profile's threshold. */
async function buildDirectory(profile: Profile, emit: Emit, children: readonly Child[]): Promise<Built> {
  const data = Data.encode({ type: dataType.directory })
  const links = sortLinks(children.map(({ name, cid, dagSize }) => ({ cid, name, tsize: dagSize })))
  const size =
    profile.shardBy === 'block-bytes'
      ? links.reduce((sum, link) => sum + linkSize(link), 2 + data.length)
      : links.reduce((sum, { cid, name }) => sum + cid.bytes.length + fromUtf8(name).length, 0)
  const built =
    size > profile.shardAboveBytes
      ? await buildShards(children, profile, emit)
      : await buildNode(profile, emit, links, data)
  return { ...built, size: children.reduce((sum, child) => sum + child.size, 0) }
}

type Tree = Map<string, Tree | Child>

function isTree(node: Tree | Child | undefined): node is Tree {
  return node instanceof Map
}

function segmentsOf(path: string): string[] {
  const segments = path === '' || path === '.' ? [] : path.split('/')
  for (const name of segments) {
    if (name === '' || name === '.' || name === '..' || name.includes('\0') || !name.isWellFormed())
      throw new TypeError(`path ${JSON.stringify(path)}: ${JSON.stringify(name)} cannot be a name`)
  }
  return segments
}

/** The directory that is to hold the last segment, made with all above it. */
function parentOf(root: Tree, path: string, segments: readonly string[]): Tree {
  let tree = root
  for (const name of segments) {
    let next = tree.get(name)
    if (next === undefined) tree.set(name, (next = new Map()))
    if (!isTree(next)) throw new TypeError(`path ${JSON.stringify(path)}: ${JSON.stringify(name)} is not a directory`)
    tree = next
  }
  return tree
}

/**
 * Adds a tree; `entries` come in any order, directories above them are made as needed, an entry of type directory is only
 * needed for an empty one (and may have the path '' for the root). The result is the root directory.
 * Memory: one record per name, and one file at a time as in addFile.
 * Rejects like addFile; TypeError for a path that is none or comes twice.
 */
export async function addDirectory(
  sink: BlockSink,
  entries: Iterable<AddEntry> | AsyncIterable<AddEntry>,
  options: AddDirectoryOptions = {},
): Promise<Added> {
  const profile = profileOf(options)
  const { onProgress, onEntry } = options
  return writing(sink, options.signal, async (emit) => {
    const root: Tree = new Map()
    let before = 0
    for await (const entry of entries) {
      const { path, type } = entry
      const segments = segmentsOf(path)
      if (type === 'directory') {
        parentOf(root, path, segments)
        continue
      }
      const name = segments.at(-1)
      if (name === undefined) throw new TypeError(`a ${type} needs a path`)
      const parent = parentOf(root, path, segments.slice(0, -1))
      if (parent.has(name)) throw new TypeError(`path ${JSON.stringify(path)} comes twice`)
      let built: Built
      if (type === 'symlink') {
        built = await buildSymlink(profile, emit, entry.target)
      } else {
        const content = typeof entry.content === 'function' ? entry.content() : entry.content
        built = await buildFile(content, profile, emit, (bytes) => onProgress?.(before + bytes))
        before += built.size
      }
      parent.set(name, { ...built, name })
      onEntry?.({ path: segments.join('/'), type, ...built })
    }

    async function close(tree: Tree, path: string): Promise<Built> {
      const children: Child[] = []
      for (const [name, node] of tree) {
        const built = isTree(node) ? await close(node, path === '' ? name : `${path}/${name}`) : node
        children.push({ ...built, name })
      }
      const built = await buildDirectory(profile, emit, children)
      onEntry?.({ path, type: 'directory', ...built })
      return built
    }
    return close(root, '')
  })
}
