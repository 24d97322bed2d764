// A js-libp2p + Helia peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.
// The contract is in ../README.md.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { createLibp2p } from 'libp2p'
import { stackFlags, stackOptions } from './stack.js'
import { stormCommands } from './storm.js'
import { serve, streamCommands } from './streams.js'

const { values: flags } = parseArgs({
  options: {
    ...stackFlags,
    bitswap: { type: 'string', default: '1.2' },
    fetch: { type: 'boolean', default: false },
    kad: { type: 'string' },
    'kad-mode': { type: 'string', default: 'server' },
    nodes: { type: 'string', default: '1' },
    pubsub: { type: 'string' },
    'pubsub-sign': { type: 'string', default: 'strict' },
    'pubsub-version': { type: 'string', default: '1.3.0' },
    'pubsub-heartbeat-ms': { type: 'string', default: '1000' },
    'pubsub-idontwant-bytes': { type: 'string', default: '1024' },
    'pubsub-ids': { type: 'string', default: 'spec' },
  },
})
// Helia opens its streams as 1.2.0 whatever it is told, so it can't be held to an older version.
if (!['1.2', 'none'].includes(flags.bitswap)) throw new Error(`no such bitswap version: ${flags.bitswap}`)
const fetch = flags.fetch ? await import('./fetch.js') : undefined
const kad = flags.kad === undefined ? undefined : await import('./kad.js')
const pubsub = flags.pubsub === undefined ? undefined : await import('./pubsub.js')
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

/** A node with an identity of its own, and its commands. */
async function start(index) {
  const options = await stackOptions(flags, flags.listen)
  if (fetch !== undefined) options.services.fetch = fetch.fetchService()
  if (kad !== undefined) options.services.kad = kad.kadService(flags.kad, flags['kad-mode'])
  if (pubsub !== undefined) options.services.pubsub = pubsub.pubsubService(flags)
  // Without bitswap this is js-libp2p alone, and Helia is not even loaded.
  const bare = flags.bitswap === 'none'
  const started = bare
    ? { node: await createLibp2p(options), commands: {} }
    : await (await import('./exchange.js')).startHelia(options)
  const { node } = started
  await serve(node)
  const commands = {
    ...streamCommands(node, async () => createLibp2p(await stackOptions(flags, []))),
    ...started.commands,
    ...fetch?.fetchCommands(node),
    ...kad?.kadCommands(node),
    ...pubsub?.pubsubCommands(node, (event, about) => print({ ...about, event, node: index })),
  }
  if (pubsub !== undefined) Object.assign(commands, stormCommands(() => nodes.map((each) => each.node)))
  const about = { peerId: String(node.peerId), addrs: node.getMultiaddrs().map(String) }
  return { about, commands, node, stop: () => (started.helia ?? node).stop() }
}

const nodes = []
for (let i = 0; i < Number(flags.nodes); i++) nodes.push(await start(i))

async function run({ id, cmd, node = 0, ...params }) {
  try {
    const command = nodes[node]?.commands[cmd]
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
  await Promise.all(nodes.map((node) => node.stop()))
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

print({ event: 'listening', ...nodes[0].about, nodes: nodes.map(({ about }) => about) })
