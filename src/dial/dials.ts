/*
 * Dials under way. Callers that want the same address share an attempt; several addresses of one peer are tried side by
 * side, and the first that answers serves the callers of all of them. So many run at a time, the others wait in line.
 */
import { raceAbort } from '../deadline.ts'
import type { Clock, Timer } from '../env.ts'
import { ClosedError, TimeoutError, asError } from '../errors.ts'
import { cleanClose, deferred, quiet, type Deferred } from '../inbox.ts'

export interface DialLimits {
  /** Attempts at a time, at all peers; the next waits. */
  maxDials: number
  /** The same at one peer. */
  maxDialsPerPeer: number
}

/** An attempt at one address, shared by `callers`. */
export interface Dial<C> {
  /** What is tried, as text: an address. */
  readonly addr: string
  /** Undefined where the address names no peer. */
  readonly peer: string | undefined
  readonly timeoutMs: number | undefined
  readonly controller: AbortController
  readonly outcome: Deferred<C>
  callers: number
}

export class Dials<C> {
  /** By address; in the order they came. */
  readonly #dials = new Map<string, Dial<C>>()
  readonly #start: (addr: string, signal: AbortSignal) => Promise<C>
  readonly #clock: Clock
  readonly #limits: DialLimits
  /** Those whose sockets are not gone yet: also some that nobody waits for any more. */
  readonly #running = new Set<Dial<C>>()
  readonly #line = new Set<Dial<C>>()

  /** `start` dials one address. */
  constructor(start: (addr: string, signal: AbortSignal) => Promise<C>, clock: Clock, limits: DialLimits) {
    this.#start = start
    this.#clock = clock
    this.#limits = limits
  }

  /** The attempt at `addr`, begun unless it is under way. Rejects with what it rejects with, or signal.reason. */
  async to(addr: string, peer: string | undefined, signal: AbortSignal): Promise<C> {
    const dial = this.join(addr, peer)
    try {
      return await raceAbort(dial.outcome.promise, signal)
    } finally {
      this.leave(dial, signal.reason ?? 'nobody waits for this dial')
    }
  }

  /** The addresses at which `peer` is being dialled. */
  addrsOf(peer: string): string[] {
    return this.#of(peer).map(({ addr }) => addr)
  }

  /** The attempt at `addr`, begun unless it is under way; it goes on until all who joined have left. */
  join(addr: string, peer: string | undefined, timeoutMs?: number): Dial<C> {
    const dial = this.#dials.get(addr) ?? this.#begin(addr, peer, timeoutMs)
    dial.callers++
    return dial
  }

  /** The last caller that gives up takes the attempt with it. */
  leave(dial: Dial<C>, reason: unknown): void {
    if (--dial.callers === 0 && this.#dials.get(dial.addr) === dial) this.#end(dial, asError(reason))
  }

  /** Ends every attempt. */
  abort(reason: Error): void {
    for (const dial of this.#dials.values()) this.#end(dial, reason)
  }

  #of(peer: string): Dial<C>[] {
    return [...this.#dials.values()].filter((dial) => dial.peer === peer)
  }

  #begin(addr: string, peer: string | undefined, timeoutMs: number | undefined): Dial<C> {
    const controller = new AbortController()
    const dial: Dial<C> = { addr, peer, timeoutMs, controller, outcome: deferred(), callers: 0 }
    this.#dials.set(addr, dial)
    void quiet(dial.outcome.promise)
    if (this.#hasRoom(peer)) this.#run(dial)
    else this.#line.add(dial)
    return dial
  }

  #hasRoom(peer: string | undefined): boolean {
    const { maxDials, maxDialsPerPeer } = this.#limits
    const { size } = this.#running
    if (size >= maxDials) return false
    if (size < maxDialsPerPeer || peer === undefined) return true
    return [...this.#running].filter((dial) => dial.peer === peer).length < maxDialsPerPeer
  }

  #run(dial: Dial<C>): void {
    const { addr, peer, timeoutMs, controller, outcome } = dial
    this.#line.delete(dial)
    this.#running.add(dial)
    let timer: Timer | undefined
    if (timeoutMs !== undefined) {
      const late = new TimeoutError(`dialling ${addr}`, timeoutMs)
      timer = this.#clock.setTimer(timeoutMs, () => controller.abort(late))
    }
    const over = (): void => {
      timer?.cancel()
      this.#running.delete(dial)
      this.#forget(dial)
    }
    this.#start(addr, controller.signal).then(
      (connection) => {
        over()
        outcome.resolve(connection)
        for (const other of peer === undefined || this.#dials.size === 0 ? [] : this.#of(peer)) {
          other.outcome.resolve(connection)
          this.#end(other, new ClosedError('another address of the peer answered first', cleanClose))
        }
        this.#next()
      },
      (error: unknown) => {
        over()
        outcome.reject(asError(error))
        this.#next()
      },
    )
  }

  /** Lets those in line go on. */
  #next(): void {
    for (const dial of this.#line) if (this.#hasRoom(dial.peer)) this.#run(dial)
  }

  #end(dial: Dial<C>, reason: Error): void {
    this.#forget(dial)
    dial.controller.abort(reason)
    if (this.#line.delete(dial)) dial.outcome.reject(reason)
  }

  #forget(dial: Dial<C>): void {
    if (this.#dials.get(dial.addr) === dial) this.#dials.delete(dial.addr)
  }
}
