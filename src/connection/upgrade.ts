/* The upgrade: raw stream -> secure -> muxed. Transports that bring both with them only have their peer checked. */
import { guard } from '../deadline.ts'
import type { Env } from '../env.ts'
import { ClosedError, ProtocolError, UnavailableError } from '../errors.ts'
import type { PeerId } from '../peer/id.ts'
import { answer, confirm, select, type Selected } from '../protocols/multistream/multistream.ts'
import { agreement } from '../protocols/multistream/wire.ts'
import type { Protector } from '../security/pnet.ts'
import type { SecureOptions, SecurityProtocol } from '../security/security.ts'
import { BufferedStream, type Muxer, type Stream } from '../stream.ts'
import type { TransportConnection } from '../transport/transport.ts'
import { startBehind, toWire, WireStream, type Wire } from '../wire.ts'

export interface MuxerFactory {
  /** `/yamux/1.0.0`. */
  readonly id: string
  create(wire: Wire, role: 'initiator' | 'responder', env: Env): Muxer
}

export interface Upgrade {
  env: Env
  /** Best first. */
  security: readonly SecurityProtocol[]
  muxers: readonly MuxerFactory[]
  /** Of a private network: goes around every raw connection first. */
  protector?: Protector | undefined
  /** For the whole upgrade. */
  timeoutMs: number
}

/** An authenticated, multiplexed connection before it has handlers. */
export interface Upgraded {
  peer: PeerId
  muxer: Muxer
  muxerId: string
  security: string
}

function withRest(stream: Stream, { rest }: Selected): Stream {
  if (rest === undefined) return stream
  const behind = new BufferedStream(stream)
  behind.unread(rest)
  return behind
}

/**
 * Secures and multiplexes a raw connection, checks who is at the other end of a muxed one. Rejects with ProtocolError,
 * UnavailableError, TimeoutError or signal.reason; the connection is then reset.
 * An initiator proposes nothing but the first security protocol where that one is `eager`: UnavailableError
 * `no-protocol` with it as the only one `tried` says that the others may do, on a new connection.
 */
export async function upgrade(
  carrier: TransportConnection,
  role: 'initiator' | 'responder',
  options: Upgrade & Pick<SecureOptions, 'signal' | 'pace'> & { expectedPeer?: PeerId | undefined },
): Promise<Upgraded> {
  const { env, security, muxers, protector, expectedPeer, signal, pace, timeoutMs } = options
  if (carrier.kind === 'muxed') {
    const { peer, muxer } = carrier
    if (protector !== undefined) {
      const error = new UnavailableError('unsupported', 'a private network has no transports that secure themselves')
      muxer.abort(0, error)
      throw error
    }
    if (expectedPeer === undefined || expectedPeer.equals(peer)) {
      return { peer, muxer, security: carrier.security, muxerId: carrier.security }
    }
    const error = new ProtocolError('wrong-peer', `got ${peer}, want ${expectedPeer}`)
    muxer.abort(error.wireCode, error)
    throw error
  }
  const upgraded = guard(carrier.stream, { env, timeoutMs, what: 'securing the connection', signal }, async () => {
    const stream = protector?.protect(carrier.stream) ?? carrier.stream
    const [first] = security
    const eager = role === 'initiator' && first?.eager === true
    const agreed: Selected = eager
      ? { protocol: first.id, rest: undefined }
      : await choose(
          stream,
          role,
          security.map((s) => s.id),
        )
    const chosen = security.find((s) => s.id === agreed.protocol)
    if (chosen === undefined) throw new ProtocolError('bad-negotiation', `security ${agreed.protocol} was not offered`)
    const secured = await chosen.secure(role, withRest(stream, agreed), {
      muxers: muxers.map((m) => m.id),
      ...(eager && { proposal: proposalOf(agreed.protocol) }),
      ...(signal && { signal }),
      ...(pace && { pace }),
      ...(expectedPeer && { expectedPeer }),
    })
    let { wire, muxer: muxerId } = secured
    if (muxerId === undefined) {
      const plain = new WireStream(wire)
      const selected = await choose(
        plain,
        role,
        muxers.map((m) => m.id),
      )
      muxerId = selected.protocol
      wire = toWire(plain)
      if (selected.rest !== undefined) wire = startBehind(wire, selected.rest)
    }
    const factory = muxers.find((m) => m.id === muxerId)
    if (factory === undefined) throw new ProtocolError('bad-negotiation', `muxer ${muxerId} was not offered`)
    const muxer = factory.create(wire, role, env)
    return { peer: secured.remotePeer, muxer, muxerId: factory.id, security: chosen.id }
  })
  return upgraded.catch((error: unknown) => {
    // Another pre-shared key ends the stream below the negotiation, which sees no more than the end.
    throw error instanceof ClosedError && error.info.reason instanceof ProtocolError ? error.info.reason : error
  })
}

function proposalOf(id: string): NonNullable<SecureOptions['proposal']> {
  const agreed = async (stream: Stream): Promise<Uint8Array | undefined> => (await confirm(stream, [id])).rest
  return { bytes: agreement(id).bytes, agreed }
}

function choose(stream: Stream, role: 'initiator' | 'responder', ids: readonly string[]): Promise<Selected> {
  return role === 'initiator' ? select(stream, ids) : answer(stream, (id) => ids.includes(id))
}
