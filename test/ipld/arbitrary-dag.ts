/* Random DAGs and selectors over few names, so that they meet. */
import fc from 'fast-check'
import { type CID, codec } from '../../src/ipld/cid.ts'
import type { IpldMap, IpldNode } from '../../src/ipld/model.ts'
import { Dag } from './dag.ts'

const names = fc.constantFrom('a', 'b', '0', '1', '10', 'Links', 'Hash', 'Data', '')

/** A node with places for links: a number n stands for the block n further down, modulo what there is. */
type Draft = { link: number } | { scalar: IpldNode } | { list: Draft[] } | { map: [string, Draft][] }

const { draft } = fc.letrec<{ draft: Draft }>((tie) => ({
  draft: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.record({
      scalar: fc.oneof(
        fc.constantFrom<IpldNode>(null, true, false, 1.5),
        fc.integer({ min: -3, max: 12 }),
        fc.string({ maxLength: 6 }),
        fc.uint8Array({ maxLength: 6 }),
      ),
    }),
    fc.record({ link: fc.nat(9) }),
    fc.record({ list: fc.array(tie('draft'), { maxLength: 4 }) }),
    fc.record({ map: fc.array(fc.tuple(names, tie('draft')), { maxLength: 4 }) }),
  ),
}))

const pb = fc.record({
  links: fc.array(
    fc.record({
      to: fc.nat(9),
      name: fc.option(fc.constantFrom('a', 'b', '0'), { nil: undefined }),
      size: fc.option(fc.nat(9), { nil: undefined }),
    }),
    { maxLength: 3 },
  ),
  data: fc.option(fc.uint8Array({ maxLength: 4 }), { nil: undefined }),
})

type BlockDraft = { draft: Draft } | { pb: typeof pb extends fc.Arbitrary<infer T> ? T : never } | { raw: Uint8Array }

function nodeOf(draft: Draft, below: readonly CID[]): IpldNode {
  if ('scalar' in draft) return draft.scalar
  if ('list' in draft) return draft.list.map((item) => nodeOf(item, below))
  if ('map' in draft) return Object.fromEntries(draft.map.map(([key, value]) => [key, nodeOf(value, below)]))
  return below[draft.link % Math.max(1, below.length)] ?? 'no block to link to'
}

/** Blocks link to those before them; the root is the last one, or one that links to all. One may be taken out. */
export const dags: fc.Arbitrary<{ dag: Dag; root: CID }> = fc
  .tuple(
    fc.array(
      fc.oneof<[fc.Arbitrary<BlockDraft>, fc.Arbitrary<BlockDraft>, fc.Arbitrary<BlockDraft>]>(
        fc.record({ draft }),
        fc.record({ pb }),
        fc.record({ raw: fc.uint8Array({ maxLength: 8 }) }),
      ),
      { minLength: 1, maxLength: 10 },
    ),
    fc.option(fc.nat(9), { nil: undefined }),
    fc.boolean(),
  )
  .map(([blocks, missing, wrap]) => {
    const dag = new Dag()
    const cids: CID[] = []
    for (const block of blocks) {
      // The newest are nearest.
      const below = cids.toReversed()
      if ('raw' in block) cids.push(dag.putBytes(block.raw))
      else if ('draft' in block) cids.push(dag.put(nodeOf(block.draft, below)))
      else {
        const Links = block.pb.links.flatMap(({ to, name, size }) => {
          const Hash = below[to % Math.max(1, below.length)]
          if (Hash === undefined) return []
          return { Hash, ...(name !== undefined && { Name: name }), ...(size !== undefined && { Tsize: size }) }
        })
        cids.push(dag.put({ Links, ...(block.pb.data !== undefined && { Data: block.pb.data }) }, codec.dagPb))
      }
    }
    const [first = null, ...more] = cids.toReversed()
    const root = wrap ? dag.put({ a: first, Links: more, b: { 10: 1, a: first } }) : (first as CID)
    const gone = missing === undefined ? undefined : cids[missing]
    if (gone !== undefined && !gone.equals(root)) dag.delete(gone)
    return { dag, root }
  })

function conditions(): fc.Arbitrary<IpldMap> {
  const { condition } = fc.letrec<{ condition: IpldMap }>((tie) => ({
    condition: fc.oneof(
      { maxDepth: 2 },
      fc.record({ '%': fc.constantFrom('null', 'bool', 'int', 'float', 'string', 'bytes', 'list', 'map', 'link') }),
      fc.record({ hasField: names }),
      fc.record({ '=': fc.constantFrom<IpldNode>(null, true, 1.5, 1, 'a', '') }),
      fc.record({ greaterThan: fc.integer({ min: -3, max: 12 }) }),
      fc.record({ lessThan: fc.integer({ min: -3, max: 12 }) }),
      fc.record({ and: fc.array(tie('condition'), { maxLength: 2 }) }),
      fc.record({ or: fc.array(tie('condition'), { maxLength: 2 }) }),
    ),
  }))
  return condition
}

/** `plain`: only what go-ipld-prime parses and obeys. `stops`: links to stop at. */
export function selectors(stops: readonly CID[], { plain = false } = {}): fc.Arbitrary<IpldMap> {
  const condition = conditions()
  const stopAt: fc.Arbitrary<IpldMap> =
    stops.length === 0 ? fc.constant({ '/': 'never' }) : fc.constantFrom(...stops).map((cid): IpldMap => ({ '/': cid }))
  const subset = fc
    .tuple(fc.integer({ min: -8, max: 8 }), fc.integer({ min: -8, max: 8 }))
    .filter(([from, to]) => to < 0 || from <= to)
    .map(([from, to]): IpldMap => ({ '[': from, ']': to }))
  const matcher = fc
    .record({ subset, ...(!plain && { label: fc.constantFrom('x', 'y'), onlyIf: condition }) }, { requiredKeys: [] })
    .map((body): IpldMap => ({ '.': body as IpldMap }))
  const limit = fc.oneof(
    fc.constant<IpldMap>({ none: {} }),
    fc.integer({ min: -1, max: 6 }).map((depth): IpldMap => ({ depth })),
  )
  const edge: IpldMap = { '@': {} }

  function clause(size: number, inside: boolean): fc.Arbitrary<IpldMap> {
    const leaf: fc.Arbitrary<IpldMap> = inside ? fc.oneof(matcher, fc.constant(edge), fc.constant(edge)) : matcher
    if (size === 0) return leaf
    const next = clause(size - 1, inside)
    const some: fc.Arbitrary<IpldMap>[] = [
      leaf,
      next.map((below) => ({ a: { '>': below } })),
      fc
        .uniqueArray(fc.tuple(names, next), { maxLength: 3, selector: ([name]) => name })
        .map((fields) => ({ f: { 'f>': Object.fromEntries(fields) } })),
      fc.tuple(fc.integer({ min: 0, max: 3 }), next).map(([i, below]) => ({ i: { i, '>': below } })),
      fc
        .tuple(fc.integer({ min: -1, max: 3 }), fc.integer({ min: 1, max: 3 }), next)
        .map(([from, n, below]) => ({ r: { '^': from, $: from + n, '>': below } })),
      fc.array(next, { maxLength: 3 }).map((members) => ({ '|': members })),
      fc
        .tuple(clause(size - 1, true), limit, fc.option(stopAt, { nil: undefined, freq: 5 }))
        .map(([sequence, l, stop]) => ({
          R: { l, ':>': withEdge(sequence), ...(stop !== undefined && stops.length > 0 && { '!': stop }) },
        })),
    ]
    if (!plain) {
      some.push(
        fc.tuple(condition, next).map(([holds, below]) => ({ '&': { '&': holds, '>': below } })),
        fc
          .tuple(clause(size - 1, true), limit, condition)
          .map(([sequence, l, stop]) => ({ R: { l, ':>': withEdge(sequence), '!': stop } })),
      )
    }
    return fc.oneof(...some)
  }
  // Those that go far: everything below, and everything with something beside it.
  const far = fc.tuple(clause(2, true), limit).map(([beside, l]) => ({
    R: { l, ':>': { '|': [{ a: { '>': { '@': {} } } }, beside] } },
  }))
  return fc.oneof({ arbitrary: clause(4, false), weight: 2 }, { arbitrary: far, weight: 1 })
}

/** A recursion needs an edge that is its own. */
function withEdge(sequence: IpldMap): IpldMap {
  return ownEdge(sequence) ? sequence : { '|': [sequence, { a: { '>': { '@': {} } } }] }
}

function ownEdge(clause: IpldMap): boolean {
  const [[key, body] = ['', null]] = Object.entries(clause) as [string, IpldMap][]
  if (key === '@') return true
  if (key === 'R' || key === '.' || body === null) return false
  if (key === '|') return (body as unknown as IpldMap[]).some((member) => ownEdge(member))
  if (key === 'f') return Object.values(body['f>'] as IpldMap).some((member) => ownEdge(member as IpldMap))
  return ownEdge(body['>'] as IpldMap)
}
