// A js-libp2p + Helia peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.
// The contract is in ../README.md.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { createLibp2p } from 'libp2p'
import { stackFlags, stackOptions } from './stack.js'
import { serve, streamCommands } from './streams.js'

const { values: flags } = parseArgs({
  options: {
    ...stackFlags,
    bitswap: { type: 'string', default: '1.2' },
    fetch: { type: 'boolean', default: false },
  },
})
// Helia opens its streams as 1.2.0 whatever it is told, so it can't be held to an older version.
if (!['1.2', 'none'].includes(flags.bitswap)) throw new Error(`no such bitswap version: ${flags.bitswap}`)
const options = await stackOptions(flags, flags.listen)
const fetch = flags.fetch ? await import('./fetch.js') : undefined
if (fetch !== undefined) options.services.fetch = fetch.fetchService()

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
}
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
