/*
 * Time, chance and tracing come in by this door only, so that a test can hold them in its hand.
 */
import type { Trace } from './trace.ts'

export type { Trace, TraceEvent } from './trace.ts'

export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds from an arbitrary start; for durations and deadlines. */
  now(): number
  /** Milliseconds since 1970; for records that others read. */
  wallTime(): number
  /** Calls `fn` once after `ms`. A waiting timer keeps the process alive: whoever sets it cancels it. */
  setTimer(ms: number, fn: () => void): Timer
}

export interface Random {
  /** `size` bytes that nobody can guess. */
  bytes(size: number): Uint8Array
  /** A number in [0, 1) for jitter and choice, not for secrets. */
  unit(): number
}

export interface Env {
  clock: Clock
  random: Random
  /** Runs `fn` once this turn of the event loop is over: after everything that was already readable was read. */
  turn(fn: () => void): void
  trace: Trace | undefined
}

type Immediate = { setImmediate?: (fn: () => void) => unknown }

function macrotask(): (fn: () => void) => void {
  const { setImmediate } = globalThis as Immediate
  if (setImmediate !== undefined) return (fn) => void setImmediate(fn)
  // Browsers have no setImmediate, and clamp nested timeouts to 4 ms.
  const queue: (() => void)[] = []
  const channel = new MessageChannel()
  channel.port1.addEventListener('message', () => queue.shift()?.())
  channel.port1.start()
  return (fn) => {
    queue.push(fn)
    channel.port2.postMessage(0)
  }
}

let turn: ((fn: () => void) => void) | undefined

const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  setTimer: (ms, fn) => {
    // setTimeout fires at once above 2^31-1 ms.
    const id = setTimeout(fn, Math.min(Math.max(0, Math.ceil(ms)), 0x7fff_ffff))
    return { cancel: () => clearTimeout(id) }
  },
}

const systemRandom: Random = {
  bytes: (size) => {
    const out = new Uint8Array(size)
    // getRandomValues gives at most 65,536 bytes a call.
    if (size <= 65_536) return crypto.getRandomValues(out)
    for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(out.subarray(at, at + 65_536))
    return out
  },
  unit: () => Math.random(),
}

let ofProcess: Trace | undefined

/** A program's own switch (the command line has it): what every systemEnv() made from now on traces to. */
export function traceProcess(trace: Trace | undefined): void {
  ofProcess = trace
}

/** The real one: the platform's clock, randomness and event loop. */
export function systemEnv(trace = ofProcess): Env {
  return {
    clock: systemClock,
    random: systemRandom,
    turn: (fn) => {
      turn ??= macrotask()
      turn(fn)
    },
    trace,
  }
}

/** A clock that stands still until told: timers fire in order of time inside `advance`. */
export class FakeClock implements Clock {
  #now: number
  readonly #epoch: number
  readonly #timers = new Set<{ at: number; fn: () => void }>()

  constructor(now = 0, epoch = 1_700_000_000_000) {
    this.#now = now
    this.#epoch = epoch
  }

  now(): number {
    return this.#now
  }

  wallTime(): number {
    return this.#epoch + this.#now
  }

  setTimer(ms: number, fn: () => void): Timer {
    if (Number.isNaN(ms)) throw new RangeError('a timer wants milliseconds, got NaN')
    const timer = { at: this.#now + Math.max(0, ms), fn }
    this.#timers.add(timer)
    return { cancel: () => void this.#timers.delete(timer) }
  }

  /** Timers that wait: a test asserts 0 after a close. */
  get waiting(): number {
    return this.#timers.size
  }

  /** When the next timer fires, or Infinity. */
  get next(): number {
    let at = Infinity
    for (const timer of this.#timers) at = Math.min(at, timer.at)
    return at
  }

  /** Moves time on by `ms`, firing what falls due on the way; promises settle between two timers. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    for (;;) {
      const at = this.next
      if (at > until) break
      this.#now = Math.max(this.#now, at)
      for (const timer of this.#timers) {
        if (timer.at !== at) continue
        this.#timers.delete(timer)
        timer.fn()
        break
      }
      await settle()
    }
    this.#now = until
    await settle()
  }
}

/** Resolves once the microtasks and turns that are under way have run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise<void>((resolve) => systemEnv().turn(resolve))
}

/** The same bytes for the same seed (the sfc32 generator is not secret: for tests only). */
export class FakeRandom implements Random {
  readonly #state: Uint32Array

  constructor(seed = 1) {
    this.#state = Uint32Array.of(seed, 0x9e37_79b9, 0x85eb_ca6b, 1)
    for (let i = 0; i < 12; i++) this.#word()
  }

  #word(): number {
    const [a = 0, b = 0, c = 0, counter = 0] = this.#state
    const word = (a + b + counter) >>> 0
    this.#state.set([b ^ (b >>> 9), c + (c << 3), ((c << 21) | (c >>> 11)) + word, counter + 1])
    return word
  }

  bytes(size: number): Uint8Array {
    return Uint8Array.from({ length: size }, () => this.#word() >>> 11)
  }

  unit(): number {
    return this.#word() / 0x1_0000_0000
  }
}

/** An Env for tests: the clock stands still, the randomness repeats, turns are real. */
export function fakeEnv(seed = 1): Env & { clock: FakeClock } {
  return { ...systemEnv(), clock: new FakeClock(), random: new FakeRandom(seed) }
}
