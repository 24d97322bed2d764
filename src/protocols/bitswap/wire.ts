/*
 * Bitswap 1.2.0, 1.1.0 and 1.0.0 messages (ipfs/specs bitswap-protocol.md), without their varint length prefix.
 * CIDs stay bytes here; wants are matched by the multihash alone, because peers answer a CIDv1 with a CIDv0 and the
 * other way round. Left out: 1.3 proposal (tokens).
 */
import { ProtocolError } from '../../errors.ts'
import { blockBytes, cidBytes, digestBytes } from '../../limits.ts'
import { bool, bytes, int32, limited, message, repeated, required } from '../../protobuf.ts'
import { readVarint, varintLength, writeVarint } from '../../varint.ts'

/** What the negotiated protocol can say: 1.2 has presences, 1.1 has prefixes, 1.0 has bare blocks. */
export type Version = '1.2' | '1.1' | '1.0'

/** Newest first, as they are offered. The bare id is the oldest form (boxo speaks 1.0 on it). */
export const protocolIds = [
  '/ipfs/bitswap/1.2.0',
  '/ipfs/bitswap/1.1.0',
  '/ipfs/bitswap/1.0.0',
  '/ipfs/bitswap',
] as const

export function versionOf(protocol: string): Version {
  if (protocol === '/ipfs/bitswap/1.2.0') return '1.2'
  return protocol === '/ipfs/bitswap/1.1.0' ? '1.1' : '1.0'
}

/**
 * Entries of one kind in one message. A 4 MiB frame of the smallest CIDs would unfold to fifty times its size in
 * objects; nobody sends a tenth of this (boxo splits messages at 2 MiB, its wantlist cap is 1,024).
 */
export const entriesPerMessage = 32_768

const cidField = limited(bytes, cidBytes)

const schema = message({
  wantlist: [
    1,
    message({
      entries: [
        1,
        repeated(
          message({
            block: [1, required(cidField)],
            priority: [2, int32],
            cancel: [3, bool],
            wantType: [4, int32],
            sendDontHave: [5, bool],
          }),
          entriesPerMessage,
        ),
      ],
      full: [2, bool],
    }),
  ],
  blocks: [2, repeated(limited(bytes, blockBytes), entriesPerMessage)],
  payload: [
    3,
    repeated(
      message({ prefix: [1, required(limited(bytes, 4 * 9))], data: [2, limited(bytes, blockBytes)] }),
      entriesPerMessage,
    ),
  ],
  blockPresences: [4, repeated(message({ cid: [1, required(cidField)], type: [2, int32] }), entriesPerMessage)],
  pendingBytes: [5, int32],
})

export type WantType = 'block' | 'have'

/** The parts of a binary CID. The arrays share memory with it. */
export interface CidParts {
  version: 0 | 1
  codec: number
  /** Multihash code: 0x12 is sha2-256. */
  hashCode: number
  digest: Uint8Array
  /** Code, length and digest: what a want is known by. */
  multihash: Uint8Array
}

export interface WantEntry {
  cid: Uint8Array
  /** keyOf(multihash). */
  key: string
  hashCode: number
  priority: number
  cancel: boolean
  type: WantType
  sendDontHave: boolean
}

/** A received block whose hash nobody has computed yet. */
export interface ReceivedBlock {
  hashCode: number
  digestLength: number
  /** Shares memory with the frame. */
  data: Uint8Array
}

export interface Presence {
  cid: Uint8Array
  key: string
  have: boolean
}

export interface BitswapMessage {
  /** The wantlist replaces the one before. */
  full: boolean
  wants: WantEntry[]
  blocks: ReceivedBlock[]
  presences: Presence[]
  /** What the peer has yet to send; 0 when it does not say. */
  pendingBytes: number
}

export interface OutgoingMessage {
  full?: boolean
  wants?: readonly Omit<WantEntry, 'key' | 'hashCode'>[]
  blocks?: readonly { cid: Uint8Array; data: Uint8Array }[]
  presences?: readonly { cid: Uint8Array; have: boolean }[]
  pendingBytes?: number
}

/** A Map key for a multihash: its bytes as Latin-1 text (a sixth of the time of hex text, one byte each in V8). */
export function keyOf(multihash: Uint8Array): string {
  return String.fromCharCode.apply(undefined, multihash as unknown as number[])
}

function part(bytes: Uint8Array, at: number, what: string): number {
  let value: number | undefined
  try {
    value = readVarint(bytes, at)
  } catch (cause) {
    throw new ProtocolError('bad-cid', `CID with a bad ${what}`, { cause })
  }
  if (value === undefined) throw new ProtocolError('bad-cid', `CID is cut short in its ${what}`)
  return value
}

/** Strict (ipfs/specs cid.md): minimal varints, no trailing bytes, v0 only as 34 bytes. Throws ProtocolError `bad-cid`. */
export function parseCid(bytes: Uint8Array): CidParts {
  if (bytes.length > cidBytes) throw new ProtocolError('bad-cid', `CID of ${bytes.length} bytes, at most ${cidBytes}`)
  let at = 0
  let codec = 0x70
  const v0 = bytes[0] === 0x12
  if (v0) {
    if (bytes.length !== 34 || bytes[1] !== 0x20)
      throw new ProtocolError('bad-cid', 'CIDv0 is not a sha2-256 of 32 bytes')
  } else {
    const version = part(bytes, at, 'version')
    if (version !== 1) throw new ProtocolError('bad-cid', `CID of version ${version}, want 0 or 1`)
    at += 1
    codec = part(bytes, at, 'codec')
    at += varintLength(codec)
  }
  const multihash = at === 0 ? bytes : bytes.subarray(at)
  const hashCode = part(bytes, at, 'hash code')
  at += varintLength(hashCode)
  const length = part(bytes, at, 'digest length')
  at += varintLength(length)
  if (length > digestBytes) throw new ProtocolError('bad-cid', `digest of ${length} bytes, at most ${digestBytes}`)
  if (bytes.length - at !== length) {
    throw new ProtocolError('bad-cid', `digest of ${length} bytes, but ${bytes.length - at} follow`)
  }
  return { version: v0 ? 0 : 1, codec, hashCode, digest: bytes.subarray(at), multihash }
}

/** The multihash of `code` and `digest`. */
export function multihashOf(code: number, digest: Uint8Array): Uint8Array {
  const out = new Uint8Array(varintLength(code) + varintLength(digest.length) + digest.length)
  out.set(digest, writeVarint(digest.length, out, writeVarint(code, out)))
  return out
}

/** Version, codec, hash code and digest length of a CID, as four varints: all that a 1.1 block says of itself. */
function prefixOf(cid: Uint8Array): Uint8Array {
  if (cid[0] === 0x12) return Uint8Array.of(0, 0x70, 0x12, 0x20)
  return cid.subarray(0, cid.length - parseCid(cid).digest.length)
}

function parsePrefix(bytes: Uint8Array): { hashCode: number; digestLength: number } {
  let at = 0
  const values: number[] = []
  for (const what of ['version', 'codec', 'hash code', 'digest length']) {
    const value = part(bytes, at, what)
    values.push(value)
    at += varintLength(value)
  }
  const [version = -1, , hashCode = -1, digestLength = -1] = values
  if (at !== bytes.length || version > 1 || digestLength > digestBytes) {
    throw new ProtocolError('bad-cid', `block prefix of version ${version} and a digest of ${digestLength} bytes`)
  }
  return { hashCode, digestLength }
}

/** Throws ProtocolError. Bytes share memory with `frame`. Any version's fields are read, whatever was negotiated. */
export function decodeMessage(frame: Uint8Array): BitswapMessage {
  const raw = schema.decode(frame)
  const wants = (raw.wantlist?.entries ?? []).map((e): WantEntry => {
    const { hashCode, multihash } = parseCid(e.block)
    return {
      cid: e.block,
      key: keyOf(multihash),
      hashCode,
      priority: e.priority ?? 0,
      cancel: e.cancel ?? false,
      type: e.wantType === 1 ? 'have' : 'block',
      sendDontHave: e.sendDontHave ?? false,
    }
  })
  const blocks: ReceivedBlock[] = []
  for (const data of raw.blocks) blocks.push({ hashCode: 0x12, digestLength: 32, data })
  for (const { prefix, data } of raw.payload) {
    blocks.push({ ...parsePrefix(prefix), data: data ?? frame.subarray(0, 0) })
  }
  const presences = raw.blockPresences.map(({ cid, type }): Presence => ({
    cid,
    key: keyOf(parseCid(cid).multihash),
    have: (type ?? 0) === 0,
  }))
  return { full: raw.wantlist?.full ?? false, wants, blocks, presences, pendingBytes: raw.pendingBytes ?? 0 }
}

/**
 * Chunks for one vectored write; blocks above 2 KiB are not copied. What `version` cannot say is left out: presences
 * below 1.2; below 1.1 also blocks that are not sha2-256.
 */
export function encodeMessage(m: OutgoingMessage, version: Version): Uint8Array[] {
  const blocks = m.blocks ?? []
  // Zero values are not written (proto3). The wantlist always is: boxo before 0.33 fell over a message without one.
  return schema.encodeChunks({
    wantlist: {
      entries: (m.wants ?? []).map((w) => ({
        block: w.cid,
        priority: w.priority === 0 ? undefined : w.priority,
        cancel: w.cancel ? true : undefined,
        wantType: version === '1.2' && w.type === 'have' ? 1 : undefined,
        sendDontHave: version === '1.2' && w.sendDontHave ? true : undefined,
      })),
      full: m.full === true ? true : undefined,
    },
    blocks: version === '1.0' ? blocks.filter((b) => parseCid(b.cid).hashCode === 0x12).map((b) => b.data) : [],
    payload: version === '1.0' ? [] : blocks.map((b) => ({ prefix: prefixOf(b.cid), data: b.data })),
    blockPresences:
      version === '1.2' ? (m.presences ?? []).map((p) => ({ cid: p.cid, type: p.have ? undefined : 1 })) : [],
    pendingBytes: version === '1.2' && (m.pendingBytes ?? 0) > 0 ? m.pendingBytes : undefined,
  })
}
