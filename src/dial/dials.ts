/*
 * Dials under way. Callers that want the same address share an attempt; several addresses of one peer are tried side by
 * side, and the first that answers serves the callers of all of them.
 */
import { raceAbort } from '../deadline.ts'
import { ClosedError, UnavailableError, asError, type Attempt } from '../errors.ts'
import { cleanClose, deferred, quiet, type Deferred } from '../inbox.ts'

interface Dial<C> {
  /** What is tried, as text: an address. */
  readonly addr: string
  /** Undefined where the address names no peer. */
  readonly peer: string | undefined
  readonly controller: AbortController
  readonly outcome: Deferred<C>
  callers: number
}

export class Dials<C> {
  readonly #dials = new Map<string, Dial<C>>()
  readonly #start: (addr: string, signal: AbortSignal) => Promise<C>

  /** `start` dials one address. */
  constructor(start: (addr: string, signal: AbortSignal) => Promise<C>) {
    this.#start = start
  }

  /** The attempt at `addr`, begun unless it is under way. Rejects with what it rejects with, or signal.reason. */
  to(addr: string, peer: string | undefined, signal: AbortSignal): Promise<C> {
    return this.#wait([this.#dials.get(addr) ?? this.#begin(addr, peer)], signal)
  }

  /** The first attempt at `peer` that comes through; undefined when none is under way. */
  toPeer(peer: string, signal: AbortSignal): Promise<C> | undefined {
    const dials = this.#of(peer)
    return dials.length === 0 ? undefined : this.#wait(dials, signal)
  }

  /** Ends every attempt. */
  abort(reason: Error): void {
    for (const { controller } of this.#dials.values()) controller.abort(reason)
  }

  #of(peer: string): Dial<C>[] {
    return [...this.#dials.values()].filter((dial) => dial.peer === peer)
  }

  #begin(addr: string, peer: string | undefined): Dial<C> {
    const dial: Dial<C> = { addr, peer, controller: new AbortController(), outcome: deferred(), callers: 0 }
    this.#dials.set(addr, dial)
    void quiet(dial.outcome.promise)
    this.#start(addr, dial.controller.signal).then(
      (connection) => {
        this.#forget(dial)
        dial.outcome.resolve(connection)
        for (const other of peer === undefined ? [] : this.#of(peer)) {
          other.outcome.resolve(connection)
          this.#end(other, new ClosedError('another address of the peer answered first', cleanClose))
        }
      },
      (error: unknown) => {
        this.#forget(dial)
        dial.outcome.reject(asError(error))
      },
    )
    return dial
  }

  async #wait(dials: readonly Dial<C>[], signal: AbortSignal): Promise<C> {
    for (const dial of dials) dial.callers++
    try {
      return await raceAbort(firstOf(dials), signal)
    } finally {
      // The last caller that gives up takes the attempt with it.
      for (const dial of dials) {
        if (--dial.callers === 0) this.#end(dial, asError(signal.reason ?? 'nobody waits for this dial'))
      }
    }
  }

  #end(dial: Dial<C>, reason: Error): void {
    this.#forget(dial)
    dial.controller.abort(reason)
  }

  #forget(dial: Dial<C>): void {
    if (this.#dials.get(dial.addr) === dial) this.#dials.delete(dial.addr)
  }
}

async function firstOf<C>(dials: readonly Dial<C>[]): Promise<C> {
  const [only] = dials
  if (dials.length === 1 && only !== undefined) return only.outcome.promise
  const failures: Attempt[] = []
  try {
    return await Promise.any(
      dials.map(async ({ addr, outcome }) => {
        try {
          return await outcome.promise
        } catch (error) {
          failures.push({ what: addr, reason: asError(error) })
          throw error
        }
      }),
    )
  } catch {
    throw new UnavailableError('unreachable', 'no address of the peer works', failures)
  }
}
