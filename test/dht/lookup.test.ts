import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FakeRandom } from '../../src/env.ts'
import { compareDistance, distanceShare, keyOfPeer } from '../../src/dht/key.ts'
import { Lookup, type LookupEvent, type LookupOptions } from '../../src/dht/lookup.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { filledTables, somePeer, somePeers } from './peers.ts'

const k = 20

interface Run {
  lookup: Lookup
  done: Extract<LookupEvent, { type: 'done' }> | undefined
  /** Most queries that were under way at once. */
  parallel: number
}

/** Answers each query by `answer` (undefined: it fails), in an order that `random` picks. */
function run(lookup: Lookup, answer: (peer: PeerId) => readonly PeerId[] | undefined, random: FakeRandom): Run {
  const asked: PeerId[] = []
  let parallel = 0
  for (;;) {
    for (let event = lookup.next(); event !== undefined; event = lookup.next()) {
      if (event.type === 'done') return { lookup, done: event, parallel }
      asked.push(event.peer)
    }
    parallel = Math.max(parallel, asked.length)
    const [peer] = asked.splice(Math.floor(random.unit() * asked.length), 1)
    if (peer === undefined) return { lookup, done: undefined, parallel }
    const closer = answer(peer)
    if (closer === undefined) lookup.failed(peer)
    else lookup.answered(peer, closer)
  }
}

describe('a lookup', () => {
  const peers = somePeers(500)
  const tables = filledTables(peers)
  const answer = (target: Uint8Array) => (peer: PeerId) =>
    tables
      .get(peer.toString())
      ?.closest(target, k)
      .map((one) => one.peer)

  function look(seed: number, options: LookupOptions = {}, dead = new Set<string>()): Run & { truth: PeerId[] } {
    const random = new FakeRandom(seed)
    const target = random.bytes(32)
    const self = peers[Math.floor(random.unit() * peers.length)] as PeerId
    const seeds = (answer(target)(self) ?? []).filter((peer) => !peer.equals(self))
    const lookup = new Lookup(self, target, seeds, options)
    const truth = peers
      .filter((peer) => !peer.equals(self) && !dead.has(peer.toString()))
      .toSorted((a, b) => compareDistance(target, keyOfPeer(a), keyOfPeer(b)))
      .slice(0, k)
    const result = run(lookup, (peer) => (dead.has(peer.toString()) ? undefined : answer(target)(peer)), random)
    return { ...result, truth }
  }

  it('ends with the true k closest on a static network, alpha at a time', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), fc.constantFrom(1, 3, 10), (seed, alpha) => {
        const { lookup, done, truth, parallel } = look(seed, { alpha })
        expect(lookup.closest().map(String)).toEqual(truth.map(String))
        expect(done?.reason).toMatch(/converged|exhausted/)
        expect(parallel).toBeLessThanOrEqual(alpha)
        expect(lookup.queries).toBeLessThan(80)
      }),
      { numRuns: 60 },
    )
  })

  it('finds the closest that are alive when a third of all peers is gone', () => {
    const dead = new Set(peers.filter((_, i) => i % 3 === 0).map(String))
    for (let seed = 1; seed <= 20; seed++) {
      // A table that still holds the dead names 20 of whom a third is gone: the closest 10 are heard of for sure.
      const { lookup, truth } = look(seed, {}, dead)
      expect(lookup.closest().slice(0, 10).map(String)).toEqual(truth.slice(0, 10).map(String))
    }
  })

  it('asks fewer when only the beta closest must have answered', () => {
    let [all, few] = [0, 0]
    for (let seed = 1; seed <= 20; seed++) {
      all += look(seed).lookup.queries
      const { lookup, truth } = look(seed, { complete: false })
      few += lookup.queries
      expect(String(lookup.closest()[0])).toBe(String(truth[0]))
    }
    expect(few).toBeLessThan(all)
  })

  it('asks nobody on two paths, and finds the same', () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { lookup, truth } = look(seed, { paths: 4 })
      expect(lookup.closest().map(String)).toEqual(truth.map(String))
    }
  })

  it('a liar on one of several paths does not lead the others away', () => {
    const target = new FakeRandom(5).bytes(32)
    const self = peers[0] as PeerId
    const seeds = (answer(target)(self) ?? []).slice(0, 8)
    const liar = seeds[0] as PeerId
    // Everybody that it names is its own, and names its own again.
    const crowd = new Set(somePeers(300, 2).map(String))
    const sybils = somePeers(300, 2)
    let at = 0
    const evil = (peer: PeerId): boolean => peer === liar || crowd.has(peer.toString())
    const lookup = new Lookup(self, target, seeds, { paths: 4 })
    run(lookup, (peer) => (evil(peer) ? sybils.slice(at, (at += 5)) : answer(target)(peer)), new FakeRandom(1))
    const honest = peers.filter((peer) => !peer.equals(self) && peer !== liar)
    const truth = honest.toSorted((a, b) => compareDistance(target, keyOfPeer(a), keyOfPeer(b))).slice(0, k)
    const found = new Set(lookup.closest().map(String))
    expect(truth.filter((peer) => found.has(String(peer))).length).toBeGreaterThan(8)
  })

  it('takes of one answer the k closest and no more, and never asks itself', () => {
    const self = somePeer(1, 3)
    const [first] = somePeers(1, 4) as [PeerId]
    const target = keyOfPeer(somePeer(2, 3))
    const lookup = new Lookup(self, target, [first], {})
    const many = [self, ...somePeers(2_000, 6)]
    lookup.answered(first, many)
    expect(lookup.heard).toBeLessThanOrEqual(k + 1)
    const nearest = many.toSorted((a, b) => compareDistance(target, keyOfPeer(a), keyOfPeer(b))).slice(0, 3)
    const heard = new Set(lookup.peers().map(({ peer }) => String(peer)))
    for (const peer of nearest) expect(heard.has(String(peer))).toBe(!peer.equals(self))
    expect(heard.has(String(self))).toBe(false)
  })

  it('ends when somebody names ever new peers: so many queries, so many remembered', () => {
    const random = new FakeRandom(9)
    let made = 0
    const lookup = new Lookup(somePeer(1), random.bytes(32), somePeers(3), { maxQueries: 100, maxHeard: 200, k: 1_000 })
    const { done } = run(lookup, () => Array.from({ length: 20 }, () => somePeer(made++, 77)), random)
    expect(done?.reason).toBe('too-many-queries')
    expect(lookup.queries).toBe(100)
    expect(lookup.heard).toBeLessThanOrEqual(200)
  })

  it('reaches past k peers that crowd around its target', () => {
    const target = keyOfPeer(somePeer(1, 9))
    const all = somePeers(400, 3).toSorted((a, b) => compareDistance(target, keyOfPeer(a), keyOfPeer(b)))
    // Of 400, 40 within a tenth; k that lie within half of what k usually span look planted.
    const closestOf = (radius: number): number =>
      run(new Lookup(somePeer(1), target, all.slice(0, 60), { radius }), () => [], new FakeRandom(1)).lookup.closest()
        .length
    const usual = distanceShare(target, keyOfPeer(all[k - 1] as PeerId))
    expect(closestOf(0)).toBe(k)
    expect(closestOf(usual)).toBe(k)
    const past = all.slice(0, 60).filter((peer) => distanceShare(target, keyOfPeer(peer)) <= usual * 2.5).length
    expect(past).toBeGreaterThan(k)
    expect(closestOf(usual * 2.5)).toBe(past)
  })

  it.each([true, false])('asks few of those that one peer names when they do not answer, blame %s', (blame) => {
    const [liar, ...honest] = somePeers(30, 5) as [PeerId, ...PeerId[]]
    const target = keyOfPeer(somePeer(2, 5))
    const nearer = somePeers(4_000, 6)
      .toSorted((a, b) => compareDistance(target, keyOfPeer(a), keyOfPeer(b)))
      .slice(0, 20)
    const lookup = new Lookup(somePeer(1), target, [liar, ...honest], { blame, alpha: 1 })
    run(lookup, (peer) => (peer.equals(liar) ? nearer : honest.includes(peer) ? [] : undefined), new FakeRandom(1))
    const failed = nearer.filter((peer) => lookup.find(peer)?.state === 'unreachable').length
    expect(failed).toBe(blame ? 3 : 20)
  })

  it('counts only the first answer of who was asked', () => {
    const lookup = new Lookup(somePeer(1), keyOfPeer(somePeer(2)), [somePeer(3)], {})
    lookup.answered(somePeer(4), [somePeer(5)])
    expect(lookup.heard).toBe(1)
    lookup.answered(somePeer(3), [])
    lookup.answered(somePeer(3), [somePeer(6)])
    expect(lookup.heard).toBe(1)
    const events = [lookup.next(), lookup.next(), lookup.next()]
    expect(events).toEqual([{ type: 'query', peer: somePeer(3) }, { type: 'done', reason: 'exhausted' }, undefined])
  })

  it('is over at once when it is stopped, or when there is nobody to ask', () => {
    const stopped = new Lookup(somePeer(1), keyOfPeer(somePeer(2)), somePeers(5), {})
    stopped.stop()
    stopped.answered(somePeer(0), [somePeer(9)])
    const last = run(stopped, () => [], new FakeRandom(1))
    expect(last.done?.reason).toBe('stopped')
    expect(run(new Lookup(somePeer(1), keyOfPeer(somePeer(2)), [], {}), () => [], new FakeRandom(1)).done?.reason).toBe(
      'exhausted',
    )
  })
})
