import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, empty, equals, fromUtf8 } from '../../src/bytes.ts'
import { upgrade } from '../../src/connection/upgrade.ts'
import { fakeEnv, settle } from '../../src/env.ts'
import { ProtocolError, errorCode } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import {
  PnetWire,
  decodePreSharedKey,
  encodePreSharedKey,
  generatePreSharedKey,
  pnet,
} from '../../src/security/pnet.ts'
import { buffered, pair, type Muxer, type Stream } from '../../src/stream.ts'
import { memory } from '../../src/transport/memory.ts'
import { StreamWire, WireStream } from '../../src/wire.ts'

const key = Uint8Array.from({ length: 32 }, (_, i) => i * 7)
const hex = Buffer.from(key).toString('hex')
const opening = fromUtf8('\x13/multistream/1.0.0\n')

describe('a pre-shared key file', () => {
  it('is read in all three forms, as other stacks write them', () => {
    expect(decodePreSharedKey(`/key/swarm/psk/1.0.0/\n/base16/\n${hex}`)).toEqual(key)
    expect(decodePreSharedKey(`/key/swarm/psk/1.0.0/\n/base16/\n${hex.toUpperCase()}\n`)).toEqual(key)
    expect(decodePreSharedKey(`/key/swarm/psk/1.0.0/\r\n/base16/\r\n${hex}\r\n`)).toEqual(key)
    const base64 = Buffer.from(key).toString('base64')
    expect(decodePreSharedKey(`/key/swarm/psk/1.0.0/\n/base64/\n${base64}\n`)).toEqual(key)
    const bin = concat([fromUtf8('/key/swarm/psk/1.0.0/\n/bin/\n'), key])
    expect(decodePreSharedKey(bin)).toEqual(key)
    expect(decodePreSharedKey(encodePreSharedKey(key))).toEqual(key)
  })

  it.each([
    ['', 'fewer than three lines'],
    [`/key/swarm/psk/2.0.0/\n/base16/\n${hex}`, 'does not begin with'],
    [`/key/swarm/psk/1.0.0/\n/base32/\n${hex}`, 'want /base16/'],
    [`/key/swarm/psk/1.0.0/\n/base16/\n${hex.slice(2)}`, 'got 31 bytes'],
    [`/key/swarm/psk/1.0.0/\n/base16/\n${hex}00`, 'got 33 bytes'],
    [`/key/swarm/psk/1.0.0/\n/base16/\n${hex.slice(1)}`, 'text that is none'],
    [`/key/swarm/psk/1.0.0/\n/base64/\n!!!!`, 'text that is none'],
    [`/key/swarm/psk/1.0.0/\n/bin/\nshort`, 'got 5 bytes'],
    [`/key/swarm/psk/1.0.0/\n/base16/\n${hex.repeat(20)}`, 'pre-shared key file of'],
  ])('that is not one is refused: %j', (file, message) => {
    expect(() => decodePreSharedKey(file)).toThrow(message)
    expect(() => pnet(file)).toThrow(ProtocolError)
  })

  it('is told from a key of the wrong length', () => {
    expect(() => pnet(key.subarray(1))).toThrow('pre-shared key of 31 bytes, want 32 or its file')
    expect(() => pnet(fromUtf8(encodePreSharedKey(key)))).not.toThrow()
  })

  it('of arbitrary bytes throws a ProtocolError or is a key', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(29), (bytes, cut) => {
        try {
          expect(decodePreSharedKey(concat([fromUtf8(encodePreSharedKey(key)).subarray(0, cut), bytes]))).toHaveLength(
            32,
          )
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })

  it('is made of 32 bytes that differ', () => {
    expect(equals(generatePreSharedKey(), generatePreSharedKey())).toBe(false)
    expect(() => encodePreSharedKey(empty)).toThrow(RangeError)
  })
})

/** Both ends of a protected stream; a key each. */
function joined(a: Uint8Array = key, b: Uint8Array = key, ends = pair()): [Stream, Stream] {
  const env = fakeEnv()
  return [pnet(a, { env }).protect(ends[0]), pnet(b, { env: fakeEnv(2) }).protect(ends[1])]
}

describe('a private network', () => {
  it('carries bytes both ways, and ends', async () => {
    const [a, b] = joined()
    const big = Uint8Array.from({ length: 500_000 }, (_, i) => i ^ (i >> 8))
    const [x, y] = [buffered(a), buffered(b)]
    await Promise.all([x.write(opening), y.write(opening)])
    expect(await x.readExact(20)).toEqual(opening)
    expect(await y.readExact(20)).toEqual(opening)
    const sent = x.write(big.slice(0, 7), big.slice(7, 100), big.slice(100))
    expect(Buffer.compare(await y.readExact(big.length), big)).toBe(0)
    await sent
    await x.closeWrite()
    expect(await y.read()).toBeNull()
    await y.write(fromUtf8('half closed'))
    expect(await x.readExact(11)).toEqual(fromUtf8('half closed'))
    await y.closeWrite()
    expect((await x.closed).reason).toBeUndefined()
  })

  it('shows nothing of what is said, and says nothing twice alike', async () => {
    const seen: Uint8Array[] = []
    for (let i = 0; i < 2; i++) {
      const [a, b] = pair()
      await pnet(key).protect(a).write(opening)
      seen.push(await buffered(b).readExact(44))
    }
    expect(seen.map((bytes) => Buffer.from(bytes).includes('multistream'))).toEqual([false, false])
    expect(equals(seen[0] ?? empty, seen[1] ?? empty)).toBe(false)
  })

  it('gives the same bytes however they are cut on the way', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 }), async (sizes) => {
        const sealed: Uint8Array[] = []
        const [a, b] = pair()
        const sender = new PnetWire(new StreamWire(a), key, new Uint8Array(24).fill(5))
        const text = concat([opening, Uint8Array.from({ length: 300 }, (_, i) => i)])
        sender.put([text.slice()])
        let total = 0
        while (total < 24 + text.length) {
          const chunk = (await b.read()) ?? empty
          sealed.push(chunk)
          total += chunk.length
        }
        const [c, d] = pair()
        const whole = concat(sealed)
        const reader = buffered(new WireStream(new PnetWire(new StreamWire(d), key, new Uint8Array(24))))
        const read = reader.readExact(text.length)
        for (let at = 0, i = 0; at < whole.length; i++) {
          const size = sizes[i % sizes.length] ?? 1
          await c.write(whole.slice(at, at + size))
          at += size
        }
        expect(Buffer.compare(await read, text)).toBe(0)
        reader.reset()
      }),
      { numRuns: 30 },
    )
  })

  it('sees another key in the first byte, and a peer without a key in its first words', async () => {
    const other = key.slice()
    other[31] = 1
    for (const [theirs, message] of [
      [(s: Stream) => pnet(other).protect(s).write(opening), 'another pre-shared key'],
      [(s: Stream) => s.write(opening, fromUtf8('\x07/noise\n')), 'uses no pre-shared key'],
    ] as const) {
      const [a, b] = pair()
      const ours = pnet(key).protect(a)
      await theirs(b)
      await expect(ours.read()).rejects.toThrow(message)
      expect((await ours.closed).reason).toMatchObject({ code: 'decrypt-failed' })
      await b.closed
    }
  })

  it('says what may be wrong when the peer hangs up before it said anything', async () => {
    const [a, b] = pair()
    const ours = pnet(key).protect(a)
    b.reset()
    await expect(ours.read()).rejects.toThrow(/another pre-shared key/)
    const [c, d] = pair()
    const again = pnet(key).protect(c)
    await d.closeWrite()
    await expect(again.read()).rejects.toThrow(/another pre-shared key/)
  })

  it('connects the nodes that have the key, refuses others quickly and with a reason on both sides', async () => {
    const psk = generatePreSharedKey()
    const transports = [memory()]
    const failures: unknown[] = []
    const env = {
      ...fakeEnv(),
      trace: (_: string, fields: Record<string, unknown>) => void failures.push(fields['error']),
    }
    const make = async (key: Uint8Array | undefined, listen: string[] = []) => {
      const made = await createNode({
        transports,
        listen,
        ...(listen.length > 0 && { env }),
        ...(key && { connectionProtector: pnet(key) }),
      })
      onTestFinished(() => made.stop())
      await made.start()
      return made
    }
    const server = await make(psk, ['/memory/4711'])
    const to = String(server.addrs()[0])
    expect((await (await make(psk)).dial(to)).peer.equals(server.peerId)).toBe(true)
    for (const wrong of [generatePreSharedKey(), undefined]) {
      const before = failures.length
      await expect((await make(wrong)).dial(to)).rejects.toThrow()
      await settle()
      expect(failures.slice(before).map((error) => errorCode(error))).toContain('decrypt-failed')
    }
  })

  it('refuses transports that bring their own security', async () => {
    let aborted: Error | undefined
    const muxer = { abort: (_code: number, error: Error) => void (aborted = error) } as unknown as Muxer
    const addr = multiaddr('/memory/1')
    const peer = generateKey().publicKey.peerId
    const muxed = { kind: 'muxed', peer, muxer, security: '/tls/1.0.0', localAddr: addr, remoteAddr: addr } as const
    const by = { env: fakeEnv(), security: [], muxers: [], timeoutMs: 1000, protector: pnet(key) }
    await expect(upgrade(muxed, 'initiator', by)).rejects.toMatchObject({ code: 'unsupported' })
    expect(errorCode(aborted)).toBe('unsupported')
  })

  it('is all there is where LIBP2P_FORCE_PNET is 1', async () => {
    process.env['LIBP2P_FORCE_PNET'] = '1'
    onTestFinished(() => void delete process.env['LIBP2P_FORCE_PNET'])
    await expect(createNode()).rejects.toMatchObject({ code: 'not-permitted' })
    await expect(createNode({ connectionProtector: pnet(key) })).resolves.toBeDefined()
  })
})
