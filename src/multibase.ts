/*
 * multibase: text that says its own base by its first character.
 * Left out: octal, decimal, base45, the hex variants of base32, padded forms, proquint, emoji.
 * Decoding base58 and base36 takes time quadratic in the length, so every caller names a bound.
 */
import { bitBase, numberBase, type BaseText } from './bases.ts'
import { fromHex, toHex } from './bytes.ts'

export type Base = 'base16' | 'base32' | 'base36' | 'base58btc' | 'base64' | 'base64url'

interface BaseCodec extends BaseText {
  readonly prefix: string
  /** Letters of either case mean the same, announced by the prefix in upper case. */
  readonly anyCase: boolean
}

const upper = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
const lower = 'abcdefghijklmnopqrstuvwxyz'
const figures = '0123456789'

const bases: Record<Base, BaseCodec> = {
  base16: { prefix: 'f', anyCase: true, encode: toHex, decode: fromHex },
  base32: { prefix: 'b', anyCase: true, ...bitBase(`${lower}234567`, 5) },
  base36: { prefix: 'k', anyCase: true, ...numberBase(figures + lower) },
  base58btc: {
    prefix: 'z',
    anyCase: false,
    ...numberBase('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'),
  },
  base64: { prefix: 'm', anyCase: false, ...bitBase(`${upper}${lower}${figures}+/`, 6) },
  base64url: { prefix: 'u', anyCase: false, ...bitBase(`${upper}${lower}${figures}-_`, 6) },
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
