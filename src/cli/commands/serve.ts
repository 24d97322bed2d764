import { networkInterfaces } from 'node:os'
import { UnavailableError, errorCode } from '../../errors.ts'
import { createKit, type Kit, type KitOptions } from '../../kit/kit.ts'
import { servePerf } from '../../protocols/perf.ts'
import { openRepo, type Repo } from '../../store/repo.ts'
import { UsageError, listOf, multiaddrOf, stopTimeoutMs, type Command, type Context } from '../args.ts'
import { certificateOf, certificateOptions } from '../certificate.ts'
import { dhtOf, findingOf, findingOptions, recordsOf } from '../network.ts'
import { keyNamed } from './name.ts'
import { topicOf } from './pubsub.ts'

const firstPort = 4001
/** Ports that are tried before the system is asked for any. */
const portsTried = 32
const stopWithinMs = 1_500

function everywhere(port: number): string[] {
  const hasIp6 = Object.values(networkInterfaces()).some((all) => all?.some((a) => a.family === 'IPv6') === true)
  return [`/ip4/0.0.0.0/tcp/${port}`, ...(hasIp6 ? [`/ip6/::/tcp/${port}`] : [])]
}

async function startOn(repo: Repo, listen: readonly string[], network: Partial<KitOptions>): Promise<Kit> {
  const privateKey = await repo.identity()
  const kit = await createKit({ repo, privateKey, listen, stopTimeoutMs, ...network })
  try {
    await kit.start()
    return kit
  } catch (error) {
    await kit.stop()
    throw error
  }
}

async function startSomewhere(repo: Repo, network: Partial<KitOptions>): Promise<Kit> {
  for (let port = firstPort; port < firstPort + portsTried; port++) {
    try {
      return await startOn(repo, everywhere(port), network)
    } catch (error) {
      if (!(error instanceof UnavailableError) || errorCode(error) !== 'refused') throw error
    }
  }
  return startOn(repo, everywhere(0), network)
}

const modes = ['client', 'server', 'auto', 'none'] as const

/** How it finds others, and others it. */
async function networkOf(context: Context, repo: Repo): Promise<Partial<KitOptions>> {
  const { options, out } = context
  const { dht: given = 'auto' } = options
  const mode = modes.find((one) => one === given)
  if (mode === undefined) throw new UsageError(`--dht ${JSON.stringify(given)}: want ${modes.join(', ')}`)
  const records = await recordsOf(repo)
  return {
    ...findingOf(context),
    dht: mode === 'none' ? false : dhtOf(context, mode),
    ...(records && { records }),
    onProvided(cid, peers) {
      const text = `provided ${cid} to ${peers} ${peers === 1 ? 'peer' : 'peers'}`
      if (out.json) void out.result({ event: 'provided', cid: String(cid), peers }, text)
      else out.note(text)
    },
  }
}

/** Publishes the names of this repo's keys again. */
async function republishing(kit: Kit, repo: Repo): Promise<{ stop(): Promise<void> } | undefined> {
  const records = await recordsOf(repo)
  if (kit.dht === undefined || records === undefined) return undefined
  const { createNames } = await import('../../ipns/ipns.ts')
  const names = createNames({ routing: kit.dht, records, env: kit.node.env })
  names.startRepublishing(async (name) => {
    for (const one of ['self', ...(await repo.keys.list())]) {
      const key = await keyNamed(repo, one)
      if (key.publicKey.peerId.equals(name)) return key
    }
    return undefined
  })
  return names
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

export const serve: Command = {
  name: 'serve',
  summary: 'run a node that serves the blocks of this repo until Ctrl-C',
  usage: '[--listen MULTIADDR]... [--dht MODE] [--bootstrap ADDR]... [--mdns] [--topic T]... [--no-graphsync] [--perf]',
  more: [
    'Addresses are /ip4/HOST/tcp/PORT, for WebSocket and browsers /ip4/HOST/tcp/PORT/ws, with a certificate',
    '/ip4/HOST/tcp/PORT/tls/ws; port 0 is any free one.',
    'While it runs, rhiza add on the same repo works and is served at once.',
    'It tells the DHT of what was added, soon after and every 22 hours: others then find it by its CID alone, once there is',
    'a peer to begin with: --bootstrap ADDR, --bootstrap default for the public IPFS network, or --mdns for this one.',
    'With --json the first line is {"event":"listening","peerId":"...","addrs":["..."]}.',
  ].join('\n'),
  options: {
    listen: {
      type: 'string',
      multiple: true,
      value: 'MULTIADDR',
      help: 'where to listen; repeatable (default all interfaces, TCP 4001 or the next free port)',
    },
    dht: {
      type: 'string',
      value: 'MODE',
      help: 'client, server, auto (default: server where others can dial us) or none',
    },
    ...certificateOptions,
    ...findingOptions,
    topic: {
      type: 'string',
      multiple: true,
      value: 'TOPIC',
      help: 'be in this topic of GossipSub, and hand its messages on; repeatable',
    },
    'no-graphsync': { type: 'boolean', help: 'do not answer GraphSync: Bitswap gives the same blocks one by one' },
    perf: { type: 'boolean', help: 'let every peer measure with rhiza perf: it costs bandwidth' },
  },
  arity: [0, 0],
  async run(context) {
    const { options, out, repoPath, signal } = context
    const listen = listOf(options, 'listen').map((addr) => multiaddrOf('--listen', addr))
    const topics = listOf(options, 'topic').map((topic) => topicOf('--topic', topic))
    const certified = await certificateOf(context, listen)
    const repo = await openRepo(repoPath, {
      onCorrupt: (_error, cid) =>
        out.note(`block ${cid} in the repo is damaged and not served; reading it from a peer repairs it`),
    })
    try {
      const found = await networkOf(context, repo)
      const network = {
        ...found,
        ...(certified && { transports: certified.transports }),
        ...(topics.length > 0 && { pubsub: true }),
        graphsync: options['no-graphsync'] !== true,
      }
      const kit = listen.length > 0 ? await startOn(repo, listen, network) : await startSomewhere(repo, network)
      const names = await republishing(kit, repo)
      for (const topic of topics) kit.pubsub?.relay(topic)
      if (options['perf'] === true) servePerf(kit.node)
      const peerId = kit.node.peerId.toString()
      const addrs = kit.node.addrs().map(String)
      const text = [`peer id  ${peerId}`, ...addrs.map((a) => `address  ${a}`)].join('\n')
      await out.result({ event: 'listening', peerId, addrs }, text)
      if (topics.length > 0) out.note(`in ${topics.length === 1 ? 'topic' : 'topics'} ${topics.join(', ')}`)
      out.note(`serving ${repoPath}; Ctrl-C stops`)
      await untilAborted(signal)
      // A peer that does not take its goodbye must not keep us.
      const late = setTimeout(() => process.exit(0), stopWithinMs)
      await names?.stop()
      await kit.stop()
      clearTimeout(late)
    } finally {
      certified?.stop()
      await repo.close()
    }
  },
}
