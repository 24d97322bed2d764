/*
 * The platform's crypto without its thread pool: a signature that comes back when a thread is free would arrive at
 * another virtual time in each run. What is signed and verified stays the same.
 */
import { sign, verify, createPrivateKey, createPublicKey } from 'node:crypto'
import { concat, fromHex } from '../../src/bytes.ts'
import type { Crypto } from '../../src/crypto/crypto.ts'
import { nativeCrypto } from '../../src/crypto/native.ts'

// RFC 8410 §7 and §4: what stands before the 32 bytes in PKCS#8 and SubjectPublicKeyInfo.
const pkcs8 = fromHex('302e020100300506032b657004220420')
const spki = fromHex('302a300506032b6570032100')

function verifies(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const key = createPublicKey({ key: Buffer.from(concat([spki, publicKey])), format: 'der', type: 'spki' })
  return verify(null, message, key, signature)
}

export const simCrypto: Crypto = {
  ...nativeCrypto,
  ed25519From(seed) {
    const { publicKey } = nativeCrypto.ed25519From(seed)
    const key = createPrivateKey({ key: Buffer.from(concat([pkcs8, seed])), format: 'der', type: 'pkcs8' })
    return { publicKey, seed, sign: (message) => Promise.resolve(new Uint8Array(sign(null, message, key))) }
  },
  ed25519Public: (publicKey) => ({
    verify: (message, signature) => Promise.resolve(verifies(publicKey, message, signature)),
  }),
  ed25519Verify: (publicKey, message, signature) => Promise.resolve(verifies(publicKey, message, signature)),
}
