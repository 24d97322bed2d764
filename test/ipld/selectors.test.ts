import { afterEach, describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { errorCode, LimitError } from '../../src/errors.ts'
import { type CID, codec } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import { childOf, type IpldNode, isList } from '../../src/ipld/model.ts'
import {
  parseSelector,
  printSelector,
  registerSelector,
  selectorFromBytes,
  selectorToBytes,
  type SelectorKind,
  unregisterSelector,
} from '../../src/ipld/selector-parse.ts'
import {
  makeAllSelector,
  makeFieldSelector,
  makeLimitDepthSelector,
  makePathSelector,
  makeSimpleSelector,
  selectorFromText,
  selectors,
} from '../../src/ipld/selectors.ts'
import { Dag, walked } from './dag.ts'

function codeOf(run: () => unknown): unknown {
  try {
    run()
    return 'no error'
  } catch (error) {
    return error instanceof LimitError ? error.limit : errorCode(error)
  }
}

/** root -> a, b; a -> deep. */
function threeLevels() {
  const dag = new Dag()
  const deep = dag.put({ end: true })
  const a = dag.put({ below: deep, list: [1, 2, 3] })
  const b = dag.put('a string of some length')
  const root = dag.put({ a, b })
  const name = new Map([
    [root.toString(), 'root'],
    [a.toString(), 'a'],
    [b.toString(), 'b'],
    [deep.toString(), 'deep'],
  ])
  const blocks = (selector: IpldNode) => walked(dag, root, selector).loads.map((cid) => name.get(cid))
  const paths = (selector: IpldNode) => walked(dag, root, selector).matches.map(({ path }) => path)
  return { dag, root, a, b, deep, blocks, paths }
}

/** The first `n` elements of a list. */
const first: SelectorKind = (body, parse) => {
  const n = childOf(body, 'n')
  const below = childOf(body, '>')
  if (typeof n !== 'number' || below === undefined) throw new TypeError('first wants n and >')
  const next = parse(below)
  return {
    width: 1,
    interests: (node) => (Array.isArray(node) ? [...node.keys()].slice(0, n) : []),
    explore: (node, segment) => (isList(node as IpldNode) && Number(segment) < n ? next : undefined),
    decide: () => undefined,
    print: () => ({ first: { n, '>': next.print() } }),
  }
}
describe('selectors made by hand', () => {
  const { blocks, paths, deep } = threeLevels()

  it.each<[string, IpldNode, string[], string[]]>([
    ['root', selectors.root(), ['root'], ['']],
    [
      'all',
      selectors.all(),
      ['root', 'a', 'deep', 'b'],
      ['', 'a', 'a/list', 'a/list/0', 'a/list/1', 'a/list/2', 'a/below', 'a/below/end', 'b'],
    ],
    ['depth(0)', selectors.depth(0), ['root'], ['']],
    ['depth(1)', selectors.depth(1), ['root', 'a', 'b'], ['', 'a', 'b']],
    ['path', selectors.path('a/below/end'), ['root', 'a', 'deep'], ['a/below/end']],
    ['path of an index', selectors.path(['a', 'list', 1]), ['root', 'a'], ['a/list/1']],
    ['a path that leads nowhere', selectors.path('a/x'), ['root', 'a'], []],
    ['field', selectors.field('b'), ['root', 'b'], ['b']],
    [
      'fields, in their order',
      selectors.fields({ b: selectors.match(), a: selectors.match() }),
      ['root', 'b', 'a'],
      ['b', 'a'],
    ],
    ['range', selectors.path('a/list', selectors.range(1, 9)), ['root', 'a'], ['a/list/1', 'a/list/2']],
    ['index', selectors.path('a/list', selectors.index(2)), ['root', 'a'], ['a/list/2']],
    [
      'all, but stop at a link',
      selectors.all({ stopAt: { '/': deep } }),
      ['root', 'a', 'b'],
      ['', 'a', 'a/list', 'a/list/0', 'a/list/1', 'a/list/2', 'b'],
    ],
    [
      'when',
      selectors.each(selectors.when({ hasField: 'list' }, selectors.field('below'))),
      ['root', 'a', 'deep', 'b'],
      ['a/below'],
    ],
    ['onlyIf', selectors.each(selectors.match({ onlyIf: { '%': 'string' } })), ['root', 'a', 'b'], ['b']],
    ['makeSimpleSelector', makeSimpleSelector(), ['root'], ['']],
    ['makePathSelector', makePathSelector(['a', 'below']), ['root', 'a', 'deep'], ['a/below']],
    ['makeFieldSelector', makeFieldSelector('b'), ['root', 'b'], ['b']],
    ['makeLimitDepthSelector', makeLimitDepthSelector(makeAllSelector(), 1), ['root', 'a', 'b'], ['', 'a', 'b']],
  ])('%s', (_, selector, loads, matched) => {
    expect(blocks(selector)).toEqual(loads)
    expect(paths(selector)).toEqual(matched)
  })

  it('give the first label, and the part of the bytes that was asked for', () => {
    const { dag, b } = threeLevels()
    const labelled = selectors.union(selectors.match({ label: 'x', subset: [2, -7] }), selectors.match({ label: 'y' }))
    expect(walked(dag, b, labelled).matches).toEqual([{ path: '', node: 'string of some', label: 'x' }])
    const beyond = selectors.union(selectors.match({ label: 'x', subset: [99] }), selectors.match({ label: 'y' }))
    expect(walked(dag, b, beyond).matches).toEqual([{ path: '', node: 'a string of some length', label: 'y' }])
  })

  it('levels counts the links of dag-pb', () => {
    const dag = new Dag()
    const put = (...links: CID[]) => dag.put({ Links: links.map((Hash) => ({ Hash, Name: 'x' })) }, codec.dagPb)
    const root = put(put(put(put())))
    expect(walked(dag, root, selectors.levels(0)).loads).toHaveLength(1)
    expect(walked(dag, root, selectors.levels(2)).loads).toHaveLength(3)
    expect(walked(dag, root, selectors.depth(3)).loads).toHaveLength(2)
  })
})

describe('the text of a selector', () => {
  it.each<[string, IpldNode]>([
    ['all', selectors.all()],
    [' root ', selectors.root()],
    ['leaves', selectors.rawLeaves()],
    ['depth:3', selectors.depth(3)],
    ['levels:2', selectors.levels(2)],
    ['path:a/b', selectors.path(['a', 'b'])],
    ['path:all', selectors.field('all')],
    ['a/b/*', selectors.path('a/b', selectors.each())],
    ['*', selectors.each()],
    ['*/x', selectors.each(selectors.field('x'))],
    ['a/**', selectors.path('a', selectors.all())],
    ['unixfs:', selectors.unixfs()],
    ['unixfs:dir/file', selectors.unixfs(['dir', 'file'])],
    ['unixfs:dir/file[0:1024]', selectors.unixfsBytes('dir/file', 0, 1024)],
    ['unixfs:file[-100:]', selectors.unixfsBytes('file', -100)],
    ['unixfs:[:10]', selectors.unixfsBytes('', 0, 10)],
    ['unixfs:dir/**', selectors.unixfs('dir', selectors.all())],
    ['{"a":{">":{".":{}}}}', selectors.each()],
    ['{"selector":{".":{}}}', { selector: { '.': {} } }],
  ])('%s', (text, clause) => {
    expect(selectorFromText(text)).toEqual(clause)
    parseSelector(selectorFromText(text))
  })

  it.each(['', 'al', 'depth:', 'depth:-1', 'depth:1.5', 'depth:x', 'unixfs:a[-:3]', '**/a', 'limit:3'])(
    '%j is none',
    (text) => {
      expect(() => selectorFromText(text)).toThrow(TypeError)
    },
  )

  it('names what can be written', () => {
    expect(() => selectorFromText('everything')).toThrow(/"everything" is no selector: want all, root/)
    expect(codeOf(() => selectorFromText('{"a":'))).toBe('bad-block')
  })
})

function wide(members: number): IpldNode {
  return { '|': Array.from({ length: members }, () => ({ '.': {} })) }
}

describe('parseSelector', () => {
  it.each<[string, IpldNode]>([
    ['a scalar', 5],
    ['an empty map', {}],
    ['two keys', { '.': {}, a: { '>': { '.': {} } } }],
    ['an unknown kind', { x: {} }],
    ['the name of what every object has', { constructor: {} }],
    ['an edge alone', { '@': {} }],
    ['an edge behind a recursion', { '|': [{ R: { l: { none: {} }, ':>': { '@': {} } } }, { '@': {} }] }],
    ['a recursion without an edge', { R: { l: { none: {} }, ':>': { '.': {} } } }],
    [
      'a recursion whose edge is that of another inside',
      { R: { l: { none: {} }, ':>': { R: { l: { none: {} }, ':>': { '@': {} } } } } },
    ],
    ['a recursion without a limit', { R: { ':>': { '@': {} } } }],
    ['an unknown limit', { R: { l: { width: 3 }, ':>': { '@': {} } } }],
    ['an unknown condition to stop at', { R: { l: { none: {} }, ':>': { '@': {} }, '!': { x: 1 } } }],
    ['a union that is a map', { '|': {} }],
    ['explore all without a next', { a: {} }],
    ['fields that are a list', { f: { 'f>': [] } }],
    ['an index that is a string', { i: { i: '1', '>': { '.': {} } } }],
    ['an index above 64 bits', { i: { i: 2n ** 63n, '>': { '.': {} } } }],
    ['an empty range', { r: { '^': 3, $: 3, '>': { '.': {} } } }],
    ['a subset without an end', { '.': { subset: { '[': 0 } } }],
    ['a subset that ends before it begins', { '.': { subset: { '[': 5, ']': 4 } } }],
    ['a label that is a number', { '.': { label: 5 } }],
    ['a condition that nobody knows', { '.': { onlyIf: { maybe: true } } }],
    ['conditions that are a map', { '&': { '&': { and: {} }, '>': { '.': {} } } }],
    ['an unnamed view', { '~': { as: 5, '>': { '.': {} } } }],
    ['an envelope in an envelope', { selector: { selector: { '.': {} } } }],
    ['an envelope with more in it', { selector: { '.': {} }, '.': {} }],
  ])('refuses %s', (_, node) => {
    expect(codeOf(() => parseSelector(node))).toBe('bad-selector')
  })

  it('takes keys that it does not know, as go does, and does not print them', () => {
    const odd = { a: { '>': { '.': { more: 1 } }, less: 2 } }
    expect(printSelector(parseSelector(odd))).toEqual({ a: { '>': { '.': {} } } })
  })

  it('keeps the order of fields as written in DAG-JSON, index-like ones too', () => {
    const text = '{"f":{"f>":{"b":{".":{}},"10":{".":{}},"a":{".":{}},"2":{".":{}}}}}'
    const dag = new Dag()
    const root = dag.put({ a: 1, b: 2, '2': 3, '10': 4 })
    const json = codecs.byName('dag-json')
    const parsed = parseSelector(json?.decode(fromUtf8(text)) ?? null)
    expect(walked(dag, root, parsed).matches.map(({ path }) => path)).toEqual(['b', '10', 'a', '2'])
    // DAG-CBOR sorts by length first.
    const sorted = selectorFromBytes(selectorToBytes(parsed))
    expect(walked(dag, root, sorted).matches.map(({ path }) => path)).toEqual(['2', 'a', 'b', '10'])
  })

  it('limits bytes, clauses and nesting', () => {
    let deep: IpldNode = { '.': {} }
    for (let i = 0; i < 255; i++) deep = { a: { '>': deep } }
    parseSelector(deep)
    expect(codeOf(() => parseSelector({ a: { '>': deep } }))).toBe('maxNesting')
    let conditions: IpldNode = { '=': 1 }
    for (let i = 0; i < 300; i++) conditions = { and: [conditions] }
    expect(codeOf(() => parseSelector({ '.': { onlyIf: conditions } }))).toBe('maxNesting')
    parseSelector(wide(4095))
    expect(codeOf(() => parseSelector(wide(4096)))).toBe('maxClauses')
    expect(codeOf(() => parseSelector(wide(4), { maxClauses: 4 }))).toBe('maxClauses')
    expect(codeOf(() => selectorFromBytes(new Uint8Array(65_537)))).toBe('maxBytes')
  })
})

describe('a kind of clause of one’s own', () => {
  afterEach(() => void unregisterSelector('first'))

  const declared: IpldNode = { a: { '>': { first: { n: 2, '>': { '.': {} } } } } }

  it('is walked once it is registered, and printed', () => {
    expect(codeOf(() => parseSelector(declared))).toBe('bad-selector')
    registerSelector('first', first)
    const dag = new Dag()
    const root = dag.put([[1, 2, 3], ['x'], 'no list'])
    expect(walked(dag, root, declared).matches.map(({ path }) => path)).toEqual(['0/0', '0/1', '1/0'])
    expect(printSelector(parseSelector(declared))).toEqual(declared)
  })

  it('can be a place to begin a recursion again', () => {
    registerSelector('first', first)
    const dag = new Dag()
    const leaf = dag.put([7, 8, 9])
    const root = dag.put([leaf, 5, leaf])
    const again = selectors.recursive(selectors.union(selectors.match(), { first: { n: 2, '>': selectors.edge } }))
    expect(walked(dag, root, again).matches.map(({ path }) => path)).toEqual(['', '0', '0/0', '0/1', '1'])
  })

  it('can be of a table of one’s own, and takes no key that is taken', () => {
    const kinds = new Map<string, SelectorKind>()
    registerSelector('first', first, kinds)
    parseSelector(declared, { kinds })
    expect(codeOf(() => parseSelector(declared))).toBe('bad-selector')
    expect(() => registerSelector('first', first, kinds)).toThrow(TypeError)
    for (const key of ['.', 'R', '@', 'selector']) expect(() => registerSelector(key, first)).toThrow(TypeError)
  })
})
