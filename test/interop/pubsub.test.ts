/* GossipSub and floodsub with each other stack over TCP: every version, both ways, signed and not. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { LimitError } from '../../src/errors.ts'
import type { KeyType } from '../../src/peer/keys.ts'
import { signMessage } from '../../src/protocols/gossipsub/sign.ts'
import { encodeControl, floodsubId, idKey } from '../../src/protocols/gossipsub/wire.ts'
import { available, buildPeers, seededBytes, type Answer, type Peer, type PeerKind } from './peers.ts'
import {
  acquainted,
  base64,
  exchange,
  heartbeatIntervalMs,
  kinds,
  meshed,
  names,
  ours,
  scripted,
  theirs,
  upTo,
  type Ours,
} from './pubsub-lab.ts'

await buildPeers()
const have = available()

/** What the peer can be held to; the newest is what both have. */
const versions: Record<PeerKind, string[]> = {
  go: ['1.3.0', '1.2.0', '1.1.0', '1.0.0', 'floodsub'],
  js: ['1.2.0', '1.1.0', '1.0.0', 'floodsub'],
  rust: ['1.3.0', '1.1.0', '1.0.0'],
  py: ['1.3.0', '1.2.0', '1.1.0', '1.0.0', 'floodsub'],
}
const keyTypes: Record<PeerKind, [flag: string, ours: KeyType][]> = {
  go: [
    ['rsa', 'RSA'],
    ['secp256k1', 'Secp256k1'],
    ['ecdsa', 'ECDSA'],
  ],
  js: [
    ['rsa', 'RSA'],
    ['secp256k1', 'Secp256k1'],
  ],
  rust: [
    ['rsa', 'RSA'],
    ['secp256k1', 'Secp256k1'],
    ['ecdsa', 'ECDSA'],
  ],
  py: [
    ['rsa', 'RSA'],
    ['secp256k1', 'Secp256k1'],
  ],
}

const folder = mkdtempSync(join(tmpdir(), 'rhiza-pubsub-'))
afterAll(() => rmSync(folder, { recursive: true }))
/** rust-libp2p makes no RSA keys. */
function rsaFlags(): string[] {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const file = join(folder, 'rsa')
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'der' }))
  return ['--rsa-key', file]
}

/** Long enough for what would come, were it wrong, to be here. */
const settled = (): Promise<void> => sleep(3 * heartbeatIntervalMs)

/** The newest that both have; rust-libp2p knows 1.2.0 too, but can not be held to it. */
const spoken: Record<PeerKind, string[]> = {
  go: versions.go,
  js: versions.js,
  rust: ['1.3.0', '1.2.0', '1.1.0', '1.0.0', 'floodsub'],
  py: versions.py,
}
const idOf = (version: string): string => (version === 'floodsub' ? floodsubId : `/meshsub/${version}`)

/** Both streams speak this and nothing else. */
function speaks(us: Ours, version: string): void {
  const streams = us.node.connections().flatMap((connection) => connection.streams)
  const pubsub = streams.filter(({ protocol }) => protocol === floodsubId || protocol.startsWith('/meshsub/'))
  expect(new Set(pubsub.map(({ protocol }) => protocol))).toEqual(new Set([idOf(version)]))
  expect(new Set(pubsub.map(({ direction }) => direction))).toEqual(new Set(['inbound', 'outbound']))
}

for (const kind of kinds) {
  describe.skipIf(!have[kind])(`pubsub with ${names[kind]}`, () => {
    it.each(versions[kind])('exchanges messages, we dial, it speaks at most %s', async (version) => {
      await using us = await ours()
      await using them = await theirs(kind, ['--pubsub-version', version])
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await us.node.dial(them.addrs[0] ?? '')
      await acquainted(us, them, 't')
      if (version !== 'floodsub') await meshed(us, them, 't')
      speaks(us, version)
      await exchange(us, them, 't')
    })

    it.each(spoken[kind])('exchanges messages, it dials, we speak at most %s', async (version) => {
      await using us = await ours({ protocols: upTo(version) })
      await using them = await theirs(kind)
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await them.call('connect', { addr: us.addr })
      await acquainted(us, them, 't')
      if (version !== 'floodsub') await meshed(us, them, 't')
      speaks(us, version)
      await exchange(us, them, 't')
    })

    // The rust peer has no floodsub of its own.
    const unlessRust = kind === 'rust' ? (): void => {} : it
    unlessRust('exchanges messages where it has nothing but floodsub', async () => {
      await using us = await ours()
      await using them = await theirs(kind, ['--pubsub', 'flood'])
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await them.call('connect', { addr: us.addr })
      await acquainted(us, them, 't')
      await exchange(us, them, 't')
    })

    it('exchanges messages without signatures', async () => {
      await using us = await ours({ signing: 'StrictNoSign' })
      await using them = await theirs(kind, ['--pubsub-sign', 'none'])
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await us.node.dial(them.addrs[0] ?? '')
      await acquainted(us, them, 't')
      await meshed(us, them, 't')
      await exchange(us, them, 't', false)
      await exchange(us, them, 't', false)
    })

    it('keeps signed messages from who wants none, and the other way round', async () => {
      await using us = await ours({ signing: 'StrictNoSign' })
      await using them = await theirs(kind)
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await us.node.dial(them.addrs[0] ?? '')
      await acquainted(us, them, 't')
      await meshed(us, them, 't')
      await them.call('pub', { topic: 't', data: base64('signed') })
      await us.pubsub.publish('t', 'not signed')
      await settled()
      expect(us.got).toEqual([])
      expect(them.events.filter(({ event }) => event === 'message')).toEqual([])
    })

    it.each(keyTypes[kind])('checks the signatures of %s keys, and its own are checked', async (flag, key) => {
      await using us = await ours({ key })
      await using them = await theirs(kind, ['--key', flag, ...(kind === 'rust' && flag === 'rsa' ? rsaFlags() : [])])
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await us.node.dial(them.addrs[0] ?? '')
      await acquainted(us, them, 't')
      await exchange(us, them, 't')
    })

    it('exchanges messages of almost 1 MiB, and refuses to send more', async () => {
      await using us = await ours()
      await using them = await theirs(kind)
      us.follow('t')
      await them.call('sub', { topic: 't' })
      await us.node.dial(them.addrs[0] ?? '')
      await acquainted(us, them, 't')
      await meshed(us, them, 't')
      const most = 1024 * 1024 - 200
      const large = seededBytes(most, 3)
      await us.pubsub.publish('t', large)
      await them.event('message', ({ data }) => data === base64(large))
      // py-libp2p sends less than it reads.
      const back = seededBytes(kind === 'py' ? 1_000_000 : most, 4)
      await them.call('pub', { topic: 't', data: base64(back) })
      await expect.poll(() => us.got.length, { timeout: 10_000 }).toBe(1)
      expect(Buffer.compare(us.got[0]?.data ?? new Uint8Array(), back)).toBe(0)
      // With topic and signature it has more: go, rust and py would end the stream.
      await expect(us.pubsub.publish('t', new Uint8Array(1024 * 1024 - 20))).rejects.toThrow(LimitError)
      // Some refuse themselves, of some we read no more.
      await them.call('pub', { topic: 't', data: base64(new Uint8Array(1_200_000)) }).catch(() => {})
      await settled()
      expect(us.got).toHaveLength(1)
    })

    it('says by IDONTWANT that it has a large message, before it forwards it', async () => {
      await using author = await scripted(upTo('1.2.0'))
      await using member = await scripted(upTo('1.2.0'))
      await using them = await theirs(kind)
      await them.call('sub', { topic: 't' })
      for (const one of [author, member]) {
        await one.node.dial(them.addrs[0] ?? '')
        await one.say(them, { subscriptions: [{ subscribe: true, topic: 't' }] })
        await one.say(them, { control: encodeControl({ graft: ['t'] }) })
      }
      await expect.poll(async () => ((await them.call('mesh', { topic: 't' }))['peers'] as string[]).length).toBe(2)
      const message = await signMessage(author.privateKey, {
        topic: 't',
        data: seededBytes(4_000, 1),
        seqno: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1),
      })
      await author.say(them, { publish: [message.raw] })
      const id = idKey(message.from ?? new Uint8Array()) + idKey(message.seqno ?? new Uint8Array())
      await member.hears('IDONTWANT', ({ idontwant }) => idontwant.includes(id))
      await member.hears('the message', ({ publish }) => publish.length > 0)
    })

    it('spares us a message that we said IDONTWANT of', async () => {
      // The author reaches us and other, who both reach them. We check for long: what they send to us meanwhile they send
      // for want of our IDONTWANT. py-libp2p forgets that at each heartbeat.
      await using author = await ours()
      await using us = await ours()
      await using other = await ours({ idontwantThresholdBytes: 1_000_000 })
      await using them = await theirs(kind, [], 5_000)
      for (const one of [author, us, other]) one.follow('t')
      us.pubsub.addValidator('t', () => sleep(1_000, 'accept' as const))
      other.pubsub.addValidator('t', () => sleep(200, 'accept' as const))
      await them.call('sub', { topic: 't' })
      for (const one of [us, other]) {
        await one.node.dial(them.addrs[0] ?? '')
        await author.node.dial(one.addr)
        await meshed(one, them, 't')
        await expect.poll(() => one.pubsub.mesh('t').length).toBe(2)
      }
      const send = async (size: number): Promise<number> => {
        const before = us.pubsub.stats().duplicates
        const data = seededBytes(size, size)
        await author.pubsub.publish('t', data)
        await them.event('message', (event) => event['data'] === base64(data))
        await expect.poll(() => us.got.some((message) => message.data.length === size), { timeout: 5_000 }).toBe(true)
        return us.pubsub.stats().duplicates - before
      }
      expect(await send(500)).toBe(1)
      expect(await send(4_000)).toBe(0)
    })
  })
}

describe.skipIf(!have.go)('pubsub with go-libp2p, which tells what it hears', () => {
  it('hears IDONTWANT of a large message before the message, and no message of which it said so itself', async () => {
    await using author = await scripted(upTo('1.2.0'))
    await using us = await ours()
    await using them = await theirs('go', ['--pubsub-trace'], 5_000)
    us.follow('t')
    us.pubsub.addValidator('t', () => sleep(500, 'accept' as const))
    await them.call('sub', { topic: 't' })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, 't')
    for (const addr of [us.addr, them.addrs[0] ?? '']) await author.node.dial(addr)
    for (const one of [us, them]) await author.say(one, { subscriptions: [{ subscribe: true, topic: 't' }] })
    const ids: string[] = []
    const send = async (to: readonly (Ours | Peer)[]): Promise<void> => {
      const seqno = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, ids.length)
      const message = await signMessage(author.privateKey, { topic: 't', data: seededBytes(4_000, 1), seqno })
      ids.push(Buffer.concat([message.from ?? seqno, seqno]).toString('hex'))
      for (const one of to) {
        await author.say(one, { publish: [message.raw] })
        await sleep(100)
      }
    }
    const fromUs = (what: string): unknown[] =>
      them.events.filter((event) => event['event'] === 'rpcReceived' && event['peer'] === us.peerId && what in event)
    await send([us])
    await them.event('message')
    expect(fromUs('idontwant')).toMatchObject([{ idontwant: [{ ids: [ids[0]] }] }])
    const [warned, sent] = ['idontwant', 'publish'].map((what) => them.events.indexOf(fromUs(what)[0] as Answer))
    expect(warned).toBeLessThan(sent ?? 0)

    // First we hear of it, then they do: neither sends it to the other.
    await send([us, them])
    await them.event('rpcSent', ({ peer, idontwant }) => peer === us.peerId && idontwant !== undefined)
    await expect.poll(() => us.got.length).toBe(2)
    await settled()
    expect(fromUs('publish')).toHaveLength(1)
    expect(them.events.filter(({ event }) => event === 'duplicate')).toEqual([])
    expect(us.pubsub.stats().duplicates).toBe(0)
  })

  it.each(['we dial', 'it dials'])(
    'hears our extensions, once, in the first RPC, and then the test extension: %s',
    async (how) => {
      await using us = await ours({ testExtension: true })
      await using them = await theirs('go', ['--pubsub-trace', '--pubsub-test-extension'])
      us.follow('t')
      await them.call('sub', { topic: 't' })
      if (how === 'we dial') await us.node.dial(them.addrs[0] ?? '')
      else await them.call('connect', { addr: us.addr })
      await meshed(us, them, 't')
      await them.event('testExtension', ({ peer }) => peer === us.peerId)
      await exchange(us, them, 't')
      const received = them.events.filter(({ event }) => event === 'rpcReceived')
      expect(received[0]).toMatchObject({ extensions: { testExtension: true } })
      expect(received.slice(1).filter(({ extensions }) => extensions)).toEqual([])
      expect(us.pubsub.scores().get(them.peerId)?.p7).toBe(0)
    },
  )

  it('hears no extension, and no word of parts, below 1.3.0', async () => {
    await using us = await ours({ testExtension: true, protocols: upTo('1.2.0') })
    await using them = await theirs('go', ['--pubsub-trace', '--pubsub-test-extension'])
    us.follow('t')
    await them.call('sub', { topic: 't' })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, 't')
    await exchange(us, them, 't')
    expect(them.events.filter(({ event, extensions }) => event === 'rpcReceived' && extensions)).toEqual([])
  })

  it('scores us well: nothing we say breaks a rule that it knows', async () => {
    await using us = await ours()
    await using them = await theirs('go', ['--pubsub-score'])
    us.follow('t')
    await them.call('sub', { topic: 't' })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, 't')
    for (let i = 0; i < 20; i++) await us.pubsub.publish('t', `message ${i}`)
    await them.event('message', ({ data }) => data === base64('message 19'))
    us.pubsub.unsubscribe('t')
    us.follow('t')
    await exchange(us, them, 't')
    const score = async (): Promise<unknown> => (await them.call('score', { peer: us.peerId }))['behaviourPenalty']
    await settled()
    expect(await score()).toBe(0)
  })
})

describe.skipIf(!have.go)('pubsub with go-libp2p, which scores, and is scored', () => {
  it('graylists us for invalid messages, and reads nothing any more', async () => {
    await using us = await ours()
    await using them = await theirs('go', ['--pubsub-score'])
    us.follow('t')
    await them.call('sub', { topic: 't' })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, 't')
    for (let i = 0; i < 4; i++) await us.pubsub.publish('t', `reject:${i}`)
    await expect.poll(async () => (await them.call('score', { peer: us.peerId }))['score']).toBeLessThan(-40)
    // It prunes us, and we do not come back at once.
    await expect.poll(() => us.pubsub.mesh('t')).toEqual([])
    await us.pubsub.publish('t', 'unread')
    await settled()
    expect(them.events.filter(({ event }) => event === 'message')).toEqual([])
  })

  it('is graylisted by us for the same', async () => {
    const topic = { invalidMessageDeliveriesWeight: -5, invalidMessageDeliveriesDecay: 0.99 }
    await using us = await ours({ score: { topics: { t: topic } } })
    await using them = await theirs('go')
    us.follow('t')
    us.pubsub.addValidator('t', ({ data }) => (data[0] === 0x72 ? 'reject' : 'accept'))
    await them.call('sub', { topic: 't' })
    await us.node.dial(them.addrs[0] ?? '')
    await meshed(us, them, 't')
    for (let i = 0; i < 5; i++) await them.call('pub', { topic: 't', data: base64(`reject:${i}`) })
    await expect.poll(() => us.pubsub.scores().get(them.peerId)?.score).toBeLessThan(-80)
    await expect.poll(() => us.pubsub.mesh('t')).toEqual([])
    await them.call('pub', { topic: 't', data: base64('unread') })
    await settled()
    expect(us.got).toEqual([])
  })
})
