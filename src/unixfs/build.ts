/*
 * A file as a balanced DAG (IPIP-0499 §DAG layout): chunks are leaves, every leaf has the same depth, nodes are full from
 * the left. One pass, bottom up; at most one node's links are held per level.
 */
import { type CID, cidOf, codec } from '../ipld/cid.ts'
import { type ByteSource, chunk } from './chunk.ts'
import { encodeFile, encodeLeaf } from './data.ts'

/** All that decides which CID some content gets (IPIP-0499). */
export interface Profile {
  readonly cidVersion: 0 | 1
  /** Bytes of a leaf. */
  readonly chunkBytes: number
  /** Leaves are raw blocks; else dag-pb around the bytes. */
  readonly rawLeaves: boolean
  /** Links of an inner node. */
  readonly width: number
  /** A directory above this many bytes is sharded... */
  readonly shardAboveBytes: number
  /** ...counted as the bytes of its block, or as those of names and CIDs only. */
  readonly shardBy: 'block-bytes' | 'links-bytes'
  /** Buckets of one shard. */
  readonly fanout: number
}

/** IPIP-0499, ratified 2026-03-05. */
export const profiles = {
  'unixfs-v1-2025': {
    cidVersion: 1,
    chunkBytes: 1024 * 1024,
    rawLeaves: true,
    width: 1024,
    shardAboveBytes: 256 * 1024,
    shardBy: 'block-bytes',
    fanout: 256,
  },
  'unixfs-v0-2015': {
    cidVersion: 0,
    chunkBytes: 256 * 1024,
    rawLeaves: false,
    width: 174,
    shardAboveBytes: 256 * 1024,
    shardBy: 'links-bytes',
    fanout: 256,
  },
} as const satisfies Record<string, Profile>

export type ProfileName = keyof typeof profiles

/** Where finished blocks go: a promise asks the builder to wait. */
export type Emit = (cid: CID, bytes: Uint8Array) => Promise<void> | undefined

export interface Built {
  cid: CID
  /** Bytes of the file. */
  size: number
  /** Bytes of all blocks, repeated ones counted every time: the Tsize of a link to it. */
  dagSize: number
}

/** Encodes a dag-pb node's CID as the profile wants it. */
export function nodeCid(profile: Profile, bytes: Uint8Array): CID {
  return cidOf(codec.dagPb, bytes, profile.cidVersion)
}

/**
 * Reads `source` to its end and emits the blocks, children before parents. `onChunk` is told the bytes read so far.
 * Rejects with what `source`, `emit` and `onChunk` throw.
 */
export async function buildFile(
  source: ByteSource,
  profile: Profile,
  emit: Emit,
  onChunk?: (bytes: number) => void,
): Promise<Built> {
  const levels: Built[][] = []
  let bytesRead = 0

  async function write(cid: CID, bytes: Uint8Array): Promise<void> {
    const full = emit(cid, bytes)
    if (full !== undefined) await full
  }

  async function leaf(content: Uint8Array): Promise<Built> {
    const bytes = profile.rawLeaves ? content : encodeLeaf(content)
    const cid = profile.rawLeaves ? cidOf(codec.raw, bytes) : nodeCid(profile, bytes)
    await write(cid, bytes)
    return { cid, size: content.length, dagSize: bytes.length }
  }

  /** Makes the links of a level one node and puts it on the next level. */
  async function close(level: number): Promise<void> {
    const links = levels[level] ?? []
    levels[level] = []
    const bytes = encodeFile(links)
    const node: Built = { cid: nodeCid(profile, bytes), size: 0, dagSize: bytes.length }
    for (const { size, dagSize } of links) {
      node.size += size
      node.dagSize += dagSize
    }
    await write(node.cid, bytes)
    await push(level + 1, node)
  }

  async function push(level: number, built: Built): Promise<void> {
    const links = (levels[level] ??= [])
    links.push(built)
    if (links.length === profile.width) await close(level)
  }

  for await (const content of chunk(source, profile.chunkBytes)) {
    await push(0, await leaf(content))
    bytesRead += content.length
    onChunk?.(bytesRead)
  }
  if (bytesRead === 0) return leaf(new Uint8Array(0))
  // What is left over goes up level by level, so that every leaf keeps the same depth.
  for (let level = 0; ; level++) {
    const links = levels[level] ?? []
    const [only] = links
    if (level === levels.length - 1 && links.length === 1 && only !== undefined) return only
    if (links.length > 0) await close(level)
  }
}
