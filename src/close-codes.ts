/*
 * Numbers that say on the wire why a stream or a connection ended, as go-libp2p 0.51 has them (core/network/mux.go and
 * conn.go; libp2p/specs #622, #623 are drafts with other numbers). The two lists are shifted by one: 0x1002 on a stream
 * is a resource limit, on a connection a rate limit. Applications choose theirs above 10,000.
 */
import { ClosedError, LimitError, ProtocolError, errorCode, type CloseInfo } from './errors.ts'

/** Codes that reset a stream. */
export const streamCode = {
  noError: 0,
  protocolNegotiationFailed: 0x1001,
  resourceLimitExceeded: 0x1002,
  rateLimited: 0x1003,
  protocolViolation: 0x1004,
  supplanted: 0x1005,
  garbageCollected: 0x1006,
  shutdown: 0x1007,
  gated: 0x1008,
  codeOutOfRange: 0x1009,
} as const

/** Codes that close a connection. */
export const connectionCode = {
  noError: 0,
  /** yamux §Go Away: what yamux itself says of a broken frame, and of a fault of its own. */
  yamuxProtocolError: 1,
  yamuxInternalError: 2,
  protocolNegotiationFailed: 0x1000,
  resourceLimitExceeded: 0x1001,
  rateLimited: 0x1002,
  protocolViolation: 0x1003,
  supplanted: 0x1004,
  garbageCollected: 0x1005,
  shutdown: 0x1006,
  gated: 0x1007,
  codeOutOfRange: 0x1008,
} as const

/** `resourceLimitExceeded` as `resource limit exceeded`. */
const words = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)

function texts(codes: Record<string, number>): ReadonlyMap<number, string> {
  return new Map(Object.entries(codes).map(([name, code]) => [code, words(name)]))
}

const streamTexts = texts(streamCode)
const connectionTexts = texts(connectionCode)

/** For a log line: `0x1002 resource limit exceeded`; a code that nobody has named is its number alone. */
export function codeText(of: 'stream' | 'connection', code: number): string {
  const text = (of === 'stream' ? streamTexts : connectionTexts).get(code)
  return text === undefined ? `0x${code.toString(16)}` : `0x${code.toString(16)} ${text}`
}

/** What a stream is told when its connection ends with `code`: the same reason in the other list. */
export function streamCodeOf(code: number): number {
  return code >= connectionCode.protocolNegotiationFailed && code <= connectionCode.codeOutOfRange ? code + 1 : code
}

/** The code of a connection that we end because of `reason`; 0 where there is none for it, as for a deadline. */
export function codeOfConnection(reason: Error | undefined): number {
  const negotiation = errorCode(reason) === 'bad-negotiation' || errorCode(reason) === 'no-protocol'
  if (negotiation) return connectionCode.protocolNegotiationFailed
  if (reason instanceof LimitError) return connectionCode.resourceLimitExceeded
  if (reason instanceof ProtocolError) return reason.wireCode
  if (reason instanceof ClosedError && reason.code === 'stopped') return connectionCode.shutdown
  return connectionCode.noError
}

/** The code of a stream that we reset because of `reason`. */
export function codeOfStream(reason: Error | undefined): number {
  return streamCodeOf(codeOfConnection(reason))
}

const sides = { local: 'by us', remote: 'by the remote', transport: 'by the transport' } as const

/** `stream reset by the remote: 0x1002 resource limit exceeded`, as the error that its readers and writers get. */
export function endError(of: 'stream' | 'connection', info: CloseInfo): ClosedError {
  const { by, code } = info
  const what = `${of} ${of === 'stream' ? 'reset' : 'closed'} ${sides[by]}`
  const text = code === 0 ? what : `${what}: ${codeText(of, code)}`
  return new ClosedError(text, info, of === 'stream' || code !== 0 ? 'reset' : 'closed')
}
