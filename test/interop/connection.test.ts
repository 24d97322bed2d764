import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { ClosedError } from '../../src/errors.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey, type KeyType } from '../../src/peer/keys.ts'
import { BufferedStream } from '../../src/stream.ts'
import { available, buildPeers, seededBytes, startKubo, startPeer, type Kubo, type Peer } from './peers.ts'

const versions: Readonly<Record<'go' | 'js' | 'py', string>> = { go: 'go-libp2p', js: 'js-libp2p', py: 'py-libp2p' }

async function listening(crypto: 'native' | 'noble', listen: string, options: NodeOptions = {}): Promise<Node> {
  const node = await createNode({ ...options, listen: [listen], crypto })
  node.handle('/echo/1.0.0', async (stream) => {
    for await (const chunk of stream) await stream.write(chunk)
    await stream.closeWrite()
  })
  node.handle('/reset/1.0.0', async (stream) => {
    await stream.read()
    stream.reset(42)
  })
  await node.start()
  return node
}

function addrOf(node: Node): string {
  return String(node.addrs()[0])
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

async function echoed(node: Node, to: string, bytes: Uint8Array): Promise<Uint8Array> {
  const stream = await node.newStream(to, '/echo/1.0.0')
  const reply = new BufferedStream(stream).readAll(bytes.length + 1)
  for (let at = 0; at < bytes.length; at += 65_536) await stream.write(bytes.slice(at, at + 65_536))
  await stream.closeWrite()
  return reply
}

const ways = [
  ['native', '/ip4/127.0.0.1/tcp/0'],
  ['noble', '/ip4/127.0.0.1/tcp/0'],
] as const

await buildPeers()
const have = available()

for (const kind of ['go', 'js', 'py'] as const) {
  describe.skipIf(!have[kind]).each(ways)(`${versions[kind]} with %s primitives`, (crypto, listen) => {
    let peer: Peer
    let node: Node
    let there: string
    beforeAll(async () => {
      peer = await startPeer(kind)
      node = await listening(crypto, listen)
      there = peer.addrs[0] ?? ''
    })
    afterAll(async () => {
      await node.stop()
      await peer.stop()
    })

    it('is dialled, identified and pinged by rhiza', async () => {
      const result = await node.identify(there)
      expect(result.agent).toContain(kind)
      expect(result.protocols).toContain('/ipfs/ping/1.0.0')
      expect(result.observedAddr?.toString()).toBe(node.connections()[0]?.localAddr.toString())
      expect(await Array.fromAsync(node.ping(there, { count: 5 }))).toHaveLength(5)
      expect(node.connections()[0]).toMatchObject({ direction: 'outbound', security: '/noise', muxer: '/yamux/1.0.0' })
    })

    it('echoes 1 MiB to rhiza, and a hundred streams in parallel', async () => {
      const size = kind === 'py' ? 65_536 : 1 << 20
      const bytes = seededBytes(size, 7)
      expect(Buffer.compare(await echoed(node, there, bytes), bytes)).toBe(0)
      const count = kind === 'py' ? 10 : 100
      const small = Array.from({ length: count }, (_, i) => seededBytes(1000 + i, i))
      const replies = await Promise.all(small.map((one) => echoed(node, there, one)))
      expect(replies.every((reply, i) => Buffer.compare(reply, small[i] ?? new Uint8Array(0)) === 0)).toBe(true)
    })

    it('dials rhiza, identifies, pings and has its echo', async () => {
      // A peer id of its own: py-libp2p keeps a connection that was closed for good.
      const node = await listening(crypto, listen)
      onTestFinished(() => node.stop())
      await peer.call('connect', { addr: addrOf(node) })
      const identified = await peer.call('identify', { peer: node.peerId.toString() })
      expect(identified['agent']).toMatch(/^rhiza\//)
      expect(identified['protocols']).toContain('/echo/1.0.0')
      expect((await peer.call('ping', { peer: node.peerId.toString(), count: 5 }))['rttMs']).toHaveLength(5)
      const bytes = seededBytes(kind === 'py' ? 10_000 : 700_000, 3)
      const answer = await peer.call('echo', {
        peer: node.peerId.toString(),
        protocol: '/echo/1.0.0',
        bytes: base64(bytes),
      })
      expect(Buffer.compare(Buffer.from(String(answer['bytes']), 'base64'), bytes)).toBe(0)
      expect(node.connections()[0]?.direction).toBe('inbound')
    })

    // py-libp2p's lab peer has no handler that resets.
    if (kind !== 'py') {
      it('resets a stream, and hears of a reset, without losing the connection', async () => {
        const stream = await node.newStream(there, '/reset/1.0.0')
        await stream.write(new Uint8Array([1]))
        await expect(stream.read()).rejects.toBeInstanceOf(ClosedError)
        expect(await stream.closed).toMatchObject({ by: 'remote' })
        const asked = peer.call('echo', {
          addr: addrOf(node),
          protocol: '/reset/1.0.0',
          bytes: base64(new Uint8Array(9)),
        })
        // js-libp2p shows its user a reset as an early end; it does so for go-libp2p's resets too.
        if (kind === 'js') expect((await asked)['bytes']).toBe('')
        else await expect(asked).rejects.toThrow(/reset.*42/)
        expect(await Array.fromAsync(node.ping(there))).toHaveLength(1)
      })
    }

    it('is told na for a protocol that rhiza does not have', async () => {
      await expect(peer.call('echo', { addr: addrOf(node), protocol: '/none/9', bytes: '' })).rejects.toThrow()
      await expect(node.newStream(there, '/none/9')).rejects.toMatchObject({ code: 'no-protocol' })
    })
  })
}

/** js-libp2p has no peer ids for ECDSA keys. */
const keyTypes: Readonly<Record<'go' | 'js', readonly KeyType[]>> = {
  go: ['RSA', 'Secp256k1', 'ECDSA'],
  js: ['RSA', 'Secp256k1'],
}
const backends = { native: nativeCrypto, noble: nobleCrypto }

// go-libp2p has such a key itself; js-libp2p, with an Ed25519 one, must take ours.
for (const kind of ['go', 'js'] as const) {
  describe.skipIf(!have[kind]).each(keyTypes[kind])(`${versions[kind]} and %s keys`, (keyType) => {
    let peer: Peer
    beforeAll(async () => {
      peer = await startPeer(kind, kind === 'go' ? ['--key', keyType.toLowerCase()] : ['--bitswap', 'none'])
    })
    afterAll(() => peer.stop())

    it.each(['native', 'noble'] as const)('connect and authenticate in both directions (%s)', async (crypto) => {
      const privateKey = await generateKey(keyType, backends[crypto])
      const node = await listening(crypto, '/ip4/127.0.0.1/tcp/0', { privateKey })
      onTestFinished(() => node.stop())
      const there = peer.addrs[0] ?? ''
      expect((await node.identify(there)).agent).toContain(kind)
      expect(node.connections()[0]).toMatchObject({ direction: 'outbound', security: '/noise' })
      expect(String(node.connections()[0]?.peer)).toBe(peer.peerId)
      await node.hangUp(peer.peerId)
      await peer.call('connect', { addr: addrOf(node) })
      expect((await peer.call('ping', { peer: node.peerId.toString(), count: 1 }))['rttMs']).toHaveLength(1)
      const inbound = node.connections().find(({ direction }) => direction === 'inbound')
      expect(String(inbound?.peer)).toBe(peer.peerId)
      const bytes = seededBytes(10_000, 5)
      expect(Buffer.compare(await echoed(node, there, bytes), bytes)).toBe(0)
    })
  })
}

describe.skipIf(!have.kubo)('Kubo', () => {
  let kubo: Kubo
  let node: Node
  beforeAll(async () => {
    kubo = await startKubo()
    node = await listening('native', '/ip4/127.0.0.1/tcp/0')
  })
  afterAll(async () => {
    await node.stop()
    await kubo.stop()
  })

  it('is dialled and pinged by rhiza, and dials and pings it', async () => {
    expect((await node.identify(kubo.addr)).agent).toContain('kubo')
    expect(await Array.fromAsync(node.ping(kubo.addr, { count: 3 }))).toHaveLength(3)
    await node.hangUp(kubo.peerId)
    await kubo.run('swarm', 'connect', addrOf(node))
    expect(await kubo.run('ping', '-n', '2', node.peerId.toString())).toContain('Average latency')
  })
})
