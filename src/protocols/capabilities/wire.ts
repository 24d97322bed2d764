/*
 * /rhiza/capabilities/1.0.0, ours: the dialer opens a stream and sends its FIN, the listener answers with one message
 * behind its varint length and sends its FIN. Capabilities are words without order that mean something to one protocol.
 */
import { ProtocolError } from '../../errors.ts'
import { maxCapabilities, maxCapabilityBytes, protocolIdBytes } from '../../limits.ts'
import { limited, message, repeated, required, string } from '../../protobuf.ts'

export const maxIds = 256

const Entry = message({
  id: [1, required(limited(string, protocolIdBytes - 1))],
  capabilities: [2, repeated(limited(string, maxCapabilityBytes), maxCapabilities)],
})
const Answer = message({ protocols: [1, repeated(Entry, maxIds)] })

/** What each id can do. */
export type Capable = ReadonlyMap<string, readonly string[]>

export function encodeCapabilities(capable: Capable): Uint8Array {
  return Answer.encode({ protocols: [...capable].map(([id, capabilities]) => ({ id, capabilities })) })
}

/** Throws ProtocolError, also when an id comes twice. */
export function decodeCapabilities(bytes: Uint8Array): Capable {
  const { protocols } = Answer.decode(bytes)
  const capable = new Map(protocols.map(({ id, capabilities }) => [id, capabilities]))
  if (capable.size < protocols.length) throw new ProtocolError('bad-message', 'capabilities name a protocol twice')
  return capable
}
