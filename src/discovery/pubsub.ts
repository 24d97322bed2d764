/*
 * Finding peers over a topic, as js-libp2p's pubsub-peer-discovery does: everybody in the topic says now and then where
 * it is. A message is a protobuf of the public key and the addresses; it must be signed by that key.
 */
import { ProtocolError, asError } from '../errors.ts'
import { sleep } from '../deadline.ts'
import { decodeMultiaddr, type Multiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import type { PublicKey } from '../peer/keys.ts'
import { bytes, limited, message, repeated, required } from '../protobuf.ts'
import type { Gossipsub, PubSubMessage } from '../protocols/gossipsub/gossipsub.ts'
import type { Discovery, DiscoveryHost, Found } from './discovery.ts'

export const peerDiscoveryTopic = '_peer-discovery._p2p._pubsub'

/** Addresses of one peer that are told and read. */
const maxAddrs = 32
const maxAddrBytes = 512
/** RSA keys are long. */
const maxKeyBytes = 2_048

/** js-libp2p pubsub-peer-discovery, Peer */
const PeerMessage = message({
  publicKey: [1, required(limited(bytes, maxKeyBytes))],
  addrs: [2, repeated(limited(bytes, maxAddrBytes), maxAddrs)],
})

export interface PubsubDiscoveryOptions {
  /** Default: the topic of js-libp2p. */
  topics?: readonly string[]
  /** Between two messages that say where we are. Default 10 s (js-libp2p). */
  intervalMs?: number
  /** We find others and say nothing of us. Default false. */
  listenOnly?: boolean
  /** Of the node: needed where its id does not hold it (RSA, ECDSA). */
  publicKey?: PublicKey
}

const defaults = { topics: [peerDiscoveryTopic], intervalMs: 10_000, listenOnly: false }

/** Found ones that wait to be taken. */
const maxBuffered = 256

/** Throws ProtocolError. */
export function decodePeerMessage({ data, from }: Pick<PubSubMessage, 'data' | 'from'>): Found {
  const { publicKey, addrs } = PeerMessage.decode(data)
  const peer = PeerId.fromPublicKey(publicKey)
  if (from !== undefined && !from.equals(peer))
    throw new ProtocolError('wrong-peer', `${from} says where ${peer} is: want it from itself`)
  return { peer, addrs: addrs.flatMap((addr) => readAddr(addr, peer)) }
}

/** None where we can not read it, or where it leads to somebody else: the others may do. */
function readAddr(encoded: Uint8Array, peer: PeerId): Multiaddr[] {
  try {
    const addr = decodeMultiaddr(encoded)
    return addr.peerId()?.equals(peer) === false ? [] : [addr]
  } catch {
    return []
  }
}

/** Throws TypeError where the public key is not known. */
export function encodePeerMessage(peer: PeerId, addrs: readonly Multiaddr[], publicKey?: PublicKey): Uint8Array {
  const key = publicKey?.encoded ?? peer.publicKeyBytes
  if (key === undefined) throw new TypeError(`the id of ${peer} does not hold its public key: give it as publicKey`)
  const short = addrs.map((addr) => addr.bytes).filter(({ length }) => length <= maxAddrBytes)
  return PeerMessage.encode({ publicKey: key, addrs: short.slice(0, maxAddrs) })
}

/** `pubsub` is of the node that looks for peers, and started before. Throws RangeError on bad options. */
export function pubsubDiscovery(
  pubsub: Pick<Gossipsub, 'addValidator' | 'publish' | 'subscribe'>,
  options: PubsubDiscoveryOptions = {},
): Discovery {
  const { topics, intervalMs, listenOnly, publicKey } = { ...defaults, ...options }
  if (!(intervalMs > 0)) throw new RangeError(`intervalMs is ${intervalMs}, want more than 0`)

  async function tell(host: DiscoveryHost, signal: AbortSignal): Promise<void> {
    const addrs = host.addrs()
    if (addrs.length === 0) return
    const data = encodePeerMessage(host.peerId, addrs, publicKey)
    for (const topic of topics) {
      try {
        await pubsub.publish(topic, data, { allowNone: true, signal })
      } catch (error) {
        if (!signal.aborted) host.env.trace?.('discovery.pubsub-failed', { topic, error: asError(error) })
      }
    }
  }

  async function* find(host: DiscoveryHost, signal: AbortSignal): AsyncGenerator<Found, void, undefined> {
    const { env } = host
    const queue: Found[] = []
    let wake = new AbortController()
    const read = (said: PubSubMessage): Found | undefined => {
      try {
        return decodePeerMessage(said)
      } catch (error) {
        env.trace?.('discovery.pubsub-refused', { peer: said.receivedFrom, error: asError(error) })
        return undefined
      }
    }
    const undo = topics.flatMap((topic) => {
      const unchecked = pubsub.addValidator(topic, (said) => (read(said) === undefined ? 'reject' : 'accept'))
      const subscription = pubsub.subscribe(topic, (said) => {
        const found = read(said)
        if (found === undefined || found.peer.equals(host.peerId) || queue.length >= maxBuffered) return
        queue.push(found)
        wake.abort()
      })
      return [() => subscription.unsubscribe(), unchecked]
    })
    let tellAt = env.clock.now()
    try {
      while (!signal.aborted) {
        if (!listenOnly && env.clock.now() >= tellAt) {
          await tell(host, signal)
          // Not everybody at the same moment.
          tellAt = env.clock.now() + intervalMs * (0.75 + env.random.unit() / 2)
        }
        wake = new AbortController()
        yield* queue.splice(0)
        if (signal.aborted) return
        const waitMs = Math.max(1, tellAt - env.clock.now())
        if (queue.length === 0)
          await sleep(env, listenOnly ? intervalMs : waitMs, AbortSignal.any([signal, wake.signal])).catch(() => {})
      }
    } finally {
      for (const one of undo) one()
    }
  }

  return { source: 'pubsub', find }
}
