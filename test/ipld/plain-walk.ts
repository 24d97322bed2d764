/*
 * The slow plain twin of selectors and walk: recursive, straight over the declarations, every range and union spelled out,
 * written from the text of the spec and of go-ipld-prime's walk.go. Knows no views and no registered kinds.
 */
import type { CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import { type IpldMap, type IpldNode, isLink, keysOf, kindOf, type Segment } from '../../src/ipld/model.ts'
import type { Dag } from './dag.ts'

/** A clause under way: a declaration, a union of states, a recursion that has got somewhere. */
type State =
  | { is: 'clause'; clause: IpldMap }
  | { is: 'union'; members: State[] }
  | { is: 'recursion'; body: IpldMap; current: State; depth: number }

function get(map: IpldNode | undefined, key: string): IpldNode | undefined {
  return (map as IpldMap | undefined)?.[key]
}

function start(clause: IpldMap): State {
  if ('|' in clause) return { is: 'union', members: (clause['|'] as IpldMap[]).map((member) => start(member)) }
  if ('R' in clause) {
    const body = clause['R'] as IpldMap
    const depth = get(body['l'], 'depth')
    return {
      is: 'recursion',
      body,
      current: start(body[':>'] as IpldMap),
      depth: depth === undefined ? Infinity : Number(depth),
    }
  }
  return { is: 'clause', clause }
}

function interests(state: State, node: IpldNode): Segment[] | null {
  if (state.is === 'recursion') return interests(state.current, node)
  if (state.is === 'union') {
    const all = state.members.map((member) => interests(member, node))
    return all.includes(null) ? null : (all as Segment[][]).flat()
  }
  const [[key, body] = ['', null]] = Object.entries(state.clause)
  switch (key) {
    case 'a':
      return null
    case 'f':
      return [...keysOf(get(body, 'f>') as IpldMap)]
    case 'i':
      return [Number(get(body, 'i'))]
    case 'r': {
      const out: Segment[] = []
      for (let i = Math.max(0, Number(get(body, '^'))); i < Number(get(body, '$')); i++) out.push(i)
      return out
    }
    case '&':
      return holds(get(body, '&') as IpldMap, node) ? interests(start(get(body, '>') as IpldMap), node) : []
    default:
      return []
  }
}

function hasEdge(state: State): boolean {
  if (state.is === 'union') return state.members.some((member) => hasEdge(member))
  return state.is === 'clause' && '@' in state.clause
}

function replaceEdge(state: State, by: State | null): State | null {
  if (state.is === 'clause' && '@' in state.clause) return by
  if (state.is !== 'union') return state
  return unionOf(state.members.map((member) => replaceEdge(member, by)))
}

function unionOf(states: (State | null)[]): State | null {
  const members = states.filter((state) => state !== null)
  return members.length > 1 ? { is: 'union', members } : (members[0] ?? null)
}

function toIndex(segment: Segment): number | null {
  return /^\d+$/.test(String(segment)) ? Number(segment) : null
}

function explore(state: State, node: IpldNode, segment: Segment, child: IpldNode): State | null {
  if (state.is === 'union') return unionOf(state.members.map((member) => explore(member, node, segment, child)))
  if (state.is === 'recursion') {
    const { body, current, depth } = state
    if (body['!'] !== undefined && holds(body['!'] as IpldMap, child)) return null
    const next = explore(current, node, segment, child)
    if (next === null) return null
    if (!hasEdge(next)) return { is: 'recursion', body, current: next, depth }
    if (depth < 2) return replaceEdge(next, null)
    const again = replaceEdge(next, start(body[':>'] as IpldMap))
    return again === null ? null : { is: 'recursion', body, current: again, depth: depth - 1 }
  }
  const [[key, body] = ['', null]] = Object.entries(state.clause)
  switch (key) {
    case 'a':
    case '~':
      return start(get(body, '>') as IpldMap)
    case 'f': {
      const next = get(get(body, 'f>'), String(segment))
      return next === undefined ? null : start(next as IpldMap)
    }
    case 'i':
      if (!Array.isArray(node) || toIndex(segment) !== Number(get(body, 'i'))) return null
      return start(get(body, '>') as IpldMap)
    case 'r': {
      const index = toIndex(segment)
      if (!Array.isArray(node) || index === null) return null
      if (index < Number(get(body, '^')) || index >= Number(get(body, '$'))) return null
      return start(get(body, '>') as IpldMap)
    }
    case '&':
      if (!holds(get(body, '&') as IpldMap, node)) return null
      return explore(start(get(body, '>') as IpldMap), node, segment, child)
    default:
      return null
  }
}

function equal(a: IpldNode, b: IpldNode): boolean {
  if (isLink(a)) return isLink(b) && a.equals(b)
  return shown(a) === shown(b) && kindOf(a) === kindOf(b) && (a === b || a instanceof Uint8Array)
}

function holds(condition: IpldMap, node: IpldNode): boolean {
  const [[key, body] = ['', null]] = Object.entries(condition)
  switch (key) {
    case '/':
      return isLink(node) && node.equals(body)
    case 'hasField':
      return lookup(node, body as string) !== undefined
    case '=':
      return equal(node, body)
    case '%':
      return kindOf(node) === body
    case 'greaterThan':
      return typeof node === 'number' && node > Number(body)
    case 'lessThan':
      return typeof node === 'number' && node < Number(body)
    case 'and':
      return (body as IpldMap[]).every((part) => holds(part, node))
    case 'or':
      return (body as IpldMap[]).some((part) => holds(part, node))
    default:
      throw new Error(`condition ${key}`)
  }
}

/** Strings and bytes as ` hex`, other nodes as nothing. */
export function shown(node: unknown): string {
  return typeof node === 'string' || node instanceof Uint8Array ? ` ${Buffer.from(node as string).toString('hex')}` : ''
}

/** What of the node is matched, as text; null: it is not. */
function decide(state: State, node: IpldNode): string | null {
  if (state.is === 'recursion') return decide(state.current, node)
  if (state.is === 'union') {
    for (const member of state.members) {
      const found = decide(member, node)
      if (found !== null) return found
    }
    return null
  }
  const [[key, body] = ['', null]] = Object.entries(state.clause)
  if (key === '&') return holds(get(body, '&') as IpldMap, node) ? decide(start(get(body, '>') as IpldMap), node) : null
  if (key !== '.') return null
  const onlyIf = get(body, 'onlyIf')
  if (onlyIf !== undefined && !holds(onlyIf as IpldMap, node)) return null
  const label = (get(body, 'label') ?? '') as string
  const subset = get(body, 'subset')
  if (subset === undefined) return `${label}${shown(node)}`
  if (typeof node !== 'string' && !(node instanceof Uint8Array)) return null
  const bytes = Buffer.from(node as string)
  let from = Number(get(subset, '['))
  let to = Number(get(subset, ']'))
  if (to < 0) to += bytes.length
  else if (to > bytes.length) to = bytes.length
  if (from < 0) from = Math.max(0, from + bytes.length)
  if (from > to || from >= bytes.length) return null
  return `${label} ${Buffer.from(typeof node === 'string' ? bytes.subarray(from, to).toString() : bytes.subarray(from, to)).toString('hex')}`
}

function lookup(node: IpldNode, segment: Segment): IpldNode | undefined {
  if (Array.isArray(node)) {
    const index = toIndex(segment)
    return index === null ? undefined : (node[index] as IpldNode | undefined)
  }
  if (kindOf(node) !== 'map') return undefined
  return Object.getOwnPropertyDescriptor(node, String(segment))?.value as IpldNode | undefined
}

export class TooMuch extends Error {}

/** `load CID path`, `missing CID path`, `match path what`, `visit path`, in order. Throws TooMuch above `maxNodes`. */
export function plainWalk(
  dag: Dag,
  root: CID,
  selector: IpldMap,
  { visitOnce = false, maxNodes = Infinity } = {},
): string[] {
  const log: string[] = []
  const followed = new Set<string>()
  let nodes = 0

  function load(cid: CID, state: State, path: Segment[]): void {
    const bytes = dag.get(cid)
    log.push(`${bytes === undefined ? 'missing' : 'load'} ${cid} ${path.join('/')}`)
    if (bytes !== undefined) visit(codecs.decode(cid, bytes), state, path)
  }

  function visit(node: IpldNode, state: State, path: Segment[]): void {
    if (++nodes > maxNodes) throw new TooMuch()
    const found = decide(state, node)
    log.push(found === null ? `visit ${path.join('/')}` : `match ${path.join('/')} ${found}`)
    const kind = kindOf(node)
    if (kind !== 'list' && kind !== 'map') return
    const all = kind === 'list' ? [...(node as IpldNode[]).keys()] : keysOf(node as IpldMap)
    for (const segment of interests(state, node) ?? all) {
      const child = lookup(node, segment)
      if (child === undefined) continue
      const next = explore(state, node, segment, child)
      if (next === null) continue
      const below = [...path, segment]
      if (!isLink(child)) {
        visit(child, next, below)
      } else {
        if (visitOnce && followed.has(child.toString())) continue
        followed.add(child.toString())
        load(child, next, below)
      }
    }
  }

  load(root, start(selector), [])
  return log
}
