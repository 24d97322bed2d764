/* What a security protocol is to connection.ts: Noise and TLS are both this. */
import type { PublicKey } from '../peer/keys.ts'
import type { PeerId } from '../peer/id.ts'
import type { Stream } from '../stream.ts'
import type { Wire } from '../wire.ts'

export interface SecureOptions {
  /** ProtocolError `wrong-peer` when somebody else answers. */
  expectedPeer?: PeerId
  /** Our muxer ids, best first, for early negotiation (inlined-muxer-negotiation.md). */
  muxers: readonly string[]
  /**
   * The initiator's: these bytes propose the protocol and go out with the first message, one round trip less. `agreed`
   * reads the peer's answer, and gives what was read beyond it; it rejects when the peer does not want the protocol.
   */
  proposal?: { bytes: Uint8Array; agreed: (stream: Stream) => Promise<Uint8Array | undefined> }
  /** Abort resets the stream and rejects with signal.reason. */
  signal?: AbortSignal
  /** Awaited before costly arithmetic on what a stranger sent: those we know come first. */
  pace?: () => Promise<void>
}

export interface Secured {
  /** Plaintext in, plaintext out. */
  wire: Wire
  remotePeer: PeerId
  remoteKey: PublicKey
  /** What early negotiation chose; undefined: negotiate the muxer over the wire. */
  muxer: string | undefined
}

export interface SecurityProtocol {
  /** `/noise`, `/tls/1.0.0`. */
  readonly id: string
  /** It takes a `proposal`. */
  readonly eager?: boolean
  /** Rejects with ProtocolError; the caller resets the stream. `role` is by who dialled. */
  secure(role: 'initiator' | 'responder', stream: Stream, options: SecureOptions): Promise<Secured>
}
