/*
 * A 1 GB file over Bitswap between two processes, hash of the content included. rhiza's client keeps the blocks on disk
 * (synced) and, for the like-for-like ratio, in memory; Helia and boxo keep them in memory.
 */
import { bench, interleave, memory, start, temporary, type Kind, type Sample } from './lib.ts'

const timeoutMs = 300_000
const time = { unit: 'MB/s', better: 'higher' } as const
const growth = { unit: 'MB', better: 'lower' } as const

void bench('bitswap', { rounds: 3, seconds: 1800 }, async ({ rounds, kinds, scale }) => {
  const size = Math.ceil(1000 * scale) * 1_000_000

  const fetch = async (kind: Kind, repo?: string): Promise<{ speed: number; grown: number }> => {
    await using server = await start(kind)
    const { cid } = await server.call('addBytes', { size, seed: 7, timeoutMs })
    await using client = await start(kind, repo === undefined ? [] : ['--repo', repo])
    const addr = server.addrs[0]
    await client.call('connect', { addr })
    const before = memory(client.pid).rss
    const { seconds, size: got } = await client.call('fetch', { cid, addr, timeoutMs })
    if (got !== size) throw new Error(`${kind} got ${String(got)} of ${size} bytes`)
    return { speed: size / 1e6 / Number(seconds), grown: (memory(client.pid).peak - before) / 1e6 }
  }

  const measure = async (kind: string): Promise<Sample> => {
    const inMemory = await fetch(kind as Kind)
    let onDisk = inMemory
    if (kind === 'rhiza') {
      using directory = temporary()
      onDisk = await fetch('rhiza', `${directory.path}/repo`)
    }
    return {
      'into a disk store': onDisk.speed,
      'into a memory store': inMemory.speed,
      'client memory growth, disk store': onDisk.grown,
      'client memory growth, memory store': inMemory.grown,
    }
  }
  const works = {
    'into a disk store': time,
    'into a memory store': time,
    'client memory growth, disk store': growth,
    'client memory growth, memory store': growth,
  }
  return { bytes: size, works: await interleave({ rounds, kinds }, works, measure) }
})
