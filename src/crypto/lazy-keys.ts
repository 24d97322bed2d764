/*
 * RSA keys of web-rsa.ts, secp256k1 and P-256 keys of noble-keys.ts, whose code is loaded when first used: most nodes
 * never meet one.
 */
import { asError, UnavailableError } from '../errors.ts'
import type { Crypto, Signer, Verifier } from './crypto.ts'

async function loaded<T>(what: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    const attempt = { what: 'import', reason: asError(cause) }
    throw new UnavailableError('unsupported', `the code for ${what} keys cannot be loaded`, [attempt])
  }
}

const rsa = (): Promise<typeof import('./web-rsa.ts')> => loaded('RSA', () => import('./web-rsa.ts'))
const curves = (): Promise<typeof import('./noble-keys.ts')> =>
  loaded('Secp256k1 and ECDSA', () => import('./noble-keys.ts'))

/** Makes it on first use, once; what failed is tried again. */
function lazily<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return async () => {
    made ??= make()
    try {
      return await made
    } catch (error) {
      made = undefined
      throw error
    }
  }
}

function lazyVerifier(make: () => Promise<Verifier>): Verifier {
  const verifier = lazily(make)
  return { verify: async (message, signature) => (await verifier()).verify(message, signature) }
}

function lazySigner(make: () => Promise<Signer>): Signer {
  const signer = lazily(make)
  return { sign: async (message) => (await signer()).sign(message) }
}

export const lazyKeys: Pick<
  Crypto,
  'rsaPublic' | 'rsaPrivate' | 'rsaGenerate' | 'ecdsaPublic' | 'ecdsaPrivate' | 'ecPoint' | 'ecGenerate'
> = {
  rsaPublic: (spki) => lazyVerifier(async () => (await rsa()).rsaPublic(spki)),
  rsaPrivate: (pkcs1) => lazySigner(async () => (await rsa()).rsaPrivate(pkcs1)),
  rsaGenerate: async (bits) => (await rsa()).rsaGenerate(bits),
  ecdsaPublic: (curve, point) => lazyVerifier(async () => (await curves()).ecdsaPublic(curve, point)),
  ecdsaPrivate: (curve, scalar) => lazySigner(async () => (await curves()).ecdsaPrivate(curve, scalar)),
  ecPoint: async (curve, scalar) => (await curves()).ecPoint(curve, scalar),
  ecGenerate: async (curve) => (await curves()).ecGenerate(curve),
}
