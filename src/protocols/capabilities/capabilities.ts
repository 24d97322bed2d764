/* Both sides of the capabilities protocol over streams; who asks keeps the answer (connection/query.ts). */
import { guard } from '../../deadline.ts'
import type { Env } from '../../env.ts'
import { ProtocolError, errorCode } from '../../errors.ts'
import type { Connection, ProtocolStream } from '../../host.ts'
import { maxCapabilitiesBytes } from '../../limits.ts'
import { BufferedStream, prefixed } from '../../stream.ts'
import { capabilitiesId } from './id.ts'
import { decodeCapabilities, encodeCapabilities, type Capable } from './wire.ts'

/** A peer that has not answered by then does not mean to. */
const timeoutMs = 5_000

/**
 * What the peer says it can do; a peer without the protocol can do nothing. Rejects with ProtocolError, TimeoutError,
 * ClosedError or signal.reason.
 */
export async function askCapabilities(connection: Connection, env: Env, signal?: AbortSignal): Promise<Capable> {
  const what = `capabilities of ${connection.peer}`
  try {
    const stream = await connection.newStream(capabilitiesId, { timeoutMs, limited: true, ...(signal && { signal }) })
    return await guard(stream, { env, timeoutMs, what, signal }, async () => {
      await stream.closeWrite()
      const framed = new BufferedStream(stream)
      const answer = await framed.readPrefixed(maxCapabilitiesBytes)
      if (answer === null) throw new ProtocolError('truncated', 'capabilities stream ended without a message')
      if ((await framed.read()) !== null)
        throw new ProtocolError('bad-message', 'capabilities go on behind the message')
      return decodeCapabilities(answer)
    })
  } catch (error) {
    if (errorCode(error) !== 'no-protocol') throw error
    return new Map()
  }
}

/** Until the peer's own FIN, or streams that nobody ends would fill up the few that it may have. */
export function answerCapabilities(stream: ProtocolStream, env: Env, capable: Capable): Promise<void> {
  stream.closeRead()
  return guard(stream, { env, timeoutMs, what: 'telling capabilities' }, async () => {
    await stream.write(...prefixed(encodeCapabilities(capable)))
    await stream.closeWrite()
    await stream.closed
  })
}
