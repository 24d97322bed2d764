/*
 * pubsub (3A r3, 2020-09-25) §The RPC, gossipsub v1.0 to v1.3, partial messages: the RPC as bytes. One pass by hand:
 * what is beyond the budget is passed over without memory and counted. A sub-message that is sent twice is merged, as
 * protobuf says. Message ids are strings of one char per byte. Fields that we do not know are skipped.
 * Long, because reading and writing stand side by side, and reading is spelled out for the sake of the budget.
 */
import { concat, empty, fromUtf8, toUtf8 } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { Reader, Writer } from '../../protobuf.ts'
import { varintLength, writeVarint } from '../../varint.ts'

export const floodsubId = '/floodsub/1.0.0'
/** Newest first: the order to offer them in. */
export const meshsubIds = ['/meshsub/1.3.0', '/meshsub/1.2.0', '/meshsub/1.1.0', '/meshsub/1.0.0'] as const

/** undefined: the field is absent; empty: it is there and empty. Byte fields share memory with the frame. */
export interface WireMessage {
  from?: Uint8Array | undefined
  data?: Uint8Array | undefined
  /** 8 bytes, big-endian, where the sender keeps to the spec. */
  seqno?: Uint8Array | undefined
  topic: string
  signature?: Uint8Array | undefined
  key?: Uint8Array | undefined
  /** The message as it came, to be forwarded as it is. */
  raw: Uint8Array
}

export interface Subscription {
  subscribe: boolean
  topic: string
  requestsPartial?: boolean | undefined
  supportsSendingPartial?: boolean | undefined
}

export interface IHave {
  topic: string
  ids: string[]
}

export interface PrunedPeer {
  id: Uint8Array
  record?: Uint8Array | undefined
}

export interface Prune {
  topic: string
  peers: PrunedPeer[]
  /** Whole seconds; what is above 2^53-1 comes as that. */
  backoffSeconds?: number | undefined
}

export interface ControlExtensions {
  partialMessages?: boolean | undefined
  testExtension?: boolean | undefined
}

export interface PartialMessages {
  topic?: string | undefined
  groupId?: Uint8Array | undefined
  message?: Uint8Array | undefined
  metadata?: Uint8Array | undefined
}

/** What one RPC may hold; the rest of it is left out and counted. Entries are those of the whole RPC together. */
export interface RpcBudget {
  subscriptions: number
  publish: number
  /** IHAVE entries, one per topic. */
  ihaveMessages: number
  ihaveIds: number
  iwantIds: number
  idontwantMessages: number
  idontwantIds: number
  grafts: number
  prunes: number
  prunePeers: number
  /** Of control entries together: an entry that does not fit is passed over. */
  controlBytes: number
  /** Longer ids are passed over. */
  idBytes: number
  /** A longer topic is a ProtocolError `oversized`; that of a message is left out with it. */
  topicBytes: number
}

/** Counts; generous ones, a router has less to give to most peers. */
export const defaultBudget: RpcBudget = {
  subscriptions: 4096,
  publish: 4096,
  ihaveMessages: 1024,
  // go-libp2p-pubsub: GossipSubMaxIHaveLength.
  ihaveIds: 5000,
  iwantIds: 5000,
  // go-libp2p-pubsub: GossipSubMaxIDontWantMessages.
  idontwantMessages: 1000,
  idontwantIds: 1000,
  grafts: 1024,
  prunes: 1024,
  // Spec v1.1: 16 in a PRUNE.
  prunePeers: 256,
  // go-libp2p-pubsub: DefaultMaxControlMessageSize.
  controlBytes: 512 * 1024,
  // Of the ids in use, from||seqno of an RSA peer has 42 bytes.
  idBytes: 128,
  topicBytes: 1024,
}

/** What the budget left out. */
export interface Dropped {
  subscriptions: number
  publish: number
  ihaveMessages: number
  /** Ids of all three kinds, those that are too long included. */
  ids: number
  idontwantMessages: number
  grafts: number
  prunes: number
  prunePeers: number
  controlBytes: number
}

export interface Rpc {
  subscriptions: Subscription[]
  publish: WireMessage[]
  ihave: IHave[]
  iwant: string[]
  graft: string[]
  prune: Prune[]
  idontwant: string[]
  extensions: ControlExtensions | undefined
  /** How often the extensions were sent in this RPC: v1.3 allows once, in the first RPC. */
  extensionsCount: number
  partial: PartialMessages | undefined
  testExtension: boolean
  dropped: Dropped
}

const { Buffer } = globalThis as {
  Buffer?: { prototype: { latin1Slice?: (this: Uint8Array, start: number, end: number) => string } }
}
const latin1Slice = Buffer?.prototype.latin1Slice

/** Bytes as text of one char each: a Map key. 0.15 us for 40 bytes on Node, twice that elsewhere. */
export const idKey: (bytes: Uint8Array, start?: number, end?: number) => string =
  latin1Slice === undefined
    ? portableKey
    : (bytes, start = 0, end = bytes.length) => latin1Slice.call(bytes, start, end)

/** What idKey is where there is no Buffer. */
export function portableKey(bytes: Uint8Array, start = 0, end: number = bytes.length): string {
  let text = ''
  // A call takes some 100,000 arguments at most.
  for (let at = start; at < end; at += 4096) {
    text += String.fromCharCode.apply(undefined, bytes.subarray(at, Math.min(end, at + 4096)) as unknown as number[])
  }
  return text
}

/** The bytes of an id. */
export function idBytes(key: string): Uint8Array {
  const out = new Uint8Array(key.length)
  for (let i = 0; i < key.length; i++) out[i] = key.charCodeAt(i)
  return out
}

const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)

/** Tags: field number and wire type. */
const delimited = (field: number): number => field * 8 + 2
const testField = 6_492_434
const testTag = delimited(testField)

/** v1.3: numbers of experimental fields are above 0x200000. */
const known = {
  rpc: [1, 2, 3, 10, testField],
  subscription: [1, 2, 3, 4],
  message: [1, 2, 3, 4, 5, 6],
  control: [1, 2, 3, 4, 5, 6],
  ihave: [1, 2],
  ids: [1],
  graft: [1],
  prune: [1, 2, 3],
  peer: [1, 2],
  extensions: [10, testField],
  partial: [1, 2, 3, 4],
} as const satisfies Record<string, readonly number[]>

class Decoder {
  readonly rpc: Rpc = {
    subscriptions: [],
    publish: [],
    ihave: [],
    iwant: [],
    graft: [],
    prune: [],
    idontwant: [],
    extensions: undefined,
    extensionsCount: 0,
    partial: undefined,
    testExtension: false,
    dropped: {
      subscriptions: 0,
      publish: 0,
      ihaveMessages: 0,
      ids: 0,
      idontwantMessages: 0,
      grafts: 0,
      prunes: 0,
      prunePeers: 0,
      controlBytes: 0,
    },
  }
  readonly #frame: Uint8Array
  readonly #budget: RpcBudget
  readonly #r: Reader
  #controlBytes: number
  #ihaveIds: number
  #idontwantMessages: number
  #prunePeers: number

  constructor(frame: Uint8Array, budget: RpcBudget) {
    this.#frame = frame
    this.#budget = budget
    this.#r = new Reader(frame)
    this.#controlBytes = budget.controlBytes
    this.#ihaveIds = budget.ihaveIds
    this.#idontwantMessages = budget.idontwantMessages
    this.#prunePeers = budget.prunePeers
  }

  #tag(): number {
    const tag = this.#r.varint53()
    if (tag < 8 || tag > 0xffff_ffff) throw new ProtocolError('bad-protobuf', `field number ${Math.floor(tag / 8)}`)
    return tag
  }

  #skip(tag: number, what: keyof typeof known): void {
    const list: readonly number[] = known[what]
    if (list.includes(tag >>> 3)) {
      throw new ProtocolError('bad-protobuf', `field ${tag >>> 3} of ${what} has wire type ${tag & 7}`)
    }
    this.#r.skip(tag & 7)
  }

  #bool(): boolean {
    return this.#r.varint64() !== 0n
  }

  #topic(): string {
    const size = this.#r.span()
    if (size > this.#budget.topicBytes) {
      throw new ProtocolError('oversized', `topic of ${size} bytes, at most ${this.#budget.topicBytes} allowed`)
    }
    const end = this.#r.at
    for (let at = end - size; at < end; at++) {
      if ((this.#frame[at] as number) > 127) return toUtf8(this.#frame.subarray(end - size, end))
    }
    return idKey(this.#frame, end - size, end)
  }

  #id(ids: string[], room: boolean): boolean {
    const size = this.#r.span()
    if (!room || size > this.#budget.idBytes) {
      this.rpc.dropped.ids++
      return false
    }
    ids.push(idKey(this.#frame, this.#r.at - size, this.#r.at))
    return true
  }

  read(): Rpc {
    const { rpc } = this
    const { dropped } = rpc
    const budget = this.#budget
    const r = this.#r
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x12) {
        if (rpc.publish.length < budget.publish) {
          this.#publish()
        } else {
          r.span()
          dropped.publish++
        }
      } else if (tag === 0x1a) {
        this.#control()
      } else if (tag === 0x0a) {
        if (rpc.subscriptions.length < budget.subscriptions) {
          rpc.subscriptions.push(this.#subscription())
        } else {
          r.span()
          dropped.subscriptions++
        }
      } else if (tag === 0x52) {
        this.#partial()
      } else if (tag === testTag) {
        r.span()
        rpc.testExtension = true
      } else {
        this.#skip(tag, 'rpc')
      }
    }
    return rpc
  }

  #subscription(): Subscription {
    const r = this.#r
    const out: Subscription = {
      subscribe: false,
      topic: '',
      requestsPartial: undefined,
      supportsSendingPartial: undefined,
    }
    const outer = r.enter()
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x08) out.subscribe = this.#bool()
      else if (tag === 0x12) out.topic = this.#topic()
      else if (tag === 0x18) out.requestsPartial = this.#bool()
      else if (tag === 0x20) out.supportsSendingPartial = this.#bool()
      else this.#skip(tag, 'subscription')
    }
    r.leave(outer)
    return out
  }

  /**
   * A message that we can't read is left out, and the rest of the RPC is read: another stack may have found it good (one
   * with a group, say), and who forwards it must not lose its stream for what its author wrote.
   */
  #publish(): void {
    const r = this.#r
    const { rpc } = this
    const outer = r.enter()
    try {
      rpc.publish.push(this.#message())
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      rpc.dropped.publish++
    }
    r.leave(outer)
  }

  #message(): WireMessage {
    const r = this.#r
    const start = r.at
    let from: Uint8Array | undefined
    let data: Uint8Array | undefined
    let seqno: Uint8Array | undefined
    let topic = ''
    let signature: Uint8Array | undefined
    let key: Uint8Array | undefined
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) from = r.bytes()
      else if (tag === 0x12) data = r.bytes()
      else if (tag === 0x1a) seqno = r.bytes()
      else if (tag === 0x22) topic = this.#topic()
      else if (tag === 0x2a) signature = r.bytes()
      else if (tag === 0x32) key = r.bytes()
      else this.#skip(tag, 'message')
    }
    return { from, data, seqno, topic, signature, key, raw: this.#frame.subarray(start, r.at) }
  }

  #control(): void {
    const { rpc } = this
    const { dropped } = rpc
    const budget = this.#budget
    const r = this.#r
    const outer = r.enter()
    while (!r.done) {
      const tag = this.#tag()
      if (tag < 0x0a || tag > 0x32 || (tag & 7) !== 2) {
        this.#skip(tag, 'control')
        continue
      }
      const end = r.enter()
      if (tag === 0x32) {
        this.#extensions()
      } else if (r.left > this.#controlBytes) {
        dropped.controlBytes += r.left
      } else {
        this.#controlBytes -= r.left
        if (tag === 0x0a) {
          if (rpc.ihave.length < budget.ihaveMessages) rpc.ihave.push(this.#ihave())
          else dropped.ihaveMessages++
        } else if (tag === 0x12) {
          this.#ids(rpc.iwant, budget.iwantIds)
        } else if (tag === 0x1a) {
          if (rpc.graft.length < budget.grafts) rpc.graft.push(this.#graft())
          else dropped.grafts++
        } else if (tag === 0x22) {
          if (rpc.prune.length < budget.prunes) rpc.prune.push(this.#prune())
          else dropped.prunes++
        } else if (this.#idontwantMessages > 0) {
          this.#idontwantMessages--
          this.#ids(rpc.idontwant, budget.idontwantIds)
        } else {
          dropped.idontwantMessages++
        }
      }
      r.leave(end)
    }
    r.leave(outer)
  }

  #ihave(): IHave {
    const r = this.#r
    const out: IHave = { topic: '', ids: [] }
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) out.topic = this.#topic()
      else if (tag !== 0x12) this.#skip(tag, 'ihave')
      else if (this.#id(out.ids, this.#ihaveIds > 0)) this.#ihaveIds--
    }
    return out
  }

  /** Of an IWANT or an IDONTWANT. */
  #ids(ids: string[], max: number): void {
    const r = this.#r
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) this.#id(ids, ids.length < max)
      else this.#skip(tag, 'ids')
    }
  }

  #graft(): string {
    const r = this.#r
    let topic = ''
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) topic = this.#topic()
      else this.#skip(tag, 'graft')
    }
    return topic
  }

  #prune(): Prune {
    const r = this.#r
    const out: Prune = { topic: '', peers: [], backoffSeconds: undefined }
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) {
        out.topic = this.#topic()
      } else if (tag === 0x12) {
        const end = r.enter()
        if (this.#prunePeers > 0) {
          this.#prunePeers--
          out.peers.push(this.#peer())
        } else {
          this.rpc.dropped.prunePeers++
        }
        r.leave(end)
      } else if (tag === 0x18) {
        const seconds = r.varint64()
        out.backoffSeconds = seconds > maxSafe ? Number.MAX_SAFE_INTEGER : Number(seconds)
      } else {
        this.#skip(tag, 'prune')
      }
    }
    return out
  }

  #peer(): PrunedPeer {
    const r = this.#r
    const out: PrunedPeer = { id: empty, record: undefined }
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) out.id = r.bytes()
      else if (tag === 0x12) out.record = r.bytes()
      else this.#skip(tag, 'peer')
    }
    return out
  }

  #extensions(): void {
    const { rpc } = this
    const r = this.#r
    rpc.extensionsCount++
    const out = (rpc.extensions ??= { partialMessages: undefined, testExtension: undefined })
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x50) out.partialMessages = this.#bool()
      else if (tag === testField * 8) out.testExtension = this.#bool()
      else this.#skip(tag, 'extensions')
    }
  }

  #partial(): void {
    const { rpc } = this
    const r = this.#r
    const outer = r.enter()
    const out = (rpc.partial ??= { topic: undefined, groupId: undefined, message: undefined, metadata: undefined })
    while (!r.done) {
      const tag = this.#tag()
      if (tag === 0x0a) out.topic = this.#topic()
      else if (tag === 0x12) out.groupId = r.bytes()
      else if (tag === 0x1a) out.message = r.bytes()
      else if (tag === 0x22) out.metadata = r.bytes()
      else this.#skip(tag, 'partial')
    }
    r.leave(outer)
  }
}

/** Throws ProtocolError `bad-protobuf`, `bad-utf8` or `oversized`. `frame` is without its length prefix. */
export function decodeRpc(frame: Uint8Array, budget: RpcBudget = defaultBudget): Rpc {
  return new Decoder(frame, budget).read()
}

/** Writes forward into memory of a known size. */
class Pen {
  readonly out: Uint8Array
  at = 0

  constructor(size: number) {
    this.out = new Uint8Array(size)
  }

  head(tag: number, size: number): void {
    this.at = writeVarint(size, this.out, writeVarint(tag, this.out, this.at))
  }

  copy(bytes: Uint8Array): void {
    this.out.set(bytes, this.at)
    this.at += bytes.length
  }
}

/** For text as short as a topic a loop is cheaper than the platform's encoder. */
function utf8(text: string): Uint8Array {
  const out = new Uint8Array(text.length)
  for (let i = 0; i < out.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127) return fromUtf8(text)
    out[i] = code
  }
  return out
}

/** Bytes that a field of so many bytes takes with its tag (of one byte) and length. */
export const fieldBytes = (size: number): number => 1 + varintLength(size) + size

export type MessageFields = Omit<WireMessage, 'raw'>

/** The message's own bytes, its fields in the order of their numbers; what is undefined is not written. */
export function encodeMessage(message: MessageFields, prefix: Uint8Array = empty): Uint8Array {
  const { from, data, seqno, signature, key } = message
  const fields = [from, data, seqno, utf8(message.topic), signature, key]
  let size = prefix.length
  for (const field of fields) if (field !== undefined) size += fieldBytes(field.length)
  const pen = new Pen(size)
  pen.copy(prefix)
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i]
    if (field === undefined) continue
    pen.head(delimited(i + 1), field.length)
    pen.copy(field)
  }
  return pen.out
}

/** What goes into the control field of an RPC. */
export interface Control {
  ihave?: readonly { topic: string; ids: readonly string[] }[] | undefined
  /** One list for each IWANT. */
  iwant?: readonly (readonly string[])[] | undefined
  graft?: readonly string[] | undefined
  prune?: readonly { topic: string; peers: readonly PrunedPeer[]; backoffSeconds?: number | undefined }[] | undefined
  /** One list for each IDONTWANT. */
  idontwant?: readonly (readonly string[])[] | undefined
  extensions?: ControlExtensions | undefined
}

/** Writes fields from the last to the first, and before them their length and tag. */
function nested(w: Writer, tag: number, write: () => void): void {
  const before = w.length
  write()
  w.varint(w.length - before)
  w.varint(tag)
}

function field(w: Writer, tag: number, value: Uint8Array | undefined): void {
  if (value === undefined) return
  w.bytes(value)
  w.varint(tag)
}

function flag(w: Writer, tag: number, value: boolean | undefined): void {
  if (value === undefined) return
  w.varint(value ? 1 : 0)
  w.varint(tag)
}

function writeIds(w: Writer, tag: number, ids: readonly string[]): void {
  for (let i = ids.length - 1; i >= 0; i--) {
    w.latin1(ids[i] as string)
    w.varint(tag)
  }
}

/** The control field's content. */
export function encodeControl(control: Control): Uint8Array {
  const w = new Writer()
  const { extensions } = control
  if (extensions !== undefined) {
    nested(w, 0x32, () => {
      flag(w, testField * 8, extensions.testExtension)
      flag(w, 0x50, extensions.partialMessages)
    })
  }
  for (const ids of control.idontwant?.toReversed() ?? []) nested(w, 0x2a, () => writeIds(w, 0x0a, ids))
  for (const { topic, peers, backoffSeconds } of control.prune?.toReversed() ?? []) {
    nested(w, 0x22, () => {
      if (backoffSeconds !== undefined) {
        w.varint(backoffSeconds)
        w.varint(0x18)
      }
      for (const { id, record } of peers.toReversed()) {
        nested(w, 0x12, () => {
          field(w, 0x12, record)
          field(w, 0x0a, id)
        })
      }
      field(w, 0x0a, utf8(topic))
    })
  }
  for (const topic of control.graft?.toReversed() ?? []) nested(w, 0x1a, () => field(w, 0x0a, utf8(topic)))
  for (const ids of control.iwant?.toReversed() ?? []) nested(w, 0x12, () => writeIds(w, 0x0a, ids))
  for (const { topic, ids } of control.ihave?.toReversed() ?? []) {
    nested(w, 0x0a, () => {
      writeIds(w, 0x12, ids)
      field(w, 0x0a, utf8(topic))
    })
  }
  return concat(w.finish())
}

function encodeSubscription({ subscribe, topic, requestsPartial, supportsSendingPartial }: Subscription): Uint8Array {
  const w = new Writer()
  flag(w, 0x20, supportsSendingPartial)
  flag(w, 0x18, requestsPartial)
  field(w, 0x12, utf8(topic))
  flag(w, 0x08, subscribe)
  return concat(w.finish())
}

function encodePartial({ topic, groupId, message, metadata }: PartialMessages): Uint8Array {
  const w = new Writer()
  field(w, 0x22, metadata)
  field(w, 0x1a, message)
  field(w, 0x12, groupId)
  if (topic !== undefined) field(w, 0x0a, utf8(topic))
  return concat(w.finish())
}

export interface OutgoingRpc {
  subscriptions?: readonly Subscription[] | undefined
  /** Raw messages; those above 256 bytes are not copied. */
  publish?: readonly Uint8Array[] | undefined
  /** What encodeControl gives. */
  control?: Uint8Array | undefined
  partial?: PartialMessages | undefined
  testExtension?: boolean | undefined
}

/** Larger content stays where it is: whoever gathers small chunks for the cipher copies it once, not twice. */
const copiedBytes = 256

/** Chunks for one vectored write, the length prefix among them. Nothing is written to: one frame serves many peers. */
export function rpcChunks(rpc: OutgoingRpc): Uint8Array[] {
  const parts: [tag: number, content: Uint8Array][] = []
  for (const subscription of rpc.subscriptions ?? []) parts.push([0x0a, encodeSubscription(subscription)])
  for (const raw of rpc.publish ?? []) parts.push([0x12, raw])
  if (rpc.control !== undefined) parts.push([0x1a, rpc.control])
  if (rpc.partial !== undefined) parts.push([0x52, encodePartial(rpc.partial)])
  let size = 0
  let large = 0
  for (const [, { length }] of parts) {
    size += fieldBytes(length)
    if (length > copiedBytes) large += length
  }
  // Its number takes a tag of four bytes.
  if (rpc.testExtension === true) size += varintLength(testTag) + 1
  const pen = new Pen(varintLength(size) + size - large)
  pen.at = writeVarint(size, pen.out)
  const chunks: Uint8Array[] = []
  let sent = 0
  for (const [tag, content] of parts) {
    pen.head(tag, content.length)
    if (content.length > copiedBytes) {
      chunks.push(pen.out.subarray(sent, pen.at), content)
      sent = pen.at
    } else {
      pen.copy(content)
    }
  }
  if (rpc.testExtension === true) pen.head(testTag, 0)
  if (sent < pen.at) chunks.push(pen.out.subarray(sent))
  return chunks
}

/** Bytes of an RPC without its length prefix. */
export function rpcBytes(rpc: OutgoingRpc): number {
  let size = rpc.testExtension === true ? varintLength(testTag) + 1 : 0
  for (const subscription of rpc.subscriptions ?? []) size += fieldBytes(encodeSubscription(subscription).length)
  for (const raw of rpc.publish ?? []) size += fieldBytes(raw.length)
  if (rpc.control !== undefined) size += fieldBytes(rpc.control.length)
  if (rpc.partial !== undefined) size += fieldBytes(encodePartial(rpc.partial).length)
  return size
}
