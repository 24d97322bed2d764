import { networkInterfaces } from 'node:os'
import { UnavailableError, errorCode } from '../../errors.ts'
import { createKit, type Kit } from '../../kit/kit.ts'
import { servePerf } from '../../protocols/perf.ts'
import type { RecordStore } from '../../store/records.ts'
import { openRepo, type Repo } from '../../store/repo.ts'
import { UsageError, listOf, multiaddrOf, stopTimeoutMs, type Command } from '../args.ts'

const firstPort = 4001
/** Ports that are tried before the system is asked for any. */
const portsTried = 32
const stopWithinMs = 1_500

function everywhere(port: number): string[] {
  const hasIp6 = Object.values(networkInterfaces()).some((all) => all?.some((a) => a.family === 'IPv6') === true)
  return [`/ip4/0.0.0.0/tcp/${port}`, ...(hasIp6 ? [`/ip6/::/tcp/${port}`] : [])]
}

/** Undefined where this runtime has no store for them, or where we may not write: then nothing is remembered. */
async function recordsOf(repo: Repo): Promise<{ records?: RecordStore }> {
  try {
    return { records: await repo.records() }
  } catch (error) {
    if (errorCode(error) !== 'unsupported' && errorCode(error) !== 'not-permitted') throw error
    return {}
  }
}

async function startOn(repo: Repo, listen: readonly string[]): Promise<Kit> {
  const privateKey = await repo.identity()
  const kit = await createKit({ repo, privateKey, listen, stopTimeoutMs, ...(await recordsOf(repo)) })
  try {
    await kit.start()
    return kit
  } catch (error) {
    await kit.stop()
    throw error
  }
}

async function startSomewhere(repo: Repo): Promise<Kit> {
  for (let port = firstPort; port < firstPort + portsTried; port++) {
    try {
      return await startOn(repo, everywhere(port))
    } catch (error) {
      if (!(error instanceof UnavailableError) || errorCode(error) !== 'refused') throw error
    }
  }
  return startOn(repo, everywhere(0))
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
  usage: '[--listen MULTIADDR]... [--perf]',
  more: [
    'Addresses are /ip4/HOST/tcp/PORT, for WebSocket and browsers /ip4/HOST/tcp/PORT/ws; port 0 is any free one.',
    'While it runs, rhiza add on the same repo works and is served at once.',
    'With --json the first line is {"event":"listening","peerId":"...","addrs":["..."]}.',
  ].join('\n'),
  options: {
    listen: {
      type: 'string',
      multiple: true,
      value: 'MULTIADDR',
      help: 'where to listen; repeatable (default all interfaces, TCP 4001 or the next free port)',
    },
    perf: { type: 'boolean', help: 'let every peer measure with rhiza perf: it costs bandwidth' },
  },
  arity: [0, 0],
  async run({ options, out, repoPath, signal }) {
    const listen = listOf(options, 'listen').map((addr) => multiaddrOf('--listen', addr))
    const secured = listen.find((addr) => /\/(tls|wss)(\/|$)/.test(addr))
    if (secured !== undefined)
      throw new UsageError(`--listen ${secured}: serve has no certificate; listen on /ws behind a proxy that has one`)
    const repo = await openRepo(repoPath, {
      onCorrupt: (_error, cid) =>
        out.note(`block ${cid} in the repo is damaged and not served; reading it from a peer repairs it`),
    })
    try {
      const kit = listen.length > 0 ? await startOn(repo, listen) : await startSomewhere(repo)
      if (options['perf'] === true) servePerf(kit.node)
      const peerId = kit.node.peerId.toString()
      const addrs = kit.node.addrs().map(String)
      const text = [`peer id  ${peerId}`, ...addrs.map((a) => `address  ${a}`)].join('\n')
      await out.result({ event: 'listening', peerId, addrs }, text)
      out.note(`serving ${repoPath}; Ctrl-C stops`)
      await untilAborted(signal)
      // A peer that does not take its goodbye must not keep us.
      const late = setTimeout(() => process.exit(0), stopWithinMs)
      await kit.stop()
      clearTimeout(late)
    } finally {
      await repo.close()
    }
  },
}
