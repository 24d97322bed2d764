import { describe, expect, it } from 'vitest'
import { equals, fromUtf8 } from '../../../src/bytes.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { nobleCrypto } from '../../../src/crypto/noble.ts'
import { fakeEnv } from '../../../src/env.ts'
import { ProtocolError, TimeoutError, errorCode } from '../../../src/errors.ts'
import { generateKey } from '../../../src/peer/keys.ts'
import {
  createNoise,
  handshakeInitiator,
  handshakeResponder,
  type SessionOptions,
} from '../../../src/security/noise/noise.ts'
import { maxPlaintextBytes } from '../../../src/security/noise/noise-session.ts'
import { pair, prefixed } from '../../../src/stream.ts'

const text = fromUtf8

async function sessions(a: SessionOptions = {}, b: SessionOptions = {}) {
  const [x, y] = pair()
  const [left, right] = await Promise.all([handshakeInitiator(x, a), handshakeResponder(y, b)])
  return { left, right }
}

/** The code each side fails with. */
async function failures(a: SessionOptions, b: SessionOptions = {}): Promise<unknown[]> {
  const [x, y] = pair()
  const both = await Promise.allSettled([handshakeInitiator(x, a), handshakeResponder(y, b)])
  return both.map((side) => (side.status === 'rejected' ? errorCode(side.reason) : 'no error'))
}

const decryptFailed = (run: () => unknown): void => {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError)
    expect(errorCode(error)).toBe('decrypt-failed')
    return
  }
  expect.unreachable('decrypted')
}

describe.each([nativeCrypto, nobleCrypto])('a Noise session on $name', (crypto) => {
  it('encrypts in both directions, in order, over a stream of one’s own framing', async () => {
    const { left, right } = await sessions({ crypto }, { crypto })
    expect(equals(left.handshakeHash, right.handshakeHash)).toBe(true)
    expect(left.remotePeer).toBeUndefined()
    for (const word of ['one', 'two', '']) expect(right.decrypt(left.encrypt(text(word)))).toEqual(text(word))
    expect(left.decrypt(right.encrypt(text('back')))).toEqual(text('back'))
    expect(right.decrypt(left.encrypt(new Uint8Array(maxPlaintextBytes).fill(1)))).toHaveLength(maxPlaintextBytes)
    await left.stream.write(...prefixed(left.encrypt(text('framed'))))
    expect(right.decrypt((await right.stream.readPrefixed(100)) ?? text(''))).toEqual(text('framed'))
    const sealed = left.encrypt(text('secret'))
    expect(Buffer.from(sealed).includes('secret')).toBe(false)
    expect(sealed).toHaveLength(6 + 16)
  })

  it('fails on what is replayed, reordered, left out, cut or changed, and goes on with the right one', async () => {
    const { left, right } = await sessions({ crypto }, { crypto })
    const [one, two, three] = [left.encrypt(text('1')), left.encrypt(text('2')), left.encrypt(text('3'))]
    decryptFailed(() => right.decrypt(two))
    expect(right.decrypt(one)).toEqual(text('1'))
    decryptFailed(() => right.decrypt(one))
    decryptFailed(() => right.decrypt(three))
    for (let i = 0; i < two.length; i++) {
      const changed = two.slice()
      changed[i] = (changed[i] ?? 0) ^ (1 << (i % 8))
      decryptFailed(() => right.decrypt(changed))
    }
    for (let size = 0; size < two.length; size++) decryptFailed(() => right.decrypt(two.subarray(0, size)))
    decryptFailed(() => right.decrypt(new Uint8Array(70_000)))
    expect(right.decrypt(two)).toEqual(text('2'))
    expect(right.decrypt(three)).toEqual(text('3'))
  })

  it('opens nothing of another direction or another session', async () => {
    const [first, second] = [await sessions({ crypto }, { crypto }), await sessions({ crypto }, { crypto })]
    const sealed = first.left.encrypt(text('x'))
    decryptFailed(() => first.left.decrypt(sealed))
    decryptFailed(() => second.right.decrypt(sealed))
  })

  it('talks to a pinned static key alone, on either side', async () => {
    const [ours, theirs] = [crypto.x25519Generate(), crypto.x25519From(new Uint8Array(32).fill(7))]
    const pinnedBoth = await sessions(
      { crypto, staticKey: ours, remoteStaticKey: theirs.publicKey },
      { crypto, staticKey: new Uint8Array(32).fill(7), remoteStaticKey: ours.publicKey },
    )
    expect(equals(pinnedBoth.left.remoteStaticKey, theirs.publicKey)).toBe(true)
    expect(equals(pinnedBoth.right.remoteStaticKey, ours.publicKey)).toBe(true)
    const [left, right] = await failures({ crypto, remoteStaticKey: ours.publicKey }, { crypto, staticKey: theirs })
    expect([left, right]).toEqual(['wrong-peer', 'reset'])
    expect((await failures({ crypto }, { crypto, remoteStaticKey: ours.publicKey }))[1]).toBe('wrong-peer')
  })

  it('proves identities where they are shown, and wants the expected one', async () => {
    const [ours, theirs] = [generateKey('Ed25519', crypto), generateKey('Ed25519', crypto)]
    const { left, right } = await sessions(
      { crypto, privateKey: ours, expectedPeer: theirs.publicKey.peerId },
      { crypto, privateKey: theirs },
    )
    expect(left.remotePeer?.equals(theirs.publicKey.peerId)).toBe(true)
    expect(right.remotePeer?.equals(ours.publicKey.peerId)).toBe(true)
    const expectedPeer = ours.publicKey.peerId
    expect((await failures({ crypto, expectedPeer }, { crypto, privateKey: theirs }))[0]).toBe('wrong-peer')
    expect((await failures({ crypto, expectedPeer }, { crypto }))[0]).toBe('wrong-peer')
  })

  it('shakes hands with what every libp2p calls /noise', async () => {
    const [ours, theirs] = [generateKey('Ed25519', crypto), generateKey('Ed25519', crypto)]
    const [x, y] = pair()
    const [session, secured] = await Promise.all([
      handshakeInitiator(x, { crypto, privateKey: ours }),
      createNoise({ privateKey: theirs, env: fakeEnv(), crypto }).secure('responder', y, { muxers: [] }),
    ])
    expect(secured.remotePeer.equals(ours.publicKey.peerId)).toBe(true)
    const got = new Promise<Uint8Array>((resolve) =>
      secured.wire.start({ data: (bytes) => (resolve(bytes), true), end: () => {}, onRoom: () => {} }),
    )
    const sealed = session.encrypt(text('hello'))
    await session.stream.write(Uint8Array.of(0, sealed.length), sealed)
    expect(await got).toEqual(text('hello'))
    secured.wire.abort()
  })
})

describe('a Noise session', () => {
  it('fails when the prologues differ', async () => {
    expect((await failures({ prologue: text('a') }, { prologue: text('b') }))[0]).toBe('decrypt-failed')
  })

  it('ends at the deadline and with the signal, and leaves nothing open', async () => {
    const env = fakeEnv()
    const [x, y] = pair()
    const late = expect(handshakeInitiator(x, { env, timeoutMs: 100 })).rejects.toBeInstanceOf(TimeoutError)
    await env.clock.advance(100)
    await late
    expect(env.clock.waiting).toBe(0)
    await y.closed
    const [a] = pair()
    const controller = new AbortController()
    const cause = new Error('enough')
    const aborted = expect(handshakeResponder(a, { signal: controller.signal })).rejects.toBe(cause)
    controller.abort(cause)
    await aborted
  })

  it('refuses options that make no sense', async () => {
    const [x] = pair()
    await expect(handshakeInitiator(x, { staticKey: new Uint8Array(31) })).rejects.toThrow(RangeError)
    await expect(handshakeInitiator(x, { remoteStaticKey: new Uint8Array(33) })).rejects.toThrow(RangeError)
    await expect(handshakeInitiator(x, { timeoutMs: 0 })).rejects.toThrow(RangeError)
    const { left } = await sessions()
    expect(() => left.encrypt(new Uint8Array(maxPlaintextBytes + 1))).toThrow(RangeError)
  })

  it('refuses handshake messages that are too long, and streams that end', async () => {
    const [x, y] = pair()
    const refused = handshakeResponder(y)
    await x.write(Uint8Array.of(255, 255))
    await expect(refused).rejects.toMatchObject({ code: 'oversized' })
    const [a, b] = pair()
    const cut = handshakeResponder(b)
    await a.closeWrite()
    await expect(cut).rejects.toMatchObject({ code: 'truncated' })
  })
})
