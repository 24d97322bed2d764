/*
 * unsigned-varint (multiformats): LEB128, minimal, at most 9 bytes (63 bits).
 * Because only the minimal form is legal, a value's length on the wire follows from the value: see varintLength.
 * Protobuf varints are another thing (10 bytes, any form): protobuf.ts has its own.
 */
import { ProtocolError } from './errors.ts'

/** Bytes that `value` takes. */
export function varintLength(value: number): number {
  let n = 1
  while (value >= 128) {
    value /= 128
    n++
  }
  return n
}

/** Writes `value` (0 to 2^53-1) at `offset`, returns the offset behind it. */
export function writeVarint(value: number, out: Uint8Array, offset = 0): number {
  while (value >= 128) {
    out[offset++] = (value % 128) | 128
    value = Math.floor(value / 128)
  }
  out[offset++] = value
  return offset
}

/** Throws RangeError unless value is a whole number from 0 to 2^53-1. */
export function encodeVarint(value: number): Uint8Array {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`varint of ${value}: want 0 to 2^53-1`)
  const out = new Uint8Array(varintLength(value))
  writeVarint(value, out)
  return out
}

/**
 * The value at `offset`, or undefined where the bytes end in the middle of it.
 * Throws ProtocolError `bad-varint` when it is not minimal, longer than 9 bytes or above 2^53-1.
 */
export function readVarint(bytes: Uint8Array, offset = 0): number | undefined {
  let value = 0
  let scale = 1
  for (let i = 0; i < 9; i++) {
    const byte = bytes[offset + i]
    if (byte === undefined) return undefined
    value += (byte & 127) * scale
    if (byte < 128) {
      if (byte === 0 && i > 0) throw new ProtocolError('bad-varint', 'varint is not minimal')
      if (value > Number.MAX_SAFE_INTEGER) throw new ProtocolError('bad-varint', 'varint is above 2^53-1')
      return value
    }
    scale *= 128
  }
  throw new ProtocolError('bad-varint', 'varint is longer than 9 bytes')
}

/** Like readVarint, but the end of the bytes is a ProtocolError too. */
export function decodeVarint(bytes: Uint8Array, offset = 0): number {
  const value = readVarint(bytes, offset)
  if (value === undefined) throw new ProtocolError('bad-varint', 'varint is cut short')
  return value
}
