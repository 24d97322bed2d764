/* What whoever is dialled can do: nobody there, somebody else there, something else there. */
import net from 'node:net'
import { expect, it, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { connectionCode } from '../../src/close-codes.ts'
import { UnavailableError, errorCode } from '../../src/errors.ts'
import { frameType } from '../../src/mux/yamux/frame.ts'
import { createNode } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import {
  acceptTunnel,
  alive,
  echo,
  echoId,
  failure,
  hostileListener,
  patience,
  secondsUntil,
  victim,
  watchProcess,
} from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

const at = (port: number, key?: PrivateKey): string =>
  `/ip4/127.0.0.1/tcp/${port}${key === undefined ? '' : `/p2p/${key.publicKey.peerId}`}`

it('a closed port', async () => {
  const v = await victim()
  const port = await hostileListener(() => {})
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port: closed } = server.address() as net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  expect(closed).not.toBe(port)
  const error = await failure(v.node.dial(at(closed)))
  expect(error).toBeInstanceOf(UnavailableError)
  expect(error).toMatchObject({ code: 'unreachable', message: expect.stringContaining('refused') as string })
  await v.expectUnharmed()
})

it('an address that nobody can reach', async () => {
  const v = await victim()
  // TEST-NET-1 (RFC 5737): no route, or packets that are never answered.
  const dial = failure(v.node.dial('/ip4/192.0.2.1/tcp/4001'))
  expect(await secondsUntil(v, dial)).toBeLessThanOrEqual(16)
  expect(['unreachable', 'timeout']).toContain(errorCode(await dial))
  await v.expectUnharmed()
})

const answers: [what: string, bytes: Uint8Array, code: string][] = [
  ['accepts and says nothing', new Uint8Array(0), 'timeout'],
  ['sends half a token', encodeTokens(header).subarray(0, 9), 'timeout'],
  ['agrees on Noise and says no more', encodeTokens(header, '/noise'), 'timeout'],
  [
    'sends half of its handshake message',
    concat([encodeTokens(header, '/noise'), Uint8Array.of(0, 96), new Uint8Array(50)]),
    'timeout',
  ],
  ['answers as a web server', fromUtf8('HTTP/1.1 400 Bad Request\r\n\r\n'), 'oversized'],
  ['answers as an SSH server', fromUtf8('SSH-2.0-OpenSSH_9.6\r\n'), 'oversized'],
  ['answers with the wrong line', encodeTokens('/http/1.1'), 'bad-negotiation'],
  ['agrees on what nobody proposed', encodeTokens(header, '/plaintext/2.0.0'), 'bad-negotiation'],
  ['speaks no security that we know', encodeTokens(header, 'na', 'na'), 'no-protocol'],
  ['sends a token that is too long', concat([encodeTokens(header), Uint8Array.of(0xff, 0x7f)]), 'oversized'],
  [
    'sends garbage instead of a handshake',
    concat([encodeTokens(header, '/noise'), Uint8Array.of(0, 150), new Uint8Array(150).fill(3)]),
    'decrypt-failed',
  ],
]

it.each(answers)('a listener that %s', async (_what, bytes, code) => {
  const v = await victim()
  const ended: Promise<unknown>[] = []
  const port = await hostileListener((socket) => {
    ended.push(new Promise((resolve) => socket.once('close', resolve)))
    socket.resume()
    if (bytes.length > 0) socket.write(bytes)
  })
  const dial = failure(v.node.dial(at(port)))
  // Who refuses Noise, which is proposed with its first message, is asked for TLS on a connection of its own.
  await expect.poll(() => ended.length, patience).toBe(code === 'no-protocol' ? 2 : 1)
  const seconds = await secondsUntil(v, dial)
  expect(errorCode(await dial)).toBe(code)
  expect(seconds).toBeLessThanOrEqual(16)
  // Our end is gone too.
  await Promise.all(ended)
  await v.expectUnharmed()
})

it('a listener that hangs up', async () => {
  const v = await victim()
  for (const end of ['end', 'resetAndDestroy'] as const) {
    const port = await hostileListener((socket) => {
      socket.resume()
      socket[end]()
    })
    expect(['truncated', 'reset', 'unreachable']).toContain(errorCode(await failure(v.node.dial(at(port)))))
  }
  await v.expectUnharmed()
})

it('a peer id that is not the one dialled', async () => {
  const v = await victim()
  const [real, wanted] = [generateKey(), generateKey()]
  const port = await hostileListener((socket) => void acceptTunnel(socket, real).catch(() => {}))
  const error = await failure(v.node.dial(at(port, wanted)))
  expect(error).toMatchObject({ name: 'ProtocolError', code: 'wrong-peer' })
  expect(error.message).toContain(real.publicKey.peerId.toString())
  await v.expectUnharmed()
})

it('a peer that claims our own peer id', async () => {
  const key = generateKey()
  const v = await victim({ privateKey: key })
  const codes: number[] = []
  const port = await hostileListener((socket) => {
    void acceptTunnel(socket, key).then((stream) =>
      alive(stream, ({ type, length }) => {
        if (type === frameType.goAway) codes.push(length)
      }),
    )
  })
  expect(errorCode(await failure(v.node.dial(at(port))))).toBe('wrong-peer')
  // It is told why, and has a second to take it.
  await expect.poll(() => codes, patience).toEqual([connectionCode.protocolViolation])
  await v.clock.advance(1_000)
  await v.expectUnharmed()
})

it('a peer whose identity did not sign its static key', async () => {
  const v = await victim()
  const [claimed, real] = [generateKey(), generateKey()]
  const forged = { ...claimed, publicKey: claimed.publicKey, sign: (m: Uint8Array) => real.sign(m) } as PrivateKey
  const port = await hostileListener((socket) => void acceptTunnel(socket, forged).catch(() => {}))
  expect(errorCode(await failure(v.node.dial(at(port, claimed))))).toBe('bad-signature')
  await v.expectUnharmed()
})

const tampering: [what: string, change: (chunk: Uint8Array) => Uint8Array, code: string][] = [
  ['is changed', (chunk) => chunk.with(chunk.length - 5, (chunk.at(-5) ?? 0) ^ 1), 'decrypt-failed'],
  ['is played again', (chunk) => concat([chunk, chunk]), 'decrypt-failed'],
  ['has a length below its tag', (chunk) => concat([chunk, Uint8Array.of(0, 3, 1, 2, 3)]), 'bad-frame'],
]

it.each(tampering)('a record that %s mid-transfer ends the connection, not the node', async (_what, change, code) => {
  const v = await victim()
  const { honest } = v
  const target = Number(/tcp\/(\d+)/.exec(String(honest.connections()[0]?.remoteAddr))?.[1])
  expect(target).toBe(v.port)
  let tamper = false
  const port = await hostileListener((socket) => {
    const up = net.connect(v.port, '127.0.0.1')
    up.on('error', () => socket.destroy())
    up.pipe(socket)
    socket.on('data', (chunk: Buffer) => {
      up.write(tamper ? change(new Uint8Array(chunk)) : chunk)
      tamper = false
    })
    socket.on('close', () => up.destroy())
  })
  const peer = await createNode()
  await echo(peer, `${at(port)}/p2p/${v.node.peerId}`)
  const connection = v.node.connections(peer.peerId)[0]
  const stream = await peer.newStream(v.node.peerId, echoId)
  tamper = true
  await stream.write(new Uint8Array(1000))
  const info = await connection?.closed
  expect(errorCode(info?.reason)).toBe(code)
  expect(await failure(stream.read())).toBeInstanceOf(Error)
  await peer.stop()
  await v.expectUnharmed()
})

it('a peer that acknowledges no stream: the 257th waits no longer than its deadline', async () => {
  const v = await victim()
  const port = await hostileListener((socket) => void acceptTunnel(socket, generateKey()).then(alive, () => {}))
  const connection = await v.node.dial(at(port))
  const streams = Array.from({ length: 300 }, () => failure(connection.newStream(echoId)))
  expect(await secondsUntil(v, Promise.all(streams))).toBeLessThanOrEqual(21)
  expect(new Set((await Promise.all(streams)).map(errorCode))).toEqual(new Set(['timeout']))
  connection.abort()
  await v.expectUnharmed()
})

it('a peer that answers no negotiation it invited us to skip', async () => {
  const v = await victim()
  const port = await hostileListener((socket) => void acceptTunnel(socket, generateKey()).then(alive, () => {}))
  const connection = await v.node.dial(at(port))
  // As if identify had announced it.
  Object.assign(connection, { protocols: [echoId] })
  const stream = await connection.newStream(echoId)
  await stream.write(fromUtf8('hello'))
  const read = failure(stream.read())
  expect(await secondsUntil(v, read)).toBeLessThanOrEqual(11)
  expect(errorCode(await read)).toBe('timeout')
  connection.abort()
  await v.expectUnharmed()
})

it('callers that share a dial each keep their own deadline', async () => {
  const v = await victim()
  const port = await hostileListener((socket) => void socket.resume())
  const short = failure(v.node.dial(at(port), { timeoutMs: 2_000 }))
  const long = failure(v.node.dial(at(port), { timeoutMs: 9_000 }))
  expect(await secondsUntil(v, short)).toBeLessThanOrEqual(3)
  expect(await secondsUntil(v, long)).toBeGreaterThanOrEqual(5)
  expect([errorCode(await short), errorCode(await long)]).toEqual(['timeout', 'timeout'])
  const newStream = failure(v.node.newStream(at(port), echoId, { timeoutMs: 1_000 }))
  expect(await secondsUntil(v, newStream)).toBeLessThanOrEqual(2)
  await v.expectUnharmed()
})

it('stop ends a dial and a handshake that are under way, also of a node that never started', async () => {
  const v = await victim()
  const node = await createNode()
  const port = await hostileListener((socket) => void socket.resume())
  const dial = failure(node.dial(at(port)))
  await echo(node, v.addr)
  await node.stop()
  expect(errorCode(await dial)).toBe('stopped')
  expect(node.connections()).toEqual([])
  await v.expectUnharmed()
})

it('stop waits no longer than stopTimeoutMs for peers that read nothing', async () => {
  const v = await victim({ stopTimeoutMs: 2_000 })
  const sockets: net.Socket[] = []
  const port = await hostileListener((socket) => {
    sockets.push(socket)
    void acceptTunnel(socket, generateKey()).then(
      () => socket.pause(),
      () => {},
    )
  })
  await v.node.dial(at(port))
  const stop = v.node.stop()
  expect(await secondsUntil(v, stop)).toBeLessThanOrEqual(3)
  expect(v.node.connections()).toEqual([])
  expect(v.clock.waiting).toBe(0)
})
