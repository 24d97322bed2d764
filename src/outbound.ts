/* Our stream to one peer, of a protocol in which each side sends on a stream of its own and answers come on the other's. */
import { LazyDeadline } from './deadline.ts'
import { ClosedError, TimeoutError } from './errors.ts'
import type { Host, ProtocolStream } from './host.ts'
import type { PeerId } from './peer/id.ts'
import { prefixed } from './stream.ts'

export interface OutboundOptions {
  /** Dial and negotiation. */
  openTimeoutMs: number
  /** A message that the wire does not take for this long ends the stream. */
  sendTimeoutMs: number
  /** Also over relayed connections with a budget. */
  limited: boolean
  /** The stream is closed after so long without a message. Default: it is kept. */
  idleStreamMs?: number
}

export interface OutboundParts {
  /** Ids in the order of our liking. */
  protocols: readonly string[]
  /** What is sent: the subject of errors. */
  what: string
  /** Hears that the peer let go of the stream. */
  onLost?: () => void
}

/** Opened when needed, kept while it is used, opened again when the peer let go of it. */
export class Outbound {
  readonly #host: Host
  readonly #peer: PeerId
  readonly #options: OutboundOptions
  readonly #parts: OutboundParts
  readonly #stop = new AbortController()
  readonly #idle: LazyDeadline
  readonly #late: LazyDeadline
  #stream: ProtocolStream | undefined

  constructor(host: Host, peer: PeerId, options: OutboundOptions, parts: OutboundParts) {
    this.#host = host
    this.#peer = peer
    this.#options = options
    this.#parts = parts
    this.#idle = new LazyDeadline(host.env.clock)
    this.#late = new LazyDeadline(host.env.clock)
  }

  get open(): boolean {
    return this.#stream !== undefined
  }

  /** The protocol that the peer speaks. Rejects as Host.newStream does. One call at a time. */
  async ensure(): Promise<string> {
    return (this.#stream ?? (await this.#open())).protocol
  }

  async #open(): Promise<ProtocolStream> {
    const { openTimeoutMs: timeoutMs, limited } = this.#options
    const { signal } = this.#stop
    const stream = await this.#host.newStream(this.#peer, this.#parts.protocols, { signal, timeoutMs, limited })
    if (signal.aborted) {
      stream.reset()
      throw new ClosedError('link closed', { by: 'local', code: 0 })
    }
    // Answers come on the peer's own stream.
    stream.closeRead()
    this.#stream = stream
    void stream.closed.then(() => {
      if (this.#stream !== stream) return
      this.#stream = undefined
      this.#parts.onLost?.()
    })
    return stream
  }

  /** Writes one message; resolves when the wire took it. Rejects with TimeoutError where it does not. One call at a time. */
  async send(encode: (protocol: string) => Uint8Array[]): Promise<void> {
    this.#idle.clear()
    const stream = this.#stream ?? (await this.#open())
    const { sendTimeoutMs, idleStreamMs } = this.#options
    let late: TimeoutError | undefined
    try {
      const written = stream.write(...prefixed(...encode(stream.protocol)))
      this.#late.set(sendTimeoutMs, () => {
        late = new TimeoutError(`sending ${this.#parts.what}`, sendTimeoutMs)
        stream.reset(0, late)
      })
      await written
    } catch (error) {
      if (this.#stream === stream) this.#stream = undefined
      stream.reset()
      throw late ?? error
    } finally {
      this.#late.clear()
    }
    if (idleStreamMs !== undefined && !this.#stop.signal.aborted) this.#idle.set(idleStreamMs, () => this.#finish())
  }

  /** A FIN where the peer still listens; nobody waits for it. */
  #finish(): void {
    const stream = this.#stream
    this.#stream = undefined
    stream?.closeWrite().catch(() => stream.reset())
  }

  close(): void {
    this.#idle.stop()
    this.#late.stop()
    this.#stop.abort(new ClosedError('link closed', { by: 'local', code: 0 }))
    this.#finish()
  }
}
