/*
 * A node in a process of its own, started with --expose-gc, that tells what it holds: one JSON object per line in, one
 * out. `{"cmd":"measure"}` collects first.
 */
import { createInterface } from 'node:readline'
import { createNode } from '../../src/node.ts'

const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
// Never reads.
node.handle('/hold/1', (stream) => stream.closed.then(() => {}), { maxInboundStreams: 1024 })
node.handle('/echo/1.0.0', async (stream) => {
  for await (const chunk of stream) await stream.write(chunk.slice())
  await stream.closeWrite()
})
await node.start()

const { gc } = globalThis as { gc?: () => void }
let written = 0

async function measure(): Promise<Record<string, unknown>> {
  // What waits for a finalizer goes with the second pass.
  for (let i = 0; i < 3; i++) {
    gc?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  const kinds: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) kinds[kind] = (kinds[kind] ?? 0) + 1
  const streams = node.connections().reduce((sum, c) => sum + c.streams.length, 0)
  return { bytes: heapUsed + external, rss, kinds, streams, connections: node.connections().length }
}

/** Writes as fast as it may, for ever. */
async function flood(addr: string): Promise<void> {
  const stream = await node.newStream(addr, '/slow/1')
  const chunk = new Uint8Array(64 * 1024)
  for (;;) {
    await stream.write(chunk.slice())
    written += chunk.length
  }
}

const say = (line: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
say({ addr: String(node.addrs()[0]), peer: node.peerId.toString(), gc: gc !== undefined })

const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => {
  const { cmd, addr } = JSON.parse(line) as { cmd: string; addr?: string }
  if (cmd === 'measure') void measure().then(say)
  else if (cmd === 'written') say({ written })
  else if (cmd === 'cpu') {
    const { user, system } = process.cpuUsage()
    say({ cpuMs: (user + system) / 1000 })
  } else if (cmd === 'flood') {
    flood(String(addr)).catch(() => {})
    say({})
  }
})
lines.on('close', () => void node.stop().then(() => process.exit(0)))
