/*
 * rhiza in libp2p/unified-testing: one program for the transport and the perf suite, dialer or listener by its
 * environment (README.md). Results are YAML on stdout, everything else goes to stderr; exit code 0 is a pass.
 */
import { createNode, generateKey, type Node } from '../../../src/index.ts'
import { systemEnv, type Trace } from '../../../src/env.ts'
import { isLoopback, isLinkLocal, parseIp } from '../../../src/ip.ts'
import { yamux } from '../../../src/mux/yamux/yamux.ts'
import { perf, servePerf } from '../../../src/protocols/perf.ts'
import { createNoise } from '../../../src/security/noise/noise.ts'
import { createTls } from '../../../src/security/tls/tls.ts'
import { tcp } from '../../../src/transport/tcp.ts'
import { websocket } from '../../../src/transport/websocket/websocket.ts'
import { redis, until } from './redis.ts'
import { latencyYaml, statsYaml } from './report.ts'
import { settingsOf, type PerfSettings, type Settings } from './settings.ts'

const log = (text: string): void => void process.stderr.write(`${text}\n`)

const trace: Trace = (what, { error }) => log(error instanceof Error ? `${what}: ${error.message}` : what)

async function startNode(settings: Settings): Promise<Node> {
  const { debug, dialer, listenerIp, transport, secureChannel, timeoutMs } = settings
  const env = systemEnv(debug ? trace : undefined)
  const privateKey = generateKey()
  const host = `/ip${listenerIp.includes(':') ? 6 : 4}/${listenerIp}/tcp/0`
  const node = await createNode({
    privateKey,
    env,
    listen: dialer ? [] : [transport === 'ws' ? `${host}/ws` : host],
    transports: [transport === 'ws' ? websocket({ env }) : tcp()],
    security: [secureChannel === 'tls' ? createTls({ privateKey, env }) : createNoise({ privateKey, env })],
    muxers: [yamux()],
    dialTimeoutMs: timeoutMs,
  })
  await node.start()
  return node
}

function isNear(host: string | undefined): boolean {
  const ip = host === undefined ? undefined : parseIp(host)
  return ip === undefined || isLoopback(ip) || isLinkLocal(ip)
}

/** The address to publish: LISTENER_IP is 0.0.0.0, and the dialer is in another container. */
function publicAddr(node: Node): string {
  const addrs = node.addrs()
  const addr = addrs.find((a) => !isNear([...a.components()][0]?.value)) ?? addrs[0]
  if (addr === undefined) throw new Error('the node listens nowhere')
  return String(addr)
}

async function listen(settings: Settings): Promise<void> {
  const { key, publishAs, timeoutMs } = settings
  const node = await startNode(settings)
  servePerf(node)
  const addr = publicAddr(node)
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => resolve())
  })
  const commands =
    publishAs === 'list'
      ? [
          ['DEL', key],
          ['RPUSH', key, addr],
        ]
      : [['SET', key, addr]]
  try {
    await until('publishing the address', timeoutMs, (signal) => redis(settings.redis, commands, signal))
    log(`listening at ${addr}`)
    await stopped
  } finally {
    await node.stop()
  }
}

/** The listener's address, whether it was SET or, as by the transport suite's go, js and rust images, pushed to a list. */
function listenerAddr({ redis: server, key, timeoutMs }: Settings): Promise<string> {
  return until(`the address of the listener under ${key}`, timeoutMs, async (signal) => {
    const type = await redis(server, [['TYPE', key]], signal)
    if (type === 'none') return undefined
    const addr = await redis(server, [type === 'list' ? ['LINDEX', key, '0'] : ['GET', key]], signal)
    return typeof addr === 'string' ? addr : undefined
  })
}

async function measureLatency(node: Node, addr: string, timeoutMs: number): Promise<string> {
  const begin = performance.now()
  const { peer } = await node.dial(addr, { timeoutMs })
  const times: number[] = []
  let handshakePlusOneRttMs = 0
  for await (const rttMs of node.ping(peer, { count: 2, timeoutMs })) {
    if (times.push(rttMs) === 1) handshakePlusOneRttMs = performance.now() - begin
  }
  // The first went over a stream that was still to be negotiated.
  return latencyYaml(handshakePlusOneRttMs, times[1] ?? Number.NaN)
}

async function repeat(what: string, times: number, measure: () => Promise<number>): Promise<number[]> {
  log(`${what}: ${times} iterations`)
  const values: number[] = []
  for (let i = 0; i < times; i++) values.push(await measure())
  return values
}

async function measurePerf(node: Node, addr: string, settings: PerfSettings): Promise<string> {
  const { peer } = await node.dial(addr)
  const seconds = async (uploadBytes: number, downloadBytes: number): Promise<number> => {
    const begin = performance.now()
    const options = { uploadBytes, downloadBytes, warmUpBytes: 0, progressMs: Infinity, timeoutMs: Infinity }
    await Array.fromAsync(perf(node, peer, options))
    return (performance.now() - begin) / 1_000
  }
  const { uploadBytes: up, downloadBytes: down } = settings
  const gigabits = async (sent: number, got: number): Promise<number> =>
    ((sent + got) * 8) / 1e9 / (await seconds(sent, got))
  const upload = await repeat('upload', settings.uploadIterations, () => gigabits(up, 0))
  const download = await repeat('download', settings.downloadIterations, () => gigabits(0, down))
  const latency = await repeat('latency', settings.latencyIterations, async () => (await seconds(1, 1)) * 1_000)
  return [
    statsYaml('upload', upload, 'Gbps'),
    statsYaml('download', download, 'Gbps'),
    statsYaml('latency', latency, 'ms'),
  ].join('')
}

async function dial(settings: Settings): Promise<void> {
  const addr = await listenerAddr(settings)
  log(`dialling ${addr}`)
  const node = await startNode(settings)
  try {
    const { perf: perfSettings, timeoutMs } = settings
    const yaml = await (perfSettings === undefined
      ? measureLatency(node, addr, timeoutMs)
      : measurePerf(node, addr, perfSettings))
    process.stdout.write(`# Measurements from dialer\n${yaml}`)
  } finally {
    await node.stop()
  }
}

async function main(): Promise<void> {
  try {
    const settings = settingsOf(process.env)
    await (settings.dialer ? dial(settings) : listen(settings))
  } catch (error) {
    log(error instanceof Error ? `${error.name}: ${error.message}` : String(error))
    process.exitCode = 1
  }
}

void main()
