import { createPrivateKey, createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty, fromBigInt, fromHex, fromUtf8, toBigInt, toHex } from '../../src/bytes.ts'
import { curveOrder, decodeSignature, encodeSignature, type Curve } from '../../src/crypto/ecdsa.ts'
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { sharedJson } from '../vectors.ts'

const backends = [nativeCrypto, nobleCrypto]
const curves: Curve[] = ['secp256k1', 'P-256']

interface Test {
  tcId: number
  comment: string
  msg: string
  sig: string
  result: 'valid' | 'invalid' | 'acceptable'
}
interface Group {
  publicKey?: { uncompressed: string }
  publicKeyDer: string
  publicKeyAsn?: string
  tests: Test[]
}
function wycheproof(name: string): Group[] | undefined {
  return (sharedJson(`wycheproof/${name}_test.json`) as { testGroups: Group[] } | undefined)?.testGroups
}

describe.each(backends)('identity keys with $name', (crypto) => {
  it.each(curves)('signs with %s what verifies, and nothing else verifies', async (curve) => {
    const scalar = await crypto.ecGenerate(curve)
    expect(scalar).toHaveLength(32)
    const point = await crypto.ecPoint(curve, scalar)
    expect(point).toHaveLength(65)
    const signature = await crypto.ecdsaPrivate(curve, scalar).sign(fromUtf8('message'))
    const key = crypto.ecdsaPublic(curve, point)
    expect(await key.verify(fromUtf8('message'), signature)).toBe(true)
    expect(await key.verify(fromUtf8('Message'), signature)).toBe(false)
    for (const bad of [empty, signature.subarray(1), concat([signature, empty, Uint8Array.of(0)])]) {
      expect(await key.verify(fromUtf8('message'), bad)).toBe(false)
    }
    const other = await crypto.ecPoint(curve, await crypto.ecGenerate(curve))
    expect(await crypto.ecdsaPublic(curve, other).verify(fromUtf8('message'), signature)).toBe(false)
    for (const result of [scalar, point, signature]) expect(result.constructor).toBe(Uint8Array)
  })

  it.each(curves)('verifies nothing on %s with a point that is not on the curve', async (curve) => {
    const scalar = await crypto.ecGenerate(curve)
    const signature = await crypto.ecdsaPrivate(curve, scalar).sign(empty)
    const point = (await crypto.ecPoint(curve, scalar)).slice()
    point[64] = (point[64] as number) ^ 1
    expect(await crypto.ecdsaPublic(curve, point).verify(empty, signature)).toBe(false)
    // x that no point of either curve has: above the field's prime
    const compressed = concat([Uint8Array.of(2), new Uint8Array(32).fill(255)])
    expect(await crypto.ecdsaPublic(curve, compressed).verify(empty, signature)).toBe(false)
  })

  it('signs with the low s on secp256k1, and verifies the high one too', async () => {
    const scalar = await crypto.ecGenerate('secp256k1')
    const signer = crypto.ecdsaPrivate('secp256k1', scalar)
    const key = crypto.ecdsaPublic('secp256k1', await crypto.ecPoint('secp256k1', scalar))
    const order = curveOrder.secp256k1
    for (let i = 0; i < 8; i++) {
      const message = Uint8Array.of(i)
      const compact = decodeSignature(await signer.sign(message), 'secp256k1') ?? empty
      const s = toBigInt(compact.subarray(32))
      expect(s <= order / 2n).toBe(true)
      // The other curve's encoding leaves s as it is.
      const high = encodeSignature(concat([compact.subarray(0, 32), fromBigInt(order - s, 32)]), 'P-256')
      expect(await key.verify(message, high)).toBe(true)
    }
  })

  it('signs with RSA what verifies, and nothing else verifies', async () => {
    const pkcs1 = await crypto.rsaGenerate(2048)
    const platform = createPrivateKey({ key: Buffer.from(pkcs1), format: 'der', type: 'pkcs1' })
    expect(platform.asymmetricKeyDetails).toMatchObject({ modulusLength: 2048, publicExponent: 65_537n })
    const spki = createPublicKey(platform).export({ format: 'der', type: 'spki' })
    const key = crypto.rsaPublic(spki)
    const signature = await crypto.rsaPrivate(pkcs1).sign(fromUtf8('message'))
    expect(signature).toHaveLength(256)
    expect(await key.verify(fromUtf8('message'), signature)).toBe(true)
    expect(await key.verify(fromUtf8('Message'), signature)).toBe(false)
    for (const bad of [empty, signature.subarray(1), new Uint8Array(256), new Uint8Array(256).fill(255)]) {
      expect(await key.verify(fromUtf8('message'), bad)).toBe(false)
    }
    for (const result of [pkcs1, signature]) expect(result.constructor).toBe(Uint8Array)
  })

  it('verifies nothing with an RSA key that is none', async () => {
    for (const bad of [empty, Uint8Array.of(0x30, 0), new Uint8Array(300).fill(0x30)]) {
      expect(await crypto.rsaPublic(bad).verify(empty, new Uint8Array(256))).toBe(false)
    }
  })

  for (const curve of curves) {
    const groups = wycheproof(`ecdsa_${curve === 'P-256' ? 'secp256r1' : curve}_sha256`)
    it.skipIf(groups === undefined)(`passes Wycheproof ECDSA on ${curve}`, async () => {
      let count = 0
      for (const group of groups ?? []) {
        const key = crypto.ecdsaPublic(curve, fromHex(group.publicKey?.uncompressed ?? ''))
        for (const { tcId, comment, msg, sig, result } of group.tests) {
          count++
          // Most of them compute, and noble takes milliseconds for each.
          const computes = decodeSignature(fromHex(sig), curve) !== undefined
          if (crypto.name === 'noble' && computes && tcId % 5 !== 0) continue
          const ok = await key.verify(fromHex(msg), fromHex(sig))
          expect([tcId, comment, ok]).toEqual([tcId, comment, result === 'valid'])
        }
      }
      expect(count).toBeGreaterThan(400)
    })
  }

  const rsa = wycheproof('rsa_signature_2048_sha256')
  it.skipIf(rsa === undefined)('passes Wycheproof RSA of 2048 bits', async () => {
    let count = 0
    for (const group of rsa ?? []) {
      const key = crypto.rsaPublic(fromHex(group.publicKeyDer))
      for (const { tcId, comment, msg, sig, result } of group.tests) {
        count++
        // The one that is acceptable leaves out a NULL: a verifier may take it, ours does not.
        const ok = await key.verify(fromHex(msg), fromHex(sig))
        expect([tcId, comment, ok]).toEqual([tcId, comment, result === 'valid'])
      }
    }
    expect(count).toBeGreaterThan(250)
  })
})

describe('both backends', () => {
  it.each(curves)('know the same points of %s, and verify what the other signs', async (curve) => {
    const edges = [1n, 2n, 255n, curveOrder[curve] - 1n, curveOrder[curve] / 3n]
    for (const value of edges) {
      const scalar = fromBigInt(value, 32)
      const [a, b] = await Promise.all(backends.map(async (crypto) => crypto.ecPoint(curve, scalar)))
      expect(toHex(a ?? empty)).toBe(toHex(b ?? new Uint8Array(1)))
      for (const [mine, other] of [backends, backends.toReversed()]) {
        const signature = await mine?.ecdsaPrivate(curve, scalar).sign(scalar)
        expect(await other?.ecdsaPublic(curve, a ?? empty).verify(scalar, signature ?? empty)).toBe(true)
      }
    }
  })

  it('make the same RSA signature', async () => {
    const pkcs1 = await nativeCrypto.rsaGenerate(2048)
    const [a, b] = await Promise.all(backends.map((crypto) => crypto.rsaPrivate(pkcs1).sign(fromUtf8('message'))))
    expect(toHex(a ?? empty)).toBe(toHex(b ?? new Uint8Array(1)))
  })
})

describe('ECDSA signatures', () => {
  const scalar = fc.bigInt({ min: 1n, max: curveOrder['P-256'] - 1n }).map((value) => fromBigInt(value, 32))

  it('are read as they were written', () => {
    fc.assert(
      fc.property(scalar, scalar, (r, s) => {
        const compact = concat([r, s])
        expect(decodeSignature(encodeSignature(compact, 'P-256'), 'P-256')).toEqual(compact)
      }),
    )
  })

  it('are refused when cut short, longer, or with numbers out of their range', () => {
    const good = encodeSignature(concat([fromBigInt(1n, 32), fromBigInt(2n, 32)]), 'P-256')
    expect(toHex(good)).toBe('3006020101020102')
    for (let length = 0; length < good.length; length++) {
      expect(decodeSignature(good.subarray(0, length), 'P-256')).toBeUndefined()
    }
    expect(decodeSignature(concat([good, Uint8Array.of(0)]), 'P-256')).toBeUndefined()
    const order = toHex(fromBigInt(curveOrder['P-256'], 32))
    for (const hex of [
      '3006020100020102',
      '3006020101020100',
      '3006020101020181',
      '300702020001020102',
      `3026022100${order}020101`,
      `3026020101022100${order}`,
      '3009020101020102020103',
      '00'.repeat(73),
    ]) {
      expect(decodeSignature(fromHex(hex), 'P-256')).toBeUndefined()
    }
  })

  it('are refused or read from random bytes, never more', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        const compact = decodeSignature(bytes, 'P-256')
        if (compact !== undefined) expect(encodeSignature(compact, 'P-256')).toEqual(bytes)
      }),
    )
  })
})
