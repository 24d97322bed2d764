/*
 * UnixFS v1 and 1.5 (ipfs/specs src/unixfs.md, draft 2026-03): the Data message inside a dag-pb node, and what a node must
 * satisfy before anybody acts on it. Metadata nodes (type 3) are reserved and refused.
 */
import { concat, toUtf8 } from '../bytes.ts'
import { asError, ProtocolError, UnavailableError } from '../errors.ts'
import { type CID, codec } from '../ipld/cid.ts'
import { decodeNode, encodeNode, type PBLink } from '../ipld/dag-pb.ts'
import { bytes, type Decoded, fixed32, int32, int64, message, repeated, required, uint32, uint53 } from '../protobuf.ts'
import { encodeVarint } from '../varint.ts'

/** Data.DataType (unixfs.md). Erratum 7: the enum rules, not the numbers in the prose. */
export const dataType = { raw: 0, directory: 1, file: 2, metadata: 3, symlink: 4, hamtShard: 5 } as const

/** Multihash code of murmur3-x64-64, the only hash of sharded directories. */
export const murmur3 = 0x22

/** Links of one node that we read: a 2 MiB block has room for 55,000 with SHA-256. */
const nodeLinks = 65_536

const UnixTime = message({ seconds: [1, required(int64)], nanos: [2, fixed32] })
/** The wire form. blocksizes are written unpacked, read packed or not. */
export const Data = message({
  type: [1, required(int32)],
  data: [2, bytes],
  filesize: [3, uint53],
  blocksizes: [4, repeated(uint53, nodeLinks)],
  hashType: [5, uint53],
  fanout: [6, uint53],
  mode: [7, uint32],
  mtime: [8, UnixTime],
})

export interface Metadata {
  /** POSIX mode as stored, all 32 bits; only the low 12 (07777) have a meaning. */
  mode?: number
  /** Modification time: seconds since 1970, nanoseconds 0 to 999,999,999. */
  mtime?: { seconds: bigint; nanos: number }
}

export interface FileNode extends Metadata {
  type: 'file'
  cid: CID
  /** Bytes of the file that lie in this block, before those of the links. Shares memory with the block. */
  data: Uint8Array
  /** What follows, in order, each with the bytes of file it stands for. */
  links: { cid: CID; size: number }[]
  /** Bytes of the file: data and links together. */
  size: number
  /** Bytes of the blocks below and of this one, as the links claim: a hint. */
  dagSize: number
}

export interface DirectoryNode extends Metadata {
  type: 'directory'
  cid: CID
  links: PBLink[]
  /** Buckets of a shard of a HAMT directory: a power of two, 8 to 1024. Undefined for a plain directory. */
  fanout: number | undefined
  dagSize: number
}

export interface SymlinkNode extends Metadata {
  type: 'symlink'
  cid: CID
  target: string
  dagSize: number
}

export type UnixFSNode = FileNode | DirectoryNode | SymlinkNode

export function badDag(cid: CID, message: string, options?: ErrorOptions): ProtocolError {
  return new ProtocolError('bad-dag', `${cid}: ${message}`, options)
}

/** A leaf of the old profiles: dag-pb around the bytes, in one copy. */
export function encodeLeaf(content: Uint8Array): Uint8Array {
  const size = encodeVarint(content.length)
  const before = content.length === 0 ? [0x08, dataType.file] : [0x08, dataType.file, 0x12, ...size]
  const total = before.length + content.length + 1 + size.length
  return concat([Uint8Array.of(0x0a, ...encodeVarint(total), ...before), content, Uint8Array.of(0x18, ...size)])
}

/** An inner node of a file: links without names, as go writes them (an empty Name field), and their sizes. */
export function encodeFile(links: readonly { cid: CID; size: number; dagSize: number }[]): Uint8Array {
  const blocksizes = links.map(({ size }) => size)
  const filesize = blocksizes.reduce((sum, size) => sum + size, 0)
  const data = Data.encode({ type: dataType.file, filesize, blocksizes })
  return encodeNode({ links: links.map(({ cid, dagSize }) => ({ cid, name: '', tsize: dagSize })), data })
}

function metadata({ mode, mtime }: Decoded<typeof Data>, cid: CID): Metadata {
  const out: Metadata = {}
  if (mode !== undefined) out.mode = mode
  if (mtime !== undefined) {
    // unixfs.md §mtime: an explicit 0 is malformed too.
    if (mtime.nanos !== undefined && (mtime.nanos < 1 || mtime.nanos > 999_999_999))
      throw badDag(cid, `mtime has ${mtime.nanos} nanoseconds, want 1 to 999999999`)
    out.mtime = { seconds: mtime.seconds, nanos: mtime.nanos ?? 0 }
  }
  return out
}

/** The bytes a file node stands for; checks that its fields agree with each other. */
function fileNode(cid: CID, links: readonly PBLink[], { data, filesize, blocksizes }: Decoded<typeof Data>) {
  if (blocksizes.length !== links.length)
    throw badDag(cid, `file has ${links.length} links, but ${blocksizes.length} block sizes`)
  const content = data ?? new Uint8Array(0)
  let size = content.length
  const parts = links.map((link, i) => {
    if (link.name !== undefined && link.name !== '') throw badDag(cid, 'a part of a file has a name')
    const part = blocksizes[i] ?? 0
    size += part
    return { cid: link.cid, size: part }
  })
  if (size > Number.MAX_SAFE_INTEGER) throw badDag(cid, 'file is longer than 2^53-1 bytes')
  if (size !== (filesize ?? 0))
    throw badDag(cid, `file says it has ${filesize ?? 0} bytes, its parts add up to ${size}`)
  return { data: content, links: parts, size }
}

/** Checked before any arithmetic or memory (CVE-2023-23625). */
function checkFanout(cid: CID, { fanout, hashType, data }: Decoded<typeof Data>): number {
  if (hashType !== murmur3) throw badDag(cid, `sharded directory has hash type ${hashType}, want ${murmur3}`)
  if (fanout === undefined || fanout < 8 || fanout > 1024 || (fanout & (fanout - 1)) !== 0)
    throw badDag(cid, `sharded directory has fanout ${fanout}, want a power of two from 8 to 1024`)
  if (data !== undefined && data.length > fanout / 8)
    throw badDag(cid, `sharded directory has a bit field of ${data.length} bytes, at most ${fanout / 8} fit`)
  return fanout
}

/**
 * What the block says, checked in itself: sizes against the parts, links without names in files, fanout.
 * Throws ProtocolError (`bad-dag`, and what decodeNode throws), UnavailableError `unsupported` for codecs that are neither
 * raw nor dag-pb.
 */
export function decodeUnixFS(cid: CID, block: Uint8Array): UnixFSNode {
  if (cid.code === codec.raw)
    return { type: 'file', cid, data: block, links: [], size: block.length, dagSize: block.length }
  if (cid.code !== codec.dagPb)
    throw new UnavailableError(
      'unsupported',
      `${cid} has codec 0x${cid.code.toString(16)}: only raw and dag-pb are files`,
    )
  const node = decodeNode(block)
  if (node.data === undefined) throw badDag(cid, 'dag-pb node without UnixFS data')
  let data: Decoded<typeof Data>
  try {
    data = Data.decode(node.data)
  } catch (cause) {
    throw badDag(cid, `bad UnixFS data: ${asError(cause).message}`, { cause })
  }
  return unixFSNode(cid, block.length, node.links, data)
}

/** decodeUnixFS of what has been decoded: a dag-pb block of `size` bytes. */
export function unixFSNode(cid: CID, size: number, links: PBLink[], data: Decoded<typeof Data>): UnixFSNode {
  const dagSize = links.reduce((sum, { tsize }) => sum + (tsize ?? 0), size)
  const common = { cid, dagSize, ...metadata(data, cid) }
  switch (data.type) {
    case dataType.file:
    case dataType.raw:
      return { type: 'file', ...common, ...fileNode(cid, links, data) }
    case dataType.directory:
      return { type: 'directory', ...common, links, fanout: undefined }
    case dataType.hamtShard:
      return { type: 'directory', ...common, links, fanout: checkFanout(cid, data) }
    case dataType.symlink:
      if (links.length > 0) throw badDag(cid, 'symlink with links')
      return { type: 'symlink', ...common, target: toUtf8(data.data ?? new Uint8Array(0)) }
    default:
      throw badDag(cid, `UnixFS type ${data.type} is unknown`)
  }
}
