import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { commonPrefixLength, keyOfPeer } from '../../src/dht/key.ts'
import type { Message } from '../../src/dht/wire.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { somePeer } from '../dht/peers.ts'
import { Field, publicAddr } from './field.ts'

describe('a Kademlia network of light hosts', () => {
  it('finds the true 20 closest to anything while nobody comes or goes', async () => {
    for (const seed of [31, 32]) {
      const field = new Field({ seed, dht: { refreshMs: 1e9 } })
      await field.seed(80)
      for (let i = 0; i < 10; i++) {
        const key = fromUtf8(`${seed} target ${i}`)
        const asker = field.pick(field.members)
        const found = await field.time.until(asker.dht.closestPeers(key))
        const truth = field.closest(key, 20, asker)
        expect(found.slice(0, 20).map(String)).toHaveLength(20)
        expect(found.slice(0, 20).map(({ peer }) => peer.toString())).toEqual(
          truth.map(({ host }) => host.peerId.toString()),
        )
      }
      await field.stop()
    }
  })

  it('finds providers after a third has left without a word and others have come', async () => {
    const field = new Field({ seed: 33, lossRate: 0.01, dht: { refreshMs: 1e9 } })
    await field.seed(60)
    const stay = field.members.slice(20)
    const cids = Array.from({ length: 20 }, (_, i) => cidOf(0x55, fromUtf8(`churned ${i}`)))
    for (const [i, cid] of cids.entries()) await field.time.until(stay[i % 5]?.dht.provide(cid) ?? Promise.reject())
    for (const member of field.members.slice(0, 20)) await field.crash(member)
    for (let i = 0; i < 20; i++) await field.join({}, 2)
    let found = 0
    for (const [i, cid] of cids.entries()) {
      const asker = stay[10 + (i % 30)]
      const got = await field.all(asker?.dht.findProviders(cid, { count: 1 }) ?? (async function* () {})())
      if (got.includes(stay[i % 5]?.host.peerId.toString() ?? '')) found++
    }
    expect(found).toBeGreaterThanOrEqual(19)
    await field.stop()
  })

  it('has clients that ask, never answer, and are in nobody’s table', async () => {
    const field = new Field({ seed: 34, dht: { refreshMs: 1e9 } })
    await field.seed(12)
    const client = await field.join({ mode: 'client' }, 3)
    await field.time.run(5_000)
    expect((await field.time.until(client.dht.closestPeers(fromUtf8('anything')))).length).toBeGreaterThan(10)
    for (const { kad } of field.members) expect(kad.table.has(client.host.peerId)).toBe(false)
    const [asker] = field.members
    const to = { peer: client.host.peerId, addrs: [client.host.addr] }
    const request: Message = { type: 'FIND_NODE', key: fromUtf8('x'), closerPeers: [], providerPeers: [] }
    await expect(field.time.until<unknown>(asker?.kad.network.ask(to, request) ?? Promise.resolve())).rejects.toThrow()
    await field.stop()
  })

  it('serves the public network from when the node can be reached until it cannot', async () => {
    const field = new Field({ seed: 35, addr: publicAddr, dht: { networks: ['wan'], refreshMs: 1e9 } })
    await field.seed(4)
    const one = field.make({ mode: 'auto' })
    one.host.reachability = 'private'
    await field.start(one)
    const [other] = field.members
    await field.time.until(one.host.dial(other?.host.addrs() ?? []))
    await field.time.run(2_000)
    expect(other?.kad.table.has(one.host.peerId)).toBe(false)
    one.host.reachability = 'public'
    await field.time.run(2_000)
    expect(other?.kad.table.has(one.host.peerId)).toBe(true)
    one.host.reachability = 'private'
    await field.time.run(2_000)
    expect(other?.kad.table.has(one.host.peerId)).toBe(false)
    await field.stop()
  })

  it('keeps its table and its records over a restart', async () => {
    const field = new Field({ seed: 37, dht: { refreshMs: 1e9 } })
    await field.seed(15)
    const records = memoryRecords({ env: field.time.env(1) })
    const before = await field.join({ records }, 1)
    await field.time.run(20_000)
    const cid = cidOf(0x55, fromUtf8('kept'))
    await field.time.until(before.dht.provide(cid))
    const had = before.kad.table.size
    expect(had).toBeGreaterThan(10)
    await field.crash(before)
    // Nobody is connected, nobody is named: all it has is what it wrote down.
    const after = await field.start(field.make({ records }))
    await field.time.run(20_000)
    expect(after.kad.table.size).toBeGreaterThanOrEqual(had)
    expect(after.kad.providers.of(cid.multihash.bytes)).toHaveLength(1)
    await field.stop()
  })

  it('refreshes the deepest buckets without going round in circles', async () => {
    const field = new Field({ seed: 36, dht: { refreshMs: 1e9 } })
    await field.seed(3)
    for (let turn = 0; turn < 20; turn++) {
      const member = await field.join()
      let n = 0
      while (commonPrefixLength(member.key, keyOfPeer(somePeer(n, 50))) < 12) n++
      member.kad.table.add(somePeer(n, 50), [], field.time.now())
      await field.time.until(member.kad.refresh({ force: true }), 10_000_000)
    }
    await field.stop()
  })
})
