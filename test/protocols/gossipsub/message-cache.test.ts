import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MessageCache } from '../../../src/protocols/gossipsub/message-cache.ts'

const raw = (size: number, fill = 1): Uint8Array => new Uint8Array(size).fill(fill)

describe('the message cache', () => {
  it('answers for a message during its history, and gossips about it in the newest windows', () => {
    const cache = new MessageCache()
    cache.put('a', 't', raw(3))
    const seen: [has: boolean, gossip: boolean][] = []
    for (let heartbeat = 0; heartbeat < 6; heartbeat++) {
      seen.push([cache.get('a') !== undefined, cache.gossipIds('t').includes('a')])
      cache.shift()
    }
    expect(seen).toEqual([
      [true, true],
      [true, true],
      [true, true],
      [true, false],
      [true, false],
      [false, false],
    ])
    expect([cache.size, cache.bytes]).toEqual([0, 0])
  })

  it('gossips about one topic at a time, the newest window first', () => {
    const cache = new MessageCache({ history: 3, gossip: 2 })
    cache.put('a1', 'a', raw(1))
    cache.put('b1', 'b', raw(1))
    cache.shift()
    cache.put('a2', 'a', raw(1))
    cache.put('a3', 'a', raw(1))
    expect(cache.gossipIds('a')).toEqual(['a2', 'a3', 'a1'])
    expect(cache.gossipIds('b')).toEqual(['b1'])
    expect(cache.gossipIds('c')).toEqual([])
    cache.shift()
    expect(cache.gossipIds('a')).toEqual(['a2', 'a3'])
  })

  it('keeps the first of two messages of one id', () => {
    const cache = new MessageCache()
    cache.put('a', 't', raw(3, 1))
    cache.shift()
    expect(cache.put('a', 't', raw(3, 2))).toBe(true)
    expect(cache.get('a')?.raw).toEqual(raw(3, 1))
    expect(cache.gossipIds('t')).toEqual(['a'])
  })

  it('counts how often each peer asked', () => {
    const cache = new MessageCache()
    cache.put('a', 't', raw(3))
    expect(cache.getForPeer('a', 'p')).toEqual({ topic: 't', raw: raw(3), count: 1 })
    expect(cache.getForPeer('a', 'p')?.count).toBe(2)
    expect(cache.getForPeer('a', 'q')?.count).toBe(1)
    expect(cache.getForPeer('b', 'p')).toBeUndefined()
  })

  it('forgets an invalid message everywhere', () => {
    const cache = new MessageCache()
    cache.put('a', 't', raw(3))
    cache.put('b', 't', raw(3))
    const { bytes } = cache
    cache.delete('a')
    cache.delete('a')
    expect(cache.has('a')).toBe(false)
    expect(cache.gossipIds('t')).toEqual(['b'])
    expect(cache.bytes).toBe(bytes / 2)
    cache.put('a', 't', raw(3))
    expect(cache.gossipIds('t')).toEqual(['b', 'a'])
  })

  it('drops the oldest messages for want of room, and takes none that is larger than all of it', () => {
    const cache = new MessageCache({ maxBytes: 3 * 1500 })
    for (const id of ['a', 'b', 'c']) expect(cache.put(id, 't', raw(1000))).toBe(true)
    expect(cache.put('d', 't', raw(1000))).toBe(true)
    expect(['a', 'b', 'c', 'd'].map((id) => cache.has(id))).toEqual([false, true, true, true])
    expect(cache.evicted).toBe(1)
    expect(cache.put('e', 't', raw(5000))).toBe(false)
    expect(cache.size).toBe(3)
  })

  it('has room for many that ask only by dropping messages', () => {
    const cache = new MessageCache({ maxBytes: 10_000 })
    for (const id of ['a', 'b', 'c', 'd']) cache.put(id, 't', raw(1000))
    for (let peer = 0; peer < 200; peer++) cache.getForPeer('d', `peer ${peer}`)
    expect(cache.bytes).toBeLessThanOrEqual(10_000)
    expect(cache.size).toBeLessThan(4)
  })

  it('does not keep a large frame for the sake of a small message', () => {
    const cache = new MessageCache()
    const frame = raw(100_000)
    cache.put('small', 't', frame.subarray(10, 20))
    cache.put('large', 't', frame.subarray(0, 90_000))
    expect(cache.get('small')?.raw.buffer.byteLength).toBe(10)
    expect(cache.get('large')?.raw.buffer).toBe(frame.buffer)
  })

  it('holds what a list of windows would hold, within its bound', () => {
    const id = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f')
    const step = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), id, topic: fc.constantFrom('s', 't'), size: fc.nat(2000) }),
      fc.record({ kind: fc.constant('ask' as const), id }),
      fc.record({ kind: fc.constant('delete' as const), id }),
      fc.record({ kind: fc.constant('shift' as const) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(4000, 1e6), (steps, maxBytes) => {
        const cache = new MessageCache({ history: 3, gossip: 2, maxBytes })
        const windows: { id: string; topic: string }[][] = [[], [], []]
        for (const s of steps) {
          if (s.kind === 'put') {
            const known = windows.flat().some((m) => m.id === s.id)
            if (cache.put(s.id, s.topic, raw(s.size)) && !known) windows[0]?.push({ id: s.id, topic: s.topic })
          } else if (s.kind === 'ask') {
            cache.getForPeer(s.id, 'p')
          } else if (s.kind === 'delete') {
            cache.delete(s.id)
          } else {
            cache.shift()
            windows.pop()
            windows.unshift([])
          }
          // What the bound takes is the oldest: nothing older than it stays.
          const order = windows.toReversed().flat()
          const held = order.filter((m) => cache.has(m.id))
          if (s.kind !== 'delete') expect(order.slice(order.length - held.length)).toEqual(held)
          for (const window of windows) window.splice(0, Infinity, ...window.filter((m) => cache.has(m.id)))
          expect(cache.bytes).toBeLessThanOrEqual(maxBytes)
          expect(cache.size).toBe(held.length)
          for (const topic of ['s', 't']) {
            const gossip = windows.slice(0, 2).flatMap((w) => w.filter((m) => m.topic === topic).map((m) => m.id))
            expect(cache.gossipIds(topic)).toEqual(gossip)
          }
        }
        for (let i = 0; i < 3; i++) cache.shift()
        expect([cache.size, cache.bytes]).toEqual([0, 0])
      }),
    )
  })

  it.each([{ history: 0 }, { history: 1.5 }, { gossip: 6 }, { gossip: 0 }, { maxBytes: 0 }, { maxBytes: Number.NaN }])(
    'is not made of %j',
    (options) => expect(() => new MessageCache(options)).toThrow(RangeError),
  )
})
