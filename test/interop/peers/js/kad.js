import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import { CID } from 'multiformats/cid'

const ids = { amino: '/ipfs/kad/1.0.0', lan: '/ipfs/lan/kad/1.0.0' }

/** The service of js-libp2p: `network` is lan, amino, or the prefix of a network of its own. */
export function kadService(network, mode) {
  if (!['server', 'client'].includes(mode)) throw new Error(`no such kad mode: ${mode}`)
  return kadDHT({
    protocol: ids[network] ?? `${network}/kad/1.0.0`,
    clientMode: mode === 'client',
    peerInfoMapper: passthroughMapper,
    validators: { ipns: ipnsValidator },
    selectors: { ipns: ipnsSelector },
    // A first node has nobody to look itself up with.
    allowQueryWithZeroPeers: true,
    initialQuerySelfInterval: 100,
  })
}

const bytes = (base64) => Buffer.from(base64, 'base64')
const infoOf = ({ id, multiaddrs }) => ({ peer: String(id), addrs: multiaddrs.map(String) })

export function kadCommands(node) {
  const { kad } = node.services

  /** Fails with each peer's reason when no peer took it. */
  async function told(type, events) {
    let took = 0
    const failed = []
    for await (const event of events) {
      if (event.name === 'PEER_RESPONSE' && event.messageType === type) took++
      if (event.name === 'QUERY_ERROR') failed.push(`${event.from}: ${event.error.message}`)
    }
    if (took === 0) throw new Error(`no peer took it: ${failed.join('; ')}`)
  }

  return {
    provide: async ({ cid, signal }) => told('ADD_PROVIDER', kad.provide(CID.parse(cid), { signal })),
    findProviders: async ({ cid, count = 0, signal }) => {
      const providers = []
      for await (const event of kad.findProviders(CID.parse(cid), { signal })) {
        if (event.name === 'PROVIDER') providers.push(...event.providers.map(infoOf))
        if (count > 0 && providers.length >= count) break
      }
      return { providers: count > 0 ? providers.slice(0, count) : providers }
    },
    // Not from its own store of peers: others are asked.
    findPeer: async ({ peer, signal }) => {
      for await (const event of kad.findPeer(peerIdFromString(peer), { signal, useCache: false })) {
        if (event.name === 'FINAL_PEER') return infoOf(event.peer)
      }
      throw new Error('not found')
    },
    closestPeers: async ({ key, signal }) => {
      const peers = []
      for await (const event of kad.getClosestPeers(bytes(key), { signal })) {
        if (event.name === 'FINAL_PEER') peers.push(String(event.peer.id))
      }
      return { peers }
    },
    putValue: async ({ key, value, signal }) => told('PUT_VALUE', kad.put(bytes(key), bytes(value), { signal })),
    getValue: async ({ key, signal }) => {
      for await (const event of kad.get(bytes(key), { signal })) {
        if (event.name === 'VALUE') return { value: Buffer.from(event.value).toString('base64') }
      }
      throw new Error('not found')
    },
    tableSize: async () => ({ size: kad.routingTable.size }),
  }
}
