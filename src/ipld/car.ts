/*
 * CAR, content addressed archives (ipld specs/transport/car): v1 (final) is written and read, v2 (draft) is read, both as
 * streams. Of a v2 its index and characteristics are left out: a stream is read in its order anyway.
 * A header without roots is read, and so is one whose roots are not among the blocks. A section of length 0 is an error
 * unless `zeroLengthEnds`, as in go-car: padded CARs end there.
 */
import { allocUnsafe, concat, empty } from '../bytes.ts'
import { raceAbort } from '../deadline.ts'
import { asError, errorCode, ProtocolError, UnavailableError } from '../errors.ts'
import { blockBytes, cidBytes, gatherBytes } from '../limits.ts'
import type { BlockPair } from '../store/blocks.ts'
import { varintLength, writeVarint } from '../varint.ts'
import { decodeCbor, encodeCbor } from './cbor.ts'
import { decodeCidFirst, verifyBlock, type CID } from './cid.ts'
import { isLink, isMap, type IpldNode } from './model.ts'

export interface ReadCarOptions {
  /** Bytes of a header. Default 1 MiB, some 25,000 roots. */
  maxHeaderBytes?: number
  /** Bytes of a block. Default 2 MiB. */
  maxBlockBytes?: number
  /** Whether each block must hash to its CID. Default true; false for what is checked elsewhere. */
  verify?: boolean
  /** A section of length 0 ends the CAR, whatever follows. Default false: it is an error. */
  zeroLengthEnds?: boolean
  signal?: AbortSignal
}

const defaults = {
  maxHeaderBytes: 1024 * 1024,
  maxBlockBytes: blockBytes,
  verify: true,
  zeroLengthEnds: false,
} as const

export interface Car {
  readonly version: 1 | 2
  readonly roots: readonly CID[]
  /** In the order of the file; to be drawn once. The bytes own their memory. Ends the source when it ends. */
  readonly blocks: AsyncIterable<BlockPair>
}

/** Any stream of bytes; chunks as they come. */
export type CarSource = AsyncIterable<Uint8Array> | Iterable<Uint8Array>

/** The whole CARv2 pragma is a CARv1 header: a length of 10 and {"version":2}. */
const pragmaBytes = 11
const v2HeaderBytes = 40

function bad(message: string, cause?: unknown): ProtocolError {
  return new ProtocolError('bad-car', `CAR: ${message}`, cause === undefined ? {} : { cause })
}

/** Takes pieces of any size off the chunks. */
class Pieces {
  readonly #iterator: AsyncIterator<Uint8Array> | Iterator<Uint8Array>
  readonly #signal: AbortSignal | undefined
  #chunk: Uint8Array = empty
  #at = 0
  #over = false
  /** Bytes taken so far. */
  offset = 0
  /** Where the part ends that may be taken; a v2 has more behind it. */
  end = Infinity

  constructor(source: CarSource, signal: AbortSignal | undefined) {
    this.#iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
    this.#signal = signal
  }

  /** Whether there is another byte. */
  async more(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      if (this.#over || this.offset >= this.end) return false
      const next = await raceAbort(Promise.resolve(this.#iterator.next()), this.#signal)
      if (next.done === true) this.#over = true
      else {
        this.#chunk = next.value
        this.#at = 0
      }
    }
    return this.offset < this.end
  }

  /** The bytes that are there, `most` at most; not copied. */
  async #some(most: number, where: string): Promise<Uint8Array> {
    if (!(await this.more())) {
      if (this.offset >= this.end) throw bad(`${where} goes beyond the end of the data that the header tells`)
      throw new ProtocolError('truncated', `CAR: it ends after ${this.offset} bytes, in ${where}`)
    }
    const part = this.#chunk.subarray(this.#at, this.#at + Math.min(most, this.end - this.offset))
    this.#at += part.length
    this.offset += part.length
    return part
  }

  /** `size` bytes, copied once; the caller has checked how many that may be. */
  async take(size: number, where: string): Promise<Uint8Array> {
    const out = allocUnsafe(size)
    for (let at = 0; at < size;) {
      const part = await this.#some(size - at, where)
      out.set(part, at)
      at += part.length
    }
    return out
  }

  async skip(size: number, where: string): Promise<void> {
    for (let left = size; left > 0;) left -= (await this.#some(left, where)).length
  }

  /** A minimal varint. */
  async varint(where: string): Promise<number> {
    let value = 0
    let scale = 1
    for (let i = 0; i < 8; i++, scale *= 128) {
      const byte = (await this.#some(1, where))[0] as number
      value += (byte & 127) * scale
      if (byte >= 128) continue
      if ((byte === 0 && i > 0) || value > Number.MAX_SAFE_INTEGER) break
      return value
    }
    throw bad(`${where} has a length that is no varint`)
  }

  /** Tells the source that no more is wanted; it need not be there to hear it. */
  async close(): Promise<void> {
    if (this.#over) return
    this.#over = true
    const ended = this.#iterator.return?.()
    // One that hangs in a read would not answer before it.
    if (this.#signal?.aborted !== true) await ended
    else if (ended instanceof Promise) ended.catch(() => {})
  }
}

interface Header {
  version: number
  roots: readonly CID[]
}

async function readHeader(pieces: Pieces, maxBytes: number): Promise<Header> {
  const where = 'the header'
  const size = await pieces.varint(where)
  if (size > maxBytes) throw new ProtocolError('oversized', `CAR: header of ${size} bytes, at most ${maxBytes} allowed`)
  const bytes = await pieces.take(size, where)
  let node: IpldNode
  try {
    node = decodeCbor(bytes, { maxBytes })
  } catch (cause) {
    throw bad(`the header is no dag-cbor: ${asError(cause).message}`, cause)
  }
  if (!isMap(node)) throw bad('the header is no map')
  const other = Object.keys(node).find((key) => key !== 'version' && key !== 'roots')
  if (other !== undefined) throw bad(`the header has a field ${JSON.stringify(other.slice(0, 80))}`)
  const { version } = node
  if (typeof version !== 'number') throw bad('the header has no version')
  // go writes null for no roots.
  const roots = node['roots'] ?? []
  if (!Array.isArray(roots) || !roots.every(isLink)) throw bad('the roots of the header are no list of CIDs')
  return { version, roots }
}

/** Skips to the CARv1 inside and lets no more be read than that. */
async function enterV2(pieces: Pieces): Promise<void> {
  if (pieces.offset !== pragmaBytes) throw bad('it says version 2, but does not begin with the pragma of CARv2')
  const where = 'the header of CARv2'
  const header = await pieces.take(v2HeaderBytes, where)
  const view = new DataView(header.buffer, header.byteOffset)
  const [start, size] = [view.getBigUint64(16, true), view.getBigUint64(24, true)]
  if (start < BigInt(pragmaBytes + v2HeaderBytes) || size === 0n || start + size > BigInt(Number.MAX_SAFE_INTEGER))
    throw bad(`${where} tells of ${size} bytes of data at ${start}`)
  await pieces.skip(Number(start) - pieces.offset, 'the padding before the data')
  pieces.end = Number(start + size)
}

async function* readBlocks(
  pieces: Pieces,
  options: Required<Omit<ReadCarOptions, 'signal'>>,
): AsyncGenerator<BlockPair, void, undefined> {
  const { maxBlockBytes, verify, zeroLengthEnds } = options
  try {
    for (let i = 1; await pieces.more(); i++) {
      const where = `section ${i} at byte ${pieces.offset}`
      const size = await pieces.varint(where)
      if (size === 0) {
        if (zeroLengthEnds) return
        throw bad(`${where} has length 0`)
      }
      if (size > maxBlockBytes + cidBytes) throw tooLarge(where, size, maxBlockBytes + cidBytes)
      const section = await pieces.take(size, where)
      yield readSection(section, where, maxBlockBytes, verify)
    }
    // A v1 may end behind any section, a v2 has told where.
    if (pieces.end !== Infinity && pieces.offset < pieces.end)
      throw new ProtocolError(
        'truncated',
        `CAR: it ends after ${pieces.offset} bytes, its data should at ${pieces.end}`,
      )
  } finally {
    await pieces.close()
  }
}

function tooLarge(where: string, size: number, max: number): ProtocolError {
  return new ProtocolError('oversized', `CAR: ${where} has ${size} bytes, at most ${max} allowed`)
}

function readSection(section: Uint8Array, where: string, maxBlockBytes: number, verify: boolean): BlockPair {
  let cid: CID
  let bytes: Uint8Array
  try {
    ;[cid, bytes] = decodeCidFirst(section)
  } catch (cause) {
    throw bad(`${where}: ${asError(cause).message}`, cause)
  }
  if (bytes.length > maxBlockBytes) throw tooLarge(where, bytes.length, maxBlockBytes)
  if (verify) {
    try {
      verifyBlock(cid, bytes)
    } catch (cause) {
      const { message } = asError(cause)
      if (errorCode(cause) === 'unsupported') throw new UnavailableError('unsupported', `CAR: ${where}: ${message}`)
      throw new ProtocolError('bad-block', `CAR: ${where}: ${message}`, { cause })
    }
  }
  return { cid, bytes }
}

/**
 * Resolves once the header is read. Rejects, or the blocks do, with ProtocolError that names the section: `bad-car` for
 * what is no CAR, `truncated` where it ends too early, `oversized` above a limit, `bad-block` for a block that does not
 * hash to its CID; with UnavailableError `unsupported` for one whose hash function we do not have (see registerHasher);
 * with signal.reason. Who does not draw the blocks ends the source on his own.
 */
export async function readCar(source: CarSource, options: ReadCarOptions = {}): Promise<Car> {
  const { signal, ...given } = options
  const settings = { ...defaults, ...given }
  for (const name of ['maxHeaderBytes', 'maxBlockBytes'] as const) {
    if (!(settings[name] > 0)) throw new RangeError(`${name} is ${settings[name]}, want a number above 0`)
  }
  const pieces = new Pieces(source, signal)
  try {
    let header = await readHeader(pieces, settings.maxHeaderBytes)
    const { version } = header
    if (version !== 1 && version !== 2) throw bad(`version ${version}, want 1 or 2`)
    if (version === 2) {
      await enterV2(pieces)
      header = await readHeader(pieces, settings.maxHeaderBytes)
      if (header.version !== 1) throw bad(`the data has version ${header.version}, want 1`)
    }
    return { version, roots: header.roots, blocks: readBlocks(pieces, settings) }
  } catch (error) {
    await pieces.close()
    throw error
  }
}

/** The prefix of a section (or of the header, without a CID). */
function prefix(size: number, cid: Uint8Array = empty): Uint8Array {
  const total = size + cid.length
  const out = new Uint8Array(varintLength(total) + cid.length)
  out.set(cid, writeVarint(total, out))
  return out
}

/**
 * A CARv1: the header, then a section for each block, in the given order. Blocks are taken as they are, unchecked and not
 * copied unless they are small.
 */
export async function* writeCar(
  roots: readonly CID[],
  blocks: Iterable<BlockPair> | AsyncIterable<BlockPair>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const header = encodeCbor({ roots, version: 1 })
  yield concat([prefix(header.length), header])
  for await (const { cid, bytes } of blocks) {
    const before = prefix(bytes.length, cid.bytes)
    if (bytes.length <= gatherBytes) yield concat([before, bytes])
    else {
      yield before
      yield bytes
    }
  }
}
