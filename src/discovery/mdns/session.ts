/*
 * Multicast DNS as libp2p uses it (discovery/mdns.md 1A r2; RFC 6762), without sockets: when to ask and to answer, and
 * whom the others name. Packets and time in; packets and peers out. Whatever a neighbour sends, memory stays bounded, at
 * most one answer a second goes out, and what it names is reported once a minute.
 * Left out: probing (names are random), and answers to one asker alone (§5.4, §6.7: anybody could be sent them).
 */
import { recordTypes } from '../../dns.ts'
import { ProtocolError } from '../../errors.ts'
import { isLinkLocal, isLoopback, isUnspecified } from '../../ip.ts'
import { hostPort, ipOf, multiaddr, type Multiaddr } from '../../multiaddr.ts'
import type { PeerId } from '../../peer/id.ts'
import { decodeMessage, encodeMessage, type MdnsMessage, type Resource } from './wire.ts'

export interface MdnsTuning {
  /** Default `_p2p._udp.local`; private networks have their own (`_p2p-<fingerprint>._udp.local`). */
  service?: string
  /** Between two questions, once the first few are asked. Default 60 s. */
  queryMs?: number
  /** Peers remembered. Default 256. */
  maxPeers?: number
  /** Of one sender. Default 16. */
  maxPeersPerSender?: number
  /** Packets read in a second. Default 200. */
  maxPacketsPerSecond?: number
  /** Also announces and takes addresses of the machine itself. Default false. */
  loopback?: boolean
}

const defaults = {
  service: '_p2p._udp.local',
  queryMs: 60_000,
  maxPeers: 256,
  maxPeersPerSender: 16,
  maxPacketsPerSecond: 200,
  loopback: false as boolean,
}

export const mdnsPort = 5353
/** What fits into a packet on any link, behind the headers of IPv6 and UDP. */
const packetBytes = 1_400
/** RFC 6762 §10 wants 75 minutes for what does not name a host; js-libp2p and go-libp2p say two. */
const ttlSeconds = 120
const maxTtlMs = 75 * 60_000
const firstQueryMs = 1_000
/** §6: a record is multicast at most once a second. */
const answerEveryMs = 1_000
const reportEveryMs = 60_000
const addrsPerPeer = 16
const prefix = 'dnsaddr='
/** A string of a TXT record has 255 bytes; the prefix and /p2p with the longest id want their part. */
const maxAddrLength = 180

export interface NamedPeer {
  peer: PeerId
  /** Without /p2p. */
  addrs: readonly Multiaddr[]
}

interface Entry extends NamedPeer {
  instance: string
  sender: string
  expiresAt: number
  reportedAt: number
}

export interface Sender {
  address: string
  port: number
}

function parsed(text: string): Multiaddr | undefined {
  try {
    return multiaddr(text)
  } catch {
    // Neighbours may say anything.
    return undefined
  }
}

export class MdnsSession {
  readonly #self: string
  readonly #instance: string
  readonly #host: string
  readonly #options: typeof defaults
  readonly #unit: () => number
  readonly #entries = new Map<string, Entry>()
  readonly #found: NamedPeer[] = []
  readonly #out: Uint8Array[] = []
  #addrs: readonly Multiaddr[] = []
  #queryAt = Infinity
  #queryWaitMs = firstQueryMs
  #answerAt = Infinity
  #answeredAt = -Infinity
  #packets = 0
  #secondAt = -Infinity
  /** Packets that were not read, as they came too fast, and that were no DNS. */
  dropped = 0
  refused = 0

  /** `name`: at least 32 random letters and digits. `unit` gives chance, in [0, 1). */
  constructor(self: PeerId, name: string, options: MdnsTuning, unit: () => number) {
    if (!/^[a-z0-9]{32,63}$/.test(name))
      throw new TypeError(`peer name ${JSON.stringify(name)}: want 32 to 63 of a-z0-9`)
    this.#options = { ...defaults, ...options }
    this.#self = self.toString()
    this.#instance = `${name}.${this.#options.service}`
    this.#host = `${name}.local`
    this.#unit = unit
  }

  start(now: number): void {
    this.#queryWaitMs = firstQueryMs
    this.#queryAt = now + this.#jitter()
  }

  /** Where we are, with or without our /p2p; when that changed, all hear of it. */
  announce(addrs: readonly Multiaddr[], now: number): void {
    const usable = addrs.map((addr) => addr.withoutPeer()).filter((addr) => this.#usable(addr))
    if (usable.map(String).join() === this.#addrs.map(String).join()) return
    this.#addrs = usable
    this.#scheduleAnswer(now)
  }

  get size(): number {
    return this.#entries.size
  }

  get deadline(): number {
    return Math.min(this.#queryAt, this.#answerAt)
  }

  tick(now: number): void {
    if (now >= this.#queryAt) {
      const question = { name: this.#options.service, type: recordTypes.PTR, unicast: false }
      this.#send({ response: false, questions: [question], answers: [], additionals: [] })
      this.#queryAt = now + this.#queryWaitMs
      // §5.2: at least twice as long each time
      this.#queryWaitMs = Math.min(this.#options.queryMs, 2 * this.#queryWaitMs)
      // mdns.md: who asks answers as well, so that those who only listen find it.
      this.#scheduleAnswer(now)
      for (const [key, { expiresAt }] of this.#entries) if (expiresAt <= now) this.#entries.delete(key)
    }
    if (now >= this.#answerAt) {
      this.#answerAt = Infinity
      this.#answeredAt = now
      const answer = this.#answer()
      if (answer !== undefined) this.#out.push(answer)
    }
  }

  /** The next packet to multicast. */
  transmit(): Uint8Array | undefined {
    return this.#out.shift()
  }

  /** The next peer that was named. */
  next(): NamedPeer | undefined {
    return this.#found.shift()
  }

  /** §10.1: what we said is over. */
  goodbye(): Uint8Array | undefined {
    return this.#addrs.length === 0 ? undefined : encodeMessage(this.#response([this.#pointer(0)], []))
  }

  receive(packet: Uint8Array, from: Sender, now: number): void {
    if (now - this.#secondAt >= 1_000) {
      this.#secondAt = now
      this.#packets = 0
    }
    if (++this.#packets > this.#options.maxPacketsPerSecond) {
      this.dropped++
      return
    }
    let message: MdnsMessage
    try {
      message = decodeMessage(packet)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.refused++
      return
    }
    if (!message.response) this.#asked(message, now)
    // §6: answers from another port are ignored
    else if (from.port === mdnsPort) this.#answered(message, from.address, now)
  }

  #jitter(): number {
    // §6: 20 to 120 ms, so that not all speak at once
    return 20 + 100 * this.#unit()
  }

  #scheduleAnswer(now: number): void {
    const at = Math.max(now + this.#jitter(), this.#answeredAt + answerEveryMs)
    this.#answerAt = Math.min(this.#answerAt, at)
  }

  #asked({ questions, answers }: MdnsMessage, now: number): void {
    const { service, queryMs } = this.#options
    const { PTR, TXT, SRV, A, AAAA, ANY } = recordTypes
    const wanted = questions.some(
      ({ name, type }) =>
        (name === service && (type === PTR || type === ANY)) ||
        (name === this.#instance && (type === TXT || type === SRV || type === ANY)) ||
        (name === this.#host && (type === A || type === AAAA || type === ANY)),
    )
    if (!wanted) return
    // §7.3: who else asks asks for us too. The first questions are our own.
    if (this.#queryWaitMs >= queryMs && answers.length === 0) this.#queryAt = now + queryMs
    // §7.1: the asker knows us
    const known = answers.some(
      (a) => a.type === 'PTR' && a.target === this.#instance && a.ttlSeconds >= ttlSeconds / 2 && a.name === service,
    )
    if (!known) this.#scheduleAnswer(now)
  }

  #answered({ answers, additionals }: MdnsMessage, sender: string, now: number): void {
    const { service } = this.#options
    for (const record of [...answers, ...additionals]) {
      if (record.type === 'PTR' && record.name === service && record.ttlSeconds === 0) {
        for (const [key, entry] of this.#entries) {
          if (entry.instance === record.target && entry.sender === sender) this.#entries.delete(key)
        }
      }
    }
    const named = new Map<string, Entry>()
    for (const record of [...answers, ...additionals]) {
      if (record.type !== 'TXT' || record.ttlSeconds === 0 || !record.name.endsWith(`.${service}`)) continue
      const expiresAt = now + Math.min(maxTtlMs, record.ttlSeconds * 1_000)
      for (const text of record.strings) this.#read(text, named, { instance: record.name, sender, expiresAt })
    }
    for (const [key, entry] of named) this.#note(key, entry, now)
  }

  #read(text: string, named: Map<string, Entry>, of: Pick<Entry, 'instance' | 'sender' | 'expiresAt'>): void {
    if (!text.startsWith(prefix)) return
    const full = parsed(text.slice(prefix.length))
    const peer = full?.peerId()
    const addr = full?.withoutPeer()
    if (peer === undefined || addr === undefined || !this.#usable(addr)) return
    const key = peer.toString()
    if (key === this.#self) return
    const entry = named.get(key)
    if (entry === undefined && named.size >= this.#options.maxPeersPerSender) return
    const addrs = entry?.addrs ?? []
    if (addrs.length >= addrsPerPeer || addrs.some((a) => a.equals(addr))) return
    named.set(key, { ...of, peer, addrs: [...addrs, addr], reportedAt: -Infinity })
  }

  #note(key: string, entry: Entry, now: number): void {
    const before = this.#entries.get(key)
    const same = before !== undefined && before.addrs.map(String).join() === entry.addrs.map(String).join()
    // Two senders that quarrel about a peer are not worth more than others.
    const report = before === undefined || now - before.reportedAt >= (same ? reportEveryMs : answerEveryMs)
    this.#entries.delete(key)
    this.#makeRoom(entry.sender)
    this.#entries.set(key, { ...entry, reportedAt: report ? now : before.reportedAt })
    if (report && this.#found.length < this.#options.maxPeers)
      this.#found.push({ peer: entry.peer, addrs: entry.addrs })
  }

  /** A sender has its share; when all is full, the oldest of whoever has most goes. */
  #makeRoom(sender: string): void {
    const { maxPeers, maxPeersPerSender } = this.#options
    const counts = new Map<string, number>()
    for (const entry of this.#entries.values()) counts.set(entry.sender, (counts.get(entry.sender) ?? 0) + 1)
    let from: string | undefined
    if ((counts.get(sender) ?? 0) >= maxPeersPerSender) from = sender
    else if (this.#entries.size >= maxPeers) from = [...counts].toSorted(([, a], [, b]) => b - a)[0]?.[0]
    if (from === undefined) return
    for (const [key, entry] of this.#entries) {
      if (entry.sender !== from) continue
      this.#entries.delete(key)
      return
    }
  }

  /** mdns.md: neither loopback nor relayed addresses; names are others' business, link-local ones lack their zone. */
  #usable(addr: Multiaddr): boolean {
    const text = addr.toString()
    if (!/^\/ip[46]\//.test(text) || text.includes('/p2p-circuit')) return false
    if (text.length > maxAddrLength) return false
    const ip = hostPort(addr) && ipOf(addr)
    if (ip === undefined || isUnspecified(ip) || (isLinkLocal(ip) && ip.length === 16)) return false
    return this.#options.loopback || !isLoopback(ip)
  }

  #pointer(ttl: number): Resource {
    return { name: this.#options.service, type: 'PTR', ttlSeconds: ttl, flush: false, target: this.#instance }
  }

  #response(answers: readonly Resource[], additionals: readonly Resource[]): MdnsMessage {
    return { response: true, questions: [], answers, additionals }
  }

  /** With as many addresses as fit into one packet. */
  #answer(): Uint8Array | undefined {
    const texts = this.#addrs.map((addr) => `${prefix}${addr}/p2p/${this.#self}`).filter((text) => text.length <= 255)
    for (let count = Math.min(texts.length, addrsPerPeer); count > 0; count--) {
      const owner = { ttlSeconds, flush: true }
      const ips = new Set(this.#addrs.slice(0, count).map((addr) => hostPort(addr)?.host ?? ''))
      const port = hostPort(this.#addrs[0] as Multiaddr)?.port ?? 0
      const packet = encodeMessage(
        this.#response(
          [this.#pointer(ttlSeconds)],
          [
            { ...owner, name: this.#instance, type: 'TXT', strings: texts.slice(0, count) },
            // RFC 6763 §5; libp2p reads the TXT record alone, other software wants these.
            { ...owner, name: this.#instance, type: 'SRV', target: this.#host, port },
            ...Array.from(ips, (address): Resource => {
              const type = address.includes(':') ? 'AAAA' : 'A'
              return { name: this.#host, type, address, ttlSeconds, flush: true }
            }),
          ],
        ),
      )
      if (packet.length <= packetBytes) return packet
    }
    return undefined
  }

  #send(message: MdnsMessage): void {
    this.#out.push(encodeMessage(message))
  }
}
