import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { ChaCha20Poly1305, poly1305 } from '../../src/crypto/chacha20poly1305.ts'
import type { Aead, Crypto } from '../../src/crypto/crypto.ts'
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { portableCrypto } from '../../src/crypto/portable.ts'
import { ProtocolError } from '../../src/errors.ts'
import { sharedJson, specCases } from '../vectors.ts'
import { plainPoly1305, plainSeal } from './plain-chacha.ts'

const backends: Crypto[] = [nativeCrypto, portableCrypto, nobleCrypto]

function seal(aead: Aead, nonce: Uint8Array, ad: Uint8Array, ...chunks: Uint8Array[]): Uint8Array {
  const total = chunks.reduce((n, chunk) => n + chunk.length, 0)
  // At an odd offset, with guards on both sides.
  const out = new Uint8Array(total + 16 + 6).fill(0xee)
  expect(aead.seal(nonce, ad, chunks, total, out, 3)).toBe(total + 16)
  expect([...out.subarray(0, 3), ...out.subarray(-3)]).toEqual([0xee, 0xee, 0xee, 0xee, 0xee, 0xee])
  const pieces: Uint8Array[] = []
  aead.sealChunks(nonce, ad, chunks, total, pieces)
  const sealed = out.slice(3, 3 + total + 16)
  expect(toHex(concat(pieces))).toBe(toHex(sealed))
  return sealed
}

const bytesOf = (size: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: size, maxLength: size })

interface Group<T> {
  tests: (T & { tcId: number; comment: string; result: 'valid' | 'invalid' | 'acceptable'; flags: string[] })[]
}
function wycheproof(name: string): unknown[] | undefined {
  return (sharedJson(`wycheproof/${name}_test.json`) as { testGroups: unknown[] } | undefined)?.testGroups
}

describe.each(backends)('$name', (crypto) => {
  it.each(specCases('rfc8439/aead.json') as Record<'key' | 'nonce' | 'ad' | 'plaintext' | 'sealed', string>[])(
    'seals and opens the AEAD vector of RFC 8439',
    ({ key, nonce, ad, plaintext, sealed }) => {
      const aead = crypto.chaCha20Poly1305(fromHex(key))
      expect(toHex(seal(aead, fromHex(nonce), fromHex(ad), fromHex(plaintext)))).toBe(sealed)
      expect(toHex(aead.open(fromHex(nonce), fromHex(ad), fromHex(sealed)) ?? empty)).toBe(plaintext)
    },
  )

  it.each(specCases('rfc7748/x25519.json') as { scalar: string; u: string; product: string; publicKey?: string }[])(
    'multiplies as RFC 7748 does: $product',
    ({ scalar, u, product, publicKey }) => {
      const pair = crypto.x25519From(fromHex(scalar))
      expect(toHex(pair.dh(fromHex(u)))).toBe(product)
      if (publicKey !== undefined) expect(toHex(pair.publicKey)).toBe(publicKey)
    },
  )

  it.each(specCases('rfc8032/ed25519.json') as Record<'seed' | 'publicKey' | 'message' | 'signature', string>[])(
    'signs and verifies as RFC 8032 does: $publicKey',
    async ({ seed, publicKey, message, signature }) => {
      const key = crypto.ed25519From(fromHex(seed))
      expect(toHex(key.publicKey)).toBe(publicKey)
      expect(toHex(key.seed)).toBe(seed)
      expect(toHex(await key.sign(fromHex(message)))).toBe(signature)
      expect(await crypto.ed25519Verify(fromHex(publicKey), fromHex(message), fromHex(signature))).toBe(true)
      expect(await crypto.ed25519Verify(fromHex(publicKey), fromUtf8('other'), fromHex(signature))).toBe(false)
    },
  )

  it.each(specCases('rfc4231/hmac-sha256.json') as Record<'key' | 'data' | 'mac', string>[])(
    'computes the HMAC of RFC 4231: $mac',
    ({ key, data, mac }) => {
      expect(toHex(crypto.hmacSha256(fromHex(key), fromHex(data)))).toBe(mac)
      expect(toHex(crypto.hmacSha256(fromHex(key), fromHex(data).subarray(0, 3), fromHex(data).subarray(3)))).toBe(mac)
    },
  )

  it('hashes one chunk, several and none', () => {
    const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    expect(toHex(crypto.sha256(fromUtf8('abc')))).toBe(abc)
    expect(toHex(crypto.sha256(fromUtf8('a'), empty, fromUtf8('bc')))).toBe(abc)
    expect(toHex(crypto.sha256Hasher().update(fromUtf8('ab')).update(fromUtf8('c')).digest())).toBe(abc)
    expect(toHex(crypto.sha256())).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
    expect(toHex(crypto.sha512(fromUtf8('a'), fromUtf8('bc'))).slice(0, 32)).toBe('ddaf35a193617abacc417349ae204131')
  })

  it('gives Uint8Array, never a subclass', async () => {
    const aead = crypto.chaCha20Poly1305(new Uint8Array(32))
    const nonce = new Uint8Array(12)
    const key = crypto.ed25519Generate()
    for (const size of [10, 5000]) {
      const pieces: Uint8Array[] = []
      aead.sealChunks(nonce, empty, [new Uint8Array(size)], size, pieces)
      const opened = aead.open(nonce, empty, concat(pieces))
      for (const piece of [...pieces, opened]) expect(piece?.constructor).toBe(Uint8Array)
    }
    const pair = crypto.x25519Generate()
    const results = [
      crypto.sha256(empty),
      crypto.sha256(empty, empty),
      crypto.sha256Hasher().digest(),
      crypto.sha512(empty),
      crypto.hmacSha256(empty, empty),
      crypto.hkdfSha256(empty, empty, empty, 32),
      pair.publicKey,
      pair.dh(crypto.x25519Generate().publicKey),
      key.publicKey,
      key.seed,
      await key.sign(empty),
    ]
    for (const result of results) expect(result.constructor).toBe(Uint8Array)
  })

  it('refuses every altered byte of a sealed record, small or large, and records shorter than a tag', () => {
    const aead = crypto.chaCha20Poly1305(new Uint8Array(32).fill(7))
    const nonce = new Uint8Array(12).fill(1)
    for (const size of [0, 33, 1500]) {
      const sealed = seal(aead, nonce, fromUtf8('ad'), new Uint8Array(size).fill(5))
      expect(aead.open(nonce, fromUtf8('ad'), sealed)).toEqual(new Uint8Array(size).fill(5))
      for (let i = 0; i < sealed.length; i += size > 100 ? 97 : 1) {
        const bad = sealed.slice()
        bad[i] = (bad[i] as number) ^ 0x10
        expect(aead.open(nonce, fromUtf8('ad'), bad)).toBeUndefined()
      }
      expect(aead.open(nonce, fromUtf8('aD'), sealed)).toBeUndefined()
      expect(aead.open(new Uint8Array(12), fromUtf8('ad'), sealed)).toBeUndefined()
      expect(aead.open(nonce, fromUtf8('ad'), sealed.subarray(0, 15))).toBeUndefined()
    }
  })

  it('does not touch the sealed bytes it opens nor the chunks it seals', () => {
    const aead = crypto.chaCha20Poly1305(new Uint8Array(32))
    for (const size of [40, 4000]) {
      const chunk = new Uint8Array(size).fill(9)
      const sealed = seal(aead, new Uint8Array(12), empty, chunk)
      const before = sealed.slice()
      const opened = aead.open(new Uint8Array(12), empty, sealed)
      aead.open(new Uint8Array(12), empty, seal(aead, new Uint8Array(12), empty, new Uint8Array(size)))
      expect(sealed).toEqual(before)
      expect(opened).toEqual(new Uint8Array(size).fill(9))
      expect(chunk).toEqual(new Uint8Array(size).fill(9))
    }
  })

  it('refuses keys, nonces and seeds of a wrong length, and totals that do not add up', () => {
    expect(() => crypto.chaCha20Poly1305(new Uint8Array(31))).toThrow(RangeError)
    expect(() => crypto.x25519From(new Uint8Array(33))).toThrow(RangeError)
    expect(() => crypto.ed25519From(new Uint8Array(64))).toThrow(RangeError)
    const aead = crypto.chaCha20Poly1305(new Uint8Array(32))
    expect(() => aead.seal(new Uint8Array(8), empty, [], 0, new Uint8Array(16), 0)).toThrow(RangeError)
    for (const size of [10, 3000]) {
      const out = new Uint8Array(size + 100)
      expect(() => aead.seal(new Uint8Array(12), empty, [new Uint8Array(size)], size + 1, out, 0)).toThrow(RangeError)
    }
  })

  it('refuses X25519 keys of a wrong length or of low order', () => {
    const pair = crypto.x25519Generate()
    for (const bad of [empty, new Uint8Array(31), new Uint8Array(32), new Uint8Array(33)]) {
      expect(() => pair.dh(bad)).toThrow(ProtocolError)
    }
  })

  it('verifies nothing with malformed keys and signatures', async () => {
    const key = crypto.ed25519Generate()
    const signature = await key.sign(empty)
    expect(await crypto.ed25519Verify(key.publicKey, empty, signature)).toBe(true)
    for (const bad of [
      empty,
      new Uint8Array(31),
      new Uint8Array(32).fill(0xff),
      concat([key.publicKey, empty, key.seed]),
    ]) {
      expect(await crypto.ed25519Verify(bad, empty, signature)).toBe(false)
    }
    for (const bad of [empty, signature.subarray(1), new Uint8Array(64), new Uint8Array(64).fill(0xff)]) {
      expect(await crypto.ed25519Verify(key.publicKey, empty, bad)).toBe(false)
    }
  })

  const aeads = wycheproof('chacha20_poly1305') as
    (Group<Record<'key' | 'iv' | 'aad' | 'msg' | 'ct' | 'tag', string>> & { ivSize: number })[] | undefined
  it.skipIf(aeads === undefined)('passes Wycheproof ChaCha20-Poly1305', () => {
    let count = 0
    for (const group of aeads ?? []) {
      for (const test of group.tests) {
        if (group.ivSize !== 96) continue
        count++
        const aead = crypto.chaCha20Poly1305(fromHex(test.key))
        const sealed = fromHex(test.ct + test.tag)
        const opened = aead.open(fromHex(test.iv), fromHex(test.aad), sealed)
        expect([test.tcId, opened && toHex(opened)]).toEqual([
          test.tcId,
          test.result === 'valid' ? test.msg : undefined,
        ])
        if (test.result === 'valid') {
          expect(toHex(seal(aead, fromHex(test.iv), fromHex(test.aad), fromHex(test.msg)))).toBe(toHex(sealed))
        }
      }
    }
    expect(count).toBeGreaterThan(300)
  })

  const dhs = wycheproof('x25519') as Group<Record<'public' | 'private' | 'shared', string>>[] | undefined
  it.skipIf(dhs === undefined)('passes Wycheproof X25519, refusing every all-zero secret', () => {
    for (const group of dhs ?? []) {
      for (const test of group.tests) {
        // Four fifths of them are alike, and BigInts take milliseconds for each.
        if (crypto.name !== 'native' && test.flags.includes('EdgeCaseMultiplication') && test.tcId % 8 !== 0) continue
        const pair = crypto.x25519From(fromHex(test.private))
        if (/^0+$/.test(test.shared)) expect(() => pair.dh(fromHex(test.public))).toThrow(ProtocolError)
        else expect([test.tcId, toHex(pair.dh(fromHex(test.public)))]).toEqual([test.tcId, test.shared])
      }
    }
  })

  const signatures = wycheproof('ed25519') as
    (Group<{ msg: string; sig: string }> & { publicKey: { pk: string } })[] | undefined
  it.skipIf(signatures === undefined)('passes Wycheproof Ed25519', async () => {
    for (const group of signatures ?? []) {
      for (const test of group.tests) {
        const ok = await crypto.ed25519Verify(fromHex(group.publicKey.pk), fromHex(test.msg), fromHex(test.sig))
        expect([test.tcId, test.comment, ok]).toEqual([test.tcId, test.comment, test.result === 'valid'])
      }
    }
  })

  const macs = wycheproof('hmac_sha256') as
    (Group<Record<'key' | 'msg' | 'tag', string>> & { tagSize: number })[] | undefined
  it.skipIf(macs === undefined)('passes Wycheproof HMAC-SHA-256', () => {
    for (const group of macs ?? []) {
      for (const test of group.tests) {
        const mac = crypto.hmacSha256(fromHex(test.key), fromHex(test.msg)).subarray(0, group.tagSize / 8)
        expect([test.tcId, toHex(mac) === test.tag]).toEqual([test.tcId, test.result === 'valid'])
      }
    }
  })

  const hkdfs = wycheproof('hkdf_sha256') as
    Group<Record<'ikm' | 'salt' | 'info' | 'okm', string> & { size: number }>[] | undefined
  it.skipIf(hkdfs === undefined)('passes Wycheproof HKDF-SHA-256', () => {
    for (const group of hkdfs ?? []) {
      for (const test of group.tests) {
        const run = (): Uint8Array =>
          crypto.hkdfSha256(fromHex(test.salt), fromHex(test.ikm), fromHex(test.info), test.size)
        if (test.result === 'valid') expect([test.tcId, toHex(run())]).toEqual([test.tcId, test.okm])
        else expect(run).toThrow()
      }
    }
  })
})

function tagOf(key: Uint8Array, text: Uint8Array): Uint8Array {
  const tag = new Int32Array(4)
  poly1305(new Int32Array(key.slice().buffer), new Int32Array(text.slice().buffer), text.length / 4, tag)
  return new Uint8Array(tag.buffer)
}

it.each(specCases('rfc8439/poly1305.json') as Record<'r' | 's' | 'text' | 'tag', string>[])(
  'reduces sums at the edge of 2^130-5: $text',
  ({ r, s, text, tag }) => {
    expect(toHex(tagOf(fromHex(r + s), fromHex(text)))).toBe(tag)
    expect(toHex(plainPoly1305(fromHex(r + s), fromHex(text)))).toBe(tag)
  },
)

it('reduces as the plain twin does near every edge', () => {
  const byte = fc.constantFrom(0, 1, 2, 4, 0xfa, 0xfb, 0xfc, 0xfe, 0xff)
  const run = fc.tuple(byte, byte).map(([first, rest]) => new Uint8Array(16).fill(rest).with(0, first))
  fc.assert(
    fc.property(run, run, fc.array(run, { maxLength: 5 }), (r, s, text) => {
      const key = concat([r, s])
      expect(toHex(tagOf(key, concat(text)))).toBe(toHex(plainPoly1305(key, concat(text))))
    }),
    { numRuns: 1000 },
  )
})

it('seals the same as the plain twin at every length around the block sizes', () => {
  for (const size of [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1023, 1025]) {
    const text = Uint8Array.from({ length: size }, (_, i) => i * 7)
    const key = new Uint8Array(32).fill(size)
    const ad = new Uint8Array(size % 37).fill(3)
    const nonce = new Uint8Array(12).fill(255)
    expect(toHex(seal(new ChaCha20Poly1305(key), nonce, ad, text))).toBe(toHex(plainSeal(key, nonce, ad, text)))
  }
})

it('seals and opens any message as the plain twin does, however it is cut into chunks', () => {
  const text = fc.oneof(
    fc.array(fc.uint8Array({ maxLength: 90 }), { maxLength: 6 }),
    // Limbs at their extremes.
    fc.array(fc.constantFrom(new Uint8Array(16).fill(255), new Uint8Array(16), new Uint8Array(7).fill(255)), {
      maxLength: 12,
    }),
  )
  fc.assert(
    fc.property(bytesOf(32), bytesOf(12), fc.uint8Array({ maxLength: 40 }), text, (key, nonce, ad, chunks) => {
      const aead = new ChaCha20Poly1305(key)
      const sealed = seal(aead, nonce, ad, ...chunks)
      expect(toHex(sealed)).toBe(toHex(plainSeal(key, nonce, ad, concat(chunks))))
      expect(toHex(aead.open(nonce, ad, sealed) ?? empty)).toBe(toHex(concat(chunks)))
    }),
    { numRuns: 400 },
  )
})

it('gives the same from both backends for large records', () => {
  const key = new Uint8Array(32).fill(42)
  const [a, b] = backends.map((crypto) => crypto.chaCha20Poly1305(key)) as [Aead, Aead]
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 30_000 }), { maxLength: 4 }), bytesOf(12), (sizes, nonce) => {
      const chunks = sizes.map((size, i) => new Uint8Array(size).fill(i + 1))
      const sealed = seal(a, nonce, nonce, ...chunks)
      expect(Buffer.compare(sealed, seal(b, nonce, nonce, ...chunks))).toBe(0)
      for (const aead of [a, b]) {
        expect(Buffer.compare(aead.open(nonce, nonce, sealed) ?? empty, concat(chunks))).toBe(0)
      }
    }),
    { numRuns: 25 },
  )
})

it('seals a record that outgrows the kept scratch as the platform does', () => {
  const [a, b] = backends.map((crypto) => crypto.chaCha20Poly1305(new Uint8Array(32))) as [Aead, Aead]
  const text = new Uint8Array(150_000).fill(0xff)
  const nonce = new Uint8Array(12)
  expect(Buffer.compare(seal(a, nonce, empty, text), seal(b, nonce, empty, text))).toBe(0)
})

it('agrees across backends on X25519, Ed25519, SHA-2, HMAC and HKDF', async () => {
  await fc.assert(
    fc.asyncProperty(bytesOf(32), bytesOf(32), fc.uint8Array({ maxLength: 200 }), async (x, y, message) => {
      const other = nativeCrypto.x25519From(y).publicKey
      const results = async (crypto: Crypto): Promise<string[]> => {
        const pair = crypto.x25519From(x)
        const key = crypto.ed25519From(x)
        const signed = await key.sign(message)
        expect(await crypto.ed25519Verify(key.publicKey, message, signed)).toBe(true)
        return [
          pair.publicKey,
          pair.dh(other),
          key.publicKey,
          signed,
          crypto.sha256(message),
          crypto.sha512(x, message),
          crypto.hmacSha256(message, x, y),
          crypto.hkdfSha256(x, message, y, 96),
        ].map(toHex)
      }
      const [native, ...others] = await Promise.all(backends.map(results))
      for (const result of others) expect(result).toEqual(native)
    }),
    { numRuns: 20 },
  )
})

it('agrees across backends on Ed25519 keys of small order', async () => {
  const keys = [
    '0100000000000000000000000000000000000000000000000000000000000000',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    '0000000000000000000000000000000000000000000000000000000000000080',
    '0000000000000000000000000000000000000000000000000000000000000000',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
    '0100000000000000000000000000000000000000000000000000000000000080',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ].map(fromHex)
  // R the neutral element, S zero: verifies with a key of small order for some messages, whoever wrote them.
  const signature = concat([fromHex(`01${'00'.repeat(31)}`), new Uint8Array(32)])
  for (const key of keys) {
    for (let i = 0; i < 24; i++) {
      const verdicts = await Promise.all(
        backends.map((crypto) => crypto.ed25519Verify(key, Uint8Array.of(i), signature)),
      )
      expect(verdicts).toEqual(backends.map(() => false))
    }
  }
})

it('hashes messages of every length around the blocks, in any pieces, as the platform does', () => {
  const data = Uint8Array.from({ length: 300 }, (_, i) => (i * 37) ^ (i >> 3))
  for (const crypto of backends.slice(1)) {
    for (let size = 0; size <= data.length; size++) {
      // Not at the start of its memory.
      const text = data.subarray(data.length - size)
      expect(toHex(crypto.sha256(text))).toBe(toHex(nativeCrypto.sha256(text)))
      expect(toHex(crypto.sha512(text))).toBe(toHex(nativeCrypto.sha512(text)))
    }
  }
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 6 }), (chunks) => {
      for (const crypto of backends.slice(1)) {
        const hasher = crypto.sha256Hasher()
        for (const chunk of chunks) hasher.update(chunk)
        expect(toHex(hasher.digest())).toBe(toHex(nativeCrypto.sha256(concat(chunks))))
        expect(toHex(crypto.sha512(...chunks))).toBe(toHex(nativeCrypto.sha512(...chunks)))
      }
    }),
  )
})

function littleEndian(value: bigint): Uint8Array {
  return fromHex(value.toString(16).padStart(64, '0')).toReversed()
}

it('multiplies u-coordinates at every edge as the platform does', () => {
  const p = 2n ** 255n - 19n
  // Beside those of small order: below p, above it, and with the bit that does not count.
  const edges = [2n, 9n, p - 2n, p + 2n, p + 18n, 2n ** 256n - 1n, 2n ** 255n + 9n].map(littleEndian)
  for (const scalar of [0, 1, 0x7f, 0x80, 0xff]) {
    const key = new Uint8Array(32).fill(scalar)
    const [native, portable] = [nativeCrypto, portableCrypto].map((crypto) => crypto.x25519From(key))
    expect(portable?.publicKey).toEqual(native?.publicKey)
    for (const u of edges) expect(portable?.dh(u)).toEqual(native?.dh(u))
  }
})

it('refuses signatures and keys that are written in another way than the one there is', async () => {
  const key = portableCrypto.ed25519From(new Uint8Array(32).fill(5))
  const message = fromUtf8('text')
  const signature = await key.sign(message)
  const order = 2n ** 252n + 27742317777372353535851937790883648493n
  const s = BigInt(`0x${toHex(signature.slice(32).toReversed())}`) + order
  // The neutral element's y, plus p; and its x of 0 with the sign of a negative one.
  const keys = [`ee${'ff'.repeat(30)}7f`, `01${'00'.repeat(30)}80`, `02${'00'.repeat(31)}`].map(fromHex)
  for (const crypto of backends) {
    expect(await crypto.ed25519Verify(key.publicKey, message, signature)).toBe(true)
    expect(await crypto.ed25519Verify(key.publicKey, message, concat([signature.slice(0, 32), littleEndian(s)]))).toBe(
      false,
    )
    for (const bad of keys) expect(await crypto.ed25519Verify(bad, message, signature)).toBe(false)
  }
})

it('verifies no signature with one bit changed, and no message or key', async () => {
  const key = portableCrypto.ed25519From(new Uint8Array(32).fill(9))
  const parts = [key.publicKey, fromUtf8('a message'), await key.sign(fromUtf8('a message'))] as const
  for (const [which, part] of parts.entries()) {
    for (let bit = 0; bit < 8 * part.length; bit += which === 1 ? 1 : 5) {
      const [publicKey, message, signature] = parts.map((whole) => whole.slice()) as [
        Uint8Array,
        Uint8Array,
        Uint8Array,
      ]
      const changed = [publicKey, message, signature][which] as Uint8Array
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
      expect(await portableCrypto.ed25519Verify(publicKey, message, signature)).toBe(false)
    }
  }
})
