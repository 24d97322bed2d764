/*
 * fetch 0.0.1 messages (libp2p fetch/README.md r1). The spec declares the identifier as a string; go-libp2p and
 * js-libp2p put any bytes in it (IPNS routing keys are binary), and so do we. ERROR is theirs, too.
 */
import { bytes, int32, limited, message, type Decoded } from '../../protobuf.ts'

export const fetchId = '/libp2p/fetch/0.0.1'

/** Bytes of a key; the keys in use have less than 100. */
export const maxIdentifierBytes = 4 * 1024
/** Bytes of a message around its one long field. */
const overheadBytes = 32
export const maxRequestBytes = maxIdentifierBytes + overheadBytes
/** Bytes of a response unless told: what go-libp2p reads. */
export const defaultMaxResponseBytes = 1024 * 1024
/** Bytes of a value that fits into a response of `responseBytes`. */
export const maxValueBytes = (responseBytes: number): number => responseBytes - overheadBytes

export const statusCode = { ok: 0, notFound: 1, error: 2 } as const

export const FetchRequest = message({ identifier: [1, limited(bytes, maxIdentifierBytes)] })
/** An absent status is 0, an absent value is empty (proto3). */
export const FetchResponse = message({ status: [1, int32], data: [2, bytes] })
export type FetchResponse = Decoded<typeof FetchResponse>
