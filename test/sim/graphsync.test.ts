/* GraphSync over long, lossy and slow links, in virtual time; Bitswap beside it, which asks level by level. */
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { CID } from '../../src/ipld/cid.ts'
import { decodeCbor } from '../../src/ipld/cbor.ts'
import { isMap } from '../../src/ipld/model.ts'
import { createNode, type Node } from '../../src/node.ts'
import { createBitswap } from '../../src/protocols/bitswap/bitswap.ts'
import { createGraphsync, type Graphsync, type GraphsyncOptions } from '../../src/protocols/graphsync/graphsync.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { MemoryNetwork, Road, memory, type LinkOptions } from '../../src/transport/memory.ts'
import { all, chain, fan, rootOf, storeOf, type Block } from '../protocols/graphsync/lab.ts'
import { simCrypto } from './crypto.ts'
import { plaintext } from './plaintext.ts'
import { seededKey } from './sim.ts'
import { VirtualTime } from './time.ts'

interface World {
  time: VirtualTime
  a: Node
  b: Node
  store: MemoryBlocks
  mine: MemoryBlocks
  serving: Graphsync
  asking: Graphsync
  stop(): Promise<void>
}

const worlds: World[] = []
// What dials load when they are first used: virtual time would not wait for it.
beforeAll(() => import('../../src/dial/search.ts'))
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.stop()
})

async function world(seed: number, blocks: Block[], link: LinkOptions, options: GraphsyncOptions = {}): Promise<World> {
  const time = new VirtualTime(0.1)
  const network = new MemoryNetwork({ env: time.env(seed), highWaterBytes: 16 * 1024 * 1024, ...link })
  const make = async (index: number): Promise<Node> => {
    const privateKey = seededKey(seed, index)
    const node = await createNode({
      privateKey,
      env: time.env(seed * 1000 + index),
      crypto: simCrypto,
      transports: [memory(network, String(index))],
      security: [plaintext(privateKey)],
      listen: [`/memory/${index + 1}`],
    })
    await node.start()
    return node
  }
  const [a, b] = [await make(0), await make(1)]
  const store = await storeOf(blocks)
  const mine = new MemoryBlocks()
  const serving = createGraphsync(a, store, options)
  const asking = createGraphsync(b, mine, options)
  serving.start()
  asking.start()
  const made: World = {
    time,
    a,
    b,
    store,
    mine,
    serving,
    asking,
    stop: () => time.until(Promise.all([serving.stop(), asking.stop(), a.stop(), b.stop()])).then(() => {}),
  }
  worlds.push(made)
  return made
}

async function met(w: World): Promise<void> {
  await w.time.until(w.b.dial(`/memory/1/p2p/${w.a.peerId}`))
  // Both know what the other speaks.
  await w.time.run(2000)
}

async function timed(w: World, work: () => Promise<unknown>): Promise<number> {
  const from = w.time.now()
  await w.time.until(work())
  return w.time.now() - from
}

describe('a chain of blocks over 50 ms of round trip', () => {
  it.each([
    ['200 blocks of 10 kB at 10 MB/s', 200, 10_000, 10e6],
    ['1,000 blocks of 1 kB at 10 MB/s', 1000, 1000, 10e6],
    ['40 blocks of 100 kB at 10 MB/s', 40, 100_000, 10e6],
  ])(
    'takes GraphSync at most 1.3 times a round trip and the transfer, Bitswap a round trip for each: %s',
    async (what, length, size, bytesPerSecond) => {
      const blocks = chain(length, size)
      const w = await world(1, blocks, { latencyMs: 25, bytesPerSecond })
      await met(w)
      const bytes = blocks.reduce((sum, block) => sum + block.bytes.length, 0)
      const ideal = 50 + (bytes / bytesPerSecond) * 1000
      const graphsync = await timed(w, async () => {
        const { done } = w.asking.request(w.a.peerId, rootOf(blocks), all)
        expect(await done).toMatchObject({ status: 20, blocks: length })
      })

      const swaps = [
        createBitswap({ host: w.a, blocks: w.store }),
        createBitswap({ host: w.b, blocks: new MemoryBlocks() }),
      ] as const
      for (const swap of swaps) swap.start()
      await w.time.run(2000)
      const bitswap = await timed(w, async () => {
        for (let next: CID | null = rootOf(blocks); next !== null;) {
          const node = decodeCbor(await swaps[1].get(next, { peers: [w.a.peerId] }))
          next = isMap(node) ? CID.asCID(node['next']) : null
        }
      })
      await w.time.until(Promise.all(swaps.map((swap) => swap.stop())))
      process.stdout.write(
        `${what}: one round trip and transfer ${ideal.toFixed(0)} ms, GraphSync ${graphsync.toFixed(0)} ms, Bitswap ${bitswap.toFixed(0)} ms\n`,
      )
      expect(graphsync).toBeLessThanOrEqual(1.3 * ideal)
      expect(bitswap).toBeGreaterThan(length * 50)
    },
  )
})

describe.each([1, 2, 3])('with seed %i', (seed) => {
  it('over a link that loses every twentieth write all blocks come, in order', async () => {
    const blocks = fan(300, 5000, seed)
    const w = await world(seed, blocks, { latencyMs: 30, bytesPerSecond: 5e6, lossRate: 0.05 })
    await met(w)
    const got: number[] = []
    await timed(w, async () => {
      for await (const event of w.asking.request(w.a.peerId, rootOf(blocks), all))
        if (event.kind === 'block') got.push(event.index)
    })
    expect(got).toEqual(blocks.map((_, i) => i))
  })

  it('over a link that is cut again and again they come all the same, and few of them twice', async () => {
    const blocks = fan(400, 10_000, seed)
    const road = new Road()
    let sent = 0
    const w = await world(
      seed,
      blocks,
      { latencyMs: 20, bytesPerSecond: 1e6, road },
      { hooks: { outgoingBlock: (_, { onWire }) => void (sent += onWire ? 1 : 0) } },
    )
    await met(w)
    const got: number[] = []
    let cuts = 0
    await timed(w, async () => {
      for await (const event of w.asking.request(w.a.peerId, rootOf(blocks), all, { nodes: false })) {
        if (event.kind !== 'block') continue
        got.push(event.index)
        if (event.index % 100 !== 50) continue
        cuts++
        for (const connection of w.a.connections(w.b.peerId)) connection.abort()
      }
    })
    expect(cuts).toBe(4)
    expect(got).toEqual(blocks.map((_, i) => i))
    // A cut throws away what is on its way: read for the peer, in the windows, and unread.
    expect(sent).toBeLessThan(401 + 4 * 350)
  })

  it('a reader that takes its time has the peer wait, and both hold little', async () => {
    const blocks = fan(1000, 20_000, seed)
    const w = await world(
      seed,
      blocks,
      { latencyMs: 10, bytesPerSecond: 50e6 },
      { bufferedBytes: 1_000_000, outstandingBytes: 1_000_000 },
    )
    await met(w)
    let most = 0
    let count = 0
    await timed(w, async () => {
      for await (const event of w.asking.request(w.a.peerId, rootOf(blocks), all, { nodes: false })) {
        if (event.kind !== 'block') continue
        count++
        most = Math.max(most, w.asking.stats().bufferedBytes, w.serving.stats().outstandingBytes)
        if (count % 50 === 0) await new Promise<void>((resolve) => void w.time.setTimer(5000, resolve))
      }
    })
    expect(count).toBe(1001)
    expect(most).toBeLessThan(2_000_000)
  })
})
