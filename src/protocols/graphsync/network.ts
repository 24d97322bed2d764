/*
 * Carries out what the machines want, over a Host and a store: one stream of ours per peer for everything we say, the
 * peers' streams read no faster than what they bring is used, blocks looked up. One peer's trouble is its own.
 */
import { codeOfStream } from '../../close-codes.ts'
import { asError, errorCode, ProtocolError, TimeoutError } from '../../errors.ts'
import { readFrames } from '../../frames.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { deferred, type Deferred } from '../../inbox.ts'
import type { CID } from '../../ipld/cid.ts'
import { messageBytes } from '../../limits.ts'
import { Outbound, type OutboundOptions } from '../../outbound.ts'
import type { PeerId } from '../../peer/id.ts'
import type { Blockstore } from '../../store/blocks.ts'
import { Arrival, type Hash } from './request.ts'
import type { Lookup, OutgoingBlock, Responder, ResponderEvent, Response } from './response.ts'
import {
  decodeMessage,
  encodeMessage,
  protocolId,
  type GraphsyncMessage,
  type OutgoingRequest,
  type WireResponse,
} from './wire.ts'

/** What serving needs of a store. */
export type BlockSource = Pick<Blockstore, 'get'>

export interface NetworkOptions extends OutboundOptions {
  /** For the rest of a message that began to arrive. */
  frameTimeoutMs: number
  /** Streams that a peer may have open with us on one connection. */
  inboundStreams: number
  /** Bytes of messages of one peer that wait to be gone through; then its streams are not read. */
  bufferedBytes: number
  /** The same over all peers. */
  totalBufferedBytes: number
}

/** One request of ours, as the network sees it. */
export interface Asker {
  receive(response: WireResponse, arrival: Arrival): void
  /** The connection, or a message, is gone. */
  lost(reason: Error): void
  /** The peer broke the protocol. */
  fail(error: Error): void
  /** Something was said, and nothing heard yet. */
  readonly unanswered: boolean
  /** Does not read what came for it, and has the peer stop. False where it does. */
  suspend(): boolean
}

/** What is decided elsewhere. */
export interface Decider {
  event(link: Link, event: ResponderEvent): void
  block(response: Response, block: OutgoingBlock): void
  /** The store that a request is answered from. */
  source(response: Response): BlockSource
  /** A request of a peer is over, however it ended. */
  over(response: Response): void
}

export class Link {
  readonly peer: PeerId
  readonly id: string
  readonly outbound: Outbound
  readonly inbound = new Set<ProtocolStream>()
  /** By the id on the wire. */
  readonly askers = new Map<string, Asker>()
  readonly arrivals = new Set<Arrival>()
  readonly requests: OutgoingRequest[] = []
  buffered = 0
  /** How much may be buffered: more than the option where requests were suspended. */
  bound: number
  room: Deferred<void> | undefined
  sending = false
  scheduled = false

  constructor(peer: PeerId, outbound: Outbound, bound: number) {
    this.peer = peer
    this.id = peer.toString()
    this.outbound = outbound
    this.bound = bound
  }

  /** A block that came in another message. */
  elsewhere(cid: Uint8Array): ReturnType<Arrival['get']> {
    for (const arrival of this.arrivals) {
      const block = arrival.get(cid)
      if (block !== undefined) return block
    }
    return undefined
  }
}

/** Lookups after which a worker lets others have a turn of the event loop. */
const lookupsPerTurn = 256

export class Network {
  readonly #host: Host
  readonly #options: NetworkOptions
  readonly #responder: Responder
  readonly #decider: Decider
  readonly #hash: Hash
  readonly #links = new Map<string, Link>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #undo: (() => void)[] = []
  #stopping = new AbortController()
  #running = false
  #buffered = 0
  /** Responses for requests that are not there (any more). */
  ignored = 0

  constructor(host: Host, options: NetworkOptions, responder: Responder, hash: Hash, decider: Decider) {
    this.#host = host
    this.#options = options
    this.#responder = responder
    this.#hash = hash
    this.#decider = decider
  }

  get links(): ReadonlyMap<string, Link> {
    return this.#links
  }

  /** Bytes of messages that wait to be gone through. */
  get bufferedBytes(): number {
    return this.#buffered
  }

  get running(): boolean {
    return this.#running
  }

  start(): void {
    this.#running = true
    this.#stopping = new AbortController()
    const { limited, inboundStreams: maxInboundStreams } = this.#options
    const handler = (stream: ProtocolStream, { connection }: { connection: Connection }): Promise<void> =>
      this.#inbound(stream, connection)
    this.#host.handle(protocolId, handler, { limited, maxInboundStreams })
    this.#undo.push(
      () => this.#host.unhandle(protocolId),
      this.#host.on('peer:disconnect', (peer) => this.#disconnected(peer)),
    )
  }

  /** Requests of ours are to be ended before. */
  async stop(reason: Error): Promise<void> {
    this.#running = false
    for (const undo of this.#undo.splice(0)) undo()
    this.#stopping.abort(reason)
    for (const link of this.#links.values()) {
      this.#responder.disconnect(link.id)
      this.#close(link)
    }
    this.#links.clear()
    this.#settle()
    await Promise.all(this.#tasks)
  }

  /** Runs until it is done; stop() waits for it. */
  run(task: Promise<void>): void {
    const done = task
      .catch((error: unknown) => this.#host.env.trace?.('graphsync.error', { error: asError(error) }))
      .finally(() => this.#tasks.delete(done))
    this.#tasks.add(done)
  }

  link(peer: PeerId): Link {
    const id = peer.toString()
    let link = this.#links.get(id)
    if (link === undefined) {
      const outbound = new Outbound(this.#host, peer, this.#options, {
        protocols: [protocolId],
        what: 'a GraphSync message',
        onLost: () => {
          const link = this.#links.get(id)
          if (link?.outbound !== outbound) return
          // What was said last may have been lost with the stream.
          const error = new ProtocolError('truncated', 'peer let go of our stream')
          for (const asker of link.askers.values()) if (asker.unanswered) asker.lost(error)
        },
      })
      link = new Link(peer, outbound, this.#options.bufferedBytes)
      this.#links.set(id, link)
    }
    return link
  }

  #close(link: Link): void {
    link.outbound.close()
    for (const stream of link.inbound) stream.reset()
    link.inbound.clear()
    link.room?.resolve()
  }

  #disconnected(peer: PeerId): void {
    const link = this.#links.get(peer.toString())
    if (link === undefined) return
    this.#links.delete(link.id)
    this.#responder.disconnect(link.id)
    this.#close(link)
    this.#settle()
    this.#lost(link, new ProtocolError('truncated', 'connection lost'))
  }

  #lost(link: Link, reason: Error): void {
    for (const asker of link.askers.values()) asker.lost(reason)
  }

  /** Tells the peer at the end of this turn of the event loop. */
  say(link: Link, request: OutgoingRequest): void {
    link.requests.push(request)
    this.flush(link)
  }

  /** Sends what there is: at once where a message is full, else at the end of this turn. */
  flush(link: Link): void {
    if (link.sending || !this.#running) return
    if (this.#responder.pending(link.id) > 1) {
      this.run(this.#send(link))
      return
    }
    if (link.scheduled || (link.requests.length === 0 && this.#responder.pending(link.id) === 0)) return
    link.scheduled = true
    this.#host.env.turn(() => {
      link.scheduled = false
      if (this.#running && !link.sending && this.#links.get(link.id) === link) this.run(this.#send(link))
    })
  }

  async #send(link: Link): Promise<void> {
    link.sending = true
    try {
      for (;;) {
        const requests = link.requests.splice(0)
        const reply = this.#responder.transmit(link.id)
        if (requests.length === 0 && reply === undefined) return
        const message = { ...reply?.message, requests }
        const send = (): Promise<void> => link.outbound.send(() => encodeMessage(message))
        await send().catch((error: unknown) => {
          const gone = this.#links.get(link.id) !== link || this.#host.connections(link.peer).length === 0
          if (gone || error instanceof TimeoutError) throw error
          // The peer may have let go of an idle stream: once more on a fresh one.
          return send()
        })
        if (reply !== undefined) {
          this.#responder.sent(reply)
          this.pump()
          this.#mind(link)
          // A message that is not full may still grow in this turn.
          if (this.#responder.pending(link.id) < 2) await new Promise<void>((resolve) => this.#host.env.turn(resolve))
        }
      }
    } catch (error) {
      // Whom we cannot tell anything, we owe nothing.
      this.#host.env.trace?.('graphsync.send-failed', { peer: link.id, error: asError(error) })
      this.#responder.disconnect(link.id)
      this.#settle()
      link.requests.length = 0
      if (errorCode(error) === 'no-protocol') for (const asker of link.askers.values()) asker.fail(asError(error))
      else this.#lost(link, asError(error))
      if (this.#host.connections(link.peer).length === 0 && this.#links.get(link.id) === link) {
        this.#links.delete(link.id)
        this.#close(link)
      }
    } finally {
      link.sending = false
    }
  }

  async #inbound(stream: ProtocolStream, connection: Connection): Promise<void> {
    const link = this.link(connection.peer)
    link.inbound.add(stream)
    try {
      // Nothing is ever answered on the peer's stream.
      await stream.closeWrite()
      const { frameTimeoutMs } = this.#options
      const limits = { maxBytes: messageBytes, frameTimeoutMs, what: 'a GraphSync message' }
      await readFrames(stream, this.#host.env, limits, (frame) => this.#receive(link, frame))
    } catch (error) {
      // Not when the stream was reset for a violation that is known already.
      if (link.inbound.has(stream)) {
        const cut = !(error instanceof ProtocolError) || error.code === 'truncated'
        if (cut) {
          this.#host.env.trace?.('graphsync.stream-lost', { peer: link.id, error: asError(error) })
          this.#lost(link, asError(error))
        } else this.#violated(link, error)
      }
      stream.reset()
    } finally {
      link.inbound.delete(stream)
    }
  }

  #violated(link: Link, error: ProtocolError): void {
    this.#host.env.trace?.('graphsync.violation', { peer: link.id, error })
    this.#responder.disconnect(link.id)
    this.#settle()
    for (const asker of link.askers.values()) asker.fail(error)
    for (const stream of link.inbound) stream.reset(codeOfStream(error), error)
    link.inbound.clear()
  }

  #receive(link: Link, frame: Uint8Array): Promise<void> | undefined {
    if (this.#links.get(link.id) !== link) return undefined
    const message = decodeMessage(frame)
    if (message.requests.length > 0) {
      for (const event of this.#responder.receive(link.id, message.requests)) this.#decider.event(link, event)
      this.pump()
      this.flush(link)
    }
    if (message.responses.length > 0 || message.blocks.length > 0) this.#responses(link, message, frame.length)
    if (!this.#crowded(link)) return undefined
    link.room ??= deferred()
    return link.room.promise
  }

  #responses(link: Link, message: GraphsyncMessage, bytes: number): void {
    if (!message.responses.some(({ id }) => link.askers.has(id))) {
      this.ignored += message.responses.length
      return
    }
    const arrival = new Arrival(message, bytes, this.#hash, (done) => this.#freed(link, done))
    link.arrivals.add(arrival)
    link.buffered += arrival.bytes
    this.#buffered += arrival.bytes
    arrival.hold()
    for (const response of message.responses) {
      const asker = link.askers.get(response.id)
      if (asker === undefined) {
        this.ignored++
        arrival.incomplete()
      } else asker.receive(response, arrival)
    }
    arrival.release(false)
  }

  #freed(link: Link, arrival: Arrival): void {
    if (!link.arrivals.delete(arrival)) return
    link.buffered -= arrival.bytes
    this.#buffered -= arrival.bytes
    const { bufferedBytes } = this.#options
    link.bound = Math.max(bufferedBytes, Math.min(link.bound, link.buffered + bufferedBytes))
    this.#mind(link)
    // Whoever waits for others to make room.
    if (this.#buffered + arrival.bytes > this.#options.totalBufferedBytes)
      for (const other of this.#links.values()) this.#mind(other)
  }

  /** Reading on would take more memory than there is. Whoever has nothing buffered is read in any case. */
  #crowded(link: Link): boolean {
    if (this.#responder.congested(link.id)) return true
    return link.buffered > link.bound || (link.buffered > 0 && this.#buffered > this.#options.totalBufferedBytes)
  }

  #mind(link: Link): void {
    if (link.room === undefined || this.#crowded(link)) return
    link.room.resolve()
    link.room = undefined
  }

  /** A request waits for the peer while what came for others fills the room: they are to stop for a while. */
  starving(link: Link, asker: Asker): void {
    if (link.buffered <= link.bound) return
    for (const other of link.askers.values()) {
      if (other === asker || !other.suspend()) continue
      link.bound = link.buffered + this.#options.bufferedBytes
    }
    this.#mind(link)
  }

  /** Looks up what the responder wants, by as many as it lets. */
  pump(): void {
    if (!this.#running) return
    for (let l = this.#responder.nextLookup(); l !== undefined; l = this.#responder.nextLookup()) {
      this.run(this.#work(l))
    }
    this.#settle()
  }

  /** Walks end where the next lookup is looked for: their last words go out, and who made them is told. */
  #settle(): void {
    for (const response of this.#responder.takeOver()) {
      const link = this.#links.get(response.account.peer)
      if (link !== undefined) this.flush(link)
      this.#decider.over(response)
    }
  }

  async #work(first: Lookup): Promise<void> {
    let count = 0
    for (let lookup: Lookup | undefined = first; lookup !== undefined; lookup = this.#responder.nextLookup()) {
      const { response, cid } = lookup
      const bytes = await this.#find(response, cid)
      const block = this.#responder.loaded(lookup, bytes)
      if (block !== undefined) this.#decider.block(response, block)
      const link = this.#links.get(response.account.peer)
      if (link !== undefined) this.flush(link)
      if (++count % lookupsPerTurn === 0) await new Promise<void>((resolve) => this.#host.env.turn(resolve))
      if (!this.#running) return
    }
    this.#settle()
  }

  async #find(response: Response, cid: CID): Promise<Uint8Array | undefined> {
    try {
      return await this.#decider.source(response).get(cid, { signal: this.#stopping.signal })
    } catch (error) {
      // A block that cannot be read, or is not what it should be, is not had.
      this.#host.env.trace?.('graphsync.store-error', { peer: response.account.peer, cid, error: asError(error) })
      return undefined
    }
  }
}
