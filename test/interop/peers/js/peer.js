// A js-libp2p + Helia peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.
// The contract is in ../README.md.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { noise } from '@libp2p/noise'
import { identify, identifyPush } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { serve, streamCommands } from './streams.js'

const { values: flags } = parseArgs({
  options: {
    security: { type: 'string', default: 'noise' },
    muxer: { type: 'string', default: 'yamux' },
    listen: { type: 'string', default: '/ip4/127.0.0.1/tcp/0' },
    bitswap: { type: 'string', default: '1.2' },
  },
})
const fail = (why) => {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}
const security = { noise, tls }[flags.security] ?? fail(`no such security: ${flags.security}`)
if (flags.muxer !== 'yamux') fail(`no such muxer: ${flags.muxer}`)
// Helia opens its streams as 1.2.0 whatever it is told, so it can't be held to an older version.
if (!['1.2', 'none'].includes(flags.bitswap)) fail(`no such bitswap version: ${flags.bitswap}`)

const many = 1_000_000
const options = (listen) => ({
  addresses: { listen },
  transports: [tcp()],
  connectionEncrypters: [security()],
  streamMuxers: [yamux({ maxInboundStreams: many, maxOutboundStreams: many, maxEarlyStreams: many })],
  connectionManager: {
    maxConnections: many,
    maxIncomingPendingConnections: many,
    inboundConnectionThreshold: Infinity,
    reconnectRetries: 0,
  },
  connectionMonitor: { enabled: false },
  connectionGater: { denyDialMultiaddr: () => false },
  nodeInfo: { userAgent: 'rhiza-lab-js' },
  services: { identify: identify(), identifyPush: identifyPush(), ping: ping() },
})

// Without bitswap this is js-libp2p alone, and Helia is not even loaded.
const bare = flags.bitswap === 'none'
const started = bare
  ? { node: await createLibp2p(options([flags.listen])), commands: {} }
  : await (await import('./exchange.js')).startHelia(options([flags.listen]))
const { node } = started
await serve(node)

const commands = { ...streamCommands(node, () => createLibp2p(options([]))), ...started.commands }
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

async function run({ id, cmd, ...params }) {
  try {
    const command = commands[cmd]
    if (command === undefined) throw new Error(`no such command: ${cmd}`)
    const signal = AbortSignal.timeout(params.timeoutMs ?? 60_000)
    print({ ...(await command({ ...params, signal })), id, ok: true })
  } catch (error) {
    print({ id, ok: false, error: `${error?.name}: ${error?.message}` })
  }
}

async function stop() {
  // A peer that does not answer the close must not keep the lab waiting.
  setTimeout(() => process.exit(0), 2000).unref()
  await (started.helia ?? node).stop()
  process.exit(0)
}

process.on('unhandledRejection', (error) => process.stderr.write(`unhandled rejection: ${error?.stack ?? error}\n`))
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const request = JSON.parse(line)
    if (request.cmd === 'stop') {
      print({ id: request.id, ok: true })
      void stop()
    } else void run(request)
  })
  .on('close', () => void stop())

print({ event: 'listening', peerId: String(node.peerId), addrs: node.getMultiaddrs().map(String) })
