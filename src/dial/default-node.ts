/* How names in addresses are resolved on Node when createNode is given no resolver. */
import { lazyResolver } from './lazy-resolver.ts'
import type { Resolver } from './resolve.ts'

/** A name is made an IP address before it is dialled. */
export const dialsByName = false

export function platformResolver(): Resolver {
  return lazyResolver(async () => (await import('./system-dns.ts')).systemResolver())
}
