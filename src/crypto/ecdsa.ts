/*
 * What both backends share of ECDSA with SHA-256: the curves' orders and the DER form of a signature (RFC 3279 §2.2.3).
 */
import { concat, fromBigInt, toBigInt } from '../bytes.ts'
import { der, DerReader, derTags, derUint } from '../der.ts'
import { ProtocolError } from '../errors.ts'

/** The curves of identity keys: SEC 2 §2.4.1 (secp256k1) and FIPS 186-4 D.1.2.3 (P-256). */
export type Curve = 'secp256k1' | 'P-256'

/** Bytes of a scalar or a coordinate on both curves. */
export const scalarBytes = 32

export const curveOrder: Readonly<Record<Curve, bigint>> = {
  secp256k1: 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n,
  'P-256': 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
}

/** r and s, 32 bytes each, of a DER signature; undefined for anything that is not strictly DER or out of their range. */
export function decodeSignature(signature: Uint8Array, curve: Curve): Uint8Array | undefined {
  // 72 bytes: two integers of 33 bytes with their heads
  if (signature.length > 72) return undefined
  const out = new Uint8Array(2 * scalarBytes)
  try {
    const outer = new DerReader(signature, 'bad-signature')
    const pair = outer.enter(derTags.sequence)
    outer.end()
    for (const end of [scalarBytes, 2 * scalarBytes]) {
      const value = pair.uint()
      const number = toBigInt(value)
      if (number === 0n || number >= curveOrder[curve]) return undefined
      out.set(value, end - value.length)
    }
    pair.end()
  } catch (error) {
    if (error instanceof ProtocolError) return undefined
    throw error
  }
  return out
}

/**
 * DER of r and s. On secp256k1 s is the lower of the two that verify (BIP 62): js-libp2p refuses the other one.
 * On P-256 s stays as it is, as in every other libp2p.
 */
export function encodeSignature(compact: Uint8Array, curve: Curve): Uint8Array {
  const r = compact.subarray(0, scalarBytes)
  let s = compact.subarray(scalarBytes)
  if (curve === 'secp256k1') {
    const order = curveOrder.secp256k1
    const value = toBigInt(s)
    if (value > order / 2n) s = fromBigInt(order - value, scalarBytes)
  }
  return der(derTags.sequence, concat([derUint(r), derUint(s)]))
}
