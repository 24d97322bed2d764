/*
 * Peers on the same network by multicast DNS (discovery/mdns.md 1A r2), over UDP sockets: IPv4 and IPv6, every interface
 * that can multicast, also those that come later. Node only.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { networkInterfaces, type NetworkInterfaceInfo } from 'node:os'
import { sleep } from '../../deadline.ts'
import { UnavailableError, asError, type Attempt } from '../../errors.ts'
import { deferred, type Deferred } from '../../inbox.ts'
import { isLinkLocal, parseIp } from '../../ip.ts'
import type { Discovery, DiscoveryHost, Found } from '../discovery.ts'
import { MdnsSession, mdnsPort, type MdnsTuning } from './session.ts'

export interface MdnsOptions extends MdnsTuning {
  /** Names of interfaces (`eth0`); default all but loopback, which `loopback` adds. */
  interfaces?: readonly string[]
}

const groups = { IPv4: '224.0.0.251', IPv6: 'ff02::fb' } as const
type Family = keyof typeof groups

/** Interfaces come and go, and so do our addresses. */
const lookEveryMs = 15_000
/** Packets that wait for a slow interface. */
const maxWaiting = 16

function randomName(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => (byte % 36).toString(36)).join('')
}

/** Is `address` in the network of `own`? */
function isOnLink(address: Uint8Array, { cidr }: NetworkInterfaceInfo): boolean {
  const [host = '', bits = '0'] = (cidr ?? '').split('/')
  const own = parseIp(host)
  if (own?.length !== address.length) return false
  return own.every((byte, i) => {
    const mask = 0xff & (0xff << Math.max(0, 8 - Math.max(0, Number(bits) - 8 * i)))
    return ((byte ^ (address[i] ?? 0)) & mask) === 0
  })
}

/** One socket for a family, in the group on each interface. */
class Group {
  readonly socket: Socket
  readonly #family: Family
  readonly #joined = new Set<string>()
  readonly #trace: DiscoveryHost['env']['trace']
  #sending: Promise<void> = Promise.resolve()
  #waiting = 0

  private constructor(family: Family, trace: DiscoveryHost['env']['trace']) {
    this.#family = family
    this.#trace = trace
    // Other programs of this machine use the port as well.
    this.socket = createSocket(
      family === 'IPv4' ? { type: 'udp4', reuseAddr: true } : { type: 'udp6', reuseAddr: true, ipv6Only: true },
    )
  }

  static async open(
    family: Family,
    trace: DiscoveryHost['env']['trace'],
    onPacket: (packet: Uint8Array, from: RemoteInfo) => void,
  ): Promise<Group> {
    const group = new Group(family, trace)
    const { socket } = group
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ port: mdnsPort, address: family === 'IPv4' ? '0.0.0.0' : '::' }, () => {
        socket.off('error', reject)
        resolve()
      })
    }).catch((error: unknown) => {
      socket.close()
      throw error
    })
    socket.on('error', (error) => trace?.('mdns.socket-failed', { family, error }))
    socket.on('message', onPacket)
    socket.setMulticastLoopback(true)
    // RFC 6762 §11
    socket.setMulticastTTL(255)
    return group
  }

  /** Joins on these interfaces, as setMulticastInterface wants them; those that are gone are left. */
  join(interfaces: readonly string[]): void {
    for (const name of this.#joined) if (!interfaces.includes(name)) this.#joined.delete(name)
    for (const name of interfaces) {
      if (this.#joined.has(name)) continue
      try {
        this.socket.addMembership(groups[this.#family], name)
        this.#joined.add(name)
      } catch (error) {
        // It was joined before it went and came back.
        if (asError(error).message.includes('EADDRINUSE')) this.#joined.add(name)
        else this.#trace?.('mdns.join-failed', { interface: name, error })
      }
    }
  }

  get size(): number {
    return this.#joined.size
  }

  /** Never rejects. */
  send(packet: Uint8Array): Promise<void> {
    if (this.#waiting >= maxWaiting) return this.#sending
    this.#waiting++
    this.#sending = this.#sending.then(async () => {
      for (const name of this.#joined) await this.#sendOn(name, packet)
      this.#waiting--
    })
    return this.#sending
  }

  async #sendOn(name: string, packet: Uint8Array): Promise<void> {
    const sent = deferred<void>()
    try {
      // One after the other: the interface is the socket's, not the packet's.
      this.socket.setMulticastInterface(name)
      this.socket.send(packet, mdnsPort, groups[this.#family], (error) => {
        if (error === null) sent.resolve()
        else sent.reject(error)
      })
      await sent.promise
    } catch (error) {
      this.#trace?.('mdns.send-failed', { interface: name, error })
    }
  }

  async close(): Promise<void> {
    await this.#sending
    await new Promise<void>((resolve) => void this.socket.close(() => resolve()))
  }
}

class Mdns {
  readonly #host: DiscoveryHost
  readonly #options: MdnsOptions
  readonly #session: MdnsSession
  readonly #groups = new Map<Family, Group>()
  #wake: Deferred<void> = deferred()
  #addresses: NetworkInterfaceInfo[] = []

  constructor(host: DiscoveryHost, options: MdnsOptions) {
    this.#host = host
    this.#options = options
    const { random } = host.env
    this.#session = new MdnsSession(host.peerId, randomName(random.bytes(40)), options, () => random.unit())
  }

  get #now(): number {
    return this.#host.env.clock.now()
  }

  async open(): Promise<void> {
    const failures: Attempt[] = []
    for (const family of ['IPv4', 'IPv6'] as const) {
      try {
        const { trace } = this.#host.env
        this.#groups.set(family, await Group.open(family, trace, (packet, from) => this.#receive(packet, from)))
      } catch (error) {
        failures.push({ what: family, reason: asError(error) })
      }
    }
    this.#look()
    if ([...this.#groups.values()].every(({ size }) => size === 0)) {
      throw new UnavailableError('unsupported', 'no interface of this machine can multicast', failures)
    }
    this.#session.start(this.#now)
  }

  /** Which interfaces there are, and where we are. */
  #look(): void {
    const { interfaces, loopback = false } = this.#options
    const all = Object.entries(networkInterfaces()).filter(([name]) => interfaces?.includes(name) ?? true)
    const wanted = all.map(([name, addresses = []]) => ({
      name,
      addresses: addresses.filter(({ internal }) => !internal || loopback),
    }))
    this.#addresses = wanted.flatMap(({ addresses }) => addresses)
    const of = (family: Family, key: (name: string, address: string) => string): string[] => [
      ...new Set(
        wanted.flatMap(({ name, addresses }) =>
          addresses.filter((a) => a.family === family).map(({ address }) => key(name, address)),
        ),
      ),
    ]
    this.#groups.get('IPv4')?.join(of('IPv4', (_name, address) => address))
    this.#groups.get('IPv6')?.join(of('IPv6', (name) => `::%${name}`))
    this.#session.announce(this.#host.addrs(), this.#now)
  }

  #receive(packet: Uint8Array, { address, port }: RemoteInfo): void {
    // §11: whoever is not on this link has nothing to say
    const ip = parseIp(address.replace(/%.*/, ''))
    if (ip === undefined || !(isLinkLocal(ip) || this.#addresses.some((own) => isOnLink(ip, own)))) return
    this.#session.receive(packet, { address, port }, this.#now)
    this.#wake.resolve()
  }

  async *found(signal: AbortSignal): AsyncGenerator<Found, void, undefined> {
    let lookAt = this.#now + lookEveryMs
    while (!signal.aborted) {
      this.#wake = deferred()
      if (this.#now >= lookAt) {
        this.#look()
        lookAt = this.#now + lookEveryMs
      }
      this.#session.tick(this.#now)
      for (let packet = this.#session.transmit(); packet !== undefined; packet = this.#session.transmit()) {
        for (const group of this.#groups.values()) void group.send(packet)
      }
      for (let found = this.#session.next(); found !== undefined; found = this.#session.next()) yield found
      const untilMs = Math.max(0, Math.min(lookAt, this.#session.deadline) - this.#now)
      const over = new AbortController()
      const wait = sleep(this.#host.env, untilMs, AbortSignal.any([signal, over.signal])).catch(() => {})
      await Promise.race([wait, this.#wake.promise])
      over.abort(new Error('a packet came'))
      await wait
    }
  }

  async close(): Promise<void> {
    const goodbye = this.#session.goodbye()
    for (const group of this.#groups.values()) {
      if (goodbye !== undefined) void group.send(goodbye)
    }
    await Promise.all([...this.#groups.values()].map((group) => group.close()))
  }
}

/** Peers on the same link, found by asking and by listening; they find us as well. */
export function mdns(options: MdnsOptions = {}): Discovery {
  return {
    source: 'mdns',
    async *find(host, signal) {
      const running = new Mdns(host, options)
      try {
        await running.open()
        yield* running.found(signal)
      } finally {
        await running.close()
      }
    },
  }
}
