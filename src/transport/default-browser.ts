/* A browser has no transport of its own that listens; the ones that dial come by option. */
import type { Transport } from './transport.ts'

export function defaultTransports(): Transport[] {
  return []
}
