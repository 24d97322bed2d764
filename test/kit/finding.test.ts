/* Kits that find each other and their content: over memory, with a DHT of their own. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { toUtf8 } from '../../src/bytes.ts'
import type { Discovery } from '../../src/discovery/discovery.ts'
import { UnavailableError } from '../../src/errors.ts'
import type { CID } from '../../src/ipld/cid.ts'
import { noteRoot, toldOf } from '../../src/kit/announcer.ts'
import { createKit, type Kit, type KitOptions } from '../../src/kit/kit.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const dht = { mode: 'server', prefix: '/kit-test' } as const

async function started(network: MemoryNetwork, options: KitOptions = {}): Promise<Kit> {
  const kit = await createKit({ transports: [memory(network)], listen: ['/memory/0'], dht, ...options })
  onTestFinished(() => kit.stop())
  await kit.start()
  return kit
}

const addrsOf = (kit: Kit): string[] => kit.node.addrs().map(String)

async function text(kit: Kit, cid: CID, options: { timeoutMs?: number } = {}): Promise<string> {
  let out = ''
  for await (const bytes of kit.cat(cid, options)) out += toUtf8(bytes)
  return out
}

describe('kits that find each other', () => {
  it('tell the DHT of what is added by themselves, and find it by its CID alone', async () => {
    const network = new MemoryNetwork()
    const entrance = await started(network)
    const provided: string[] = []
    const ana = await started(network, {
      bootstrap: addrsOf(entrance),
      onProvided: (cid) => void provided.push(cid.toString()),
    })
    const { cid } = await ana.add('nobody was named')
    await expect.poll(() => provided, { timeout: 20_000 }).toEqual([cid.toString()])
    const ben = await started(network, { bootstrap: addrsOf(entrance), dht: { ...dht, mode: 'client' } })
    expect(await text(ben, cid)).toBe('nobody was named')
    expect(ben.node.peers().map(String)).toContain(ana.node.peerId.toString())
  })

  it('tell others again after the interval, also of what another process noted, and what was told stays told', async () => {
    const network = new MemoryNetwork()
    const entrance = await started(network)
    const records = memoryRecords()
    let provided = 0
    const options = { bootstrap: addrsOf(entrance), records, onProvided: () => void provided++ }
    const first = await started(network, options)
    const { cid } = await createKit({ dht: false }).then((kit) => kit.add('noted elsewhere'))
    await noteRoot(records, cid)
    await expect.poll(() => provided, { timeout: 20_000 }).toBe(1)
    expect(await toldOf(records, cid)).toMatchObject({ peers: 1 })
    await first.stop()
    const second = await started(network, options)
    await second.reachDht()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(provided).toBe(1)
    await second.stop()
    await started(network, { ...options, provideEveryMs: 1 })
    await expect.poll(() => provided, { timeout: 20_000 }).toBe(2)
  })

  it('go on with the peers at hand where one of those that are named does not answer', async () => {
    const network = new MemoryNetwork()
    const entrance = await started(network)
    const ana = await started(network, { bootstrap: addrsOf(entrance) })
    const { cid } = await ana.add('not where you think')
    await ana.reachDht()
    await ana.provide(cid)
    const ben = await started(network, { bootstrap: addrsOf(entrance) })
    await ben.reachDht()
    let out = ''
    const dead = `/memory/99999/p2p/${ana.node.peerId}`
    for await (const bytes of ben.cat(cid, { peers: [dead] })) out += toUtf8(bytes)
    expect(out).toBe('not where you think')
  })

  it("find each other without any DHT, by a discovery of the user's own", async () => {
    const network = new MemoryNetwork()
    const ana = await started(network, { dht: false })
    const { cid } = await ana.add('found by hand')
    const byHand: Discovery = {
      source: 'by-hand',
      async *find() {
        await new Promise((resolve) => setTimeout(resolve, 50))
        yield { peer: ana.node.peerId, addrs: ana.node.addrs() }
      },
    }
    const ben = await started(network, { dht: false, discovery: [byHand] })
    const found: string[] = []
    ben.discovery?.on('found', ({ source }) => found.push(source))
    expect(await text(ben, cid)).toBe('found by hand')
    expect(found).toEqual(['by-hand'])
  })

  it('say that nobody has it, soon', async () => {
    const network = new MemoryNetwork()
    const entrance = await started(network)
    const ben = await started(network, { bootstrap: addrsOf(entrance) })
    const { cid } = await createKit().then((kit) => kit.add('nobody has it'))
    await expect(text(ben, cid)).rejects.toMatchObject({ code: 'not-found' })
    const alone = await started(network, { dht: false })
    expect(alone.dht).toBeUndefined()
    expect(await alone.reachDht()).toBe(false)
    await expect(alone.provide(cid)).rejects.toBeInstanceOf(UnavailableError)
  })
})
