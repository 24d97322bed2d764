/*
 * Dial to the first ping's reply, one after another; connections per second with 8 clients; memory of an idle node and
 * of each idle connection. Memory is that of the installed package, the same rhiza client asks every kind of server.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { startProcess, type Peer } from '../test/interop/peers.ts'
import { bench, install, interleave, median, memory, pairOf, start, withPairs, type Kind, type Sample } from './lib.ts'

const bare = ['--bitswap', 'none']
const settleMs = 1000

/** MB. */
async function bareNode(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'inherit'] })
  const ended = once(child, 'close')
  await sleep(settleMs)
  const { rss } = memory(child.pid ?? 0)
  child.kill()
  await ended
  return rss / 1e6
}

void bench('dial', { rounds: 9, seconds: 900 }, async ({ rounds, kinds, scale }) => {
  const count = Math.ceil(100 * scale)
  const speeds = await withPairs(kinds, async (pairs) => {
    const measure = async (kind: string): Promise<Sample> => {
      const { client, addr } = pairOf(pairs, kind)
      const { dialMs } = (await client.call('dials', { addr, count, parallel: 1 })) as unknown as { dialMs: number[] }
      const { seconds } = await client.call('dials', { addr, count: count * 4, parallel: 8 })
      return { 'dial to first ping': median(dialMs), 'connections with 8 clients': (count * 4) / Number(seconds) }
    }
    for (const kind of kinds) await measure(kind)
    return interleave(
      { rounds, kinds },
      {
        'dial to first ping': { unit: 'ms', better: 'lower' },
        'connections with 8 clients': { unit: 'connections/s', better: 'higher' },
      },
      measure,
    )
  })

  using installed = await install()
  const connections = Math.ceil(500 * scale)
  const server = (kind: string): Promise<Peer> =>
    kind === 'rhiza' ? startProcess('rhiza', process.execPath, [installed.peer, ...bare]) : start(kind as Kind, bare)
  const memories = await interleave(
    { rounds: Math.min(rounds, 5), kinds: ['bare node', ...kinds] },
    {
      'idle node': { unit: 'MB', better: 'lower' },
      'idle connection': { unit: 'KiB', better: 'lower' },
    },
    async (kind): Promise<Sample> => {
      if (kind === 'bare node') return { 'idle node': await bareNode() }
      await using peer = await server(kind)
      await using client = await start('rhiza', bare)
      const addr = peer.addrs[0]
      await sleep(settleMs)
      const idle = memory(peer.pid).rss
      // What is loaded and compiled at the first connections is not a connection's.
      await client.call('hold', { addr, count: Math.ceil(connections / 5) })
      await client.call('release')
      await sleep(settleMs)
      const before = memory(peer.pid).rss
      await client.call('hold', { addr, count: connections })
      await sleep(settleMs)
      return { 'idle node': idle / 1e6, 'idle connection': (memory(peer.pid).rss - before) / 1024 / connections }
    },
  )
  return { count, connections, works: { ...speeds, ...memories } }
})
