/*
 * The system's resolver, on Node. Host names go the way of every program on the machine (hosts file, local names); TXT
 * records, for which there is no such way, straight to the name servers.
 */
import { lookup, Resolver as Servers } from 'node:dns/promises'
import { raceAbort } from '../deadline.ts'
import { UnavailableError, asError } from '../errors.ts'
import type { Resolver } from './resolve.ts'

export type { Resolver } from './resolve.ts'

const problems: Readonly<Record<string, string>> = {
  ENOTFOUND: 'does not exist; check its spelling',
  EAI_AGAIN: 'cannot be looked up: the name server does not answer; check the network',
  ECONNREFUSED: 'cannot be looked up: no name server listens there',
  ETIMEOUT: 'cannot be looked up: the name server does not answer; check the network',
}

function failed(name: string, thrown: unknown): UnavailableError {
  const error = asError(thrown)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.message
  return new UnavailableError('not-found', `the name ${name} ${problems[code] ?? `cannot be looked up: ${code}`}`)
}

/** It can't be called off: on abort its answer goes nowhere. */
async function hosts(name: string, family: 4 | 6, signal: AbortSignal): Promise<string[]> {
  try {
    const found = await raceAbort(lookup(name, { family, all: true }), signal)
    return found.map(({ address }) => address.replace(/%.*/, ''))
  } catch (error) {
    signal.throwIfAborted()
    throw failed(name, error)
  }
}

/** With `servers` (`127.0.0.1:5353`) every question goes to those. */
export function systemResolver(options: { servers?: readonly string[] } = {}): Resolver {
  const { servers: given } = options

  async function ask(
    name: string,
    signal: AbortSignal,
    question: (servers: Servers) => Promise<readonly string[]>,
  ): Promise<readonly string[]> {
    signal.throwIfAborted()
    const servers = new Servers()
    if (given !== undefined) servers.setServers(given)
    const cancel = (): void => servers.cancel()
    signal.addEventListener('abort', cancel, { once: true })
    try {
      return await question(servers)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof Error && 'code' in error && error.code === 'ENODATA') return []
      throw failed(name, error)
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  return {
    resolve4: (name, { signal }) =>
      given === undefined ? hosts(name, 4, signal) : ask(name, signal, (servers) => servers.resolve4(name)),
    resolve6: (name, { signal }) =>
      given === undefined ? hosts(name, 6, signal) : ask(name, signal, (servers) => servers.resolve6(name)),
    resolveTxt: (name, { signal }) =>
      ask(name, signal, async (servers) => (await servers.resolveTxt(name)).map((strings) => strings.join(''))),
  }
}
