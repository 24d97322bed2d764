/*
 * Runs every benchmark, one after another, and keeps their lines in bench/results.json.
 * Options go to each script: `--rounds N`, `--peers rhiza,js,go`, `--scale 0.1`; `--only NAME` (repeatable) replaces
 * the lines of those alone; `--out FILE` writes elsewhere.
 */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { install } from './lib.ts'

const names = [
  'throughput',
  'tls',
  'ping',
  'streams',
  'dial',
  'bitswap',
  'unixfs-add',
  'cold-start',
  'kad',
  'gossipsub',
  'graphsync',
  'size',
] as const
const here = fileURLToPath(new URL('.', import.meta.url))

/** The line that the script prints; its progress goes where ours goes. */
function run(name: string, args: string[], env: NodeJS.ProcessEnv): Promise<{ bench: string }> {
  return new Promise((resolve, reject) => {
    process.stderr.write(`${name}\n`)
    const child = spawn(process.execPath, [join(here, `${name}.ts`), ...args], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let line = ''
    child.stdout.setEncoding('utf8')
    child.stdout.on('data', (text: string) => (line += text))
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(line) as { bench: string })
      else reject(new Error(`${name} ended with ${String(code)}`))
    })
  })
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string' },
      peers: { type: 'string' },
      scale: { type: 'string' },
      only: { type: 'string', multiple: true, default: [...names] },
      out: { type: 'string', default: join(here, 'results.json') },
    },
  })
  const { only, out, ...passed } = values
  const args = Object.entries(passed).flatMap(([name, value]) => [`--${name}`, value])
  const machine = `${cpus().length} CPUs ${cpus()[0]?.model ?? ''}, ${Math.round(totalmem() / 2 ** 30)} GiB`
  const about = { node: process.version, machine, date: new Date().toISOString().slice(0, 10) }
  const before = existsSync(out)
    ? (JSON.parse(readFileSync(out, 'utf8')) as { results: { bench: string }[] }).results
    : []
  const results = new Map(before.map((result) => [result.bench, result]))
  const env = { ...process.env, RHIZA_BENCH_INSTALLED: (await install()).path }
  for (const name of names) {
    if (!only.includes(name)) continue
    try {
      results.set(name, await run(name, args, env))
    } catch (error) {
      process.stderr.write(`${String(error)}\n`)
      process.exitCode = 1
    }
    const ordered = names.flatMap((each) => results.get(each) ?? [])
    writeFileSync(out, `${JSON.stringify({ ...about, results: ordered }, null, 2)}\n`)
  }
}

void main()
