/*
 * What may be traced: every name with what it tells. `createNode({ trace })` is the switch; without it nothing is made.
 * Fields are plain data or have a text of their own; `error` and `reason` are Errors.
 */

/** `layer.event`, in the order of a connection's life. */
export const traceEvents = {
  'dial.succeeded': 'an address answered and is secured: addr, peer, connection, ms',
  'dial.failed': 'an address did not: addr, error, ms',
  'dial.reconnect-failed': 'a protected peer could not be reached again',
  'tcp.accept': 'an inbound socket was given up before anybody saw it',
  'websocket.accept': 'the same over WebSocket',
  'websocket.upgrade-refused': 'an HTTP request that is no WebSocket was refused',
  'memory.accept': 'the same in memory',
  'noise.secured': 'a Noise handshake is done: role, peer, muxer',
  'noise.failed': 'a Noise handshake failed: role, reason',
  'tls.secured': 'a TLS handshake is done: role, peer, muxer',
  'tls.failed': 'a TLS handshake failed: role, reason',
  'node.inbound-refused': 'an inbound connection was refused or failed on its way: remoteAddr, error',
  'connection.opened':
    'a connection is secured and multiplexed: connection, peer, direction, remoteAddr, and over what',
  'connection.refused': 'a secured connection is one too many or not wanted: peer, direction, code, error',
  'connection.closed': 'its end: connection, peer, by, code, text, reason, ms',
  'stream.opened': 'a stream agreed on its protocol: connection, peer, protocol, direction',
  'stream.reset': 'a stream ended before its time: connection, protocol, direction, by, code, text, reason',
  'connection.inbound-stream-failed': 'a stream of the peer was refused, or its handler threw: peer, connection, error',
  'connection.fell-back': 'a stream got another protocol than its first choice',
  'yamux.refused': 'a stream of the peer was one too many: id, code, reason',
  'yamux.limit': 'a stream passed a limit and was reset: limit, max, current',
  'yamux.goaway': 'the peer takes no more streams, or is leaving: code, text',
  'yamux.failed': 'the peer broke the protocol, or answers no keep-alive: reason',
  'identify.done': 'a peer said who it is: peer, connection, agent, protocols (how many), ms',
  'node.identify-failed': 'a peer did not say who it is: peer, error',
  'identify.no-record': 'we could not sign a record of our addresses: error',
  'identify.record-refused': 'a record that a peer sent does not hold: peer, error',
  'identify.protocols-left-out': 'we have more protocols than identify may announce',
  'identify.push-failed': 'a peer was not told of our change: peer, error',
  'node.observed-missing': 'what confirms observed addresses could not be fetched: error',
  'node.listener-threw': 'a listener of an event of the node threw: event, error',
  'fetch.lookup-failed': 'what serves /libp2p/fetch could not look a key up',
  'book.load-failed': 'the address book could not be read',
  'book.save-failed': 'the address book could not be written',
  'book.record-skipped': 'a stored record was of no use',
  'book.own-record-refused': 'somebody sent a record of our own',
  'bitswap.error': 'a part of Bitswap failed: error',
  'bitswap.violation': 'a peer broke Bitswap, its streams are reset: peer, error',
  'bitswap.stream-lost': 'a Bitswap stream ended: peer, error',
  'bitswap.store-error': 'the block store failed: peer, error',
  'bitswap.reply-lost': 'a reply could not be sent: peer, error',
  'gossipsub.failed': 'a part of GossipSub failed: error',
  'gossipsub.stream-failed': 'no stream to a peer could be opened: peer, error',
  'gossipsub.stream-lost': 'the stream of a peer ended before its time: peer, error',
  'gossipsub.violation': 'a peer broke the protocol, its stream is reset: peer, error',
  'gossipsub.grafted': 'a peer came into the mesh of a topic: peer, topic, by',
  'gossipsub.pruned': 'a peer left it: peer, topic, by',
  'gossipsub.unchecked': 'this platform has not what it takes to check a signature: error',
  'gossipsub.bad-data': 'the data of a message is not what the transform reads: peer, error',
  'gossipsub.validator-failed': 'a validator threw, or took too long: topic, error',
  'gossipsub.handler-threw': 'a handler of a topic threw: topic, error',
  'gossipsub.app-score-failed': 'appSpecificScore threw, or gave no number: peer, error',
  'gossipsub.listener-threw': 'a listener of an event of GossipSub threw: event, error',
  'gossipsub.partial-failed': 'a partial message could not be taken or answered: peer, error',
  'gossipsub.exchange-failed': 'a peer that another named could not be reached: error',
  'gossipsub.direct-failed': 'a direct peer could not be reached: peer, error',
  'graphsync.error': 'a part of GraphSync failed: error',
  'graphsync.violation': 'a peer broke GraphSync, its streams are reset: peer, error',
  'graphsync.stream-lost': 'a GraphSync stream ended: peer, error',
  'graphsync.send-failed': 'a GraphSync message could not be sent: peer, error',
  'graphsync.store-error': 'the block store failed: peer, cid, error',
  'graphsync.refused': 'a request of a peer was refused or broke off: peer, request, error',
  'store.corrupt': 'a block on disk is not what its name says: cid, path, error',
  'dht.bad-record': 'a peer sent a record that does not hold',
  'dht.peer-failed': 'a peer did not answer a query',
  'dht.refresh-failed': 'a refresh of the routing table failed',
  'dht.store-failed': 'a record could not be stored',
  'ipns.republish-failed': 'names could not be published again: error',
  'ipns.rebroadcast-failed': 'a record could not be published again over pubsub: topic, error',
  'ipns.fetch-failed': 'a peer that follows a name did not give its record: peer, topic, error',
  'kit.search-failed': 'providers of a block could not be looked for: cid, error',
  'kit.provider-failed': 'a provider did not answer: peer, error',
  'kit.provide-failed': 'a root could not be told to the DHT: cid, error',
  'kit.listener-threw': 'a listener of announcements of content threw: event, error',
  'discovery.found': 'a peer was found: source, peer, addrs',
  'discovery.failed': 'a way to find peers broke off and is started again: source, error',
  'discovery.listener-threw': 'a listener of an event of discovery threw: event, error',
  'discovery.dial-failed': 'a peer that was found did not answer: peer, error',
  'discovery.bootstrap-failed': 'a bootstrap peer did not answer: to, waitMs, error',
  'discovery.pubsub-failed': 'our addresses could not be told to a topic: topic, error',
  'discovery.pubsub-refused': 'what a peer says in a topic of where it is does not hold: peer, error',
  'discovery.walk-failed': 'a random walk found nobody: error',
  'mdns.socket-failed': 'a socket of multicast DNS failed: family, error',
  'mdns.join-failed': 'an interface can not multicast: interface, error',
  'mdns.send-failed': 'a packet of multicast DNS could not be sent: interface, error',
} as const

export type TraceEvent = keyof typeof traceEvents

/** One thing that happened, for whoever listens. It is called in the midst of work: it should be short and not throw. */
export type Trace = (what: TraceEvent, fields: Record<string, unknown>) => void

function plain(_key: string, value: unknown): unknown {
  if (value instanceof Error) {
    const { name, message } = value
    return 'code' in value ? { name, code: value.code, message } : { name, message }
  }
  if (typeof value === 'bigint') return value.toString()
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`
  // Peer ids and multiaddrs are their text.
  const isPlain = typeof value !== 'object' || value === null || Array.isArray(value)
  return isPlain || value.toString === Object.prototype.toString ? value : `${value as { toString(): string }}`
}

/** One line of JSON for a log: `{"at":"2026-01-02T03:04:05.006Z","what":"connection.opened",...}`. */
export function traceLine(what: TraceEvent, fields: Record<string, unknown>, wallTimeMs: number): string {
  return JSON.stringify({ at: new Date(wallTimeMs).toISOString(), what, ...fields }, plain)
}
