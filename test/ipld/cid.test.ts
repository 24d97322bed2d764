import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { errorCode, ProtocolError, UnavailableError } from '../../src/errors.ts'
import {
  CID,
  cidOf,
  codec,
  decodeCid,
  decodeCidFirst,
  hash,
  hashers,
  parseCid,
  registerHasher,
  verifyBlock,
} from '../../src/ipld/cid.ts'
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
    const md5 = decodeCid(fromHex(`0155d501020000`))
    expect(() => verifyBlock(md5, hello)).toThrow(UnavailableError)
    expect(codeOf(() => verifyBlock(md5, hello))).toBe('unsupported')
  })

  test('uses a hash function that was registered', () => {
    // In the private range of the table.
    const cid = decodeCid(fromHex('01558180c001026865'))
    expect(codeOf(() => verifyBlock(cid, hello))).toBe('unsupported')
    registerHasher(0x300001, (bytes) => bytes.subarray(0, 2))
    verifyBlock(cid, hello)
    expect(codeOf(() => verifyBlock(cid, fromUtf8('hullo')))).toBe('bad-block')
  })
})

/** The first 251 numbers again and again, as the vectors of BLAKE3 have it. */
function numbers(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => i % 251)
}

describe('hash functions', () => {
  test.each([
    // FIPS 180-4 examples
    ['sha2-256', hash.sha256, fromUtf8('abc'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
    [
      'sha2-512',
      hash.sha512,
      fromUtf8('abc'),
      'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
    ],
    // RFC 7693 App. A; the shorter ones and the longer text by Python's hashlib
    [
      'blake2b-512',
      hash.blake2b + 64,
      fromUtf8('abc'),
      'ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923',
    ],
    ['blake2b-256', 0xb220, fromUtf8('abc'), 'bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319'],
    ['blake2b-256', 0xb220, numbers(1025), '533c8d76c0f61487431e7c31d15417c8b53887e4765b5597d0d03cb085014afb'],
    ['blake2b-160', 0xb214, fromUtf8('abc'), '384264f676f39536840523f284921cdc68b6846b'],
    // BLAKE3-team/BLAKE3 test_vectors.json, the first 32 bytes
    ['blake3', 0x1e, numbers(0), 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'],
    ['blake3', 0x1e, numbers(1), '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213'],
    ['blake3', 0x1e, numbers(1024), '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7'],
    ['blake3', 0x1e, numbers(1025), 'd00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444'],
    ['identity', hash.identity, fromUtf8('abc'), '616263'],
  ])('%s (0x%s) of %s', (_name, code, bytes, digest) => {
    expect(toHex(hashers.get(code)?.(bytes) ?? new Uint8Array(0))).toBe(digest)
    const cid = decodeCid(Uint8Array.of(1, 0x55, ...encodeVarint(code), digest.length / 2, ...fromHex(digest)))
    verifyBlock(cid, bytes)
    expect(codeOf(() => verifyBlock(cid, Uint8Array.of(...bytes, 0)))).toBe('bad-block')
  })

  test('there is no blake2b below 160 bits', () => expect(hashers.has(hash.blake2b + 19)).toBe(false))
})
