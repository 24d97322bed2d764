/*
 * A request of ours as its maker has it: iterated over, or left to run by itself, its blocks going into the store on the
 * way. Asks again where the connection was lost, and goes on where it was.
 */
import { LazyDeadline, sleep } from '../../deadline.ts'
import { ClosedError, TimeoutError, asError } from '../../errors.ts'
import type { Host } from '../../host.ts'
import { deferred, quiet, type Deferred } from '../../inbox.ts'
import type { CID } from '../../ipld/cid.ts'
import { encodeCbor } from '../../ipld/cbor.ts'
import type { IpldNode, Segment } from '../../ipld/model.ts'
import type { Step, Walk } from '../../ipld/walk.ts'
import type { PeerId } from '../../peer/id.ts'
import type { BlockPair, Blockstore } from '../../store/blocks.ts'
import type { Asker, Link, Network } from './network.ts'
import { Ask, type Arrival, type AskStep, type Load } from './request.ts'
import { decodeExtension, extension, idText, status, type RawExtensions, type WireResponse } from './wire.ts'

/** Names to values of the data model. */
export type Extensions = Readonly<Record<string, IpldNode>>

/** A block of the DAG, in the order of the walk. */
export class ReceivedBlock {
  readonly kind = 'block'
  /** Checked against its CID, and not to be changed; may share memory with others of its message. */
  readonly bytes: Uint8Array
  /** From 0. */
  readonly index: number
  /** False: it was in the store, and the peer did not send it. */
  readonly fromPeer: boolean
  readonly #load: Load

  constructor(load: Load, bytes: Uint8Array, index: number, fromPeer: boolean) {
    this.#load = load
    this.bytes = bytes
    this.index = index
    this.fromPeer = fromPeer
  }

  get cid(): CID {
    return this.#load.cid
  }

  get path(): readonly Segment[] {
    return this.#load.path
  }
}

export interface MissingBlock {
  readonly kind: 'missing'
  readonly cid: CID
  readonly path: readonly Segment[]
}

/** What the peer says besides: a pause, extensions. */
export interface PeerNote {
  readonly kind: 'note'
  readonly status: number
  readonly extensions: Extensions
}

export type GraphsyncProgress = ReceivedBlock | MissingBlock | PeerNote | Exclude<Step, { kind: 'load' }>

export interface GraphsyncResult {
  /** 20: all of it; 21: the peer had not all of it, or maxBlocks was reached. */
  status: number
  /** Blocks that were walked through, repeated ones each time; bytes likewise. */
  blocks: number
  bytes: number
  /** Links whose blocks neither the peer nor the store had. */
  missing: number
  /** Nodes that the selector matched. */
  matches: number
  /** Beyond maxBlocks: links that are known and were not followed. */
  remaining: number
}

export interface GraphsyncRequest extends AsyncIterable<GraphsyncProgress> {
  /** UUID. The first one on the wire: what is asked again has another there. */
  readonly id: string
  /** What the peer said last. */
  readonly status: number
  /**
   * How it ended. Whoever does not iterate lets it run by asking for this. Rejects with UnavailableError (`refused`,
   * `not-found`, `unreachable`), ProtocolError, LimitError, TimeoutError, ClosedError, StorageError or signal.reason.
   */
  readonly done: Promise<GraphsyncResult>
  /** Tells the peer to stop. False when it was over already. Resolves once that is on its way. */
  cancel(): Promise<boolean>
  /** The peer stops; nothing but what is on its way comes. */
  pause(): void
  /** Goes on where it was. `extensions` come on top of those of the request. */
  unpause(extensions?: Extensions): void
  /** An update for the hooks of the peer. */
  update(extensions: Extensions): void
}

export interface HandleOptions {
  extensions: Extensions
  priority: number
  signal: AbortSignal | undefined
  maxBlocks: number
  /** Without matches and passed nodes: blocks alone. */
  nodes: boolean
  /** The peer says nothing for so long. */
  idleTimeoutMs: number
  /** The peer has paused the request for so long. */
  pausedTimeoutMs: number
  /** How often a lost connection is made again without anything coming of it. */
  retries: number
}

/** Hooks that hear of a request of ours. */
export interface AskHooks {
  response?: ((request: GraphsyncRequest, note: { status: number; extensions: Extensions }) => void) | undefined
  incomingBlock?: ((request: GraphsyncRequest, block: ReceivedBlock) => void) | undefined
}

/** Blocks gathered for one put, and what may wait for the store. */
const putBytes = 1024 * 1024
const putBlocks = 1024
const retryMs = 1000

export function encodeExtensions(extensions: Extensions): Map<string, Uint8Array> {
  return new Map(Object.entries(extensions).map(([name, value]) => [name, encodeCbor(value)]))
}

export function decodeExtensions(raw: RawExtensions): Extensions {
  return Object.fromEntries(Array.from(raw, ([name, value]) => [name, decodeExtension(value)]))
}

export function newId(host: Host): string {
  const bytes = host.env.random.bytes(16)
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  return idText(bytes)
}

export interface HandleParts {
  host: Host
  network: Network
  blocks: Pick<Blockstore, 'get' | 'putMany'>
  /** Dials where it must. */
  connect: (signal: AbortSignal) => Promise<PeerId>
  root: CID
  /** DAG-CBOR. */
  selector: Uint8Array
  start: () => Walk
  hooks: AskHooks
  /** It is over. */
  over: (handle: Handle) => void
}

export class Handle implements GraphsyncRequest, Asker {
  readonly id: string
  readonly #parts: HandleParts
  readonly #options: HandleOptions
  readonly #ask: Ask
  readonly #end = new AbortController()
  readonly #done = deferred<GraphsyncResult>()
  readonly #late: LazyDeadline
  #extensions: Map<string, Uint8Array>
  #link: Link | undefined
  #wireId: string
  #step: AskStep | undefined
  /** To be asked again, because of this. */
  #lost: Error | undefined
  #retries = 0
  #paused = false
  #pausedByPeer = false
  #suspended = false
  #heard = false
  /** Something of use came, or was used up, since the peer was waited for last; and when it was waited for first since. */
  #fed = true
  #since = 0
  #wake: Deferred<void> | undefined
  #pulling = false
  #mode: 'open' | 'iterated' | 'draining' = 'open'
  #over = false
  #pairs: BlockPair[] = []
  #pairBytes = 0
  #putting: Promise<void> | undefined
  #putError: Error | undefined

  constructor(parts: HandleParts, options: HandleOptions) {
    this.#parts = parts
    this.#options = options
    this.id = newId(parts.host)
    this.#wireId = this.id
    this.#extensions = encodeExtensions(options.extensions)
    this.#late = new LazyDeadline(parts.host.env.clock)
    this.#ask = new Ask(parts.root, parts.start, {
      maxBlocks: options.maxBlocks,
      elsewhere: (cid) => this.#link?.elsewhere(cid),
    })
    void quiet(this.#done.promise)
    const { signal } = options
    if (signal?.aborted === true) this.#abort()
    else signal?.addEventListener('abort', this.#abort, { once: true })
    parts.network.run(this.#begin(this.#wireId, 0))
  }

  readonly #abort = (): void => this.fail(asError(this.#options.signal?.reason))

  get status(): number {
    return this.#ask.status
  }

  get done(): Promise<GraphsyncResult> {
    if (this.#mode === 'open') {
      // Whoever also iterates does so in the same turn.
      this.#parts.host.env.turn(() => {
        if (this.#mode !== 'open') return
        this.#mode = 'draining'
        this.#parts.network.run(this.#drain())
      })
    }
    return this.#done.promise
  }

  get over(): boolean {
    return this.#over
  }

  get unanswered(): boolean {
    return !this.#heard
  }

  /** Connects and asks. */
  async #begin(wireId: string, firstBlocks: number, whole = false): Promise<void> {
    const { network, root, selector } = this.#parts
    try {
      const peer = await this.#parts.connect(this.#end.signal)
      if (this.#over || wireId !== this.#wireId) return
      const extensions = new Map(this.#extensions)
      if (firstBlocks > 0) extensions.set(extension.doNotSendFirstBlocks, encodeCbor(firstBlocks))
      if (whole) {
        extensions.delete(extension.doNotSendCids)
        extensions.delete(extension.doNotSendFirstBlocks)
        extensions.set(extension.dedupByKey, encodeCbor(wireId))
      }
      const link = network.link(peer)
      this.#link = link
      this.#heard = false
      this.#fed = true
      this.#pausedByPeer = false
      link.askers.set(wireId, this)
      network.say(link, { id: wireId, type: 'n', priority: this.#options.priority, root, selector, extensions })
    } catch (error) {
      if (this.#over || wireId !== this.#wireId) return
      if (wireId === this.id) this.fail(asError(error))
      else this.#lost = asError(error)
    }
    // From now on the peer's time runs.
    this.#notify()
  }

  /** Lets go of the attempt under way; the peer is told unless it is done. */
  #leave(): void {
    const link = this.#link
    this.#link = undefined
    if (link?.askers.delete(this.#wireId) !== true || this.#ask.answered) return
    this.#parts.network.say(link, { id: this.#wireId, type: 'c' })
  }

  #again(whole: boolean): void {
    this.#leave()
    this.#lost = undefined
    this.#suspended = false
    const firstBlocks = this.#ask.restart(whole)
    this.#wireId = newId(this.#parts.host)
    this.#parts.network.run(this.#begin(this.#wireId, firstBlocks, whole))
  }

  // What the network says.

  receive(response: WireResponse, arrival: Arrival): void {
    this.#heard = true
    if (response.links > 0) this.#retries = 0
    // Words alone do not keep a request alive; a pause has a patience of its own.
    if (response.links > 0 || (response.status === status.paused && !this.#pausedByPeer)) this.#fed = true
    this.#pausedByPeer = response.status === status.paused
    this.#ask.receive(response, arrival)
    if (this.#parts.hooks.response !== undefined) {
      const { extensions: raw } = response
      try {
        this.#parts.hooks.response(this, { status: response.status, extensions: decodeExtensions(raw) })
      } catch (error) {
        this.fail(asError(error))
      }
    }
    this.#notify()
  }

  lost(reason: Error): void {
    if (this.#over || this.#ask.answered) return
    const link = this.#link
    this.#link = undefined
    link?.askers.delete(this.#wireId)
    this.#lost ??= reason
    this.#notify()
  }

  suspend(): boolean {
    if (this.#pulling || this.#over || this.#suspended || !this.#ask.waiting || this.#ask.answered) return false
    this.#leave()
    this.#suspended = true
    return true
  }

  fail(error: Error): void {
    if (this.#over) return
    this.#leave()
    this.#ask.fail(error)
    this.#step = undefined
    this.#end.abort(error)
    this.#notify()
    // Who iterates hears of it there; nobody else would.
    if (this.#mode !== 'iterated' || !this.#pulling) this.#finish(error)
  }

  #notify(): void {
    this.#wake?.resolve()
    this.#wake = undefined
  }

  // What its maker says.

  async cancel(): Promise<boolean> {
    if (this.#over) return false
    this.fail(new ClosedError(`request ${this.id} cancelled`, { by: 'local', code: 0 }))
    // The message leaves with the turn.
    await new Promise<void>((resolve) => this.#parts.host.env.turn(resolve))
    return true
  }

  pause(): void {
    if (this.#over || this.#paused) return
    this.#paused = true
    this.#leave()
    this.#notify()
  }

  unpause(extensions: Extensions = {}): void {
    if (!this.#paused) return
    this.#paused = false
    for (const [name, value] of encodeExtensions(extensions)) this.#extensions.set(name, value)
    // What is here already is gone through first.
    if (!this.#ask.answered) this.#suspended = true
    this.#notify()
  }

  update(extensions: Extensions): void {
    const link = this.#link
    if (this.#over || link === undefined) return
    this.#parts.network.say(link, { id: this.#wireId, type: 'u', extensions: encodeExtensions(extensions) })
  }

  [Symbol.asyncIterator](): AsyncIterator<GraphsyncProgress, undefined> {
    if (this.#mode !== 'open') throw new TypeError('a request is iterated once, or runs by itself')
    this.#mode = 'iterated'
    return {
      next: () => this.#next(),
      return: async () => {
        await this.cancel()
        return { done: true, value: undefined }
      },
    }
  }

  #next(): Promise<IteratorResult<GraphsyncProgress, undefined>> {
    const event = this.#poll()
    if (event !== undefined) return Promise.resolve({ done: false, value: event })
    if (this.#pulling) return Promise.reject(new TypeError('a read of the request is under way: one at a time'))
    return this.#pull().then((value) => (value === undefined ? { done: true, value } : { done: false, value }))
  }

  async #drain(): Promise<void> {
    try {
      for (;;) {
        while (this.#poll() !== undefined);
        if ((await this.#pull()) === undefined) return
      }
    } catch {
      // `done` has it.
    }
  }

  /** The next event, where it can be had without waiting. */
  #poll(): GraphsyncProgress | undefined {
    if (this.#over || this.#pulling || this.#pairBytes > putBytes || this.#step !== undefined) return undefined
    for (;;) {
      const step = this.#ask.step()
      if (step.type === 'step' && !this.#options.nodes) continue
      const event = this.#event(step)
      if (event === undefined) this.#step = step
      return event
    }
  }

  #event(step: AskStep): GraphsyncProgress | undefined {
    switch (step.type) {
      case 'block': {
        const { load, bytes, index, fromPeer } = step
        const block = new ReceivedBlock(load, bytes, index, fromPeer)
        if (fromPeer) this.#store({ cid: load.cid, bytes })
        try {
          this.#parts.hooks.incomingBlock?.(this, block)
        } catch (error) {
          this.fail(asError(error))
        }
        return block
      }
      case 'missing':
        return { kind: 'missing', cid: step.load.cid, path: step.load.path }
      case 'response':
        return { kind: 'note', status: step.status, extensions: decodeExtensions(step.extensions) }
      case 'step':
        return step.step
      default:
        return undefined
    }
  }

  /** Waits for the next event; undefined at the end. */
  async #pull(): Promise<GraphsyncProgress | undefined> {
    this.#pulling = true
    try {
      for (;;) {
        if (this.#pairBytes > putBytes) await this.#put()
        const step = this.#step ?? this.#ask.step()
        this.#step = undefined
        switch (step.type) {
          case 'starved':
            await this.#starved()
            break
          case 'local':
            // What it looks for may be on its way into the store.
            await this.#putAll()
            this.#step = this.#ask.supply(await this.#parts.blocks.get(step.cid, { signal: this.#end.signal }))
            break
          case 'again':
            this.#again(true)
            break
          case 'done': {
            if (step.limited) this.#leave()
            await this.#putAll()
            const { blocks, bytes, missing, matches } = step.summary
            const { status: code, remaining } = step
            this.#finish(undefined, { status: code, blocks, bytes, missing, matches, remaining })
            return undefined
          }
          case 'failed':
            throw step.error
          default:
            if (step.type === 'step' && !this.#options.nodes) break
            return this.#event(step)
        }
      }
    } catch (error) {
      const reason = this.#end.signal.aborted ? asError(this.#end.signal.reason) : asError(error)
      this.#leave()
      this.#ask.close()
      await this.#putAll().catch(() => {})
      this.#finish(reason)
      throw reason
    } finally {
      this.#pulling = false
    }
  }

  /** Until there may be something to go on with. Throws TimeoutError, and why a lost connection stays lost. */
  async #starved(): Promise<void> {
    const { host, network } = this.#parts
    const { idleTimeoutMs, pausedTimeoutMs, retries } = this.#options
    this.#startPut()
    if (this.#suspended && !this.#paused) {
      this.#again(false)
      return
    }
    if (this.#lost !== undefined && !this.#paused) {
      if (this.#retries++ >= retries) throw this.#lost
      if (this.#retries > 1) await sleep(host.env, retryMs * 2 ** (this.#retries - 2), this.#end.signal)
      this.#again(false)
      return
    }
    this.#wake = deferred()
    const woken = this.#wake.promise
    if (this.#link !== undefined) network.starving(this.#link, this)
    const now = host.env.clock.now()
    if (this.#fed) this.#since = now
    this.#fed = false
    const waitMs = this.#pausedByPeer ? pausedTimeoutMs : idleTimeoutMs
    // While we connect, connecting has a deadline of its own.
    if (!this.#paused && this.#link !== undefined)
      this.#late.set(Math.max(0, this.#since + waitMs - now), () =>
        this.fail(new TimeoutError(`waiting for the answer to ${this.#parts.root}`, waitMs)),
      )
    await woken
    this.#late.clear()
  }

  // The store.

  #store(pair: BlockPair): void {
    this.#pairs.push(pair)
    this.#pairBytes += pair.bytes.length
    if (this.#pairBytes >= putBytes || this.#pairs.length >= putBlocks) this.#startPut()
  }

  #startPut(): void {
    if (this.#putting !== undefined || this.#pairs.length === 0) return
    const pairs = this.#pairs
    this.#pairs = []
    this.#pairBytes = 0
    this.#putting = this.#parts.blocks.putMany(pairs).then(
      () => void (this.#putting = undefined),
      (error: unknown) => {
        this.#putting = undefined
        this.#putError = asError(error)
      },
    )
  }

  async #put(): Promise<void> {
    await this.#putting
    if (this.#putError !== undefined) throw this.#putError
    this.#startPut()
  }

  async #putAll(): Promise<void> {
    while (this.#putting !== undefined || this.#pairs.length > 0) {
      await this.#put()
      await this.#putting
    }
    if (this.#putError !== undefined) throw this.#putError
  }

  #finish(error: Error | undefined, result?: GraphsyncResult): void {
    if (this.#over) return
    this.#over = true
    this.#late.stop()
    this.#link?.askers.delete(this.#wireId)
    this.#link = undefined
    this.#options.signal?.removeEventListener('abort', this.#abort)
    if (result === undefined) this.#done.reject(error ?? new ClosedError('request is over', { by: 'local', code: 0 }))
    else this.#done.resolve(result)
    this.#parts.over(this)
  }
}
