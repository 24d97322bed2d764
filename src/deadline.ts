/* Deadlines and aborts, bound once: to a stream that is reset, or to a signal that is handed on. */
import { TimeoutError, asError } from './errors.ts'
import type { Clock, Env, Timer } from './env.ts'
import { deferred } from './inbox.ts'
import type { Stream } from './stream.ts'

export interface Bound {
  env: Env
  timeoutMs: number
  /** What takes that long: the TimeoutError's subject. */
  what: string
  signal?: AbortSignal | undefined
  /** With which the stream is reset; default: the one for the reason. */
  code?: number
}

/**
 * Runs `work` on `stream`; the stream is reset when the deadline passes, the signal aborts or the work fails.
 * Rejects with TimeoutError, signal.reason or the work's own error.
 */
export async function guard<T>(stream: Stream, bound: Bound, work: () => Promise<T>): Promise<T> {
  const { env, timeoutMs, what, signal, code } = bound
  let cut: Error | undefined
  const end = (reason: Error): void => {
    cut ??= reason
    stream.reset(code, reason)
  }
  const onAbort = (): void => end(asError(signal?.reason))
  if (signal?.aborted === true) onAbort()
  else signal?.addEventListener('abort', onAbort, { once: true })
  const timer = env.clock.setTimer(timeoutMs, () => end(new TimeoutError(what, timeoutMs)))
  try {
    const value = await work()
    if (cut !== undefined) throw cut
    return value
  } catch (error) {
    stream.reset(code, asError(error))
    throw cut ?? error
  } finally {
    timer.cancel()
    signal?.removeEventListener('abort', onAbort)
  }
}

/** A signal that aborts with `signal`, or with a TimeoutError at the deadline. Call `done` when it is not needed any more. */
export function deadline({ env, timeoutMs, what, signal }: Bound): { signal: AbortSignal; done(): void } {
  const controller = new AbortController()
  const onAbort = (): void => controller.abort(asError(signal?.reason))
  if (signal?.aborted === true) onAbort()
  else signal?.addEventListener('abort', onAbort, { once: true })
  const timer = env.clock.setTimer(timeoutMs, () => controller.abort(new TimeoutError(what, timeoutMs)))
  return {
    signal: controller.signal,
    done() {
      timer.cancel()
      signal?.removeEventListener('abort', onAbort)
    },
  }
}

/** A signal that follows `signal` and can also be aborted by us, to end what was started for somebody who has left. */
export function leash(signal: AbortSignal | undefined): { signal: AbortSignal; end: (reason?: Error) => void } {
  const own = new AbortController()
  return {
    signal: signal === undefined ? own.signal : AbortSignal.any([signal, own.signal]),
    end: (reason = new Error('nobody waits for this any more')) => own.abort(reason),
  }
}

/** Resolves with `promise`, or rejects when `signal` aborts first; the work behind the promise goes on. */
export async function raceAbort<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  signal.throwIfAborted()
  const aborted = deferred<never>()
  const onAbort = (): void => aborted.reject(asError(signal.reason))
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Resolves after `ms`; rejects with signal.reason as soon as `signal` aborts. No timer is left behind. */
export async function sleep(env: Env, ms: number, signal: AbortSignal | undefined): Promise<void> {
  const over = deferred<void>()
  const timer = env.clock.setTimer(ms, over.resolve)
  try {
    await raceAbort(over.promise, signal)
  } finally {
    timer.cancel()
  }
}

/** A deadline that is set and cleared many times a second: one timer, which looks again when it fires too early. */
export class LazyDeadline {
  readonly #clock: Clock
  #late: (() => void) | undefined
  #at = Infinity
  #timer: Timer | undefined
  #timerAt = Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `late` after `ms` unless cleared or set anew before. */
  set(ms: number, late: () => void): void {
    this.#late = late
    this.#at = this.#clock.now() + ms
    if (this.#at < this.#timerAt) this.#arm(ms)
  }

  clear(): void {
    this.#late = undefined
  }

  /** No timer is left behind. */
  stop(): void {
    this.#late = undefined
    this.#timer?.cancel()
    this.#timerAt = Infinity
  }

  #arm(ms: number): void {
    this.#timer?.cancel()
    this.#timerAt = this.#clock.now() + ms
    this.#timer = this.#clock.setTimer(ms, () => {
      this.#timerAt = Infinity
      const late = this.#late
      if (late === undefined) return
      const left = this.#at - this.#clock.now()
      if (left > 0) {
        this.#arm(left)
        return
      }
      this.#late = undefined
      late()
    })
  }
}
