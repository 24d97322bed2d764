/*
 * Carries out what the machines want, over a Host and a store: connects, sends wants and answers on two streams of our
 * own per peer, reads the peers' streams, looks blocks up. One peer's trouble ends its own streams and nothing else.
 */
import { CID } from 'multiformats/cid'
import { codeOfStream } from '../../close-codes.ts'
import type { Timer } from '../../env.ts'
import { ProtocolError, asError, type Attempt } from '../../errors.ts'
import { readFrames } from '../../frames.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { messageBytes } from '../../limits.ts'
import { Outbound, type OutboundOptions } from '../../outbound.ts'
import type { PeerId } from '../../peer/id.ts'
import type { Blockstore } from '../../store/blocks.ts'
import { newLedger, type Ledger, type Lookup, type Responder } from './ledger.ts'
import type { FetchEvent, Fetcher, Session } from './session.ts'
import { decodeMessage, encodeMessage, protocolIds, versionOf } from './wire.ts'

const what = 'a Bitswap message'

/** What serving needs of a store. With `size`, small blocks go out at once where a peer asks whether we have them. */
export type BlockSource = Pick<Blockstore, 'has' | 'get'> & Partial<Pick<Blockstore, 'size'>>

export interface NetworkOptions extends OutboundOptions {
  /** For the rest of a message that began to arrive. */
  frameTimeoutMs: number
  /** Streams that a peer may have open with us on one connection. */
  inboundStreams: number
  /** A peer that asks whether we have a block of up to this many bytes gets the block. */
  replaceHaveBytes: number
}

/** How wants end. */
export interface Outcome {
  /** `data` is nobody else's. */
  block(key: string, data: Uint8Array): void
  unavailable(key: string, tried: Attempt[], reached: boolean): void
}

interface Link {
  readonly peer: PeerId
  readonly id: string
  readonly wants: Outbound
  readonly replies: Outbound
  readonly ledger: Ledger
  /** What its connections had brought when it was last taken for alive. */
  heardBytes: number
  connecting: boolean
  sendingWants: boolean
  sendingReplies: boolean
  readonly inbound: Set<ProtocolStream>
}

/** Bytes that a peer must have sent since the last look to count as alive: who sends less is as good as silent. */
const heardEveryBytes = 16 * 1024

export class Network {
  readonly #host: Host
  readonly #blocks: BlockSource
  readonly #options: NetworkOptions
  readonly #fetcher: Fetcher
  readonly #responder: Responder
  readonly #outcome: Outcome
  readonly #links = new Map<string, Link>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #undo: (() => void)[] = []
  #stopping = new AbortController()
  #running = false
  #timer: Timer | undefined
  #timerAt = Infinity
  #draining = false
  /** Links whose wants go out at the end of this turn. */
  readonly #scheduled = new Set<Link>()

  constructor(
    host: Host,
    blocks: BlockSource,
    options: NetworkOptions,
    fetcher: Fetcher,
    responder: Responder,
    outcome: Outcome,
  ) {
    this.#host = host
    this.#blocks = blocks
    this.#options = options
    this.#fetcher = fetcher
    this.#responder = responder
    this.#outcome = outcome
  }

  get #now(): number {
    return this.#host.env.clock.now()
  }

  get peers(): number {
    return this.#links.size
  }

  start(): void {
    this.#running = true
    this.#stopping = new AbortController()
    const { limited, inboundStreams: maxInboundStreams } = this.#options
    const handler = (stream: ProtocolStream, { connection }: { connection: Connection }): Promise<void> =>
      this.#inbound(stream, connection)
    this.#host.handle(protocolIds, handler, { limited, maxInboundStreams })
    this.#undo.push(
      () => this.#host.unhandle(protocolIds),
      this.#host.on('peer:disconnect', (peer) => this.#disconnected(peer)),
    )
  }

  async stop(reason: Error): Promise<void> {
    this.#running = false
    for (const undo of this.#undo.splice(0)) undo()
    this.#stopping.abort(reason)
    this.#timer?.cancel()
    this.#timer = undefined
    this.#timerAt = Infinity
    for (const link of this.#links.values()) {
      this.#responder.disconnect(link.id)
      this.#close(link)
    }
    this.#links.clear()
    await Promise.all(this.#tasks)
  }

  want(key: string, cid: Uint8Array, session: Session, peers: readonly PeerId[]): void {
    const ids = peers.map((peer) => this.#link(peer).id)
    this.#fetcher.want(key, cid, session, ids, this.#now)
    this.#drain()
  }

  cancel(key: string): void {
    this.#fetcher.cancel(key, this.#now)
    this.#drain()
  }

  notify(keys: Iterable<string>): void {
    this.#responder.notify(keys)
    this.#lookUp()
  }

  ledgers(): ({ peer: string } & Ledger)[] {
    return Array.from(this.#links.values(), ({ id, ledger }) => ({ peer: id, ...ledger }))
  }

  #link(peer: PeerId): Link {
    const id = peer.toString()
    let link = this.#links.get(id)
    if (link === undefined) {
      link = {
        peer,
        id,
        wants: new Outbound(this.#host, peer, this.#options, {
          protocols: protocolIds,
          what,
          onLost: () => {
            // Wants may have been lost with it.
            this.#fetcher.resync(id)
            this.#drain()
          },
        }),
        replies: new Outbound(this.#host, peer, this.#options, { protocols: protocolIds, what }),
        ledger: newLedger(),
        heardBytes: 0,
        connecting: false,
        sendingWants: false,
        sendingReplies: false,
        inbound: new Set(),
      }
      this.#links.set(id, link)
    }
    return link
  }

  #close(link: Link): void {
    link.wants.close()
    link.replies.close()
    for (const stream of link.inbound) stream.reset()
    link.inbound.clear()
  }

  #forget(link: Link): void {
    this.#links.delete(link.id)
    this.#responder.disconnect(link.id)
    this.#close(link)
  }

  #disconnected(peer: PeerId): void {
    const link = this.#links.get(peer.toString())
    if (link === undefined) return
    this.#forget(link)
    // Asks for a new connection, and so for a new link, while blocks are wanted from this peer.
    this.#fetcher.gone(link.id, 'connection lost', true, this.#now)
    this.#drain(peer)
  }

  #run(task: Promise<void>): void {
    const done = task
      .catch((error: unknown) => this.#host.env.trace?.('bitswap.error', { error: asError(error) }))
      .finally(() => this.#tasks.delete(done))
    this.#tasks.add(done)
  }

  /** Carries out the fetcher's events. `lost` is the peer whose link was just taken away. */
  #drain(lost?: PeerId): void {
    if (this.#draining || !this.#running) return
    this.#draining = true
    try {
      for (let event = this.#fetcher.next(); event !== undefined; event = this.#fetcher.next()) this.#event(event, lost)
    } finally {
      this.#draining = false
    }
    const { deadline } = this.#fetcher
    if (deadline === Infinity) {
      this.#timer?.cancel()
      this.#timerAt = Infinity
    }
    if (deadline >= this.#timerAt) return
    this.#timer?.cancel()
    this.#timerAt = deadline
    this.#timer = this.#host.env.clock.setTimer(deadline - this.#now, () => {
      this.#timerAt = Infinity
      this.#timer = undefined
      this.#listen()
      if (this.#now >= this.#fetcher.deadline) this.#fetcher.tick(this.#now)
      this.#drain()
    })
  }

  /** Tells the fetcher of peers that keep sending. */
  #listen(): void {
    for (const link of this.#links.values()) {
      const bytes = this.#host.connections(link.peer).reduce((sum, { bytesIn }) => sum + bytesIn, 0)
      if (Math.abs(bytes - link.heardBytes) < heardEveryBytes) continue
      link.heardBytes = bytes
      this.#fetcher.heard(link.id, this.#now)
    }
  }

  #event(event: FetchEvent, lost: PeerId | undefined): void {
    switch (event.type) {
      case 'connect': {
        const link = this.#links.get(event.peer) ?? (lost?.toString() === event.peer ? this.#link(lost) : undefined)
        if (link !== undefined) this.#run(this.#connect(link))
        break
      }
      case 'send': {
        const link = this.#links.get(event.peer)
        if (link !== undefined) this.#schedule(link)
        break
      }
      case 'block':
        this.#outcome.block(event.key, owned(event.data))
        break
      case 'unavailable':
        this.#outcome.unavailable(event.key, event.tried, event.reached)
        break
      case 'violation': {
        const link = this.#links.get(event.peer)
        if (link !== undefined) this.#violated(link, event.error)
        break
      }
    }
  }

  #violated(link: Link, error: ProtocolError): void {
    link.ledger.violation = error.message
    this.#host.env.trace?.('bitswap.violation', { peer: link.id, error })
    this.#responder.disconnect(link.id)
    for (const stream of link.inbound) stream.reset(codeOfStream(error), error)
    link.inbound.clear()
  }

  async #connect(link: Link): Promise<void> {
    if (link.connecting) return
    link.connecting = true
    try {
      const version = versionOf(await link.wants.ensure())
      this.#fetcher.ready(link.id, version === '1.2', this.#now)
    } catch (error) {
      this.#lost(link, asError(error).message)
    } finally {
      link.connecting = false
    }
    this.#drain()
  }

  #lost(link: Link, reason: string): void {
    if (this.#links.get(link.id) !== link) return
    this.#fetcher.gone(link.id, reason, false, this.#now)
    if (this.#host.connections(link.peer).length === 0) this.#forget(link)
  }

  /** Wants of one turn of the event loop share a message. */
  #schedule(link: Link): void {
    this.#scheduled.add(link)
    if (this.#scheduled.size > 1) return
    this.#host.env.turn(() => {
      const links = [...this.#scheduled]
      this.#scheduled.clear()
      for (const each of links) if (this.#links.get(each.id) === each) this.#run(this.#sendWants(each))
    })
  }

  async #sendWants(link: Link): Promise<void> {
    if (link.sendingWants) return
    link.sendingWants = true
    let again = true
    try {
      for (let m = this.#fetcher.transmit(link.id); m !== undefined; m = this.#fetcher.transmit(link.id)) {
        const message = m
        try {
          await link.wants.send((protocol) => encodeMessage(message, versionOf(protocol)))
          again = true
        } catch (error) {
          // The peer may have let go of an idle stream: once more on a fresh one.
          if (!again || this.#links.get(link.id) !== link) throw error
          again = false
          this.#fetcher.resync(link.id)
        }
      }
    } catch (error) {
      this.#lost(link, asError(error).message)
    } finally {
      link.sendingWants = false
    }
    this.#drain()
  }

  async #inbound(stream: ProtocolStream, connection: Connection): Promise<void> {
    const link = this.#link(connection.peer)
    link.inbound.add(stream)
    try {
      // Nothing is ever answered on the peer's stream.
      await stream.closeWrite()
      const { frameTimeoutMs } = this.#options
      const limits = { maxBytes: messageBytes, frameTimeoutMs, what }
      await readFrames(stream, this.#host.env, limits, (frame) => this.#receive(link, frame))
    } catch (error) {
      // Not when the stream was reset for a violation that is known already.
      if (error instanceof ProtocolError && link.inbound.has(stream)) {
        this.#violated(link, error)
        // A message cut short may be a peer that went away; the others are lies, and it is asked no more.
        if (error.code !== 'truncated') this.#fetcher.breach(link.id, error, this.#now)
        this.#drain()
      } else this.#host.env.trace?.('bitswap.stream-lost', { peer: link.id, error: asError(error) })
      stream.reset()
    } finally {
      link.inbound.delete(stream)
    }
  }

  #receive(link: Link, frame: Uint8Array): void {
    if (this.#links.get(link.id) !== link) return
    const message = decodeMessage(frame)
    this.#fetcher.receive(link.id, link.ledger, message, this.#now)
    this.#responder.receive(link.id, link.ledger, message)
    this.#drain()
    this.#lookUp()
  }

  #lookUp(): void {
    if (!this.#running) return
    for (let l = this.#responder.nextLookup(); l !== undefined; l = this.#responder.nextLookup()) {
      this.#run(this.#answer(l))
    }
  }

  async #answer(lookup: Lookup): Promise<void> {
    let answer: Uint8Array | boolean = false
    try {
      answer = await this.#find(lookup)
    } catch (error) {
      // A block that cannot be read, or is not what it should be, is not had.
      this.#host.env.trace?.('bitswap.store-error', { peer: lookup.peer, error: asError(error) })
    }
    this.#responder.loaded(lookup, answer)
    const link = this.#links.get(lookup.peer)
    if (link !== undefined && this.#responder.pending(link.id)) this.#run(this.#sendReplies(link))
    this.#lookUp()
  }

  async #find({ cid: bytes, type }: Lookup): Promise<Uint8Array | boolean> {
    const cid = CID.decode(bytes)
    const { signal } = this.#stopping
    if (type === 'have') {
      if (this.#blocks.size === undefined) return this.#blocks.has(cid, { signal })
      const size = await this.#blocks.size(cid, { signal })
      if (size === undefined) return false
      if (size > this.#options.replaceHaveBytes) return true
    }
    return (await this.#blocks.get(cid, { signal })) ?? false
  }

  async #sendReplies(link: Link): Promise<void> {
    if (link.sendingReplies) return
    link.sendingReplies = true
    try {
      for (let r = this.#responder.transmit(link.id); r !== undefined; r = this.#responder.transmit(link.id)) {
        const { message } = r
        const send = (): Promise<void> => link.replies.send((protocol) => encodeMessage(message, versionOf(protocol)))
        await send().catch((error: unknown) => {
          if (this.#links.get(link.id) !== link || this.#host.connections(link.peer).length === 0) throw error
          // The peer may have let go of an idle stream: once more on a fresh one.
          return send()
        })
        this.#responder.sent(r)
        this.#lookUp()
      }
    } catch (error) {
      // Whom we cannot answer, we owe nothing.
      this.#host.env.trace?.('bitswap.reply-lost', { peer: link.id, error: asError(error) })
      this.#responder.disconnect(link.id)
    } finally {
      link.sendingReplies = false
    }
  }
}

/** A block keeps no more foreign bytes alive than it has itself. */
function owned(data: Uint8Array): Uint8Array {
  return 2 * data.length < data.buffer.byteLength ? data.slice() : data
}
