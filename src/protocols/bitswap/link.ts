/* Our stream to one peer, for messages of one kind. */
import type { Timer } from '../../env.ts'
import { ClosedError, TimeoutError } from '../../errors.ts'
import type { Host, ProtocolStream } from '../../host.ts'
import { prefixed } from '../../stream.ts'
import type { PeerId } from '../../peer/id.ts'
import { protocolIds, versionOf, type Version } from './wire.ts'

export interface LinkOptions {
  /** Dial and negotiation. */
  openTimeoutMs: number
  /** A message that the wire does not take for this long ends the stream. */
  sendTimeoutMs: number
  /** Also over relayed connections with a budget. */
  limited: boolean
}

/** Our stream to one peer for messages of one kind: opened when needed, kept, opened again when the peer let go of it. */
export class Outbound {
  readonly #host: Host
  readonly #peer: PeerId
  readonly #options: LinkOptions
  readonly #stop = new AbortController()
  readonly #onLost: () => void
  #stream: ProtocolStream | undefined

  /** `onLost` hears that the peer let go of the stream. */
  constructor(host: Host, peer: PeerId, options: LinkOptions, onLost: () => void = () => {}) {
    this.#onLost = onLost
    this.#host = host
    this.#peer = peer
    this.#options = options
  }

  get open(): boolean {
    return this.#stream !== undefined
  }

  /** The version the peer speaks. Rejects as Host.newStream does. One call at a time. */
  async ensure(): Promise<Version> {
    return versionOf((this.#stream ?? (await this.#open())).protocol)
  }

  async #open(): Promise<ProtocolStream> {
    const { openTimeoutMs: timeoutMs, limited } = this.#options
    const { signal } = this.#stop
    const stream = await this.#host.newStream(this.#peer, protocolIds, { signal, timeoutMs, limited })
    if (signal.aborted) {
      stream.reset()
      throw new ClosedError('link closed', { by: 'local', code: 0 })
    }
    // Answers come on the peer's own streams.
    stream.closeRead()
    this.#stream = stream
    void stream.closed.then(() => {
      if (this.#stream !== stream) return
      this.#stream = undefined
      this.#onLost()
    })
    return stream
  }

  /** Writes one message; resolves when the wire took it. One call at a time. */
  async send(encode: (version: Version) => Uint8Array[]): Promise<void> {
    const stream = this.#stream ?? (await this.#open())
    const { sendTimeoutMs } = this.#options
    let timer: Timer | undefined
    try {
      const written = stream.write(...prefixed(...encode(versionOf(stream.protocol))))
      timer = this.#host.env.clock.setTimer(sendTimeoutMs, () =>
        stream.reset(0, new TimeoutError('sending a Bitswap message', sendTimeoutMs)),
      )
      await written
    } catch (error) {
      if (this.#stream === stream) this.#stream = undefined
      stream.reset()
      throw error
    } finally {
      timer?.cancel()
    }
  }

  close(): void {
    this.#stop.abort(new ClosedError('link closed', { by: 'local', code: 0 }))
    const stream = this.#stream
    this.#stream = undefined
    // A FIN where the peer still listens; nobody waits for it.
    stream?.closeWrite().catch(() => stream.reset())
  }
}
