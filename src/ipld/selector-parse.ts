/*
 * Reading selectors from the data model (ipld specs/selectors §Schema), bare or in the envelope {"selector": ...}.
 * What go-ipld-prime 0.24 takes is taken, keys that it does not know included; but a label and an onlyIf, which it skips,
 * are checked, because to leave out a condition is to select more than was asked for.
 */
import { LimitError, ProtocolError } from '../errors.ts'
import { codecs } from './codecs.ts'
import { childOf, type IpldMap, type IpldNode, isList, isMap, keysOf, kindOf } from './model.ts'
import { type Condition, parseCondition } from './selector-condition.ts'
import {
  edge,
  ExploreAll,
  ExploreConditional,
  ExploreFields,
  ExploreIndex,
  ExploreInterpretAs,
  ExploreRange,
  ExploreRecursive,
  ExploreUnion,
  Matcher,
  type Selector,
} from './selector.ts'

export interface SelectorLimits {
  /** Bytes of the encoded form. Default 64 KiB. */
  maxBytes?: number
  /** Clauses and conditions in all. Default 4,096. */
  maxClauses?: number
  /** Clauses inside one another. Default 256: paths of 128 names through UnixFS. */
  maxNesting?: number
}

export const selectorLimits = {
  maxBytes: 64 * 1024,
  maxClauses: 4096,
  maxNesting: 256,
} satisfies Required<SelectorLimits>

/** Reads the body of a clause; `parse` reads the clauses in it. Throws ProtocolError `bad-selector` for what is none. */
export type SelectorKind = (body: IpldNode, parse: (clause: IpldNode) => Selector) => Selector

export interface ParseOptions extends SelectorLimits {
  /** Kinds beyond the spec's. Default: those of registerSelector. */
  kinds?: ReadonlyMap<string, SelectorKind>
}

const registered = new Map<string, SelectorKind>()

/**
 * Adds a kind of clause under its key, here or in a table of your own, for whoever reads selectors with that table.
 * Throws TypeError for a key that is taken.
 */
export function registerSelector(key: string, kind: SelectorKind, kinds: Map<string, SelectorKind> = registered): void {
  if (builtIn.has(key) || key === 'selector' || kinds.has(key))
    throw new TypeError(`there is a selector kind ${JSON.stringify(key)} already`)
  kinds.set(key, kind)
}

/** For tests and those that load and unload: whether there was one. */
export function unregisterSelector(key: string, kinds: Map<string, SelectorKind> = registered): boolean {
  return kinds.delete(key)
}

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-selector', `selector: ${message}`)
}

/** The key and the body of a union in its keyed form. */
function single(node: IpldNode, what: string): [key: string, body: IpldNode] {
  if (!isMap(node)) throw bad(`${what} is a ${kindOf(node)}, want a map`)
  const keys = keysOf(node)
  const [key] = keys
  if (key === undefined || keys.length > 1) throw bad(`${what} has ${keys.length} keys, want one`)
  return [key, node[key] as IpldNode]
}

function bodyMap(body: IpldNode, what: string): IpldMap {
  if (!isMap(body)) throw bad(`${what} is a ${kindOf(body)}, want a map`)
  return body
}

function field(body: IpldMap, key: string, what: string): IpldNode {
  const value = childOf(body, key)
  if (value === undefined) throw bad(`${what} without ${JSON.stringify(key)}`)
  return value
}

/** An int64. Above 2^53 it loses digits, which nothing that it is compared with has. */
function int(node: IpldNode, what: string): number {
  if (typeof node === 'number' && Number.isSafeInteger(node)) return node
  if (typeof node === 'bigint' && BigInt.asIntN(64, node) === node) return Number(node)
  throw bad(`${what} is no int of 64 bits`)
}

function text(node: IpldNode, what: string): string {
  if (typeof node !== 'string') throw bad(`${what} is a ${kindOf(node)}, want a string`)
  return node
}

/** One parse: what is counted, and where recursion may begin again. */
class Parser {
  readonly #limits: Required<SelectorLimits>
  readonly #kinds: ReadonlyMap<string, SelectorKind>
  #clauses = 0
  /** Edges found for each recursion that we are in. */
  readonly #edges: number[] = []
  #nesting = 0

  constructor({ kinds = registered, ...limits }: ParseOptions) {
    this.#limits = { ...selectorLimits, ...limits }
    this.#kinds = kinds
  }

  clause(node: IpldNode): Selector {
    this.#count(0)
    const [key, body] = single(node, 'a clause')
    this.#nesting++
    const read = builtIn.get(key)
    let selector: Selector
    if (read !== undefined) selector = read(body, this)
    else {
      const kind = this.#kinds.get(key)
      if (kind === undefined) throw bad(`${JSON.stringify(key.slice(0, 40))} is no kind of clause that we know`)
      selector = kind(body, (below) => this.clause(below))
    }
    this.#nesting--
    return selector
  }

  /** Before anything is descended into, so that no nesting reaches the stack's end. */
  #count(depth: number): void {
    const { maxClauses, maxNesting } = this.#limits
    if (++this.#clauses > maxClauses) throw new LimitError('maxClauses', maxClauses, this.#clauses)
    const nesting = this.#nesting + depth + 1
    if (nesting > maxNesting) throw new LimitError('maxNesting', maxNesting, nesting)
  }

  condition(node: IpldNode): Condition {
    return parseCondition(node, (depth) => this.#count(depth))
  }

  /** A recursion's sequence; edges in it are its own. */
  sequence(node: IpldNode): Selector {
    this.#edges.push(0)
    const selector = this.clause(node)
    if (this.#edges.pop() === 0) throw bad('a recursion without an edge')
    return selector
  }

  edge(): Selector {
    const last = this.#edges.length - 1
    if (last < 0) throw bad('an edge outside of a recursion')
    this.#edges[last] = (this.#edges[last] ?? 0) + 1
    return edge
  }
}

function next(body: IpldMap, parser: Parser, what: string): Selector {
  return parser.clause(field(body, '>', what))
}

function matcher(node: IpldNode, parser: Parser): Selector {
  const body = bodyMap(node, 'a matcher')
  const label = childOf(body, 'label')
  const onlyIf = childOf(body, 'onlyIf')
  const subset = childOf(body, 'subset')
  let range: { from: number; to: number } | undefined
  if (subset !== undefined) {
    const inside = bodyMap(subset, 'a subset')
    const from = int(field(inside, '[', 'a subset'), 'the beginning of a subset')
    const to = int(field(inside, ']', 'a subset'), 'the end of a subset')
    if (to >= 0 && from > to) throw bad(`a subset from ${from} to ${to}`)
    range = { from, to }
  }
  return new Matcher(
    label === undefined ? undefined : text(label, 'a label'),
    range,
    onlyIf === undefined ? undefined : parser.condition(onlyIf),
  )
}

function fields(node: IpldNode, parser: Parser): Selector {
  const inside = bodyMap(field(bodyMap(node, 'fields'), 'f>', 'fields'), 'the fields')
  return new ExploreFields(new Map(keysOf(inside).map((name) => [name, parser.clause(inside[name] as IpldNode)])))
}

function range(node: IpldNode, parser: Parser): Selector {
  const body = bodyMap(node, 'a range')
  const start = int(field(body, '^', 'a range'), 'the start of a range')
  const end = int(field(body, '$', 'a range'), 'the end of a range')
  if (start >= end) throw bad(`a range from ${start} to ${end}`)
  return new ExploreRange(start, end, next(body, parser, 'a range'))
}

function recursive(node: IpldNode, parser: Parser): Selector {
  const body = bodyMap(node, 'a recursion')
  const [kind, value] = single(field(body, 'l', 'a recursion'), 'the limit of a recursion')
  if (kind !== 'none' && kind !== 'depth') throw bad(`a recursion with the limit ${JSON.stringify(kind.slice(0, 40))}`)
  const depth = kind === 'none' ? Infinity : int(value, 'the depth of a recursion')
  const sequence = parser.sequence(field(body, ':>', 'a recursion'))
  const stopAt = childOf(body, '!')
  return new ExploreRecursive(sequence, depth, stopAt === undefined ? undefined : parser.condition(stopAt))
}

const builtIn: ReadonlyMap<string, (body: IpldNode, parser: Parser) => Selector> = new Map([
  ['.', matcher],
  ['a', (node: IpldNode, parser: Parser) => new ExploreAll(next(bodyMap(node, 'explore all'), parser, 'explore all'))],
  ['f', fields],
  [
    'i',
    (node: IpldNode, parser: Parser) => {
      const body = bodyMap(node, 'an index')
      return new ExploreIndex(int(field(body, 'i', 'an index'), 'an index'), next(body, parser, 'an index'))
    },
  ],
  ['r', range],
  ['R', recursive],
  [
    '|',
    (node: IpldNode, parser: Parser) => {
      if (!isList(node)) throw bad(`a union is a ${kindOf(node)}, want a list`)
      return new ExploreUnion(node.map((member) => parser.clause(member)))
    },
  ],
  [
    '&',
    (node: IpldNode, parser: Parser) => {
      const body = bodyMap(node, 'a conditional')
      const condition = parser.condition(field(body, '&', 'a conditional'))
      return new ExploreConditional(condition, next(body, parser, 'a conditional'))
    },
  ],
  [
    '@',
    (node: IpldNode, parser: Parser) => {
      bodyMap(node, 'an edge')
      return parser.edge()
    },
  ],
  [
    '~',
    (node: IpldNode, parser: Parser) => {
      const body = bodyMap(node, 'interpret-as')
      return new ExploreInterpretAs(text(field(body, 'as', 'interpret-as'), '"as"'), next(body, parser, 'interpret-as'))
    },
  ],
])

/**
 * Bare or in its envelope. Throws ProtocolError `bad-selector` for what is no selector, LimitError `maxClauses` and
 * `maxNesting`.
 */
export function parseSelector(node: IpldNode, options: ParseOptions = {}): Selector {
  const bare = isMap(node) ? childOf(node, 'selector') : undefined
  // The envelope has this one key; with more it is no clause either.
  return new Parser(options).clause(bare !== undefined && keysOf(node as IpldMap).length === 1 ? bare : node)
}

/** The declaration of a selector, canonical: what was unknown in its source is gone. `envelope` puts it in one. */
export function printSelector(selector: Selector, { envelope = false } = {}): IpldNode {
  const node = selector.print()
  return envelope ? { selector: node } : node
}

function codec(name: 'dag-cbor' | 'dag-json') {
  const found = codecs.byName(name)
  if (found === undefined) throw new TypeError(`the codec ${name} is not registered`)
  return found
}

/** From DAG-CBOR. Throws as parseSelector and the codec, LimitError `maxBytes`. */
export function selectorFromBytes(bytes: Uint8Array, options: ParseOptions = {}): Selector {
  const maxBytes = options.maxBytes ?? selectorLimits.maxBytes
  if (bytes.length > maxBytes) throw new LimitError('maxBytes', maxBytes, bytes.length)
  return parseSelector(codec('dag-cbor').decode(bytes), options)
}

/**
 * As DAG-CBOR, which sorts the fields: a peer explores them in that order, so who walks along parses these bytes again.
 */
export function selectorToBytes(selector: Selector): Uint8Array {
  return codec('dag-cbor').encode(printSelector(selector))
}
