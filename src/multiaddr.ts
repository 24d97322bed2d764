/*
 * multiaddr (multiformats/multiaddr 9b7b3fa, 2025-04-28): addresses that say their own protocols.
 * Two addresses are equal when their bytes are; text is only a way to write them.
 * The table of protocols is in multiaddr/protocols.ts, the reading and writing in multiaddr/codec.ts.
 */
import { equals } from './bytes.ts'
import { formatIp, mappedIp4, parseIp } from './ip.ts'
import { component, decodeComponents, encodeComponents, formatComponents, parseComponents } from './multiaddr/codec.ts'
import type { Component } from './multiaddr/codec.ts'
import { protocolByName } from './multiaddr/protocols.ts'
import { PeerId } from './peer/id.ts'

export type { Component } from './multiaddr/codec.ts'
export { multiaddrBytes, multiaddrComponents } from './multiaddr/codec.ts'

/** An address. Immutable. Only decapsulate and withoutPeer can make an empty one, printed as `/`. */
export class Multiaddr {
  /** Canonical: what goes over the wire and what equals compares. Do not change them. */
  readonly bytes: Uint8Array
  readonly #components: readonly Component[]
  #text: string | undefined
  #peer: PeerId | undefined

  private constructor(components: readonly Component[]) {
    this.#components = components
    this.bytes = encodeComponents(components)
  }

  /** From a user's text. Throws TypeError that names the component and its position. */
  static parse(text: string): Multiaddr {
    return new Multiaddr(parseComponents(text))
  }

  /** From a peer's bytes. Throws ProtocolError `bad-multiaddr`. The bytes are copied. */
  static decode(bytes: Uint8Array): Multiaddr {
    return new Multiaddr(decodeComponents(bytes))
  }

  /** Of components that are good; they are not looked at. */
  static of(components: readonly Component[]): Multiaddr {
    return new Multiaddr(components)
  }

  toString(): string {
    return (this.#text ??= formatComponents(this.#components))
  }

  components(): readonly Component[] {
    return this.#components
  }

  equals(other: Multiaddr): boolean {
    return this === other || equals(this.bytes, other.bytes)
  }

  /** This address, then `other`: `/ip4/1.2.3.4` and `/tcp/80` give `/ip4/1.2.3.4/tcp/80`. */
  encapsulate(other: Multiaddr | string): Multiaddr {
    return new Multiaddr([...this.#components, ...multiaddr(other).#components])
  }

  /**
   * Cuts the last occurrence of `part` and what follows; the address itself where it does not occur.
   * `part` is a protocol's name (`p2p`) or an address (`/p2p-circuit`, a Multiaddr).
   */
  decapsulate(part: Multiaddr | string): Multiaddr {
    const all = this.#components
    if (typeof part === 'string' && !part.startsWith('/')) {
      const code = codeOf(part)
      const at = all.findLastIndex((component) => component.code === code)
      return at === -1 ? this : new Multiaddr(all.slice(0, at))
    }
    const tail = multiaddr(part).#components
    for (let at = all.length - tail.length; at >= 0 && tail.length > 0; at--) {
      if (tail.every((component, i) => same(component, all[at + i]))) return new Multiaddr(all.slice(0, at))
    }
    return this
  }

  /** The peer the address leads to: that of the last /p2p; undefined where a /p2p-circuit without target follows it. */
  peerId(): PeerId | undefined {
    const last = this.#components.findLast(({ name }) => name === 'p2p' || name === 'p2p-circuit')
    return last?.name === 'p2p' ? (this.#peer ??= PeerId.decode(last.bytes)) : undefined
  }

  /** The same address for this peer: /p2p/id at the end, in the place of another peer's if there is one. */
  withPeer(id: PeerId): Multiaddr {
    return this.peerId()?.equals(id) === true ? this : this.withoutPeer().encapsulate(`/p2p/${id.toString()}`)
  }

  /** Without the /p2p at the end; a relay's /p2p before /p2p-circuit stays. */
  withoutPeer(): Multiaddr {
    return this.#components.at(-1)?.name === 'p2p' ? new Multiaddr(this.#components.slice(0, -1)) : this
  }

  /** Throws TypeError for a name that no protocol has. */
  has(name: string): boolean {
    const code = codeOf(name)
    return this.#components.some((component) => component.code === code)
  }

  /** The first such component's value as text; undefined where there is none or it has no value. Throws like has. */
  value(name: string): string | undefined {
    const code = codeOf(name)
    return this.#components.find((component) => component.code === code)?.value
  }

  toJSON(): string {
    return this.toString()
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Multiaddr(${this.toString()})`
  }
}

function codeOf(name: string): number {
  const protocol = protocolByName(name)
  if (protocol === undefined) throw new TypeError(`${JSON.stringify(name)} is not the name of a multiaddr protocol`)
  return protocol.code
}

function same(a: Component, b: Component | undefined): boolean {
  return b !== undefined && a.code === b.code && equals(a.bytes, b.bytes)
}

/** Texts come again and again: with each stream and ping to a peer, and several times in a dial. The latest are kept. */
const maxRemembered = 64
const remembered = new Map<string, Multiaddr>()

/** From text (TypeError) or bytes (ProtocolError `bad-multiaddr`); a Multiaddr is returned as it is. */
export function multiaddr(input: string | Uint8Array | Multiaddr): Multiaddr {
  if (input instanceof Multiaddr) return input
  if (typeof input !== 'string') return Multiaddr.decode(input)
  let addr = remembered.get(input)
  if (addr !== undefined) return addr
  addr = Multiaddr.parse(input)
  const [oldest] = remembered.size < maxRemembered ? [] : remembered.keys()
  if (oldest !== undefined) remembered.delete(oldest)
  remembered.set(input, addr)
  return addr
}

/** From a user's text. Throws TypeError: `/ip4/1.2.3.999/tcp/1: component 1 "ip4": "1.2.3.999" is not an IPv4 address`. */
export function parseMultiaddr(text: string): Multiaddr {
  return Multiaddr.parse(text)
}

/** From a peer's bytes: at most 1024 bytes and 32 components. Throws ProtocolError `bad-multiaddr`. */
export function decodeMultiaddr(bytes: Uint8Array): Multiaddr {
  return Multiaddr.decode(bytes)
}

/** What a socket wants to know. */
export interface HostPort {
  /** An IP address (with `%zone` where the address has one) or a DNS name. */
  readonly host: string
  readonly port: number
  /** The IP version, or which records of the name to ask for: dns means both. */
  readonly family: 4 | 6 | 'dns' | 'dns4' | 'dns6'
  readonly network: 'tcp' | 'udp'
}

const families: Readonly<Record<string, HostPort['family']>> = {
  ip4: 4,
  ip6: 6,
  dns: 'dns',
  dns4: 'dns4',
  dns6: 'dns6',
}

/** Where the address starts with a host, that, and the components behind it. */
export function leadingHost(
  addr: Multiaddr,
): (Pick<HostPort, 'host' | 'family'> & { rest: readonly Component[] }) | undefined {
  const rest = [...addr.components()]
  const zone = rest[0]?.name === 'ip6zone' ? rest.shift() : undefined
  const host = rest.shift()
  const family = families[host?.name ?? '']
  if (host?.value === undefined || family === undefined || (zone !== undefined && family !== 6)) return undefined
  return { host: zone?.value === undefined ? host.value : `${host.value}%${zone.value}`, family, rest }
}

/** Where the address starts with a host and a tcp or udp port, those; what follows is not looked at. */
export function hostPort(addr: Multiaddr): HostPort | undefined {
  const at = leadingHost(addr)
  const port = at?.rest[0]
  if (at === undefined || port?.value === undefined || (port.name !== 'tcp' && port.name !== 'udp')) return undefined
  return { host: at.host, port: Number(port.value), family: at.family, network: port.name }
}

/** The first component but for the zone of an IPv6 address. */
export function hostComponent(addr: Multiaddr): Component | undefined {
  return addr.components().find(({ name }) => name !== 'ip6zone')
}

/** The IP address that the address starts with, of 4 or 16 bytes; also of a name that is one: /dns4/127.0.0.1. */
export function ipOf(addr: Multiaddr): Uint8Array | undefined {
  return parseIp(hostComponent(addr)?.value ?? '')
}

/**
 * The address of a socket: `host` is an IP address, with `%zone` or not. An IPv4-mapped IPv6 address, as dual-stack
 * sockets report it, becomes ip4. Throws TypeError.
 */
export function fromHostPort(host: string, port: number, network: 'tcp' | 'udp' = 'tcp'): Multiaddr {
  const [address = '', zone] = host.split('%', 2)
  const parsed = parseIp(address)
  if (parsed === undefined) throw new TypeError(`${JSON.stringify(host)} is not an IP address`)
  const ip = mappedIp4(parsed) ?? parsed
  if (zone !== undefined && ip.length === 16) {
    return Multiaddr.parse(`/ip6zone/${zone}/ip6/${formatIp(ip)}/${network}/${port}`)
  }
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new TypeError(`${port} is not a port`)
  return Multiaddr.of([
    component(ip.length === 4 ? 'ip4' : 'ip6', ip),
    component(network, Uint8Array.of(port >> 8, port)),
  ])
}
