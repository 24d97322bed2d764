/*
 * identify: each side tells its key, addresses, protocols and how it sees the other. Push brings changes: at most two
 * a second to a peer. What the peer says of its addresses goes to the address book, from its signed record if it sent one.
 */
import { concat, equals } from '../../bytes.ts'
import { guard } from '../../deadline.ts'
import { isPlausible, reachOf } from '../../addresses.ts'
import type { Timer } from '../../env.ts'
import { LimitError, ProtocolError, UnavailableError } from '../../errors.ts'
import type { Connection, Host, ProtocolStream } from '../../host.ts'
import { decodeMultiaddr, type Multiaddr } from '../../multiaddr.ts'
import type { AddressBook } from '../../peer/book.ts'
import { PeerId } from '../../peer/id.ts'
import type { PublicKey } from '../../peer/keys.ts'
import { BufferedStream, prefixed } from '../../stream.ts'
import { TokenBucket } from '../../token-bucket.ts'
import {
  Identify,
  encodeIdentify,
  identifyId,
  identifyPushId,
  maxFrameBytes,
  maxFrames,
  type IdentifyMessage,
} from './wire.ts'

export { identifyId, identifyPushId } from './wire.ts'

/** What a peer says of itself; nothing of it is proved but the key and the record. */
export interface IdentifyResult {
  agent: string | undefined
  protocolVersion: string | undefined
  protocols: readonly string[]
  listenAddrs: readonly Multiaddr[]
  /** The newest record that the peer has signed, in its envelope; undefined when it sent none that is good. */
  signedPeerRecord: Uint8Array | undefined
  /** Our address as the peer sees it. */
  observedAddr: Multiaddr | undefined
}

/** What we say of ourselves, asked for each time. */
export interface Self {
  publicKey: PublicKey
  /** Takes in what peers say, and gives our record. */
  book: AddressBook
  addrs(): readonly Multiaddr[]
  /** Those that the connection's peer may open on it. */
  protocols(connection: Connection): readonly string[]
  agent: string
}

export interface IdentifyService {
  /** Asks the peer. Rejects with ProtocolError, TimeoutError, ClosedError or UnavailableError. */
  identify(connection: Connection, options?: { signal?: AbortSignal }): Promise<IdentifyResult>
  /**
   * Our protocols or addresses are not what they were: peers that take pushes hear of it at the end of this turn, or, of
   * what changes within half a second of the last push, at the end of that.
   */
  changed(): void
  /** No push that waits is made any more. */
  cancel(): void
  stop(): void
}

const protocolVersion = 'ipfs/0.1.0'
/** go-libp2p identify.Timeout. */
const timeoutMs = 5_000
/** From one push to the next. */
const pushIntervalMs = 500
/** Pushes under way, to all peers (go-libp2p maxPushConcurrency). */
const maxPushes = 32
/** Pushes that a connection may send us at once; one more every second. */
const maxPushesIn = 20

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
async function readIdentify(stream: ProtocolStream): Promise<IdentifyMessage> {
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

/** Throws ProtocolError `bad-key` for what is no key. */
function isKeyOf(peer: PeerId, key: Uint8Array): boolean {
  return (
    (peer.publicKeyBytes !== undefined && equals(peer.publicKeyBytes, key)) || PeerId.fromPublicKey(key).equals(peer)
  )
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
  const { env } = host
  const { book } = self

  /** Counts our changes; and which of them a connection has been told of. */
  let version = 0
  const told = new WeakMap<Connection, number>()

  async function describe(connection: Connection): Promise<Uint8Array[]> {
    told.set(connection, version)
    const addrs = self.addrs()
    let signedPeerRecord: Uint8Array | undefined
    try {
      // Who never had an address has none to take back, and everybody would have to verify that.
      const bare = addrs.length === 0 && book.record(book.self) === undefined
      if (!bare) signedPeerRecord = await book.seal(addrs)
    } catch (error) {
      env.trace?.('identify.no-record', { error })
    }
    const near = [connection.localAddr, connection.remoteAddr].some((a) => reachOf(a) === 'loopback')
    const { frames, left } = encodeIdentify({
      publicKey: self.publicKey.encoded,
      // Nobody else can dial our loopback (go-libp2p).
      listenAddrs: addrs.filter((a) => near || reachOf(a) !== 'loopback').map((a) => a.bytes),
      protocols: self.protocols(connection),
      observedAddr: connection.remoteAddr.bytes,
      protocolVersion,
      agentVersion: self.agent,
      signedPeerRecord,
    })
    if (left > 0) env.trace?.('identify.protocols-left-out', { left })
    return frames.flatMap((frame) => prefixed(frame))
  }

  /** The record where it is good. A peer with a false one has nothing to say of its addresses. */
  async function learn(connection: Connection, message: IdentifyMessage): Promise<Uint8Array | undefined> {
    const { peer, remoteAddr } = connection
    const { signedPeerRecord: sealed } = message
    const accept = (addr: Multiaddr): boolean => isPlausible(addr, remoteAddr)
    if (sealed !== undefined && sealed.length > 0) {
      try {
        return (await book.consume(sealed, { peer, accept })) ? sealed.slice() : undefined
      } catch (error) {
        env.trace?.('identify.record-refused', { peer: peer.toString(), error })
        // A kind of key that can't be verified here is no lie.
        if (!(error instanceof UnavailableError)) return undefined
      }
    }
    const addrs = parseAddrs(message.listenAddrs).filter(accept)
    if (addrs.length > 0) book.add(peer, addrs, { source: 'identify', replace: true })
    return undefined
  }

  async function apply(connection: Connection & IdentifyTarget, message: IdentifyMessage): Promise<IdentifyResult> {
    if (message.publicKey !== undefined && !isKeyOf(connection.peer, message.publicKey)) {
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
      signedPeerRecord: await learn(connection, message),
      // js-libp2p appends our /p2p, go does not.
      observedAddr: observedAddr?.withoutPeer(),
    }
  }

  async function push(connection: Connection): Promise<void> {
    try {
      const frames = await describe(connection)
      const stream = await connection.newStream(identifyPushId, { timeoutMs, limited: true })
      await guard(stream, { env, timeoutMs, what: `identify push to ${connection.peer}` }, async () => {
        await stream.write(...frames)
        await stream.closeWrite()
        // The peer's FIN; what it may say before is of no interest.
        while ((await stream.read()) !== null);
      })
    } catch (error) {
      env.trace?.('identify.push-failed', { peer: connection.peer.toString(), error })
    }
  }

  const due = new Set<Connection>()
  const pushing = new Set<Connection>()
  let planned: Timer | 'turn' | undefined
  let pushedAt = -Infinity

  function pushDue(): void {
    for (const connection of due) {
      if (pushing.size === maxPushes) return
      if (pushing.has(connection)) continue
      due.delete(connection)
      pushing.add(connection)
      void push(connection).then(() => {
        pushing.delete(connection)
        pushDue()
      })
    }
  }

  function pushAll(): void {
    planned = undefined
    pushedAt = env.clock.now()
    for (const c of host.connections()) {
      if (c.protocols?.includes(identifyPushId) === true && told.get(c) !== version) due.add(c)
    }
    pushDue()
  }

  function plan(): void {
    if (planned !== undefined) return
    const waitMs = pushedAt + pushIntervalMs - env.clock.now()
    planned = waitMs > 0 ? env.clock.setTimer(waitMs, pushAll) : 'turn'
    // The turn comes, whatever happens: a cancel only forgets why.
    if (planned === 'turn') env.turn(() => planned === 'turn' && pushAll())
  }

  function cancel(): void {
    if (typeof planned === 'object') planned.cancel()
    planned = undefined
    due.clear()
  }

  const buckets = new WeakMap<Connection, TokenBucket>()
  function takePush(connection: Connection): void {
    const now = env.clock.now()
    const bucket = buckets.get(connection) ?? new TokenBucket(maxPushesIn, 1, now)
    buckets.set(connection, bucket)
    if (!bucket.take(1, now))
      throw new LimitError('maxPushesIn', maxPushesIn, maxPushesIn + 1, 'identify pushes come too fast')
  }

  host.handle(
    identifyId,
    async (stream, { connection }) => {
      stream.closeRead()
      const frames = await describe(connection)
      // Also until the peer's own FIN, or streams that nobody ends would fill up the few that it may have.
      await guard(stream, { env, timeoutMs, what: `identify to ${connection.peer}` }, async () => {
        await stream.write(...frames)
        await stream.closeWrite()
        await stream.closed
      })
    },
    { limited: true, maxInboundStreams: 8 },
  )
  host.handle(
    identifyPushId,
    async (stream, { connection }) => {
      takePush(connection)
      const what = `identify push of ${connection.peer}`
      const message = await guard(stream, { env, timeoutMs, what }, () => readIdentify(stream))
      const result = await apply(connection, message)
      await stream.closeWrite()
      onPush(connection, result)
    },
    { limited: true, maxInboundStreams: 8 },
  )
  return {
    async identify(connection, { signal } = {}) {
      const options = { timeoutMs, limited: true, optimistic: true, ...(signal && { signal }) }
      const stream = await connection.newStream(identifyId, options)
      const what = `identify of ${connection.peer}`
      const message = await guard(stream, { env, timeoutMs, what, signal }, async () => {
        await stream.closeWrite()
        return readIdentify(stream)
      })
      const result = await apply(connection, message)
      // What changed after the peer had asked, and before we knew that it takes pushes.
      if ((told.get(connection) ?? version) < version) plan()
      return result
    },
    changed() {
      version++
      plan()
    },
    cancel,
    stop() {
      cancel()
      host.unhandle([identifyId, identifyPushId])
    },
  }
}
