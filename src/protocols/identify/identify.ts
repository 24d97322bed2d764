/*
 * identify: each side tells its key, addresses, protocols and how it sees the other. Push brings changes.
 * Left out until the address book: signed peer records, confirming observed addresses.
 */
import { concat } from '../../bytes.ts'
import { guard } from '../../deadline.ts'
import { ProtocolError } from '../../errors.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { decodeMultiaddr, type Multiaddr } from '../../multiaddr.ts'
import { PeerId } from '../../peer/id.ts'
import type { PublicKey } from '../../peer/keys.ts'
import { BufferedStream, prefixed } from '../../stream.ts'
import { Identify, identifyId, identifyPushId, maxFrameBytes, maxFrames } from './wire.ts'

export { identifyId, identifyPushId } from './wire.ts'

/** What a peer says of itself; nothing of it is proved but the key. */
export interface IdentifyResult {
  agent: string | undefined
  protocolVersion: string | undefined
  protocols: readonly string[]
  listenAddrs: readonly Multiaddr[]
  /** Our address as the peer sees it. */
  observedAddr: Multiaddr | undefined
}

/** What we say of ourselves, asked for each time. */
export interface Self {
  publicKey: PublicKey
  addrs(): readonly Multiaddr[]
  protocols(): readonly string[]
  agent: string
}

export interface IdentifyService {
  /** Asks the peer. Rejects with ProtocolError, TimeoutError, ClosedError or UnavailableError. */
  identify(connection: Connection, options?: { signal?: AbortSignal }): Promise<IdentifyResult>
  /** Our protocols or addresses are not what they were: peers that take pushes hear of it at the end of this turn. */
  changed(): void
  stop(): void
}

const protocolVersion = 'ipfs/0.1.0'
/** go-libp2p identify.Timeout. */
const timeoutMs = 5_000

function parseAddrs(raw: readonly Uint8Array[]): Multiaddr[] {
  const out: Multiaddr[] = []
  for (const bytes of raw) {
    // Peers announce transports that we do not know: an address we can't read is not an error of theirs.
    try {
      out.push(decodeMultiaddr(bytes))
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
    }
  }
  return out
}

/** Reads all frames up to the FIN: concatenated protobuf messages merge. */
async function readIdentify(stream: ProtocolStream): Promise<ReturnType<typeof Identify.decode>> {
  const framed = new BufferedStream(stream)
  const frames: Uint8Array[] = []
  for (
    let frame = await framed.readPrefixed(maxFrameBytes);
    frame !== null;
    frame = await framed.readPrefixed(maxFrameBytes)
  ) {
    if (frames.length === maxFrames) throw new ProtocolError('oversized', `identify in more than ${maxFrames} frames`)
    frames.push(frame)
  }
  if (frames.length === 0) throw new ProtocolError('truncated', 'identify stream ended without a message')
  return Identify.decode(concat(frames))
}

function apply(connection: Connection & IdentifyTarget, message: ReturnType<typeof Identify.decode>): IdentifyResult {
  if (message.publicKey !== undefined && !PeerId.fromPublicKey(message.publicKey).equals(connection.peer)) {
    throw new ProtocolError('wrong-peer', `identify of ${connection.peer} carries another public key`)
  }
  if (message.protocols.length > 0) connection.protocols = message.protocols
  if (message.agentVersion !== undefined) connection.agent = message.agentVersion
  const [observedAddr] = message.observedAddr === undefined ? [] : parseAddrs([message.observedAddr])
  return {
    agent: message.agentVersion,
    protocolVersion: message.protocolVersion,
    protocols: message.protocols,
    listenAddrs: parseAddrs(message.listenAddrs),
    // js-libp2p appends our /p2p, go does not.
    observedAddr: observedAddr?.withoutPeer(),
  }
}

/** The two fields of a Connection that identify writes. */
interface IdentifyTarget {
  protocols: readonly string[] | undefined
  agent: string | undefined
}

/** Answers identify and takes in pushes from now on; throws TypeError when the host has handlers for them already. */
export function createIdentify(
  host: Host,
  self: Self,
  onPush: (connection: Connection, result: IdentifyResult) => void,
): IdentifyService {
  const describe = (connection: Connection): Uint8Array =>
    Identify.encode({
      publicKey: self.publicKey.encoded,
      listenAddrs: self.addrs().map((a) => a.bytes),
      protocols: self.protocols(),
      observedAddr: connection.remoteAddr.bytes,
      protocolVersion,
      agentVersion: self.agent,
    })

  async function push(connection: Connection): Promise<void> {
    try {
      const stream = await connection.newStream(identifyPushId, { timeoutMs, limited: true })
      await guard(stream, { env: host.env, timeoutMs, what: `identify push to ${connection.peer}` }, async () => {
        await stream.write(...prefixed(describe(connection)))
        await stream.closeWrite()
        // The peer's FIN; what it may say before is of no interest.
        while ((await stream.read()) !== null);
      })
    } catch (error) {
      host.env.trace?.('identify.push-failed', { peer: connection.peer.toString(), error })
    }
  }

  let due = false
  host.handle(
    identifyId,
    async (stream, { connection }) => {
      stream.closeRead()
      const message = describe(connection)
      // Also until the peer's own FIN, or streams that nobody ends would fill up the few that it may have.
      await guard(stream, { env: host.env, timeoutMs, what: `identify to ${connection.peer}` }, async () => {
        await stream.write(...prefixed(message))
        await stream.closeWrite()
        await stream.closed
      })
    },
    { limited: true, maxInboundStreams: 8 },
  )
  host.handle(
    identifyPushId,
    async (stream, { connection }) => {
      const what = `identify push of ${connection.peer}`
      const message = await guard(stream, { env: host.env, timeoutMs, what }, () => readIdentify(stream))
      const result = apply(connection, message)
      await stream.closeWrite()
      onPush(connection, result)
    },
    { limited: true, maxInboundStreams: 8 },
  )
  return {
    async identify(connection, { signal } = {}) {
      const stream = await connection.newStream(identifyId, { timeoutMs, limited: true, ...(signal && { signal }) })
      const what = `identify of ${connection.peer}`
      const message = await guard(stream, { env: host.env, timeoutMs, what, signal }, async () => {
        await stream.closeWrite()
        return readIdentify(stream)
      })
      return apply(connection, message)
    },
    changed() {
      if (due) return
      due = true
      host.env.turn(() => {
        due = false
        for (const c of host.connections()) if (c.protocols?.includes(identifyPushId) === true) void push(c)
      })
    },
    stop() {
      host.unhandle([identifyId, identifyPushId])
    },
  }
}
