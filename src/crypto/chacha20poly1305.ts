/*
 * ChaCha20-Poly1305 (RFC 8439), unrolled: for records of a few hundred bytes it beats the price of a call into the
 * platform, and it is what browsers seal with. The plain twin it is fuzzed against: test/crypto/plain-chacha.ts.
 * Everything happens in one aligned scratch area laid out as the MAC wants it (§2.8): ad, pad, ciphertext, pad, lengths.
 * Words are read in the machine's order: little-endian, as on every platform that runs JavaScript engines today.
 */
import { allocUnsafe } from '../bytes.ts'
import type { Aead } from './crypto.ts'

/** Scratch above this many bytes is not kept. */
const keptScratchBytes = 128 * 1024

let scratch = new Uint8Array(1024)
let scratchWords = new Int32Array(scratch.buffer)
const oneTime = new Int32Array(16)
const state = new Int32Array(16)
const tag = new Int32Array(4)

function need(size: number): void {
  if (scratch.length >= size && scratch.length <= keptScratchBytes) return
  scratch = new Uint8Array(Math.max(1024, size <= keptScratchBytes ? 2 ** Math.ceil(Math.log2(size)) : size))
  scratchWords = new Int32Array(scratch.buffer, 0, scratch.length >>> 2)
}

/** XORs `blocks` blocks of key stream (§2.3, §2.4) into `w` from word `at`; `s` is the state, its counter moves on. */
// prettier-ignore
function xorBlocks(s: Int32Array, w: Int32Array, at: number, blocks: number): void {
  const s0 = s[0] as number, s1 = s[1] as number, s2 = s[2] as number, s3 = s[3] as number
  const s4 = s[4] as number, s5 = s[5] as number, s6 = s[6] as number, s7 = s[7] as number
  const s8 = s[8] as number, s9 = s[9] as number, s10 = s[10] as number, s11 = s[11] as number
  const s13 = s[13] as number, s14 = s[14] as number, s15 = s[15] as number
  let s12 = s[12] as number
  for (let block = 0; block < blocks; block++, at += 16) {
    let a0 = s0, a1 = s1, a2 = s2, a3 = s3, b0 = s4, b1 = s5, b2 = s6, b3 = s7
    let c0 = s8, c1 = s9, c2 = s10, c3 = s11, d0 = s12, d1 = s13, d2 = s14, d3 = s15
    for (let round = 0; round < 10; round++) {
      a0 = (a0 + b0) | 0; d0 ^= a0; d0 = (d0 << 16) | (d0 >>> 16)
      a1 = (a1 + b1) | 0; d1 ^= a1; d1 = (d1 << 16) | (d1 >>> 16)
      a2 = (a2 + b2) | 0; d2 ^= a2; d2 = (d2 << 16) | (d2 >>> 16)
      a3 = (a3 + b3) | 0; d3 ^= a3; d3 = (d3 << 16) | (d3 >>> 16)
      c0 = (c0 + d0) | 0; b0 ^= c0; b0 = (b0 << 12) | (b0 >>> 20)
      c1 = (c1 + d1) | 0; b1 ^= c1; b1 = (b1 << 12) | (b1 >>> 20)
      c2 = (c2 + d2) | 0; b2 ^= c2; b2 = (b2 << 12) | (b2 >>> 20)
      c3 = (c3 + d3) | 0; b3 ^= c3; b3 = (b3 << 12) | (b3 >>> 20)
      a0 = (a0 + b0) | 0; d0 ^= a0; d0 = (d0 << 8) | (d0 >>> 24)
      a1 = (a1 + b1) | 0; d1 ^= a1; d1 = (d1 << 8) | (d1 >>> 24)
      a2 = (a2 + b2) | 0; d2 ^= a2; d2 = (d2 << 8) | (d2 >>> 24)
      a3 = (a3 + b3) | 0; d3 ^= a3; d3 = (d3 << 8) | (d3 >>> 24)
      c0 = (c0 + d0) | 0; b0 ^= c0; b0 = (b0 << 7) | (b0 >>> 25)
      c1 = (c1 + d1) | 0; b1 ^= c1; b1 = (b1 << 7) | (b1 >>> 25)
      c2 = (c2 + d2) | 0; b2 ^= c2; b2 = (b2 << 7) | (b2 >>> 25)
      c3 = (c3 + d3) | 0; b3 ^= c3; b3 = (b3 << 7) | (b3 >>> 25)

      a0 = (a0 + b1) | 0; d3 ^= a0; d3 = (d3 << 16) | (d3 >>> 16)
      a1 = (a1 + b2) | 0; d0 ^= a1; d0 = (d0 << 16) | (d0 >>> 16)
      a2 = (a2 + b3) | 0; d1 ^= a2; d1 = (d1 << 16) | (d1 >>> 16)
      a3 = (a3 + b0) | 0; d2 ^= a3; d2 = (d2 << 16) | (d2 >>> 16)
      c2 = (c2 + d3) | 0; b1 ^= c2; b1 = (b1 << 12) | (b1 >>> 20)
      c3 = (c3 + d0) | 0; b2 ^= c3; b2 = (b2 << 12) | (b2 >>> 20)
      c0 = (c0 + d1) | 0; b3 ^= c0; b3 = (b3 << 12) | (b3 >>> 20)
      c1 = (c1 + d2) | 0; b0 ^= c1; b0 = (b0 << 12) | (b0 >>> 20)
      a0 = (a0 + b1) | 0; d3 ^= a0; d3 = (d3 << 8) | (d3 >>> 24)
      a1 = (a1 + b2) | 0; d0 ^= a1; d0 = (d0 << 8) | (d0 >>> 24)
      a2 = (a2 + b3) | 0; d1 ^= a2; d1 = (d1 << 8) | (d1 >>> 24)
      a3 = (a3 + b0) | 0; d2 ^= a3; d2 = (d2 << 8) | (d2 >>> 24)
      c2 = (c2 + d3) | 0; b1 ^= c2; b1 = (b1 << 7) | (b1 >>> 25)
      c3 = (c3 + d0) | 0; b2 ^= c3; b2 = (b2 << 7) | (b2 >>> 25)
      c0 = (c0 + d1) | 0; b3 ^= c0; b3 = (b3 << 7) | (b3 >>> 25)
      c1 = (c1 + d2) | 0; b0 ^= c1; b0 = (b0 << 7) | (b0 >>> 25)
    }
    w[at] = (w[at] as number) ^ (a0 + s0); w[at + 1] = (w[at + 1] as number) ^ (a1 + s1)
    w[at + 2] = (w[at + 2] as number) ^ (a2 + s2); w[at + 3] = (w[at + 3] as number) ^ (a3 + s3)
    w[at + 4] = (w[at + 4] as number) ^ (b0 + s4); w[at + 5] = (w[at + 5] as number) ^ (b1 + s5)
    w[at + 6] = (w[at + 6] as number) ^ (b2 + s6); w[at + 7] = (w[at + 7] as number) ^ (b3 + s7)
    w[at + 8] = (w[at + 8] as number) ^ (c0 + s8); w[at + 9] = (w[at + 9] as number) ^ (c1 + s9)
    w[at + 10] = (w[at + 10] as number) ^ (c2 + s10); w[at + 11] = (w[at + 11] as number) ^ (c3 + s11)
    w[at + 12] = (w[at + 12] as number) ^ (d0 + s12); w[at + 13] = (w[at + 13] as number) ^ (d1 + s13)
    w[at + 14] = (w[at + 14] as number) ^ (d2 + s14); w[at + 15] = (w[at + 15] as number) ^ (d3 + s15)
    s12 = (s12 + 1) | 0
  }
  s[12] = s12
}

/**
 * The Poly1305 tag (§2.5) of the first `words` words (a multiple of four) into `out`; `key` is r, then s.
 * Exported for its own vectors. Numbers of six limbs of 22 bits in doubles: a sum of six products stays below 2^52, and 2^132 = 20 (mod 2^130 - 5).
 */
// prettier-ignore
export function poly1305(key: Int32Array, w: Int32Array, words: number, out: Int32Array): void {
  const mask = 0x3fffff, up = 0x400000, down = 1 / 0x400000
  const k0 = (key[0] as number) & 0x0fffffff, k1 = (key[1] as number) & 0x0ffffffc
  const k2 = (key[2] as number) & 0x0ffffffc, k3 = (key[3] as number) & 0x0ffffffc
  const r0 = k0 & mask, r1 = ((k0 >>> 22) | (k1 << 10)) & mask, r2 = ((k1 >>> 12) | (k2 << 20)) & mask
  const r3 = (k2 >>> 2) & mask, r4 = ((k2 >>> 24) | (k3 << 8)) & mask, r5 = k3 >>> 14
  const t1 = r1 * 20, t2 = r2 * 20, t3 = r3 * 20, t4 = r4 * 20, t5 = r5 * 20
  let h0 = 0, h1 = 0, h2 = 0, h3 = 0, h4 = 0, h5 = 0, c = 0, e = 0
  for (let i = 0; i < words; i += 4) {
    const m0 = w[i] as number, m1 = w[i + 1] as number, m2 = w[i + 2] as number, m3 = w[i + 3] as number
    h0 += m0 & mask
    h1 += ((m0 >>> 22) | (m1 << 10)) & mask
    h2 += ((m1 >>> 12) | (m2 << 20)) & mask
    h3 += (m2 >>> 2) & mask
    h4 += ((m2 >>> 24) | (m3 << 8)) & mask
    h5 += (m3 >>> 14) | 0x40000
    let x0 = h0 * r0 + h1 * t5 + h2 * t4 + h3 * t3 + h4 * t2 + h5 * t1
    let x1 = h0 * r1 + h1 * r0 + h2 * t5 + h3 * t4 + h4 * t3 + h5 * t2
    let x2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * t5 + h4 * t4 + h5 * t3
    let x3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * t5 + h5 * t4
    let x4 = h0 * r4 + h1 * r3 + h2 * r2 + h3 * r1 + h4 * r0 + h5 * t5
    let x5 = h0 * r5 + h1 * r4 + h2 * r3 + h3 * r2 + h4 * r1 + h5 * r0
    // Two carry chains side by side, so that one need not wait for the other.
    c = Math.floor(x0 * down); x0 -= c * up; x1 += c
    e = Math.floor(x3 * down); x3 -= e * up; x4 += e
    c = Math.floor(x1 * down); x1 -= c * up; x2 += c
    e = Math.floor(x4 * down); x4 -= e * up; x5 += e
    c = Math.floor(x2 * down); x2 -= c * up; x3 += c
    e = Math.floor(x5 * down); x5 -= e * up; x0 += e * 20
    c = Math.floor(x3 * down); h3 = x3 - c * up; h4 = x4 + c
    e = Math.floor(x0 * down); h0 = x0 - e * up; h1 = x1 + e
    h2 = x2
    h5 = x5
  }
  // Carry all the way; the top limb holds 20 bits, and 2^130 = 5.
  let g0 = h0, g1 = h1, g2 = h2, g3 = h3, g4 = h4, g5 = h5
  for (let pass = 0; pass < 2; pass++) {
    g1 += g0 >>> 22; g0 &= mask
    g2 += g1 >>> 22; g1 &= mask
    g3 += g2 >>> 22; g2 &= mask
    g4 += g3 >>> 22; g3 &= mask
    g5 += g4 >>> 22; g4 &= mask
    g0 += (g5 >>> 20) * 5; g5 &= 0xfffff
  }
  g1 += g0 >>> 22; g0 &= mask
  // h - p where that is not negative, without a branch on it.
  let p0 = g0 + 5, p1 = g1 + (p0 >>> 22), p2 = g2 + (p1 >>> 22), p3 = g3 + (p2 >>> 22), p4 = g4 + (p3 >>> 22)
  let p5 = g5 + (p4 >>> 22)
  const over = -(p5 >>> 20)
  p0 &= mask; p1 &= mask; p2 &= mask; p3 &= mask; p4 &= mask; p5 &= 0xfffff
  g0 = (g0 & ~over) | (p0 & over)
  g1 = (g1 & ~over) | (p1 & over)
  g2 = (g2 & ~over) | (p2 & over)
  g3 = (g3 & ~over) | (p3 & over)
  g4 = (g4 & ~over) | (p4 & over)
  g5 = (g5 & ~over) | (p5 & over)
  let sum = ((g0 | (g1 << 22)) >>> 0) + ((key[4] as number) >>> 0)
  out[0] = sum
  sum = (((g1 >>> 10) | (g2 << 12)) >>> 0) + ((key[5] as number) >>> 0) + Math.floor(sum / 0x1_0000_0000)
  out[1] = sum
  sum = (((g2 >>> 20) | (g3 << 2) | (g4 << 24)) >>> 0) + ((key[6] as number) >>> 0) + Math.floor(sum / 0x1_0000_0000)
  out[2] = sum
  sum = (((g4 >>> 8) | (g5 << 14)) >>> 0) + ((key[7] as number) >>> 0) + Math.floor(sum / 0x1_0000_0000)
  out[3] = sum
}

function word(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  )
}

const round16 = (size: number): number => (size + 15) & ~15

/** RFC 8439 §2.8 with this key, in TypeScript. */
export class ChaCha20Poly1305 implements Aead {
  readonly #key = new Int32Array(8)

  /** `key` is 32 bytes and is copied. */
  constructor(key: Uint8Array) {
    if (key.length !== 32) throw new RangeError(`ChaCha20-Poly1305 key of ${key.length} bytes, want 32`)
    for (let i = 0; i < 8; i++) this.#key[i] = word(key, 4 * i)
  }

  /** Sets the state to counter 1 and leaves the Poly1305 key (§2.6) in `oneTime`. */
  #begin(nonce: Uint8Array, ad: Uint8Array, size: number): number {
    if (nonce.length !== 12) throw new RangeError(`nonce of ${nonce.length} bytes, want 12`)
    const at = round16(ad.length)
    // The last block is worked on whole, and the lengths come behind the text.
    need(at + ((size + 63) & ~63) + 16)
    const s = state
    const k = this.#key
    s[0] = 0x61707865
    s[1] = 0x3320646e
    s[2] = 0x79622d32
    s[3] = 0x6b206574
    for (let i = 0; i < 8; i++) s[4 + i] = k[i] as number
    s[12] = 0
    s[13] = word(nonce, 0)
    s[14] = word(nonce, 4)
    s[15] = word(nonce, 8)
    oneTime.fill(0)
    xorBlocks(s, oneTime, 0, 1)
    if (at > 0) {
      scratch.set(ad)
      for (let i = ad.length; i < at; i++) scratch[i] = 0
    }
    return at
  }

  #tag(ad: number, at: number, size: number): void {
    const end = at + round16(size)
    for (let i = at + size; i < end; i++) scratch[i] = 0
    const words = end >>> 2
    scratchWords[words] = ad
    scratchWords[words + 1] = 0
    scratchWords[words + 2] = size
    scratchWords[words + 3] = 0
    poly1305(oneTime, scratchWords, words + 4, tag)
  }

  seal(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    out: Uint8Array,
    offset: number,
  ): number {
    const at = this.#begin(nonce, ad, total)
    let end = at
    for (const chunk of chunks) {
      scratch.set(chunk, end)
      end += chunk.length
    }
    if (end - at !== total) throw new RangeError(`chunks hold ${end - at} bytes, total says ${total}`)
    xorBlocks(state, scratchWords, at >>> 2, (total + 63) >>> 6)
    this.#tag(ad.length, at, total)
    out.set(scratch.subarray(at, end), offset)
    for (let i = 0, to = offset + total; i < 4; i++, to += 4) {
      const value = tag[i] as number
      out[to] = value
      out[to + 1] = value >>> 8
      out[to + 2] = value >>> 16
      out[to + 3] = value >>> 24
    }
    return total + 16
  }

  sealChunks(
    nonce: Uint8Array,
    ad: Uint8Array,
    chunks: readonly Uint8Array[],
    total: number,
    sealed: Uint8Array[],
  ): void {
    const out = allocUnsafe(total + 16)
    this.seal(nonce, ad, chunks, total, out, 0)
    sealed.push(out)
  }

  open(nonce: Uint8Array, ad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
    const size = sealed.length - 16
    if (size < 0) return undefined
    const at = this.#begin(nonce, ad, size + 16)
    // With its tag, which #tag overwrites: one copy, no subarray.
    scratch.set(sealed, at)
    this.#tag(ad.length, at, size)
    let differs = 0
    for (let i = 0; i < 4; i++) differs |= (tag[i] as number) ^ word(sealed, size + 4 * i)
    if (differs !== 0) return undefined
    xorBlocks(state, scratchWords, at >>> 2, (size + 63) >>> 6)
    return scratch.slice(at, at + size)
  }
}
