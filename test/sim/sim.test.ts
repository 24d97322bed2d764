import { afterEach, describe, expect, it } from 'vitest'
import type { SimNode, SimOptions } from './sim.ts'
import { Sim } from './sim.ts'

const open: Sim[] = []

async function world(options: SimOptions): Promise<Sim> {
  const sim = await Sim.create(options)
  open.push(sim)
  return sim
}

afterEach(async () => {
  for (const sim of open.splice(0)) {
    await sim.stop()
    expect(sim.time.waiting).toBe(0)
  }
})

/** Each node dials `degree` others that its randomness picks. */
async function mesh(sim: Sim, degree: number): Promise<number> {
  let failed = 0
  const dialAll = async ({ index, node, random }: SimNode): Promise<void> => {
    for (let i = 0; i < degree; i++) {
      const other = Math.floor(random.unit() * sim.nodes.length)
      if (other === index) continue
      await node.dial(sim.at(other).addr).catch(() => void failed++)
    }
  }
  await sim.time.until(Promise.all(sim.nodes.map(dialAll)))
  return failed
}

async function rtt(sim: Sim, from: SimNode, to: SimNode): Promise<number> {
  const pings = from.node.ping(to.addr, { count: 1 })
  const { value } = await sim.time.until(pings.next())
  return value as number
}

describe('the simulated network', () => {
  it.each(['noise', 'plaintext'] as const)('has the same history for the same seed over %s', async (security) => {
    const histories: string[] = []
    for (const seed of [7, 7, 8]) {
      const sim = await world({ seed, nodes: 12, security, lossRate: 0.05 })
      await mesh(sim, 4)
      sim.partition((i) => i % 2)
      await sim.time.run(90_000)
      sim.heal()
      await sim.time.run(30_000)
      await sim.stop()
      histories.push(sim.history())
    }
    expect(histories[1]).toBe(histories[0])
    expect(histories[2]).not.toBe(histories[0])
  })

  it('takes the time that the distance takes', async () => {
    const sim = await world({ seed: 1, nodes: 2, latencyMs: [40, 40] })
    const [a, b] = [sim.at(0), sim.at(1)]
    const before = sim.time.now()
    await sim.time.until(a.node.dial(b.addr))
    expect(sim.time.now() - before).toBeGreaterThanOrEqual(160)
    expect(await rtt(sim, a, b)).toBe(80)
  })

  it('holds 300 nodes with 1,200 connections, each identified', async () => {
    const sim = await world({ seed: 2, nodes: 300 })
    expect(await mesh(sim, 4)).toBe(0)
    await sim.time.run(10_000)
    const connections = sim.nodes.flatMap(({ node }) => node.connections())
    expect(connections.length).toBeGreaterThan(2_000)
    expect(connections.filter(({ protocols }) => protocols === undefined)).toEqual([])
  })

  it('loses nothing where writes are lost, it only takes longer', async () => {
    const sim = await world({ seed: 3, nodes: 2, lossRate: 0.2, latencyMs: [10, 10] })
    const [a, b] = [sim.at(0), sim.at(1)]
    b.node.handle('/count/1.0.0', async (stream) => {
      let bytes = 0
      for await (const chunk of stream) bytes += chunk.length
      await stream.write(Uint8Array.of(bytes / 65_536))
      await stream.closeWrite()
    })
    const count = async (): Promise<Uint8Array | null> => {
      const stream = await a.node.newStream(b.addr, '/count/1.0.0')
      for (let i = 0; i < 40; i++) await stream.write(new Uint8Array(65_536))
      await stream.closeWrite()
      return stream.read()
    }
    expect(await sim.time.until(count())).toEqual(Uint8Array.of(40))
    expect(sim.time.now()).toBeGreaterThan(400)
  })

  it('a short partition costs time, a long one the connection; after it peers find each other again', async () => {
    const sim = await world({ seed: 4, nodes: 2 })
    const [a, b] = [sim.at(0), sim.at(1)]
    await sim.time.until(a.node.dial(b.addr))
    sim.partition((i) => i)
    const late = a.node.ping(b.addr, { count: 1 }).next()
    await sim.time.run(2_000)
    sim.heal()
    const healed = sim.time.now()
    await sim.time.until(late)
    expect(sim.time.now() - healed).toBeLessThan(500)
    const [connection] = a.node.connections()
    sim.partition((i) => i)
    await sim.time.run(180_000)
    expect(a.node.connections()).toEqual([])
    expect((await connection?.closed)?.reason).toMatchObject({ name: 'TimeoutError' })
    const refused = a.node.dial(b.addr, { timeoutMs: 3_000 })
    await expect(sim.time.until(refused)).rejects.toMatchObject({ name: 'TimeoutError' })
    sim.heal()
    await sim.time.until(a.node.dial(b.addr))
  })

  it('a node that crashes is missed by its peers, and by nobody else', async () => {
    const sim = await world({ seed: 5, nodes: 8 })
    for (const { node, index } of sim.nodes) {
      for (const other of sim.nodes) if (other.index < index) await sim.time.until(node.dial(other.addr))
    }
    await sim.time.run(1_000)
    const lost: string[] = []
    for (const { node } of sim.nodes) node.on('peer:disconnect', (peer) => lost.push(peer.toString()))
    const gone = sim.at(3).node.peerId.toString()
    await sim.crash(3)
    lost.length = 0
    await sim.time.run(180_000)
    expect(lost).toEqual(Array.from({ length: 7 }, () => gone))
    for (const { node } of sim.nodes) expect(node.peers().length).toBe(6)
  })

  it('keeps a minute of virtual time in order: timers of one instant fire as they were set', async () => {
    const sim = await world({ seed: 6 })
    const fired: number[] = []
    const { time } = sim
    for (let i = 0; i < 1_000; i++) time.setTimer((i * 7_919) % 60_000, () => fired.push((i * 7_919) % 60_000))
    const never = time.setTimer(30_000, () => fired.push(-1))
    for (let i = 0; i < 5; i++) time.setTimer(60_000, () => fired.push(60_000 + i))
    never.cancel()
    await time.run(60_000)
    expect(fired).toEqual(fired.toSorted((x, y) => x - y))
    expect(fired.length).toBe(1_005)
    expect(time.now()).toBe(60_000)
  })
})
