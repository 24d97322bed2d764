/* Messages and frames that are not what they should be, against a live node. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it, vi } from 'vitest'
import { concat, fromBigInt, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { increasingSeqno } from '../../src/protocols/gossipsub/gossipsub.ts'
import { signMessage } from '../../src/protocols/gossipsub/sign.ts'
import { encodeMessage, type MessageFields, type WireMessage } from '../../src/protocols/gossipsub/wire.ts'
import { encodeVarint } from '../../src/varint.ts'
import { patience, secondsUntil, watchProcess } from './hostile.ts'
import { field, framed, hostile, invalidCosts, mebi, net, topic, type Hostile, type Net } from './gossipsub-net.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

const scored = { score: { topics: { [topic]: invalidCosts } } }
const texts = (v: Net): string[] => v.got.map(({ data }) => toUtf8(data))
const invalid = (v: Net, { node }: Hostile): number =>
  v.gossip.scores().get(String(node.peerId))?.topics[topic]?.invalidMessageDeliveries ?? 0

function changed(message: WireMessage, fields: Partial<MessageFields>): { raw: Uint8Array } {
  const { from, data, seqno, topic: name, signature, key } = { ...message, ...fields }
  return { raw: encodeMessage({ from, data, seqno, topic: name, signature, key }) }
}

/** A signed message, whatever its fields. */
async function forcedBy(key: PrivateKey, fields: Omit<MessageFields, 'signature'>): Promise<{ raw: Uint8Array }> {
  const { from, data, seqno, topic: name } = fields
  const bytes = concat([fromUtf8('libp2p-pubsub:'), encodeMessage({ from, data, seqno, topic: name })])
  return { raw: encodeMessage({ ...fields, signature: await key.sign(bytes) }) }
}

/** All that was sent before has been read. */
async function read(v: Net, one: Hostile): Promise<void> {
  const text = `last ${v.got.length}`
  await one.publish(await one.message(text))
  await expect.poll(() => texts(v).at(-1), patience).toBe(text)
}

describe('a message', () => {
  const rsa = generateKey('RSA')
  const cases: [what: string, blame: number, make: (a: Hostile, good: WireMessage) => unknown][] = [
    ['with a signature of zeros', 1, (_, good) => changed(good, { signature: new Uint8Array(64) })],
    ['with a signature of no bytes', 1, (_, good) => changed(good, { signature: new Uint8Array(0) })],
    ['with a signature of 100,000 bytes', 1, (_, good) => changed(good, { signature: new Uint8Array(100_000) })],
    ['with other data than was signed', 1, (_, good) => changed(good, { data: fromUtf8('other') })],
    ['without signature', 1, (_, good) => changed(good, { signature: undefined })],
    ['without author', 1, (_, good) => changed(good, { from: undefined })],
    ['of another author', 1, (_, good) => changed(good, { from: generateKey().publicKey.peerId.bytes })],
    ["with another peer's key", 1, (_, good) => changed(good, { key: generateKey().publicKey.encoded })],
    [
      'of an author whose id is a hash, without the key',
      1,
      async (_, good) => changed(good, { from: (await rsa).publicKey.peerId.bytes }),
    ],
    [
      'signed with a key that is not that of its RSA author',
      1,
      async (a, good) => {
        const { peerId, encoded } = (await rsa).publicKey
        return forcedBy(a.key, { ...good, from: peerId.bytes, key: encoded })
      },
    ],
    // What no stack can read costs its sender nothing: one that can may have forwarded it.
    ['of an author that is no peer id', 0, (_, good) => changed(good, { from: new Uint8Array(2_000) })],
    ['with an RSA key of 16,384 bits', 0, (_, good) => changed(good, { key: hugeRsa() })],
    ['with an RSA key of a megabyte', 0, (_, good) => changed(good, { key: new Uint8Array(900_000) })],
    ['without sequence number', 0, (a, good) => forcedBy(a.key, { ...good, seqno: undefined })],
    ['with one of no bytes', 0, (a, good) => forcedBy(a.key, { ...good, seqno: new Uint8Array(0) })],
    ['with one of 7 bytes', 0, (a, good) => forcedBy(a.key, { ...good, seqno: new Uint8Array(7) })],
    ['with one of 9 bytes', 0, (a, good) => forcedBy(a.key, { ...good, seqno: new Uint8Array(9) })],
    ['with one of 100,000 bytes', 0, (a, good) => forcedBy(a.key, { ...good, seqno: new Uint8Array(100_000) })],
  ]
  it('that is forged is refused by its score part, whatever is wrong with it, and never goes on', async () => {
    const v = await net({ score: { topics: { [topic]: { ...invalidCosts, invalidMessageDeliveriesWeight: -0.01 } } } })
    const a = await hostile(v)
    let before = 0
    for (const [what, blame, make] of cases) {
      const good = await a.message('good', 1_000)
      await a.publish((await make(a, good)) as { raw: Uint8Array })
      await read(v, a)
      await expect.poll(() => invalid(v, a) - before, { ...patience, message: what }).toBe(blame)
      before += blame
    }
    expect(texts(v).every((text) => text.startsWith('last'))).toBe(true)
    // The honest got what is good, and blame nobody.
    await v.talk()
    await v.expectUnharmed(a)
  })

  it('larger than a message may be is refused, in a frame that is not too large', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    await a.publish(await a.message(new Uint8Array(mebi + 1)))
    await read(v, a)
    expect(invalid(v, a)).toBe(1)
    expect(v.got).toHaveLength(1)
    await v.expectUnharmed(a)
  })

  it('that claims to be ours is blamed on who sends it; an echo of one that is ours is not', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    await v.gossip.publish(topic, 'ours')
    await expect.poll(() => a.heard.some(({ publish }) => publish.length > 0), patience).toBe(true)
    const [ours] = a.heard.flatMap(({ publish }) => publish)
    for (let i = 0; i < 10; i++) await a.publish(ours as WireMessage)
    await read(v, a)
    expect(invalid(v, a)).toBe(0)
    const seqno = fromBigInt(1n, 8)
    await a.publish(changed(ours as WireMessage, { seqno }))
    await read(v, a)
    expect(invalid(v, a)).toBe(1)
    expect(v.got).toHaveLength(2)
    await v.expectUnharmed(a)
  })

  it('of ours that comes back after the duplicate window is not ours to hear, and blamed on who kept it', async () => {
    const v = await net({ ...scored, seenTtlMs: 4_000 })
    const a = await hostile(v)
    await v.gossip.publish(topic, 'ours')
    await expect.poll(() => a.heard.some(({ publish }) => publish.length > 0), patience).toBe(true)
    const [ours] = a.heard.flatMap(({ publish }) => publish)
    await v.beats(6)
    await a.publish(ours as WireMessage)
    await read(v, a)
    expect(texts(v)).toEqual(['last 0'])
    expect(invalid(v, a)).toBe(1)
    await v.expectUnharmed(a)
  })

  it('with a field of StrictSign is refused with StrictNoSign, the same content is one message', async () => {
    const v = await net({ ...scored, signing: 'StrictNoSign' })
    const a = await hostile(v)
    const data = fromUtf8('unsigned')
    const empty = new Uint8Array(0)
    for (const fields of [{ from: empty }, { seqno: empty }, { signature: empty }, { key: empty }]) {
      await a.publish({ raw: encodeMessage({ topic, data, ...fields }) })
    }
    await a.publish(await a.message('signed'))
    await expect.poll(() => invalid(v, a), patience).toBe(5)
    for (let i = 0; i < 10; i++) await a.publish({ raw: encodeMessage({ topic, data }) })
    await expect.poll(() => texts(v), patience).toEqual(['unsigned'])
    await v.expectUnharmed(a)
  })

  it('is delivered once, however often its number is used', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    const first = await a.message('first', 7)
    for (let i = 0; i < 5; i++) await a.publish(first, await a.message(`again ${i}`, 7))
    await read(v, a)
    // Both are signed: the one that is checked first.
    expect(texts(v)).toHaveLength(2)
    expect(['first', 'again 0']).toContain(texts(v)[0])
    expect(invalid(v, a)).toBe(0)
    await v.expectUnharmed(a)
  })

  it.each([false, true])(
    'is played back after the duplicate window; a check of sequence numbers: %s',
    async (checked) => {
      const v = await net({ seenTtlMs: 4_000 })
      if (checked) v.gossip.addValidator(topic, increasingSeqno({ clock: v.clock, windowMs: 4_000 }))
      const a = await hostile(v)
      const old = await a.message('old', 7)
      await a.publish(old)
      await expect.poll(() => texts(v), patience).toEqual(['old'])
      await v.beats(6)
      await a.publish(old)
      // Two that may overtake each other while they are checked.
      await a.publish(await a.message('new', 9), await a.message('newer', 8))
      const all = ['new', 'newer', 'old', ...(checked ? [] : ['old'])]
      await expect.poll(() => texts(v).toSorted(), patience).toEqual(all)
      await v.expectUnharmed(a)
    },
  )

  it('that is genuine arrives, though a hundred forgeries with its id came first', async () => {
    const v = await net(scored)
    const author = await hostile(v)
    const a = await hostile(v)
    for (let round = 0; round < 5; round++) {
      const text = `genuine ${round}`.padEnd(2_000)
      const genuine = await author.message(text)
      const forge = (i: number): { raw: Uint8Array } => changed(genuine, { data: randomBytes(1_500 + i) })
      await a.publish(...Array.from({ length: 100 }, (_, i) => forge(i)))
      const more = a.publish(...Array.from({ length: 100 }, (_, i) => forge(100 + i)))
      await author.publish(genuine)
      await more
      await expect.poll(() => texts(v).filter((one) => one === text), patience).toHaveLength(1)
      await v.talk(2)
    }
    // The author was never told that we have it before we had it.
    expect(author.heard.flatMap(({ idontwant }) => idontwant)).toEqual([])
    expect(invalid(v, author)).toBe(0)
    expect(v.scoreOf(a)).toBeLessThan(-80)
    await v.expectUnharmed(a, author)
  })

  it('with a bad signature, thousands of them: misbehaviour where the topic is not scored', async () => {
    const v = await net()
    const a = await hostile(v)
    const good = await a.message('x')
    for (let i = 0; i < 30; i++) {
      const forged = Array.from({ length: 100 }, (_, n) => changed(good, { seqno: fromBigInt(BigInt(i * 100 + n), 8) }))
      await a.publish(...forged)
      await v.talk(1)
    }
    await expect.poll(() => v.scoreOf(a), patience).toBeLessThan(-80)
    const { rejected } = v.gossip.stats()
    await a.publish(
      ...Array.from({ length: 100 }, (_, n) => changed(good, { seqno: fromBigInt(BigInt(n + 9_000), 8) })),
    )
    await v.talk()
    expect(v.gossip.stats().rejected).toBe(rejected)
    await v.expectUnharmed(a)
  })

  it.each([
    ['above every threshold: it is delivered and forwarded', 0, true],
    ['below that of gossip and of publishing: the same', -60, true],
    ['below the graylist: nothing is read', -90, false],
  ])('that is valid, thousands of them, %s', async (_what, score, taken) => {
    let bad = ''
    const v = await net({ score: { appSpecificScore: (peer) => (peer === bad ? score : 0) } })
    const a = await hostile(v)
    bad = String(a.node.peerId)
    for (let i = 0; i < 20; i++) {
      await a.publish(...(await Promise.all(Array.from({ length: 100 }, (_, n) => a.message(`spam ${i} ${n}`)))))
      await v.talk(2)
    }
    if (taken) await expect.poll(() => v.got.length, patience).toBe(2_000)
    await v.talk()
    expect(v.got.length).toBe(taken ? 2_000 : 0)
    expect(v.gossip.stats().rejected).toBe(0)
    await v.expectUnharmed(a)
  })
})

describe('a frame', () => {
  it.each([
    ['larger than it may be', encodeVarint(2 * mebi), 'oversized'],
    ['of 2^53-1 bytes', encodeVarint(Number.MAX_SAFE_INTEGER), 'oversized'],
    ['with a length that does not end', new Uint8Array(20).fill(0xff), 'bad-varint'],
    ['of garbage', framed(new Uint8Array(1_000).fill(0xff)), 'bad-protobuf'],
    ['with a group', framed(Uint8Array.of(0x0b, 0x0c)), 'bad-protobuf'],
    ['with groups in groups', framed(new Uint8Array(100_000).fill(0x0b)), 'bad-protobuf'],
    ['with a control that is longer than it', framed(Uint8Array.of(0x1a, 0x7f, 0x0a)), 'bad-protobuf'],
    ['with a message that is longer than it', framed(Uint8Array.of(0x12, 0x7f, 0x0a)), 'bad-protobuf'],
    ['with a message that is a number', framed(Uint8Array.of(0x10, 0x01)), 'bad-protobuf'],
    ['with a field number of 2^50', framed(encodeVarint(2 ** 52), Uint8Array.of(0)), 'bad-protobuf'],
  ])('%s ends its stream with its own error, and a new one goes on', async (_what, bytes, code) => {
    const v = await net(scored)
    const a = await hostile(v)
    const stream = await a.stream()
    await a.write(bytes)
    await stream.closed
    expect([...v.codes('gossipsub.violation'), ...v.codes('gossipsub.stream-lost')]).toContain(code)
    await a.stream()
    await read(v, a)
    await v.expectUnharmed(a)
  })

  it('that is nested as deep as there is room is passed over', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    let deep: Uint8Array = new Uint8Array(0)
    for (let i = 0; i < 2_000; i++) deep = field(99, deep)
    await a.write(framed(field(99, deep), field(3, deep), field(2, deep)))
    await read(v, a)
    await v.expectUnharmed(a)
  })

  it('of 500,000 empty messages: 4,096 are looked at', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    const empty = new Uint8Array(1_000_000)
    for (let i = 0; i < empty.length; i += 2) empty[i] = 0x12
    for (let i = 0; i < 5; i++) await a.write(framed(empty))
    await v.talk()
    await read(v, a)
    await v.expectUnharmed(a)
  })

  it('with a message that nobody can read: it is left out, for an honest peer may have forwarded it', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    const bad = [
      Uint8Array.of(0x0b, 0x0c),
      Uint8Array.of(0xa3, 0x06, 0xa4, 0x06),
      Uint8Array.of(0x08, 0x01),
      Uint8Array.of(0x0a, 0x7f),
      field(4, Uint8Array.of(0xff)),
      field(4, 'x'.repeat(1_025)),
      Uint8Array.of(0),
    ]
    const good = await a.message('good')
    const tail = await a.message('behind it')
    await a.publish(good, ...bad.map((raw) => ({ raw })), { raw: concat([tail.raw, Uint8Array.of(0x9b, 0x06)]) }, tail)
    await expect.poll(() => texts(v).toSorted(), patience).toEqual(['behind it', 'good'])
    expect(v.codes('gossipsub.violation')).toEqual([])
    expect(v.scoreOf(a)).toBe(0)
    await v.expectUnharmed(a)
  })

  it('that comes a byte at a time is read', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    const bytes = framed(field(2, (await a.message('slowly')).raw))
    for (const byte of bytes) await a.write(Uint8Array.of(byte))
    await expect.poll(() => texts(v), patience).toEqual(['slowly'])
    await v.expectUnharmed(a)
  })

  it.each([
    ['its first byte', Uint8Array.of(0xff)],
    ['its length', encodeVarint(1_000_000)],
    ['half of it', concat([encodeVarint(1_000_000), new Uint8Array(500_000)])],
  ])('that stays away after %s is given up in 30 s', async (_what, bytes) => {
    const v = await net(scored)
    const a = await hostile(v)
    const stream = await a.stream()
    await a.write(bytes)
    // It has arrived.
    await v.talk()
    const seconds = await secondsUntil(v, stream.closed)
    expect(seconds).toBeLessThanOrEqual(31)
    expect(v.codes('gossipsub.stream-lost')).toContain('timeout')
    await v.expectUnharmed(a)
  })

  it('that is cut off ends its stream as truncated', async () => {
    const v = await net(scored)
    const a = await hostile(v)
    const stream = await a.stream()
    await a.write(framed(new Uint8Array(100)).subarray(0, 50))
    await stream.closeWrite()
    await expect.poll(() => v.codes('gossipsub.stream-lost'), patience).toContain('truncated')
    await v.expectUnharmed(a)
  })
})

const der = (tag: number, content: Uint8Array): Uint8Array =>
  concat([Uint8Array.of(tag, 0x82, content.length >> 8, content.length & 255), content])

/** The key field of an RSA key whose modulus has 16,384 bits. */
function hugeRsa(): Uint8Array {
  const modulus = der(2, concat([Uint8Array.of(0), new Uint8Array(2_048).fill(0xff)]))
  const key = der(0x30, concat([modulus, Uint8Array.of(2, 3, 1, 0, 1)]))
  const algorithm = Uint8Array.of(0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0)
  const spki = der(0x30, concat([algorithm, der(3, concat([Uint8Array.of(0), key]))]))
  return concat([Uint8Array.of(8, 0), field(2, spki)])
}

it('signed by us is as the others sign it', async () => {
  const key = generateKey()
  const fields = { topic, data: fromUtf8('x'), seqno: fromBigInt(1n, 8) }
  const forced = await forcedBy(key, { from: key.publicKey.peerId.bytes, key: undefined, ...fields })
  expect(forced.raw).toEqual((await signMessage(key, fields)).raw)
})
