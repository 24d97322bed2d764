/* How names in addresses are resolved on Node when createNode is given no resolver. */
import type { Resolver } from './resolve.ts'
import { systemResolver } from './system-dns.ts'

/** A name is made an IP address before it is dialled. */
export const dialsByName = false

export function platformResolver(): Resolver {
  return systemResolver()
}
