/*
 * The DHT: 50 nodes in one process, each round a new network; what it takes to provide, and until the first provider is
 * found. A process of each kind by turns.
 */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { builtPeers } from '../test/interop/peers.ts'
import { bench, interleave, median, progress, root, type Sample } from './lib.ts'

const run = promisify(execFile)

void bench('kad', { rounds: 3, seconds: 900 }, async ({ rounds, kinds, scale }) => {
  const nodes = 50
  const contents = Math.max(3, Math.ceil(40 * scale))
  const measure = async (kind: string): Promise<Sample> => {
    const env = { ...process.env, KAD_BENCH: JSON.stringify({ nodes, contents }) }
    const { jsDir, jsNode } = builtPeers()
    const options = { env, timeout: 280_000, killSignal: 'SIGKILL' as const, maxBuffer: 1 << 24 }
    const { stdout } =
      kind === 'js'
        ? await run(
            jsNode ?? 'node',
            ['--input-type=module', '-e', readFileSync(join(root, 'bench/kad-js.js'), 'utf8')],
            {
              ...options,
              cwd: jsDir ?? root,
            },
          )
        : await run(process.execPath, [join(root, 'bench/kad-rhiza.ts')], options)
    const { provideMs, findMs } = JSON.parse(stdout) as { provideMs: number[]; findMs: number[] }
    if (findMs.length < contents * 0.9) progress(`kad: ${kind} found ${findMs.length} of ${contents}`)
    return { provide: median(provideMs), 'first provider': median(findMs) }
  }
  const time = { unit: 'ms', better: 'lower' } as const
  const works = await interleave(
    { rounds, kinds: kinds.filter((kind) => kind !== 'go') },
    { provide: time, 'first provider': time },
    measure,
  )
  return { nodes, contents, works }
})
