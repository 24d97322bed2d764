/* ping 1.0 (libp2p ping/ping.md r0): 32 random bytes, echoed; many rounds may share one stream. */
import { equals } from '../bytes.ts'
import { LazyDeadline, guard, raceAbort, sleep } from '../deadline.ts'
import type { Env } from '../env.ts'
import { ProtocolError, TimeoutError, asError } from '../errors.ts'
import type { Connection, Host } from '../host.ts'
import { done } from '../inbox.ts'
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

/** Our one stream to a peer (ping.md: MUST NOT keep more), shared by all that ping it; rounds take turns on it. */
class Line {
  readonly #env: Env
  readonly #connection: Connection
  readonly #deadline: LazyDeadline
  #stream: BufferedStream | undefined
  #users = 0
  #last: Promise<unknown> = done

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
    const before = this.#last
    const free = before === done
    const mine = free
      ? this.#measure(timeoutMs, signal)
      : raceAbort(before, signal).then(() => this.#measure(timeoutMs, signal))
    const over = (): void => {
      if (this.#last === last) this.#last = done
    }
    const last: Promise<unknown> = free ? mine.then(over, over) : Promise.allSettled([before, mine]).then(over)
    this.#last = last
    return mine
  }

  async #measure(timeoutMs: number, signal: AbortSignal | undefined): Promise<number> {
    const { clock, random } = this.#env
    const open = { timeoutMs, limited: true, ...(signal && { signal }) }
    const stream = (this.#stream ??= new BufferedStream(await this.#connection.newStream(pingId, open)))
    const payload = random.bytes(size)
    let cut: Error | undefined
    const end = (reason: Error): void => {
      cut ??= reason
      stream.reset(0, reason)
    }
    const onAbort = (): void => end(asError(signal?.reason))
    if (signal?.aborted === true) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
    this.#deadline.set(timeoutMs, () => end(new TimeoutError(`ping of ${this.#connection.peer}`, timeoutMs)))
    try {
      // Behind the deadline's own work, which is no part of the way.
      const startedAt = clock.now()
      await stream.write(payload.slice())
      const back = await stream.readExact(size)
      const rttMs = clock.now() - startedAt
      if (!equals(back, payload)) throw new ProtocolError('bad-message', 'ping came back changed')
      return rttMs
    } catch (error) {
      stream.reset(0, asError(error))
      if (this.#stream === stream) this.#stream = undefined
      throw cut ?? error
    } finally {
      this.#deadline.clear()
      signal?.removeEventListener('abort', onAbort)
    }
  }
}

const lines = new WeakMap<Connection, Line>()

/**
 * Round trips in milliseconds, one after the other. Rejects with TimeoutError, ProtocolError, ClosedError,
 * UnavailableError or signal.reason.
 */
export async function* ping(
  host: Host,
  connection: Connection,
  options: PingOptions = {},
): AsyncGenerator<number, void, undefined> {
  const { count = 1, intervalMs = 0, timeoutMs = defaultTimeoutMs, signal } = options
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
