/*
 * Blocks as files (Node only), in the layout of Kubo's flatfs with shard function next-to-last/1:
 * `<next-to-last character>/<MULTIHASH>.data`, the multihash in upper-case base32. 32 directories, not Kubo's 1024:
 * each one that a group of blocks touches costs a sync, and with 1024 half of an add's time went there.
 * Several processes may use one directory at once without locks: a file is there whole or not at all, its content is
 * fixed by its name, and every question goes to the disk.
 * Durable means: the data is synced before the file gets its name, the directory after it.
 */
import type { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import type { Stats } from 'node:fs'
import { open, opendir, readdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { allocUnsafe } from '../bytes.ts'
import { systemEnv, type Env } from '../env.ts'
import { ClosedError, LimitError, StorageError } from '../errors.ts'
import { hashesTo } from '../ipld/cid.ts'
import { blockBytes, digestBytes } from '../limits.ts'
import { decodeBase, encodeBase } from '../multibase.ts'
import { drawPairs } from './draw.ts'
import {
  makeDirectory,
  placeFile,
  storageError,
  storing,
  sweepTemporary,
  syncDirectory,
  systemCode,
  temporaryName,
} from './durable.ts'
import { Lanes } from './lanes.ts'
import {
  checkBlockSize,
  identityBytes,
  rawCid,
  type BlockOptions,
  type BlockPair,
  type BlockStat,
  type Blockstore,
} from './blocks.ts'

export interface DiskBlocksOptions {
  /** Blocks written at once, each a file handle and up to 2 MiB. Default 8: more gains nothing with 4 pool threads. */
  maxWrites?: number
  /** Files read or looked at at once. Default 32. */
  maxReads?: number
  /** A stored block does not hash to its CID, or the disk cannot read it. It stays untouched until a put replaces it. */
  onCorrupt?: (error: StorageError, cid: CID) => void
  /** Default: the system's. A corrupt block is traced as `store.corrupt`. */
  env?: Env
}

const defaults = { maxWrites: 8, maxReads: 32, onCorrupt: () => undefined } satisfies Omit<
  Required<DiskBlocksOptions>,
  'env'
>

const suffix = '.data'
const temporaryDirectory = '.tmp'
/** Upper-case base32 of the longest multihash: 128 bytes of digest and two varints of at most 9 bytes. */
const nameCharacters = Math.ceil(((digestBytes + 18) * 8) / 5)
/** Corrupt files remembered, so that `has` does not promise them: beyond it the oldest is forgotten. */
const corruptRemembered = 1024

/** What tells a replaced file from the one that was there. */
function fingerprint({ ino, mtimeMs, size }: Stats): string {
  return `${ino} ${mtimeMs} ${size}`
}

/** For `catch`: null for a file that is not there, everything else goes on. */
function nullIfMissing(error: unknown): null {
  if (systemCode(error) === 'ENOENT') return null
  throw error
}

/** Undefined for a name that no block of ours has. */
function cidOfName(name: string): CID | undefined {
  try {
    const multihash = decodeBase('base32', name.toLowerCase(), nameCharacters)
    return rawCid(Digest.decode(multihash))
  } catch {
    return undefined
  }
}

interface BlockFile {
  name: string
  directory: string
  path: string
}

/** What a file holds: its bytes, or why they could not be had. */
interface Found {
  stats: Stats
  bytes?: Uint8Array
  trouble?: string
}

/** Undefined when there is no file. Throws what the file system throws, except for a disk that cannot read the file. */
async function readBlock(path: string): Promise<Found | undefined> {
  const handle = await open(path, 'r').catch(nullIfMissing)
  if (handle === null) return undefined
  try {
    const stats = await handle.stat()
    if (stats.size > blockBytes) return { stats, trouble: `the stored block has ${stats.size} bytes` }
    const bytes = allocUnsafe(stats.size)
    let at = 0
    while (at < bytes.length) {
      const { bytesRead } = await handle.read(bytes, at)
      if (bytesRead === 0) break
      at += bytesRead
    }
    return { stats, bytes: bytes.subarray(0, at) }
  } catch (error) {
    // A bad sector costs this block, not the store.
    if (systemCode(error) === 'EIO') return { stats: await handle.stat(), trouble: 'the disk cannot read the block' }
    throw error
  } finally {
    await handle.close()
  }
}

/**
 * Opens the directory `path`, creating it when it is missing, and sweeps what killed processes left. A directory that
 * may only be read is fine until the first put. Rejects with StorageError.
 */
export async function openDiskBlocks(path: string, options: DiskBlocksOptions = {}): Promise<Blockstore> {
  const merged = { ...defaults, env: systemEnv(), ...options }
  for (const name of ['maxWrites', 'maxReads'] as const) {
    if (!Number.isSafeInteger(merged[name]) || merged[name] < 1)
      throw new RangeError(`${name} must be a whole number above 0, got ${merged[name]}`)
  }
  await storing(path, async () => {
    await makeDirectory(path)
    await (await opendir(path)).close()
  })
  await sweepTemporary(join(path, temporaryDirectory), merged.env.clock.wallTime())
  return new DiskBlocks(path, merged)
}

class DiskBlocks implements Blockstore {
  readonly #path: string
  readonly #writes: Lanes
  readonly #reads: Lanes
  readonly #onCorrupt: (error: StorageError, cid: CID) => void
  readonly #env: Env
  /** Fingerprints of corrupt files by name. */
  readonly #corrupt = new Map<string, string>()
  readonly #busy = new Set<Promise<unknown>>()
  /** Shards whose own name is durable. */
  readonly #shards = new Set<string>()
  /** Directories with names that are not durable yet, and the sync, not begun, that will make them so. */
  #unsynced = new Set<string>()
  #nextSync: Promise<void> | undefined
  #lastSync: Promise<void> = Promise.resolve()
  #closed = false

  constructor(path: string, options: Required<DiskBlocksOptions>) {
    this.#path = path
    this.#writes = new Lanes(options.maxWrites)
    this.#reads = new Lanes(options.maxReads)
    this.#onCorrupt = options.onCorrupt
    this.#env = options.env
  }

  async has(cid: CID, options?: BlockOptions): Promise<boolean> {
    return (await this.size(cid, options)) !== undefined
  }

  async size(cid: CID, { signal }: BlockOptions = {}): Promise<number | undefined> {
    const file = this.#locate(cid)
    return this.#use(file, signal, async () => {
      const identity = identityBytes(cid)
      if (identity !== undefined || file === undefined) return identity?.length
      const stats = await this.#reads.run(() => stat(file.path).catch(nullIfMissing), signal)
      return stats === null || this.#corrupt.get(file.name) === fingerprint(stats) ? undefined : stats.size
    })
  }

  async get(cid: CID, { signal }: BlockOptions = {}): Promise<Uint8Array | undefined> {
    const file = this.#locate(cid)
    return this.#use(file, signal, async () => {
      const identity = identityBytes(cid)
      if (identity !== undefined || file === undefined) return identity
      const found = await this.#reads.run(() => readBlock(file.path), signal)
      if (found === undefined) return undefined
      const { bytes, trouble, stats } = found
      if (bytes !== undefined && hashesTo(cid, bytes)) return bytes
      this.#report(cid, file, stats, trouble ?? 'the stored block does not hash to its CID')
      return undefined
    })
  }

  async put(cid: CID, bytes: Uint8Array, { signal }: BlockOptions = {}): Promise<void> {
    await this.#use(this.#locate(cid), signal, async () => {
      const directory = await this.#writes.run(() => this.#write(cid, bytes), signal)
      if (directory !== undefined) await this.#sync([directory])
    })
  }

  async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>, { signal }: BlockOptions = {}): Promise<void> {
    await this.#use(undefined, signal, async () => {
      const touched = new Set<string>()
      const running = new Set<Promise<void>>()
      const failures: unknown[] = []
      const check = (): void => {
        if (failures.length > 0) throw failures[0]
      }
      const write = async ({ cid, bytes }: BlockPair, leave: () => void): Promise<void> => {
        try {
          const directory = await this.#write(cid, bytes)
          if (directory !== undefined) touched.add(directory)
        } catch (error) {
          failures.push(storageError(this.#locate(cid)?.path ?? this.#path, error))
        } finally {
          leave()
        }
      }
      const start = async (pair: BlockPair): Promise<void> => {
        const writing = write(pair, await this.#writes.enter(signal))
        running.add(writing)
        void writing.then(() => running.delete(writing))
        check()
      }
      try {
        await drawPairs(pairs, start, signal)
      } finally {
        await Promise.all(running)
      }
      check()
      await this.#sync(touched)
    })
  }

  async delete(cid: CID): Promise<boolean> {
    const file = this.#locate(cid)
    return this.#use(file, undefined, async () => {
      if (file === undefined) return false
      const gone = await this.#writes.run(() => unlink(file.path).catch(nullIfMissing))
      if (gone === null) return false
      await this.#sync([file.directory])
      return true
    })
  }

  async *list(): AsyncIterable<CID> {
    for await (const shard of this.#walk()) for (const { cid } of shard) yield cid
  }

  async stat(): Promise<BlockStat> {
    return this.#use(undefined, undefined, async () => {
      let blocks = 0
      let bytes = 0
      for await (const shard of this.#walk()) {
        const sizes = await Promise.all(
          shard.map(({ path }) => this.#reads.run(async () => (await stat(path).catch(nullIfMissing))?.size)),
        )
        for (const size of sizes) {
          if (size === undefined) continue
          blocks++
          bytes += size
        }
      }
      return { blocks, bytes }
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.allSettled(this.#busy)
  }

  /** Undefined for a digest that no file name has room for: such a block is never stored. */
  #locate(cid: CID): BlockFile | undefined {
    if (cid.multihash.digest.length > digestBytes) return undefined
    const name = encodeBase('base32', cid.multihash.bytes).toUpperCase()
    const directory = join(this.#path, name.slice(-2, -1))
    return { name, directory, path: join(directory, name + suffix) }
  }

  /** The blocks, one shard at a time; files that are none of ours are passed over. */
  async *#walk(): AsyncIterable<{ cid: CID; path: string }[]> {
    const read = (directory: string): Promise<string[]> =>
      storing(directory, async () => {
        this.#checkOpen()
        return (await this.#reads.run(() => readdir(directory).catch(nullIfMissing))) ?? []
      })
    for (const shard of await read(this.#path)) {
      if (shard.length !== 1) continue
      const directory = join(this.#path, shard)
      const files: { cid: CID; path: string }[] = []
      for (const file of await read(directory)) {
        const cid = file.endsWith(suffix) ? cidOfName(file.slice(0, -suffix.length)) : undefined
        const path = join(directory, file)
        if (cid !== undefined && this.#locate(cid)?.path === path) files.push({ cid, path })
      }
      yield files
    }
  }

  /** Writes the block unless it is there and good; the directory whose names must become durable then. */
  async #write(cid: CID, bytes: Uint8Array): Promise<string | undefined> {
    checkBlockSize(bytes)
    if (identityBytes(cid) !== undefined) return undefined
    const file = this.#locate(cid)
    if (file === undefined) throw new LimitError('digestBytes', digestBytes, cid.multihash.digest.length)
    const found = await readBlock(file.path)
    // What another process has just renamed may not be durable yet, so even then the directory counts.
    if (found?.bytes !== undefined && Buffer.compare(found.bytes, bytes) === 0) return file.directory
    const temporary = join(this.#path, temporaryDirectory)
    await placeFile(file.path, join(temporary, temporaryName()), bytes)
    this.#corrupt.delete(file.name)
    return file.directory
  }

  /** Resolves when all names in `directories` are durable. Those who ask while a sync runs share the next one. */
  async #sync(directories: Iterable<string>): Promise<void> {
    for (const directory of directories) this.#unsynced.add(directory)
    this.#nextSync ??= this.#lastSync.then(() => this.#syncAll())
    await this.#nextSync
  }

  async #syncAll(): Promise<void> {
    const directories = this.#unsynced
    const sync = Promise.all(
      [...directories].map((directory) => this.#writes.run(() => syncDirectory(directory))),
    ).then(async () => {
      const isNew = [...directories].filter((directory) => !this.#shards.has(directory))
      if (isNew.length === 0) return
      await syncDirectory(this.#path)
      for (const directory of isNew) this.#shards.add(directory)
    })
    this.#unsynced = new Set()
    this.#nextSync = undefined
    // Who comes after a failed sync is not hurt by it.
    this.#lastSync = sync.catch(() => undefined)
    await sync
  }

  #report(cid: CID, { name, path }: BlockFile, stats: Stats, what: string): void {
    const print = fingerprint(stats)
    // Told once, however often a peer asks for it.
    if (this.#corrupt.get(name) === print) return
    for (const oldest of this.#corrupt.keys()) {
      if (this.#corrupt.size < corruptRemembered) break
      this.#corrupt.delete(oldest)
    }
    this.#corrupt.set(name, print)
    const error = new StorageError(
      'corrupt',
      path,
      `${what} ${cid}: it counts as absent until it is fetched or added again`,
    )
    this.#env.trace?.('store.corrupt', { cid: cid.toString(), path, error })
    this.#onCorrupt(error, cid)
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError('the block store is closed', { by: 'local', code: 0 })
  }

  /** One operation: refused after close, waited for by close, its errors about the file it concerns. */
  async #use<T>(file: BlockFile | undefined, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    this.#checkOpen()
    signal?.throwIfAborted()
    const operation = storing(file?.path ?? this.#path, work)
    this.#busy.add(operation)
    try {
      return await operation
    } finally {
      this.#busy.delete(operation)
    }
  }
}
