/*
 * How far receive windows grow (yamux leaves it open). First to 1 MiB, once a stream has shown that it is bulk; beyond
 * that only where distance holds it back: whose reader takes half a window within two round trips gets twice the window
 * (as rust-yamux flow_control.rs has it). All within a budget that the streams of a connection share.
 */
import type { ReceiveWindow } from './flow.ts'
import { initialWindowBytes } from './frame.ts'
import { bulkWindowBytes, farMs, growAfterBytes, type SessionOptions } from './options.ts'

/** The least of so many round trips is taken: those measured under load count the queues in. */
const keptRtts = 4

export class ReceiveBudget {
  readonly #maxStreamWindowBytes: number
  readonly #budgetBytes: number
  readonly #bulkBytes: number
  /** Sum of the windows of all streams. */
  #windows = 0
  #rtts: number[] = []
  #rttMs = 0
  /** The largest window that any stream ever had: nobody may have more under way. */
  largest = initialWindowBytes
  /** Bytes that wait to be read on all streams. */
  unread = 0

  constructor({ maxStreamWindowBytes, receiveBudgetBytes }: Required<SessionOptions>) {
    this.#maxStreamWindowBytes = maxStreamWindowBytes
    this.#budgetBytes = receiveBudgetBytes
    this.#bulkBytes = Math.min(bulkWindowBytes, maxStreamWindowBytes)
  }

  /** The least of the last round trips; 0 before the first. */
  get rttMs(): number {
    return this.#rttMs
  }

  measured(ms: number): void {
    this.#rtts.push(ms)
    if (this.#rtts.length > keptRtts) this.#rtts = this.#rtts.slice(1)
    this.#rttMs = Math.min(...this.#rtts)
  }

  opened(): void {
    this.#windows += initialWindowBytes
  }

  closed(window: ReceiveWindow): void {
    this.#windows -= window.max
  }

  /** After a read. */
  growBulk(window: ReceiveWindow): void {
    const more = this.#bulkBytes - window.max
    if (window.taken < growAfterBytes || more <= 0 || this.#windows + more > this.#budgetBytes) return
    this.#grow(window, more)
  }

  /** Before credit for what was read leaves: was it read so fast that the window, not the reader, sets the pace? */
  growFar(window: ReceiveWindow, now: number): void {
    const sinceMs = now - window.grantedAt
    window.grantedAt = now
    if (this.#rttMs < farMs || sinceMs >= 2 * this.#rttMs) return
    // Each may take half of what the others leave, so that there is always something left for one more.
    const share = (this.#budgetBytes - this.#windows + window.max) / 2
    const target = Math.floor(Math.min(2 * window.max, this.#maxStreamWindowBytes, share))
    if (target > window.max) this.#grow(window, target - window.max)
  }

  #grow(window: ReceiveWindow, more: number): void {
    this.#windows += more
    window.grow(window.max + more)
    this.largest = Math.max(this.largest, window.max)
  }
}
