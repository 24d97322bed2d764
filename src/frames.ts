/* Length-prefixed messages off a stream that rests between them for ever, but not within one. */
import { concat } from './bytes.ts'
import type { Env, Timer } from './env.ts'
import { ProtocolError, TimeoutError } from './errors.ts'
import { BufferedStream, type Stream } from './stream.ts'
import { readVarint, varintLength } from './varint.ts'

export interface FrameLimits {
  /** A longer message is a ProtocolError `oversized`, before memory is spent on it. */
  maxBytes: number
  /** For the rest of a message that began to arrive: the stream is reset then. */
  frameTimeoutMs: number
  /** What comes: the subject of errors. */
  what: string
}

/**
 * Calls `frame` with each message of `stream` until the peer's FIN, and waits for the promise it may give before it
 * reads on. The bytes may be part of a larger buffer that nobody writes to again.
 */
export async function readFrames(
  stream: Stream,
  env: Env,
  { maxBytes, frameTimeoutMs, what }: FrameLimits,
  frame: (bytes: Uint8Array) => void | Promise<void>,
): Promise<void> {
  const framed = new BufferedStream(stream)
  let timer: Timer | undefined
  const begun = (): void => {
    timer ??= env.clock.setTimer(frameTimeoutMs, () =>
      stream.reset(0, new TimeoutError(`receiving ${what}`, frameTimeoutMs)),
    )
  }
  try {
    for (let chunk = await framed.read(); chunk !== null; chunk = await framed.read()) {
      let at = 0
      // Whole messages of one chunk are not awaited one by one.
      while (at < chunk.length) {
        const rest: Uint8Array = at === 0 ? chunk : chunk.subarray(at)
        const size = readVarint(rest)
        if (size !== undefined && size > maxBytes) {
          throw new ProtocolError('oversized', `${what} of ${size} bytes, at most ${maxBytes} allowed`)
        }
        const head = size === undefined ? 0 : varintLength(size)
        let body: Uint8Array
        if (size !== undefined && rest.length >= head + size) {
          body = rest.subarray(head, head + size)
          at += head + size
        } else {
          begun()
          at = chunk.length
          if (size === undefined) {
            const more = await framed.read()
            if (more === null) throw new ProtocolError('truncated', `stream ended within ${what}`)
            framed.unread(concat([rest, more]))
            break
          }
          if (head < rest.length) framed.unread(rest.subarray(head))
          body = await framed.readExact(size)
        }
        timer?.cancel()
        timer = undefined
        if (body.length === 0) continue
        const wait = frame(body)
        if (wait !== undefined) await wait
      }
    }
  } finally {
    timer?.cancel()
  }
}
