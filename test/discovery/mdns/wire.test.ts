import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, toHex } from '../../../src/bytes.ts'
import { recordTypes } from '../../../src/dns.ts'
import { decodeMessage, encodeMessage, type MdnsMessage, type Resource } from '../../../src/discovery/mdns/wire.ts'
import { ProtocolError } from '../../../src/errors.ts'

const service = '_p2p._udp.local'
const ask: MdnsMessage = {
  response: false,
  questions: [{ name: service, type: recordTypes.PTR, unicast: false }],
  answers: [],
  additionals: [],
}

const label = fc.string({ unit: fc.constantFrom(...Array.from('abcxyz019-_')), minLength: 1, maxLength: 20 })
const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'))
const owner = { name, ttlSeconds: fc.integer({ min: 0, max: 0x7fff_ffff }), flush: fc.boolean() }
const strings = fc.array(fc.string({ unit: 'binary-ascii', minLength: 1, maxLength: 255 }), { maxLength: 4 })
const resource: fc.Arbitrary<Resource> = fc.oneof(
  fc.record({ ...owner, type: fc.constant('PTR'), target: name }),
  fc.record({ ...owner, type: fc.constant('SRV'), target: name, port: fc.nat(65_535) }),
  fc.record({ ...owner, type: fc.constant('TXT'), strings }),
  fc.record({ ...owner, type: fc.constant('A'), address: fc.ipV4() }),
)
const message: fc.Arbitrary<MdnsMessage> = fc.record({
  response: fc.boolean(),
  questions: fc.array(fc.record({ name, type: fc.nat(65_535), unicast: fc.boolean() }), { maxLength: 4 }),
  answers: fc.array(resource, { maxLength: 6 }),
  additionals: fc.array(resource, { maxLength: 6 }),
})

function decode(bytes: Uint8Array): void {
  try {
    decodeMessage(bytes)
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError)
  }
}

const header = (asked: number, answered: number): Uint8Array =>
  Uint8Array.of(0, 0, 0x84, 0, asked >> 8, asked, answered >> 8, answered, 0, 0, 0, 0)

describe('messages of multicast DNS', () => {
  it('ask as discovery/mdns.md has it', () => {
    const bytes = '000000000001000000000000045f703270045f756470056c6f63616c00000c0001'
    expect(toHex(encodeMessage(ask))).toBe(bytes)
    expect(decodeMessage(fromHex(bytes))).toEqual(ask)
  })

  it('write a name once, and point there', () => {
    const answer: Resource = { name: service, type: 'PTR', target: `abc.${service}`, ttlSeconds: 120, flush: false }
    const bytes = encodeMessage({ response: true, questions: [], answers: [answer], additionals: [] })
    expect(toHex(bytes)).toContain('03616263c00c')
    expect(decodeMessage(bytes).answers).toEqual([answer])
  })

  it('come back as they went', () => {
    fc.assert(
      fc.property(message, (sent) => {
        expect(decodeMessage(encodeMessage(sent))).toEqual(sent)
      }),
    )
  })

  it('keep a dot within a label apart from one between labels', () => {
    const answer: Resource = { name: 'a\\.b.c', type: 'PTR', target: 'd\\\\.e', ttlSeconds: 1, flush: true }
    const bytes = encodeMessage({ response: true, questions: [], answers: [answer], additionals: [] })
    expect(toHex(bytes)).toContain('03612e620163')
    expect(decodeMessage(bytes).answers).toEqual([answer])
  })

  it('throw ProtocolError or nothing, whatever comes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), decode))
    fc.assert(
      fc.property(message, fc.nat(), fc.nat(255), (sent, at, byte) => {
        const bytes = encodeMessage(sent)
        bytes[at % bytes.length] = byte
        decode(bytes)
      }),
    )
  })

  it('are refused when cut anywhere', () => {
    fc.assert(
      fc.property(message, fc.nat(), (sent, at) => {
        const bytes = encodeMessage(sent)
        expect(() => decodeMessage(bytes.subarray(0, at % bytes.length))).toThrow(ProtocolError)
      }),
    )
  })

  it.each<[what: string, bytes: Uint8Array, message: string]>([
    ['bytes behind the end', concat([encodeMessage(ask), Uint8Array.of(0)]), 'behind'],
    ['too many records', header(0, 60_000), '60000 records'],
    ['too many questions', header(65, 0), '65 questions'],
    ['a packet that is too long', new Uint8Array(9_001), '9001 bytes'],
    ['an address of five bytes', concat([header(0, 1), fromHex('00000100010000000100050102030405')]), '5 bytes'],
    ['a pointer to itself', concat([header(0, 1), fromHex('c00c000c000100000001000100')]), 'forwards'],
    ['another opcode', Uint8Array.of(0, 0, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0), 'opcode'],
  ])('refuse %s', (_what, bytes, text) => {
    expect(() => decodeMessage(bytes)).toThrow(text)
  })
})
