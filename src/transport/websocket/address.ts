/*
 * WebSocket addresses (libp2p websockets 3A r0, 2024-10-23): a host, /tcp/N or nothing (80, with TLS 443), then /ws,
 * /tls/ws, /tls/sni/NAME/ws or /wss (the older way to write /tls/ws), then /http-path where it is not the root.
 */
import { leadingHost, multiaddr, type HostPort, type Multiaddr } from '../../multiaddr.ts'

export interface Target {
  /** An IP address (with `%zone` where the address has one) or a DNS name. */
  readonly host: string
  readonly port: number
  readonly family: HostPort['family']
  readonly secure: boolean
  /** What the certificate and the Host header are about: /sni, else the DNS name; undefined with a bare IP address. */
  readonly name: string | undefined
  /** Percent-encoded, from the slash on. */
  readonly path: string
  /** What follows host and port. */
  readonly suffix: Multiaddr
}

/** A multiaddr's name may hold more than a URL's host: none of it may pass for a user, a port or a path there. */
const isHostName = (name: string): boolean => /^[\p{L}\p{N}._-]+$/u.test(name)

/** Undefined where the address is not that of a WebSocket and nothing more (a /p2p at the end aside). */
export function target(addr: Multiaddr): Target | undefined {
  const at = leadingHost(addr.withoutPeer())
  if (at === undefined) return undefined
  const { host, family } = at
  const all = [...at.rest]
  const tcp = all[0]?.name === 'tcp' ? all.shift() : undefined
  const names = all.map(({ name }) => name).join('/')
  const form = /^(ws|wss|tls\/ws|tls\/sni\/ws)(\/http-path)?$/.exec(names)
  if (form === null) return undefined
  const secure = form[1] !== 'ws'
  const sni = all.find((part) => part.name === 'sni')?.value
  const path = all.find((part) => part.name === 'http-path')?.value
  const name = sni ?? (typeof family === 'string' ? host : undefined)
  if (name !== undefined && !isHostName(name)) return undefined
  return {
    host,
    port: tcp?.value === undefined ? (secure ? 443 : 80) : Number(tcp.value),
    family,
    secure,
    name,
    path: path === undefined ? '/' : canonicalPath(`/${path.replaceAll(/%2f/gi, '/')}`),
    suffix: multiaddr(
      `${secure ? '/tls' : ''}${sni === undefined ? '' : `/sni/${sni}`}/ws${path === undefined ? '' : `/http-path/${path}`}`,
    ),
  }
}

/** One way to write each path, so that those of an address and of a request can be compared. */
export function canonicalPath(path: string): string {
  try {
    return path.split('/').map(decodeURIComponent).map(encodeURIComponent).join('/').replace(/^\/+/, '/')
  } catch {
    return path
  }
}

/** Where HTTP finds it. A zone does not belong into a URL; with SNI the name stands for the address. */
export function url({ host, port, family, secure, name, path }: Target): string {
  const ip = host.replace(/%.*/, '')
  return `${secure ? 'wss' : 'ws'}://${name ?? (family === 6 ? `[${ip}]` : ip)}:${port}${path}`
}
