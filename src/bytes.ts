/* Uint8Array is the one byte type. What the platform lacks, and nothing more. */
import { ProtocolError } from './errors.ts'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export const empty: Uint8Array = new Uint8Array(0)

/** One new array holding all chunks; a single chunk is returned as it is. */
export function concat(chunks: readonly Uint8Array[], total = byteLength(chunks)): Uint8Array {
  const [first] = chunks
  if (chunks.length === 1 && first !== undefined && first.length === total) return first
  const out = allocUnsafe(total)
  let at = 0
  for (const chunk of chunks) {
    out.set(chunk, at)
    at += chunk.length
  }
  return out
}

export function byteLength(chunks: readonly Uint8Array[]): number {
  let total = 0
  for (const chunk of chunks) total += chunk.length
  return total
}

export function equals(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && compare(a, b) === 0
}

/** Byte order, the shorter first where one is a prefix of the other: -1, 0 or 1. */
export function compare(a: Uint8Array, b: Uint8Array): -1 | 0 | 1 {
  const n = Math.min(a.length, b.length)
  for (let i = 0; i < n; i++) {
    const x = a[i] as number
    const y = b[i] as number
    if (x !== y) return x < y ? -1 : 1
  }
  return a.length === b.length ? 0 : a.length < b.length ? -1 : 1
}

/**
 * Memory that is not zeroed where the platform offers it: every byte must be written before anybody reads it.
 * Never from a shared pool, so that keeping a small part cannot pin foreign data.
 */
export function allocUnsafe(size: number): Uint8Array {
  const { Buffer } = globalThis as { Buffer?: { allocUnsafeSlow(n: number): Uint8Array } }
  if (size < 4096 || Buffer === undefined) return new Uint8Array(size)
  const buffer = Buffer.allocUnsafeSlow(size)
  return new Uint8Array(buffer.buffer, buffer.byteOffset, size)
}

export function fromUtf8(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Throws ProtocolError `bad-utf8`. */
export function toUtf8(bytes: Uint8Array): string {
  // The platform's decoder costs more than a loop for the names and ids that most texts are.
  if (bytes.length < 24) {
    let text = ''
    for (const byte of bytes) {
      if (byte > 127) break
      text += String.fromCharCode(byte)
    }
    if (text.length === bytes.length) return text
  }
  try {
    return decoder.decode(bytes)
  } catch (cause) {
    throw new ProtocolError('bad-utf8', 'text is not valid UTF-8', { cause })
  }
}

/** A Map key for few bytes: Latin-1 text, one byte each in V8, in a sixth of the time of hex text. */
export function latin1(bytes: Uint8Array): string {
  return String.fromCharCode.apply(undefined, bytes as unknown as number[])
}

const hexDigits = '0123456789abcdef'

export function toHex(bytes: Uint8Array): string {
  let out = ''
  for (const byte of bytes) out += hexDigits.charAt(byte >> 4) + hexDigits.charAt(byte & 15)
  return out
}

/** Throws TypeError on anything but pairs of hex digits. */
export function fromHex(text: string): Uint8Array {
  if (text.length % 2 !== 0 || /[^0-9a-fA-F]/.test(text))
    throw new TypeError('hex text has an odd length or a non-hex digit')
  const out = new Uint8Array(text.length / 2)
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16)
  return out
}

/** The whole number that big-endian bytes are; no bytes are 0. */
export function toBigInt(bytes: Uint8Array): bigint {
  return bytes.length === 0 ? 0n : BigInt(`0x${toHex(bytes)}`)
}

/** `size` big-endian bytes of a whole number from 0 to 256^size - 1. */
export function fromBigInt(value: bigint, size: number): Uint8Array {
  return fromHex(value.toString(16).padStart(2 * size, '0'))
}
