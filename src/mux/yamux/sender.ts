/*
 * What is to be sent, and in which order: pongs, pings, resets and credit first, then data by priority and in turn.
 * It decides what a stream's next frame carries (SYN, ACK, credit, FIN); what that means for the stream is the session's.
 */
import type { Channel } from './channel.ts'
import { Packer, flag, frameType } from './frame.ts'
import type { KeepAlive } from './keepalive.ts'
import { maxTransmitBytes } from './options.ts'
import { ReadyList } from './ready.ts'

/** What the sender asks of the session. */
export interface Parting<Owner> {
  /** The first frame of a stream of ours leaves: its id is due. */
  born(channel: Channel<Owner>): void
  /** `size` bytes of its queue have left. */
  sent(channel: Channel<Owner>, size: number): void
  /** Credit leaves now: how much. */
  credit(channel: Channel<Owner>, now: number): number
  /** Its FIN has left. */
  finished(channel: Channel<Owner>): void
}

export class Sender<Owner> {
  readonly #parting: Parting<Owner>
  readonly #keepAlive: KeepAlive
  readonly #maxFrameBytes: number
  #controls: Channel<Owner>[] = []
  readonly #ready = new ReadyList<Owner>()
  #pongs: number[] = []
  /** Id and code, flattened. */
  #refusals: number[] = []
  #goAway: number | undefined
  readonly #packer = new Packer()

  constructor(parting: Parting<Owner>, keepAlive: KeepAlive, maxFrameBytes: number) {
    this.#parting = parting
    this.#keepAlive = keepAlive
    this.#maxFrameBytes = maxFrameBytes
  }

  /** It has a frame without data to send: SYN, ACK, credit, FIN or RST. */
  control(channel: Channel<Owner>): void {
    if (channel.controlled) return
    channel.controlled = true
    this.#controls.push(channel)
  }

  /** It may have data to send. */
  data(channel: Channel<Owner>): void {
    if (channel.queued > 0 && channel.sendWindow.available > 0) this.#ready.push(channel)
  }

  /** How many replies to pings wait. */
  get pongs(): number {
    return this.#pongs.length
  }

  pong(id: number): void {
    this.#pongs.push(id)
  }

  /** How many resets of streams that were never admitted wait. */
  get refusals(): number {
    return this.#refusals.length / 2
  }

  refuse(id: number, code: number): void {
    this.#refusals.push(id, code)
  }

  goAway(code: number): void {
    this.#goAway = code
  }

  /** Nothing is left to send. */
  clear(): void {
    this.#controls = []
    this.#ready.clear()
    this.#pongs = []
    this.#refusals = []
    this.#keepAlive.owed = this.#keepAlive.rides = false
    this.#goAway = undefined
  }

  get idle(): boolean {
    return this.#ready.empty
  }

  get pending(): boolean {
    return (
      !this.#ready.empty ||
      this.#controls.length > 0 ||
      this.#pongs.length > 0 ||
      this.#keepAlive.owed ||
      this.#refusals.length > 0 ||
      this.#goAway !== undefined
    )
  }

  /** The chunks of one write. May pass `room` by one frame and the control frames, which the number of streams bounds. */
  pull(room: number, now: number, last: () => void): Uint8Array[] {
    const out = this.#packer
    out.begin()
    for (const id of this.#pongs) out.header(frameType.ping, flag.ack, 0, id)
    if (this.#pongs.length > 0) this.#pongs = []
    const { owed, rides } = this.#keepAlive
    if (owed || rides) out.header(frameType.ping, flag.syn, 0, this.#keepAlive.send(now))
    if (this.#refusals.length > 0) {
      const refusals = this.#refusals
      this.#refusals = []
      for (let i = 0; i < refusals.length; i += 2)
        out.header(frameType.windowUpdate, flag.rst, refusals[i] as number, refusals[i + 1] as number)
    }
    if (this.#controls.length > 0) {
      const controls = this.#controls
      this.#controls = []
      for (const channel of controls) {
        channel.controlled = false
        this.#sendControl(channel, now)
      }
    }
    const limit = Math.min(room, maxTransmitBytes)
    while (out.size < limit) {
      const channel = this.#ready.shift()
      if (channel === undefined) break
      this.#sendData(channel)
    }
    last()
    if (this.#goAway !== undefined) {
      out.header(frameType.goAway, 0, 0, this.#goAway)
      this.#goAway = undefined
    }
    return out.end()
  }

  /** Only within `last` of a pull. */
  farewell(born: Iterable<Channel<Owner>>, resetCode: number, goAwayCode: number): void {
    const out = this.#packer
    for (const channel of born) {
      if (!channel.over) out.header(frameType.windowUpdate, flag.rst, channel.id, resetCode)
    }
    out.header(frameType.goAway, 0, 0, goAwayCode)
  }

  /** SYN or ACK, for the next frame of this stream, whatever it is. */
  #openingFlags(channel: Channel<Owner>): number {
    switch (channel.opening) {
      case 'syn-owed':
        this.#parting.born(channel)
        return flag.syn
      case 'ack-owed':
        channel.opening = 'established'
        return flag.ack
      default:
        return 0
    }
  }

  #sendControl(channel: Channel<Owner>, now: number): void {
    const out = this.#packer
    if (channel.sending === 'reset') {
      const code = channel.resetCode
      if (code !== undefined) out.header(frameType.windowUpdate, flag.rst, channel.id, code)
      return
    }
    const credit = this.#parting.credit(channel, now)
    const fin = channel.sending === 'finishing' && channel.queued === 0
    const opens = channel.opening === 'syn-owed' || channel.opening === 'ack-owed'
    // SYN and ACK ride on data that follows in this flush.
    if (credit > 0 || (opens && !fin && !channel.ready))
      out.header(frameType.windowUpdate, this.#openingFlags(channel), channel.id, credit)
    if (fin) this.#sendFin(channel)
  }

  /** A frame of its own: js-libp2p drops data that shares a frame with FIN, and go-libp2p then resets. */
  #sendFin(channel: Channel<Owner>): void {
    const flags = flag.fin | this.#openingFlags(channel)
    this.#packer.header(frameType.windowUpdate, flags, channel.id, 0)
    channel.sending = 'finished'
    this.#parting.finished(channel)
  }

  /** One frame; what is left then waits behind the others. */
  #sendData(channel: Channel<Owner>): void {
    const size = Math.min(this.#maxFrameBytes, channel.queued, channel.sendWindow.available)
    if (size === 0) return // it was reset meanwhile
    const flags = this.#openingFlags(channel)
    this.#packer.header(frameType.data, flags, channel.id, size)
    channel.dequeue(size, this.#packer)
    channel.sendWindow.consume(size)
    if (channel.queued === 0) {
      if (channel.sending === 'finishing') this.#sendFin(channel)
    } else if (channel.sendWindow.available > 0) this.#ready.push(channel)
    this.#parting.sent(channel, size)
  }
}
