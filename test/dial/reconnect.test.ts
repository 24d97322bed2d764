import { afterEach, describe, expect, it } from 'vitest'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { fakeEnv, settle, systemEnv, type FakeClock } from '../../src/env.ts'
import { ClosedError } from '../../src/errors.ts'
import { memory, MemoryNetwork } from '../../src/transport/memory.ts'
import type { Transport } from '../../src/transport/transport.ts'

const nodes: Node[] = []

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()))
})

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode(options)
  nodes.push(node)
  await node.start()
  return node
}

interface Lab {
  a: Node
  b: Node
  clock: FakeClock
  dials: number[]
  /** Cuts all of b's connections, as a crash does. */
  cut: () => Promise<void>
}

async function lab(): Promise<Lab> {
  const network = new MemoryNetwork()
  const { clock } = fakeEnv()
  const dials: number[] = []
  const transport: Transport = {
    ...memory(network),
    dial(addr, options) {
      dials.push(clock.now())
      return network.dial(addr, options.signal)
    },
  }
  const b = await started({ transports: [memory(network)], listen: ['/memory/9'] })
  const a = await started({ transports: [transport], env: { ...systemEnv(), clock } })
  await a.dial(String(b.addrs()[0]))
  const cut = async (): Promise<void> => {
    for (const c of b.connections()) c.abort(0, new ClosedError('crash', { by: 'local', code: 0 }))
    await expect.poll(() => a.connections().length).toBe(0)
    await settle()
  }
  await expect.poll(() => b.connections().length).toBe(1)
  return { a, b, clock, dials, cut }
}

/** The handshake takes real turns, however much time the clock is given. */
async function connected(a: Node, b: Node): Promise<void> {
  await expect.poll(() => a.connections().length + b.connections().length).toBe(2)
}

describe('a protected peer', () => {
  it('is dialled again when the connection is lost, where it was reached', async () => {
    const { a, b, clock, dials, cut } = await lab()
    a.protect(b.peerId)
    expect(a.isProtected(b.peerId)).toBe(true)
    await cut()
    expect(dials).toHaveLength(1)
    await clock.advance(1_000)
    await connected(a, b)
    expect(dials).toHaveLength(2)
    expect(dials[1]).toBeGreaterThanOrEqual(500)
  })

  it('is left alone when nobody protects it, or not any more', async () => {
    const { a, b, clock, dials, cut } = await lab()
    a.protect(b.peerId, 'one')
    a.protect(b.peerId, 'two')
    expect(a.unprotect(b.peerId, 'one')).toBe(true)
    expect(a.unprotect(b.peerId, 'two')).toBe(false)
    expect(a.unprotect(b.peerId, 'two')).toBe(false)
    await cut()
    await clock.advance(1_000_000)
    expect(dials).toHaveLength(1)
    a.protect(b.peerId)
    a.unprotect(b.peerId)
    expect(a.isProtected(b.peerId)).toBe(false)
  })

  it('is dialled ever more slowly while it is gone, with jitter, until unprotect', async () => {
    const { a, b, clock, dials, cut } = await lab()
    a.protect(b.peerId)
    await b.stop()
    await cut()
    for (let i = 0; i < 2_000; i++) await clock.advance(500)
    const waits = dials.slice(1).map((at, i) => at - (dials[i] ?? 0))
    expect(waits.length).toBeGreaterThan(8)
    for (const [i, wait] of waits.entries()) {
      const most = Math.min(300_000, 1_000 * 2 ** i)
      expect(wait).toBeGreaterThanOrEqual(most / 2)
      // The dial itself takes a moment of the clock, too.
      expect(wait).toBeLessThanOrEqual(most + 1_000)
    }
    const before = dials.length
    a.unprotect(b.peerId)
    expect(clock.waiting).toBe(0)
    await clock.advance(1_000_000)
    expect(dials).toHaveLength(before)
  })

  it('that accepts and hangs up at once is not dialled every second', async () => {
    const { a, b, clock, dials, cut } = await lab()
    a.protect(b.peerId)
    for (let i = 0; i < 5; i++) {
      await cut()
      await clock.advance(1_000 * 2 ** i)
      await connected(a, b)
    }
    expect((dials[5] ?? 0) - (dials[4] ?? 0)).toBeGreaterThanOrEqual(8_000)
    // One that lasts is another matter. In small steps: its keep-alive waits for real turns.
    for (let i = 0; i < 240; i++) await clock.advance(250)
    await cut()
    const before = clock.now()
    await clock.advance(1_000)
    await connected(a, b)
    expect((dials[6] ?? 0) - before).toBeLessThanOrEqual(1_000)
  })

  it('stays away after hangUp and after stop', async () => {
    const { a, b, clock, dials } = await lab()
    a.protect(b.peerId)
    await a.hangUp(b.peerId)
    await clock.advance(1_000_000)
    expect(dials).toHaveLength(1)
    await a.dial(String(b.addrs()[0]))
    await a.stop()
    await clock.advance(1_000_000)
    expect(dials).toHaveLength(2)
    expect(clock.waiting).toBe(0)
    // What was protected still is.
    await a.start()
    await clock.advance(1_000)
    await connected(a, b)
  })

  it('needs to be a peer', async () => {
    const { a } = await lab()
    expect(() => a.protect('/memory/9')).toThrow(TypeError)
  })
})
