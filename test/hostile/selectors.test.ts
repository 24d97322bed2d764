/* What selectors and DAGs from others can try: every walk ends by its budget, with a typed error, and without the stack. */
import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { LimitError, ProtocolError } from '../../src/errors.ts'
import { type CID, codec } from '../../src/ipld/cid.ts'
import { encodeNode, type PBLink } from '../../src/ipld/dag-pb.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { parseSelector, selectorFromBytes } from '../../src/ipld/selector-parse.ts'
import { selectors } from '../../src/ipld/selectors.ts'
import { walk } from '../../src/ipld/walk.ts'
import { Data, dataType } from '../../src/unixfs/data.ts'
import { Dag, walked } from '../ipld/dag.ts'

function failure(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return error
  }
  return undefined
}

function limitOf(run: () => unknown): unknown {
  const error = failure(run)
  return error instanceof LimitError ? error.limit : error
}

const explore = selectors.recursive(selectors.each(selectors.edge))
/** {"a": ` and so on, as DAG-CBOR: deeper than any parser's stack. */
function nestedBytes(levels: number): Uint8Array {
  const out = new Uint8Array(5 * levels + 4)
  for (let i = 0; i < levels; i++) out.set([0xa1, 0x61, 0x61, 0xa1, 0x61], 5 * i)
  return out
}

function file(links: PBLink[], blocksizes: number[]): Uint8Array {
  const filesize = blocksizes.reduce((a, b) => a + b, 0)
  return encodeNode({ links, data: Data.encode({ type: dataType.file, filesize, blocksizes }) })
}

function shard(links: PBLink[], fanout = 256, hashType = 0x22): Uint8Array {
  return encodeNode({
    links,
    data: Data.encode({ type: dataType.hamtShard, data: Uint8Array.of(1), hashType, fanout }),
  })
}

/** As walked, but asks for no paths: those of a chain are as long as the chain. */
function blocksOf(dag: Dag, root: CID, selector: IpldNode, budget = {}): number {
  const steps = walk(root, parseSelector(selector), { budget })
  let step = steps.next()
  while (step.done !== true) step = steps.next(step.value.kind === 'load' ? dag.get(step.value.cid) : undefined)
  return step.value.blocks
}

/** Every level links twice to the next one: 2^levels paths in so many blocks. */
function bomb(levels: number): { dag: Dag; root: CID } {
  const dag = new Dag()
  let root = dag.put('end')
  for (let i = 0; i < levels; i++) root = dag.put([root, root])
  return { dag, root }
}

/** Recursions in recursions, each with itself beside the next. */
function inside(levels: number): IpldNode {
  let nested = selectors.union(selectors.match(), selectors.each(selectors.edge))
  for (let i = 0; i < levels; i++) nested = selectors.recursive(selectors.union(nested, selectors.each(selectors.edge)))
  return nested
}

describe('a DAG', () => {
  it.each(['blocks', 'nodes', 'bytes', 'steps'])('of few blocks and 2^60 paths ends by the budget of %s', (name) => {
    const { dag, root } = bomb(60)
    expect(limitOf(() => walked(dag, root, explore, { budget: { [name]: 5000 } }))).toBe(name)
  })

  it('of few blocks and 2^60 paths is walked once with visitOnce', () => {
    const { dag, root } = bomb(60)
    expect(walked(dag, root, explore, { visitOnce: true }).loads).toHaveLength(61)
  })

  it('that is a chain of 50,000 blocks is walked to its end', () => {
    const dag = new Dag()
    let root = dag.put({ end: true })
    for (let i = 0; i < 50_000; i++) root = dag.put({ i, prev: root })
    expect(blocksOf(dag, root, selectors.recursive(selectors.field('prev', selectors.edge)))).toBe(50_001)
    expect(blocksOf(dag, root, explore)).toBe(50_001)
    expect(limitOf(() => blocksOf(dag, root, explore, { depth: 1000 }))).toBe('depth')
  })

  it('with maps that pose as links, views or objects is only maps', () => {
    const dag = new Dag()
    const bytes = Uint8Array.of(1, 0x55, 0x12, 0)
    const fakes: IpldNode[] = [
      { '/': bytes, bytes: bytes.slice(), code: 0x55, version: 1, multihash: { code: 0x12 } },
      { '/': 'x', bytes: 'x', asCID: 'x' },
      { view: 'bytes', size: 2 ** 50, read: 'x' },
      { view: 'map', entries: [], lookup: null },
      { length: 5, 0: 'x', toString: 1 },
    ]
    const root = dag.put(fakes)
    const { loads, matches } = walked(dag, root, selectors.each())
    expect(loads).toHaveLength(1)
    expect(matches.map(({ node }) => node)).toEqual(fakes)
    for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty'])
      expect(walked(dag, dag.put({ x: 1 }), selectors.path(name)).matches).toEqual([])
  })
})

describe('a selector', () => {
  const dag = new Dag()
  const list = dag.put(Array.from({ length: 10_000 }, (_, i) => i))

  it('with a range of 2^62 costs what is there', () => {
    const huge = { r: { '^': 0, $: 2n ** 62n, '>': { '.': {} } } }
    expect(walked(dag, list, huge).matches).toHaveLength(10_000)
    const before = { r: { '^': -(2n ** 62n), $: 2, '>': { '.': {} } } }
    expect(walked(dag, list, before).matches).toHaveLength(2)
    expect(walked(dag, dag.put({ a: 1, '5': 2 }), huge).matches).toEqual([])
  })

  it('with a thousand ranges ends by its budget, before they are laid out', () => {
    const range = { r: { '^': 0, $: 2n ** 62n, '>': { '.': {} } } }
    const many = { '|': Array.from({ length: 1000 }, () => range) }
    expect(limitOf(() => walked(dag, list, many, { budget: { nodes: 20_000 } }))).toBe('steps')
  })

  it('whose recursion doubles at every step ends at its width', () => {
    let deep: IpldNode = 'end'
    for (let i = 0; i < 30; i++) deep = [deep]
    const twice = selectors.union(selectors.each(selectors.edge), selectors.each(selectors.edge))
    expect(limitOf(() => walked(dag, dag.put(deep), selectors.recursive(twice)))).toBe('selectorWidth')
  })

  it('whose recursion visits everything twice at every step ends by its budget', () => {
    let deep: IpldNode = 'end'
    for (let i = 0; i < 30; i++) deep = { a: deep }
    const field = selectors.field('a', selectors.edge)
    const twice = selectors.recursive(selectors.union(field, field))
    expect(['nodes', 'steps', 'selectorWidth']).toContain(
      limitOf(() => walked(dag, dag.put(deep), twice, { budget: { nodes: 10_000 } })),
    )
  })

  it('of recursions in recursions to the limit of nesting comes to no end of the stack', () => {
    const root = dag.put([1, [2]])
    expect(walked(dag, root, inside(10)).summary.nodes).toBe(4)
    expect(limitOf(() => walked(dag, root, inside(120)))).toBe('selectorWidth')
  })

  it('nested beyond all bounds is refused, as bytes and as nodes', () => {
    expect(failure(() => selectorFromBytes(nestedBytes(10_000)))).toBeInstanceOf(ProtocolError)
    expect(limitOf(() => selectorFromBytes(nestedBytes(100_000)))).toBe('maxBytes')
    let nested: IpldNode = { '.': {} }
    for (let i = 0; i < 100_000; i++) nested = { a: { '>': nested } }
    expect(limitOf(() => parseSelector(nested))).toBe('maxNesting')
    let conditions: IpldNode = { '=': 1 }
    for (let i = 0; i < 100_000; i++) conditions = { or: [conditions] }
    expect(limitOf(() => parseSelector({ '&': { '&': conditions, '>': { '.': {} } } }))).toBe('maxNesting')
  })

  it('with thousands of conditions pays for each of them', () => {
    const conditions = { or: Array.from({ length: 4000 }, () => ({ '=': 'never' })) }
    const costly = selectors.each(selectors.match({ onlyIf: conditions }))
    expect(limitOf(() => walked(dag, list, costly, { budget: { nodes: 20_000 } }))).toBe('steps')
  })

  it('that a random byte has spoilt is a typed error or a selector', () => {
    const good = Uint8Array.from(Buffer.from('a16152a2616ca1646e6f6e65a0623a3ea1617ca2', 'hex'))
    for (let at = 0; at < good.length; at++)
      for (let value = 0; value < 256; value++) {
        const bytes = good.slice()
        bytes[at] = value
        const error = failure(() => selectorFromBytes(bytes))
        expect(error === undefined || error instanceof ProtocolError || error instanceof LimitError).toBe(true)
      }
  })
})

describe('UnixFS', () => {
  const all = selectors.interpretAs('unixfs', selectors.each())

  it('a file of few blocks and 2^50 bytes ends by the budget', () => {
    const dag = new Dag()
    let size = 1024
    let cid = dag.putBytes(new Uint8Array(size))
    for (let i = 0; i < 40; i++) {
      cid = dag.putBytes(file([{ cid }, { cid }], [size, size]), codec.dagPb)
      size *= 2
    }
    expect(limitOf(() => walked(dag, cid, selectors.unixfs(), { budget: { blocks: 1000 } }))).toBe('blocks')
    expect(limitOf(() => walked(dag, cid, selectors.unixfs(), { budget: { bytes: 100_000 } }))).toBe('bytes')
    // Its end costs no more than the way there.
    expect(walked(dag, cid, selectors.unixfsBytes([], -1)).loads).toHaveLength(41)
  })

  it('a file nested deeper than files are is refused', () => {
    const dag = new Dag()
    let cid = dag.putBytes(fromUtf8('x'))
    for (let i = 0; i < 100; i++) cid = dag.putBytes(file([{ cid }], [1]), codec.dagPb)
    expect(failure(() => walked(dag, cid, selectors.unixfs()))).toMatchObject({ code: 'bad-dag' })
  })

  it('a sharded directory of few shards that poses as an endless one is refused', () => {
    const dag = new Dag()
    const leaf = dag.putBytes(fromUtf8('x'))
    let cid = dag.putBytes(shard([{ cid: leaf, name: '00name' }]), codec.dagPb)
    for (let i = 0; i < 20; i++)
      cid = dag.putBytes(
        shard([
          { cid, name: '00' },
          { cid, name: '01' },
        ]),
        codec.dagPb,
      )
    for (const view of ['unixfs', 'unixfs-preload'])
      expect(failure(() => walked(dag, cid, selectors.interpretAs(view, selectors.each())))).toMatchObject({
        code: 'bad-dag',
      })
  })

  it.each<[string, () => Uint8Array]>([
    ['a fanout that is no power of two', () => shard([], 100)],
    ['a fanout of 2^40', () => shard([], 2 ** 40)],
    ['an unknown hash', () => shard([], 256, 0x12)],
    ['a link without a prefix', () => shard([{ cid: new Dag().put(1), name: 'x' }])],
    ['a bucket that is there twice', () => shard(['00a', '00b'].map((name) => ({ cid: new Dag().put(1), name })))],
  ])('a shard with %s is refused', (_, bytes) => {
    const dag = new Dag()
    expect(failure(() => walked(dag, dag.putBytes(bytes(), codec.dagPb), all))).toMatchObject({ code: 'bad-dag' })
  })
})

describe('who answers a walk', () => {
  it('may leave it at any step', () => {
    const dag = new Dag()
    const root = dag.put([dag.put(1)])
    const steps = walk(root, parseSelector(explore))
    steps.next()
    expect(steps.return({ blocks: 0, bytes: 0, nodes: 0, matches: 0, missing: 0 })).toMatchObject({ done: true })
    expect(steps.next(dag.get(root))).toMatchObject({ done: true, value: undefined })
  })
})
