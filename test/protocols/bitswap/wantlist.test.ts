import { describe, expect, it } from 'vitest'
import { InboundWantlist, OutboundWantlist } from '../../../src/protocols/bitswap/wantlist.ts'
import type { WantEntry } from '../../../src/protocols/bitswap/wire.ts'

const cid = (key: string): Uint8Array => new TextEncoder().encode(key)

const take = (list: OutboundWantlist, max = 100): string | undefined => {
  const m = list.take(max)
  if (m === undefined) return undefined
  const wants = m.wants.map(
    (w) => `${w.cancel ? '-' : w.type === 'have' ? '?' : '+'}${new TextDecoder().decode(w.cid)}`,
  )
  return (m.full ? 'full ' : '') + wants.join(' ')
}

const entry = (key: string, more: Partial<WantEntry> = {}): WantEntry => ({
  cid: cid(key),
  key,
  hashCode: 0x12,
  priority: 1,
  cancel: false,
  type: 'block',
  sendDontHave: false,
  ...more,
})

describe('OutboundWantlist', () => {
  it('sends everything first and changes after', () => {
    const list = new OutboundWantlist()
    expect(list.pending).toBe(false)
    list.want('a', cid('a'), 'block', 1)
    list.want('b', cid('b'), 'have', 1)
    expect(take(list)).toBe('full +a ?b')
    expect(list.pending).toBe(false)
    list.want('b', cid('b'), 'block', 1)
    list.cancel('a')
    expect(take(list)).toBe('+b -a')
    expect(take(list)).toBeUndefined()
  })

  it('says nothing of a want that is cancelled before it was sent', () => {
    const list = new OutboundWantlist()
    list.want('a', cid('a'), 'block', 1)
    list.cancel('a')
    expect(list.pending).toBe(false)
    list.want('b', cid('b'), 'block', 1)
    take(list)
    list.cancel('b')
    list.want('b', cid('b'), 'block', 1)
    expect(take(list)).toBe('+b')
    list.cancel('b')
    list.want('b', cid('b'), 'block', 1)
    list.cancel('b')
    expect(take(list)).toBe('-b')
  })

  it('says nothing of a want whose block came', () => {
    const list = new OutboundWantlist()
    list.want('a', cid('a'), 'block', 1)
    take(list)
    list.drop('a')
    expect(list.pending).toBe(false)
    expect(list.size).toBe(0)
  })

  it('says everything again after a resync, but nothing when nothing is wanted', () => {
    const list = new OutboundWantlist()
    for (const k of ['a', 'b', 'c']) list.want(k, cid(k), 'block', 1)
    take(list)
    list.drop('b')
    list.cancel('c')
    list.resync()
    expect(take(list)).toBe('full +a')
    list.drop('a')
    list.resync()
    expect(list.pending).toBe(false)
    list.want('d', cid('d'), 'block', 1)
    expect(take(list)).toBe('full +d')
  })

  it('splits a long list, only the first part replaces', () => {
    const list = new OutboundWantlist()
    for (const k of ['a', 'b', 'c']) list.want(k, cid(k), 'block', 1)
    expect(take(list, 2)).toBe('full +a +b')
    expect(take(list, 2)).toBe('+c')
  })
})

describe('InboundWantlist', () => {
  it('takes wants in the order of their priority', () => {
    const list = new InboundWantlist(10)
    const { added } = list.apply(false, [
      entry('a'),
      entry('b', { priority: 9 }),
      entry('c'),
      entry('d', { priority: 9 }),
    ])
    expect(added.map((w) => w.key)).toEqual(['b', 'd', 'a', 'c'])
  })

  it('replaces all with a full list and keeps what is in both', () => {
    const list = new InboundWantlist(10)
    list.apply(false, [entry('a'), entry('b')])
    const { added, removed } = list.apply(true, [entry('b'), entry('c')])
    expect(added.map((w) => w.key)).toEqual(['c'])
    expect(removed.map((w) => w.key)).toEqual(['a'])
    expect(list.apply(true, []).removed).toHaveLength(2)
    expect(list.size).toBe(0)
  })

  it('ignores identity CIDs and cancels of what nobody wanted', () => {
    const list = new InboundWantlist(10)
    expect(list.apply(false, [entry('a', { hashCode: 0 }), entry('b', { cancel: true })])).toEqual({
      added: [],
      removed: [],
      refused: 0,
    })
  })

  it('lets go of what we do not have, the oldest first, when it is full, and refuses when all else is to be answered', () => {
    const list = new InboundWantlist(3)
    const { added } = list.apply(
      false,
      ['a', 'b', 'c'].map((k) => entry(k)),
    )
    expect(list.apply(false, [entry('d')]).refused).toBe(1)
    const [a, b] = added
    if (a === undefined || b === undefined) throw new Error('not added')
    list.wait(b)
    list.wait(a)
    expect(list.apply(false, [entry('d')]).removed).toEqual([b])
    expect(list.size).toBe(3)
  })

  it('does not keep the frame that a CID lies in', () => {
    const frame = new Uint8Array(1000)
    const list = new InboundWantlist(3)
    const [want] = list.apply(false, [entry('a', { cid: frame.subarray(5, 10) })]).added
    expect(want?.cid.buffer.byteLength).toBe(5)
  })

  it('asks anew for what became a want for the block', () => {
    const list = new InboundWantlist(3)
    const [want] = list.apply(false, [entry('a', { type: 'have' })]).added
    if (want === undefined) throw new Error('not added')
    expect(list.apply(false, [entry('a')]).added).toEqual([])
    expect(want.type).toBe('block')
    list.wait(want)
    expect(list.apply(false, [entry('a')]).added).toEqual([want])
    expect(want.state).toBe('queued')
  })
})
