/*
 * Blocks from whoever has them: Bitswap asks the connected peers, and when nobody has a block, or nobody says anything
 * for a second, providers are looked for and dialled. One search at a time, for a block that is missing; while blocks
 * come there is none: a file costs one search as a rule, not one for each block.
 */
import { raceAbort } from '../deadline.ts'
import type { Env, Timer } from '../env.ts'
import { UnavailableError, asError, errorCode } from '../errors.ts'
import { deferred, quiet, type Deferred } from '../inbox.ts'
import type { CID } from '../ipld/cid.ts'
import type { PeerId } from '../peer/id.ts'
import type { BlockSource } from '../unixfs/blocks.ts'

export interface Provider {
  readonly peer: PeerId
}

export interface ProviderSearchParts<P extends Provider> {
  env: Env
  /** Bitswap, asking those who are in the session. */
  ask: BlockSource['get']
  /** Is there anybody to ask? */
  hasPeers(): boolean
  /** Who may have a block; ends when no more are known. */
  find(cid: CID, signal: AbortSignal): AsyncIterable<P>
  /** Takes a provider into the session, connected; false: it was there already. */
  join(provider: P, signal: AbortSignal): Promise<boolean>
  /** Nothing came for so long: providers are looked for. Default 1 s. */
  silenceMs?: number
  /** The same block is searched again after this long at the earliest. Default 30 s. */
  againMs?: number
  /** Providers dialled at a time. Default 4. */
  maxDials?: number
}

interface Search {
  readonly key: string
  readonly controller: AbortController
  readonly over: Promise<void>
  /** Those who can not go on without it. */
  waiters: number
}

const defaults = { silenceMs: 1_000, againMs: 30_000, maxDials: 4 }

const isMissing = (error: unknown): boolean => {
  const code = errorCode(error)
  return code === 'not-found' || code === 'unreachable'
}

export class ProviderSearch<P extends Provider> implements BlockSource {
  readonly #parts: ProviderSearchParts<P> & typeof defaults
  readonly #wanted = new Map<string, CID>()
  /** When the search for a block ended. */
  readonly #ended = new Map<string, number>()
  readonly #end = new AbortController()
  #search: Search | undefined
  #timer: Timer | undefined
  #heardAt = 0
  /** Providers that joined, and other peers that came. */
  #joined = 0
  #came = 0
  #news: Deferred<void> = deferred()

  constructor(parts: ProviderSearchParts<P>) {
    this.#parts = { ...defaults, ...parts }
  }

  /** Somebody connected who will be asked. */
  arrived(): void {
    this.#came++
    this.#tell()
  }

  /** Ends what is under way. Never rejects. */
  async stop(reason: unknown): Promise<void> {
    this.#end.abort(reason)
    this.#timer?.cancel()
    this.#tell()
    await this.#search?.over
  }

  async get(cid: CID, options: { signal?: AbortSignal } = {}): Promise<Uint8Array> {
    const key = cid.toString()
    this.#wanted.set(key, cid)
    this.#watch()
    try {
      for (;;) {
        const joined = this.#joined
        let failure: Error | undefined
        if (this.#parts.hasPeers()) {
          try {
            const bytes = await this.#parts.ask(cid, options)
            this.#heard(key)
            return bytes
          } catch (error) {
            if (!isMissing(error)) throw error
            failure = asError(error)
          }
        }
        if (await raceAbort(this.#more(cid, joined), options.signal)) continue
        throw (
          failure ??
          new UnavailableError('not-found', `block ${key} is not in the store, and no peer was found to ask for it`)
        )
      }
    } finally {
      this.#wanted.delete(key)
      if (this.#wanted.size === 0) this.#timer?.cancel()
    }
  }

  /** Looks for providers; true when there is somebody new to ask. */
  async #more(cid: CID, joined: number): Promise<boolean> {
    const key = cid.toString()
    const nobody = !this.#parts.hasPeers()
    const came = this.#came
    for (;;) {
      this.#end.signal.throwIfAborted()
      if (this.#joined > joined || (nobody && this.#parts.hasPeers())) return true
      const running = this.#search
      if (running === undefined) {
        if (!this.#due(key)) return false
        this.#begin(cid)
        continue
      }
      if (running.key === key) running.waiters++
      await Promise.race([running.over, this.#news.promise])
      if (running.key === key) running.waiters--
      // Peers met on the way may have it, though nobody said so.
      if (this.#search !== running && running.key === key) return this.#joined > joined || this.#came > came
    }
  }

  #due(key: string): boolean {
    const ended = this.#ended.get(key)
    return ended === undefined || this.#parts.env.clock.now() - ended >= this.#parts.againMs
  }

  /** Looks, as long as blocks are wanted, whether any comes. */
  #watch(): void {
    if (this.#wanted.size > 1) return
    this.#heardAt = this.#parts.env.clock.now()
    this.#arm(this.#parts.silenceMs)
  }

  #arm(ms: number): void {
    const { env, silenceMs } = this.#parts
    this.#timer?.cancel()
    this.#timer = env.clock.setTimer(ms, () => {
      const left = this.#heardAt + silenceMs - env.clock.now()
      if (left > 0) {
        this.#arm(left)
        return
      }
      const next = [...this.#wanted].find(([key]) => this.#due(key))
      if (this.#search === undefined && next !== undefined) this.#begin(next[1])
      this.#arm(silenceMs)
    })
  }

  #heard(key: string): void {
    this.#heardAt = this.#parts.env.clock.now()
    const search = this.#search
    if (search !== undefined && (search.key === key || search.waiters === 0)) {
      search.controller.abort(new Error('a peer has it'))
    }
  }

  #tell(): void {
    this.#news.resolve()
    this.#news = deferred()
  }

  #begin(cid: CID): void {
    const key = cid.toString()
    const controller = new AbortController()
    const signal = AbortSignal.any([controller.signal, this.#end.signal])
    const over = this.#run(cid, signal).then(() => {
      this.#search = undefined
      this.#ended.set(key, this.#parts.env.clock.now())
      const [oldest] = this.#ended.keys()
      if (this.#ended.size > 1_024 && oldest !== undefined) this.#ended.delete(oldest)
      this.#tell()
    })
    this.#search = { key, controller, over, waiters: 0 }
  }

  /** Never rejects. */
  async #run(cid: CID, signal: AbortSignal): Promise<void> {
    const { env, maxDials } = this.#parts
    const dials = new Set<Promise<void>>()
    const found = this.#parts.find(cid, signal)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const { done, value } = await raceAbort(quiet(found.next()), signal)
        if (done === true) break
        const dial = this.#join(value, signal).finally(() => dials.delete(dial))
        dials.add(dial)
        if (dials.size >= maxDials) await Promise.race(dials)
      }
    } catch (error) {
      if (!signal.aborted) env.trace?.('kit.search-failed', { cid: cid.toString(), error: asError(error) })
    }
    // It ends when its signal does.
    void quiet(Promise.resolve(found.return?.()))
    await Promise.all(dials)
  }

  /** Never rejects. */
  async #join(provider: P, signal: AbortSignal): Promise<void> {
    try {
      if (!(await this.#parts.join(provider, signal))) return
      this.#joined++
      this.#tell()
    } catch (error) {
      const { trace } = this.#parts.env
      if (!signal.aborted) trace?.('kit.provider-failed', { peer: provider.peer.toString(), error: asError(error) })
    }
  }
}
