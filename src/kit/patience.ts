/*
 * A deadline on silence: as long as something comes now and then, waiting goes on, however slow the peer.
 * A deadline for each block would end a fetch on a slow line, where many are under way and the last ones come late.
 */
import { TimeoutError } from '../errors.ts'
import type { Env, Timer } from '../env.ts'

export class Patience {
  readonly #env: Env
  readonly #timeoutMs: number
  readonly #what: string
  readonly #controller = new AbortController()
  #waiting = 0
  #heardAt = 0
  #timer: Timer | undefined

  constructor(env: Env, timeoutMs: number, what: string) {
    this.#env = env
    this.#timeoutMs = timeoutMs
    this.#what = what
  }

  /** Aborts with TimeoutError when somebody waits and nothing came for that long. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Waits for `work`; its coming is what all others that wait take heart from. */
  async wait<T>(work: Promise<T>): Promise<T> {
    if (this.#waiting++ === 0) {
      this.#heardAt = this.#env.clock.now()
      this.#arm(this.#timeoutMs)
    }
    try {
      const value = await work
      this.#heardAt = this.#env.clock.now()
      return value
    } finally {
      if (--this.#waiting === 0) this.#timer?.cancel()
    }
  }

  #arm(ms: number): void {
    this.#timer?.cancel()
    // Moving the timer for every block would cost more than looking at the clock when it fires.
    this.#timer = this.#env.clock.setTimer(ms, () => {
      const left = this.#heardAt + this.#timeoutMs - this.#env.clock.now()
      if (left > 0) this.#arm(left)
      else this.#controller.abort(new TimeoutError(this.#what, this.#timeoutMs))
    })
  }
}
