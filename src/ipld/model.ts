/*
 * The IPLD Data Model (ipld.io docs/data-model) as JavaScript values. A map is an object, best one without a prototype.
 * JavaScript puts keys that look like array indexes first, whatever the block says; a decoder that meets such keys notes
 * the order of the block with setKeyOrder, and who walks asks keysOf. Whole floats and ints are the same number here.
 */
import { CID } from './cid.ts'

export type IpldNode = null | boolean | number | bigint | string | Uint8Array | CID | readonly IpldNode[] | IpldMap
export interface IpldMap {
  readonly [key: string]: IpldNode
}
export type Kind = 'null' | 'bool' | 'int' | 'float' | 'string' | 'bytes' | 'list' | 'map' | 'link'

/** One step of a path: a key of a map or an index of a list; '3' finds index 3 and 3 the key '3'. */
export type Segment = string | number

/** A CID of this copy of multiformats or of another: those have the mark `/`, the very array of their bytes. */
export function isLink(node: unknown): node is CID {
  if (node instanceof CID) return true
  if (typeof node !== 'object' || node === null) return false
  // No block decodes to a map that holds one array twice, so nothing in a block poses as a link.
  const { '/': mark, bytes } = node as { '/'?: unknown; bytes?: unknown }
  return mark instanceof Uint8Array && mark === bytes
}

export function isList(node: IpldNode): node is readonly IpldNode[] {
  return Array.isArray(node)
}

export function isMap(node: IpldNode): node is IpldMap {
  return kindOf(node) === 'map'
}

export function kindOf(node: IpldNode): Kind {
  switch (typeof node) {
    case 'string':
      return 'string'
    case 'number':
      return Number.isInteger(node) ? 'int' : 'float'
    case 'bigint':
      return 'int'
    case 'boolean':
      return 'bool'
    default:
      if (node === null) return 'null'
      if (Array.isArray(node)) return 'list'
      if (node instanceof Uint8Array) return 'bytes'
      return isLink(node) ? 'link' : 'map'
  }
}

const orders = new WeakMap<IpldMap, readonly string[]>()
const indexLike = /^(?:0|[1-9]\d{0,9})$/

/** For decoders: the keys of `map` in the block's order. Needed only when mustOrder(map). */
export function setKeyOrder(map: IpldMap, keys: readonly string[]): void {
  orders.set(map, keys)
}

/** Whether JavaScript may have changed the order of this map's keys. */
export function mustOrder(map: IpldMap): boolean {
  for (const first in map) return indexLike.test(first)
  return false
}

/** The keys in the order of the block that the map comes from. */
export function keysOf(map: IpldMap): readonly string[] {
  const keys = Object.keys(map)
  const first = keys[0]
  // Index-like keys come first if there are any.
  return first !== undefined && indexLike.test(first) ? (orders.get(map) ?? keys) : keys
}

/** A segment as an index, as go's strconv.ParseInt reads it; undefined where it is none. */
export function indexOf(segment: Segment): number | undefined {
  if (typeof segment === 'number') return segment
  return /^[+-]?\d{1,16}$/.test(segment) ? Number(segment) : undefined
}

/** The child of a list or map, or undefined where it has none (and for all other kinds). Finds own properties alone. */
export function childOf(node: IpldNode, segment: Segment): IpldNode | undefined {
  if (typeof node !== 'object' || node === null) return undefined
  if (isList(node)) {
    const index = indexOf(segment)
    return index === undefined || index < 0 ? undefined : node[index]
  }
  if (!isMap(node)) return undefined
  const key = String(segment)
  return Object.hasOwn(node, key) ? node[key] : undefined
}
