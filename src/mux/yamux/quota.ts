/* Who may go on writing: bytes queued per stream and on all of them. What a writer does beyond waits, nothing is dropped. */
import type { Channel } from './channel.ts'

export class SendQuota<Owner> {
  readonly #perStreamBytes: number
  readonly #totalBytes: number
  readonly #onWritable: (channel: Channel<Owner>) => void
  readonly #blocked = new Set<Channel<Owner>>()
  /** Bytes queued on all streams. */
  queued = 0

  constructor(perStreamBytes: number, totalBytes: number, onWritable: (channel: Channel<Owner>) => void) {
    this.#perStreamBytes = perStreamBytes
    this.#totalBytes = totalBytes
    this.#onWritable = onWritable
  }

  #mayWrite(channel: Channel<Owner>): boolean {
    // The small share keeps streams that the peer does read alive beside many that it does not.
    const share = this.queued < this.#totalBytes ? this.#perStreamBytes : this.#perStreamBytes / 16
    return channel.queued < share
  }

  /** After `size` bytes were queued on `channel`. False: its writer has to wait for onWritable. */
  add(channel: Channel<Owner>, size: number): boolean {
    this.queued += size
    if (this.#mayWrite(channel)) return true
    channel.blocked = true
    this.#blocked.add(channel)
    return false
  }

  /** After `size` bytes of `channel` left its queue. */
  remove(channel: Channel<Owner>, size: number): void {
    const wasFull = this.queued >= this.#totalBytes
    this.queued -= size
    if (channel.blocked) this.#unblock(channel)
    if (wasFull && this.queued < this.#totalBytes) for (const other of this.#blocked) this.#unblock(other)
  }

  /** Its writers wait for nothing any more. */
  forget(channel: Channel<Owner>): void {
    channel.blocked = false
    this.#blocked.delete(channel)
  }

  #unblock(channel: Channel<Owner>): void {
    if (!this.#mayWrite(channel)) return
    this.forget(channel)
    this.#onWritable(channel)
  }
}
