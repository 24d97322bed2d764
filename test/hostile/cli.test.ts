/* What a hostile world does to the command line: peers, disks, repos, and readers that go away. */
import { execFileSync, spawn, spawnSync, type SpawnOptions } from 'node:child_process'
import { chmod, mkdir, mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { encodeNode } from '../../src/ipld/dag-pb.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { Data, dataType } from '../../src/unixfs/data.ts'
import { acceptTunnel, hostileListener, tunnel, watchProcess } from './hostile.ts'

// Every run is a process of its own: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })
watchProcess()

const main = join(import.meta.dirname, '../../src/cli/main.ts')
/** The user id that owns nothing. */
const nobody = 65_534
const asRoot = process.getuid?.() === 0

let folder = ''
let owner: Kit
let peer = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rhiza-hostile-cli-'))
  await chmod(folder, 0o755)
  owner = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  await owner.start()
  peer = String(owner.node.addrs()[0])
})
afterAll(async () => {
  await owner.stop()
  await rm(folder, { recursive: true, force: true })
})

const at = (...names: string[]): string => join(folder, ...names)

interface Ran {
  code: number | null
  stdout: string
  stderr: string
  ms: number
  error(): { code: string; message: string }
}

interface Running {
  ended: Promise<Ran>
  child: ReturnType<typeof spawn>
}

function start(args: readonly string[], options: SpawnOptions & { repo?: string } = {}): Running {
  const { repo = at('repo'), env, ...more } = options
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, RHIZA_PATH: repo, npm_lifecycle_event: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...more,
  })
  const from = Date.now()
  let [stdout, stderr] = ['', '']
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  // What hangs, and be it in a loop, ends with the test.
  const late = setTimeout(() => child.kill('SIGKILL'), 40_000)
  const ended = new Promise<Ran>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(late)
      const error = (): { code: string; message: string } => {
        expect(stderr.trim().split('\n')).toHaveLength(1)
        return (JSON.parse(stderr) as { error: { code: string; message: string } }).error
      }
      resolve({ code, stdout, stderr, ms: Date.now() - from, error })
    })
  })
  return { child, ended }
}

const rhiza = (...args: Parameters<typeof start>): Promise<Ran> => start(...args).ended

async function put(bytes: Uint8Array, code: number = codec.raw): Promise<CID> {
  const cid = cidOf(code, bytes)
  await owner.blocks.put(cid, bytes)
  return cid
}

async function directory(names: readonly string[]): Promise<CID> {
  const cid = await put(fromUtf8('content'))
  const links = names.map((name) => ({ cid, name, tsize: 7 }))
  return put(encodeNode({ links, data: Data.encode({ type: dataType.directory }) }), codec.dagPb)
}

// --- repos and disks --------------------------------------------------------------------------------------------------

it('a repo that is a file, holds something else, or is of another version', async () => {
  await writeFile(at('a-file'), 'x')
  await mkdir(at('photos'))
  await writeFile(at('photos', 'cat.jpg'), 'x')
  await mkdir(at('future'))
  await writeFile(at('future', 'version'), '77\n')
  const ran = await Promise.all(
    ['a-file', 'photos', 'future'].map((name) => rhiza(['id', '--json'], { repo: at(name) })),
  )
  expect(ran.map(({ code }) => code)).toEqual([1, 1, 1])
  expect(ran.map((r) => r.error().code)).toEqual(['io', 'exists', 'unsupported'])
  expect(ran[0]?.error().message).toContain(at('a-file'))
  expect(await readdir(at('photos'))).toEqual(['cat.jpg'])
})

it('a full disk: add, cat and get say so, and leave nothing half-written', async ({ skip }) => {
  const disk = at('disk')
  await mkdir(disk)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk], { stdio: 'ignore' })
  } catch {
    skip('mounting is not permitted here')
  }
  try {
    const big = crypto.getRandomValues(new Uint8Array(60_000))
    await writeFile(at('big'), Buffer.concat(Array.from({ length: 140 }, (_, i) => Buffer.concat([big, Buffer.of(i)]))))
    const added = await rhiza(['add', '--json', at('big')], { repo: join(disk, 'repo') })
    expect([added.code, added.stdout, added.error().code]).toEqual([1, '', 'disk-full'])
    expect(await readdir(join(disk, 'repo', 'blocks', '.tmp'))).toEqual([])
    await rm(join(disk, 'repo'), { recursive: true })
    const { cid } = await owner.add(await readFile(at('big')))
    const fetched = await rhiza(['cat', '--json', String(cid), '--peer', peer], {
      repo: join(disk, 'repo'),
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    expect([fetched.code, fetched.error().code]).toEqual([1, 'disk-full'])
    await rm(join(disk, 'repo'), { recursive: true })
    const got = await rhiza(['get', '--json', String(cid), '--peer', peer, '-o', join(disk, 'out')], {
      repo: at('with-room'),
    })
    expect([got.code, got.error().code]).toEqual([1, 'disk-full'])
    expect(await readdir(disk)).toEqual([])
  } finally {
    execFileSync('umount', [disk])
  }
})

it('standard output on a full disk', async () => {
  const full = await open('/dev/full', 'w').catch(() => undefined)
  if (full === undefined) return
  const { cid } = await owner.add('x'.repeat(100_000))
  const ran = await rhiza(['cat', '--json', String(cid), '--peer', peer], { stdio: ['ignore', full.fd, 'pipe'] })
  await full.close()
  expect([ran.code, ran.error().code]).toEqual([1, 'disk-full'])
})

it('a repo, and a target, without write permission', async ({ skip }) => {
  const user = asRoot ? { uid: nobody, gid: nobody } : {}
  if (asRoot && spawnSync(process.execPath, [main, '--version'], { ...user }).status !== 0)
    skip('another user cannot run this checkout')
  const repo = at('not-ours')
  await rhiza(['add', '-q', at('a-file')], { repo })
  const before = (await readdir(repo)).toSorted()
  await chmod(repo, 0o555)
  await chmod(join(repo, 'blocks'), 0o555)
  const { cid } = await owner.add('to be written where it is not permitted')
  const [added, got, made] = await Promise.all([
    rhiza(['add', '--json', main], { repo, ...user }),
    rhiza(['get', '--json', String(cid), '--peer', peer, '-o', at('out')], { repo, ...user }),
    rhiza(['id', '--json'], { repo: at('new-repo'), ...user }),
  ])
  for (const ran of [added, got, made]) expect([ran?.code, ran?.error().code]).toEqual([1, 'not-permitted'])
  expect((await readdir(repo)).toSorted()).toEqual(before)
  await chmod(repo, 0o755)
  await chmod(join(repo, 'blocks'), 0o755)
})

// --- peers ------------------------------------------------------------------------------------------------------------

it('names that would leave the target, and names that would steer the terminal', async () => {
  const evil = await directory(['\u001b[2J\u001b]0;owned\u0007', '\u009b31m', 'a\nb', 'caf\u00e9 \u202egpj.exe'])
  const escape = await directory(['../../escaped'])
  const [listed, json, got] = await Promise.all([
    rhiza(['ls', String(evil), '--peer', peer]),
    rhiza(['ls', '--json', String(evil), '--peer', peer], { repo: at('repo2') }),
    rhiza(['get', '--json', String(escape), '--peer', peer, '-o', at('target')], { repo: at('repo3') }),
  ])
  // oxlint-disable-next-line no-control-regex
  const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/
  for (const { code, stdout } of [listed, json]) {
    expect(code).toBe(0)
    expect(stdout).not.toMatch(control)
    expect(stdout.trim().split('\n')).toHaveLength(4)
  }
  expect(
    json.stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { name: string }).name),
  ).toEqual(['\u001b[2J\u001b]0;owned\u0007', '\u009b31m', 'a\nb', 'caf\u00e9 \u202egpj.exe'])
  expect([got.code, got.error().code]).toEqual([1, 'bad-dag'])
  expect(await readdir(at('target'))).toEqual([])
})

it('a silent peer, a closed port, a peer that is somebody else: each its own error, within --timeout', async () => {
  const silent = await hostileListener((socket) => void socket.resume())
  const cid = String(cidOf(codec.raw, fromUtf8('nobody has it')))
  const other = peer.replace(/p2p\/.*/, `p2p/${generateKey().publicKey.peerId}`)
  const ask = (to: string, n: number): Promise<Ran> =>
    rhiza(['cat', '--json', cid, '--peer', to, '--timeout', '1s'], { repo: at(`asks${n}`) })
  const ran = await Promise.all([
    ask(`/ip4/127.0.0.1/tcp/${silent}`, 1),
    ask('/ip4/127.0.0.1/tcp/1', 2),
    ask(other, 3),
    ask(peer, 4),
  ])
  expect(ran.map((r) => [r.code, r.error().code])).toEqual([
    [1, 'timeout'],
    [1, 'unreachable'],
    [1, 'wrong-peer'],
    [1, 'not-found'],
  ])
})

it('Ctrl-C ends a fetch from a peer that reads nothing, with one line', async () => {
  const tunnels: Promise<unknown>[] = []
  const port = await hostileListener((socket) => {
    tunnels.push(acceptTunnel(socket, generateKey()).then(() => socket.pause()))
  })
  const cid = String(cidOf(codec.raw, fromUtf8('nobody has it')))
  const running = start(['cat', '--json', cid, '--peer', `/ip4/127.0.0.1/tcp/${port}`])
  await expect.poll(() => tunnels.length, { timeout: 30_000 }).toBe(1)
  await Promise.all(tunnels)
  const from = Date.now()
  running.child.kill('SIGINT')
  const ran = await running.ended
  expect([ran.code, ran.error().code]).toEqual([1, 'interrupted'])
  // A second for the goodbye, however busy the machine is.
  expect(Date.now() - from).toBeLessThan(8_000)
})

it('serve ends within two seconds of SIGTERM though peers read nothing', async () => {
  const running = start(['serve', '--json', '--listen', '/ip4/127.0.0.1/tcp/0'])
  const line = await new Promise<string>((resolve) =>
    running.child.stdout?.once('data', (chunk: Buffer) => resolve(chunk.toString())),
  )
  const [, port = ''] = /\/tcp\/(\d+)/.exec(line) ?? []
  for (let i = 0; i < 3; i++) (await tunnel(Number(port))).socket.pause()
  const from = Date.now()
  running.child.kill('SIGTERM')
  expect((await running.ended).code).toBe(0)
  expect(Date.now() - from).toBeLessThan(2_000)
})

// --- readers that go away ---------------------------------------------------------------------------------------------

it('a reader that closes our standard output, or our standard error, gets no stack trace', async () => {
  const { cid } = await owner.add(new Uint8Array(5_000_000))
  const early = start(['cat', String(cid), '--peer', peer])
  early.child.stdout?.once('data', () => early.child.stdout?.destroy())
  const deaf = start(['cat', 'not-a-cid'], { repo: at('repo5') })
  deaf.child.stderr?.destroy()
  const [one, two] = await Promise.all([early.ended, deaf.ended])
  expect([one.code, one.stderr.replaceAll(/^.*fetch.*$|^reading .*\n/gm, '')]).toEqual([0, ''])
  expect(two.code).toBe(1)
})
