/* What a yamux session may be told. Each option with its unit and where its default comes from. */
import { initialWindowBytes, maxU32 } from './frame.ts'

export interface SessionOptions {
  /** Bytes one stream may have unread at most, when it is read fast over a long way; 256 KiB (the spec's) to 2^32-1. */
  maxStreamWindowBytes?: number
  /** Bytes: the windows of all streams together grow only up to this (the spec's 256 KiB each are always given). */
  receiveBudgetBytes?: number
  /** Bytes that wait unread on all streams together; whichever stream would pass it is reset. */
  maxUnreadBytes?: number
  /** Bytes of body in a frame of ours, so that a bulk stream does not hold up the others. */
  maxFrameBytes?: number
  /** Bytes a stream may have queued before its writers wait. */
  sendQueueBytes?: number
  /** Bytes all streams may have queued before writers wait; each stream keeps a sixteenth of sendQueueBytes. */
  maxQueuedBytes?: number
  /** Streams of the peer that nobody accepted yet; one more is reset. */
  acceptBacklog?: number
  /** Streams of ours that the peer has not acknowledged; opening one more waits. */
  ackBacklog?: number
  /** Streams of the peer at the same time; one more is reset. */
  maxInboundStreams?: number
  /** Streams that the peer may open for nothing at once: reset, or ended without a byte. One more ends the connection. */
  abandonedStreams?: number
  /** So many more a second. */
  abandonedStreamsPerSecond?: number
  /** Milliseconds between pings; Infinity: none but the first. */
  keepAliveMs?: number
  /** Milliseconds without a sign of life after a ping. */
  keepAliveTimeoutMs?: number
  /** Milliseconds that close() gives to what is written. */
  closeTimeoutMs?: number
}

const KiB = 1024

export const sessionDefaults = {
  maxStreamWindowBytes: 16 * 1024 * KiB, // go-libp2p
  receiveBudgetBytes: 32 * 1024 * KiB, // the first stream may have half of it, the second half of the rest, and so on
  maxUnreadBytes: 64 * 1024 * KiB,
  maxFrameBytes: 64 * KiB, // go-yamux MaxMessageSize
  sendQueueBytes: 256 * KiB,
  maxQueuedBytes: 4 * 1024 * KiB,
  acceptBacklog: 256, // §ACK backlog; go-yamux AcceptBacklog
  ackBacklog: 256, // §ACK backlog
  maxInboundStreams: 1024, // go-yamux has 1000
  abandonedStreams: 1_000,
  abandonedStreamsPerSecond: 100,
  keepAliveMs: 30_000, // go-yamux KeepAliveInterval
  keepAliveTimeoutMs: 10_000, // go-yamux ConnectionWriteTimeout
  closeTimeoutMs: 5_000,
} as const satisfies Required<SessionOptions>

// What no option changes.
/** Pings of the peer that wait for a reply; go-yamux PingBacklog. */
export const maxPongs = 32
/** Resets of streams we refused that wait to leave. */
export const maxRefusals = 1024
/** What a stream that the peer resets counts for among those that are abandoned when it brought some bytes: it may have been of use. */
export const heardStreamCost = 1 / 20
/** Bytes a stream's reader must have taken before its window grows: small talk keeps the small window. */
export const growAfterBytes = 64 * KiB
/** Bytes of window that every bulk stream gets. Measured: 256 KiB cost a quarter on loopback, 4 MiB gain nothing there. */
export const bulkWindowBytes = 1024 * KiB
/** Milliseconds of round trip from which windows grow further: below, 1 MiB lets 500 MB/s through. */
export const farMs = 2
/** Bytes of one transmit at most, whatever room the wire claims. */
export const maxTransmitBytes = 1024 * KiB

/** The options with their defaults; throws RangeError on those that make no sense. */
export function sessionOptions(options: SessionOptions): Required<SessionOptions> {
  const all: Required<SessionOptions> = { ...sessionDefaults, ...options }
  for (const [name, value] of Object.entries(all)) {
    if (typeof value !== 'number' || !(value > 0)) throw new RangeError(`${name} must be above 0, got ${value}`)
  }
  const { maxStreamWindowBytes, maxFrameBytes } = all
  if (maxStreamWindowBytes < initialWindowBytes || maxStreamWindowBytes > maxU32)
    throw new RangeError(`maxStreamWindowBytes must be 262144 to 2^32-1, got ${maxStreamWindowBytes}`)
  if (maxFrameBytes > maxU32) throw new RangeError(`maxFrameBytes must be at most 2^32-1, got ${maxFrameBytes}`)
  return all
}
