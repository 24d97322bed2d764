/* Signed records and pushes with real peers, both ways. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { createNode, type Node } from '../../src/node.ts'
import { PeerId } from '../../src/peer/id.ts'
import { generateKey, type KeyType } from '../../src/peer/keys.ts'
import { openPeerRecord } from '../../src/peer/envelope.ts'
import { available, buildPeers, startKubo, startPeer, type Answer, type Peer } from './peers.ts'

await buildPeers()
const have = available()
const patience = { timeout: 15_000, interval: 50 }

async function listening(keyType: KeyType = 'Ed25519'): Promise<Node> {
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'], privateKey: await generateKey(keyType) })
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

const bare = (addrs: readonly unknown[]): string[] =>
  addrs.map((a) => String(a).replace(/\/p2p\/[^/]*$/, '')).toSorted()

/** js-libp2p has no peer ids for ECDSA keys. */
const keyTypes: Readonly<Record<'go' | 'js', readonly KeyType[]>> = {
  go: ['Ed25519', 'RSA', 'Secp256k1', 'ECDSA'],
  js: ['Ed25519', 'RSA', 'Secp256k1'],
}

describe.each(['go', 'js'] as const)('the signed record of %s-libp2p', (kind) => {
  describe.skipIf(!have[kind])('and ours', () => {
    let peer: Peer
    let id: PeerId
    let there: string
    const known = (node: Node): Promise<Answer> => peer.call('known', { peer: String(node.peerId) })
    beforeAll(async () => {
      peer = await startPeer(kind, ['--bitswap', 'none'])
      id = PeerId.parse(peer.peerId)
      there = peer.addrs[0] ?? ''
    })
    afterAll(() => peer?.stop())

    it('is in our address book, certified, and dialled from there', async () => {
      const node = await listening()
      const { signedPeerRecord } = await node.identify(there)
      const record = await openPeerRecord(signedPeerRecord ?? new Uint8Array(0))
      expect(String(record.peerId)).toBe(peer.peerId)
      expect(node.book.record(id)).toEqual(signedPeerRecord)
      const certified = node.book.addrs(id).filter((a) => a.certified)
      expect(bare(certified.map((a) => a.addr))).toEqual(bare(record.addrs))
      expect(bare(record.addrs)).toContain(bare([there])[0])
      await node.hangUp(id)
      expect(String((await node.dial(id)).peer)).toBe(peer.peerId)
    })

    it.each(keyTypes[kind])('is there for ours with a key of type %s, whoever dials', async (keyType) => {
      for (const way of ['dialled', 'dialling']) {
        const node = await listening(keyType)
        if (way === 'dialled') await peer.call('connect', { addr: String(node.addrs()[0]) })
        else await node.dial(there)
        await expect
          .poll(
            async () => bare(((await known(node).catch(() => undefined))?.['certified'] ?? []) as string[]),
            patience,
          )
          .toEqual(bare(node.addrs()))
        await node.stop()
      }
    })

    it('is certified anew by our push when protocols and addresses change', async () => {
      const node = await listening()
      await node.identify(there)
      await expect
        .poll(async () => (await known(node).catch((): Answer => ({})))['protocols'], patience)
        .toContain('/ipfs/ping/1.0.0')
      node.handle(['/pushed/1', '/pushed/2'], () => {})
      await expect
        .poll(async () => (await known(node))['protocols'], patience)
        .toEqual(expect.arrayContaining(['/pushed/1', '/pushed/2']))
      node.unhandle('/pushed/1')
      await expect.poll(async () => (await known(node))['protocols'], patience).not.toContain('/pushed/1')
    })

    it('comes by push when its protocols change', async () => {
      const node = await listening()
      await node.identify(there)
      const name = `/captured/${node.peerId}`
      expect(node.connections(id)[0]?.protocols).not.toContain(name)
      await peer.call('capture', { protocols: [name] })
      await expect.poll(() => node.connections(id)[0]?.protocols, patience).toContain(name)
      expect(node.book.record(id)).toBeDefined()
    })

    it('is there beside protocols that need several frames', async () => {
      const node = await listening()
      // Go-libp2p keeps 128 protocols of a peer.
      const many = Array.from({ length: 100 }, (_, i) => `/${'one/of/many/long/names'.repeat(4)}/${i}`)
      node.handle(many, () => {})
      await peer.call('connect', { addr: String(node.addrs()[0]) })
      const told = async (): Promise<Answer> => known(node).catch(() => ({}))
      await expect.poll(async () => (await told())['protocols'], patience).toEqual(expect.arrayContaining(many))
      expect(bare((await told())['certified'] as string[])).toEqual(bare(node.addrs()))
    })
  })
})

describe.skipIf(!have.kubo)('Kubo', () => {
  it('has its signed record in our address book, and us in its own', async () => {
    await using kubo = await startKubo()
    const node = await listening()
    const result = await node.identify(kubo.addr)
    expect(result.signedPeerRecord).toBeDefined()
    expect(bare(node.book.addrs(PeerId.parse(kubo.peerId)).map((a) => a.addr))).toContain(bare([kubo.addr])[0])
    await expect.poll(() => kubo.run('swarm', 'peers', '--identify'), patience).toContain(String(node.peerId))
  })
})
