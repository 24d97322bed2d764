/*
 * CID (ipfs/specs src/cid.md, 2026-06), the strict reading: minimal varints, nothing behind the multihash, no reserved
 * versions. The CID class is the one of multiformats, so that other libraries' CIDs and ours are the same thing.
 * A hash that we cannot compute still makes a valid CID; only verifying it is refused.
 */
import { blake2b } from '@noble/hashes/blake2.js'
import { blake3 } from '@noble/hashes/blake3.js'
import { base16, base16upper } from 'multiformats/bases/base16'
import { base32, base32upper } from 'multiformats/bases/base32'
import { base36, base36upper } from 'multiformats/bases/base36'
import { base58btc, base58flickr } from 'multiformats/bases/base58'
import { base64, base64pad, base64url, base64urlpad } from 'multiformats/bases/base64'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { platformCrypto } from '#crypto'
import { equals } from '../bytes.ts'
import { asError, ProtocolError, UnavailableError } from '../errors.ts'
import { cidBytes, digestBytes } from '../limits.ts'
import { readVarint, varintLength } from '../varint.ts'

export { CID } from 'multiformats/cid'

/** Multicodec codes of the block formats (table.csv). */
export const codec = {
  raw: 0x55,
  dagCbor: 0x71,
  dagPb: 0x70,
  libp2pKey: 0x72,
  dagJson: 0x0129,
  cbor: 0x51,
  json: 0x0200,
} as const
/** Multihash codes (table.csv). blake2b-N is blake2b + N / 8. */
export const hash = { identity: 0x00, sha256: 0x12, sha512: 0x13, blake3: 0x1e, blake2b: 0xb200 } as const

/** The digest of a block's bytes. */
export type Hasher = (bytes: Uint8Array) => Uint8Array

const known = new Map<number, Hasher>([
  [hash.identity, (bytes) => bytes],
  [hash.sha256, (bytes) => platformCrypto.sha256(bytes)],
  [hash.sha512, (bytes) => platformCrypto.sha512(bytes)],
  [hash.blake3, (bytes) => blake3(bytes)],
])
// Shorter digests than these name no block safely (boxo verifcid).
for (let size = 20; size <= 64; size++) known.set(hash.blake2b + size, (bytes) => blake2b(bytes, { dkLen: size }))

/** The digests that we can compute, by multihash code: sha2-256, sha2-512, blake2b-160 to -512, blake3, identity. */
export const hashers: ReadonlyMap<number, Hasher> = known

/** Makes blocks under a further hash function checkable, everywhere; in the place of what had the code. */
export function registerHasher(code: number, hasher: Hasher): void {
  known.set(code, hasher)
}

/** Text longer than this cannot be a CID of 168 bytes, not even in base2: checked before anything is decoded. */
const cidCharacters = 8 * cidBytes + 1

const bases: ReadonlyMap<string, { decode(text: string): Uint8Array }> = new Map(
  [
    base16,
    base16upper,
    base32,
    base32upper,
    base36,
    base36upper,
    base58btc,
    base58flickr,
    base64,
    base64pad,
    base64url,
    base64urlpad,
  ].map((base) => [base.prefix, base]),
)

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-cid', message)
}

/** CIDv1 (or CIDv0, dag-pb only) of `bytes` under sha2-256. */
export function cidOf(codec: number, bytes: Uint8Array, version: 0 | 1 = 1): CID {
  return CID.create(version, codec, Digest.create(hash.sha256, platformCrypto.sha256(bytes)))
}

/** One varint of the CID and the offset behind it. */
function take(bytes: Uint8Array, at: number, what: string): [number, number] {
  let value: number | undefined
  try {
    value = readVarint(bytes, at)
  } catch (cause) {
    throw new ProtocolError('bad-cid', `CID has a bad ${what}: ${asError(cause).message}`, { cause })
  }
  if (value === undefined) throw bad(`CID ends in the middle of its ${what}`)
  return [value, at + varintLength(value)]
}

/** The CID that `bytes` begin with and what follows it. Throws ProtocolError `bad-cid`. The CID owns its memory. */
export function decodeCidFirst(bytes: Uint8Array): [cid: CID, rest: Uint8Array] {
  let at = 0
  let version = 0
  let code: number = codec.dagPb
  if (bytes[0] === 0x12) {
    // A bare multihash is CIDv0, and only this one (src/cid.md).
    if (bytes[1] !== 0x20) throw bad('CID begins with 12, but is not a CIDv0 (12 20 and 32 bytes)')
  } else {
    ;[version, at] = take(bytes, 0, 'version')
    if (version !== 1) throw bad(`CID version ${version}, want 0 or 1`)
    ;[code, at] = take(bytes, at, 'codec')
  }
  const start = at
  let hashCode: number
  let size: number
  ;[hashCode, at] = take(bytes, at, 'hash code')
  ;[size, at] = take(bytes, at, 'digest length')
  if (size > digestBytes) throw bad(`CID has a digest of ${size} bytes, at most ${digestBytes} allowed`)
  if (at + size > bytes.length) throw bad(`CID has ${bytes.length - at} bytes of digest, want ${size}`)
  // One byte of version, two varints of up to 9, 2 + 128 of digest: always below cidBytes.
  // Not slice(): on a Buffer that would share memory.
  const own = new Uint8Array(bytes.subarray(0, at + size))
  const multihash = new Digest.Digest(hashCode, size, own.subarray(at), own.subarray(start))
  return [new CID(version as 0 | 1, code, multihash, own), bytes.subarray(at + size)]
}

/** Throws ProtocolError `bad-cid` for anything but exactly one CID. The CID owns its memory. */
export function decodeCid(bytes: Uint8Array): CID {
  const [cid, rest] = decodeCidFirst(bytes)
  if (rest.length > 0) throw bad(`CID with ${rest.length} more bytes behind it`)
  return cid
}

/** A CID from text: `Qm...` or any multibase of the CID spec. Throws TypeError that says what is wrong with it. */
export function parseCid(text: string): CID {
  const shown = text.length > 80 ? `${text.slice(0, 80)}...` : text
  const fail = (why: string, cause?: unknown) =>
    new TypeError(`"${shown}" is not a CID: ${why}`, cause === undefined ? undefined : { cause })
  if (text.length < 2) throw fail('too short')
  if (text.length > cidCharacters) throw fail(`longer than ${cidCharacters} characters`)
  const v0 = text.length === 46 && text.startsWith('Qm')
  const base = v0 ? base58btc : bases.get(text.charAt(0))
  if (!v0 && text.startsWith('Qm')) throw fail(`one that begins with "Qm" has 46 characters, this has ${text.length}`)
  if (base === undefined) throw fail(`it begins with neither "Qm" nor a multibase prefix that we know`)
  let bytes: Uint8Array
  try {
    bytes = base.decode(v0 ? `z${text}` : text)
  } catch (cause) {
    throw fail(`characters are wrong or missing (${asError(cause).message})`, cause)
  }
  let cid: CID
  try {
    cid = decodeCid(bytes)
  } catch (cause) {
    throw fail(asError(cause).message, cause)
  }
  if (cid.version === 0 && !v0) throw fail('a CIDv0 has no multibase prefix')
  if (cid.version !== 0 && v0) throw fail('a CID that begins with "Qm" must be CIDv0')
  return cid
}

/**
 * Whether `bytes` hash to `cid`. Throws UnavailableError `unsupported` for a hash function that we do not have.
 */
export function hashesTo(cid: CID, bytes: Uint8Array): boolean {
  const hasher = hashers.get(cid.multihash.code)
  if (hasher === undefined) {
    throw new UnavailableError(
      'unsupported',
      `hash function 0x${cid.multihash.code.toString(16)} of ${cid} is not supported: only sha2-256, sha2-512, blake2b, blake3, identity and what registerHasher added`,
    )
  }
  return equals(hasher(bytes), cid.multihash.digest)
}

/** Throws ProtocolError `bad-block` unless `bytes` hash to `cid`; UnavailableError as hashesTo. */
export function verifyBlock(cid: CID, bytes: Uint8Array): void {
  if (!hashesTo(cid, bytes))
    throw new ProtocolError('bad-block', `block of ${bytes.length} bytes does not hash to ${cid}`)
}
