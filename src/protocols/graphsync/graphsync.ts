/*
 * createGraphsync(): GraphSync 2.0.0 over a Host and a store. Asks one peer for a part of a graph in one request, and
 * answers such requests, within a budget unless a hook says otherwise.
 */
import { ClosedError, UnavailableError, asError } from '../../errors.ts'
import type { Host } from '../../host.ts'
import { decodeCbor, encodeCbor } from '../../ipld/cbor.ts'
import { hashers, type CID } from '../../ipld/cid.ts'
import type { Codecs } from '../../ipld/codecs.ts'
import type { IpldNode } from '../../ipld/model.ts'
import { parseSelector, type ParseOptions, type SelectorKind } from '../../ipld/selector-parse.ts'
import type { Reify } from '../../ipld/unixfs-view.ts'
import { walk, type Walk, type WalkBudget } from '../../ipld/walk.ts'
import type { Multiaddr } from '../../multiaddr.ts'
import { PeerId } from '../../peer/id.ts'
import type { Blockstore } from '../../store/blocks.ts'
import {
  Handle,
  decodeExtensions,
  encodeExtensions,
  type AskHooks,
  type Extensions,
  type GraphsyncRequest,
} from './handle.ts'
import { Network, type BlockSource, type Decider, type Link, type NetworkOptions } from './network.ts'
import { Responder, type OutgoingBlock, type ResponderEvent, type ResponderOptions, type Response } from './response.ts'
import { extension, status, type RawExtensions, type WireRequest } from './wire.ts'

export { protocolId, status, extension } from './wire.ts'
export type { OutgoingBlock } from './response.ts'
export type { BlockSource } from './network.ts'
export type {
  Extensions,
  GraphsyncProgress,
  GraphsyncRequest,
  GraphsyncResult,
  MissingBlock,
  PeerNote,
  ReceivedBlock,
} from './handle.ts'

/** A request of a peer, as hooks see it and act on it. */
export interface IncomingRequest {
  readonly peer: PeerId
  readonly id: string
  readonly root: CID
  readonly selector: IpldNode
  readonly priority: number
  /** Without do-not-send-cids. */
  readonly extensions: Extensions
  /** After the block that is under way. False where it is paused already, or over. */
  pause(): boolean
  /** False where it is not paused. */
  unpause(extensions?: Extensions): boolean
  /** Ends it; default RequestCancelled. */
  cancel(code?: number): void
  /** Goes out with the next message. */
  send(extensions: Extensions): void
}

export interface Verdict {
  accept: boolean
  /** Where it is not accepted: default RequestRejected. */
  status?: number
  /** For the answer. */
  extensions?: Extensions
  /** Accepted, and paused until unpause(). */
  pause?: boolean
  /** In place of the option's. */
  budget?: WalkBudget
  /** In place of the store. */
  blocks?: BlockSource
}

/** None may throw: what one throws ends its request with RequestFailedUnknown, or fails ours. */
export interface GraphsyncHooks extends AskHooks {
  /** Whether a peer gets what it asks for. Without: whoever asks, within the budget. */
  request?: (request: IncomingRequest) => boolean | Verdict | Promise<boolean | Verdict>
  /** Before a block that we have goes out, or is left out. Not for blocks that we lack. */
  outgoingBlock?: (request: IncomingRequest, block: OutgoingBlock) => void
  update?: (request: IncomingRequest, extensions: Extensions) => void
  /** A peer's request is over, answered, cancelled or lost with its connection. */
  ended?: (request: IncomingRequest) => void
}

export interface GraphsyncOptions extends ResponderOptions, Partial<NetworkOptions> {
  hooks?: GraphsyncHooks
  /** What one request of a peer may cost. Default: 2^20 blocks, 64 GiB, 2^23 nodes, 2^25 clauses evaluated. */
  budget?: WalkBudget
  /** What one of ours may. Default: no limit but those of its selector. */
  ownBudget?: WalkBudget
  /** Answers nobody; asking goes on. Default true. */
  serve?: boolean
  codecs?: Pick<Codecs, 'decode'>
  /** Selector kinds beyond the spec's; default those of registerSelector. */
  kinds?: ReadonlyMap<string, SelectorKind>
  views?: ReadonlyMap<string, Reify>
  /** Silence of a peer that ends a request of ours: 30 s. */
  idleTimeoutMs?: number
  /** The same while the peer has it paused: 10 min. */
  pausedTimeoutMs?: number
  /** How often a lost connection is made again without a link coming of it: 3. */
  retries?: number
}

const defaults = {
  openTimeoutMs: 10_000,
  sendTimeoutMs: 30_000,
  // go-graphsync resets a stream that rests for 10 s.
  idleStreamMs: 8_000,
  frameTimeoutMs: 30_000,
  inboundStreams: 8,
  bufferedBytes: 4 * 1024 * 1024,
  totalBufferedBytes: 64 * 1024 * 1024,
  limited: false as boolean,
  serve: true as boolean,
  idleTimeoutMs: 30_000,
  pausedTimeoutMs: 600_000,
  retries: 3,
} satisfies NetworkOptions & GraphsyncOptions

const defaultBudget = {
  blocks: 2 ** 20,
  bytes: 64 * 2 ** 30,
  nodes: 2 ** 23,
  steps: 2 ** 25,
} satisfies WalkBudget

/** Of a peer's selector: what it costs per node is bounded by this. */
const incomingClauses = 1024
/** Of the extensions of a peer's request, do-not-send-cids aside. */
const extensionBytes = 256 * 1024

export interface AskOptions {
  extensions?: Extensions
  /** Higher ones of ours go first at the peer. Default 0. */
  priority?: number
  signal?: AbortSignal
  /** Ends in good order after so many blocks. Default: no limit. */
  maxBlocks?: number
  /** In place of ownBudget. */
  budget?: WalkBudget
  /** Tell matched nodes and bytes, not blocks alone. Default true. */
  nodes?: boolean
  /** Tell passed nodes as well. Default false. */
  visits?: boolean
  idleTimeoutMs?: number
}

export interface GraphsyncStats {
  /** Requests of ours that are not over. */
  asked: number
  /** Bytes of peers' messages that wait to be gone through. */
  bufferedBytes: number
  /** Requests of peers that are not over. */
  answering: number
  /** Bytes read for peers and not yet taken by the wire. */
  outstandingBytes: number
  /** Links that are remembered so that no block is sent twice. */
  rememberedLinks: number
  /** Cancels and updates of requests that are not there, and responses to such. */
  ignored: number
  peers: number
}

export interface Graphsync {
  /** Idempotent; a stopped one may be started again. */
  start(): void
  /** Every request ends with ClosedError `stopped`. Resolves when nothing is left running. */
  stop(): Promise<void>
  /**
   * Asks `peer` for what `selector` (as data, bare or in its envelope) selects below `root`; sent at once. The blocks come in
   * the order of the walk, are checked, and put into the store. Throws ProtocolError `bad-selector` and LimitError for a
   * selector that is none, or too large.
   */
  request(peer: PeerId | Multiaddr | string, root: CID, selector: IpldNode, options?: AskOptions): GraphsyncRequest
  /** Peers' requests that are under way. */
  incoming(): readonly IncomingRequest[]
  stats(): GraphsyncStats
}

/** A request of a peer in the hands of the hooks. */
class Incoming implements IncomingRequest {
  readonly peer: PeerId
  readonly root: CID
  readonly selector: IpldNode
  readonly response: Response
  readonly #adapter: Adapter
  readonly #raw: RawExtensions
  #extensions: Extensions | undefined
  source: BlockSource

  constructor(adapter: Adapter, peer: PeerId, response: Response, root: CID, selector: IpldNode, raw: RawExtensions) {
    this.#adapter = adapter
    this.peer = peer
    this.response = response
    this.root = root
    this.selector = selector
    this.#raw = raw
    this.source = adapter.blocks
  }

  get id(): string {
    return this.response.id
  }

  get priority(): number {
    return this.response.priority
  }

  get extensions(): Extensions {
    this.#extensions ??= decodeExtensions(this.#raw)
    return this.#extensions
  }

  pause(): boolean {
    return this.#adapter.act(this, (responder) => responder.pause(this.response))
  }

  unpause(extensions: Extensions = {}): boolean {
    return this.#adapter.act(this, (responder) => {
      responder.say(this.response, encodeExtensions(extensions))
      return responder.unpause(this.response)
    })
  }

  cancel(code: number = status.cancelled): void {
    this.#adapter.end(this, code)
  }

  send(extensions: Extensions): void {
    this.#adapter.act(this, (responder) => responder.say(this.response, encodeExtensions(extensions)))
  }
}

class Adapter implements Graphsync, Decider {
  readonly blocks: Pick<Blockstore, 'get' | 'putMany'>
  readonly #host: Host
  readonly #options: GraphsyncOptions & typeof defaults
  readonly #hooks: GraphsyncHooks
  readonly #responder: Responder
  readonly #network: Network
  readonly #incoming = new Map<Response, Incoming>()
  readonly #asked = new Set<Handle>()
  #state: 'new' | 'started' | 'stopped' = 'new'

  constructor(host: Host, blocks: Pick<Blockstore, 'get' | 'putMany'>, options: GraphsyncOptions) {
    this.blocks = blocks
    this.#host = host
    this.#options = { ...defaults, ...options }
    this.#hooks = options.hooks ?? {}
    for (const [name, value] of Object.entries(defaults)) {
      const given = this.#options[name as keyof typeof defaults]
      if (typeof value === 'number' && !(Number(given) >= (name === 'retries' ? 0 : 1)))
        throw new RangeError(`${name} is ${String(given)}, want a number of at least ${name === 'retries' ? 0 : 1}`)
    }
    const { peerRequests, totalRequests, outstandingBytes, totalOutstandingBytes } = options
    const { lookups, messageBytes, peerLinks, totalLinks } = options
    this.#responder = new Responder(
      given({
        peerRequests,
        totalRequests,
        outstandingBytes,
        totalOutstandingBytes,
        lookups,
        messageBytes,
        peerLinks,
        totalLinks,
      }),
    )
    this.#network = new Network(host, this.#options, this.#responder, (code, data) => hashers.get(code)?.(data), this)
  }

  start(): void {
    if (this.#state === 'started') return
    this.#state = 'started'
    this.#network.start()
  }

  async stop(): Promise<void> {
    this.#state = 'stopped'
    const reason = new ClosedError('graphsync is stopped', { by: 'local', code: 0 }, 'stopped')
    for (const handle of this.#asked) handle.fail(reason)
    await this.#network.stop(reason)
  }

  request(
    peer: PeerId | Multiaddr | string,
    root: CID,
    selector: IpldNode,
    options: AskOptions = {},
  ): GraphsyncRequest {
    if (this.#state !== 'started') {
      const why = this.#state === 'new' ? 'not-started' : 'stopped'
      throw new ClosedError(`graphsync is ${why === 'stopped' ? why : 'not started'}`, { by: 'local', code: 0 }, why)
    }
    const {
      maxBlocks = Infinity,
      idleTimeoutMs = this.#options.idleTimeoutMs,
      budget = this.#options.ownBudget,
    } = options
    if (!(maxBlocks >= 1)) throw new RangeError(`maxBlocks is ${maxBlocks}, want a number of at least 1`)
    const sent = encodeCbor(bare(selector))
    // DAG-CBOR sorts the fields, and the peer goes through them in that order.
    const parsed = parseSelector(decodeCbor(sent), this.#parsing())
    const { visits } = options
    const handle = new Handle(
      {
        host: this.#host,
        network: this.#network,
        blocks: this.blocks,
        connect: (signal) => this.#connect(peer, signal),
        root,
        selector: sent,
        start: () => walk(root, parsed, { ...this.#walking(budget), visits }),
        hooks: this.#hooks,
        over: (it) => void this.#asked.delete(it),
      },
      {
        extensions: options.extensions ?? {},
        priority: options.priority ?? 0,
        signal: options.signal,
        maxBlocks,
        nodes: options.nodes ?? true,
        idleTimeoutMs,
        pausedTimeoutMs: this.#options.pausedTimeoutMs,
        retries: this.#options.retries,
      },
    )
    if (!handle.over) this.#asked.add(handle)
    return handle
  }

  #parsing(): ParseOptions {
    const { kinds } = this.#options
    return kinds === undefined ? {} : { kinds }
  }

  #walking(budget: WalkBudget | undefined): { budget: WalkBudget | undefined } {
    const { codecs, views } = this.#options
    return { budget, ...(codecs && { codecs }), ...(views && { views }) }
  }

  async #connect(target: PeerId | Multiaddr | string, signal: AbortSignal): Promise<PeerId> {
    if (target instanceof PeerId && this.#host.connections(target).length > 0) return target
    const { openTimeoutMs: timeoutMs } = this.#options
    const { peer } = await this.#host.dial(target, { signal, timeoutMs })
    if (peer.equals(this.#host.peerId)) throw new UnavailableError('unreachable', 'a node does not ask itself')
    return peer
  }

  incoming(): readonly IncomingRequest[] {
    return [...this.#incoming.values()]
  }

  stats(): GraphsyncStats {
    return {
      asked: this.#asked.size,
      bufferedBytes: this.#network.bufferedBytes,
      answering: this.#responder.requests,
      outstandingBytes: this.#responder.outstandingBytes,
      rememberedLinks: this.#responder.links,
      ignored: this.#responder.ignored + this.#network.ignored,
      peers: this.#network.links.size,
    }
  }

  // What the network asks.

  source(response: Response): BlockSource {
    return this.#incoming.get(response)?.source ?? this.blocks
  }

  event(link: Link, event: ResponderEvent): void {
    if (event.type === 'request') {
      this.#requested(link, event.response, event.request)
      return
    }
    const incoming = this.#incoming.get(event.response)
    if (incoming !== undefined)
      this.#guarded(incoming, () => this.#hooks.update?.(incoming, decodeExtensions(event.request.extensions)))
  }

  block(response: Response, block: OutgoingBlock): void {
    const { outgoingBlock } = this.#hooks
    const incoming = outgoingBlock && this.#incoming.get(response)
    if (incoming !== undefined) this.#guarded(incoming, () => outgoingBlock?.(incoming, block))
  }

  over(response: Response): void {
    const incoming = this.#incoming.get(response)
    if (incoming === undefined) return
    this.#incoming.delete(response)
    const { error } = response
    if (error !== undefined)
      this.#host.env.trace?.('graphsync.refused', { peer: incoming.peer.toString(), request: response.id, error })
    try {
      this.#hooks.ended?.(incoming)
    } catch (thrown) {
      this.#host.env.trace?.('graphsync.error', { error: asError(thrown) })
    }
  }

  #guarded(incoming: Incoming, hook: () => void): void {
    try {
      hook()
    } catch (error) {
      this.#refuse(incoming.peer, incoming.response, status.failedUnknown, asError(error))
    }
  }

  #refuse(peer: PeerId, response: Response, code: number, error: Error | undefined, extensions?: RawExtensions): void {
    this.#host.env.trace?.('graphsync.refused', { peer: peer.toString(), request: response.id, status: code, error })
    this.#responder.end(response, code, extensions)
  }

  act<T>(incoming: Incoming, action: (responder: Responder) => T): T {
    const result = action(this.#responder)
    this.#network.pump()
    const link = this.#network.links.get(incoming.peer.toString())
    if (link !== undefined) this.#network.flush(link)
    return result
  }

  end(incoming: Incoming, code: number): void {
    this.act(incoming, (responder) => responder.end(incoming.response, code))
  }

  #requested({ peer }: Link, response: Response, request: WireRequest): void {
    const { root, selector: bytes } = request
    if (!this.#options.serve || root === undefined || bytes === undefined) {
      this.#refuse(peer, response, status.rejected, undefined)
      return
    }
    let incoming: Incoming
    let start: (budget: WalkBudget) => Walk
    try {
      const parsing = { ...this.#parsing(), maxClauses: incomingClauses }
      // A copy: it would keep the whole message alive.
      const selector = decodeCbor(bytes.slice(), { canonical: true })
      const parsed = parseSelector(selector, parsing)
      start = (budget) => walk(root, parsed, this.#walking(budget))
      incoming = new Incoming(this, peer, response, root, selector, owned(request.extensions))
    } catch (error) {
      this.#refuse(peer, response, status.rejected, asError(error))
      return
    }
    this.#incoming.set(response, incoming)
    const { request: ask } = this.#hooks
    if (ask === undefined) {
      this.#decided(incoming, request.extensions, true, start)
      return
    }
    const failed = (error: unknown): void => this.#refuse(peer, response, status.failedUnknown, asError(error))
    try {
      const verdict = ask(incoming)
      if (!(verdict instanceof Promise)) this.#decided(incoming, request.extensions, verdict, start)
      else {
        // Nobody waits for a hook that takes for ever.
        void verdict
          .then((v) => this.#decided(incoming, request.extensions, v, start), failed)
          .then(() => this.act(incoming, () => {}))
      }
    } catch (error) {
      failed(error)
    }
  }

  #decided(
    incoming: Incoming,
    raw: RawExtensions,
    verdict: boolean | Verdict,
    start: (budget: WalkBudget) => Walk,
  ): void {
    const { response, peer } = incoming
    // Cancelled, or the peer is gone, while the hook thought it over.
    if (!this.#incoming.has(response)) return
    const {
      accept,
      status: code,
      extensions = {},
      pause = false,
      budget,
      blocks,
    } = typeof verdict === 'boolean' ? ({ accept: verdict } as Verdict) : verdict
    try {
      const told = encodeExtensions(extensions)
      if (!accept) {
        this.#refuse(peer, response, code ?? status.rejected, undefined, told)
        return
      }
      if (blocks !== undefined) incoming.source = blocks
      this.#responder.say(response, told)
      this.#responder.accept(response, start(budget ?? this.#options.budget ?? defaultBudget), raw, pause)
    } catch (error) {
      this.#refuse(peer, response, status.failedUnknown, asError(error))
    }
  }
}

/** Without the envelope: what go-graphsync walks by is the selector itself. */
function bare(selector: IpldNode): IpldNode {
  const enveloped = selector as { selector?: IpldNode } | null
  return typeof enveloped === 'object' && enveloped?.selector !== undefined ? enveloped.selector : selector
}

/** Copies, so that the message is not kept alive. Throws LimitError's like where there are too many bytes. */
function owned(raw: RawExtensions): RawExtensions {
  const out = new Map<string, Uint8Array>()
  let bytes = 0
  for (const [name, value] of raw) {
    if (name === extension.doNotSendCids) continue
    bytes += value.length
    if (bytes > extensionBytes) throw new RangeError(`extensions of more than ${extensionBytes} bytes`)
    out.set(name, value.slice())
  }
  return out
}

/** Without the keys that are undefined, so that defaults hold. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

/** GraphSync over `host`, answering with what `blocks` has and filling it; nothing happens before start(). Throws RangeError on options that make no sense. */
export function createGraphsync(
  host: Host,
  blocks: Pick<Blockstore, 'get' | 'putMany'>,
  options: GraphsyncOptions = {},
): Graphsync {
  return new Adapter(host, blocks, options)
}
