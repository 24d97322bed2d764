/* The streams of one peer: one of ours, kept open between messages, and messages from the peer's. */
import { concat } from '../../bytes.ts'
import { LazyDeadline } from '../../deadline.ts'
import type { Timer } from '../../env.ts'
import { ClosedError, ProtocolError, TimeoutError } from '../../errors.ts'
import type { Host, ProtocolStream } from '../../host.ts'
import type { PeerId } from '../../peer/id.ts'
import { BufferedStream, prefixed, type Stream } from '../../stream.ts'
import { readVarint, varintLength } from '../../varint.ts'
import { protocolId } from './wire.ts'

export interface LinkOptions {
  /** Dial and negotiation. */
  openTimeoutMs: number
  /** A message that the wire does not take for this long ends the stream. */
  sendTimeoutMs: number
  /** Our stream is closed after so long without a message: go-graphsync resets it after 10 s. */
  idleStreamMs: number
  /** Also over relayed connections with a budget. */
  limited: boolean
}

/** Our stream to one peer: opened when needed, kept while it is used, opened again when the peer let go of it. */
export class Outbound {
  readonly #host: Host
  readonly #peer: PeerId
  readonly #options: LinkOptions
  readonly #stop = new AbortController()
  readonly #onLost: () => void
  readonly #idle: LazyDeadline
  #stream: ProtocolStream | undefined

  /** `onLost` hears that the peer let go of the stream. */
  constructor(host: Host, peer: PeerId, options: LinkOptions, onLost: () => void) {
    this.#host = host
    this.#peer = peer
    this.#options = options
    this.#onLost = onLost
    this.#idle = new LazyDeadline(host.env.clock)
  }

  async #open(): Promise<ProtocolStream> {
    const { openTimeoutMs: timeoutMs, limited } = this.#options
    const { signal } = this.#stop
    const stream = await this.#host.newStream(this.#peer, protocolId, { signal, timeoutMs, limited })
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
      this.#onLost()
    })
    return stream
  }

  /** Writes one message; resolves when the wire took it. Rejects with TimeoutError where it does not. One call at a time. */
  async send(message: Uint8Array[]): Promise<void> {
    this.#idle.clear()
    const stream = this.#stream ?? (await this.#open())
    const { sendTimeoutMs, idleStreamMs } = this.#options
    let timer: Timer | undefined
    let late: TimeoutError | undefined
    try {
      const written = stream.write(...prefixed(...message))
      timer = this.#host.env.clock.setTimer(sendTimeoutMs, () => {
        late = new TimeoutError('sending a GraphSync message', sendTimeoutMs)
        stream.reset(0, late)
      })
      await written
    } catch (error) {
      if (this.#stream === stream) this.#stream = undefined
      stream.reset()
      throw late ?? error
    } finally {
      timer?.cancel()
    }
    this.#idle.set(idleStreamMs, () => this.#finish())
  }

  /** A FIN where the peer still listens; nobody waits for it. */
  #finish(): void {
    const stream = this.#stream
    this.#stream = undefined
    stream?.closeWrite().catch(() => stream.reset())
  }

  close(): void {
    this.#idle.stop()
    this.#stop.abort(new ClosedError('link closed', { by: 'local', code: 0 }))
    this.#finish()
  }
}

/**
 * Calls `frame` with each length-prefixed message of `stream` until the peer's FIN, and waits for what it returns before
 * it reads on. A stream may rest between messages for ever, but one that began must be there within `frameTimeoutMs`.
 */
export async function readFrames(
  stream: Stream,
  host: Host,
  limits: { maxBytes: number; frameTimeoutMs: number },
  frame: (bytes: Uint8Array) => Promise<void> | undefined,
): Promise<void> {
  const framed = new BufferedStream(stream)
  let timer: Timer | undefined
  const late = (): void => stream.reset(0, new TimeoutError('receiving a GraphSync message', limits.frameTimeoutMs))
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
      const room = size > 0 ? frame(body) : undefined
      if (room !== undefined) await room
    }
  } finally {
    timer?.cancel()
  }
}
