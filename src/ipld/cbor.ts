/*
 * CBOR (RFC 8949) as IPLD has it: dag-cbor (ipld specs/codecs/dag-cbor) and, without links, cbor.
 * Written by all rules of §Strictness. Read as go-ipld-prime 0.24 and Kubo 0.43 read, because blocks are out there that
 * their writers got wrong: keys in any order, floats of 16 and 32 bits, undefined (as null). `canonical` refuses these
 * three, too. Refused in any case: other tags, simple values and keys, indefinite or longer than minimal lengths and
 * numbers, NaN and infinities, duplicate keys, more than one item.
 * Other than in go, text must be UTF-8, ints go down to -2^64 and a float without a fraction becomes an int.
 */
import { allocUnsafe, compare, fromUtf8, toUtf8 } from '../bytes.ts'
import { errorCode, ProtocolError } from '../errors.ts'
import { blockBytes } from '../limits.ts'
import { decodeCid } from './cid.ts'
import { MapBuilder, sortKeys } from './map.ts'
import { isLink, keysOf, type IpldMap, type IpldNode } from './model.ts'

export interface DecodeLimits {
  /** Bytes of the block. Default 2 MiB. */
  maxBytes?: number
  /** Lists and maps inside one another. Default 1024 (go-ipld-prime). */
  maxDepth?: number
  /** Items of all lists and maps together; a map's entry is two. Default 2^20: what they take is near 100 MB at worst. */
  maxItems?: number
}

export const decodeLimits = { maxBytes: blockBytes, maxDepth: 1024, maxItems: 2 ** 20 } as const

export interface CborOptions extends DecodeLimits {
  /** Tag 42 is a link; false: refused like every tag. Default true. */
  links?: boolean
  /** Refuses what a canonical writer would not have written. Default false. */
  canonical?: boolean
}

const linkTag = 42
const minInt = -(2n ** 64n)
const maxInt = 2n ** 64n - 1n

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-block', `cbor: ${message}`)
}

/** What a decoder throws for a block that does not decode: `bad-block`, `oversized` where a limit is passed. */
export function asBadBlock(name: string, error: unknown): unknown {
  const code = errorCode(error)
  if (!(error instanceof ProtocolError) || code === 'bad-block' || code === 'oversized') return error
  return new ProtocolError('bad-block', `${name}: ${error.message}`, { cause: error })
}

export function tooLarge(what: string, got: number | string, max: number): ProtocolError {
  return new ProtocolError('oversized', `block has ${got} ${what}, at most ${max} allowed`)
}

class CborReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #options: Required<CborOptions>
  #at = 0
  #items = 0

  constructor(bytes: Uint8Array, options: CborOptions) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#options = { ...decodeLimits, links: true, canonical: false, ...options }
    const { maxBytes } = this.#options
    if (bytes.length > maxBytes) throw tooLarge('bytes', bytes.length, maxBytes)
  }

  whole(): IpldNode {
    const node = this.#node(0)
    if (this.#at < this.#bytes.length) throw bad(`${this.#bytes.length - this.#at} more bytes behind the item`)
    return node
  }

  #need(size: number): number {
    const at = this.#at
    if (size > this.#bytes.length - at) throw bad('cut short')
    this.#at = at + size
    return at
  }

  /** The number behind the first byte of an item (§3). */
  #argument(info: number): number | bigint {
    if (info < 24) return info
    let value: number | bigint
    let least: number
    switch (info) {
      case 24:
        value = this.#view.getUint8(this.#need(1))
        least = 24
        break
      case 25:
        value = this.#view.getUint16(this.#need(2))
        least = 0x100
        break
      case 26:
        value = this.#view.getUint32(this.#need(4))
        least = 0x1_0000
        break
      case 27: {
        const at = this.#need(8)
        const high = this.#view.getUint32(at)
        const low = this.#view.getUint32(at + 4)
        value = high < 0x20_0000 ? high * 0x1_0000_0000 + low : (BigInt(high) << 32n) | BigInt(low)
        least = 0x1_0000_0000
        break
      }
      default:
        throw bad(info === 31 ? 'item of indefinite length' : `item with the reserved length ${info}`)
    }
    if (value < least) throw bad(`${value} is not written in its shortest form`)
    return value
  }

  /** A length or count of things that each take at least `each` bytes: checked before there is memory for them. */
  #length(info: number, what: string, each: number): number {
    const length = this.#argument(info)
    const left = this.#bytes.length - this.#at
    if (typeof length === 'bigint' || length * each > left) throw bad(`${what} ${length}, but ${left} bytes are left`)
    return length
  }

  #chunk(info: number, what: string): Uint8Array {
    const length = this.#length(info, what, 1)
    const at = this.#need(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** Counted as declared, so that lists that all claim the rest of the block end soon. */
  #enter(items: number, depth: number): void {
    const { maxDepth, maxItems } = this.#options
    if (depth >= maxDepth) throw tooLarge('levels', `more than ${maxDepth}`, maxDepth)
    this.#items += items
    if (this.#items > maxItems) throw tooLarge('items', this.#items, maxItems)
  }

  #node(depth: number): IpldNode {
    const first = this.#bytes[this.#need(1)] as number
    const info = first & 31
    switch (first >> 5) {
      case 0:
        return this.#argument(info)
      case 1: {
        const value = this.#argument(info)
        return typeof value === 'number' && value < Number.MAX_SAFE_INTEGER ? -1 - value : -1n - BigInt(value)
      }
      case 2:
        return this.#chunk(info, 'bytes of length')
      case 3:
        return toUtf8(this.#chunk(info, 'text of length'))
      case 4: {
        const length = this.#length(info, 'list of length', 1)
        this.#enter(length, depth)
        const list: IpldNode[] = []
        for (let i = 0; i < length; i++) list.push(this.#node(depth + 1))
        return list
      }
      case 5:
        return this.#map(info, depth)
      case 6:
        return this.#link(info)
      default:
        return this.#simple(info)
    }
  }

  #map(info: number, depth: number): IpldMap {
    const length = this.#length(info, 'map of length', 2)
    this.#enter(2 * length, depth)
    const map = new MapBuilder()
    let last: Uint8Array | undefined
    for (let i = 0; i < length; i++) {
      const first = this.#bytes[this.#need(1)] as number
      if (first >> 5 !== 3) throw bad(`a key of major type ${first >> 5}, want text`)
      const raw = this.#chunk(first & 31, 'key of length')
      if (this.#options.canonical) {
        if (last !== undefined && (last.length - raw.length || compare(last, raw)) > 0) throw bad('keys out of order')
        last = raw
      }
      const key = toUtf8(raw)
      map.check(key)
      map.set(key, this.#node(depth + 1))
    }
    return map.done()
  }

  #link(info: number): IpldNode {
    const tag = this.#argument(info)
    if (tag !== linkTag || !this.#options.links) throw bad(`tag ${tag}`)
    const first = this.#bytes[this.#need(1)] as number
    if (first >> 5 !== 2) throw bad('a link that is not bytes')
    const raw = this.#chunk(first & 31, 'link of length')
    if (raw[0] !== 0) throw bad('a link without the multibase prefix 00')
    return decodeCid(raw.subarray(1))
  }

  #simple(info: number): IpldNode {
    switch (info) {
      case 20:
        return false
      case 21:
        return true
      case 22:
        return null
      case 23:
        if (this.#options.canonical) throw bad('undefined')
        return null
      case 25:
        return this.#float(half(this.#view.getUint16(this.#need(2))), 16)
      case 26:
        return this.#float(this.#view.getFloat32(this.#need(4)), 32)
      case 27:
        return this.#float(this.#view.getFloat64(this.#need(8)), 64)
      default:
        throw bad(info === 31 ? 'break outside of an item of indefinite length' : `simple value ${info}`)
    }
  }

  #float(value: number, bits: number): number {
    if (!Number.isFinite(value)) throw bad(`${value} is no value of the data model`)
    if (bits < 64 && this.#options.canonical) throw bad(`float of ${bits} bits, want 64`)
    return value
  }
}

/** RFC 8949 App. D. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN
  return sign * (fraction + 1024) * 2 ** (exponent - 25)
}

/**
 * Ints beyond 2^53-1 come as bigint. Links own their memory, bytes share it with the block.
 * Throws ProtocolError `bad-block`; `oversized` above a limit.
 */
export function decodeCbor(bytes: Uint8Array, options: CborOptions = {}): IpldNode {
  try {
    return new CborReader(bytes, options).whole()
  } catch (error) {
    throw asBadBlock('cbor', error)
  }
}

/** One that encodes without end, as a list that holds itself would, is stopped here. */
export function checkDepth(depth: number): void {
  if (depth >= decodeLimits.maxDepth) throw new RangeError(`nests deeper than ${decodeLimits.maxDepth} levels`)
}

/** Throws TypeError for text that UTF-8 cannot hold. */
export function checkText(text: string): string {
  if (!text.isWellFormed()) throw new TypeError(`text ${JSON.stringify(text.slice(0, 80))} has half a surrogate pair`)
  return text
}

export function checkInt(value: bigint): bigint {
  if (value < minInt || value > maxInt) throw new RangeError(`${value}: want -2^64 to 2^64-1`)
  return value
}

export function noNode(value: unknown): TypeError {
  return new TypeError(`a value of type ${typeof value} is not in the IPLD data model`)
}

class CborWriter {
  #out = allocUnsafe(256)
  #view = new DataView(this.#out.buffer, this.#out.byteOffset)
  #at = 0
  readonly #links: boolean
  readonly #sorted: boolean

  constructor(links: boolean, sorted: boolean) {
    this.#links = links
    this.#sorted = sorted
  }

  finish(): Uint8Array {
    return this.#out.slice(0, this.#at)
  }

  /** Where to write the next `size` bytes. */
  #room(size: number): number {
    const at = this.#at
    this.#at += size
    if (this.#at > this.#out.length) {
      const grown = allocUnsafe(Math.max(2 * this.#out.length, this.#at))
      grown.set(this.#out.subarray(0, at))
      this.#out = grown
      this.#view = new DataView(grown.buffer, grown.byteOffset)
    }
    return at
  }

  /** Room first: it may put another buffer in the place of #out. */
  #byte(value: number): void {
    const at = this.#room(1)
    this.#out[at] = value
  }

  #head(major: number, value: number | bigint): void {
    const type = major << 5
    if (value < 24) {
      this.#byte(type | Number(value))
    } else if (value < 0x100) {
      const at = this.#room(2)
      this.#out[at] = type | 24
      this.#out[at + 1] = Number(value)
    } else if (value < 0x1_0000) {
      const at = this.#room(3)
      this.#out[at] = type | 25
      this.#view.setUint16(at + 1, Number(value))
    } else if (value < 0x1_0000_0000) {
      const at = this.#room(5)
      this.#out[at] = type | 26
      this.#view.setUint32(at + 1, Number(value))
    } else {
      const at = this.#room(9)
      this.#out[at] = type | 27
      this.#view.setBigUint64(at + 1, BigInt(value))
    }
  }

  #chunk(major: number, bytes: Uint8Array): void {
    this.#head(major, bytes.length)
    const at = this.#room(bytes.length)
    this.#out.set(bytes, at)
  }

  #text(text: string): void {
    // Short names are most of what there is: the platform's encoder costs more than a loop.
    const { length } = text
    if (length < 24) {
      const at = this.#room(length + 1)
      let i = 0
      for (; i < length; i++) {
        const unit = text.charCodeAt(i)
        if (unit > 127) break
        this.#out[at + 1 + i] = unit
      }
      this.#out[at] = 0x60 | length
      if (i === length) return
      this.#at = at
    }
    this.#chunk(3, fromUtf8(checkText(text)))
  }

  #number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
      if (value >= 0) this.#head(0, value)
      else this.#head(1, -1 - value)
    } else if (Number.isFinite(value)) {
      const at = this.#room(9)
      this.#out[at] = 0xfb
      this.#view.setFloat64(at + 1, value)
    } else {
      throw new RangeError(`${value} is no value of the IPLD data model`)
    }
  }

  node(node: IpldNode, depth: number): void {
    switch (typeof node) {
      case 'string':
        return this.#text(node)
      case 'number':
        return this.#number(node)
      case 'bigint':
        checkInt(node)
        return node >= 0n ? this.#head(0, node) : this.#head(1, -1n - node)
      case 'boolean':
        this.#byte(node ? 0xf5 : 0xf4)
        return undefined
      case 'object':
        break
      default:
        throw noNode(node)
    }
    if (node === null) this.#byte(0xf6)
    else if (node instanceof Uint8Array) this.#chunk(2, node)
    else if (Array.isArray(node)) {
      checkDepth(depth)
      this.#head(4, node.length)
      for (const item of node as readonly IpldNode[]) this.node(item, depth + 1)
    } else if (isLink(node)) {
      if (!this.#links) throw new TypeError('cbor has no links: dag-cbor has')
      const { bytes } = node
      this.#head(6, linkTag)
      this.#head(2, bytes.length + 1)
      const at = this.#room(bytes.length + 1)
      this.#out[at] = 0
      this.#out.set(bytes, at + 1)
    } else {
      checkDepth(depth)
      const map = node as IpldMap
      const keys = this.#sorted ? sortKeys(keysOf(map), true) : keysOf(map)
      this.#head(5, keys.length)
      for (const key of keys) {
        this.#text(key)
        this.node(map[key] as IpldNode, depth + 1)
      }
    }
    return undefined
  }
}

/**
 * `sorted` (default): keys in the canonical order, else in the map's own. Throws TypeError and RangeError for what the
 * data model, or the format, has not.
 */
export function encodeCbor(node: IpldNode, { links = true, sorted = true } = {}): Uint8Array {
  const writer = new CborWriter(links, sorted)
  writer.node(node, 0)
  return writer.finish()
}
