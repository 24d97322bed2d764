/*
 * MurmurHash3 x64 128 (Austin Appleby, public domain), seed 0, of which UnixFS uses the first half (multihash 0x22).
 */

const mask = 0xffff_ffff_ffff_ffffn
const c1 = 0x87c3_7b91_1142_53d5n
const c2 = 0x4cf5_ad43_2745_937fn

function rotl(x: bigint, n: bigint): bigint {
  return ((x << n) | (x >> (64n - n))) & mask
}

function mix1(k: bigint): bigint {
  return (rotl((k * c1) & mask, 31n) * c2) & mask
}

function mix2(k: bigint): bigint {
  return (rotl((k * c2) & mask, 33n) * c1) & mask
}

function finish(k: bigint): bigint {
  k = ((k ^ (k >> 33n)) * 0xff51_afd7_ed55_8ccdn) & mask
  k = ((k ^ (k >> 33n)) * 0xc4ce_b9fe_1a85_ec53n) & mask
  return k ^ (k >> 33n)
}

/** Up to eight bytes from `at`, little-endian. */
function word(bytes: Uint8Array, at: number): bigint {
  let value = 0n
  for (let i = Math.min(at + 8, bytes.length) - 1; i >= at; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0)
  return value
}

/** h1, the first 64 bits. */
export function murmur3x64(bytes: Uint8Array): bigint {
  let h1 = 0n
  let h2 = 0n
  const blocks = bytes.length - (bytes.length % 16)
  for (let at = 0; at < blocks; at += 16) {
    h1 = ((rotl(h1 ^ mix1(word(bytes, at)), 27n) + h2) * 5n + 0x52dc_e729n) & mask
    h2 = ((rotl(h2 ^ mix2(word(bytes, at + 8)), 31n) + h1) * 5n + 0x3849_5ab5n) & mask
  }
  h2 ^= mix2(word(bytes, blocks + 8))
  h1 ^= mix1(word(bytes, blocks))
  const length = BigInt(bytes.length)
  h1 = ((h1 ^ length) + (h2 ^ length)) & mask
  h2 = ((h2 ^ length) + h1) & mask
  h1 = finish(h1)
  h2 = finish(h2)
  return (h1 + h2) & mask
}
