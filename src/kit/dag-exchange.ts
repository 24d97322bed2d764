/*
 * DAGExchange: the seed's few verbs over GraphSync. Asks a peer for a part of a DAG, tells a callback of the blocks as they
 * come, and answers the same of others from the block store.
 */
import { LimitError, ProtocolError, TimeoutError, asError, errorCode } from '../errors.ts'
import type { Host } from '../host.ts'
import { codec, parseCid, type CID } from '../ipld/cid.ts'
import type { IpldNode } from '../ipld/model.ts'
import { selectors, type Clause } from '../ipld/selectors.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import {
  createGraphsync,
  type Extensions,
  type Graphsync,
  type GraphsyncOptions,
  type GraphsyncRequest,
} from '../protocols/graphsync/graphsync.ts'
import type { Blockstore } from '../store/blocks.ts'

/**
 * How a request stands: `progress` goes on; all others are its end. `partial`: the peer had not all of it, or maxBlocks
 * was reached. `refused`: the peer would not, or could not.
 */
export type DagStatus =
  | 'progress'
  | 'ok'
  | 'partial'
  | 'not-found'
  | 'refused'
  | 'unreachable'
  | 'invalid'
  | 'timeout'
  | 'cancelled'
  | 'failed'

export interface DagResponse {
  readonly requestId: string
  readonly status: DagStatus
  /** By the text of their CIDs: of `progress` those that are new; of the end all, unless `collect` was false. */
  readonly blocks: ReadonlyMap<string, Uint8Array>
  /** What the peer sent besides; `remainingBlocks` with `partial`: links that are known and were not followed, or lack. */
  readonly extensions: Extensions
  /** Why it ended other than `ok` and `partial`. */
  readonly error: Error | undefined
}

export interface DagRequestOptions {
  peerId: PeerId | Multiaddr | string
  rootCid: CID | string
  /** Default: all of it. */
  selector?: Clause
  /** Called as blocks come, and with the end. What it throws is traced and hurts nobody. */
  callback?: (response: DagResponse) => void
  maxBlocks?: number
  /** How far below the root: segments of a path, in dag-pb links. */
  maxDepth?: number
  priority?: number
  /** For all of it. Default 60 s. */
  timeoutMs?: number
  extensions?: Extensions
  signal?: AbortSignal
  /** The end brings all blocks once more; false: they are in the store, and nowhere else. Default true. */
  collect?: boolean
}

export interface DagRequest {
  /** UUID. */
  readonly id: string
  /** Its end, whatever it is; never rejects. */
  readonly done: Promise<DagResponse>
}

const defaultTimeoutMs = 60_000
/** Blocks between two calls: few at first, then more. */
const mostBlocks = 256

function statusOf(error: Error, ended: 'timeout' | 'cancelled' | undefined): DagStatus {
  if (ended !== undefined) return ended
  if (error instanceof TimeoutError) return 'timeout'
  if (error instanceof ProtocolError || error instanceof LimitError) return 'invalid'
  switch (errorCode(error)) {
    case 'not-found':
      return 'not-found'
    case 'refused':
      return 'refused'
    case 'unreachable':
    case 'no-address':
    case 'no-protocol':
    case 'no-transport':
      return 'unreachable'
    case undefined:
    default:
      return 'failed'
  }
}

/** A link of dag-pb is three segments: Links, its number, Hash. */
function limited(selector: Clause, root: CID, depth: number | undefined): Clause {
  if (depth === undefined) return selector
  if (!Number.isSafeInteger(depth) || depth < 0)
    throw new RangeError(`maxDepth is ${depth}, want a whole number from 0`)
  return selectors.limitDepth(selector, root.code === codec.dagPb ? 3 * depth : depth)
}

export class DAGExchange {
  readonly #host: Host
  readonly #graphsync: Graphsync
  readonly #running = new Map<string, { request: GraphsyncRequest; end(how: 'timeout' | 'cancelled'): void }>()
  readonly #ends = new Set<Promise<DagResponse>>()

  constructor(host: Host, blocks: Pick<Blockstore, 'get' | 'putMany'>, options: GraphsyncOptions = {}) {
    this.#host = host
    this.#graphsync = createGraphsync(host, blocks, options)
  }

  /** What it stands on: for hooks, updates and pauses. */
  get graphsync(): Graphsync {
    return this.#graphsync
  }

  async start(): Promise<void> {
    this.#graphsync.start()
  }

  /** Requests under way end as `failed`, with ClosedError `stopped`. */
  async stop(): Promise<void> {
    await this.#graphsync.stop()
    await Promise.all(this.#ends)
  }

  /**
   * Throws ClosedError before start, TypeError for what is no CID or peer, RangeError for numbers that make no sense, and
   * ProtocolError `bad-selector`.
   */
  request(options: DagRequestOptions): DagRequest {
    const { peerId: peer, rootCid, selector = selectors.all(), maxDepth, timeoutMs = defaultTimeoutMs } = options
    const { maxBlocks, priority, extensions, signal } = options
    const root = typeof rootCid === 'string' ? parseCid(rootCid) : rootCid
    const target = typeof peer === 'string' && !peer.startsWith('/') ? PeerId.parse(peer) : peer
    const request = this.#graphsync.request(target, root, limited(selector, root, maxDepth), {
      nodes: false,
      ...(maxBlocks !== undefined && { maxBlocks }),
      ...(priority !== undefined && { priority }),
      ...(extensions && { extensions }),
      ...(signal && { signal }),
    })
    let ended: 'timeout' | 'cancelled' | undefined
    const end = (how: 'timeout' | 'cancelled'): void => void (ended ??= how)
    const timer = this.#host.env.clock.setTimer(timeoutMs, () => {
      end('timeout')
      void request.cancel()
    })
    this.#running.set(request.id, { request, end })
    const done = this.#follow(request, options, () => ended).finally(() => {
      timer.cancel()
      this.#running.delete(request.id)
      this.#ends.delete(done)
    })
    this.#ends.add(done)
    return { id: request.id, done }
  }

  async #follow(
    request: GraphsyncRequest,
    { callback, collect = true, signal }: DagRequestOptions,
    ended: () => 'timeout' | 'cancelled' | undefined,
  ): Promise<DagResponse> {
    const all = new Map<string, Uint8Array>()
    let fresh = new Map<string, Uint8Array>()
    const told: Record<string, IpldNode> = {}
    let every = 1
    const tell = (status: DagStatus, blocks: ReadonlyMap<string, Uint8Array>, error?: Error): DagResponse => {
      const response: DagResponse = { requestId: request.id, status, blocks, extensions: { ...told }, error }
      try {
        callback?.(response)
      } catch (thrown) {
        this.#host.env.trace?.('graphsync.error', { error: asError(thrown) })
      }
      return response
    }
    const { done } = request
    try {
      for await (const event of request) {
        if (event.kind === 'note') Object.assign(told, event.extensions)
        if (event.kind !== 'block') continue
        const { bytes } = event
        const cid = event.cid.toString()
        // No more foreign bytes are kept alive than the block has itself.
        const own = 2 * bytes.length < bytes.buffer.byteLength ? bytes.slice() : bytes
        if (collect) all.set(cid, own)
        fresh.set(cid, own)
        if (fresh.size < every) continue
        every = Math.min(mostBlocks, 2 * every)
        tell('progress', fresh)
        fresh = new Map()
      }
      const { status, remaining, missing } = await done
      if (status === 20) return tell('ok', collect ? all : fresh)
      told['remainingBlocks'] = remaining + missing
      return tell('partial', collect ? all : fresh)
    } catch (thrown) {
      const error = asError(thrown)
      const how = ended() ?? (signal?.aborted === true ? 'cancelled' : undefined)
      return tell(statusOf(error, how), collect ? all : fresh, error)
    }
  }

  /** Whether there was such a request; the peer is told to stop. */
  async cancelRequest(id: string): Promise<boolean> {
    const running = this.#running.get(id)
    if (running === undefined) return false
    running.end('cancelled')
    return running.request.cancel()
  }
}
