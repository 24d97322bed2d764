/* What the decoders of maps share: any key is a key, none comes twice, and the order of the block is not lost. */
import { compare, fromUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { type IpldMap, type IpldNode, setKeyOrder } from './model.ts'

export class MapBuilder {
  readonly #map: Record<string, IpldNode> = {}
  /** Kept from the first key that begins with a digit: JavaScript moves those that look like an index. */
  #keys: string[] | undefined

  /** Throws ProtocolError `bad-block` for a key that is there already: before its value is read. */
  check(key: string): void {
    if (Object.hasOwn(this.#map, key))
      throw new ProtocolError('bad-block', `a map has the key ${JSON.stringify(key.slice(0, 80))} twice`)
  }

  set(key: string, value: IpldNode): void {
    const first = key.charCodeAt(0)
    if (first >= 48 && first <= 57) this.#keys ??= Object.keys(this.#map)
    this.#keys?.push(key)
    // Assigned, this one key would set the prototype.
    if (key === '__proto__')
      Object.defineProperty(this.#map, key, { value, enumerable: true, configurable: true, writable: true })
    else this.#map[key] = value
  }

  done(): IpldMap {
    if (this.#keys !== undefined) setKeyOrder(this.#map, this.#keys)
    return this.#map
  }
}

// oxlint-disable-next-line no-control-regex
const ascii = /^[\u0000-\u007f]*$/

/**
 * Keys by the bytes of their UTF-8; with `lengthFirst` shorter ones before longer ones. UTF-16 has another order where
 * surrogates are.
 */
export function sortKeys(keys: readonly string[], lengthFirst: boolean): readonly string[] {
  if (keys.length < 2) return keys
  if (keys.every((key) => ascii.test(key)))
    return keys.toSorted((a, b) => (lengthFirst ? a.length - b.length : 0) || (a < b ? -1 : 1))
  return keys
    .map((key) => ({ key, bytes: fromUtf8(key) }))
    .toSorted((a, b) => (lengthFirst ? a.bytes.length - b.bytes.length : 0) || compare(a.bytes, b.bytes))
    .map(({ key }) => key)
}
