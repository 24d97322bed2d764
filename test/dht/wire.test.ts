import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ProtocolError } from '../../src/errors.ts'
import { decodeMessage, encodeMessage, maxAddrsPerPeer, messageTypes, type MessageType } from '../../src/dht/wire.ts'

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
