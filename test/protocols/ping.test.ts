import { describe, expect, it, onTestFinished } from 'vitest'
import { ProtocolError, TimeoutError } from '../../src/errors.ts'
import type { Connection } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import { pingId } from '../../src/protocols/ping.ts'
import { BufferedStream } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

async function started(network: MemoryNetwork): Promise<Node> {
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'] })
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

async function joined(): Promise<{ a: Node; b: Node; connection: Connection }> {
  const network = new MemoryNetwork()
  const [a, b] = [await started(network), await started(network)]
  return { a, b, connection: await a.dial(b.addrs()[0] ?? '') }
}

const pings = (connections: readonly Connection[]): number =>
  connections.flatMap((c) => c.streams).filter((s) => s.protocol === pingId).length

describe('ping', () => {
  it('shares one stream among all callers, and lets go of it when the last is done', async () => {
    const { a, b } = await joined()
    const opened: string[] = []
    const first = a.ping(b.peerId, { count: 3 })
    expect((await first.next()).value).toBeGreaterThanOrEqual(0)
    opened.push(...a.connections().flatMap((c) => c.streams.map((s) => s.protocol)))
    const rest = await Promise.all([1, 2, 3].map(() => Array.fromAsync(a.ping(b.peerId, { count: 5 }))))
    expect(rest.flat()).toHaveLength(15)
    expect(pings(a.connections())).toBe(1)
    expect(await Array.fromAsync(first)).toHaveLength(2)
    await expect.poll(() => pings(a.connections()) + pings(b.connections())).toBe(0)
    // Both sides said FIN: nothing was reset.
    expect(opened).toContain(pingId)
  })

  it('lets go of the stream even if nobody asks for the end', async () => {
    const { a, b } = await joined()
    for (let i = 0; i < 5; i++) await a.ping(b.peerId).next()
    await expect.poll(() => pings(a.connections()) + pings(b.connections())).toBe(0)
  })

  it('closes its side after the last round', async () => {
    const { a, b } = await joined()
    b.unhandle(pingId)
    const ended = Promise.withResolvers<Uint8Array | null>()
    b.handle(pingId, async (stream) => {
      const framed = new BufferedStream(stream)
      await stream.write(await framed.readExact(32))
      ended.resolve(await framed.read())
      await stream.closeWrite()
    })
    await Array.fromAsync(a.ping(b.peerId))
    expect(await ended.promise).toBeNull()
  })

  it('rejects an echo that is not what was sent, and silence', async () => {
    const { a, b } = await joined()
    b.unhandle(pingId)
    b.handle(pingId, async (stream) => {
      await new BufferedStream(stream).readExact(32)
      await stream.write(new Uint8Array(32))
    })
    await expect(Array.fromAsync(a.ping(b.peerId))).rejects.toBeInstanceOf(ProtocolError)
    b.unhandle(pingId)
    b.handle(pingId, () => new Promise(() => {}))
    await expect(Array.fromAsync(a.ping(b.peerId, { timeoutMs: 50 }))).rejects.toBeInstanceOf(TimeoutError)
    await expect.poll(() => pings(a.connections()) + pings(b.connections())).toBe(0)
  })

  it('ends with the reason of its signal, also while others have their turn', async () => {
    const { a, b } = await joined()
    b.unhandle(pingId)
    b.handle(pingId, () => new Promise(() => {}))
    const controller = new AbortController()
    const waiting = Array.fromAsync(a.ping(b.peerId, { timeoutMs: 200 }))
    const aborted = Array.fromAsync(a.ping(b.peerId, { signal: controller.signal }))
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(aborted).rejects.toBe(reason)
    await expect(waiting).rejects.toBeInstanceOf(TimeoutError)
  })
})
