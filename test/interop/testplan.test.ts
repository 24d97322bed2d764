/* The program for the official matrix, as the matrix runs it: two processes that meet in a real Redis. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { available, buildPeers, startPeer } from './peers.ts'
import { redis, until } from './testplan/redis.ts'
import { statsOf } from './testplan/report.ts'
import { settingsOf } from './testplan/settings.ts'

const program = join(import.meta.dirname, 'testplan/main.ts')
await buildPeers()
const have = available()
const haveRedis = spawnSync('redis-server', ['--version']).status === 0

/** A machine may have nothing but its loopback. */
const isConnected = Object.values(networkInterfaces()).some((all) =>
  all?.some((a) => a.family === 'IPv4' && !a.internal),
)

const combinations = (['tcp', 'ws'] as const).flatMap((transport) =>
  (['noise', 'tls'] as const).map((secure) => [transport, secure] as const),
)

/** YAML of the shape that the suites print: a level of maps, numbers, words and lists of numbers. */
function parseYaml(text: string): Record<string, Record<string, unknown>> {
  const out: Record<string, Record<string, unknown>> = {}
  let section: Record<string, unknown> = {}
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [, indent, key = '', value = ''] = /^( {2})?(\w+):(?: (.*))?$/.exec(line) ?? []
    if (key === '') throw new Error(`no YAML of the suites: ${line}`)
    if (indent === undefined) out[key] = section = {}
    else section[key] = /^[a-z]/i.test(value) ? value : (JSON.parse(value) as unknown)
  }
  return out
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

describe.skipIf(!haveRedis)('the program for libp2p/unified-testing', () => {
  const children = new Set<ChildProcess>()
  let dir: string
  let server: ChildProcess
  let at: { host: string; port: number }
  let keys = 0

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'rhiza-redis-'))
    at = { host: '127.0.0.1', port: await freePort() }
    const options = ['--port', String(at.port), '--bind', at.host, '--save', '', '--appendonly', 'no', '--dir', dir]
    server = spawn('redis-server', options, { stdio: 'ignore' })
    const pong = await until('Redis', 20_000, (signal) => redis(at, [['PING']], signal))
    expect(pong).toBe('PONG')
  })
  afterEach(() => {
    for (const child of children) child.kill('SIGKILL')
    children.clear()
  })
  afterAll(async () => {
    server.kill('SIGKILL')
    await rm(dir, { recursive: true, force: true })
  })

  interface Ended {
    code: number | null
    stdout: string
    stderr: string
  }

  function run(env: Record<string, string>): { child: ChildProcess; ended: Promise<Ended> } {
    const { PATH = '' } = process.env
    const child = spawn(process.execPath, [program], {
      env: { PATH, REDIS_ADDR: `${at.host}:${at.port}`, LISTENER_IP: '127.0.0.1', DEBUG: 'true', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.add(child)
    const ended = new Promise<Ended>((resolve) => {
      const out: Buffer[] = []
      const err: Buffer[] = []
      child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
      child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
      child.on('close', (code) =>
        resolve({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
      )
    })
    return { child, ended }
  }

  /** Both processes of one test; the dialer comes first, as containers do when they will. */
  async function pair(env: Record<string, string>, ofListener: Record<string, string> = {}): Promise<Ended> {
    const both = { MUXER: 'yamux', TEST_KEY: `key${++keys}`, ...env }
    const dialer = run({ ...both, IS_DIALER: 'true' })
    const listener = run({ ...both, IS_DIALER: 'false', ...ofListener })
    const result = await dialer.ended
    listener.child.kill('SIGTERM')
    const { code, stdout, stderr } = await listener.ended
    expect([code, stdout]).toEqual([0, ''])
    const ip = ofListener['LISTENER_IP'] === undefined || !isConnected ? '127.0.0.1' : '(?!127)[0-9.]+'
    expect(stderr).toMatch(new RegExp(`listening at /ip4/${ip}/tcp/`))
    return result
  }

  it.each(combinations)('passes the transport test over %s with %s', async (TRANSPORT, SECURE_CHANNEL) => {
    const { code, stdout, stderr } = await pair({ TRANSPORT, SECURE_CHANNEL })
    expect(stderr).toContain(TRANSPORT === 'ws' ? '/ws/p2p/' : '/tcp/')
    expect(code, stderr).toBe(0)
    const { latency } = parseYaml(stdout)
    expect(latency).toEqual({ handshake_plus_one_rtt: expect.any(Number), ping_rtt: expect.any(Number), unit: 'ms' })
    expect(latency?.['ping_rtt']).toBeGreaterThan(0)
    expect(latency?.['handshake_plus_one_rtt']).toBeGreaterThan(Number(latency?.['ping_rtt']))
  })

  it.each(combinations)('passes the perf test over %s with %s', async (TRANSPORT, SECURE_CHANNEL) => {
    const { code, stdout, stderr } = await pair({
      TRANSPORT,
      SECURE_CHANNEL,
      UPLOAD_BYTES: '3000000',
      DOWNLOAD_BYTES: '2000000',
      UPLOAD_ITERATIONS: '4',
      DOWNLOAD_ITERATIONS: 'null',
      LATENCY_ITERATIONS: '7',
    })
    expect(code, stderr).toBe(0)
    const report = parseYaml(stdout)
    expect(Object.keys(report)).toEqual(['upload', 'download', 'latency'])
    for (const [name, iterations, unit] of [
      ['upload', 4, 'Gbps'],
      ['download', 10, 'Gbps'],
      ['latency', 7, 'ms'],
    ] as const) {
      const { samples, outliers, min, q1, median, q3, max, ...rest } = report[name] ?? {}
      expect(rest).toEqual({ iterations, unit })
      const values = samples as number[]
      expect(values).toHaveLength(iterations)
      expect(values[0]).toBeGreaterThan(0)
      expect(statsOf(values)).toMatchObject({ outliers })
      const steps = [min, q1, median, q3, max] as number[]
      expect(steps).toHaveLength(5)
      expect(values).toContain(min)
      expect(values).toContain(max)
    }
  })

  // The other side of the matrix, in person: a go-libp2p peer whose address the test publishes, and which it has dial.
  it.skipIf(!have.go).each([
    ['tcp', 'noise'],
    ['tcp', 'tls'],
    ['ws', 'noise'],
  ] as const)('meets go-libp2p over %s with %s, as dialer and as listener', async (TRANSPORT, SECURE_CHANNEL) => {
    const suffix = TRANSPORT === 'ws' ? '/ws' : ''
    const args = ['--listen', `/ip4/127.0.0.1/tcp/0${suffix}`, '--security', SECURE_CHANNEL, '--bitswap', 'none']
    await using peer = await startPeer('go', args)
    const env = { TRANSPORT, SECURE_CHANNEL, MUXER: 'yamux', TEST_KEY: `key${++keys}` }
    const key = `${env.TEST_KEY}_listener_multiaddr`
    await redis(at, [['SET', key, peer.addrs[0] ?? '']], AbortSignal.timeout(5_000))
    const sizes = { UPLOAD_BYTES: '100000', DOWNLOAD_BYTES: '100000', UPLOAD_ITERATIONS: '1', DOWNLOAD_ITERATIONS: '1' }
    for (const suite of [{}, { ...sizes, LATENCY_ITERATIONS: '2' }]) {
      const { code, stdout, stderr } = await run({ ...env, ...suite, IS_DIALER: 'true' }).ended
      expect(code, stderr).toBe(0)
      expect(parseYaml(stdout)).toHaveProperty('latency.unit', 'ms')
    }
    await redis(at, [['DEL', key]], AbortSignal.timeout(5_000))
    const listener = run({ ...env, IS_DIALER: 'false' })
    const addr = await until(
      'the address',
      20_000,
      async (signal) => (await redis(at, [['GET', key]], signal)) ?? undefined,
    )
    expect((await peer.call('ping', { addr, count: 2 }))['rttMs']).toHaveLength(2)
    expect(await peer.call('perf', { addr, upload: 100_000, download: 100_000 })).toHaveProperty('uploadSeconds')
    listener.child.kill('SIGTERM')
    expect(await listener.ended).toMatchObject({ code: 0, stdout: '' })
  })

  it('finds a listener that pushed its address to a list, as go, js and rust do', async () => {
    const { code, stderr } = await pair({ TRANSPORT: 'tcp', SECURE_CHANNEL: 'noise' }, { PUBLISH_AS: 'list' })
    expect(code, stderr).toBe(0)
    const list = await redis(at, [['LRANGE', `key${keys}_listener_multiaddr`, '0', '-1']], AbortSignal.timeout(5_000))
    expect(list).toEqual([expect.stringMatching(/^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\/12D3KooW/)])
  })

  it('publishes an address that other machines can reach when it listens on all', async () => {
    const { code, stderr } = await pair({ TRANSPORT: 'ws', SECURE_CHANNEL: 'noise' }, { LISTENER_IP: '0.0.0.0' })
    expect(code, stderr).toBe(0)
  })

  it('fails in time when the listener never comes', async () => {
    const env = {
      TRANSPORT: 'tcp',
      SECURE_CHANNEL: 'noise',
      MUXER: 'yamux',
      TEST_KEY: 'nobody',
      TEST_TIMEOUT_SECS: '1',
    }
    const { code, stdout, stderr } = await run({ ...env, IS_DIALER: 'true' }).ended
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toContain('the address of the listener under nobody_listener_multiaddr: not within 1000 ms')
  })

  it('fails in time when the address leads nowhere, and when Redis is not there', async () => {
    const port = await freePort()
    const env = { TRANSPORT: 'tcp', SECURE_CHANNEL: 'noise', MUXER: 'yamux', TEST_KEY: 'gone', TEST_TIMEOUT_SECS: '1' }
    const id = '12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F'
    const set = ['SET', 'gone_listener_multiaddr', `/ip4/127.0.0.1/tcp/${port}/p2p/${id}`]
    await redis(at, [set], AbortSignal.timeout(5_000))
    const refused = await run({ ...env, IS_DIALER: 'true' }).ended
    expect([refused.code, refused.stdout]).toEqual([1, ''])
    expect(refused.stderr).toContain(`/tcp/${port}`)
    for (const IS_DIALER of ['true', 'false']) {
      const lost = await run({ ...env, REDIS_ADDR: `127.0.0.1:${port}`, IS_DIALER }).ended
      expect([lost.code, lost.stdout]).toEqual([1, ''])
      expect(lost.stderr).toContain('ECONNREFUSED')
    }
  })

  it('says what it can not do', async () => {
    const { code, stderr } = await run({ IS_DIALER: 'true', TEST_KEY: 'x', TRANSPORT: 'quic-v1' }).ended
    expect(code).toBe(1)
    expect(stderr).toBe('TypeError: TRANSPORT is "quic-v1", want tcp or ws\n')
  })
})

describe('the statistics of the perf suite', () => {
  it('are those of the example in its documents', () => {
    const samples = [2.02, 2.04, 2.05, 2.05, 2.05, 2.06, 2.06, 2.06, 2.06, 2.07]
    const stats = statsOf(samples.toReversed())
    expect(stats.samples).toEqual(samples)
    expect([stats.min, stats.max, stats.outliers]).toEqual([2.04, 2.07, [2.02]])
    // The documents print two digits.
    expect([stats.q1, stats.median, stats.q3].map((value) => value.toFixed(3))).toEqual(['2.050', '2.055', '2.060'])
  })
})

describe('the environment of the suites', () => {
  const env = {
    IS_DIALER: 'true',
    REDIS_ADDR: 'transport-redis:6379',
    TEST_KEY: 'a5b50d5e',
    TRANSPORT: 'tcp',
    SECURE_CHANNEL: 'noise',
    MUXER: 'yamux',
  }

  it('is read as its documents have it', () => {
    expect(settingsOf({ ...env, LISTENER_IP: '0.0.0.0', DEBUG: 'false' })).toEqual({
      debug: false,
      dialer: true,
      redis: { host: 'transport-redis', port: 6379 },
      key: 'a5b50d5e_listener_multiaddr',
      transport: 'tcp',
      secureChannel: 'noise',
      muxer: 'yamux',
      listenerIp: '0.0.0.0',
      publishAs: 'string',
      perf: undefined,
      timeoutMs: 180_000,
    })
    expect(settingsOf({ ...env, UPLOAD_BYTES: '5', LATENCY_ITERATIONS: '3' }).perf).toEqual({
      uploadBytes: 5,
      downloadBytes: 1_073_741_824,
      uploadIterations: 10,
      downloadIterations: 10,
      latencyIterations: 3,
    })
  })

  it.each([
    ['IS_DIALER', 'yes'],
    ['REDIS_ADDR', 'redis:port'],
    ['TEST_KEY', ''],
    ['TRANSPORT', 'quic-v1'],
    ['SECURE_CHANNEL', 'plaintext'],
    ['MUXER', 'mplex'],
    ['UPLOAD_BYTES', '-1'],
    ['UPLOAD_ITERATIONS', '0'],
    ['PUBLISH_AS', 'set'],
  ])('refuses %s=%s', (name, value) => {
    expect(() => settingsOf({ ...env, UPLOAD_BYTES: '1', [name]: value })).toThrow(new RegExp(`^${name} is`))
  })
})
