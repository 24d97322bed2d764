import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ProtocolError } from '../../src/errors.ts'
import { fromHex, toHex } from '../../src/bytes.ts'
import {
  decodeMessage,
  encodeMessage,
  maxAddrsPerPeer,
  messageTypes,
  type Message,
  type MessageType,
} from '../../src/dht/wire.ts'
import { specCases } from '../vectors.ts'

interface SpecPeer {
  id: string
  addrs: string[]
  connection?: number
}

interface SpecMessage {
  name: string
  hex: string
  type: MessageType
  key: string
  record?: { key: string; value: string; timeReceived?: string }
  closerPeers: SpecPeer[]
  providerPeers: SpecPeer[]
  clusterLevelRaw?: number
  /** Fields of the record that we don't keep. */
  unread?: number[]
}

const spec = [...specCases('kad/go-fixtures.json'), ...specCases('kad/real.json')] as SpecMessage[]

function readPeers(list: SpecPeer[]): Message['closerPeers'] {
  return list.map((peer) => ({ ...peer, id: fromHex(peer.id), addrs: peer.addrs.map(fromHex) }))
}

function expected({ type, key, record, closerPeers, providerPeers }: SpecMessage): Message {
  return {
    type,
    key: fromHex(key),
    ...(record && { record: { ...record, key: fromHex(record.key), value: fromHex(record.value) } }),
    closerPeers: readPeers(closerPeers),
    providerPeers: readPeers(providerPeers),
  }
}

const some = (max: number) => fc.uint8Array({ maxLength: max })
const peer = fc.record({
  id: some(64),
  addrs: fc.array(some(40), { maxLength: 4 }),
  connection: fc.integer({ min: 1, max: 3 }),
})
const anyMessage = fc.record(
  {
    type: fc.constantFrom(...(Object.keys(messageTypes) as MessageType[])),
    key: some(80),
    closerPeers: fc.array(peer, { maxLength: 5 }),
    providerPeers: fc.array(peer, { maxLength: 5 }),
    record: fc.record({ key: some(80), value: some(200), timeReceived: fc.constant('2026-11-22T00:00:00Z') }),
  },
  { requiredKeys: ['type', 'key', 'closerPeers', 'providerPeers'] },
)

const withAddrs = (count: number): Uint8Array =>
  encodeMessage({
    type: 'FIND_NODE',
    key: new Uint8Array(34),
    closerPeers: [{ id: new Uint8Array(34), addrs: Array.from({ length: count }, () => new Uint8Array(8)) }],
    providerPeers: [],
  })

it.each(spec)('reads what other implementations wrote, and writes it as they do: $name', (message) => {
  const decoded = decodeMessage(fromHex(message.hex))
  expect(decoded).toEqual(expected(message))
  const again = encodeMessage(decoded)
  expect(decodeMessage(again)).toEqual(decoded)
  if (message.unread !== undefined) return
  // The cluster level is nothing that anybody reads; go ends with it, as the last field.
  const level = message.clusterLevelRaw === undefined ? '' : `50${toHex(Uint8Array.of(message.clusterLevelRaw))}`
  expect(toHex(again) + level).toBe(message.hex)
})

it('has a message of each type from each implementation, requests and answers', () => {
  const named = spec.map(({ name }) => name)
  for (const kind of ['go', 'js', 'rust']) {
    for (const type of Object.keys(messageTypes)) {
      // Nobody sends PING any more, nobody answers ADD_PROVIDER.
      if (type === 'PING') continue
      expect(named).toContain(`${kind} ${type} request`)
      if (type !== 'ADD_PROVIDER') expect(named).toContain(`${kind} ${type} answer`)
    }
  }
})

it('reads what other implementations wrote in every cut as ProtocolError or a message, and nothing else', () => {
  for (const { hex } of spec) {
    const bytes = fromHex(hex)
    for (let end = 0; end < bytes.length; end++) {
      try {
        decodeMessage(bytes.subarray(0, end))
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError)
      }
    }
  }
})

it('reads what it wrote', () => {
  fc.assert(
    fc.property(anyMessage, (message) => {
      expect(decodeMessage(encodeMessage(message))).toEqual(message)
    }),
  )
})

it('throws a ProtocolError or nothing, whatever comes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      try {
        decodeMessage(bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError)
      }
    }),
    { numRuns: 2_000 },
  )
})

it('refuses types that it does not know and peers with too many addresses', () => {
  expect(() => decodeMessage(Uint8Array.of(0x08, 6))).toThrow(/type 6/)
  expect(decodeMessage(withAddrs(maxAddrsPerPeer)).closerPeers[0]?.addrs.length).toBe(maxAddrsPerPeer)
  expect(() => decodeMessage(withAddrs(maxAddrsPerPeer + 1))).toThrow(ProtocolError)
})
