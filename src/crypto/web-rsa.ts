/* RSA on the platform's WebCrypto (RFC 8017 §8.2). A file of its own, as noble-keys.ts is. */
import { fromHex } from '../bytes.ts'
import { der, DerReader, derTags, derUint } from '../der.ts'
import { asError, UnavailableError } from '../errors.ts'
import type { Signer, Verifier } from './crypto.ts'

const algorithm = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } as const

type Subtle = typeof globalThis.crypto.subtle

function webCrypto(): Subtle {
  const { crypto } = globalThis as { crypto?: { subtle?: Subtle } }
  if (crypto?.subtle !== undefined) return crypto.subtle
  throw new UnavailableError('unsupported', 'RSA keys need WebCrypto, which pages have over https or on localhost only')
}

/** WebCrypto's way to say that it will never do this. */
function refuseUnsupported(thrown: unknown): void {
  const error = asError(thrown)
  if (error.name !== 'NotSupportedError') return
  throw new UnavailableError('unsupported', `WebCrypto here cannot do it with this RSA key: ${error.message}`)
}

export async function rsaPublic(spki: Uint8Array): Promise<Verifier> {
  const subtle = webCrypto()
  let key: Awaited<ReturnType<Subtle['importKey']>>
  try {
    key = await subtle.importKey('spki', spki.slice(), algorithm, false, ['verify'])
  } catch (error) {
    refuseUnsupported(error)
    // Whatever the platform has against it: no signature verifies with such a key.
    return { verify: async () => false }
  }
  return {
    verify: (message, signature) => subtle.verify(algorithm, key, signature.slice(), message.slice()),
  }
}

// RFC 5208 §5 around RFC 8017 A.1.2: version 0, then rsaEncryption with NULL.
const version = derUint(new Uint8Array(0))
const rsaEncryption = fromHex('300d06092a864886f70d0101010500')

export async function rsaPrivate(pkcs1: Uint8Array): Promise<Signer> {
  const subtle = webCrypto()
  const pkcs8 = der(derTags.sequence, version, rsaEncryption, der(derTags.octetString, pkcs1))
  let key: Awaited<ReturnType<Subtle['importKey']>>
  try {
    key = await subtle.importKey('pkcs8', pkcs8.slice(), algorithm, false, ['sign'])
  } catch (error) {
    refuseUnsupported(error)
    throw error
  }
  return { sign: async (message) => new Uint8Array(await subtle.sign(algorithm, key, message.slice())) }
}

export async function rsaGenerate(modulusLength: number): Promise<Uint8Array> {
  const subtle = webCrypto()
  const publicExponent = Uint8Array.of(1, 0, 1)
  const { privateKey } = await subtle.generateKey({ ...algorithm, modulusLength, publicExponent }, true, ['sign'])
  const info = new DerReader(new Uint8Array(await subtle.exportKey('pkcs8', privateKey)), 'bad-key').enter(0x30)
  info.uint()
  info.enter(derTags.sequence)
  return info.read(derTags.octetString).slice()
}
