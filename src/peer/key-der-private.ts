/*
 * What stands in the Data of private RSA and ECDSA keys (peer-ids 3A r2 §Key types): RSAPrivateKey (RFC 8017 A.1.2) and
 * ECPrivateKey (RFC 5915 §3), and what becomes of them in public. Every function that reads throws ProtocolError
 * `bad-key`.
 */
import { concat, equals, toBigInt } from '../bytes.ts'
import { curveOrder, scalarBytes } from '../crypto/ecdsa.ts'
import type { Curve } from '../crypto/ecdsa.ts'
import { der, derBits, derTags, derUint } from '../der.ts'
import { bad, checkRsa, ecPublicKey, rsaEncryption, secp256r1, sequence } from './key-der.ts'

/** RFC 5915 §3: [0] parameters and [1] publicKey. */
const parametersTag = 0xa0
const publicKeyTag = 0xa1

/** The SubjectPublicKeyInfo of a private key, all of whose numbers are checked against each other. */
export function rsaPublicOf(pkcs1: Uint8Array): Uint8Array {
  const key = sequence(pkcs1)
  if (toBigInt(key.uint()) !== 0n) throw bad('RSA private key is not one of two primes')
  const modulus = key.uint()
  const exponent = key.uint()
  checkRsa(modulus, exponent)
  const numbers: bigint[] = []
  for (let i = 0; i < 6; i++) {
    const bytes = key.uint()
    if (bytes.length > modulus.length) throw bad('number in an RSA private key is longer than its modulus')
    numbers.push(toBigInt(bytes))
  }
  key.end()
  const [d, p, q, dp, dq, qInv] = numbers as [bigint, bigint, bigint, bigint, bigint, bigint]
  const e = toBigInt(exponent)
  // A wrong number among them makes signatures that give the key away.
  const fits =
    p > 2n &&
    q > 2n &&
    p * q === toBigInt(modulus) &&
    (e * d) % (p - 1n) === 1n &&
    (e * d) % (q - 1n) === 1n &&
    dp === d % (p - 1n) &&
    dq === d % (q - 1n) &&
    (q * qInv) % p === 1n
  if (!fits) throw bad('numbers of an RSA private key do not belong together')
  const algorithm = der(derTags.sequence, der(derTags.oid, rsaEncryption), der(derTags.null))
  return der(derTags.sequence, algorithm, derBits(der(derTags.sequence, derUint(modulus), derUint(exponent))))
}

export function encodeEcdsaPublic(point: Uint8Array): Uint8Array {
  const algorithm = der(derTags.sequence, der(derTags.oid, ecPublicKey), der(derTags.oid, secp256r1))
  return der(derTags.sequence, algorithm, derBits(point))
}

/** The scalar of an ECPrivateKey on P-256, and the point where it is there. Throws on other curves. */
export function ecdsaPrivate(sec1: Uint8Array): { scalar: Uint8Array; point: Uint8Array | undefined } {
  const key = sequence(sec1)
  if (toBigInt(key.uint()) !== 1n) throw bad('version of an ECDSA private key is not 1')
  const scalar = checkScalar('P-256', key.read(derTags.octetString))
  const parameters = key.enter(parametersTag)
  if (!equals(parameters.read(derTags.oid), secp256r1)) throw bad('ECDSA private key is not on P-256')
  parameters.end()
  let point: Uint8Array | undefined
  if (key.tag === publicKeyTag) {
    const field = key.enter(publicKeyTag)
    point = field.bits()
    field.end()
  }
  key.end()
  return { scalar, point }
}

export function encodeEcdsaPrivate(scalar: Uint8Array, point: Uint8Array): Uint8Array {
  return der(
    derTags.sequence,
    derUint(Uint8Array.of(1)),
    der(derTags.octetString, scalar),
    der(parametersTag, der(derTags.oid, secp256r1)),
    der(publicKeyTag, derBits(point)),
  )
}

/** `scalar` itself, when it is one of the curve: 32 bytes, 1 to the order less one. */
export function checkScalar(curve: Curve, scalar: Uint8Array): Uint8Array {
  const value = scalar.length === scalarBytes ? toBigInt(scalar) : 0n
  if (value === 0n || value >= curveOrder[curve]) {
    throw bad(`private key of ${scalar.length} bytes is not a scalar of ${curve}`)
  }
  return scalar
}

/** SEC 1 §2.3.3: x with the sign of y, 33 bytes, from an uncompressed point. */
export function compressPoint(point: Uint8Array): Uint8Array {
  return concat([Uint8Array.of(2 + ((point[2 * scalarBytes] ?? 0) & 1)), point.subarray(1, 1 + scalarBytes)])
}
