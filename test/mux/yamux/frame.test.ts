import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, toHex } from '../../../src/bytes.ts'
import { Packer, decodeHeader, encodeHeader, flag, frameType, type Header } from '../../../src/mux/yamux/frame.ts'

// Written by hand from yamux/README.md §Framing: version, type, flags, stream id, length; big-endian.
const vectors: [string, string, Omit<Header, 'version'>][] = [
  ['opens stream 1', '000100010000000100000000', { type: 1, flags: 1, id: 1, length: 0 }],
  ['opens stream 3 with 5 bytes of data', '000000010000000300000005', { type: 0, flags: 1, id: 3, length: 5 }],
  ['acknowledges stream 2 with 768 KiB', '0001000200000002000c0000', { type: 1, flags: 2, id: 2, length: 786_432 }],
  ['finishes stream 1', '000100040000000100000000', { type: 1, flags: 4, id: 1, length: 0 }],
  [
    'resets stream 4294967295 with code 0x1002',
    '00010008ffffffff00001002',
    { type: 1, flags: 8, id: 0xffff_ffff, length: 0x1002 },
  ],
  ['pings', '000200010000000000000007', { type: 2, flags: 1, id: 0, length: 7 }],
  ['answers a ping', '0002000200000000ffffffff', { type: 2, flags: 2, id: 0, length: 0xffff_ffff }],
  ['goes away after a protocol error', '000300000000000000000001', { type: 3, flags: 0, id: 0, length: 1 }],
]

const blank = (): Header => ({ version: 0, type: 0, flags: 0, id: 0, length: 0 })

describe('yamux header', () => {
  for (const [name, hex, fields] of vectors) {
    it(name, () => {
      const out = new Uint8Array(12)
      encodeHeader(out, 0, fields.type, fields.flags, fields.id, fields.length)
      expect(toHex(out)).toBe(hex)
      const header = blank()
      decodeHeader(fromHex(hex), 0, header)
      expect(header).toEqual({ version: 0, ...fields })
    })
  }

  it('is the same after a round trip, at any offset', () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
    fc.assert(
      fc.property(fc.nat(3), fc.nat(0xffff), u32, u32, fc.nat(20), (type, flags, id, length, at) => {
        const out = new Uint8Array(at + 12)
        encodeHeader(out, at, type, flags, id, length)
        const header = blank()
        decodeHeader(out, at, header)
        expect(header).toEqual({ version: 0, type, flags, id, length })
      }),
    )
  })
})

describe('packer', () => {
  it('puts neighbours that are small into one chunk and carries large ones uncopied', () => {
    const large = new Uint8Array(5000).fill(7)
    const packer = new Packer()
    packer.begin()
    packer.header(frameType.ping, flag.ack, 0, 1)
    packer.header(frameType.data, 0, 1, 3)
    packer.chunk(Uint8Array.of(1, 2, 3))
    packer.header(frameType.data, 0, 1, 5000)
    packer.chunk(large)
    const chunks = packer.end()
    expect(chunks.map((c) => c.length)).toEqual([39, 5000])
    expect(chunks[1]).toBe(large)
    expect(packer.size).toBe(5039)
  })

  it('never writes again into what it gave out', () => {
    const packer = new Packer()
    const given: [Uint8Array, string][] = []
    for (let round = 0; round < 300; round++) {
      packer.begin()
      packer.header(frameType.data, 0, round, round % 200)
      packer.chunk(new Uint8Array(round % 200).fill(round))
      const bytes = packer.end()
      for (const chunk of bytes) given.push([chunk, toHex(chunk)])
      expect(concat(bytes).length).toBe(12 + (round % 200))
    }
    for (const [chunk, hex] of given) expect(toHex(chunk)).toBe(hex)
  })
})
