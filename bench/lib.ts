/*
 * What the benchmarks share: peers by kind, interleaved rounds, medians and ratios, one line of JSON.
 * Ratios are taken within a round and then their median: a machine that slows down slows down all of a round.
 */
import { execFile, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { transform } from 'esbuild'
import { available, startPeer, startProcess, type Peer } from '../test/interop/peers.ts'

export type Kind = 'rhiza' | 'js' | 'go'
/** By what was worked on: one number for each. */
export type Sample = Record<string, number>

export interface Work {
  unit: string
  better: 'higher' | 'lower'
  median: Partial<Record<string, number>>
  /** rhiza's figure through the other's, round by round. */
  ratio: Partial<Record<string, { median: number; min: number; max: number }>>
}

export interface Options {
  rounds: number
  kinds: Kind[]
  /** Of a whole: smaller runs try a script out. */
  scale: number
}

export const root = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)

export const progress = (text: string): void => void process.stderr.write(`${text}\n`)

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) / 2
  return ((sorted[Math.floor(at)] ?? Number.NaN) + (sorted[Math.ceil(at)] ?? Number.NaN)) / 2
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

const round3 = (value: number): number => Number(value.toPrecision(4))

/** Runs `work` and prints its result as one line of JSON. Ends within `seconds`, whatever happens. */
export async function bench(
  name: string,
  { rounds, seconds }: { rounds: number; seconds: number },
  work: (options: Options) => Promise<object>,
): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: String(rounds) },
      peers: { type: 'string', default: 'rhiza,js,go' },
      scale: { type: 'string', default: '1' },
    },
  })
  const there = { rhiza: true, js: available().js, go: available().go }
  const asked = values.peers.split(',') as Kind[]
  for (const kind of asked) if (!there[kind]) progress(`${name}: without ${kind}: ${available().reason}`)
  const options: Options = {
    rounds: Number(values.rounds),
    kinds: asked.filter((kind) => there[kind]),
    scale: Number(values.scale),
  }
  // Peers end with this process.
  const tooLong = setTimeout(() => {
    progress(`${name}: not done within ${seconds} s`)
    process.exit(1)
  }, seconds * 1000)
  const load = loadavg()[0] ?? 0
  try {
    const result = await work(options)
    const about = { bench: name, rounds: options.rounds, scale: options.scale, load: [load, loadavg()[0]] }
    process.stdout.write(`${JSON.stringify({ ...about, ...result })}\n`)
  } catch (error) {
    progress(`${name}: ${error instanceof Error ? error.stack : String(error)}`)
    process.exitCode = 1
  } finally {
    clearTimeout(tooLong)
  }
}

/** Every kind once a round, in an order that turns; `works` says what the numbers are. */
export async function interleave(
  { rounds, kinds }: Pick<Options, 'rounds'> & { kinds: readonly string[] },
  works: Record<string, Pick<Work, 'unit' | 'better'>>,
  measure: (kind: string, round: number) => Promise<Sample>,
): Promise<Record<string, Work>> {
  const samples = new Map<string, Sample[]>(kinds.map((kind) => [kind, []]))
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < kinds.length; i++) {
      const kind = kinds[(i + round) % kinds.length] as string
      const sample = await measure(kind, round)
      samples.get(kind)?.push(sample)
      const text = Object.entries(sample).map(([work, value]) => `${work} ${round3(value)}`)
      progress(`round ${round + 1}/${rounds} ${kind}: ${text.join(', ')}`)
    }
  }
  return Object.fromEntries(
    Object.entries(works).map(([work, { unit, better }]) => {
      const of = (kind: string): number[] => (samples.get(kind) ?? []).map((sample) => sample[work] ?? Number.NaN)
      const others = kinds.filter((kind) => kind !== 'rhiza' && of(kind).some((value) => !Number.isNaN(value)))
      const ratio = (kind: string): { median: number; min: number; max: number } => {
        const theirs = of(kind)
        const all = of('rhiza').map((value, i) => value / (theirs[i] as number))
        return { median: round3(median(all)), min: round3(Math.min(...all)), max: round3(Math.max(...all)) }
      }
      return [
        work,
        {
          unit,
          better,
          median: Object.fromEntries(
            kinds
              .filter((kind) => kind === 'rhiza' || others.includes(kind))
              .map((kind) => [kind, round3(median(of(kind)))]),
          ),
          ratio: kinds.includes('rhiza') ? Object.fromEntries(others.map((kind) => [kind, ratio(kind)])) : {},
        },
      ]
    }),
  )
}

/** Directory for V8 CPU profiles of the rhiza processes, then over the sources; written when a process ends. */
const profiles = process.env['RHIZA_BENCH_PROFILES']

/** `--bitswap none` leaves Helia out of js. */
export async function start(kind: Kind, args: string[] = []): Promise<Peer> {
  return kind === 'rhiza' ? startOwn('peer', args) : startPeer(kind, args)
}

/** gossip-peer.ts: several nodes in one process. */
export const startGossip = (args: string[]): Promise<Peer> => startOwn('gossip-peer', args)

async function startOwn(name: (typeof scripts)[number], args: string[]): Promise<Peer> {
  const [flags, file] =
    profiles === undefined
      ? [[], join((await install()).path, `${name}.js`)]
      : [['--cpu-prof', `--cpu-prof-dir=${profiles}`], join(root, 'bench', `${name}.ts`)]
  return startProcess('rhiza', process.execPath, [...flags, file, ...args])
}

export interface Pair {
  client: Peer
  server: Peer
  /** The server's. */
  addr: string
  stop(): Promise<void>
}

/** Two processes of one kind that are connected. */
export async function startPair(kind: Kind, args: string[] = ['--bitswap', 'none'], client = args): Promise<Pair> {
  const both = await Promise.all([start(kind, client), start(kind, args)])
  const [dialler, server] = both
  const addr = server.addrs[0] ?? ''
  await dialler.call('connect', { addr })
  const stop = async (): Promise<void> => {
    await Promise.all(both.map((peer) => peer.stop()))
  }
  return { client: dialler, server, addr, stop }
}

export type Pairs = Map<string, Pair>

/** A pair of each kind, started with what `argsOf` says, for as long as `work` takes. */
export async function withPairs<T>(
  kinds: Kind[],
  work: (pairs: Pairs) => Promise<T>,
  argsOf: (kind: Kind) => string[] | undefined = () => undefined,
): Promise<T> {
  const pairs: Pairs = new Map()
  try {
    for (const kind of kinds) pairs.set(kind, await startPair(kind, argsOf(kind)))
    return await work(pairs)
  } finally {
    await Promise.all([...pairs.values()].map((pair) => pair.stop()))
  }
}

export function pairOf(pairs: Pairs, kind: string): Pair {
  const pair = pairs.get(kind)
  if (pair === undefined) throw new Error(`no pair of ${kind}`)
  return pair
}

/** All threads of these processes on one CPU. */
export async function pin(cpu: number, ...peers: Peer[]): Promise<void> {
  for (const { pid } of peers) await run('taskset', ['-a', '-c', '-p', String(cpu), String(pid)])
}

/** Bytes in memory of a process, now and at most since it began. */
export function memory(pid: number): { rss: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) * 1024
  return { rss: field('VmRSS'), peak: field('VmHWM') }
}

export interface TemporaryDirectory {
  path: string
  [Symbol.dispose](): void
}

/** Goes when the caller's scope ends, and with the process. */
export function temporary(): TemporaryDirectory {
  const path = mkdtempSync(join(tmpdir(), 'rhiza-bench-'))
  const remove = (): void => rmSync(path, { recursive: true, force: true })
  process.once('exit', remove)
  return {
    path,
    [Symbol.dispose]() {
      process.removeListener('exit', remove)
      remove()
    },
  }
}

export interface Installed {
  /** A project that has the package in its node_modules, and `scripts` as .js beside it. */
  path: string
}

/** Run over that package: built, as users run it; stripping types leaves a heap that is dearer to collect. */
const scripts = ['peer', 'gossip-peer'] as const

/** Where another script has installed it already. */
const shared = process.env['RHIZA_BENCH_INSTALLED']
let installed: Promise<Installed> | undefined

/** The package as users get it: built, packed and installed from a copy of the sources, so that our dist/ stays. */
export function install(): Promise<Installed> {
  installed ??= shared === undefined ? pack(temporary().path) : Promise.resolve({ path: shared })
  return installed
}

async function pack(path: string): Promise<Installed> {
  const source = join(path, 'source')
  mkdirSync(source)
  const files = ['src', 'scripts', 'package.json', 'tsconfig.json', 'tsconfig.build.json']
  for (const file of files) cpSync(join(root, file), join(source, file), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(source, 'node_modules'))
  const env = { ...process.env, PATH: `${join(root, 'node_modules/.bin')}${delimiter}${process.env['PATH'] ?? ''}` }
  progress('packing and installing the package')
  await run('npm', ['pack', '--pack-destination', path], { cwd: source, env })
  const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, string>
  writeFileSync(join(path, 'package.json'), '{"private":true,"type":"module"}')
  const flags = ['--omit=dev', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund']
  await run('npm', ['install', ...flags, `./${name}-${version}.tgz`], { cwd: path, env })
  const dist = pathToFileURL(join(path, 'node_modules', name ?? '', 'dist')).href
  for (const script of scripts) {
    const text = readFileSync(join(root, `bench/${script}.ts`), 'utf8')
    const { code } = await transform(text, { loader: 'ts', target: 'es2023' })
    writeFileSync(join(path, `${script}.js`), code.replaceAll(/"\.\.\/src\/(.*)\.ts"/g, `"${dist}/$1.js"`))
  }
  return { path }
}

/** A process until its first line, in milliseconds, and its memory a second later, in bytes; it is ended then. */
export async function startAndEnd(file: string, args: string[], cwd = root): Promise<{ ms: number; rss: number }> {
  const begin = performance.now()
  const child = spawn(file, args, { cwd, stdio: ['pipe', 'pipe', 'inherit'] })
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const line = new Promise<number>((resolve) => {
    createInterface({ input: child.stdout }).once('line', () => resolve(performance.now() - begin))
  })
  const failed = ended.then(() => Promise.reject(new Error(`${file} ${args.join(' ')}: no line came`)))
  try {
    const ms = await Promise.race([line, failed])
    await sleep(1000)
    return { ms, rss: memory(child.pid ?? 0).rss }
  } finally {
    clearTimeout(timer)
    failed.catch(() => {})
    child.kill('SIGKILL')
    await ended
  }
}
