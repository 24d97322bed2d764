import { afterEach, expect, it } from 'vitest'
import { DAGExchange, type DagResponse } from '../../src/kit/dag-exchange.ts'
import {
  makeAllSelector,
  makeFieldSelector,
  makePathSelector,
  makeSimpleSelector,
  type Clause,
} from '../../src/ipld/selectors.ts'
import { systemEnv } from '../../src/env.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { FakeHost, join } from '../protocols/bitswap/fake-host.ts'
import { node, raw, rootOf, until, type Block } from '../protocols/graphsync/lab.ts'

const running: DAGExchange[] = []
afterEach(() => Promise.all(running.splice(0).map((exchange) => exchange.stop())))

interface Side {
  host: FakeHost
  blocks: MemoryBlocks
  exchange: DAGExchange
}

async function side(number: number, blocks: Block[] = [], options = {}): Promise<Side> {
  const host = new FakeHost(number)
  const store = new MemoryBlocks()
  for (const { cid, bytes } of blocks) await store.put(cid, bytes)
  const exchange = new DAGExchange(host, store, options)
  await exchange.start()
  running.push(exchange)
  return { host, blocks: store, exchange }
}

/** Three levels, two links each. */
const leaves = [1, 2, 3, 4].map((n) => raw(n))
const [l1, l2, l3, l4] = leaves as [Block, Block, Block, Block]
const left = node({ a: l1.cid, b: l2.cid })
const right = node({ a: l3.cid, b: l4.cid })
const top = node({ left: left.cid, right: right.cid })
const dag = [top, left, l1, l2, right, l3, l4]
const names = (response: DagResponse): string =>
  [...response.blocks.keys()].map((cid) => dag.findIndex((b) => b.cid.toString() === cid)).join(' ')

async function two(blocks = dag, options = {}): Promise<[Side, Side]> {
  const a = await side(1, blocks, options)
  const b = await side(2)
  join(a.host, b.host)
  return [a, b]
}

it.each<[string, Clause, string]>([
  ['simple', makeSimpleSelector(), '0'],
  ['all', makeAllSelector(), '0 1 2 3 4 5 6'],
  ['path', makePathSelector(['right', 'b']), '0 4 6'],
  ['field', makeFieldSelector('left'), '0 1'],
])('the selector %s gives the blocks that it names, as a Map from CID to bytes', async (_, selector, want) => {
  const [a, b] = await two()
  const calls: DagResponse[] = []
  const { id, done } = b.exchange.request({
    peerId: a.host.peerId.toString(),
    rootCid: top.cid.toString(),
    selector,
    callback: (r) => void calls.push(r),
  })
  const end = await done
  expect(end).toMatchObject({ requestId: id, status: 'ok', error: undefined })
  expect(names(end)).toBe(want)
  for (const { cid, bytes } of dag)
    if (end.blocks.has(cid.toString())) expect(end.blocks.get(cid.toString())).toEqual(bytes)
  expect(calls.at(-1)).toBe(end)
  expect(calls.slice(0, -1).every(({ status }) => status === 'progress')).toBe(true)
  expect(calls[0]?.blocks.size).toBe(1)
})

it('maxDepth 1 is the root and its children', async () => {
  const [a, b] = await two()
  const end = await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid, maxDepth: 1 }).done
  expect(names(end)).toBe('0 1 4')
})

it('maxBlocks 2 is partial, and says what remains', async () => {
  const [a, b] = await two()
  const end = await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid, maxBlocks: 2 }).done
  expect(end.status).toBe('partial')
  expect(names(end)).toBe('0 1')
  expect(end.extensions['remainingBlocks']).toBe(3)
})

it('an unknown root is not found, a peer that nobody knows unreachable', async () => {
  const [a, b] = await two([])
  expect(await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid }).done).toMatchObject({
    status: 'not-found',
    blocks: new Map(),
  })
  const end = await b.exchange.request({ peerId: new FakeHost(9).peerId, rootCid: top.cid }).done
  expect(end).toMatchObject({ status: 'unreachable', error: { code: 'no-address' } })
})

it('a block that is missing makes it partial', async () => {
  const [a, b] = await two(dag.filter((block) => block !== left))
  const end = await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid }).done
  expect([end.status, names(end), end.extensions['remainingBlocks']]).toEqual(['partial', '0 4 5 6', 1])
})

const callback = (): never => {
  throw new Error('mine')
}

it('a callback that throws does not end its request', async () => {
  const [a, b] = await two()
  expect(await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid, callback }).done).toMatchObject({
    status: 'ok',
  })
})

it('cancelRequest is true once, reaches the peer, and is false for what is not there', async () => {
  const [a, b] = await two(dag, { hooks: { request: () => ({ accept: true, pause: true }) } })
  const { id, done } = b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid })
  await until(() => a.exchange.graphsync.stats().answering === 1)
  expect(await b.exchange.cancelRequest(id)).toBe(true)
  expect(await done).toMatchObject({ status: 'cancelled' })
  expect(await b.exchange.cancelRequest(id)).toBe(false)
  expect(await b.exchange.cancelRequest('nothing')).toBe(false)
  await until(() => a.exchange.graphsync.stats().answering === 0)
})

it('ends as timeout when it takes too long', async () => {
  const [a, b] = await two(dag, { hooks: { request: () => ({ accept: true, pause: true }) } })
  expect(await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid, timeoutMs: 20 }).done).toMatchObject({
    status: 'timeout',
  })
})

it('a refusal is one, with what the peer says', async () => {
  const [a, b] = await two(dag, { hooks: { request: () => ({ accept: false, extensions: { 'app/why': 'closed' } }) } })
  const end = await b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid }).done
  expect(end).toMatchObject({ status: 'refused', extensions: { 'app/why': 'closed' } })
})

it('before start a request throws, and stop ends those under way', async () => {
  const [a, b] = await two(dag, { hooks: { request: () => ({ accept: true, pause: true }) } })
  const early = new DAGExchange(new FakeHost(7, systemEnv()), new MemoryBlocks())
  expect(() => early.request({ peerId: a.host.peerId, rootCid: rootOf(dag) })).toThrow(/not started/)
  const { done } = b.exchange.request({ peerId: a.host.peerId, rootCid: top.cid })
  await b.exchange.stop()
  expect(await done).toMatchObject({ status: 'failed', error: { code: 'stopped' } })
})
