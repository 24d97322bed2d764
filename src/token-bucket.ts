/* So many at once, so many a second for ever: what is taken comes back with time. */

export class TokenBucket {
  readonly #burst: number
  readonly #perMs: number
  #level: number
  #at: number

  /** Full at first. `now` in milliseconds of any clock that only moves on. */
  constructor(burst: number, perSecond: number, now: number) {
    this.#burst = burst
    this.#perMs = perSecond / 1000
    this.#level = burst
    this.#at = now
  }

  /** How much may be taken at once. */
  level(now: number): number {
    // Infinity times no time is no number.
    if (now > this.#at) this.#level = Math.min(this.#burst, this.#level + (now - this.#at) * this.#perMs)
    this.#at = Math.max(this.#at, now)
    return this.#level
  }

  /** False, and nothing is taken, when there is not so much left. */
  take(cost: number, now: number): boolean {
    if (this.level(now) < cost) return false
    this.#level -= cost
    return true
  }
}
