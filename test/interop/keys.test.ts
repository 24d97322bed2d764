/* Keys go from Kubo to rhiza and back as files, and name the same thing. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { rhizaJson } from '../cli/rhiza.ts'
import { builtPeers } from './peers.ts'

const run = promisify(execFile)
const { ipfs } = builtPeers()
let dir: string

async function kubo(...args: string[]): Promise<string> {
  const env = { ...process.env, IPFS_PATH: join(dir, 'kubo'), IPFS_TELEMETRY: 'off' }
  return (await run(ipfs ?? '', args, { env })).stdout.trim()
}

describe.skipIf(ipfs === null)('keys of Kubo', () => {
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'rhiza-kubo-keys-'))
    await kubo('init', '--empty-repo')
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))

  it.each(['ed25519', 'rsa'])('are imported by rhiza: %s', async (type) => {
    const id = await kubo('key', 'gen', `theirs-${type}`, `--type=${type}`)
    const file = join(dir, `theirs-${type}.key`)
    await kubo('key', 'export', `theirs-${type}`, '-o', file)
    const [key] = await rhizaJson(['key', 'import', `theirs-${type}`, file], { repo: join(dir, 'rhiza') })
    expect(key?.['id']).toBe(id)
  })

  it.each(['ed25519', 'rsa'])('may be made by rhiza: %s', async (type) => {
    const [key] = await rhizaJson(['key', 'gen', `ours-${type}`, '--type', type], { repo: join(dir, 'rhiza') })
    const file = join(dir, `ours-${type}.key`)
    await rhizaJson(['key', 'export', `ours-${type}`, '-o', file], { repo: join(dir, 'rhiza') })
    expect(await kubo('key', 'import', `ours-${type}`, file)).toBe(key?.['id'])
  })
})
