/* What the UnixFS tests share: a store in memory, and the inputs of IPIP-0499's table. */
import { createCipheriv, createHash } from 'node:crypto'
import { concat } from '../../src/bytes.ts'
import { type CID, verifyBlock } from '../../src/ipld/cid.ts'
import { encodeNode, type PBLink } from '../../src/ipld/dag-pb.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { UnavailableError } from '../../src/errors.ts'
import type { BlockSource } from '../../src/unixfs/blocks.ts'
import { nodeCid, profiles } from '../../src/unixfs/build.ts'
import { Data } from '../../src/unixfs/data.ts'

/** Takes and gives blocks, checks every one against its CID, counts what is asked. */
export class Blocks implements BlockSource {
  readonly map = new Map<string, Uint8Array>()
  readonly asked: string[] = []
  /** Keeps nothing: for files too big to hold. */
  readonly discard: boolean
  underWay = 0
  mostUnderWay = 0

  constructor({ discard = false } = {}) {
    this.discard = discard
  }

  async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>): Promise<void> {
    for await (const { cid, bytes } of pairs) {
      if (this.discard) continue
      verifyBlock(cid, bytes)
      this.map.set(cid.toString(), bytes)
    }
  }

  async get(cid: CID): Promise<Uint8Array> {
    this.asked.push(cid.toString())
    this.mostUnderWay = Math.max(this.mostUnderWay, ++this.underWay)
    await new Promise((resolve) => setImmediate(resolve))
    this.underWay--
    const bytes = this.map.get(cid.toString())
    if (bytes === undefined) throw new UnavailableError('not-found', `block ${cid} is not here`)
    return bytes
  }

  /** A node made by hand: a lie, mostly. */
  node(links: PBLink[], data: Parameters<typeof Data.encode>[0]): CID {
    return this.block(encodeNode({ links, data: Data.encode(data) }))
  }

  block(bytes: Uint8Array): CID {
    const cid = nodeCid(profiles['unixfs-v1-2025'], bytes)
    this.map.set(cid.toString(), bytes)
    return cid
  }
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return concat(await Array.fromAsync(source))
}

/** The key stream of ChaCha20 under SHA-256(seed), in pieces of 1 MiB. */
export function* keyStream(seed: string, size: number): Generator<Uint8Array> {
  const cipher = createCipheriv('chacha20', createHash('sha256').update(seed).digest(), Buffer.alloc(16))
  const zeros = new Uint8Array(1024 * 1024)
  for (let left = size; left > 0; left -= zeros.length)
    yield cipher.update(zeros.subarray(0, Math.min(left, zeros.length)))
}

export function names(seed: string, count: number, length: number, lastLength: number): string[] {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz01234567890-_'
  const stream = concat([...keyStream(seed, 1024 * 1024)])
  let at = 0
  return Array.from({ length: count }, (_, i) => {
    const end = at + (i === count - 1 ? lastLength : length)
    let name = ''
    for (; at < end; at++) name += alphabet.charAt((stream[at] ?? 0) % alphabet.length)
    return name
  })
}

/** Bytes that differ everywhere, so that no two chunks are the same. */
export function pattern(size: number): Uint8Array {
  const out = new Uint8Array(size)
  let x = 1
  for (let i = 0; i < size; i++) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0
    out[i] = x >>> 24
  }
  return out
}
