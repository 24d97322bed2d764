/*
 * GraphSync 2.0.0 messages (go-graphsync message/ipldbind/schema.ipldsch), without their varint length prefix: canonical
 * DAG-CBOR, read strictly. A message is checked as a whole when it is decoded, but link metadata and extensions stay
 * bytes until somebody looks at them: a frame of 4 MiB may hold a hundred thousand links.
 * Left out: 1.0.0 and 1.1.0 (protobuf), which go-graphsync dropped too.
 */
import { allocUnsafe, compare, fromUtf8, latin1, toUtf8 } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { decodeCid, type CID } from '../../ipld/cid.ts'
import { decodeCbor, encodeCbor } from '../../ipld/cbor.ts'
import type { IpldNode } from '../../ipld/model.ts'
import { blockBytes, digestBytes, gatherBytes } from '../../limits.ts'
import { readVarint, varintLength } from '../../varint.ts'
import { bad, major, nameBytes, Scanner } from './scan.ts'

export const protocolId = '/ipfs/graphsync/2.0.0'

/** GraphSyncResponseStatusCode. 20 and above end a request. */
export const status = {
  acknowledged: 10,
  additionalPeers: 11,
  notEnoughGas: 12,
  otherProtocol: 13,
  partial: 14,
  paused: 15,
  completedFull: 20,
  completedPartial: 21,
  rejected: 30,
  failedBusy: 31,
  failedUnknown: 32,
  failedLegal: 33,
  failedNotFound: 34,
  cancelled: 35,
} as const

/** Requests, and responses, in one message. */
export const partsPerMessage = 4096
/** Extensions of one request or response. */
export const extensionsPerPart = 64

/** Names to values as DAG-CBOR; they share memory with the frame. */
export type RawExtensions = ReadonlyMap<string, Uint8Array>

export const extension = {
  doNotSendCids: 'graphsync/do-not-send-cids',
  doNotSendFirstBlocks: 'graphsync/do-not-send-first-blocks',
  dedupByKey: 'graphsync/dedup-by-key',
} as const

/** Present; present but not sent; missing; its DAG was gone through before. */
export type LinkAction = 'p' | 'd' | 'm' | 's'

export interface WireRequest {
  /** UUID as text. */
  readonly id: string
  readonly type: 'n' | 'c' | 'u'
  readonly priority: number
  readonly root: CID | undefined
  /** DAG-CBOR. */
  readonly selector: Uint8Array | undefined
  readonly extensions: RawExtensions
}

export interface WireResponse {
  readonly id: string
  readonly status: number
  /** GraphSyncMetadata without the head of its list: see MetadataReader. */
  readonly metadata: Uint8Array
  readonly links: number
  readonly extensions: RawExtensions
}

/** A received block that nobody has hashed yet. Shares memory with the frame. */
export interface WireBlock {
  readonly prefix: Uint8Array
  readonly data: Uint8Array
}

export interface GraphsyncMessage {
  readonly requests: readonly WireRequest[]
  readonly responses: readonly WireResponse[]
  readonly blocks: readonly WireBlock[]
}

export interface OutgoingRequest {
  id: string
  type: 'n' | 'c' | 'u'
  priority?: number
  root?: CID
  /** DAG-CBOR. */
  selector?: Uint8Array
  extensions?: RawExtensions
}

export interface OutgoingResponse {
  id: string
  status: number
  metadata?: MetadataWriter
  extensions?: RawExtensions
}

export interface OutgoingMessage {
  requests?: readonly OutgoingRequest[]
  responses?: readonly OutgoingResponse[]
  blocks?: readonly { cid: CID; data: Uint8Array }[]
}

const noExtensions: RawExtensions = new Map()

const hexOf = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'))

/** 16 bytes as the text of a UUID. */
export function idText(bytes: Uint8Array): string {
  let text = ''
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += '-'
    text += hexOf[bytes[i] as number]
  }
  return text
}

export function idBytes(id: string): Uint8Array {
  const out = new Uint8Array(16)
  const hex = id.replaceAll('-', '')
  for (let i = 0; i < 16; i++) out[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return out
}

function readId(s: Scanner): string {
  const raw = s.chunk(major.bytes, 'a request id', 16)
  if (raw.length !== 16) throw bad(`a request id of ${raw.length} bytes, want 16`)
  return idText(raw)
}

function readInt(s: Scanner, what: string): number {
  const value = s.head()
  if (s.major === major.uint && value <= 0x7fff_ffff) return value
  if (s.major === major.negative && value <= 0x7fff_ffff) return -1 - value
  throw bad(`${what} is no 32-bit number`)
}

function readExtensions(s: Scanner): RawExtensions {
  const count = s.count(major.map, 'extensions', extensionsPerPart)
  const out = new Map<string, Uint8Array>()
  let last: Uint8Array | undefined
  for (let i = 0; i < count; i++) {
    const raw = s.chunk(major.text, 'the name of an extension', nameBytes)
    if (last !== undefined && (last.length - raw.length || compare(last, raw)) >= 0)
      throw bad('extensions out of order, or one twice')
    last = raw
    out.set(toUtf8(raw), s.any())
  }
  return out
}

function readRequest(s: Scanner): WireRequest {
  let id: string | undefined
  let type: string | undefined
  let priority = 0
  let root: CID | undefined
  let selector: Uint8Array | undefined
  let extensions = noExtensions
  s.struct('a request', ['id', 'ext', 'pri', 'sel', 'root', 'type'], (key) => {
    if (key === 'id') id = readId(s)
    else if (key === 'ext') extensions = readExtensions(s)
    else if (key === 'pri') priority = readInt(s, 'a priority')
    else if (key === 'sel') selector = s.any()
    else if (key === 'root') root = decodeCid(s.link('a root'))
    else type = s.text('the type of a request', 1)
  })
  if (id === undefined || type === undefined) throw bad('a request without id or type')
  if (type !== 'n' && type !== 'c' && type !== 'u') throw bad(`a request of type ${JSON.stringify(type)}`)
  return { id, type, priority, root, selector, extensions }
}

const isAction = (code: number | undefined): boolean => code === 0x70 || code === 0x64 || code === 0x6d || code === 0x73

function readResponse(s: Scanner): WireResponse {
  let id: string | undefined
  let code: number | undefined
  let links = 0
  let metadata = s.bytes.subarray(0, 0)
  let extensions = noExtensions
  s.struct('a response', ['ext', 'meta', 'stat', 'reqid'], (key) => {
    if (key === 'ext') extensions = readExtensions(s)
    else if (key === 'stat') code = readInt(s, 'a status')
    else if (key === 'reqid') id = readId(s)
    else {
      links = s.count(major.list, 'metadata', s.bytes.length)
      const from = s.at
      for (let i = 0; i < links; i++) {
        if (s.expect(major.list, 'an entry of metadata') !== 2) throw bad('an entry of metadata that is not a pair')
        s.link('a link of metadata')
        const action = s.chunk(major.text, 'a link action', 1)
        if (!isAction(action[0])) throw bad(`link action ${JSON.stringify(toUtf8(action))}`)
      }
      metadata = s.bytes.subarray(from, s.at)
    }
  })
  if (id === undefined || code === undefined) throw bad('a response without reqid or stat')
  if (code < 10 || code > 39) throw bad(`status ${code}`)
  return { id, status: code, metadata, links, extensions }
}

function readBlock(s: Scanner): WireBlock {
  if (s.expect(major.list, 'a block') !== 2) throw bad('a block that is not a pair')
  const prefix = s.chunk(major.bytes, 'a block prefix', 4 * 9)
  return { prefix, data: s.chunk(major.bytes, 'a block', blockBytes) }
}

/** Throws ProtocolError. Bytes share memory with `frame`. */
export function decodeMessage(frame: Uint8Array): GraphsyncMessage {
  const s = new Scanner(frame)
  const requests: WireRequest[] = []
  const responses: WireResponse[] = []
  const blocks: WireBlock[] = []
  if (s.expect(major.map, 'the message') !== 1 || s.text('the key of the message') !== 'gs2')
    throw bad('not a map with the one key gs2')
  s.struct('the message', ['blk', 'req', 'rsp'], (key) => {
    if (key === 'blk') {
      // The smallest block is 6 bytes: this bounds what the list unfolds to.
      for (let n = s.count(major.list, 'blocks', frame.length / 6); n > 0; n--) blocks.push(readBlock(s))
    } else if (key === 'req') {
      for (let n = s.count(major.list, 'requests', partsPerMessage); n > 0; n--) requests.push(readRequest(s))
    } else {
      for (let n = s.count(major.list, 'responses', partsPerMessage); n > 0; n--) responses.push(readResponse(s))
    }
  })
  if (s.at !== frame.length) throw bad(`${frame.length - s.at} bytes behind the message`)
  return { requests, responses, blocks }
}

/** What an extension says. Throws ProtocolError. */
export function decodeExtension(raw: Uint8Array): IpldNode {
  return decodeCbor(raw, { canonical: true, maxBytes: raw.length })
}

/** The CIDs of a do-not-send-cids list, as map keys. Throws ProtocolError; reads on beyond `max`, but keeps no more. */
export function decodeCidList(raw: Uint8Array, max: number): string[] {
  const s = new Scanner(raw)
  const out: string[] = []
  for (let n = s.count(major.list, extension.doNotSendCids, raw.length); n > 0; n--) {
    const cid = s.link(`a CID of ${extension.doNotSendCids}`)
    if (out.length < max) out.push(latin1(cid))
  }
  return out
}

/** Goes through the metadata of a decoded response, entry by entry, without making objects of them. */
export class MetadataReader {
  readonly #scanner: Scanner
  /** Entries that are left, the current one too. */
  left: number
  /** Of the current entry, while there is one. Shares memory with the frame. */
  cid: Uint8Array
  action: LinkAction = 'p'

  constructor({ metadata, links }: Pick<WireResponse, 'metadata' | 'links'>) {
    this.#scanner = new Scanner(metadata)
    this.left = links
    this.cid = metadata
    this.#read()
  }

  next(): void {
    this.left--
    this.#read()
  }

  #read(): void {
    if (this.left === 0) return
    const s = this.#scanner
    s.head()
    this.cid = s.link('a link of metadata')
    s.head()
    this.action = String.fromCharCode(s.bytes[s.at++] as number) as LinkAction
  }
}

/** What a block prefix says. */
export interface Prefix {
  readonly hashCode: number
  readonly digestLength: number
  /** What stands before the digest in the CID. */
  readonly head: Uint8Array
}

/** Throws ProtocolError `bad-cid`. */
export function parsePrefix(prefix: Uint8Array): Prefix {
  const values: number[] = []
  let at = 0
  while (values.length < 4) {
    let value: number | undefined
    try {
      value = readVarint(prefix, at)
    } catch (cause) {
      throw new ProtocolError('bad-cid', 'block prefix with a bad varint', { cause })
    }
    if (value === undefined) throw new ProtocolError('bad-cid', 'block prefix is cut short')
    values.push(value)
    at += varintLength(value)
  }
  const [version = -1, codec, hashCode = -1, digestLength = -1] = values
  const v0 = version === 0 && codec === 0x70 && hashCode === 0x12 && digestLength === 32
  if (at !== prefix.length || digestLength > digestBytes || !(version === 1 || v0))
    throw new ProtocolError('bad-cid', `block prefix of version ${version} with a digest of ${digestLength} bytes`)
  return { hashCode, digestLength, head: v0 ? prefix.subarray(2) : prefix }
}

const prefixV0 = Uint8Array.of(0, 0x70, 0x12, 0x20)

/** Version, codec, hash code and digest length. */
export function prefixOf(cid: CID): Uint8Array {
  if (cid.version === 0) return prefixV0
  return cid.bytes.subarray(0, cid.bytes.length - cid.multihash.digest.length)
}

/** Writes a head, returns the offset behind it. */
function putHead(out: Uint8Array, at: number, type: number, value: number): number {
  const first = type << 5
  if (value < 24) {
    out[at] = first | value
    return at + 1
  }
  const size = value < 0x100 ? 1 : value < 0x1_0000 ? 2 : 4
  out[at] = first | (size === 1 ? 24 : size === 2 ? 25 : 26)
  for (let i = size; i > 0; i--) {
    out[at + i] = value & 255
    value = Math.floor(value / 256)
  }
  return at + 1 + size
}

/** Link metadata as it is collected for a response. */
export class MetadataWriter {
  #out = allocUnsafe(1024)
  size = 0
  links = 0

  add(cid: Uint8Array, action: LinkAction): void {
    const most = this.size + cid.length + 12
    if (most > this.#out.length) {
      const grown = allocUnsafe(Math.max(most, 2 * this.#out.length))
      grown.set(this.#out.subarray(0, this.size))
      this.#out = grown
    }
    const out = this.#out
    let at = this.size
    out[at++] = 0x82
    out[at++] = 0xd8
    out[at++] = 42
    at = putHead(out, at, major.bytes, cid.length + 1)
    out[at++] = 0
    out.set(cid, at)
    at += cid.length
    out[at++] = 0x61
    out[at++] = action.charCodeAt(0)
    this.size = at
    this.links++
  }

  get bytes(): Uint8Array {
    return this.#out.subarray(0, this.size)
  }
}

/** Gathers what is small; what is large goes as it is. `room` is at least the sum of what is small. */
class Gather {
  readonly #out: Uint8Array
  readonly #chunks: Uint8Array[] = []
  #from = 0
  #at = 0

  constructor(room: number) {
    this.#out = allocUnsafe(room)
  }

  head(type: number, value: number): void {
    this.#at = putHead(this.#out, this.#at, type, value)
  }

  bytes(bytes: Uint8Array): void {
    if (bytes.length > gatherBytes) {
      this.#cut()
      this.#chunks.push(bytes)
    } else {
      this.#out.set(bytes, this.#at)
      this.#at += bytes.length
    }
  }

  /** ASCII. */
  text(text: string): void {
    this.head(major.text, text.length)
    for (let i = 0; i < text.length; i++) this.#out[this.#at++] = text.charCodeAt(i)
  }

  #cut(): void {
    if (this.#at > this.#from) this.#chunks.push(this.#out.subarray(this.#from, this.#at))
    this.#from = this.#at
  }

  finish(): Uint8Array[] {
    this.#cut()
    return this.#chunks
  }
}

const small = (bytes: Uint8Array | undefined): number =>
  bytes === undefined || bytes.length > gatherBytes ? 8 : 8 + bytes.length

/** Names of extensions in canonical order, with their bytes. */
function sorted(extensions: RawExtensions | undefined): [name: Uint8Array, value: Uint8Array][] {
  if (extensions === undefined || extensions.size === 0) return []
  return Array.from(extensions, ([name, value]): [Uint8Array, Uint8Array] => [fromUtf8(name), value]).toSorted(
    ([a], [b]) => a.length - b.length || compare(a, b),
  )
}

function putExtensions(out: Gather, extensions: [Uint8Array, Uint8Array][]): void {
  if (extensions.length === 0) return
  out.text('ext')
  out.head(major.map, extensions.length)
  for (const [name, value] of extensions) {
    out.head(major.text, name.length)
    out.bytes(name)
    out.bytes(value)
  }
}

function putInt(out: Gather, value: number): void {
  if (value < 0) out.head(major.negative, -1 - value)
  else out.head(major.uint, value)
}

/** Chunks for one vectored write; what is longer than 2 KiB is not copied. */
export function encodeMessage({ requests = [], responses = [], blocks = [] }: OutgoingMessage): Uint8Array[] {
  const parts = [...requests, ...responses].map((part) => sorted(part.extensions))
  let room = 64
  for (const { data } of blocks) room += 64 + small(data)
  for (const each of parts) for (const [name, value] of each) room += small(name) + small(value)
  for (const { root, selector } of requests) room += 96 + small(root?.bytes) + small(selector)
  for (const { metadata } of responses) room += 96 + small(metadata?.bytes)
  const out = new Gather(room)
  out.head(major.map, 1)
  out.text('gs2')
  out.head(major.map, Number(blocks.length > 0) + Number(requests.length > 0) + Number(responses.length > 0))
  if (blocks.length > 0) {
    out.text('blk')
    out.head(major.list, blocks.length)
    for (const { cid, data } of blocks) {
      const prefix = prefixOf(cid)
      out.head(major.list, 2)
      out.head(major.bytes, prefix.length)
      out.bytes(prefix)
      out.head(major.bytes, data.length)
      out.bytes(data)
    }
  }
  if (requests.length > 0) {
    out.text('req')
    out.head(major.list, requests.length)
    requests.forEach((request, i) => putRequest(out, request, parts[i] ?? []))
  }
  if (responses.length > 0) {
    out.text('rsp')
    out.head(major.list, responses.length)
    responses.forEach((response, i) => putResponse(out, response, parts[requests.length + i] ?? []))
  }
  return out.finish()
}

function putRequest(
  out: Gather,
  { id, type, priority = 0, root, selector }: OutgoingRequest,
  extensions: [Uint8Array, Uint8Array][],
): void {
  const optional = [extensions.length > 0, priority !== 0, selector !== undefined, root !== undefined]
  out.head(major.map, 2 + optional.filter(Boolean).length)
  out.text('id')
  out.head(major.bytes, 16)
  out.bytes(idBytes(id))
  putExtensions(out, extensions)
  if (priority !== 0) {
    out.text('pri')
    putInt(out, priority)
  }
  if (selector !== undefined) {
    out.text('sel')
    out.bytes(selector)
  }
  if (root !== undefined) {
    out.text('root')
    out.bytes(encodeCbor(root))
  }
  out.text('type')
  out.text(type)
}

function putResponse(
  out: Gather,
  { id, status: code, metadata }: OutgoingResponse,
  extensions: [Uint8Array, Uint8Array][],
): void {
  const links = metadata?.links ?? 0
  out.head(major.map, 2 + Number(extensions.length > 0) + Number(links > 0))
  putExtensions(out, extensions)
  if (metadata !== undefined && links > 0) {
    out.text('meta')
    out.head(major.list, links)
    out.bytes(metadata.bytes)
  }
  out.text('stat')
  putInt(out, code)
  out.text('reqid')
  out.head(major.bytes, 16)
  out.bytes(idBytes(id))
}
