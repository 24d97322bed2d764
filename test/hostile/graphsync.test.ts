/* What a peer can do with GraphSync, as one that is asked and as one that asks. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { ProtocolError, TimeoutError, errorCode } from '../../src/errors.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { encodeCbor } from '../../src/ipld/cbor.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { createNode, type Node } from '../../src/node.ts'
import { createGraphsync, type Graphsync, type GraphsyncOptions } from '../../src/protocols/graphsync/graphsync.ts'
import {
  decodeMessage,
  encodeMessage,
  protocolId,
  type GraphsyncMessage,
  type OutgoingMessage,
  type OutgoingRequest,
  type WireRequest,
} from '../../src/protocols/graphsync/wire.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { encodeVarint } from '../../src/varint.ts'
import { all, chain, fan, metadata, node as dagNode, raw, rootOf, type Block } from '../protocols/graphsync/lab.ts'
import { failure, patience, secondsUntil, victim, watchProcess, type Victim } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const mebi = 1024 * 1024

interface Sync extends Victim {
  blocks: MemoryBlocks
  graphsync: Graphsync
  /** A good peer that has `good`, and is asked for it in the end. */
  good: Node
}

const good = chain(20, 500, 77)

async function sync(blocks: Block[] = [], options: GraphsyncOptions = {}): Promise<Sync> {
  const v = await victim()
  const store = new MemoryBlocks()
  for (const { cid, bytes } of blocks) await store.put(cid, bytes)
  const graphsync = createGraphsync(v.node, store, options)
  graphsync.start()
  const peer = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  await peer.start()
  const theirs = new MemoryBlocks()
  for (const { cid, bytes } of good) await theirs.put(cid, bytes)
  const serving = createGraphsync(peer, theirs)
  serving.start()
  await v.node.dial(String(peer.addrs()[0]))
  onTestFinished(async () => {
    await graphsync.stop()
    await serving.stop()
    await peer.stop()
  })
  return Object.assign(v, { blocks: store, graphsync, good: peer })
}

interface Hostile {
  node: Node
  asked: WireRequest[]
  heard: GraphsyncMessage[]
  say(message: OutgoingMessage): Promise<void>
  raw(bytes: Uint8Array): Promise<void>
  stream(): Promise<ProtocolStream>
}

/** Connected; `answer` gives what it says to each new request. `deaf`: it reads nothing. */
async function hostile(
  v: Sync,
  answer: (asked: WireRequest) => OutgoingMessage[] | Uint8Array = () => [],
  deaf = false,
): Promise<Hostile> {
  const node = await createNode()
  onTestFinished(() => node.stop())
  const asked: WireRequest[] = []
  const heard: GraphsyncMessage[] = []
  const stream = (): Promise<ProtocolStream> => node.newStream(v.addr, protocolId)
  let out: ProtocolStream | undefined
  const write = async (...bytes: Uint8Array[]): Promise<void> => {
    out ??= await stream()
    await out.write(...bytes)
  }
  const say = (message: OutgoingMessage): Promise<void> => write(...prefixed(...encodeMessage(message)))
  node.handle(protocolId, async (inbound) => {
    if (deaf) {
      await inbound.closed
      return
    }
    const framed = new BufferedStream(inbound)
    for (let f = await framed.readPrefixed(4 * mebi); f !== null; f = await framed.readPrefixed(4 * mebi)) {
      const message = decodeMessage(f.slice())
      heard.push(message)
      for (const request of message.requests.filter(({ type }) => type === 'n')) {
        asked.push(request)
        const said = answer(request)
        if (said instanceof Uint8Array) await write(said)
        else for (const reply of said) await say(reply)
      }
    }
  })
  await node.dial(v.addr)
  await expect.poll(() => v.node.connections(node.peerId)[0]?.protocols, patience).toContain(protocolId)
  return { node, asked, heard, say, raw: (bytes) => write(bytes), stream }
}

/** A good peer is still good, nothing is kept of the others, and the node does its work. */
async function leave(v: Sync, ...peers: Hostile[]): Promise<void> {
  const done = v.graphsync.request(v.good.peerId, rootOf(good), all).done
  await secondsUntil(v, done)
  expect(await done).toMatchObject({ status: 20, blocks: good.length })
  for (const { node } of peers) await node.stop()
  await v.node.hangUp(v.good.peerId)
  await expect
    .poll(() => v.graphsync.stats(), patience)
    .toMatchObject({
      asked: 0,
      bufferedBytes: 0,
      answering: 0,
      outstandingBytes: 0,
      rememberedLinks: 0,
      peers: 0,
    })
  await v.echo()
}

// --- as one that is asked ---------------------------------------------------------------------------------------------

const dag = fan(4, 200)
const [root, one, two, three, four] = dag as [Block, Block, Block, Block, Block]
const stray = raw(999)
const data = ({ cid, bytes }: Block): { cid: CID; data: Uint8Array } => ({ cid, data: bytes })
const full = metadata([root, 'p'], [one, 'p'], [two, 'p'], [three, 'p'], [four, 'p'])
const response = (id: string, status: number, meta = metadata()) => ({ id, status, metadata: meta })

const lies: [what: string, code: string, answer: (id: string) => OutgoingMessage[] | Uint8Array][] = [
  [
    'a wrong block',
    'bad-message',
    (id) => [{ responses: [response(id, 14, metadata([root, 'p']))], blocks: [{ cid: root.cid, data: stray.bytes }] }],
  ],
  [
    'a block that nobody asked for',
    'bad-message',
    (id) => [{ responses: [response(id, 20, full)], blocks: [...dag.map(data), data(stray)] }],
  ],
  [
    'a block twice',
    'bad-message',
    (id) => [{ responses: [response(id, 20, full)], blocks: [...dag.map(data), data(one)] }],
  ],
  [
    'blocks out of order',
    'bad-message',
    (id) => [
      {
        responses: [response(id, 20, metadata([root, 'p'], [two, 'p'], [one, 'p']))],
        blocks: [root, one, two].map(data),
      },
    ],
  ],
  [
    'another graph',
    'bad-message',
    (id) => [{ responses: [response(id, 20, metadata([stray, 'p']))], blocks: [data(stray)] }],
  ],
  ['no blocks, but that they are sent', 'bad-message', (id) => [{ responses: [response(id, 20, full)] }]],
  [
    'no blocks, but that they are here',
    'bad-message',
    (id) => [{ responses: [response(id, 20, metadata([root, 'd']))] }],
  ],
  [
    'that it is done before it is',
    'bad-message',
    (id) => [{ responses: [response(id, 20, metadata([root, 'p'], [one, 'p']))], blocks: [root, one].map(data) }],
  ],
  ['that it is done with nothing', 'bad-message', (id) => [{ responses: [response(id, 20)] }]],
  [
    'more than there is',
    'bad-message',
    (id) => [
      { responses: [response(id, 14, full)], blocks: dag.map(data) },
      { responses: [response(id, 20, metadata([one, 'p']))] },
    ],
  ],
  ['that it has nothing', 'not-found', (id) => [{ responses: [response(id, 34, metadata([root, 'm']))] }]],
  ['a prefix that is none', 'bad-cid', (id) => [concatMessage(id)]],
  ['bytes that are no message', 'bad-message', () => concat(prefixed(fromUtf8('no message at all')))],
  ['a message that is too long', 'oversized', () => encodeVarint(5 * mebi)],
  [
    'a list that claims to be long',
    'oversized',
    () =>
      concat(
        prefixed(
          Uint8Array.of(0xa1, 0x63, 0x67, 0x73, 0x32, 0xa1, 0x63, 0x62, 0x6c, 0x6b, 0x9a, 0xff, 0xff, 0xff, 0xff),
        ),
      ),
  ],
  [
    'an extension without end',
    'oversized',
    (id) => [
      {
        responses: [
          {
            id,
            status: 14,
            extensions: new Map([['x', concat([new Uint8Array(50_000).fill(0x81), Uint8Array.of(0xf6)])]]),
          },
        ],
      },
    ],
  ],
]

/** A block whose prefix says CID version 7. */
function concatMessage(id: string): OutgoingMessage {
  const bytes = root.cid.bytes.slice()
  bytes[0] = 7
  const cid = { version: 1, bytes, multihash: root.cid.multihash } as unknown as CID
  return { responses: [response(id, 14, metadata([root, 'p']))], blocks: [{ cid, data: root.bytes }] }
}

it.each(lies)('who answers with %s fails that request as %s, and nothing else', async (_, code, answer) => {
  const v = await sync()
  const liar = await hostile(v, ({ id }) => answer(id))
  const done = failure(v.graphsync.request(liar.node.peerId, root.cid, all).done)
  expect(await secondsUntil(v, done)).toBeLessThanOrEqual(2)
  expect(errorCode(await done)).toBe(code)
  // Only what was on the path came into the store.
  expect(await v.blocks.has(stray.cid)).toBe(false)
  await leave(v, liar)
})

it('a block that is not what its codec says is an error of its own', async () => {
  const v = await sync()
  const bytes = fromUtf8('no cbor')
  const cid = cidOf(codec.dagCbor, bytes)
  const liar = await hostile(v, ({ id }) => [
    { responses: [response(id, 20, metadata([cid, 'p']))], blocks: [{ cid, data: bytes }] },
  ])
  const error = await failure(v.graphsync.request(liar.node.peerId, cid, all).done)
  expect(errorCode(error)).toBe('bad-block')
  await leave(v, liar)
})

it.each<[string, (id: string) => OutgoingMessage[]]>([
  ['nothing', () => []],
  ['some of it', (id) => [{ responses: [response(id, 14, metadata([root, 'p']))], blocks: [data(root)] }]],
  ['all but the end', (id) => [{ responses: [response(id, 14, full)], blocks: dag.map(data) }]],
])('who says %s and no more is given up after 30 s', async (_, answer) => {
  const v = await sync()
  const liar = await hostile(v, ({ id }) => answer(id))
  const done = failure(v.graphsync.request(liar.node.peerId, root.cid, all).done)
  const seconds = await secondsUntil(v, done)
  expect(seconds).toBeGreaterThanOrEqual(29)
  expect(seconds).toBeLessThanOrEqual(32)
  expect(await done).toBeInstanceOf(TimeoutError)
  // And it was told.
  await expect.poll(() => liar.heard.flatMap((m) => m.requests).at(-1)?.type, patience).toBe('c')
  await leave(v, liar)
})

it('who says every second that there is more to come is given up all the same', async () => {
  const v = await sync()
  const liar = await hostile(v)
  const done = failure(v.graphsync.request(liar.node.peerId, root.cid, all).done)
  await expect.poll(() => liar.asked.length, patience).toBe(1)
  const id = (liar.asked[0] as WireRequest).id
  let over = false
  void done.then(() => (over = true))
  let seconds = 0
  for (; !over && seconds < 60; seconds++) {
    await liar.say({ responses: [{ id, status: 14, extensions: new Map([['x', encodeCbor(seconds)]]) }] })
    await v.clock.advance(1_000)
    await v.echo()
  }
  expect(seconds).toBeLessThanOrEqual(35)
  expect(await done).toBeInstanceOf(TimeoutError)
  await leave(v, liar)
})

it('who pauses for ever is given up after ten minutes', async () => {
  const v = await sync()
  const liar = await hostile(v, ({ id }) => [{ responses: [response(id, 15)] }])
  const request = v.graphsync.request(liar.node.peerId, root.cid, all)
  const done = failure(request.done)
  await expect.poll(() => request.status, patience).toBe(15)
  const seconds = await secondsUntil(v, done)
  expect(seconds).toBeGreaterThan(500)
  expect(seconds).toBeLessThanOrEqual(602)
  await leave(v, liar)
})

it('who answers a request that was made to somebody else is not heard', async () => {
  const v = await sync()
  const asked = await hostile(v)
  const liar = await hostile(v)
  const done = v.graphsync.request(asked.node.peerId, root.cid, all).done
  await expect.poll(() => asked.asked.length, patience).toBe(1)
  const { id } = asked.asked[0] as WireRequest
  await liar.say({ responses: [response(id, 34, metadata([root, 'm']))] })
  await liar.say({ responses: [response(id, 20, metadata([stray, 'p']))], blocks: [data(stray)] })
  await liar.say({ requests: [{ id, type: 'c' }] })
  await expect.poll(() => v.graphsync.stats().ignored, patience).toBe(3)
  await asked.say({ responses: [response(id, 20, full)], blocks: dag.map(data) })
  expect(await done).toMatchObject({ status: 20, blocks: 5 })
  await leave(v, asked, liar)
})

it('one lie beside an honest answer of the same peer costs that request alone', async () => {
  const v = await sync()
  const liar = await hostile(v, ({ id, root: of }) =>
    of?.equals(root.cid) === true
      ? [{ responses: [response(id, 20, full)], blocks: dag.map(data) }]
      : [{ responses: [response(id, 20, metadata([stray, 'p']))], blocks: [data(stray)] }],
  )
  const lied = failure(v.graphsync.request(liar.node.peerId, rootOf(good), all).done)
  const honest = v.graphsync.request(liar.node.peerId, root.cid, all).done
  expect(await lied).toBeInstanceOf(ProtocolError)
  expect(await honest).toMatchObject({ status: 20, blocks: 5 })
  await leave(v, liar)
})

it('who sends more than is read is not read any more', async () => {
  const v = await sync([], { bufferedBytes: mebi })
  const wide = fan(400, 100_000, 5)
  const liar = await hostile(v, ({ id }) => [
    { responses: [response(id, 14, metadata([wide[0] as Block, 'p']))], blocks: [data(wide[0] as Block)] },
    ...wide.slice(1).map((block) => ({ responses: [response(id, 14, metadata([block, 'p']))], blocks: [data(block)] })),
    { responses: [response(id, 20)] },
  ])
  const iterator = v.graphsync.request(liar.node.peerId, rootOf(wide), all, { nodes: false })[Symbol.asyncIterator]()
  await iterator.next()
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(v.graphsync.stats().bufferedBytes).toBeLessThan(mebi + 250_000)
  let count = 1
  while ((await iterator.next()).done !== true) count++
  expect(count).toBe(401)
  await leave(v, liar)
})

it('a message that comes a byte a second is given up at the deadline', async () => {
  const v = await sync()
  const liar = await hostile(v)
  await liar.raw(concat([encodeVarint(1000), new Uint8Array(10)]))
  await expect.poll(() => v.node.connections(liar.node.peerId)[0]?.streams.length, patience).toBeGreaterThan(0)
  await v.clock.advance(31_000)
  await expect.poll(() => v.traces.filter((t) => t.what === 'graphsync.stream-lost').length, patience).toBe(1)
  await leave(v, liar)
})

// --- as one that asks -------------------------------------------------------------------------------------------------

const idOf = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`
const selector = encodeCbor(all)
const request = (n: number, of: CID = root.cid, by: Uint8Array = selector): OutgoingRequest => ({
  id: idOf(n),
  type: 'n',
  root: of,
  selector: by,
})
const statuses = (peer: Hostile): Map<string, number> =>
  new Map(peer.heard.flatMap((m) => m.responses.map(({ id, status }): [string, number] => [id, status])))

it('the thousandth request of a peer is refused with a status', async () => {
  // All wait for a hook that takes its time.
  let open: (() => void) | undefined
  const opened = new Promise<boolean>((resolve) => (open = () => resolve(true)))
  const v = await sync(dag, { hooks: { request: () => opened } })
  const asker = await hostile(v)
  await asker.say({ requests: Array.from({ length: 1000 }, (_, i) => request(i)) })
  await expect.poll(() => statuses(asker).size, patience).toBe(1000 - 128)
  expect(new Set(statuses(asker).values())).toEqual(new Set([31]))
  expect(v.graphsync.stats().answering).toBe(128)
  open?.()
  await expect.poll(() => statuses(asker).size, patience).toBe(1000)
  expect([...statuses(asker).values()].filter((status) => status === 20)).toHaveLength(128)
  await leave(v, asker)
})

const many = (n: number): OutgoingMessage => ({
  requests: Array.from({ length: 2000 }, (_, i) => request(n * 2000 + i, stray.cid)),
})

it('who asks without end and never reads is not read either', async () => {
  const v = await sync(dag)
  const asker = await hostile(v, undefined, true)
  let sent = 0
  const flood = (async () => {
    for (; sent < 100; sent++) await asker.say(many(sent))
  })().catch(() => {})
  await expect.poll(() => v.graphsync.stats().outstandingBytes, patience).toBeGreaterThan(200_000)
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(sent).toBeLessThan(60)
  expect(v.graphsync.stats().outstandingBytes).toBeLessThan(4 * mebi)
  await leave(v, asker)
  await flood
})

it('who asks for much and never reads has it read for him no further than there is room', async () => {
  const wide = fan(500, 50_000, 8)
  const v = await sync(wide, { outstandingBytes: mebi })
  const asker = await hostile(v, undefined, true)
  await asker.say({ requests: [request(1, rootOf(wide))] })
  await expect.poll(() => v.graphsync.stats().outstandingBytes, patience).toBeGreaterThan(500_000)
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(v.graphsync.stats().outstandingBytes).toBeLessThan(mebi + 600_000)
  expect(v.graphsync.stats().answering).toBe(1)
  // After a while it is dropped.
  await v.clock.advance(31_000)
  await expect.poll(() => v.graphsync.stats().answering, patience).toBe(0)
  await leave(v, asker)
})

it('updates and cancels of what does not exist are nothing', async () => {
  const v = await sync(dag)
  const asker = await hostile(v)
  await asker.say({
    requests: [
      { id: idOf(1), type: 'u', extensions: new Map([['x', encodeCbor(1)]]) },
      { id: idOf(2), type: 'c' },
    ],
  })
  await expect.poll(() => v.graphsync.stats().ignored, patience).toBe(2)
  expect(asker.heard).toEqual([])
  await leave(v, asker)
})

const deep = (n: number): IpldNode => {
  let clause: IpldNode = { '.': {} }
  for (let i = 0; i < n; i++) clause = { a: { '>': clause } }
  return clause
}
const wideUnion = (n: number): IpldNode => ({ '|': Array.from({ length: n }, () => ({ a: { '>': { '.': {} } } })) })
const unions = (depth: number): IpldNode =>
  depth === 0 ? { '@': {} } : { '|': [unions(depth - 1), unions(depth - 1), { a: { '>': unions(depth - 1) } }] }

it.each<[string, number, OutgoingRequest]>([
  ['no selector', 30, { id: idOf(1), type: 'n', root: root.cid }],
  ['no root', 30, { id: idOf(1), type: 'n', selector }],
  ['a selector that is none', 30, request(1, root.cid, encodeCbor({ nothing: {} }))],
  ['a selector that nests without end', 30, request(1, root.cid, encodeCbor(deep(400)))],
  ['a union of thousands', 30, request(1, root.cid, encodeCbor(wideUnion(3000)))],
  ['unions of unions', 30, request(1, root.cid, encodeCbor({ R: { l: { none: {} }, ':>': unions(8) } }))],
  ['an edge outside of a recursion', 30, request(1, root.cid, encodeCbor({ '@': {} }))],
  [
    'a selector that is no canonical cbor',
    30,
    request(1, root.cid, Uint8Array.of(0xa1, 0x61, 0x2e, 0xbf, 0xff).slice(0, 3)),
  ],
  [
    'a range of billions',
    20,
    request(1, root.cid, encodeCbor({ f: { 'f>': { leaves: { r: { '^': 0, $: 2 ** 40, '>': { '.': {} } } } } } })),
  ],
  ['extensions of megabytes', 30, { ...request(1), extensions: new Map([['x', encodeCbor(new Uint8Array(mebi))]]) }],
])('who asks with %s hears %i', async (what, status, asked) => {
  const v = await sync(dag)
  const asker = await hostile(v)
  if (what.includes('canonical')) {
    // Not even a message.
    await asker.say({ requests: [asked] })
    await expect.poll(() => v.codes('graphsync.violation'), patience).toEqual(['bad-message'])
  } else {
    await asker.say({ requests: [asked] })
    await expect.poll(() => statuses(asker).get(idOf(1)), patience).toBe(status)
  }
  await leave(v, asker)
})

it('a few blocks with endless ways through them cost the budget and no more', async () => {
  // 2^40 ways from top to bottom.
  const blocks: Block[] = [dagNode(0)]
  for (let i = 0; i < 40; i++) {
    const { cid } = blocks[0] as Block
    blocks.unshift(dagNode([cid, cid]))
  }
  const v = await sync(blocks, { budget: { blocks: 20_000, nodes: 100_000 } })
  const asker = await hostile(v)
  await asker.say({ requests: [request(1, rootOf(blocks))] })
  await expect.poll(() => statuses(asker).get(idOf(1)), patience).toBe(32)
  expect(asker.heard.reduce((sum, m) => sum + m.blocks.length, 0)).toBe(41)
  await leave(v, asker)
})

it('an id that is in use begins anew, and the first is forgotten', async () => {
  const v = await sync(dag, { hooks: { request: () => ({ accept: true, pause: true }) } })
  const asker = await hostile(v)
  for (let i = 0; i < 10; i++) await asker.say({ requests: [request(1)] })
  await expect.poll(() => statuses(asker).get(idOf(1)), patience).toBe(15)
  await expect.poll(() => v.graphsync.stats().answering, patience).toBe(1)
  await asker.say({ requests: [{ id: idOf(1), type: 'c' }] })
  await expect.poll(() => v.graphsync.stats().answering, patience).toBe(0)
  await leave(v, asker)
})
