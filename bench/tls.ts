/* One stream over TCP + TLS + yamux, two processes on loopback; go-libp2p over Noise, which is what we are held against. */
import { bench, interleave, pairOf, withPairs, type Sample } from './lib.ts'

const MiB = 1024 * 1024
const speed = { unit: 'MB/s', better: 'higher' } as const

const argsOf = (kind: string): string[] => ['--bitswap', 'none', '--security', kind === 'go' ? 'noise' : 'tls']

void bench('tls', { rounds: 9, seconds: 600 }, async ({ rounds, kinds, scale }) => {
  const bytes = Math.ceil(256 * scale) * MiB
  return withPairs(
    kinds,
    async (pairs) => {
      const measure = async (kind: string): Promise<Sample> => {
        const { client, addr } = pairOf(pairs, kind)
        const bulk = await client.call('perf', { addr, upload: bytes, download: bytes })
        return {
          upload: bytes / 1e6 / Number(bulk['uploadSeconds']),
          download: bytes / 1e6 / Number(bulk['downloadSeconds']),
        }
      }
      for (const kind of kinds) await measure(kind)
      const works = await interleave({ rounds, kinds }, { upload: speed, download: speed }, measure)
      return { bytes, works }
    },
    argsOf,
  )
})
