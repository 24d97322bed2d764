/* Real peers behind names: the way to them leads through dnsaddr records of a name server. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemResolver } from '../../src/dial/system-dns.ts'
import { UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { nameServer } from '../dial/dns-server.ts'
import { available, buildPeers, startPeer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

for (const kind of ['go', 'js'] as const) {
  describe.skipIf(!have[kind])(`${kind}-libp2p behind a chain of dnsaddr records`, () => {
    let peer: Peer
    beforeAll(async () => {
      peer = await startPeer(kind)
    })
    afterAll(() => peer.stop())

    it('is found past dead addresses and other peers, and answers pings', async () => {
      const there = multiaddr(peer.addrs.find((addr) => addr.includes('/ip4/127.0.0.1/tcp/')) ?? '')
      const id = String(there.peerId())
      const other = generateKey().publicKey.peerId
      const server = await nameServer({
        '_dnsaddr.boot.test': [
          `dnsaddr=/dnsaddr/one.test/p2p/${id}`,
          `dnsaddr=/dnsaddr/boot.test/p2p/${id}`,
          `dnsaddr=/ip4/127.0.0.1/tcp/1/p2p/${other}`,
        ],
        '_dnsaddr.one.test': [
          `dnsaddr=/ip4/127.0.0.1/tcp/1/p2p/${id}`,
          `dnsaddr=/ip4/127.0.0.1/udp/4001/quic-v1/p2p/${id}`,
          `dnsaddr=/dns4/host.test/tcp/${there.value('tcp')}/p2p/${id}`,
        ],
        'host.test': ['127.0.0.1'],
      })
      const node = await createNode({ resolver: systemResolver({ servers: [server.at] }) })
      onTestFinished(async () => {
        await node.stop()
        server.close()
      })
      const connection = await node.dial(`/dnsaddr/boot.test/p2p/${id}`)
      expect(connection.peer.toString()).toBe(id)
      expect(connection.remoteAddr.toString()).toBe(there.withoutPeer().toString())
      for await (const rtt of node.ping(id, { count: 3 })) expect(rtt).toBeGreaterThan(0)
      // A record can not make anybody another peer.
      const wrong = await node.dial(`/dnsaddr/boot.test/p2p/${other}`).catch((error: unknown) => error)
      expect(wrong).toBeInstanceOf(UnavailableError)
    })
  })
}
