/* XSalsa20 as its papers say it, one byte and one quarter-round at a time. */

const word = (bytes: ArrayLike<number>, at: number): number =>
  [0, 1, 2, 3].reduce((sum, i) => sum + (bytes[at + i] ?? 0) * 256 ** i, 0)
const rotl = (x: number, n: number): number => ((x << n) | (x >>> (32 - n))) >>> 0
const add = (a: number, b: number): number => (a + b) % 2 ** 32

function quarterRound(x: number[], a: number, b: number, c: number, d: number): void {
  const at = (i: number): number => x[i] ?? 0
  x[b] = (at(b) ^ rotl(add(at(a), at(d)), 7)) >>> 0
  x[c] = (at(c) ^ rotl(add(at(b), at(a)), 9)) >>> 0
  x[d] = (at(d) ^ rotl(add(at(c), at(b)), 13)) >>> 0
  x[a] = (at(a) ^ rotl(add(at(d), at(c)), 18)) >>> 0
}

function rounds(words: readonly number[]): number[] {
  const x = [...words]
  for (let i = 0; i < 10; i++) {
    for (const j of [0, 1, 2, 3]) quarterRound(x, 5 * j, (5 * j + 4) % 16, (5 * j + 8) % 16, (5 * j + 12) % 16)
    for (const j of [0, 1, 2, 3]) {
      const row = 4 * j
      quarterRound(x, 5 * j, row + ((j + 1) % 4), row + ((j + 2) % 4), row + ((j + 3) % 4))
    }
  }
  return x
}

function input(key: ArrayLike<number>, middle: readonly number[]): number[] {
  const sigma = new TextEncoder().encode('expand 32-byte k')
  const s = (i: number): number => word(sigma, 4 * i)
  const k = (i: number): number => word(key, 4 * i)
  return [s(0), k(0), k(1), k(2), k(3), s(1), ...middle, s(2), k(4), k(5), k(6), k(7), s(3)]
}

const bytesOf = (words: readonly number[]): number[] => words.flatMap((w) => [0, 8, 16, 24].map((n) => (w >>> n) & 255))

/** `bytes` XORed with the key stream from block `block` on. */
export function plainXSalsa20(key: Uint8Array, nonce: Uint8Array, bytes: Uint8Array, block = 0n): Uint8Array {
  const h = rounds(
    input(
      key,
      [0, 4, 8, 12].map((i) => word(nonce, i)),
    ),
  )
  const subkey = bytesOf([0, 5, 10, 15, 6, 7, 8, 9].map((i) => h[i] ?? 0))
  const out = bytes.slice()
  for (let at = 0; at < out.length; at += 64) {
    const n = block + BigInt(at / 64)
    const words = input(subkey, [word(nonce, 16), word(nonce, 20), Number(n % 2n ** 32n), Number(n >> 32n)])
    const stream = bytesOf(rounds(words).map((x, i) => add(x, words[i] ?? 0)))
    for (let i = 0; i < 64 && at + i < out.length; i++) out[at + i] = (out[at + i] ?? 0) ^ (stream[i] ?? 0)
  }
  return out
}
