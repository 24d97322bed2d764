import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty, fromHex, fromUtf8, toHex } from '../../src/bytes.ts'
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { errorCode, ProtocolError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import {
  maxEnvelopeBytes,
  maxRecordAddrs,
  openEnvelope,
  openPeerRecord,
  peerRecordDomain,
  peerRecordType,
  sealEnvelope,
  sealPeerRecord,
} from '../../src/peer/envelope.ts'
import { decodePrivateKey, generateKey, keyTypes } from '../../src/peer/keys.ts'
import type { KeyType } from '../../src/peer/keys.ts'
import { bytes, message, repeated, uint64 } from '../../src/protobuf.ts'
import { specCases } from '../vectors.ts'

const both = [nativeCrypto, nobleCrypto]
const fixtures = specCases('peer-record/go.json') as {
  private: string
  envelope: string
  seq: string
  addrs: string[]
}[]
const identified = specCases('identify/go-js-py.json') as {
  name: string
  peerId: string
  listenAddrsText: string[]
  signedPeerRecord?: string
}[]

/** The same messages without limits. */
const Envelope = message({ publicKey: [1, bytes], payloadType: [2, bytes], payload: [3, bytes], signature: [5, bytes] })
const Record = message({
  peerId: [1, bytes],
  seq: [2, uint64],
  addresses: [3, repeated(message({ multiaddr: [1, bytes] }), 10_000)],
})

async function refusal(open: Promise<unknown>): Promise<string | undefined> {
  try {
    await open
    return undefined
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    return error.code
  }
}

const addrs = ['/ip4/192.0.2.1/tcp/4001', '/ip6/2001:db8::1/tcp/1', '/dns4/example.org/tcp/443/wss'].map((a) =>
  multiaddr(a),
)

describe.each(both)('peer records with $name', (crypto) => {
  it('that go-libp2p made are opened, and made the same', async () => {
    for (const fixture of fixtures) {
      const record = await openPeerRecord(fromHex(fixture.envelope), crypto)
      expect(record.seq).toBe(BigInt(fixture.seq))
      expect(record.addrs.map(String)).toEqual(fixture.addrs)
      const key = decodePrivateKey(fromHex(fixture.private), crypto)
      expect(record.peerId.equals(key.publicKey.peerId)).toBe(true)
      expect(toHex(await sealPeerRecord(key, record))).toBe(fixture.envelope)
    }
  })

  it('of real peers are opened', async () => {
    let count = 0
    for (const { peerId, listenAddrsText, signedPeerRecord } of identified) {
      if (signedPeerRecord === undefined || signedPeerRecord === '') continue
      count++
      const record = await openPeerRecord(fromHex(signedPeerRecord), crypto)
      expect(record.peerId.toString()).toBe(peerId)
      expect(record.publicKey.peerId.toString()).toBe(peerId)
      expect(record.addrs.map((addr) => addr.decapsulate('p2p').toString())).toEqual(listenAddrsText)
      expect(record.seq > 0n).toBe(true)
    }
    expect(count).toBeGreaterThanOrEqual(3)
  })

  it.each(Object.keys(keyTypes) as KeyType[])('are sealed with %s keys and opened again', async (type) => {
    const key = await generateKey(type, crypto)
    for (const seq of [0n, 1n, 2n ** 64n - 1n]) {
      const record = await openPeerRecord(await sealPeerRecord(key, { seq, addrs }), crypto)
      expect(record.seq).toBe(seq)
      expect(record.addrs.map(String)).toEqual(addrs.map(String))
      expect(record.peerId.equals(key.publicKey.peerId)).toBe(true)
    }
  })
})

describe('peer records', () => {
  const key = generateKey()
  const seal = (record: Parameters<typeof Record.encode>[0]): Promise<Uint8Array> =>
    sealEnvelope(key, peerRecordDomain, peerRecordType, Record.encode(record))
  const peerId = key.publicKey.peerId.bytes

  it('of another peer than the one who signs are refused', async () => {
    const other = generateKey().publicKey.peerId.bytes
    expect(await refusal(openPeerRecord(await seal({ peerId, seq: 1n })))).toBeUndefined()
    expect(await refusal(openPeerRecord(await seal({ peerId: other, seq: 1n })))).toBe('wrong-peer')
  })

  it('drop addresses that are empty, unreadable or of unknown protocols, and keep the others', async () => {
    const good = multiaddr('/ip4/192.0.2.1/tcp/1')
    const raws = [empty, good.bytes, Uint8Array.of(0xff, 0xff, 0x03, 1), Uint8Array.of(4, 1)]
    const addresses = [{}, ...raws.map((multiaddr) => ({ multiaddr }))]
    const record = await openPeerRecord(await seal({ peerId, seq: 1n, addresses }))
    expect(record.addrs.map(String)).toEqual([good.toString()])
    const nothing = good.decapsulate('ip4')
    const sealed = await sealPeerRecord(key, { seq: 1n, addrs: [nothing, good] })
    expect(Envelope.decode(sealed).payload).toEqual(
      Record.encode({ peerId, seq: 1n, addresses: [{ multiaddr: good.bytes }] }),
    )
  })

  it('with too many addresses, or one too long, are neither opened nor sealed', async () => {
    const addr = multiaddr('/ip4/192.0.2.1/tcp/1')
    const many = (count: number) => Array.from({ length: count }, () => ({ multiaddr: addr.bytes }))
    expect(await refusal(openPeerRecord(await seal({ peerId, addresses: many(maxRecordAddrs) })))).toBeUndefined()
    const over = await seal({ peerId, addresses: many(maxRecordAddrs + 1) })
    expect(await refusal(openPeerRecord(over))).toBe('oversized')
    const list = Array.from({ length: maxRecordAddrs + 1 }, () => addr)
    await expect(sealPeerRecord(key, { seq: 1n, addrs: list })).rejects.toThrow(RangeError)
    const long = await seal({ peerId, addresses: [{ multiaddr: new Uint8Array(1025) }] })
    expect(await refusal(openPeerRecord(long))).toBe('oversized')
  })

  it('are not looked into before the signature holds', async () => {
    const sealed = await sealEnvelope(key, peerRecordDomain, peerRecordType, fromUtf8('no record'))
    expect(await refusal(openPeerRecord(sealed))).toBe('bad-protobuf')
    const forged = sealed.with(sealed.length - 1, (sealed.at(-1) ?? 0) ^ 1)
    expect(await refusal(openPeerRecord(forged))).toBe('bad-signature')
  })

  it('without a peer id, or with none, are refused', async () => {
    expect(await refusal(openPeerRecord(await seal({ seq: 1n })))).toBe('bad-protobuf')
    expect(await refusal(openPeerRecord(await seal({ peerId: Uint8Array.of(1, 2, 3) })))).toBe('bad-peer-id')
  })
})

describe('envelopes', () => {
  const key = generateKey()
  const type = fromUtf8('/test')
  const payload = fromUtf8('payload')
  const sealed = sealEnvelope(key, 'domain', type, payload)

  it('give back who signed what', async () => {
    const { publicKey, payload: opened } = await openEnvelope(await sealed, 'domain', type)
    expect(opened).toEqual(payload)
    expect(publicKey.peerId.equals(key.publicKey.peerId)).toBe(true)
  })

  it('sign domain, type and payload, each behind its length', async () => {
    const text = concat([Uint8Array.of(6), fromUtf8('domain'), Uint8Array.of(5), type, Uint8Array.of(7), payload])
    const { signature } = Envelope.decode(await sealed)
    expect(await key.publicKey.verify(text, signature ?? empty)).toBe(true)
  })

  it('of another domain or type are refused', async () => {
    expect(await refusal(openEnvelope(await sealed, 'Domain', type))).toBe('bad-signature')
    expect(await refusal(openEnvelope(await sealed, 'domain', fromUtf8('/tesu')))).toBe('bad-message')
  })

  it('are refused with any byte changed', async () => {
    const good = await sealed
    for (let i = 0; i < good.length; i++) {
      const bad = good.with(i, (good[i] ?? 0) ^ 1)
      expect([i, (await refusal(openEnvelope(bad, 'domain', type))) ?? 'opened']).not.toEqual([i, 'opened'])
    }
  })

  it.each(['publicKey', 'payloadType', 'payload', 'signature'] as const)('without %s are refused', async (field) => {
    const parts = Envelope.decode(await sealed)
    const bad = Envelope.encode({ ...parts, [field]: undefined })
    expect(await refusal(openEnvelope(bad, 'domain', type))).toBe('bad-protobuf')
  })

  it('with keys and signatures that are none are refused', async () => {
    const parts = Envelope.decode(await sealed)
    const open = (change: Partial<typeof parts>): Promise<string | undefined> =>
      refusal(openEnvelope(Envelope.encode({ ...parts, ...change }), 'domain', type))
    expect(await open({ publicKey: Uint8Array.of(1, 2, 3) })).toBe('bad-key')
    expect(await open({ publicKey: generateKey().publicKey.encoded })).toBe('bad-signature')
    expect(await open({ signature: empty })).toBe('bad-signature')
    expect(await open({ signature: new Uint8Array(1025) })).toBe('oversized')
    expect(await open({ payloadType: new Uint8Array(65) })).toBe('oversized')
  })

  it('of more than 8 KiB are neither opened nor sealed', async () => {
    const room = maxEnvelopeBytes - (await sealEnvelope(key, 'domain', type, new Uint8Array(8000))).length + 8000
    const full = await sealEnvelope(key, 'domain', type, new Uint8Array(room))
    expect(full).toHaveLength(maxEnvelopeBytes)
    expect(await refusal(openEnvelope(full, 'domain', type))).toBeUndefined()
    expect(await refusal(openEnvelope(concat([full, Uint8Array.of(0)]), 'domain', type))).toBe('oversized')
    await expect(sealEnvelope(key, 'domain', type, new Uint8Array(room + 1))).rejects.toThrow(RangeError)
  })

  it('share no memory with what they were read from', async () => {
    const good = (await sealed).slice()
    const opened = await openEnvelope(good, 'domain', type)
    good.fill(0)
    expect(opened.payload).toEqual(payload)
  })

  it('are refused with a ProtocolError when they are random bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (random) => {
        for (const open of [openEnvelope(random, 'domain', type), openPeerRecord(random)]) {
          const error = await open.catch((thrown: unknown) => thrown)
          expect(errorCode(error)).toBeDefined()
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})
