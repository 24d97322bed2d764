/* A page has no resolver: TXT records come over HTTPS, and the browser itself looks up the names that it dials. */
import { lazyResolver } from './lazy-resolver.ts'
import type { Resolver } from './resolve.ts'

export const dialsByName = true

const endpoints = ['https://cloudflare-dns.com/dns-query', 'https://dns.google/dns-query']

/** Two public services; an application with others gives createNode its own `resolver`. */
export function platformResolver(): Resolver {
  return lazyResolver(async () => (await import('./doh.ts')).dnsOverHttps({ endpoints }))
}
