/*
 * From the start of a process until it listens, and its memory a second later: a bare Node, rhiza as installed, js-libp2p
 * with the same protocols, go.
 */
import { builtPeers } from '../test/interop/peers.ts'
import { bench, install, interleave, startAndEnd, type Sample } from './lib.ts'

const done = `process.stdin.resume()
process.stdout.write('up\\n')`
const rhiza = `
import { createNode } from 'rhiza'
const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
await node.start()
${done}`
const js = `
import { noise } from '@libp2p/noise'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() },
})
${done}`

type Started = { ms: number; rss: number }

const run = (code: string, cwd?: string): Promise<Started> =>
  startAndEnd(process.execPath, ['--input-type=module', '-e', code], cwd)

void bench('cold-start', { rounds: 15, seconds: 600 }, async ({ rounds, kinds }) => {
  const installed = await install()
  const { jsDir, goPeer } = builtPeers()
  const start: Record<string, () => Promise<Started>> = {
    'bare node': () => run(done),
    rhiza: () => run(rhiza, installed.path),
    js: () => run(js, jsDir ?? ''),
    go: () => startAndEnd(goPeer ?? '', ['--bitswap', 'none']),
  }
  const all = ['bare node', ...kinds]
  const measure = async (kind: string): Promise<Sample> => {
    const { ms, rss } = (await start[kind]?.()) ?? { ms: Number.NaN, rss: Number.NaN }
    return { 'to listening': ms, 'idle node': rss / 1e6 }
  }
  for (const kind of all) await measure(kind)
  const works = {
    'to listening': { unit: 'ms', better: 'lower' },
    'idle node': { unit: 'MB', better: 'lower' },
  } as const
  return { works: await interleave({ rounds, kinds: all }, works, measure) }
})
