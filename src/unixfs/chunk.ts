/*
 * Fixed-size chunks of whatever gives bytes. A chunk that lies in one piece of the input is a view of it, any other chunk is
 * copied once. At most one chunk and one piece of input are held.
 */
import { allocUnsafe, concat } from '../bytes.ts'

/**
 * Where the bytes of a file come from. The pieces belong to the reader from then on: whoever gives them leaves them alone.
 */
export type ByteSource =
  Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | Blob

/** Pieces of one chunk that are gathered by reference; a source of crumbs is copied as it comes. */
const gatheredPieces = 256
/** A view this small must not pin an input buffer that is larger than four times of it. */
const pinnedBytes = 65_536

async function* fromReader(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader()
  let done = false
  try {
    for (;;) {
      const next = await reader.read()
      if (next.done) break
      yield next.value
    }
    done = true
  } finally {
    if (!done) await reader.cancel()
    reader.releaseLock()
  }
}

function piecesOf(source: ByteSource): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (source instanceof Uint8Array) return [source]
  if (typeof Blob !== 'undefined' && source instanceof Blob) return piecesOf(source.stream())
  if (typeof source === 'object' && source !== null) {
    if (Symbol.asyncIterator in source) return source
    if (Symbol.iterator in source) return source
    if ('getReader' in source) return fromReader(source as unknown as ReadableStream<Uint8Array>)
  }
  throw new TypeError('content must be a Uint8Array, a Blob, a stream or an iterable of Uint8Array')
}

function plain(piece: unknown): Uint8Array {
  if (!(piece instanceof Uint8Array)) throw new TypeError(`content gave a ${typeof piece}, want Uint8Array`)
  // Buffer overrides slice() and the like.
  return piece.constructor === Uint8Array ? piece : new Uint8Array(piece.buffer, piece.byteOffset, piece.length)
}

/** One chunk in the making. */
class Gatherer {
  readonly #size: number
  #pieces: Uint8Array[] = []
  #buffer: Uint8Array | undefined
  length = 0

  constructor(size: number) {
    this.#size = size
  }

  /** Never more than what is missing. */
  add(piece: Uint8Array): void {
    if (this.#buffer === undefined && this.#pieces.length < gatheredPieces) {
      this.#pieces.push(piece)
    } else {
      if (this.#buffer === undefined) {
        this.#buffer = allocUnsafe(this.#size)
        let at = 0
        for (const held of this.#pieces) {
          this.#buffer.set(held, at)
          at += held.length
        }
        this.#pieces = []
      }
      this.#buffer.set(piece, this.length)
    }
    this.length += piece.length
  }

  take(): Uint8Array {
    const { length } = this
    let chunk: Uint8Array
    if (this.#buffer === undefined) {
      chunk = concat(this.#pieces, length)
      if (length < pinnedBytes && chunk.buffer.byteLength > 4 * length) chunk = chunk.slice()
    } else {
      chunk = length * 2 < this.#size ? this.#buffer.slice(0, length) : this.#buffer.subarray(0, length)
    }
    this.#pieces = []
    this.#buffer = undefined
    this.length = 0
    return chunk
  }
}

/**
 * Chunks of `size` bytes, the last one 1 to `size`; an empty source gives none.
 * Rejects with what the source throws, and with TypeError when it gives something else than Uint8Array.
 */
export async function* chunk(source: ByteSource, size: number): AsyncGenerator<Uint8Array> {
  if (!Number.isSafeInteger(size) || size < 1) throw new RangeError(`chunk size ${size}: want a whole number above 0`)
  const gatherer = new Gatherer(size)
  for await (const given of piecesOf(source)) {
    let piece = plain(given)
    while (piece.length > 0) {
      const missing = size - gatherer.length
      gatherer.add(piece.length <= missing ? piece : piece.subarray(0, missing))
      piece = piece.length <= missing ? piece.subarray(piece.length) : piece.subarray(missing)
      if (gatherer.length === size) yield gatherer.take()
    }
  }
  if (gatherer.length > 0) yield gatherer.take()
}
