/*
 * Walks a DAG by a selector, sans-IO: a generator that yields what it needs and what it found, so that whoever has the
 * blocks decides when to load. Depth first, the order and the loads of go-ipld-prime 0.24 (traversal/walk.go), which both
 * ends of a GraphSync share. Left out: optional fields of dag-pb that are not there, which go visits as absent.
 * Held at a time: the decoded blocks on the way from the root to the current node, without those whose last child is being
 * walked; a view of a sharded directory 32 MiB more; with visitOnce every link that was followed.
 */
import { fromUtf8 } from '../bytes.ts'
import { LimitError, UnavailableError } from '../errors.ts'
import { type CID, codec } from './cid.ts'
import { codecs as standard, type Codecs } from './codecs.ts'
import { childOf, type IpldMap, type IpldNode, isLink, keysOf, type Segment } from './model.ts'
import type { Match, Selector } from './selector.ts'
import { type Reify, unixfsViews } from './unixfs-view.ts'
import { type Asking, type Entry, isView, type MapView, type Seen } from './view.ts'

export type { BytesView, MapView, Seen, View } from './view.ts'

export type Step =
  /** Needs the block: next(bytes) with bytes that hash to the CID, or 'missing', or 'skip' to leave it out on purpose. */
  | { readonly kind: 'load'; readonly cid: CID; readonly path: readonly Segment[] }
  /** A node that was matched. Of a BytesView the bytes come next, as `bytes` steps. next(). */
  | {
      readonly kind: 'match'
      readonly path: readonly Segment[]
      readonly node: Seen
      readonly label: string | undefined
      /** What of a BytesView was matched: [from, to). What was matched of strings and bytes is `node` already. */
      readonly subset: { readonly from: number; readonly to: number } | undefined
    }
  /** The next bytes of the file that was matched last; `offset` is theirs in the file. next(). */
  | { readonly kind: 'bytes'; readonly path: readonly Segment[]; readonly offset: number; readonly bytes: Uint8Array }
  /** A node that was passed, not matched; only with the option `visits`. next(). */
  | { readonly kind: 'visit'; readonly path: readonly Segment[]; readonly node: Seen }

export type Answer = Uint8Array | 'missing' | 'skip'

export interface WalkBudget {
  /** Blocks asked for, repeated and missing ones too. Default: no limit. */
  blocks?: number | undefined
  /** Bytes of the blocks. Default: no limit. */
  bytes?: number | undefined
  /** Nodes visited. Default: no limit. A few blocks can hold more than anybody can visit. */
  nodes?: number | undefined
  /** Segments of a path. Default 100,000. */
  depth?: number | undefined
  /** Clauses of the selector that are evaluated, over all nodes. Default: 32 times `nodes`, at least 65,536. */
  steps?: number | undefined
}

export interface WalkSummary {
  blocks: number
  bytes: number
  nodes: number
  matches: number
  /** Blocks answered with 'missing'. */
  missing: number
}

export interface WalkOptions {
  budget?: WalkBudget | undefined
  /** A link that was followed once is not followed again, whatever the selector would want there. Default false. */
  visitOnce?: boolean | undefined
  /** Also yield `visit` steps. Default false. */
  visits?: boolean | undefined
  codecs?: Pick<Codecs, 'decode'> | undefined
  /** What InterpretAs knows. Default: unixfs, unixfs-preload. */
  views?: ReadonlyMap<string, Reify> | undefined
}

export type Walk = Generator<Step, WalkSummary, Answer | undefined>

const defaultDepth = 100_000
const stepsPerNode = 32
const leastSteps = 65_536

/** A path from its end: only who asks for it pays for it. */
class Path {
  readonly #above: Path | undefined
  readonly #segment: Segment
  readonly depth: number

  constructor(above: Path | undefined, segment: Segment) {
    this.#above = above
    this.#segment = segment
    this.depth = (above?.depth ?? 0) + 1
  }

  static segments(path: Path | undefined): Segment[] {
    const out: Segment[] = []
    for (let at = path; at !== undefined; at = at.#above) out.push(at.#segment)
    return out.toReversed()
  }
}

class Load {
  readonly kind = 'load'
  readonly cid: CID
  readonly #path: Path | undefined

  constructor(cid: CID, path: Path | undefined) {
    this.cid = cid
    this.#path = path
  }

  get path(): Segment[] {
    return Path.segments(this.#path)
  }
}

class Found {
  readonly kind = 'match'
  readonly node: Seen
  readonly label: string | undefined
  readonly subset: { from: number; to: number } | undefined
  readonly #path: Path | undefined

  constructor(node: Seen, { label, subset }: Match, path: Path | undefined) {
    this.node = subset === undefined || isView(node) ? node : slice(node, subset.from, subset.to)
    this.label = label
    this.subset = isView(node) ? subset : undefined
    this.#path = path
  }

  get path(): Segment[] {
    return Path.segments(this.#path)
  }
}

const lossy = new TextDecoder('utf-8', { ignoreBOM: true })

/** A cut inside a character leaves replacement characters. */
function slice(node: IpldNode, from: number, to: number): IpldNode {
  if (typeof node === 'string') return lossy.decode(fromUtf8(node).subarray(from, to))
  return (node as Uint8Array).subarray(from, to)
}

class Visited {
  readonly kind = 'visit'
  readonly node: Seen
  readonly #path: Path | undefined

  constructor(node: Seen, path: Path | undefined) {
    this.node = node
    this.#path = path
  }

  get path(): Segment[] {
    return Path.segments(this.#path)
  }
}

class Bytes {
  readonly kind = 'bytes'
  readonly offset: number
  readonly bytes: Uint8Array
  readonly #path: Path | undefined

  constructor(offset: number, bytes: Uint8Array, path: Path | undefined) {
    this.offset = offset
    this.bytes = bytes
    this.#path = path
  }

  get path(): Segment[] {
    return Path.segments(this.#path)
  }
}

/** What was spent, and how much may be. */
class Meter {
  readonly summary: WalkSummary = { blocks: 0, bytes: 0, nodes: 0, matches: 0, missing: 0 }
  readonly #budget: Required<{ [K in keyof WalkBudget]: number }>
  #asked = 0
  #steps = 0

  constructor(budget: WalkBudget = {}) {
    const { blocks = Infinity, bytes = Infinity, nodes = Infinity, depth = defaultDepth } = budget
    const { steps = Math.max(leastSteps, stepsPerNode * nodes) } = budget
    this.#budget = { blocks, bytes, nodes, depth, steps }
    for (const [name, value] of Object.entries(this.#budget))
      if (!(value >= 0)) throw new RangeError(`budget.${name} is ${value}, want 0 or more`)
  }

  ask(): void {
    if (++this.#asked > this.#budget.blocks) throw new LimitError('blocks', this.#budget.blocks, this.#asked)
  }

  /** The answer to a load: the bytes, or undefined where there are none. */
  block(answer: Answer | undefined): Uint8Array | undefined {
    if (!(answer instanceof Uint8Array)) {
      if (answer === undefined) throw new TypeError('a load was not answered')
      if (answer === 'missing') this.summary.missing++
      return undefined
    }
    this.summary.blocks++
    this.summary.bytes += answer.length
    if (this.summary.bytes > this.#budget.bytes) throw new LimitError('bytes', this.#budget.bytes, this.summary.bytes)
    return answer
  }

  node(): void {
    if (++this.summary.nodes > this.#budget.nodes) throw new LimitError('nodes', this.#budget.nodes, this.summary.nodes)
  }

  step(width: number): void {
    this.#steps += width
    if (this.#steps > this.#budget.steps) throw new LimitError('steps', this.#budget.steps, this.#steps)
  }

  deeper(depth: number): void {
    if (depth > this.#budget.depth) throw new LimitError('depth', this.#budget.depth, depth)
  }
}

/** Runs what a view asks: its blocks are loaded as those of the walk. */
function* serve<Result>(asking: Asking<never, Result>, path: Path | undefined, meter: Meter) {
  let step = asking.next()
  while (step.done !== true) {
    meter.ask()
    step = asking.next(meter.block(yield new Load(step.value.want, path)))
  }
  return step.value
}

type Container = readonly IpldNode[] | IpldMap | MapView

/** A node whose children are being walked. */
interface Frame {
  readonly node: Container
  readonly selector: Selector
  readonly path: Path | undefined
  /** The segments to look at: a list of them, or one after the other; if neither, all of a list or of a view. */
  readonly segments: readonly Segment[] | undefined
  readonly more: Iterator<Segment> | undefined
  readonly entries: ReturnType<MapView['entries']> | undefined
  at: number
}

/** Undefined where there is nothing to look at. */
function open(node: Container, selector: Selector, path: Path | undefined): Frame | undefined {
  const wanted = selector.interests(node)
  let segments: readonly Segment[] | undefined
  let more: Iterator<Segment> | undefined
  let entries: ReturnType<MapView['entries']> | undefined
  if (wanted !== undefined) {
    if (Array.isArray(wanted)) segments = wanted as readonly Segment[]
    else more = wanted[Symbol.iterator]()
  } else if (isView(node)) entries = node.entries()
  else if (Array.isArray(node)) {
    if (node.length === 0) return undefined
  } else segments = keysOf(node as IpldMap)
  return segments?.length === 0 ? undefined : { node, selector, path, segments, more, entries, at: 0 }
}

function isContainer(node: Seen): node is Container {
  if (typeof node !== 'object' || node === null || node instanceof Uint8Array) return false
  return isView(node) ? node.view === 'map' : !isLink(node)
}

/**
 * The walk from `root`, whose block is the first one loaded. Answers belong to `load` steps alone. A missing block is left
 * out with what is below it, and the walk goes on. Throws LimitError past a budget, ProtocolError for a block that does not
 * decode or contradicts itself, UnavailableError `unsupported` for a codec or view that we do not have.
 */
export function* walk(root: CID, selector: Selector, options: WalkOptions = {}): Walk {
  const { visitOnce = false, visits = false, codecs = standard, views = unixfsViews } = options
  const meter = new Meter(options.budget)
  const { summary } = meter
  const followed = new Set<string>()
  const stack: Frame[] = []

  // The node in hand, where it lies, and how to go on there.
  let node: IpldNode | undefined = root
  let current = selector
  let above: Path | undefined
  let segment: Segment | undefined

  for (;;) {
    if (node !== undefined) {
      meter.deeper(segment === undefined ? 0 : (above?.depth ?? 0) + 1)
      let path: Path | undefined
      let seen: Seen | undefined = node
      // Most nodes are scalars, and nobody asks for the path of most of them.
      if (typeof node === 'object' && node !== null && !(node instanceof Uint8Array)) {
        if (segment !== undefined) path = new Path(above, segment)
        let cid: CID | undefined
        let block: Uint8Array | undefined
        if (isLink(node)) {
          cid = node
          seen = undefined
          if (!visitOnce || isNew(followed, cid)) {
            meter.ask()
            block = meter.block(yield new Load(cid, path))
            if (block !== undefined) seen = codecs.decode(cid, block)
          }
        }
        if (seen !== undefined) {
          meter.node()
          meter.step(current.width)
          const as: { as: string; next: Selector } | undefined = current.interpretAs?.(seen)
          if (as !== undefined) {
            const reify = views.get(as.as)
            if (reify === undefined)
              throw new UnavailableError('unsupported', `the selector asks for a view that we do not have: ${as.as}`)
            current = as.next
            if (cid?.code === codec.dagPb && block !== undefined)
              seen = yield* serve(reify({ cid, bytes: block, explored: explores(current, seen) }), path, meter)
          }
        }
      } else {
        meter.node()
        meter.step(current.width)
        // A scalar has no view.
        current = current.interpretAs?.(node)?.next ?? current
      }
      if (seen !== undefined) {
        const match = current.decide(seen)
        if (match !== undefined) {
          path ??= segment === undefined ? undefined : new Path(above, segment)
          summary.matches++
          yield new Found(seen, match, path)
          if (isView(seen) && seen.view === 'bytes') {
            const reading = seen.read(match.subset?.from ?? 0, match.subset?.to)
            let step = reading.next()
            while (step.done !== true) {
              if ('want' in step.value) {
                meter.ask()
                step = reading.next(meter.block(yield new Load(step.value.want, path)))
              } else {
                yield new Bytes(step.value.offset, step.value.bytes, path)
                step = reading.next()
              }
            }
          }
        } else if (visits) {
          path ??= segment === undefined ? undefined : new Path(above, segment)
          yield new Visited(seen, path)
        }
        if (isContainer(seen)) {
          const frame = open(seen, current, path)
          if (frame !== undefined) stack.push(frame)
        }
      }
      node = undefined
    }

    const frame = stack.at(-1)
    if (frame === undefined) return summary
    const { node: container, segments } = frame
    let child: IpldNode | undefined
    if (frame.entries !== undefined) {
      let step = frame.entries.next()
      while (step.done !== true && 'want' in step.value) {
        meter.ask()
        step = frame.entries.next(meter.block(yield new Load(step.value.want, frame.path)))
      }
      if (step.done === true) {
        stack.pop()
        continue
      }
      // The loop above has left no wants.
      ;({ segment, child } = step.value as Entry)
    } else {
      if (frame.more !== undefined) {
        const step = frame.more.next()
        segment = step.done === true ? undefined : step.value
      } else if (segments === undefined) {
        const { length } = container as readonly IpldNode[]
        segment = frame.at < length ? frame.at++ : undefined
        if (frame.at === length) stack.pop()
      } else {
        segment = segments[frame.at++]
        // Who walks a chain by its last link holds no block of it.
        if (frame.at === segments.length) stack.pop()
      }
      if (segment === undefined) {
        stack.pop()
        continue
      }
      if (isView(container)) child = yield* serve(container.lookup(segment), frame.path, meter)
      else child = childOf(container, segment)
    }
    meter.step(frame.selector.width)
    if (child === undefined) continue
    const next = frame.selector.explore(container, segment, child)
    if (next === undefined) continue
    node = child
    current = next
    above = frame.path
  }
}

function isNew(followed: Set<string>, cid: CID): boolean {
  const { size } = followed
  // The bytes as they are: base32 would cost more than the rest of the visit.
  return followed.add(String.fromCharCode(...cid.bytes)).size > size
}

/** Whether somebody may look below the node. */
function explores(selector: Selector, node: Seen): boolean {
  const wanted = selector.interests(node)
  return !Array.isArray(wanted) || wanted.length > 0
}
