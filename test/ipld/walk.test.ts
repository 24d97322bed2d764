import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { errorCode, LimitError } from '../../src/errors.ts'
import { CID, cidOf, codec, hash } from '../../src/ipld/cid.ts'
import { selectors } from '../../src/ipld/selectors.ts'
import { traverse, type Traversed } from '../../src/ipld/traverse.ts'
import { walk } from '../../src/ipld/walk.ts'
import * as Digest from 'multiformats/hashes/digest'
import { Dag, selectorOf, walked } from './dag.ts'

function failure(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return error
  }
  return undefined
}

const everything = selectors.all()

function shown(step: Traversed): string {
  return `${step.kind} ${step.path.join('/')}${step.kind === 'block' ? ` ${step.bytes.length}` : ''}`
}

async function run(dag: Dag, root: CID, options: object = {}): Promise<string[]> {
  const steps = traverse(root, selectorOf(everything), { load: (cid) => dag.get(cid), ...options })
  return (await Array.fromAsync(steps)).map((step) => shown(step))
}

describe('walk', () => {
  it('takes the keys of a map in the order of the block, index-like ones too', () => {
    const dag = new Dag()
    // {"b": 1, "10": 2, "a": 3}: no order that a canonical writer would choose.
    const root = dag.putBytes(Uint8Array.of(0xa3, 0x61, 0x62, 1, 0x62, 0x31, 0x30, 2, 0x61, 0x61, 3), codec.dagCbor)
    expect(walked(dag, root, selectors.each()).matches.map(({ path }) => path)).toEqual(['b', '10', 'a'])
  })

  it('takes Links before Data, whatever the block has first', () => {
    const dag = new Dag()
    const leaf = dag.putBytes(fromUtf8('leaf'))
    const canonical = dag.put({ Links: [{ Hash: leaf, Name: 'x', Tsize: 4 }], Data: fromUtf8('data') }, codec.dagPb)
    const bytes = dag.get(canonical) ?? new Uint8Array(0)
    const data = bytes.subarray(bytes.length - 6)
    const other = dag.putBytes(new Uint8Array([...data, ...bytes.subarray(0, -6)]), codec.dagPb)
    const paths = ['', 'Links', 'Links/0', 'Links/0/Hash', 'Links/0/Name', 'Links/0/Tsize', 'Data']
    for (const root of [canonical, other])
      expect(walked(dag, root, everything).matches.map(({ path }) => path)).toEqual(paths)
  })

  it('does not follow a link that is a whole block', () => {
    const dag = new Dag()
    const root = dag.put(dag.put('end'))
    expect(walked(dag, root, everything)).toMatchObject({ loads: [root.toString()], log: [`load ${root} `, 'match '] })
  })

  it('goes on beside a missing block, and beside one that is skipped', () => {
    const dag = new Dag()
    const gone = dag.put('gone')
    const here = dag.put('here')
    const root = dag.put([gone, here, gone])
    dag.delete(gone)
    const { log, summary } = walked(dag, root, everything)
    expect(log).toEqual([
      `load ${root} `,
      'match ',
      `missing ${gone} 0`,
      `load ${here} 1`,
      'match 1',
      `missing ${gone} 2`,
    ])
    expect(summary).toMatchObject({ blocks: 2, missing: 2, matches: 2, nodes: 2 })

    const steps = walk(root, selectorOf(everything))
    const kinds = [steps.next().value, steps.next(dag.get(root)).value, steps.next().value, steps.next('skip').value]
    expect(kinds).toMatchObject([{ cid: root }, { kind: 'match' }, { cid: gone }, { cid: here }])
    expect([steps.next('skip').value, steps.next('skip')]).toMatchObject([
      { cid: gone },
      { done: true, value: { missing: 0 } },
    ])
  })

  it('ends at once without its root', () => {
    const root = cidOf(codec.dagCbor, Uint8Array.of(1))
    expect(walked(new Dag(), root, everything)).toMatchObject({ log: [`missing ${root} `], summary: { missing: 1 } })
  })

  it('follows a link as often as it comes, or once', () => {
    const dag = new Dag()
    const leaf = dag.put('leaf')
    const root = dag.put([leaf, [leaf], { x: leaf }])
    expect(walked(dag, root, everything).loads).toHaveLength(4)
    const { loads, matches } = walked(dag, root, everything, { visitOnce: true })
    expect(loads).toEqual([root.toString(), leaf.toString()])
    expect(matches.map(({ path }) => path)).toEqual(['', '0', '1', '2'])
  })

  it('keeps within its budget: the last one that is allowed is done', () => {
    const dag = new Dag()
    const leaf = dag.put('leaf')
    const root = dag.put([leaf, [leaf], 5])
    const { summary } = walked(dag, root, everything)
    expect(summary).toEqual({ blocks: 3, bytes: summary.bytes, nodes: 5, matches: 5, missing: 0 })
    const exact = { blocks: 3, bytes: summary.bytes, nodes: 5, depth: 2 }
    expect(walked(dag, root, everything, { budget: exact }).summary).toEqual(summary)
    for (const [name, value] of Object.entries(exact)) {
      const error = failure(() => walked(dag, root, everything, { budget: { ...exact, [name]: value - 1 } }))
      expect(error).toBeInstanceOf(LimitError)
      expect(error).toMatchObject({ limit: name, max: value - 1 })
    }
    expect(() => walked(dag, root, everything, { budget: { blocks: -1 } })).toThrow(RangeError)
    expect(() => walked(dag, root, everything, { budget: { nodes: NaN } })).toThrow(RangeError)
  })

  it('says what is wrong with a block, and with who drives it', () => {
    const dag = new Dag()
    const bad = dag.putBytes(Uint8Array.of(0xff), codec.dagCbor)
    expect(errorCode(failure(() => walked(dag, dag.put([bad]), everything)))).toBe('bad-block')
    const unknown = dag.putBytes(Uint8Array.of(1), 0x9999)
    expect(errorCode(failure(() => walked(dag, dag.put([unknown]), everything)))).toBe('unsupported')
    const view = selectors.interpretAs('nobody')
    expect(failure(() => walked(dag, dag.put(1), view))).toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('nobody'),
    })
    const steps = walk(bad, selectorOf(everything))
    steps.next()
    expect(() => steps.next()).toThrow(TypeError)
  })
})

describe('traverse', () => {
  it('gives blocks, matches and what is missing, in order', async () => {
    const dag = new Dag()
    const gone = dag.put('gone')
    const root = dag.put([gone, 5])
    dag.delete(gone)
    expect(await run(dag, root)).toEqual([`block  ${dag.get(root)?.length}`, 'match ', 'missing 0', 'match 1'])
  })

  it('takes no block that does not hash to its CID', async () => {
    const dag = new Dag()
    const root = dag.put([1])
    dag.blocks.set(root.toString(), Uint8Array.of(0x80))
    await expect(run(dag, root)).rejects.toMatchObject({ code: 'bad-block' })
    expect(await run(dag, root, { verify: false })).toEqual(['block  1', 'match '])
  })

  it('has the bytes of identity CIDs, and asks nobody', async () => {
    const dag = new Dag()
    const inside = CID.createV1(codec.raw, Digest.create(hash.identity, fromUtf8('in the CID')))
    const root = dag.put([inside])
    expect((await run(dag, root)).slice(1)).toEqual(['match ', 'match 0'])
    const long = CID.createV1(codec.raw, Digest.create(hash.identity, new Uint8Array(129)))
    await expect(run(dag, long)).rejects.toMatchObject({ code: 'bad-cid' })
  })

  it('ends when it is told to, and with what the loader throws', async () => {
    const dag = new Dag()
    const root = dag.put([dag.put('leaf')])
    const abort = new AbortController()
    const steps = traverse(root, selectorOf(everything), { load: (cid) => dag.get(cid), signal: abort.signal })
    await steps.next()
    const reason = new Error('enough')
    abort.abort(reason)
    await expect(steps.next()).rejects.toBe(reason)
    await expect(run(dag, root, { load: () => Promise.reject(reason) })).rejects.toBe(reason)
    const limited = run(dag, root, { budget: { blocks: 1 } })
    await expect(limited).rejects.toMatchObject({ limit: 'blocks' })
  })
})
