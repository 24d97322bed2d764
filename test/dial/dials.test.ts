import { describe, expect, it } from 'vitest'
import { Dials } from '../../src/dial/dials.ts'
import { ClosedError, UnavailableError } from '../../src/errors.ts'
import { deferred, type Deferred } from '../../src/inbox.ts'

const never = new AbortController().signal

function lab(): { dials: Dials<string>; tries: Map<string, { result: Deferred<string>; signal: AbortSignal }> } {
  const tries = new Map<string, { result: Deferred<string>; signal: AbortSignal }>()
  const dials = new Dials<string>((addr, signal) => {
    const result = deferred<string>()
    signal.addEventListener('abort', () => result.reject(signal.reason as Error), { once: true })
    tries.set(addr, { result, signal })
    return result.promise
  })
  return { dials, tries }
}

describe('dials', () => {
  it('are shared by those who want the same address', async () => {
    const { dials, tries } = lab()
    const both = [dials.to('/a', 'p', never), dials.to('/a', 'p', never)]
    expect(tries.size).toBe(1)
    tries.get('/a')?.result.resolve('c')
    expect(await Promise.all(both)).toEqual(['c', 'c'])
    expect(dials.toPeer('p', never)).toBeUndefined()
  })

  it('of one peer end with the first that answers, those of another go on', async () => {
    const { dials, tries } = lab()
    const all = [dials.to('/a', 'p', never), dials.to('/b', 'p', never), dials.to('/c', 'q', never)]
    const byPeer = dials.toPeer('p', never)
    tries.get('/b')?.result.resolve('b')
    expect(await Promise.all([all[0], all[1], byPeer])).toEqual(['b', 'b', 'b'])
    expect(tries.get('/a')?.signal.reason).toBeInstanceOf(ClosedError)
    expect(tries.get('/c')?.signal.aborted).toBe(false)
    tries.get('/c')?.result.resolve('c')
    expect(await all[2]).toBe('c')
  })

  it('tell of every address that failed', async () => {
    const { dials, tries } = lab()
    const [a, b] = [dials.to('/a', 'p', never), dials.to('/b', 'p', never)]
    const byPeer = dials.toPeer('p', never)
    tries.get('/a')?.result.reject(new Error('refused'))
    tries.get('/b')?.result.reject(new Error('no route'))
    await expect(a).rejects.toThrow('refused')
    await expect(b).rejects.toThrow('no route')
    await expect(byPeer).rejects.toSatisfy((e) => e instanceof UnavailableError && e.tried.length === 2)
  })

  it('end when the last caller gives up, and begin anew for the next', async () => {
    const { dials, tries } = lab()
    const one = new AbortController()
    const two = new AbortController()
    const calls = [dials.to('/a', undefined, one.signal), dials.to('/a', undefined, two.signal)]
    const first = tries.get('/a')
    one.abort(new Error('one'))
    await expect(calls[0]).rejects.toThrow('one')
    expect(first?.signal.aborted).toBe(false)
    two.abort(new Error('two'))
    await expect(calls[1]).rejects.toThrow('two')
    expect(first?.signal.reason).toMatchObject({ message: 'two' })
    const again = dials.to('/a', undefined, never)
    expect(tries.get('/a')).not.toBe(first)
    dials.abort(new Error('stopped'))
    await expect(again).rejects.toThrow('stopped')
  })
})
