/*
 * Where blocks live. A block is known by its multihash, whatever codec or version its CID carries, as in Kubo:
 * CIDv0 and CIDv1 of one hash are one block. Identity CIDs (multihash code 0) carry their bytes: every store has them.
 */
import { CID } from 'multiformats/cid'
import { LimitError } from '../errors.ts'
import { blockBytes } from '../limits.ts'

export interface BlockPair {
  cid: CID
  bytes: Uint8Array
}

export interface BlockOptions {
  /** Aborting rejects with signal.reason; a put that was under way may or may not have been stored, but never in part. */
  signal?: AbortSignal
}

export interface BlockStat {
  /** How many blocks. */
  blocks: number
  /** Bytes of all blocks together, without what the file system adds. */
  bytes: number
}

/** Every method rejects with StorageError for trouble with the disk and with ClosedError after close. */
export interface Blockstore {
  /** Whether the block is there, without reading it: `get` may still find it corrupt. */
  has(cid: CID, options?: BlockOptions): Promise<boolean>
  /** Bytes of the block, as little read as by `has`; undefined when it is absent. */
  size(cid: CID, options?: BlockOptions): Promise<number | undefined>
  /** The block, not to be changed; undefined when it is absent or when what is stored no longer hashes to the CID. */
  get(cid: CID, options?: BlockOptions): Promise<Uint8Array | undefined>
  /**
   * Resolves once the block is durable. The caller has checked that `bytes` hash to `cid` and leaves them alone from the
   * call on. A block that is there already is kept. LimitError above 2 MiB.
   */
  put(cid: CID, bytes: Uint8Array, options?: BlockOptions): Promise<void>
  /**
   * Resolves once all blocks are durable; they are synced in groups, so this is far cheaper than many puts. Draws from
   * `pairs` only while the store keeps up. After a rejection any of the blocks may have been stored, each one whole.
   */
  putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, options?: BlockOptions): Promise<void>
  /** Whether there was something to delete. */
  delete(cid: CID): Promise<boolean>
  /** Every block once, in no order, as CIDv1 with the raw codec: stores keep no codecs. */
  list(): AsyncIterable<CID>
  /** Counts by walking through the store. */
  stat(): Promise<BlockStat>
  /** Waits for writes under way. Idempotent. */
  close(): Promise<void>
}

const identityCode = 0x00
const rawCode = 0x55

/** The bytes that an identity CID carries, undefined for every other CID. */
export function identityBytes(cid: CID): Uint8Array | undefined {
  return cid.multihash.code === identityCode ? cid.multihash.digest : undefined
}

/** The CID under which `list` gives a multihash. */
export function rawCid(multihash: CID['multihash']): CID {
  return CID.createV1(rawCode, multihash)
}

/** Throws LimitError for a block above 2 MiB. */
export function checkBlockSize(bytes: Uint8Array): void {
  if (bytes.length > blockBytes)
    throw new LimitError(
      'blockBytes',
      blockBytes,
      bytes.length,
      `a block is at most ${blockBytes} bytes, got ${bytes.length}`,
    )
}
