/* Peer ids and whole networks for the tables and lookups: only their keys matter. */
import { concat } from '../../src/bytes.ts'
import { FakeRandom } from '../../src/env.ts'
import { keyOfPeer } from '../../src/dht/key.ts'
import { RoutingTable } from '../../src/dht/table.ts'
import { PeerId } from '../../src/peer/id.ts'

/** Peer number `i` of a seed: as if of an RSA key. */
export function somePeer(i: number, seed = 1): PeerId {
  return PeerId.decode(concat([Uint8Array.of(0x12, 32), new FakeRandom(seed * 1_000_003 + i).bytes(32)]))
}

export function somePeers(count: number, seed = 1): PeerId[] {
  return Array.from({ length: count }, (_, i) => somePeer(i, seed))
}

/** A table for each of `peers`, filled with all of them as far as its buckets hold them. */
export function filledTables(peers: readonly PeerId[]): Map<string, RoutingTable> {
  return new Map(
    peers.map((self) => {
      const table = new RoutingTable(keyOfPeer(self))
      for (const peer of peers) table.add(peer, [], 0)
      return [self.toString(), table]
    }),
  )
}
