/*
 * libp2p noise (3A r5) §Wire Format: after the handshake each record is a length (u16, big-endian) and that many bytes
 * of ciphertext with its tag. A sans-IO pair: seal() and open() know neither streams nor time.
 */
import { allocUnsafe, empty } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { release } from '../../release.ts'
import { maxMessageBytes } from './handshake.ts'
import type { CipherState } from './symmetric.ts'

const tagBytes = 16
const headBytes = 2
/** Plaintext of a full record: smaller records cost throughput (32 KiB: 0.88x, 16 KiB: 0.74x). */
export const recordBytes = maxMessageBytes - tagBytes
/** Records of at most this many bytes leave as one piece of memory; larger ones as the pieces the cipher made. */
const onePieceBytes = 8192

/** Small records are cut from here, none twice: each with memory of its own would be dearer to make and to collect. */
const slabBytes = 16 * 1024
const smallBytes = 512
let slab = new Uint8Array(0)
let slabAt = 0

function cut(size: number): Uint8Array {
  if (size > smallBytes) return allocUnsafe(size)
  if (slabAt + size > slab.length) {
    slab = new Uint8Array(slabBytes)
    slabAt = 0
  }
  slabAt += size
  return slab.subarray(slabAt - size, slabAt)
}

export class NoiseRecords {
  readonly #send: CipherState
  readonly #receive: CipherState
  /** The first byte of a length whose second has not come; -1: none. */
  #high = -1
  /** The record that is being put together, and how much of it is there. */
  #partial: Uint8Array | undefined
  #filled = 0
  #failed: ProtocolError | undefined

  constructor({ send, receive }: { send: CipherState; receive: CipherState }) {
    this.#send = send
    this.#receive = receive
  }

  /** Has a record begun that is not complete? An end of the stream then is a truncation. */
  get midRecord(): boolean {
    return this.#high >= 0 || this.#partial !== undefined
  }

  /**
   * Opens every record that `bytes` completes and pushes the plaintexts, fresh memory and never empty, onto `out`.
   * Throws ProtocolError `decrypt-failed` or `bad-frame`; `out` then holds the good records before the bad one, and
   * every later call throws the same. What it keeps of `bytes` it copies.
   */
  open(bytes: Uint8Array, out: Uint8Array[]): void {
    if (this.#failed !== undefined) throw this.#failed
    let at = 0
    while (at < bytes.length) {
      let record = this.#partial
      if (record === undefined) {
        const high = this.#high >= 0 ? this.#high : (bytes[at++] as number)
        const low = bytes[at]
        if (low === undefined) {
          this.#high = high
          return
        }
        at++
        this.#high = -1
        const size = high * 256 + low
        if (size < tagBytes) this.#fail(new ProtocolError('bad-frame', `record of ${size} bytes, want at least 16`))
        if (size <= bytes.length - at) {
          // Wholly inside what came: no copy.
          this.#deliver(bytes.subarray(at, at + size), out)
          at += size
          continue
        }
        record = allocUnsafe(size)
        this.#partial = record
        this.#filled = 0
      }
      const take = Math.min(record.length - this.#filled, bytes.length - at)
      record.set(bytes.subarray(at, at + take), this.#filled)
      this.#filled += take
      at += take
      if (this.#filled < record.length) return
      this.#partial = undefined
      this.#deliver(record, out)
      release(record)
    }
  }

  #fail(error: ProtocolError): never {
    this.#failed = error
    this.#partial = undefined
    throw error
  }

  #deliver(record: Uint8Array, out: Uint8Array[]): void {
    try {
      const plaintext = this.#receive.open(empty, record)
      if (plaintext.length > 0) out.push(plaintext)
    } catch (error) {
      if (error instanceof ProtocolError) this.#fail(error)
      throw error
    }
  }

  /** Seals `total` bytes in `chunks` as full records and one rest; pushes what is to be sent onto `out`. */
  seal(chunks: readonly Uint8Array[], total: number, out: Uint8Array[]): void {
    if (total <= recordBytes) {
      this.#sealRecord(chunks, total, out)
      return
    }
    let left = total
    let parts: Uint8Array[] = []
    let room = recordBytes
    for (const chunk of chunks) {
      for (let at = 0; at < chunk.length;) {
        const part = at === 0 && chunk.length <= room ? chunk : chunk.subarray(at, at + room)
        parts.push(part)
        at += part.length
        room -= part.length
        left -= part.length
        if (room > 0 && left > 0) continue
        this.#sealRecord(parts, recordBytes - room, out)
        parts = []
        room = recordBytes
      }
    }
  }

  #sealRecord(chunks: readonly Uint8Array[], total: number, out: Uint8Array[]): void {
    if (total === 0) return
    const size = total + tagBytes
    const head = total <= onePieceBytes ? cut(headBytes + size) : new Uint8Array(headBytes)
    head[0] = size >> 8
    head[1] = size
    out.push(head)
    if (total <= onePieceBytes) this.#send.seal(empty, chunks, total, head, headBytes)
    else this.#send.sealChunks(empty, chunks, total, out)
  }
}
