import { afterEach, describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { createDht, type Dht, type DhtOptions, type PeerInfo } from '../../src/dht/dht.ts'
import { keyOf, compareDistance, keyOfPeer } from '../../src/dht/key.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { Sim, type SimNode, type SimOptions } from './sim.ts'

interface Member extends SimNode {
  dht: Dht
}

const open: { sim: Sim; dhts: Dht[] }[] = []

afterEach(async () => {
  for (const { sim, dhts } of open.splice(0)) {
    await sim.time.until(Promise.all(dhts.map((dht) => dht.stop())))
    await sim.stop()
  }
})

async function network(
  options: SimOptions,
  dhtOptions: Partial<DhtOptions> = {},
): Promise<{ sim: Sim; members: Member[] }> {
  const sim = await Sim.create(options)
  const dhts: Dht[] = []
  open.push({ sim, dhts })
  const members: Member[] = []
  for (const one of sim.nodes) {
    const dht = createDht(one.node, { prefix: '/sim', mode: 'server', ...dhtOptions })
    dhts.push(dht)
    await sim.time.until(dht.start())
    members.push({ ...one, dht })
    // Each joins through one that is there already.
    if (members.length > 1) {
      const through = members[Math.floor(one.random.unit() * (members.length - 1))] as Member
      await sim.time.until(one.node.dial(through.addr))
      await sim.time.run(20)
    }
  }
  await sim.time.run(30_000)
  return { sim, members }
}

async function all(found: AsyncIterable<PeerInfo>): Promise<string[]> {
  const out: string[] = []
  for await (const { peer } of found) out.push(peer.toString())
  return out
}

describe('a Kademlia network', () => {
  it('of 30 nodes finds from each what one provides', async () => {
    const { sim, members } = await network({ seed: 11, nodes: 30 })
    const cid = cidOf(0x55, fromUtf8('somewhere in the network'))
    const provider = members[17] as Member
    expect(await sim.time.until(provider.dht.provide(cid))).toBe(20)
    for (const { dht, node } of members) {
      const found = await sim.time.until(all(dht.findProviders(cid, { count: 1 })))
      expect(found).toEqual(node.peerId.equals(provider.node.peerId) ? [] : [provider.node.peerId.toString()])
    }
  })

  it('knows the closest 20 to anything, and every peer by its id', async () => {
    const { sim, members } = await network({ seed: 12, nodes: 30 })
    for (let i = 0; i < 20; i++) {
      const key = fromUtf8(`target ${i}`)
      const asker = members[(i * 7) % 30] as Member
      const truth = members
        .filter((m) => m !== asker)
        .toSorted((a, b) => compareDistance(keyOf(key), keyOfPeer(a.node.peerId), keyOfPeer(b.node.peerId)))
        .slice(0, 20)
      const found = await sim.time.until(asker.dht.closestPeers(key))
      expect(found.map(({ peer }) => peer.toString())).toEqual(truth.map((m) => m.node.peerId.toString()))
      const other = members[(i * 11 + 3) % 30] as Member
      const { addrs } = await sim.time.until(asker.dht.findPeer(other.node.peerId))
      if (other !== asker) expect(addrs.length).toBeGreaterThan(0)
    }
  })
})
