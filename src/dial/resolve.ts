/*
 * Names in addresses (multiaddr protocols/DNSADDR.md, DNS names of libp2p addressing 3A r0): /dns, /dns4 and /dns6
 * become /ip4 and /ip6, /dnsaddr the addresses in its TXT records. A server name that TLS or HTTP needs is kept.
 * Names may lead to private addresses, as in go-libp2p: names inside a network do, and whoever can announce such a name
 * can announce the address itself.
 */
import { deadline, raceAbort } from '../deadline.ts'
import type { Env } from '../env.ts'
import { UnavailableError, asError, type Attempt } from '../errors.ts'
import { parseIp4, parseIp6 } from '../ip.ts'
import { multiaddr, type Component, type Multiaddr } from '../multiaddr.ts'

/** Rejects when it can't tell; a name without such records has none: an empty list. */
export interface Resolver {
  resolve4(name: string, options: { signal: AbortSignal }): Promise<readonly string[]>
  resolve6(name: string, options: { signal: AbortSignal }): Promise<readonly string[]>
  /** The strings of each record joined. */
  resolveTxt(name: string, options: { signal: AbortSignal }): Promise<readonly string[]>
}

export interface ResolveOptions {
  resolver: Resolver
  env: Env
  signal: AbortSignal
  /** An address that is dialled by its name stays as it is. */
  asIs?: (addr: Multiaddr) => boolean
  /** dnsaddr records that lead to dnsaddr records. Default 4 (go-libp2p). */
  maxDepth?: number
  /** Addresses in the end. Default 100 (go-libp2p). */
  maxAddresses?: number
  /** Names looked up in all: a few records must not make many questions. Default 32. */
  maxNames?: number
  /** For one question. Default 5 s. */
  lookupTimeoutMs?: number
}

const defaults = { maxDepth: 4, maxAddresses: 100, maxNames: 32, lookupTimeoutMs: 5_000 }
/** Characters of a TXT record: more than the text of any address that we take. */
const txtLength = 4_096
/** TXT records that are looked at. */
const txtRecords = 1_000

const kinds: ReadonlySet<string> = new Set(['dns', 'dns4', 'dns6', 'dnsaddr'])

export function isName(addr: Multiaddr): boolean {
  return kinds.has(addr.components()[0]?.name ?? '')
}

const textOf = (components: readonly Component[]): string =>
  components.map(({ name, value }) => (value === undefined ? `/${name}` : `/${name}/${value}`)).join('')

/** The rest of an address behind a name, as it reads behind the name's IP address. */
function behind(name: string, components: readonly Component[]): string {
  // The server's certificate is for the name (libp2p WebSocket 3A r0): /wss and /tls/ws become /tls/sni/<name>/ws.
  const secure = components.findIndex((c) => c.name === 'wss' || c.name === 'tls')
  if (secure === -1 || components[secure + 1]?.name === 'sni') return textOf(components)
  const after = components.slice(secure + 1)
  const wss = components[secure]?.name === 'wss'
  if (!wss && !after.some((c) => c.name === 'ws' || c.name === 'http')) return textOf(components)
  return `${textOf(components.slice(0, secure))}/tls/sni/${name}${wss ? '/ws' : ''}${textOf(after)}`
}

class Resolution {
  readonly found = new Map<string, Multiaddr>()
  readonly failed: Attempt[] = []
  readonly #options: ResolveOptions & typeof defaults
  readonly #asked = new Map<string, Promise<readonly string[]>>()
  /** Addresses that were expanded: a record that leads back leads nowhere. */
  readonly #names = new Set<string>()

  constructor(options: ResolveOptions) {
    this.#options = { ...defaults, ...options }
  }

  async resolve(addr: Multiaddr, depth: number): Promise<void> {
    if (this.#options.asIs?.(addr) === true || !isName(addr)) {
      this.#add(addr)
      return
    }
    const text = String(addr)
    const { signal, maxNames } = this.#options
    if (this.#names.has(text)) return
    if (this.#names.size >= maxNames) {
      this.#fail(text, `more than ${maxNames} names to look up: the rest is left out`)
      return
    }
    this.#names.add(text)
    try {
      if (addr.components()[0]?.name === 'dnsaddr') await this.#records(addr, depth)
      else await this.#hosts(addr)
    } catch (error) {
      signal.throwIfAborted()
      this.#fail(text, asError(error))
    }
  }

  #fail(what: string, reason: Error | string): void {
    if (this.failed.length < this.#options.maxAddresses) this.failed.push({ what, reason })
  }

  #add(addr: Multiaddr): void {
    const text = String(addr)
    const { maxAddresses } = this.#options
    if (this.found.has(text) || this.found.size < maxAddresses) this.found.set(text, addr)
    else this.#fail(text, `more than ${maxAddresses} addresses: the rest is left out`)
  }

  async #hosts(addr: Multiaddr): Promise<void> {
    const [host, ...rest] = addr.components()
    const name = host?.value ?? ''
    const tail = behind(name, rest)
    const ask = async (family: 4 | 6): Promise<string[]> => {
      const isIp = family === 4 ? parseIp4 : parseIp6
      const hosts = (await this.#ask(family, name)).filter((ip) => isIp(ip) !== undefined)
      return hosts.slice(0, this.#options.maxAddresses).map((ip) => `/ip${family}/${ip}${tail}`)
    }
    const asked: Promise<string[]>[] = []
    if (host?.name !== 'dns4') asked.push(ask(6))
    if (host?.name !== 'dns6') asked.push(ask(4))
    const answers = await Promise.allSettled(asked)
    let failure: Error | undefined
    let count = 0
    for (const answer of answers) {
      if (answer.status === 'rejected') failure = asError(answer.reason)
      else for (const text of answer.value) count += this.#take(text) ? 1 : 0
    }
    if (count === 0) throw failure ?? new UnavailableError('not-found', `the name ${name} has no such address`)
  }

  async #records(addr: Multiaddr, depth: number): Promise<void> {
    const { maxDepth } = this.#options
    if (depth >= maxDepth) throw new UnavailableError('not-found', `more than ${maxDepth} dnsaddr records in a row`)
    const [host, ...suffix] = addr.components()
    const name = host?.value ?? ''
    const records = await this.#ask('txt', `_dnsaddr.${name}`)
    const wanted = textOf(suffix)
    const next: Multiaddr[] = []
    for (const record of records.slice(0, txtRecords)) {
      if (!record.startsWith('dnsaddr=/') || record.length > txtLength) continue
      const found = parsed(record.slice('dnsaddr='.length))
      const parts = found?.components() ?? []
      // DNSADDR.md: what does not end as the address we were given does is somebody else's.
      if (found === undefined || textOf(parts.slice(Math.max(0, parts.length - suffix.length))) !== wanted) continue
      if (next.length === this.#options.maxAddresses) break
      next.push(found)
    }
    if (next.length === 0) {
      const ending = wanted === '' ? '' : ` that ends in ${wanted}`
      throw new UnavailableError('not-found', `${name} has no dnsaddr record${ending}`)
    }
    await Promise.all(next.map((found) => this.resolve(found, depth + 1)))
  }

  #take(text: string): boolean {
    const found = parsed(text)
    if (found !== undefined) this.#add(found)
    return found !== undefined
  }

  /** One question for each name, however many addresses hold it. */
  #ask(what: 4 | 6 | 'txt', name: string): Promise<readonly string[]> {
    const key = `${what} ${name.toLowerCase()}`
    const answer = this.#asked.get(key) ?? this.#lookUp(what, name)
    this.#asked.set(key, answer)
    return answer
  }

  async #lookUp(what: 4 | 6 | 'txt', name: string): Promise<readonly string[]> {
    const { resolver, env, signal, lookupTimeoutMs } = this.#options
    const bound = deadline({ env, timeoutMs: lookupTimeoutMs, what: `looking up ${name}`, signal })
    const options = { signal: bound.signal }
    try {
      const asked =
        what === 'txt'
          ? resolver.resolveTxt(name, options)
          : what === 4
            ? resolver.resolve4(name, options)
            : resolver.resolve6(name, options)
      // A resolver that forgets its signal must not hold us.
      return await raceAbort(asked, bound.signal)
    } finally {
      bound.done()
    }
  }
}

function parsed(text: string): Multiaddr | undefined {
  try {
    return multiaddr(text)
  } catch {
    // Anybody may write anything into DNS: it is then not an address for us.
    return undefined
  }
}

/** The addresses without names, each once, and what could not be resolved. Rejects with signal.reason only. */
export async function resolve(
  addrs: readonly Multiaddr[],
  options: ResolveOptions,
): Promise<{ addrs: Multiaddr[]; failed: Attempt[] }> {
  const resolution = new Resolution(options)
  await Promise.all(addrs.map((addr) => resolution.resolve(addr, 0)))
  return { addrs: [...resolution.found.values()], failed: resolution.failed }
}
