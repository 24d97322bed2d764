/* The streams of one peer: one of ours for messages of one kind, kept open between them, and frames from theirs. */
import { concat } from '../../bytes.ts'
import type { Timer } from '../../env.ts'
import { ClosedError, ProtocolError, TimeoutError } from '../../errors.ts'
import type { Host, ProtocolStream } from '../../host.ts'
import { BufferedStream, prefixed, type Stream } from '../../stream.ts'
import { readVarint, varintLength } from '../../varint.ts'
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

/**
 * Calls `frame` with each length-prefixed message of `stream` until the peer's FIN. A stream may rest between messages
 * for ever, but a message that began must be there within `frameTimeoutMs`. The bytes are the callee's.
 */
export async function readFrames(
  stream: Stream,
  host: Host,
  limits: { maxBytes: number; frameTimeoutMs: number },
  frame: (bytes: Uint8Array) => void,
): Promise<void> {
  const framed = new BufferedStream(stream)
  let timer: Timer | undefined
  const late = (): void => stream.reset(0, new TimeoutError('receiving a Bitswap message', limits.frameTimeoutMs))
  try {
    for (;;) {
      const head = await framed.read()
      if (head === null) return
      const size = readVarint(head)
      const at = size === undefined ? 0 : varintLength(size)
      if (size !== undefined && size > limits.maxBytes)
        throw new ProtocolError('oversized', `message of ${size} bytes, at most ${limits.maxBytes} allowed`)
      if (size === undefined || head.length < at + size) timer ??= host.env.clock.setTimer(limits.frameTimeoutMs, late)
      if (size === undefined) {
        const more = await framed.read()
        if (more === null) throw new ProtocolError('truncated', 'stream ended within a message')
        framed.unread(concat([head, more]))
        continue
      }
      if (at < head.length) framed.unread(head.subarray(at))
      const body = await framed.readExact(size)
      timer?.cancel()
      timer = undefined
      if (size > 0) frame(body)
    }
  } finally {
    timer?.cancel()
  }
}
