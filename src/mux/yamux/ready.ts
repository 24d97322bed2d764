/* Who may send data, in what order: a higher priority first, those of one priority in turn. */
import type { Channel } from './channel.ts'

/** A list threaded through the channels themselves (`after`), so that joining it costs no memory. */
export class ReadyList<Owner> {
  #head: Channel<Owner> | undefined
  #tail: Channel<Owner> | undefined

  get empty(): boolean {
    return this.#head === undefined
  }

  /** Last among those of its priority, once. */
  push(channel: Channel<Owner>): void {
    if (channel.ready) return
    channel.ready = true
    const tail = this.#tail
    if (tail === undefined) {
      this.#head = this.#tail = channel
      return
    }
    if (tail.priority >= channel.priority) {
      this.#tail = tail.after = channel
      return
    }
    let before: Channel<Owner> | undefined
    let after = this.#head
    while (after !== undefined && after.priority >= channel.priority) {
      before = after
      after = after.after
    }
    channel.after = after
    if (before === undefined) this.#head = channel
    else before.after = channel
  }

  shift(): Channel<Owner> | undefined {
    const channel = this.#head
    if (channel === undefined) return undefined
    this.#head = channel.after
    if (channel.after === undefined) this.#tail = undefined
    channel.after = undefined
    channel.ready = false
    return channel
  }

  clear(): void {
    this.#head = this.#tail = undefined
  }
}
