/* Streams per second on one connection: open, echo 32 bytes, close; one after another, and 32 at a time. */
import { bench, interleave, pairOf, withPairs, type Sample } from './lib.ts'

void bench('streams', { rounds: 9, seconds: 600 }, async ({ rounds, kinds, scale }) => {
  const count = Math.ceil(3000 * scale)
  return withPairs(kinds, async (pairs) => {
    const measure = async (kind: string): Promise<Sample> => {
      const { client, addr } = pairOf(pairs, kind)
      const rate = async (parallel: number): Promise<number> => {
        // A faster way gets more to do, so that each takes about as long.
        const streams = Math.ceil((count * (parallel > 1 ? 3 : 1)) / (kind === 'js' ? 5 : 1))
        const { seconds } = await client.call('streams', { addr, count: streams, parallel, payload: 32 })
        return streams / Number(seconds)
      }
      return { sequential: await rate(1), '32 at a time': await rate(32) }
    }
    for (const kind of kinds) await measure(kind)
    const rate = { unit: 'streams/s', better: 'higher' } as const
    return { count, works: await interleave({ rounds, kinds }, { sequential: rate, '32 at a time': rate }, measure) }
  })
})
