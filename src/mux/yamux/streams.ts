/*
 * Which streams there are: by id, ours that are not born yet, and how many of each kind against which limit.
 * yamux/README.md r0 §Streams, §ACK backlog.
 */
import { LimitError } from '../../errors.ts'
import { Channel } from './channel.ts'
import { maxU32 } from './frame.ts'
import { UsedIds } from './ids.ts'
import type { SessionOptions } from './options.ts'

export class Streams<Owner> {
  readonly #options: Required<SessionOptions>
  readonly #onSlot: () => void
  readonly #channels = new Map<number, Channel<Owner>>()
  /** Ours whose SYN has not left. */
  readonly #unborn = new Set<Channel<Owner>>()
  readonly #used: UsedIds
  /** Lowest bit of the peer's ids. */
  readonly #theirs: 0 | 1
  #nextId: number
  #inbound = 0
  #backlog = 0
  #unacked = 0
  #slotWanted = false

  /** `onSlot`: open() gave nothing, and may be tried again. */
  constructor(role: 'initiator' | 'responder', options: Required<SessionOptions>, firstId: number, onSlot: () => void) {
    this.#options = options
    this.#onSlot = onSlot
    // §Streams: the dialler's ids are odd.
    this.#theirs = role === 'initiator' ? 0 : 1
    this.#nextId = firstId
    this.#used = new UsedIds(role === 'initiator' ? 2 : 1)
  }

  get(id: number): Channel<Owner> | undefined {
    return this.#channels.get(id)
  }

  /** Those that the peer may know of. */
  get born(): IterableIterator<Channel<Owner>> {
    return this.#channels.values()
  }

  *all(): Generator<Channel<Owner>> {
    yield* this.#unborn
    yield* this.#channels.values()
  }

  get exhausted(): boolean {
    return this.#nextId + 2 * this.#unborn.size > maxU32
  }

  /** One of ours; undefined: the ACK backlog is full. */
  open(priority: number): Channel<Owner> | undefined {
    // §ACK backlog
    if (this.#unacked >= this.#options.ackBacklog) {
      this.#slotWanted = true
      return undefined
    }
    this.#unacked++
    const channel = new Channel<Owner>(0, true, 'syn-owed', priority)
    this.#unborn.add(channel)
    return channel
  }

  /** The SYN of one of ours leaves. */
  bear(channel: Channel<Owner>): void {
    channel.opening = 'syn-sent'
    channel.id = this.#nextId
    this.#nextId += 2
    this.#unborn.delete(channel)
    this.#channels.set(channel.id, channel)
  }

  /** The peer has heard of it: whatever comes on it tells so, also from those who forget the ACK. */
  acknowledged(channel: Channel<Owner>): void {
    if (channel.opening !== 'syn-sent') return
    channel.opening = 'established'
    this.#freeSlot()
  }

  /** Why the peer may not open a stream with this id, or undefined; the id counts as used from now on. */
  misuse(id: number): string | undefined {
    if ((id & 1) !== this.#theirs) return `SYN with id ${id} of our own parity`
    return this.#used.use(id) ? undefined : `SYN on stream ${id}, which was used before`
  }

  /** A stream of the peer, or why there is no place for it. */
  admit(id: number): Channel<Owner> | LimitError {
    const { acceptBacklog, maxInboundStreams } = this.#options
    if (this.#backlog >= acceptBacklog) return new LimitError('acceptBacklog', acceptBacklog, this.#backlog + 1)
    if (this.#inbound >= maxInboundStreams)
      return new LimitError('maxInboundStreams', maxInboundStreams, this.#inbound + 1)
    const channel = new Channel<Owner>(id, false, 'backlog', 0)
    this.#channels.set(id, channel)
    this.#inbound++
    this.#backlog++
    return channel
  }

  /** Somebody took it: its ACK is owed. */
  accept(channel: Channel<Owner>): void {
    channel.opening = 'ack-owed'
    this.#backlog--
  }

  /** It counts no more; once is enough. */
  forget(channel: Channel<Owner>): void {
    const known = channel.opening === 'syn-owed' ? this.#unborn.delete(channel) : this.#channels.delete(channel.id)
    if (!known) return
    if (channel.outbound) {
      if (channel.opening !== 'established') this.#freeSlot()
    } else {
      this.#inbound--
      if (channel.opening === 'backlog') this.#backlog--
    }
    channel.opening = 'established'
  }

  #freeSlot(): void {
    this.#unacked--
    if (!this.#slotWanted) return
    this.#slotWanted = false
    this.#onSlot()
  }
}
