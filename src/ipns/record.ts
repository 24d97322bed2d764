/*
 * IPNS records (ipfs/specs ipns-record.md, 2025-02-28): a signed pointer from a key to a path, of which the one with the
 * highest sequence counts. Written with the legacy V1 fields, as Kubo writes them, or without; read by V2 alone.
 */
import { concat, equals, fromUtf8, toUtf8 } from '../bytes.ts'
import { ProtocolError, asError } from '../errors.ts'
import { decodeCbor, encodeCbor } from '../ipld/cbor.ts'
import { PeerId } from '../peer/id.ts'
import { decodePublicKey, type PrivateKey, type PublicKey } from '../peer/keys.ts'
import { bytes, int32, limited, message, uint64 } from '../protobuf.ts'

/** §Record Size Limit. */
export const maxRecordBytes = 10 * 1024

const field = limited(bytes, maxRecordBytes)

const IpnsEntry = message({
  value: [1, field],
  signatureV1: [2, field],
  validityType: [3, int32],
  validity: [4, field],
  sequence: [5, uint64],
  ttl: [6, uint64],
  pubKey: [7, field],
  signatureV2: [8, field],
  data: [9, field],
})

const nanosecondsPerMs = 1_000_000n
/** EOL: valid until a date. There is no other. */
const endOfLife = 0

export interface IpnsRecord {
  /** A content path: `/ipfs/bafy...`, `/ipns/k51...`. */
  readonly value: string
  /** Of two records of a name, the higher counts. */
  readonly sequence: bigint
  /** Until when it is valid: RFC 3339, with nanoseconds. */
  readonly validity: string
  /** How long a resolver may keep it, in milliseconds. */
  readonly ttlMs: number
}

export interface CreateOptions {
  value: string
  sequence: bigint
  /** How long it is valid, from now. Default 48 h: the DHT keeps no record longer. */
  lifetimeMs?: number
  /** Default 5 min (§TTL). */
  ttlMs?: number
  /** Unix milliseconds. */
  now: number
  /** With the fields and the signature that legacy software reads. Default true, as Kubo does. */
  v1Compatible?: boolean
}

/** The name that a key publishes under. */
export function nameOf(key: PublicKey): PeerId {
  return key.peerId
}

/** §String Representation: CIDv1 with codec libp2p-key in base36. */
export function formatName(name: PeerId): string {
  return name.toCid('base36')
}

/** From `/ipns/k51...`, `k51...`, or any text of a peer id. Throws TypeError. */
export function parseName(text: string): PeerId {
  return PeerId.parse(text.startsWith('/ipns/') ? text.slice('/ipns/'.length) : text)
}

const signedText = (data: Uint8Array): Uint8Array => concat([fromUtf8('ipns-signature:'), data])

/** A number of CBOR: small ones must not be written as bigint, large ones must. */
const cborInt = (value: bigint): number | bigint => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value)

/** §Record Creation. The record's bytes; throws RangeError when it would be longer than 10 KiB. */
export async function createRecord(key: PrivateKey, options: CreateOptions): Promise<Uint8Array> {
  const { value: path, sequence, lifetimeMs = 48 * 3_600_000, ttlMs = 300_000, now, v1Compatible = true } = options
  const value = fromUtf8(path)
  // Nanoseconds as Go prints them.
  const validity = fromUtf8(new Date(now + lifetimeMs).toISOString().replace(/(\.\d{3})Z$/, '$1000000Z'))
  const ttl = BigInt(Math.round(ttlMs)) * nanosecondsPerMs
  const data = encodeCbor({
    Value: value,
    Validity: validity,
    ValidityType: endOfLife,
    Sequence: cborInt(sequence),
    TTL: cborInt(ttl),
  })
  const signatureV2 = await key.sign(signedText(data))
  const legacy = v1Compatible && {
    value,
    signatureV1: await key.sign(concat([value, validity, fromUtf8('EOL')])),
    validityType: endOfLife,
    validity,
    sequence,
    ttl,
  }
  const { publicKey } = key
  const inlined = publicKey.peerId.publicKeyBytes !== undefined
  const record = IpnsEntry.encode({
    ...legacy,
    ...(!inlined && { pubKey: publicKey.encoded }),
    signatureV2,
    data,
  })
  if (record.length > maxRecordBytes) {
    throw new RangeError(`IPNS record of ${record.length} bytes, at most ${maxRecordBytes} allowed`)
  }
  return record
}

interface Parsed {
  record: IpnsRecord
  data: Uint8Array
  signatureV2: Uint8Array
  pubKey: Uint8Array | undefined
}

/** What a record says, without any proof that it is true. Throws ProtocolError. */
export function decodeRecord(encoded: Uint8Array): IpnsRecord {
  return parse(encoded).record
}

function bad(message: string, cause?: unknown): ProtocolError {
  return new ProtocolError('bad-message', `IPNS record: ${message}`, cause === undefined ? {} : { cause })
}

function parse(encoded: Uint8Array): Parsed {
  if (encoded.length > maxRecordBytes) {
    throw new ProtocolError('oversized', `IPNS record of ${encoded.length} bytes, at most ${maxRecordBytes} allowed`)
  }
  const entry = IpnsEntry.decode(encoded)
  const { data, signatureV2 } = entry
  if (!data?.length || !signatureV2?.length) throw bad('no V2 data or signature')
  const document = decodeData(data)
  const value = bytesOf(document, 'Value')
  const validity = bytesOf(document, 'Validity')
  const validityType = integerOf(document, 'ValidityType')
  const sequence = integerOf(document, 'Sequence')
  const ttl = integerOf(document, 'TTL')
  if (validityType !== BigInt(endOfLife)) throw bad(`validity of type ${validityType}, want ${endOfLife}`)
  // §Record Verification 7. proto3 does not write a 0.
  const { value: v1 = new Uint8Array(0), validity: until = new Uint8Array(0) } = entry
  if (entry.signatureV1 !== undefined || entry.value !== undefined) {
    const same =
      equals(v1, value) &&
      equals(until, validity) &&
      BigInt(entry.validityType ?? 0) === validityType &&
      (entry.sequence ?? 0n) === sequence &&
      (entry.ttl ?? 0n) === ttl
    if (!same) throw bad('its V1 fields differ from what is signed')
  }
  const record = {
    value: toUtf8(value),
    sequence,
    validity: toUtf8(validity),
    ttlMs: Number(ttl / nanosecondsPerMs),
  }
  return { record, data, signatureV2, pubKey: entry.pubKey }
}

function decodeData(data: Uint8Array): Record<string, unknown> {
  let decoded: unknown
  try {
    decoded = decodeCbor(data)
  } catch (error) {
    throw bad(`its data is no DAG-CBOR: ${asError(error).message}`, error)
  }
  if (typeof decoded !== 'object' || decoded === null || Array.isArray(decoded)) throw bad('its data is no map')
  return decoded as Record<string, unknown>
}

function bytesOf(document: Record<string, unknown>, name: string): Uint8Array {
  const found = document[name]
  if (!(found instanceof Uint8Array)) throw bad(`${name} is not bytes`)
  return found
}

function integerOf(document: Record<string, unknown>, name: string): bigint {
  const found = document[name]
  const integer = typeof found === 'bigint' || (typeof found === 'number' && Number.isSafeInteger(found))
  // boxo refuses negative ones; all of them are uint64.
  if (!integer || BigInt(found) < 0n || BigInt(found) >= 1n << 64n) throw bad(`${name} is no unsigned integer`)
  return BigInt(found)
}

/** A date of RFC 3339 in nanoseconds since 1970. Throws ProtocolError. */
export function parseValidity(text: string): bigint {
  const parts = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/.exec(text)
  const [, seconds = '', fraction = '', zone = ''] = parts ?? []
  const ms = Date.parse(seconds + zone)
  if (parts === null || Number.isNaN(ms)) throw bad(`${JSON.stringify(text.slice(0, 64))} is no date of RFC 3339`)
  return BigInt(ms) * nanosecondsPerMs + BigInt(fraction.padEnd(9, '0'))
}

/**
 * §Record Verification: what the record says, once its signature, its name and its date are checked. `now` is Unix
 * milliseconds. Rejects with ProtocolError: `bad-signature`, `bad-key`, `oversized` or `bad-message`.
 */
export async function validateRecord(name: PeerId, encoded: Uint8Array, now: number): Promise<IpnsRecord> {
  const { record, data, signatureV2, pubKey } = parse(encoded)
  const keyBytes = pubKey?.length ? pubKey : name.publicKeyBytes
  if (keyBytes === undefined) throw bad('it holds no public key, and neither does its name')
  const key = decodePublicKey(keyBytes)
  if (!key.peerId.equals(name)) throw new ProtocolError('bad-key', 'IPNS record: its key is not the one of its name')
  if (!(await key.verify(signedText(data), signatureV2))) {
    throw new ProtocolError('bad-signature', 'IPNS record: the key of its name did not sign it')
  }
  if (parseValidity(record.validity) <= BigInt(Math.floor(now)) * nanosecondsPerMs) {
    throw bad(`it was valid until ${record.validity}`)
  }
  return record
}

/** The index of the one that counts: the highest sequence, then the longest validity. All are valid. */
export function selectRecord(records: readonly IpnsRecord[]): number {
  let best = 0
  for (const [i, record] of records.entries()) {
    const chosen = records[best] as IpnsRecord
    const newer =
      record.sequence > chosen.sequence ||
      (record.sequence === chosen.sequence && parseValidity(record.validity) > parseValidity(chosen.validity))
    if (newer) best = i
  }
  return best
}
