/*
 * IPLD Selectors (ipld specs/selectors), the clauses as things that can be evaluated; selector-parse.ts reads and writes
 * them. Semantics are those of go-ipld-prime 0.24, because both ends of a GraphSync must walk alike.
 */
import type { IpldNode, Segment } from './model.ts'

/** What a matcher says of a node. */
export interface Match {
  label?: string
  /** Bytes of a string or bytes node, [from, to); negative ones count from the end. */
  subset?: { from: number; to: number }
}

export interface Selector {
  /** What evaluating this costs: the number of clauses that are alive side by side. */
  readonly width: number
  /** The children it wants, in this order, existing or not; undefined: all, in the node's own order. */
  interests(node: IpldNode): Iterable<Segment> | undefined
  /** How to go on below `segment`, where `child` lies (a link is not loaded yet); undefined: not at all. */
  explore(node: IpldNode, segment: Segment, child: IpldNode): Selector | undefined
  /** Whether the node is selected, in the sense of the matchers; undefined: it is only passed. */
  decide(node: IpldNode): Match | undefined
  /** The view that the node must be seen through (InterpretAs), and how to go on with what that gives. */
  readonly interpretAs?: { readonly as: string; readonly next: Selector }
}
