/* Self-signed X.509 certificates for tests (RFC 5280), made here: no openssl needed. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { fromHex, fromUtf8 } from '../src/bytes.ts'
import { der, derBits, derTags, derUint } from '../src/der.ts'
import { parseIp } from '../src/ip.ts'

export interface Certificate {
  /** PEM; its own authority. */
  cert: string
  key: string
}

const ecdsaWithSha256 = der(derTags.sequence, der(derTags.oid, fromHex('2a8648ce3d040302')))
const set = 0x31
const utf8String = 0x0c
const generalizedTime = 0x18
const dnsName = 0x82
const ipAddress = 0x87

const time = (date: Date): Uint8Array =>
  der(generalizedTime, fromUtf8(date.toISOString().replaceAll(/[-:T]|\.\d+/g, '')))

const extension = (oid: string, value: Uint8Array): Uint8Array =>
  der(derTags.sequence, der(derTags.oid, fromHex(oid)), der(derTags.octetString, value))

const pem = (what: string, bytes: Uint8Array): string =>
  `-----BEGIN ${what}-----\n${(
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  ).join('\n')}\n-----END ${what}-----\n`

/** For these DNS names and IP addresses, valid from yesterday until `days` from now. */
export function certificate(names: readonly string[], { days = 7 }: { days?: number } = {}): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const dayMs = 24 * 3600 * 1000
  const [first = 'nobody'] = names
  const name = der(
    derTags.sequence,
    der(set, der(derTags.sequence, der(derTags.oid, fromHex('550403')), der(utf8String, fromUtf8(first)))),
  )
  const alternatives = names.map((n) => {
    const ip = parseIp(n)
    return ip === undefined ? der(dnsName, fromUtf8(n)) : der(ipAddress, ip)
  })
  const extensions = [
    extension('551d11', der(derTags.sequence, ...alternatives)),
    // §4.2.1.9 basicConstraints: an authority, so that it can vouch for itself
    extension('551d13', der(derTags.sequence, der(1, Uint8Array.of(0xff)))),
  ]
  const body = der(
    derTags.sequence,
    der(0xa0, derUint(Uint8Array.of(2))),
    derUint(crypto.getRandomValues(new Uint8Array(16))),
    ecdsaWithSha256,
    name,
    der(derTags.sequence, time(new Date(Date.now() - dayMs)), time(new Date(Date.now() + days * dayMs))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, der(derTags.sequence, ...extensions)),
  )
  const signature = sign('sha256', body, { key: privateKey, dsaEncoding: 'der' })
  return {
    cert: pem('CERTIFICATE', der(derTags.sequence, body, ecdsaWithSha256, derBits(signature))),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}
