/* ChaCha20-Poly1305 as RFC 8439 writes it down, slow and without tricks: what the unrolled one is fuzzed against. */

const read32 = (b: Uint8Array, at: number): number => new DataView(b.buffer, b.byteOffset).getUint32(at, true)
const rotate = (x: number, n: number): number => (x << n) | (x >>> (32 - n))

function quarterRound(x: Int32Array, a: number, b: number, c: number, d: number): void {
  const at = (i: number): number => x[i] as number
  const step = (to: number, from: number, xor: number, by: number): void => {
    x[to] = at(to) + at(from)
    x[xor] = rotate(at(xor) ^ at(to), by)
  }
  step(a, b, d, 16)
  step(c, d, b, 12)
  step(a, b, d, 8)
  step(c, d, b, 7)
}

/** §2.3 */
function block(key: Uint8Array, counter: number, nonce: Uint8Array): Uint8Array {
  const state = new Int32Array(16)
  state.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574])
  for (let i = 0; i < 8; i++) state[4 + i] = read32(key, 4 * i)
  state[12] = counter
  for (let i = 0; i < 3; i++) state[13 + i] = read32(nonce, 4 * i)
  const x = state.slice()
  for (let i = 0; i < 10; i++) {
    for (const c of [0, 1, 2, 3]) quarterRound(x, c, c + 4, c + 8, c + 12)
    for (const c of [0, 1, 2, 3]) quarterRound(x, c, 4 + ((c + 1) % 4), 8 + ((c + 2) % 4), 12 + ((c + 3) % 4))
  }
  return new Uint8Array(x.map((word, i) => word + (state[i] as number)).buffer)
}

const toBig = (b: Uint8Array): bigint => b.reduceRight((n, byte) => (n << 8n) | BigInt(byte), 0n)

/** §2.5 */
export function plainPoly1305(key: Uint8Array, message: Uint8Array): Uint8Array {
  const r = toBig(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn
  let h = 0n
  for (let at = 0; at < message.length; at += 16) {
    const part = message.subarray(at, at + 16)
    h = ((h + toBig(part) + (1n << BigInt(8 * part.length))) * r) % ((1n << 130n) - 5n)
  }
  h += toBig(key.subarray(16, 32))
  return Uint8Array.from({ length: 16 }, (_, i) => Number((h >> BigInt(8 * i)) & 255n))
}

const pad = (size: number): number[] => Array.from({ length: (16 - (size % 16)) % 16 }, () => 0)

/** §2.8: ciphertext and tag. */
export function plainSeal(key: Uint8Array, nonce: Uint8Array, ad: Uint8Array, text: Uint8Array): Uint8Array {
  const sealed = text.slice()
  for (let at = 0; at < text.length; at += 64) {
    const stream = block(key, 1 + at / 64, nonce)
    for (let i = at; i < Math.min(at + 64, text.length); i++)
      sealed[i] = (text[i] as number) ^ (stream[i - at] as number)
  }
  const lengths = new BigUint64Array([BigInt(ad.length), BigInt(text.length)])
  const mac = [...ad, ...pad(ad.length), ...sealed, ...pad(sealed.length), ...new Uint8Array(lengths.buffer)]
  const tag = plainPoly1305(block(key, 0, nonce).subarray(0, 32), Uint8Array.from(mac))
  return Uint8Array.from([...sealed, ...tag])
}
