/* GraphSync with go-graphsync over sockets, both ways: every kind of selector, every extension, and how requests end. */
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { toUtf8 } from '../../src/bytes.ts'
import { asError } from '../../src/errors.ts'
import { decodeCbor, encodeCbor } from '../../src/ipld/cbor.ts'
import { codec, parseCid, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { parseSelector } from '../../src/ipld/selector-parse.ts'
import { edge } from '../../src/ipld/selector.ts'
import { selectors as make, type Clause } from '../../src/ipld/selectors.ts'
import { walk } from '../../src/ipld/walk.ts'
import { createNode, type Node } from '../../src/node.ts'
import {
  createGraphsync,
  extension,
  type AskOptions,
  type Graphsync,
  type GraphsyncHooks,
  type GraphsyncProgress,
  type GraphsyncRequest,
  type IncomingRequest,
} from '../../src/protocols/graphsync/graphsync.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { profiles } from '../../src/unixfs/build.ts'
import { addDirectory } from '../../src/unixfs/import.ts'
import { dags, selectors } from '../ipld/arbitrary-dag.ts'
import { chain, collect, fan, node, raw, rootOf, told, type Block } from '../protocols/graphsync/lab.ts'
import { available, buildPeers, seededBytes, startPeer, type Answer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const dagJson = codecs.byName('dag-json')
const all = make.all()
const names = new Map<number, string>([
  [codec.raw, 'raw'],
  [codec.dagPb, 'dag-pb'],
  [codec.dagCbor, 'dag-cbor'],
])

/** As a value of the lab's lines, which are JSON. */
function json(value: IpldNode): unknown {
  if (dagJson === undefined) throw new Error('no dag-json')
  // 2^63-1, the end of what has none, is no number of JSON.parse.
  const text = toUtf8(dagJson.encode(value)).replaceAll('9223372036854775807', String(Number.MAX_SAFE_INTEGER))
  return JSON.parse(text)
}

let salt = 0
/** Graphs that the peer has not seen yet. */
const freshChain = (length: number, size?: number): Block[] => chain(length, size, ++salt)
const freshFan = (width: number, size?: number): Block[] => fan(width, size, ++salt)

/** A directory with a file of several blocks, a sharded one, and dag-cbor beside them. */
async function library(): Promise<{ root: CID; blocks: Block[] }> {
  const blocks = new Map<string, Block>()
  const sink = {
    async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>) {
      for await (const pair of pairs) blocks.set(pair.cid.toString(), pair)
    },
  }
  salt++
  const profile = { ...profiles['unixfs-v1-2025'], chunkBytes: 64, width: 3, fanout: 8, shardAboveBytes: 900 }
  const many = Array.from({ length: 40 }, (_, i) => ({
    path: `many/file-${i}`,
    type: 'file' as const,
    content: [seededBytes(50, 1000 * salt + i)],
  }))
  const { cid } = await addDirectory(
    sink,
    [...many, { path: 'few/large', type: 'file', content: [seededBytes(1500, salt)] }],
    { profile },
  )
  const leaf = raw(salt * 1000, 60)
  const other = node({ leaf: leaf.cid, n: [1, 2, { salt }] })
  const root = node({ dir: cid, list: [other.cid, 'x', other.cid, leaf.cid], other: other.cid, name: 'library' })
  return { root: root.cid, blocks: [root, ...blocks.values(), other, leaf] }
}

/** Every kind that go-ipld-prime parses. */
const kinds: [string, Clause][] = [
  ['matcher', make.match()],
  ['matcher with a label', make.match({ label: 'x' })],
  ['all', all],
  ['each', make.each(make.each())],
  ['fields', make.fields({ name: make.match(), other: make.field('leaf') })],
  ['a path', make.path('other/leaf')],
  ['index', make.field('list', make.index(2, make.field('leaf')))],
  ['range', make.field('list', make.range(1, 4, make.all()))],
  ['recursion with a limit', make.recursive(make.union(make.match(), make.each(make.edge)), { depth: 3 })],
  ['union', make.union(make.field('name'), make.field('list', make.each()), make.field('other', all))],
  ['interpret-as: a file in a directory', make.field('dir', make.unixfs('few/large'))],
  ['interpret-as: a range of bytes', make.field('dir', make.unixfsBytes('few/large', 100, 700))],
  ['interpret-as: a name in a sharded directory', make.field('dir', make.unixfs('many/file-17'))],
  ['interpret-as: all of a directory', make.field('dir', make.interpretAs('unixfs', all))],
  ['interpret-as: preload', make.field('dir', make.unixfs('many', make.interpretAs('unixfs-preload', make.match())))],
  ['what is not there', make.path('nothing/here')],
]

/** The same, but not for what go panics at: an edge beside others right where a recursion begins. */
function sane(root: CID, selector: IpldNode, blocks: Iterable<Block>): ReturnType<typeof expected> {
  using explored = vi.spyOn(edge, 'explore')
  try {
    return expected(root, selector, blocks)
  } catch (error) {
    // A budget: go has none here and would take its time.
    fc.pre(!asError(error).message.includes('nodes is') && !asError(error).message.includes('at most'))
    throw error
  } finally {
    fc.pre(explored.mock.calls.length === 0)
  }
}

/** Whether DAG-JSON, in which go is told of a selector, sorts its fields as DAG-CBOR does, in which go sends it on. */
function sortsAlike(node: IpldNode): boolean {
  if (typeof node !== 'object' || node === null || node instanceof Uint8Array) return true
  const keys = Object.keys(node).toSorted()
  const byLength = keys.toSorted((a, b) => a.length - b.length)
  return (
    keys.every((key, i) => key === byLength[i]) && Object.values(node).every((value) => sortsAlike(value as IpldNode))
  )
}

/** What our own walk loads where all blocks are there: CIDs in order. */
function expected(root: CID, selector: IpldNode, blocks: Iterable<Block>): { loads: string[]; missing: number } {
  const at = new Map(Array.from(blocks, ({ cid, bytes }) => [base64(cid.multihash.bytes), bytes]))
  // DAG-CBOR sorts the fields, and what is sent is what counts.
  const steps = walk(root, parseSelector(decodeCbor(encodeCbor(selector))), { budget: { nodes: 20_000 } })
  const loads: string[] = []
  let missing = 0
  for (let step = steps.next(); step.done !== true;) {
    if (step.value.kind !== 'load') {
      step = steps.next()
      continue
    }
    const bytes = at.get(base64(step.value.cid.multihash.bytes))
    if (bytes === undefined) missing++
    else loads.push(step.value.cid.toString())
    step = steps.next(bytes ?? 'missing')
  }
  return { loads, missing }
}

const loadsOf = (events: GraphsyncProgress[]): string[] =>
  events.flatMap((e) => (e.kind === 'block' ? e.cid.toString() : []))

describe.skipIf(!have.go)('with go-graphsync', () => {
  let peer: Peer
  let ours: Node
  let store: MemoryBlocks
  let graphsync: Graphsync
  const hooks: { -readonly [K in keyof GraphsyncHooks]: GraphsyncHooks[K] } = {}

  beforeAll(async () => {
    peer = await startPeer('go', ['--graphsync'])
  })
  afterAll(() => peer.stop())
  beforeEach(async () => {
    ours = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    await ours.start()
    store = new MemoryBlocks()
    graphsync = createGraphsync(ours, store, { hooks })
    graphsync.start()
    await peer.call('gsServe', {})
  })
  afterEach(async () => {
    for (const key of Object.keys(hooks)) delete hooks[key as keyof GraphsyncHooks]
    await graphsync.stop()
    await ours.stop()
  })

  async function give(blocks: Iterable<Block>): Promise<void> {
    await Promise.all(
      Array.from(blocks, async ({ cid, bytes }) => {
        const { cid: theirs } = await peer.call('put', { codec: names.get(cid.code), bytes: base64(bytes) })
        expect(theirs).toBe(cid.toString())
      }),
    )
  }
  async function keep(blocks: Iterable<Block>): Promise<void> {
    for (const { cid, bytes } of blocks) await store.put(cid, bytes)
  }

  const ask = (root: CID, selector: IpldNode, options?: AskOptions): GraphsyncRequest =>
    graphsync.request(String(peer.addrs[0]), root, selector, options)

  interface Asked {
    /** CIDs in order. */
    blocks: string[]
    onWire: number
    errors: string[]
    statuses: number[]
    id: string
  }
  const start = async (root: CID, selector: IpldNode, more: Answer = {}): Promise<string> => {
    const addr = String(ours.addrs()[0])
    return String(
      (await peer.call('gsRequest', { addr, root: root.toString(), selector: json(selector), ...more }))['request'],
    )
  }
  const of = (id: string, name: string): Answer[] =>
    peer.events.filter((e) => e['event'] === name && e['request'] === id)
  async function end(id: string): Promise<Asked> {
    const done = await peer.event('gsDone', (e) => e['request'] === id, 30_000)
    const got = of(id, 'gsBlock')
    return {
      id,
      blocks: got.map((e) => String(e['cid'])),
      onWire: got.filter((e) => Number(e['sizeOnWire']) > 0).length,
      errors: done['errors'] as string[],
      statuses: of(id, 'gsResponse').map((e) => Number(e['status'])),
    }
  }
  const asked = async (root: CID, selector: IpldNode, more: Answer = {}): Promise<Asked> =>
    end(await start(root, selector, more))

  describe('we ask', () => {
    it.each(kinds)('by %s', async (_, selector) => {
      const { root, blocks } = await library()
      await give(blocks)
      const request = ask(root, selector)
      const events = await collect(request)
      expect(loadsOf(events)).toEqual(expected(root, selector, blocks).loads)
      expect(await request.done).toMatchObject({ status: 20, missing: 0 })
    })

    it('by random selectors for random DAGs with holes', { timeout: 300_000 }, async () => {
      const given = new Map<string, Block>()
      let far = 0
      await fc.assert(
        fc.asyncProperty(
          dags.chain(({ dag, root }) => fc.tuple(fc.constant({ dag, root }), selectors([], { plain: true }))),
          async ([{ dag, root }, selector]) => {
            const blocks = Array.from(dag.blocks, ([cid, bytes]) => ({ cid: parseCid(cid), bytes }))
            await give(blocks)
            for (const block of blocks) given.set(base64(block.cid.multihash.bytes), block)
            const want = sane(root, selector, given.values())
            if (want.loads.length > 3) far++
            const request = ask(root, selector)
            const events = await collect(request)
            expect(loadsOf(events)).toEqual(want.loads)
            expect(await request.done).toMatchObject({ status: want.missing > 0 ? 21 : 20, missing: want.missing })
          },
        ),
        { numRuns: 300 },
      )
      expect(far).toBeGreaterThan(20)
    })

    it('for much at once, in large blocks and in small ones', async () => {
      const blocks = [...freshFan(60, 250_000)]
      const small = freshFan(5000, 60)
      await give([...blocks, ...small])
      const [large, tiny] = await Promise.all([ask(rootOf(blocks), all).done, ask(rootOf(small), all).done])
      expect(large).toMatchObject({ status: 20, blocks: 61 })
      expect(tiny).toMatchObject({ status: 20, blocks: 5001 })
    })

    it('and hear what is missing', async () => {
      const blocks = freshFan(6)
      await give(blocks.toSpliced(3, 1))
      const request = ask(rootOf(blocks), all)
      expect(told(await collect(request), blocks)).toBe('+0 +1 +2 -3 +4 +5 +6')
      expect(await request.done).toMatchObject({ status: 21, missing: 1 })
    })

    it('for a root that it has not got', async () => {
      await expect(ask(rootOf(freshChain(1)), all).done).rejects.toMatchObject({ code: 'not-found' })
    })

    it.each([
      ['none', 30],
      ['error', 32],
    ])('and are refused: %s', async (validate, status) => {
      const blocks = freshChain(2)
      await give(blocks)
      await peer.call('gsServe', { validate })
      const request = ask(rootOf(blocks), all)
      await expect(request.done).rejects.toMatchObject({ code: 'refused' })
      expect(request.status).toBe(status)
    })

    it('by a recursion without a limit, which its own validator refuses', async () => {
      const blocks = freshChain(3)
      await give(blocks)
      await peer.call('gsServe', { validate: 'depth' })
      await expect(ask(rootOf(blocks), all).done).rejects.toMatchObject({ code: 'refused' })
      await expect(ask(rootOf(blocks), make.depth(90)).done).resolves.toMatchObject({ status: 20, blocks: 3 })
    })

    it('and get what came before its budget was spent', async () => {
      const blocks = freshChain(10)
      await give(blocks)
      await peer.call('gsServe', { maxLinks: 4 })
      const request = ask(rootOf(blocks), all, { nodes: false })
      const got: GraphsyncProgress[] = []
      await expect(
        (async () => {
          for await (const event of request) got.push(event)
        })(),
      ).rejects.toMatchObject({ code: 'refused' })
      expect(told(got, blocks)).toMatch(/^\+0 \+1 \+2/)
    })

    it('not to send CIDs, nor the first blocks', async () => {
      const blocks = freshFan(6)
      await give(blocks)
      await keep(blocks.slice(2, 4))
      const cids = ask(rootOf(blocks), all, {
        extensions: { [extension.doNotSendCids]: blocks.slice(2, 4).map(({ cid }) => cid) },
      })
      expect(told(await collect(cids), blocks)).toBe('+0 +1 =2 =3 +4 +5 +6')
      const line = freshChain(6)
      await give(line)
      await keep(line.slice(0, 3))
      const first = ask(rootOf(line), all, { extensions: { [extension.doNotSendFirstBlocks]: 3 } })
      expect(told(await collect(first), line)).toBe('=0 =1 =2 +3 +4 +5')
    })

    it('twice at once, each with a key or with none', async () => {
      const blocks = freshFan(50, 1000)
      await give(blocks)
      for (const keys of [
        [undefined, undefined],
        ['x', 'y'],
        ['x', 'x'],
      ]) {
        const requests = keys.map((key) =>
          ask(rootOf(blocks), all, key === undefined ? {} : { extensions: { [extension.dedupByKey]: key } }),
        )
        for (const { done } of requests) await expect(done).resolves.toMatchObject({ status: 20, blocks: 51 })
      }
    })

    it('with extensions of our own, which come back', async () => {
      const blocks = freshChain(2)
      await give(blocks)
      await peer.call('gsServe', { echoExtensions: true })
      const extensions = { 'app/thing': { a: [1, null, rootOf(blocks)] } }
      const events = await collect(ask(rootOf(blocks), all, { extensions, nodes: false }))
      expect(events.find((e) => e.kind === 'note')).toMatchObject({ extensions })
    })

    it('and it pauses, until an update of ours', async () => {
      const blocks = freshChain(8)
      await give(blocks)
      await peer.call('gsServe', { pauseAfter: 3, unpauseOnUpdate: true, echoExtensions: true })
      const request = ask(rootOf(blocks), all, { nodes: false })
      const got: string[] = []
      for await (const event of request) {
        got.push(told([event], blocks))
        if (event.kind !== 'note' || event.status !== 15) continue
        expect((await peer.event('gsPaused', (e) => e['request'] === request.id))['index']).toBe(3)
        // What pauses is a little later than the event.
        await new Promise((resolve) => setTimeout(resolve, 50))
        await peer.call('gsServe', { unpauseOnUpdate: true, echoExtensions: true })
        request.update({ 'app/paid': 1 })
      }
      expect(got.join(' ')).toMatch(/^\+0 \+1 \+2 !15 (!\d\d )?\+3 \+4 \+5 \+6 \+7$/)
      expect((await peer.event('gsUpdated', (e) => e['request'] === request.id))['extensions']).toEqual({
        'app/paid': 1,
      })
    })

    it('and it pauses, until it goes on by itself', async () => {
      const blocks = freshChain(8)
      await give(blocks)
      await peer.call('gsServe', { pauseAfter: 5 })
      const request = ask(rootOf(blocks), all, { nodes: false })
      const rest = collect(request)
      await peer.event('gsPaused', (e) => e['request'] === request.id)
      await peer.call('gsUnpause', { request: request.id, extensions: { 'app/on': true } })
      const events = await rest
      expect(loadsOf(events)).toEqual(blocks.map(({ cid }) => cid.toString()))
      expect(events.filter((e) => e.kind === 'note')).toContainEqual(
        expect.objectContaining({ extensions: { 'app/on': true } }),
      )
    })

    it('and it cancels', async () => {
      const blocks = freshChain(8)
      await give(blocks)
      await peer.call('gsServe', { pauseAfter: 2 })
      const request = ask(rootOf(blocks), all)
      const { done } = request
      await peer.event('gsPaused', (e) => e['request'] === request.id)
      await new Promise((resolve) => setTimeout(resolve, 50))
      await peer.call('gsCancel', { request: request.id })
      await expect(done).rejects.toMatchObject({ code: 'refused' })
      expect(request.status).toBe(35)
    })

    it('and cancel, which stops it', async () => {
      const blocks = freshFan(200, 200_000)
      await give(blocks)
      const request = ask(rootOf(blocks), all, { nodes: false })
      for await (const event of request) if (event.kind === 'block' && event.index === 4) break
      await peer.event('gsCancelled', (e) => e['request'] === request.id)
      await expect.poll(() => peer.call('gsStats')).toMatchObject({ serving: { active: 0, pending: 0 } })
    })

    it('pause and go on, and nothing is sent twice', async () => {
      const blocks = freshFan(200, 200_000)
      await give(blocks)
      const request = ask(rootOf(blocks), all, { nodes: false })
      const got: string[] = []
      for await (const event of request) {
        got.push(told([event], blocks))
        if (got.length !== 20) continue
        request.pause()
        await peer.event('gsCancelled', (e) => e['request'] === request.id)
        request.unpause()
      }
      expect(got).toEqual(blocks.map((_, i) => `+${i}`))
      const again = peer.events.findLast((e) => e['event'] === 'gsRequested' && e['root'] === rootOf(blocks).toString())
      expect(again?.['request']).not.toBe(request.id)
      const { [extension.doNotSendFirstBlocks]: first } = (again?.['extensions'] ?? {}) as Record<string, number>
      expect(first).toBeGreaterThanOrEqual(20)
    })

    it('and the connection is lost in the midst of it', async () => {
      const blocks = freshFan(100, 100_000)
      await give(blocks)
      const request = ask(rootOf(blocks), all, { nodes: false })
      const got: string[] = []
      for await (const event of request) {
        got.push(told([event], blocks))
        if (got.length === 20) await peer.call('disconnect', { peer: ours.peerId.toString() })
      }
      expect(got).toEqual(blocks.map((_, i) => `+${i}`))
      expect(await request.done).toMatchObject({ status: 20, blocks: 101 })
    })

    it('after a rest in which it lets go of our stream', { timeout: 60_000 }, async () => {
      const [one, other] = [freshChain(3), freshChain(3)]
      await give([...one, ...other])
      await expect(ask(rootOf(one), all).done).resolves.toMatchObject({ status: 20 })
      await new Promise((resolve) => setTimeout(resolve, 11_000))
      await expect(ask(rootOf(other), all).done).resolves.toMatchObject({ status: 20 })
    })
  })

  describe('it asks', () => {
    it.each(kinds)('by %s', async (_, selector) => {
      const { root, blocks } = await library()
      await keep(blocks)
      const { blocks: got, errors, onWire } = await asked(root, selector)
      const { loads } = expected(root, selector, blocks)
      expect(errors).toEqual([])
      expect(got).toEqual(loads)
      expect(onWire).toBe(new Set(loads).size)
    })

    it('by random selectors for random DAGs with holes', { timeout: 300_000 }, async () => {
      const given = new Map<string, Block>()
      let far = 0
      await fc.assert(
        fc.asyncProperty(
          dags.chain(({ dag, root }) => fc.tuple(fc.constant({ dag, root }), selectors([], { plain: true }))),
          async ([{ dag, root }, selector]) => {
            const blocks = Array.from(dag.blocks, ([cid, bytes]) => ({ cid: parseCid(cid), bytes }))
            await keep(blocks)
            for (const block of blocks) given.set(base64(block.cid.multihash.bytes), block)
            const want = sane(root, selector, given.values())
            if (want.loads.length > 3) far++
            // Else it walks in another order than it asks for.
            fc.pre(sortsAlike(selector))
            const { blocks: got, errors } = await asked(root, selector)
            // Behind a missing block it takes any longer path for one below that block, and may give up.
            if (want.missing > 0) return
            expect(errors).toEqual([])
            expect(got).toEqual(want.loads)
          },
        ),
        { numRuns: 200 },
      )
      expect(far).toBeGreaterThan(15)
    })

    it('for much at once, in large blocks and in small ones', async () => {
      const blocks = [...freshFan(60, 250_000)]
      const small = freshFan(5000, 60)
      await keep([...blocks, ...small])
      const [large, tiny] = await Promise.all([asked(rootOf(blocks), all), asked(rootOf(small), all)])
      expect([large.errors, large.blocks.length]).toEqual([[], 61])
      expect([tiny.errors, tiny.blocks.length]).toEqual([[], 5001])
      await expect
        .poll(() => graphsync.stats())
        .toMatchObject({ answering: 0, outstandingBytes: 0, rememberedLinks: 0 })
    })

    it('and hears what is missing', async () => {
      const blocks = freshFan(6)
      await keep(blocks.toSpliced(3, 1))
      const { errors, statuses, blocks: got } = await asked(rootOf(blocks), all)
      expect(got).toHaveLength(6)
      expect(errors).toEqual([expect.stringContaining((blocks[3] as Block).cid.toString())])
      expect(statuses.at(-1)).toBe(21)
    })

    it('for a root that we have not got', async () => {
      const { errors, statuses } = await asked(rootOf(freshChain(1)), all)
      expect(errors.at(-1)).toContain('content not found')
      expect(statuses.at(-1)).toBe(34)
    })

    it.each([
      [30, { accept: false }],
      [33, { accept: false, status: 33 }],
      [31, { accept: false, status: 31 }],
    ])('and is refused: %i', async (status, verdict) => {
      const blocks = freshChain(2)
      await keep(blocks)
      hooks.request = () => verdict
      const { errors, statuses } = await asked(rootOf(blocks), all)
      expect(errors).not.toEqual([])
      expect(statuses).toEqual([status])
    })

    it('beyond our budget', async () => {
      const blocks = freshChain(10)
      await keep(blocks)
      hooks.request = () => ({ accept: true, budget: { blocks: 4 } })
      const { errors, statuses, blocks: got } = await asked(rootOf(blocks), all)
      expect(got.length).toBeLessThanOrEqual(4)
      expect(errors).not.toEqual([])
      expect(statuses.at(-1)).toBe(32)
    })

    it('not to send CIDs, nor the first blocks; what it has it goes through alone', async () => {
      const blocks = freshFan(6)
      await keep(blocks)
      await give(blocks.slice(2, 4))
      const without = await asked(rootOf(blocks), all, {
        doNotSendCids: blocks.slice(2, 4).map(({ cid }) => cid.toString()),
      })
      expect([without.errors, without.blocks.length, without.onWire]).toEqual([[], 7, 5])
      const line = freshChain(6)
      await keep(line)
      await give(line.slice(0, 3))
      // It sends do-not-send-first-blocks by itself.
      const rest = await asked(rootOf(line), all)
      expect([rest.errors, rest.blocks.length, rest.onWire]).toEqual([[], 6, 3])
    })

    it('twice at once, each with a key', async () => {
      const blocks = freshFan(50, 1000)
      await keep(blocks)
      const onWire: boolean[] = []
      hooks.outgoingBlock = (_, block) => void onWire.push(block.onWire)
      const both = await Promise.all(['x', 'y'].map((dedupByKey) => asked(rootOf(blocks), all, { dedupByKey })))
      for (const { errors, blocks: got } of both) expect([errors, got.length]).toEqual([[], 51])
    })

    it('with extensions of its own, which we send back, and updates', async () => {
      const blocks = freshChain(4)
      await keep(blocks)
      const heard: unknown[] = []
      hooks.request = (request) => ({ accept: true, pause: true, extensions: request.extensions })
      hooks.update = (request, extensions) => {
        heard.push(extensions)
        request.unpause({ 'app/thanks': [true] })
      }
      const id = await start(rootOf(blocks), all, { extensions: { 'app/hello': { a: 1 } } })
      const paused = await peer.event('gsResponse', (e) => e['request'] === id)
      expect(paused).toMatchObject({ status: 15, extensions: { 'app/hello': { a: 1 } } })
      await peer.call('gsUpdate', { request: id, extensions: { 'app/paid': 'x' } })
      const { errors, blocks: got } = await end(id)
      expect([errors, got.length]).toEqual([[], 4])
      expect(heard).toEqual([{ 'app/paid': 'x' }])
      expect(
        of(id, 'gsResponse').some((e) => (e['extensions'] as Answer | undefined)?.['app/thanks'] !== undefined),
      ).toBe(true)
    })

    it('and we pause after a block, and go on later', async () => {
      const blocks = freshChain(8)
      await keep(blocks)
      const held: IncomingRequest[] = []
      hooks.outgoingBlock = (request, { index }) => {
        if (index === 3 && request.pause()) held.push(request)
      }
      const id = await start(rootOf(blocks), all)
      await peer.event('gsResponse', (e) => e['request'] === id && e['status'] === 15)
      expect(of(id, 'gsDone')).toEqual([])
      held[0]?.unpause()
      const { errors, blocks: got } = await end(id)
      expect([errors, got.length]).toEqual([[], 8])
    })

    it('and we cancel', async () => {
      const blocks = freshChain(8)
      await keep(blocks)
      hooks.outgoingBlock = (request, { index }) => {
        if (index === 3) request.cancel()
      }
      const { errors, statuses } = await asked(rootOf(blocks), all)
      expect(errors.at(-1)).toContain('cancelled')
      expect(statuses.at(-1)).toBe(35)
    })

    it('and cancels, which stops us', async () => {
      const blocks = freshFan(20)
      await keep(blocks)
      hooks.outgoingBlock = (request, { index }) => {
        if (index === 3) request.pause()
      }
      const id = await start(rootOf(blocks), all)
      await peer.event('gsResponse', (e) => e['request'] === id && e['status'] === 15)
      expect(graphsync.stats().answering).toBe(1)
      await peer.call('gsCancel', { request: id })
      await expect.poll(() => graphsync.stats().answering).toBe(0)
    })

    it('pauses, and goes on where it was', async () => {
      const blocks = freshFan(50, 100_000)
      await keep(blocks)
      const firsts: unknown[] = []
      hooks.request = (request) => {
        firsts.push(request.extensions[extension.doNotSendFirstBlocks])
        return true
      }
      const id = await start(rootOf(blocks), all)
      await peer.event('gsBlock', (e) => e['request'] === id)
      await peer.call('gsPause', { request: id })
      await expect.poll(() => graphsync.stats().answering).toBe(0)
      // It takes what is still on its way for an answer to what it asks next: under the same id.
      await new Promise((resolve) => setTimeout(resolve, 200))
      await peer.call('gsUnpause', { request: id })
      const { errors, blocks: got } = await end(id)
      expect(errors).toEqual([])
      expect(new Set(got).size).toBe(51)
      expect(firsts).toHaveLength(2)
      expect(firsts[1]).toBeGreaterThan(0)
    })
  })
})
