/* Private keys as browsers have them: `#other-keys` is replaced by what it is there. */
import { describe, expect, it, vi } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { portableCrypto } from '../../src/crypto/portable.ts'
import { ProtocolError, UnavailableError } from '../../src/errors.ts'
import { decodePrivateKey, generateKey, importPrivateKey, type KeyType } from '../../src/peer/keys.ts'

vi.mock('#other-keys', async (importOriginal) => {
  const { otherKeys } = await importOriginal<typeof import('../../src/peer/other-keys.ts')>()
  const { loadOtherKeys } = await import('../../src/peer/other-keys-lazy.ts')
  return { otherKeys, loadOtherKeys }
})

const message = fromUtf8('a message')

describe.each(['RSA', 'Secp256k1', 'ECDSA'] satisfies KeyType[])(
  'a private %s key whose code is loaded later',
  (type) => {
    it('is made, stored, imported and signs', async () => {
      const made = await generateKey(type as KeyType, portableCrypto)
      expect(made.type).toBe(type)
      const key = await importPrivateKey(made.encoded, portableCrypto)
      expect(key.publicKey.peerId.equals(made.publicKey.peerId)).toBe(true)
      expect(key.encoded).toEqual(made.encoded)
      expect(await made.publicKey.verify(message, await key.sign(message))).toBe(true)
    })

    it('is not decoded at once, and says what reads it', async () => {
      const { encoded } = await generateKey(type as KeyType, portableCrypto)
      expect(() => decodePrivateKey(encoded, portableCrypto)).toThrow(UnavailableError)
      expect(() => decodePrivateKey(encoded, portableCrypto)).toThrow(/importPrivateKey/)
      const cut = encoded.slice(0, -1)
      await expect(importPrivateKey(cut, portableCrypto)).rejects.toThrow(ProtocolError)
    })
  },
)

it('reads Ed25519 keys at once', () => {
  const { encoded, publicKey } = generateKey('Ed25519', portableCrypto)
  expect(decodePrivateKey(encoded, portableCrypto).publicKey.peerId.equals(publicKey.peerId)).toBe(true)
})
