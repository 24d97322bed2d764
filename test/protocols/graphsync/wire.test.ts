import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, latin1, toHex } from '../../../src/bytes.ts'
import { ProtocolError } from '../../../src/errors.ts'
import { decodeCbor, encodeCbor } from '../../../src/ipld/cbor.ts'
import { CID, cidOf, codec } from '../../../src/ipld/cid.ts'
import type { IpldNode } from '../../../src/ipld/model.ts'
import {
  MetadataReader,
  MetadataWriter,
  decodeCidList,
  decodeExtension,
  decodeMessage,
  encodeMessage,
  idBytes,
  idText,
  parsePrefix,
  partsPerMessage,
  prefixOf,
  type LinkAction,
  type OutgoingMessage,
} from '../../../src/protocols/graphsync/wire.ts'
import { specCases } from '../../vectors.ts'

const id = '0123abcd-4567-489a-8bcd-ef0123456789'
const block = (n: number, size = 40): Uint8Array => new Uint8Array(size).fill(n)
const cid = (n: number, size?: number): CID => cidOf(codec.raw, block(n, size))
const v0 = cidOf(codec.dagPb, block(9), 0)

function metadata(...entries: [CID, LinkAction][]): MetadataWriter {
  const out = new MetadataWriter()
  for (const [link, action] of entries) out.add(link.bytes, action)
  return out
}

const values = (extensions: ReadonlyMap<string, Uint8Array>): IpldNode =>
  Object.fromEntries(Array.from(extensions, ([name, raw]) => [name, decodeCbor(raw)]))

const ext = (extensions?: ReadonlyMap<string, Uint8Array>): object =>
  extensions === undefined || extensions.size === 0 ? {} : { ext: values(extensions) }

/** The same through the general encoder, by the schema. */
function plain({ requests = [], responses = [], blocks = [] }: OutgoingMessage): Uint8Array {
  const gs2 = {
    ...(requests.length > 0 && {
      req: requests.map((r) => ({
        id: idBytes(r.id),
        type: r.type,
        ...(r.priority !== undefined && r.priority !== 0 && { pri: r.priority }),
        ...(r.root && { root: r.root }),
        ...(r.selector && { sel: decodeCbor(r.selector) }),
        ...ext(r.extensions),
      })),
    }),
    ...(responses.length > 0 && {
      rsp: responses.map((r) => {
        const links: IpldNode[] = []
        const reader = new MetadataReader({
          metadata: r.metadata?.bytes ?? new Uint8Array(0),
          links: r.metadata?.links ?? 0,
        })
        for (; reader.left > 0; reader.next()) links.push([CID.decode(reader.cid.slice()), reader.action])
        return { reqid: idBytes(r.id), stat: r.status, ...(links.length > 0 && { meta: links }), ...ext(r.extensions) }
      }),
    }),
    ...(blocks.length > 0 && { blk: blocks.map(({ cid: c, data }) => [prefixOf(c), data]) }),
  }
  return encodeCbor({ gs2 })
}

const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(idText)
const link = fc.integer({ min: 0, max: 255 }).map((n) => (n === 9 ? v0 : cid(n)))
const value = fc
  .oneof(
    fc.string(),
    fc.integer(),
    fc.uint8Array({ maxLength: 3000 }),
    fc.constant(null),
    fc.array(fc.double({ noNaN: true, noDefaultInfinity: true })),
  )
  .map((node) => encodeCbor(node as IpldNode))
const extensions = fc
  .uniqueArray(fc.tuple(fc.string({ maxLength: 12 }), value), { maxLength: 5, selector: ([name]) => name })
  .map((entries) => new Map(entries))
const message = fc.record({
  requests: fc.array(
    fc.record({
      id: uuid,
      type: fc.constantFrom('n', 'c', 'u'),
      priority: fc.integer(),
      root: link,
      selector: value,
      extensions,
    }),
    { maxLength: 3 },
  ),
  responses: fc.array(
    fc.record({
      id: uuid,
      status: fc.integer({ min: 10, max: 39 }),
      metadata: fc
        .array(fc.tuple(link, fc.constantFrom('p', 'd', 'm', 's') as fc.Arbitrary<LinkAction>), { maxLength: 40 })
        .map((entries) => metadata(...entries)),
      extensions,
    }),
    { maxLength: 3 },
  ),
  blocks: fc.array(
    fc.tuple(link, fc.uint8Array({ maxLength: 5000 })).map(([c, data]) => ({ cid: c, data })),
    { maxLength: 4 },
  ),
})

describe('encodeMessage', () => {
  it('writes what the schema and canonical DAG-CBOR say, byte for byte', () => {
    fc.assert(
      fc.property(message, (m) => {
        expect(concat(encodeMessage(m))).toEqual(plain(m))
      }),
    )
  })

  it('does not copy blocks above 2 KiB, and gathers smaller ones', () => {
    const big = block(1, 3000)
    const chunks = encodeMessage({
      blocks: [
        { cid: cid(1, 3000), data: big },
        { cid: cid(2), data: block(2) },
        { cid: cid(3), data: block(3) },
      ],
    })
    expect(chunks).toHaveLength(3)
    expect(chunks[1]).toBe(big)
  })
})

describe('decodeMessage', () => {
  it('reads back what was written', () => {
    fc.assert(
      fc.property(message, (m) => {
        const read = decodeMessage(concat(encodeMessage(m)))
        expect(read.requests).toEqual(m.requests)
        expect(read.blocks).toEqual(m.blocks.map(({ cid: c, data }) => ({ prefix: prefixOf(c), data })))
        expect(read.responses.map(({ id: i, status, extensions: e, links }) => [i, status, e, links])).toEqual(
          m.responses.map((r) => [r.id, r.status, r.extensions, r.metadata.links]),
        )
        read.responses.forEach((r, i) => expect(r.metadata).toEqual(m.responses[i]?.metadata.bytes))
      }),
    )
  })

  it('throws a ProtocolError for every cut, and nothing else for bytes that were changed', () => {
    const whole = concat(
      encodeMessage({
        requests: [
          {
            id,
            type: 'n',
            priority: -1,
            root: cid(1),
            selector: encodeCbor({ a: { '>': { '.': {} } } }),
            extensions: new Map([['x', encodeCbor([1, { y: cid(2) }])]]),
          },
        ],
        responses: [{ id, status: 14, metadata: metadata([cid(1), 'p'], [v0, 'm']) }],
        blocks: [{ cid: cid(1), data: block(1) }],
      }),
    )
    for (let i = 0; i < whole.length; i++) expect(() => decodeMessage(whole.subarray(0, i))).toThrow(ProtocolError)
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
        const changed = whole.slice()
        changed[at] = byte
        try {
          decodeMessage(changed)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
      { numRuns: 2000 },
    )
  })

  const hexCases: [string, string][] = [
    ['another key', 'a1636773 31a0'],
    ['two keys', 'a2 63677332 a0 63677333 a0'],
    ['an unknown field', 'a1 63677332 a1 63666f6f 80'],
    ['fields out of order', 'a1 63677332 a2 63726571 80 63626c6b 80'],
    ['a field twice', 'a1 63677332 a2 63626c6b 80 63626c6b 80'],
    ['a list of indefinite length', 'a1 63677332 a1 63626c6b 9fff'],
    ['a length that is not minimal', 'a1 63677332 a1 63626c6b 9800'],
    ['more blocks than there are bytes', 'a1 63677332 a1 63626c6b 9affffffff'],
    ['a block of one item', 'a1 63677332 a1 63626c6b 81 81 4401551220'],
    ['a request id of 15 bytes', `a1 63677332 a1 63726571 81 a2 626964 4f${'00'.repeat(15)} 6474797065 6163`],
    ['a request of unknown type', `a1 63677332 a1 63726571 81 a2 626964 50${'00'.repeat(16)} 6474797065 6172`],
    ['a request without a type', `a1 63677332 a1 63726571 81 a1 626964 50${'00'.repeat(16)}`],
    ['a response without a status', `a1 63677332 a1 63727370 81 a1 657265716964 50${'00'.repeat(16)}`],
    ['a status that is none', `a1 63677332 a1 63727370 81 a2 6473746174 09 657265716964 50${'00'.repeat(16)}`],
    [
      'an unknown link action',
      `a1 63677332 a1 63727370 81 a3 646d657461 81 82 d82a 45 0001550000 6178 6473746174 0e 657265716964 50${'00'.repeat(16)}`,
    ],
    ['bytes behind the message', 'a1 63677332 a0 00'],
    [
      'a float of 32 bits in a selector',
      `a1 63677332 a1 63726571 81 a3 626964 50${'00'.repeat(16)} 6373656c fa00000000 6474797065 616e`,
    ],
  ]
  it.each(hexCases)('refuses %s', (_, hex) => {
    expect(() => decodeMessage(fromHex(hex.replaceAll(' ', '')))).toThrow(ProtocolError)
  })

  it('refuses more requests than a message may have before it makes any of them', () => {
    const requests = Array.from({ length: partsPerMessage + 1 }, () => ({ id, type: 'c' as const }))
    expect(() => decodeMessage(concat(encodeMessage({ requests })))).toThrow(/4097 in requests, at most 4096/)
    expect(decodeMessage(concat(encodeMessage({ requests: requests.slice(1) }))).requests).toHaveLength(partsPerMessage)
  })

  it('refuses a selector that nests without end, and does not run out of stack', () => {
    const deep = concat([new Uint8Array(100_000).fill(0x81), Uint8Array.of(0x80)])
    expect(() => decodeMessage(concat(encodeMessage({ requests: [{ id, type: 'n', selector: deep }] })))).toThrow(
      /deeper than 1024/,
    )
  })
})

describe('messages of go-graphsync', () => {
  const cases = specCases('graphsync/messages.json') as { name: string; request: string; hex: string }[]

  it.each(cases)('are read, and written again byte for byte: $name', ({ hex, request }) => {
    const frame = fromHex(hex)
    const read = decodeMessage(frame)
    expect([...read.requests, ...read.responses].map((part) => part.id)).toContain(request)
    // The general decoder sees the same.
    const { gs2 } = decodeCbor(frame) as { gs2: Record<string, Record<string, IpldNode>[]> }
    expect(read.requests.map(({ type, priority }) => [type, priority])).toEqual(
      (gs2['req'] ?? []).map((r) => [r['type'], r['pri'] ?? 0]),
    )
    expect(read.responses.map(({ status, links }) => [status, links])).toEqual(
      (gs2['rsp'] ?? []).map((r) => [r['stat'], (r['meta'] as readonly IpldNode[] | undefined)?.length ?? 0]),
    )
    expect(read.blocks.map(({ prefix, data }) => [prefix, data])).toEqual(gs2['blk'] ?? [])
    const responses = read.responses.map(({ metadata: entries, ...rest }) => {
      const again = new MetadataWriter()
      for (const reader = new MetadataReader({ ...rest, metadata: entries }); reader.left > 0; reader.next())
        again.add(reader.cid, reader.action)
      return { ...rest, metadata: again }
    })
    const requests = read.requests.map(({ root, selector, ...rest }) => ({
      ...rest,
      ...(root && { root }),
      ...(selector && { selector }),
    }))
    const blocks = read.blocks.map(({ prefix, data }) => ({
      cid: cidOf(parsePrefix(prefix).head[1] as number, data),
      data,
    }))
    expect(toHex(concat(encodeMessage({ requests, responses, blocks })))).toBe(hex)
  })

  it('show each way in which a request ends', () => {
    const statuses = new Set(
      cases.flatMap(({ hex }) => decodeMessage(fromHex(hex)).responses.map(({ status }) => status)),
    )
    expect(statuses).toEqual(new Set([14, 15, 20, 21, 30, 32, 34, 35]))
  })
})

describe('extensions', () => {
  it('come as bytes and say what they say when they are asked', () => {
    const raw = encodeCbor({ a: [1, cid(3)] })
    const [request] = decodeMessage(
      concat(encodeMessage({ requests: [{ id, type: 'u', extensions: new Map([['app/x', raw]]) }] })),
    ).requests
    expect(decodeExtension(request?.extensions.get('app/x') as Uint8Array)).toEqual({ a: [1, cid(3)] })
  })

  it('do-not-send-cids keeps as many CIDs as it may, and refuses what is no list of links', () => {
    const list = encodeCbor([cid(1), v0, cid(2)])
    expect(decodeCidList(list, 9)).toEqual([cid(1), v0, cid(2)].map((c) => latin1(c.bytes)))
    expect(decodeCidList(list, 2)).toHaveLength(2)
    expect(() => decodeCidList(encodeCbor([cid(1), 'x']), 9)).toThrow(ProtocolError)
    expect(() => decodeCidList(encodeCbor({}), 9)).toThrow(ProtocolError)
  })
})

describe('block prefixes', () => {
  it('and a digest give the CID, of version 0 too', () => {
    for (const c of [cid(4), v0]) {
      const { head, hashCode, digestLength } = parsePrefix(prefixOf(c))
      expect(concat([head, c.multihash.digest])).toEqual(c.bytes)
      expect([hashCode, digestLength]).toEqual([0x12, 32])
    }
  })

  it.each(['', '01', '015512', '0155122000', '02551220', '00551220', '0155128102', '01d5001220'])(
    'refuse %s',
    (hex) => {
      expect(() => parsePrefix(fromHex(hex))).toThrow(ProtocolError)
    },
  )
})

it('ids are UUIDs as text', () => {
  expect(idText(idBytes(id))).toBe(id)
  expect(idText(fromUtf8('0123456789abcdef'))).toBe('30313233-3435-3637-3839-616263646566')
})
