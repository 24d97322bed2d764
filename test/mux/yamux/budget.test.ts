import { describe, expect, it } from 'vitest'
import { ReceiveBudget } from '../../../src/mux/yamux/budget.ts'
import { ReceiveWindow } from '../../../src/mux/yamux/flow.ts'
import { sessionOptions, type SessionOptions } from '../../../src/mux/yamux/options.ts'

const MiB = 1024 * 1024

function bulk(options: SessionOptions = {}): { budget: ReceiveBudget; more: () => ReceiveWindow } {
  const budget = new ReceiveBudget(sessionOptions(options))
  const more = (): ReceiveWindow => {
    const window = new ReceiveWindow()
    budget.opened()
    window.receive(64 * 1024)
    window.take(64 * 1024)
    budget.growBulk(window)
    budget.growFar(window, 0)
    return window
  }
  return { budget, more }
}

describe('receive windows', () => {
  it('stay at 1 MiB as long as no round trip was measured', () => {
    const { budget, more } = bulk()
    const window = more()
    budget.growFar(window, 1)
    expect(window.max).toBe(MiB)
  })

  it('stay at 1 MiB on a short way, however fast they are read', () => {
    const { budget, more } = bulk()
    budget.measured(1.9)
    const window = more()
    for (let now = 1; now < 20; now++) budget.growFar(window, now)
    expect(window.max).toBe(MiB)
  })

  it('double when half of one is read within two round trips, not later', () => {
    const { budget, more } = bulk()
    budget.measured(50)
    const window = more()
    budget.growFar(window, 100)
    expect(window.max).toBe(MiB)
    budget.growFar(window, 199)
    expect(window.max).toBe(2 * MiB)
  })

  it('end at maxStreamWindowBytes', () => {
    const { budget, more } = bulk({ maxStreamWindowBytes: 3 * MiB })
    budget.measured(50)
    const window = more()
    for (let now = 1; now < 20; now++) budget.growFar(window, now)
    expect(window.max).toBe(3 * MiB)
    expect(budget.largest).toBe(3 * MiB)
  })

  it('go by the least of the last four round trips: those under load count queues', () => {
    const { budget } = bulk()
    for (const ms of [80, 20, 300, 400]) budget.measured(ms)
    expect(budget.rttMs).toBe(20)
    budget.measured(500)
    budget.measured(600)
    expect(budget.rttMs).toBe(300)
  })

  it('take at most half of what the others leave, and give it back when they end', () => {
    const { budget, more } = bulk({ receiveBudgetBytes: 16 * MiB })
    budget.measured(50)
    const grown = (): ReceiveWindow => {
      const window = more()
      for (let now = 1; now < 20; now++) budget.growFar(window, now)
      return window
    }
    const [first, second, third] = [grown(), grown(), grown()]
    expect([first, second, third].map(({ max }) => max)).toEqual([8 * MiB, 4 * MiB, 2 * MiB])
    budget.closed(first)
    for (let now = 20; now < 40; now++) budget.growFar(second, now)
    expect(second.max).toBe(7 * MiB)
  })
})
