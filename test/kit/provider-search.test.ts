import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { fakeEnv, settle } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import type { CID } from '../../src/ipld/cid.ts'
import { ProviderSearch } from '../../src/kit/provider-search.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { generateKey } from '../../src/peer/keys.ts'

const cidAt = (i: number): CID => cidOf(0x55, fromUtf8(`block ${i}`))
const missing = (): UnavailableError => new UnavailableError('not-found', 'nobody has it')

interface World {
  connected: PeerId[]
  /** Peers that have every block. */
  good: Set<PeerId>
  providers: PeerId[]
  searches: string[]
  asked: number
  /** A search lasts so long, and each provider in it. */
  searchMs: number
  /** An answer of a peer takes so long. */
  answerMs: number
  env: ReturnType<typeof fakeEnv>
  search: ProviderSearch<{ peer: PeerId }>
}

const peers = Array.from({ length: 12 }, () => generateKey().publicKey.peerId)

function world(options: { connected?: PeerId[]; good?: PeerId[]; providers?: PeerId[]; silent?: boolean } = {}): World {
  const env = fakeEnv()
  const pass = (ms: number): Promise<void> => new Promise((resolve) => void env.clock.setTimer(ms, () => resolve()))
  const made: World = {
    connected: options.connected ?? [],
    good: new Set(options.good),
    providers: options.providers ?? [],
    searches: [],
    asked: 0,
    searchMs: 100,
    answerMs: 10,
    env,
    search: new ProviderSearch<{ peer: PeerId }>({
      env,
      hasPeers: () => made.connected.length > 0,
      async ask(cid, { signal } = {}) {
        made.asked++
        for (;;) {
          await pass(made.answerMs)
          signal?.throwIfAborted()
          if (made.connected.some((peer) => made.good.has(peer))) return fromUtf8(cid.toString())
          if (options.silent !== true) throw missing()
        }
      },
      async *find(cid, signal) {
        made.searches.push(cid.toString())
        for (const peer of made.providers) {
          await pass(made.searchMs)
          if (signal.aborted) return
          yield { peer }
        }
        await pass(made.searchMs)
      },
      async join({ peer }) {
        await pass(10)
        if (made.connected.includes(peer)) return false
        made.connected.push(peer)
        return true
      },
    }),
  }
  return made
}

async function over<T>({ env }: World, work: Promise<T>, stepMs = 10): Promise<T> {
  let done = false
  const end = (): void => void (done = true)
  work.then(end, end)
  for (let i = 0; !done && i < 20_000; i++) {
    await env.clock.advance(stepMs)
    await settle()
  }
  return work
}

const [a, b, c] = peers as [PeerId, PeerId, PeerId]

describe('a search for providers', () => {
  it('is not made while the peers at hand have the blocks: none for each block of a file', async () => {
    const w = world({ connected: [a], good: [a], providers: [b] })
    const all = Promise.all(Array.from({ length: 500 }, (_, i) => w.search.get(cidAt(i))))
    expect(await over(w, all)).toHaveLength(500)
    expect(w.searches).toEqual([])
    await w.search.stop(new Error('over'))
  })

  it('is not made while blocks come, however slowly the file as a whole', async () => {
    const w = world({ connected: [a], good: [a], providers: [b] })
    w.answerMs = 800
    const chain = async (from: number): Promise<void> => {
      for (let i = 0; i < 6; i++) await w.search.get(cidAt(from + i))
    }
    const late = new Promise<void>((resolve) => void w.env.clock.setTimer(400, () => resolve())).then(() => chain(100))
    await over(w, Promise.all([chain(0), late]))
    expect(w.env.clock.now()).toBeGreaterThan(4_000)
    expect(w.searches).toEqual([])
    await w.search.stop(new Error('over'))
  })

  it('begins at once where there is nobody to ask, and once suffices for a whole file', async () => {
    const w = world({ good: [b], providers: [b] })
    await over(w, w.search.get(cidAt(0)))
    await over(w, Promise.all(Array.from({ length: 500 }, (_, i) => w.search.get(cidAt(i)))))
    expect(w.searches).toEqual([cidAt(0).toString()])
    await w.search.stop(new Error('over'))
  })

  it('begins when all who are connected lack the block', async () => {
    const w = world({ connected: [a], good: [c], providers: [b, c] })
    await over(w, w.search.get(cidAt(0)))
    expect(w.searches).toHaveLength(1)
    expect(w.connected).toEqual([a, b, c])
    await w.search.stop(new Error('over'))
  })

  it('begins after a second of silence, and ends when the block comes', async () => {
    const w = world({ connected: [a], good: [b], providers: [b, c], silent: true })
    w.searchMs = 1_000
    const since = w.env.clock.now()
    await over(w, w.search.get(cidAt(0)))
    expect(w.env.clock.now() - since).toBeGreaterThanOrEqual(2_000)
    await over(w, new Promise<void>((resolve) => void w.env.clock.setTimer(5_000, () => resolve())))
    expect(w.searches).toHaveLength(1)
    expect(w.connected).toEqual([a, b])
    await w.search.stop(new Error('over'))
  })

  it('rejects with what the peers said when nobody is found, after one search', async () => {
    const w = world({ connected: [a] })
    await expect(over(w, w.search.get(cidAt(0)))).rejects.toThrow('nobody has it')
    expect(w.searches).toHaveLength(1)
    await expect(over(w, w.search.get(cidAt(0)))).rejects.toThrow('nobody has it')
    expect(w.searches).toHaveLength(1)
    const alone = world()
    await expect(over(alone, alone.search.get(cidAt(0)))).rejects.toThrow('no peer was found')
    await Promise.all([w.search.stop(new Error('over')), alone.search.stop(new Error('over'))])
  })

  it('asks whoever connects meanwhile where nobody was there', async () => {
    const w = world({ good: [b] })
    w.searchMs = 10_000
    const work = w.search.get(cidAt(0))
    await w.env.clock.advance(500)
    w.connected.push(b)
    w.search.arrived()
    await over(w, work)
    expect(w.env.clock.now()).toBeLessThan(2_000)
    await over(w, w.search.stop(new Error('over')))
  })

  it('runs one search at a time', async () => {
    const w = world({ connected: [a] })
    const work = Promise.allSettled(Array.from({ length: 5 }, (_, i) => w.search.get(cidAt(i))))
    const results = await over(w, work)
    expect(results.every(({ status }) => status === 'rejected')).toBe(true)
    expect(w.searches).toHaveLength(5)
    expect(w.env.clock.now()).toBeGreaterThanOrEqual(500)
    await w.search.stop(new Error('over'))
  })

  it('ends when the signal aborts, and when it is stopped', async () => {
    const w = world()
    w.searchMs = 60_000
    const controller = new AbortController()
    const work = w.search.get(cidAt(0), { signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(work).rejects.toThrow('enough')
    const other = w.search.get(cidAt(1))
    const failed = expect(other).rejects.toThrow('the end')
    await over(w, w.search.stop(new Error('the end')))
    await failed
  })
})
