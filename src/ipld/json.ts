/*
 * dag-json (ipld specs/codecs/dag-json, final) and json: RFC 8259 with ints that are exact, and no key twice.
 * dag-json writes {"/":"cid"} for a link, {"/":{"bytes":"base64"}} for bytes, keys by their bytes, no whitespace. Read as
 * §Serialization allows, keys in any order and whitespace between; §The Reserved Namespace is refused both ways, also
 * where go-ipld-prime reads it as a map. Padded base64 and CIDs of any multibase are read, as go does.
 * json has neither links nor bytes; its keys stay in their order. Floats without a fraction become ints, in JavaScript
 * they are the same number; -0 is written -0.0, and above 2^53 a float has its point or exponent.
 */
import { fromUtf8, toUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import {
  asBadBlock,
  checkDepth,
  checkInt,
  checkText,
  decodeLimits,
  noNode,
  tooLarge,
  type DecodeLimits,
} from './cbor.ts'
import { parseCid } from './cid.ts'
import { MapBuilder, sortKeys } from './map.ts'
import { isLink, keysOf, type IpldMap, type IpldNode } from './model.ts'

export interface JsonOptions extends DecodeLimits {
  /** The reserved namespace of dag-json; false: `/` is a key like any other. Default true. */
  dag?: boolean
}

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-block', `json: ${message}`)
}

const number = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y
/** 2^64 has 20: what is longer is not worth a conversion. */
const maxDigits = 20
const base64 = /^[A-Za-z0-9+/]*={0,2}$/

class JsonReader {
  readonly #text: string
  readonly #options: Required<JsonOptions>
  #at = 0
  #items = 0

  constructor(bytes: Uint8Array, options: JsonOptions) {
    this.#options = { ...decodeLimits, dag: true, ...options }
    const { maxBytes } = this.#options
    if (bytes.length > maxBytes) throw tooLarge('bytes', bytes.length, maxBytes)
    this.#text = toUtf8(bytes)
  }

  whole(): IpldNode {
    const node = this.#node(0)
    const next = this.#peek()
    if (next !== '') throw this.#unexpected(next, 'the end')
    return node
  }

  #unexpected(got: string, want: string): ProtocolError {
    return bad(`${got === '' ? 'the end' : JSON.stringify(got)} at character ${this.#at}, want ${want}`)
  }

  /** The next character that is no whitespace, '' at the end. */
  #peek(): string {
    for (;;) {
      const char = this.#text.charAt(this.#at)
      if (char !== ' ' && char !== '\n' && char !== '\t' && char !== '\r') return char
      this.#at++
    }
  }

  #take(want: string): void {
    const got = this.#peek()
    if (got !== want) throw this.#unexpected(got, JSON.stringify(want))
    this.#at++
  }

  /** True for a comma, false for `end`. */
  #more(end: string): boolean {
    const got = this.#peek()
    if (got !== ',' && got !== end) throw this.#unexpected(got, `"," or ${JSON.stringify(end)}`)
    this.#at++
    return got === ','
  }

  #enter(depth: number): void {
    const { maxDepth } = this.#options
    if (depth >= maxDepth) throw tooLarge('levels', `more than ${maxDepth}`, maxDepth)
  }

  #count(items: number): void {
    this.#items += items
    const { maxItems } = this.#options
    if (this.#items > maxItems) throw tooLarge('items', this.#items, maxItems)
  }

  #node(depth: number): IpldNode {
    const first = this.#peek()
    switch (first) {
      case '{':
        return this.#map(depth)
      case '[':
        return this.#list(depth)
      case '"':
        return this.#string()
      case 't':
        return this.#word('true', true)
      case 'f':
        return this.#word('false', false)
      case 'n':
        return this.#word('null', null)
      default:
        return this.#number()
    }
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#unexpected(this.#peek(), word)
    this.#at += word.length
    return value
  }

  #number(): number | bigint {
    number.lastIndex = this.#at
    const found = number.exec(this.#text)
    if (found === null) throw this.#unexpected(this.#peek(), 'a value')
    const [text, fraction, exponent] = found
    this.#at += text.length
    if (fraction !== undefined || exponent !== undefined) {
      const value = Number(text)
      if (!Number.isFinite(value)) throw bad(`${text.slice(0, 40)} is too large for a float`)
      return value
    }
    const digits = text.length - (text.startsWith('-') ? 1 : 0)
    if (digits < 16) return Number(text) + 0
    const value = digits > maxDigits ? undefined : BigInt(text)
    if (value === undefined || value >= 2n ** 64n || value < -(2n ** 64n))
      throw bad(`an int of ${digits} digits, want -2^64 to 2^64-1`)
    const small = Number(value)
    return Number.isSafeInteger(small) ? small : value
  }

  #string(): string {
    this.#take('"')
    const start = this.#at
    let escaped = false
    for (;;) {
      const unit = this.#text.charCodeAt(this.#at++)
      if (unit === 0x22) break
      if (unit === 0x5c) {
        escaped = true
        this.#at++
      } else if (!(unit >= 0x20)) {
        throw bad(`a text that begins at character ${start} ${unit < 0x20 ? 'has a control character' : 'has no end'}`)
      }
    }
    if (!escaped) return this.#text.slice(start, this.#at - 1)
    let text: string
    try {
      text = JSON.parse(this.#text.slice(start - 1, this.#at)) as string
    } catch (cause) {
      throw new ProtocolError('bad-block', `json: a text at character ${start} has a bad escape`, { cause })
    }
    if (!text.isWellFormed()) throw bad(`a text at character ${start} has half a surrogate pair`)
    return text
  }

  #list(depth: number): IpldNode[] {
    this.#take('[')
    this.#enter(depth)
    const list: IpldNode[] = []
    if (this.#peek() === ']') {
      this.#at++
      return list
    }
    do {
      this.#count(1)
      list.push(this.#node(depth + 1))
    } while (this.#more(']'))
    return list
  }

  #map(depth: number): IpldNode {
    this.#take('{')
    this.#enter(depth)
    const map = new MapBuilder()
    if (this.#peek() === '}') {
      this.#at++
      return map.done()
    }
    let reserved = this.#options.dag
    do {
      this.#count(2)
      if (this.#peek() !== '"') throw this.#unexpected(this.#peek(), 'a key')
      const key = this.#string()
      map.check(key)
      this.#take(':')
      reserved &&= key === '/'
      const special = reserved ? this.#special() : undefined
      if (special !== undefined) return special
      map.set(key, this.#node(depth + 1))
      reserved = false
    } while (this.#more('}'))
    return map.done()
  }

  /** What follows {"/": where it is a link or bytes, with all their closing braces; else nothing is taken. */
  #special(): IpldNode | undefined {
    const before = this.#at
    const first = this.#peek()
    if (first === '"') {
      const text = this.#string()
      this.#closed('link')
      try {
        return parseCid(text)
      } catch (cause) {
        throw new ProtocolError('bad-block', `json: ${(cause as Error).message}`, { cause })
      }
    }
    // §Parse rejection modes: only a first key "bytes" with a text makes it bytes.
    if (first !== '{') return undefined
    this.#at++
    if (this.#peek() === '"' && this.#string() === 'bytes' && this.#peek() === ':') {
      this.#at++
      if (this.#peek() === '"') {
        const text = this.#string()
        this.#closed('bytes')
        this.#closed('bytes')
        return bytesOf(text)
      }
    }
    this.#at = before
    return undefined
  }

  #closed(what: string): void {
    if (this.#peek() !== '}') throw bad(`more keys in a map that has the form of ${what} (reserved namespace)`)
    this.#at++
  }
}

function bytesOf(text: string): Uint8Array {
  // atob also takes whitespace.
  if (!base64.test(text)) throw bad('bytes that are not base64')
  let binary: string
  try {
    binary = atob(text)
  } catch (cause) {
    throw new ProtocolError('bad-block', 'json: bytes that are not base64', { cause })
  }
  const out = new Uint8Array(binary.length)
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i)
  return out
}

/** Throws ProtocolError `bad-block`; `oversized` above a limit. Ints beyond 2^53-1 come as bigint. */
export function decodeJson(bytes: Uint8Array, options: JsonOptions = {}): IpldNode {
  try {
    return new JsonReader(bytes, options).whole()
  } catch (error) {
    throw asBadBlock('json', error)
  }
}

/** Arguments that a call takes on any engine. */
const spread = 8192

function base64Of(bytes: Uint8Array): string {
  let binary = ''
  for (let at = 0; at < bytes.length; at += spread)
    binary += String.fromCharCode(...bytes.subarray(at, Math.min(at + spread, bytes.length)))
  return btoa(binary).replace(/=+$/, '')
}

function numberText(value: number): string {
  if (!Number.isFinite(value)) throw new RangeError(`${value} is no value of the IPLD data model`)
  if (Object.is(value, -0)) return '-0.0'
  const text = String(value)
  return Number.isInteger(value) && !Number.isSafeInteger(value) && !text.includes('e') ? `${text}.0` : text
}

/** §The Reserved Namespace, as it would look to who reads it: nothing else may have its form. */
function checkReserved(map: IpldMap, keys: readonly string[]): void {
  if (keys[0] !== '/') return
  const value = map['/']
  const taken =
    typeof value === 'string' ||
    (typeof value === 'object' &&
      value !== null &&
      !Array.isArray(value) &&
      !(value instanceof Uint8Array) &&
      !isLink(value) &&
      typeof (value as IpldMap)['bytes'] === 'string' &&
      sortKeys(keysOf(value as IpldMap), false)[0] === 'bytes')
  if (taken) throw new TypeError('a map has a form that dag-json keeps for links and bytes: {"/": ...}')
}

function jsonText(node: IpldNode, dag: boolean, depth: number): string {
  switch (typeof node) {
    case 'string':
      return JSON.stringify(checkText(node))
    case 'number':
      return numberText(node)
    case 'bigint':
      return String(checkInt(node))
    case 'boolean':
      return String(node)
    case 'object':
      break
    default:
      throw noNode(node)
  }
  if (node === null) return 'null'
  if (node instanceof Uint8Array) {
    if (!dag) throw new TypeError('json has no bytes: dag-json has')
    return `{"/":{"bytes":"${base64Of(node)}"}}`
  }
  if (Array.isArray(node)) {
    checkDepth(depth)
    return `[${(node as readonly IpldNode[]).map((item) => jsonText(item, dag, depth + 1)).join(',')}]`
  }
  if (isLink(node)) {
    if (!dag) throw new TypeError('json has no links: dag-json has')
    return `{"/":"${node.toString()}"}`
  }
  checkDepth(depth)
  const map = node as IpldMap
  const keys = dag ? sortKeys(keysOf(map), false) : keysOf(map)
  if (dag) checkReserved(map, keys)
  const entries = keys.map(
    (key) => `${JSON.stringify(checkText(key))}:${jsonText(map[key] as IpldNode, dag, depth + 1)}`,
  )
  return `{${entries.join(',')}}`
}

/** Throws TypeError and RangeError for what the data model, or the format, has not. */
export function encodeJson(node: IpldNode, { dag = true } = {}): Uint8Array {
  return fromUtf8(jsonText(node, dag, 0))
}
