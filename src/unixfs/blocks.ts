/*
 * Where the blocks of a file come from and go to: the two narrow doors between UnixFS and stores or exchanges.
 */
import { ProtocolError, UnavailableError } from '../errors.ts'
import { type CID, hash } from '../ipld/cid.ts'
import { blockBytes, digestBytes } from '../limits.ts'
import type { BlockPair, Blockstore } from '../store/blocks.ts'

export interface FetchOptions {
  signal?: AbortSignal | undefined
}

/** Gives blocks that hash to their CIDs; rejects with UnavailableError `not-found` when nobody has it. */
export interface BlockSource {
  get(cid: CID, options?: { signal?: AbortSignal }): Promise<Uint8Array>
}

/** Takes blocks; a resolved putMany means they are durable. */
export type BlockSink = Pick<Blockstore, 'putMany'>

/** The blocks of a store alone: what it has not is not found. */
export function storeSource(store: Pick<Blockstore, 'get'>): BlockSource {
  return {
    get: async (cid, options) => {
      const bytes = await store.get(cid, options)
      if (bytes === undefined) throw new UnavailableError('not-found', `block ${cid} is not in the store`)
      return bytes
    },
  }
}

/** The block's bytes, at most 2 MiB; those of an identity CID come from the CID. */
export async function fetchBlock(source: BlockSource, cid: CID, { signal }: FetchOptions = {}): Promise<Uint8Array> {
  if (cid.multihash.code === hash.identity) {
    const { digest } = cid.multihash
    if (digest.length > digestBytes)
      throw new ProtocolError('bad-cid', `identity CID of ${digest.length} bytes, at most ${digestBytes} allowed`)
    return digest
  }
  signal?.throwIfAborted()
  const bytes = await source.get(cid, signal === undefined ? {} : { signal })
  if (bytes.length > blockBytes)
    throw new ProtocolError('oversized', `block ${cid} has ${bytes.length} bytes, at most ${blockBytes} allowed`)
  return bytes
}

export interface WriterOptions extends FetchOptions {
  /** Bytes that are handed to the store together; three times as many are held at most. */
  groupBytes?: number
  /** Blocks that are handed to the store together. */
  groupBlocks?: number
}

/** Hands blocks to a store in groups, two of them under way while the next one fills. */
export class BlockWriter {
  readonly #sink: BlockSink
  readonly #signal: AbortSignal | undefined
  readonly #groupBytes: number
  readonly #groupBlocks: number
  #group: BlockPair[] = []
  #bytes = 0
  readonly #underWay = new Set<Promise<void>>()
  #failure: { reason: unknown } | undefined

  constructor(sink: BlockSink, { signal, groupBytes = 16 * 1024 * 1024, groupBlocks = 1024 }: WriterOptions = {}) {
    this.#sink = sink
    this.#signal = signal
    this.#groupBytes = groupBytes
    this.#groupBlocks = groupBlocks
  }

  /** A promise to wait for when the store is behind, else undefined. Throws once a group failed. */
  put(cid: CID, bytes: Uint8Array): Promise<void> | undefined {
    this.#check()
    this.#group.push({ cid, bytes })
    this.#bytes += bytes.length
    if (this.#bytes < this.#groupBytes && this.#group.length < this.#groupBlocks) return undefined
    this.#flush()
    return this.#underWay.size < 2 ? undefined : this.#room()
  }

  /** Resolves once every block is durable. */
  async finish(): Promise<void> {
    this.#check()
    this.#flush()
    await this.settle()
    this.#check()
  }

  /** Waits for what is under way, whatever comes of it, so that nothing runs on behind a failure. */
  async settle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay)
  }

  async #room(): Promise<void> {
    while (this.#underWay.size >= 2) await Promise.race(this.#underWay)
    this.#check()
  }

  #check(): void {
    // The store's own error, unchanged: it knows best.
    // oxlint-disable-next-line typescript/only-throw-error
    if (this.#failure !== undefined) throw this.#failure.reason
  }

  #flush(): void {
    if (this.#group.length === 0) return
    const group = this.#group
    this.#group = []
    this.#bytes = 0
    const written = this.#sink.putMany(group, this.#signal === undefined ? {} : { signal: this.#signal }).then(
      () => void this.#underWay.delete(written),
      (reason: unknown) => {
        this.#underWay.delete(written)
        this.#failure ??= { reason }
      },
    )
    this.#underWay.add(written)
  }
}
