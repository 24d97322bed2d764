/*
 * A file of 1 GB and a dag-cbor tree of 100,000 nodes between two processes: GraphSync and Bitswap of rhiza, and
 * go-graphsync to go-graphsync (bench/graphsync-go, built when there is a Go toolchain). All keep blocks in memory; the
 * same DAGs, which go reads from CARs.
 */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startProcess, type Peer } from '../test/interop/peers.ts'
import { bench, interleave, progress, root, temporary, type Sample } from './lib.ts'

const run = promisify(execFile)
const works = {
  'file, MB/s': { unit: 'MB/s', better: 'higher' },
  'tree, nodes/s': { unit: 'nodes/s', better: 'higher' },
} as const

const rhiza = (): Promise<Peer> => startProcess('rhiza', process.execPath, [join(root, 'bench/graphsync-peer.ts')])

/** The go program; undefined without Go. */
async function build(into: string): Promise<string | undefined> {
  const source = join(into, 'go')
  mkdirSync(source)
  cpSync(join(root, 'bench/graphsync-go'), source, { recursive: true })
  for (const file of ['go.mod', 'go.sum']) cpSync(join(root, 'test/interop/peers/go', file), join(source, file))
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod -buildvcs=false' }
  try {
    await run('go', ['build', '-o', join(into, 'graphsync-go'), '.'], { cwd: source, env })
    return join(into, 'graphsync-go')
  } catch (error) {
    progress(`graphsync: without go: ${String(error)}`)
    return undefined
  }
}

void bench('graphsync', { rounds: 3, seconds: 3600 }, async ({ rounds, kinds, scale }) => {
  using directory = temporary()
  const { path } = directory
  const fileBytes = Math.ceil(1000 * scale) * 1_000_000
  const nodes = Math.ceil(100_000 * scale)
  const go = kinds.includes('go') ? await build(path) : undefined

  const measure = async (kind: string): Promise<Sample> => {
    const sample: Sample = {}
    for (const [what, size] of [
      ['file', fileBytes],
      ['tree', nodes],
    ] as const) {
      const car = join(path, `${what}.car`)
      const fresh = (): Promise<Peer> => (kind === 'go' ? startProcess('go', go ?? '', []) : rhiza())
      await using server = await fresh()
      await using client = await fresh()
      const { cid } = await server.call(kind === 'go' ? 'load' : 'make', { what, size, path: car })
      const cmd = kind === 'bitswap' ? 'bitswap' : 'graphsync'
      const { seconds, blocks } = await client.call(cmd, { cid, addr: server.addrs[0] })
      if (what === 'file') sample['file, MB/s'] = size / 1e6 / Number(seconds)
      else sample['tree, nodes/s'] = Number(blocks) / Number(seconds)
    }
    return sample
  }

  if (go !== undefined) {
    for (const [what, size] of [
      ['file', fileBytes],
      ['tree', nodes],
    ] as const) {
      await using maker = await rhiza()
      const { cid } = await maker.call('make', { what, size })
      await maker.call('save', { cid, path: join(path, `${what}.car`) })
    }
  }
  const all = ['rhiza', 'bitswap', ...(go === undefined ? [] : ['go'])]
  return { fileBytes, nodes, works: await interleave({ rounds, kinds: all }, works, measure) }
})
