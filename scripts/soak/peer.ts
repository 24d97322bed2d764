/* One process of a soak, told what to do over its IPC channel by ../soak.ts. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Node } from '../../src/node.ts'
import type { Sample, Tally } from './figures.ts'
import { Churn, startServer } from './work.ts'

export type Order =
  | { cmd: 'go'; addrs: string[]; pauseMs: number }
  | { cmd: 'pause' }
  | { cmd: 'sample'; seconds: number }
  | { cmd: 'stop' }

export type Report =
  | { event: 'listening'; addrs: string[] }
  | { event: 'paused' }
  | { event: 'sample'; sample: Sample; tally: Tally; problems: string[] }
  | { event: 'stopped'; left: string[] }

const restMs = 10_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const sockets = ['TCPSocketWrap', 'TCPServerWrap', 'TLSWrap']
const resources = (names: readonly string[]): number =>
  process.getActiveResourcesInfo().filter((name) => names.includes(name)).length

const open = (nodes: readonly Node[]): { connections: number; streams: number } => {
  const connections = nodes.flatMap((node) => node.connections())
  return { connections: connections.length, streams: connections.flatMap((c) => c.streams).length }
}

/** Nobody works any more: ends what is open. Both ends of every connection need a moment to notice its end. */
async function rest(nodes: readonly Node[]): Promise<void> {
  const until = performance.now() + restMs
  for (const node of nodes) await Promise.all(node.peers().map((peer) => node.hangUp(peer)))
  for (;;) {
    // Timers of our own must not be counted as somebody else's.
    await sleep(20)
    const { connections, streams } = open(nodes)
    if (connections + streams + resources(['Timeout']) + resources(['TCPSocketWrap']) === 0) return
    if (performance.now() > until) return
  }
}

async function sampleOf(nodes: readonly Node[], seconds: number): Promise<Sample> {
  await rest(nodes)
  collect()
  // What the first collection found unreachable lets go of more.
  await new Promise((resolve) => setImmediate(resolve))
  collect()
  const { heapUsed: heapBytes, external: externalBytes, rss: rssBytes } = process.memoryUsage()
  const counts = { handles: resources(sockets), timers: resources(['Timeout']), ...open(nodes) }
  return { seconds, heapBytes, externalBytes, rssBytes, ...counts }
}

function send(report: Report): void {
  process.send?.(report)
}

async function main(): Promise<void> {
  const [server, neighbour] = [await startServer(), await startServer()]
  const nodes = [server, neighbour]
  const churn = new Churn(server)
  process.on('unhandledRejection', (error) => {
    churn.problems.push(`unhandled rejection: ${error instanceof Error ? error.stack : String(error)}`)
  })
  const near = neighbour.addrs().map(String)

  const obey = async (order: Order): Promise<void> => {
    if (order.cmd === 'go') churn.start([...near, ...order.addrs], order.pauseMs)
    else if (order.cmd === 'pause') {
      await churn.pause()
      send({ event: 'paused' })
    } else if (order.cmd === 'sample') {
      const sample = await sampleOf(nodes, order.seconds)
      send({ event: 'sample', sample, tally: churn.tally, problems: churn.problems.splice(0) })
    } else {
      await Promise.all(nodes.map((node) => node.stop()))
      await rest(nodes)
      const left = process.getActiveResourcesInfo().filter((name) => [...sockets, 'Timeout'].includes(name))
      send({ event: 'stopped', left })
      process.disconnect()
    }
  }
  process.on('message', (order: Order) => void obey(order))
  // The soak that started us is gone.
  process.on('disconnect', () => process.exit())
  send({ event: 'listening', addrs: server.addrs().map(String) })
}

void main()
