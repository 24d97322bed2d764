/* Versions of protocols with peers that know nothing of ranges: they announce, propose and echo exact ids. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import { lpRequest } from '../../src/protocols/framed.ts'
import { sameMinor } from '../../src/protocols/multistream/semver.ts'
import { BufferedStream } from '../../src/stream.ts'
import { available, buildPeers, startPeer, type Peer } from './peers.ts'

const versions = { go: 'go-libp2p', js: 'js-libp2p', py: 'py-libp2p' } as const

await buildPeers()
const have = available()

const base64 = (text: string): string => Buffer.from(text).toString('base64')

/** Which id each stream was served under. */
const served: string[] = []

async function echo(stream: ProtocolStream): Promise<void> {
  served.push(stream.protocol)
  for await (const chunk of stream) await stream.write(chunk.slice())
  await stream.closeWrite()
}

async function listening(): Promise<Node> {
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  node.handle('/app', echo, { version: '1.4.0', accepts: '^1.0.0', capabilities: ['resume'] })
  node.handle('/app', echo, { version: '2.3.0', accepts: sameMinor })
  await node.start()
  return node
}

for (const kind of ['go', 'js', 'py'] as const) {
  describe.skipIf(!have[kind])(`${versions[kind]}: versions`, () => {
    let peer: Peer
    let node: Node
    let there: string
    beforeAll(async () => {
      peer = await startPeer(kind)
      node = await listening()
      there = peer.addrs[0] ?? ''
    })
    afterAll(async () => {
      await node.stop()
      await peer.stop()
    })

    it('rhiza finds its echo by a range, without knowing the id', async () => {
      const stream = await node.newStream(there, { name: '/echo', range: '^1.0.0' })
      expect(stream.protocol).toBe('/echo/1.0.0')
      await stream.write(fromUtf8('by range'))
      await stream.closeWrite()
      expect(toUtf8(await new BufferedStream(stream).readAll(100))).toBe('by range')
      expect(toUtf8(await lpRequest(node.newStream(there, { name: '/echo' }), fromUtf8('framed')))).toBe('framed')
    })

    it('rhiza falls back along a chain, and says so', async () => {
      const stream = await node.newStream(there, ['/echo/2.0.0', '/echo/1.0.0'])
      expect(stream.protocol).toBe('/echo/1.0.0')
      expect(stream.tried?.map(({ what }) => what)).toEqual(['/echo/2.0.0'])
      stream.reset()
    })

    it('rhiza is told what it offers when nothing fits, and that it has no capabilities', async () => {
      const asked = node.newStream(there, { name: '/echo', range: '^2.0.0' })
      await expect(asked).rejects.toThrow(/\/echo \^2\.0\.0; it offers \/echo\/1\.0\.0/)
      const capable = node.newStream(there, { name: '/echo', requires: ['resume'] })
      await expect(capable).rejects.toThrow(/\/echo\/1\.0\.0: lacks resume/)
    })

    // py-libp2p's lab peer has no capture.
    if (kind !== 'py') {
      it('rhiza takes the highest of its versions that is allowed, as a number', async () => {
        const apart = await startPeer(kind)
        onTestFinished(() => apart.stop())
        const protocols = ['/many/1.9.0', '/many/1.10.0', '/many/1.2.0', '/many/2.0.0']
        await apart.call('capture', { protocols })
        const stream = await node.newStream(apart.addrs[0] ?? '', { name: '/many', range: '^1.1.0' })
        expect(stream.protocol).toBe('/many/1.10.0')
        await stream.write(fromUtf8('captured'))
        await stream.closeWrite()
        const captured = async (): Promise<unknown> =>
          ((await apart.call('captured'))['streams'] as { protocol: string; bytes: string }[]).map(
            ({ protocol, bytes }) => [protocol, bytes],
          )
        await expect.poll(captured, { timeout: 10_000 }).toEqual([['/many/1.10.0', base64('captured')]])
      })
    }

    it.each(['/app/1.2.0', '/app/1.4.0', '/app/1.10.7', '/app/2.3.9', '/app/2.0.0'])(
      'proposes %s and is served under exactly that by a handler of a range',
      async (protocol) => {
        // A peer id of its own: py-libp2p keeps a connection that was closed for good.
        const own = await listening()
        onTestFinished(() => own.stop())
        const params = { addr: String(own.addrs()[0]), protocol, bytes: base64(`this is ${protocol}`) }
        served.length = 0
        expect((await peer.call('echo', params))['bytes']).toBe(base64(`this is ${protocol}`))
        expect(served).toEqual([protocol])
      },
    )

    it('is refused a version outside of the ranges', async () => {
      const own = await listening()
      onTestFinished(() => own.stop())
      const addr = String(own.addrs()[0])
      served.length = 0
      for (const protocol of ['/app/2.4.0', '/app/3.0.0', '/app/0.9.0'])
        await expect(peer.call('echo', { addr, protocol, bytes: '' })).rejects.toThrow()
      expect(served).toEqual([])
    })

    it('sees the exact ids alone in identify', async () => {
      const own = await listening()
      onTestFinished(() => own.stop())
      // js-libp2p identifies whom it connects to by itself, and one at a time.
      await peer.call('connect', { addr: String(own.addrs()[0]) })
      const { protocols } = await peer.call('identify', { peer: own.peerId.toString() })
      const apps = (protocols as string[]).filter((id) => id.startsWith('/app/'))
      expect(apps.toSorted()).toEqual(['/app/1.4.0', '/app/2.3.0'])
      expect(protocols).toContain('/rhiza/capabilities/1.0.0')
    })
  })
}
