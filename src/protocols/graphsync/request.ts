/*
 * The asking half of GraphSync: one request replays its selector over what the peer says. Each link that the walk comes
 * to must be the next one in the peer's metadata, so nothing off the path, out of order or beyond the end gets through.
 * Pulled by its driver (step), which has the store and the streams: what nobody pulls waits here and is counted.
 * A request may be asked again, under another id on the wire, after its connection was lost or it was paused: the walk
 * then begins anew and what was told before is not told again.
 */
import { equals, latin1 } from '../../bytes.ts'
import { ProtocolError, UnavailableError, asError } from '../../errors.ts'
import type { CID } from '../../ipld/cid.ts'
import type { Segment } from '../../ipld/model.ts'
import type { Step, Walk, WalkSummary } from '../../ipld/walk.ts'
import {
  MetadataReader,
  parsePrefix,
  status,
  type GraphsyncMessage,
  type Prefix,
  type RawExtensions,
  type WireResponse,
} from './wire.ts'

/** Digests by multihash code; undefined for a function that we do not have. */
export type Hash = (code: number, data: Uint8Array) => Uint8Array | undefined

/** What a message costs besides its bytes. */
const messageOverhead = 1024

interface Arrived {
  readonly prefix: Prefix
  readonly digest: Uint8Array
  readonly data: Uint8Array
  used: boolean
}

/** Whether `cid` ends in `digest`, with what the prefix says before it. */
function isOf({ prefix, digest }: Arrived, cid: Uint8Array): boolean {
  const { head } = prefix
  if (cid.length !== head.length + digest.length) return false
  for (let i = digest.length - 1; i >= 0; i--) if (cid[head.length + i] !== digest[i]) return false
  return equals(cid.subarray(0, head.length), head)
}

/** The blocks of one message, hashed, for as long as a request has yet to go through its part of the message. */
export class Arrival {
  readonly #blocks: Arrived[] = []
  /** By CID: made when blocks come in another order than they are named, which go-graphsync does. */
  #byCid: Map<string, Arrived> | undefined
  #next = 0
  readonly #freed: (arrival: Arrival) => void
  readonly bytes: number
  #unused: number
  #open = 0
  #whole = true

  /** Throws ProtocolError for a block whose prefix is none. `freed` hears that it waits no more. */
  constructor(message: GraphsyncMessage, bytes: number, hash: Hash, freed: (arrival: Arrival) => void) {
    this.bytes = bytes + messageOverhead
    this.#freed = freed
    let last: Uint8Array | undefined
    let prefix: Prefix | undefined
    for (const block of message.blocks) {
      if (prefix === undefined || last === undefined || !equals(last, block.prefix)) prefix = parsePrefix(block.prefix)
      last = block.prefix
      const digest = hash(prefix.hashCode, block.data)
      // A block that cannot be checked is as good as not there.
      if (digest === undefined || digest.length < prefix.digestLength) continue
      const exact = digest.length === prefix.digestLength ? digest : digest.subarray(0, prefix.digestLength)
      this.#blocks.push({ prefix, digest: exact, data: block.data, used: false })
    }
    this.#unused = this.#blocks.length
  }

  hold(): void {
    this.#open++
  }

  /** `early`: before it was gone through. Returns how many blocks nobody had asked for, after the last one. */
  release(early: boolean): number {
    if (early) this.#whole = false
    if (--this.#open > 0) return 0
    this.#freed(this)
    return this.#whole ? this.#unused : 0
  }

  /** Some part of the message is for nobody here: its blocks cannot be told from unasked ones. */
  incomplete(): void {
    this.#whole = false
  }

  /** `fresh`: nobody had it before, so that nobody puts it into the store yet. */
  get(cid: Uint8Array): { data: Uint8Array; fresh: boolean } | undefined {
    const next = this.#blocks[this.#next]
    if (next !== undefined && isOf(next, cid)) {
      this.#next++
      return this.#take(next)
    }
    if (this.#blocks.length === 0) return undefined
    this.#byCid ??= new Map(this.#blocks.map((block) => [latin1(block.prefix.head) + latin1(block.digest), block]))
    const block = this.#byCid.get(latin1(cid))
    return block === undefined ? undefined : this.#take(block)
  }

  #take(block: Arrived): { data: Uint8Array; fresh: boolean } {
    const fresh = !block.used
    if (fresh) {
      block.used = true
      this.#unused--
    }
    return { data: block.data, fresh }
  }
}

/** What a request says as it goes on. Bytes of blocks and metadata share memory with the message. */
export type AskEvent =
  /** `fromPeer`: it came over the wire, hashes to its CID, and nobody has put it into the store yet. */
  | { type: 'block'; load: Load; bytes: Uint8Array; index: number; fromPeer: boolean }
  | { type: 'missing'; load: Load }
  /** A matched or passed node, or bytes of a matched file. */
  | { type: 'step'; step: Exclude<Step, { kind: 'load' }> }
  /** A status in between, with what the peer has to say. */
  | { type: 'response'; status: number; extensions: RawExtensions }

export type AskStep =
  | AskEvent
  /** Nothing more until the peer says something. */
  | { type: 'starved' }
  /** Look the block up in the store and tell with supply(). */
  | { type: 'local'; cid: CID }
  /** The peer says that it sent what we never got: ask again, without leaving anything out. */
  | { type: 'again' }
  /** Over. `limited`: maxBlocks was reached. */
  | { type: 'done'; status: number; summary: WalkSummary; remaining: number; limited: boolean }
  | { type: 'failed'; error: Error }

interface Part {
  readonly arrival: Arrival
  readonly response: WireResponse
  /** Set once it is begun. */
  reader: MetadataReader | undefined
}

export interface AskOptions {
  /** Ends the request in good order after this many blocks. */
  maxBlocks: number
  /** Blocks that came with other messages of the same peer. */
  elsewhere: (cid: Uint8Array) => { data: Uint8Array; fresh: boolean } | undefined
}

export type Load = Extract<Step, { kind: 'load' }>

/**
 * Why the store is asked: the peer did not follow the link; or one above it; should have sent the block; ended before it
 * came to it.
 */
type Lack = 'unfollowed' | 'missing' | 'unsent' | 'cut'

const starved: AskStep = { type: 'starved' }

/** The error that a status stands for; undefined for those that are no failure. */
export function statusError(code: number, what: string): UnavailableError | undefined {
  switch (code) {
    case status.rejected:
      return new UnavailableError('refused', `peer rejected the request for ${what} (status 30)`)
    case status.failedBusy:
      return new UnavailableError('refused', `peer is too busy to answer the request for ${what} (status 31)`)
    case status.failedLegal:
      return new UnavailableError('refused', `peer may not answer the request for ${what} (status 33)`)
    case status.failedNotFound:
      return new UnavailableError('not-found', `peer has not got ${what} (status 34)`)
    case status.cancelled:
      return new UnavailableError('refused', `peer cancelled the request for ${what} (status 35)`)
    default:
      return code < 30
        ? undefined
        : new UnavailableError('refused', `request for ${what} failed at the peer (status ${code})`)
  }
}

/** `same`: at the very path, as blocks of a view are. */
function isBelow(path: readonly Segment[], above: readonly Segment[]): 'yes' | 'same' | 'no' {
  if (path.length < above.length || above.some((segment, i) => path[i] !== segment)) return 'no'
  return path.length > above.length ? 'yes' : 'same'
}

export class Ask {
  readonly #root: CID
  readonly #start: () => Walk
  readonly #options: AskOptions
  #walk: Walk
  /** The load that waits for its block. */
  #load: Load | undefined
  #lack: Lack | undefined
  #answer: Uint8Array | 'missing' | 'skip' | undefined
  #summary: WalkSummary | undefined
  #parts: Part[] = []
  #head = 0
  #status: number = status.acknowledged
  #failure: Error | undefined
  #over = false
  /** Path of a link that the peer did not follow, and the store did: what is below comes from the store. */
  #unfollowed: readonly Segment[] | undefined
  /** Loads that were answered, and what was told since the last one. */
  #loads = 0
  #told = 0
  /** Up to where this was told before it was asked again. */
  #replay = { loads: 0, told: 0 }
  readonly #missed = new Set<number>()
  /** Length of the path of a link that was missing before and is there now: what is below it is told, and not counted. */
  #fresh: number | undefined
  /** Links that the peer has followed, in this attempt and in the longest before. */
  #followed = 0
  #known = 0
  #blocks = 0
  #remaining = 0
  #whole = false

  /** `start` makes the walk; it is called again when the request is asked again. */
  constructor(root: CID, start: () => Walk, options: AskOptions) {
    this.#root = root
    this.#start = start
    this.#options = options
    this.#walk = start()
  }

  /** The last status that was come to. */
  get status(): number {
    return this.#status
  }

  /** Parts of messages wait to be gone through. */
  get waiting(): boolean {
    return this.#head < this.#parts.length
  }

  /** The peer's last word is here, gone through or not. */
  get answered(): boolean {
    const last = this.#parts[this.#parts.length - 1]
    return Math.max(this.#status, last?.response.status ?? 0) >= status.completedFull
  }

  receive(response: WireResponse, arrival: Arrival): void {
    if (this.#over || this.answered) {
      arrival.incomplete()
      return
    }
    arrival.hold()
    this.#parts.push({ response, arrival, reader: undefined })
  }

  /** The peer broke the protocol, or we gave up: step() says so next, and what waits is let go. */
  fail(error: Error): void {
    this.#failure ??= error
    this.#drop()
  }

  /** Nothing more will be asked of it. */
  close(): void {
    this.#over = true
    this.#drop()
  }

  #drop(): void {
    for (const { arrival } of this.#parts.slice(this.#head)) arrival.release(true)
    this.#parts = []
    this.#head = 0
  }

  /**
   * From the beginning, under another id: what came before is thrown away unless it was gone through. `whole`: the peer is
   * to send every block. Returns how many of the first links it need not send the blocks of.
   */
  restart(whole: boolean): number {
    this.#drop()
    if (this.#replay.loads <= this.#loads) this.#replay = { loads: this.#loads, told: this.#told }
    this.#walk = this.#start()
    this.#load = undefined
    this.#lack = undefined
    this.#answer = undefined
    this.#summary = undefined
    this.#status = status.acknowledged
    this.#unfollowed = undefined
    this.#loads = 0
    this.#told = 0
    this.#fresh = undefined
    this.#whole = whole
    this.#known = Math.max(this.#known, this.#followed)
    this.#followed = 0
    return whole ? 0 : this.#known
  }

  /** The answer to `local`. */
  supply(bytes: Uint8Array | undefined): AskStep | undefined {
    const load = this.#load
    const lack = this.#lack
    if (load === undefined || lack === undefined) return undefined
    this.#lack = undefined
    if (bytes !== undefined) {
      if (lack === 'unfollowed') this.#unfollowed = load.path
      return this.#loaded(load, bytes, false)
    }
    if (lack === 'unsent') {
      if (!this.#whole) return { type: 'again' }
      return this.#failed(new ProtocolError('bad-message', `peer says that it sent ${load.cid} and did not`))
    }
    if (lack === 'cut' && this.#status === status.completedFull)
      return this.#failed(new ProtocolError('bad-message', `peer says that it is done and left ${load.cid} out`))
    return this.#answered(load, 'missing')
  }

  /** What is next. Violations of the peer and passed budgets come as `failed`. */
  step(): AskStep {
    for (;;) {
      if (this.#failure !== undefined) return this.#failed(this.#failure)
      if (this.#load === undefined && this.#summary === undefined) {
        const told = this.#advance()
        if (told !== undefined) return told
        continue
      }
      const next = this.#load === undefined ? this.#ending() : this.#loading(this.#load)
      if (next !== undefined) return next
    }
  }

  /** Goes on with the walk to the next load or its end; undefined, or something to be told. */
  #advance(): AskStep | undefined {
    let result: IteratorResult<Step, WalkSummary>
    const answer = this.#answer
    this.#answer = undefined
    try {
      result = this.#walk.next(answer)
    } catch (error) {
      return this.#failed(asError(error))
    }
    if (result.done === true) {
      this.#summary = result.value
      return undefined
    }
    const step = result.value
    if (step.kind === 'load') {
      this.#load = step
      if (this.#fresh !== undefined && step.path.length <= this.#fresh) this.#fresh = undefined
      return undefined
    }
    if (this.#replaying) return undefined
    if (this.#fresh === undefined) {
      const before = this.#told++
      if (this.#loads === this.#replay.loads && before < this.#replay.told) return undefined
    }
    return { type: 'step', step }
  }

  /** What happens here was told before. */
  get #replaying(): boolean {
    return this.#fresh === undefined && this.#loads < this.#replay.loads
  }

  /** Comes to the next entry of metadata; tells statuses on the way. True: there is one. */
  #entry(): MetadataReader | AskStep | undefined {
    while (this.#head < this.#parts.length) {
      const part = this.#parts[this.#head] as Part
      const { response } = part
      if (part.reader === undefined) {
        part.reader = new MetadataReader(response)
        if (response.extensions.size > 0) {
          return { type: 'response', status: response.status, extensions: response.extensions }
        }
      }
      if (part.reader.left > 0) return part.reader
      this.#head++
      if (this.#head === this.#parts.length) {
        this.#parts = []
        this.#head = 0
      }
      const paused = response.status === status.paused && this.#status !== status.paused
      this.#status = response.status
      const unasked = part.arrival.release(false)
      if (unasked > 0)
        return this.#failed(
          new ProtocolError('bad-message', `peer sent ${unasked} blocks that its metadata does not name`),
        )
      if (paused && response.extensions.size === 0)
        return { type: 'response', status: response.status, extensions: response.extensions }
    }
    return undefined
  }

  #loading(load: Load): AskStep | undefined {
    if (this.#lack !== undefined) return { type: 'local', cid: load.cid }
    if (this.#blocks >= this.#options.maxBlocks && !this.#replaying) {
      this.#remaining++
      this.#load = undefined
      this.#answer = 'skip'
      return undefined
    }
    const below = this.#unfollowed === undefined ? 'no' : isBelow(load.path, this.#unfollowed)
    if (below === 'yes') return this.#local(load, 'missing')
    const entry = this.#entry()
    if (entry === undefined) return this.#status >= status.completedFull ? this.#cut(load) : starved
    if (!(entry instanceof MetadataReader)) return entry
    if (!equals(entry.cid, load.cid.bytes)) {
      // Blocks inside of a view have the path of the view.
      if (below === 'same') return this.#local(load, 'missing')
      const where = `at /${load.path.join('/')}`
      return this.#failed(new ProtocolError('bad-message', `peer went off the path: want ${load.cid} ${where} next`))
    }
    this.#unfollowed = undefined
    const { action } = entry
    entry.next()
    switch (action) {
      case 'm':
      case 's':
        return this.#local(load, 'unfollowed')
      case 'p': {
        this.#followed++
        const { bytes } = load.cid
        const block = (this.#parts[this.#head] as Part).arrival.get(bytes) ?? this.#options.elsewhere(bytes)
        return block === undefined ? this.#local(load, 'unsent') : this.#loaded(load, block.data, block.fresh)
      }
      case 'd':
        break
    }
    this.#followed++
    return this.#local(load, 'unsent')
  }

  /** The peer has said its last word, and the walk wants more. */
  #cut(load: Load): AskStep {
    const error = statusError(this.#status, this.#root.toString())
    return error === undefined ? this.#local(load, 'cut') : this.#failed(error)
  }

  #local(load: Load, lack: Lack): AskStep {
    this.#lack = lack
    return { type: 'local', cid: load.cid }
  }

  #loaded(load: Load, bytes: Uint8Array, fromPeer: boolean): AskStep | undefined {
    const replayed = this.#replaying
    if (replayed && this.#missed.has(this.#loads)) {
      this.#loads++
      this.#fresh = load.path.length
      return this.#block(load, bytes, fromPeer)
    }
    if (this.#fresh === undefined) {
      this.#loads++
      if (!replayed) this.#told = 0
    }
    if (!replayed) return this.#block(load, bytes, fromPeer)
    this.#load = undefined
    this.#answer = bytes
    return undefined
  }

  #block(load: Load, bytes: Uint8Array, fromPeer: boolean): AskStep {
    this.#load = undefined
    this.#answer = bytes
    return { type: 'block', load, bytes, index: this.#blocks++, fromPeer }
  }

  #answered(load: Load, answer: 'missing'): AskStep | undefined {
    const replayed = this.#replaying
    if (this.#fresh === undefined) {
      if (!replayed) {
        this.#missed.add(this.#loads)
        this.#told = 0
      }
      this.#loads++
    }
    this.#load = undefined
    this.#answer = answer
    return replayed ? undefined : { type: 'missing', load }
  }

  /** The walk is over: so must the peer be. */
  #ending(): AskStep {
    const limited = this.#remaining > 0
    if (limited) return this.#done(status.completedPartial, true)
    const entry = this.#entry()
    if (entry instanceof MetadataReader)
      return this.#failed(new ProtocolError('bad-message', 'peer goes on where the selector ends'))
    if (entry !== undefined) return entry
    if (this.#status < status.completedFull) return starved
    const error = statusError(this.#status, this.#root.toString())
    return error === undefined ? this.#done(this.#status, false) : this.#failed(error)
  }

  #done(code: number, limited: boolean): AskStep {
    const summary = this.#summary as WalkSummary
    this.close()
    return { type: 'done', status: code, summary, remaining: this.#remaining, limited }
  }

  #failed(error: Error): AskStep {
    this.#failure ??= error
    this.close()
    return { type: 'failed', error: this.#failure }
  }
}
