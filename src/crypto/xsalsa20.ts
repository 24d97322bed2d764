/*
 * XSalsa20 (Bernstein, "Extending the Salsa20 nonce", 2011) over Salsa20/20 (its specification, 2005), unrolled. The
 * plain twin it is fuzzed against: test/crypto/plain-salsa.ts. Authenticates nothing: pnet alone uses it.
 * Words are read in the machine's order: little-endian, as on every platform that runs JavaScript engines today.
 */
import { allocUnsafe } from '../bytes.ts'

export const keyBytes = 32
export const nonceBytes = 24
const blockBytes = 64

/** "expand 32-byte k" */
const sigma = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const

const word = (bytes: Uint8Array, at: number): number =>
  (bytes[at] as number) |
  ((bytes[at + 1] as number) << 8) |
  ((bytes[at + 2] as number) << 16) |
  ((bytes[at + 3] as number) << 24)

/** §Salsa20 block: the state with the key, the nonce and a counter of blocks. */
function state(key: Int32Array, nonce: readonly [number, number, number, number]): Int32Array {
  const k = (i: number): number => key[i] as number
  return Int32Array.of(sigma[0], k(0), k(1), k(2), k(3), sigma[1], ...nonce, sigma[2], k(4), k(5), k(6), k(7), sigma[3])
}

/**
 * XORs `blocks` blocks of key stream into `w` from word `at`; the counter in the state moves on. `feed` false leaves the
 * first state out of the sum and does not XOR: that is HSalsa20, whose block is written.
 */
// prettier-ignore
function xorBlocks(s: Int32Array, w: Int32Array, at: number, blocks: number, feed: boolean): void {
  const s0 = s[0] as number, s1 = s[1] as number, s2 = s[2] as number, s3 = s[3] as number
  const s4 = s[4] as number, s5 = s[5] as number, s6 = s[6] as number, s7 = s[7] as number
  const s10 = s[10] as number, s11 = s[11] as number, s12 = s[12] as number, s13 = s[13] as number
  const s14 = s[14] as number, s15 = s[15] as number
  let s8 = s[8] as number, s9 = s[9] as number
  for (let block = 0; block < blocks; block++, at += 16) {
    let x0 = s0, x1 = s1, x2 = s2, x3 = s3, x4 = s4, x5 = s5, x6 = s6, x7 = s7
    let x8 = s8, x9 = s9, x10 = s10, x11 = s11, x12 = s12, x13 = s13, x14 = s14, x15 = s15
    let t = 0
    for (let round = 0; round < 10; round++) {
      t = (x0 + x12) | 0; x4 ^= (t << 7) | (t >>> 25)
      t = (x5 + x1) | 0; x9 ^= (t << 7) | (t >>> 25)
      t = (x10 + x6) | 0; x14 ^= (t << 7) | (t >>> 25)
      t = (x15 + x11) | 0; x3 ^= (t << 7) | (t >>> 25)
      t = (x4 + x0) | 0; x8 ^= (t << 9) | (t >>> 23)
      t = (x9 + x5) | 0; x13 ^= (t << 9) | (t >>> 23)
      t = (x14 + x10) | 0; x2 ^= (t << 9) | (t >>> 23)
      t = (x3 + x15) | 0; x7 ^= (t << 9) | (t >>> 23)
      t = (x8 + x4) | 0; x12 ^= (t << 13) | (t >>> 19)
      t = (x13 + x9) | 0; x1 ^= (t << 13) | (t >>> 19)
      t = (x2 + x14) | 0; x6 ^= (t << 13) | (t >>> 19)
      t = (x7 + x3) | 0; x11 ^= (t << 13) | (t >>> 19)
      t = (x12 + x8) | 0; x0 ^= (t << 18) | (t >>> 14)
      t = (x1 + x13) | 0; x5 ^= (t << 18) | (t >>> 14)
      t = (x6 + x2) | 0; x10 ^= (t << 18) | (t >>> 14)
      t = (x11 + x7) | 0; x15 ^= (t << 18) | (t >>> 14)

      t = (x0 + x3) | 0; x1 ^= (t << 7) | (t >>> 25)
      t = (x5 + x4) | 0; x6 ^= (t << 7) | (t >>> 25)
      t = (x10 + x9) | 0; x11 ^= (t << 7) | (t >>> 25)
      t = (x15 + x14) | 0; x12 ^= (t << 7) | (t >>> 25)
      t = (x1 + x0) | 0; x2 ^= (t << 9) | (t >>> 23)
      t = (x6 + x5) | 0; x7 ^= (t << 9) | (t >>> 23)
      t = (x11 + x10) | 0; x8 ^= (t << 9) | (t >>> 23)
      t = (x12 + x15) | 0; x13 ^= (t << 9) | (t >>> 23)
      t = (x2 + x1) | 0; x3 ^= (t << 13) | (t >>> 19)
      t = (x7 + x6) | 0; x4 ^= (t << 13) | (t >>> 19)
      t = (x8 + x11) | 0; x9 ^= (t << 13) | (t >>> 19)
      t = (x13 + x12) | 0; x14 ^= (t << 13) | (t >>> 19)
      t = (x3 + x2) | 0; x0 ^= (t << 18) | (t >>> 14)
      t = (x4 + x7) | 0; x5 ^= (t << 18) | (t >>> 14)
      t = (x9 + x8) | 0; x10 ^= (t << 18) | (t >>> 14)
      t = (x14 + x13) | 0; x15 ^= (t << 18) | (t >>> 14)
    }
    if (!feed) {
      w.set([x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15], at)
      return
    }
    w[at] = (w[at] as number) ^ (x0 + s0)
    w[at + 1] = (w[at + 1] as number) ^ (x1 + s1)
    w[at + 2] = (w[at + 2] as number) ^ (x2 + s2)
    w[at + 3] = (w[at + 3] as number) ^ (x3 + s3)
    w[at + 4] = (w[at + 4] as number) ^ (x4 + s4)
    w[at + 5] = (w[at + 5] as number) ^ (x5 + s5)
    w[at + 6] = (w[at + 6] as number) ^ (x6 + s6)
    w[at + 7] = (w[at + 7] as number) ^ (x7 + s7)
    w[at + 8] = (w[at + 8] as number) ^ (x8 + s8)
    w[at + 9] = (w[at + 9] as number) ^ (x9 + s9)
    w[at + 10] = (w[at + 10] as number) ^ (x10 + s10)
    w[at + 11] = (w[at + 11] as number) ^ (x11 + s11)
    w[at + 12] = (w[at + 12] as number) ^ (x12 + s12)
    w[at + 13] = (w[at + 13] as number) ^ (x13 + s13)
    w[at + 14] = (w[at + 14] as number) ^ (x14 + s14)
    w[at + 15] = (w[at + 15] as number) ^ (x15 + s15)
    // The counter has 64 bits.
    s8 = (s8 + 1) | 0
    if (s8 === 0) s9 = (s9 + 1) | 0
  }
  s[8] = s8
  s[9] = s9
}

/** One direction's key stream. Throws RangeError on a key or nonce of another size. */
export class XSalsa20 {
  readonly #state: Int32Array
  /** The block that is partly used, and how much of it: 64 means none. */
  readonly #block = new Uint8Array(blockBytes)
  readonly #blockWords = new Int32Array(this.#block.buffer)
  #used = blockBytes

  /** `blocks`: how many blocks of the key stream to leave out; for tests of the counter. */
  constructor(key: Uint8Array, nonce: Uint8Array, blocks = 0) {
    if (key.length !== keyBytes) throw new RangeError(`XSalsa20 key of ${key.length} bytes, want ${keyBytes}`)
    if (nonce.length !== nonceBytes) throw new RangeError(`XSalsa20 nonce of ${nonce.length} bytes, want ${nonceBytes}`)
    const words = Int32Array.from({ length: 8 }, (_, i) => word(key, 4 * i))
    const hsalsa = new Int32Array(16)
    xorBlocks(state(words, [word(nonce, 0), word(nonce, 4), word(nonce, 8), word(nonce, 12)]), hsalsa, 0, 1, false)
    // §HSalsa20: the words where sigma and the nonce stood make the second key.
    const derived = Int32Array.from([0, 5, 10, 15, 6, 7, 8, 9], (i) => hsalsa[i] as number)
    const counter = [blocks | 0, Math.floor(blocks / 2 ** 32) | 0] as const
    this.#state = state(derived, [word(nonce, 16), word(nonce, 20), ...counter])
  }

  /** The concatenation of `chunks`, `total` bytes, XORed with the next of the key stream; fresh memory. */
  xor(chunks: readonly Uint8Array[], total: number): Uint8Array {
    // The key stream's blocks then lie on words of the memory.
    const phase = this.#used % 4
    const memory = allocUnsafe(phase + total)
    const out = phase === 0 ? memory : memory.subarray(phase)
    let at = 0
    for (const chunk of chunks) {
      out.set(chunk, at)
      at += chunk.length
    }
    const head = Math.min(total, blockBytes - this.#used)
    this.#xorRest(out, 0, head)
    const blocks = Math.floor((total - head) / blockBytes)
    if (blocks > 0) {
      const words = new Int32Array(out.buffer, out.byteOffset + head, blocks * 16)
      xorBlocks(this.#state, words, 0, blocks, true)
    }
    const done = head + blocks * blockBytes
    if (done < total) {
      this.#blockWords.fill(0)
      xorBlocks(this.#state, this.#blockWords, 0, 1, true)
      this.#used = 0
      this.#xorRest(out, done, total)
    }
    return out
  }

  #xorRest(out: Uint8Array, from: number, to: number): void {
    const block = this.#block
    for (let i = from; i < to; i++) out[i] = (out[i] as number) ^ (block[this.#used++] as number)
  }
}
