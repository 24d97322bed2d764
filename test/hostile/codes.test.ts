/* Whoever is refused hears why: the codes that hostile peers find on the wire. */
import { expect, it, vi } from 'vitest'
import { connectionCode, streamCode } from '../../src/close-codes.ts'
import { fromUtf8, concat } from '../../src/bytes.ts'
import { flag, frameType } from '../../src/mux/yamux/frame.ts'
import { sessionDefaults } from '../../src/mux/yamux/options.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import { alive, echoId, frame, patience, tunnel, victim, watchProcess, type Tunnel, type Victim } from './hostile.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

const { data, windowUpdate, ping, goAway } = frameType
const { syn, fin, rst } = flag

interface Heard extends Tunnel {
  /** Codes of resets by stream, and of the Go Away. */
  resets: Map<number, number>
  /** Streams that were acknowledged. */
  acks: Set<number>
  farewell: () => number | undefined
  over: Promise<void>
}

async function hearing(v: Victim, key = generateKey()): Promise<Heard> {
  const t = await tunnel(v.port, key)
  const resets = new Map<number, number>()
  const acks = new Set<number>()
  let code: number | undefined
  const over = alive(t.stream, (one) => {
    if (one.type === windowUpdate && (one.flags & rst) !== 0) resets.set(one.id, one.length)
    if ((one.flags & flag.ack) !== 0) acks.add(one.id)
    if (one.type === goAway) code = one.length
  })
  return { ...t, resets, acks, farewell: () => code, over }
}

const open = (id: number, ...tokens: string[]): Uint8Array => {
  const body = encodeTokens(header, ...tokens)
  return frame(data, syn, id, body.length, body)
}

const violations: [what: string, bytes: Uint8Array][] = [
  ['breaks the framing', frame(9, 0, 0, 0)],
  ['sends more than the window with its SYN', frame(data, syn, 1, 256 * 1024 + 1)],
  [
    'passes 2^32-1 with its credit',
    concat([open(1, echoId), frame(windowUpdate, 0, 1, 0xffff_ffff), frame(windowUpdate, 0, 1, 0xffff_ffff)]),
  ],
  ['sends data behind its FIN', concat([frame(data, syn | fin, 1, 1, fromUtf8('a')), frame(data, 0, 1, 1)])],
  ['pings without end', concat(Array.from({ length: 40 }, (_, i) => frame(ping, syn, 0, i)))],
]

it.each(violations)('a peer that %s hears that it broke the protocol', async (_what, bytes) => {
  const v = await victim()
  const t = await hearing(v)
  await t.stream.write(bytes)
  await expect.poll(t.farewell, patience).toBe(connectionCode.yamuxProtocolError)
  await v.clock.advance(6_000)
  await t.over
  await v.expectUnharmed()
})

const streams: [what: string, tokens: Uint8Array, code: number][] = [
  ['speaks no multistream', fromUtf8('\u0005abcd\n'), streamCode.protocolNegotiationFailed],
  ['sends a token that is too long', Uint8Array.of(0xff, 0x7f), streamCode.protocolNegotiationFailed],
  [
    'proposes without end',
    encodeTokens(header, ...Array.from({ length: 500 }, (_, i) => `/no/${i}`)),
    streamCode.protocolNegotiationFailed,
  ],
  ['sends a ping cut short', concat([encodeTokens(header, '/ipfs/ping/1.0.0'), new Uint8Array(5)]), 0x1004],
]

it.each(streams)('a stream that %s is reset with the code for that', async (what, bytes, code) => {
  const v = await victim()
  const t = await hearing(v)
  await t.stream.write(frame(data, what.includes('cut short') ? syn | fin : syn, 1, bytes.length, bytes))
  await expect.poll(() => t.resets.get(1), patience).toBe(code)
  t.socket.destroy()
  await v.expectUnharmed()
})

it('a stream that never ends its negotiation is reset at its deadline, as a negotiation that failed', async () => {
  const v = await victim()
  const t = await hearing(v)
  await t.stream.write(frame(windowUpdate, syn, 1, 0))
  await expect.poll(() => t.acks.has(1), patience).toBe(true)
  await v.clock.advance(9_000)
  expect(t.resets.has(1)).toBe(false)
  await v.clock.advance(2_000)
  await expect.poll(() => t.resets.get(1), patience).toBe(streamCode.protocolNegotiationFailed)
  t.socket.destroy()
  await v.expectUnharmed()
})

it('streams beyond the limit of a protocol, and beyond that of a connection, hear of a resource limit', async () => {
  const v = await victim()
  v.node.handle('/hold/1', (stream) => stream.closed.then(() => {}), { maxInboundStreams: 3 })
  const t = await hearing(v)
  for (let i = 0; i < 5; i++) await t.stream.write(open(2 * i + 1, '/hold/1'))
  await expect.poll(() => [...t.resets.keys()].toSorted((a, b) => a - b), patience).toHaveLength(2)
  const { maxInboundStreams } = sessionDefaults
  for (let i = 5; i < maxInboundStreams + 10; i++) await t.stream.write(frame(windowUpdate, syn, 2 * i + 1, 0))
  await expect.poll(() => t.resets.size, patience).toBeGreaterThanOrEqual(7)
  expect(new Set(t.resets.values())).toEqual(new Set([streamCode.resourceLimitExceeded]))
  t.socket.destroy()
  await v.expectUnharmed()
})

it('a peer that opens streams for nothing hears of a rate, and costs the others nothing', async () => {
  const v = await victim()
  const t = await hearing(v)
  const { abandonedStreams, abandonedStreamsPerSecond } = sessionDefaults
  for (let i = 0; i <= abandonedStreams; i++) {
    const id = 2 * i + 1
    await t.stream.write(frame(windowUpdate, syn, id, 0), frame(windowUpdate, rst, id, 0))
  }
  await expect.poll(t.farewell, patience).toBe(connectionCode.rateLimited)
  const { error } = v.traces.find(({ what }) => what === 'yamux.failed') ?? {}
  expect(error).toMatchObject({ limit: 'abandonedStreamsPerSecond', max: abandonedStreamsPerSecond })
  t.socket.destroy()
  await v.expectUnharmed()
})

it('a connection too many hears of a resource limit, and is gone a second later', async () => {
  const v = await victim({ maxConnectionsPerPeer: 1 })
  const key = generateKey()
  const first = await hearing(v, key)
  await expect.poll(() => v.node.connections(key.publicKey.peerId).length, patience).toBe(1)
  const second = await hearing(v, key)
  await expect.poll(second.farewell, patience).toBe(connectionCode.resourceLimitExceeded)
  expect(first.farewell()).toBeUndefined()
  await v.clock.advance(1_000)
  await second.over
  first.socket.destroy()
  await v.expectUnharmed()
})

it('who is connected when the node stops hears of it, on the connection and on its streams', async () => {
  const v = await victim()
  v.node.handle('/hold/1', (stream) => stream.closed.then(() => {}))
  const t = await hearing(v)
  await t.stream.write(open(1, '/hold/1'))
  await expect
    .poll(() => v.node.connections().flatMap((c) => c.streams.map((s) => s.protocol)), patience)
    .toContain('/hold/1')
  const stop = v.node.stop()
  await expect.poll(t.farewell, patience).toBe(connectionCode.shutdown)
  expect(t.resets.get(1)).toBe(streamCode.shutdown)
  await v.clock.advance(10_000)
  await stop
  await t.over
})
