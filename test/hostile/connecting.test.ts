/* What a stranger can do before it has said who it is. */
import net from 'node:net'
import { expect, it, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { createNode } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import { connect, echo, hostileListener, patience, tunnel, victim, watchProcess, type Raw } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const refused = 'node.inbound-refused'
const toNoise = encodeTokens(header, '/noise')
/** A plausible first message: 32 bytes of ephemeral key. */
const firstMessage = concat([Uint8Array.of(0, 32), new Uint8Array(32).fill(9)])

it.each([
  ['says nothing', new Uint8Array(0)],
  ['sends half a token', toNoise.subarray(0, 7)],
  ['chooses Noise and says no more', toNoise],
  ['sends half of a Noise message', concat([toNoise, firstMessage.subarray(0, 20)])],
  ['sends one Noise message and never the second', concat([toNoise, firstMessage])],
])('a peer that %s is cut off at the deadline, and not before', async (_what, bytes) => {
  const v = await victim()
  const slow = await Promise.all(Array.from({ length: 10 }, () => connect(v.port)))
  for (const { socket } of slow) socket.write(bytes)
  await expect.poll(() => v.clock.waiting, patience).toBeGreaterThan(20)
  if (bytes.length > 60) await expect.poll(() => slow.every((s) => s.received().length > 100), patience).toBe(true)
  await v.echo()
  await v.clock.advance(9_900)
  expect(slow.some(({ socket }) => socket.destroyed)).toBe(false)
  await v.clock.advance(5_200)
  expect(await Promise.all(slow.map((s) => s.closed))).toEqual(slow.map(() => 'reset'))
  expect(v.codes(refused)).toEqual(slow.map(() => 'timeout'))
  await v.expectUnharmed()
})

it.each([
  ['speaks HTTP', fromUtf8('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), 'oversized'],
  ['speaks TLS', Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00), 'oversized'],
  ['speaks another multistream', encodeTokens('/multistream/2.0.0'), 'bad-negotiation'],
  ['sends a token of a gigabyte', Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x04), 'oversized'],
  ['sends a length without end', new Uint8Array(10).fill(0xff), 'bad-varint'],
  [
    'sends a token without its newline',
    concat([encodeTokens(header), Uint8Array.of(3, 97, 98, 99)]),
    'bad-negotiation',
  ],
  ['sends a token that is no text', concat([encodeTokens(header), Uint8Array.of(3, 0xff, 0xfe, 10)]), 'bad-utf8'],
  ['proposes forever', encodeTokens(header, ...Array.from({ length: 500 }, (_, i) => `/no/${i}`)), 'bad-negotiation'],
  ['ends within a token', toNoise.subarray(0, 25), 'truncated'],
  ['sends an oversized handshake message', concat([toNoise, Uint8Array.of(0xff, 0xff)]), 'oversized'],
  ['sends an empty handshake message', concat([toNoise, Uint8Array.of(0, 0)]), 'bad-handshake'],
  ['sends a key of small order', concat([toNoise, Uint8Array.of(0, 32), new Uint8Array(32)]), 'bad-handshake'],
  [
    'sends garbage for the last handshake message',
    concat([toNoise, firstMessage, Uint8Array.of(0, 200), new Uint8Array(200).fill(7)]),
    'decrypt-failed',
  ],
  ['ends within the handshake', concat([toNoise, firstMessage, Uint8Array.of(0, 200, 1)]), 'truncated'],
])('a peer that %s is refused at once with its own error', async (what, bytes, code) => {
  const v = await victim()
  const { socket, closed } = await connect(v.port)
  socket.write(bytes)
  if (what.startsWith('ends')) socket.end()
  await closed
  expect(v.codes(refused)).toEqual([code])
  expect(v.traces.find((t) => t.what === refused)?.error?.name).toBe('ProtocolError')
  await v.expectUnharmed()
})

it('bytes that come one by one change nothing of that', async () => {
  const v = await victim()
  const { socket, closed } = await connect(v.port)
  for (const byte of concat([toNoise, firstMessage, Uint8Array.of(0, 99), new Uint8Array(99)])) {
    socket.write(Uint8Array.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await closed
  expect(v.codes(refused)).toEqual(['decrypt-failed'])
  await v.expectUnharmed()
})

it('a handshake that was overheard cannot be played again', async () => {
  const v = await victim()
  // What an honest peer says, as a listener on the wire would have it.
  const said: Uint8Array[] = []
  const between = await hostileListener((socket) => {
    const up = net.connect(v.port, '127.0.0.1')
    up.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => said.push(new Uint8Array(chunk)))
    socket.pipe(up)
    up.pipe(socket)
    socket.on('close', () => up.destroy())
  })
  const overheard = await createNode()
  await echo(overheard, `/ip4/127.0.0.1/tcp/${between}/p2p/${v.node.peerId}`)
  await overheard.stop()
  await expect.poll(() => v.node.connections().length, patience).toBe(1)
  v.traces.length = 0
  const { socket, closed } = await connect(v.port)
  socket.write(concat(said))
  await closed
  expect(v.codes(refused)).toEqual(['decrypt-failed'])
  await v.expectUnharmed()
})

it('idle connections do not keep a newcomer out: the oldest of the host that has most make room', async () => {
  const v = await victim({ maxPendingInbound: 16 })
  const idle: Raw[] = []
  for (let i = 0; i < 40; i++) idle.push(await connect(v.port))
  await expect.poll(() => v.codes(refused).length, patience).toBe(24)
  expect(new Set(v.codes(refused))).toEqual(new Set(['limit']))
  // Among idle ones that hold every place somebody new still gets in.
  const newcomer = await createNode()
  await echo(newcomer, v.addr)
  await newcomer.stop()
  await v.clock.advance(15_000)
  await Promise.all(idle.map((i) => i.closed))
  await v.expectUnharmed()
})

it('survives two thousand connections at once', async () => {
  const v = await victim()
  const flood = await Promise.all(Array.from({ length: 2_000 }, () => connect(v.port)))
  for (const { socket } of flood) if (!socket.destroyed) socket.write(toNoise)
  await v.echo()
  await expect.poll(() => flood.filter((f) => !f.socket.destroyed).length, patience).toBeLessThanOrEqual(128)
  await v.clock.advance(15_000)
  await Promise.all(flood.map((f) => f.closed))
  await v.expectUnharmed()
})

it('refuses more connections of one host a second than it may open, and none of others', async () => {
  const v = await victim({ maxInboundPerSecondPerLocalHost: 5 })
  // Ten seconds' worth at once; the honest peer's is one of them.
  const flood = []
  for (let i = 0; i < 60; i++) flood.push(await connect(v.port).catch(() => undefined))
  await expect.poll(() => v.codes(refused), patience).toEqual(Array.from({ length: 11 }, () => 'limit'))
  expect(v.traces.find(({ what }) => what === refused)?.error).toMatchObject({
    limit: 'maxInboundPerSecondPerLocalHost',
    max: 5,
  })
  for (const one of flood) one?.socket.destroy()
  await v.clock.advance(1_000)
  const again = await tunnel(v.port)
  again.socket.destroy()
  await v.expectUnharmed()
})

it('refuses more connections of one peer than maxConnectionsPerPeer, and our own peer id', async () => {
  const v = await victim({ maxConnectionsPerPeer: 3 })
  const key = generateKey()
  const all = []
  for (let i = 0; i < 5; i++) all.push(await tunnel(v.port, key))
  await expect.poll(() => v.codes(refused), patience).toEqual(['limit', 'limit'])
  expect(v.node.connections(key.publicKey.peerId)).toHaveLength(3)
  for (const { socket } of all) socket.destroy()
  await v.expectUnharmed()
})
