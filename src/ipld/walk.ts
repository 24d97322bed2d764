/*
 * Walks a DAG by a selector, sans-IO: whoever drives the generator has the blocks.
 */
import type { CID } from './cid.ts'
import type { IpldNode, Segment } from './model.ts'

/** The bytes of a UnixFS file, or a part of them, that were matched; they follow as `bytes` steps. */
export interface BytesView {
  readonly view: 'bytes'
  /** Bytes of the whole file. */
  readonly size: number
  /** The part that was matched, [from, to). */
  readonly from: number
  readonly to: number
}

/** A directory that was matched. */
export interface MapView {
  readonly view: 'map'
  /** The node under the view. */
  readonly substrate: IpldNode
}

export type Step =
  /** Needs the block: next(bytes) with bytes that hash to the CID, or 'missing', or 'skip' to leave it out on purpose. */
  | { readonly kind: 'load'; readonly cid: CID; readonly path: readonly Segment[] }
  /** A matched node. next(). */
  | {
      readonly kind: 'match'
      readonly path: readonly Segment[]
      readonly node: IpldNode | BytesView | MapView
      readonly label?: string
    }
  /** The next bytes of the file that was matched last; `offset` is theirs in the file. next(). */
  | { readonly kind: 'bytes'; readonly path: readonly Segment[]; readonly offset: number; readonly bytes: Uint8Array }
  /** A node that was passed, not matched; only with the option `visits`. next(). */
  | { readonly kind: 'visit'; readonly path: readonly Segment[]; readonly node: IpldNode | BytesView | MapView }

export type Answer = Uint8Array | 'missing' | 'skip'

export interface WalkBudget {
  /** Blocks loaded, repeated ones each time. Default: no limit. */
  blocks?: number
  /** Bytes of the blocks loaded. Default: no limit. */
  bytes?: number
  /** Nodes visited. Default: no limit. */
  nodes?: number
  /** Segments of a path. Default 100,000. */
  depth?: number
  /** Clauses evaluated. Default: 16 times `nodes`. */
  steps?: number
}

export interface WalkSummary {
  blocks: number
  bytes: number
  nodes: number
  matches: number
  missing: number
}

export interface WalkOptions {
  budget?: WalkBudget
  /** A link that was followed once is not followed again, whatever the selector would want there. Default false. */
  visitOnce?: boolean
  /** Also yield `visit` steps. Default false. */
  visits?: boolean
}

/** Throws LimitError past a budget, ProtocolError for a block that does not decode. */
export type Walk = Generator<Step, WalkSummary, Answer | undefined>
