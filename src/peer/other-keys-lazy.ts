/* Private keys other than Ed25519 in browsers: loaded when there is one. */
import { asError, UnavailableError } from '../errors.ts'
import type { OtherKeysTable } from './other-keys.ts'

export async function loadOtherKeys(): Promise<OtherKeysTable> {
  try {
    return (await import('./other-keys.ts')).otherKeys
  } catch (cause) {
    const attempt = { what: 'import', reason: asError(cause) }
    throw new UnavailableError('unsupported', 'the code for private keys other than Ed25519 cannot be loaded', [
      attempt,
    ])
  }
}
