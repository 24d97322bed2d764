import { describe, expect, it } from 'vitest'
import { Responder, newLedger, type Lookup, type ResponderOptions } from '../../../src/protocols/bitswap/ledger.ts'
import type { WantEntry } from '../../../src/protocols/bitswap/wire.ts'

const name = (cid: Uint8Array): string => new TextDecoder().decode(cid)

const entry = (key: string, more: Partial<WantEntry> = {}): WantEntry => ({
  cid: new TextEncoder().encode(key),
  key,
  hashCode: 0x12,
  priority: 1,
  cancel: false,
  type: 'block',
  sendDontHave: true,
  ...more,
})

class Bench {
  readonly responder: Responder
  readonly ledger = newLedger()
  readonly store = new Map<string, Uint8Array>()
  lookups: string[] = []

  constructor(options: ResponderOptions = {}) {
    this.responder = new Responder(options)
  }

  receive(peer: string, ...wants: WantEntry[]): void {
    this.responder.receive(peer, this.ledger, { full: false, wants, blocks: [], presences: [], pendingBytes: 0 })
  }

  take(): Lookup[] {
    const out: Lookup[] = []
    for (let l = this.responder.nextLookup(); l !== undefined; l = this.responder.nextLookup()) out.push(l)
    this.lookups.push(...out.map((l) => `${l.peer} ${name(l.cid)}`))
    return out
  }

  answer(lookup: Lookup): void {
    const found = this.store.get(name(lookup.cid))
    this.responder.loaded(lookup, lookup.type === 'have' ? found !== undefined : (found ?? false))
  }

  /** Everything that can be looked up is. */
  work(): void {
    for (let lookups = this.take(); lookups.length > 0; lookups = this.take()) for (const l of lookups) this.answer(l)
  }

  sent(peer: string): string | undefined {
    const reply = this.responder.transmit(peer)
    if (reply === undefined) return undefined
    this.responder.sent(reply)
    const { blocks = [], presences = [] } = reply.message
    return [
      ...blocks.map((b) => `+${name(b.cid)}`),
      ...presences.map((p) => `${p.have ? '?' : '-'}${name(p.cid)}`),
    ].join(' ')
  }
}

describe('Responder', () => {
  it('answers with blocks, haves and, when asked, dont-haves in one message', () => {
    const t = new Bench()
    t.store.set('a', new Uint8Array(10)).set('b', new Uint8Array(10))
    t.receive('p', entry('a'), entry('b', { type: 'have' }), entry('c'), entry('d', { sendDontHave: false }))
    t.work()
    expect(t.responder.pending('p')).toBe(true)
    expect(t.sent('p')).toBe('+a ?b -c')
    expect(t.sent('p')).toBeUndefined()
    expect(t.responder.wantsOf('p').map(name)).toEqual(['c', 'd'])
    expect(t.ledger).toMatchObject({ blocksOut: 1, bytesOut: 10 })
    expect(t.responder.outstandingBytes).toBe(0)
  })

  it('sends a block that comes later to those who wait for it', () => {
    const t = new Bench()
    t.receive('p', entry('a'))
    t.receive('q', entry('a', { type: 'have', sendDontHave: false }))
    t.work()
    expect(t.sent('p')).toBe('-a')
    expect(t.sent('q')).toBeUndefined()
    t.store.set('a', new Uint8Array(5))
    t.responder.notify(['a', 'b'])
    t.work()
    expect(t.sent('p')).toBe('+a')
    expect(t.sent('q')).toBe('?a')
    expect(t.responder.wants).toBe(0)
  })

  it('looks again when a block came while it was looked up', () => {
    const t = new Bench()
    t.receive('p', entry('a'))
    const [lookup] = t.take()
    t.responder.notify(['a'])
    t.store.set('a', new Uint8Array(5))
    if (lookup !== undefined) t.responder.loaded(lookup, false)
    t.work()
    expect(t.sent('p')).toBe('+a')
  })

  it('takes back a dont-have that was not sent yet when the block comes', () => {
    const t = new Bench()
    t.receive('p', entry('a'))
    t.work()
    t.store.set('a', new Uint8Array(5))
    t.responder.notify(['a'])
    t.work()
    expect(t.sent('p')).toBe('+a')
    expect(t.sent('p')).toBeUndefined()
  })

  it('gives the block when a want-have becomes a want-block on the way', () => {
    const t = new Bench()
    t.store.set('a', new Uint8Array(5))
    t.receive('p', entry('a', { type: 'have' }))
    const [lookup] = t.take()
    t.receive('p', entry('a'))
    if (lookup !== undefined) t.answer(lookup)
    t.work()
    expect(t.sent('p')).toBe('+a')
    t.receive('p', entry('a', { type: 'have' }))
    t.work()
    t.receive('p', entry('a'))
    t.work()
    expect(t.sent('p')).toBe('+a')
    expect(t.sent('p')).toBeUndefined()
  })

  it('reads for a peer only as far ahead as its outstanding bytes allow', () => {
    const t = new Bench()
    const block = new Uint8Array(1024 * 1024)
    for (let i = 0; i < 20; i++) t.store.set(`${i}`, block)
    t.receive('p', ...Array.from({ length: 20 }, (_, i) => entry(`${i}`)))
    t.work()
    expect(t.lookups).toHaveLength(2)
    expect(t.responder.outstandingBytes).toBe(2 * block.length)
    const reply = t.responder.transmit('p')
    expect(reply?.bytes).toBe(block.length)
    t.work()
    expect(t.lookups).toHaveLength(2)
    if (reply !== undefined) t.responder.sent(reply)
    t.work()
    expect(t.lookups).toHaveLength(3)
    for (let i = 0; i < 30; i++) {
      t.sent('p')
      t.work()
    }
    expect(t.lookups).toHaveLength(20)
    expect(t.responder.outstandingBytes).toBe(0)
  })

  it('fills messages up to their size, and sends a larger block alone', () => {
    const t = new Bench({ messageBytes: 1000 })
    for (const k of ['a', 'b', 'c']) t.store.set(k, new Uint8Array(400))
    t.store.set('big', new Uint8Array(5000))
    t.receive('p', entry('a'), entry('b'), entry('big'), entry('c'))
    t.work()
    expect([t.sent('p'), t.sent('p'), t.sent('p'), t.sent('p')]).toEqual(['+a +b', '+big', '+c', undefined])
  })

  it('lets peers take turns, however much one of them wants', () => {
    const t = new Bench({ lookups: 1 })
    t.receive('greedy', ...Array.from({ length: 1000 }, (_, i) => entry(`g${i}`)))
    t.receive('modest', entry('m0'), entry('m1'))
    t.work()
    expect(t.lookups.slice(0, 4)).toEqual(['greedy g0', 'modest m0', 'greedy g1', 'modest m1'])
  })

  it('keeps at most 1,024 wants of a peer and counts the refused', () => {
    const t = new Bench()
    t.receive('p', ...Array.from({ length: 5000 }, (_, i) => entry(`${i}`)))
    expect(t.responder.wants).toBe(1024)
    expect(t.ledger.refused).toBe(5000 - 1024)
    t.work()
    t.sent('p')
    // We have none of them: others take their places.
    t.receive('p', ...Array.from({ length: 5000 }, (_, i) => entry(`x${i}`)))
    expect(t.responder.wants).toBe(1024)
  })

  it('does not grow when a peer asks and cancels for ever', () => {
    const t = new Bench({ lookups: 1 })
    t.receive('p', entry('stuck'))
    t.take()
    for (let i = 0; i < 20_000; i++) {
      t.receive('p', entry(`${i}`))
      t.receive('p', entry(`${i}`, { cancel: true }))
    }
    expect(t.responder.wants).toBe(1)
    t.responder.disconnect('p')
    expect(t.responder.wants).toBe(0)
  })

  it('gives back the bytes of what is cancelled after it was read', () => {
    const t = new Bench()
    t.store.set('a', new Uint8Array(1000)).set('b', new Uint8Array(1000))
    t.receive('p', entry('a'), entry('b'))
    t.work()
    t.receive('p', entry('a', { cancel: true }))
    expect(t.responder.outstandingBytes).toBe(1000)
    expect(t.sent('p')).toBe('+b')
    expect(t.responder.outstandingBytes).toBe(0)
  })

  it('forgets a peer with all that is under way for it', () => {
    const t = new Bench()
    for (const k of ['a', 'b', 'c']) t.store.set(k, new Uint8Array(1000))
    t.receive('p', entry('a'), entry('b'))
    t.work()
    const reply = t.responder.transmit('p')
    t.receive('p', entry('c'))
    const [lookup] = t.take()
    t.responder.disconnect('p')
    expect(t.responder.outstandingBytes).toBe(0)
    expect(t.responder.wants).toBe(0)
    t.receive('p', entry('c'))
    if (lookup !== undefined) t.answer(lookup)
    if (reply !== undefined) t.responder.sent(reply)
    expect(t.responder.outstandingBytes).toBe(0)
    t.work()
    expect(t.sent('p')).toBe('+c')
    expect(t.responder.outstandingBytes).toBe(0)
  })

  it('serves a peer with nothing outstanding even when slow peers hold all the bytes', () => {
    const t = new Bench({ totalOutstandingBytes: 1000, outstandingBytes: 1000 })
    for (const k of ['a', 'b']) t.store.set(k, new Uint8Array(1000))
    t.receive('slow', entry('a'), entry('b'))
    t.work()
    t.receive('quick', entry('b'))
    t.work()
    expect(t.lookups).toEqual(['slow a', 'quick b'])
    expect(t.sent('quick')).toBe('+b')
  })

  it('takes only whole numbers above 0 for its limits', () => {
    expect(() => new Responder({ wantlistEntries: 0 })).toThrow(RangeError)
    expect(() => new Responder({ messageBytes: 1.5 })).toThrow(RangeError)
  })
})
