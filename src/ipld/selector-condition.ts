/*
 * Conditions of selectors (ipld specs/selectors §Condition: a draft). go-ipld-prime has one of them, `/`, and the bodies of
 * the others are chosen here: hasField a name, `=` a scalar, `%` a kind, greaterThan and lessThan a number, and/or lists.
 * They look at one node and load nothing.
 */
import { equals } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { childOf, type IpldNode, isLink, isList, isMap, keysOf, type Kind, kindOf } from './model.ts'

export interface Condition {
  /** Conditions in it, itself too: what asking it costs. */
  readonly size: number
  holds(node: IpldNode): boolean
  print(): IpldNode
}

const kinds: readonly string[] = [
  'null',
  'bool',
  'int',
  'float',
  'string',
  'bytes',
  'list',
  'map',
  'link',
] satisfies Kind[]

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-selector', `condition: ${message}`)
}

function isScalar(node: IpldNode): boolean {
  return !isList(node) && !isMap(node)
}

/** Of scalars. An int is its value, whether number or bigint. */
function same(a: IpldNode, b: IpldNode): boolean {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && equals(a, b)
  if (isLink(a)) return isLink(b) && equals(a.bytes, b.bytes)
  if (typeof a === 'bigint' || typeof b === 'bigint')
    return (
      (typeof a === 'bigint' || typeof a === 'number') &&
      (typeof b === 'bigint' || typeof b === 'number') &&
      ordered(a, b) === 0
    )
  return a === b
}

function ordered(a: number | bigint, b: number | bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Exact between numbers and bigints, as the language compares them. */
function isNumber(node: IpldNode): node is number | bigint {
  return typeof node === 'number' || typeof node === 'bigint'
}

/** `count` is called once per condition, before it is looked at: it limits them. Throws ProtocolError `bad-selector`. */
export function parseCondition(node: IpldNode, count: (depth: number) => void, depth = 0): Condition {
  count(depth)
  if (!isMap(node)) throw bad(`a ${kindOf(node)}, want a map`)
  const [key, ...more] = keysOf(node)
  if (key === undefined || more.length > 0) throw bad(`${more.length + (key === undefined ? 0 : 1)} keys, want one`)
  const body = node[key] as IpldNode
  const one = { size: 1, print: () => ({ [key]: body }) }
  switch (key) {
    case '/': {
      if (!isLink(body)) throw bad(`"/" with a ${kindOf(body)}, want a link`)
      return { holds: (seen) => isLink(seen) && equals(seen.bytes, body.bytes), ...one }
    }
    case 'hasField': {
      if (typeof body !== 'string') throw bad(`"hasField" with a ${kindOf(body)}, want a string`)
      return { holds: (seen) => childOf(seen, body) !== undefined, ...one }
    }
    case '=': {
      if (!isScalar(body)) throw bad(`"=" with a ${kindOf(body)}, want a scalar`)
      return { holds: (seen) => same(seen, body), ...one }
    }
    case '%': {
      if (typeof body !== 'string' || !kinds.includes(body)) throw bad(`"%" without the name of a kind`)
      return { holds: (seen) => kindOf(seen) === body, ...one }
    }
    case 'greaterThan':
    case 'lessThan': {
      if (!isNumber(body)) throw bad(`"${key}" with a ${kindOf(body)}, want a number`)
      const wanted = key === 'lessThan' ? -1 : 1
      return { holds: (seen) => isNumber(seen) && ordered(seen, body) === wanted, ...one }
    }
    case 'and':
    case 'or': {
      if (!isList(body)) throw bad(`"${key}" with a ${kindOf(body)}, want a list`)
      const parts = body.map((part) => parseCondition(part, count, depth + 1))
      return {
        size: parts.reduce((sum, { size }) => sum + size, 1),
        holds: (seen) =>
          key === 'and' ? parts.every((part) => part.holds(seen)) : parts.some((part) => part.holds(seen)),
        print: () => ({ [key]: parts.map((part) => part.print()) }),
      }
    }
    default:
      throw bad(`${JSON.stringify(key.slice(0, 40))} is none that we know`)
  }
}
