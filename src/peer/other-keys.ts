/*
 * Private keys other than Ed25519 (libp2p peer-ids 3A r2 §Key types). Files of their own, which a page loads when it
 * first has such a key (other-keys-lazy.ts).
 */
import { equals } from '../bytes.ts'
import type { Crypto, Signer } from '../crypto/crypto.ts'
import {
  checkScalar,
  compressPoint,
  ecdsaPrivate,
  encodeEcdsaPrivate,
  encodeEcdsaPublic,
  rsaPublicOf,
} from './key-der-private.ts'
import { bad } from './key-der.ts'

/** What a private key is made of. */
export interface KeyParts {
  /** The Data of the PrivateKey message and of the PublicKey message. */
  readonly data: Uint8Array
  readonly publicData: Uint8Array
  readonly signer: () => Signer
}

/** From the Data of a PrivateKey message; throws ProtocolError `bad-key`. */
interface OtherKeys {
  decode(crypto: Crypto, data: Uint8Array): KeyParts | Promise<KeyParts>
  generate(crypto: Crypto, modulusBits: number): Promise<KeyParts>
}

type MaybePromise<T> = T | Promise<T>

function withPoint(point: MaybePromise<Uint8Array>, make: (point: Uint8Array) => KeyParts): MaybePromise<KeyParts> {
  return point instanceof Promise ? point.then(make) : make(point)
}

function rsa(crypto: Crypto, pkcs1: Uint8Array): KeyParts {
  return { data: pkcs1, publicData: rsaPublicOf(pkcs1), signer: () => crypto.rsaPrivate(pkcs1) }
}

function secp256k1(crypto: Crypto, scalar: Uint8Array): MaybePromise<KeyParts> {
  return withPoint(crypto.ecPoint('secp256k1', scalar), (point) => ({
    data: scalar,
    publicData: compressPoint(point),
    signer: () => crypto.ecdsaPrivate('secp256k1', scalar),
  }))
}

/** `stored` is the point that stood beside the scalar. */
function ecdsa(crypto: Crypto, scalar: Uint8Array, stored?: Uint8Array): MaybePromise<KeyParts> {
  return withPoint(crypto.ecPoint('P-256', scalar), (point) => {
    if (stored !== undefined && !equals(stored, point)) {
      throw bad('the public key in an ECDSA private key does not belong to its scalar')
    }
    return {
      data: encodeEcdsaPrivate(scalar, point),
      publicData: encodeEcdsaPublic(point),
      signer: () => crypto.ecdsaPrivate('P-256', scalar),
    }
  })
}

export const otherKeys: Readonly<Record<'RSA' | 'Secp256k1' | 'ECDSA', OtherKeys>> = {
  RSA: {
    decode: rsa,
    generate: async (crypto, modulusBits) => rsa(crypto, await crypto.rsaGenerate(modulusBits)),
  },
  Secp256k1: {
    decode: (crypto, data) => secp256k1(crypto, checkScalar('secp256k1', data)),
    generate: async (crypto) => secp256k1(crypto, await crypto.ecGenerate('secp256k1')),
  },
  ECDSA: {
    decode: (crypto, data) => {
      const { scalar, point } = ecdsaPrivate(data)
      return ecdsa(crypto, scalar, point)
    },
    generate: async (crypto) => ecdsa(crypto, await crypto.ecGenerate('P-256')),
  },
}

export type OtherKeysTable = typeof otherKeys

/** Loads nothing: they are here. */
export const loadOtherKeys = (): OtherKeysTable => otherKeys
