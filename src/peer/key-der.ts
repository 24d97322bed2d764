/*
 * What stands in the Data of RSA and ECDSA keys (peer-ids 3A r2 §Key types): SubjectPublicKeyInfo (RFC 5280 §4.1),
 * RSAPrivateKey (RFC 8017 A.1.2) and ECPrivateKey (RFC 5915 §3). Only the forms that go-libp2p writes: others would
 * give one key two peer ids. Every function that reads throws ProtocolError `bad-key`.
 */
import { concat, equals, fromHex, toBigInt, toHex } from '../bytes.ts'
import { curveOrder, scalarBytes } from '../crypto/ecdsa.ts'
import type { Curve } from '../crypto/ecdsa.ts'
import { der, derBits, DerReader, derTags, derUint } from '../der.ts'
import { ProtocolError } from '../errors.ts'

/** Bits of an RSA modulus: less is unsafe, more is an attack on our CPU (CVE-2023-39533). Both as in go-libp2p. */
export const rsaModulusBits = { min: 2048, max: 8192 } as const

/** RFC 8017 A.1: rsaEncryption. */
const rsaEncryption = fromHex('2a864886f70d010101')
/** RFC 5480 §2.1.1: id-ecPublicKey and secp256r1. */
const ecPublicKey = fromHex('2a8648ce3d0201')
const secp256r1 = fromHex('2a8648ce3d030107')

/** RFC 5915 §3: [0] parameters and [1] publicKey. */
const parametersTag = 0xa0
const publicKeyTag = 0xa1

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-key', message)
}

const sequence = (bytes: Uint8Array): DerReader => {
  const outer = new DerReader(bytes, 'bad-key')
  const inner = outer.enter(derTags.sequence)
  outer.end()
  return inner
}

/** Before any arithmetic with them. */
function checkRsa(modulus: Uint8Array, exponent: Uint8Array): void {
  const bits = 8 * modulus.length - Math.clz32(modulus[0] ?? 0) + 24
  const { min, max } = rsaModulusBits
  if (bits < min || bits > max) throw bad(`RSA modulus has ${bits} bits, want ${min} to ${max}`)
  // As Go: a long exponent makes verifying as slow as signing
  const e = exponent.length > 4 ? 0n : toBigInt(exponent)
  if (e < 3n || e > 0x7fff_ffffn || e % 2n === 0n) {
    throw bad(`RSA exponent ${toHex(exponent.subarray(0, 8))} is not an odd number from 3 to 2^31-1`)
  }
}

/** The form of the public key and its size; nothing is computed with it. */
export function checkRsaPublic(spki: Uint8Array): void {
  const info = sequence(spki)
  const algorithm = info.enter(derTags.sequence)
  if (!equals(algorithm.read(derTags.oid), rsaEncryption))
    throw bad('algorithm of an RSA public key is not rsaEncryption')
  if (algorithm.read(derTags.null).length !== 0) throw bad('NULL of an RSA public key is not empty')
  algorithm.end()
  const key = sequence(info.bits())
  info.end()
  checkRsa(key.uint(), key.uint())
  key.end()
}

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

/** The curve and the point (65 bytes, uncompressed) of an ECDSA public key; no curve where it is not P-256. */
export function ecdsaPublic(spki: Uint8Array): { curve: Curve | undefined; point: Uint8Array } {
  const info = sequence(spki)
  const algorithm = info.enter(derTags.sequence)
  if (!equals(algorithm.read(derTags.oid), ecPublicKey))
    throw bad('algorithm of an ECDSA public key is not ecPublicKey')
  const curve = equals(algorithm.read(derTags.oid), secp256r1) ? 'P-256' : undefined
  algorithm.end()
  const point = info.bits()
  info.end()
  if (point[0] !== 4 || point.length % 2 !== 1) throw bad('point of an ECDSA public key is not uncompressed')
  if (curve !== undefined && point.length !== 1 + 2 * scalarBytes) {
    throw bad(`point of an ECDSA public key on P-256 has ${point.length} bytes, want 65`)
  }
  return { curve, point }
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
