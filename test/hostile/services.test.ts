/* What a peer can do with the services every node has: identify, its push, and ping. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { errorCode, type ErrorCode } from '../../src/errors.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { Identify, identifyId, identifyPushId } from '../../src/protocols/identify/wire.ts'
import { pingId } from '../../src/protocols/ping.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { echoId, failure, memory, patience, secondsUntil, victim, watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

/** A peer with a whole stack, to be made hostile in one service. */
async function peer(): Promise<Node> {
  const node = await createNode()
  onTestFinished(() => node.stop())
  node.unhandle(identifyId)
  return node
}

const many = (count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, i) => Identify.encode({ protocols: [`/planted/${i}`] }))
const joinedFrames = (frames: Uint8Array[]): Uint8Array => concat(frames.flatMap((f) => prefixed(f)))

const replies: [what: string, bytes: Uint8Array, fin: boolean, code: ErrorCode][] = [
  ['in 11 frames', joinedFrames(many(11)), true, 'oversized'],
  [
    'with 1,800 protocols',
    joinedFrames(
      Array.from({ length: 9 }, (_, f) =>
        Identify.encode({ protocols: Array.from({ length: 200 }, (__, i) => `/planted/${f}/${i}`) }),
      ),
    ),
    true,
    'oversized',
  ],
  ['in a frame above 8 KiB', Uint8Array.of(0x81, 0x40), false, 'oversized'],
  ['with a frame of a gigabyte', Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x04), false, 'oversized'],
  ['that never ends', joinedFrames(many(5)), false, 'timeout'],
  ['of half a frame', Uint8Array.of(0x20, 1, 2, 3), false, 'timeout'],
  ['of half a frame and a FIN', Uint8Array.of(0x20, 1, 2, 3), true, 'truncated'],
  ['of nothing', new Uint8Array(0), true, 'truncated'],
  ['of garbage', joinedFrames([new Uint8Array(100).fill(0xff)]), true, 'bad-protobuf'],
  ['of groups within groups', joinedFrames([new Uint8Array(8_000).fill(0x0b)]), true, 'bad-protobuf'],
  [
    'with 4,000 empty addresses',
    joinedFrames([Uint8Array.from({ length: 8_000 }, (_, i) => (i % 2 === 0 ? 0x12 : 0))]),
    true,
    'oversized',
  ],
  [
    'with the key of somebody else',
    joinedFrames([Identify.encode({ publicKey: generateKey().publicKey.encoded, protocols: [echoId] })]),
    true,
    'wrong-peer',
  ],
]

it.each(replies)('an identify %s plants nothing', async (_what, bytes, fin, code) => {
  const v = await victim()
  const hostile = await peer()
  hostile.handle(identifyId, async (stream) => {
    stream.closeRead()
    await stream.write(bytes.slice())
    if (fin) await stream.closeWrite()
  })
  await hostile.dial(v.addr)
  await expect.poll(() => v.node.connections(hostile.peerId).length, patience).toBe(1)
  const asked = failure(v.node.identify(hostile.peerId))
  expect(await secondsUntil(v, asked)).toBeLessThanOrEqual(6)
  expect(errorCode(await asked)).toBe(code)
  expect(v.node.connections(hostile.peerId)[0]?.protocols).toBeUndefined()
  await hostile.stop()
  await v.expectUnharmed()
})

it.each(replies)('a push %s is refused with its own error', async (_what, bytes, fin, code) => {
  const v = await victim()
  const hostile = await peer()
  await hostile.dial(v.addr)
  const stream = await hostile.newStream(v.node.peerId, identifyPushId)
  await stream.write(bytes.slice())
  if (fin) await stream.closeWrite()
  const failed = 'connection.inbound-stream-failed'
  expect(await secondsUntil(v, Promise.race([failure(drain(stream)), stream.closed]))).toBeLessThanOrEqual(6)
  await expect.poll(() => v.codes(failed), patience).toEqual([code])
  expect(v.node.connections(hostile.peerId)[0]?.protocols).toBeUndefined()
  await hostile.stop()
  await v.expectUnharmed()
})

async function drain(stream: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of stream) void chunk
}

it('a flood of pushes is refused, and one a second counts', async () => {
  const v = await victim()
  const hostile = await peer()
  await hostile.dial(v.addr)
  const before = memory()
  const push = async (i: number): Promise<void> => {
    const stream = await hostile.newStream(v.node.peerId, identifyPushId)
    const protocols = Array.from({ length: 150 }, (_, k) => `/planted/${i}/${k}/${'x'.repeat(30)}`)
    await stream.write(...prefixed(Identify.encode({ protocols })))
    await stream.closeWrite()
    await drain(stream)
  }
  for (let i = 0; i < 100; i++) await push(i).catch(() => {})
  await expect.poll(() => v.codes('connection.inbound-stream-failed'), patience).toEqual(Array(80).fill('limit'))
  const first = (): string | undefined => v.node.connections(hostile.peerId)[0]?.protocols?.[0]
  expect(first()).toMatch(/^\/planted\/19\//)
  expect(memory() - before).toBeLessThan(32 * 1024 * 1024)
  await v.clock.advance(1_000)
  await push(100)
  expect(first()).toMatch(/^\/planted\/100\//)
  await failure(push(101))
  await hostile.stop()
  await v.expectUnharmed()
})

it('identify streams that nobody ends do not pile up', async () => {
  const v = await victim()
  const hostile = await peer()
  await hostile.dial(v.addr)
  const open: unknown[] = []
  for (let i = 0; i < 40; i++) {
    const stream = await hostile.newStream(v.node.peerId, identifyId).catch(() => undefined)
    if (stream === undefined) continue
    open.push(stream)
    // It reads the answer, and never says its own FIN.
    await stream.read().catch(() => {})
  }
  const connection = v.node.connections(hostile.peerId)[0]
  expect(connection?.streams.length).toBeLessThanOrEqual(9)
  await v.clock.advance(6_000)
  await expect.poll(() => connection?.streams.length, patience).toBe(0)
  await hostile.stop()
  await v.expectUnharmed()
})

it('more than two ping streams are refused, and partial pings cost nothing', async () => {
  const v = await victim()
  const hostile = await peer()
  await hostile.dial(v.addr)
  const streams = []
  for (let i = 0; i < 10; i++) {
    const stream = await hostile.newStream(v.node.peerId, pingId)
    await stream.write(fromUtf8('half a ping'))
    streams.push(stream)
  }
  await expect.poll(() => v.codes('connection.inbound-stream-failed').length, patience).toBe(8)
  expect(new Set(v.codes('connection.inbound-stream-failed'))).toEqual(new Set(['limit']))
  const pings = (): number =>
    v.node.connections(hostile.peerId)[0]?.streams.filter((s) => s.protocol === pingId && s.direction === 'inbound')
      .length ?? 0
  expect(pings()).toBe(2)
  // A ping that began must be there in time; what only rests may rest.
  await v.clock.advance(11_000)
  await expect.poll(pings, patience).toBe(0)
  await hostile.stop()
  await v.expectUnharmed()
})

it('a ping that ends within is an error, and one whose replies nobody reads waits with little in memory', async () => {
  const v = await victim()
  const hostile = await peer()
  await hostile.dial(v.addr)
  const cut = await hostile.newStream(v.node.peerId, pingId)
  await cut.write(new Uint8Array(31))
  await cut.closeWrite()
  await expect.poll(() => v.codes('connection.inbound-stream-failed'), patience).toEqual(['truncated'])
  const deaf = await hostile.newStream(v.node.peerId, pingId)
  const before = memory()
  let written = 0
  const pour = async (): Promise<void> => {
    for (; written < 64 * 1024 * 1024; written += 32 * 1024) await deaf.write(new Uint8Array(32 * 1024))
  }
  const pouring = failure(pour())
  await expect
    .poll(async () => {
      const now = written
      await new Promise((resolve) => setTimeout(resolve, 100))
      return written - now
    }, patience)
    .toBe(0)
  expect(written).toBeLessThan(4 * 1024 * 1024)
  expect(memory() - before).toBeLessThan(32 * 1024 * 1024)
  await v.echo()
  await hostile.stop()
  await pouring
  await v.expectUnharmed()
})

it.each([
  ['answers with other bytes', (ping: Uint8Array) => ping.map((byte) => byte ^ 1), 'bad-message'],
  ['answers half', (ping: Uint8Array) => ping.slice(0, 16), 'timeout'],
  ['answers nothing', () => undefined, 'timeout'],
])('a peer that %s is not taken for alive', async (_what, answer, code) => {
  const v = await victim()
  const hostile = await peer()
  hostile.unhandle(pingId)
  hostile.handle(pingId, async (stream) => {
    const reply = answer(await new BufferedStream(stream).readExact(32))
    if (reply !== undefined) await stream.write(reply)
    await drain(stream)
  })
  await hostile.dial(v.addr)
  await expect.poll(() => v.node.connections(hostile.peerId).length, patience).toBe(1)
  const ping = failure(Array.fromAsync(v.node.ping(hostile.peerId, { timeoutMs: 3_000 })))
  expect(await secondsUntil(v, ping)).toBeLessThanOrEqual(4)
  expect(errorCode(await ping)).toBe(code)
  await hostile.stop()
  await v.expectUnharmed()
})
