/*
 * Goes over canonical DAG-CBOR without making anything of it: lengths and nesting are checked before anybody spends memory.
 */
import { toUtf8 } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { cidBytes } from '../../limits.ts'

/** Bytes of a name. */
export const nameBytes = 256
/** Lists and maps inside one another, in a selector or an extension (go-ipld-prime). */
const maxDepth = 1024

export function bad(message: string): ProtocolError {
  return new ProtocolError('bad-message', `graphsync message: ${message}`)
}

export const major = { uint: 0, negative: 1, bytes: 2, text: 3, list: 4, map: 5, tag: 6, simple: 7 } as const

/** Walks over DAG-CBOR without making anything of it. */
export class Scanner {
  readonly bytes: Uint8Array
  at = 0
  /** Of the head that was read last. */
  major = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** Major type and argument of the next item (RFC 8949 §3). Simple values give their first byte's low bits. */
  head(): number {
    const { bytes } = this
    const first = bytes[this.at++]
    if (first === undefined) throw bad('cut short')
    this.major = first >> 5
    const info = first & 31
    if (info < 24) return info
    if (this.major === major.simple) return this.#simple(info)
    if (info > 27) throw bad(`a length that is not definite, or reserved (${info})`)
    const size = 1 << (info - 24)
    let value = 0
    for (let i = 0; i < size; i++) {
      const byte = bytes[this.at++]
      if (byte === undefined) throw bad('cut short')
      value = value * 256 + byte
    }
    // Beyond 2^53 a number is only rounded, which changes nothing for what is checked here.
    if (value < (info === 24 ? 24 : 2 ** (4 * size))) throw bad('a number that is not in its shortest form')
    return value
  }

  #simple(info: number): number {
    if (info !== 27) throw bad(`simple value or float of kind ${info}`)
    this.skipBytes(8)
    return info
  }

  skipBytes(size: number): void {
    if (size > this.bytes.length - this.at) throw bad('cut short')
    this.at += size
  }

  expect(type: number, what: string): number {
    const value = this.head()
    if (this.major !== type) throw bad(`${what} of major type ${this.major}, want ${type}`)
    return value
  }

  /** A count of items of at least one byte each: checked before anybody sets memory aside. */
  count(type: number, what: string, max: number): number {
    const count = this.expect(type, what)
    if (count > max) throw new ProtocolError('oversized', `graphsync message: ${count} in ${what}, at most ${max}`)
    if (count > this.bytes.length - this.at) throw bad(`${what} is cut short`)
    return count
  }

  chunk(type: number, what: string, max: number): Uint8Array {
    const size = this.expect(type, what)
    if (size > max) throw new ProtocolError('oversized', `graphsync message: ${what} of ${size} bytes, at most ${max}`)
    const from = this.at
    this.skipBytes(size)
    return this.bytes.subarray(from, this.at)
  }

  text(what: string, max = nameBytes): string {
    return toUtf8(this.chunk(major.text, what, max))
  }

  /** The bytes of a link's CID: tag 42 around 00 and the CID. */
  link(what: string): Uint8Array {
    if (this.expect(major.tag, what) !== 42) throw bad(`${what} has a tag that is not 42`)
    const raw = this.chunk(major.bytes, what, cidBytes + 1)
    if (raw[0] !== 0) throw bad(`${what} lacks the multibase prefix 00`)
    return raw.subarray(1)
  }

  /** The next item whole, whatever it is. A loop: nobody can make it deep. */
  any(): Uint8Array {
    const from = this.at
    /** Items that are left in each list and map around. */
    const left: number[] = []
    for (;;) {
      const value = this.head()
      let inside = 0
      if (this.major === major.bytes || this.major === major.text) this.skipBytes(value)
      else if (this.major === major.list) inside = value
      else if (this.major === major.map) inside = 2 * value
      else if (this.major === major.tag) inside = 1
      if (inside > this.bytes.length - this.at) throw bad('a list or map is cut short')
      if (inside > 0) {
        if (left.length >= maxDepth) throw new ProtocolError('oversized', `graphsync message: deeper than ${maxDepth}`)
        left.push(inside)
        continue
      }
      while (left.length > 0) {
        const top = (left[left.length - 1] as number) - 1
        left[left.length - 1] = top
        if (top > 0) break
        left.pop()
      }
      if (left.length === 0) return this.bytes.subarray(from, this.at)
    }
  }

  /** The entries of a map with `keys` in canonical order, each at most once; `read` is called with each key. */
  struct(what: string, keys: readonly string[], read: (key: string) => void): void {
    const count = this.count(major.map, what, keys.length)
    let next = 0
    for (let i = 0; i < count; i++) {
      const key = this.text(`key of ${what}`)
      const found = keys.indexOf(key, next)
      if (found < 0) throw bad(`${what} has the key ${JSON.stringify(key)} out of order, twice, or unknown`)
      next = found + 1
      read(key)
    }
  }
}
