/*
 * ECDSA in portable code, on noble's Weierstrass curves (FIPS 186-4, RFC 6979). A file of its own, so that a page that
 * never meets such a key does not load it.
 */
import { ecdsa, weierstrass, type ECDSA } from '@noble/curves/abstract/weierstrass.js'
import { sha256 } from '@noble/hashes/sha2.js'
import type { Signer, Verifier } from './crypto.ts'
import { curveOrder, decodeSignature, encodeSignature, type Curve } from './ecdsa.ts'

// SEC 2 §2.4.1 and FIPS 186-4 D.1.2.3
const curves: Readonly<Record<Curve, ECDSA>> = {
  secp256k1: ecdsa(
    weierstrass({
      p: 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2fn,
      n: curveOrder.secp256k1,
      h: 1n,
      a: 0n,
      b: 7n,
      Gx: 0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
      Gy: 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
    }),
    sha256,
  ),
  'P-256': ecdsa(
    weierstrass({
      p: 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn,
      n: curveOrder['P-256'],
      h: 1n,
      a: 0xffffffff00000001000000000000000000000000fffffffffffffffffffffffcn,
      b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
      Gx: 0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296n,
      Gy: 0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n,
    }),
    sha256,
  ),
}

export function ecdsaPublic(curve: Curve, point: Uint8Array): Verifier {
  const key = point.slice()
  return {
    verify: async (message, signature) => {
      const compact = decodeSignature(signature, curve)
      if (compact === undefined) return false
      try {
        return curves[curve].verify(compact, message, key, { lowS: false })
      } catch {
        // A point that is not on the curve.
        return false
      }
    },
  }
}

export function ecdsaPrivate(curve: Curve, scalar: Uint8Array): Signer {
  const key = scalar.slice()
  return {
    sign: async (message) => encodeSignature(curves[curve].sign(message, key, { lowS: false }), curve),
  }
}

export function ecPoint(curve: Curve, scalar: Uint8Array): Uint8Array {
  return curves[curve].getPublicKey(scalar, false)
}

export function ecGenerate(curve: Curve): Uint8Array {
  return curves[curve].utils.randomSecretKey()
}
