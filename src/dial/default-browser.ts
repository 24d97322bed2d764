/* A page has no resolver: TXT records come over HTTPS, and the browser itself looks up the names that it dials. */
import type { Resolver } from './resolve.ts'

export const dialsByName = true

const endpoints = ['https://cloudflare-dns.com/dns-query', 'https://dns.google/dns-query']

/**
 * Two public services; an application with others gives createNode its own `resolver`. Their code is loaded when a name
 * is first asked for.
 */
export function platformResolver(): Resolver {
  let made: Resolver | undefined
  const resolver = async (): Promise<Resolver> => {
    const { dnsOverHttps } = await import('./doh.ts')
    return (made ??= dnsOverHttps({ endpoints }))
  }
  return {
    resolve4: async (name, options) => (await resolver()).resolve4(name, options),
    resolve6: async (name, options) => (await resolver()).resolve6(name, options),
    resolveTxt: async (name, options) => (await resolver()).resolveTxt(name, options),
  }
}
