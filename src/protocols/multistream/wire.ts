/* multistream-select 1.0 (libp2p connections/README.md): tokens are varint(length) text '\n'. Left out: `ls`, simopen, v2. */
import { concat, fromUtf8, toUtf8 } from '../../bytes.ts'
import { ProtocolError } from '../../errors.ts'
import { protocolIdBytes } from '../../limits.ts'
import { encodeVarint, readVarint, varintLength } from '../../varint.ts'

export const header = '/multistream/1.0.0'
export const na = 'na'

export function encodeToken(token: string): Uint8Array {
  const text = fromUtf8(`${token}\n`)
  if (text.length > protocolIdBytes)
    throw new RangeError(`protocol id of ${text.length - 1} bytes, at most ${protocolIdBytes - 1} allowed`)
  return concat([encodeVarint(text.length), text])
}

export function encodeTokens(...tokens: string[]): Uint8Array {
  return concat(tokens.map(encodeToken))
}

export interface Agreement {
  readonly protocol: string
  /** Header and protocol. Shared: nobody writes into it. */
  readonly bytes: Uint8Array
}

/** Protocols are few and repeat, but an application may make them up. */
const maxAgreements = 256
const agreements = new Map<string, Agreement>()
/** The same by the byte that follows the header. */
const agreementsBy: Agreement[][] = []
const headerBytes = encodeToken(header).length

/** What opens a dialer's side with one proposal, and byte for byte what a listener answers that takes it. */
export function agreement(protocol: string): Agreement {
  let known = agreements.get(protocol)
  if (known === undefined) {
    const bytes = encodeTokens(header, protocol)
    known = { protocol, bytes }
    if (agreements.size < maxAgreements) {
      agreements.set(protocol, known)
      ;(agreementsBy[bytes[headerBytes] as number] ??= []).push(known)
    }
  }
  return known
}

/** The agreement that `chunk` begins with, if it is one that agreement() has made: no tokens need to be read then. */
export function agreementIn(chunk: Uint8Array): Agreement | undefined {
  const first = chunk[headerBytes]
  const candidates = first === undefined ? undefined : agreementsBy[first]
  return candidates?.find(({ bytes }) => startsWith(chunk, bytes))
}

/** Ids differ at their ends. */
function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  if (bytes.length < start.length) return false
  for (let i = start.length - 1; i >= 0; i--) if (bytes[i] !== start[i]) return false
  return true
}

/** Takes bytes as they come, gives tokens; never touches the bytes behind the last token that was asked for. */
export class TokenReader {
  #bytes: Uint8Array | undefined

  push(chunk: Uint8Array): void {
    this.#bytes = this.#bytes === undefined ? chunk : concat([this.#bytes, chunk])
  }

  /** The next token without its newline; undefined: more bytes are needed. Throws ProtocolError above `max` bytes. */
  next(max = protocolIdBytes): string | undefined {
    const bytes = this.#bytes
    if (bytes === undefined) return undefined
    const size = readVarint(bytes)
    if (size === undefined) return undefined
    if (size > max) {
      throw new ProtocolError('oversized', `multistream token of ${size} bytes, at most ${max} allowed`)
    }
    const start = varintLength(size)
    const end = start + size
    if (bytes.length < end) return undefined
    // The length counts the newline.
    if (size === 0 || bytes[end - 1] !== 0x0a)
      throw new ProtocolError('bad-negotiation', 'multistream token does not end in a newline')
    this.#bytes = end < bytes.length ? bytes.subarray(end) : undefined
    return toUtf8(bytes.subarray(start, end - 1))
  }

  /** What follows the last token: it belongs to the next layer. */
  rest(): Uint8Array | undefined {
    const rest = this.#bytes
    this.#bytes = undefined
    return rest
  }
}
