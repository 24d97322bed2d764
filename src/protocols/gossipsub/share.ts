/* So much of something for all: nobody takes more of it than is left for others, so that one peer can't take it all. */

export class Share {
  readonly #max: number
  #taken = 0
  readonly #by = new Map<string, number>()

  constructor(max: number) {
    this.#max = max
  }

  /** Whether there is room, and for this one. With `who` undefined room is all that counts. */
  fits(who: string | undefined, amount = 1): boolean {
    const left = this.#max - this.#taken
    return amount <= left && (who === undefined || (this.#by.get(who) ?? 0) <= left)
  }

  take(who: string | undefined, amount = 1): void {
    this.#taken += amount
    if (who !== undefined) this.#by.set(who, (this.#by.get(who) ?? 0) + amount)
  }

  give(who: string | undefined, amount = 1): void {
    this.#taken -= amount
    if (who === undefined) return
    const left = (this.#by.get(who) ?? 0) - amount
    if (left > 0) this.#by.set(who, left)
    else this.#by.delete(who)
  }
}
