import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { errorCode, ProtocolError, UnavailableError } from '../../src/errors.ts'
import { CID, cidOf, codec, decodeCid, decodeCidFirst, parseCid, verifyBlock } from '../../src/ipld/cid.ts'
import { encodeVarint } from '../../src/varint.ts'

const hello = fromUtf8('hello')
// ipfs/specs src/cid.md
const helloText = 'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
const helloHex = '015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
const emptyDirectory = 'QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn'

function identity(size: number): Uint8Array {
  return Uint8Array.of(1, 0x55, 0, ...encodeVarint(size), ...new Uint8Array(size))
}

function codeOf(fn: () => unknown): string | undefined {
  try {
    fn()
  } catch (error) {
    return errorCode(error)
  }
  return 'no error'
}

describe('cidOf', () => {
  test('gives the CID of the specification', () => {
    expect(cidOf(codec.raw, hello).toString()).toBe(helloText)
    expect(toHex(cidOf(codec.raw, hello).bytes)).toBe(helloHex)
  })

  test('gives CIDv0 where asked', () => {
    expect(cidOf(codec.dagPb, fromHex('0a020801'), 0).toString()).toBe(emptyDirectory)
  })
})

describe('decodeCid', () => {
  test('reads both versions back', () => {
    for (const text of [helloText, emptyDirectory, 'bafkqaaa']) {
      const cid = parseCid(text)
      const read = decodeCid(cid.bytes)
      expect(read.equals(cid)).toBe(true)
      expect(read.toString()).toBe(text)
      expect(read.version).toBe(cid.version)
    }
  })

  test('owns its memory, also when it is read from a Buffer', () => {
    const bytes = Buffer.from(helloHex, 'hex')
    const cid = decodeCid(bytes)
    bytes.fill(0)
    expect(toHex(cid.bytes)).toBe(helloHex)
    expect(toHex(cid.multihash.digest)).toBe(helloHex.slice(8))
  })

  test('leaves what follows the CID', () => {
    const [cid, rest] = decodeCidFirst(fromHex(`${helloHex}c0ffee`))
    expect(cid.toString()).toBe(helloText)
    expect(toHex(rest)).toBe('c0ffee')
  })

  // src/cid.md §Decoding: all of these are MUST reject.
  const digest = helloHex.slice(8)
  const refused: Record<string, string> = {
    'nothing at all': '',
    'a byte behind the multihash': `${helloHex}00`,
    'a digest that is cut short': helloHex.slice(0, -2),
    'a byte behind a CIDv0': `1220${digest}00`,
    'a CIDv0 that is cut short': `1220${digest.slice(0, -2)}`,
    'a bare multihash of another length': '12080102030405060708',
    'reserved version 0': `00551220${digest}`,
    'reserved version 2': `02551220${digest}`,
    'reserved version 3': `03551220${digest}`,
    'a version that is not minimal': `8100551220${digest}`,
    'a codec that is not minimal': `01d5001220${digest}`,
    'a hash code that is not minimal': `0155920020${digest}`,
    'a digest length that is not minimal': `015512a000${digest}`,
    'the version alone': '01',
    'an endless codec': '01ffffffffffffffffffff',
  }
  for (const [what, hex] of Object.entries(refused)) {
    test(`refuses ${what}`, () => expect(codeOf(() => decodeCid(fromHex(hex)))).toBe('bad-cid'))
  }

  test('accepts a digest of 128 bytes and refuses 129, before it looks for them', () => {
    expect(decodeCid(identity(128)).multihash.digest).toHaveLength(128)
    expect(codeOf(() => decodeCid(identity(129)))).toBe('bad-cid')
    expect(() => decodeCid(Uint8Array.of(1, 0x55, 0, 0xff, 0xff, 0xff, 0x7f))).toThrow('at most 128')
  })

  test('throws ProtocolError or nothing on random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          expect(decodeCid(bytes).bytes).toEqual(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})

describe('parseCid', () => {
  test('reads every base that the specification asks for, and some more', () => {
    const same = [
      helloText,
      helloText.toUpperCase(),
      `f${helloHex}`,
      `F${helloHex.toUpperCase()}`,
      `u${Buffer.from(helloHex, 'hex').toString('base64url')}`,
      `m${Buffer.from(helloHex, 'hex').toString('base64').replace(/=+$/, '')}`,
    ]
    for (const text of same) expect(parseCid(text).toString()).toBe(helloText)
  })

  const refused: Record<string, [string, string]> = {
    'an empty text': ['', 'too short'],
    'an unknown prefix': ['!abc', 'multibase'],
    'a CIDv0 of the wrong length': [emptyDirectory.slice(0, -1), '46 characters'],
    'a CIDv0 behind a multibase prefix': [`z${emptyDirectory}`, 'no multibase prefix'],
    'a letter that is not of its base': ['bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4ye1', ''],
    'more than a CID can have': [`f${'0'.repeat(2000)}`, 'longer than'],
    'an identity digest of 129 bytes': [`f0155008101${'41'.repeat(129)}`, 'at most 128'],
  }
  for (const [what, [text, why]] of Object.entries(refused)) {
    test(`refuses ${what} with a TypeError that says so`, () => {
      expect(() => parseCid(text)).toThrow(TypeError)
      expect(() => parseCid(text)).toThrow(why)
    })
  }

  test('throws TypeError or nothing on random text', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 80 }), (text) => {
        try {
          expect(parseCid(text)).toBeInstanceOf(CID)
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError)
        }
      }),
    )
  })
})

describe('verifyBlock', () => {
  test('accepts what hashes to the CID under sha2-256, sha2-512 and identity', () => {
    const sha512 = `015513409b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043`
    for (const hex of [helloHex, sha512, '01550005' + toHex(hello)]) verifyBlock(decodeCid(fromHex(hex)), hello)
  })

  test('refuses every changed bit', () => {
    const cid = parseCid(helloText)
    for (let bit = 0; bit < hello.length * 8; bit++) {
      const changed = hello.slice()
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(codeOf(() => verifyBlock(cid, changed))).toBe('bad-block')
    }
  })

  test('says when it does not have the hash function', () => {
    const blake3 = decodeCid(Uint8Array.of(1, 0x55, 0x1e, 2, 0, 0))
    expect(() => verifyBlock(blake3, hello)).toThrow(UnavailableError)
    expect(codeOf(() => verifyBlock(blake3, hello))).toBe('unsupported')
  })
})
