/* What a session tells whoever runs it. */
import type { LimitError } from '../../errors.ts'
import type { Channel } from './channel.ts'

export type SessionEvent<Owner> =
  /** A stream of the peer; `accepted` tells it so. */
  | { type: 'open'; channel: Channel<Owner> }
  | { type: 'data'; channel: Channel<Owner>; bytes: Uint8Array }
  /** The peer's FIN. */
  | { type: 'end'; channel: Channel<Owner> }
  /** By the peer, or by us (`reason`) because it passed a limit. What was read to a FIN before stays readable. */
  | { type: 'reset'; channel: Channel<Owner>; code: number; reason?: LimitError }
  /** A blocked writer may go on. */
  | { type: 'writable'; channel: Channel<Owner> }
  /** Our FIN has left. */
  | { type: 'finished'; channel: Channel<Owner> }
  /** Both FINs are done. */
  | { type: 'done'; channel: Channel<Owner> }
  /** open() may be tried again. */
  | { type: 'slot' }
  /** A stream of the peer that we reset at once. */
  | { type: 'refused'; id: number; code: number; reason: LimitError }
  | { type: 'rtt'; ms: number }
  /** The peer takes no new streams (code 0) or is leaving (any other). */
  | { type: 'goaway'; code: number }
  /** The session is over because of the peer; a Go Away waits to leave. */
  | { type: 'failed'; reason: Error }
  /** close() is done: the Go Away has been pulled, or its time is over. */
  | { type: 'drained' }

const keptEvents = 64

export class EventQueue<Owner> {
  /** Kept from batch to batch, as long as it is short. */
  #events: (SessionEvent<Owner> | undefined)[] = []
  #at = 0
  #end = 0

  push(event: SessionEvent<Owner>): void {
    this.#events[this.#end++] = event
  }

  next(): SessionEvent<Owner> | undefined {
    if (this.#at < this.#end) {
      const event = this.#events[this.#at]
      this.#events[this.#at++] = undefined
      return event
    }
    if (this.#end > keptEvents) this.#events = []
    this.#at = this.#end = 0
    return undefined
  }
}
