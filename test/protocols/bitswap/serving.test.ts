/* What peers get from us, the hostile among them too. */
import { CID } from 'multiformats/cid'
import { describe, expect, it } from 'vitest'
import { concat } from '../../../src/bytes.ts'
import { fakeEnv, settle, systemEnv } from '../../../src/env.ts'
import { StorageError } from '../../../src/errors.ts'
import type { ProtocolStream } from '../../../src/host.ts'
import { encodeMessage, protocolIds } from '../../../src/protocols/bitswap/wire.ts'
import { prefixed } from '../../../src/stream.ts'
import { FakeHost, block, join, part } from './fake-host.ts'
import { Script, node, until, want } from './lab.ts'

describe('serving', () => {
  it('answers want-have with HAVE, with the block when it is small, and DONT_HAVE when asked', async () => {
    const [big, small, none, quiet] = [block(1, 5000), block(2, 1024), block(3), block(4)]
    const a = node(1, [big, small])
    const asker = new Script(2)
    join(a.host, asker.host)
    const have = { type: 'have' as const }
    await asker.say(a, {
      full: true,
      wants: [want(big, have), want(small, have), want(none), want(quiet, { sendDontHave: false })],
    })
    await until(() => asker.received.reduce((n, m) => n + m.blocks.length + m.presences.length, 0) === 3)
    const presences = asker.received.flatMap((m) => m.presences).map((p) => [CID.decode(p.cid).toString(), p.have])
    expect(Object.fromEntries(presences)).toEqual({ [big.cid.toString()]: true, [none.cid.toString()]: false })
    expect(asker.received.flatMap((m) => m.blocks).map((b) => b.data)).toEqual([small.bytes])
    expect(a.bitswap.wantlist(asker.host.peerId)).toHaveLength(2)
  })

  it('sends a block that comes into the store later to those who wait', async () => {
    const one = block(1)
    const a = node(1)
    const asker = new Script(2)
    join(a.host, asker.host)
    await asker.say(a, { wants: [want(one)] })
    await until(() => asker.received.length === 1)
    a.store.add(one.cid, one.bytes)
    a.bitswap.notify([one.cid])
    await until(() => asker.received.some((m) => m.blocks.length === 1))
    expect(a.bitswap.wantlist(asker.host.peerId)).toEqual([])
  })

  it('takes a block that cannot be read for one it does not have', async () => {
    const traces: string[] = []
    const a = node(
      1,
      [block(2)],
      {},
      systemEnv((what) => traces.push(what)),
    )
    const get = a.store.get.bind(a.store)
    a.store.get = (cid) =>
      cid.equals(block(1).cid) ? Promise.reject(new StorageError('corrupt', '/x', 'block is corrupt')) : get(cid)
    const b = node(2)
    join(a.host, b.host)
    await expect(b.bitswap.get(block(1).cid, { peers: [a.peer] })).rejects.toMatchObject({ code: 'not-found' })
    expect(traces).toContain('bitswap.store-error')
    expect(await b.bitswap.get(block(2).cid, { peers: [a.peer] })).toEqual(block(2).bytes)
  })

  it('fills messages with several blocks and stays below its size', async () => {
    const all = Array.from({ length: 40 }, (_, i) => block(i, 100_000))
    const a = node(1, all)
    const asker = new Script(2)
    join(a.host, asker.host)
    await asker.say(a, { wants: all.map((b) => want(b)) })
    await until(() => asker.received.reduce((n, m) => n + m.blocks.length, 0) === 40)
    const sizes = asker.received.map((m) => m.blocks.length * 100_000)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1024 * 1024)
    expect(asker.received.length).toBeLessThan(30)
  })

  it('lets go of a peer that does not read, and serves the others meanwhile', async () => {
    const env = fakeEnv()
    const all = Array.from({ length: 40 }, (_, i) => block(i, 1_000_000))
    const a = node(1, all, {}, env)
    const deaf = new FakeHost(2)
    const streams: ProtocolStream[] = []
    deaf.handle(protocolIds, (stream) => void streams.push(stream))
    const b = node(3, [], {}, env)
    join(a.host, deaf)
    join(a.host, b.host)
    const asking = await deaf.newStream(a.peer, protocolIds)
    await asking.write(...prefixed(...encodeMessage({ wants: all.map((x) => want(x)) }, '1.2')))
    await until(() => streams.length === 1)
    const getting = a.store.reads
    expect(getting).toBeLessThan(6)
    const first = all[0]
    if (first === undefined) throw new Error('no block')
    expect(await b.bitswap.get(first.cid, { peers: [a.peer] })).toEqual(first.bytes)
    expect(a.bitswap.stats().outstandingBytes).toBeGreaterThan(0)
    expect(a.bitswap.stats().outstandingBytes).toBeLessThan(4_000_000)
    await env.clock.advance(61_000)
    await until(() => a.bitswap.stats().peerWants === 0)
    expect(a.bitswap.stats().outstandingBytes).toBe(0)
  })

  it('forgets the wants of a peer that disconnects', async () => {
    const a = node(1)
    const asker = new Script(2)
    join(a.host, asker.host)
    await asker.say(a, { wants: Array.from({ length: 500 }, (_, i) => want(block(i))) })
    await until(() => a.bitswap.stats().peerWants === 500)
    part(a.host, asker.host)
    expect(a.bitswap.stats()).toMatchObject({ peerWants: 0, peers: 0, outstandingBytes: 0 })
    expect(a.bitswap.ledgers()).toEqual([])
  })
})

describe('hostile peers', () => {
  const garbage: [string, Uint8Array[]][] = [
    ['garbage', [Uint8Array.of(4, 255, 255, 255, 255)]],
    ['an announced length above 4 MiB', [Uint8Array.of(0x81, 0x80, 0x80, 0x02)]],
    ['a length that never ends', [new Uint8Array(20).fill(255)]],
    [
      'a CID above 168 bytes',
      prefixed(Uint8Array.of(10, 177, 1, 10, 174, 1, 10, 171, 1, ...new Uint8Array(171).fill(1))),
    ],
    [
      'a block above 2 MiB',
      prefixed(concat([Uint8Array.of(18, 0x81, 0x80, 0x80, 0x01), new Uint8Array(2 * 1024 * 1024 + 1)])),
    ],
  ]

  it.each(garbage)('ends the stream of a peer that sends %s, and no other', async (_, chunks) => {
    const one = block(1)
    const a = node(1, [one])
    const bad = new Script(2)
    const good = node(3)
    join(a.host, bad.host)
    join(a.host, good.host)
    await bad.raw(a, ...chunks).catch(() => {})
    await expect(bad.stream?.closed).resolves.toMatchObject({ by: 'remote' })
    expect(a.bitswap.ledgers().find((l) => l.peer === bad.host.peerId.toString())?.violation).toBeDefined()
    expect(await good.bitswap.get(one.cid, { peers: [a.peer] })).toEqual(one.bytes)
  })

  it('keeps 1,024 of a huge wantlist', async () => {
    const a = node(1)
    const bad = new Script(2)
    join(a.host, bad.host)
    const wants = Array.from({ length: 20_000 }, (_, i) => {
      const digest = new Uint8Array(32)
      new DataView(digest.buffer).setUint32(0, i)
      return {
        cid: concat([Uint8Array.of(1, 0x55, 0x12, 32), digest]),
        priority: 1,
        cancel: false,
        type: 'block' as const,
        sendDontHave: true,
      }
    })
    await bad.say(a, { wants })
    await until(() => a.bitswap.stats().peerWants > 0)
    expect(a.bitswap.stats().peerWants).toBe(1024)
    await until(() => bad.received.flatMap((m) => m.presences).length >= 1024)
    for (let i = 0; i < 5; i++) await bad.say(a, { wants })
    await until(() => bad.received.flatMap((m) => m.presences).length >= 2048)
    expect(a.bitswap.stats().peerWants).toBe(1024)
  })

  it('ignores wants for identity CIDs', async () => {
    const a = node(1)
    const bad = new Script(2)
    join(a.host, bad.host)
    await bad.say(a, {
      wants: [
        { cid: Uint8Array.of(1, 0x55, 0, 1, 9), priority: 1, cancel: false, type: 'block', sendDontHave: true },
        want(block(1)),
      ],
    })
    await until(() => bad.received.length > 0)
    expect(bad.received.flatMap((m) => m.presences)).toHaveLength(1)
  })

  it('drops blocks and presences that nobody asked for', async () => {
    const one = block(1)
    const a = node(1, [one])
    const bad = new Script(2)
    join(a.host, bad.host)
    await bad.say(a, { blocks: [{ cid: block(5).cid.bytes, data: block(5).bytes }] })
    await bad.say(a, {
      presences: Array.from({ length: 10_000 }, (_, i) => ({ cid: block(i, 10).cid.bytes, have: true })),
    })
    await until(() => a.bitswap.ledgers()[0]?.unasked === 10_001)
    await bad.say(a, { wants: [want(one)] })
    await until(() => bad.received.some((m) => m.blocks.length === 1))
  })

  it('completes with two honest peers and a liar', async () => {
    const all = Array.from({ length: 60 }, (_, i) => block(i))
    const a = node(1)
    const b = node(
      2,
      all.filter((_, i) => i % 2 === 0),
    )
    const c = node(
      3,
      all.filter((_, i) => i % 2 === 1),
    )
    const liar = new Script(4, protocolIds[0], (m, script) => {
      for (const w of m.wants) {
        if (w.cancel) continue
        void script
          .say(
            a,
            w.type === 'have'
              ? { presences: [{ cid: w.cid, have: true }] }
              : { blocks: [{ cid: w.cid, data: new Uint8Array(2000) }] },
          )
          .catch(() => {})
      }
    })
    for (const host of [liar.host, b.host, c.host]) join(a.host, host)
    const session = a.bitswap.session({ peers: [liar.host.peerId, b.peer, c.peer] })
    const got: Uint8Array[] = []
    for await (const { bytes } of session.getMany(all.map((x) => x.cid))) got.push(bytes)
    expect(got).toEqual(all.map((x) => x.bytes))
    expect(a.bitswap.ledgers().find((l) => l.peer === liar.host.peerId.toString())?.violation).toMatch(
      /nobody asked for/,
    )
    await expect(a.bitswap.get(block(99).cid, { peers: [liar.host.peerId] })).rejects.toMatchObject({
      code: 'bad-block',
    })
  })

  it('does not wait for ever for the rest of a message', async () => {
    const env = fakeEnv()
    const a = node(1, [], {}, env)
    const slow = new Script(2)
    join(a.host, slow.host)
    await slow.raw(a, Uint8Array.of(100, 1, 2, 3))
    await settle()
    expect(env.clock.waiting).toBe(1)
    await env.clock.advance(30_001)
    await expect(slow.stream?.closed).resolves.toMatchObject({ by: 'remote' })
    expect(env.clock.waiting).toBe(0)
  })
})
