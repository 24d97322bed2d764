/*
 * One shard of a sharded directory (unixfs.md §HAMTDirectory): a trie over the MurmurHash3 of the names.
 * Errata 8: bits are taken from the front of the hash, the high ones first; the prefix has as many hex digits as fanout-1.
 * Every name is checked against its place, so that a few blocks linked again and again cannot pose as an endless directory.
 */
import { fromUtf8 } from '../bytes.ts'
import type { PBLink } from '../ipld/dag-pb.ts'
import { badDag, type DirectoryNode, type UnixFSNode } from './data.ts'
import { murmur3x64 } from './murmur3.ts'

/** Buckets of a name, level by level. */
export class NamePath {
  readonly #hash: bigint
  readonly #bits: number

  constructor(name: string, fanout: number) {
    this.#hash = murmur3x64(fromUtf8(name))
    this.#bits = Math.log2(fanout)
  }

  /** Undefined below the last level: the hash has 64 bits. */
  bucket(depth: number): number | undefined {
    const low = 64 - this.#bits * (depth + 1)
    if (low < 0) return undefined
    return Number((this.#hash >> BigInt(low)) & ((1n << BigInt(this.#bits)) - 1n))
  }
}

function prefixDigits(fanout: number): number {
  return (fanout - 1).toString(16).length
}

export function prefixOf(bucket: number, fanout: number): string {
  return bucket.toString(16).toUpperCase().padStart(prefixDigits(fanout), '0')
}

export type Shard = DirectoryNode & { fanout: number }

export interface Slot {
  bucket: number
  /** What follows the prefix; '' is a link to a shard. */
  name: string
  link: PBLink
}

export function slots(shard: Shard): Slot[] {
  const digits = prefixDigits(shard.fanout)
  const seen = new Set<number>()
  return shard.links.map((link) => {
    const prefix = (link.name ?? '').slice(0, digits)
    const bucket = prefix.length === digits && /^[0-9A-F]+$/.test(prefix) ? Number.parseInt(prefix, 16) : Infinity
    if (bucket >= shard.fanout)
      throw badDag(shard.cid, `shard has a link with the bad prefix ${JSON.stringify(prefix)}`)
    if (seen.has(bucket)) throw badDag(shard.cid, `shard has the bucket ${prefix} twice`)
    seen.add(bucket)
    return { bucket, name: (link.name ?? '').slice(digits), link }
  })
}

/** Levels that the 64 bits of the hash are enough for. */
export function shardLevels(shard: Shard): number {
  return Math.floor(64 / Math.log2(shard.fanout))
}

/** `node` as a shard below `parent`. */
export function asChildShard(parent: Shard, node: UnixFSNode): Shard {
  if (node.type !== 'directory' || node.fanout !== parent.fanout)
    throw badDag(parent.cid, `shard links to ${node.cid}, which is no shard of fanout ${parent.fanout}`)
  if (node.links.length === 0) throw badDag(node.cid, 'empty shard below another one')
  return node as Shard
}

/** `place` are the buckets from the root to the name. */
export function checkPlace(shard: Shard, name: string, place: readonly number[]): void {
  const path = new NamePath(name, shard.fanout)
  if (place.some((bucket, depth) => path.bucket(depth) !== bucket))
    throw badDag(shard.cid, `shard holds ${JSON.stringify(name)}, whose hash belongs elsewhere`)
}
