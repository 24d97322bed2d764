/* multistream-select over a Stream. Deadlines are the caller's: it resets the stream, and these reject. */
import { ProtocolError } from '../../errors.ts'
import type { Stream } from '../../stream.ts'
import { dialer, listener, opening, type Negotiation } from './negotiate.ts'
import { agreement, agreementIn, encodeTokens, type Agreement } from './wire.ts'

export interface Selected {
  protocol: string
  /** Bytes that were read with the negotiation and belong to the protocol. */
  rest: Uint8Array | undefined
}

async function next(stream: Stream): Promise<Uint8Array> {
  const chunk = await stream.read()
  if (chunk === null) throw new ProtocolError('truncated', 'the peer ended the stream while negotiating a protocol')
  return chunk
}

/** Until `side`, which is given `chunk` first, has an outcome. */
async function settle(stream: Stream, side: Negotiation, chunk: Uint8Array): Promise<Selected> {
  for (let bytes = chunk; ; bytes = await next(stream)) {
    const tokens = side.receive(bytes)
    const { outcome } = side
    if (tokens.length > 0) {
      const written = stream.write(encodeTokens(...tokens))
      await (outcome?.protocol === undefined ? written : written.catch(unheard))
    }
    if (outcome?.error !== undefined) throw outcome.error
    if (outcome?.protocol !== undefined) return { protocol: outcome.protocol, rest: outcome.rest }
  }
}

/**
 * Optimistic multistream-select: a dialer that only writes may be gone when the listener agrees, and what it wrote must
 * still be handed to the protocol. If the stream is dead, its first read says so.
 */
const unheard = (): void => {}

const behind = ({ protocol, bytes }: Agreement, chunk: Uint8Array): Selected => ({
  protocol,
  rest: chunk.length > bytes.length ? chunk.subarray(bytes.length) : undefined,
})

/*
 * Nearly every negotiation is one chunk that proposes, or accepts, a protocol known to us: it is compared as bytes.
 * Anything else takes the way through the machine, and means the same.
 */

/**
 * The dialer's side: proposes `protocols` in order. Rejects with ProtocolError, UnavailableError `no-protocol`, or the
 * stream's error, as all of these do.
 */
export async function select(stream: Stream, protocols: readonly string[]): Promise<Selected> {
  const [, first = ''] = opening(protocols)
  await stream.write(agreement(first).bytes)
  return confirm(stream, protocols)
}

/** The same once the agreement on the first of `protocols` was proposed. */
export async function confirm(stream: Stream, protocols: readonly string[]): Promise<Selected> {
  const chunk = await next(stream)
  const agreed = agreementIn(chunk)
  return agreed !== undefined && agreed.protocol === protocols[0]
    ? behind(agreed, chunk)
    : settle(stream, dialer(protocols), chunk)
}

/** The listener's side. `remembers` says which ids are worth knowing by their bytes: a peer may make up others. */
export async function answer(
  stream: Stream,
  accepts: (proposal: string) => boolean,
  remembers: (proposal: string) => boolean = () => true,
): Promise<Selected> {
  const chunk = await next(stream)
  const agreed = agreementIn(chunk)
  if (agreed === undefined || !accepts(agreed.protocol)) {
    const selected = await settle(stream, listener(accepts), chunk)
    if (remembers(selected.protocol)) agreement(selected.protocol)
    return selected
  }
  await stream.write(agreed.bytes).catch(unheard)
  return behind(agreed, chunk)
}
