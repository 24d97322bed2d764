// The real peers of the interop tests and benchmarks: go-libp2p + boxo, js-libp2p + Helia, py-libp2p,
// rust-libp2p, and Kubo.
// scripts/peers.sh builds them; the commands are in peers/README.md. Ends only processes that it started.
import { execFile, spawn, spawnSync } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export type PeerKind = 'go' | 'js' | 'py' | 'rust'
export type Answer = Record<string, unknown>

/** What scripts/peers.sh wrote; null where a toolchain was missing. */
export interface Built {
  ipfs: string | null
  goPeer: string | null
  rustPeer: string | null
  jsDir: string | null
  jsNode: string | null
  pyDir: string | null
  python: string | null
  deno: string | null
  bun: string | null
}

export interface Available {
  kubo: boolean
  go: boolean
  js: boolean
  py: boolean
  rust: boolean
  deno: boolean
  bun: boolean
  /** Why a peer is missing; empty when all are there. */
  reason: string
}

/** One node of a peer's process. */
export interface PeerNode {
  readonly kind: PeerKind | 'rhiza'
  readonly peerId: string
  /** Multiaddrs with the peer id. */
  readonly addrs: string[]
  /** Runs one command. Rejects with the peer's own error text, or when the process ends. */
  call(cmd: string, params?: Answer): Promise<Answer>
  /** What this node told without being asked, oldest first: `{event: 'message', ...}`. */
  readonly events: readonly Answer[]
  /** The first event of that name which fits, be it here already or to come. Rejects after 10 s, or when the process ends. */
  event(name: string, fits?: (event: Answer) => boolean, timeoutMs?: number): Promise<Answer>
}

export interface Peer extends PeerNode {
  readonly pid: number
  /** All that run in the process, itself first: `--nodes 3`. */
  readonly nodes: readonly PeerNode[]
  /** The end of what the process wrote to stderr. */
  log(): string
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface Kubo {
  readonly pid: number
  readonly peerId: string
  /** Its TCP multiaddr on 127.0.0.1 with the peer id. */
  readonly addr: string
  /** The repo (IPFS_PATH). */
  readonly repo: string
  /** The ipfs command line against this daemon; resolves to its stdout, rejects with its stderr. */
  run(...args: string[]): Promise<string>
  /** The same, for output that is not text. */
  bytes(...args: string[]): Promise<Uint8Array>
  log(): string
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface KuboOptions {
  profile?: 'unixfs-v1-2025' | 'unixfs-v0-2015'
  /** Set in the JSON config by dotted path, after the lab's own settings. */
  config?: Record<string, unknown>
}

const script = fileURLToPath(new URL('../../scripts/peers.sh', import.meta.url))
const none: Built = {
  ipfs: null,
  goPeer: null,
  rustPeer: null,
  jsDir: null,
  jsNode: null,
  pyDir: null,
  python: null,
  deno: null,
  bun: null,
}
const logBytes = 16 * 1024
const eventTimeoutMs = 10_000
const startTimeoutMs = 30_000
const stopTimeoutMs = 5000

let found: { built: Built; reason: string } | undefined

function find(): { built: Built; reason: string } {
  if (found !== undefined) return found
  const where = spawnSync(script, ['--where'], { encoding: 'utf8' })
  const path = where.stdout?.trim() ?? ''
  if (where.status !== 0 || path === '') return { built: none, reason: `scripts/peers.sh --where: ${where.stderr}` }
  if (!existsSync(path)) return { built: none, reason: 'the peers are not built: run scripts/peers.sh' }
  const built = { ...none, ...(JSON.parse(readFileSync(path, 'utf8')) as Partial<Built>) }
  const { ipfs: kubo, goPeer: go, jsDir: js, python: py, rustPeer: rust, deno, bun } = built
  const missing = Object.entries({ kubo, go, js, py, rust, deno, bun })
    .filter(([, file]) => file === null)
    .map(([name]) => name)
  found = { built, reason: missing.length === 0 ? '' : `scripts/peers.sh could not build: ${missing.join(', ')}` }
  return found
}

/** Where the peers lie. Starts and builds nothing. */
export function builtPeers(): Built {
  return find().built
}

/** Which peers are built. Starts and builds nothing. */
export function available(): Available {
  const { built, reason } = find()
  return {
    kubo: built.ipfs !== null,
    go: built.goPeer !== null,
    js: built.jsDir !== null && built.jsNode !== null,
    py: built.pyDir !== null && built.python !== null,
    rust: built.rustPeer !== null,
    deno: built.deno !== null,
    bun: built.bun !== null,
    reason,
  }
}

/** Builds what is missing; minutes the first time, instant afterwards. */
export function buildPeers(): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(script, { stdio: ['ignore', 'ignore', 'inherit'] })
    child.on('error', reject)
    child.on('exit', (code) => {
      found = undefined
      if (code === 0) resolve()
      else reject(new Error(`scripts/peers.sh ended with ${String(code)}`))
    })
  })
}

function command(kind: PeerKind): [string, string[]] {
  const { built, reason } = find()
  if (kind === 'go' && built.goPeer !== null) return [built.goPeer, []]
  if (kind === 'rust' && built.rustPeer !== null) return [built.rustPeer, []]
  if (kind === 'js' && built.jsDir !== null && built.jsNode !== null)
    return [built.jsNode, [join(built.jsDir, 'peer.js')]]
  if (kind === 'py' && built.pyDir !== null && built.python !== null)
    return [built.python, [join(built.pyDir, 'peer.py')]]
  throw new Error(`no ${kind} peer: ${reason}`)
}

/** Keeps the last bytes of stderr. */
function tail(child: ChildProcessWithoutNullStreams): () => string {
  let text = ''
  child.stderr.setEncoding('utf8')
  child.stderr.on('data', (chunk: string) => {
    text = (text + chunk).slice(-logBytes)
  })
  return () => text
}

const running = new Set<ChildProcessWithoutNullStreams>()
const repos = new Set<string>()

/** A test run that ends without stop() leaves no process and no repo behind. */
function endWithUs(child: ChildProcessWithoutNullStreams): void {
  if (running.size === 0) process.once('exit', killAll)
  running.add(child)
  child.once('exit', () => {
    running.delete(child)
    if (running.size === 0) process.removeListener('exit', killAll)
  })
}

function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
  for (const repo of repos) rmSync(repo, { recursive: true, force: true })
}

/** Resolves when the process is gone, killed after a grace period. */
function ended(child: ChildProcessWithoutNullStreams, graceMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
    child.once('exit', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

/** What one node tells without being asked, kept and waited for. */
class Events {
  readonly list: Answer[] = []
  readonly #waiting = new Set<{ took: (event: Answer) => boolean; reject: (why: Error) => void }>()
  #gone: Error | undefined

  add(event: Answer): void {
    this.list.push(event)
    for (const wait of this.#waiting) if (wait.took(event)) this.#waiting.delete(wait)
  }

  end(why: Error): void {
    this.#gone = why
    for (const wait of this.#waiting) wait.reject(why)
    this.#waiting.clear()
  }

  wait(name: string, fits: (event: Answer) => boolean = () => true, timeoutMs = eventTimeoutMs): Promise<Answer> {
    const wanted = (event: Answer): boolean => event['event'] === name && fits(event)
    const known = this.list.find(wanted)
    if (known !== undefined) return Promise.resolve(known)
    if (this.#gone !== undefined) return Promise.reject(this.#gone)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(wait)
        const last = JSON.stringify(this.list.slice(-3))
        reject(new Error(`no event ${name} within ${timeoutMs} ms; the last of ${this.list.length}: ${last}`))
      }, timeoutMs)
      const wait = {
        took: (event: Answer): boolean => {
          if (!wanted(event)) return false
          clearTimeout(timer)
          resolve(event)
          return true
        },
        reject: (why: Error): void => {
          clearTimeout(timer)
          reject(why)
        },
      }
      this.#waiting.add(wait)
    })
  }
}

/** Starts a peer and waits until it listens. It ends by stop(), and by itself when this process is gone. */
export async function startPeer(kind: PeerKind, args: string[] = []): Promise<Peer> {
  const [file, before] = command(kind)
  return startProcess(kind, file, [...before, ...args])
}

/** The same for any program that speaks the lab's lines. */
export async function startProcess(kind: Peer['kind'], file: string, args: string[]): Promise<Peer> {
  const child = spawn(file, args)
  endWithUs(child)
  const log = tail(child)
  const waiting = new Map<number, { resolve: (a: Answer) => void; reject: (e: Error) => void }>()
  let last = 0
  let gone: Error | undefined
  const listening = Promise.withResolvers<Answer>()
  const told: Events[] = []
  const eventsOf = (node: number): Events => (told[node] ??= new Events())

  const end = (why: Error): void => {
    gone ??= why
    listening.reject(gone)
    for (const call of waiting.values()) call.reject(gone)
    waiting.clear()
    for (const events of told) events?.end(gone)
  }
  child.on('error', end)
  child.on('exit', (code, signal) => end(new Error(`the ${kind} peer ended (${signal ?? String(code)}): ${log()}`)))
  child.stdin.on('error', end)

  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as Answer
    if (answer['event'] === 'listening') return listening.resolve(answer)
    if (answer['event'] !== undefined) return eventsOf(Number(answer['node'] ?? 0)).add(answer)
    const id = Number(answer['id'])
    const call = waiting.get(id)
    waiting.delete(id)
    if (call === undefined) return
    if (answer['ok'] === true) call.resolve(answer)
    else call.reject(new Error(`${kind} peer: ${String(answer['error'])}`))
  })

  const call = (cmd: string, params: Answer = {}): Promise<Answer> => {
    if (gone !== undefined) return Promise.reject(gone)
    last++
    const reply = Promise.withResolvers<Answer>()
    waiting.set(last, reply)
    child.stdin.write(`${JSON.stringify({ ...params, id: last, cmd })}\n`)
    return reply.promise
  }
  const stop = async (): Promise<void> => {
    child.stdin.end()
    await ended(child, stopTimeoutMs)
  }

  const timer = setTimeout(() => {
    end(new Error(`the ${kind} peer did not listen within ${startTimeoutMs} ms: ${log()}`))
    child.kill('SIGKILL')
  }, startTimeoutMs)
  try {
    type About = { peerId: string; addrs: string[] }
    const { peerId, addrs, nodes: all = [] } = (await listening.promise) as About & { nodes?: About[] }
    const nodes = all.map(({ peerId: id, addrs: at }, node): PeerNode => {
      const events = eventsOf(node)
      return {
        kind,
        peerId: id,
        addrs: at,
        call: (cmd, params) => call(cmd, { ...params, node }),
        events: events.list,
        event: (...wanted) => events.wait(...wanted),
      }
    })
    const events = eventsOf(0)
    return {
      kind,
      pid: child.pid ?? 0,
      peerId,
      addrs,
      nodes,
      call,
      events: events.list,
      event: (...wanted) => events.wait(...wanted),
      log,
      stop,
      [Symbol.asyncDispose]: stop,
    }
  } finally {
    clearTimeout(timer)
  }
}

/** A daemon that knows nobody and listens on loopback only. */
const offline: Record<string, unknown> = {
  'Addresses.Swarm': ['/ip4/127.0.0.1/tcp/0'],
  'Addresses.API': '/ip4/127.0.0.1/tcp/0',
  'Addresses.Gateway': [],
  'AutoConf.Enabled': false,
  'AutoNAT.ServiceMode': 'disabled',
  'AutoTLS.Enabled': false,
  Bootstrap: [],
  'DNS.Resolvers': {},
  'Discovery.MDNS.Enabled': false,
  'Ipns.DelegatedPublishers': [],
  'Provide.Enabled': false,
  'Routing.DelegatedRouters': [],
  'Routing.Type': 'none',
  'Swarm.DisableNatPortMap': true,
  'Swarm.RelayClient.Enabled': false,
  'Swarm.RelayService.Enabled': false,
  'Swarm.ResourceMgr.Enabled': false,
  'Swarm.Transports.Network.QUIC': false,
  'Swarm.Transports.Network.Relay': false,
  'Swarm.Transports.Network.WebRTCDirect': false,
  'Swarm.Transports.Network.WebTransport': false,
  'Swarm.Transports.Network.Websocket': false,
}

function set(config: Record<string, unknown>, path: string, value: unknown): void {
  const keys = path.split('.')
  const lastKey = keys.pop() ?? path
  let at = config
  for (const key of keys) {
    const next = at[key]
    at = (at[key] = typeof next === 'object' && next !== null ? next : {}) as Record<string, unknown>
  }
  at[lastKey] = value
}

/** Starts a Kubo daemon over a new repo in a temporary folder, which stop() removes. */
export async function startKubo(options: KuboOptions = {}): Promise<Kubo> {
  const { built, reason } = find()
  const ipfs = built.ipfs
  if (ipfs === null) throw new Error(`no Kubo: ${reason}`)
  const repo = await mkdtemp(join(tmpdir(), 'rhiza-kubo-'))
  repos.add(repo)
  const env = { ...process.env, IPFS_PATH: repo, IPFS_TELEMETRY: 'off' }

  const bytes = (...args: string[]): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      execFile(ipfs, args, { env, encoding: 'buffer', maxBuffer: 1024 * 1024 * 1024 }, (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(new Error(`ipfs ${args.join(' ')}: ${stderr.toString().trim() || error.message}`))
      })
    })
  const run = async (...args: string[]): Promise<string> => Buffer.from(await bytes(...args)).toString()

  let child: ChildProcessWithoutNullStreams | undefined
  const stop = async (): Promise<void> => {
    if (child !== undefined) {
      child.kill('SIGTERM')
      await ended(child, stopTimeoutMs)
    }
    await rm(repo, { recursive: true, force: true })
    repos.delete(repo)
  }

  try {
    await run('init', '--algorithm=ed25519', `--profile=${['test', options.profile].filter(Boolean).join(',')}`)
    const config = JSON.parse(await readFile(join(repo, 'config'), 'utf8')) as Record<string, unknown>
    for (const [path, value] of Object.entries({ ...offline, ...options.config })) set(config, path, value)
    await writeFile(join(repo, 'config'), JSON.stringify(config))

    const daemon = spawn(ipfs, ['daemon'], { env })
    child = daemon
    endWithUs(daemon)
    const log = tail(daemon)
    await ready(daemon, log)
    const id = JSON.parse(await run('id')) as { ID: string; Addresses: string[] }
    const addr = id.Addresses.find((a) => a.startsWith('/ip4/127.0.0.1/tcp/'))
    if (addr === undefined) throw new Error(`Kubo listens on no loopback address: ${id.Addresses.join(' ')}`)
    return { pid: daemon.pid ?? 0, peerId: id.ID, addr, repo, run, bytes, log, stop, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

function ready(daemon: ChildProcessWithoutNullStreams, log: () => string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Kubo was not ready in time: ${log()}`)), startTimeoutMs)
    const fail = (why: string): void => {
      clearTimeout(timer)
      reject(new Error(`${why}: ${log()}`))
    }
    daemon.on('error', (error) => fail(error.message))
    daemon.on('exit', (code) => fail(`Kubo ended with ${String(code)}`))
    createInterface({ input: daemon.stdout }).on('line', (line) => {
      if (!line.includes('Daemon is ready')) return
      clearTimeout(timer)
      resolve()
    })
  })
}

/** The bytes that every lab peer makes from `addBytes {size, seed}`: xorshift32 as little-endian words. */
export function seededBytes(size: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4))
  let x = seed >>> 0 || 1
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = x
  }
  return new Uint8Array(words.buffer, 0, size)
}
