/*
 * What InterpretAs makes of a node: a map of names or a run of bytes that may lie in many blocks. Views are generators
 * that ask for the blocks they need, so that they hold no loader of their own.
 */
import type { CID } from './cid.ts'
import type { IpldNode, Segment } from './model.ts'

/** A block that a view needs; answered with its bytes, or with undefined where there is none. */
export interface Wanted {
  readonly want: CID
}
export type Asking<Item, Result> = Generator<Wanted | Item, Result, Uint8Array | undefined>

/** No map of a block has a symbol for a key: nothing in a block poses as a view. */
export const viewMark = Symbol('view')

export interface Entry {
  readonly segment: Segment
  readonly child: IpldNode
}
export interface Chunk {
  /** Of `bytes` in the whole. */
  readonly offset: number
  readonly bytes: Uint8Array
}

/** Names and what they stand for: a directory. */
export interface MapView {
  readonly [viewMark]: true
  readonly view: 'map'
  /** All entries, in the order of the blocks. A block that is missing is left out with what is below it. */
  entries(): Asking<Entry, void>
  /** Undefined also where a block on the way is missing. */
  lookup(segment: Segment): Asking<never, IpldNode | undefined>
}

/** Bytes over many blocks: a file. */
export interface BytesView {
  readonly [viewMark]: true
  readonly view: 'bytes'
  /** Bytes of the whole. */
  readonly size: number
  /** The bytes [from, to) in order; with `to` undefined to the end. Ends early at a block that is missing: false. */
  read(from: number, to: number | undefined): Asking<Chunk, boolean>
}

export type View = MapView | BytesView
/** What a walk visits. */
export type Seen = IpldNode | View

export function isView(node: Seen): node is View {
  return typeof node === 'object' && node !== null && (node as Partial<View>)[viewMark] === true
}
