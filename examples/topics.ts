import { deflateSync, inflateSync } from 'node:zlib'
import { createNode } from 'rhiza'
import { createGossipsub, type DataTransform, type Gossipsub } from 'rhiza/gossipsub'
import { generateKey } from 'rhiza/peer'

/** What everybody in the topic does to data on its way. Never more than maxBytes, whatever a peer sent. */
const transform: DataTransform = {
  outgoing: (_topic, data) => deflateSync(data),
  incoming: (_topic, data, maxBytes) => inflateSync(data, { maxOutputLength: maxBytes }),
}

const stops: (() => Promise<void>)[] = []
async function start(dial: readonly string[]): Promise<{ pubsub: Gossipsub; addrs: string[] }> {
  const privateKey = generateKey()
  const node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'] })
  const pubsub = createGossipsub(node, { privateKey, transform })
  await node.start()
  pubsub.start()
  if (dial.length > 0) await node.dial(dial)
  stops.push(
    () => pubsub.stop(),
    () => node.stop(),
  )
  return { pubsub, addrs: node.addrs().map(String) }
}

const ana = await start([])
const ben = await start(ana.addrs)

// accept, reject (whoever sent it is to blame) or ignore; may be async. What is not accepted is not handed on.
ana.pubsub.addValidator('weather', ({ data }) => (data.length < 1_000 ? 'accept' : 'reject'))
const messages = ana.pubsub.messages('weather', { signal: AbortSignal.timeout(20_000) })

await ben.pubsub.publish('weather', 'rain. '.repeat(1_000), { taken: true })
await ben.pubsub.publish('weather', 'rain. '.repeat(5))
for await (const { data } of messages) {
  console.log(new TextDecoder().decode(data))
  break
}
console.log('refused', ana.pubsub.stats().rejected)
for (const stop of stops) await stop()
