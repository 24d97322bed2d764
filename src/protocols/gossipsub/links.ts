/*
 * The router's streams: one of ours to each peer, kept open, and the peer's to us (pubsub §Stream management). Frames go
 * in as they come; what the router has for a peer goes out when this turn of the event loop is over, as far as the wire
 * takes it. One peer's trouble ends its own streams and nothing else.
 */
import { codeOfStream } from '../../close-codes.ts'
import { LazyDeadline, sleep } from '../../deadline.ts'
import { TimeoutError, asError } from '../../errors.ts'
import { readFrames } from '../../frames.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { deferred, type Deferred } from '../../inbox.ts'
import { formatIp } from '../../ip.ts'
import { ipOf } from '../../multiaddr.ts'
import type { PeerId } from '../../peer/id.ts'
import type { Version } from './peers.ts'
import type { Router } from './router.ts'
import { floodsubId, meshsubIds } from './wire.ts'

export interface LinkOptions {
  /** Newest first. Default: all of them. */
  protocols: readonly string[]
  /** An RPC. Default 1 MiB and what a message takes besides its data: 1,114,112 bytes. */
  maxRpcBytes: number
  /** Negotiating a stream. Default 10 s. */
  openTimeoutMs: number
  /** For the rest of an RPC that began to arrive. Default 30 s. */
  frameTimeoutMs: number
  /** An RPC that the wire does not take for so long ends the stream. Default 30 s. */
  sendTimeoutMs: number
  /** Messages of one peer whose signature is being checked: nothing more is read from it meanwhile. Default 128. */
  maxCheckingPerPeer: number
}

export const linkDefaults: LinkOptions = {
  protocols: [...meshsubIds, floodsubId],
  maxRpcBytes: 1024 * 1024 + 64 * 1024,
  openTimeoutMs: 10_000,
  frameTimeoutMs: 30_000,
  sendTimeoutMs: 30_000,
  maxCheckingPerPeer: 128,
}

const versions: ReadonlyMap<string, Version> = new Map([
  [floodsubId, 0],
  ['/meshsub/1.0.0', 10],
  ['/meshsub/1.1.0', 11],
  ['/meshsub/1.2.0', 12],
  ['/meshsub/1.3.0', 13],
])

/** A stream that the peer let go of is opened again after so long, twice as long each time, so often. */
const reopenMs = 1_000
const maxReopens = 6

interface Link {
  readonly peer: PeerId
  readonly id: string
  outbound: ProtocolStream | undefined
  opening: boolean
  reopens: number
  sending: boolean
  readonly late: LazyDeadline
  inbound: ProtocolStream | undefined
  /** Waits until fewer of its messages are being checked. */
  paused: Deferred<void> | undefined
}

export interface LinkEvents {
  /** The router has something new to say or to do. */
  changed(): void
  /** Messages of our own were handed to the wire for this peer. */
  sent(peer: PeerId, ids: readonly string[]): void
}

export class Links {
  readonly #host: Host
  readonly #router: Router
  readonly #options: LinkOptions
  readonly #events: LinkEvents
  readonly #links = new Map<string, Link>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #undo: (() => void)[] = []
  #stop = new AbortController()

  constructor(host: Host, router: Router, options: LinkOptions, events: LinkEvents) {
    this.#host = host
    this.#router = router
    this.#options = options
    this.#events = events
  }

  get #now(): number {
    return this.#host.env.clock.now()
  }

  peer(id: string): PeerId | undefined {
    return this.#links.get(id)?.peer
  }

  start(): void {
    this.#stop = new AbortController()
    const host = this.#host
    const { protocols } = this.#options
    host.handle(protocols, (stream, { connection }) => this.#inbound(stream, connection), { maxInboundStreams: 4 })
    this.#undo.push(
      () => host.unhandle(protocols),
      host.on('connection:open', (connection) => this.#connected(connection)),
      host.on('peer:identify', ({ connection }) => this.#identified(connection)),
      host.on('connection:close', ({ peer }) => this.#router.moved(peer.toString(), this.#ips(peer))),
      host.on('peer:disconnect', (peer) => this.#disconnected(peer)),
    )
    for (const connection of host.connections()) {
      this.#connected(connection)
      this.#identified(connection)
    }
  }

  async stop(reason: Error): Promise<void> {
    for (const undo of this.#undo.splice(0)) undo()
    this.#stop.abort(reason)
    for (const { peer } of this.#links.values()) this.#disconnected(peer)
    await Promise.all(this.#tasks)
  }

  #run(task: Promise<void>): void {
    const done = task
      .catch((error: unknown) => this.#host.env.trace?.('gossipsub.failed', { error: asError(error) }))
      .finally(() => this.#tasks.delete(done))
    this.#tasks.add(done)
  }

  #connected({ peer, direction, limited }: Connection): void {
    if (limited !== undefined) return
    const id = peer.toString()
    if (!this.#links.has(id)) {
      this.#links.set(id, {
        peer,
        id,
        outbound: undefined,
        opening: false,
        reopens: 0,
        sending: false,
        late: new LazyDeadline(this.#host.env.clock),
        inbound: undefined,
        paused: undefined,
      })
    }
    this.#router.connected(
      id,
      { bytes: peer.bytes, outbound: direction === 'outbound', ips: this.#ips(peer) },
      this.#now,
    )
    this.#events.changed()
  }

  /** Where a peer is connected from, for the score's P6. */
  #ips(peer: PeerId): string[] {
    const ips = new Set<string>()
    for (const { remoteAddr } of this.#host.connections(peer)) {
      const ip = ipOf(remoteAddr)
      if (ip !== undefined) ips.add(formatIp(ip))
    }
    return [...ips]
  }

  #identified({ peer, protocols }: Connection): void {
    const link = this.#links.get(peer.toString())
    if (link !== undefined && protocols?.some((id) => this.#options.protocols.includes(id)) === true) this.#open(link)
  }

  #disconnected(peer: PeerId): void {
    const link = this.#links.get(peer.toString())
    if (link === undefined) return
    this.#links.delete(link.id)
    const { outbound, inbound } = link
    link.outbound = link.inbound = undefined
    // A FIN where the peer still listens; nobody waits for it.
    outbound?.closeWrite().catch(() => outbound.reset())
    inbound?.reset()
    link.late.stop()
    link.paused?.resolve()
    this.#router.disconnected(link.id, this.#now)
    this.#events.changed()
  }

  #open(link: Link): void {
    if (link.outbound !== undefined || link.opening) return
    link.opening = true
    this.#run(this.#opened(link).finally(() => (link.opening = false)))
  }

  async #opened(link: Link): Promise<void> {
    const { signal } = this.#stop
    const { protocols, openTimeoutMs: timeoutMs } = this.#options
    let stream: ProtocolStream
    try {
      stream = await this.#host.newStream(link.peer, protocols, { signal, timeoutMs })
    } catch (error) {
      this.#host.env.trace?.('gossipsub.stream-failed', { peer: link.peer, error: asError(error) })
      if (this.#links.get(link.id) === link) this.#reopen(link)
      return
    }
    if (signal.aborted || this.#links.get(link.id) !== link) {
      stream.reset()
      return
    }
    // The peer's RPCs come on its own stream.
    stream.closeRead()
    link.outbound = stream
    this.#router.opened(link.id, versions.get(stream.protocol) ?? 10, this.#now)
    this.#events.changed()
    void stream.closed.then(() => this.#lost(link, stream))
  }

  /** Our stream to it is gone; with the connection still there it is opened again, not at once. */
  #lost(link: Link, stream: ProtocolStream): void {
    if (link.outbound !== stream) return
    link.outbound = undefined
    this.#reopen(link)
  }

  #reopen(link: Link): void {
    // It may have grafted us meanwhile: who can't be written to has no place in a mesh.
    this.#router.closed(link.id)
    this.#events.changed()
    if (link.reopens >= maxReopens || this.#stop.signal.aborted) return
    const waitMs = reopenMs * 2 ** link.reopens++
    this.#run(
      sleep(this.#host.env, waitMs, this.#stop.signal).then(
        () => {
          if (this.#links.get(link.id) === link) this.#open(link)
        },
        () => {},
      ),
    )
  }

  async #inbound(stream: ProtocolStream, connection: Connection): Promise<void> {
    const link = this.#links.get(connection.peer.toString())
    if (link === undefined) {
      stream.reset()
      return
    }
    // The newest counts (go-libp2p-pubsub): a peer that lost its stream does not know that we have not.
    link.inbound?.reset()
    link.inbound = stream
    this.#router.greeted(link.id)
    // It speaks pubsub, whatever identify has said so far.
    this.#open(link)
    const { maxRpcBytes: maxBytes, frameTimeoutMs } = this.#options
    try {
      // A new stream is no way round the wait of an old one.
      await link.paused?.promise
      await readFrames(stream, this.#host.env, { maxBytes, frameTimeoutMs, what: 'an RPC' }, (frame) =>
        this.#received(link, stream, frame),
      )
      await stream.closeWrite()
    } catch (error) {
      if (link.inbound === stream) {
        this.#host.env.trace?.('gossipsub.stream-lost', { peer: link.peer, error: asError(error) })
      }
      stream.reset(codeOfStream(asError(error)), asError(error))
    } finally {
      if (link.inbound === stream) link.inbound = undefined
    }
  }

  #received(link: Link, stream: ProtocolStream, frame: Uint8Array): void | Promise<void> {
    if (link.inbound !== stream) return
    this.#router.receive(link.id, frame, this.#now)
    this.#events.changed()
    if ((this.#router.peer(link.id)?.checking ?? 0) < this.#options.maxCheckingPerPeer) return
    // Its own window fills while we are busy with what it sent.
    link.paused ??= deferred()
    return link.paused.promise
  }

  /** A check of a message is over: who waited for it may go on. */
  checked(sender: string): void {
    const link = this.#links.get(sender)
    if (link?.paused === undefined) return
    if ((this.#router.peer(sender)?.checking ?? 0) > this.#options.maxCheckingPerPeer / 2) return
    link.paused.resolve()
    link.paused = undefined
  }

  /** The peer broke the protocol: its stream is reset. */
  refuse(id: string, error: Error): void {
    const link = this.#links.get(id)
    this.#host.env.trace?.('gossipsub.violation', { peer: link?.peer ?? id, error })
    link?.inbound?.reset(codeOfStream(error), error)
  }

  /** Sends what there is for these peers, as far as the wire takes it. */
  flush(ids: Iterable<string>): void {
    for (const id of ids) {
      const link = this.#links.get(id)
      if (link?.outbound === undefined || link.sending) continue
      this.#run(this.#send(link, link.outbound))
    }
  }

  async #send(link: Link, stream: ProtocolStream): Promise<void> {
    const { late } = link
    const { sendTimeoutMs } = this.#options
    link.sending = true
    try {
      for (;;) {
        const tx = this.#router.transmit(link.id, this.#now)
        if (tx === undefined) {
          // What is held back for a turn wants another one.
          this.#events.changed()
          return
        }
        late.set(sendTimeoutMs, () => stream.reset(0, new TimeoutError('sending an RPC', sendTimeoutMs)))
        await stream.write(...tx.chunks)
        late.clear()
        link.reopens = 0
        if (tx.own.length > 0) this.#events.sent(link.peer, tx.own)
      }
    } catch (error) {
      stream.reset(undefined, asError(error))
    } finally {
      late.clear()
      link.sending = false
    }
  }
}
