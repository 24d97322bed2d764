/* One stream over TCP + Noise + yamux, two processes on loopback: /perf/1.0.0 up and down, and up in writes of 1 KiB. */
import { bench, interleave, pairOf, withPairs, type Sample } from './lib.ts'

const MiB = 1024 * 1024
const speed = { unit: 'MB/s', better: 'higher' } as const

void bench('throughput', { rounds: 9, seconds: 600 }, async ({ rounds, kinds, scale }) => {
  const bytes = Math.ceil(256 * scale) * MiB
  return withPairs(kinds, async (pairs) => {
    const measure = async (kind: string): Promise<Sample> => {
      const { client, addr } = pairOf(pairs, kind)
      const bulk = await client.call('perf', { addr, upload: bytes, download: bytes })
      // A slower peer gets less to do.
      const smallBytes = Math.ceil((kind === 'js' ? 16 : 64) * scale) * MiB
      const small = await client.call('perf', { addr, upload: smallBytes, download: 0, writeSize: 1024 })
      const upload = bytes / 1e6 / Number(bulk['uploadSeconds'])
      const smallWrites = smallBytes / 1e6 / Number(small['uploadSeconds'])
      return {
        upload,
        download: bytes / 1e6 / Number(bulk['downloadSeconds']),
        'upload in 1 KiB writes': smallWrites,
        '1 KiB writes to own 64 KiB writes': smallWrites / upload,
      }
    }
    for (const kind of kinds) await measure(kind)
    const works = await interleave(
      { rounds, kinds },
      {
        upload: speed,
        download: speed,
        'upload in 1 KiB writes': speed,
        '1 KiB writes to own 64 KiB writes': { unit: 'x', better: 'higher' },
      },
      measure,
    )
    return { bytes, works }
  })
})
