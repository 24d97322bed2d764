import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty, equals, fromUtf8 } from '../../../src/bytes.ts'
import type { Crypto } from '../../../src/crypto/crypto.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { nobleCrypto } from '../../../src/crypto/noble.ts'
import { fakeEnv, settle } from '../../../src/env.ts'
import { ClosedError, ProtocolError, TimeoutError, errorCode } from '../../../src/errors.ts'
import { generateKey, type PrivateKey } from '../../../src/peer/keys.ts'
import { createNoise, handshakeMessageBytes, type NoiseOptions } from '../../../src/security/noise/noise.ts'
import type { SecureOptions, Secured } from '../../../src/security/security.ts'
import { HandshakeState, XX } from '../../../src/security/noise/handshake.ts'
import { encodePayload, signedText } from '../../../src/security/noise/payload.ts'
import { buffered, pair, type Stream } from '../../../src/stream.ts'
import { StreamWire, WireStream } from '../../../src/wire.ts'

type Lane = 'pump' | 'wire'

const laid = (lane: Lane, end: Stream): Stream => (lane === 'pump' ? end : new WireStream(new StreamWire(end)))

/** Two joined streams, without a fast lane or with one. */
function joined(lane: Lane): [Stream, Stream] {
  const [a, b] = pair()
  return [laid(lane, a), laid(lane, b)]
}

/** `stream` whose writes arrive cut into pieces of the given sizes, over and over. */
function choppy(stream: Stream, sizes: number[]): Stream {
  let turn = 0
  return {
    read: () => stream.read(),
    write: async (...chunks) => {
      const bytes = concat(chunks)
      for (let at = 0; at < bytes.length;) {
        const size = sizes[turn++ % sizes.length] ?? 1
        await stream.write(bytes.slice(at, at + size))
        at += size
      }
    },
    closeWrite: () => stream.closeWrite(),
    closeRead: (code) => stream.closeRead(code),
    reset: (code, reason) => stream.reset(code, reason),
    closed: stream.closed,
    [Symbol.asyncIterator]: () => stream[Symbol.asyncIterator](),
  }
}

interface Side extends Partial<NoiseOptions> {
  secure?: Partial<SecureOptions>
}

function party(crypto: Crypto, { secure, ...options }: Side = {}) {
  const env = fakeEnv()
  const privateKey = options.privateKey ?? generateKey('Ed25519', crypto)
  const noise = createNoise({ privateKey, env, crypto, ...options })
  return {
    env,
    privateKey,
    noise,
    run: (role: 'initiator' | 'responder', stream: Stream): Promise<Secured> =>
      noise.secure(role, stream, { muxers: ['/yamux/1.0.0'], ...secure }),
  }
}

async function connect(crypto: Crypto, lane: Lane | [Stream, Stream], a: Side = {}, b: Side = {}) {
  const streams = typeof lane === 'string' ? joined(lane) : lane
  const dialer = party(crypto, a)
  const listener = party(crypto, b)
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

function code(result: PromiseSettledResult<unknown>): unknown {
  return result.status === 'rejected' ? errorCode(result.reason) : 'no error'
}

/** What each side says the muxer is, or why it failed. */
async function negotiated(crypto: Crypto, lane: Lane, a: string[], b: string[]): Promise<unknown[]> {
  const { left, right } = await connect(crypto, lane, { secure: { muxers: a } }, { secure: { muxers: b } })
  return [left, right].map((side) => (side.status === 'fulfilled' ? side.value.muxer : errorCode(side.reason)))
}

const lanes: [Crypto, Lane][] = [
  [nativeCrypto, 'pump'],
  [nativeCrypto, 'wire'],
  [nobleCrypto, 'pump'],
  [nobleCrypto, 'wire'],
]

describe.each(lanes.map(([crypto, lane]) => ({ crypto, lane, name: crypto.name })))(
  'Noise on $name over a $lane',
  ({ crypto, lane }) => {
    it('secures a stream: each side learns who the other is, and bytes pass both ways', async () => {
      const { left, right, dialer, listener } = await connect(crypto, lane)
      const [a, b] = [got(left), got(right)]
      expect(a.remotePeer.equals(listener.privateKey.publicKey.peerId)).toBe(true)
      expect(b.remotePeer.equals(dialer.privateKey.publicKey.peerId)).toBe(true)
      expect(equals(b.remoteKey.encoded, dialer.privateKey.publicKey.encoded)).toBe(true)
      expect([a.muxer, b.muxer]).toEqual(['/yamux/1.0.0', '/yamux/1.0.0'])
      const [x, y] = [new WireStream(a.wire), buffered(new WireStream(b.wire))]
      const big = Uint8Array.from({ length: 200_000 }, (_, i) => i * 7)
      const small = fromUtf8('ping')
      const sent = Promise.all([x.write(small, empty), x.write(big.subarray(0, 12), big.subarray(12))])
      expect(await y.readExact(4)).toEqual(small)
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
      await expect(x.write(small)).rejects.toThrow(ClosedError)
    })

    it('negotiates the muxer early: the first of the initiator’s that the responder has', async () => {
      expect(await negotiated(crypto, lane, ['/a', '/b', '/c'], ['/c', '/b'])).toEqual(['/b', '/b'])
      expect(await negotiated(crypto, lane, ['/a'], [])).toEqual([undefined, undefined])
      expect(await negotiated(crypto, lane, [], ['/a'])).toEqual([undefined, undefined])
      expect((await negotiated(crypto, lane, ['/a'], ['/b']))[0]).toBe('bad-negotiation')
    })

    it('refuses a peer that is not the expected one, on either side', async () => {
      const stranger = generateKey('Ed25519', crypto).publicKey.peerId
      const one = await connect(crypto, lane, { secure: { expectedPeer: stranger } })
      expect(code(one.left)).toBe('wrong-peer')
      expect(one.right.status).toBe('rejected')
      const two = await connect(crypto, lane, {}, { secure: { expectedPeer: stranger } })
      expect(code(two.right)).toBe('wrong-peer')
      const three = await connect(crypto, lane, {}, {})
      expect([three.left.status, three.right.status]).toEqual(['fulfilled', 'fulfilled'])
    })

    it('ends both directions with decrypt-failed when a record was altered', async () => {
      const [below, other] = pair()
      const { left, right } = await connect(crypto, [laid(lane, below), laid(lane, other)])
      const [a, b] = [got(left), got(right)]
      const records: Uint8Array[] = []
      const seen: unknown[] = []
      b.wire.start({
        data: (bytes) => records.push(bytes) > 0,
        end: (reason) => seen.push(errorCode(reason)),
        onRoom: () => {},
      })
      a.wire.put([fromUtf8('good')])
      await settle()
      await below.write(Uint8Array.of(0, 20, ...new Uint8Array(20)))
      await settle()
      expect(records).toEqual([fromUtf8('good')])
      expect(seen).toEqual(['decrypt-failed'])
      expect(b.wire.put([fromUtf8('no')])).toBe(false)
      expect(b.wire.room).toBe(0)
      await expect(b.wire.closeWrite()).rejects.toThrow(ClosedError)
      expect((await b.wire.closed).by).toBe('local')
      expect((await a.wire.closed).by).toBe('remote')
    })
  },
)

async function eavesdropped(): Promise<{ from: Stream; to: Secured; records: (text: string) => Promise<Uint8Array> }> {
  // A man in the middle who passes the handshake on and then decides about every record himself.
  const [a, mallory1] = pair()
  const [mallory2, b] = pair()
  const dialer = party(nativeCrypto).run('initiator', a)
  const listener = party(nativeCrypto).run('responder', b)
  const [near, far] = [buffered(mallory1), buffered(mallory2)]
  for (const [from, to] of [
    [near, far],
    [far, near],
    [near, far],
  ] as const) {
    const head = await from.readExact(2)
    await to.write(head, await from.readExact((head[0] as number) * 256 + (head[1] as number)))
  }
  const [secured, to] = await Promise.all([dialer, listener])
  const writer = new WireStream(secured.wire)
  return {
    from: mallory2,
    to,
    records: async (text) => {
      await writer.write(fromUtf8(text))
      return near.readExact(text.length + 18)
    },
  }
}

describe('a man in the middle', () => {
  const cases: [string, string, (one: Uint8Array, two: Uint8Array) => Uint8Array[], string, string][] = [
    ['replays', 'a record', (one) => [one, one], 'one', 'decrypt-failed'],
    ['swaps', 'two records', (one, two) => [two, one], '', 'decrypt-failed'],
    ['drops', 'a record', (_one, two) => [two], '', 'decrypt-failed'],
    ['flips', 'a bit', (one) => [one.with(5, (one[5] as number) ^ 4)], '', 'decrypt-failed'],
    ['shortens', 'a record', (one, two) => [one, Uint8Array.of(0, 3, 1, 2, 3), two], 'one', 'bad-frame'],
  ]
  it.each(cases)('who %s %s ends the connection', async (_verb, _what, meddle, want, errorCodeWanted) => {
    const { from, to, records } = await eavesdropped()
    const stream = new WireStream(to.wire)
    await from.write(...meddle(await records('one'), await records('two')))
    if (want !== '') expect(await stream.read()).toEqual(fromUtf8(want))
    const error = await stream.read().catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(ClosedError)
    expect(errorCode((error as ClosedError).info.reason)).toBe(errorCodeWanted)
    await expect(stream.write(fromUtf8('x'))).rejects.toThrow(ClosedError)
    // The one who meddled sees the end too.
    await expect(from.read()).rejects.toThrow(ClosedError)
  })

  it.each([1, 2, 10, 20])('who cuts the stream %s bytes into a record is noticed', async (size) => {
    const { from, to, records } = await eavesdropped()
    const stream = new WireStream(to.wire)
    const [one, two] = [await records('one'), await records('two')]
    await from.write(one, two.subarray(0, size))
    await from.closeWrite()
    expect(await stream.read()).toEqual(fromUtf8('one'))
    const error = await stream.read().catch((reason: unknown) => reason)
    expect(errorCode((error as ClosedError).info.reason)).toBe('truncated')
  })

  it('who cuts it between two records cannot be told from a FIN', async () => {
    const { from, to, records } = await eavesdropped()
    const stream = new WireStream(to.wire)
    await from.write(await records('one'))
    await from.closeWrite()
    expect(await stream.read()).toEqual(fromUtf8('one'))
    expect(await stream.read()).toBeNull()
  })
})

it('gives the same whatever pieces the bytes come in, handshake and records', async () => {
  const keys = [generateKey('Ed25519', nativeCrypto), generateKey('Ed25519', nativeCrypto)] as [PrivateKey, PrivateKey]
  const sizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 })
  await fc.assert(
    fc.asyncProperty(sizes, sizes, fc.array(fc.nat(3000), { maxLength: 4 }), async (cutA, cutB, writes) => {
      const [a, b] = pair()
      const { left, right } = await connect(
        nativeCrypto,
        [choppy(a, cutA), choppy(b, cutB)],
        { privateKey: keys[0] },
        { privateKey: keys[1] },
      )
      const [x, y] = [new WireStream(got(left).wire), new WireStream(got(right).wire)]
      const texts = writes.map((size, i) => new Uint8Array(size).fill(i))
      for (const text of texts) await x.write(text)
      await x.closeWrite()
      expect(Buffer.compare(await buffered(y).readAll(20_000), concat(texts))).toBe(0)
    }),
    { numRuns: 40 },
  )
})

/** A handshake whose last message arrives in one read with `record` of the initiator's. */
async function glued(record: (sealed: Uint8Array) => Uint8Array): Promise<Secured> {
  const [a, b] = pair()
  const held: Uint8Array[] = []
  let writes = 0
  const holding: Stream = {
    ...choppy(a, [65_536]),
    write: async (...chunks) => {
      held.push(...chunks)
      writes++
      if (writes === 1) await a.write(...held.splice(0))
      if (writes === 3) await a.write(concat([held[0] ?? empty, record(concat(held.slice(1)))]))
    },
  }
  const listening = party(nativeCrypto).run('responder', b)
  const dialed = await party(nativeCrypto).run('initiator', holding)
  dialed.wire.put([fromUtf8('early')])
  return listening
}

it('passes on what came in one read with the last handshake message', async () => {
  const reader = new WireStream((await glued((sealed) => sealed)).wire)
  expect(await reader.read()).toEqual(fromUtf8('early'))
  reader.reset()
})

it('ends once when that was altered', async () => {
  const { wire } = await glued((sealed) => sealed.with(4, (sealed[4] as number) ^ 1))
  const seen: unknown[] = []
  wire.start({ data: (bytes) => seen.push(bytes) > 0, end: (reason) => seen.push(errorCode(reason)), onRoom: () => {} })
  await settle()
  expect(seen).toEqual(['decrypt-failed'])
  expect((await wire.closed).by).toBe('local')
})

/** Speaks the initiator's side by hand, with `payload` in its last message. */
async function attack(payload: (staticKey: Uint8Array) => Promise<Uint8Array>): Promise<unknown> {
  const [ours, theirs] = pair()
  const listener = party(nativeCrypto)
  const result = Promise.allSettled([listener.run('responder', theirs)])
  const stream = buffered(ours)
  const s = nativeCrypto.x25519Generate()
  const state = new HandshakeState({ crypto: nativeCrypto, pattern: XX, role: 'initiator', s })
  const send = async (message: Uint8Array): Promise<void> =>
    stream.write(Uint8Array.of(message.length >> 8, message.length), message)
  await send(state.writeMessage(empty))
  const head = await stream.readExact(2)
  state.readMessage(await stream.readExact((head[0] as number) * 256 + (head[1] as number)))
  await send(state.writeMessage(await payload(s.publicKey)))
  const [settled] = await result
  expect(listener.env.clock.waiting).toBe(0)
  if (settled.status === 'rejected') await expect(ours.read()).rejects.toThrow(ClosedError)
  return code(settled)
}

describe('a hostile peer', () => {
  const key = generateKey('Ed25519', nativeCrypto)
  const other = generateKey('Ed25519', nativeCrypto)

  it('is let in when all is right', async () => {
    expect(
      await attack(async (staticKey) =>
        encodePayload({
          identityKey: key.publicKey.encoded,
          identitySig: await key.sign(signedText(staticKey)),
        }),
      ),
    ).toBe('no error')
  })

  const identityKey = key.publicKey.encoded
  const cases: [string, string, (staticKey: Uint8Array) => Promise<Uint8Array>][] = [
    [
      'whose signature is by another key',
      'bad-signature',
      async (k) => encodePayload({ identityKey, identitySig: await other.sign(signedText(k)) }),
    ],
    [
      'whose signature is over another static key',
      'bad-signature',
      async () => encodePayload({ identityKey, identitySig: await key.sign(signedText(new Uint8Array(32))) }),
    ],
    [
      'whose signature lacks the prefix',
      'bad-signature',
      async (k) => encodePayload({ identityKey, identitySig: await key.sign(k) }),
    ],
    [
      'whose signature is garbage',
      'bad-signature',
      async () => encodePayload({ identityKey, identitySig: new Uint8Array(64) }),
    ],
    ['who does not sign', 'bad-handshake', async () => encodePayload({ identityKey })],
    [
      'whose key is no key',
      'bad-key',
      async (k) => encodePayload({ identityKey: fromUtf8('x'), identitySig: await key.sign(k) }),
    ],
    ['whose payload is no protobuf', 'bad-protobuf', async () => new Uint8Array(40).fill(0xff)],
    ['whose payload is too long', 'oversized', async () => new Uint8Array(handshakeMessageBytes - 63)],
  ]
  it.each(cases)('%s is refused: %s', async (_who, want, payload) => {
    expect(await attack(payload)).toBe(want)
  })

  it.each(['initiator', 'responder'] as const)(
    'who sends random bytes gets a ProtocolError as %s’s peer',
    async (role) => {
      const privateKey = generateKey('Ed25519', nativeCrypto)
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
          const [ours, theirs] = pair()
          const result = Promise.allSettled([party(nativeCrypto, { privateKey }).run(role, theirs)])
          if (bytes.length > 0) await ours.write(bytes)
          await ours.closeWrite()
          const [settled] = await result
          expect(settled.status === 'rejected' && settled.reason).toBeInstanceOf(ProtocolError)
        }),
        { numRuns: 40 },
      )
    },
  )

  it('who announces a long message is refused before it is read', async () => {
    const [ours, theirs] = pair()
    const result = Promise.allSettled([party(nativeCrypto).run('responder', theirs)])
    await ours.write(Uint8Array.of(0xff, 0xff))
    const [settled] = await result
    expect(code(settled)).toBe('oversized')
  })

  it('who says nothing is cut off at the deadline', async () => {
    for (const role of ['initiator', 'responder'] as const) {
      const [ours, theirs] = pair()
      const { env, run } = party(nativeCrypto, { handshakeTimeoutMs: 500 })
      const result = Promise.allSettled([run(role, theirs)])
      await env.clock.advance(499)
      expect(env.clock.waiting).toBe(1)
      await env.clock.advance(1)
      const [settled] = await result
      expect(settled.status === 'rejected' && settled.reason).toBeInstanceOf(TimeoutError)
      await ours.read().catch(() => {})
      expect((await ours.closed).by).toBe('remote')
      expect(env.clock.waiting).toBe(0)
    }
  })
})

it('refuses a deadline that makes no sense', () => {
  for (const handshakeTimeoutMs of [0, -1, Number.NaN]) {
    expect(() => createNoise({ privateKey: generateKey(), env: fakeEnv(), handshakeTimeoutMs })).toThrow(RangeError)
  }
})

describe('an abort', () => {
  it.each(['initiator', 'responder'] as const)(
    'rejects with the signal’s reason and leaves nothing (%s)',
    async (role) => {
      const listeners = new Set<unknown>()
      const controller = new AbortController()
      const { signal } = controller
      const add = signal.addEventListener.bind(signal)
      signal.addEventListener = (type: string, fn: EventListenerOrEventListenerObject, o?: AddEventListenerOptions) => {
        listeners.add(fn)
        add(type, fn, o)
      }
      const remove = signal.removeEventListener.bind(signal)
      signal.removeEventListener = (type: string, fn: EventListenerOrEventListenerObject) => {
        listeners.delete(fn)
        remove(type, fn)
      }
      const [ours, theirs] = pair()
      const { env, run } = party(nativeCrypto, { secure: { signal } })
      const result = Promise.allSettled([run(role, theirs)])
      await settle()
      const reason = new Error('enough')
      controller.abort(reason)
      const [settled] = await result
      expect(settled.status === 'rejected' && settled.reason).toBe(reason)
      expect((await ours.closed).by).toBe('remote')
      expect(env.clock.waiting).toBe(0)
      expect(listeners.size).toBe(0)
    },
  )

  it('before the start sends nothing', async () => {
    const [ours, theirs] = pair()
    const reason = new Error('enough')
    const { run } = party(nativeCrypto, { secure: { signal: AbortSignal.abort(reason) } })
    await expect(run('initiator', theirs)).rejects.toBe(reason)
    await expect(ours.read()).rejects.toThrow(ClosedError)
  })

  it('after the handshake changes nothing', async () => {
    const controller = new AbortController()
    const { left, right } = await connect(nativeCrypto, 'pump', { secure: { signal: controller.signal } })
    controller.abort()
    const [x, y] = [new WireStream(got(left).wire), new WireStream(got(right).wire)]
    await x.write(fromUtf8('still here'))
    expect(await y.read()).toEqual(fromUtf8('still here'))
  })
})

it('asks a signer that failed once again for the next handshake', async () => {
  const good = generateKey('Ed25519', nativeCrypto)
  let calls = 0
  const privateKey: PrivateKey = {
    ...good,
    sign: (message) => (calls++ === 0 ? Promise.reject(new Error('locked')) : good.sign(message)),
  }
  const listener = party(nativeCrypto, { privateKey })
  const run = async (): Promise<PromiseSettledResult<Secured>[]> => {
    const [a, b] = pair()
    return Promise.allSettled([listener.run('responder', b), party(nativeCrypto).run('initiator', a)])
  }
  expect((await run()).map((side) => side.status)).toEqual(['rejected', 'rejected'])
  expect((await run()).map((side) => side.status)).toEqual(['fulfilled', 'fulfilled'])
  expect((await run()).map((side) => side.status)).toEqual(['fulfilled', 'fulfilled'])
  // One signature serves every handshake.
  expect(calls).toBe(2)
})

it('speaks across backends', async () => {
  const [a, b] = joined('wire')
  const [left, right] = await Promise.all([
    party(nativeCrypto).run('initiator', a),
    party(nobleCrypto).run('responder', b),
  ])
  const [x, y] = [new WireStream(left.wire), buffered(new WireStream(right.wire))]
  const text = new Uint8Array(150_000).fill(7)
  const written = x.write(text)
  expect(Buffer.compare(await y.readExact(text.length), text)).toBe(0)
  await written
})

it('pauses the wire below while the reader above has enough', async () => {
  const { left, right, streams } = await connect(nativeCrypto, 'pump')
  let received = 0
  let open = false
  const { wire } = got(right)
  wire.start({
    data: (bytes) => {
      received += bytes.length
      return open
    },
    end: () => {},
    onRoom: () => {},
  })
  const writer = new WireStream(got(left).wire)
  const total = 3_000_000
  let written = 0
  const writing = (async () => {
    for (; written < total; written += 100_000) await writer.write(new Uint8Array(100_000))
  })()
  for (let i = 0; i < 10; i++) await settle()
  // What one read brought, and no more: the rest waits with the writer.
  expect(received).toBeLessThan(200_000)
  expect(written).toBeLessThan(1_200_000)
  open = true
  wire.resume()
  await writing
  while (received < total) await settle()
  expect(received).toBe(total)
  streams[0].reset()
})
