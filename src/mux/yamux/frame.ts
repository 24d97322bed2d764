/*
 * yamux/README.md r0 (libp2p specs) §Framing: the 12-byte header, and nothing else. Bodies are never held together here.
 * Reset codes: go-yamux v5 puts a u32 in Length of a Window Update with RST; Length of Go Away carries any u32 likewise.
 */

export const headerBytes = 12
export const version = 0

export const frameType = { data: 0, windowUpdate: 1, ping: 2, goAway: 3 } as const
export const flag = { syn: 1, ack: 2, fin: 4, rst: 8 } as const
/** §Flow Control: every stream starts with this much credit, both ways. */
export const initialWindowBytes = 256 * 1024
export const maxU32 = 0xffff_ffff

export interface Header {
  version: number
  type: number
  flags: number
  id: number
  /** Data: bytes of the body. Window Update: the delta, or the code beside RST. Ping: opaque. Go Away: the code. */
  length: number
}

/** Writes 12 bytes at `at`; byte by byte, because a DataView per buffer costs more than it saves. */
export function encodeHeader(
  out: Uint8Array,
  at: number,
  type: number,
  flags: number,
  id: number,
  length: number,
): void {
  out[at] = version
  out[at + 1] = type
  out[at + 2] = flags >>> 8
  out[at + 3] = flags
  out[at + 4] = id >>> 24
  out[at + 5] = id >>> 16
  out[at + 6] = id >>> 8
  out[at + 7] = id
  out[at + 8] = length >>> 24
  out[at + 9] = length >>> 16
  out[at + 10] = length >>> 8
  out[at + 11] = length
}

function readU32(bytes: Uint8Array, at: number): number {
  const a = bytes[at] as number
  const b = bytes[at + 1] as number
  const c = bytes[at + 2] as number
  const d = bytes[at + 3] as number
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0
}

/** Reads 12 bytes at `at` into `into`, which is reused from frame to frame. Judging them is the session's work. */
export function decodeHeader(bytes: Uint8Array, at: number, into: Header): void {
  into.version = bytes[at] as number
  into.type = bytes[at + 1] as number
  into.flags = ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)
  into.id = readU32(bytes, at + 4)
  into.length = readU32(bytes, at + 8)
}

/** Headers are cut from here; no slice is ever used twice, so the wire may keep it as long as it likes. */
const slabBytes = 16 * 1024
let slab = new Uint8Array(0)
let slabAt = 0

/**
 * Collects the chunks of one vectored write: headers and small chunks that follow each other become one chunk.
 * One at a time is open in the whole process, which a call stack without waiting guarantees.
 */
export class Packer {
  #chunks: Uint8Array[] = []
  #start = 0
  size = 0

  begin(): void {
    this.#chunks = []
    this.#start = slabAt
    this.size = 0
  }

  #need(bytes: number): void {
    if (slabAt + bytes <= slab.length) return
    this.#cut()
    slab = new Uint8Array(slabBytes)
    slabAt = 0
    this.#start = 0
  }

  #cut(): void {
    if (slabAt === this.#start) return
    this.#chunks.push(slab.subarray(this.#start, slabAt))
    this.#start = slabAt
  }

  header(type: number, flags: number, id: number, length: number): void {
    this.#need(headerBytes)
    encodeHeader(slab, slabAt, type, flags, id, length)
    slabAt += headerBytes
    this.size += headerBytes
  }

  chunk(bytes: Uint8Array): void {
    const { length } = bytes
    this.size += length
    if (length <= smallBytes) {
      this.#need(length)
      slab.set(bytes, slabAt)
      slabAt += length
      return
    }
    this.#cut()
    this.#chunks.push(bytes)
  }

  end(): Uint8Array[] {
    // Nearly always: an array of one costs a fifth of one that grows.
    if (this.#chunks.length === 0 && slabAt > this.#start) return [slab.subarray(this.#start, slabAt)]
    this.#cut()
    return this.#chunks
  }
}

/** Chunks up to this size are cheaper to copy beside their header than to carry as a chunk of their own. */
const smallBytes = 256
