/*
 * SHA-256 and SHA-512 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869), for platforms without node:crypto.
 * The constants are computed as the standard defines them (§4.2.2, §4.2.3, §5.3.3, §5.3.5) when first needed, in half
 * a millisecond: their code is shorter than they are. A word of SHA-512 is two numbers, the high one first: BigInts
 * take far longer. noble.ts does the same with audited code.
 */
import { concat, empty } from '../bytes.ts'
import type { Hasher } from './crypto.ts'

/** The whole part of the root, by Newton's method from above. */
function root(value: bigint, degree: bigint): bigint {
  for (let guess = 1n << 72n; ;) {
    const next = ((degree - 1n) * guess + value / guess ** (degree - 1n)) / degree
    if (next >= guess) return guess
    guess = next
  }
}

/** 64 bits behind the point of the roots of the first primes: words of SHA-512. The high halves are SHA-256's. */
function fractions(count: number, degree: bigint): Int32Array {
  const words: bigint[] = []
  for (let prime = 2; words.length < 2 * count; prime++) {
    let divisor = 2
    while (prime % divisor !== 0) divisor++
    if (divisor < prime) continue
    const bits = root(BigInt(prime) << (64n * degree), degree)
    words.push(bits >> 32n, bits)
  }
  return Int32Array.from(words, (word) => Number(BigInt.asIntN(32, word)))
}

let made: { readonly k: Int32Array; readonly initial: Int32Array } | undefined
const constants = (): NonNullable<typeof made> => (made ??= { k: fractions(80, 3n), initial: fractions(8, 2n) })

type Compress = (state: Int32Array, block: DataView, at: number) => void

/** A message in blocks, with what is put behind it (§5.1). */
class Sha2 implements Hasher {
  readonly #state: Int32Array
  readonly #compress: Compress
  readonly #block: Uint8Array
  readonly #view: DataView
  #filled = 0
  #total = 0

  constructor(blockBytes: number, state: Int32Array, compress: Compress) {
    this.#state = state
    this.#compress = compress
    this.#block = new Uint8Array(blockBytes)
    this.#view = new DataView(this.#block.buffer)
  }

  update(bytes: Uint8Array): this {
    const size = this.#block.length
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#total += bytes.length
    for (let at = 0; at < bytes.length;) {
      if (this.#filled === 0 && bytes.length - at >= size) {
        this.#compress(this.#state, view, at)
        at += size
        continue
      }
      const part = bytes.subarray(at, at + size - this.#filled)
      this.#block.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
      if (this.#filled === size) this.#flush()
    }
    return this
  }

  #flush(): void {
    this.#compress(this.#state, this.#view, 0)
    this.#filled = 0
  }

  digest(): Uint8Array {
    const size = this.#block.length
    const bits = BigInt(this.#total) * 8n
    this.update(Uint8Array.of(0x80))
    this.#block.fill(0, this.#filled)
    // The length takes an eighth of a block.
    if (this.#filled > (size * 7) / 8) {
      this.#flush()
      this.#block.fill(0)
    }
    this.#view.setBigUint64(size - 8, bits)
    this.#flush()
    const out = new DataView(new ArrayBuffer(size / 2))
    for (const [i, word] of this.#state.entries()) out.setInt32(4 * i, word)
    return new Uint8Array(out.buffer)
  }
}

const schedule = new Int32Array(160)

/** §6.2.2. */
function compress256(state: Int32Array, block: DataView, at: number): void {
  const { k } = constants()
  const w = schedule
  for (let i = 0; i < 16; i++) w[i] = block.getInt32(at + 4 * i)
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15] as number
    const y = w[i - 2] as number
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
    w[i] = (w[i - 16] as number) + s0 + (w[i - 7] as number) + s1
  }
  let a = state[0] as number
  let b = state[1] as number
  let c = state[2] as number
  let d = state[3] as number
  let e = state[4] as number
  let f = state[5] as number
  let g = state[6] as number
  let h = state[7] as number
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (k[2 * i] as number) + (w[i] as number)) | 0
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
    h = g
    g = f
    f = e
    e = (d + t1) | 0
    d = c
    c = b
    b = a
    a = (t1 + t2) | 0
  }
  state[0] = (state[0] as number) + a
  state[1] = (state[1] as number) + b
  state[2] = (state[2] as number) + c
  state[3] = (state[3] as number) + d
  state[4] = (state[4] as number) + e
  state[5] = (state[5] as number) + f
  state[6] = (state[6] as number) + g
  state[7] = (state[7] as number) + h
}

const working = new Int32Array(16)
const carry = (low: number): number => Math.floor(low / 2 ** 32)

/** §6.4.2. Nothing moves from a to b and so on: in round i, a is the word at -i. */
function compress512(state: Int32Array, block: DataView, at: number): void {
  const { k } = constants()
  const w = schedule
  const v = working
  for (let i = 0; i < 32; i++) w[i] = block.getInt32(at + 4 * i)
  for (let i = 32; i < 160; i += 2) {
    const xh = w[i - 30] as number
    const xl = w[i - 29] as number
    const yh = w[i - 4] as number
    const yl = w[i - 3] as number
    const s0h = ((xh >>> 1) | (xl << 31)) ^ ((xh >>> 8) | (xl << 24)) ^ (xh >>> 7)
    const s0l = ((xl >>> 1) | (xh << 31)) ^ ((xl >>> 8) | (xh << 24)) ^ ((xl >>> 7) | (xh << 25))
    const s1h = ((yh >>> 19) | (yl << 13)) ^ ((yh << 3) | (yl >>> 29)) ^ (yh >>> 6)
    const s1l = ((yl >>> 19) | (yh << 13)) ^ ((yl << 3) | (yh >>> 29)) ^ ((yl >>> 6) | (yh << 26))
    const low = ((w[i - 31] as number) >>> 0) + (s0l >>> 0) + ((w[i - 13] as number) >>> 0) + (s1l >>> 0)
    w[i] = (w[i - 32] as number) + s0h + (w[i - 14] as number) + s1h + carry(low)
    w[i + 1] = low
  }
  v.set(state)
  for (let i = 0; i < 160; i += 2) {
    const at = (word: number): number => (2 * word - i) & 15
    const ah = v[at(0)] as number
    const al = v[at(0) + 1] as number
    const bh = v[at(1)] as number
    const bl = v[at(1) + 1] as number
    const ch = v[at(2)] as number
    const cl = v[at(2) + 1] as number
    const eh = v[at(4)] as number
    const el = v[at(4) + 1] as number
    const fh = v[at(5)] as number
    const fl = v[at(5) + 1] as number
    const s1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((eh << 23) | (el >>> 9))
    const s1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((el << 23) | (eh >>> 9))
    const chl = (el & fl) ^ (~el & (v[at(6) + 1] as number))
    const t1 =
      ((v[at(7) + 1] as number) >>> 0) +
      (s1l >>> 0) +
      (chl >>> 0) +
      ((k[i + 1] as number) >>> 0) +
      ((w[i + 1] as number) >>> 0)
    const chh = (eh & fh) ^ (~eh & (v[at(6)] as number))
    const t1h = ((v[at(7)] as number) + s1h + chh + (k[i] as number) + (w[i] as number) + carry(t1)) | 0
    const t1l = t1 >>> 0
    const s0h = ((ah >>> 28) | (al << 4)) ^ ((ah << 30) | (al >>> 2)) ^ ((ah << 25) | (al >>> 7))
    const s0l = ((al >>> 28) | (ah << 4)) ^ ((al << 30) | (ah >>> 2)) ^ ((al << 25) | (ah >>> 7))
    const e = ((v[at(3) + 1] as number) >>> 0) + t1l
    v[at(3)] = (v[at(3)] as number) + t1h + carry(e)
    v[at(3) + 1] = e
    const a = t1l + (s0l >>> 0) + (((al & bl) ^ (al & cl) ^ (bl & cl)) >>> 0)
    v[at(7)] = t1h + s0h + ((ah & bh) ^ (ah & ch) ^ (bh & ch)) + carry(a)
    v[at(7) + 1] = a
  }
  for (let i = 0; i < 16; i += 2) {
    const low = ((state[i + 1] as number) >>> 0) + ((v[i + 1] as number) >>> 0)
    state[i] = (state[i] as number) + (v[i] as number) + carry(low)
    state[i + 1] = low
  }
}

export function sha256Hasher(): Hasher {
  return new Sha2(
    64,
    constants().initial.filter((_, i) => i % 2 === 0),
    compress256,
  )
}

function digest(hasher: Hasher, chunks: readonly Uint8Array[]): Uint8Array {
  for (const chunk of chunks) hasher.update(chunk)
  return hasher.digest()
}

export function sha256(...chunks: Uint8Array[]): Uint8Array {
  return digest(sha256Hasher(), chunks)
}

export function sha512(...chunks: Uint8Array[]): Uint8Array {
  return digest(new Sha2(128, constants().initial.slice(), compress512), chunks)
}

/** RFC 2104 §2 */
export function hmacSha256(key: Uint8Array, ...chunks: Uint8Array[]): Uint8Array {
  const block = new Uint8Array(64)
  block.set(key.length > 64 ? sha256(key) : key)
  const inner = sha256(
    block.map((byte) => byte ^ 0x36),
    ...chunks,
  )
  return sha256(
    block.map((byte) => byte ^ 0x5c),
    inner,
  )
}

/** RFC 5869 §2 */
export function hkdfSha256(salt: Uint8Array, ikm: Uint8Array, info: Uint8Array, size: number): Uint8Array {
  if (size > 255 * 32) throw new RangeError(`HKDF gives at most 8160 bytes, not ${size}`)
  const key = hmacSha256(salt, ikm)
  const blocks = [empty]
  for (let i = 1; 32 * (i - 1) < size; i++)
    blocks.push(hmacSha256(key, blocks.at(-1) as Uint8Array, info, Uint8Array.of(i)))
  return concat(blocks).slice(0, size)
}
