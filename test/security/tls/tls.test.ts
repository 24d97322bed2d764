import net from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, equals, fromUtf8 } from '../../../src/bytes.ts'
import { fakeEnv } from '../../../src/env.ts'
import { ClosedError, errorCode } from '../../../src/errors.ts'
import { generateKey, type KeyType, type PrivateKey } from '../../../src/peer/keys.ts'
import type { SecureOptions, Secured } from '../../../src/security/security.ts'
import { createTls, type TlsOptions } from '../../../src/security/tls/tls.ts'
import { SocketWire } from '../../../src/socket-wire.ts'
import { buffered, pair, type Stream } from '../../../src/stream.ts'
import { WireStream } from '../../../src/wire.ts'

type Lane = 'socket' | 'stream'

/** Two joined streams: in memory, or on sockets. */
async function joined(lane: Lane): Promise<[Stream, Stream]> {
  if (lane === 'stream') return pair()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await new Promise((listening) => server.once('listening', listening))
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve))
  const { port } = server.address() as net.AddressInfo
  const a = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const b = await accepted
  server.close()
  onTestFinished(() => {
    a.destroy()
    b.destroy()
  })
  return [new WireStream(new SocketWire(a)), new WireStream(new SocketWire(b))]
}

interface Side extends Partial<TlsOptions> {
  secure?: Partial<SecureOptions>
}

function party({ secure, ...options }: Side = {}) {
  const env = fakeEnv()
  const privateKey = options.privateKey ?? generateKey()
  const protocol = createTls({ privateKey, env, ...options })
  return {
    env,
    privateKey,
    protocol,
    run: (role: 'initiator' | 'responder', stream: Stream): Promise<Secured> =>
      protocol.secure(role, stream, { muxers: ['/yamux/1.0.0'], ...secure }),
  }
}

async function connect(lane: Lane, a: Side = {}, b: Side = {}) {
  const streams = await joined(lane)
  const dialer = party(a)
  const listener = party(b)
  const [left, right] = await Promise.allSettled([
    dialer.run('initiator', streams[0]),
    listener.run('responder', streams[1]),
  ])
  // Nothing is left behind, however it went.
  expect(dialer.env.clock.waiting + listener.env.clock.waiting).toBe(0)
  return { streams, dialer, listener, left, right }
}

function got(result: PromiseSettledResult<Secured>): Secured {
  if (result.status === 'rejected') throw result.reason
  return result.value
}

const code = (result: PromiseSettledResult<unknown>): unknown =>
  result.status === 'rejected' ? errorCode(result.reason) : 'no error'

/** How the wire of a dialer ends that the server refuses. */
function endOf(secured: Secured): Promise<Error | undefined> {
  return new Promise((resolve) =>
    secured.wire.start({ data: () => true, end: (reason) => resolve(reason), onRoom: () => {} }),
  )
}

describe.each(['socket', 'stream'] as const)('TLS over a %s', (lane) => {
  it('secures it: each side learns who the other is, and bytes pass both ways', async () => {
    const { left, right, dialer, listener, streams } = await connect(lane)
    const [a, b] = [got(left), got(right)]
    expect(a.remotePeer.equals(listener.privateKey.publicKey.peerId)).toBe(true)
    expect(b.remotePeer.equals(dialer.privateKey.publicKey.peerId)).toBe(true)
    expect(equals(b.remoteKey.encoded, dialer.privateKey.publicKey.encoded)).toBe(true)
    expect([a.muxer, b.muxer]).toEqual(['/yamux/1.0.0', '/yamux/1.0.0'])
    const [x, y] = [new WireStream(a.wire), buffered(new WireStream(b.wire))]
    const big = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7) ^ (i >> 9))
    const sent = Promise.all([x.write(fromUtf8('ping')), x.write(big.slice(0, 12), big.slice(12))])
    expect(await y.readExact(4)).toEqual(fromUtf8('ping'))
    expect(Buffer.compare(await y.readExact(big.length), big)).toBe(0)
    await sent
    await y.write(fromUtf8('pong'))
    expect(await x.read()).toEqual(fromUtf8('pong'))
    await x.closeWrite()
    expect(await y.read()).toBeNull()
    await y.write(fromUtf8('half closed'))
    expect(await x.read()).toEqual(fromUtf8('half closed'))
    await y.closeWrite()
    expect(await x.read()).toBeNull()
    expect((await x.closed).code).toBe(0)
    expect((await y.closed).reason).toBeUndefined()
    await Promise.all(streams.map((s) => s.closed))
    await expect(x.write(fromUtf8('late'))).rejects.toThrow(ClosedError)
  })
})
