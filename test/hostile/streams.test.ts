/* What an authenticated peer can do with its muxer: raw yamux frames against a node that serves. */
import { expect, it, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { flag, frameType } from '../../src/mux/yamux/frame.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import { errorCode, type ErrorCode } from '../../src/errors.ts'
import type { ProtocolStream } from '../../src/host.ts'
import {
  alive,
  echoId,
  frame,
  memory,
  patience,
  secondsUntil,
  tunnel,
  victim,
  watchProcess,
  type Frame,
  type Tunnel,
  type Victim,
} from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const { data, windowUpdate, ping, goAway } = frameType
const { syn, fin, rst } = flag
const propose = (protocol: string): Uint8Array => encodeTokens(header, protocol)
const toEcho = propose(echoId)
const open = (id: number, body: Uint8Array): Uint8Array => frame(data, syn, id, body.length, body)

/** A tunnel that the victim has registered as a connection, and why that ended. */
async function joined(v: Victim): Promise<Tunnel & { closed: Promise<Error | undefined> }> {
  const t = await tunnel(v.port)
  const mine = () => v.node.connections(t.key.publicKey.peerId)[0]
  await expect.poll(mine, patience).toBeDefined()
  const closed = mine()?.closed ?? Promise.reject(new Error('gone already'))
  return { ...t, closed: closed.then((info) => info.reason) }
}

const violations: [what: string, frames: (() => Uint8Array)[], code: ErrorCode][] = [
  ['another version', [() => frame(data, syn, 1, 0).with(0, 1)], 'bad-frame'],
  ['an unknown type', [() => frame(9, 0, 0, 0)], 'bad-frame'],
  ['data beyond the window with the SYN', [() => frame(data, syn, 1, 0xffff_ffff)], 'flow-control'],
  ['one byte beyond the window', [() => open(1, toEcho), () => frame(data, 0, 1, 256 * 1024)], 'flow-control'],
  [
    'credit that overflows',
    [() => open(1, toEcho), () => frame(windowUpdate, 0, 1, 0xffff_ffff), () => frame(windowUpdate, 0, 1, 0xffff_ffff)],
    'flow-control',
  ],
  ['a stream id of ours', [() => frame(windowUpdate, syn, 2, 0)], 'bad-frame'],
  ['a stream id twice', [() => open(1, toEcho), () => open(1, toEcho)], 'bad-frame'],
  [
    'a stream id again after its end',
    [() => frame(windowUpdate, syn | rst, 1, 0), () => frame(windowUpdate, syn, 1, 0)],
    'bad-frame',
  ],
  ['a gigabyte for a stream that is not there', [() => frame(data, 0, 77, 1 << 30)], 'oversized'],
  [
    'data after its FIN',
    [() => frame(data, syn | fin, 1, 3, fromUtf8('abc')), () => frame(data, 0, 1, 1)],
    'bad-frame',
  ],
  ['a ping on a stream', [() => frame(ping, syn, 3, 0)], 'bad-frame'],
  ['a stream frame on id 0', [() => frame(data, syn, 0, 0)], 'bad-frame'],
]

it.each(violations)('%s ends the connection with its own error', async (_what, frames, code) => {
  const v = await victim()
  const t = await joined(v)
  void alive(t.stream)
  await t.stream.write(concat(frames.map((make) => make())))
  // It does not say goodbye itself, so its socket is cut a while later.
  expect(await secondsUntil(v, t.closed)).toBeLessThanOrEqual(6)
  const reason = await t.closed
  expect(errorCode(reason)).toBe(code)
  expect(reason?.name).toBe('ProtocolError')
  await v.expectUnharmed()
})

it('random bytes after the handshake end the connection', async () => {
  const v = await victim()
  const t = await joined(v)
  void alive(t.stream)
  await t.stream.write(crypto.getRandomValues(new Uint8Array(5_000)))
  expect(await secondsUntil(v, t.closed)).toBeLessThanOrEqual(6)
  expect((await t.closed)?.name).toBe('ProtocolError')
  await v.expectUnharmed()
})

it('a peer that goes silent after Noise is given up by the keep-alive, its streams with it', async () => {
  const v = await victim()
  const t = await joined(v)
  t.socket.pause()
  // Identify is the victim's own stream: it waits 5 s for an answer, the connection 10 s for a pong.
  await v.clock.advance(6_000)
  await v.echo()
  await v.clock.advance(5_000)
  expect(errorCode(await t.closed)).toBe('timeout')
  expect(v.codes('node.identify-failed')).toEqual(['timeout'])
  await v.expectUnharmed()
})

it('a peer that answers pings and nothing else keeps a connection and not one stream', async () => {
  const v = await victim()
  const t = await joined(v)
  void alive(t.stream)
  for (let i = 0; i < 4; i++) {
    await v.clock.advance(20_000)
    await v.echo()
  }
  const [connection] = v.node.connections(t.key.publicKey.peerId)
  expect(connection?.streams).toEqual([])
  connection?.abort()
  await v.expectUnharmed()
})

it('thousands of streams that never finish their negotiation are refused or reset at the deadline', async () => {
  const v = await victim()
  const t = await joined(v)
  const resets = new Set<number>()
  void alive(t.stream, ({ flags, id }: Frame) => void ((flags & rst) !== 0 && id % 2 === 1 && resets.add(id)))
  const half = toEcho.subarray(0, 11)
  for (let i = 0; i < 3_000; i += 100) {
    await t.stream.write(concat(Array.from({ length: 100 }, (_, k) => open(1 + 2 * (i + k), half))))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await v.echo()
  // More than 1,024 at a time were refused at once.
  await expect.poll(() => resets.size, patience).toBeGreaterThanOrEqual(3_000 - 1_024)
  await v.clock.advance(10_000)
  await expect.poll(() => resets.size, patience).toBe(3_000)
  expect(new Set(v.codes('connection.inbound-stream-failed'))).toEqual(new Set(['timeout']))
  t.socket.destroy()
  await t.closed
  await v.expectUnharmed()
})

it.each([
  [
    'proposes protocols forever',
    concat([encodeTokens(header), encodeTokens(...Array(200).fill('/x'))]),
    'bad-negotiation',
  ],
  ['starts with the wrong line', encodeTokens('/multistream/3'), 'bad-negotiation'],
  ['sends a frame that is too large', Uint8Array.of(0xff, 0xff, 0x03), 'oversized'],
  ['sends a proposal that is too large', concat([encodeTokens(header), Uint8Array.of(0x80, 0x10)]), 'oversized'],
])('a stream that %s is reset, its connection goes on', async (_what, bytes, code) => {
  const v = await victim()
  const t = await joined(v)
  const resets: number[] = []
  void alive(t.stream, ({ flags, id }) => void ((flags & rst) !== 0 && resets.push(id)))
  await t.stream.write(open(1, bytes))
  await expect.poll(() => resets, patience).toEqual([1])
  expect(v.codes('connection.inbound-stream-failed')).toEqual([code])
  expect(v.node.connections(t.key.publicKey.peerId)).toHaveLength(1)
  t.socket.destroy()
  await t.closed
  await v.expectUnharmed()
})

it('100,000 streams opened and reset at once cost a bounded amount', async () => {
  const v = await victim()
  const t = await joined(v)
  void alive(t.stream)
  const before = memory()
  let most = 0
  for (let i = 0; i < 100_000; i += 2_000) {
    const burst: Uint8Array[] = []
    for (let id = 1 + 2 * i; id < 1 + 2 * (i + 2_000); id += 2)
      burst.push(open(id, toEcho), frame(windowUpdate, rst, id, 0))
    await t.stream.write(concat(burst))
    if (i % 10_000 === 0) most = Math.max(most, memory() - before)
  }
  await v.echo()
  expect(most).toBeLessThan(40 * 1024 * 1024)
  expect(v.node.connections(t.key.publicKey.peerId)[0]?.streams.length ?? 0).toBeLessThan(300)
  t.socket.destroy()
  await t.closed
  await v.expectUnharmed()
})

it('more pings than are answered at a time end the connection', async () => {
  const v = await victim()
  const t = await joined(v)
  t.socket.pause()
  await t.stream.write(concat(Array.from({ length: 10_000 }, (_, i) => frame(ping, syn, 0, i))))
  expect(await secondsUntil(v, t.closed)).toBeLessThanOrEqual(6)
  expect(errorCode(await t.closed)).toBe('bad-frame')
  await v.expectUnharmed()
})

it('after its Go Away a peer is asked for nothing new, and what it opens is still served', async () => {
  const v = await victim()
  const t = await joined(v)
  const echoed: number[] = []
  void alive(t.stream, ({ type, id, length }) => void (type === data && id === 1 && length > 0 && echoed.push(length)))
  await t.stream.write(frame(goAway, 0, 0, 0), open(1, concat([toEcho, fromUtf8('still here')])))
  await expect.poll(() => echoed.reduce((a, b) => a + b, 0), patience).toBe(toEcho.length + 10)
  const [connection] = v.node.connections(t.key.publicKey.peerId)
  await expect(connection?.newStream(echoId)).rejects.toMatchObject({ name: 'ClosedError' })
  t.socket.destroy()
  await t.closed
  await v.expectUnharmed()
})

it('a peer that never reads what it asked for holds the victim to its bounds', async () => {
  const v = await victim()
  let written = 0
  v.node.handle('/pour/1', async (stream) => {
    for (;;) {
      await stream.write(new Uint8Array(64 * 1024))
      written += 64 * 1024
    }
  })
  const t = await joined(v)
  // It gives all the credit there is and then stops to read.
  const asked = Array.from({ length: 200 }, (_, i) => [
    open(1 + 2 * i, propose('/pour/1')),
    frame(windowUpdate, 0, 1 + 2 * i, 0x7fff_ffff),
  ])
  t.socket.pause()
  await t.stream.write(concat(asked.flat()))
  // Beside the victim's own, which asks who that is.
  const streams = (): readonly ProtocolStream[] => v.node.connections(t.key.publicKey.peerId)[0]?.streams ?? []
  await expect.poll(() => streams().filter((s) => s.direction === 'inbound').length, patience).toBe(200)
  let last = -1
  while (last !== written) {
    last = written
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  // 200 streams: 4 MiB for all, 16 KiB for each, what the kernel takes.
  expect(written).toBeLessThan(64 * 1024 * 1024)
  await v.echo()
  await v.clock.advance(45_000)
  expect(errorCode(await t.closed)).toBe('timeout')
  await v.expectUnharmed()
})
