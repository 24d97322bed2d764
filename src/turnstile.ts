/*
 * Lets a few pass in each turn of the event loop, the others wait in line: costly work for strangers, come all at once,
 * does not sit in front of the frames of those we are connected with.
 */
import type { Env } from './env.ts'

export class Turnstile {
  readonly #env: Pick<Env, 'turn'>
  readonly #perTurn: number
  #passed = 0
  #waiting: (() => void)[] = []
  #turning = false

  constructor(env: Pick<Env, 'turn'>, perTurn: number) {
    this.#env = env
    this.#perTurn = perTurn
  }

  /** Resolves when it is the caller's turn, in the order of the calls. Whoever gave up meanwhile looks for himself. */
  pass(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#passed < this.#perTurn) this.#let(resolve)
      else this.#waiting.push(resolve)
    })
  }

  #let(resolve: () => void): void {
    this.#passed++
    resolve()
    if (this.#turning) return
    this.#turning = true
    this.#env.turn(() => this.#next())
  }

  #next(): void {
    this.#turning = false
    this.#passed = 0
    for (const resolve of this.#waiting.splice(0, this.#perTurn)) this.#let(resolve)
  }
}
