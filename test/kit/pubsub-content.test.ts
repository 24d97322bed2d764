/* Who has what, told over a topic. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { fakeEnv } from '../../src/env.ts'
import { ProtocolError } from '../../src/errors.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { createContentTopic, decodeAnnouncement, type ContentTopic } from '../../src/kit/pubsub-content.ts'
import { createNode } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { createGossipsub, type Gossipsub, type Validator } from '../../src/protocols/gossipsub/gossipsub.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const cid = cidOf(codec.raw, fromUtf8('announced'))
const { peerId } = generateKey().publicKey

const someone = (): PeerId => generateKey().publicKey.peerId
const some = (n: number): CID => cidOf(codec.raw, fromUtf8(String(n)))

const encoded = (fields: Record<string, unknown>): Uint8Array =>
  fromUtf8(JSON.stringify({ cid: String(cid), provider: String(peerId), timestamp: 1_700_000_000.5, ...fields }))

describe('a content announcement', () => {
  it('is the JSON of ipfs_kit_py, with all that else is in it', () => {
    const at = '/ip4/192.0.2.7/tcp/4001'
    const other = generateKey().publicKey.peerId
    const data = encoded({
      addrs: [`${at}/p2p/${peerId}`, at, 'nonsense', `${at}/p2p/${other}`, 7],
      size: 12,
      type: 'text/plain',
      tags: ['a'],
    })
    const read = decodeAnnouncement({ data, from: peerId })
    expect(read).toMatchObject({
      timestamp: 1_700_000_000_500,
      size: 12,
      type: 'text/plain',
      metadata: { tags: ['a'] },
    })
    expect([String(read.cid), String(read.provider), read.addrs.map(String)]).toEqual([
      String(cid),
      String(peerId),
      [at, at],
    ])
  })

  it.each([
    ['no JSON', fromUtf8('{')],
    ['no object', fromUtf8('[]')],
    ['no CID', encoded({ cid: 'nonsense' })],
    ['no provider', encoded({ provider: 7 })],
    ['no time', encoded({ timestamp: '7' })],
    ['a size that is none', encoded({ size: -1 })],
    ['a type that is none', encoded({ type: 7 })],
    ['addresses without end', encoded({ addrs: Array.from({ length: 17 }, () => '/ip4/192.0.2.7/tcp/1') })],
    ['too much of it', encoded({ more: 'x'.repeat(4_096) })],
    ['bytes that are no text', Uint8Array.of(0xff)],
  ])('is refused: %s', (_what, data) => {
    expect(() => decodeAnnouncement({ data, from: peerId })).toThrow(ProtocolError)
  })

  it('is refused from anybody else', () => {
    const from = generateKey().publicKey.peerId
    expect(() => decodeAnnouncement({ data: encoded({}), from })).toThrow(/want it from itself/)
  })
})

interface Heard {
  env: ReturnType<typeof fakeEnv>
  content: ContentTopic
  /** What the validator says; accepted ones are handed on. */
  say: (provider: PeerId, what: CID, ageMs?: number) => unknown
  found: (what: CID) => Promise<string[]>
}

function hearing(options: Parameters<typeof createContentTopic>[2] = {}): Heard {
  const env = fakeEnv()
  let validator: Validator | undefined
  let handler: ((message: never) => unknown) | undefined
  const pubsub = {
    addValidator: (_topic: string, given: Validator) => {
      validator = given
      return () => (validator = undefined)
    },
    subscribe: (topic: string, given: (message: never) => unknown) => {
      handler = given
      return { topic, unsubscribe: () => (handler = undefined) }
    },
  } as unknown as Gossipsub
  const content = createContentTopic(pubsub, { peerId, env, addrs: () => [] }, options)
  content.start()
  return {
    env,
    content,
    say(provider, what, ageMs = 0) {
      const timestamp = (env.clock.wallTime() - ageMs) / 1_000
      const message = { data: encoded({ provider: String(provider), cid: String(what), timestamp }), from: provider }
      const verdict = validator?.(message as never, {} as never)
      if (verdict === 'accept') handler?.(message as never)
      return verdict
    },
    async found(what) {
      const out: string[] = []
      for await (const { peer } of content.findProviders(what)) out.push(String(peer))
      return out
    },
  }
}

describe('announcements that were heard', () => {
  it('answer who has it, the latest first, each once, for so long', async () => {
    const { say, found, env, content } = hearing({ ttlMs: 60_000 })
    const [a, b] = [someone(), someone()]
    for (const one of [a, b, a]) expect(say(one, cid)).toBe('accept')
    expect(await found(cid)).toEqual([String(a), String(b)])
    // The same block by its other name.
    const other = cidOf(codec.dagPb, fromUtf8('announced'), 0)
    expect(await found(other)).toEqual([String(a), String(b)])
    expect(await found(some(1))).toEqual([])
    await env.clock.advance(30_000)
    say(b, cid)
    await env.clock.advance(30_000)
    expect(await found(cid)).toEqual([String(b)])
    content.stop()
    expect(say(a, cid)).toBeUndefined()
  })

  it('are old ones, or of the future, neither kept nor handed on, and nobody is to blame', async () => {
    const { say, found } = hearing({ ttlMs: 60_000 })
    expect(say(someone(), cid, 60_000 + 700_000)).toBe('ignore')
    expect(say(someone(), cid, -700_000)).toBe('ignore')
    expect(await found(cid)).toEqual([])
  })

  it('are bounded, and of one provider more than of all', async () => {
    const { say, found } = hearing({ maxAnnouncements: 3, maxPerProvider: 2 })
    const [a, b] = [someone(), someone()]
    say(b, some(0))
    for (const n of [1, 2, 3]) say(a, some(n))
    expect(await Promise.all([0, 1, 2, 3].map(async (n) => (await found(some(n))).length))).toEqual([1, 0, 1, 1])
    for (const n of [4, 5, 6]) say(someone(), some(n))
    expect(await Promise.all([0, 2, 3, 4, 5, 6].map(async (n) => (await found(some(n))).length))).toEqual([
      0, 0, 0, 1, 1, 1,
    ])
  })

  it('are told with all that is said of them, to those who listen', async () => {
    const network = new MemoryNetwork()
    const contents: ContentTopic[] = []
    const addrs: string[][] = []
    for (let i = 0; i < 2; i++) {
      const privateKey = generateKey()
      const node = await createNode({ privateKey, transports: [memory(network)], listen: ['/memory/0'] })
      const pubsub = createGossipsub(node, { privateKey, heartbeatIntervalMs: 100 })
      onTestFinished(async () => {
        await pubsub.stop()
        await node.stop()
      })
      await node.start()
      pubsub.start()
      const content = createContentTopic(pubsub, node)
      content.start()
      contents.push(content)
      if (addrs[0] !== undefined) await node.dial(addrs[0])
      addrs.push(node.addrs().map(String))
    }
    const [a, b] = contents as [ContentTopic, ContentTopic]
    const heard = new Promise((resolve) => void b.on('announced', resolve))
    await expect
      .poll(
        async () => (await a.announce(cid, { size: 9, metadata: { tags: ['x'] } }).catch(() => undefined))?.recipients,
      )
      .toHaveLength(1)
    expect(await heard).toMatchObject({ size: 9, metadata: { tags: ['x'] }, type: undefined })
    await expect(a.announce(cid, { metadata: { text: 'x'.repeat(5_000) } })).rejects.toThrow(RangeError)
  })
})
