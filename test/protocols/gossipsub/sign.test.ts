import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8 } from '../../../src/bytes.ts'
import { PeerId } from '../../../src/peer/id.ts'
import { generateKey, keyTypes, type KeyType, type PrivateKey } from '../../../src/peer/keys.ts'
import {
  AuthorKeys,
  checkFields,
  plainMessage,
  signedBytes,
  signMessage,
  verifyMessage,
} from '../../../src/protocols/gossipsub/sign.ts'
import { decodeRpc, encodeMessage, rpcChunks, type WireMessage } from '../../../src/protocols/gossipsub/wire.ts'
import { decodeVarint, varintLength } from '../../../src/varint.ts'
import { specCases } from '../../vectors.ts'

interface Signed {
  key: KeyType
  peer: string
  data: string | null
  topic: string
  seqno: string
  raw: string
  unknown?: true
}
const signed = specCases('gossipsub/signed.json') as Signed[]
const judged = specCases('gossipsub/judged.json') as { key: string; name: string; raw: string; valid: boolean }[]

/** A message as it comes out of an RPC. */
function received(raw: Uint8Array): WireMessage {
  const all = concat(rpcChunks({ publish: [raw] }))
  const [message] = decodeRpc(all.subarray(varintLength(decodeVarint(all)))).publish
  if (message === undefined) throw new Error('no message')
  return message
}

const seqno = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 7)
const types = Object.keys(keyTypes) as KeyType[]
const made = new Map<KeyType, Promise<PrivateKey>>()
const keyOf = (type: KeyType): Promise<PrivateKey> => {
  let key = made.get(type)
  if (key === undefined) made.set(type, (key = Promise.resolve(generateKey(type))))
  return key
}
const message = async (type: KeyType): Promise<WireMessage> =>
  signMessage(await keyOf(type), { topic: 'news', data: fromUtf8('hello'), seqno })
/** The same with some fields changed. */
const changed = (m: WireMessage, fields: Partial<WireMessage>): WireMessage => {
  const all = { ...m, ...fields }
  return received(encodeMessage(all))
}

describe('a message that go signed', () => {
  it.each(signed)('verifies: $key, data $data', async (c) => {
    const m = received(fromHex(c.raw))
    const keys = new AuthorKeys()
    expect(PeerId.decode(m.from ?? new Uint8Array()).toString()).toBe(c.peer)
    expect(m.topic).toBe(c.topic)
    expect(m.data).toEqual(c.data === null ? undefined : fromHex(c.data))
    expect(m.seqno).toEqual(fromHex(c.seqno))
    expect(checkFields(m, 'StrictSign', keys)).toBeUndefined()
    expect(await verifyMessage(m, keys)).toBe(true)
  })

  it.each(judged)('and somebody wrote in another way is judged as go does: $key, $name', async ({ raw, valid }) => {
    const m = received(fromHex(raw))
    for (const keys of [new AuthorKeys(), await warm(m)]) {
      const good = checkFields(m, 'StrictSign', keys) === undefined && (await verifyMessage(m, keys))
      expect(good).toBe(valid)
      expect(await verifyMessage(m, keys)).toBe(valid)
    }
  })
})

/** Where the author's key is known already. */
async function warm(m: WireMessage): Promise<AuthorKeys> {
  const keys = new AuthorKeys()
  const plain = judged.find((c) => c.name === 'with the key' && equalFrom(received(fromHex(c.raw)), m))
  await verifyMessage(received(fromHex(plain?.raw ?? '')), keys)
  expect(keys.size).toBe(1)
  return keys
}
const equalFrom = (a: WireMessage, b: WireMessage): boolean => String(a.from) === String(b.from)

describe('a message that we signed', () => {
  it.each(types)('verifies, and carries the key only where its id does not: %s', async (type) => {
    const m = await message(type)
    const keys = new AuthorKeys()
    expect(received(m.raw)).toEqual(m)
    expect(m.key === undefined).toBe(type === 'Ed25519' || type === 'Secp256k1')
    expect(checkFields(m, 'StrictSign', keys)).toBeUndefined()
    expect(await verifyMessage(m, keys)).toBe(true)
    expect(keys.size).toBe(1)
  })

  it.each(types)('does not verify with any byte changed: %s', async (type) => {
    const m = await message(type)
    const keys = new AuthorKeys()
    let wrong = 0
    for (let at = 0; at < m.raw.length; at++) {
      const raw = m.raw.slice()
      raw[at] = (raw[at] as number) ^ 1
      let bad: WireMessage
      try {
        bad = received(raw)
      } catch {
        wrong++
        continue
      }
      const good = checkFields(bad, 'StrictSign', keys) === undefined && (await verifyMessage(bad, keys))
      if (good) expect.fail(`byte ${at} of ${type}`)
      wrong++
    }
    expect(wrong).toBe(m.raw.length)
  })

  it('signs the prefix and the message without signature and key, as they are written', async () => {
    const m = await message('RSA')
    const { from, data, topic } = m
    expect(signedBytes(m)).toEqual(concat([fromUtf8('libp2p-pubsub:'), encodeMessage({ from, data, seqno, topic })]))
  })

  it('needs a sequence number of 8 bytes', async () => {
    const key = await keyOf('Ed25519')
    const short = signMessage(key, { topic: 't', data: new Uint8Array(), seqno: new Uint8Array(7) })
    await expect(short).rejects.toThrow(RangeError)
  })
})

describe('StrictSign', () => {
  const cases: [reason: string, type: KeyType, fields: Partial<WireMessage>][] = [
    ['missing-topic', 'Ed25519', { topic: '' }],
    ['missing-signature', 'Ed25519', { signature: undefined }],
    ['missing-from', 'Ed25519', { from: undefined }],
    ['bad-seqno', 'Ed25519', { seqno: undefined }],
    ['bad-seqno', 'Ed25519', { seqno: new Uint8Array(0) }],
    ['bad-seqno', 'Ed25519', { seqno: new Uint8Array(9) }],
    ['bad-from', 'Ed25519', { from: new Uint8Array(0) }],
    ['bad-from', 'Ed25519', { from: fromHex('0024080112202e') }],
    ['bad-from', 'Ed25519', { from: new Uint8Array(1_000_000) }],
    // Known as too long before its key is looked at, or it is made a key of a map.
    ['bad-from', 'RSA', { from: new Uint8Array(1_000_000) }],
    ['unreadable-key', 'Ed25519', { key: new Uint8Array(0) }],
    ['unreadable-key', 'Ed25519', { key: fromUtf8('nonsense') }],
    ['unreadable-key', 'RSA', { key: new Uint8Array(100_000) }],
    ['missing-key', 'RSA', { key: undefined }],
    ['missing-key', 'ECDSA', { key: undefined }],
  ]
  it.each(cases)('says %s (%s)', async (reason, type, fields) => {
    const m = changed(await message(type), fields)
    const known = new AuthorKeys()
    checkFields(await message(type), 'StrictSign', known)
    for (const keys of [new AuthorKeys(), known]) {
      const { size } = keys
      expect(checkFields(m, 'StrictSign', keys)).toBe(reason)
      if (reason !== 'missing-topic' && reason !== 'bad-seqno') expect(await verifyMessage(m, keys)).toBe(false)
      if (reason.endsWith('key')) expect(keys.size).toBe(size)
    }
  })

  it("refuses somebody else's key", async () => {
    const other = generateKey('Ed25519').publicKey.encoded
    for (const type of types) {
      const m = changed(await message(type), { key: other })
      expect(checkFields(m, 'StrictSign', new AuthorKeys())).toBe('bad-key')
    }
  })

  it("refuses somebody else's signature", async () => {
    const key = generateKey('Ed25519')
    const { signature } = await signMessage(key, { topic: 'news', data: fromUtf8('hello'), seqno })
    const m = changed(await message('Ed25519'), { signature })
    const keys = new AuthorKeys()
    expect(checkFields(m, 'StrictSign', keys)).toBeUndefined()
    expect(await verifyMessage(m, keys)).toBe(false)
  })

  it('takes random fields for what they are, without an error', async () => {
    const field = fc.option(fc.uint8Array({ maxLength: 80 }), { nil: undefined })
    const real = await message('RSA')
    const mixed = fc.record({
      from: fc.oneof(field, fc.constant(real.from)),
      data: field,
      seqno: fc.oneof(field, fc.constant(seqno)),
      topic: fc.constantFrom('', 'news'),
      signature: fc.oneof(field, fc.constant(real.signature)),
      key: fc.oneof(field, fc.constant(real.key)),
    })
    await fc.assert(
      fc.asyncProperty(mixed, async (fields) => {
        const m = received(encodeMessage(fields))
        const keys = new AuthorKeys()
        const refusal = checkFields(m, 'StrictSign', keys)
        const whole = fields.data === real.data && refusal === undefined
        expect(await verifyMessage(m, keys)).toBe(whole)
      }),
    )
  })
})

describe('StrictNoSign', () => {
  it('takes a message with data and topic alone', () => {
    const m = plainMessage('news', fromUtf8('hello'))
    expect(received(m.raw)).toEqual(m)
    expect(checkFields(m, 'StrictNoSign', new AuthorKeys())).toBeUndefined()
    expect(checkFields(m, 'StrictSign', new AuthorKeys())).toBe('missing-signature')
  })

  it.each(['from', 'seqno', 'signature', 'key'] as const)('refuses %s, also an empty one', (field) => {
    for (const value of [new Uint8Array(0), Uint8Array.of(1)]) {
      const m = changed(plainMessage('news', fromUtf8('hello')), { [field]: value })
      expect(checkFields(m, 'StrictNoSign', new AuthorKeys())).toBe(`unexpected-${field}`)
    }
  })

  it('refuses a signed message and one without a topic', async () => {
    const keys = new AuthorKeys()
    expect(checkFields(await message('Ed25519'), 'StrictNoSign', keys)).toBe('unexpected-signature')
    expect(checkFields(plainMessage('', fromUtf8('x')), 'StrictNoSign', keys)).toBe('missing-topic')
  })
})

describe('keys of authors', () => {
  it('are imported once, and the one that was used least recently goes', async () => {
    const keys = new AuthorKeys(2)
    const messages: WireMessage[] = []
    for (let i = 0; i < 3; i++) {
      const key = generateKey('Ed25519')
      messages.push(await signMessage(key, { topic: 't', data: new Uint8Array(), seqno }))
    }
    const [a, b, c] = messages as [WireMessage, WireMessage, WireMessage]
    const first = keys.of(a)
    const second = keys.of(b)
    expect(keys.of(a)).toBe(first)
    keys.of(c)
    expect(keys.size).toBe(2)
    expect(keys.of(a)).toBe(first)
    expect(keys.of(b)).not.toBe(second)
    expect(keys.size).toBe(2)
  })

  it('want room for one at least', () => {
    expect(() => new AuthorKeys(0)).toThrow(RangeError)
  })
})
