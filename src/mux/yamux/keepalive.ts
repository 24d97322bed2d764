/*
 * When to ping and when to give up (yamux §Ping leaves both open). One ping at a time, as go-yamux has it; it also
 * measures the round trip. Any byte counts as a sign of life, because a reply may stand behind bulk data.
 */
import { TimeoutError } from '../../errors.ts'

export class KeepAlive {
  readonly #everyMs: number
  readonly #timeoutMs: number
  #nextAt: number
  #replyBy = Infinity
  #sentAt = 0
  #waiting = false
  /** The id of the last ping. */
  id = 0
  /** A ping should leave. */
  owed = false
  /** The first ping rides on whatever leaves first; it alone is no reason to send. */
  rides = true

  constructor(everyMs: number, timeoutMs: number, now: number) {
    this.#everyMs = everyMs
    this.#timeoutMs = timeoutMs
    this.#nextAt = now + everyMs
  }

  get deadline(): number {
    return Math.min(this.#nextAt, this.#replyBy)
  }

  /** An error when the peer must be taken for dead. `heardAt` is when its last bytes came. */
  tick(now: number, heardAt: number): TimeoutError | undefined {
    if (now >= this.#replyBy) {
      this.#replyBy = Math.max(this.#sentAt, heardAt) + this.#timeoutMs
      if (now >= this.#replyBy) return new TimeoutError('the reply to a keep-alive ping', this.#timeoutMs)
    }
    if (now < this.#nextAt) return undefined
    this.#nextAt = now + this.#everyMs
    if (this.owed) return new TimeoutError('room to send a keep-alive ping', this.#everyMs)
    this.owed = !this.#waiting
    return undefined
  }

  /** The ping leaves now; its id. */
  send(now: number): number {
    this.owed = this.rides = false
    this.#waiting = true
    this.#sentAt = now
    if (this.#everyMs !== Infinity) this.#replyBy = now + this.#timeoutMs
    this.id = (this.id + 1) >>> 0
    return this.id
  }

  /** The round trip in milliseconds, or undefined when nobody asked. */
  reply(id: number, now: number): number | undefined {
    if (!this.#waiting || id !== this.id) return undefined
    this.#waiting = false
    this.#replyBy = Infinity
    return now - this.#sentAt
  }
}
