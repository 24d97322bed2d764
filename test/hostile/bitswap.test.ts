/* What a peer can do with Bitswap, as one that asks and as one that is asked. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { ProtocolError, errorCode } from '../../src/errors.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { createNode, type Node } from '../../src/node.ts'
import { createBitswap, type Bitswap } from '../../src/protocols/bitswap/bitswap.ts'
import {
  decodeMessage,
  encodeMessage,
  type BitswapMessage,
  type OutgoingMessage,
} from '../../src/protocols/bitswap/wire.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { encodeVarint } from '../../src/varint.ts'
import { failure, memory, patience, secondsUntil, victim, watchProcess, type Victim } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const id = '/ipfs/bitswap/1.2.0'
const mebi = 1024 * 1024

interface Swap extends Victim {
  blocks: MemoryBlocks
  bitswap: Bitswap
}

async function swap(): Promise<Swap> {
  const v = await victim()
  const blocks = new MemoryBlocks()
  const bitswap = createBitswap({ host: v.node, blocks })
  bitswap.start()
  onTestFinished(() => bitswap.stop())
  return Object.assign(v, { blocks, bitswap })
}

interface Hostile {
  node: Node
  /** Says this on a stream of its own. */
  say(message: OutgoingMessage): Promise<void>
  stream(): Promise<ProtocolStream>
}

/** Connected, and asked for something: `answer` gives what it says. */
async function hostile(v: Swap, answer: (asked: BitswapMessage) => OutgoingMessage[] = () => []): Promise<Hostile> {
  const node = await createNode()
  onTestFinished(() => node.stop())
  const stream = (): Promise<ProtocolStream> => node.newStream(v.addr, id)
  let out: ProtocolStream | undefined
  const say = async (message: OutgoingMessage): Promise<void> => {
    out ??= await stream()
    await out.write(...prefixed(...encodeMessage(message, '1.2')))
  }
  node.handle(id, async (inbound) => {
    const framed = new BufferedStream(inbound)
    for (let f = await framed.readPrefixed(4 * mebi); f !== null; f = await framed.readPrefixed(4 * mebi))
      for (const reply of answer(decodeMessage(f))) await say(reply)
  })
  await node.dial(v.addr)
  await expect.poll(() => v.node.connections(node.peerId)[0]?.protocols, patience).toContain(id)
  return { node, say, stream }
}

const says =
  (have: boolean) =>
  (asked: BitswapMessage): OutgoingMessage[] => [{ presences: asked.wants.map(({ cid }) => ({ cid, have })) }]

const want = (cid: CID, type: 'block' | 'have' = 'block') => ({
  cid: cid.bytes,
  priority: 1,
  cancel: false,
  type,
  sendDontHave: true,
})
const blockOf = (text: string): { cid: CID; bytes: Uint8Array } => {
  const bytes = fromUtf8(text)
  return { cid: cidOf(codec.raw, bytes), bytes }
}
const ledger = (v: Swap, node: Node) => v.bitswap.ledgers().find((l) => l.peer === node.peerId.toString())

async function leave(v: Swap, ...peers: Hostile[]): Promise<void> {
  for (const { node } of peers) await node.stop()
  await v.expectUnharmed()
  await expect
    .poll(() => v.bitswap.stats(), patience)
    .toEqual({ wants: 0, peerWants: 0, outstandingBytes: 0, peers: 0 })
}

// --- as one that is asked ---------------------------------------------------------------------------------------------

it('a block that does not match its CID is an error of its own, and never given out', async () => {
  const v = await swap()
  const { cid } = blockOf('what was asked for')
  const liar = await hostile(v, () => [{ blocks: [{ cid: cid.bytes, data: fromUtf8('something else') }] }])
  const get = failure(v.bitswap.get(cid, { peers: [liar.node.peerId] }))
  expect(await secondsUntil(v, get)).toBeLessThanOrEqual(1)
  expect(await get).toBeInstanceOf(ProtocolError)
  expect(errorCode(await get)).toBe('bad-block')
  expect((await get).message).toContain(cid.toString())
  expect(v.codes('bitswap.violation')).toEqual(['bad-block'])
  await leave(v, liar)
})

it('beside a liar an honest peer is still asked, and has it', async () => {
  const v = await swap()
  const { cid, bytes } = blockOf('what was asked for')
  const liar = await hostile(v, () => [{ blocks: [{ cid: cid.bytes, data: fromUtf8('something else') }] }])
  const good = await hostile(v, () => [{ blocks: [{ cid: cid.bytes, data: bytes }] }])
  expect(await v.bitswap.get(cid, { peers: [liar.node.peerId, good.node.peerId] })).toEqual(bytes)
  await leave(v, liar, good)
})

it('no such CID at the given peers: not found, naming each', async () => {
  const v = await swap()
  const [a, b] = [await hostile(v, says(false)), await hostile(v, says(false))]
  const error = await failure(v.bitswap.get(blockOf('nobody has it').cid, { peers: [a.node.peerId, b.node.peerId] }))
  expect(error).toMatchObject({ name: 'UnavailableError', code: 'not-found' })
  for (const { node } of [a, b]) expect(error.message).toContain(node.peerId.toString())
  await leave(v, a, b)
})

it('a peer that says it has the block and never sends it is given up at the deadline', async () => {
  const v = await swap()
  const a = await hostile(v, says(true))
  const get = failure(v.bitswap.get(blockOf('promised').cid, { peers: [a.node.peerId] }))
  expect(await secondsUntil(v, get)).toBeLessThanOrEqual(31)
  expect(['timeout', 'not-found']).toContain(errorCode(await get))
  await leave(v, a)
})

it('a peer that sends its block a byte a second is given up at the deadline', async () => {
  const v = await swap()
  const { cid, bytes } = blockOf('x'.repeat(5_000))
  const a = await hostile(v)
  const stream = await a.stream()
  const message = concat(prefixed(...encodeMessage({ blocks: [{ cid: cid.bytes, data: bytes }] }, '1.2')))
  const get = failure(v.bitswap.get(cid, { peers: [a.node.peerId] }))
  let over = false
  void get.then(() => (over = true))
  let sent = 0
  for (; !over && sent < 100; sent++) {
    await stream.write(message.slice(sent, sent + 1)).catch(() => {})
    await v.clock.advance(1_000)
  }
  expect(sent).toBeLessThanOrEqual(35)
  expect(['timeout', 'not-found']).toContain(errorCode(await get))
  await leave(v, a)
})

it('blocks that nobody asked for are dropped unhashed, and their sender cut off', async () => {
  const v = await swap()
  const a = await hostile(v)
  const before = memory()
  const stream = await a.stream()
  const data = new Uint8Array(256 * 1024)
  const message = concat(
    prefixed(
      ...encodeMessage({ blocks: Array.from({ length: 15 }, () => ({ cid: blockOf('x').cid.bytes, data })) }, '1.2'),
    ),
  )
  for (let i = 0; i < 30; i++) await stream.write(message)
  await expect.poll(() => ledger(v, a.node)?.unasked, patience).toBe(450)
  expect(memory() - before).toBeLessThan(48 * mebi)
  const tiny = {
    blocks: Array.from({ length: 1_000 }, (_, i) => ({ cid: blockOf('x').cid.bytes, data: fromUtf8(`${i}`) })),
  }
  for (let i = 0; i < 20; i++) await a.say(tiny).catch(() => {})
  await expect.poll(() => v.codes('bitswap.violation')[0], patience).toBe('bad-block')
  expect(await v.blocks.has(blockOf('x').cid)).toBe(false)
  await leave(v, a)
})

// --- as one that asks -------------------------------------------------------------------------------------------------

it.each([
  ['larger than 4 MiB', encodeVarint(4 * mebi + 1), 'oversized'],
  ['of 2^53 bytes', encodeVarint(Number.MAX_SAFE_INTEGER), 'oversized'],
  ['of garbage', concat(prefixed(new Uint8Array(500).fill(0xff))), 'bad-protobuf'],
  [
    'with a want that is no CID',
    concat(prefixed(...encodeMessage({ wants: [{ ...want(blockOf('x').cid), cid: fromUtf8('no') }] }, '1.2'))),
    'bad-cid',
  ],
  [
    'with 40,000 wants',
    concat(prefixed(...encodeMessage({ wants: Array.from({ length: 40_000 }, () => want(blockOf('x').cid)) }, '1.2'))),
    'oversized',
  ],
])('a message %s ends its stream with its own error', async (_what, bytes, code) => {
  const v = await swap()
  const a = await hostile(v)
  const stream = await a.stream()
  await stream.write(bytes)
  await stream.closed
  expect(v.codes('bitswap.violation')).toEqual([code])
  await leave(v, a)
})

it('a message that ends within is no want', async () => {
  const v = await swap()
  const a = await hostile(v)
  const stream = await a.stream()
  await stream.write(concat(prefixed(...encodeMessage({ wants: [want(blockOf('x').cid)] }, '1.2'))).slice(0, -3))
  await stream.closeWrite()
  await stream.closed
  expect(v.codes('bitswap.violation')).toEqual(['truncated'])
  expect(v.bitswap.stats().peerWants).toBe(0)
  await leave(v, a)
})

it('wants of identity CIDs, of unknown hashes and of odd codecs cost nothing', async () => {
  const v = await swap()
  const answers: BitswapMessage[] = []
  const a = await hostile(v, (m) => (answers.push(m), []))
  const odd = [
    [1, 0x55, 0x00, 3, 1, 2, 3],
    [1, 0x55, 0x00, 0x80, 1, ...Array.from({ length: 128 }, () => 7)],
    [1, 0x55, 0xb2, 0x40, 4, 1, 2, 3, 4],
    [1, 0xff, 0x7f, 0x12, 1, 9],
    [1, 0x55, 0x12, 0],
  ]
  await a.say({ wants: odd.map((bytes) => Object.assign(want(blockOf('x').cid), { cid: Uint8Array.from(bytes) })) })
  await expect.poll(() => answers.flatMap((m) => m.presences).filter((p) => !p.have).length, patience).toBe(3)
  expect(v.bitswap.wantlist(a.node.peerId)).toHaveLength(3)
  expect(answers.flatMap((m) => m.blocks)).toEqual([])
  await leave(v, a)
})

it('a wantlist without end is kept to its first thousand', async () => {
  const v = await swap()
  const a = await hostile(v)
  const before = memory()
  for (let i = 0; i < 20; i++) {
    const wants = Array.from({ length: 5_000 }, (_, k) => ({ ...want(blockOf(`${i} ${k}`).cid), sendDontHave: false }))
    await a.say({ wants })
  }
  await v.echo()
  await expect.poll(() => v.bitswap.stats().peerWants, patience).toBe(1_024)
  expect(memory() - before).toBeLessThan(32 * mebi)
  await leave(v, a)
})

it('a thousand wants of 2 MiB blocks whose answers nobody reads hold a few megabytes for half a minute', async () => {
  const v = await swap()
  const large = Array.from({ length: 8 }, (_, i) => {
    const bytes = new Uint8Array(2 * mebi).fill(i)
    return { cid: cidOf(codec.raw, bytes), bytes }
  })
  for (const { cid, bytes } of large) await v.blocks.put(cid, bytes)
  // One block by a thousand names.
  const wants = Array.from({ length: 1_000 }, (_, i) => {
    const { cid } = large[i % large.length] ?? blockOf('')
    return { ...want(cid), cid: concat([Uint8Array.of(1), encodeVarint(0x300000 + i), cid.multihash.bytes]) }
  })
  const node = await createNode()
  onTestFinished(() => node.stop())
  // It takes the stream and never reads.
  node.handle(id, () => new Promise(() => {}))
  const stream = await node.newStream(v.addr, id)
  const before = memory()
  await stream.write(...prefixed(...encodeMessage({ wants }, '1.2')))
  await expect.poll(() => v.bitswap.stats().outstandingBytes, patience).toBeGreaterThan(0)
  await v.echo()
  expect(v.bitswap.stats().outstandingBytes).toBeLessThanOrEqual(4 * mebi)
  expect(memory() - before).toBeLessThan(48 * mebi)
  await v.clock.advance(29_000)
  await v.echo()
  // Once for the stream that it had, once for a fresh one.
  await v.clock.advance(2_000)
  await v.echo()
  await v.clock.advance(29_000)
  await v.echo()
  await v.clock.advance(2_000)
  await expect.poll(() => v.bitswap.stats(), patience).toMatchObject({ outstandingBytes: 0, peerWants: 0 })
  await leave(v, { node, say: () => Promise.resolve(), stream: () => Promise.resolve(stream) })
})

it('frames that are promised and dribbled cost what came, and end at their deadline', async () => {
  const v = await swap()
  const a = await hostile(v)
  const before = memory()
  const streams: ProtocolStream[] = []
  for (let i = 0; i < 40; i++) {
    const stream = await a.stream()
    await stream.write(encodeVarint(4 * mebi), new Uint8Array(100))
    streams.push(stream)
  }
  await expect.poll(() => v.codes('connection.inbound-stream-failed').length, patience).toBe(8)
  expect(memory() - before).toBeLessThan(48 * mebi)
  await v.clock.advance(29_000)
  await v.echo()
  await v.clock.advance(2_000)
  await Promise.all(streams.map((s) => s.closed))
  await expect.poll(() => memory() - before, { timeout: 10_000, interval: 200 }).toBeLessThan(16 * mebi)
  await leave(v, a)
})

it('asking and cancelling without end leaves nothing behind', async () => {
  const v = await swap()
  const { cid, bytes } = blockOf('wanted and not')
  await v.blocks.put(cid, bytes)
  const a = await hostile(v)
  const before = memory()
  for (let i = 0; i < 2_000; i++) {
    const w = want(i % 2 === 0 ? cid : blockOf(`${i}`).cid)
    await a.say({ wants: [w, { ...w, cancel: true }], full: i % 3 === 0 })
  }
  await v.echo()
  expect(memory() - before).toBeLessThan(32 * mebi)
  await leave(v, a)
})
