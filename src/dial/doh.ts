/*
 * DNS over HTTPS (RFC 8484): GET with the question as wire format, which needs no preflight in browsers. Servers are
 * asked in turn until one answers; answers are kept for as long as their records say, within bounds.
 */
import { concat } from '../bytes.ts'
import { encodeBase } from '../multibase.ts'
import { systemEnv, type Env } from '../env.ts'
import { LimitError, ProtocolError, UnavailableError, asError, type Attempt } from '../errors.ts'
import { decodeAnswer, encodeQuery, recordTypes, type RecordType } from './dns-message.ts'
import type { Resolver } from './resolve.ts'

export type { Resolver } from './resolve.ts'

export interface DnsOverHttpsOptions {
  /** `https://cloudflare-dns.com/dns-query`, ...: the first that answers is asked first the next time. */
  endpoints: readonly string[]
  env?: Env
  /** Bytes of one answer. Default 65,535, a DNS message's most. */
  maxAnswerBytes?: number
  /** Names remembered; 0 for none. Default 1,000. */
  cacheEntries?: number
  /** However long a record says it holds. Default 1 hour. */
  maxTtlMs?: number
  /** For one server, so that the next gets its turn. Default 2 s. */
  serverTimeoutMs?: number
  fetch?: typeof fetch
}

const defaults = { maxAnswerBytes: 65_535, cacheEntries: 1_000, maxTtlMs: 3_600_000, serverTimeoutMs: 2_000 }
const mediaType = 'application/dns-message'

/** The whole body, or LimitError as soon as it is longer. */
async function body(response: Response, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let size = 0
  const reader = response.body?.getReader()
  for (;;) {
    const next = await reader?.read()
    if (next === undefined || next.done) break
    size += next.value.length
    if (size > maxBytes) {
      const tooMuch = new LimitError('maxAnswerBytes', maxBytes, size)
      await reader?.cancel(tooMuch)
      throw tooMuch
    }
    chunks.push(next.value)
  }
  return concat(chunks, size)
}

/** Throws TypeError when no endpoint is given. */
export function dnsOverHttps(options: DnsOverHttpsOptions): Resolver {
  const { endpoints, env = systemEnv(), fetch: ask = fetch, ...limits } = options
  const { maxAnswerBytes, cacheEntries, maxTtlMs, serverTimeoutMs } = { ...defaults, ...limits }
  if (endpoints.length === 0) throw new TypeError('DNS over HTTPS wants at least one endpoint')
  const servers = endpoints.map((endpoint) => new URL(endpoint).href)
  const cache = new Map<string, { values: readonly string[]; untilMs: number }>()
  let first = 0

  function remember(key: string, values: readonly string[], ttlMs: number): void {
    if (ttlMs <= 0 || cacheEntries === 0) return
    cache.delete(key)
    cache.set(key, { values, untilMs: env.clock.now() + Math.min(ttlMs, maxTtlMs) })
    const [oldest] = cache.keys()
    if (cache.size > cacheEntries && oldest !== undefined) cache.delete(oldest)
  }

  async function from(server: string, name: string, type: RecordType, signal: AbortSignal): Promise<readonly string[]> {
    const url = new URL(server)
    url.searchParams.set('dns', encodeBase('base64url', encodeQuery(name, type)))
    const controller = new AbortController()
    const cut = (): void => controller.abort(asError(signal.reason))
    signal.addEventListener('abort', cut, { once: true })
    const late = new UnavailableError('unreachable', `no answer in ${serverTimeoutMs} ms`)
    const timer = env.clock.setTimer(serverTimeoutMs, () => controller.abort(late))
    try {
      const response = await ask(url, { headers: { accept: mediaType }, signal: controller.signal })
      const kind = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase()
      if (!response.ok || kind !== mediaType) {
        await response.body?.cancel()
        throw new ProtocolError('bad-message', `HTTP ${response.status}, ${kind ?? 'no type'}, want ${mediaType}`)
      }
      const { values, ttlSeconds } = decodeAnswer(await body(response, maxAnswerBytes), name, type)
      remember(`${type} ${name.toLowerCase()}`, values, ttlSeconds * 1000)
      return values
    } finally {
      timer.cancel()
      signal.removeEventListener('abort', cut)
    }
  }

  async function resolve(name: string, type: RecordType, signal: AbortSignal): Promise<readonly string[]> {
    signal.throwIfAborted()
    const known = cache.get(`${type} ${name.toLowerCase()}`)
    if (known !== undefined && known.untilMs > env.clock.now()) return known.values
    const tried: Attempt[] = []
    for (let i = 0; i < servers.length; i++) {
      const at = (first + i) % servers.length
      const server = servers[at] ?? ''
      try {
        const values = await from(server, name, type, signal)
        first = at
        return values
      } catch (error) {
        signal.throwIfAborted()
        tried.push({ what: server, reason: asError(error) })
      }
    }
    throw new UnavailableError('unreachable', `the name ${name} cannot be looked up over HTTPS`, tried)
  }

  return {
    resolve4: (name, { signal }) => resolve(name, recordTypes.A, signal),
    resolve6: (name, { signal }) => resolve(name, recordTypes.AAAA, signal),
    resolveTxt: (name, { signal }) => resolve(name, recordTypes.TXT, signal),
  }
}
