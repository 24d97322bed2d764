import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../../../src/bytes.ts'
import { ProtocolError } from '../../../src/errors.ts'
import {
  decodeMessage,
  encodeMessage,
  entriesPerMessage,
  keyOf,
  multihashOf,
  parseCid,
  versionOf,
  type BitswapMessage,
  type Version,
} from '../../../src/protocols/bitswap/wire.ts'
import { prefixed } from '../../../src/stream.ts'
import { specCases } from '../../vectors.ts'
import { block } from './fake-host.ts'

interface RealCase {
  name: string
  protocol: string
  hex: string
  wantlist: {
    full: boolean
    entries: { block: string; priority: number; cancel: boolean; wantType: string; sendDontHave: boolean }[]
  }
  blocks: string[]
  payload: { prefix: string; data: string }[]
  blockPresences: { cid: string; type: string }[]
  pendingBytes: number
}

const real = { cases: specCases('bitswap/real.json') as RealCase[] }

/** A length-delimited protobuf field. */
function field(number: number, ...content: (Uint8Array | string)[]): Uint8Array {
  const bytes = concat(content.map((c) => (typeof c === 'string' ? fromHex(c) : c)))
  return concat([Uint8Array.of(number * 8 + 2), ...prefixed(bytes)])
}

const hello = '015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
const helloV0 = hello.slice(4)

const thrown = (fn: () => unknown): unknown => {
  try {
    fn()
  } catch (error) {
    return error
  }
  return undefined
}

describe('decodeMessage', () => {
  it.each(real.cases)('reads what a real peer sent: $name', (c) => {
    const m = decodeMessage(fromHex(c.hex))
    expect(m.full).toBe(c.wantlist.full)
    expect(m.pendingBytes).toBe(c.pendingBytes)
    expect(
      m.wants.map((w) => ({
        block: toHex(w.cid),
        priority: w.priority,
        cancel: w.cancel,
        wantType: w.type,
        sendDontHave: w.sendDontHave,
      })),
    ).toEqual(c.wantlist.entries)
    expect(m.presences.map((p) => ({ cid: toHex(p.cid), type: p.have ? 'have' : 'dont-have' }))).toEqual(
      c.blockPresences,
    )
    expect(m.blocks.map((b) => toHex(b.data))).toEqual([...c.blocks, ...c.payload.map((p) => p.data)])
    for (const b of m.blocks) expect(b).toMatchObject({ hashCode: 0x12, digestLength: 32 })
  })

  it.each(real.cases.filter((c) => !c.name.startsWith('helia')))('writes what boxo wrote: $name', (c) => {
    const m = decodeMessage(fromHex(c.hex))
    const prefixes = c.payload.map((p) => fromHex(p.prefix + '00'.repeat(32)))
    const v0 = fromHex(helloV0)
    const blocks = m.blocks.map((b, i) => ({ data: b.data, cid: prefixes[i] ?? v0 }))
    expect(toHex(concat(encodeMessage({ ...m, blocks }, versionOf(c.protocol))))).toBe(c.hex)
  })

  it('reads a message made by hand with every field', () => {
    const entry = (cid: string, rest: string): Uint8Array => field(1, field(1, cid), rest)
    const frame = concat([
      field(1, entry(hello, '100520012801'), entry(helloV0, '1801'), '1001'),
      field(2, 'aabb'),
      field(3, field(1, '01551220'), field(2, fromUtf8('hello'))),
      field(3, field(1, '00701220')),
      field(4, field(1, hello), '1001'),
      field(4, field(1, helloV0)),
      fromHex('2807'),
      // unknown fields
      fromHex('3001'),
      field(7, '00ff'),
    ])
    const key = keyOf(parseCid(fromHex(hello)).multihash)
    const cid = fromHex(hello)
    expect(decodeMessage(frame)).toEqual({
      full: true,
      wants: [
        { cid, key, hashCode: 0x12, priority: 5, cancel: false, type: 'have', sendDontHave: true },
        { cid: fromHex(helloV0), key, hashCode: 0x12, priority: 0, cancel: true, type: 'block', sendDontHave: false },
      ],
      blocks: [
        { hashCode: 0x12, digestLength: 32, data: fromHex('aabb') },
        { hashCode: 0x12, digestLength: 32, data: fromUtf8('hello') },
        { hashCode: 0x12, digestLength: 32, data: new Uint8Array(0) },
      ],
      presences: [
        { cid, key, have: false },
        { cid: fromHex(helloV0), key, have: true },
      ],
      pendingBytes: 7,
    })
  })

  it('takes an empty message for one that says nothing', () => {
    expect(decodeMessage(new Uint8Array(0))).toEqual({
      full: false,
      wants: [],
      blocks: [],
      presences: [],
      pendingBytes: 0,
    })
  })

  it('refuses a CID above 168 bytes, a block above 2 MiB, a want without CID and too many entries', () => {
    const long = '015512ff01' + '00'.repeat(255)
    expect(thrown(() => decodeMessage(field(1, field(1, field(1, long)))))).toMatchObject({ code: 'oversized' })
    expect(thrown(() => decodeMessage(field(4, field(1, long))))).toMatchObject({ code: 'oversized' })
    const big = new Uint8Array(2 * 1024 * 1024 + 1)
    expect(thrown(() => decodeMessage(field(2, big)))).toMatchObject({ code: 'oversized' })
    expect(thrown(() => decodeMessage(field(3, field(1, '01551220'), field(2, big))))).toMatchObject({
      code: 'oversized',
    })
    expect(decodeMessage(field(2, big.subarray(1))).blocks[0]?.data.length).toBe(2 * 1024 * 1024)
    expect(thrown(() => decodeMessage(field(1, field(1, '1005'))))).toMatchObject({ code: 'bad-protobuf' })
    const wants = Array.from({ length: entriesPerMessage + 1 }, () => field(1, field(1, helloV0)))
    expect(thrown(() => decodeMessage(field(1, ...wants)))).toMatchObject({ code: 'oversized' })
    expect(decodeMessage(field(1, ...wants.slice(1))).wants).toHaveLength(entriesPerMessage)
  })

  it('throws ProtocolError or nothing on random bytes', () => {
    const near = fc.constantFrom(...real.cases.map((c) => fromHex(c.hex)))
    const mutated = fc.tuple(near, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([bytes, at, value]) => {
      const out = bytes.slice()
      out[at % out.length] = value
      return out
    })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated), (bytes) => {
        const error = thrown(() => decodeMessage(bytes))
        expect(error === undefined || error instanceof ProtocolError).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('parseCid', () => {
  it('splits both versions and gives both the same key', () => {
    const v1 = parseCid(fromHex(hello))
    const v0 = parseCid(fromHex(helloV0))
    expect(v1).toMatchObject({ version: 1, codec: 0x55, hashCode: 0x12 })
    expect(v0).toMatchObject({ version: 0, codec: 0x70, hashCode: 0x12 })
    expect(keyOf(v1.multihash)).toBe(keyOf(v0.multihash))
    expect(multihashOf(0x12, v1.digest)).toEqual(v0.multihash)
  })

  it.each([
    ['nothing', ''],
    ['version 0 in CIDv1 form', '0055' + helloV0],
    ['version 2', '0255' + helloV0],
    ['version 3', '0355' + helloV0],
    ['a CIDv0 of another length', helloV0 + '00'],
    ['a CIDv0 that is cut short', helloV0.slice(0, -2)],
    ['trailing bytes', hello + '00'],
    ['a digest that is cut short', hello.slice(0, -2)],
    ['a codec that is not minimal', '01d500' + helloV0],
    ['a digest of 129 bytes', '0155008101' + '00'.repeat(129)],
    ['a varint without end', '01' + 'ff'.repeat(12)],
  ])('refuses %s', (_, hex) => {
    expect(thrown(() => parseCid(fromHex(hex)))).toMatchObject({ name: 'ProtocolError', code: 'bad-cid' })
  })
})

describe('encodeMessage', () => {
  const one = block(1, 5000)
  const cid = one.cid.bytes
  const message = {
    full: true,
    wants: [{ cid, priority: 3, cancel: false, type: 'have' as const, sendDontHave: true }],
    blocks: [{ cid, data: one.bytes }],
    presences: [{ cid, have: false }],
    pendingBytes: 9,
  }

  const decoded = (version: Version): BitswapMessage => decodeMessage(concat(encodeMessage(message, version)))

  it('does not copy blocks', () => {
    expect(encodeMessage(message, '1.2')).toContain(one.bytes)
    expect(encodeMessage(message, '1.0')).toContain(one.bytes)
  })

  it('says on 1.1 and 1.0 only what they know', () => {
    expect(decoded('1.2')).toMatchObject({ pendingBytes: 9, presences: [{ have: false }], wants: [{ type: 'have' }] })
    for (const version of ['1.1', '1.0'] as const) {
      expect(decoded(version)).toMatchObject({
        full: true,
        pendingBytes: 0,
        presences: [],
        wants: [{ type: 'block', sendDontHave: false, priority: 3 }],
        blocks: [{ hashCode: 0x12, digestLength: 32, data: one.bytes }],
      })
    }
  })

  it('leaves out of 1.0 blocks that it cannot name', () => {
    const other = fromHex('01551340' + '00'.repeat(64))
    const bytes = concat(encodeMessage({ blocks: [{ cid: other, data: one.bytes }] }, '1.0'))
    expect(decodeMessage(bytes).blocks).toEqual([])
  })
})
