/* RSA, secp256k1 and P-256 keys of noble-keys.ts, whose code is loaded when first used: most nodes never meet one. */
import { asError, UnavailableError } from '../errors.ts'
import type { Crypto, Signer, Verifier } from './crypto.ts'

type Keys = typeof import('./noble-keys.ts')

async function keys(): Promise<Keys> {
  try {
    return await import('./noble-keys.ts')
  } catch (cause) {
    const attempt = { what: 'import', reason: asError(cause) }
    throw new UnavailableError('unsupported', 'the code for RSA, Secp256k1 and ECDSA keys cannot be loaded', [attempt])
  }
}

/** Makes it on first use, once; what failed is tried again. */
function lazily<T>(make: (keys: Keys) => T | Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return async () => {
    made ??= keys().then(make)
    try {
      return await made
    } catch (error) {
      made = undefined
      throw error
    }
  }
}

function lazyVerifier(make: (keys: Keys) => Verifier | Promise<Verifier>): Verifier {
  const verifier = lazily(make)
  return { verify: async (message, signature) => (await verifier()).verify(message, signature) }
}

function lazySigner(make: (keys: Keys) => Signer | Promise<Signer>): Signer {
  const signer = lazily(make)
  return { sign: async (message) => (await signer()).sign(message) }
}

export const lazyKeys: Pick<
  Crypto,
  'rsaPublic' | 'rsaPrivate' | 'rsaGenerate' | 'ecdsaPublic' | 'ecdsaPrivate' | 'ecPoint' | 'ecGenerate'
> = {
  rsaPublic: (spki) => lazyVerifier(({ rsaPublic }) => rsaPublic(spki)),
  rsaPrivate: (pkcs1) => lazySigner(({ rsaPrivate }) => rsaPrivate(pkcs1)),
  rsaGenerate: async (bits) => (await keys()).rsaGenerate(bits),
  ecdsaPublic: (curve, point) => lazyVerifier(({ ecdsaPublic }) => ecdsaPublic(curve, point)),
  ecdsaPrivate: (curve, scalar) => lazySigner(({ ecdsaPrivate }) => ecdsaPrivate(curve, scalar)),
  ecPoint: async (curve, scalar) => (await keys()).ecPoint(curve, scalar),
  ecGenerate: async (curve) => (await keys()).ecGenerate(curve),
}
