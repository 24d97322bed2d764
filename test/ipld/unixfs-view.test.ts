import { describe, expect, it } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { errorCode } from '../../src/errors.ts'
import { type CID, codec } from '../../src/ipld/cid.ts'
import { encodeNode, type PBLink } from '../../src/ipld/dag-pb.ts'
import { type Clause, selectors } from '../../src/ipld/selectors.ts'
import { type Profile, profiles } from '../../src/unixfs/build.ts'
import { Data, dataType } from '../../src/unixfs/data.ts'
import { addDirectory, addFile } from '../../src/unixfs/import.ts'
import { Blocks } from '../unixfs/support.ts'
import { Dag, walked } from './dag.ts'

const small: Profile = {
  ...profiles['unixfs-v1-2025'],
  chunkBytes: 10,
  width: 3,
  fanout: 8,
  shardAboveBytes: 600,
}

const content = fromUtf8('0123456789'.repeat(10))

async function built(add: (blocks: Blocks) => Promise<{ cid: CID }>): Promise<{ dag: Dag; root: CID }> {
  const blocks = new Blocks()
  const { cid } = await add(blocks)
  const dag = new Dag()
  for (const [text, bytes] of blocks.map) dag.blocks.set(text, bytes)
  return { dag, root: cid }
}

/** Ten leaves with bytes of their own: leaf i holds ten times the digit i. */
function file(profile = small): Promise<{ dag: Dag; root: CID }> {
  const bytes = fromUtf8(Array.from({ length: 10 }, (_, i) => String(i).repeat(10)).join(''))
  return built((blocks) => addFile(blocks, [bytes], { profile }))
}

function textOf(bytes: Uint8Array[] | undefined): string {
  return Buffer.from(concat(bytes ?? [])).toString()
}

function codeOf(run: () => unknown): unknown {
  try {
    run()
    return 'no error'
  } catch (error) {
    return errorCode(error)
  }
}

describe('a file seen as unixfs', () => {
  it('is its bytes, with the blocks in their order', async () => {
    for (const rawLeaves of [true, false]) {
      const { dag, root } = await file({ ...small, rawLeaves })
      const { matches, bytes, loads, summary } = walked(dag, root, selectors.unixfs())
      expect(matches).toMatchObject([{ path: '', node: { view: 'bytes', size: 100 } }])
      expect(textOf(bytes.get(''))).toBe(Array.from({ length: 10 }, (_, i) => String(i).repeat(10)).join(''))
      expect(new Set(loads)).toEqual(new Set(dag.blocks.keys()))
      expect(summary.blocks).toBe(loads.length)
    }
  })

  it.each<[number, number | undefined, string]>([
    [0, 1, '0'],
    [9, 11, '01'],
    [35, 65, `${'3'.repeat(5)}${'4'.repeat(10)}${'5'.repeat(10)}${'6'.repeat(5)}`],
    [-5, undefined, '99999'],
    [-15, -5, '8888899999'],
    [95, 1000, '99999'],
    [50, 50, ''],
  ])('gives of [%s, %s) those bytes, and loads their leaves alone', async (from, to, wanted) => {
    const { dag, root } = await file()
    const { matches, bytes, loads } = walked(dag, root, selectors.unixfsBytes([], from, to))
    expect(matches).toHaveLength(1)
    expect(textOf(bytes.get(''))).toBe(wanted)
    const leaves = loads.filter((cid) => cid.startsWith('bafkrei')).map((cid) => dag.blocks.get(cid)?.[0])
    expect(leaves).toEqual([...new Set(fromUtf8(wanted))])
  })

  it('is no match where the range is not in it', async () => {
    const { dag, root } = await file()
    for (const [from, to] of [
      [100, 101],
      [-10, -20],
    ] as const)
      expect(walked(dag, root, selectors.unixfsBytes([], from, to))).toMatchObject({
        matches: [],
        loads: [root.toString()],
      })
  })

  it('in one block is bytes, a raw one too', async () => {
    for (const rawLeaves of [true, false]) {
      const { dag, root } = await built((blocks) =>
        addFile(blocks, [content], { profile: { ...small, chunkBytes: 1000, rawLeaves } }),
      )
      const { matches } = walked(dag, root, selectors.unixfsBytes([], 3, 6))
      expect(matches.map(({ node }) => Buffer.from(node as Uint8Array).toString())).toEqual(['345'])
    }
  })

  it('ends at a missing block, and what is beside it goes on', async () => {
    const { dag, root } = await built((blocks) =>
      addDirectory(
        blocks,
        ['a', 'b'].map((path) => ({ path, type: 'file', content: [fromUtf8(path.repeat(35))] })),
        { profile: small },
      ),
    )
    const second = walked(dag, root, selectors.unixfs('a')).loads.find((cid) => dag.blocks.get(cid)?.length === 10)
    dag.blocks.delete(second ?? '')
    const each = selectors.interpretAs('unixfs', selectors.each(selectors.interpretAs('unixfs')))
    const { bytes, summary } = walked(dag, root, each)
    expect(summary.missing).toBe(1)
    expect(textOf(bytes.get('a'))).toBe('')
    expect(textOf(bytes.get('b'))).toBe('b'.repeat(35))
  })

  it('is loaded whole by unixfs-preload, and again where it is matched, as go does', async () => {
    const { dag, root } = await file()
    const whole = walked(dag, root, selectors.unixfs()).loads
    const { loads } = walked(dag, root, selectors.interpretAs('unixfs-preload'))
    expect(loads).toEqual([...whole, ...whole.slice(1)])
  })

  it('is refused where it contradicts itself', () => {
    const dag = new Dag()
    const leaf = dag.putBytes(content)
    const put = (links: PBLink[], blocksizes: number[], filesize: number) =>
      dag.putBytes(encodeNode({ links, data: Data.encode({ type: dataType.file, filesize, blocksizes }) }), codec.dagPb)
    const link = { cid: leaf, name: '', tsize: 100 }
    const read = (root: CID) => codeOf(() => walked(dag, root, selectors.unixfs()))
    expect(read(put([link], [100], 100))).toBe('no error')
    expect(read(put([link], [100], 99))).toBe('bad-dag')
    expect(read(put([link], [99], 99))).toBe('bad-dag')
    expect(read(put([link], [], 0))).toBe('bad-dag')
    expect(read(put([{ ...link, cid: dag.put('no file') }], [100], 100))).toBe('unsupported')
  })
})

describe('a directory seen as unixfs', () => {
  const names = Array.from({ length: 80 }, (_, i) => `name-${i}`)
  const sharded = () =>
    built((blocks) =>
      addDirectory(
        blocks,
        names.map((path) => ({ path, type: 'file', content: [fromUtf8(path)] })),
        { profile: { ...small, chunkBytes: 100 } },
      ),
    )

  it('is a map of names; a sharded one, too', async () => {
    const { dag, root } = await sharded()
    const { matches, loads } = walked(dag, root, selectors.interpretAs('unixfs', selectors.each()))
    expect(matches.map(({ path }) => path).toSorted()).toEqual(names.toSorted())
    expect(matches.map(({ node }) => Buffer.from(node as Uint8Array).toString())).toEqual(
      matches.map(({ path }) => path),
    )
    expect(new Set(loads)).toEqual(new Set(dag.blocks.keys()))
  })

  it('finds a name by the shards on its way alone, and shares those among names', async () => {
    const { dag, root } = await sharded()
    const all = walked(dag, root, selectors.interpretAs('unixfs', selectors.each()))
    for (const name of names) {
      const { loads, matches } = walked(dag, root, selectors.unixfs([name], selectors.match()))
      expect(matches.map(({ path }) => path)).toEqual([name])
      expect(loads.length).toBeLessThan(10)
      // In the order in which a walk of all of it comes by.
      expect(loads.map((cid) => all.loads.indexOf(cid))).toEqual(
        loads.map((cid) => all.loads.indexOf(cid)).toSorted((a, b) => a - b),
      )
    }
    const fields = selectors.fields(Object.fromEntries(names.map((name) => [name, selectors.match()])))
    const { loads } = walked(dag, root, selectors.interpretAs('unixfs', fields))
    expect(loads).toHaveLength(new Set(loads).size)
    expect(walked(dag, root, selectors.unixfs('nobody'))).toMatchObject({ matches: [] })
  })

  it('loads all its shards first with unixfs-preload', async () => {
    const { dag, root } = await sharded()
    const preload = walked(dag, root, selectors.interpretAs('unixfs-preload', selectors.match()))
    const shards = [...dag.blocks.keys()].filter((cid) => cid.startsWith('bafybei'))
    expect(new Set(preload.loads)).toEqual(new Set(shards))
    expect(preload.matches).toMatchObject([{ path: '', node: { view: 'map' } }])
    const each = walked(dag, root, selectors.interpretAs('unixfs-preload', selectors.each()))
    expect(each.loads.slice(0, shards.length)).toEqual(preload.loads)
    expect(each.loads).toHaveLength(dag.blocks.size)
  })

  it('leaves out what is behind a missing shard', async () => {
    const { dag, root } = await sharded()
    const [, shard = ''] = walked(dag, root, selectors.interpretAs('unixfs-preload', selectors.match())).loads
    dag.blocks.delete(shard)
    const { matches, summary } = walked(dag, root, selectors.interpretAs('unixfs', selectors.each()))
    expect(summary.missing).toBe(1)
    expect(matches.length).toBeGreaterThan(40)
    expect(matches.length).toBeLessThan(80)
  })

  it('goes through paths of both kinds to a range of a file', async () => {
    const { dag, root } = await built((blocks) =>
      addDirectory(
        blocks,
        [...names.map((name) => `many/${name}`), 'few/a'].map((path) => ({ path, type: 'file', content: [content] })),
        { profile: small },
      ),
    )
    const at = selectors.unixfsBytes('many/name-7', 12, 15)
    expect(textOf(walked(dag, root, at).bytes.get('many/name-7'))).toBe('234')
    expect(textOf(walked(dag, root, selectors.unixfs('few/a')).bytes.get('few/a'))).toBe(
      Buffer.from(content).toString(),
    )
  })

  it('is not what dag-pb alone is: links by name, without UnixFS; other blocks stay as they are', () => {
    const dag = new Dag()
    const leaf = dag.put({ x: 1 })
    const links = [{ cid: leaf, name: 'a' }, { cid: leaf }]
    const each = selectors.interpretAs('unixfs', selectors.each())
    const paths = (root: CID, selector: Clause = each) => walked(dag, root, selector).matches.map(({ path }) => path)
    for (const data of [
      undefined,
      fromUtf8('no UnixFS'),
      Data.encode({ type: dataType.symlink, data: fromUtf8('to') }),
    ])
      expect(paths(dag.putBytes(encodeNode(data === undefined ? { links } : { links, data }), codec.dagPb))).toEqual([
        'a',
        '',
      ])
    expect(paths(leaf)).toEqual(['x'])
  })
})

describe('only the raw leaves of a file', () => {
  it('are matched, in order; the blocks above them are on the way', async () => {
    const { dag, root } = await file()
    const { matches, loads } = walked(dag, root, selectors.rawLeaves())
    expect(matches.map(({ node }) => (node as Uint8Array)[0])).toEqual([...fromUtf8('0123456789')])
    expect(new Set(loads)).toEqual(new Set(dag.blocks.keys()))
  })

  it('are the root, where it is one', () => {
    const dag = new Dag()
    expect(walked(dag, dag.putBytes(content), selectors.rawLeaves()).matches).toHaveLength(1)
  })
})
