/* ping 1.0 (libp2p ping/ping.md r0): 32 random bytes, echoed; many rounds may share one stream. */
import { empty, equals } from '../bytes.ts'
import { LazyDeadline, guard, raceAbort, sleep } from '../deadline.ts'
import type { Env } from '../env.ts'
import { ProtocolError, TimeoutError, asError } from '../errors.ts'
import type { Connection, Host } from '../host.ts'
import { deferred, type Deferred } from '../inbox.ts'
import { BufferedStream } from '../stream.ts'

export const pingId = '/ipfs/ping/1.0.0'
const size = 32
const defaultTimeoutMs = 10_000

export interface PingOptions {
  /** Rounds; default 1. */
  count?: number
  /** Between two rounds; default 0. */
  intervalMs?: number
  /** For each round; default 10 s (go-libp2p). */
  timeoutMs?: number
  signal?: AbortSignal
}

/** Answers pings. A peer needs one stream; the spec lets it have two. */
export function servePing(host: Host): void {
  host.handle(
    pingId,
    async (stream, { connection }) => {
      const framed = new BufferedStream(stream)
      const bound = { env: host.env, timeoutMs: defaultTimeoutMs, what: `a ping from ${connection.peer}` }
      for (let chunk = await framed.read(); chunk !== null; chunk = await framed.read()) {
        if (chunk.length === size) {
          await stream.write(chunk)
          continue
        }
        framed.unread(chunk)
        // A stream may rest between pings, but not within one.
        await guard(stream, bound, async () => stream.write(await framed.readExact(size)))
      }
      await stream.closeWrite()
    },
    { limited: true, maxInboundStreams: 2 },
  )
}

/**
 * Our one stream to a peer (ping.md: MUST NOT keep more), shared by all that ping it; rounds take turns on it.
 * A round makes as little garbage as it can: what is collected in the middle of one is counted in.
 */
class Line {
  readonly #env: Env
  readonly #connection: Connection
  readonly #deadline: LazyDeadline
  #stream: BufferedStream | undefined
  #users = 0
  /** A round is under way; those that wait for their turn. */
  #busy = false
  readonly #waiting = new Set<Deferred<void>>()
  /** What was sent in this round, and what ended it before its time. */
  readonly #payload = new Uint8Array(size)
  #drawn: Uint8Array = empty
  #drawnAt = 0
  #cut: Error | undefined
  #timeoutMs = 0
  readonly #late = (): void => this.#end(new TimeoutError(`ping of ${this.#connection.peer}`, this.#timeoutMs))

  constructor(env: Env, connection: Connection) {
    this.#env = env
    this.#connection = connection
    this.#deadline = new LazyDeadline(env.clock)
  }

  enter(): void {
    this.#users++
  }

  /** The last one out closes our side, as the spec wants it, and sees to it that the peer closes its own. */
  leave(): void {
    const stream = this.#stream
    if (--this.#users > 0) return
    this.#deadline.stop()
    if (stream === undefined) return
    this.#stream = undefined
    const bound = { env: this.#env, timeoutMs: defaultTimeoutMs, what: 'the end of a ping' }
    const closing = guard(stream, bound, async () => {
      await stream.closeWrite()
      if ((await stream.read()) !== null) throw new ProtocolError('bad-message', 'more came back than was sent')
    })
    // The guard has reset the stream; there is nobody to tell.
    closing.catch(() => {})
  }

  /** Milliseconds there and back, behind the rounds that wait already. */
  round(timeoutMs: number, signal: AbortSignal | undefined): Promise<number> {
    return this.#busy
      ? this.#turn(signal).then(() => this.#measure(timeoutMs, signal))
      : this.#measure(timeoutMs, signal)
  }

  async #turn(signal: AbortSignal | undefined): Promise<void> {
    const turn = deferred<void>()
    this.#waiting.add(turn)
    try {
      await raceAbort(turn.promise, signal)
    } catch (error) {
      // It may have been given the turn in the same breath.
      if (!this.#waiting.delete(turn)) this.#next()
      throw error
    }
  }

  #next(): void {
    const [turn] = this.#waiting
    this.#busy = turn !== undefined
    if (turn === undefined) return
    this.#waiting.delete(turn)
    turn.resolve()
  }

  #end(reason: Error): void {
    this.#cut ??= reason
    this.#stream?.reset(0, reason)
  }

  async #open(timeoutMs: number, signal: AbortSignal | undefined): Promise<BufferedStream> {
    // Nearly everybody has it: the first round need not wait for identify, nor for the negotiation.
    const options = { timeoutMs, limited: true, optimistic: true, ...(signal && { signal }) }
    return (this.#stream = new BufferedStream(await this.#connection.newStream(pingId, options)))
  }

  /** Drawn for many rounds at once. */
  #random(): Uint8Array {
    if (this.#drawnAt === this.#drawn.length) {
      this.#drawn = this.#env.random.bytes(32 * size)
      this.#drawnAt = 0
    }
    return this.#drawn.slice(this.#drawnAt, (this.#drawnAt += size))
  }

  async #measure(timeoutMs: number, signal: AbortSignal | undefined): Promise<number> {
    const { clock } = this.#env
    this.#busy = true
    this.#cut = undefined
    this.#timeoutMs = timeoutMs
    const onAbort = signal && ((): void => this.#end(asError(signal.reason)))
    if (onAbort !== undefined) signal?.addEventListener('abort', onAbort, { once: true })
    try {
      const stream = this.#stream ?? (await this.#open(timeoutMs, signal))
      if (signal?.aborted === true) onAbort?.()
      const payload = this.#random()
      this.#payload.set(payload)
      this.#deadline.set(timeoutMs, this.#late)
      // Behind the deadline's own work, which is no part of the way.
      const startedAt = clock.now()
      await stream.write(payload)
      let back = await stream.read()
      if (back?.length !== size) {
        if (back !== null) stream.unread(back)
        back = await stream.readExact(size)
      }
      const rttMs = clock.now() - startedAt
      if (!equals(back, this.#payload)) throw new ProtocolError('bad-message', 'ping came back changed')
      return rttMs
    } catch (error) {
      this.#stream?.reset(0, asError(error))
      this.#stream = undefined
      throw this.#cut ?? error
    } finally {
      this.#deadline.clear()
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      this.#next()
    }
  }
}

const lines = new WeakMap<Connection, Line>()

/**
 * Round trips in milliseconds, one after the other; `to` may have to be dialled first. Rejects with TimeoutError, ProtocolError, ClosedError,
 * UnavailableError or signal.reason.
 */
export async function* ping(
  host: Host,
  to: Connection | (() => Promise<Connection>),
  options: PingOptions = {},
): AsyncGenerator<number, void, undefined> {
  const { count = 1, intervalMs = 0, timeoutMs = defaultTimeoutMs, signal } = options
  const connection = typeof to === 'function' ? await to() : to
  let line = lines.get(connection)
  if (line === undefined) lines.set(connection, (line = new Line(host.env, connection)))
  line.enter()
  let inside = true
  const leave = (): void => {
    if (inside) line.leave()
    inside = false
  }
  try {
    for (let round = 1; round <= count; round++) {
      if (round > 1 && intervalMs > 0) await sleep(host.env, intervalMs, signal)
      const rttMs = await line.round(timeoutMs, signal)
      // Whoever takes the last one may never come back for the end.
      if (round === count) leave()
      yield rttMs
    }
  } finally {
    leave()
  }
}
