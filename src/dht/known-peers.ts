/* The peers of a routing table with their addresses, in a record store: whom to ask first after a restart. */
import { decodeMultiaddr } from '../multiaddr.ts'
import { PeerId } from '../peer/id.ts'
import { bytes, limited, message, repeated } from '../protobuf.ts'
import type { RecordStore } from '../store/records.ts'
import type { PeerInfo } from './network.ts'
import { maxAddrsPerPeer } from './wire.ts'

const Stored = message({ addrs: [1, repeated(limited(bytes, 1024), maxAddrsPerPeer)] })

/** Who was not met for so long is not looked for any more. */
const validMs = 7 * 24 * 3_600_000

export class KnownPeers {
  readonly #records: RecordStore
  readonly #base: string

  constructor(records: RecordStore, namespace: string) {
    this.#records = records
    this.#base = `${namespace}/table/`
  }

  /** In place of those that were stored. Rejects with StorageError. */
  async save(peers: readonly PeerInfo[], wallTime: number): Promise<void> {
    const now = new Map(peers.map((info) => [`${this.#base}${info.peer.toString()}`, info.addrs]))
    const gone: string[] = []
    for await (const { key } of this.#records.entries(this.#base)) if (!now.has(key)) gone.push(key)
    await this.#records.batch([
      ...gone.map((key) => ({ key, value: undefined })),
      ...Array.from(now, ([key, addrs]) => ({
        key,
        value: Stored.encode({ addrs: addrs.slice(0, maxAddrsPerPeer).map((addr) => addr.bytes) }),
        expiresAt: wallTime + validMs,
      })),
    ])
  }

  async load(): Promise<PeerInfo[]> {
    const out: PeerInfo[] = []
    for await (const { key, value } of this.#records.entries(this.#base)) {
      const addrs = Stored.decode(value).addrs.map((addr) => decodeMultiaddr(addr))
      out.push({ peer: PeerId.parse(key.slice(this.#base.length)), addrs })
    }
    return out
  }
}
