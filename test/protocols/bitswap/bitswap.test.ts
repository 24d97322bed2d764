import { CID } from 'multiformats/cid'
import { create } from 'multiformats/hashes/digest'
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { fakeEnv, settle } from '../../../src/env.ts'
import { createBitswap } from '../../../src/protocols/bitswap/bitswap.ts'
import { protocolIds } from '../../../src/protocols/bitswap/wire.ts'
import { FakeBlocks, FakeHost, block, cidOf, join, part } from './fake-host.ts'
import { Script, node, until, want } from './lab.ts'

describe('fetching', () => {
  it('gets a block from a peer, on one stream each way that is kept', async () => {
    const all = [block(1), block(2)] as const
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    for (const { cid, bytes } of all) expect(await a.bitswap.get(cid, { peers: [b.peer] })).toEqual(bytes)
    expect(a.bitswap.wantlist()).toEqual([])
    expect([a.host.streamsOpened, b.host.streamsOpened]).toEqual([1, 1])
    expect(a.bitswap.ledgers()).toMatchObject([{ peer: b.peer.toString(), blocksIn: 2, bytesIn: 4000 }])
    expect(b.bitswap.ledgers()).toMatchObject([{ peer: a.peer.toString(), blocksOut: 2, bytesOut: 4000 }])
    expect(b.bitswap.wantlist(a.peer)).toEqual([])
  })

  it('asks every connected peer when none is named', async () => {
    const one = block(1)
    const a = node(1)
    const b = node(2)
    const c = node(3, [one])
    join(a.host, b.host)
    join(a.host, c.host)
    expect(await a.bitswap.get(one.cid)).toEqual(one.bytes)
  })

  it('asks a peer that connects meanwhile when none was named', async () => {
    const one = block(1)
    const a = node(1, [], { peerTimeoutMs: 500 })
    const mute = new Script(2)
    const c = node(3, [one])
    join(a.host, mute.host)
    const getting = a.bitswap.get(one.cid)
    await until(() => mute.received.length > 0)
    join(a.host, c.host)
    expect(await getting).toEqual(one.bytes)
    await until(() => mute.wants([one]).includes('-0'))
  })

  it('gets many blocks in order, and as they come', async () => {
    const all = Array.from({ length: 300 }, (_, i) => block(i, 3000))
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    for (const ordered of [true, false]) {
      const got: string[] = []
      const session = a.bitswap.session({ peers: [b.peer] })
      for await (const { cid, bytes } of session.getMany(
        all.map((x) => x.cid),
        { ordered },
      )) {
        expect(cidOf(bytes).equals(cid)).toBe(true)
        got.push(cid.toString())
      }
      const wanted = all.map((x) => x.cid.toString())
      expect(ordered ? got : got.toSorted()).toEqual(ordered ? wanted : wanted.toSorted())
    }
  })

  it('follows CIDs that the consumer learns from the blocks before', async () => {
    const all = Array.from({ length: 10 }, (_, i) => block(i))
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    const queue = [all[0]?.cid]
    let learned: (() => void) | undefined
    async function* cids(): AsyncGenerator<CID> {
      for (let i = 0; i < 10; i++) {
        while (queue[i] === undefined) await new Promise<void>((resolve) => (learned = resolve))
        yield queue[i] as CID
      }
    }
    let n = 0
    for await (const _ of a.bitswap.session({ peers: [b.peer] }).getMany(cids())) {
      n++
      queue.push(all[n]?.cid)
      learned?.()
    }
    expect(n).toBe(10)
  })

  it('stops asking when the consumer of many stops taking', async () => {
    const all = Array.from({ length: 300 }, (_, i) => block(i))
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    let n = 0
    for await (const _ of a.bitswap.session({ peers: [b.peer] }).getMany(all.map((x) => x.cid))) if (++n === 5) break
    await settle()
    expect(a.bitswap.wantlist()).toEqual([])
    await until(() => b.bitswap.wantlist(a.peer).length === 0)
    expect(b.store.reads).toBeLessThan(300)
  })

  it('fails a stream of many at the block that cannot be had', async () => {
    const a = node(1)
    const b = node(2, [block(0)])
    join(a.host, b.host)
    const got: number[] = []
    await expect(async () => {
      const session = a.bitswap.session({ peers: [b.peer] })
      for await (const { bytes } of session.getMany([block(0).cid, block(1).cid, block(2).cid])) got.push(bytes.length)
    }).rejects.toMatchObject({ code: 'not-found' })
    expect(got).toHaveLength(1)
    expect(a.bitswap.wantlist()).toEqual([])
  })

  it('gives concurrent sessions that want the same block the same bytes, asked for once', async () => {
    const one = block(1)
    const a = node(1)
    const b = node(2, [one])
    join(a.host, b.host)
    const got = await Promise.all(Array.from({ length: 20 }, () => a.bitswap.session({ peers: [b.peer] }).get(one.cid)))
    expect(got.every((bytes) => bytes === got[0])).toBe(true)
    expect(b.store.reads).toBe(1)
  })

  it('takes a CIDv0 for the block of a CIDv1 and the other way round', async () => {
    const one = block(1)
    const v0 = CID.createV0(create(0x12, one.cid.multihash.digest))
    const a = node(1)
    const b = node(2, [one])
    join(a.host, b.host)
    expect(await a.bitswap.get(v0, { peers: [b.peer] })).toEqual(one.bytes)
    const old = new Script(3, '/ipfs/bitswap/1.0.0', (m, script) => {
      if (m.wants.length > 0) void script.say(a, { blocks: [{ cid: v0.bytes, data: one.bytes }] }, '1.0')
    })
    join(a.host, old.host)
    expect(await a.bitswap.get(one.cid, { peers: [old.host.peerId] })).toEqual(one.bytes)
  })

  it('speaks 1.1 and 1.0 with peers that know no more', async () => {
    for (const [protocol, version] of [
      ['/ipfs/bitswap/1.1.0', '1.1'],
      ['/ipfs/bitswap/1.0.0', '1.0'],
      ['/ipfs/bitswap', '1.0'],
    ] as const) {
      const one = block(1)
      const a = node(1, [block(2)])
      const old = new Script(2, protocol, (m, script) => {
        if (m.wants.some((w) => !w.cancel))
          void script.say(a, { blocks: [{ cid: one.cid.bytes, data: one.bytes }], wants: [want(block(2))] }, version)
      })
      join(a.host, old.host)
      expect(await a.bitswap.get(one.cid, { peers: [old.host.peerId] })).toEqual(one.bytes)
      expect(old.received[0]?.wants).toMatchObject([{ type: 'block', sendDontHave: false }])
      await until(() => old.received.some((m) => m.blocks.length > 0))
    }
  })

  it('knows sha2-512 and further hashes that it is given, refuses others and digests too short to trust', async () => {
    const { bytes } = block(1)
    const sha512 = CID.createV1(0x55, create(0x13, new Uint8Array(createHash('sha512').update(bytes).digest())))
    const sha1 = CID.createV1(0x55, create(0x11, new Uint8Array(createHash('sha1').update(bytes).digest())))
    const a = node(1)
    const b = node(2, [
      { cid: sha512, bytes },
      { cid: sha1, bytes },
    ])
    join(a.host, b.host)
    const peers = [b.peer]
    expect(await a.bitswap.get(sha512, { peers })).toEqual(bytes)
    await expect(a.bitswap.get(sha1, { peers })).rejects.toMatchObject({
      name: 'UnavailableError',
      code: 'unsupported',
    })
    const short = CID.createV1(0x55, create(0x12, sha512.multihash.digest.subarray(0, 19)))
    await expect(a.bitswap.get(short, { peers })).rejects.toMatchObject({ code: 'unsupported' })
    const hashers = new Map([[0x11, (data: Uint8Array) => new Uint8Array(createHash('sha1').update(data).digest())]])
    const c = node(3, [], { hashers })
    join(c.host, b.host)
    expect(await c.bitswap.get(sha1, { peers })).toEqual(bytes)
  })

  it('takes the bytes of an identity CID out of the CID', async () => {
    const a = node(1)
    const cid = CID.createV1(0x55, create(0, Uint8Array.of(1, 2, 3)))
    expect(await a.bitswap.get(cid)).toEqual(Uint8Array.of(1, 2, 3))
  })

  it('keeps no frame alive for a small block', async () => {
    const all = Array.from({ length: 50 }, (_, i) => block(i, 1000))
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    const got = await Promise.all(all.map((x) => a.bitswap.get(x.cid, { peers: [b.peer] })))
    for (const bytes of got) expect(bytes.buffer.byteLength).toBeLessThanOrEqual(2 * bytes.length)
  })
})

describe('what cannot be had', () => {
  it('says not-found and what each peer said', async () => {
    const a = node(1)
    const b = node(2)
    join(a.host, b.host)
    await expect(a.bitswap.get(block(1).cid, { peers: [b.peer] })).rejects.toMatchObject({
      name: 'UnavailableError',
      code: 'not-found',
      tried: [{ what: b.peer.toString(), reason: 'does not have it' }],
    })
    expect(a.bitswap.stats()).toMatchObject({ wants: 0 })
  })

  it('says unreachable when no peer is there, can be dialled or speaks Bitswap', async () => {
    const a = node(1)
    await expect(a.bitswap.get(block(1).cid)).rejects.toMatchObject({ code: 'unreachable', tried: [] })
    const nowhere = new FakeHost(2).peerId
    await expect(a.bitswap.get(block(1).cid, { peers: [nowhere] })).rejects.toMatchObject({
      code: 'unreachable',
      tried: [{ what: nowhere.toString(), reason: `no address of ${nowhere.toString()}` }],
    })
    const deaf = new FakeHost(3)
    join(a.host, deaf)
    await expect(a.bitswap.get(block(1).cid, { peers: [deaf.peerId] })).rejects.toMatchObject({ code: 'unreachable' })
    await expect(a.bitswap.get(block(1).cid, { peers: [a.peer] })).rejects.toMatchObject({ code: 'unreachable' })
    expect(a.bitswap.stats()).toMatchObject({ wants: 0 })
  })

  it('ends with not-found at a peer that never answers, with a timeout when the caller has less time', async () => {
    const env = fakeEnv()
    const a = node(1, [], {}, env)
    const mute = new Script(2)
    join(a.host, mute.host)
    const peers = [mute.host.peerId]
    const failed = expect(a.bitswap.get(block(1).cid, { peers })).rejects.toMatchObject({
      code: 'not-found',
      tried: [{ reason: 'no answer within 10000 ms' }],
    })
    await env.clock.advance(11_000)
    await failed
    const late = expect(a.bitswap.get(block(1).cid, { peers, timeoutMs: 500 })).rejects.toMatchObject({
      name: 'TimeoutError',
      timeoutMs: 500,
    })
    await settle()
    await env.clock.advance(501)
    await late
    await settle()
    expect(mute.wants([block(0), block(1)])).toEqual(['+1', '-1', '+1', '-1'])
    await a.bitswap.stop()
    expect(env.clock.waiting).toBe(0)
  })

  it('goes back to a peer that vanished with wants outstanding, once', async () => {
    const one = block(1)
    const a = node(1)
    let lives = 1
    const flaky = new Script(2, protocolIds[0], () => {
      if (lives-- > 0) part(a.host, flaky.host)
      else void flaky.say(a, { blocks: [{ cid: one.cid.bytes, data: one.bytes }] })
    })
    join(a.host, flaky.host)
    expect(await a.bitswap.get(one.cid, { peers: [flaky.host.peerId] })).toEqual(one.bytes)
  })

  it('fails when a peer vanishes for good, and asks the others', async () => {
    const one = block(1)
    const a = node(1)
    const b = node(3, [one])
    const gone = new Script(2, protocolIds[0], () => part(a.host, gone.host, true))
    join(a.host, gone.host)
    await expect(a.bitswap.get(one.cid, { peers: [gone.host.peerId] })).rejects.toMatchObject({
      tried: [{ what: gone.host.peerId.toString() }],
    })
    join(a.host, gone.host)
    join(a.host, b.host)
    expect(await a.bitswap.get(one.cid, { peers: [gone.host.peerId, b.peer] })).toEqual(one.bytes)
    expect(a.bitswap.ledgers().map((l) => l.peer)).toEqual([b.peer.toString()])
  })

  it('sends cancels on abort and keeps no wants', async () => {
    const a = node(1)
    const mute = new Script(2)
    join(a.host, mute.host)
    const controller = new AbortController()
    const reason = new Error('enough')
    const signal = controller.signal
    const failed = expect(a.bitswap.get(block(1).cid, { peers: [mute.host.peerId], signal })).rejects.toBe(reason)
    const session = a.bitswap.session({ peers: [mute.host.peerId], signal })
    const failed2 = expect(session.get(block(0).cid)).rejects.toBe(reason)
    await until(() => mute.received.length > 0)
    controller.abort(reason)
    await failed
    await failed2
    expect(a.bitswap.wantlist()).toEqual([])
    await until(() => mute.wants([block(0), block(1)]).length === 4)
    expect(
      mute
        .wants([block(0), block(1)])
        .slice(2)
        .toSorted(),
    ).toEqual(['-0', '-1'])
    await expect(a.bitswap.get(block(1).cid, { peers: [mute.host.peerId], signal })).rejects.toBe(reason)
  })

  it('goes on for the others when one of several that want a block gives up', async () => {
    const one = block(1)
    const a = node(1)
    const b = node(2)
    const mute = new Script(3)
    join(a.host, mute.host)
    const controller = new AbortController()
    const failed = expect(
      a.bitswap.get(one.cid, { peers: [mute.host.peerId], signal: controller.signal }),
    ).rejects.toThrow()
    const getting = a.bitswap.get(one.cid, { peers: [mute.host.peerId] })
    await until(() => mute.received.length > 0)
    controller.abort()
    await failed
    await mute.say(a, { blocks: [{ cid: one.cid.bytes, data: one.bytes }] })
    expect(await getting).toEqual(one.bytes)
    expect(b.bitswap.stats().wants).toBe(0)
  })

  it('rejects with ClosedError before start, after stop, on cancel and on the close of a session', async () => {
    const a = node(1)
    const mute = new Script(2)
    join(a.host, mute.host)
    const peers = [mute.host.peerId]
    const fresh = createBitswap({ host: new FakeHost(9), blocks: new FakeBlocks() })
    await expect(fresh.get(block(1).cid, { peers })).rejects.toMatchObject({ code: 'not-started' })
    const cancelled = expect(a.bitswap.get(block(1).cid, { peers })).rejects.toMatchObject({ code: 'closed' })
    a.bitswap.cancel(block(1).cid)
    await cancelled
    const session = a.bitswap.session({ peers })
    const closed = expect(session.get(block(1).cid)).rejects.toMatchObject({ code: 'closed' })
    session.close()
    await closed
    const stopped = expect(a.bitswap.get(block(1).cid, { peers })).rejects.toMatchObject({ code: 'stopped' })
    await a.bitswap.stop()
    await stopped
    await expect(a.bitswap.get(block(1).cid, { peers })).rejects.toMatchObject({ code: 'stopped' })
    expect(a.host.handlers.size).toBe(0)
    expect([...a.host.listeners.values()].every((l) => l.size === 0)).toBe(true)
    a.bitswap.start()
    const b = node(3, [block(1)])
    join(a.host, b.host)
    expect(await a.bitswap.get(block(1).cid, { peers: [b.peer] })).toEqual(block(1).bytes)
  })

  it('takes a further peer into a session under way', async () => {
    const one = block(1)
    const a = node(1)
    const mute = new Script(2)
    const b = node(3, [one])
    join(a.host, mute.host)
    join(a.host, b.host)
    const session = a.bitswap.session({ peers: [mute.host.peerId] })
    const getting = session.get(one.cid)
    await until(() => mute.received.length > 0)
    session.addPeers([b.peer])
    await mute.say(a, { presences: [{ cid: one.cid.bytes, have: false }] })
    expect(await getting).toEqual(one.bytes)
  })

  it('opens a new stream when the peer let go of the idle one, and says all again when it was in use', async () => {
    const a = node(1)
    const all = [block(0), block(1)] as const
    const b = new Script(2)
    join(a.host, b.host)
    const peers = [b.host.peerId]
    const first = a.bitswap.get(all[0].cid, { peers })
    await until(() => b.received.length === 1)
    for (const s of b.host.open.get(a.peer.toString())?.streams ?? []) s.reset()
    await until(() => b.received.length === 2)
    expect(b.received[1]).toMatchObject({ full: true, wants: [{ type: 'block' }] })
    await b.say(a, { blocks: [{ cid: all[0].cid.bytes, data: all[0].bytes }] })
    expect(await first).toEqual(all[0].bytes)
    for (const s of b.host.open.get(a.peer.toString())?.streams ?? []) if (s !== b.stream) s.reset()
    await settle()
    expect(b.received).toHaveLength(2)
    const second = a.bitswap.get(all[1].cid, { peers })
    await until(() => b.received.length === 3)
    await b.say(a, { blocks: [{ cid: all[1].cid.bytes, data: all[1].bytes }] })
    expect(await second).toEqual(all[1].bytes)
  })
})
