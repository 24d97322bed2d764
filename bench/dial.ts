/*
 * Dial to the first ping's reply, one after another; connections per second with 8 clients; memory that one more idle
 * connection takes; the same rhiza client asks every kind of server.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { bench, interleave, median, memory, pairOf, start, withPairs, type Kind, type Sample } from './lib.ts'

const bare = ['--bitswap', 'none']
const settleMs = 1000

void bench('dial', { rounds: 9, seconds: 900 }, async ({ rounds, kinds, scale }) => {
  const count = Math.ceil(100 * scale)
  const speeds = await withPairs(kinds, async (pairs) => {
    const measure = async (kind: string): Promise<Sample> => {
      const { client, addr } = pairOf(pairs, kind)
      const { dialMs } = (await client.call('dials', { addr, count, parallel: 1 })) as unknown as { dialMs: number[] }
      const { seconds } = await client.call('dials', { addr, count: count * 4, parallel: 8 })
      return { 'dial to first ping': median(dialMs), 'connections with 8 clients': (count * 4) / Number(seconds) }
    }
    for (let i = 0; i < 3; i++) for (const kind of kinds) await measure(kind)
    return interleave(
      { rounds, kinds },
      {
        'dial to first ping': { unit: 'ms', better: 'lower' },
        'connections with 8 clients': { unit: 'connections/s', better: 'higher' },
      },
      measure,
    )
  })

  const connections = Math.ceil(1000 * scale)
  const memories = await interleave(
    { rounds: Math.min(rounds, 3), kinds },
    { 'idle connection': { unit: 'KiB', better: 'lower' } },
    async (kind): Promise<Sample> => {
      await using peer = await start(kind as Kind, bare)
      await using client = await start('rhiza', bare)
      const hold = async (count: number): Promise<number> => {
        await client.call('hold', { addr: peer.addrs[0], count, timeoutMs: 200_000 })
        await sleep(settleMs)
        return memory(peer.pid).rss
      }
      // What is loaded, compiled and kept for garbage at the first ones is not a connection's.
      const before = await hold(connections / 2)
      return { 'idle connection': ((await hold(connections)) - before) / 1024 / connections }
    },
  )
  return { count, connections, works: { ...speeds, ...memories } }
})
