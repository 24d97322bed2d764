/* A page has no resolver: TXT records come over HTTPS, and the browser itself looks up the names that it dials. */
import { dnsOverHttps } from './doh.ts'
import type { Resolver } from './resolve.ts'

export const dialsByName = true

/** Two public services; an application with others gives createNode its own `resolver`. */
export function platformResolver(): Resolver {
  return dnsOverHttps({ endpoints: ['https://cloudflare-dns.com/dns-query', 'https://dns.google/dns-query'] })
}
