/*
 * Ten rhiza nodes (or `--nodes N`) with GossipSub in one process, driven by the lines of the lab: `stormJoin`, `storm` and
 * `usage` of test/interop/peers/README.md. Nodes share nothing but the process.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { createNode } from '../src/node.ts'
import { generateKey } from '../src/peer/keys.ts'
import { createGossipsub } from '../src/protocols/gossipsub/gossipsub.ts'

interface Request {
  id: number
  cmd: string
  count?: number
  size?: number
  parallel?: number
  perSecond?: number
  timeoutMs?: number
}

interface Storm {
  number: number
  sent: number[]
  /** Of each message: nodes that it did not reach yet. */
  missing: number[]
  latencyMs: number[]
  done: number
  wake: () => void
}

const topics = 'storm/'

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const print = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

async function makeNode() {
  const privateKey = generateKey()
  const unlimited = { maxConnections: 1_000_000, maxConnectionsPerPeer: 1_000_000 }
  const node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'], ...unlimited })
  await node.start()
  // As the other labs have it.
  const pubsub = createGossipsub(node, { privateKey, floodPublish: false, maxMessageBytes: 2 * 1024 * 1024 })
  pubsub.start()
  return { node, pubsub }
}

async function main(): Promise<void> {
  const { values: flags } = parseArgs({ options: { nodes: { type: 'string', default: '10' } } })
  const all: Awaited<ReturnType<typeof makeNode>>[] = []
  for (let i = 0; i < Number(flags.nodes); i++) all.push(await makeNode())
  let running: Storm = { number: 0, sent: [], missing: [], latencyMs: [], done: 0, wake: () => {} }

  /** A message of a storm: its number and the message's own, then anything. */
  function counted({ data }: { data: Uint8Array }): void {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    if (view.getUint32(0) !== running.number) return
    const i = view.getUint32(4)
    running.latencyMs.push(performance.now() - (running.sent[i] as number))
    running.missing[i] = (running.missing[i] as number) - 1
    if (running.missing[i] > 0) return
    running.done++
    running.wake()
  }

  const commands: Record<string, (request: Request, signal: AbortSignal) => Promise<object>> = {
    usage: async () => ({
      cpuMs: cpuMs(),
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024,
    }),
    stormJoin: async ({ count = 1 }, signal) => {
      for (const [i, { node }] of all.entries()) {
        for (const other of all.slice(i + 1)) await other.node.dial(node.addrs(), { signal })
      }
      const last = `${topics}${count - 1}`
      for (let n = 0; n < count; n++) for (const { pubsub } of all) pubsub.subscribe(`${topics}${n}`, counted)
      for (const { pubsub } of all) {
        while (pubsub.topicPeers(last).length < all.length - 1) await sleep(10, undefined, { signal })
      }
      // Meshes are there after a heartbeat or two.
      await sleep(3000, undefined, { signal })
      return { meshDegree: all.reduce((sum, { pubsub }) => sum + pubsub.mesh(last).length, 0) / all.length }
    },
    storm: async ({ count = 1, size = 1024, parallel = 1, perSecond }, signal) => {
      const data = crypto.getRandomValues(new Uint8Array(Math.min(size, 65_536)))
      const number = running.number + 1
      const missing = Array.from({ length: count }, () => all.length - 1)
      const storm: Storm = { number, sent: [], missing, latencyMs: [], done: 0, wake: () => {} }
      running = storm
      // A message that is lost ends the storm with the command's time.
      const delivered = (): Promise<void> => new Promise((resolve) => (storm.wake = resolve))
      signal.addEventListener('abort', () => storm.wake(), { once: true })
      const [cpu, start] = [cpuMs(), performance.now()]
      const publishing = new Set<Promise<unknown>>()
      for (let i = 0; i < count && !signal.aborted; i++) {
        if (perSecond !== undefined) {
          const due = start + (i * 1000) / perSecond - performance.now()
          if (due > 0) await sleep(due)
        } else {
          while (i - storm.done >= parallel && !signal.aborted) await delivered()
        }
        const own = new Uint8Array(size)
        for (let at = 0; at < size; at += data.length) own.set(data.subarray(0, size - at), at)
        const view = new DataView(own.buffer)
        view.setUint32(0, number)
        view.setUint32(4, i)
        storm.sent[i] = performance.now()
        const { pubsub } = all[i % all.length] as (typeof all)[number]
        const publish: Promise<unknown> = pubsub.publish(`${topics}0`, own).then(() => publishing.delete(publish))
        publishing.add(publish)
      }
      await Promise.all(publishing)
      while (storm.done < count && !signal.aborted) await delivered()
      const seconds = (performance.now() - start) / 1000
      running = { ...storm, number: number + 1 }
      const duplicates = all.reduce((sum, { pubsub }) => sum + pubsub.stats().duplicates, 0)
      const { latencyMs } = storm
      return { seconds, cpuMs: cpuMs() - cpu, latencyMs, expected: count * (all.length - 1), duplicates }
    },
  }

  const run = async (request: Request): Promise<void> => {
    const { id, cmd } = request
    try {
      const command = commands[cmd]
      if (command === undefined) throw new Error(`no such command: ${cmd}`)
      print({ ...(await command(request, AbortSignal.timeout(request.timeoutMs ?? 60_000))), id, ok: true })
    } catch (error) {
      print({ id, ok: false, error: String(error) })
    }
  }
  const stop = async (): Promise<void> => {
    // A peer that does not answer the close must not keep the benchmark waiting.
    setTimeout(() => process.exit(0), 2000).unref()
    await Promise.all(all.map(({ pubsub }) => pubsub.stop()))
    await Promise.all(all.map(({ node }) => node.stop()))
    process.exit(0)
  }
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const request = JSON.parse(line) as Request
      if (request.cmd === 'stop') {
        print({ id: request.id, ok: true })
        void stop()
      } else void run(request)
    })
    .on('close', () => void stop())
  const nodes = all.map(({ node }) => ({ peerId: node.peerId.toString(), addrs: node.addrs().map(String) }))
  print({ event: 'listening', ...nodes[0], nodes })
}

void main()
