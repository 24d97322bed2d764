/* What a stranger can do to a WebSocket: before the upgrade, with frames afterwards, and as a server that we dial. */
import type net from 'node:net'
import { expect, it, vi } from 'vitest'
import { concat, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { fakeEnv, settle, type Env, type FakeClock } from '../../src/env.ts'
import { ProtocolError, UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import { websocket, type WebSocketOptions } from '../../src/transport/websocket/websocket.ts'
import { certificate } from '../certificate.ts'
import { connect, hostileListener, patience, victim, watchProcess, type Raw, type Victim } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const refused = 'node.inbound-refused'
const never = new AbortController().signal
const crlf = '\r\n'
const request = (path = '/', ...more: string[]): string =>
  [
    `GET ${path} HTTP/1.1`,
    'Host: x',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...more,
    crlf,
  ].join(crlf)

interface OverWebSocket extends Victim {
  /** The transport's own time. */
  upgrades: FakeClock
}

async function over(options: WebSocketOptions = {}, listen = '/ip4/127.0.0.1/tcp/0/ws'): Promise<OverWebSocket> {
  const env: Env & { clock: FakeClock } = fakeEnv()
  const v = await victim({ transports: [websocket({ env, ...options })], listen: [listen] })
  return { ...v, upgrades: env.clock }
}

interface FrameOptions {
  fin?: boolean
  rsv?: number
  masked?: boolean
  /** What the frame says it holds; default what it does. */
  announced?: number
}

/** RFC 6455 §5.2, as a client sends it. */
function frame(opcode: number, body: Uint8Array, options: FrameOptions = {}): Uint8Array {
  const { fin = true, rsv = 0, masked = true, announced = body.length } = options
  const head = new Uint8Array(announced < 126 ? 2 : 10)
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  head[1] = (masked ? 0x80 : 0) | Math.min(announced, 127)
  if (announced >= 126) new DataView(head.buffer).setBigUint64(2, BigInt(announced))
  return concat([head, masked ? new Uint8Array(4) : new Uint8Array(0), body])
}

/** A socket that has upgraded, with what came behind the response. */
async function upgraded({ port }: Victim, ...more: string[]): Promise<Raw & { response: string }> {
  const raw = await connect(port)
  raw.socket.write(request('/', ...more))
  await expect.poll(() => toText(raw), patience).toContain(crlf + crlf)
  return { ...raw, response: toText(raw).split(crlf + crlf)[0] ?? '' }
}

/** What the peer is said to have broken, however deep the error says it. */
function broke(error: unknown): string | undefined {
  if (error instanceof ProtocolError) return error.code
  return error instanceof Error ? broke(error.cause) : undefined
}

const toText = (raw: Raw): string => Buffer.from(raw.received()).toString('latin1')
const mssHeader = encodeTokens(header, '/noise')

it.each([
  ['a text message', frame(1, fromUtf8('hello')), 'bad-frame'],
  ['a frame of 2^40 bytes', frame(2, new Uint8Array(0), { announced: 2 ** 40 }), 'oversized'],
  ['a frame of a byte more than is allowed', frame(2, new Uint8Array(9), { announced: 1024 * 1024 + 1 }), 'oversized'],
  ['a frame without a mask', frame(2, mssHeader, { masked: false }), 'bad-frame'],
  ['a compressed frame that nobody agreed on', frame(2, mssHeader, { rsv: 4 }), 'bad-frame'],
  ['a reserved opcode', frame(3, mssHeader), 'bad-frame'],
  ['a ping of 200 bytes', frame(9, new Uint8Array(200)), 'bad-frame'],
  ['a ping in fragments', frame(9, new Uint8Array(5), { fin: false }), 'bad-frame'],
  ['a continuation of nothing', frame(0, mssHeader), 'bad-frame'],
  ['a close frame of one byte', frame(8, Uint8Array.of(3)), 'bad-frame'],
  [
    'a message in endless fragments',
    concat([
      frame(2, mssHeader, { fin: false }),
      ...Array.from({ length: 2000 }, () => frame(0, Uint8Array.of(1), { fin: false })),
    ]),
    'bad-frame',
  ],
  [
    'fragments that are more together than one may be',
    concat(Array.from({ length: 17 }, (_, i) => frame(i === 0 ? 2 : 0, new Uint8Array(64 * 1024), { fin: false }))),
    'oversized',
  ],
])('%s costs its sender the connection, and nobody else', async (_what, bytes, code) => {
  const v = await over()
  const { socket, closed } = await upgraded(v)
  socket.write(bytes)
  await closed
  const why = (): (string | undefined)[] => v.traces.filter(({ what }) => what === refused).map((t) => broke(t.error))
  await expect.poll(why, patience).toEqual([code])
  await v.expectUnharmed()
})

it('takes a message in fragments as the same bytes, and empty messages as nothing', async () => {
  const v = await over()
  const raw = await upgraded(v)
  const before = raw.received().length
  for (const byte of mssHeader) {
    raw.socket.write(frame(2, new Uint8Array(0)))
    raw.socket.write(frame(2, Uint8Array.of(byte), { fin: false }))
    raw.socket.write(frame(0, new Uint8Array(0)))
  }
  // The header and the echo of /noise, in frames without a mask.
  await expect.poll(() => toText(raw).slice(before), patience).toContain('/noise\n')
  raw.socket.destroy()
  await v.expectUnharmed()
})

it('agrees to no compression', async () => {
  const v = await over()
  const { response, socket } = await upgraded(v, 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits')
  expect(response).toMatch(/^HTTP\/1\.1 101 /)
  expect(response.toLowerCase()).not.toContain('extensions')
  socket.destroy()
  await v.expectUnharmed()
})

it('cuts off who pings without end and reads no answer, and answers who does', async () => {
  const v = await over()
  const polite = await upgraded(v)
  const before = polite.received().length
  polite.socket.write(frame(9, fromUtf8('are you there')))
  await expect.poll(() => toUtf8(polite.received().subarray(before + 2)), patience).toBe('are you there')
  polite.socket.destroy()
  const { socket, closed } = await upgraded(v)
  socket.pause()
  const pings = concat(Array.from({ length: 500 }, () => frame(9, new Uint8Array(125))))
  let sent = 0
  // Paused, we would not see the end: a write fails.
  socket.on('error', () => {})
  while (!socket.destroyed && sent < 200e6) {
    sent += pings.length
    if (!socket.write(pings)) await Promise.race([closed, new Promise((resolve) => socket.once('drain', resolve))])
  }
  expect(sent).toBeLessThan(200e6)
  await expect.poll(() => v.codes(refused).length, patience).toBe(2)
  await v.expectUnharmed()
})

it.each([
  ['a plain GET', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', '426'],
  ['a POST with a body that never comes', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n', '426'],
  ['another path', request('/elsewhere'), '404'],
  ['a path that climbs', request('/../'), '404'],
  ['an upgrade to something else', request().replace('websocket', 'h2c'), '400|426'],
  ['an upgrade without a key', request().replace(/Sec-WebSocket-Key.*\r\n/, ''), '400'],
  ['an old version', request().replace('Version: 13', 'Version: 7'), '400'],
  ['headers larger than allowed', request('/', `X: ${'y'.repeat(9_000)}`), '431'],
  ['what is no HTTP', '\x16\x03\x01 nonsense\r\n\r\n', '400'],
])('%s gets a short answer and no connection', async (_what, text, status) => {
  const v = await over()
  const raw = await connect(v.port)
  raw.socket.write(text)
  await raw.closed
  expect(toText(raw)).toMatch(new RegExp(`^HTTP/1\\.1 (${status}) `))
  expect(raw.received().length).toBeLessThan(1000)
  expect(v.upgrades.waiting).toBe(0)
  await v.expectUnharmed()
})

it.each([
  ['says nothing', ''],
  ['sends half of a request', request().slice(0, 40)],
  ['asks for something and reads no answer', 'GET / HTTP/1.1\r\nHost: x\r\n'],
])('who %s is cut off at the deadline of upgrades, and not before', async (_what, text) => {
  const v = await over({ upgradeTimeoutMs: 5_000 })
  const slow = await Promise.all(Array.from({ length: 10 }, () => connect(v.port)))
  for (const { socket } of slow) socket.write(text)
  await expect.poll(() => v.upgrades.waiting, patience).toBe(10)
  await v.echo()
  await v.upgrades.advance(4_900)
  expect(slow.some(({ socket }) => socket.destroyed)).toBe(false)
  await v.upgrades.advance(200)
  expect(await Promise.all(slow.map((s) => s.closed))).toEqual(slow.map(() => 'reset'))
  await expect.poll(() => v.upgrades.waiting, patience).toBe(0)
  await v.expectUnharmed()
})

it('a request that comes byte by byte has no more time than another', async () => {
  const v = await over({ upgradeTimeoutMs: 5_000 })
  const raw = await connect(v.port)
  await expect.poll(() => v.upgrades.waiting, patience).toBe(1)
  let seconds = 0
  for (const letter of request()) {
    if (raw.socket.destroyed) break
    raw.socket.write(letter)
    await settle()
    await v.upgrades.advance(1_000)
    seconds++
  }
  expect(await raw.closed).toBe('reset')
  expect(seconds).toBeLessThan(20)
  await v.expectUnharmed()
})

it('who upgrades and says no more is cut off at the deadline of handshakes', async () => {
  const v = await over()
  const { closed } = await upgraded(v)
  await expect.poll(() => v.clock.waiting, patience).toBeGreaterThan(0)
  await v.clock.advance(15_200)
  await closed
  expect(v.codes(refused)).toEqual(['timeout'])
  await v.expectUnharmed()
})

it('a flood of half-open upgrades costs itself: no more than allowed wait, honest peers get in', async () => {
  const v = await over({ maxPendingUpgrades: 20 })
  const flood = await Promise.all(Array.from({ length: 100 }, () => connect(v.port)))
  for (const { socket } of flood) socket.write('GET / HTTP/1.1\r\n')
  await expect.poll(() => flood.filter(({ socket }) => socket.destroyed).length, patience).toBe(80)
  expect(v.upgrades.waiting).toBe(20)
  await v.honest.hangUp(v.node.peerId)
  await v.honest.dial(v.addr)
  await v.echo()
  await v.upgrades.advance(10_000)
  await Promise.all(flood.map(({ closed }) => closed))
  expect(v.upgrades.waiting).toBe(0)
})

it('a reset at every byte of the upgrade and of what follows leaves nothing', async () => {
  const v = await over()
  const bytes = concat([fromUtf8(request()), frame(2, mssHeader)])
  for (let size = 0; size <= bytes.length; size += size < bytes.length - 40 ? 7 : 1) {
    const { socket } = await connect(v.port)
    socket.write(bytes.subarray(0, size))
    await settle()
    socket.resetAndDestroy()
  }
  await expect.poll(() => v.upgrades.waiting, patience).toBe(0)
  await v.expectUnharmed()
})

it.each([
  ['never finishes its TLS handshake', Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01)],
  ['says nothing', new Uint8Array(0)],
])('on a port with TLS, who %s is cut off at the deadline', async (_what, bytes) => {
  const local = certificate(['127.0.0.1'])
  const env = fakeEnv()
  const transport = websocket({ env, tls: local })
  const listener = await transport.listen(multiaddr('/ip4/127.0.0.1/tcp/0/tls/ws'), () => expect.unreachable())
  try {
    const raw = await connect(Number(listener.addrs()[0]?.value('tcp')))
    raw.socket.write(bytes)
    await expect.poll(() => env.clock.waiting, patience).toBe(1)
    await env.clock.advance(9_900)
    expect(raw.socket.destroyed).toBe(false)
    await env.clock.advance(200)
    expect(await raw.closed).toBe('reset')
    const garbage = await connect(Number(listener.addrs()[0]?.value('tcp')))
    garbage.socket.write('GET / HTTP/1.1\r\n\r\n')
    await garbage.closed
    await expect.poll(() => env.clock.waiting, patience).toBe(0)
  } finally {
    await listener.close()
  }
})

const accept = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
it.each([
  ['answers with a page', 'HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nhello'],
  ['answers with a page without end', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'],
  ['sends us elsewhere', 'HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\n\r\n'],
  ['proves nothing', `${accept}Sec-WebSocket-Accept: AAAA\r\n\r\n`],
  ['upgrades without a proof', `${accept}\r\n`],
  ['sends headers without end', `HTTP/1.1 101 Switching Protocols\r\nX: ${'y'.repeat(20_000)}`],
  ['sends what is no HTTP', 'nonsense\r\n\r\n'],
  ['hangs up in the middle', `${accept}Sec-WebSoc`],
  ['hangs up', ''],
])('a server that %s is refused with one typed error', async (what, text) => {
  const sockets: net.Socket[] = []
  const port = await hostileListener((socket) => {
    sockets.push(socket)
    socket.once('data', () => {
      socket.write(text)
      if (what.startsWith('hangs up')) socket.end()
    })
  })
  const env = fakeEnv()
  const dialling = websocket({ env }).dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}/ws`), { signal: never })
  const error: unknown = await dialling.catch((e: unknown) => e)
  expect(error).toBeInstanceOf(UnavailableError)
  expect(error).toMatchObject({ code: 'unreachable' })
  expect(env.clock.waiting).toBe(0)
  const [socket] = sockets
  await expect.poll(() => socket?.resume().destroyed === true || socket?.readableEnded, patience).toBe(true)
})
