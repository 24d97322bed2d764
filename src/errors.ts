/*
 * Seven kinds of error, by who must act; `code` says which case, is part of the API and is what programs match on.
 * The two others are the language's own: TypeError and RangeError mean that our caller made a mistake.
 */

/** Every `code` an error of this package can carry. */
export type ErrorCode =
  // ProtocolError: the peer (or a file, or a record) breaks the spec
  | 'bad-varint'
  | 'bad-protobuf'
  | 'bad-utf8'
  | 'bad-multiaddr'
  | 'bad-peer-id'
  | 'bad-key'
  | 'bad-signature'
  | 'bad-cid'
  | 'bad-block'
  | 'bad-dag'
  | 'bad-car'
  | 'bad-selector'
  | 'bad-frame'
  | 'bad-message'
  | 'bad-handshake'
  | 'bad-negotiation'
  | 'decrypt-failed'
  | 'wrong-peer'
  | 'flow-control'
  | 'oversized'
  | 'truncated'
  // LimitError: we refuse
  | 'limit'
  // ClosedError
  | 'closed'
  | 'reset'
  | 'not-started'
  | 'stopped'
  // UnavailableError
  | 'no-protocol'
  | 'no-transport'
  | 'no-address'
  | 'not-found'
  | 'not-a-file'
  | 'not-a-directory'
  | 'unreachable'
  | 'refused'
  | 'unsupported'
  // StorageError
  | 'disk-full'
  | 'not-permitted'
  | 'corrupt'
  | 'exists'
  | 'io'
  // TimeoutError
  | 'timeout'

/** What both sides of a wire may say about an end: who ended it, with which code, and why. */
export interface CloseInfo {
  by: 'local' | 'remote' | 'transport'
  /** u32 on the wires that carry one; close-codes.ts names those that are not an application's own. 0: none. */
  code: number
  /** Always there when the peer or the transport cut something off; a clean end has none. */
  reason?: Error
}

class RhizaError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** The peer broke the spec. `wireCode` is the code that closes a connection because of it (close-codes.ts). */
export class ProtocolError extends RhizaError {
  override readonly name = 'ProtocolError'
  readonly wireCode: number

  constructor(code: ErrorCode, message: string, options?: ErrorOptions & { wireCode?: number }) {
    super(code, message, options)
    this.wireCode = options?.wireCode ?? 0x1003
  }
}

/** We refuse: `limit` is the option's name, `max` its value, `current` what was asked for or reached. */
export class LimitError extends RhizaError {
  override readonly name = 'LimitError'
  readonly limit: string
  readonly max: number
  readonly current: number

  constructor(limit: string, max: number, current: number, message?: string) {
    super('limit', message ?? `${limit} is ${max}, got ${current}; raise the option ${limit} to allow more`)
    this.limit = limit
    this.max = max
    this.current = current
  }
}

/** The stream, connection or node is closed; `info` says by whom and why. */
export class ClosedError extends RhizaError {
  override readonly name = 'ClosedError'
  readonly info: CloseInfo

  constructor(message: string, info: CloseInfo, code: ErrorCode = info.code === 0 ? 'closed' : 'reset') {
    super(code, info.reason === undefined ? message : `${message}: ${info.reason.message}`, { cause: info.reason })
    this.info = info
  }
}

/** One thing that was tried and why it did not do: an address, a protocol id, a peer. */
export interface Attempt {
  what: string
  reason: Error | string
}

/** Nobody has it, no address works, no common protocol. `tried` lists what was tried. */
export class UnavailableError extends RhizaError {
  override readonly name = 'UnavailableError'
  readonly tried: readonly Attempt[]

  constructor(code: ErrorCode, message: string, tried: readonly Attempt[] = []) {
    const list = tried.map((t) => `${t.what}: ${typeof t.reason === 'string' ? t.reason : t.reason.message}`)
    const [only = ''] = list
    // `cannot reach A` and then `A: refused` would name it twice.
    const said = tried.length === 1 && message.endsWith(` ${tried[0]?.what}`)
    const why = said ? only.slice(tried[0]?.what.length) : ` (${list.join('; ')})`
    super(code, list.length === 0 ? message : `${message}${why}`)
    this.tried = tried
  }
}

/** The disk is full, not writable, or holds something that is not what it should be. `path` says where. */
export class StorageError extends RhizaError {
  override readonly name = 'StorageError'
  readonly path: string

  constructor(code: ErrorCode, path: string, message: string, options?: ErrorOptions) {
    super(code, `${message}: ${path}`, options)
    this.path = path
  }
}

/** A deadline passed. */
export class TimeoutError extends RhizaError {
  override readonly name = 'TimeoutError'
  readonly timeoutMs: number

  constructor(what: string, timeoutMs: number) {
    super('timeout', `${what} took longer than ${timeoutMs} ms`)
    this.timeoutMs = timeoutMs
  }
}

/** Whatever was thrown, as an Error: others may throw anything. */
export function asError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown
  // Objects without a prototype have no text.
  const text = typeof thrown === 'object' && thrown !== null ? Object.prototype.toString.call(thrown) : String(thrown)
  return new Error(text, { cause: thrown })
}

/** The `code` of an error of ours, or undefined for anything else. */
export function errorCode(error: unknown): ErrorCode | undefined {
  return error instanceof RhizaError ? error.code : undefined
}
