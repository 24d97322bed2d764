import net from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, equals, fromUtf8 } from '../../../src/bytes.ts'
import { fakeEnv } from '../../../src/env.ts'
import { ClosedError, TimeoutError, errorCode } from '../../../src/errors.ts'
import { generateKey, keyTypes, type KeyType } from '../../../src/peer/keys.ts'
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

/** What each side says the muxer is, or why it failed. */
const negotiated = async (lane: Lane, a: string[], b: string[]): Promise<unknown[]> => {
  const { left, right, streams } = await connect(lane, { secure: { muxers: a } }, { secure: { muxers: b } })
  for (const stream of streams) stream.reset()
  return [left, right].map((side) => (side.status === 'fulfilled' ? side.value.muxer : errorCode(side.reason)))
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

  it.each(Object.keys(keyTypes) as KeyType[])('proves identities of type %s', async (type) => {
    const [ours, theirs] = await Promise.all([generateKey(type), generateKey(type)])
    const expected = { expectedPeer: theirs.publicKey.peerId }
    const { left, right } = await connect(lane, { privateKey: ours, secure: expected }, { privateKey: theirs })
    expect(got(left).remotePeer.equals(theirs.publicKey.peerId)).toBe(true)
    expect(got(right).remotePeer.equals(ours.publicKey.peerId)).toBe(true)
    got(left).wire.abort()
    await got(right).wire.closed
  })

  it('negotiates the muxer early, in the dialer’s order, and leaves it for later where a side has none', async () => {
    expect(await negotiated(lane, ['/a', '/b', '/c'], ['/c', '/b'])).toEqual(['/b', '/b'])
    expect(await negotiated(lane, ['/a'], [])).toEqual([undefined, undefined])
    expect(await negotiated(lane, ['/a'], ['/b'])).toEqual([undefined, undefined])
  })

  it('refuses a peer that is not the expected one, on either side', async () => {
    const stranger = generateKey().publicKey.peerId
    const one = await connect(lane, { secure: { expectedPeer: stranger } })
    expect(code(one.left)).toBe('wrong-peer')
    await Promise.all(one.streams.map((s) => s.closed))
    const two = await connect(lane, {}, { secure: { expectedPeer: stranger } })
    expect(code(two.right)).toBe('wrong-peer')
    // The dialer is done before the listener looks (§Peer Authentication): what it hears then says so.
    if (two.left.status === 'fulfilled') {
      const { wire } = two.left.value
      const end = new Promise<Error | undefined>((resolve) =>
        wire.start({ data: () => true, end: resolve, onRoom: () => {} }),
      )
      expect((await end)?.message).toMatch(/it may have refused our certificate|stream closed|connection lost/)
    }
    await Promise.all(two.streams.map((s) => s.closed))
  })

  it('takes the bytes that a negotiation read too early', async () => {
    const [a, b] = await joined(lane)
    const early = buffered(b)
    const [left, right] = await Promise.all([
      party().run('initiator', a),
      early.readExact(5).then((bytes) => {
        early.unread(bytes)
        return party().run('responder', early)
      }),
    ])
    const x = new WireStream(left.wire)
    await x.write(fromUtf8('hello'))
    expect(await buffered(new WireStream(right.wire)).readExact(5)).toEqual(fromUtf8('hello'))
    x.reset()
    await right.wire.closed
  })

  it('sends no name of the server and offers TLS 1.3 alone', async () => {
    const [a, b] = await joined(lane)
    const secured = party().run('initiator', a)
    const failed = expect(secured).rejects.toBeInstanceOf(Error)
    let hello: Uint8Array = new Uint8Array(0)
    const size = (): number => 5 + (hello[3] ?? 0) * 256 + (hello[4] ?? 0)
    while (hello.length < 5 || hello.length < size()) hello = concat([hello, (await b.read()) ?? fromUtf8('')])
    const found = extensions(hello)
    expect(found.get(0)).toBeUndefined()
    expect(found.get(43)).toEqual(Uint8Array.of(2, 3, 4))
    const text = Buffer.from(found.get(16) ?? []).toString('latin1')
    expect(text.indexOf('/yamux/1.0.0')).toBeLessThan(text.indexOf('libp2p'))
    b.reset()
    await failed
  })

  it('ends with the signal’s reason, or at the deadline, and leaves nothing open', async () => {
    const [a] = await joined(lane)
    const controller = new AbortController()
    const cause = new Error('enough')
    const aborted = party({ secure: { signal: controller.signal } }).run('initiator', a)
    controller.abort(cause)
    await expect(aborted).rejects.toBe(cause)
    await a.closed
    const [c] = await joined(lane)
    const slow = party({ handshakeTimeoutMs: 500 })
    const late = expect(slow.run('responder', c)).rejects.toBeInstanceOf(TimeoutError)
    await slow.env.clock.advance(500)
    await late
    await c.closed
  })

  it('stops a sender whose reader does not read, within bounds', async () => {
    const { left, right } = await connect(lane)
    const [x, y] = [got(left).wire, got(right).wire]
    let pulled = 0
    y.start({ data: (bytes) => ((pulled += bytes.length), false), end: () => {}, onRoom: () => {} })
    const roomy = new Promise<void>((resolve) => x.start({ data: () => true, end: () => {}, onRoom: resolve }))
    let sent = 0
    for (let quiet = 0; quiet < 50;) {
      if (x.put([new Uint8Array(65_536)])) {
        sent += 65_536
        quiet = 0
      } else quiet++
      if (x.room <= 0) await new Promise((resolve) => setImmediate(resolve))
      expect(sent).toBeLessThan(64 * 1024 * 1024)
    }
    expect(pulled).toBeLessThan(sent)
    y.resume()
    const pump = setInterval(() => y.resume(), 1)
    onTestFinished(() => clearInterval(pump))
    await roomy
    x.abort()
    await Promise.all([x.closed, y.closed])
  })

  // Node has crashed here: a TLSSocket must not be destroyed while the socket below it is being reset.
  it.each(['initiator', 'responder'] as const)('survives an %s that aborts with writes under way', async (role) => {
    for (let round = 0; round < 8; round++) {
      const { left, right, streams } = await connect(lane)
      const [cutter, other] =
        role === 'initiator' ? [got(left).wire, got(right).wire] : [got(right).wire, got(left).wire]
      const quietly = { data: () => round % 2 === 0, end: () => {}, onRoom: () => {} }
      cutter.start(quietly)
      // A socket that is not read never learns that it was reset.
      other.start({ ...quietly, data: () => true })
      for (let i = 0; i < 12; i++) cutter.put([new Uint8Array(100_000)])
      for (let i = 0; i < 12; i++) other.put([new Uint8Array(100_000)])
      if (round % 4 > 1) await new Promise((resolve) => setImmediate(resolve))
      if (round > 5) cutter.closeWrite().catch(() => {})
      const cause = new Error('enough')
      cutter.abort(cause)
      expect(cutter.put([new Uint8Array(9)])).toBe(false)
      expect((await cutter.closed).reason).toBe(cause)
      await Promise.all([other.closed, ...streams.map((s) => s.closed)])
    }
  })

  if (lane === 'stream') {
    it.each(['initiator', 'responder'] as const)('ends an %s at a record that nobody sealed', async (role) => {
      const { left, right, streams } = await connect(lane)
      const [victim, forger] = role === 'initiator' ? [left, streams[1]] : [right, streams[0]]
      const end = new Promise<Error | undefined>((resolve) =>
        got(victim).wire.start({ data: () => true, end: resolve, onRoom: () => {} }),
      )
      // Straight onto the stream below.
      await forger.write(concat([Uint8Array.of(23, 3, 3, 0, 40), new Uint8Array(40)]))
      expect(errorCode(await end)).toBe('decrypt-failed')
      expect((await got(victim).wire.closed).reason).toBe(await end)
      await Promise.all(streams.map((s) => s.closed))
    })
  }
})

it('TLS refuses numbers that make no sense', () => {
  expect(() => createTls({ privateKey: generateKey(), env: fakeEnv(), handshakeTimeoutMs: 0 })).toThrow(RangeError)
  expect(() => createTls({ privateKey: generateKey(), env: fakeEnv(), highWaterBytes: NaN })).toThrow(RangeError)
})

/** Of a ClientHello (RFC 8446 §4.1.2), by type. */
function extensions(record: Uint8Array): Map<number, Uint8Array> {
  const at16 = (i: number): number => (record[i] ?? 0) * 256 + (record[i + 1] ?? 0)
  let at = 5 + 4 + 2 + 32
  at += 1 + (record[at] ?? 0)
  at += 2 + at16(at)
  at += 1 + (record[at] ?? 0)
  const end = at + 2 + at16(at)
  const out = new Map<number, Uint8Array>()
  for (at += 2; at < end; at += 4 + at16(at + 2)) out.set(at16(at), record.slice(at + 4, at + 4 + at16(at + 2)))
  return out
}
