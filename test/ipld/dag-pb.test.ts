import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { errorCode, ProtocolError } from '../../src/errors.ts'
import { cidOf, codec, parseCid } from '../../src/ipld/cid.ts'
import { decodeNode, encodeNode, linkSize, sortLinks, type PBLink, type PBNode } from '../../src/ipld/dag-pb.ts'
import negative from '../../spec-vectors/dag-pb/decode-edges.json' with { type: 'json' }

const vectors = process.env['RHIZA_VECTORS'] ?? join(import.meta.dirname, '../../../shared/vectors')
const fixtures = join(vectors, 'codec-fixtures')

/** A node as text: comparing CIDs field by field is slow. */
function shown({ links, data }: PBNode): string {
  const all = links.map(({ cid, name, tsize }) =>
    [cid.toString(), name, tsize].map((part) => JSON.stringify(part)).join(),
  )
  return [...all, data === undefined ? 'none' : toHex(data)].join(' ')
}

function codeOf(hex: string): string | undefined {
  try {
    decodeNode(fromHex(hex))
  } catch (error) {
    return errorCode(error)
  }
  return 'no error'
}

describe.skipIf(!existsSync(fixtures))('ipld/codec-fixtures', () => {
  const files = (existsSync(fixtures) ? readdirSync(fixtures, { recursive: true, encoding: 'utf8' }) : []).filter(
    (file) => file.endsWith('.dag-pb'),
  )

  test('there are 17 of them', () => expect(files).toHaveLength(17))

  test.each(files)('%s is read and written back to the same bytes and CID', (file) => {
    const bytes = new Uint8Array(readFileSync(join(fixtures, file)))
    const node = decodeNode(bytes)
    expect(toHex(encodeNode(node))).toBe(toHex(bytes))
    expect(cidOf(codec.dagPb, encodeNode(node)).toString()).toBe(basename(file, '.dag-pb'))
    // Canonical: sorting changes nothing.
    expect(sortLinks(node.links)).toEqual(node.links)
  })
})

describe('decodeNode refuses', () => {
  test.each(negative.cases)('$name (codec-fixtures negative-fixtures)', ({ hex }) => {
    expect(['bad-block', 'bad-cid']).toContain(codeOf(hex))
  })

  const cid = '0a09015500050001020304'
  const refused: Record<string, string> = {
    'an unknown field in a node': '1a00',
    'an unknown field in a link': `120d${cid}2200`,
    'Data as a varint': '0801',
    'Links as a varint': '1001',
    'Tsize as bytes': `120d${cid}1a00`,
    'a duplicate Hash': `1216${cid}${cid}`,
    'a duplicate Name': `120f${cid}12001200`,
    'a duplicate Tsize': `120f${cid}18001800`,
    'Name before Hash': `120d1200${cid}`,
    'Tsize before Name': `120f${cid}18001200`,
    'Data twice': '0a000a00',
    'a length beyond the end': '0a05000102',
    'a link beyond the end': '1205',
    'a length of ten bytes that is too large': '0affffffffffffffffff7f',
    'a field inside a link that ends behind it': `120c${cid}1205`,
  }
  for (const [what, hex] of Object.entries(refused)) test(what, () => expect(codeOf(hex)).toBe('bad-block'))

  test('a Name that is not UTF-8', () => expect(codeOf(`120e${cid}1201ff`)).toBe('bad-utf8'))

  test('a block above the limit, which it names', () => {
    expect(() => decodeNode(new Uint8Array(2 * 1024 * 1024 + 1))).toThrow('at most 2097152')
    expect(() => decodeNode(new Uint8Array(11), 10)).toThrow(ProtocolError)
  })
})

describe('decodeNode', () => {
  test('reads Data before Links too (IPIP-0550)', () => {
    const linksFirst = decodeNode(fromHex('120b0a090155000500010203040a020801'))
    const dataFirst = decodeNode(fromHex('0a020801120b0a09015500050001020304'))
    expect(dataFirst.links.map(({ cid }) => cid.toString())).toEqual(linksFirst.links.map(({ cid }) => cid.toString()))
    expect(dataFirst.data).toEqual(linksFirst.data)
  })

  test('keeps absent and empty apart', () => {
    expect(decodeNode(new Uint8Array(0))).toEqual({ links: [] })
    expect(decodeNode(fromHex('0a00')).data).toHaveLength(0)
    expect(decodeNode(fromHex('120b0a09015500050001020304')).links[0]?.name).toBeUndefined()
    expect(decodeNode(fromHex('120d0a090155000500010203041200')).links[0]?.name).toBe('')
  })

  test('takes a Tsize above 2^53-1 as none', () => {
    const { links } = decodeNode(fromHex('12160a0901550005000102030418ffffffffffffffffff01'))
    expect(links[0]?.tsize).toBeUndefined()
  })

  test('throws ProtocolError or nothing on random bytes, and what it reads it can write back', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 12 }),
      fc.constantFrom(...['120b0a09015500050001020304', '0a020801', '12', '0a', '1200'].map((hex) => fromHex(hex))),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
        const bytes = Uint8Array.from(pieces.flatMap((one) => [...one]))
        let node
        try {
          node = decodeNode(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
          return
        }
        expect(shown(decodeNode(encodeNode(node)))).toBe(shown(node))
      }),
    )
  })
})

describe('encodeNode', () => {
  const cid = parseCid('bafkqaaa')

  test('round-trips any node', () => {
    const link: fc.Arbitrary<PBLink> = fc.record(
      { cid: fc.constant(cid), name: fc.string({ unit: 'binary', maxLength: 20 }), tsize: fc.maxSafeNat() },
      { requiredKeys: ['cid'] },
    )
    const node = fc.record(
      { links: fc.array(link, { maxLength: 6 }), data: fc.uint8Array() },
      { requiredKeys: ['links'] },
    )
    fc.assert(
      fc.property(node, (value) => {
        const bytes = encodeNode(value)
        expect(shown(decodeNode(bytes))).toBe(shown(value))
        const links = value.links.reduce((sum, one) => sum + linkSize(one), 0)
        expect(bytes).toHaveLength(links + encodeNode({ links: [], data: value.data }).length)
      }),
    )
  })

  test('refuses a Tsize that is no size', () => {
    for (const tsize of [-1, 0.5, 2 ** 53]) expect(() => encodeNode({ links: [{ cid, tsize }] })).toThrow(RangeError)
  })
})

test('sortLinks goes by bytes, not by UTF-16, and keeps equal names in order', () => {
  const links = ['b', '\u{1F600}', '\uFF5E', 'a', '', 'aa', 'a'].map((name, i) => ({ name, i }))
  const sorted = sortLinks(links)
  expect(sorted.map(({ name }) => name)).toEqual(['', 'a', 'a', 'aa', 'b', '\uFF5E', '\u{1F600}'])
  expect(sorted.map(({ i }) => i)).toEqual([4, 3, 6, 5, 0, 2, 1])
  expect(fromUtf8('\uFF5E')[0]).toBeLessThan(fromUtf8('\u{1F600}')[0] ?? 0)
})
