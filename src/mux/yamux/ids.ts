/*
 * Which stream ids the peer has used, in bounded memory. Ids need not arrive in order (go-yamux takes the id before it
 * queues the frame, rust-yamux says SYN with the first write), so the ids jumped over are kept as ranges.
 */

/** Ranges kept at most; the oldest is forgotten, and counts as used from then on. */
const maxGaps = 1024

export class UsedIds {
  /** Lowest id of the parity that is above every id used so far. */
  #next: number
  /** Ranges [from, to] of ids below #next that were not used, in rising order, flattened. */
  readonly #gaps: number[] = []

  constructor(first: number) {
    this.#next = first
  }

  /** Ids of one parity only. False: it was used before. */
  use(id: number): boolean {
    const gaps = this.#gaps
    if (id >= this.#next) {
      if (id > this.#next) {
        gaps.push(this.#next, id - 2)
        if (gaps.length > 2 * maxGaps) gaps.splice(0, 2)
      }
      this.#next = id + 2
      return true
    }
    for (let i = gaps.length - 2; i >= 0; i -= 2) {
      const from = gaps[i] as number
      const to = gaps[i + 1] as number
      if (id > to) return false
      if (id < from) continue
      if (from === to) gaps.splice(i, 2)
      else if (id === from) gaps[i] = id + 2
      else if (id === to) gaps[i + 1] = id - 2
      else {
        gaps.splice(i, 2, from, id - 2, id + 2, to)
        if (gaps.length > 2 * maxGaps) gaps.splice(0, 2)
      }
      return true
    }
    return false
  }
}
