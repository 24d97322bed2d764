/* Private networks with go-libp2p and js-libp2p; which security and muxer are agreed upon with TLS. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemEnv } from '../../src/env.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { encodePreSharedKey, generatePreSharedKey, pnet } from '../../src/security/pnet.ts'
import { createTls } from '../../src/security/tls/tls.ts'
import { BufferedStream } from '../../src/stream.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

async function started(options: NodeOptions): Promise<Node> {
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'], ...options })
  node.handle('/echo/1.0.0', async (stream) => {
    for await (const chunk of stream) await stream.write(chunk)
    await stream.closeWrite()
  })
  await node.start()
  return node
}

const addrOf = (node: Node): string => String(node.addrs()[0])

async function echoed(node: Node, to: string, bytes: Uint8Array): Promise<Uint8Array> {
  const stream = await node.newStream(to, '/echo/1.0.0')
  const reply = new BufferedStream(stream).readAll(bytes.length + 1)
  for (let at = 0; at < bytes.length; at += 65_536) await stream.write(bytes.slice(at, at + 65_536))
  await stream.closeWrite()
  return reply
}

/** Both directions, with an echo of a good size in each. */
async function bothWays(node: Node, peer: Peer, security: string): Promise<void> {
  const there = peer.addrs[0] ?? ''
  const bytes = seededBytes(400_000, 5)
  expect(Buffer.compare(await echoed(node, there, bytes), bytes)).toBe(0)
  expect(node.connections()[0]).toMatchObject({ direction: 'outbound', security, muxer: '/yamux/1.0.0' })
  await node.hangUp(peer.peerId)
  const answer = await peer.call('echo', {
    addr: addrOf(node),
    protocol: '/echo/1.0.0',
    bytes: Buffer.from(bytes.subarray(0, 100_000)).toString('base64'),
  })
  expect(Buffer.compare(Buffer.from(String(answer['bytes']), 'base64'), bytes.subarray(0, 100_000))).toBe(0)
  expect(node.connections().find(({ direction }) => direction === 'inbound')).toMatchObject({ security })
}

for (const kind of ['go', 'js'] as const) {
  describe.skipIf(!have[kind]).each(['noise', 'tls'])(`a private network with ${kind}-libp2p over %s`, (security) => {
    const psk = generatePreSharedKey()
    let folder: string
    let peer: Peer
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'rhiza-psk-'))
      const file = join(folder, 'swarm.key')
      writeFileSync(file, encodePreSharedKey(psk))
      peer = await startPeer(kind, ['--psk', file, '--security', security, '--bitswap', 'none'])
    })
    afterAll(async () => {
      await peer.stop()
      rmSync(folder, { recursive: true, force: true })
    })

    it('connects in both directions', async () => {
      const node = await started({ connectionProtector: pnet(psk) })
      onTestFinished(() => node.stop())
      await bothWays(node, peer, security === 'tls' ? '/tls/1.0.0' : '/noise')
    })

    it.each(['another key', 'no key'])('refuses %s, in both directions', async (what) => {
      const connectionProtector = what === 'no key' ? undefined : pnet(generatePreSharedKey())
      const node = await started({
        dialTimeoutMs: 5000,
        env: systemEnv(),
        ...(connectionProtector && { connectionProtector }),
      })
      onTestFinished(() => node.stop())
      await expect(node.dial(peer.addrs[0] ?? '')).rejects.toThrow()
      await expect(peer.call('connect', { addr: addrOf(node), timeoutMs: 8000 })).rejects.toThrow()
      expect(node.connections()).toEqual([])
    })
  })

  describe.skipIf(!have[kind])(`TLS with ${kind}-libp2p`, () => {
    let peer: Peer
    beforeAll(async () => {
      peer = await startPeer(kind, ['--security', 'tls', '--bitswap', 'none'])
    })
    afterAll(() => peer.stop())

    it('is what a node falls back to that prefers Noise', async () => {
      const node = await started({})
      onTestFinished(() => node.stop())
      await bothWays(node, peer, '/tls/1.0.0')
    })

    it('tells a node that dials somebody else so', async () => {
      const privateKey = generateKey()
      const node = await started({ privateKey, security: [createTls({ privateKey, env: systemEnv() })] })
      onTestFinished(() => node.stop())
      const stranger = generateKey().publicKey.peerId
      const there = (peer.addrs[0] ?? '').replace(/\/p2p\/.*/, `/p2p/${stranger}`)
      await expect(node.dial(there)).rejects.toThrow(/expected peer/)
    })
  })
}
