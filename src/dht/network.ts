/* Requests to one peer: a stream each, within a deadline, length-prefixed (libp2p kad-dht §RPC messages). */
import { guard } from '../deadline.ts'
import { ProtocolError, UnavailableError } from '../errors.ts'
import type { Connection, Host } from '../host.ts'
import type { Multiaddr } from '../multiaddr.ts'
import type { PeerId } from '../peer/id.ts'
import { BufferedStream, prefixed } from '../stream.ts'
import { decodeMessage, encodeMessage, maxAnswerBytes, type Message } from './wire.ts'

export interface AskOptions {
  signal?: AbortSignal | undefined
}

/** A peer and where it is said to be. */
export interface PeerInfo {
  readonly peer: PeerId
  /** Without /p2p. */
  readonly addrs: readonly Multiaddr[]
}

export class KadNetwork {
  readonly #host: Host
  readonly #protocol: string
  readonly #timeoutMs: number

  /** `timeoutMs` is for a dial, where one is needed, and for the answer, each. */
  constructor(host: Host, protocol: string, timeoutMs: number) {
    this.#host = host
    this.#protocol = protocol
    this.#timeoutMs = timeoutMs
  }

  /** The answer. Rejects with what dialling and streams reject with, and with ProtocolError for an answer that is none. */
  async ask(to: PeerInfo, request: Message, { signal }: AskOptions = {}): Promise<Message> {
    const answer = await this.#exchange(to, request, true, signal)
    if (answer.type !== request.type) {
      throw new ProtocolError('bad-message', `asked for ${request.type}, got an answer to ${answer.type}`)
    }
    return answer
  }

  /** For ADD_PROVIDER, which nobody answers: resolves once the peer has read it and closed the stream. */
  async tell(to: PeerInfo, request: Message, { signal }: AskOptions = {}): Promise<void> {
    await this.#exchange(to, request, false, signal)
  }

  async #exchange(to: PeerInfo, request: Message, answered: boolean, signal?: AbortSignal): Promise<Message> {
    const connection = await this.#connect(to, signal)
    const timeoutMs = this.#timeoutMs
    const stream = await connection.newStream(this.#protocol, { timeoutMs, ...(signal && { signal }) })
    const what = `${request.type} of ${to.peer}`
    return guard(stream, { env: this.#host.env, timeoutMs, what, signal }, async () => {
      await stream.write(...prefixed(encodeMessage(request)))
      await stream.closeWrite()
      if (!answered) {
        stream.closeRead()
        const { reason } = await stream.closed
        if (reason !== undefined) throw reason
        return request
      }
      const frame = await new BufferedStream(stream).readPrefixed(maxAnswerBytes)
      if (frame === null) throw new ProtocolError('truncated', `${to.peer} closed the stream without an answer`)
      stream.closeRead()
      return decodeMessage(frame)
    })
  }

  async #connect({ peer, addrs }: PeerInfo, signal?: AbortSignal): Promise<Connection> {
    const [open] = this.#host.connections(peer)
    if (open !== undefined) return open
    // By its id alone it would be looked for in the DHT, by a lookup within this one.
    if (addrs.length === 0) throw new UnavailableError('no-address', `no address of ${peer} is known`)
    const options = { timeoutMs: this.#timeoutMs, ...(signal && { signal }) }
    return this.#host.dial(
      addrs.map((addr) => addr.withPeer(peer)),
      options,
    )
  }
}
