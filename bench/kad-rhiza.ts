/* 50 rhiza nodes with the DHT in one process, over TCP on loopback: what bench/kad-js.js does with js-libp2p. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fromUtf8 } from '../src/bytes.ts'
import { createDht } from '../src/dht/dht.ts'
import { cidOf } from '../src/ipld/cid.ts'
import { createNode } from '../src/node.ts'

async function main(): Promise<void> {
  const { nodes: count, contents } = JSON.parse(process.env['KAD_BENCH'] ?? '') as { nodes: number; contents: number }
  const made = []
  for (let i = 0; i < count; i++) {
    const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    await node.start()
    const dht = createDht(node, { prefix: '/bench', mode: 'server' })
    await dht.start()
    for (const step of [1, 7, 19]) {
      const door = made[(i * 31 + step) % Math.max(1, made.length)]
      if (door !== undefined) await node.dial(door.node.addrs())
    }
    made.push({ node, dht })
  }
  await sleep(5_000)
  const provideMs: number[] = []
  const findMs: number[] = []
  for (let i = 0; i < contents; i++) {
    const cid = cidOf(0x55, fromUtf8(`content ${i}`))
    let start = performance.now()
    await made[(i * 7) % count]?.dht.provide(cid)
    provideMs.push(performance.now() - start)
    start = performance.now()
    for await (const info of made[(i * 13 + 25) % count]?.dht.findProviders(cid, { count: 1 }) ?? []) {
      findMs.push(performance.now() - start)
      void info
      break
    }
  }
  process.stdout.write(`${JSON.stringify({ provideMs, findMs })}\n`)
  process.exit(0)
}

void main()
