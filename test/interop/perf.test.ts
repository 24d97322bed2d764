import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createNode, type Node } from '../../src/node.ts'
import { perf, perfId, servePerf } from '../../src/protocols/perf.ts'
import { available, buildPeers, startPeer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

describe.each(['go', 'js', 'rust'] as const)('/perf/1.0.0 with %s-libp2p', (kind) => {
  describe.skipIf(!have[kind])('over TCP', () => {
    let peer: Peer
    let node: Node
    beforeAll(async () => {
      peer = await startPeer(kind, kind === 'rust' ? [] : ['--bitswap', 'none'])
      node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
      servePerf(node)
      await node.start()
    })
    afterAll(async () => {
      await node.stop()
      await peer.stop()
    })

    // One byte is the latency test of the official matrix; the others end within a chunk and within a window.
    const sizes = [
      [0, 0],
      [1, 1],
      [5_000_001, 0],
      [0, 5_000_001],
      [3_000_000, 2_000_000],
    ] as const

    it.each(sizes)('is measured by rhiza: %i bytes up, %i down', async (uploadBytes, downloadBytes) => {
      const reports = await Array.fromAsync(perf(node, peer.addrs[0] ?? '', { uploadBytes, downloadBytes }))
      expect(reports.at(-1)).toMatchObject({
        type: 'result',
        upload: { bytes: uploadBytes },
        download: { bytes: downloadBytes },
      })
    })

    it.each(sizes)('measures rhiza: %i bytes up, %i down', async (upload, download) => {
      const answer = await peer.call('perf', { addr: String(node.addrs()[0]), upload, download })
      expect(answer['uploadSeconds']).toBeGreaterThan(0)
      // The lab peer itself checks that what came is what it asked for.
      expect(answer['downloadSeconds']).toBeGreaterThanOrEqual(0)
      // rust-libp2p keeps its ping stream.
      const left = (): number =>
        node.connections().flatMap((c) => c.streams.filter((s) => s.protocol === perfId)).length
      await expect.poll(left).toBe(0)
    })
  })
})
