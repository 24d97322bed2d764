/* The walk against go-ipld-prime's, with go-codec-dagpb and go-unixfsnode: every load and every match, in order. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { asError } from '../../src/errors.ts'
import { type CID, codec, parseCid } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import { type IpldNode, isLink, kindOf } from '../../src/ipld/model.ts'
import { parseSelector } from '../../src/ipld/selector-parse.ts'
import { edge } from '../../src/ipld/selector.ts'
import { type Clause, selectors as make } from '../../src/ipld/selectors.ts'
import { walk } from '../../src/ipld/walk.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { type Profile, profiles } from '../../src/unixfs/build.ts'
import { addDirectory, type AddEntry } from '../../src/unixfs/import.ts'
import { dags, selectors } from '../ipld/arbitrary-dag.ts'
import { Dag } from '../ipld/dag.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const dagJson = codecs.byName('dag-json')

interface Outcome {
  /** `CID` or `CID missing`, in order. */
  links: string[]
  /** `path kind value`, in order; a file's value is its bytes. */
  matches: string[]
  failed: boolean
}

/** A selector as the text that both sides read: with the fields in one order. */
function textOf(declared: IpldNode): string {
  if (dagJson === undefined) throw new Error('no dag-json')
  // 2^63-1, the end of what has none, is no number of JSON.parse.
  const text = toUtf8(dagJson.encode(declared)).replaceAll('9223372036854775807', String(Number.MAX_SAFE_INTEGER))
  return JSON.stringify(JSON.parse(text))
}

function shown(path: string, kind: string, bytes: Uint8Array | undefined, value: unknown): string {
  return `${path} ${kind} ${bytes === undefined ? JSON.stringify(value) : Buffer.from(bytes).toString('hex')}`
}

const codecNames = new Map<number, string>([
  [codec.raw, 'raw'],
  [codec.dagPb, 'dag-pb'],
  [codec.dagCbor, 'dag-cbor'],
])

const keyOf = (cid: CID): string => base64(cid.multihash.bytes)

function matchOf(path: string, node: IpldNode): string {
  if (node instanceof Uint8Array) return shown(path, 'bytes', node, undefined)
  const kind = kindOf(node)
  if (isLink(node)) return shown(path, kind, undefined, { '/': node.toString() })
  return shown(path, kind, undefined, kind === 'list' || kind === 'map' ? undefined : node)
}

/** One place of the declaration spoilt: a key gone or another, a value of another kind. */
function spoilt(node: unknown, at: number, how: number): unknown {
  let left = at
  const junk = [null, 'x', -1, 0, 1.5, true, [], {}, { '@': {} }, { '.': {} }, { depth: 1 }, 5]
  const spoil = (value: unknown): unknown => {
    if (left-- === 0) return junk[how % junk.length]
    if (Array.isArray(value)) return value.map((item) => spoil(item))
    if (typeof value !== 'object' || value === null) return value
    const entries = Object.entries(value).map(([key, item]): [string, unknown][] => {
      if (left-- === 0) return how % 3 === 0 ? [] : [[how % 3 === 1 ? `${key}x` : '>', item]]
      return [[key, spoil(item)]]
    })
    return Object.fromEntries(entries.flat())
  }
  return spoil(node)
}

/** Of all that a file and a directory can be: in one block and in many, small and sharded. */
async function tree(rawLeaves: boolean): Promise<{ dag: Dag; root: CID; names: string[] }> {
  const profile: Profile = {
    ...profiles['unixfs-v1-2025'],
    rawLeaves,
    chunkBytes: 16,
    width: 3,
    fanout: 8,
    shardAboveBytes: 900,
  }
  const many = Array.from({ length: 60 }, (_, i) => `file-${i}`)
  const entries: AddEntry[] = [
    ...many.map((name, i): AddEntry => ({
      path: `many/${name}`,
      type: 'file',
      content: [seededBytes(i * 7, i + 1)],
    })),
    { path: 'few/empty', type: 'file', content: [] },
    { path: 'few/one', type: 'file', content: [seededBytes(10, 3)] },
    { path: 'few/large', type: 'file', content: [seededBytes(700, 4)] },
    { path: 'few/link', type: 'symlink', target: 'one' },
    { path: 'few/none', type: 'directory' },
    { path: 'large', type: 'file', content: [seededBytes(333, 5)] },
  ]
  const dag = new Dag()
  const sink = {
    async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>) {
      for await (const { cid, bytes } of pairs) dag.blocks.set(cid.toString(), bytes)
    },
  }
  const { cid } = await addDirectory(sink, entries, { profile })
  return {
    dag,
    root: cid,
    names: ['many', 'few', 'large', 'one', 'empty', 'link', 'none', 'gone', ...many.slice(0, 20)],
  }
}

/** Through views, and beside them. */
function viewSelectors(names: readonly string[]): fc.Arbitrary<Clause> {
  const name = fc.oneof(fc.constantFrom('many', 'few', 'large'), fc.constantFrom(...names))
  const subset = fc
    .tuple(fc.integer({ min: -350, max: 720 }), fc.option(fc.integer({ min: -350, max: 720 }), { nil: undefined }))
    .filter(([from, to]) => to === undefined || to < 0 || from <= to)
    .map(([from, to]) => make.match({ subset: to === undefined ? [from] : [from, to] }))
  const view = fc.constantFrom('unixfs', 'unixfs', 'unixfs-preload')
  const matcher = fc.oneof(fc.constant(make.match()), subset)
  const everything = fc.constantFrom(make.all(), make.all({ depth: 3 }), make.recursive(make.each(make.edge)))
  function below(size: number): fc.Arbitrary<Clause> {
    if (size === 0)
      return fc.oneof(
        matcher,
        fc.tuple(view, matcher).map(([as, next]) => make.interpretAs(as, next)),
      )
    const next = below(size - 1)
    const inside = fc.oneof(
      matcher,
      fc
        .uniqueArray(fc.tuple(name, next), { minLength: 1, maxLength: 3, selector: ([key]) => key })
        .map((all) => make.fields(new Map(all))),
      next.map((clause) => make.each(clause)),
      fc.tuple(matcher, next).map(([one, other]) => make.union(one, make.each(other))),
      fc.tuple(name, next, name, next).map(([a, to, b, and]) => make.union(make.field(a, to), make.field(b, and))),
      everything,
    )
    return fc.oneof(
      { weight: 5, arbitrary: fc.tuple(view, inside).map(([as, clause]) => make.interpretAs(as, clause)) },
      { weight: 1, arbitrary: inside },
    )
  }
  return below(3)
}

describe.skipIf(!have.go)('selectors with go-ipld-prime', () => {
  let peer: Peer
  beforeAll(async () => {
    peer = await startPeer('go')
  })
  afterAll(() => peer.stop())

  /** What the peer has, by multihash as there: a block that one DAG lacks may have come with another. */
  const given = new Map<string, Uint8Array>()
  async function give(dag: Dag): Promise<void> {
    await Promise.all(
      [...dag.blocks].map(async ([text, bytes]) => {
        const cid = parseCid(text)
        given.set(keyOf(cid), bytes)
        const { cid: theirs } = await peer.call('put', { codec: codecNames.get(cid.code), bytes: base64(bytes) })
        expect(theirs).toBe(text)
      }),
    )
  }

  async function theirs(root: CID, text: string, once: boolean): Promise<Outcome> {
    const answer = (await peer.call('walk', {
      root: root.toString(),
      selector: JSON.parse(text) as unknown,
      skipMissing: true,
      once,
    })) as unknown as {
      links: { cid: string; missing?: boolean }[]
      nodes: { path: string; kind: string; value?: unknown }[]
      error?: string
    }
    return {
      links: answer.links.map(({ cid, missing }) => (missing === true ? `${cid} missing` : cid)),
      // Optional fields of dag-pb that are not there: go visits them as absent, which is a null.
      matches: answer.nodes
        .filter(({ path, kind }) => kind !== 'null' || !/(^|\/)(Data|Name|Tsize)$/.test(path))
        .map(({ path, kind, value }) => {
          const bytes = (value as { '/'?: { bytes?: string } } | undefined)?.['/']?.bytes
          return shown(path, kind, bytes === undefined ? undefined : Buffer.from(bytes, 'base64'), value)
        }),
      failed: answer.error !== undefined,
    }
  }

  function ours(root: CID, text: string, once: boolean): Outcome {
    const links: string[] = []
    const matches: string[] = []
    if (dagJson === undefined) throw new Error('no dag-json')
    const steps = walk(root, parseSelector(dagJson.decode(fromUtf8(text))), {
      visitOnce: once,
      budget: { nodes: 20_000 },
    })
    let file: { path: string; parts: Uint8Array[] } | undefined
    const endFile = () => {
      if (file !== undefined) matches.push(shown(file.path, 'bytes', Buffer.concat(file.parts), undefined))
      file = undefined
    }
    let step = steps.next()
    while (step.done !== true) {
      const { value } = step
      if (value.kind === 'load') {
        const bytes = given.get(keyOf(value.cid))
        links.push(bytes === undefined ? `${value.cid} missing` : value.cid.toString())
        step = steps.next(bytes ?? 'missing')
        continue
      }
      const path = value.path.join('/')
      if (value.kind === 'bytes') file?.parts.push(value.bytes)
      else if (value.kind === 'match') {
        endFile()
        const { node } = value
        if (typeof node === 'object' && node !== null && 'view' in node && !Array.isArray(node)) {
          if (node.view === 'bytes') file = { path, parts: [] }
          else matches.push(shown(path, 'map', undefined, undefined))
        } else matches.push(matchOf(path, node as IpldNode))
      }
      step = steps.next()
    }
    endFile()
    return { links, matches, failed: false }
  }

  it('walks random DAGs by random selectors as it does', { timeout: 300_000 }, async () => {
    let far = 0
    await fc.assert(
      fc.asyncProperty(
        dags.chain(({ dag, root }) => {
          const stops = [...dag.blocks.keys()].map((text) => parseCid(text))
          return fc.tuple(fc.constant({ dag, root }), selectors(stops, { plain: true }), fc.boolean())
        }),
        async ([{ dag, root }, declared, once]) => {
          const text = textOf(declared)
          await give(dag)
          let mine: Outcome
          // An edge beside others right where a recursion begins: there go panics.
          using explored = vi.spyOn(edge, 'explore')
          try {
            mine = ours(root, text, once)
          } catch (error) {
            // A budget: go has none here and would take its time.
            fc.pre(!asError(error).message.includes('at most') && !asError(error).message.includes('nodes is'))
            throw error
          }
          fc.pre(explored.mock.calls.length === 0)
          const go = await theirs(root, text, once)
          if (mine.links.length + mine.matches.length > 6) far++
          expect(mine).toEqual(go)
        },
      ),
      { numRuns: 2000 },
    )
    expect(far).toBeGreaterThan(150)
  })

  it('takes the selectors that it takes, and refuses those that it refuses', { timeout: 300_000 }, async () => {
    const counts = { taken: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(selectors([], { plain: true }), fc.nat(25), fc.nat(60), async (declared, at, how) => {
        const broken = spoilt(JSON.parse(textOf(declared)), at, how)
        const mine = (() => {
          try {
            parseSelector(dagJson?.decode(fromUtf8(JSON.stringify(broken))) ?? null)
            return true
          } catch {
            return false
          }
        })()
        const go = await peer.call('selectorParse', { selector: broken }).then(
          () => true,
          () => false,
        )
        counts[go ? 'taken' : 'refused']++
        expect(mine).toBe(go)
      }),
      { numRuns: 2000 },
    )
    expect(counts.taken).toBeGreaterThan(200)
    expect(counts.refused).toBeGreaterThan(200)
  })

  it.each([true, false])('sees UnixFS as it does, raw leaves: %s', { timeout: 300_000 }, async (rawLeaves) => {
    const { dag, root, names } = await tree(rawLeaves)
    await give(dag)
    let far = 0
    await fc.assert(
      fc.asyncProperty(viewSelectors(names), async (declared) => {
        const text = textOf(declared)
        const mine = ours(root, text, false)
        if (mine.links.length > 10) far++
        expect(mine).toEqual(await theirs(root, text, false))
      }),
      { numRuns: 600 },
    )
    expect(far).toBeGreaterThan(100)
  })

  it('reads of a range the same blocks, in the same order', async () => {
    const { dag, root } = await tree(true)
    await give(dag)
    for (const [from, to] of [
      [0, 1],
      [15, 17],
      [16, 16],
      [100, 333],
      [-20, -3],
      [332, 900],
      [333, 400],
      [0, undefined],
    ] as const) {
      const text = textOf(make.unixfsBytes('large', from, to))
      const mine = ours(root, text, false)
      expect(mine).toEqual(await theirs(root, text, false))
      if (to === 1) expect(mine.links.length).toBeLessThan(7)
    }
  })
})
