import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8, toHex, toUtf8 } from '../../src/bytes.ts'
import { errorCode, ProtocolError, UnavailableError } from '../../src/errors.ts'
import { decodeCbor, encodeCbor } from '../../src/ipld/cbor.ts'
import { CID, cidOf, parseCid } from '../../src/ipld/cid.ts'
import { Codecs, codecs, standardCodecs, type Codec } from '../../src/ipld/codecs.ts'
import { decodeJson } from '../../src/ipld/json.ts'
import { keysOf, type IpldMap, type IpldNode } from '../../src/ipld/model.ts'
import { sharedVectors, specCases } from '../vectors.ts'

function codec(name: string): Codec {
  const found = codecs.byName(name)
  if (found === undefined) throw new Error(`no codec ${name}`)
  return found
}

const dagCbor = codec('dag-cbor')
const dagJson = codec('dag-json')
const dagPb = codec('dag-pb')

const json = (text: string): IpldNode => dagJson.decode(fromUtf8(text))
const shown = (node: IpldNode): string => toUtf8(dagJson.encode(node))

function codeOf(run: () => unknown): string | undefined {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError)
    return errorCode(error)
  }
  return 'no error'
}

const cid = parseCid('bafkqaaa')
/** 01550000 behind the multibase prefix. */
const linkHex = 'd82a450001550000'

const fixtures = sharedVectors('codec-fixtures')

describe.skipIf(fixtures === undefined)('ipld/codec-fixtures', () => {
  const folder = fixtures ?? ''
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith('.')) : []
  const files = (name: string) =>
    readdirSync(join(folder, name)).map((file) => {
      const [text = '', codecName = ''] = file.split('.')
      return { text, format: codec(codecName), bytes: new Uint8Array(readFileSync(join(folder, name, file))) }
    })

  test('there are 128 values in 273 blocks', () => {
    expect(names).toHaveLength(128)
    expect(names.flatMap((name) => files(name))).toHaveLength(273)
  })

  // No folder is left out: where a float of a fixture is whole, JavaScript writes an int, but none of them has one.
  test.each(names)('%s: each codec reads it, and writes what all the others have, with their CIDs', (name) => {
    const blocks = files(name)
    expect(blocks.length).toBeGreaterThan(1)
    for (const from of blocks) {
      const node = from.format.decode(from.bytes)
      for (const to of blocks) {
        const bytes = to.format.encode(node)
        expect(toHex(bytes), `${from.format.name} to ${to.format.name}`).toBe(toHex(to.bytes))
        expect(cidOf(to.format.code, bytes).toString()).toBe(to.text)
      }
    }
  })

  test.each(names)('%s is canonical dag-cbor', (name) => {
    for (const { format, bytes } of files(name)) if (format === dagCbor) decodeCbor(bytes, { canonical: true })
  })

  test('a block that is cut anywhere, or has a byte more, is refused', () => {
    for (const name of ['map-nested', 'array-mixed', 'garbage-05', 'cid-mapof', 'dagpb_4namedlinks+data']) {
      for (const { format, bytes } of files(name)) {
        if (format === dagPb) continue
        for (let size = 0; size < bytes.length; size++)
          expect(
            codeOf(() => format.decode(bytes.subarray(0, size))),
            `${name} ${format.name}`,
          ).toBe('bad-block')
        expect(codeOf(() => format.decode(Uint8Array.of(...bytes, 0x30)))).toBe('bad-block')
      }
    }
  })
})

describe('negative fixtures of ipld/codec-fixtures', () => {
  test('duplicate keys are refused in dag-cbor and dag-json', () => {
    expect(codeOf(() => dagCbor.decode(fromHex('a3636261720363666f6f0163666f6f02')))).toBe('bad-block')
    expect(codeOf(() => dagJson.decode(fromHex('7b22666f6f223a312c22666f6f223a322c22626172223a337d')))).toBe(
      'bad-block',
    )
  })

  const cases = specCases('dag-pb/encode-forms.json') as { name: string; dagJson: string }[]
  test.each(cases)('dag-pb does not encode: $name', ({ name, dagJson: text }) => {
    const node = json(text)
    // Here we do as go-codec-dagpb: what is not sorted gets sorted.
    if (name.startsWith('bad sort')) {
      const { Links } = dagPb.decode(dagPb.encode(node)) as { Links: { Name?: string }[] }
      const names = Links.map(({ Name = '' }) => Name)
      expect(names).toEqual(names.toSorted())
    } else {
      expect(() => dagPb.encode(node)).toThrow(TypeError)
    }
  })
})

interface Rfc8949Case {
  hex: string
  decoded?: unknown
  diagnostic?: string
  roundtrip?: false
}

function value(decoded: unknown): unknown {
  const { int, float } = (decoded ?? {}) as { int?: string; float?: string }
  return int === undefined ? (float === undefined ? decoded : Number(float)) : BigInt(int)
}

describe('RFC 8949 Appendix A', () => {
  const cases = specCases('cbor/rfc8949-appendix-a.json') as Rfc8949Case[]
  /** What the data model has not, or dag-cbor does not allow: tags, simple values, int keys, NaN, no definite length. */
  const refused = ({ hex, diagnostic = '' }: Rfc8949Case) =>
    /^(?:c|d[0-7]|d8|f8|f0|a201|[579b]f|83018202039f|83019f|826161bf)/.test(hex) || /NaN|Infinity/.test(diagnostic)

  test('there are 82 cases', () => expect(cases).toHaveLength(82))

  test.each(cases.filter((one) => refused(one)))('$hex is refused', ({ hex }) => {
    expect(codeOf(() => dagCbor.decode(fromHex(hex)))).toBe('bad-block')
    expect(codeOf(() => codec('cbor').decode(fromHex(hex)))).toBe('bad-block')
  })

  test.each(cases.filter((one) => !refused(one) && 'decoded' in one))('$hex is read', ({ hex, decoded }) => {
    for (const format of [dagCbor, codec('cbor')]) expect(format.decode(fromHex(hex))).toEqual(value(decoded))
    // Floats come back with 64 bits, or as ints.
    if (!/^f[9a]/.test(hex)) expect(toHex(dagCbor.encode(value(decoded) as IpldNode))).toBe(hex)
  })

  test('bytes and undefined, which have no JSON', () => {
    expect(dagCbor.decode(fromHex('40'))).toEqual(new Uint8Array(0))
    expect(dagCbor.decode(fromHex('4401020304'))).toEqual(Uint8Array.of(1, 2, 3, 4))
    expect(dagCbor.decode(fromHex('f7'))).toBeNull()
  })
})

describe('dag-cbor', () => {
  // As go-ipld-prime 0.24 does: blocks like these are out there.
  test.each([
    ['keys out of order', 'a2626161016162 02'.replace(' ', ''), '{"aa":1,"b":2}'],
    ['a float of 16 bits', 'f93e00', '1.5'],
    ['a float of 32 bits', 'fa3fc00000', '1.5'],
    ['undefined', '81f7', '[null]'],
  ])('reads %s, and refuses it where all must be canonical', (_what, hex, text) => {
    expect(shown(dagCbor.decode(fromHex(hex)))).toBe(text)
    expect(codeOf(() => decodeCbor(fromHex(hex), { canonical: true }))).toBe('bad-block')
  })

  test.each([
    ['an int that is longer than it must be', '1817'],
    ['... in 16 bits', '1900ff'],
    ['... in 32 bits', '1a0000ffff'],
    ['... in 64 bits', '1b00000000ffffffff'],
    ['a negative one', '3817'],
    ['a length that is longer than it must be', '580100'],
    ['a tag that is', 'd9002a450001550000'],
    ['another tag', 'd82b450001550000'],
    ['a link without its prefix', 'd82a4401550000'],
    ['a link with another prefix', 'd82a450101550000'],
    ['a link of no bytes', 'd82a40'],
    ['a link that is no CID', 'd82a4100'],
    ['a link with more behind its CID', 'd82a46000155000000'],
    ['a link that is text', 'd82a6101'],
    ['an identity CID of 129 bytes', `d82a58860001550081 01${'00'.repeat(129)}`.replace(' ', '')],
    ['text that is not UTF-8', '61ff'],
    ['text with half a surrogate pair', '63eda080'],
    ['a key that is bytes', 'a1416100'],
    ['a key that is an int', 'a10000'],
    ['a reserved length', '1c'],
    ['a lone break', 'ff'],
    ['nothing', ''],
    ['two items', '0000'],
    ['a list that claims 2^32 items', '9affffffff'],
    ['a list that claims 2^63 items', '9b8000000000000000'],
    ['a map that claims 2^53 entries', 'bb0020000000000000'],
    ['bytes that claim 2^31', '5a80000000'],
    ['text one longer than there is', '6261'],
  ])('refuses %s', (_what, hex) => {
    expect(codeOf(() => dagCbor.decode(fromHex(hex)))).toBe('bad-block')
  })

  test('keeps ints whole up to 64 bits', () => {
    for (const [hex, value] of [
      ['1b001fffffffffffff', Number.MAX_SAFE_INTEGER],
      ['1b0020000000000000', 2n ** 53n],
      ['1bffffffffffffffff', 2n ** 64n - 1n],
      ['3b001ffffffffffffe', Number.MIN_SAFE_INTEGER],
      ['3b001fffffffffffff', -(2n ** 53n)],
      ['3bffffffffffffffff', -(2n ** 64n)],
    ] as const) {
      expect(dagCbor.decode(fromHex(hex))).toBe(value)
      expect(toHex(dagCbor.encode(value))).toBe(hex)
    }
    expect(toHex(dagCbor.encode(5n))).toBe('05')
  })

  test('writes -0 and whole numbers that no int can be sure of as floats', () => {
    expect(toHex(dagCbor.encode(-0))).toBe('fb8000000000000000')
    expect(toHex(dagCbor.encode(2 ** 53))).toBe('fb4340000000000000')
    expect(Object.is(dagCbor.decode(fromHex('fb8000000000000000')), -0)).toBe(true)
  })

  test('sorts keys by length and then by the bytes of their UTF-8', () => {
    // U+FF5E comes before U+1F600 in UTF-8, behind it in UTF-16; both have one length with two letters more.
    const node = { '\u{1f600}': 1, '～a': 2, b: 3, aa: 4, '': 5, '10': 6, a: 7 }
    const keys = (bytes: Uint8Array) => keysOf(dagCbor.decode(bytes) as IpldMap)
    expect(keys(dagCbor.encode(node))).toEqual(['', 'a', 'b', '10', 'aa', '～a', '\u{1f600}'])
    expect(toHex(dagCbor.encode({ b: 1, a: 2 }))).toBe('a2616102616201')
  })

  test('keeps the order of a block whose keys look like indexes', () => {
    const block = fromHex('a3616201623130026139 03'.replace(' ', ''))
    expect(keysOf(dagCbor.decode(block) as IpldMap)).toEqual(['b', '10', '9'])
    expect(keysOf(json('{"x":1,"7":2,"3":3,"a":4}') as IpldMap)).toEqual(['x', '7', '3', 'a'])
  })

  test('takes any key as a key, the name of the prototype too', () => {
    const node = dagCbor.decode(fromHex('a1695f5f70726f746f5f5fa161780a')) as IpldMap
    expect(Object.keys(node)).toEqual(['__proto__'])
    expect(Object.getPrototypeOf(node)).toBe(Object.prototype)
    expect((node as { x?: unknown }).x).toBeUndefined()
    expect(shown(node)).toBe('{"__proto__":{"x":10}}')
    expect(codeOf(() => dagCbor.decode(fromHex('a2695f5f70726f746f5f5f00695f5f70726f746f5f5f00')))).toBe('bad-block')
  })

  test('gives links that own their memory', () => {
    const block = fromHex(linkHex)
    const link = dagCbor.decode(block) as CID
    block.fill(0)
    expect(link.toString()).toBe('bafkqaaa')
  })

  test.each([
    [NaN, RangeError],
    [-Infinity, RangeError],
    [2n ** 64n, RangeError],
    [-(2n ** 64n) - 1n, RangeError],
    [undefined, TypeError],
    [{ a: undefined }, TypeError],
    [() => 1, TypeError],
    [Symbol('x'), TypeError],
    ['\ud800', TypeError],
    [{ '\udc00 and much more than 24 characters': 1 }, TypeError],
  ])('does not write %s', (value, error) => {
    for (const format of [dagCbor, dagJson]) expect(() => format.encode(value as IpldNode)).toThrow(error)
  })

  test('does not write what has no end', () => {
    const list: IpldNode[] = []
    list.push(list)
    for (const format of [dagCbor, dagJson]) expect(() => format.encode(list)).toThrow(RangeError)
  })

  test('cbor is the same without links, its keys in their own order', () => {
    const cbor = codec('cbor')
    expect(codeOf(() => cbor.decode(fromHex(linkHex)))).toBe('bad-block')
    expect(() => cbor.encode([cid])).toThrow('dag-cbor has')
    expect(toHex(cbor.encode({ bb: 1, a: 2 }))).toBe('a262626201616102')
  })
})

describe('dag-json', () => {
  test.each([
    ['whitespace and any order', ' {\n\t"b" : [ 1 , 2 ] ,\r"a":{ } } ', '{"a":{},"b":[1,2]}'],
    ['a link with whitespace', '{ "/" : "bafkqaaa" }', '{"/":"bafkqaaa"}'],
    ['a link in another base', '{"/":"f01550000"}', '{"/":"bafkqaaa"}'],
    ['bytes', '{ "/" : { "bytes" : "AQID" } }', '{"/":{"bytes":"AQID"}}'],
    ['padded bytes', '{"/":{"bytes":"AQ=="}}', '{"/":{"bytes":"AQ"}}'],
    ['no bytes', '{"/":{"bytes":""}}', '{"/":{"bytes":""}}'],
    ['escapes', '"\\u0041\\n\\"\\/\\ud83d\\ude00"', '"A\\n\\"/\u{1f600}"'],
    ['a large int', '[-18446744073709551616,9007199254740993]', '[-18446744073709551616,9007199254740993]'],
    ['floats', '[1.5,-0.0,1e3,9007199254740993.5,-0]', '[1.5,-0.0,1000,9007199254740994.0,0]'],
    // §Parse rejection modes, the forms that are let be
    ['a key before "/"', '{"0bar":"baz","/":"foo"}', undefined],
    ['"/" that is no text', '{"/":true,"bar":"baz"}', '{"/":true,"bar":"baz"}'],
    ['a key before "bytes"', '{"/":{"abar":"baz","bytes":"foo"}}', '{"/":{"abar":"baz","bytes":"foo"}}'],
    ['"bytes" that is no text', '{"/":{"bytes":true},"bar":"baz"}', '{"/":{"bytes":true},"bar":"baz"}'],
    ['a key before "/" over bytes', '{"0bar":"baz","/":{"bytes":"foo"}}', undefined],
    ['links and bytes inside "/"', '{"/":{"/":"bafkqaaa"}}', '{"/":{"/":"bafkqaaa"}}'],
  ])('reads %s', (_what, text, want) => {
    // Where "/" comes first once sorted, what is read cannot be written again.
    if (want === undefined) expect(() => shown(json(text))).toThrow('dag-json keeps')
    else expect(shown(json(text))).toBe(want)
  })

  test.each([
    ['a link and more', '{"/":"bafkqaaa","bar":"baz"}'],
    ['a text and more', '{"/":"foo","bar":"baz"}'],
    ['a link that is no CID', '{"/":"foo"}'],
    ['bytes and more inside', '{"/":{"bytes":"foo","bar":"baz"}}'],
    ['bytes and more outside', '{"/":{"bytes":"foo"},"bar":"baz"}'],
    ['bytes of no base64', '{"/":{"bytes":"a_b-"}}'],
    ['bytes with whitespace', '{"/":{"bytes":"AQ ID"}}'],
    ['bytes one digit long', '{"/":{"bytes":"A"}}'],
    ['a key twice', '{"a":1,"a":1}'],
    ['a key twice, once escaped', '{"a":1,"\\u0061":1}'],
    ['half a surrogate pair', '"\\ud800"'],
    ['a control character', '"\n"'],
    ['an unknown escape', '"\\x41"'],
    ['a text without end', '"abc'],
    ['a text that ends in an escape', '"abc\\'],
    ['a comma too many', '[1,]'],
    ['a comma too many in a map', '{"a":1,}'],
    ['no comma', '[1 2]'],
    ['no colon', '{"a" 1}'],
    ['a key without quotes', '{a:1}'],
    ['a leading zero', '01'],
    ['a plus', '+1'],
    ['a lone point', '1.'],
    ['NaN', 'NaN'],
    ['a float without end', '1e999'],
    ['an int beyond 2^64', '18446744073709551616'],
    ['an int of a million digits', '9'.repeat(1_000_000)],
    ['a byte order mark', '\ufeff1'],
    ['nothing', '  '],
    ['a list without end', '[1'],
    ['the wrong end', '[1}'],
    ['words', 'nul'],
    ['two items', '1 1'],
  ])('refuses %s', (_what, text) => {
    expect(codeOf(() => json(text))).toBe('bad-block')
  })

  test('refuses bytes that are not UTF-8', () => {
    expect(codeOf(() => dagJson.decode(Uint8Array.of(0x22, 0xff, 0x22)))).toBe('bad-block')
  })

  test('writes no map that would be read as a link or as bytes', () => {
    for (const node of [{ '/': 'x' }, { '/': 'x', a: 1 }, { '/': { bytes: 'x' } }, { '/': { bytes: 'x', c: 1 }, a: 1 }])
      expect(() => dagJson.encode(node)).toThrow(TypeError)
    expect(shown({ '/': { a: 1, bytes: 'x' } })).toBe('{"/":{"a":1,"bytes":"x"}}')
  })

  test('json has "/" as a key like any other, and neither links nor bytes', () => {
    const plain = codec('json')
    const text = '{"b":{"/":"foo","bar":"baz"},"a":{"/":{"bytes":"x"}}}'
    expect(toUtf8(plain.encode(plain.decode(fromUtf8(text))))).toBe(text)
    expect(() => plain.encode([cid])).toThrow('dag-json has')
    expect(() => plain.encode([new Uint8Array(1)])).toThrow('dag-json has')
  })
})

describe('limits', () => {
  const lists = { open: '[', inmost: '[]', close: ']' }
  const maps = { open: '{"a":', inmost: '{}', close: '}' }
  const deep = [
    { what: 'lists', format: dagCbor, open: '81', inmost: '80', close: '' },
    { what: 'maps', format: dagCbor, open: 'a16161', inmost: 'a0', close: '' },
    { what: 'lists', format: dagJson, ...lists },
    { what: 'maps', format: dagJson, ...maps },
    { what: 'maps of the reserved key', format: dagJson, ...maps, open: '{"/":' },
    { what: 'lists', format: codec('json'), ...lists },
    { what: 'lists', format: codec('cbor'), open: '81', inmost: '80', close: '' },
  ]
  test.each(deep)(
    '1024 levels of $what in $format.name are read and written, 1025 and 2 MiB of them are not',
    ({ format, open, inmost, close }) => {
      const bytes = format.name.includes('cbor') ? fromHex : fromUtf8
      const make = (levels: number) => bytes(open.repeat(levels - 1) + inmost + close.repeat(levels - 1))
      expect(toHex(format.encode(format.decode(make(1024))))).toBe(toHex(make(1024)))
      expect(codeOf(() => format.decode(make(1025)))).toBe('oversized')
      const most = bytes(open.repeat(Math.floor(2 ** 21 / bytes(open).length)))
      expect(codeOf(() => format.decode(most))).toBe('oversized')
    },
  )

  test('a block above 2 MiB is refused by each codec, unread', () => {
    const large = new Uint8Array(2 ** 21 + 1)
    for (const name of codecs.names())
      expect(
        codeOf(() => codec(name).decode(large)),
        name,
      ).toBe('oversized')
    for (const format of standardCodecs({ maxBytes: 2 }))
      expect(
        codeOf(() => format.decode(new Uint8Array(3))),
        format.name,
      ).toBe('oversized')
  })

  test('more than 2^20 items are refused, however they nest', () => {
    const list = new Uint8Array(5 + 2 ** 20 + 1)
    list.set(fromHex('9a00100001'))
    expect(codeOf(() => dagCbor.decode(list))).toBe('oversized')
    list.set(fromHex('9a00100000'))
    expect((dagCbor.decode(list.subarray(0, -1)) as IpldNode[]).length).toBe(2 ** 20)
    // Each list claims all that is left, and holds the next one first.
    const claims = new Uint8Array(5 * 300 + 2 ** 19)
    for (let at = 0; at < 1500; at += 5) claims.set(fromHex('9a00080000'), at)
    expect(codeOf(() => dagCbor.decode(claims))).toBe('oversized')
    const most = `[${'0,'.repeat(2 ** 20 - 1)}0`
    expect((decodeJson(fromUtf8(`${most}]`), { maxBytes: 2 ** 22 }) as IpldNode[]).length).toBe(2 ** 20)
    expect(codeOf(() => decodeJson(fromUtf8(`${most},0]`), { maxBytes: 2 ** 22 }))).toBe('oversized')
  })

  test('items are counted in maps twice, in json too', () => {
    expect(codeOf(() => decodeCbor(fromHex('a2616100616200'), { maxItems: 3 }))).toBe('oversized')
    expect(codeOf(() => decodeJson(fromUtf8('{"a":0,"b":0}'), { maxItems: 3 }))).toBe('oversized')
    expect(codeOf(() => decodeJson(fromUtf8('[[],[],[]]'), { maxItems: 2 }))).toBe('oversized')
    expect(decodeJson(fromUtf8('{"a":0,"b":0}'), { maxItems: 4 })).toEqual({ a: 0, b: 0 })
  })
})

describe('dag-pb', () => {
  test('is a map of Links and then Data, whatever the order of the block', () => {
    const node = dagPb.decode(fromHex('0a020801120b0a09015500050001020304')) as IpldMap
    expect(Object.keys(node)).toEqual(['Links', 'Data'])
    expect(toHex(dagPb.encode(node))).toBe('120b0a090155000500010203040a020801')
  })

  test('tells bad-block for every kind of bad bytes', () => {
    for (const hex of ['1200', '0801', '12030a0100', '120e0a090155000500010203041201ff'])
      expect(codeOf(() => dagPb.decode(fromHex(hex)))).toBe('bad-block')
  })
})

/** Values that dag-cbor and dag-json both have; no key begins with the reserved one. */
const node: fc.Arbitrary<IpldNode> = fc.letrec<{ node: IpldNode }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<IpldNode>(null, true, false, -0, cid, 2n ** 60n),
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.bigInt(-(2n ** 64n), 2n ** 64n - 1n).map((n) => (Number.isSafeInteger(Number(n)) ? Number(n) : n)),
    fc.uint8Array({ maxLength: 40 }),
    fc.array(tie('node'), { maxLength: 5 }),
    fc.dictionary(
      fc.oneof(
        fc.string({ unit: 'binary', maxLength: 6 }).map((s) => `k${s}`),
        fc.constantFrom('1', '07', '__proto__', '～', '\u{1f600}'),
      ),
      tie('node'),
      { maxKeys: 5 },
    ),
  ),
})).node

describe('any value', () => {
  test('comes back from dag-cbor and dag-json as it was, in canonical bytes', () => {
    fc.assert(
      fc.property(node, (value) => {
        const cbor = dagCbor.encode(value)
        const text = dagJson.encode(value)
        const read = decodeCbor(cbor, { canonical: true })
        expect(toHex(dagCbor.encode(read))).toBe(toHex(cbor))
        expect(toUtf8(dagJson.encode(read))).toBe(toUtf8(text))
        expect(toHex(dagCbor.encode(dagJson.decode(text)))).toBe(toHex(cbor))
      }),
      { numRuns: 500 },
    )
  })

  test('is written as a plain encoder, clause by clause of the spec, writes it', () => {
    fc.assert(
      fc.property(node, (value) => {
        expect(toHex(encodeCbor(value))).toBe(plain(value))
      }),
      { numRuns: 500 },
    )
  })

  test('with one byte changed is another value or a ProtocolError', () => {
    fc.assert(
      fc.property(node, fc.nat(), fc.nat(255), (value, at, byte) => {
        for (const format of [dagCbor, dagJson, codec('cbor'), codec('json')]) {
          const bytes = (format === codec('cbor') || format === dagCbor ? dagCbor : dagJson).encode(value).slice()
          bytes[at % bytes.length] = byte
          try {
            format.decode(bytes)
          } catch (error) {
            expect(error).toBeInstanceOf(ProtocolError)
            expect(errorCode(error)).toMatch(/^(bad-block|oversized)$/)
          }
        }
      }),
      { numRuns: 500 },
    )
  })

  test('random bytes are a value or a ProtocolError, for each codec', () => {
    const hot = fc.constantFrom(0x81, 0xa1, 0x61, 0xd8, 0x2a, 0x41, 0xfb, 0x7b, 0x22, 0x2f, 0x3a, 0x5b, 0x12, 0x0a)
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.nat(255), hot), { maxLength: 60 }), (list) => {
        for (const name of codecs.names()) {
          try {
            codec(name).decode(Uint8Array.from(list))
          } catch (error) {
            expect(error).toBeInstanceOf(ProtocolError)
            expect(errorCode(error)).toMatch(/^(bad-block|oversized)$/)
          }
        }
      }),
      { numRuns: 2000 },
    )
  })
})

function head(major: number, n: bigint): string {
  const type = major << 5
  if (n < 24n) return toHex(Uint8Array.of(type | Number(n)))
  const size = n < 256n ? 1 : n < 65_536n ? 2 : n < 2n ** 32n ? 4 : 8
  return toHex(Uint8Array.of(type | (24 + Math.log2(size)))) + n.toString(16).padStart(2 * size, '0')
}

/** The slow twin of the writer: hex, no buffers, bigints alone. */
function plain(value: IpldNode): string {
  const text = (s: string) => head(3, BigInt(fromUtf8(s).length)) + toHex(fromUtf8(s))
  if (value === null) return 'f6'
  if (typeof value === 'boolean') return value ? 'f5' : 'f4'
  if (typeof value === 'string') return text(value)
  if (typeof value === 'number' && (!Number.isSafeInteger(value) || Object.is(value, -0))) {
    const float = Buffer.alloc(8)
    float.writeDoubleBE(value)
    return `fb${float.toString('hex')}`
  }
  if (typeof value === 'number' || typeof value === 'bigint')
    return value >= 0 ? head(0, BigInt(value)) : head(1, -1n - BigInt(value))
  if (value instanceof Uint8Array) return head(2, BigInt(value.length)) + toHex(value)
  if (value instanceof CID) return `d82a${head(2, BigInt(value.bytes.length + 1))}00${toHex(value.bytes)}`
  if (Array.isArray(value))
    return head(4, BigInt(value.length)) + (value as IpldNode[]).map((item) => plain(item)).join('')
  // A length and then the bytes, as hex: the order of keys is that of their encoding.
  const entries = Object.entries(value as IpldMap).map(([key, item]) => [text(key), plain(item)] as const)
  const sorted = entries.toSorted(([a], [b]) => (a < b ? -1 : 1))
  return head(5, BigInt(sorted.length)) + sorted.map((pair) => pair.join('')).join('')
}

describe('Codecs', () => {
  const shout: Codec = {
    name: 'shout',
    code: 0x300001,
    decode: (bytes) => toUtf8(bytes).toLowerCase(),
    encode: (value) => fromUtf8((value as string).toUpperCase()),
  }

  test('has the standard formats by code and by name', () => {
    const table = new Codecs()
    expect(table.names()).toEqual(['raw', 'dag-pb', 'dag-cbor', 'dag-json', 'json', 'cbor'])
    for (const [code, name] of [
      [0x55, 'raw'],
      [0x70, 'dag-pb'],
      [0x71, 'dag-cbor'],
      [0x0129, 'dag-json'],
      [0x0200, 'json'],
      [0x51, 'cbor'],
    ] as const) {
      expect(table.get(code)?.name).toBe(name)
      expect(table.byName(name)?.code).toBe(code)
    }
  })

  test('takes one more, or another in the place of one', () => {
    const table = new Codecs([shout])
    const block = fromUtf8('LOUD')
    expect(table.decode(cidOf(shout.code, block), block)).toBe('loud')
    const instead = { ...shout, name: 'whisper' }
    table.register(instead)
    expect(table.get(shout.code)).toBe(instead)
    expect(table.byName('shout')).toBeUndefined()
    expect(() => table.register({ ...shout, name: 'raw' })).toThrow(TypeError)
    expect(codecs.get(shout.code)).toBeUndefined()
  })

  test('says which formats there are when one is asked for that is not', () => {
    expect(() => new Codecs().decode(cidOf(0x78, new Uint8Array(1)), new Uint8Array(1))).toThrow(UnavailableError)
    expect(() => new Codecs().decode(cidOf(0x78, new Uint8Array(1)), new Uint8Array(1))).toThrow('have raw, dag-pb')
  })

  test('raw is the bytes themselves', () => {
    const bytes = Uint8Array.of(1, 2)
    expect(codec('raw').decode(bytes)).toBe(bytes)
    expect(codec('raw').encode(bytes)).toBe(bytes)
    expect(() => codec('raw').encode('text')).toThrow(TypeError)
  })
})
