/*
 * Values that others put here: the best of each key by its validator, kept 48 h, in a record store (kad-dht §Entry
 * validation). Bounded by records and bytes in all; one more is refused, the expired are dropped first.
 */
import { toHex } from '../bytes.ts'
import type { Env } from '../env.ts'
import { LimitError, ProtocolError } from '../errors.ts'
import { message, required, bytes, uint64, limited } from '../protobuf.ts'
import type { RecordStore } from '../store/records.ts'
import { validatorFor, type RecordKey, type Validators } from './validators.ts'
import { maxValueBytes } from './wire.ts'

export interface ValueLimits {
  /** Default 20,000. */
  maxValues?: number
  /** Bytes of all values. Default 64 MiB. */
  maxBytes?: number
  /** Default 48 h. */
  validMs?: number
}

const defaults = {
  maxValues: 20_000,
  maxBytes: 64 * 1024 * 1024,
  validMs: 48 * 3_600_000,
} satisfies Required<ValueLimits>

const Stored = message({ at: [1, uint64], value: [2, required(limited(bytes, maxValueBytes))] })

export interface StoredValue {
  value: Uint8Array
  /** Unix milliseconds of when it came. */
  receivedAt: number
}

export class ValueStore {
  readonly #limits: typeof defaults
  readonly #env: Env
  readonly #records: RecordStore
  readonly #base: string
  readonly #validators: Validators
  /** Sizes and expiry of what the record store holds. */
  readonly #held = new Map<string, { bytes: number; at: number }>()
  #bytes = 0
  /** One change of a key after the other: two at once would both compare with the value before them. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(records: RecordStore, env: Env, namespace: string, validators: Validators, limits: ValueLimits = {}) {
    this.#records = records
    this.#env = env
    this.#base = `${namespace}/values/`
    this.#validators = validators
    this.#limits = { ...defaults, ...limits }
  }

  get size(): number {
    return this.#held.size
  }

  get bytes(): number {
    return this.#bytes
  }

  async load(): Promise<void> {
    for await (const { key, value } of this.#records.entries(this.#base)) {
      const { at = 0n } = Stored.decode(value)
      this.#hold(key, { bytes: value.length, at: Number(at) })
    }
  }

  async get(key: RecordKey): Promise<StoredValue | undefined> {
    const stored = await this.#records.get(this.#path(key))
    if (stored === undefined) return undefined
    const { at = 0n, value } = Stored.decode(stored)
    if (this.#env.clock.wallTime() - Number(at) >= this.#limits.validMs) return undefined
    return { value, receivedAt: Number(at) }
  }

  /**
   * Resolves once it is durable. Rejects with ProtocolError when the value is not valid, or older than the one that is
   * there, and with LimitError when there is no room.
   */
  put(key: RecordKey, value: Uint8Array): Promise<void> {
    const work = this.#last.then(() => this.#put(key, value))
    this.#last = work.catch(() => {})
    return work
  }

  async #put(key: RecordKey, value: Uint8Array): Promise<void> {
    const validator = validatorFor(this.#validators, key)
    await validator.validate(key, value)
    const stored = await this.get(key)
    if (stored !== undefined && validator.select(key, [stored.value, value]) === 0) {
      // The same value again only lives longer.
      if (toHex(stored.value) !== toHex(value)) throw new ProtocolError('bad-message', 'there is a newer record')
    }
    const path = this.#path(key)
    const at = this.#env.clock.wallTime()
    const encoded = Stored.encode({ at: BigInt(at), value })
    const { maxValues, maxBytes, validMs } = this.#limits
    const before = this.#held.get(path)
    const bytesAfter = (): number => this.#bytes - (before?.bytes ?? 0) + encoded.length
    if ((before === undefined && this.#held.size >= maxValues) || bytesAfter() > maxBytes) this.sweep()
    if (before === undefined && this.#held.size >= maxValues) {
      throw new LimitError('maxValues', maxValues, this.#held.size + 1)
    }
    if (bytesAfter() > maxBytes) throw new LimitError('maxBytes', maxBytes, bytesAfter())
    await this.#records.put(path, encoded, { expiresAt: at + validMs })
    this.#hold(path, { bytes: encoded.length, at })
  }

  /** Forgets what has expired; the record store drops it by itself. */
  sweep(): void {
    const now = this.#env.clock.wallTime()
    for (const [path, { bytes: size, at }] of this.#held) {
      if (now - at < this.#limits.validMs) continue
      this.#held.delete(path)
      this.#bytes -= size
    }
  }

  #path(key: RecordKey): string {
    return `${this.#base}${toHex(key)}`
  }

  #hold(path: string, held: { bytes: number; at: number }): void {
    this.#bytes += held.bytes - (this.#held.get(path)?.bytes ?? 0)
    this.#held.delete(path)
    this.#held.set(path, held)
  }
}
