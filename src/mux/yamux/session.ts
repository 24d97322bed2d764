/*
 * yamux/README.md r0 (libp2p specs), the state machine: bytes in, events out, chunks of one vectored write when pulled.
 * Commands are methods, so that the hot path makes no command objects; whoever calls one drains events and flushes.
 * Reset codes as go-yamux v5 has them. Left out: raising windows by measured round trips.
 */
import type { Core } from '../../core.ts'
import { LimitError, ProtocolError, type ErrorCode } from '../../errors.ts'
import { Channel } from './channel.ts'
import { FrameDecoder } from './decoder.ts'
import { EventQueue, type SessionEvent } from './events.ts'
import {
  Packer,
  flag,
  frameType,
  goAwayCode,
  initialWindowBytes,
  maxU32,
  version,
  type Header,
  resetCode,
} from './frame.ts'
import { UsedIds } from './ids.ts'
import { KeepAlive } from './keepalive.ts'
import {
  growAfterBytes,
  maxPongs,
  maxRefusals,
  maxTransmitBytes,
  sessionOptions,
  type SessionOptions,
} from './options.ts'
import { SendQuota } from './quota.ts'
import { ReadyList } from './ready.ts'

export class Session<Owner> implements Core<Uint8Array, SessionEvent<Owner>, Uint8Array[]> {
  readonly #options: Required<SessionOptions>
  #state: 'open' | 'closing' | 'over' = 'open'

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
  /** Code of the peer's Go Away. */
  remoteGoAway: number | undefined = undefined

  // What is sent: sums, and the lists of those who have something to send.
  readonly #quota: SendQuota<Owner>
  #controls: Channel<Owner>[] = []
  readonly #ready = new ReadyList<Owner>()
  #pongs: number[] = []
  #refusals: number[] = []
  #goAway: number | undefined
  readonly #packer = new Packer()

  // What is received: sums, and the frame under way.
  #unread = 0
  #windows = 0
  readonly #decoder = new FrameDecoder({
    frame: (header) => {
      this.#frame(header)
      if (this.#state === 'over') return -1
      return header.type === frameType.data ? header.length : 0
    },
    body: (bytes) => {
      if (this.#body !== undefined) this.#deliver(this.#body, bytes)
    },
    bodyEnd: () => {
      if (this.#body !== undefined && this.#bodyFin) this.#finByPeer(this.#body)
      this.#body = undefined
    },
  })
  #body: Channel<Owner> | undefined
  #bodyFin = false

  // Time.
  #heardAt: number
  readonly #keepAlive: KeepAlive
  #closeAt = Infinity
  #closeCode = 0
  #hurry = false

  readonly #events = new EventQueue<Owner>()

  /** `firstId` other than 1 or 2: as if so many streams had been there (for tests). */
  constructor(
    role: 'initiator' | 'responder',
    now: number,
    options: SessionOptions = {},
    firstId = role === 'initiator' ? 1 : 2,
  ) {
    this.#options = sessionOptions(options)
    // §Streams: the dialler's ids are odd.
    this.#theirs = role === 'initiator' ? 0 : 1
    this.#nextId = firstId
    this.#used = new UsedIds(role === 'initiator' ? 2 : 1)
    this.#heardAt = now
    const { sendQueueBytes, maxQueuedBytes } = this.#options
    this.#quota = new SendQuota(sendQueueBytes, maxQueuedBytes, (channel) =>
      this.#events.push({ type: 'writable', channel }),
    )
    this.#keepAlive = new KeepAlive(this.#options.keepAliveMs, this.#options.keepAliveTimeoutMs, now)
  }

  // --- events, time -------------------------------------------------------------------------------------------------

  next(): SessionEvent<Owner> | undefined {
    return this.#events.next()
  }

  get deadline(): number {
    return this.#state === 'over' ? Infinity : Math.min(this.#keepAlive.deadline, this.#closeAt)
  }

  tick(now: number): void {
    if (this.#state === 'over') return
    if (now >= this.#closeAt) {
      // Once to send what can be sent without waiting for the peer, once more because even that had no room.
      if (this.#hurry) {
        this.#end()
        return
      }
      this.#hurry = true
      this.#closeAt = now + this.#options.closeTimeoutMs / 4
    }
    const dead = this.#keepAlive.tick(now, this.#heardAt)
    if (dead !== undefined) this.#fail(dead, goAwayCode.internalError)
  }

  // --- commands -----------------------------------------------------------------------------------------------------

  /** Why open() is of no use, or undefined. */
  get refusal(): 'closed' | 'remote' | 'exhausted' | undefined {
    if (this.#state !== 'open') return 'closed'
    if (this.remoteGoAway !== undefined) return 'remote'
    return this.#nextId + 2 * this.#unborn.size > maxU32 ? 'exhausted' : undefined
  }

  /** A stream of ours; undefined: the ACK backlog is full, a `slot` event will come. Look at `refusal` first. */
  open(priority = 0): Channel<Owner> | undefined {
    // §ACK backlog
    if (this.#unacked >= this.#options.ackBacklog) {
      this.#slotWanted = true
      return undefined
    }
    this.#unacked++
    const channel = new Channel<Owner>(0, true, 'syn-owed', priority)
    this.#windows += initialWindowBytes
    this.#unborn.add(channel)
    this.#control(channel)
    return channel
  }

  /** Somebody took the peer's stream: the ACK may go. */
  accepted(channel: Channel<Owner>): void {
    if (channel.opening !== 'backlog') return
    channel.opening = 'ack-owed'
    this.#backlog--
    if (channel.sending !== 'reset') this.#control(channel)
  }

  /** Queues chunks, which are ours from now on. False: wait for `writable`. Only while `sending` is open. */
  write(channel: Channel<Owner>, chunks: readonly Uint8Array[]): boolean {
    const before = channel.queued
    for (const chunk of chunks) if (chunk.length > 0) channel.enqueue(chunk)
    if (channel.queued > 0 && channel.sendWindow.available > 0) this.#ready.push(channel)
    return this.#quota.add(channel, channel.queued - before)
  }

  /** FIN, behind what is queued. */
  finish(channel: Channel<Owner>): void {
    if (channel.sending !== 'open') return
    channel.sending = 'finishing'
    if (channel.queued === 0) this.#control(channel)
  }

  /** The application has read `size` bytes: now, not before, they may become credit. */
  taken(channel: Channel<Owner>, size: number): void {
    const { receiving, receiveWindow } = channel
    if (receiving === 'reset') return
    receiveWindow.take(size)
    this.#unread -= size
    if (receiving === 'ended') {
      if (receiveWindow.unread === 0 && channel.over) this.#forget(channel)
      return
    }
    if (receiving === 'open' && receiveWindow.taken >= growAfterBytes) this.#growWindow(channel)
    if (receiveWindow.due) this.#control(channel)
  }

  /** The application reads no more; the caller reports what waits as taken. What still comes is credited at once. */
  discard(channel: Channel<Owner>): void {
    if (channel.receiving === 'open') channel.receiving = 'discarding'
  }

  /** RST, unless both directions are done. No events come of it. */
  reset(channel: Channel<Owner>, code: number): void {
    if (channel.over) {
      if (channel.receiving === 'ended' && channel.receiveWindow.unread > 0) this.#release(channel)
      return
    }
    const born = channel.opening !== 'syn-owed'
    this.#kill(channel)
    if (!born) return
    channel.resetCode = code
    this.#control(channel)
  }

  /** Lets leave what is written, then resets what is open and says Go Away; `drained` when that is done. */
  close(code: number, now: number): void {
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#closeCode = code
    this.#closeAt = now + this.#options.closeTimeoutMs
  }

  /** Every stream that is open, for the end. */
  *live(): Generator<Channel<Owner>> {
    yield* this.#unborn
    yield* this.#channels.values()
  }

  // --- receiving ----------------------------------------------------------------------------------------------------

  receive(bytes: Uint8Array, now: number): void {
    if (this.#state === 'over') return
    this.#heardAt = now
    this.#decoder.push(bytes)
  }

  #frame(header: Header): void {
    if (header.version !== version) {
      this.#violation('bad-frame', `version ${header.version}, want ${version}`)
      return
    }
    switch (header.type) {
      case frameType.data:
      case frameType.windowUpdate:
        if (header.id === 0) this.#violation('bad-frame', 'a stream frame on id 0')
        else this.#streamFrame(header)
        return
      case frameType.ping:
        if (header.id !== 0) this.#violation('bad-frame', `a ping on stream ${header.id}`)
        else this.#ping(header)
        return
      case frameType.goAway:
        if (header.id !== 0) this.#violation('bad-frame', `a go away on stream ${header.id}`)
        else this.#farewell(header.length)
        return
      default:
        this.#violation('bad-frame', `type ${header.type}, want 0 to 3`)
    }
  }

  #streamFrame({ type, flags, id, length }: Header): void {
    const isData = type === frameType.data
    let channel = this.#channels.get(id)
    if ((flags & flag.syn) !== 0) {
      if ((id & 1) !== this.#theirs) return this.#violation('bad-frame', `SYN with id ${id} of our own parity`)
      if (!this.#used.use(id)) return this.#violation('bad-frame', `SYN on stream ${id}, which was used before`)
      if (isData && length > initialWindowBytes)
        return this.#violation('flow-control', `stream ${id} begins with ${length} bytes, at most 262144 allowed`)
      if ((flags & flag.rst) === 0) channel = this.#admit(id)
    }
    const rst = (flags & flag.rst) !== 0
    if (isData && length > 0) {
      if (channel === undefined || rst) {
        // Late frames for streams that are gone are no fault, but no stream ever had more credit than this.
        if (length > this.#options.maxStreamWindowBytes)
          return this.#violation('oversized', `${length} bytes for stream ${id}, which is not open`)
      } else if (channel.receiving === 'ended') {
        return this.#violation('bad-frame', `data on stream ${id} after its FIN`)
      } else if (!channel.receiveWindow.receive(length)) {
        return this.#violation(
          'flow-control',
          `stream ${id} sent ${length} bytes, its credit is ${channel.receiveWindow.credit}`,
        )
      } else {
        this.#unread += length
        if (this.#unread > this.#options.maxUnreadBytes) channel = this.#overfull(channel)
      }
    }
    if (channel === undefined) {
      this.#body = undefined
      return
    }
    // Whatever comes on it tells that the peer has it, also from those who forget the ACK.
    if (channel.opening === 'syn-sent') {
      channel.opening = 'established'
      this.#freeSlot()
    }
    if (rst) {
      this.#body = undefined
      this.#resetByPeer(channel, isData ? 0 : length)
      return
    }
    if (!isData && length > 0 && !this.#credit(channel, length)) return
    const fin = (flags & flag.fin) !== 0
    if (!isData || length === 0) {
      if (fin) this.#finByPeer(channel)
      return
    }
    this.#body = channel
    this.#bodyFin = fin
  }

  /** A new stream of the peer, or undefined when it is refused. */
  #admit(id: number): Channel<Owner> | undefined {
    const { acceptBacklog, maxInboundStreams } = this.#options
    let reason: Error | undefined
    if (this.#state === 'closing') reason = new LimitError('closing', 0, 1, 'the connection is closing')
    else if (this.#backlog >= acceptBacklog) reason = new LimitError('acceptBacklog', acceptBacklog, this.#backlog + 1)
    else if (this.#inbound >= maxInboundStreams)
      reason = new LimitError('maxInboundStreams', maxInboundStreams, this.#inbound + 1)
    if (reason === undefined) {
      const channel = new Channel<Owner>(id, false, 'backlog', 0)
      this.#channels.set(id, channel)
      this.#inbound++
      this.#backlog++
      this.#windows += initialWindowBytes
      this.#events.push({ type: 'open', channel })
      return channel
    }
    if (this.#refusals.length >= maxRefusals) {
      this.#violation('bad-frame', `${maxRefusals} refused streams whose resets are not read`)
      return undefined
    }
    this.#refusals.push(id)
    this.#events.push({ type: 'refused', id, reason })
    return undefined
  }

  #overfull(channel: Channel<Owner>): undefined {
    const { maxUnreadBytes } = this.#options
    const reason = new LimitError('maxUnreadBytes', maxUnreadBytes, this.#unread)
    this.reset(channel, resetCode.resourceLimit)
    this.#events.push({ type: 'reset', channel, code: resetCode.resourceLimit, reason })
    return undefined
  }

  /** False when that was a violation. */
  #credit(channel: Channel<Owner>, delta: number): boolean {
    if (!channel.sendWindow.grant(delta)) {
      this.#violation('flow-control', `${delta} more bytes of credit on stream ${channel.id} pass 2^32-1`)
      return false
    }
    if (channel.queued > 0) this.#ready.push(channel)
    return true
  }

  #deliver(channel: Channel<Owner>, bytes: Uint8Array): void {
    if (channel.receiving === 'open') this.#events.push({ type: 'data', channel, bytes })
    else if (channel.receiving === 'discarding') this.taken(channel, bytes.length)
  }

  #finByPeer(channel: Channel<Owner>): void {
    if (channel.receiving !== 'open' && channel.receiving !== 'discarding') return
    channel.receiving = 'ended'
    this.#events.push({ type: 'end', channel })
    this.#finishedOneSide(channel)
  }

  #resetByPeer(channel: Channel<Owner>, code: number): void {
    if (channel.over) return
    if (channel.receiving === 'ended') {
      // The peer had finished: only our direction is lost, and what waits may still be read.
      this.#stopSending(channel)
      if (channel.receiveWindow.unread === 0) this.#forget(channel)
    } else this.#kill(channel)
    this.#events.push({ type: 'reset', channel, code })
  }

  #freeSlot(): void {
    this.#unacked--
    if (!this.#slotWanted) return
    this.#slotWanted = false
    this.#events.push({ type: 'slot' })
  }

  #ping({ flags, length }: Header): void {
    if ((flags & flag.ack) !== 0) {
      const ms = this.#keepAlive.reply(length, this.#heardAt)
      if (ms !== undefined) this.#events.push({ type: 'rtt', ms })
    } else if ((flags & flag.syn) !== 0) {
      if (this.#pongs.length >= maxPongs) this.#violation('bad-frame', `more than ${maxPongs} pings without a pause`)
      else this.#pongs.push(length)
    }
  }

  #farewell(code: number): void {
    this.remoteGoAway ??= code
    this.#events.push({ type: 'goaway', code })
  }

  #violation(code: ErrorCode, message: string): void {
    this.#fail(new ProtocolError(code, `yamux: ${message}`), goAwayCode.protocolError)
  }

  #fail(reason: Error, code: number): void {
    this.#end()
    this.#goAway = code
    this.#events.push({ type: 'failed', reason })
  }

  /** Nothing is received or sent any more, but for a Go Away. */
  #end(): void {
    if (this.#state === 'closing') this.#events.push({ type: 'drained' })
    this.#state = 'over'
    this.#controls = []
    this.#ready.clear()
    this.#pongs = []
    this.#refusals = []
    this.#keepAlive.owed = this.#keepAlive.rides = false
    this.#goAway = undefined
  }

  // --- the life of a channel ----------------------------------------------------------------------------------------

  #finishedOneSide(channel: Channel<Owner>): void {
    if (!channel.over) return
    if (channel.receiveWindow.unread === 0) this.#forget(channel)
    this.#events.push({ type: 'done', channel })
  }

  #stopSending(channel: Channel<Owner>): void {
    channel.sending = 'reset'
    this.#quota.forget(channel)
    this.#quota.remove(channel, channel.dropQueue())
  }

  /** Both directions end here and now. */
  #kill(channel: Channel<Owner>): void {
    this.#stopSending(channel)
    this.#release(channel)
  }

  /** What waits to be read counts no more: nobody will. */
  #release(channel: Channel<Owner>): void {
    channel.receiving = 'reset'
    this.#unread -= channel.receiveWindow.unread
    this.#forget(channel)
  }

  #forget(channel: Channel<Owner>): void {
    this.#windows -= channel.receiveWindow.max
    if (channel.opening === 'syn-owed') this.#unborn.delete(channel)
    else this.#channels.delete(channel.id)
    if (channel.outbound) {
      if (channel.opening !== 'established') this.#freeSlot()
    } else {
      this.#inbound--
      if (channel.opening === 'backlog') this.#backlog--
    }
    channel.opening = 'established'
  }

  #growWindow(channel: Channel<Owner>): void {
    const { receiveWindow } = channel
    const { maxStreamWindowBytes, receiveBudgetBytes } = this.#options
    const more = maxStreamWindowBytes - receiveWindow.max
    if (more <= 0 || this.#windows + more > receiveBudgetBytes) return
    this.#windows += more
    receiveWindow.grow(maxStreamWindowBytes)
  }

  // --- sending ------------------------------------------------------------------------------------------------------

  #control(channel: Channel<Owner>): void {
    if (channel.controlled) return
    channel.controlled = true
    this.#controls.push(channel)
  }

  get #leaving(): boolean {
    return this.#state === 'closing' && (this.#quota.queued === 0 || this.#hurry)
  }

  get pending(): boolean {
    return (
      !this.#ready.empty ||
      this.#controls.length > 0 ||
      this.#pongs.length > 0 ||
      this.#keepAlive.owed ||
      this.#refusals.length > 0 ||
      this.#goAway !== undefined ||
      this.#leaving
    )
  }

  /** May pass `room` by one frame and the control frames, which are bounded by the number of streams. */
  transmit(room: number, now: number): Uint8Array[] | undefined {
    if (!this.pending) return undefined
    const out = this.#packer
    out.begin()
    for (const id of this.#pongs) out.header(frameType.ping, flag.ack, 0, id)
    if (this.#pongs.length > 0) this.#pongs = []
    const { owed, rides } = this.#keepAlive
    if (owed || rides) out.header(frameType.ping, flag.syn, 0, this.#keepAlive.send(now))
    for (const id of this.#refusals) out.header(frameType.windowUpdate, flag.rst, id, resetCode.resourceLimit)
    if (this.#refusals.length > 0) this.#refusals = []
    if (this.#controls.length > 0) {
      const controls = this.#controls
      this.#controls = []
      for (const channel of controls) {
        channel.controlled = false
        this.#sendControl(channel)
      }
    }
    const limit = Math.min(room, maxTransmitBytes)
    while (out.size < limit) {
      const channel = this.#ready.shift()
      if (channel === undefined) break
      this.#sendData(channel)
    }
    if (this.#leaving && this.#ready.empty) this.#sendFarewell()
    else if (this.#goAway !== undefined) {
      out.header(frameType.goAway, 0, 0, this.#goAway)
      this.#goAway = undefined
    }
    const chunks = out.end()
    return chunks.length === 0 ? undefined : chunks
  }

  /** SYN or ACK, for the next frame of this stream, whatever it is. */
  #openingFlags(channel: Channel<Owner>): number {
    switch (channel.opening) {
      case 'syn-owed':
        channel.opening = 'syn-sent'
        channel.id = this.#nextId
        this.#nextId += 2
        this.#unborn.delete(channel)
        this.#channels.set(channel.id, channel)
        return flag.syn
      case 'ack-owed':
        channel.opening = 'established'
        return flag.ack
      default:
        return 0
    }
  }

  #sendControl(channel: Channel<Owner>): void {
    const out = this.#packer
    if (channel.sending === 'reset') {
      const code = channel.resetCode
      if (code !== undefined) out.header(frameType.windowUpdate, flag.rst, channel.id, code)
      return
    }
    const { receiving, receiveWindow } = channel
    const credit = (receiving === 'open' || receiving === 'discarding') && receiveWindow.due ? receiveWindow.grant() : 0
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
    this.#events.push({ type: 'finished', channel })
    this.#finishedOneSide(channel)
  }

  /** One frame; what is left then waits behind the others. */
  #sendData(channel: Channel<Owner>): void {
    const size = Math.min(this.#options.maxFrameBytes, channel.queued, channel.sendWindow.available)
    if (size === 0) return // it was reset meanwhile
    const flags = this.#openingFlags(channel)
    this.#packer.header(frameType.data, flags, channel.id, size)
    channel.dequeue(size, this.#packer)
    channel.sendWindow.consume(size)
    if (channel.queued === 0) {
      if (channel.sending === 'finishing') this.#sendFin(channel)
    } else if (channel.sendWindow.available > 0) this.#ready.push(channel)
    this.#quota.remove(channel, size)
  }

  #sendFarewell(): void {
    const out = this.#packer
    for (const channel of this.#channels.values()) {
      if (!channel.over) out.header(frameType.windowUpdate, flag.rst, channel.id, this.#closeCode)
    }
    out.header(frameType.goAway, 0, 0, this.#closeCode)
    this.#end()
  }
}
