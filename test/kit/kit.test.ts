import { describe, expect, it, onTestFinished } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { fakeEnv } from '../../src/env.ts'
import { TimeoutError } from '../../src/errors.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { createKit, type Kit, type KitOptions } from '../../src/kit/kit.ts'
import { createNode, type Node } from '../../src/node.ts'
import { decodeMessage, encodeMessage, type BitswapMessage } from '../../src/protocols/bitswap/wire.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const KiB = 1024

async function started(network: MemoryNetwork, options: KitOptions = {}): Promise<Kit> {
  const kit = await createKit({ transports: [memory(network)], listen: ['/memory/0'], ...options })
  onTestFinished(() => kit.stop())
  await kit.start()
  return kit
}

async function read(chunks: AsyncIterable<Uint8Array>): Promise<number> {
  let size = 0
  for await (const chunk of chunks) size += chunk.length
  return size
}

/** Lets time pass in steps until `work` is over; `realMs` of real time go by between two of them. */
async function passing<T>(clock: { advance(ms: number): Promise<void> }, realMs: number, work: Promise<T>): Promise<T> {
  let over = false
  const end = (): void => void (over = true)
  work.then(end, end)
  while (!over) {
    await clock.advance(100)
    await new Promise((resolve) => setTimeout(resolve, realMs))
  }
  return work
}

/** A peer that speaks Bitswap by hand. */
async function peer(network: MemoryNetwork): Promise<{ node: Node; received: BitswapMessage[] }> {
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'] })
  onTestFinished(() => node.stop())
  const received: BitswapMessage[] = []
  node.handle('/ipfs/bitswap/1.2.0', async (stream) => {
    const framed = new BufferedStream(stream)
    for (let f = await framed.readPrefixed(4 << 20); f !== null; f = await framed.readPrefixed(4 << 20)) {
      received.push(decodeMessage(f))
    }
  })
  await node.start()
  return { node, received }
}

const identified = (kit: Kit): Promise<void> =>
  new Promise((resolve) => void kit.node.on('peer:identify', () => resolve()))

describe('a kit', () => {
  it('fetches over a line so slow that the last blocks come long after the timeout', async () => {
    const env = fakeEnv()
    // 256 KiB are under way at once, for half a second: at most 512 KiB a second.
    const network = new MemoryNetwork({ env, latencyMs: 500 })
    const server = await started(network, { env })
    const client = await started(network, { env })
    const content = env.random.bytes(4096 * KiB)
    const { cid } = await server.add(content, { profile: 'unixfs-v0-2015' })
    const peers = server.node.addrs()
    // Signatures are made on other threads, in real time: the clock must not run far ahead of them.
    await passing(
      env.clock,
      20,
      Promise.all([identified(server), identified(client), client.node.dial(peers[0] ?? '')]),
    )
    const since = env.clock.now()
    const fetch = { peers, timeoutMs: 4_000 }
    expect(await passing(env.clock, 0, read(client.cat(cid, fetch)))).toBe(content.length)
    expect(env.clock.now() - since).toBeGreaterThan(2 * fetch.timeoutMs)
    // A goodbye takes its time as well.
    await passing(env.clock, 0, Promise.all([client.stop(), server.stop()]))
  }, 30_000)

  it('waits for a block that takes longer to come than a peer may be silent', async () => {
    const env = fakeEnv()
    // A frame of 64 KiB a second: 16 s for a block, where a peer that says nothing is given up after 10 s.
    const network = new MemoryNetwork({ env, latencyMs: 1000, highWaterBytes: 1 * KiB })
    const server = await started(network, { env })
    const client = await started(network, { env })
    const content = env.random.bytes(1536 * KiB)
    const { cid } = await server.add(content)
    const peers = server.node.addrs()
    await passing(
      env.clock,
      20,
      Promise.all([identified(server), identified(client), client.node.dial(peers[0] ?? '')]),
    )
    expect(await passing(env.clock, 0, read(client.cat(cid, { peers })))).toBe(content.length)
    await passing(env.clock, 0, Promise.all([client.stop(), server.stop()]))
  }, 30_000)

  it('gives up on peers that say nothing', async () => {
    const network = new MemoryNetwork()
    const kit = await started(network)
    const { node, received } = await peer(network)
    const cid = cidOf(0x55, fromUtf8('nobody says anything of this'))
    const fetch = read(kit.cat(cid, { peers: node.addrs(), timeoutMs: 200 }))
    await expect(fetch).rejects.toBeInstanceOf(TimeoutError)
    expect(received.length).toBeGreaterThan(0)
    expect(kit.bitswap.stats().wants).toBe(0)
  })

  it('tells peers that wait for a part of a file when it is added', async () => {
    const network = new MemoryNetwork()
    const kit = await started(network)
    const { node, received } = await peer(network)
    const leaf = new Uint8Array(256 * KiB).fill(3)
    const cid = cidOf(0x55, leaf)
    const [addr = ''] = kit.node.addrs().map(String)
    const stream = await node.newStream(addr, '/ipfs/bitswap/1.2.0')
    const want = { cid: cid.bytes, priority: 1, cancel: false, type: 'block', sendDontHave: false } as const
    await stream.write(...prefixed(...encodeMessage({ wants: [want] }, '1.2')))
    await expect.poll(() => kit.bitswap.stats().peerWants).toBe(1)
    const profile = { cidVersion: 1, chunkBytes: 256 * KiB, rawLeaves: true, width: 174, fanout: 256 } as const
    const sharding = { shardAboveBytes: 256 * KiB, shardBy: 'block-bytes' } as const
    await kit.add([new Uint8Array(256 * KiB), leaf], { profile: { ...profile, ...sharding } })
    await expect.poll(() => received.flatMap((m) => m.blocks).map((b) => b.data.length)).toEqual([leaf.length])
  })

  it('reads what was added, whole and in part', async () => {
    const kit = await started(new MemoryNetwork())
    const { cid } = await kit.add('hello from rhiza\n')
    let text = ''
    for await (const bytes of kit.cat(cid, { offset: 6, length: 4 })) text += toUtf8(bytes)
    expect(text).toBe('from')
    expect((await kit.stat(cid)).size).toBe(17)
  })
})
