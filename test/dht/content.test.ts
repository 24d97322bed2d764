/* Reads and writes of values in a network of a few nodes. */
import { expect, it, onTestFinished } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { createDht, recordKey, type Dht, type DhtOptions, type Validator } from '../../src/dht/dht.ts'
import { createNode, type Node } from '../../src/node.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const patience = { timeout: 10_000, interval: 5 }
const protocol = '/few/kad/1.0.0'
const anything: Validator = { validate: () => {}, select: () => 0 }

async function started(network: MemoryNetwork, validator: Validator, options: DhtOptions): Promise<[Node, Dht]> {
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'] })
  onTestFinished(() => node.stop())
  await node.start()
  const dht = createDht(node, { prefix: '/few', validators: { few: validator }, requestTimeoutMs: 60_000, ...options })
  onTestFinished(() => dht.stop())
  await dht.start()
  return [node, dht]
}

it('what is still being corrected after a get ends with the network', async () => {
  const network = new MemoryNetwork()
  const key = recordKey('few', fromUtf8('key'))
  let asked = 0
  const slow: Validator = { ...anything, validate: () => (asked++, new Promise(() => {})) }
  const [holder, holding] = await started(network, anything, { mode: 'server' })
  const [stale] = await started(network, slow, { mode: 'server' })
  const [reader, reading] = await started(network, anything, { mode: 'client' })
  await holding.networks[0]?.values.put(key, fromUtf8('value'))
  for (const server of [holder, stale]) await reader.dial(String(server.addrs()[0]))
  await expect.poll(() => reading.networks[0]?.table.size, patience).toBe(2)
  expect(await reading.get(key)).toEqual(fromUtf8('value'))
  await expect.poll(() => asked, patience).toBe(1)
  const open = (): number =>
    reader.connections(stale.peerId).flatMap(({ streams }) => streams.filter((one) => one.protocol === protocol)).length
  // The refresh of the table has its own, which end.
  await expect.poll(open, patience).toBe(1)
  await reading.stop()
  await expect.poll(open, patience).toBe(0)
})
