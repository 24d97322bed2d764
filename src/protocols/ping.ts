/* ping 1.0 (libp2p ping/ping.md r0): 32 random bytes, echoed; many rounds may share one stream. */
import { equals } from '../bytes.ts'
import { guard, sleep } from '../deadline.ts'
import { ProtocolError } from '../errors.ts'
import type { Connection, Host } from '../host.ts'
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

/** Round trips in milliseconds, one after the other. Rejects with TimeoutError, ProtocolError, ClosedError. */
export async function* ping(
  host: Host,
  connection: Connection,
  options: PingOptions = {},
): AsyncGenerator<number, void, undefined> {
  const { count = 1, intervalMs = 0, timeoutMs = defaultTimeoutMs, signal } = options
  const { clock, random } = host.env
  const stream = await connection.newStream(pingId, { timeoutMs, limited: true, ...(signal && { signal }) })
  const framed = new BufferedStream(stream)
  const bound = { env: host.env, timeoutMs, what: `ping of ${connection.peer}`, signal }
  try {
    for (let round = 0; round < count; round++) {
      if (round > 0 && intervalMs > 0) await sleep(host.env, intervalMs, signal)
      const payload = random.bytes(size)
      const startedAt = clock.now()
      const echo = await guard(stream, bound, async () => {
        await stream.write(payload.slice())
        return framed.readExact(size)
      })
      if (!equals(echo, payload)) throw new ProtocolError('bad-message', 'ping came back changed')
      yield clock.now() - startedAt
    }
  } finally {
    // A peer that forgets to answer our FIN would keep the stream for ever.
    stream.reset()
  }
}
