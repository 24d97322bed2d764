/*
 * DER (X.690, 2021, §8 and §10): the values that keys, ECDSA signatures and certificates are made of.
 * Reads only what DER allows, so that one value has one encoding: definite and minimal lengths, minimal integers.
 * Left out: tag numbers above 30, lengths above 65,535.
 */
import { concat } from './bytes.ts'
import { ProtocolError } from './errors.ts'
import type { ErrorCode } from './errors.ts'

export const derTags = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  sequence: 0x30,
} as const

/** A cursor over values. Every method throws ProtocolError with the `code` that the reader was made with. */
export class DerReader {
  readonly #bytes: Uint8Array
  readonly #code: ErrorCode
  #at = 0

  constructor(bytes: Uint8Array, code: ErrorCode) {
    this.#bytes = bytes
    this.#code = code
  }

  #fail(message: string): ProtocolError {
    return new ProtocolError(this.#code, `DER: ${message}`)
  }

  /** The tag of the next value; undefined at the end. */
  get tag(): number | undefined {
    return this.#bytes[this.#at]
  }

  /** The contents of the next value, which must have this tag; shares memory with what is read. */
  read(tag: number): Uint8Array {
    const bytes = this.#bytes
    if (this.tag !== tag) throw this.#fail(`got tag ${this.tag ?? 'none'}, want ${tag}`)
    let length = bytes[this.#at + 1]
    let start = this.#at + 2
    if (length !== undefined && length >= 0x80) {
      // §8.1.3.5, §10.1: the long form, and only where the short one does not do
      const more = length - 0x80
      length = more === 1 ? bytes[start] : (bytes[start] ?? 0) * 256 + (bytes[start + 1] ?? 0)
      start += more
      const least = more === 1 ? 0x80 : 0x100
      if (more < 1 || more > 2 || length === undefined || length < least) throw this.#fail('bad length')
    }
    const end = start + (length ?? Infinity)
    if (end > bytes.length) throw this.#fail('value is cut short')
    this.#at = end
    return bytes.subarray(start, end)
  }

  /** A reader of the values inside the next one. */
  enter(tag: number): DerReader {
    return new DerReader(this.read(tag), this.#code)
  }

  /** The bytes of a whole, not negative INTEGER, without a sign byte; zero is one byte 0. */
  uint(): Uint8Array {
    const bytes = this.read(derTags.integer)
    const [first, second] = bytes
    if (first === undefined || first >= 0x80) throw this.#fail('integer is empty or negative')
    if (first !== 0 || second === undefined) return bytes
    if (second < 0x80) throw this.#fail('integer is not minimal')
    return bytes.subarray(1)
  }

  /** The bytes of a BIT STRING of whole bytes. */
  bits(): Uint8Array {
    const bytes = this.read(derTags.bitString)
    if (bytes[0] !== 0) throw this.#fail('bit string is not a number of whole bytes')
    return bytes.subarray(1)
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw this.#fail(`${this.#bytes.length - this.#at} bytes too many`)
  }
}

/** A value: its contents may come in pieces. */
export function der(tag: number, ...contents: Uint8Array[]): Uint8Array {
  const body = concat(contents)
  const size = body.length
  if (size > 0xffff) throw new RangeError(`DER value of ${size} bytes, at most 65,535`)
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 255]
  return concat([Uint8Array.of(tag, ...length), body])
}

/** An INTEGER from the big-endian bytes of a whole, not negative number; leading zeros are dropped. */
export function derUint(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0)
  if (first === -1) return der(derTags.integer, Uint8Array.of(0))
  const sign = (bytes[first] ?? 0) >= 0x80 ? Uint8Array.of(0) : new Uint8Array(0)
  return der(derTags.integer, sign, bytes.subarray(first))
}

/** A BIT STRING of whole bytes. */
export function derBits(...contents: Uint8Array[]): Uint8Array {
  return der(derTags.bitString, Uint8Array.of(0), ...contents)
}
