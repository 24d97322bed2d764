/* 50 js-libp2p nodes with kad-dht in one process; run in the folder of the js lab peer (bench/kad.ts does). */
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const { nodes: count, contents } = JSON.parse(process.env.KAD_BENCH)
const nodes = []
for (let i = 0; i < count; i++) {
  const kad = kadDHT({
    protocol: '/bench/kad/1.0.0',
    clientMode: false,
    peerInfoMapper: passthroughMapper,
    allowQueryWithZeroPeers: true,
    initialQuerySelfInterval: 100,
  })
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { inboundConnectionThreshold: Infinity },
    services: { identify: identify(), ping: ping(), kad },
  })
  for (const step of [1, 7, 19]) {
    const door = nodes[(i * 31 + step) % Math.max(1, nodes.length)]
    if (door !== undefined) await node.dial(door.getMultiaddrs()[0])
  }
  nodes.push(node)
}
await new Promise((resolve) => setTimeout(resolve, 5_000))

const provideMs = []
const findMs = []
for (let i = 0; i < contents; i++) {
  const digest = await sha256.digest(new TextEncoder().encode(`content ${i}`))
  const cid = CID.createV1(0x55, digest)
  let start = performance.now()
  for await (const event of nodes[(i * 7) % count].services.kad.provide(cid)) void event
  provideMs.push(performance.now() - start)
  start = performance.now()
  let found = false
  for await (const event of nodes[(i * 13 + 25) % count].services.kad.findProviders(cid)) {
    if (event.name === 'PROVIDER' && event.providers.length > 0) found = true
    if (found) break
  }
  if (found) findMs.push(performance.now() - start)
}
process.stdout.write(`${JSON.stringify({ provideMs, findMs })}\n`)
process.exit(0)
