/* Blocks in memory, for as long as the process lives. */
import type { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { latin1 } from '../bytes.ts'
import { ClosedError, LimitError } from '../errors.ts'
import { drawPairs } from './draw.ts'
import {
  checkBlockSize,
  identityBytes,
  rawCid,
  type BlockOptions,
  type BlockPair,
  type BlockStat,
  type Blockstore,
} from './blocks.ts'

export interface MemoryBlocksOptions {
  /** Bytes of all blocks together; a put beyond it rejects with LimitError, nothing is evicted. Default: no bound. */
  maxBytes?: number
}

const defaults = { maxBytes: Infinity } satisfies Required<MemoryBlocksOptions>

export class MemoryBlocks implements Blockstore {
  readonly #maxBytes: number
  readonly #blocks = new Map<string, { multihash: Uint8Array; bytes: Uint8Array }>()
  #bytes = 0
  #closed = false

  constructor(options: MemoryBlocksOptions = {}) {
    const { maxBytes } = { ...defaults, ...options }
    if (!(maxBytes >= 0)) throw new RangeError(`maxBytes must be 0 or more, got ${maxBytes}`)
    this.#maxBytes = maxBytes
  }

  async has(cid: CID, options?: BlockOptions): Promise<boolean> {
    this.#check(options)
    return identityBytes(cid) !== undefined || this.#blocks.has(latin1(cid.multihash.bytes))
  }

  async size(cid: CID, options?: BlockOptions): Promise<number | undefined> {
    return (await this.get(cid, options))?.length
  }

  async get(cid: CID, options?: BlockOptions): Promise<Uint8Array | undefined> {
    this.#check(options)
    return identityBytes(cid) ?? this.#blocks.get(latin1(cid.multihash.bytes))?.bytes
  }

  async put(cid: CID, bytes: Uint8Array, options?: BlockOptions): Promise<void> {
    this.#check(options)
    checkBlockSize(bytes)
    const key = latin1(cid.multihash.bytes)
    if (identityBytes(cid) !== undefined || this.#blocks.has(key)) return
    const total = this.#bytes + bytes.length
    if (total > this.#maxBytes) throw new LimitError('maxBytes', this.#maxBytes, total)
    // A view keeps all that it is a part of in memory; a block in a message of its own is nearly all of it.
    const own = 8 * bytes.length >= 7 * bytes.buffer.byteLength ? bytes : bytes.slice()
    // Of our own too: the caller's CID may be a view of the message that it came in.
    this.#blocks.set(key, { multihash: cid.multihash.bytes.slice(), bytes: own })
    this.#bytes = total
  }

  async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, options?: BlockOptions): Promise<void> {
    this.#check(options)
    await drawPairs(pairs, ({ cid, bytes }) => this.put(cid, bytes, options), options?.signal)
  }

  async delete(cid: CID): Promise<boolean> {
    this.#check()
    const key = latin1(cid.multihash.bytes)
    const block = this.#blocks.get(key)
    if (block === undefined) return false
    this.#bytes -= block.bytes.length
    return this.#blocks.delete(key)
  }

  async *list(): AsyncIterable<CID> {
    this.#check()
    for (const { multihash } of this.#blocks.values()) yield rawCid(Digest.decode(multihash))
  }

  async stat(): Promise<BlockStat> {
    this.#check()
    return { blocks: this.#blocks.size, bytes: this.#bytes }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#blocks.clear()
    this.#bytes = 0
  }

  #check(options?: BlockOptions): void {
    if (this.#closed) throw new ClosedError('the block store is closed', { by: 'local', code: 0 })
    options?.signal?.throwIfAborted()
  }
}
