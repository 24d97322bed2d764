/* Runs the command line as a user does: in a process of its own, with a repo of its own. */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const main = join(import.meta.dirname, '../../src/cli/main.ts')

export interface Ran {
  code: number | null
  stdout: string
  stderr: string
  bytes: Buffer
}

export interface RunOptions {
  repo?: string
  cwd?: string
  input?: Uint8Array
}

function start(args: readonly string[], { repo, cwd }: RunOptions): ChildProcess {
  return spawn(process.execPath, [main, ...args], {
    ...(cwd !== undefined && { cwd }),
    env: { ...process.env, ...(repo !== undefined && { RHIZA_PATH: repo }), npm_lifecycle_event: '' },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

/** A command that runs until it is done or told to stop. */
export function rhizaStart(
  args: readonly string[],
  options: RunOptions = {},
): { ended: Promise<Ran>; kill(signal: NodeJS.Signals): void } {
  const child = start(args, options)
  const ended = new Promise<Ran>((resolve, reject) => {
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout?.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr?.on('data', (chunk: Buffer) => err.push(chunk))
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input)
    child.on('error', reject)
    child.on('close', (code) => {
      const bytes = Buffer.concat(out)
      resolve({ code, bytes, stdout: bytes.toString(), stderr: Buffer.concat(err).toString() })
    })
  })
  return { ended, kill: (signal) => void child.kill(signal) }
}

export function rhiza(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return rhizaStart(args, options).ended
}

/** The JSON lines of a command that must succeed. */
export async function rhizaJson(args: readonly string[], options: RunOptions = {}): Promise<Record<string, unknown>[]> {
  const { code, stdout, stderr } = await rhiza([...args, '--json'], options)
  if (code !== 0) throw new Error(`rhiza ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

export interface Served {
  peerId: string
  addr: string
  addrs: string[]
  child: ChildProcess
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

const loopback = ['--listen', '/ip4/127.0.0.1/tcp/0']

/** `rhiza serve --json`, once it listens: on a free port of 127.0.0.1 unless told. */
export async function rhizaServe(repo: string, args: readonly string[] = [], listen = loopback): Promise<Served> {
  const child = start(['serve', '--json', ...listen, ...args], { repo })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const err: string[] = []
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk.toString()))
  if (child.stdout === null) throw new Error('no stdout')
  const lines = createInterface({ input: child.stdout })
  const line = await Promise.race([
    new Promise<string>((resolve) => lines.once('line', resolve)),
    ended.then((code) => Promise.reject(new Error(`rhiza serve ended with ${code}: ${err.join('')}`))),
  ])
  const { peerId, addrs } = JSON.parse(line) as { peerId: string; addrs: string[] }
  return {
    peerId,
    addrs,
    addr: addrs[0] ?? '',
    child,
    stop(signal = 'SIGTERM') {
      child.kill(signal)
      return ended
    },
  }
}

export interface Scratch {
  dir: string
  at(...names: string[]): string
  remove(): Promise<void>
}

export async function scratch(): Promise<Scratch> {
  const dir = await mkdtemp(join(tmpdir(), 'rhiza-test-'))
  return { dir, at: (...names) => join(dir, ...names), remove: () => rm(dir, { recursive: true, force: true }) }
}
