import { fetch } from '@libp2p/fetch'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

/** The service of js-libp2p for /libp2p/fetch/0.0.1. */
export const fetchService = fetch

/** Serves what it was told under keys that begin with /lab/, and asks others. */
export function fetchCommands(node) {
  const values = new Map()
  const service = node.services.fetch
  service.registerLookupFunction('/lab/', async (key) => {
    const value = values.get(Buffer.from(key).toString('base64'))
    if (value === 'fail') throw new Error('told to fail')
    return value
  })

  return {
    /** Without bytes the lookup fails. */
    fetchPut: async ({ base64, bytes }) => {
      values.set(base64, bytes === undefined ? 'fail' : Buffer.from(bytes, 'base64'))
    },
    fetchGet: async ({ addr, peer, base64, signal }) => {
      const id = peer === undefined ? (await node.dial(multiaddr(addr), { signal })).remotePeer : peerIdFromString(peer)
      const value = await service.fetch(id, Buffer.from(base64, 'base64'), { signal })
      return { bytes: value === undefined ? null : Buffer.from(value).toString('base64') }
    },
  }
}
