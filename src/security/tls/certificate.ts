/*
 * libp2p tls (3A r0, 2019-03-23) §Peer Authentication: the self-signed certificate (RFC 5280 §4.1) whose extension holds
 * the identity key and its signature over the certificate's key. Reads strict DER only and computes nothing: whether
 * signatures verify is the business of credentials.ts and keys.ts.
 */
import { concat, equals, fromHex, fromUtf8, toHex } from '../../bytes.ts'
import { der, derBits, DerReader, derTags, derUint } from '../../der.ts'
import { ProtocolError } from '../../errors.ts'

/** Bytes of a certificate: with RSA keys of 8192 bits for both identity and certificate it has about 4,400. */
export const certificateBytes = 16 * 1024

/** As in RFC 8446 §4.2.3, what a certificate may be signed with: nothing with a hash of less than 256 bits. */
export type SignatureScheme =
  | `rsa_pkcs1_${Hash}`
  | `rsa_pss_rsae_${Hash}`
  | 'ecdsa_secp256r1_sha256'
  | 'ecdsa_secp384r1_sha384'
  | 'ecdsa_secp521r1_sha512'
  | 'ed25519'
  | 'ed448'

type Hash = 'sha256' | 'sha384' | 'sha512'

export interface Certificate {
  /** What the certificate's own key has signed. */
  readonly tbs: Uint8Array
  /** That key, as SubjectPublicKeyInfo DER. */
  readonly spki: Uint8Array
  readonly scheme: SignatureScheme
  readonly signature: Uint8Array
  /** Milliseconds since 1970; both ends belong to the time in which it is valid. */
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** The identity's PublicKey message. */
  readonly identityKey: Uint8Array
  /** The identity's signature over signedText(spki). */
  readonly identitySig: Uint8Array
}

const tags = { boolean: 0x01, utcTime: 0x17, generalizedTime: 0x18 } as const
/** RFC 5280 §4.1: [0] version, [1] and [2] unique ids, [3] extensions. */
const versionTag = 0xa0
const extensionsTag = 0xa3

/** 1.3.6.1.4.1.53594.1.1 */
const libp2pExtension = '2b0601040183a25a0101'
const rsaEncryption = '2a864886f70d010101'
const rsassaPss = '2a864886f70d01010a'
const mgf1 = '2a864886f70d010108'
const ecPublicKey = '2a8648ce3d0201'
const ecdsaWithSha256 = fromHex('2a8648ce3d040302')

const hashes: Readonly<Record<string, { name: Hash; bytes: number }>> = {
  '608648016503040201': { name: 'sha256', bytes: 32 },
  '608648016503040202': { name: 'sha384', bytes: 48 },
  '608648016503040203': { name: 'sha512', bytes: 64 },
}

/** The signature's algorithm and the key's, as they stand in the certificate: object identifiers in hex. */
const schemes: Readonly<Record<string, SignatureScheme>> = {
  '2a864886f70d01010b/2a864886f70d010101': 'rsa_pkcs1_sha256',
  '2a864886f70d01010c/2a864886f70d010101': 'rsa_pkcs1_sha384',
  '2a864886f70d01010d/2a864886f70d010101': 'rsa_pkcs1_sha512',
  '2a8648ce3d040302/2a8648ce3d0201/2a8648ce3d030107': 'ecdsa_secp256r1_sha256',
  '2a8648ce3d040303/2a8648ce3d0201/2b81040022': 'ecdsa_secp384r1_sha384',
  '2a8648ce3d040304/2a8648ce3d0201/2b81040023': 'ecdsa_secp521r1_sha512',
  '2b6570/2b6570': 'ed25519',
  '2b6571/2b6571': 'ed448',
}

function bad(message: string): ProtocolError {
  return new ProtocolError('bad-handshake', `certificate: ${message}`)
}

const textPrefix = fromUtf8('libp2p-tls-handshake:')

/** What the identity signs: 21 bytes of text, then the certificate's key. */
export function signedText(spki: Uint8Array): Uint8Array {
  return concat([textPrefix, spki])
}

/** Throws ProtocolError: `oversized` above certificateBytes, else `bad-handshake`. */
export function decodeCertificate(bytes: Uint8Array): Certificate {
  if (bytes.length > certificateBytes) {
    throw new ProtocolError('oversized', `certificate of ${bytes.length} bytes, at most ${certificateBytes} allowed`)
  }
  const outer = new DerReader(bytes, 'bad-handshake')
  const certificate = outer.enter(derTags.sequence)
  outer.end()
  // DER has one encoding: the same head comes out again.
  const tbs = der(derTags.sequence, certificate.read(derTags.sequence))
  const algorithm = certificate.read(derTags.sequence)
  const signature = certificate.bits()
  certificate.end()

  const body = new DerReader(tbs, 'bad-handshake').enter(derTags.sequence)
  const version = body.enter(versionTag)
  if (toHex(version.uint()) !== '02') throw bad('version is not 3')
  version.end()
  body.read(derTags.integer)
  if (!equals(body.read(derTags.sequence), algorithm)) throw bad('names two signature algorithms')
  body.read(derTags.sequence)
  const validity = body.enter(derTags.sequence)
  const notBeforeMs = time(validity)
  const notAfterMs = time(validity)
  validity.end()
  body.read(derTags.sequence)
  const key = body.read(derTags.sequence)
  // The unique ids, [1] and [2], must not be there.
  if (body.tag !== extensionsTag) throw bad('has no extensions where they belong')
  const { identityKey, identitySig } = signedKey(body.enter(extensionsTag))
  body.end()
  const spki = der(derTags.sequence, key)
  return { tbs, spki, scheme: scheme(algorithm, key), signature, notBeforeMs, notAfterMs, identityKey, identitySig }
}

const iso = (ms: number): string => new Date(ms).toISOString()

/** Throws ProtocolError `bad-handshake` when the certificate is not valid at `nowMs`. */
export function checkValidity({ notBeforeMs, notAfterMs }: Certificate, nowMs: number): void {
  if (nowMs < notBeforeMs) throw bad(`not valid before ${iso(notBeforeMs)}, now is ${iso(nowMs)}: check both clocks`)
  if (nowMs >= notAfterMs + 1000) throw bad(`expired at ${iso(notAfterMs)}, now is ${iso(nowMs)}: check both clocks`)
}

/** RFC 5280 §4.1.2.5: UTCTime or GeneralizedTime, to the second, in UTC. */
function time(reader: DerReader): number {
  const { tag } = reader
  const utc = tag === tags.utcTime
  if (!utc && tag !== tags.generalizedTime) throw bad('has no validity')
  const text = String.fromCharCode(...reader.read(tag).subarray(0, 20))
  const digits = utc ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
  const [y = NaN, month = NaN, day = NaN, hour = NaN, minute = NaN, second = NaN] =
    digits.exec(text)?.slice(1).map(Number) ?? []
  const year = !utc ? y : y < 50 ? 2000 + y : 1900 + y
  const date = new Date(0)
  // Date.UTC takes years below 100 for others.
  date.setUTCFullYear(year, month - 1, day)
  date.setUTCHours(hour, minute, second)
  const same = date.getUTCMonth() === month - 1 && date.getUTCDate() === day && date.getUTCHours() === hour
  if (!same || date.getUTCMinutes() !== minute || date.getUTCSeconds() !== second) throw bad('has a time that is none')
  return date.getTime()
}

function scheme(algorithm: Uint8Array, key: Uint8Array): SignatureScheme {
  const signed = new DerReader(algorithm, 'bad-handshake')
  const signedWith = toHex(signed.read(derTags.oid))
  const keyAlgorithm = new DerReader(key, 'bad-handshake').enter(derTags.sequence)
  const keyType = toHex(keyAlgorithm.read(derTags.oid))
  if (signedWith === rsassaPss && keyType === rsaEncryption) return `rsa_pss_rsae_${pssHash(signed)}`
  const curve = keyType === ecPublicKey ? `/${toHex(keyAlgorithm.read(derTags.oid))}` : ''
  const found = schemes[`${signedWith}/${keyType}${curve}`]
  if (found === undefined) throw bad('is signed with an algorithm that libp2p does not use')
  // RFC 4055 §5: NULL for RSA; RFC 5758 §3.2, RFC 8410 §3: nothing for the others
  if (keyType === rsaEncryption && signed.read(derTags.null).length !== 0) throw bad('has parameters that are none')
  signed.end()
  return found
}

/** RFC 4055 §3.1: one hash for the message and the mask, and a salt as long as it (RFC 8446 §4.2.3). */
function pssHash(algorithm: DerReader): Hash {
  const params = algorithm.enter(derTags.sequence)
  algorithm.end()
  const hashOf = (reader: DerReader): { name: Hash; bytes: number } => {
    const inner = reader.enter(derTags.sequence)
    const hash = hashes[toHex(inner.read(derTags.oid))]
    if (hash === undefined) throw bad('is signed with a hash that libp2p does not use')
    if (inner.tag === derTags.null) inner.read(derTags.null)
    inner.end()
    return hash
  }
  const hash = hashOf(params.enter(0xa0))
  const mask = params.enter(0xa1).enter(derTags.sequence)
  const generator = toHex(mask.read(derTags.oid))
  const [salt] = params.enter(0xa2).uint()
  params.end()
  if (generator !== mgf1 || hashOf(mask) !== hash || salt !== hash.bytes) throw bad('has odd RSASSA-PSS parameters')
  return hash.name
}

function signedKey(field: DerReader): { identityKey: Uint8Array; identitySig: Uint8Array } {
  const extensions = field.enter(derTags.sequence)
  field.end()
  const seen = new Set<string>()
  let value: Uint8Array | undefined
  while (extensions.tag !== undefined) {
    const extension = extensions.enter(derTags.sequence)
    const id = toHex(extension.read(derTags.oid))
    // X.690 §11.5: FALSE is the default and must not be written
    const critical = extension.tag === tags.boolean
    if (critical && toHex(extension.read(tags.boolean)) !== 'ff') throw bad('has a boolean that is not TRUE')
    const contents = extension.read(derTags.octetString)
    extension.end()
    // RFC 5280 §4.2
    if (seen.has(id)) throw bad('has an extension twice')
    seen.add(id)
    if (id === libp2pExtension) value = contents
    else if (critical) throw bad(`has a critical extension that libp2p does not know: ${id.slice(0, 40)}`)
  }
  if (value === undefined) throw bad('has no libp2p extension')
  const outer = new DerReader(value, 'bad-handshake')
  const signed = outer.enter(derTags.sequence)
  outer.end()
  const identityKey = signed.read(derTags.octetString)
  const identitySig = signed.read(derTags.octetString)
  signed.end()
  return { identityKey, identitySig }
}

export interface CertificateFields {
  /** A key on P-256. */
  spki: Uint8Array
  /** A number that is not 0, at most 20 bytes. */
  serial: Uint8Array
  notBeforeMs: number
  notAfterMs: number
  identityKey: Uint8Array
  identitySig: Uint8Array
}

/** What the certificate's key signs, with ECDSA and SHA-256. */
export function encodeTbs(fields: CertificateFields): Uint8Array {
  const { spki, serial, notBeforeMs, notAfterMs, identityKey, identitySig } = fields
  const name = der(derTags.sequence)
  const signed = der(derTags.sequence, der(derTags.octetString, identityKey), der(derTags.octetString, identitySig))
  const extension = der(
    derTags.sequence,
    der(derTags.oid, fromHex(libp2pExtension)),
    // go-libp2p and the vectors write it without `critical`, js-libp2p wants it first
    der(derTags.octetString, signed),
  )
  return der(
    derTags.sequence,
    der(versionTag, derUint(Uint8Array.of(2))),
    derUint(serial),
    der(derTags.sequence, der(derTags.oid, ecdsaWithSha256)),
    name,
    der(derTags.sequence, encodeTime(notBeforeMs), encodeTime(notAfterMs)),
    name,
    spki,
    der(extensionsTag, der(derTags.sequence, extension)),
  )
}

export function encodeCertificate(tbs: Uint8Array, signature: Uint8Array): Uint8Array {
  return der(derTags.sequence, tbs, der(derTags.sequence, der(derTags.oid, ecdsaWithSha256)), derBits(signature))
}

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after it. */
function encodeTime(ms: number): Uint8Array {
  const date = new Date(ms)
  const text = `${date.toISOString().replaceAll(/[-:T]|\..*/g, '')}Z`
  const year = date.getUTCFullYear()
  return year >= 1950 && year < 2050
    ? der(tags.utcTime, fromUtf8(text.slice(2)))
    : der(tags.generalizedTime, fromUtf8(text))
}
