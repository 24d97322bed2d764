import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, toHex } from '../../../src/bytes.ts'
import { ProtocolError } from '../../../src/errors.ts'
import {
  Identify,
  encodeIdentify,
  maxFrameBytes,
  maxFrames,
  maxProtocols,
} from '../../../src/protocols/identify/wire.ts'
import { specCases } from '../../vectors.ts'

const base = { publicKey: new Uint8Array(36).fill(1), listenAddrs: [new Uint8Array(8)], agentVersion: 'x' }
const names = (count: number, length = 30): string[] =>
  Array.from({ length: count }, (_, i) => `/${i}/`.padEnd(length, 'p'))

const twice = (init: Parameters<typeof Identify.encode>[0]): Uint8Array =>
  concat([Identify.encode(init), Identify.encode(init)])

describe('the frames of an identify message', () => {
  it('are one up to 2 KiB', () => {
    const small = { ...base, protocols: names(10), signedPeerRecord: new Uint8Array(200).fill(8) }
    expect(encodeIdentify(small)).toEqual({ frames: [Identify.encode(small)], left: 0 })
  })

  it('have the record apart beyond that, behind all that older peers read', () => {
    const protocols = names(20)
    const signedPeerRecord = new Uint8Array(1800).fill(8)
    const { frames } = encodeIdentify({ ...base, protocols, signedPeerRecord })
    expect(frames).toEqual([Identify.encode({ ...base, protocols }), Identify.encode({ signedPeerRecord })])
  })

  it('are at most ten, whatever there is to say, the first of 4 KiB and the others of 8', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: fc.constantFrom('a', 'ü', '/'), minLength: 1, maxLength: 200 }), { maxLength: 30 }),
        fc.nat(1200),
        fc.option(fc.nat(6000), { nil: undefined }),
        fc.nat(250),
        (some, count, recordBytes, addrs) => {
          const protocols =
            some.length === 0 ? [] : Array.from({ length: count }, (_, i) => `${some[i % some.length]}${i}`)
          const listenAddrs = Array.from({ length: addrs }, () => new Uint8Array(8))
          const signedPeerRecord = recordBytes === undefined ? undefined : new Uint8Array(recordBytes).fill(8)
          const { frames, left } = encodeIdentify({ ...base, listenAddrs, protocols, signedPeerRecord })
          expect(frames.length).toBeGreaterThan(0)
          expect(frames.length).toBeLessThanOrEqual(maxFrames)
          expect(frames[0]?.length).toBeLessThanOrEqual(4096)
          for (const frame of frames) expect(frame.length).toBeLessThanOrEqual(maxFrameBytes)
          const merged = Identify.decode(concat(frames))
          expect(merged).toMatchObject({ agentVersion: 'x', listenAddrs })
          expect(merged.protocols).toEqual(protocols.slice(0, protocols.length - left))
          expect(merged.signedPeerRecord).toEqual(signedPeerRecord)
          if (count <= maxProtocols && protocols.join('').length < 30_000) expect(left).toBe(0)
        },
      ),
    )
  })

  it('leave out what no peer would take', () => {
    expect(encodeIdentify({ ...base, protocols: names(2000) })).toMatchObject({ left: 2000 - maxProtocols })
    const tooLong = encodeIdentify({ ...base, protocols: ['/a', '/'.padEnd(1025, 'x'), '/b'] })
    expect(tooLong).toEqual({ frames: [Identify.encode({ ...base, protocols: ['/a', '/b'] })], left: 1 })
    const { frames, left } = encodeIdentify({
      ...base,
      protocols: names(500, 1000),
      signedPeerRecord: new Uint8Array(9),
    })
    expect(frames).toHaveLength(maxFrames)
    expect(left).toBeGreaterThan(400)
  })
})

describe('an identify message', () => {
  it.each(specCases('identify/go-js-py.json') as Record<string, string>[])('of $name is read', (one) => {
    const read = Identify.decode(fromHex(one['hex'] ?? ''))
    for (const field of ['publicKey', 'observedAddr', 'signedPeerRecord'] as const) {
      expect(toHex(read[field] ?? new Uint8Array(0)), field).toBe(one[field])
    }
    expect(read.listenAddrs.map(toHex)).toEqual(one['listenAddrs'])
    expect(read.protocols).toEqual(one['protocols'])
    expect(read.agentVersion).toBe(one['agentVersion'])
  })

  it('with more than it may hold is refused', () => {
    expect(() => Identify.decode(twice({ protocols: names(513) }))).toThrow(ProtocolError)
    expect(() => Identify.decode(twice({ listenAddrs: Array.from({ length: 129 }, () => new Uint8Array(1)) }))).toThrow(
      ProtocolError,
    )
    expect(Identify.decode(twice({ protocols: names(512) })).protocols).toHaveLength(1024)
  })

  it('is refused with a ProtocolError or read from random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (random) => {
        try {
          Identify.decode(random)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})
