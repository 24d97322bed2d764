/*
 * libp2p tls (3A r0, 2019-03-23) §Peer Authentication: our certificate, made for a key of its own, and the proof of the
 * peer's. Node only.
 */
import { constants, createPublicKey, generateKeyPair, sign, verify, type KeyPairKeyObjectResult } from 'node:crypto'
import type { Crypto } from '../../crypto/crypto.ts'
import type { Env } from '../../env.ts'
import { ProtocolError } from '../../errors.ts'
import type { PeerId } from '../../peer/id.ts'
import { checkRsaPublic } from '../../peer/key-der.ts'
import { decodePublicKey, type PrivateKey, type PublicKey } from '../../peer/keys.ts'
import {
  checkValidity,
  decodeCertificate,
  encodeCertificate,
  encodeTbs,
  signedText,
  type Certificate,
} from './certificate.ts'

/** As go-libp2p: peers' clocks may be an hour behind. */
const backdatedMs = 3_600_000
const lifetimeMs = 100 * 365 * 24 * 3_600_000

export interface Credentials {
  readonly certificate: Uint8Array
  /** PKCS#8 DER of the key that made it: secret, and nobody's identity. */
  readonly key: Uint8Array
}

function generateKeys(): Promise<KeyPairKeyObjectResult> {
  return new Promise((resolve, reject) => {
    generateKeyPair('ec', { namedCurve: 'P-256' }, (error, publicKey, privateKey) => {
      if (error === null) resolve({ publicKey, privateKey })
      else reject(error)
    })
  })
}

export async function makeCredentials(privateKey: PrivateKey, env: Env): Promise<Credentials> {
  const pair = await generateKeys()
  const spki = new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }))
  const identitySig = await privateKey.sign(signedText(spki))
  const now = env.clock.wallTime()
  // RFC 5280 §4.1.2.2: positive and not 0
  const serial = env.random.bytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  const tbs = encodeTbs({
    spki,
    serial,
    notBeforeMs: now - backdatedMs,
    notAfterMs: now + lifetimeMs,
    identityKey: privateKey.publicKey.encoded,
    identitySig,
  })
  const certificate = encodeCertificate(tbs, sign('sha256', tbs, pair.privateKey))
  return { certificate, key: pair.privateKey.export({ type: 'pkcs8', format: 'der' }) }
}

const hashOf = (scheme: string): string | undefined => /sha\d+$/.exec(scheme)?.[0]

/** Whether the certificate's key has signed it. Throws ProtocolError `bad-key` for a key that must not be computed with. */
function selfSigned({ scheme, spki, tbs, signature }: Certificate): boolean {
  if (scheme.startsWith('rsa_')) checkRsaPublic(spki)
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    return verify(hashOf(scheme), tbs, { key, ...(scheme.startsWith('rsa_pss_') && pss) }, signature)
  } catch {
    // OpenSSL throws for keys that are none and for signatures that are not DER.
    return false
  }
}

/**
 * The identity behind a peer's certificate. Rejects with ProtocolError: `wrong-peer` when it is not the expected one,
 * `bad-signature`, `bad-key`, `oversized` or `bad-handshake`.
 */
export async function verifyCertificate(
  bytes: Uint8Array,
  { env, crypto, expectedPeer }: { env: Env; crypto: Crypto; expectedPeer?: PeerId | undefined },
): Promise<PublicKey> {
  const certificate = decodeCertificate(bytes)
  checkValidity(certificate, env.clock.wallTime())
  const key = decodePublicKey(certificate.identityKey, crypto)
  // Before the costly checks.
  if (expectedPeer !== undefined && !expectedPeer.equals(key.peerId)) {
    throw new ProtocolError('wrong-peer', `expected peer ${expectedPeer.toString()}, got ${key.peerId.toString()}`)
  }
  if (!selfSigned(certificate)) throw new ProtocolError('bad-signature', 'certificate is not signed by its own key')
  if (!(await key.verify(signedText(certificate.spki), certificate.identitySig))) {
    throw new ProtocolError('bad-signature', `peer ${key.peerId.toString()} did not sign the key of its certificate`)
  }
  return key
}
