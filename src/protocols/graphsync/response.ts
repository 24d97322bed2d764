/*
 * The answering half of GraphSync: the requests of all peers, whose turn it is, and the messages that are made of their
 * blocks, in the order of the walks. No socket, no store, no clock: lookups and messages are pulled by the adapter, so
 * that nothing is read before there is room to send it. Who asks for what, and whether it may, the adapter decides.
 */
import { latin1 } from '../../bytes.ts'
import { ProtocolError, asError } from '../../errors.ts'
import type { CID } from '../../ipld/cid.ts'
import type { Step, Walk } from '../../ipld/walk.ts'
import {
  MetadataWriter,
  decodeCidList,
  decodeExtension,
  extension,
  partsPerMessage,
  status,
  type OutgoingMessage,
  type OutgoingResponse,
  type RawExtensions,
  type WireRequest,
} from './wire.ts'

export interface ResponderOptions {
  /** Requests that a peer may have under way: 128; one more is answered with RequestFailedBusy. */
  peerRequests?: number
  /** The same over all peers: 4,096. */
  totalRequests?: number
  /** Bytes read for a peer and not yet taken by the wire: 2 MiB. */
  outstandingBytes?: number
  /** The same over all peers: 64 MiB. */
  totalOutstandingBytes?: number
  /** Lookups under way at once, over all peers: 64. */
  lookups?: number
  /** Bytes of blocks in one message, unless a single block is larger: 512 KiB (go-graphsync). */
  messageBytes?: number
  /** Links remembered per peer, so that no block goes twice to it; older ones are forgotten: 131,072 of 100 bytes each. */
  peerLinks?: number
  /** The same over all peers: 1,048,576. */
  totalLinks?: number
}

const defaults = {
  peerRequests: 128,
  totalRequests: 4096,
  outstandingBytes: 2 * 1024 * 1024,
  totalOutstandingBytes: 64 * 1024 * 1024,
  lookups: 64,
  messageBytes: 512 * 1024,
  peerLinks: 131_072,
  totalLinks: 1_048_576,
} satisfies Required<ResponderOptions>

/** What is assumed of the next block of a peer, until one was read and at the least. */
const firstGuessBytes = 256 * 1024
const smallestGuessBytes = 4 * 1024
/** What an entry of metadata, a status and a refusal count. */
const entryBytes = 64
/** Refusals and statuses that a peer may leave unread before nothing more is read from it. */
const controlBytes = 256 * 1024

/** One request of a peer. The adapter keeps it and hands it back. */
export class Response {
  readonly account: Account
  readonly id: string
  readonly priority: number
  state: 'asked' | 'ready' | 'loading' | 'paused' | 'ended' = 'asked'
  walk: Walk | undefined
  load: Extract<Step, { kind: 'load' }> | undefined
  answer: Uint8Array | 'missing' | undefined
  /** To be paused, or over with this status, after the lookup that is under way. */
  pausing = false
  /** Blocks of which so many are not sent. */
  skip = 0
  dedup = ''
  /** Links traversed, found and missing. */
  links = 0
  missing = 0
  blocks = 0
  bytes = 0
  /** Why its walk broke off. */
  error: Error | undefined
  /** Links that are remembered on its account; those before `forgotten` are not. */
  remembered: string[] = []
  forgotten = 0

  constructor(account: Account, id: string, priority: number) {
    this.account = account
    this.id = id
    this.priority = priority
  }
}

interface Part {
  readonly response: Response
  metadata: MetadataWriter | undefined
  extensions: Map<string, Uint8Array> | undefined
  status: number
}

/** A message in the making. */
interface Draft {
  readonly parts: Map<string, Part>
  readonly blocks: { cid: CID; data: Uint8Array }[]
  /** Keys of the blocks: requests with other dedup keys, or one that is over, may have brought the same one. */
  readonly keys: Set<string>
  blockBytes: number
  /** Of blocks, and of everything else. */
  bytes: number
  control: number
}

export interface Account {
  readonly peer: string
  readonly responses: Map<string, Response>
  /** Whose turn it may be. */
  readonly ready: Response[]
  drafts: Draft[]
  outstanding: number
  control: number
  guess: number
  inRing: boolean
  gone: boolean
  /** Links by dedup key, with how many requests under way have traversed each. */
  readonly seen: Map<string, Map<string, number>>
  remembered: number
}

/** One lookup in the store, to be answered with loaded(). */
export interface Lookup {
  readonly cid: CID
  readonly response: Response
  readonly reserved: number
}

/** A block that was put into a message, or is known by the peer (`onWire` is false). */
export interface OutgoingBlock {
  readonly cid: CID
  readonly size: number
  /** From 1, missing links counted. */
  readonly index: number
  readonly onWire: boolean
}

export interface Reply {
  readonly message: OutgoingMessage
  readonly account: Account
  readonly bytes: number
  readonly control: number
}

/** What receive() leaves to the adapter. */
export type ResponderEvent =
  | { type: 'request'; response: Response; request: WireRequest }
  | { type: 'update'; response: Response; request: WireRequest }

export class Responder {
  readonly #options: Required<ResponderOptions>
  readonly #accounts = new Map<string, Account>()
  /** Peers with something to look up and room for it, in turn. */
  readonly #ring: Account[] = []
  #over: Response[] = []
  #requests = 0
  #outstanding = 0
  #lookups = 0
  #remembered = 0
  /** Updates and cancels for requests that are not there. */
  ignored = 0

  constructor(options: ResponderOptions = {}) {
    this.#options = { ...defaults, ...options }
    for (const [name, value] of Object.entries(this.#options)) {
      if (!Number.isSafeInteger(value) || value < 1)
        throw new RangeError(`${name} is ${value}, want a whole number above 0`)
    }
  }

  get outstandingBytes(): number {
    return this.#outstanding
  }

  /** Requests of all peers under way. */
  get requests(): number {
    return this.#requests
  }

  /** Links remembered over all peers. */
  get links(): number {
    return this.#remembered
  }

  requestsOf(peer: string): readonly Response[] {
    return [...(this.#accounts.get(peer)?.responses.values() ?? [])]
  }

  #account(peer: string): Account {
    let account = this.#accounts.get(peer)
    if (account === undefined) {
      account = {
        peer,
        responses: new Map(),
        ready: [],
        drafts: [],
        outstanding: 0,
        control: 0,
        guess: firstGuessBytes,
        inRing: false,
        gone: false,
        seen: new Map(),
        remembered: 0,
      }
      this.#accounts.set(peer, account)
    }
    return account
  }

  receive(peer: string, requests: readonly WireRequest[]): ResponderEvent[] {
    const events: ResponderEvent[] = []
    for (const request of requests) {
      if (request.type === 'n') {
        const response = this.#open(peer, request)
        if (response !== undefined) events.push({ type: 'request', response, request })
        continue
      }
      const response = this.#accounts.get(peer)?.responses.get(request.id)
      if (response === undefined) this.ignored++
      else if (request.type === 'u') events.push({ type: 'update', response, request })
      else this.drop(response)
    }
    return events
  }

  #open(peer: string, request: WireRequest): Response | undefined {
    const account = this.#account(peer)
    const { peerRequests, totalRequests } = this.#options
    // A request under an id that is in use takes its place, as in go-graphsync.
    const before = account.responses.get(request.id)
    if (before !== undefined) this.drop(before)
    const response = new Response(account, request.id, request.priority)
    if (account.responses.size >= peerRequests || this.#requests >= totalRequests) {
      response.state = 'ended'
      this.#say(response, status.failedBusy)
      return undefined
    }
    account.responses.set(request.id, response)
    this.#requests++
    return response
  }

  /** Lets the walk begin. Throws ProtocolError for an extension of the protocol's own that makes no sense. */
  accept(response: Response, walk: Walk, extensions: RawExtensions, paused: boolean): void {
    if (response.state !== 'asked') return
    const key = extensions.get(extension.dedupByKey)
    const cids = extensions.get(extension.doNotSendCids)
    const first = extensions.get(extension.doNotSendFirstBlocks)
    if (key !== undefined) response.dedup = `key ${wanted('string', decodeExtension(key), extension.dedupByKey)}`
    if (first !== undefined) response.skip = wanted('number', decodeExtension(first), extension.doNotSendFirstBlocks)
    if (cids !== undefined) {
      const { peerLinks, totalLinks } = this.#options
      const room = Math.min(peerLinks - response.account.remembered, totalLinks - this.#remembered)
      for (const cid of decodeCidList(cids, room)) this.#remember(response, cid)
    }
    response.walk = walk
    if (paused) {
      response.state = 'paused'
      this.#say(response, status.paused)
    } else this.#ready(response)
  }

  #ready(response: Response): void {
    response.state = 'ready'
    response.account.ready.push(response)
    this.#enter(response.account)
  }

  /** What a hook has to say; goes out with the next message. */
  say(response: Response, extensions: RawExtensions): void {
    if (extensions.size > 0 && this.#live(response)) this.#say(response, undefined, extensions)
  }

  /** Ends the request with a status. */
  end(response: Response, code: number, extensions?: RawExtensions): void {
    if (!this.#live(response)) return
    this.#close(response)
    this.#say(response, code, extensions)
  }

  /** False where it is paused already, or over. */
  pause(response: Response): boolean {
    if (!this.#live(response) || response.state === 'paused' || response.pausing) return false
    if (response.state === 'asked') return false
    if (response.state === 'loading') {
      response.pausing = true
      return true
    }
    const { ready } = response.account
    ready.splice(ready.indexOf(response), 1)
    response.state = 'paused'
    this.#say(response, status.paused)
    return true
  }

  /** False where it is not paused. */
  unpause(response: Response): boolean {
    if (response.pausing) response.pausing = false
    else if (response.state === 'paused') this.#ready(response)
    else return false
    return true
  }

  /** Without a word: the peer wants no more of it. */
  drop(response: Response): void {
    if (!this.#live(response)) return
    const { account } = response
    this.#close(response)
    // Blocks that others count on may lie in the drafts of this one.
    if (account.responses.size > 0) return
    for (const draft of account.drafts.splice(0)) this.#release(account, draft)
  }

  #live(response: Response): boolean {
    return response.state !== 'ended'
  }

  #close(response: Response): void {
    const { account } = response
    if (response.state === 'ready') account.ready.splice(account.ready.indexOf(response), 1)
    response.state = 'ended'
    this.#over.push(response)
    response.walk = undefined
    response.load = undefined
    response.answer = undefined
    if (account.responses.get(response.id) === response) {
      account.responses.delete(response.id)
      this.#requests--
    }
    const seen = account.seen.get(response.dedup)
    while (response.forgotten < response.remembered.length) this.#forget(response, seen)
    response.remembered = []
    if (seen?.size === 0) account.seen.delete(response.dedup)
  }

  #remember(response: Response, key: string): boolean {
    const { account } = response
    let seen = account.seen.get(response.dedup)
    if (seen === undefined) account.seen.set(response.dedup, (seen = new Map()))
    const count = seen.get(key) ?? 0
    const { peerLinks, totalLinks } = this.#options
    if (account.remembered >= peerLinks || this.#remembered >= totalLinks) this.#forget(response, seen)
    if (account.remembered < peerLinks && this.#remembered < totalLinks) {
      seen.set(key, count + 1)
      response.remembered.push(key)
      account.remembered++
      this.#remembered++
    }
    return count > 0
  }

  /** The oldest link of a request. */
  #forget(response: Response, seen: Map<string, number> | undefined): void {
    const key = response.remembered[response.forgotten]
    if (key === undefined) return
    response.forgotten++
    if (response.forgotten >= 4096 && 2 * response.forgotten > response.remembered.length) {
      response.remembered.splice(0, response.forgotten)
      response.forgotten = 0
    }
    response.account.remembered--
    this.#remembered--
    const left = (seen?.get(key) ?? 1) - 1
    if (left > 0) seen?.set(key, left)
    else seen?.delete(key)
  }

  #enter(account: Account): void {
    if (account.inRing || account.gone || account.ready.length === 0) return
    account.inRing = true
    this.#ring.push(account)
  }

  /** The next lookup, peers taking turns, within a peer those of the highest priority; undefined: nothing, or no room. */
  nextLookup(): Lookup | undefined {
    const { lookups, outstandingBytes, totalOutstandingBytes } = this.#options
    while (this.#ring.length > 0 && this.#lookups < lookups) {
      const account = this.#ring.shift() as Account
      account.inRing = false
      if (account.gone) continue
      // Out of the ring until there is room: sent() puts it back.
      // Who has nothing outstanding gets one block in any case, or slow peers could starve the others.
      const room = Math.min(outstandingBytes - account.outstanding, totalOutstandingBytes - this.#outstanding)
      if (account.outstanding > 0 && account.guess > room) continue
      const response = this.#shift(account)
      if (response === undefined) continue
      const load = this.#walkOn(response)
      this.#enter(account)
      if (load === undefined) continue
      response.state = 'loading'
      const reserved = account.guess
      account.outstanding += reserved
      this.#outstanding += reserved
      this.#lookups++
      return { cid: load.cid, response, reserved }
    }
    return undefined
  }

  #shift(account: Account): Response | undefined {
    const { ready } = account
    if (ready.length < 2) return ready.shift()
    let best = 0
    for (let i = 1; i < ready.length; i++) {
      if ((ready[i] as Response).priority > (ready[best] as Response).priority) best = i
    }
    return ready.splice(best, 1)[0]
  }

  /** To the next load of the walk; undefined when it is over. */
  #walkOn(response: Response): Response['load'] {
    const { walk, answer } = response
    response.answer = undefined
    // Not ready any more, and nothing else yet.
    response.state = 'loading'
    try {
      let result = walk?.next(answer)
      while (result?.done === false && result.value.kind !== 'load') result = walk?.next()
      if (result?.done === false && result.value.kind === 'load') return (response.load = result.value)
    } catch (error) {
      // A selector that wants more than it may, or a block that is not what its codec says (go-graphsync: the same).
      response.error = asError(error)
      this.end(response, status.failedUnknown)
      return undefined
    }
    const nothing = response.links === 1 && response.missing === 1
    const code = response.missing > 0 ? status.completedPartial : status.completedFull
    this.end(response, nothing ? status.failedNotFound : code)
    return undefined
  }

  /** What the store said; undefined: it has not got the block. Returns the block for the hooks, unless nobody wants it any more. */
  loaded({ response, reserved, cid }: Lookup, bytes: Uint8Array | undefined): OutgoingBlock | undefined {
    const { account } = response
    this.#lookups--
    if (account.gone) return undefined
    account.outstanding -= reserved
    this.#outstanding -= reserved
    if (response.state !== 'loading') {
      this.#enter(account)
      return undefined
    }
    const index = ++response.links
    const key = latin1(cid.bytes)
    let onWire = false
    if (bytes === undefined) response.missing++
    else {
      account.guess = Math.max(smallestGuessBytes, bytes.length, Math.round((account.guess + bytes.length) / 2))
      const known = this.#remember(response, key)
      onWire = !known && index > response.skip
    }
    const [draft, part] = this.#part(response, onWire && bytes !== undefined ? bytes.length : 0)
    part.status = status.partial
    part.metadata ??= new MetadataWriter()
    part.metadata.add(cid.bytes, bytes === undefined ? 'm' : 'p')
    this.#charge(account, draft, entryBytes, false)
    if (onWire && bytes !== undefined && !draft.keys.has(key)) {
      draft.keys.add(key)
      draft.blocks.push({ cid, data: bytes })
      draft.blockBytes += bytes.length
      response.blocks++
      response.bytes += bytes.length
      this.#charge(account, draft, bytes.length, false)
    }
    response.load = undefined
    response.answer = bytes ?? 'missing'
    if (response.pausing) {
      response.pausing = false
      response.state = 'paused'
      part.status = status.paused
      this.#enter(account)
    } else this.#ready(response)
    return bytes === undefined ? undefined : { cid, size: bytes.length, index, onWire }
  }

  /** The message that `size` more bytes of a block go into, and what it says of the request. */
  #part(response: Response, size: number): [Draft, Part] {
    const { messageBytes } = this.#options
    const { drafts } = response.account
    const last = drafts[drafts.length - 1]
    let part = last?.parts.get(response.id)
    const fits =
      last !== undefined &&
      (size === 0 || last.blockBytes === 0 || last.blockBytes + size <= messageBytes) &&
      // Also what is not blocks must not make a message that nobody takes.
      last.bytes - last.blockBytes < messageBytes &&
      last.parts.size < partsPerMessage &&
      // The last word of a request, and the first of another under its id, are two messages.
      (part === undefined || part.response === response)
    const draft: Draft = fits
      ? last
      : { parts: new Map(), blocks: [], keys: new Set(), blockBytes: 0, bytes: 0, control: 0 }
    if (!fits) drafts.push(draft)
    if (!fits || part === undefined) {
      part = { response, metadata: undefined, extensions: undefined, status: status.partial }
      draft.parts.set(response.id, part)
    }
    return [draft, part]
  }

  #charge(account: Account, draft: Draft, bytes: number, control: boolean): void {
    draft.bytes += bytes
    account.outstanding += bytes
    this.#outstanding += bytes
    if (!control) return
    draft.control += bytes
    account.control += bytes
  }

  #say(response: Response, code: number | undefined, extensions?: RawExtensions): void {
    const { account } = response
    if (account.gone) return
    let size = entryBytes
    for (const [name, value] of extensions ?? []) size += entryBytes + name.length + value.length
    const [draft, part] = this.#part(response, 0)
    if (code !== undefined) part.status = code
    for (const [name, value] of extensions ?? []) (part.extensions ??= new Map()).set(name, value)
    this.#charge(account, draft, size, true)
  }

  /** Too much that a peer was told waits for it to be read: nothing more should be read from it. */
  congested(peer: string): boolean {
    return (this.#accounts.get(peer)?.control ?? 0) > controlBytes
  }

  /** Messages that wait to be sent; the last one may still grow. */
  pending(peer: string): number {
    return this.#accounts.get(peer)?.drafts.length ?? 0
  }

  /** The next message for a peer. It goes back with sent() once the wire has taken it. */
  transmit(peer: string): Reply | undefined {
    const account = this.#accounts.get(peer)
    const draft = account?.drafts.shift()
    if (account === undefined || draft === undefined) return undefined
    const responses = Array.from(draft.parts, ([id, { status: code, metadata, extensions }]): OutgoingResponse => ({
      id,
      status: code,
      ...(metadata && { metadata }),
      ...(extensions && { extensions }),
    }))
    return { message: { responses, blocks: draft.blocks }, account, bytes: draft.bytes, control: draft.control }
  }

  sent(reply: Reply): void {
    const { account } = reply
    if (account.gone) return
    this.#release(account, reply)
    this.#enter(account)
    if (account.responses.size === 0 && account.drafts.length === 0 && account.outstanding === 0)
      this.#accounts.delete(account.peer)
  }

  #release(account: Account, { bytes, control }: { bytes: number; control: number }): void {
    account.outstanding -= bytes
    account.control -= control
    this.#outstanding -= bytes
  }

  /** Requests that are over since this was asked last, however they ended. */
  takeOver(): readonly Response[] {
    if (this.#over.length === 0) return this.#over
    const over = this.#over
    this.#over = []
    return over
  }

  /** All that a peer asked for is gone with its connection. */
  disconnect(peer: string): void {
    const account = this.#accounts.get(peer)
    if (account === undefined) return
    for (const response of account.responses.values()) this.#close(response)
    this.#accounts.delete(peer)
    account.gone = true
    this.#outstanding -= account.outstanding
    account.drafts = []
  }
}

/** The extension's value where it has the right type. */
function wanted<T extends 'string' | 'number'>(
  type: T,
  value: unknown,
  name: string,
): T extends 'string' ? string : number {
  if (typeof value !== type) throw new ProtocolError('bad-message', `extension ${name} is no ${type}`)
  return value as T extends 'string' ? string : number
}
