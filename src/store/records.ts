/*
 * Small values under names, for whatever must outlive a call or the process: addresses of peers, values and providers of
 * the DHT, sequence numbers of IPNS, reputation. Keys are paths (`/peers/<id>/addrs`): each user has a namespace.
 * Here: the interface and a store in memory; sqlite-records.ts is for Node, and keeps them on the disk.
 */
import { ClosedError, LimitError } from '../errors.ts'
import { systemEnv, type Env } from '../env.ts'

/** Characters of a key: base58, base32 and hex of a multihash fit. */
export const maxKeyLength = 512
/** Bytes of one value: the DHT's and IPNS's are far smaller. */
export const maxValueBytes = 1024 * 1024

export interface RecordOptions {
  /** Unix milliseconds from which on the record is gone; default never. */
  expiresAt?: number | undefined
}

/** One write of a batch; without a value it deletes. */
export interface RecordChange extends RecordOptions {
  key: string
  value: Uint8Array | undefined
}

export interface StoredRecord {
  key: string
  /** Not to be changed. */
  value: Uint8Array
  expiresAt: number | undefined
}

/**
 * Keys are one or more segments of visible ASCII behind a slash each; TypeError for others, LimitError for too long ones
 * and for values above 1 MiB. Every method rejects with StorageError for trouble with the disk (`corrupt` for a value that
 * is not the one that was put) and with ClosedError after close.
 */
export interface RecordStore {
  /** Not to be changed; undefined when it is absent or has expired. */
  get(key: string): Promise<Uint8Array | undefined>
  /** Resolves once it is durable, in place of what was there. The value may be changed after the call. */
  put(key: string, value: Uint8Array, options?: RecordOptions): Promise<void>
  /** Whether there was something to delete. */
  delete(key: string): Promise<boolean>
  /** All of it or nothing, in this order; resolves once it is durable. */
  batch(changes: Iterable<RecordChange>): Promise<void>
  /** Those whose keys start with `prefix`, in the order of their keys. What changes meanwhile may be seen or not. */
  entries(prefix: string): AsyncIterable<StoredRecord>
  /** Waits for writes under way. Idempotent. */
  close(): Promise<void>
}

/** Throws TypeError or LimitError. */
export function checkKey(key: string): void {
  // A megabyte of key is not looked at.
  if (key.length > maxKeyLength)
    throw new LimitError('maxKeyLength', maxKeyLength, key.length, 'a record key is too long')
  if (!/^(\/[!-.0-~]+)+$/.test(key))
    throw new TypeError(`${JSON.stringify(key)} is no record key: want /segments/of visible ASCII`)
}

/** The same changes, checked and with values of their own. Throws TypeError, RangeError or LimitError. */
export function checkChanges(changes: Iterable<RecordChange>): RecordChange[] {
  return Array.from(changes, ({ key, value, expiresAt }) => {
    checkKey(key)
    if (expiresAt !== undefined && Number.isNaN(expiresAt)) throw new RangeError(`record ${key} expires at NaN`)
    if (value !== undefined && value.length > maxValueBytes) {
      const message = `record ${key} has ${value.length} bytes, at most ${maxValueBytes} allowed`
      throw new LimitError('maxValueBytes', maxValueBytes, value.length, message)
    }
    return { key, value: value?.slice(), expiresAt: expiresAt === Infinity ? undefined : expiresAt }
  })
}

export function recordsClosed(): ClosedError {
  return new ClosedError('the record store is closed', { by: 'local', code: 0 })
}

export interface MemoryRecordsOptions {
  /** Bytes of all keys and values together; a write beyond it rejects with LimitError. Default 64 MiB. */
  maxBytes?: number
  env?: Env
}

const defaults = { maxBytes: 64 * 1024 * 1024 }

class MemoryRecords implements RecordStore {
  readonly #maxBytes: number
  readonly #env: Env
  readonly #records = new Map<string, StoredRecord>()
  #bytes = 0
  #closed = false

  constructor({ maxBytes = defaults.maxBytes, env = systemEnv() }: MemoryRecordsOptions) {
    if (!(maxBytes >= 0)) throw new RangeError(`maxBytes must be 0 or more, got ${maxBytes}`)
    this.#maxBytes = maxBytes
    this.#env = env
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#check()
    checkKey(key)
    return this.#find(key)?.value
  }

  async put(key: string, value: Uint8Array, options: RecordOptions = {}): Promise<void> {
    this.#apply([{ key, value, ...options }])
  }

  async delete(key: string): Promise<boolean> {
    this.#check()
    checkKey(key)
    const there = this.#find(key) !== undefined
    this.#remove(key)
    return there
  }

  async batch(changes: Iterable<RecordChange>): Promise<void> {
    this.#apply(changes)
  }

  async *entries(prefix: string): AsyncGenerator<StoredRecord, void, undefined> {
    this.#check()
    const keys = [...this.#records.keys()].filter((key) => key.startsWith(prefix)).toSorted(byCodeUnit)
    for (const key of keys) {
      this.#check()
      const found = this.#find(key)
      if (found !== undefined) yield { ...found }
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#records.clear()
    this.#bytes = 0
  }

  #check(): void {
    if (this.#closed) throw recordsClosed()
  }

  #find(key: string): StoredRecord | undefined {
    const found = this.#records.get(key)
    if (found?.expiresAt === undefined || found.expiresAt > this.#env.clock.wallTime()) return found
    this.#remove(key)
    return undefined
  }

  #remove(key: string): void {
    const found = this.#records.get(key)
    if (found === undefined) return
    this.#bytes -= size(found)
    this.#records.delete(key)
  }

  #apply(changes: Iterable<RecordChange>): void {
    this.#check()
    // The last change of a key is the one that counts, also for the room that is needed.
    const last = new Map(checkChanges(changes).map((change) => [change.key, change]))
    const total = (): number => {
      let sum = this.#bytes
      for (const change of last.values()) {
        const old = this.#records.get(change.key)
        sum += size(change) - (old === undefined ? 0 : size(old))
      }
      return sum
    }
    if (total() > this.#maxBytes) for (const key of this.#records.keys()) this.#find(key)
    const bytes = total()
    if (bytes > this.#maxBytes) throw new LimitError('maxBytes', this.#maxBytes, bytes)
    for (const { key, value, expiresAt } of last.values()) {
      this.#remove(key)
      if (value === undefined) continue
      this.#records.set(key, { key, value, expiresAt })
      this.#bytes += key.length + value.length
    }
  }
}

function size({ key, value }: { key: string; value: Uint8Array | undefined }): number {
  return value === undefined ? 0 : key.length + value.length
}

/** The order that bytes have too: keys are ASCII. */
function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Records for as long as the process lives. */
export function memoryRecords(options: MemoryRecordsOptions = {}): RecordStore {
  return new MemoryRecords(options)
}
