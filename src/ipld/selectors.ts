/*
 * Selectors made by hand: functions that give declarations (the data model form), which are combined freely and read by
 * parseSelector; and the short text of the command line (docs/selectors.md).
 */
import { fromUtf8 } from '../bytes.ts'
import { codecs } from './codecs.ts'
import { childOf, type IpldMap, type IpldNode, isList, isMap, type Segment } from './model.ts'
import { mapOf } from './selector.ts'

/** A selector, or a part of one, in the data model. */
export type Clause = IpldMap

/** Matches the node it stands at. `subset` [from, to) of its bytes; negative ones count from the end. */
function match(
  options: { label?: string; subset?: readonly [from: number, to?: number]; onlyIf?: IpldNode } = {},
): Clause {
  const { label, subset, onlyIf } = options
  return {
    '.': {
      ...(onlyIf !== undefined && { onlyIf }),
      ...(label !== undefined && { label }),
      // 2^63-1: to the end (selector-fixtures-1).
      ...(subset !== undefined && { subset: { '[': subset[0], ']': subset[1] ?? 2n ** 63n - 1n } }),
    },
  }
}

const edge: Clause = { '@': {} }

/** Every child goes on with `next`. */
function each(next: Clause = match()): Clause {
  return { a: { '>': next } }
}

/** Children by name, in this order; list elements too, by the digits of their index. */
function fields(next: Readonly<Record<string, Clause>> | ReadonlyMap<string, Clause>): Clause {
  return { f: { 'f>': mapOf(next instanceof Map ? [...next] : Object.entries(next)) } }
}

function field(name: string, next: Clause = match()): Clause {
  return fields(new Map([[name, next]]))
}

function index(at: number, next: Clause = match()): Clause {
  return { i: { i: at, '>': next } }
}

/** Elements [start, end) of a list. */
function range(start: number, end: number, next: Clause = match()): Clause {
  return { r: { '^': start, $: end, '>': next } }
}

/** All of them side by side; the first that matches a node gives its label. */
function union(...members: readonly Clause[]): Clause {
  return { '|': members }
}

/**
 * `sequence` again at each `edge` in it, `depth` times at most. Where a child is the link `stopAt`, or satisfies that
 * condition, it goes no further.
 */
function recursive(sequence: Clause, options: { depth?: number; stopAt?: IpldNode } = {}): Clause {
  const { depth = Infinity, stopAt } = options
  return {
    R: {
      l: depth === Infinity ? { none: {} } : { depth },
      ':>': sequence,
      ...(stopAt !== undefined && { '!': stopAt }),
    },
  }
}

/** Goes on with `next` at the same node where the condition holds. */
function when(condition: IpldNode, next: Clause): Clause {
  return { '&': { '&': condition, '>': next } }
}

/** Sees the node as `view`: `unixfs` or `unixfs-preload`. Has to stand alone: in a union or a recursion nobody heeds it. */
function interpretAs(view: string, next: Clause = match()): Clause {
  return { '~': { as: view, '>': next } }
}

/** The node, and everything below it: `depth` segments deep at most. */
function all(options: { depth?: number; stopAt?: IpldNode } = {}): Clause {
  return recursive(union(match(), each(edge)), options)
}

/** The node itself, and of the blocks its own alone. */
function root(): Clause {
  return match()
}

/** What is at most so many segments below the node, itself too. A link of dag-pb lies three segments deep: see levels. */
function depth(segments: number): Clause {
  // go-ipld-prime counts the nodes on the way, the first one too.
  return recursive(union(match(), each(edge)), { depth: segments + 1 })
}

/** Of a dag-pb DAG the blocks that are at most so many links below the node, itself too. */
function levels(links: number): Clause {
  return recursive(union(match(), field('Links', each(field('Hash', edge)))), { depth: links + 1 })
}

/** The same, but recursions that are not inside of other clauses go at most so many edges deep. */
function limitDepth(clause: Clause, edges: number): Clause {
  const members = childOf(clause, '|')
  if (members !== undefined && isList(members))
    return { '|': members.map((member) => (isMap(member) ? limitDepth(member, edges) : member)) }
  const body = childOf(clause, 'R')
  if (body === undefined || !isMap(body)) return clause
  const limit = childOf(body, 'l')
  const before = limit === undefined ? undefined : childOf(limit, 'depth')
  const most = typeof before === 'number' ? Math.min(before, edges + 1) : edges + 1
  return { R: { ...body, l: { depth: most } } }
}

function segmentsOf(path: string | readonly Segment[]): readonly string[] {
  return typeof path === 'string' ? path.split('/').filter((part) => part !== '') : path.map(String)
}

/** What lies at the end of the path, which goes through links. Names in a text are parted by `/`. */
function path(to: string | readonly Segment[], next: Clause = match()): Clause {
  return segmentsOf(to).reduceRight((below, name) => field(name, below), next)
}

/** As path, but names are those of UnixFS directories, sharded ones too. `next` is what is done with what lies there. */
function unixfs(to: string | readonly Segment[] = [], next: Clause = interpretAs('unixfs', match())): Clause {
  return segmentsOf(to).reduceRight((below, name) => interpretAs('unixfs', field(name, below)), next)
}

/** The bytes [from, to) of the UnixFS file at the path, and of its blocks those alone. */
function unixfsBytes(to: string | readonly Segment[], from: number, end?: number): Clause {
  return unixfs(to, interpretAs('unixfs', match({ subset: end === undefined ? [from] : [from, end] })))
}

/**
 * Only the leaf raw blocks of a UnixFS DAG: matches what they hold, in order. The blocks above them are on the way, but are
 * not matched; content that lies in dag-pb leaves is not either.
 */
function rawLeaves(): Clause {
  const leaf = match({ onlyIf: { '%': 'bytes' } })
  // A link of dag-pb is Links/<index>/Hash; behind it is a raw leaf, or a block that has Links, too.
  return union(leaf, recursive(field('Links', each(field('Hash', union(leaf, edge))))))
}

export const selectors = {
  match,
  edge,
  each,
  fields,
  field,
  index,
  range,
  union,
  recursive,
  when,
  interpretAs,
  all,
  root,
  depth,
  levels,
  limitDepth,
  path,
  unixfs,
  unixfsBytes,
  rawLeaves,
} as const

/** The root's block alone. */
export const makeSimpleSelector = root
export const makeAllSelector = (): Clause => all()
export const makePathSelector = (segments: readonly Segment[]): Clause => path(segments)
export const makeFieldSelector = (name: string): Clause => field(name)
export const makeLimitDepthSelector = limitDepth

function wholeNumber(text: string, of: string): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN
  if (Number.isNaN(value)) throw new TypeError(`${of} wants a whole number, got ${JSON.stringify(text.slice(0, 40))}`)
  return value
}

function pattern(text: string): Clause {
  const parts = segmentsOf(text)
  return (
    parts.reduceRight((below: Clause | undefined, part, at) => {
      if (part === '**') {
        if (at < parts.length - 1) throw new TypeError('** stands for all that is below: nothing can come after it')
        return all()
      }
      return part === '*' ? each(below) : field(part, below)
    }, undefined) ?? match()
  )
}

function unixfsText(text: string): Clause {
  const range = /\[(-?\d{0,15}):(-?\d{0,15})\]$/.exec(text)
  if (range !== null) {
    const [whole, from = '', to = ''] = range
    if (from === '-' || to === '-') throw new TypeError(`${whole} is no range of bytes`)
    return unixfsBytes(text.slice(0, -whole.length), Number(from), to === '' ? undefined : Number(to))
  }
  return text === '**' || text.endsWith('/**') ? unixfs(text.slice(0, -2), all()) : unixfs(text)
}

/**
 * The short form of the command line: `all`, `root`, `depth:2`, `levels:2`, `leaves`, `path:a/b`, `a/b/*`, `a/**`,
 * `unixfs:dir/file`, `unixfs:dir/file[0:1024]`, `unixfs:dir/**`, or DAG-JSON. Throws TypeError for anything else, and what
 * the codec throws. What it gives is not checked yet: parseSelector does.
 */
export function selectorFromText(text: string): IpldNode {
  const trimmed = text.trim()
  if (trimmed.startsWith('{')) {
    const json = codecs.byName('dag-json')
    if (json === undefined) throw new TypeError('the codec dag-json is not registered')
    return json.decode(fromUtf8(trimmed))
  }
  switch (trimmed) {
    case 'all':
      return all()
    case 'root':
      return root()
    case 'leaves':
      return rawLeaves()
    default:
  }
  const colon = trimmed.indexOf(':')
  const rest = trimmed.slice(colon + 1)
  switch (colon === -1 ? '' : trimmed.slice(0, colon)) {
    case 'depth':
      return depth(wholeNumber(rest, 'depth:'))
    case 'levels':
      return levels(wholeNumber(rest, 'levels:'))
    case 'path':
      return path(rest)
    case 'unixfs':
      return unixfsText(rest)
    default:
  }
  if (/[/*]/.test(trimmed)) return pattern(trimmed)
  throw new TypeError(
    `${JSON.stringify(text.slice(0, 80))} is no selector: want all, root, leaves, depth:N, levels:N, path:a/b, a/*, ` +
      'unixfs:path[from:to] or DAG-JSON',
  )
}
