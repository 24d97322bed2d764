import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { empty, fromHex, fromUtf8, toHex } from '../../../src/bytes.ts'
import type { Crypto } from '../../../src/crypto/crypto.ts'
import { nativeCrypto } from '../../../src/crypto/native.ts'
import { nobleCrypto } from '../../../src/crypto/noble.ts'
import { LimitError, ProtocolError } from '../../../src/errors.ts'
import { HandshakeState, XX, type HandshakeOptions } from '../../../src/security/noise/handshake.ts'
import { CipherState, SymmetricState } from '../../../src/security/noise/symmetric.ts'
import { sharedJson } from '../../vectors.ts'
import { patternByName } from './patterns.ts'

interface Vector {
  protocol_name: string
  init_prologue: string
  init_ephemeral: string
  init_static?: string
  init_remote_static?: string
  init_psks?: string[]
  resp_prologue: string
  resp_ephemeral?: string
  resp_static?: string
  resp_remote_static?: string
  resp_psks?: string[]
  handshake_hash: string
  messages: { payload: string; ciphertext: string }[]
}

const suite = '_25519_ChaChaPoly_SHA256'
const shared = sharedJson('noise/cacophony.txt') as { vectors: Vector[] } | undefined
const vectors = shared?.vectors.filter(({ protocol_name: name }) => name.endsWith(suite)) ?? []

function run(crypto: Crypto, v: Vector): void {
  const pattern = patternByName(v.protocol_name.slice('Noise_'.length, -suite.length))
  const side = (role: 'initiator' | 'responder'): HandshakeState => {
    const of = (what: string): unknown => (v as unknown as Record<string, unknown>)[`${role.slice(0, 4)}_${what}`]
    const hex = (what: string): Uint8Array | undefined => {
      const text = of(what) as string | undefined
      return text === undefined ? undefined : fromHex(text)
    }
    const [e, s, rs] = [hex('ephemeral'), hex('static'), hex('remote_static')]
    const options: HandshakeOptions = {
      crypto,
      pattern,
      role,
      prologue: hex('prologue') ?? empty,
      psks: ((of('psks') as string[] | undefined) ?? []).map(fromHex),
      ...(e && { e: crypto.x25519From(e) }),
      ...(s && { s: crypto.x25519From(s) }),
      ...(rs && { rs }),
    }
    return new HandshakeState(options)
  }
  const initiator = side('initiator')
  const responder = side('responder')
  let ciphers: { from: CipherState; to: CipherState }[] = []
  for (const [i, { payload, ciphertext }] of v.messages.entries()) {
    const turn = pattern.oneWay ? 0 : i % 2
    const [from, to] = turn === 0 ? [initiator, responder] : [responder, initiator]
    if (!initiator.done) {
      const message = from.writeMessage(fromHex(payload))
      expect(toHex(message)).toBe(ciphertext)
      expect(toHex(to.readMessage(message))).toBe(payload)
      if (!initiator.done) continue
      expect(toHex(initiator.handshakeHash)).toBe(v.handshake_hash)
      expect(toHex(responder.handshakeHash)).toBe(v.handshake_hash)
      const [a, b] = [initiator.split(), responder.split()]
      ciphers = [
        { from: a.send, to: b.receive },
        { from: b.send, to: a.receive },
      ]
    } else {
      const plaintext = fromHex(payload)
      const sealed = ciphers[turn]?.from.seal(empty, [plaintext], plaintext.length) ?? empty
      expect(toHex(sealed)).toBe(ciphertext)
      expect(toHex(ciphers[turn]?.to.open(empty, sealed) ?? empty)).toBe(payload)
    }
  }
}

describe.each([nativeCrypto, nobleCrypto])('cacophony vectors on $name', (crypto) => {
  it.skipIf(vectors.length === 0)('are 59 of this suite, XX once', () => {
    expect(vectors.length).toBe(59)
    expect(vectors.filter((v) => v.protocol_name === `Noise_XX${suite}`).length).toBe(1)
  })

  it.each(vectors.map((v) => [v.protocol_name, v] as const))('%s', (_name, v) => run(crypto, v))
})

function handshakes(crypto: Crypto = nativeCrypto): { a: HandshakeState; b: HandshakeState } {
  const side = (role: 'initiator' | 'responder'): HandshakeState =>
    new HandshakeState({ crypto, pattern: XX, role, s: crypto.x25519Generate() })
  return { a: side('initiator'), b: side('responder') }
}

function refuses(state: HandshakeState, message: Uint8Array): void {
  const hash = toHex(state.handshakeHash)
  for (let i = 0; i < message.length; i += 7) {
    const bad = message.slice()
    bad[i] = (bad[i] as number) ^ 1
    expect(() => state.readMessage(bad)).toThrow(ProtocolError)
    expect(() => state.readMessage(message.subarray(0, i))).toThrow(ProtocolError)
  }
  expect(() => state.readMessage(new Uint8Array(70_000))).toThrow(ProtocolError)
  expect(toHex(state.handshakeHash)).toBe(hash)
}

describe('HandshakeState', () => {
  it('leaves its state untouched by messages that fail, whichever byte is wrong or missing', () => {
    const { a, b } = handshakes()
    expect(b.readMessage(a.writeMessage(empty))).toEqual(empty)
    const second = b.writeMessage(fromUtf8('second'))
    refuses(a, second)
    expect(a.remoteStatic).toBeUndefined()
    expect(a.readMessage(second)).toEqual(fromUtf8('second'))
    const third = a.writeMessage(fromUtf8('third'))
    refuses(b, third)
    expect(b.remoteStatic).toBeUndefined()
    expect(b.readMessage(third)).toEqual(fromUtf8('third'))
    expect(a.handshakeHash).toEqual(b.handshakeHash)
    const sealed = a.split().send.seal(empty, [fromUtf8('x')], 1)
    expect(b.split().receive.open(empty, sealed)).toEqual(fromUtf8('x'))
  })

  it.each([nativeCrypto, nobleCrypto])('refuses ephemeral and static keys of low order ($name)', (crypto) => {
    const { a, b } = handshakes(crypto)
    b.readMessage(new Uint8Array(32))
    expect(() => b.writeMessage(empty)).toThrow(/all zero/)
    a.writeMessage(empty)
    expect(() => a.readMessage(new Uint8Array(96))).toThrow(/all zero/)
  })

  it('throws TypeError when it is not our turn, and RangeError for payloads that do not fit', () => {
    const { a, b } = handshakes()
    expect(() => a.readMessage(new Uint8Array(32))).toThrow(TypeError)
    expect(() => b.writeMessage(empty)).toThrow(TypeError)
    expect(() => a.split()).toThrow(TypeError)
    expect(() => a.writeMessage(new Uint8Array(65_535 - 31))).toThrow(RangeError)
    expect(a.writeMessage(new Uint8Array(65_535 - 32)).length).toBe(65_535)
  })

  it('throws TypeError where the pattern needs a key that it was not given', () => {
    const pattern = patternByName('IKpsk2')
    expect(() => new HandshakeState({ crypto: nativeCrypto, pattern, role: 'initiator' })).toThrow(/static key/)
    const state = new HandshakeState({
      crypto: nativeCrypto,
      pattern,
      role: 'initiator',
      rs: nativeCrypto.x25519Generate().publicKey,
    })
    expect(() => state.writeMessage(empty)).toThrow(TypeError)
  })

  it('fails when the prologues differ', () => {
    const crypto = nativeCrypto
    const s = crypto.x25519Generate()
    const a = new HandshakeState({ crypto, pattern: XX, role: 'initiator', s, prologue: fromUtf8('one') })
    const b = new HandshakeState({ crypto, pattern: XX, role: 'responder', s, prologue: fromUtf8('two') })
    b.readMessage(a.writeMessage(empty))
    expect(() => a.readMessage(b.writeMessage(empty))).toThrow(ProtocolError)
  })

  it('throws ProtocolError or nothing on random bytes', () => {
    const { a } = handshakes()
    a.writeMessage(empty)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(() => a.readMessage(bytes)).toThrow(ProtocolError)
      }),
      { numRuns: 60 },
    )
  })
})

describe('CipherState', () => {
  const key = new Uint8Array(32).fill(3)

  it('writes its nonce as 32 zero bits and a little-endian u64, and carries into the upper bytes', () => {
    const aead = nativeCrypto.chaCha20Poly1305(key)
    for (const n of [0, 1, 254, 255, 256, 65_535, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 7, Number.MAX_SAFE_INTEGER - 2]) {
      const state = new CipherState(aead, n)
      for (const at of [n, n + 1]) {
        const nonce = new Uint8Array(12)
        new DataView(nonce.buffer).setBigUint64(4, BigInt(at), true)
        const want = new Uint8Array(20)
        aead.seal(nonce, empty, [fromUtf8('text')], 4, want, 0)
        expect(toHex(state.seal(empty, [fromUtf8('text')], 4))).toBe(toHex(want))
      }
      expect(state.n).toBe(n + 2)
    }
  })

  it('refuses to seal or open once its nonces are used up', () => {
    const state = new CipherState(nativeCrypto.chaCha20Poly1305(key), Number.MAX_SAFE_INTEGER)
    expect(() => state.seal(empty, [], 0)).toThrow(LimitError)
    expect(() => state.sealChunks(empty, [], 0, [])).toThrow(LimitError)
    expect(() => state.open(empty, new Uint8Array(16))).toThrow(LimitError)
  })

  it('does not advance on what it cannot open', () => {
    const aead = nativeCrypto.chaCha20Poly1305(key)
    const sealed = new CipherState(aead).seal(empty, [fromUtf8('a')], 1)
    const state = new CipherState(aead)
    expect(() => state.open(empty, new Uint8Array(17))).toThrow(ProtocolError)
    expect(() => state.open(empty, empty)).toThrow(ProtocolError)
    expect(state.n).toBe(0)
    expect(state.open(empty, sealed)).toEqual(fromUtf8('a'))
    expect(() => state.open(empty, sealed)).toThrow(ProtocolError)
  })
})

it('pads short protocol names and hashes long ones', () => {
  const short = SymmetricState.initialize(nativeCrypto, 'Noise_XX_25519_ChaChaPoly_SHA256')
  expect(toHex(short.handshakeHash)).toBe(toHex(fromUtf8('Noise_XX_25519_ChaChaPoly_SHA256')))
  expect(toHex(SymmetricState.initialize(nativeCrypto, 'ab').handshakeHash)).toBe(`6162${'00'.repeat(30)}`)
  const long = 'Noise_XXhfs_25519+MLKEM768_ChaChaPoly_SHA256'
  expect(SymmetricState.initialize(nativeCrypto, long).handshakeHash).toEqual(nativeCrypto.sha256(fromUtf8(long)))
})
