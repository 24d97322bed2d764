/*
 * DAG-PB (ipld specs/codecs/dag-pb, final), strict: a PBNode is its Links (field 2) and then its Data (field 1), a PBLink
 * is Hash, Name, Tsize in this order; no unknown fields, no duplicates, no other wire types.
 * Written with its own reader, because the general protobuf codec skips and merges what must be refused here.
 * Read in both orders of Links and Data (IPIP-0550 has Data first); written with Links first.
 */
import { allocUnsafe, compare, empty, fromUtf8, toUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { blockBytes } from '../limits.ts'
import { type CID, decodeCid } from './cid.ts'

export interface PBLink {
  cid: CID
  /** UTF-8; undefined where the field is absent. go writes an empty name rather than none. */
  name?: string | undefined
  /** Bytes of all blocks below the link, as somebody claims; 0 to 2^53-1, undefined where absent or larger. */
  tsize?: number | undefined
}

export interface PBNode {
  links: PBLink[]
  /** Shares memory with the block it was read from. */
  data?: Uint8Array | undefined
}

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-block', `dag-pb: ${message}`)
}

function varintSize(value: number): number {
  let n = 1
  for (; value >= 128; value = Math.floor(value / 128)) n++
  return n
}

interface Sized {
  hash: Uint8Array
  name: Uint8Array | undefined
  tsize: number | undefined
  size: number
}

function sized({ cid, name, tsize }: PBLink): Sized {
  const hash = cid.bytes
  const encoded = name === undefined ? undefined : name === '' ? empty : fromUtf8(name)
  let size = 1 + varintSize(hash.length) + hash.length
  if (encoded !== undefined) size += 1 + varintSize(encoded.length) + encoded.length
  if (tsize !== undefined) {
    if (!Number.isSafeInteger(tsize) || tsize < 0) throw new RangeError(`Tsize of ${tsize}: want 0 to 2^53-1`)
    size += 1 + varintSize(tsize)
  }
  return { hash, name: encoded, tsize, size }
}

/** Bytes that a link takes in its node: what a directory's size is made of. */
export function linkSize(link: PBLink): number {
  const { size } = sized(link)
  return 1 + varintSize(size) + size
}

/**
 * Links in the given order, then data. A node that is to be canonical has its links sorted: see sortLinks.
 * Throws RangeError on a Tsize that is no size.
 */
export function encodeNode({ links, data }: PBNode): Uint8Array {
  const parts = links.map((link) => sized(link))
  let total = data === undefined ? 0 : 1 + varintSize(data.length) + data.length
  for (const { size } of parts) total += 1 + varintSize(size) + size
  const out = allocUnsafe(total)
  let at = 0
  const varint = (value: number) => {
    for (; value >= 128; value = Math.floor(value / 128)) out[at++] = (value % 128) | 128
    out[at++] = value
  }
  const field = (tag: number, bytes: Uint8Array) => {
    out[at++] = tag
    varint(bytes.length)
    out.set(bytes, at)
    at += bytes.length
  }
  for (const { hash, name, tsize, size } of parts) {
    out[at++] = 0x12
    varint(size)
    field(0x0a, hash)
    if (name !== undefined) field(0x12, name)
    if (tsize !== undefined) {
      out[at++] = 0x18
      varint(tsize)
    }
  }
  if (data !== undefined) field(0x0a, data)
  return out
}

/** The links in the canonical order: by the bytes of their names, equal names in the given order. */
export function sortLinks<T extends { name?: string | undefined }>(links: readonly T[]): T[] {
  return links
    .map((link) => ({ link, key: fromUtf8(link.name ?? '') }))
    .toSorted((a, b) => compare(a.key, b.key))
    .map(({ link }) => link)
}

/** A cursor over one message. Lengths are checked against the message they lie in. */
class Cursor {
  readonly #bytes: Uint8Array
  #at: number
  readonly #end: number

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes
    this.#at = at
    this.#end = end
  }

  get done(): boolean {
    return this.#at >= this.#end
  }

  /** Any value of up to 64 bits; undefined above 2^53-1. */
  varint(): number | undefined {
    let value = 0
    let scale = 1
    for (let i = 0; i < 10; i++) {
      const byte = this.#at < this.#end ? this.#bytes[this.#at++] : undefined
      if (byte === undefined) throw bad('cut short')
      value += (byte & 127) * scale
      if (byte < 128) {
        if (i === 9 && byte > 1) throw bad('number above 64 bits')
        return value > Number.MAX_SAFE_INTEGER ? undefined : value
      }
      scale *= 128
    }
    throw bad('number longer than ten bytes')
  }

  /** A length-delimited field: where it starts and ends. */
  span(what: string): [start: number, end: number] {
    const size = this.varint()
    const left = this.#end - this.#at
    if (size === undefined || size > left) throw bad(`${what} of ${size ?? 'over 2^53'} bytes, but ${left} are left`)
    const start = this.#at
    this.#at += size
    return [start, this.#at]
  }

  bytes(what: string): Uint8Array {
    const [start, end] = this.span(what)
    return this.#bytes.subarray(start, end)
  }
}

function decodeLink(bytes: Uint8Array, start: number, end: number): PBLink {
  const cursor = new Cursor(bytes, start, end)
  let last = 0
  let cid: CID | undefined
  const link: Omit<PBLink, 'cid'> = {}
  while (!cursor.done) {
    const tag = cursor.varint()
    if (tag !== 0x0a && tag !== 0x12 && tag !== 0x18) throw bad(`a link has a field with tag ${tag}`)
    // The order Hash, Name, Tsize also rules out duplicates.
    if (tag <= last)
      throw bad(tag === last ? `duplicate field in a link (tag ${tag})` : 'fields of a link out of order')
    last = tag
    if (tag === 0x0a) cid = decodeCid(cursor.bytes('Hash'))
    else if (tag === 0x12) link.name = toUtf8(cursor.bytes('Name'))
    else link.tsize = cursor.varint()
  }
  if (cid === undefined) throw bad('a link has no Hash')
  return { cid, ...link }
}

/**
 * Throws ProtocolError: `bad-block` for what is not canonical dag-pb, `bad-cid` and `bad-utf8` for a link's Hash and Name,
 * `oversized` above `maxBytes` (default 2 MiB). CIDs own their memory, data shares it with `bytes`.
 */
export function decodeNode(bytes: Uint8Array, maxBytes = blockBytes): PBNode {
  if (bytes.length > maxBytes)
    throw new ProtocolError('oversized', `dag-pb block of ${bytes.length} bytes, at most ${maxBytes} allowed`)
  const cursor = new Cursor(bytes, 0, bytes.length)
  const links: PBLink[] = []
  let data: Uint8Array | undefined
  let linksClosed = false
  while (!cursor.done) {
    const tag = cursor.varint()
    if (tag === 0x12) {
      if (linksClosed) throw bad('Links on both sides of Data')
      links.push(decodeLink(bytes, ...cursor.span('Link')))
    } else if (tag === 0x0a) {
      if (data !== undefined) throw bad('duplicate Data')
      data = cursor.bytes('Data')
      linksClosed = links.length > 0
    } else {
      throw bad(`a node has a field with tag ${tag}`)
    }
  }
  return data === undefined ? { links } : { links, data }
}
