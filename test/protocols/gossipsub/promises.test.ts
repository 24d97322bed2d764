import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FakeRandom } from '../../../src/env.ts'
import { Promises } from '../../../src/protocols/gossipsub/promises.ts'

const made = (options?: ConstructorParameters<typeof Promises>[1]): Promises => new Promises(new FakeRandom(), options)

describe('what peers promised by an IHAVE', () => {
  it('is broken when it does not come in time, and that counts once', () => {
    const promises = made()
    promises.add('p', ['a'], 0)
    expect(promises.broken(3000)).toEqual(new Map())
    expect(promises.broken(3001)).toEqual(new Map([['p', 1]]))
    expect(promises.broken(9999)).toEqual(new Map())
    expect(promises.size).toBe(0)
  })

  it('is fulfilled for all by whoever delivers it', () => {
    const promises = made()
    promises.add('p', ['a'], 0)
    promises.add('q', ['a'], 0)
    promises.add('q', ['b'], 0)
    promises.fulfilled('a')
    promises.fulfilled('never asked for')
    expect(promises.broken(5000)).toEqual(new Map([['q', 1]]))
  })

  it('is one id of each IWANT, any of them', () => {
    const picked = new Set<string>()
    const promises = made()
    for (let i = 0; i < 100; i++) {
      promises.add(`peer ${i}`, ['a', 'b', 'c'], 0)
      for (const id of ['a', 'b', 'c']) {
        const before = promises.size
        promises.fulfilled(id)
        if (promises.size < before) picked.add(id)
      }
      expect(promises.size).toBe(0)
    }
    expect(picked).toEqual(new Set(['a', 'b', 'c']))
  })

  it('is due when it was first promised', () => {
    const promises = made()
    promises.add('p', ['a'], 0)
    promises.add('p', ['a'], 2000)
    expect(promises.broken(3001)).toEqual(new Map([['p', 1]]))
    expect(promises.size).toBe(0)
  })

  it("is nobody's fault where we had no room for it", () => {
    const promises = made()
    promises.add('p', ['a'], 0)
    promises.add('p', ['b'], 0)
    promises.add('q', ['a'], 0)
    promises.throttled('p')
    promises.throttled('r')
    expect(promises.broken(5000)).toEqual(new Map([['q', 1]]))
  })

  it('is not remembered beyond the bound, which is counted', () => {
    const promises = made({ maxPromises: 2 })
    for (const id of ['a', 'b', 'c']) promises.add('p', [id], 0)
    expect([promises.size, promises.untracked]).toEqual([2, 1])
    promises.add('p', ['a'], 0)
    promises.add('p', [], 0)
    expect(promises.untracked).toBe(1)
  })

  it('is what a plain list of promises says', () => {
    const peer = fc.constantFrom('p', 'q', 'r')
    const id = fc.constantFrom('a', 'b', 'c')
    const step = fc.oneof(
      fc.record({ kind: fc.constant('add' as const), peer, id, after: fc.nat(2000) }),
      fc.record({ kind: fc.constant('fulfilled' as const), id }),
      fc.record({ kind: fc.constant('throttled' as const), peer }),
      fc.record({ kind: fc.constant('broken' as const), after: fc.nat(4000) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const promises = made({ maxPromises: 5 })
        let list: { peer: string; id: string; until: number }[] = []
        let now = 0
        for (const s of steps) {
          if (s.kind === 'add') {
            now += s.after
            promises.add(s.peer, [s.id], now)
            const known = list.some((p) => p.peer === s.peer && p.id === s.id)
            if (!known && list.length < 5) list.push({ peer: s.peer, id: s.id, until: now + 3000 })
          } else if (s.kind === 'fulfilled') {
            promises.fulfilled(s.id)
            list = list.filter((p) => p.id !== s.id)
          } else if (s.kind === 'throttled') {
            promises.throttled(s.peer)
            list = list.filter((p) => p.peer !== s.peer)
          } else {
            now += s.after
            const counts = new Map<string, number>()
            for (const { peer, until } of list) if (until < now) counts.set(peer, (counts.get(peer) ?? 0) + 1)
            expect(promises.broken(now)).toEqual(counts)
            list = list.filter((p) => p.until >= now)
          }
          expect(promises.size).toBe(list.length)
        }
      }),
    )
  })

  it.each([{ followupMs: 0 }, { followupMs: Number.NaN }, { maxPromises: 0 }, { maxPromises: 1.5 }])(
    'is not kept by %j',
    (options) => expect(() => made(options)).toThrow(RangeError),
  )
})
