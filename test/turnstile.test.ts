import { describe, expect, it } from 'vitest'
import { Turnstile } from '../src/turnstile.ts'

describe('a turnstile', () => {
  it('lets so many pass in a turn, the others in the turns after it, in their order', async () => {
    const turns: (() => void)[] = []
    const turnstile = new Turnstile({ turn: (fn) => void turns.push(fn) }, 2)
    const passed: number[] = []
    const turn = async (): Promise<void> => {
      turns.shift()?.()
      for (let i = 0; i < 5; i++) await Promise.resolve()
    }
    for (let i = 0; i < 5; i++) void turnstile.pass().then(() => passed.push(i))
    for (let i = 0; i < 5; i++) await Promise.resolve()
    expect(passed).toEqual([0, 1])
    await turn()
    expect(passed).toEqual([0, 1, 2, 3])
    // Who comes now waits behind those that waited before.
    void turnstile.pass().then(() => passed.push(5))
    await turn()
    expect(passed).toEqual([0, 1, 2, 3, 4, 5])
    await turn()
    // With nobody in line no turn is asked for.
    expect(turns).toEqual([])
    await turnstile.pass()
    expect(turns).toHaveLength(1)
  })
})
