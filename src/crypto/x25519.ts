/*
 * X25519 (RFC 7748) on BigInts, for platforms without node:crypto: the Montgomery ladder as §5 has it, short rather than
 * fast. What is done with the scalar does not depend on its bits; how long the platform's BigInts take for it may, as
 * with every portable implementation. noble.ts does the same with audited code.
 */
import { fromBigInt, toBigInt } from '../bytes.ts'

const p = 2n ** 255n - 19n
const low255 = 2n ** 255n - 1n
/** §4.1: u of the base point. */
const basePoint = new Uint8Array(32).with(0, 9)

const fromLittleEndian = (bytes: Uint8Array): bigint => toBigInt(bytes.toReversed())
const toLittleEndian = (value: bigint): Uint8Array => fromBigInt(value, 32).toReversed()

/** 0 to p-1. In between numbers are anything above -p and below p: `%` leaves the sign. */
function reduced(value: bigint): bigint {
  const rest = value % p
  return rest < 0n ? rest + p : rest
}

/** The exponent is no secret. */
function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  for (const bit of exponent.toString(2)) {
    result = (result * result) % p
    if (bit === '1') result = (result * base) % p
  }
  return result
}

const inverse = (value: bigint): bigint => power(value, p - 2n)

/** RFC 7748 §5: of 32 bytes. */
function clamped(bytes: Uint8Array): bigint {
  return (fromLittleEndian(bytes) & (2n ** 254n - 8n)) | (2n ** 254n)
}

/** RFC 7748 §5, both arguments 32 bytes. The result is all zero for a u of small order. */
export function x25519(scalar: Uint8Array, u: Uint8Array): Uint8Array {
  const k = clamped(scalar)
  const x1 = fromLittleEndian(u) & low255
  let [x2, z2, x3, z3, swapped] = [1n, 0n, x1, 1n, 0n]
  const swap = (bit: bigint): void => {
    const x = bit * (x2 - x3)
    const z = bit * (z2 - z3)
    x2 -= x
    x3 += x
    z2 -= z
    z3 += z
  }
  for (let t = 254n; t >= 0n; t--) {
    const bit = (k >> t) & 1n
    swap(swapped ^ bit)
    swapped = bit
    const aa = (x2 + z2) ** 2n % p
    const bb = (x2 - z2) ** 2n % p
    const e = aa - bb
    const da = ((x3 - z3) * (x2 + z2)) % p
    const cb = ((x3 + z3) * (x2 - z2)) % p
    x3 = (da + cb) ** 2n % p
    z3 = (x1 * ((da - cb) ** 2n % p)) % p
    x2 = (aa * bb) % p
    z2 = (e * (aa + 121665n * e)) % p
  }
  swap(swapped)
  return toLittleEndian(reduced(x2 * inverse(z2)))
}

export function x25519PublicKey(scalar: Uint8Array): Uint8Array {
  return x25519(scalar, basePoint)
}
