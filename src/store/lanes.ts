/* At most so many at once: whoever comes later waits in line. */
import { raceAbort } from '../deadline.ts'

export class Lanes {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Resolves when there is a free lane, with what gives it back. Rejects with signal.reason. */
  async enter(signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted()
    if (this.#free > 0) this.#free--
    else {
      const turn = new Promise<void>((resolve) => void this.#waiting.push(resolve))
      try {
        await raceAbort(turn, signal)
      } catch (reason) {
        // The turn still comes: pass it on.
        void turn.then(() => this.#leave())
        throw reason
      }
    }
    let left = false
    return () => {
      if (left) return
      left = true
      this.#leave()
    }
  }

  /** Runs `work` in a lane. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const leave = await this.enter(signal)
    try {
      return await work()
    } finally {
      leave()
    }
  }

  #leave(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free++
    else next()
  }
}
