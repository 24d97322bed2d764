import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ReceiveWindow, SendWindow } from '../../../src/mux/yamux/flow.ts'
import { UsedIds } from '../../../src/mux/yamux/ids.ts'

describe('yamux windows', () => {
  it('starts with 256 KiB both ways', () => {
    expect(new SendWindow().available).toBe(262_144)
    expect(new ReceiveWindow().credit).toBe(262_144)
  })

  it('refuses credit that would pass 2^32-1, and keeps what it had', () => {
    const window = new SendWindow()
    expect(window.grant(0xffff_ffff - 262_144)).toBe(true)
    expect(window.available).toBe(0xffff_ffff)
    expect(window.grant(1)).toBe(false)
    expect(window.available).toBe(0xffff_ffff)
  })

  it('throws when we send more than we may: that is our own mistake', () => {
    expect(() => new SendWindow().consume(262_145)).toThrow(RangeError)
  })

  it('refuses one byte beyond the credit', () => {
    const window = new ReceiveWindow()
    expect(window.receive(262_145)).toBe(false)
    expect(window.receive(262_144)).toBe(true)
    expect(window.receive(1)).toBe(false)
  })

  it('owes nothing for bytes that arrived and were not read', () => {
    const window = new ReceiveWindow()
    window.receive(200_000)
    expect(window.owed).toBe(0)
    window.take(131_071)
    expect(window.due).toBe(false)
    window.take(1)
    expect(window.due).toBe(true)
    expect(window.grant()).toBe(131_072)
    expect(window.owed).toBe(0)
  })

  it('owes the difference when it grows', () => {
    const window = new ReceiveWindow()
    window.grow(1_048_576)
    expect(window.grant()).toBe(786_432)
  })

  it('keeps credit + unread + owed = max through any story', () => {
    const step = fc.tuple(fc.constantFrom('receive', 'take', 'grant', 'grow'), fc.nat(400_000))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const window = new ReceiveWindow()
        for (const [what, size] of steps) {
          if (what === 'receive') window.receive(size)
          else if (what === 'take') window.take(Math.min(size, window.unread))
          else if (what === 'grant') window.grant()
          else window.grow(window.max + size)
          expect(Math.min(window.credit, window.unread, window.owed)).toBeGreaterThanOrEqual(0)
          expect(window.credit + window.unread + window.owed).toBe(window.max)
        }
      }),
    )
  })
})

describe('used stream ids', () => {
  it('agrees with a plain set, whatever the order', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(40), { maxLength: 80 }), (numbers) => {
        const ids = new UsedIds(1)
        const plain = new Set<number>()
        for (const n of numbers) {
          const id = 2 * n + 1
          expect(ids.use(id)).toBe(!plain.has(id))
          plain.add(id)
        }
      }),
    )
  })

  it('takes the last id there is', () => {
    const ids = new UsedIds(2)
    expect(ids.use(0xffff_fffe)).toBe(true)
    expect(ids.use(0xffff_fffe)).toBe(false)
    expect(ids.use(2)).toBe(true)
  })

  it('forgets the oldest of more than 1024 gaps, which then count as used', () => {
    const ids = new UsedIds(1)
    for (let i = 1; i <= 1025; i++) expect(ids.use(4 * i + 1)).toBe(true)
    expect(ids.use(3)).toBe(false)
    expect(ids.use(7)).toBe(true)
  })
})
