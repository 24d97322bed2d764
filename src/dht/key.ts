/*
 * The keyspace (libp2p kad-dht §Distance): SHA-256 of a peer id's bytes, a CID's multihash or a record's key; the
 * distance of two keys is their XOR as a big-endian number.
 */
import { platformCrypto } from '#crypto'
import type { PeerId } from '../peer/id.ts'

/** 32 bytes. */
export type Key = Uint8Array

export const keyBits = 256

/** Where `bytes` (a multihash, a record key, a peer id) lies. */
export function keyOf(bytes: Uint8Array): Key {
  return platformCrypto.sha256(bytes)
}

const keys = new WeakMap<PeerId, Key>()

export function keyOfPeer(peer: PeerId): Key {
  let key = keys.get(peer)
  if (key === undefined) keys.set(peer, (key = keyOf(peer.bytes)))
  return key
}

/** Leading bits that two keys share: 0 to 256. */
export function commonPrefixLength(a: Key, b: Key): number {
  for (let i = 0; i < a.length; i++) {
    const differ = (a[i] ?? 0) ^ (b[i] ?? 0)
    if (differ !== 0) return i * 8 + Math.clz32(differ) - 24
  }
  return a.length * 8
}

/** Below 0 when `a` is closer to `target` than `b`, 0 when they are the same key. */
export function compareDistance(target: Key, a: Key, b: Key): number {
  for (let i = 0; i < target.length; i++) {
    const t = target[i] ?? 0
    const differ = (t ^ (a[i] ?? 0)) - (t ^ (b[i] ?? 0))
    if (differ !== 0) return differ
  }
  return 0
}

/** The distance as a share of the keyspace: 0 to 1, to 48 bits. */
export function distanceShare(a: Key, b: Key): number {
  let distance = 0
  for (let i = 0; i < 6; i++) distance = distance * 256 + ((a[i] ?? 0) ^ (b[i] ?? 0))
  return distance / 2 ** 48
}
