/* multistream-select over a Stream. Deadlines are the caller's: it resets the stream, and these reject. */
import { ProtocolError } from '../../errors.ts'
import type { Stream } from '../../stream.ts'
import { dialer, listener, opening, type Negotiation } from './negotiate.ts'
import { encodeTokens } from './wire.ts'

export interface Selected {
  protocol: string
  /** Bytes that were read with the negotiation and belong to the protocol. */
  rest: Uint8Array | undefined
}

/** Reads until `side` has an outcome. Rejects with ProtocolError, UnavailableError `no-protocol`, or the stream's error. */
export async function settle(stream: Stream, side: Negotiation): Promise<Selected> {
  for (;;) {
    const chunk = await stream.read()
    if (chunk === null) throw new ProtocolError('truncated', 'the peer ended the stream while negotiating a protocol')
    const tokens = side.receive(chunk)
    if (tokens.length > 0) await stream.write(encodeTokens(...tokens))
    const { outcome } = side
    if (outcome?.error !== undefined) throw outcome.error
    if (outcome?.protocol !== undefined) return { protocol: outcome.protocol, rest: outcome.rest }
  }
}

/** The dialer's side: proposes `protocols` in order. */
export async function select(stream: Stream, protocols: readonly string[]): Promise<Selected> {
  await stream.write(encodeTokens(...opening(protocols)))
  return settle(stream, dialer(protocols))
}

/** The listener's side. */
export function answer(stream: Stream, accepts: (proposal: string) => boolean): Promise<Selected> {
  return settle(stream, listener(accepts))
}
