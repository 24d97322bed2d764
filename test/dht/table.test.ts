import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FakeRandom } from '../../src/env.ts'
import { commonPrefixLength, compareDistance, keyOfPeer } from '../../src/dht/key.ts'
import { RoutingTable } from '../../src/dht/table.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { somePeer, somePeers } from './peers.ts'

const self = keyOfPeer(somePeer(0, 99))

/** Peers that share exactly `bits` bits with us. */
function peersIn(bits: number, count: number): PeerId[] {
  const found: PeerId[] = []
  for (let i = 0; found.length < count; i++) {
    const peer = somePeer(i, 5)
    if (commonPrefixLength(self, keyOfPeer(peer)) === bits) found.push(peer)
  }
  return found
}

describe('the routing table', () => {
  it('is never over its limits, whatever comes and goes', () => {
    const step = fc.record({
      peer: fc.integer({ min: 0, max: 300 }),
      group: fc.constantFrom('a', 'b', 'c', 'd', undefined),
      remove: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const table = new RoutingTable(self, { bucketPeers: 4, waitingPeers: 2 })
        const groups = new Map<string, string[]>()
        for (const [now, { peer, group, remove }] of steps.entries()) {
          const id = somePeer(peer)
          if (remove) table.remove(id)
          else table.add(id, group === undefined ? [] : [group], now)
        }
        for (const { prefixBits, peers, waiting } of table.buckets()) {
          expect(peers.length).toBeLessThanOrEqual(4)
          expect(waiting.length).toBeLessThanOrEqual(2)
          // Nobody waits while there is a place, unless its group is full.
          const inBucket = new Map<string, number>()
          for (const one of peers) {
            expect(commonPrefixLength(self, one.key)).toBe(prefixBits)
            for (const group of one.groups) {
              inBucket.set(group, (inBucket.get(group) ?? 0) + 1)
              groups.set(group, [...(groups.get(group) ?? []), one.peer.toString()])
            }
          }
          expect(Math.max(0, ...inBucket.values())).toBeLessThanOrEqual(2)
        }
        for (const peers of groups.values()) expect(peers.length).toBeLessThanOrEqual(3)
        expect(table.size).toBe(table.buckets().reduce((sum, { peers }) => sum + peers.length, 0))
      }),
      { numRuns: 50 },
    )
  })

  it('knows the closest peers to any target as a sort of everybody does', () => {
    const table = new RoutingTable(self)
    for (const peer of somePeers(400)) table.add(peer, [], 0)
    const all = table.peers()
    for (let i = 0; i < 200; i++) {
      // Also targets near us, whose closest peers are in the deep buckets.
      const target = new FakeRandom(i).bytes(32)
      if (i % 2 === 0) target.set(self.subarray(0, 2))
      const sorted = all.toSorted((a, b) => compareDistance(target, a.key, b.key)).slice(0, 20)
      expect(table.closest(target, 20)).toEqual(sorted)
    }
  })

  it('keeps who has long been there; a newcomer gets the place of one that failed, the last to answer first', () => {
    const table = new RoutingTable(self, { bucketPeers: 3, waitingPeers: 2 })
    const [a, b, c, d, e, f] = peersIn(2, 6) as [PeerId, PeerId, PeerId, PeerId, PeerId, PeerId]
    expect([a, b, c].map((peer) => table.add(peer, [], 1))).toEqual(['added', 'added', 'added'])
    expect([d, e, f].map((peer) => table.add(peer, [], 2))).toEqual(['waiting', 'waiting', 'waiting'])
    expect(table.add(a, [], 3)).toBe('known')
    table.remove(b)
    expect([a, c, f].every((peer) => table.has(peer))).toBe(true)
    table.remove(e)
    table.remove(a)
    // d was pushed out of the queue by f, e left it.
    expect([c, f].every((peer) => table.has(peer))).toBe(true)
    expect(table.size).toBe(2)
  })

  it('gives an IP group three places, two of them in one bucket; who has no group is not limited', () => {
    const table = new RoutingTable(self)
    const [a, b, c] = peersIn(0, 3) as [PeerId, PeerId, PeerId]
    const [d, e] = peersIn(1, 2) as [PeerId, PeerId]
    expect([a, b, c, d, e].map((peer) => table.add(peer, ['203.0'], 0))).toEqual([
      'added',
      'added',
      'crowded',
      'added',
      'crowded',
    ])
    expect(table.add(c, [], 0)).toBe('added')
    table.remove(a)
    expect(table.add(e, ['203.0'], 0)).toBe('added')
  })

  it('does not take ourselves in', () => {
    expect(new RoutingTable(keyOfPeer(somePeer(1))).add(somePeer(1), [], 0)).toBe('self')
  })

  it('says who has long been silent, and which prefixes are due', () => {
    const table = new RoutingTable(self, { aliveMs: 1_000 })
    const [a] = peersIn(0, 1) as [PeerId]
    const [b] = peersIn(3, 1) as [PeerId]
    table.add(a, [], 0)
    table.add(b, [], 500)
    expect(table.silent(999)).toEqual([])
    expect(table.silent(1_000).map(({ peer }) => peer)).toEqual([a])
    table.alive(a, 1_200)
    expect(table.silent(1_500).map(({ peer }) => peer)).toEqual([b])
    expect(table.prefixesToRefresh(0, 600)).toEqual([0, 1, 2, 3])
    table.refreshed(0, 0)
    table.refreshed(3, 100)
    expect(table.prefixesToRefresh(650, 600)).toEqual([0, 1, 2])
  })
})
