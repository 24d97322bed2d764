/*
 * yamux/README.md r0 §Flow Control, as arithmetic. Only bodies of Data frames count; credit is a delta.
 * Each class states its invariants and asserts them: a broken one is our bug, never the peer's doing.
 */
import { initialWindowBytes, maxU32 } from './frame.ts'

function invariant(holds: boolean, what: string): void {
  if (!holds) throw new RangeError(`yamux window: ${what}`)
}

/** What the peer lets us send. 0 <= available <= 2^32-1. */
export class SendWindow {
  #available = initialWindowBytes

  get available(): number {
    return this.#available
  }

  /** False, and nothing is added, when the credit would pass 2^32-1 (the peer's violation). */
  grant(delta: number): boolean {
    if (delta > maxU32 - this.#available) return false
    this.#available += delta
    return true
  }

  consume(size: number): void {
    invariant(size >= 0 && size <= this.#available, `sending ${size} of ${this.#available}`)
    this.#available -= size
  }
}

/**
 * What we let the peer send. credit + unread + owed = max, all of them >= 0; so never more than `max` bytes wait for
 * the application, because `owed` becomes credit only when bytes were taken.
 */
export class ReceiveWindow {
  #max = initialWindowBytes
  #credit = initialWindowBytes
  #unread = 0
  #taken = 0
  /** When credit last left. */
  grantedAt = -Infinity

  /** Bytes the peer may have under way or waiting at us. */
  get max(): number {
    return this.#max
  }

  /** Bytes the peer may still send. */
  get credit(): number {
    return this.#credit
  }

  /** Bytes announced by the peer that the application has not taken. */
  get unread(): number {
    return this.#unread
  }

  /** Bytes the application has taken since the beginning. */
  get taken(): number {
    return this.#taken
  }

  /** Whether the peer ever sent a byte. */
  get heard(): boolean {
    return this.#unread > 0 || this.#taken > 0
  }

  get owed(): number {
    return this.#max - this.#credit - this.#unread
  }

  /** Updates are batched: one is due when half the window is owed. */
  get due(): boolean {
    return this.owed >= this.#max / 2
  }

  /** False, and nothing changes, when the peer overruns its credit. */
  receive(size: number): boolean {
    if (size > this.#credit) return false
    this.#credit -= size
    this.#unread += size
    return true
  }

  take(size: number): void {
    invariant(size >= 0 && size <= this.#unread, `taking ${size} of ${this.#unread}`)
    this.#unread -= size
    this.#taken += size
  }

  /** Turns what is owed into credit; the delta for the Window Update. */
  grant(): number {
    const delta = this.owed
    invariant(delta >= 0, `granting ${delta}`)
    this.#credit += delta
    return delta
  }

  /** The window may only grow: credit cannot be taken back. */
  grow(max: number): void {
    invariant(max >= this.#max && max <= maxU32, `growing ${this.#max} to ${max}`)
    this.#max = max
  }
}
