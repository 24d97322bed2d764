/*
 * Tells the DHT what we have: the roots that were added, soon after, and again every 22 hours (a provider record holds 48
 * h: ipfs/specs kad-dht.md). The list lies in the record store, where another process may add to it: `/provide/new/<cid>`
 * waits to be told, `/provide/told/<cid>` holds when it was, and how many peers.
 */
import { sleep } from '../deadline.ts'
import type { Dht } from '../dht/dht.ts'
import type { Env } from '../env.ts'
import { asError } from '../errors.ts'
import { fromUtf8, toUtf8 } from '../bytes.ts'
import { parseCid, type CID } from '../ipld/cid.ts'
import type { RecordChange, RecordStore } from '../store/records.ts'

const fresh = '/provide/new/'
const told = '/provide/told/'

export interface AnnouncerOptions {
  dht: Dht
  records: RecordStore
  env: Env
  /** Default 22 h. */
  intervalMs?: number | undefined
  /** Between two looks at what is new. Default 2 s. */
  lookMs?: number
  /** Hears of each root that was told, and to how many peers. */
  onProvided?: ((cid: CID, peers: number) => void) | undefined
}

const defaults = { intervalMs: 22 * 3_600_000, lookMs: 2_000 }
/** Between two looks at what is due again. */
const dueEveryMs = 600_000
/** Roots told at a time; each is a lookup. */
const atOnce = 4
const roundSize = 256
const maxWaitMs = 300_000

/** Has a root told of by whoever announces for this store, now or later. */
export async function noteRoot(records: RecordStore, cid: CID): Promise<void> {
  await records.put(`${fresh}${cid}`, new Uint8Array(0))
}

/** When a root was told of (Unix milliseconds), and to how many peers. */
export async function toldOf(records: RecordStore, cid: CID): Promise<{ at: number; peers: number } | undefined> {
  const value = await records.get(`${told}${cid}`)
  return value === undefined ? undefined : readTold(value)
}

/** It was told just now. */
export async function noteTold(records: RecordStore, cid: CID, at: number, peers: number): Promise<void> {
  await records.batch([toldAt(String(cid), at, peers), { key: `${fresh}${cid}`, value: undefined }])
}

function toldAt(cid: string, at: number, peers: number): RecordChange {
  return { key: `${told}${cid}`, value: fromUtf8(`${Math.floor(at)} ${peers}`) }
}

function readTold(value: Uint8Array): { at: number; peers: number } {
  const [at = Number.NaN, peers = Number.NaN] = toUtf8(value).split(' ').map(Number)
  return { at, peers }
}

export class Announcer {
  readonly #options: AnnouncerOptions & typeof defaults
  #controller: AbortController | undefined
  #running: Promise<void> = Promise.resolve()

  constructor(options: AnnouncerOptions) {
    this.#options = {
      ...options,
      intervalMs: options.intervalMs ?? defaults.intervalMs,
      lookMs: options.lookMs ?? defaults.lookMs,
    }
  }

  start(): void {
    if (this.#controller !== undefined) return
    this.#controller = new AbortController()
    this.#running = this.#run(this.#controller.signal)
  }

  /** Never rejects. */
  async stop(): Promise<void> {
    this.#controller?.abort(new Error('stopped'))
    await this.#running
    this.#controller = undefined
  }

  /** Never rejects. */
  async #run(signal: AbortSignal): Promise<void> {
    const { env, dht, lookMs } = this.#options
    let dueAt = -Infinity
    let waitMs = lookMs
    while (!signal.aborted) {
      try {
        // Without anybody to tell nothing is tried.
        if (dht.networks.some(({ table }) => table.size > 0)) {
          const due = env.clock.now() >= dueAt
          const { failed, more } = await this.#round(due, signal)
          if (due && !more) dueAt = env.clock.now() + dueEveryMs
          waitMs = failed > 0 ? Math.min(maxWaitMs, 2 * waitMs) : lookMs
          if (failed === 0 && more) continue
        }
      } catch (error) {
        if (!signal.aborted) env.trace?.('kit.provide-failed', { error: asError(error) })
        waitMs = Math.min(maxWaitMs, 2 * waitMs)
      }
      await sleep(env, waitMs, signal).catch(() => {})
    }
  }

  /** Tells what is new and, when `due`, what was told long ago. */
  async #round(due: boolean, signal: AbortSignal): Promise<{ failed: number; more: boolean }> {
    const { records, env, intervalMs } = this.#options
    const round: { key: string; cid: string }[] = []
    for await (const { key } of records.entries(fresh)) {
      if (round.length >= roundSize) break
      round.push({ key, cid: key.slice(fresh.length) })
    }
    if (due) {
      const before = env.clock.wallTime() - intervalMs
      for await (const { key, value } of records.entries(told)) {
        if (round.length >= roundSize) break
        if (!(readTold(value).at > before)) round.push({ key, cid: key.slice(told.length) })
      }
    }
    const more = round.length >= roundSize
    let failed = 0
    const worker = async (): Promise<void> => {
      for (let next = round.shift(); next !== undefined; next = round.shift()) {
        if (!(await this.#tell(next.key, next.cid, signal))) failed++
      }
    }
    await Promise.all(Array.from({ length: atOnce }, worker))
    return { failed, more }
  }

  async #tell(key: string, text: string, signal: AbortSignal): Promise<boolean> {
    const { dht, records, env, onProvided } = this.#options
    signal.throwIfAborted()
    const cid = readCid(text)
    if (cid === undefined) {
      await records.delete(key)
      return true
    }
    let peers: number
    try {
      peers = await dht.provide(cid, { signal })
    } catch (error) {
      signal.throwIfAborted()
      env.trace?.('kit.provide-failed', { cid: text, error: asError(error) })
      return false
    }
    const at = toldAt(text, env.clock.wallTime(), peers)
    await records.batch(key === at.key ? [at] : [at, { key, value: undefined }])
    onProvided?.(cid, peers)
    return true
  }
}

function readCid(text: string): CID | undefined {
  try {
    return parseCid(text)
  } catch {
    // Not one of ours.
    return undefined
  }
}
