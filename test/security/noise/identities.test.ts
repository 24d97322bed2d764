/* Attack checklist A1 and A2: who a peer says it is, with keys of every type. */
import { describe, expect, it } from 'vitest'
import { concat, empty, fromHex } from '../../../src/bytes.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { nobleCrypto } from '../../../src/crypto/noble.ts'
import { der, derBits, derUint } from '../../../src/der.ts'
import { fakeEnv } from '../../../src/env.ts'
import { errorCode } from '../../../src/errors.ts'
import { encodeKeyMessage } from '../../../src/peer/key-wire.ts'
import { generateKey, keyTypes, type KeyType, type PrivateKey } from '../../../src/peer/keys.ts'
import { HandshakeState, XX } from '../../../src/security/noise/handshake.ts'
import { createNoise } from '../../../src/security/noise/noise.ts'
import { encodePayload, signedText } from '../../../src/security/noise/payload.ts'
import { buffered, pair, type Stream } from '../../../src/stream.ts'

const types = Object.keys(keyTypes) as KeyType[]
const muxers = ['/yamux/1.0.0']

/** A key message of an RSA key with a modulus of so many bits. */
function rsaMessage(bits: number): Uint8Array {
  const key = der(0x30, derUint(new Uint8Array(bits / 8).fill(255)), derUint(Uint8Array.of(1, 0, 1)))
  const algorithm = der(0x30, fromHex('06092a864886f70d0101010500'))
  return encodeKeyMessage('RSA', der(0x30, algorithm, derBits(key)))
}

async function send(stream: Stream, message: Uint8Array): Promise<void> {
  await stream.write(concat([Uint8Array.of(message.length >> 8, message.length & 255), message]))
}

/** A responder that says it is whoever `say` makes of its static key. */
async function impostor(stream: Stream, say: (text: Uint8Array) => Promise<[key: Uint8Array, sig: Uint8Array]>) {
  const s = nativeCrypto.x25519Generate()
  const state = new HandshakeState({ crypto: nativeCrypto, pattern: XX, role: 'responder', prologue: empty, s })
  const framed = buffered(stream)
  const [high = 0, low = 0] = await framed.readExact(2)
  state.readMessage(await framed.readExact(high * 256 + low))
  const [identityKey, identitySig] = await say(signedText(s.publicKey))
  await send(stream, state.writeMessage(encodePayload({ identityKey, identitySig })))
}

describe.each([nativeCrypto, nobleCrypto])('Noise identities on $name', (crypto) => {
  const noise = (privateKey: PrivateKey) => createNoise({ privateKey, env: fakeEnv(), crypto })

  it.each(types)('of type %s are proved to each other', async (type) => {
    const [ours, theirs] = await Promise.all([generateKey(type, crypto), generateKey(type, crypto)])
    const [a, b] = pair()
    const [left, right] = await Promise.all([
      noise(ours).secure('initiator', a, { muxers, expectedPeer: theirs.publicKey.peerId }),
      noise(theirs).secure('responder', b, { muxers }),
    ])
    expect(left.remotePeer.equals(theirs.publicKey.peerId)).toBe(true)
    expect(right.remotePeer.equals(ours.publicKey.peerId)).toBe(true)
  })

  it('are looked at by the responder only in its turn, both times', async () => {
    const [a, b] = pair()
    const turns: (() => void)[] = []
    const pace = (): Promise<void> => new Promise((resolve) => void turns.push(resolve))
    const done = Promise.all([
      noise(generateKey('Ed25519', crypto)).secure('initiator', a, { muxers }),
      noise(generateKey('Ed25519', crypto)).secure('responder', b, { muxers, pace }),
    ])
    for (let turn = 0; turn < 2; turn++) {
      await expect.poll(() => turns.length).toBe(1)
      turns.shift()?.()
    }
    await done
    expect(turns).toEqual([])
  })

  async function refusal(say: Parameters<typeof impostor>[1]): Promise<unknown> {
    const [a, b] = pair()
    const [dialled] = await Promise.allSettled([
      noise(generateKey('Ed25519', crypto)).secure('initiator', a, { muxers }),
      impostor(b, say),
    ])
    return dialled.status === 'rejected' ? errorCode(dialled.reason) : 'no error'
  }

  it.each(types)('of type %s that are not proved are refused', async (type) => {
    const [victim, other] = await Promise.all([generateKey(type, nativeCrypto), generateKey(type, nativeCrypto)])
    const { encoded } = victim.publicKey
    expect(await refusal(async (text) => [encoded, await other.sign(text)])).toBe('bad-signature')
    expect(await refusal(async () => [encoded, await victim.sign(empty)])).toBe('bad-signature')
    expect(await refusal(async () => [encoded, empty])).toBe('bad-signature')
    expect(await refusal(async (text) => [encoded, concat([await victim.sign(text), Uint8Array.of(0)])])).toBe(
      'bad-signature',
    )
  })

  it('with RSA keys of more than 8192 bits are refused', async () => {
    expect(await refusal(async () => [rsaMessage(8192), new Uint8Array(1024).fill(1)])).toBe('bad-signature')
    expect(await refusal(async () => [rsaMessage(8200), new Uint8Array(1025).fill(1)])).toBe('bad-key')
    expect(await refusal(async () => [rsaMessage(15_360), new Uint8Array(1920).fill(1)])).toBe('bad-key')
  })
})
