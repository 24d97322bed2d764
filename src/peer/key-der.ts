/*
 * What stands in the Data of public RSA and ECDSA keys (peer-ids 3A r2 §Key types): SubjectPublicKeyInfo (RFC 5280
 * §4.1). Only the forms that go-libp2p writes: others would give one key two peer ids. Every function throws
 * ProtocolError `bad-key`. Private keys are read in key-der-private.ts.
 */
import { equals, fromHex, toBigInt, toHex } from '../bytes.ts'
import type { Curve } from '../crypto/ecdsa.ts'
import { DerReader, derTags } from '../der.ts'
import { ProtocolError } from '../errors.ts'

/** Bits of an RSA modulus: less is unsafe, more is an attack on our CPU (CVE-2023-39533). Both as in go-libp2p. */
export const rsaModulusBits = { min: 2048, max: 8192 } as const

/** RFC 8017 A.1: rsaEncryption. */
export const rsaEncryption = fromHex('2a864886f70d010101')
/** RFC 5480 §2.1.1: id-ecPublicKey and secp256r1. */
export const ecPublicKey = fromHex('2a8648ce3d0201')
export const secp256r1 = fromHex('2a8648ce3d030107')

/** Bytes of an uncompressed point on P-256 (SEC 1 §2.3.3). */
const pointBytes = 65

export function bad(message: string): ProtocolError {
  return new ProtocolError('bad-key', message)
}

export const sequence = (bytes: Uint8Array): DerReader => {
  const outer = new DerReader(bytes, 'bad-key')
  const inner = outer.enter(derTags.sequence)
  outer.end()
  return inner
}

/** Before any arithmetic with them. */
export function checkRsa(modulus: Uint8Array, exponent: Uint8Array): void {
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
  if (curve !== undefined && point.length !== pointBytes) {
    throw bad(`point of an ECDSA public key on P-256 has ${point.length} bytes, want 65`)
  }
  return { curve, point }
}
