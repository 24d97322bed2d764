/*
 * Sharded directories (unixfs.md §HAMTDirectory) read and written; what a shard is stands in shard.ts.
 * Errata 8: the bit field is big-endian with leading zero bytes trimmed.
 */
import { UnavailableError } from '../errors.ts'
import type { CID } from '../ipld/cid.ts'
import { encodeNode, type PBLink } from '../ipld/dag-pb.ts'
import { ahead, type Budget } from './ahead.ts'
import { type BlockSource, fetchBlock, type FetchOptions } from './blocks.ts'
import { type Built, type Emit, nodeCid, type Profile } from './build.ts'
import { badDag, Data, dataType, decodeUnixFS, murmur3 } from './data.ts'
import { asChildShard, checkPlace, NamePath, prefixOf, type Shard, shardLevels, slots } from './shard.ts'

export interface DirEntry {
  name: string
  cid: CID
  /** Bytes of all blocks below, as the link claims: a hint. Undefined where it claims nothing. */
  dagSize: number | undefined
}

async function childShard(source: BlockSource, parent: Shard, cid: CID, options: FetchOptions): Promise<Shard> {
  return asChildShard(parent, decodeUnixFS(cid, await fetchBlock(source, cid, options)))
}

/** Every entry once, in the order of the trie. Shards are fetched ahead within `budget`. */
export async function* shardEntries(
  source: BlockSource,
  shard: Shard,
  budget: Budget,
  options: FetchOptions,
  above: readonly number[] = [],
): AsyncGenerator<DirEntry> {
  const levels = shardLevels(shard)
  if (above.length >= levels) throw badDag(shard.cid, `shards are nested deeper than ${levels}`)
  const fetched = ahead(slots(shard), budget, async (slot) => ({
    slot,
    below: slot.name === '' ? await childShard(source, shard, slot.link.cid, options) : undefined,
  }))
  for await (const { slot, below } of fetched) {
    const place = [...above, slot.bucket]
    if (below !== undefined) {
      yield* shardEntries(source, below, budget, options, place)
    } else {
      checkPlace(shard, slot.name, place)
      yield { name: slot.name, cid: slot.link.cid, dagSize: slot.link.tsize }
    }
  }
}

/** The entry of that name, or undefined: fetches one shard per level. */
export async function shardLookup(
  source: BlockSource,
  root: Shard,
  name: string,
  options: FetchOptions,
): Promise<DirEntry | undefined> {
  const path = new NamePath(name, root.fanout)
  let shard = root
  for (let depth = 0; ; depth++) {
    const bucket = path.bucket(depth)
    if (bucket === undefined) throw badDag(shard.cid, 'shards are nested deeper than the hash has bits')
    const slot = slots(shard).find((one) => one.bucket === bucket)
    if (slot === undefined) return undefined
    if (slot.name !== '') return slot.name === name ? { name, cid: slot.link.cid, dagSize: slot.link.tsize } : undefined
    shard = await childShard(source, shard, slot.link.cid, options)
  }
}

interface Placed {
  link: { cid: CID; dagSize: number }
  name: string
  path: NamePath
}

/** Big-endian, leading zero bytes trimmed. */
function bitField(buckets: readonly number[], fanout: number): Uint8Array {
  const field = new Uint8Array(fanout / 8)
  for (const bucket of buckets) {
    const at = field.length - 1 - (bucket >> 3)
    field[at] = (field[at] ?? 0) | (1 << (bucket & 7))
  }
  const first = field.findIndex((byte) => byte !== 0)
  return first === -1 ? field.subarray(field.length) : field.subarray(first)
}

/** Writes the shards of a directory, children first. `size` of the result is 0: directories have no bytes of their own. */
export async function buildShards(
  entries: readonly { name: string; cid: CID; dagSize: number }[],
  profile: Profile,
  emit: Emit,
): Promise<Built> {
  const { fanout } = profile

  async function build(placed: readonly Placed[], depth: number): Promise<Built> {
    const buckets = Map.groupBy(placed, ({ path, name }) => {
      const bucket = path.bucket(depth)
      if (bucket === undefined)
        throw new UnavailableError(
          'unsupported',
          `names that hash alike cannot share a directory: ${JSON.stringify(name)}`,
        )
      return bucket
    })
    const order = [...buckets.keys()].toSorted((a, b) => a - b)
    const links: PBLink[] = []
    let dagSize = 0
    for (const bucket of order) {
      const inside = buckets.get(bucket) ?? []
      const [only] = inside
      const link = inside.length === 1 && only !== undefined ? only.link : await build(inside, depth + 1)
      const name = prefixOf(bucket, fanout) + (inside.length === 1 && only !== undefined ? only.name : '')
      links.push({ cid: link.cid, name, tsize: link.dagSize })
      dagSize += link.dagSize
    }
    const data = Data.encode({ type: dataType.hamtShard, data: bitField(order, fanout), hashType: murmur3, fanout })
    const bytes = encodeNode({ links, data })
    const cid = nodeCid(profile, bytes)
    const full = emit(cid, bytes)
    if (full !== undefined) await full
    return { cid, size: 0, dagSize: dagSize + bytes.length }
  }

  return build(
    entries.map(({ name, cid, dagSize }) => ({ link: { cid, dagSize }, name, path: new NamePath(name, fanout) })),
    0,
  )
}
