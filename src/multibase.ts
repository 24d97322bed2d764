/*
 * multibase: text that says its own base by its first character.
 * Left out: octal, decimal, base45, the hex variants of base32, padded forms, proquint, emoji.
 * Decoding base58 and base36 takes time quadratic in the length, so every caller names a bound.
 */
import { base32 } from 'multiformats/bases/base32'
import { base36 } from 'multiformats/bases/base36'
import { base58btc } from 'multiformats/bases/base58'
import { base64, base64url } from 'multiformats/bases/base64'
import { fromHex, toHex } from './bytes.ts'

export type Base = 'base16' | 'base32' | 'base36' | 'base58btc' | 'base64' | 'base64url'

interface BaseCodec {
  readonly prefix: string
  /** Letters of either case mean the same, announced by the prefix in upper case. */
  readonly anyCase: boolean
  encode(bytes: Uint8Array): string
  decode(text: string): Uint8Array
}

const bases: Record<Base, BaseCodec> = {
  base16: { prefix: 'f', anyCase: true, encode: toHex, decode: fromHex },
  base32: { prefix: 'b', anyCase: true, encode: (b) => base32.baseEncode(b), decode: (t) => base32.baseDecode(t) },
  base36: { prefix: 'k', anyCase: true, encode: (b) => base36.baseEncode(b), decode: (t) => base36.baseDecode(t) },
  base58btc: {
    prefix: 'z',
    anyCase: false,
    encode: (b) => base58btc.baseEncode(b),
    decode: (t) => base58btc.baseDecode(t),
  },
  base64: { prefix: 'm', anyCase: false, encode: (b) => base64.baseEncode(b), decode: (t) => base64.baseDecode(t) },
  base64url: {
    prefix: 'u',
    anyCase: false,
    encode: (b) => base64url.baseEncode(b),
    decode: (t) => base64url.baseDecode(t),
  },
}

const byPrefix = new Map<string, Base>()
for (const [name, { prefix, anyCase }] of Object.entries(bases)) {
  byPrefix.set(prefix, name as Base)
  if (anyCase) byPrefix.set(prefix.toUpperCase(), name as Base)
}

/** Without the multibase prefix. */
export function encodeBase(base: Base, bytes: Uint8Array): string {
  return bases[base].encode(bytes)
}

/** Without the multibase prefix. Throws TypeError, also when the text is longer than `maxLength`. */
export function decodeBase(base: Base, text: string, maxLength: number): Uint8Array {
  if (text.length > maxLength) throw new TypeError(`${base} text of ${text.length} characters, at most ${maxLength}`)
  try {
    // the bases of multiformats drop padding silently: two texts would give one value
    if (text.includes('=')) throw new SyntaxError('padding is not allowed')
    return bases[base].decode(text)
  } catch (cause) {
    throw new TypeError(`${JSON.stringify(text)} is not ${base} text`, { cause })
  }
}

export function encodeMultibase(base: Base, bytes: Uint8Array): string {
  return bases[base].prefix + bases[base].encode(bytes)
}

/** Throws TypeError, also when the text is longer than `maxLength`. */
export function decodeMultibase(text: string, maxLength: number): { base: Base; bytes: Uint8Array } {
  const prefix = text.charAt(0)
  const base = byPrefix.get(prefix)
  if (base === undefined) throw new TypeError(`${JSON.stringify(prefix)} is not a known multibase prefix`)
  const body = text.slice(1)
  return { base, bytes: decodeBase(base, bases[base].anyCase ? body.toLowerCase() : body, maxLength) }
}
