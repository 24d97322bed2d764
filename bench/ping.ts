/* Round trips of /ipfs/ping/1.0.0, both processes on one CPU: else the time a CPU takes to wake up is what is measured. */
import { bench, interleave, pairOf, pin, quantile, withPairs, type Sample } from './lib.ts'

void bench('ping', { rounds: 9, seconds: 300 }, async ({ rounds, kinds, scale }) => {
  const count = Math.ceil(4000 * scale)
  return withPairs(kinds, async (pairs) => {
    const measure = async (kind: string): Promise<Sample> => {
      const { client, addr } = pairOf(pairs, kind)
      const { rttMs } = (await client.call('ping', { addr, count })) as unknown as { rttMs: number[] }
      return { p50: quantile(rttMs, 0.5) * 1000, p99: quantile(rttMs, 0.99) * 1000 }
    }
    for (const kind of kinds) {
      const { client, server } = pairOf(pairs, kind)
      await pin(1, client, server)
      // Long enough for the compilers, which share the CPU.
      for (let i = 0; i < 5; i++) await measure(kind)
    }
    const time = { unit: 'us', better: 'lower' } as const
    return { count, works: await interleave({ rounds, kinds }, { p50: time, p99: time }, measure) }
  })
})
