/*
 * What sockets of the operating system say, for the transports that lie on them: its error codes as sentences that name
 * a remedy, and the addresses behind a wildcard. Node only.
 */
import { networkInterfaces } from 'node:os'
import { UnavailableError, asError, type Attempt } from '../errors.ts'
import { fromHostPort, type Multiaddr } from '../multiaddr.ts'
import { errno } from '../socket-wire.ts'

export { broken, errno } from '../socket-wire.ts'

export const dialProblems: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nothing listens there; check the port and that the peer runs',
  ECONNRESET: 'connection reset: something there accepts and hangs up; check the port',
  ETIMEDOUT: 'no answer: the host is down or a firewall drops the packets',
  EHOSTUNREACH: 'no route to the host; check the address and the network',
  ENETUNREACH: 'no route to that network from here; try an address of the other IP version',
  EADDRNOTAVAIL: 'this machine has no address or no free port to dial from',
  EINVAL: 'the system refuses this address; a link-local one needs its zone: /ip6zone/eth0/ip6/...',
  EACCES: 'the system forbids it; a firewall or sandbox is in the way',
  EPERM: 'the system forbids it; a firewall or sandbox is in the way',
  ENOTFOUND: 'the name does not exist; check its spelling',
  EAI_AGAIN: 'the name server does not answer; check the network',
  EMFILE: 'too many open files; raise `ulimit -n` or lower the number of connections',
}

export const listenProblems: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there; stop it, or choose another port (/tcp/0 takes a free one)',
  EADDRNOTAVAIL: 'no interface of this machine has that address; choose one of its own, or /ip4/0.0.0.0 for all',
  EACCES: 'not permitted; ports below 1024 need rights that this user does not have: choose a higher one',
  EAFNOSUPPORT: 'this machine does not speak that IP version; choose an address of the other one',
  EINVAL: 'the system refuses this address; a link-local one needs its zone: /ip6zone/eth0/ip6/...',
}

export const explain = (error: Error, problems: Readonly<Record<string, string>>): string =>
  problems[errno(error)] ?? error.message

export function unreachable(addr: Multiaddr, thrown: Error): UnavailableError {
  // A name with several addresses fails with one error for each.
  const errors: Error[] = thrown instanceof AggregateError ? thrown.errors.map(asError) : [thrown]
  const [first = thrown] = errors
  if (errors.length === 1) {
    return new UnavailableError('unreachable', `cannot reach ${addr}: ${explain(first, dialProblems)}`)
  }
  const tried = errors.map((error): Attempt => {
    const { address, port } = error as { address?: string; port?: number }
    return { what: `${address ?? addr} port ${port ?? '?'}`, reason: explain(error, dialProblems) }
  })
  return new UnavailableError('unreachable', `cannot reach ${addr}`, tried)
}

export const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::'

/** The addresses at which peers may find a socket bound to `host`; link-local ones mean nothing on another machine. */
export function reachable(host: string, family: string, port: number): Multiaddr[] {
  if (!isWildcard(host)) return [fromHostPort(host, port)]
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter((a) => a.family === family && !a.address.startsWith('fe80:'))
    .map((a) => fromHostPort(a.address, port))
}
