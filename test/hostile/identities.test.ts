/* Who claims to be somebody in a handshake without being able to prove it; attacks.md A 1 to 3 and 6. */
import { expect, it, vi } from 'vitest'
import { allocUnsafe, concat, fromUtf8 } from '../../src/bytes.ts'
import { errorCode } from '../../src/errors.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { acceptTunnel, failure, hostileListener, patience, tunnel, victim, watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

function der(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const body = concat(parts)
  const { length } = body
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return concat([Uint8Array.of(tag, ...size), body])
}

const rsaOid = Uint8Array.of(0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0)

/** The PublicKey message of an RSA key of so many bits; nobody ever made a private one for it. */
function rsaKey(bits: number): Uint8Array {
  const modulus = allocUnsafe(bits / 8 + 1).fill(0xff)
  modulus[0] = 0
  const key = der(0x30, der(0x02, modulus), der(0x02, Uint8Array.of(1, 0, 1)))
  return publicKey(0, der(0x30, der(0x30, rsaOid), der(0x03, Uint8Array.of(0), key)))
}

function publicKey(type: number, data: Uint8Array): Uint8Array {
  const size = data.length < 0x80 ? [data.length] : [(data.length & 0x7f) | 0x80, data.length >> 7]
  return concat([Uint8Array.of(0x08, type, 0x12, ...size), data])
}

/** A key that claims to be `encoded` and signs with whatever `sign` gives. */
function claiming(encoded: Uint8Array | undefined, sign: (message: Uint8Array) => Uint8Array): PrivateKey {
  const real = generateKey()
  const claimed = encoded === undefined ? real.publicKey : { ...real.publicKey, encoded, peerId: real.publicKey.peerId }
  return { ...real, publicKey: claimed, sign: (message) => Promise.resolve(sign(message)) }
}

const zeros = (size: number) => (): Uint8Array => new Uint8Array(size)
const ed25519 = 1

const claims: [what: string, make: () => PrivateKey, codes: string[]][] = [
  ['an RSA key of 15,360 bits', () => claiming(rsaKey(15_360), zeros(1920)), ['oversized', 'bad-key']],
  ['an RSA key of 8,200 bits', () => claiming(rsaKey(8_200), zeros(1025)), ['oversized', 'bad-key']],
  ['an RSA key of 1,024 bits', () => claiming(rsaKey(1_024), zeros(128)), ['bad-key']],
  ['a signature of zeros', () => claiming(undefined, zeros(64)), ['bad-signature']],
  ['no signature', () => claiming(undefined, zeros(0)), ['bad-signature', 'bad-handshake']],
  ['half a signature', () => claiming(undefined, zeros(32)), ['bad-signature']],
  ['a signature of a kilobyte', () => claiming(undefined, zeros(1024)), ['bad-signature', 'oversized']],
  [
    'the key of small order for which every signature of zeros would hold',
    () => claiming(publicKey(ed25519, Uint8Array.of(1, ...new Uint8Array(31))), zeros(64)),
    ['bad-signature', 'bad-key'],
  ],
  ['a key of a type that nobody knows', () => claiming(publicKey(9, new Uint8Array(32)), zeros(64)), ['bad-key']],
  ['a key that is too short', () => claiming(publicKey(ed25519, new Uint8Array(31)), zeros(64)), ['bad-key']],
  ['text for a key', () => claiming(fromUtf8('hello'), zeros(64)), ['bad-protobuf', 'bad-key']],
]

it.each(claims)('a peer that dials with %s is nobody, at once', async (_what, make, codes) => {
  const v = await victim()
  const t = await tunnel(v.port, make())
  const refused = 'node.inbound-refused'
  await expect.poll(() => v.codes(refused), patience).toEqual([expect.toBeOneOf(codes)])
  expect(v.traces.find(({ what }) => what === refused)?.error?.name).toBe('ProtocolError')
  expect(v.node.connections()).toHaveLength(1)
  t.socket.destroy()
  await v.expectUnharmed()
})

it.each(claims)('a peer that is dialled and has %s is nobody, at once', async (_what, make, codes) => {
  const v = await victim()
  const port = await hostileListener((socket) => void acceptTunnel(socket, make()).catch(() => {}))
  expect(errorCode(await failure(v.node.dial(`/ip4/127.0.0.1/tcp/${port}`)))).toBeOneOf(codes)
  expect(v.node.connections()).toHaveLength(1)
  await v.expectUnharmed()
})
