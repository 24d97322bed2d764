import { describe, expect, it } from 'vitest'
import { Dials } from '../../src/dial/dials.ts'
import { race, type Candidate } from '../../src/dial/race.ts'
import { FakeClock, settle } from '../../src/env.ts'
import type { Attempt } from '../../src/errors.ts'
import { deferred, quiet, type Deferred } from '../../src/inbox.ts'

const never = new AbortController().signal

function lab(maxDials = 100) {
  const clock = new FakeClock()
  const tries = new Map<string, { at: number; result: Deferred<string>; signal: AbortSignal }>()
  const start = (addr: string, signal: AbortSignal): Promise<string> => {
    const result = deferred<string>()
    signal.addEventListener('abort', () => result.reject(signal.reason as Error), { once: true })
    tries.set(addr, { at: clock.now(), result, signal })
    return result.promise
  }
  const dials = new Dials<string>(start, clock, { maxDials, maxDialsPerPeer: 8 })
  const tried: Attempt[] = []
  const run = (candidates: readonly [string, number][], signal = never): Promise<string | undefined> =>
    quiet(
      race(
        dials,
        candidates.map(([addr, delayMs]): Candidate => ({ addr, delayMs, peer: 'p' })),
        tried,
        { clock, signal },
      ),
    )
  const begun = (): [string, number][] => [...tries].map(([addr, { at }]) => [addr, at])
  return { clock, tries, tried, dials, run, begun }
}

describe('a race', () => {
  it('begins each address at its time, and ends the others when one answers', async () => {
    const { clock, tries, run, begun } = lab()
    const won = run([['/a', 0], ['/b', 0], ['/c', 250], ['/d', 500]]) // prettier-ignore
    await clock.advance(300)
    expect(begun()).toEqual([['/a', 0], ['/b', 0], ['/c', 250]]) // prettier-ignore
    tries.get('/b')?.result.resolve('b')
    expect(await won).toBe('b')
    expect([...tries.values()].map(({ signal }) => signal.aborted)).toEqual([true, false, true])
    await clock.advance(10_000)
    expect(tries.has('/d')).toBe(false)
    expect(clock.waiting).toBe(0)
  })

  it('begins any number of addresses at one moment, as many as may run', async () => {
    const { clock, tries, run } = lab()
    const gone = new AbortController()
    const all = Array.from({ length: 20_000 }, (_, i): [string, number] => [`/${i}`, 0])
    const won = run(all, gone.signal)
    await settle()
    expect(tries.size).toBe(8)
    tries.get('/5')?.result.resolve('5')
    expect(await won).toBe('5')
    expect(clock.waiting).toBe(0)
  })

  it('goes on to the next address as soon as one fails', async () => {
    const { clock, tries, tried, run, begun } = lab()
    const won = run([['/a', 0], ['/b', 250], ['/c', 500]]) // prettier-ignore
    await clock.advance(10)
    tries.get('/a')?.result.reject(new Error('refused'))
    await settle()
    expect(begun()).toEqual([['/a', 0], ['/b', 10]]) // prettier-ignore
    await clock.advance(250)
    expect(begun().at(-1)).toEqual(['/c', 260])
    tries.get('/b')?.result.reject(new Error('no route'))
    tries.get('/c')?.result.reject(new Error('refused, too'))
    expect(await won).toBeUndefined()
    expect(tried.map(({ what, reason }) => [what, (reason as Error).message])).toEqual([
      ['/a', 'refused'],
      ['/b', 'no route'],
      ['/c', 'refused, too'],
    ])
    expect(clock.waiting).toBe(0)
  })

  it('shares attempts with whoever dials the same peer, each with a signal of its own', async () => {
    const { clock, tries, tried, run } = lab()
    const controller = new AbortController()
    const one = run([['/a', 0], ['/b', 250]], controller.signal) // prettier-ignore
    const two = run([['/a', 0], ['/z', 100]]) // prettier-ignore
    await clock.advance(100)
    expect([...tries.keys()]).toEqual(['/a', '/z'])
    controller.abort(new Error('changed my mind'))
    await expect(one).rejects.toThrow('changed my mind')
    expect(tries.get('/a')?.signal.aborted).toBe(false)
    expect(tried).toEqual([
      { what: '/a', reason: 'no answer until the end' },
      { what: '/b', reason: 'its turn did not come' },
    ])
    // One who comes later with an address of his own serves those before him.
    const three = run([['/last', 0]])
    tries.get('/last')?.result.resolve('c')
    expect(await Promise.all([two, three])).toEqual(['c', 'c'])
    expect([...tries.values()].every(({ signal }) => signal.aborted || signal === tries.get('/last')?.signal)).toBe(
      true,
    )
    await settle()
    expect(clock.waiting).toBe(0)
  })

  it('keeps the order of addresses that wait in line', async () => {
    const { clock, tries, run } = lab(1)
    const won = run([['/a', 0], ['/b', 10], ['/c', 20]]) // prettier-ignore
    await clock.advance(1_000)
    expect([...tries.keys()]).toEqual(['/a'])
    tries.get('/a')?.result.reject(new Error('refused'))
    await settle()
    expect([...tries.keys()]).toEqual(['/a', '/b'])
    tries.get('/b')?.result.resolve('b')
    expect(await won).toBe('b')
    expect(tries.has('/c')).toBe(false)
  })
})
