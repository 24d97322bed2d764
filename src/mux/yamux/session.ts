/*
 * yamux/README.md r0 (libp2p specs), the state machine: bytes in, events out, chunks of one vectored write when pulled.
 * Commands are methods, so that the hot path makes no command objects; whoever calls one drains events and flushes.
 * What is judged and what becomes of a stream stands here; what leaves in sender.ts, windows in budget.ts.
 */
import { connectionCode, streamCode, streamCodeOf } from '../../close-codes.ts'
import type { Core } from '../../core.ts'
import { LimitError, ProtocolError, type ErrorCode } from '../../errors.ts'
import { ReceiveBudget } from './budget.ts'
import type { Channel } from './channel.ts'
import { FrameDecoder } from './decoder.ts'
import { EventQueue, type SessionEvent } from './events.ts'
import { flag, frameType, initialWindowBytes, version, type Header } from './frame.ts'
import { KeepAlive } from './keepalive.ts'
import { TokenBucket } from '../../token-bucket.ts'
import { heardStreamCost, maxPongs, maxRefusals, sessionOptions, type SessionOptions } from './options.ts'
import { SendQuota } from './quota.ts'
import { Sender } from './sender.ts'
import { Streams } from './streams.ts'

export class Session<Owner> implements Core<Uint8Array, SessionEvent<Owner>, Uint8Array[]> {
  readonly #options: Required<SessionOptions>
  #state: 'open' | 'closing' | 'over' = 'open'

  readonly #streams: Streams<Owner>
  /** Code of the peer's Go Away. */
  remoteGoAway: number | undefined = undefined

  readonly #sender: Sender<Owner>
  readonly #quota: SendQuota<Owner>
  readonly #budget: ReceiveBudget
  readonly #abandoned: TokenBucket

  // The frame under way.
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
    this.#streams = new Streams(role, this.#options, firstId, () => this.#events.push({ type: 'slot' }))
    this.#heardAt = now
    this.#budget = new ReceiveBudget(this.#options)
    const { abandonedStreams, abandonedStreamsPerSecond } = this.#options
    this.#abandoned = new TokenBucket(abandonedStreams, abandonedStreamsPerSecond, now)
    const { sendQueueBytes, maxQueuedBytes, keepAliveMs, keepAliveTimeoutMs, maxFrameBytes } = this.#options
    this.#quota = new SendQuota(sendQueueBytes, maxQueuedBytes, (channel) =>
      this.#events.push({ type: 'writable', channel }),
    )
    this.#keepAlive = new KeepAlive(keepAliveMs, keepAliveTimeoutMs, now)
    const parting = {
      born: (channel: Channel<Owner>) => this.#streams.bear(channel),
      sent: (channel: Channel<Owner>, size: number) => this.#quota.remove(channel, size),
      credit: (channel: Channel<Owner>, at: number) => this.#credit(channel, at),
      finished: (channel: Channel<Owner>) => {
        this.#events.push({ type: 'finished', channel })
        this.#finishedOneSide(channel)
      },
    }
    this.#sender = new Sender(parting, this.#keepAlive, maxFrameBytes)
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
    if (dead !== undefined) this.#fail(dead, connectionCode.yamuxInternalError)
  }

  // --- commands -----------------------------------------------------------------------------------------------------

  /** Why open() is of no use, or undefined. */
  get refusal(): 'closed' | 'remote' | 'exhausted' | undefined {
    if (this.#state !== 'open') return 'closed'
    if (this.remoteGoAway !== undefined) return 'remote'
    return this.#streams.exhausted ? 'exhausted' : undefined
  }

  /** A stream of ours; undefined: the ACK backlog is full, a `slot` event will come. Look at `refusal` first. */
  open(priority = 0): Channel<Owner> | undefined {
    const channel = this.#streams.open(priority)
    if (channel === undefined) return undefined
    this.#budget.opened()
    this.#sender.control(channel)
    return channel
  }

  /** Somebody took the peer's stream: the ACK may go. */
  accepted(channel: Channel<Owner>): void {
    if (channel.opening !== 'backlog') return
    this.#streams.accept(channel)
    if (channel.sending !== 'reset') this.#sender.control(channel)
  }

  /** Queues chunks, which are ours from now on. False: wait for `writable`. Only while `sending` is open. */
  write(channel: Channel<Owner>, chunks: readonly Uint8Array[]): boolean {
    const before = channel.queued
    for (const chunk of chunks) if (chunk.length > 0) channel.enqueue(chunk)
    this.#sender.data(channel)
    return this.#quota.add(channel, channel.queued - before)
  }

  /** FIN, behind what is queued. */
  finish(channel: Channel<Owner>): void {
    if (channel.sending !== 'open') return
    channel.sending = 'finishing'
    if (channel.queued === 0) this.#sender.control(channel)
  }

  /** The application has read `size` bytes: now, not before, they may become credit. */
  taken(channel: Channel<Owner>, size: number): void {
    const { receiving, receiveWindow } = channel
    if (receiving === 'reset') return
    receiveWindow.take(size)
    this.#budget.unread -= size
    if (receiving === 'ended') {
      if (receiveWindow.unread === 0 && channel.over) this.#forget(channel)
      return
    }
    if (receiving === 'open') this.#budget.growBulk(receiveWindow)
    if (receiveWindow.due) this.#sender.control(channel)
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
    this.#sender.control(channel)
  }

  /** Lets leave what is written, then resets what is open and says Go Away; `drained` when that is done. */
  close(code: number, now: number): void {
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#closeCode = code
    this.#closeAt = now + this.#options.closeTimeoutMs
  }

  /** Nothing more is heard or sent but for a Go Away with `code`. */
  abort(code: number): void {
    this.#end()
    this.#sender.goAway(code)
  }

  /** Every stream that is open, for the end. */
  live(): Iterable<Channel<Owner>> {
    return this.#streams.all()
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
    let channel = this.#streams.get(id)
    if ((flags & flag.syn) !== 0) {
      const misuse = this.#streams.misuse(id)
      if (misuse !== undefined) return this.#violation('bad-frame', misuse)
      if (isData && length > initialWindowBytes)
        return this.#violation('flow-control', `stream ${id} begins with ${length} bytes, at most 262144 allowed`)
      if ((flags & flag.rst) === 0) channel = this.#admit(id)
    }
    const rst = (flags & flag.rst) !== 0
    if (isData && length > 0) {
      if (channel === undefined || rst) {
        // Late frames for streams that are gone are no fault, but no stream ever had more credit than this.
        if (length > this.#budget.largest)
          return this.#violation('oversized', `${length} bytes for stream ${id}, which is not open`)
      } else if (channel.receiving === 'ended') {
        return this.#violation('bad-frame', `data on stream ${id} after its FIN`)
      } else if (!channel.receiveWindow.receive(length)) {
        return this.#violation(
          'flow-control',
          `stream ${id} sent ${length} bytes, its credit is ${channel.receiveWindow.credit}`,
        )
      } else {
        this.#budget.unread += length
        if (this.#budget.unread > this.#options.maxUnreadBytes) channel = this.#overfull(channel)
      }
    }
    if (channel === undefined) {
      this.#body = undefined
      return
    }
    this.#streams.acknowledged(channel)
    if (rst) {
      this.#body = undefined
      this.#resetByPeer(channel, isData ? 0 : length)
      return
    }
    if (!isData && length > 0 && !this.#mayGrant(channel, length)) return
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
    const closing = this.#state === 'closing'
    const admitted = closing ? new LimitError('closing', 0, 1, 'the connection is closing') : this.#streams.admit(id)
    if (!(admitted instanceof LimitError)) {
      this.#budget.opened()
      this.#events.push({ type: 'open', channel: admitted })
      return admitted
    }
    if (this.#sender.refusals >= maxRefusals) {
      this.#violation('bad-frame', `${maxRefusals} refused streams whose resets are not read`)
      return undefined
    }
    const code = closing ? streamCode.shutdown : streamCode.resourceLimitExceeded
    this.#sender.refuse(id, code)
    this.#events.push({ type: 'refused', id, code, reason: admitted })
    return undefined
  }

  #overfull(channel: Channel<Owner>): undefined {
    const { maxUnreadBytes } = this.#options
    const reason = new LimitError('maxUnreadBytes', maxUnreadBytes, this.#budget.unread)
    const code = streamCode.resourceLimitExceeded
    this.reset(channel, code)
    this.#events.push({ type: 'reset', channel, code, reason })
    return undefined
  }

  /** False when that was a violation. */
  #mayGrant(channel: Channel<Owner>, delta: number): boolean {
    if (!channel.sendWindow.grant(delta)) {
      this.#violation('flow-control', `${delta} more bytes of credit on stream ${channel.id} pass 2^32-1`)
      return false
    }
    this.#sender.data(channel)
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
    if (!channel.receiveWindow.heard) this.#abandon(channel, 1)
  }

  /** Opening a stream costs us far more than it costs the peer: it may not do so for nothing all the time. */
  #abandon({ outbound }: Channel<Owner>, cost: number): void {
    if (outbound || this.#state !== 'open' || this.#abandoned.take(cost, this.#heardAt)) return
    const { abandonedStreamsPerSecond: max } = this.#options
    const text = `the peer opens more than ${max} streams a second for nothing`
    this.#fail(new LimitError('abandonedStreamsPerSecond', max, max + 1, text), connectionCode.rateLimited)
  }

  #resetByPeer(channel: Channel<Owner>, code: number): void {
    if (channel.over) return
    const counted = channel.receiving === 'ended' && !channel.receiveWindow.heard
    const cost = channel.receiveWindow.heard ? heardStreamCost : 1
    if (channel.receiving === 'ended') {
      // The peer had finished: only our direction is lost, and what waits may still be read.
      this.#stopSending(channel)
      if (channel.receiveWindow.unread === 0) this.#forget(channel)
    } else this.#kill(channel)
    this.#events.push({ type: 'reset', channel, code })
    if (!counted) this.#abandon(channel, cost)
  }

  #ping({ flags, length }: Header): void {
    if ((flags & flag.ack) !== 0) {
      const ms = this.#keepAlive.reply(length, this.#heardAt)
      if (ms === undefined) return
      this.#budget.measured(ms)
      this.#events.push({ type: 'rtt', ms })
    } else if ((flags & flag.syn) !== 0) {
      if (this.#sender.pongs >= maxPongs) this.#violation('bad-frame', `more than ${maxPongs} pings without a pause`)
      else this.#sender.pong(length)
    }
  }

  #farewell(code: number): void {
    this.remoteGoAway ??= code
    this.#events.push({ type: 'goaway', code })
  }

  #violation(code: ErrorCode, message: string): void {
    this.#fail(new ProtocolError(code, `yamux: ${message}`), connectionCode.yamuxProtocolError)
  }

  #fail(reason: Error, code: number): void {
    this.#end()
    this.#sender.goAway(code)
    this.#events.push({ type: 'failed', reason })
  }

  /** Nothing is received or sent any more, but for a Go Away. */
  #end(): void {
    if (this.#state === 'closing') this.#events.push({ type: 'drained' })
    this.#state = 'over'
    this.#sender.clear()
  }

  // --- the life of a channel ----------------------------------------------------------------------------------------

  #finishedOneSide(channel: Channel<Owner>): void {
    if (!channel.over) return
    if (channel.receiveWindow.unread === 0) this.#forget(channel)
    // What waits to be read still counts as bytes, but may wait for ever: it must not take the place of a stream.
    else this.#streams.forget(channel)
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
    this.#budget.unread -= channel.receiveWindow.unread
    this.#forget(channel)
  }

  #forget(channel: Channel<Owner>): void {
    this.#budget.closed(channel.receiveWindow)
    this.#streams.forget(channel)
  }

  // --- sending ------------------------------------------------------------------------------------------------------

  get #leaving(): boolean {
    return this.#state === 'closing' && (this.#quota.queued === 0 || this.#hurry)
  }

  get pending(): boolean {
    return this.#sender.pending || this.#leaving
  }

  transmit(room: number, now: number): Uint8Array[] | undefined {
    if (!this.pending) return undefined
    const chunks = this.#sender.pull(room, now, () => {
      if (!this.#leaving || !this.#sender.idle) return
      this.#sender.farewell(this.#streams.born, streamCodeOf(this.#closeCode), this.#closeCode)
      this.#end()
    })
    return chunks.length === 0 ? undefined : chunks
  }

  #credit(channel: Channel<Owner>, now: number): number {
    const { receiving, receiveWindow } = channel
    if ((receiving !== 'open' && receiving !== 'discarding') || !receiveWindow.due) return 0
    if (receiving === 'open') this.#budget.growFar(receiveWindow, now)
    return receiveWindow.grant()
  }
}
