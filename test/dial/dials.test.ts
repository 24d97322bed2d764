import { describe, expect, it } from 'vitest'
import { Dials, type DialLimits } from '../../src/dial/dials.ts'
import { FakeClock, settle } from '../../src/env.ts'
import { ClosedError, TimeoutError } from '../../src/errors.ts'
import { deferred, type Deferred } from '../../src/inbox.ts'

const never = new AbortController().signal

interface Lab {
  dials: Dials<string>
  clock: FakeClock
  tries: Map<string, { result: Deferred<string>; signal: AbortSignal }>
}

function lab(limits: DialLimits = { maxDials: 100, maxDialsPerPeer: 8 }): Lab {
  const tries: Lab['tries'] = new Map()
  const clock = new FakeClock()
  const start = (addr: string, signal: AbortSignal): Promise<string> => {
    const result = deferred<string>()
    signal.addEventListener('abort', () => result.reject(signal.reason as Error), { once: true })
    tries.set(addr, { result, signal })
    return result.promise
  }
  return { dials: new Dials<string>(start, clock, limits), clock, tries }
}

describe('dials', () => {
  it('are shared by those who want the same address', async () => {
    const { dials, tries } = lab()
    const both = [dials.to('/a', 'p', never), dials.to('/a', 'p', never)]
    expect(tries.size).toBe(1)
    tries.get('/a')?.result.resolve('c')
    expect(await Promise.all(both)).toEqual(['c', 'c'])
    expect(dials.addrsOf('p')).toEqual([])
  })

  it('of one peer end with the first that answers, those of another go on', async () => {
    const { dials, tries } = lab()
    const all = [dials.to('/a', 'p', never), dials.to('/b', 'p', never), dials.to('/c', 'q', never)]
    expect(dials.addrsOf('p')).toEqual(['/a', '/b'])
    tries.get('/b')?.result.resolve('b')
    expect(await Promise.all([all[0], all[1]])).toEqual(['b', 'b'])
    expect(tries.get('/a')?.signal.reason).toBeInstanceOf(ClosedError)
    expect(tries.get('/c')?.signal.aborted).toBe(false)
    tries.get('/c')?.result.resolve('c')
    expect(await all[2]).toBe('c')
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

  it('wait in line when so many run already, at one peer and in all', async () => {
    const { dials, tries } = lab({ maxDials: 3, maxDialsPerPeer: 2 })
    const calls = ['/a', '/b', '/c'].map((addr) => dials.to(addr, 'p', never))
    expect([...tries.keys()]).toEqual(['/a', '/b'])
    const other = [dials.to('/x', 'q', never), dials.to('/y', 'q', never)]
    expect([...tries.keys()]).toEqual(['/a', '/b', '/x'])
    // The place that p's attempt leaves is the first one's in line.
    tries.get('/a')?.result.reject(new Error('refused'))
    await expect(calls[0]).rejects.toThrow('refused')
    await settle()
    expect([...tries.keys()]).toEqual(['/a', '/b', '/x', '/c'])
    tries.get('/x')?.result.resolve('x')
    expect(await Promise.all(other)).toEqual(['x', 'x'])
    expect(tries.has('/y')).toBe(false)
    tries.get('/c')?.result.resolve('c')
    expect(await Promise.all(calls.slice(1))).toEqual(['c', 'c'])
  })

  it('leave the line when nobody waits any more, and hold their place until their socket is gone', async () => {
    const sockets: Deferred<string>[] = []
    const dials = new Dials<string>(
      () => {
        const socket = deferred<string>()
        sockets.push(socket)
        return socket.promise
      },
      new FakeClock(),
      { maxDials: 1, maxDialsPerPeer: 1 },
    )
    const [one, two] = [new AbortController(), new AbortController()]
    const calls = [dials.to('/a', 'p', one.signal), dials.to('/b', 'p', two.signal), dials.to('/c', 'p', never)]
    two.abort(new Error('two'))
    await expect(calls[1]).rejects.toThrow('two')
    one.abort(new Error('one'))
    await expect(calls[0]).rejects.toThrow('one')
    expect(sockets).toHaveLength(1)
    sockets[0]?.reject(new Error('closed'))
    await settle()
    expect(sockets).toHaveLength(2)
    sockets[1]?.resolve('c')
    expect(await calls[2]).toBe('c')
  })

  it('take no longer than their own time, and leave no timer', async () => {
    const { dials, clock, tries } = lab({ maxDials: 1, maxDialsPerPeer: 1 })
    const [a, b] = [dials.join('/a', 'p', 5_000), dials.join('/b', 'p', 5_000)]
    await clock.advance(5_000)
    await expect(a.outcome.promise).rejects.toBeInstanceOf(TimeoutError)
    // Time in line does not count.
    await clock.advance(4_999)
    expect(tries.get('/b')?.signal.aborted).toBe(false)
    tries.get('/b')?.result.resolve('b')
    expect(await b.outcome.promise).toBe('b')
    await settle()
    expect(clock.waiting).toBe(0)
  })
})
