/* Over real sockets. Some machines can not multicast on loopback: that is then the end of the test, and said. */
import { createSocket } from 'node:dgram'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createDiscovery, type FoundPeer } from '../../../src/discovery/discovery.ts'
import { mdns } from '../../../src/discovery/mdns/mdns.ts'
import { createNode, type Node } from '../../../src/node.ts'

const loopback = { loopback: true, interfaces: ['lo', 'lo0'] }

async function started(service: string): Promise<{ node: Node; found: FoundPeer[]; stop(): Promise<void> }> {
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  await node.start()
  const discovery = createDiscovery(node, [mdns({ ...loopback, service })])
  const found: FoundPeer[] = []
  discovery.on('found', (one) => found.push(one))
  discovery.on('failed', ({ error }) => process.stderr.write(`mDNS on loopback: ${error.message}\n`))
  discovery.start()
  const stop = async (): Promise<void> => {
    await discovery.stop()
    await node.stop()
  }
  onTestFinished(stop)
  return { node, found, stop }
}

describe('multicast DNS over sockets', () => {
  it('finds a node on the same link, says by what, and connects', async () => {
    const service = `_p2p-${Math.random().toString(36).slice(2, 10)}._udp.local`
    const a = await started(service)
    const b = await started(service)
    const alien = await started(`_p2p-other${process.pid}._udp.local`)
    await expect
      .poll(() => a.found.map(({ peer }) => peer.toString()), { timeout: 10_000 })
      .toContain(String(b.node.peerId))
    await expect
      .poll(() => b.found.map(({ peer }) => peer.toString()), { timeout: 10_000 })
      .toContain(String(a.node.peerId))
    expect(a.found[0]?.source).toBe('mdns')
    await expect.poll(() => a.node.connections(b.node.peerId).length, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(a.node.book.addrs(b.node.peerId).some(({ addr }) => addr.toString().includes('127.0.0.1'))).toBe(true)
    expect(alien.found).toEqual([])
  })

  it('stands hostile packets, and leaves no socket behind', async () => {
    const service = `_p2p-${Math.random().toString(36).slice(2, 10)}._udp.local`
    const a = await started(service)
    const socket = createSocket({ type: 'udp4', reuseAddr: true })
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
    socket.setMulticastInterface('127.0.0.1')
    for (let i = 0; i < 500; i++) {
      const packet = Uint8Array.from({ length: i * 3 }, () => Math.floor(Math.random() * 256))
      await new Promise((resolve) => socket.send(packet, 5353, '224.0.0.251', resolve))
    }
    socket.close()
    const b = await started(service)
    await expect.poll(() => a.found.length, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(a.found[0]?.peer.toString()).toBe(b.node.peerId.toString())
    await Promise.all([a.stop(), b.stop()])
    // A closed handle is listed until the loop has turned.
    await expect.poll(() => process.getActiveResourcesInfo().filter((name) => name.startsWith('UDP'))).toEqual([])
  })
})
