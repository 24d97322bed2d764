/*
 * One virtual time for a whole network: timers, turns and randomness of all nodes, in an order that only the seed
 * decides. Promises settle between two steps, so nothing may wait for the outside (thread pools, sockets, files).
 */
import { FakeRandom, type Clock, type Env, type Timer, type Trace } from '../../src/env.ts'

interface Planned {
  at: number
  /** Timers of one instant fire in the order they were set. */
  order: number
  fn: (() => void) | undefined
}

const epoch = 1_700_000_000_000

export class VirtualTime implements Clock {
  /** A binary heap by time, then by order. */
  readonly #heap: Planned[] = []
  readonly #stepMs: number
  #turns: (() => void)[] = []
  #now = 0
  #count = 0
  /** Timers and turns that ran. */
  steps = 0

  /** Time moves in steps of `stepMs`: what falls into one step happens together. */
  constructor(stepMs = 1) {
    this.#stepMs = stepMs
  }

  now(): number {
    return this.#now
  }

  wallTime(): number {
    return epoch + this.#now
  }

  setTimer(ms: number, fn: () => void): Timer {
    if (Number.isNaN(ms)) throw new RangeError('a timer wants milliseconds, got NaN')
    const at = Math.ceil((this.#now + Math.max(0, ms)) / this.#stepMs) * this.#stepMs
    const planned: Planned = { at, order: this.#count++, fn }
    this.#push(planned)
    return { cancel: () => void (planned.fn = undefined) }
  }

  /** The world as one node sees it: the time of all, randomness of its own. */
  env(seed: number, trace?: Trace): Env {
    return { clock: this, random: new FakeRandom(seed), turn: (fn) => void this.#turns.push(fn), trace }
  }

  /** Moves on by `ms`. */
  async run(ms: number): Promise<void> {
    await this.#runTo(this.#now + ms, () => false)
    return undefined
  }

  /** Moves on until `work` is settled; rejects with what it rejects with, or after `maxMs` of virtual time. */
  async until<T>(work: Promise<T>, maxMs = 600_000): Promise<T> {
    let settled = false
    const over = (): void => void (settled = true)
    work.then(over, over)
    const within = this.#now + maxMs
    await this.#runTo(within, () => settled)
    if (!settled) throw new Error(`not done after ${maxMs} ms of virtual time; ${this.waiting} timers wait`)
    return work
  }

  /** Timers that wait. */
  get waiting(): number {
    return this.#heap.filter(({ fn }) => fn !== undefined).length
  }

  async #runTo(limit: number, enough: () => boolean): Promise<void> {
    for (;;) {
      await this.#settle()
      if (enough()) return
      this.#dropCancelled()
      const at = this.#heap[0]?.at ?? Infinity
      if (at > limit) break
      this.#now = Math.max(this.#now, at)
      for (let head = this.#heap[0]; head !== undefined && head.at <= this.#now; head = this.#heap[0]) {
        this.#pop()
        if (head.fn !== undefined) this.steps++
        head.fn?.()
      }
    }
    if (limit !== Infinity) this.#now = limit
  }

  /** Until neither a promise nor a turn is left. */
  async #settle(): Promise<void> {
    for (;;) {
      // A macrotask of the real loop: every promise that could settle has.
      await new Promise<void>((resolve) => setImmediate(resolve))
      const turns = this.#turns
      if (turns.length === 0) return
      this.#turns = []
      this.steps += turns.length
      for (const fn of turns) fn()
    }
  }

  #dropCancelled(): void {
    while (this.#heap[0] !== undefined && this.#heap[0].fn === undefined) this.#pop()
  }

  #before(a: Planned, b: Planned): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order)
  }

  #push(planned: Planned): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(planned)
    while (i > 0) {
      const up = (i - 1) >> 1
      const parent = heap[up] as Planned
      if (!this.#before(planned, parent)) break
      heap[i] = parent
      i = up
    }
    heap[i] = planned
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let i = 0
    for (;;) {
      let down = 2 * i + 1
      if (down >= heap.length) break
      if (down + 1 < heap.length && this.#before(heap[down + 1] as Planned, heap[down] as Planned)) down++
      if (!this.#before(heap[down] as Planned, last)) break
      heap[i] = heap[down] as Planned
      i = down
    }
    heap[i] = last
  }
}
