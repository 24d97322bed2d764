/* Kits that ask each other for parts of graphs: over memory, with the real GraphSync. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { cidOf, codec } from '../../src/ipld/cid.ts'
import { selectors } from '../../src/ipld/selectors.ts'
import { createKit, type Kit, type KitOptions } from '../../src/kit/kit.ts'
import type { GraphsyncProgress } from '../../src/protocols/graphsync/graphsync.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

async function started(network: MemoryNetwork, options: KitOptions = {}): Promise<Kit> {
  const kit = await createKit({ transports: [memory(network)], listen: ['/memory/0'], graphsync: true, ...options })
  onTestFinished(() => kit.stop())
  await kit.start()
  return kit
}

const at = (kit: Kit): string => String(kit.node.addrs()[0])

const text = (of: string): Uint8Array => new TextEncoder().encode(of)

/** A folder of three files of one block each. */
async function folder(kit: Kit) {
  const entries = ['a', 'b', 'c'].map((path) => ({ path, type: 'file' as const, content: text(`file ${path}`) }))
  return (await kit.addDirectory(entries)).cid
}

it('gives what its store holds, and keeps what it gets', async () => {
  const network = new MemoryNetwork()
  const repo = { blocks: new MemoryBlocks() }
  const [ana, ben] = [await started(network, { repo }), await started(network)]
  const root = await folder(ana)
  const request = ben.graphsync?.request(at(ana), root, selectors.all())
  await expect(request?.done).resolves.toMatchObject({ status: 20, blocks: 4, missing: 0 })
  // No peer is needed any more.
  await ana.stop()
  const names: string[] = []
  for await (const { name } of ben.ls(root)) names.push(name)
  expect(names).toEqual(['a', 'b', 'c'])
})

it('fetches the file that is asked for, and not the others beside it', async () => {
  const network = new MemoryNetwork()
  const [ana, ben] = [await started(network), await started(network)]
  const root = await folder(ana)
  const events: GraphsyncProgress[] = []
  for await (const event of ben.graphsync?.request(at(ana), root, selectors.unixfs('b')) ?? []) events.push(event)
  expect(events.flatMap((e) => (e.kind === 'block' ? e.cid.toString() : []))).toEqual(
    [root, cidOf(codec.raw, text('file b'))].map(String),
  )
  expect(await ben.blocks.has(cidOf(codec.raw, text('file a')))).toBe(false)
})

it('tells Bitswap, which peers may have asked for it, of what GraphSync brings', async () => {
  const network = new MemoryNetwork()
  const [ana, ben] = [await started(network), await started(network)]
  const root = await folder(ana)
  using told = vi.spyOn(ben.bitswap, 'notify')
  await ben.graphsync?.request(at(ana), root, selectors.root()).done
  expect(told.mock.calls.flatMap(([cids]) => Array.from(cids, String))).toEqual([String(root)])
})

it('takes options, hooks among them', async () => {
  const network = new MemoryNetwork()
  const asked: string[] = []
  const hooks = { request: ({ peer }: { peer: { toString(): string } }) => asked.push(peer.toString()) < 2 }
  const [ana, ben] = [await started(network, { graphsync: { hooks } }), await started(network)]
  const root = await folder(ana)
  await expect(ben.graphsync?.request(at(ana), root, selectors.all()).done).resolves.toMatchObject({ blocks: 4 })
  await expect(ben.graphsync?.request(at(ana), root, selectors.all()).done).rejects.toMatchObject({ code: 'refused' })
  expect(asked).toEqual([String(ben.node.peerId), String(ben.node.peerId)])
  await expect(createKit({ graphsync: { retries: -1 } })).rejects.toThrow(RangeError)
})

it('does not speak of it unless it is told to', async () => {
  const network = new MemoryNetwork()
  const [ana, ben] = [await started(network, { graphsync: false }), await started(network)]
  expect(ana.graphsync).toBeUndefined()
  const root = await folder(ana)
  await expect(ben.graphsync?.request(at(ana), root, selectors.all()).done).rejects.toMatchObject({
    code: 'no-protocol',
  })
})

it('ends its requests when it stops', async () => {
  const network = new MemoryNetwork()
  const hooks = { request: () => ({ accept: true, pause: true }) }
  const [ana, ben] = [await started(network, { graphsync: { hooks } }), await started(network)]
  const done = ben.graphsync?.request(at(ana), await folder(ana), selectors.all()).done
  await expect.poll(() => ana.graphsync?.stats().answering).toBe(1)
  await Promise.all([ben.stop(), expect(done).rejects.toMatchObject({ code: 'stopped' })])
  await expect.poll(() => ana.graphsync?.stats().answering).toBe(0)
})
