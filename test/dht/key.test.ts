import fc from 'fast-check'
import { expect, it } from 'vitest'
import { toBigInt, toHex } from '../../src/bytes.ts'
import { commonPrefixLength, compareDistance, keyOf, keyOfPeer } from '../../src/dht/key.ts'
import { parseCid } from '../../src/ipld/cid.ts'
import { PeerId } from '../../src/peer/id.ts'

const key = fc.uint8Array({ minLength: 32, maxLength: 32 })

function distance(a: Uint8Array, b: Uint8Array): bigint {
  return toBigInt(a) ^ toBigInt(b)
}

it('orders keys as the XOR of big-endian numbers does', () => {
  fc.assert(
    fc.property(key, key, key, (target, a, b) => {
      const sign = Math.sign(compareDistance(target, a, b))
      const [da, db] = [distance(target, a), distance(target, b)]
      expect(sign).toBe(da < db ? -1 : Number(da > db))
    }),
  )
})

it('counts the leading bits that two keys share', () => {
  fc.assert(
    fc.property(
      key,
      fc.integer({ min: 0, max: 255 }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      (a, bit, noise) => {
        const b = a.map((byte, i) => (i > bit >> 3 ? (noise[i] ?? 0) : byte))
        b[bit >> 3] =
          (((b[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7))) & (0xff << (7 - (bit & 7)))) |
          ((noise[bit >> 3] ?? 0) & (0x7f >> (bit & 7)))
        expect(commonPrefixLength(a, b)).toBe(bit)
        expect(commonPrefixLength(a, a)).toBe(256)
      },
    ),
  )
})

// ipfs/specs kad-dht.md, the examples of §Kademlia Identifiers.
it('puts peers and content where the specification puts them', () => {
  const peer = PeerId.parse('12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS')
  expect(toHex(keyOfPeer(peer))).toBe('e43d28f0996557c0d5571d75c62a57a59d7ac1d30a51ecedcdb9d5e4afa56100')
  const { multihash } = parseCid('bafybeihfg3d7rdltd43u3tfvncx7n5loqofbsobojcadtmokrljfthuc7y')
  expect(toHex(keyOf(multihash.bytes))).toBe('d623250f3f660ab4c3a53d3c97b3f6a0194c548053488d093520206248253bcb')
})
