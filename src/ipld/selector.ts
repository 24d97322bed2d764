/*
 * IPLD Selectors (ipld specs/selectors): the clauses as things that can be evaluated. selector-parse.ts reads them.
 * Semantics are those of go-ipld-prime 0.24, because both ends of a GraphSync must walk alike; that includes that
 * InterpretAs is heeded only where it stands alone, not as a member of a union or as the first clause of a recursion.
 * Clauses never change: what they return for a child is a new one or a part of themselves.
 */
import { fromUtf8 } from '../bytes.ts'
import { LimitError } from '../errors.ts'
import { childOf, indexOf, type IpldMap, type IpldNode, isList, isMap, type Segment, setKeyOrder } from './model.ts'
import type { Condition } from './selector-condition.ts'
import { isView, type Seen } from './view.ts'

/** What a matcher says of a node that it selects. */
export interface Match {
  readonly label?: string | undefined
  /** Of a string's UTF-8 or of bytes: [from, to), within the node. */
  readonly subset?: { readonly from: number; readonly to: number } | undefined
}

export interface Selector {
  /** What a step costs: the clauses that are alive side by side, with their conditions. */
  readonly width: number
  /** The children it wants, in this order, existing or not; undefined: all, in the node's own order. */
  interests(node: Seen): Iterable<Segment> | undefined
  /** How to go on at `segment`, where `child` lies (a link is not loaded yet); undefined: not at all. */
  explore(node: Seen, segment: Segment, child: IpldNode): Selector | undefined
  /** Whether the node is selected; undefined: it is only passed. */
  decide(node: Seen): Match | undefined
  /** The view through which the node must be seen, and how to go on with it. */
  interpretAs?(node: Seen): { readonly as: string; readonly next: Selector } | undefined
  /** The clause as it is declared. */
  print(): IpldNode
}

const none: readonly Segment[] = []

/** Clauses alive side by side: recursions over unions can double theirs at every step. */
const maxWidth = 4096

export class Matcher implements Selector {
  readonly width: number
  readonly #label: string | undefined
  readonly #subset: { from: number; to: number } | undefined
  readonly #onlyIf: Condition | undefined
  readonly #match: Match

  constructor(label?: string, subset?: { from: number; to: number }, onlyIf?: Condition) {
    this.#label = label
    this.#subset = subset
    this.#onlyIf = onlyIf
    this.width = 1 + (onlyIf?.size ?? 0)
    this.#match = label === undefined ? {} : { label }
  }

  interests(): readonly Segment[] {
    return none
  }

  explore(): undefined {
    return undefined
  }

  decide(node: Seen): Match | undefined {
    if (this.#onlyIf !== undefined && (isView(node) || !this.#onlyIf.holds(node))) return undefined
    if (this.#subset === undefined) return this.#match
    const length = lengthOf(node)
    const subset = length === undefined ? undefined : within(this.#subset, length)
    return subset && { ...this.#match, subset }
  }

  print(): IpldNode {
    const body: Record<string, IpldNode> = {}
    if (this.#onlyIf !== undefined) body['onlyIf'] = this.#onlyIf.print()
    if (this.#label !== undefined) body['label'] = this.#label
    if (this.#subset !== undefined) body['subset'] = { '[': whole(this.#subset.from), ']': whole(this.#subset.to) }
    return { '.': body }
  }
}

/** 2^63-1 stands for "to the end" and is no number of JavaScript's. */
function whole(value: number): number | bigint {
  if (Number.isSafeInteger(value)) return value
  return value > 0 ? 2n ** 63n - 1n : -(2n ** 63n)
}

function lengthOf(node: Seen): number | undefined {
  if (typeof node === 'string') return fromUtf8(node).length
  if (node instanceof Uint8Array) return node.length
  return isView(node) && node.view === 'bytes' ? node.size : undefined
}

/** selector-fixtures-1 "slice matching with negative indexes and extreme values". */
function within({ from, to }: { from: number; to: number }, length: number): { from: number; to: number } | undefined {
  const end = to < 0 ? length + to : Math.min(to, length)
  const start = from < 0 ? Math.max(0, length + from) : from
  return start > end || start >= length ? undefined : { from: start, to: end }
}

export class ExploreAll implements Selector {
  readonly width = 1
  readonly #next: Selector

  constructor(next: Selector) {
    this.#next = next
  }

  interests(): undefined {
    return undefined
  }

  explore(): Selector {
    return this.#next
  }

  decide(): undefined {
    return undefined
  }

  print(): IpldNode {
    return { a: { '>': this.#next.print() } }
  }
}

export class ExploreFields implements Selector {
  readonly width = 1
  readonly #fields: ReadonlyMap<string, Selector>
  readonly #names: readonly string[]

  constructor(fields: ReadonlyMap<string, Selector>) {
    this.#fields = fields
    this.#names = [...fields.keys()]
  }

  interests(): readonly Segment[] {
    return this.#names
  }

  explore(_node: Seen, segment: Segment): Selector | undefined {
    return this.#fields.get(String(segment))
  }

  decide(): undefined {
    return undefined
  }

  print(): IpldNode {
    return { f: { 'f>': mapOf([...this.#fields].map(([name, next]) => [name, next.print()])) } }
  }
}

/** A map whose keys keep this order and are keys, whatever they look like. */
export function mapOf(entries: readonly (readonly [string, IpldNode])[]): IpldMap {
  const map = Object.fromEntries(entries)
  setKeyOrder(map, [...new Map(entries).keys()])
  return map
}

export class ExploreIndex implements Selector {
  readonly width = 1
  readonly #index: number
  readonly #interests: readonly Segment[]
  readonly #next: Selector

  constructor(index: number, next: Selector) {
    this.#index = index
    this.#interests = index < 0 ? none : [index]
    this.#next = next
  }

  interests(): readonly Segment[] {
    return this.#interests
  }

  explore(node: Seen, segment: Segment): Selector | undefined {
    return isListSeen(node) && this.#index >= 0 && indexOf(segment) === this.#index ? this.#next : undefined
  }

  decide(): undefined {
    return undefined
  }

  print(): IpldNode {
    return { i: { i: whole(this.#index), '>': this.#next.print() } }
  }
}

function isListSeen(node: Seen): node is readonly IpldNode[] {
  return Array.isArray(node)
}

export class ExploreRange implements Selector {
  readonly width = 1
  readonly #start: number
  readonly #end: number
  readonly #next: Selector

  constructor(start: number, end: number, next: Selector) {
    this.#start = start
    this.#end = end
    this.#next = next
  }

  /** Those that exist: a range of 2^63 costs no more than the node has children. */
  *interests(node: Seen): Generator<number> {
    // A map with such keys is of interest to the other members of a union.
    if (isView(node)) return
    const start = Math.max(0, this.#start)
    if (isList(node)) {
      for (let i = start; i < Math.min(this.#end, node.length); i++) yield i
    } else if (isMap(node)) {
      const keys = Object.keys(node)
      if (this.#end - start <= keys.length) {
        for (let i = start; i < this.#end; i++) if (childOf(node, i) !== undefined) yield i
      } else {
        for (const key of keys) {
          const index = /^(?:0|[1-9]\d{0,15})$/.test(key) ? Number(key) : -1
          if (index >= start && index < this.#end) yield index
        }
      }
    }
  }

  explore(node: Seen, segment: Segment): Selector | undefined {
    if (!isListSeen(node)) return undefined
    const index = indexOf(segment)
    return index !== undefined && index >= this.#start && index < this.#end ? this.#next : undefined
  }

  decide(): undefined {
    return undefined
  }

  print(): IpldNode {
    return { r: { '^': whole(this.#start), $: whole(this.#end), '>': this.#next.print() } }
  }
}

/** Where a recursion begins again. Stands only where the recursion around it replaces it. */
export class ExploreRecursiveEdge implements Selector {
  readonly width = 1

  interests(): readonly Segment[] {
    return none
  }

  explore(): undefined {
    return undefined
  }

  decide(): undefined {
    return undefined
  }

  print(): IpldNode {
    return { '@': {} }
  }
}

export const edge = new ExploreRecursiveEdge()

/** At any depth of unions, but not inside other clauses. */
function hasEdge(selector: Selector): boolean {
  return selector === edge || (selector instanceof ExploreUnion && selector.hasEdge)
}

function replaceEdge(selector: Selector, replacement: Selector | undefined): Selector | undefined {
  if (selector === edge) return replacement
  return selector instanceof ExploreUnion && selector.hasEdge ? selector.replaceEdge(replacement) : selector
}

export class ExploreRecursive implements Selector {
  readonly #sequence: Selector
  readonly #current: Selector
  /** Infinity: no limit. */
  readonly #depth: number
  readonly #stopAt: Condition | undefined
  /** The children of one node mostly go on alike. */
  #lastNext: Selector | undefined
  #lastResult: Selector | undefined

  constructor(sequence: Selector, depth: number, stopAt: Condition | undefined, current = sequence) {
    this.#sequence = sequence
    this.#depth = depth
    this.#stopAt = stopAt
    this.#current = current
  }

  get width(): number {
    return this.#current.width + (this.#stopAt?.size ?? 0)
  }

  interests(node: Seen): Iterable<Segment> | undefined {
    return this.#current.interests(node)
  }

  explore(node: Seen, segment: Segment, child: IpldNode): Selector | undefined {
    if (this.#stopAt?.holds(child) === true) return undefined
    const next = this.#current.explore(node, segment, child)
    if (next === undefined) return undefined
    if (next !== this.#lastNext) {
      this.#lastNext = next
      this.#lastResult = this.#goOn(next)
    }
    return this.#lastResult
  }

  #goOn(next: Selector): Selector | undefined {
    if (!hasEdge(next)) return this.#with(next, this.#depth)
    // What stands beside the edges goes on without the recursion.
    if (this.#depth < 2) return replaceEdge(next, undefined)
    const replaced = replaceEdge(next, this.#sequence)
    return replaced && this.#with(replaced, this.#depth - 1)
  }

  #with(current: Selector, depth: number): Selector {
    if (current === this.#current && depth === this.#depth) return this
    return new ExploreRecursive(this.#sequence, depth, this.#stopAt, current)
  }

  decide(node: Seen): Match | undefined {
    return this.#current.decide(node)
  }

  print(): IpldNode {
    const body: Record<string, IpldNode> = {
      l: this.#depth === Infinity ? { none: {} } : { depth: whole(this.#depth) },
      ':>': this.#sequence.print(),
    }
    if (this.#stopAt !== undefined) body['!'] = this.#stopAt.print()
    return { R: body }
  }
}

/** Unions in a union are taken apart: nothing that can be observed differs. */
export class ExploreUnion implements Selector {
  readonly width: number
  readonly hasEdge: boolean
  readonly #members: readonly Selector[]

  /** Throws LimitError `selectorWidth` above 4,096 members. */
  constructor(members: readonly Selector[]) {
    let width = 0
    for (const member of members) width += member.width
    if (width > maxWidth)
      throw new LimitError(
        'selectorWidth',
        maxWidth,
        width,
        `selector with ${width} clauses side by side, at most ${maxWidth} allowed`,
      )
    this.#members = members.some((member) => member instanceof ExploreUnion)
      ? members.flatMap((member) => (member instanceof ExploreUnion ? member.#members : [member]))
      : members
    this.width = Math.max(1, width)
    this.hasEdge = this.#members.includes(edge)
  }

  interests(node: Seen): Iterable<Segment> | undefined {
    const all: Iterable<Segment>[] = []
    let arrays = true
    for (const member of this.#members) {
      const some = member.interests(node)
      if (some === undefined) return undefined
      if (some === none) continue
      arrays &&= Array.isArray(some)
      all.push(some)
    }
    if (all.length < 2) return all[0] ?? none
    // Repeated ones stay: the walk takes them as often (go-ipld-prime).
    return arrays ? (all as (readonly Segment[])[]).flat() : chain(all)
  }

  explore(node: Seen, segment: Segment, child: IpldNode): Selector | undefined {
    let only: Selector | undefined
    let more: Selector[] | undefined
    for (const member of this.#members) {
      const next = member.explore(node, segment, child)
      if (next === undefined) continue
      if (only === undefined) only = next
      else if (more === undefined) more = [only, next]
      else more.push(next)
    }
    return more === undefined ? only : new ExploreUnion(more)
  }

  replaceEdge(replacement: Selector | undefined): Selector | undefined {
    const members: Selector[] = []
    for (const member of this.#members) {
      const next = member === edge ? replacement : member
      if (next !== undefined) members.push(next)
    }
    return members.length < 2 ? members[0] : new ExploreUnion(members)
  }

  decide(node: Seen): Match | undefined {
    for (const member of this.#members) {
      const match = member.decide(node)
      if (match !== undefined) return match
    }
    return undefined
  }

  print(): IpldNode {
    return { '|': this.#members.map((member) => member.print()) }
  }
}

function* chain<T>(all: readonly Iterable<T>[]): Generator<T> {
  for (const some of all) yield* some
}

/** Goes on at the same node as `next` says, if the condition holds there. */
export class ExploreConditional implements Selector {
  readonly #condition: Condition
  readonly #next: Selector

  constructor(condition: Condition, next: Selector) {
    this.#condition = condition
    this.#next = next
  }

  get width(): number {
    return this.#next.width + this.#condition.size
  }

  #holds(node: Seen): boolean {
    return !isView(node) && this.#condition.holds(node)
  }

  interests(node: Seen): Iterable<Segment> | undefined {
    return this.#holds(node) ? this.#next.interests(node) : none
  }

  explore(node: Seen, segment: Segment, child: IpldNode): Selector | undefined {
    return this.#holds(node) ? this.#next.explore(node, segment, child) : undefined
  }

  decide(node: Seen): Match | undefined {
    return this.#holds(node) ? this.#next.decide(node) : undefined
  }

  interpretAs(node: Seen): { as: string; next: Selector } | undefined {
    return this.#holds(node) ? this.#next.interpretAs?.(node) : undefined
  }

  print(): IpldNode {
    return { '&': { '&': this.#condition.print(), '>': this.#next.print() } }
  }
}

export class ExploreInterpretAs implements Selector {
  readonly #as: string
  readonly #next: Selector

  constructor(as: string, next: Selector) {
    this.#as = as
    this.#next = next
  }

  get width(): number {
    return this.#next.width
  }

  interests(node: Seen): Iterable<Segment> | undefined {
    return this.#next.interests(node)
  }

  // Only asked where nobody heeded interpretAs, as inside a union.
  explore(): Selector {
    return this.#next
  }

  decide(): undefined {
    return undefined
  }

  interpretAs(): { as: string; next: Selector } {
    return { as: this.#as, next: this.#next }
  }

  print(): IpldNode {
    return { '~': { as: this.#as, '>': this.#next.print() } }
  }
}
