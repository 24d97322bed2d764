/*
 * UnixFS add of a 1 GB file (1 MiB chunks, unixfs-v1-2025) that the system has in its cache. rhiza into memory and onto
 * disk (synced); Helia and boxo into memory. Every round in a new process, so that no store knows the blocks already.
 */
import { randomFillSync } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { bench, interleave, start, temporary, type Kind, type Sample } from './lib.ts'

const timeoutMs = 300_000
const speed = { unit: 'MB/s', better: 'higher' } as const

function writeRandom(path: string, megabytes: number): void {
  const file = openSync(path, 'w')
  const chunk = new Uint8Array(1_000_000)
  for (let i = 0; i < megabytes; i++) writeSync(file, randomFillSync(chunk))
  closeSync(file)
}

void bench('unixfs-add', { rounds: 3, seconds: 1200 }, async ({ rounds, kinds, scale }) => {
  using directory = temporary()
  const path = `${directory.path}/file`
  const warm = `${directory.path}/warm`
  const megabytes = Math.ceil(1000 * scale)
  writeRandom(path, megabytes)
  writeRandom(warm, Math.ceil(50 * scale))
  const cids = new Set<unknown>()

  const add = async (kind: Kind, args: string[] = []): Promise<number> => {
    await using peer = await start(kind, args)
    await peer.call('addBytes', { path: warm, timeoutMs })
    const { cid, seconds } = await peer.call('addBytes', { path, timeoutMs })
    cids.add(cid)
    return megabytes / Number(seconds)
  }
  const measure = async (kind: string): Promise<Sample> => {
    const inMemory = await add(kind as Kind)
    if (kind !== 'rhiza') return { 'into memory': inMemory, 'onto disk': inMemory }
    using repo = temporary()
    return { 'into memory': inMemory, 'onto disk': await add('rhiza', ['--repo', `${repo.path}/repo`]) }
  }
  const works = await interleave({ rounds, kinds }, { 'into memory': speed, 'onto disk': speed }, measure)
  if (cids.size !== 1) throw new Error(`the peers disagree: ${[...cids].join(', ')}`)
  return { bytes: megabytes * 1_000_000, works }
})
