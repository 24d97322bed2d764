/* Every transport under every security protocol with every implementation, both ways, and every type of identity. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { systemEnv } from '../../src/env.ts'
import { ClosedError } from '../../src/errors.ts'
import type { Connection } from '../../src/host.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey, type KeyType } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { encodePreSharedKey, generatePreSharedKey, pnet } from '../../src/security/pnet.ts'
import { createTls } from '../../src/security/tls/tls.ts'
import { BufferedStream } from '../../src/stream.ts'
import { tcp } from '../../src/transport/tcp.ts'
import { websocket } from '../../src/transport/websocket/websocket.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer, type PeerKind } from './peers.ts'

const transports = { tcp: '/tcp/0', ws: '/tcp/0/ws', wss: '/tcp/0/tls/ws' } as const
const securities = { noise: createNoise, tls: createTls } as const
const ids = { noise: '/noise', tls: '/tls/1.0.0' } as const

interface Stack {
  name: string
  transports: readonly (keyof typeof transports)[]
  /** Beside Ed25519. */
  keys: readonly KeyType[]
  echoBytes: number
  /** What it shows its user of a reset by us: an error, or no more than that the stream ends before its reply. */
  reset: 'error' | 'end'
}

// peers/README.md says what is missing and why.
const stacks: Readonly<Record<PeerKind, Stack>> = {
  go: {
    name: 'go-libp2p',
    transports: ['tcp', 'ws', 'wss'],
    keys: ['RSA', 'Secp256k1', 'ECDSA'],
    echoBytes: 1 << 20,
    reset: 'error',
  },
  js: {
    name: 'js-libp2p',
    transports: ['tcp', 'ws', 'wss'],
    keys: ['RSA', 'Secp256k1'],
    echoBytes: 1 << 20,
    reset: 'end',
  },
  rust: {
    name: 'rust-libp2p',
    transports: ['tcp', 'ws', 'wss'],
    keys: ['RSA', 'Secp256k1', 'ECDSA'],
    echoBytes: 1 << 20,
    reset: 'end',
  },
  py: {
    name: 'py-libp2p',
    transports: ['tcp', 'ws'],
    keys: ['RSA', 'Secp256k1'],
    echoBytes: 1 << 16,
    reset: 'end',
  },
}

const certificates = fileURLToPath(new URL('certificates/', import.meta.url))
const [ca, cert, key] = ['ca.pem', 'localhost.pem', 'localhost-key.pem'].map((file) => join(certificates, file)) as [
  string,
  string,
  string,
]

async function start(
  transport: keyof typeof transports,
  security: keyof typeof securities,
  keyType: KeyType,
  options: NodeOptions = {},
): Promise<Node> {
  const privateKey = await generateKey(keyType)
  const [trusted, chain, secret] = await Promise.all([ca, cert, key].map((file) => readFile(file)))
  const tls = { ca: trusted ?? '', cert: chain ?? '', key: secret ?? '' }
  const node = await createNode({
    ...options,
    privateKey,
    listen: [`/ip4/127.0.0.1${transports[transport]}`],
    transports: [tcp(), websocket({ tls })],
    security: [securities[security]({ privateKey, env: systemEnv() })],
  })
  node.handle('/echo/1.0.0', async (stream) => {
    for await (const chunk of stream) await stream.write(chunk)
    await stream.closeWrite()
  })
  node.handle('/reset/1.0.0', async (stream) => {
    await stream.read()
    stream.reset()
  })
  await node.start()
  onTestFinished(() => node.stop())
  return node
}

function listens(kind: PeerKind): string[] {
  const list = stacks[kind].transports.flatMap((t) => ['--listen', `/ip4/127.0.0.1${transports[t]}`])
  return [...list, '--tls-cert', cert, '--tls-key', key, '--tls-ca', ca, '--security', 'noise,tls']
}

/** py-libp2p has its addresses in no order. */
function addrOn(peer: Peer, transport: keyof typeof transports): string {
  const form = new RegExp(`^/ip4/127.0.0.1${transports[transport].replace('0', '\\d+')}/p2p/`)
  return peer.addrs.find((addr) => form.test(addr)) ?? ''
}

/** The dialler may be done before we are: with TLS it speaks last. */
function firstOf(node: Node): Promise<Connection> {
  return vi.waitFor(() => {
    const [connection] = node.connections()
    if (connection === undefined) throw new Error('no connection')
    return connection
  })
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

async function echo(node: Node, peer: string, bytes: Uint8Array): Promise<void> {
  const stream = await node.newStream(peer, '/echo/1.0.0')
  const reply = new BufferedStream(stream).readAll(bytes.length + 1)
  for (let at = 0; at < bytes.length; at += 65_536) await stream.write(bytes.slice(at, at + 65_536))
  await stream.closeWrite()
  expect(Buffer.compare(await reply, bytes)).toBe(0)
}

async function echoOf(peer: Peer, node: Node, bytes: Uint8Array): Promise<void> {
  const asked = { peer: String(node.peerId), protocol: '/echo/1.0.0', bytes: base64(bytes) }
  const { bytes: back } = await peer.call('echo', asked)
  expect(Buffer.compare(Buffer.from(String(back), 'base64'), bytes)).toBe(0)
}

await buildPeers()
const have = available()

for (const kind of Object.keys(stacks) as PeerKind[]) {
  const stack = stacks[kind]

  describe.skipIf(!have[kind])(stack.name, () => {
    let peer: Peer
    beforeAll(async () => {
      peer = await startPeer(kind, [...listens(kind), ...(kind === 'js' ? ['--bitswap', 'none'] : [])])
    })
    afterAll(() => peer?.stop())

    const combinations = stack.transports.flatMap((transport) =>
      (['noise', 'tls'] as const).map((security) => [transport, security] as const),
    )

    describe.each(combinations)('over %s with %s', (transport, security) => {
      const expected = {
        transport: transport === 'tcp' ? 'tcp' : 'websocket',
        security: ids[security],
        muxer: '/yamux/1.0.0',
      }

      it('is dialled, identified and pinged by rhiza, echoes, and its reset is seen', async () => {
        const node = await start(transport, security, 'Ed25519')
        const connection = await node.dial(addrOn(peer, transport))
        expect(connection).toMatchObject({ ...expected, direction: 'outbound' })
        expect(String(connection.peer)).toBe(peer.peerId)
        const { agent, protocols } = await node.identify(peer.peerId)
        expect(agent).toContain(kind)
        expect(protocols).toEqual(expect.arrayContaining(['/ipfs/ping/1.0.0', '/ipfs/id/1.0.0', '/echo/1.0.0']))
        expect(await Array.fromAsync(node.ping(peer.peerId, { count: 3 }))).toHaveLength(3)
        await echo(node, peer.peerId, seededBytes(stack.echoBytes, 7))
        for (let i = 0; i < 20; i++) await echo(node, peer.peerId, seededBytes(100, i))
        const stream = await node.newStream(peer.peerId, '/reset/1.0.0')
        await stream.write(new Uint8Array(1))
        await expect(stream.read()).rejects.toBeInstanceOf(ClosedError)
        expect(await stream.closed).toMatchObject({ by: 'remote' })
        expect(node.connections()).toEqual([connection])
      })

      it('dials rhiza, identifies and pings it, has its echo, and sees its reset', async () => {
        const node = await start(transport, security, 'Ed25519')
        const id = String(node.peerId)
        await peer.call('connect', { addr: String(node.addrs()[0]) })
        const connection = await firstOf(node)
        expect(connection).toMatchObject({ ...expected, direction: 'inbound' })
        expect(String(connection.peer)).toBe(peer.peerId)
        const { agent, protocols } = await peer.call('identify', { peer: id })
        expect(agent).toMatch(/^rhiza\//)
        expect(protocols).toEqual(expect.arrayContaining(['/ipfs/ping/1.0.0', '/ipfs/id/1.0.0', '/echo/1.0.0']))
        expect((await peer.call('ping', { peer: id, count: 3 }))['rttMs']).toHaveLength(3)
        await echoOf(peer, node, seededBytes(stack.echoBytes, 5))
        for (let i = 0; i < 20; i++) await echoOf(peer, node, seededBytes(100, i))
        const asked = peer.call('echo', { peer: id, protocol: '/reset/1.0.0', bytes: base64(new Uint8Array(9)) })
        if (stack.reset === 'error') await expect(asked).rejects.toThrow(/reset/)
        else expect((await asked)['bytes']).toBe('')
        expect((await peer.call('ping', { peer: id, count: 1 }))['rttMs']).toHaveLength(1)
        expect(node.connections()).toEqual([connection])
      })
    })
  })

  describe.skipIf(!have[kind]).each(stack.keys)(`${stack.name} and %s keys`, (keyType) => {
    let folder: string
    let peer: Peer
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'rhiza-matrix-'))
      const flags = ['--key', keyType.toLowerCase(), '--security', 'noise,tls']
      if (kind === 'js') flags.push('--bitswap', 'none')
      if (kind === 'rust' && keyType === 'RSA') {
        const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
        writeFileSync(join(folder, 'rsa'), privateKey.export({ type: 'pkcs8', format: 'der' }))
        flags.push('--rsa-key', join(folder, 'rsa'))
      }
      peer = await startPeer(kind, flags)
    })
    afterAll(async () => {
      await peer?.stop()
      rmSync(folder, { recursive: true, force: true })
    })

    it.each(['noise', 'tls'] as const)('connect and authenticate in both directions with %s', async (security) => {
      for (const dialler of ['rhiza', kind]) {
        const node = await start('tcp', security, keyType)
        if (dialler === 'rhiza') await node.dial(peer.addrs[0] ?? '')
        else await peer.call('connect', { addr: String(node.addrs()[0]) })
        const connection = await firstOf(node)
        expect(connection).toMatchObject({ security: ids[security] })
        expect(String(connection.peer)).toBe(peer.peerId)
        await echo(node, peer.peerId, seededBytes(1000, 1))
        await echoOf(peer, node, seededBytes(1000, 2))
      }
    })
  })
}

// py-libp2p's private networks are of its own kind.
describe.each(['go', 'js', 'rust'] as const)('a private network', (kind) => {
  describe.skipIf(!have[kind])(`with ${stacks[kind].name}`, () => {
    const psk = generatePreSharedKey()
    let folder: string
    let peer: Peer
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'rhiza-matrix-'))
      writeFileSync(join(folder, 'swarm.key'), encodePreSharedKey(psk))
      const flags = [...listens(kind), '--psk', join(folder, 'swarm.key')]
      peer = await startPeer(kind, kind === 'js' ? [...flags, '--bitswap', 'none'] : flags)
    })
    afterAll(async () => {
      await peer?.stop()
      rmSync(folder, { recursive: true, force: true })
    })

    it.each(['tcp', 'ws', 'wss'] as const)('connects over %s in both directions', async (transport) => {
      const there = addrOn(peer, transport)
      for (const dialler of ['rhiza', kind]) {
        const node = await start(transport, 'noise', 'Ed25519', { connectionProtector: pnet(psk) })
        if (dialler === 'rhiza') await node.dial(there)
        else await peer.call('connect', { addr: String(node.addrs()[0]) })
        expect(String((await firstOf(node)).peer)).toBe(peer.peerId)
        await echo(node, peer.peerId, seededBytes(300_000, 1))
        await echoOf(peer, node, seededBytes(300_000, 2))
      }
    })

    it('refuses a stranger', async () => {
      const node = await start('tcp', 'noise', 'Ed25519', { connectionProtector: pnet(generatePreSharedKey()) })
      // What it makes of our words under another key may be to wait for more of them.
      await expect(node.dial(addrOn(peer, 'tcp'), { timeoutMs: 3000 })).rejects.toThrow()
      await expect(peer.call('connect', { addr: String(node.addrs()[0]), timeoutMs: 3000 })).rejects.toThrow()
      expect(node.connections()).toEqual([])
    })
  })
})

describe.skipIf(!have.rust)('rust-libp2p that signs its peer record in a form of its own', () => {
  it('is identified all the same, and its record is not taken for good', async () => {
    const peer = await startPeer('rust', ['--signed-record', 'yes'])
    onTestFinished(() => peer.stop())
    const node = await start('tcp', 'noise', 'Ed25519')
    const identified = await node.identify(peer.addrs[0] ?? '')
    expect(identified.agent).toBe('rhiza-lab-rust')
    expect(identified.signedPeerRecord).toBeUndefined()
    // It did send one.
    const other = await startPeer('rust')
    onTestFinished(() => other.stop())
    expect((await other.call('identify', { addr: peer.addrs[0] }))['signedPeerRecord']).not.toBe('')
  })
})
