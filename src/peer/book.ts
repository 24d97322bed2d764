/*
 * The address book: where peers say, or are said, to be. Certified addresses come from records that the peer has signed;
 * a newer record evicts what the older one and others said. Our own record is pinned: nobody else can change it.
 * Bounded per peer and in all. Peers that are not connected make room, first those that never were.
 * No timers: what has expired is left out when it is asked for, and makes room first.
 */
import { equals } from '../bytes.ts'
import type { Crypto } from '../crypto/crypto.ts'
import type { Env } from '../env.ts'
import { ProtocolError } from '../errors.ts'
import type { Multiaddr } from '../multiaddr.ts'
import { openPeerRecord, sealPeerRecord, type PeerRecord } from './envelope.ts'
import type { PeerId } from './id.ts'
import type { PrivateKey } from './keys.ts'

/** Milliseconds that an address is kept (go-libp2p core/peerstore); while its peer is connected, none expires. */
export const addressTtlMs = {
  /** What somebody said of a peer (AddressTTL). */
  told: 60 * 60_000,
  /** TempAddrTTL. */
  temporary: 2 * 60_000,
  /** After the last connection is gone (RecentlyConnectedAddrTTL). */
  recentlyConnected: 15 * 60_000,
  permanent: Infinity,
} as const

/** Addresses of one peer (go-libp2p defaultMaxAddrsPerPeer), and their bytes. */
const maxAddrsPerPeer = 64
const maxBytesPerPeer = 8 * 1024

export interface AddressBookOptions {
  env: Env
  /** What verifies records; default the platform's. */
  crypto?: Crypto
  /** Addresses of all peers that are not connected. Default 4,096. */
  maxUnconnectedAddrs?: number
  /** Bytes of the signed records of all peers that are not connected. Default 2 MiB. */
  maxRecordBytes?: number
}

const defaults = { maxUnconnectedAddrs: 4096, maxRecordBytes: 2 * 1024 * 1024 }

export interface KnownAddr {
  /** Without /p2p. */
  readonly addr: Multiaddr
  /** In a record that the peer signed. */
  readonly certified: boolean
  /** Who said so: `record`, `identify`, `dial` (it worked), `user`, or a protocol's name. */
  readonly source: string
  /** Unix milliseconds; Infinity while the peer is connected. */
  readonly expiresAt: number
}

export interface AddOptions {
  /** Default an hour. */
  ttlMs?: number
  source: string
  /** What this source said before of the peer, and says no more, goes. */
  replace?: boolean
}

export interface ConsumeOptions {
  /** Default an hour. */
  ttlMs?: number
  /** Whose record it must be. */
  peer?: PeerId
  /** Which of its addresses are of use; default all. */
  accept?: (addr: Multiaddr) => boolean
}

/** All there is about one peer, to be stored. */
export interface SavedPeer {
  addrs: readonly KnownAddr[]
  record: { sealed: Uint8Array; seq: bigint } | undefined
  met: boolean
}

interface Known {
  readonly peer: PeerId
  readonly addrs: Map<string, KnownAddr>
  record: { sealed: Uint8Array; seq: bigint } | undefined
  connected: boolean
  /** We were connected once. */
  met: boolean
}

export class AddressBook {
  readonly self: PeerId
  /** Told after each change of a peer's entry, by whoever stores them. */
  onChange: ((peer: PeerId) => unknown) | undefined
  readonly #key: PrivateKey
  readonly #env: Env
  readonly #crypto: Crypto | undefined
  readonly #maxAddrs: number
  readonly #maxRecordBytes: number
  readonly #peers = new Map<string, Known>()
  /** Those not connected, in the order they have to go: never met, then met; the least recently touched first. */
  readonly #idle = [new Set<Known>(), new Set<Known>()] as const
  #idleAddrs = 0
  #idleBytes = 0
  #own: Known
  /** All that our record holds: it may have more addresses than are kept of a peer. */
  #sealed: ReadonlySet<string> | undefined
  #sealing: Promise<unknown> = Promise.resolve()

  constructor(key: PrivateKey, options: AddressBookOptions) {
    const { env, crypto, maxUnconnectedAddrs, maxRecordBytes } = { ...defaults, ...options }
    if (!(maxUnconnectedAddrs >= maxAddrsPerPeer) || !(maxRecordBytes >= 0)) {
      throw new RangeError(`maxUnconnectedAddrs is ${maxUnconnectedAddrs}, maxRecordBytes ${maxRecordBytes}: too few`)
    }
    this.#key = key
    this.self = key.publicKey.peerId
    this.#env = env
    this.#crypto = crypto
    this.#maxAddrs = maxUnconnectedAddrs
    this.#maxRecordBytes = maxRecordBytes
    this.#own = { peer: this.self, addrs: new Map(), record: undefined, connected: true, met: true }
  }

  /** Best first: certified, then those that are valid longest. */
  addrs(peer: PeerId): readonly KnownAddr[] {
    const known = this.#find(peer)
    if (known === undefined) return []
    const all = [...known.addrs.values()].map((a) => (known.connected ? lasting(a, Infinity) : a))
    return all.toSorted((a, b) => Number(b.certified) - Number(a.certified) || byExpiry(b, a))
  }

  /** The newest signed record of the peer, in its envelope: to be passed on. */
  record(peer: PeerId): Uint8Array | undefined {
    return this.#find(peer)?.record?.sealed
  }

  /** All with an address, ourselves not among them. */
  peers(): PeerId[] {
    return [...this.#peers.values()].flatMap(({ peer }) => (this.#find(peer) === undefined ? [] : [peer]))
  }

  /** Adds addresses that nobody signed, never shortens what is known; our own are not touched. */
  add(peer: PeerId, addrs: Iterable<Multiaddr>, { ttlMs = addressTtlMs.told, source, replace }: AddOptions): void {
    if (peer.equals(this.self)) return
    const known = this.#find(peer) ?? this.#make(peer)
    this.#change(known, () => {
      const said = new Set<string>()
      for (const addr of addrs) {
        if (said.size === maxAddrsPerPeer) break
        const text = this.#enter(known, addr, { certified: false, source, expiresAt: this.#now() + ttlMs })
        if (text !== undefined) said.add(text)
      }
      if (replace !== true) return
      for (const [text, a] of known.addrs) {
        if (!a.certified && a.source === source && !said.has(text)) known.addrs.delete(text)
      }
    })
  }

  /**
   * Takes a signed peer record in, whoever brought it: whether it is the newest now. A record of ourselves and one that
   * is not newer are not. Rejects as openPeerRecord does, and with ProtocolError `wrong-peer` for another peer's.
   */
  async consume(sealed: Uint8Array, options: ConsumeOptions = {}): Promise<boolean> {
    const { peer } = options
    const same = peer === undefined ? undefined : this.#find(peer)
    // What was verified before is not verified again.
    if (same?.record !== undefined && same !== this.#own && equals(same.record.sealed, sealed)) {
      this.#certify(same, { addrs: [...same.addrs.values()].filter((a) => a.certified).map((a) => a.addr) }, options)
      return true
    }
    const record = await openPeerRecord(sealed, this.#crypto)
    if (peer?.equals(record.peerId) === false)
      throw new ProtocolError('wrong-peer', `a record of ${record.peerId}, want one of ${peer}`)
    if (record.peerId.equals(this.self)) {
      this.#env.trace?.('book.own-record-refused', { seq: record.seq })
      return false
    }
    const known = this.#find(record.peerId)
    if (known?.record !== undefined) {
      if (known.record.seq > record.seq) return false
      if (known.record.seq === record.seq && !equals(known.record.sealed, sealed)) return false
    }
    const target = known ?? this.#make(record.peerId)
    this.#certify(target, record, options, { sealed: sealed.slice(), seq: record.seq })
    return true
  }

  #certify(
    known: Known,
    { addrs }: Pick<PeerRecord, 'addrs'>,
    { ttlMs = addressTtlMs.told, accept }: ConsumeOptions,
    record = known.record,
  ): void {
    this.#change(known, () => {
      if (record !== known.record) {
        // What a user said, and what has worked, may be true all the same.
        for (const [text, a] of known.addrs) {
          if (a.source === 'user' || a.source === 'dial') known.addrs.set(text, { ...a, certified: false })
          else known.addrs.delete(text)
        }
        known.record = record
      }
      for (const addr of addrs) {
        if (accept?.(addr) === false) continue
        this.#enter(known, addr, { certified: true, source: 'record', expiresAt: this.#now() + ttlMs })
      }
    })
  }

  /** While a peer is connected, its addresses don't expire and don't have to make room. */
  connected(peer: PeerId): void {
    if (peer.equals(this.self)) return
    const known = this.#find(peer) ?? this.#make(peer)
    this.#change(known, () => {
      known.connected = true
      known.met = true
    })
  }

  /** The last connection to the peer is gone. */
  disconnected(peer: PeerId): void {
    const known = this.#peers.get(peer.toString())
    if (known?.connected !== true) return
    this.#change(known, () => {
      known.connected = false
      const until = this.#now() + addressTtlMs.recentlyConnected
      for (const [text, a] of known.addrs) known.addrs.set(text, lasting(a, until))
    })
  }

  /** Forgets the peer's addresses and record; ourselves we do not forget. */
  delete(peer: PeerId): boolean {
    const known = this.#peers.get(peer.toString())
    if (known === undefined) return false
    this.#change(known, () => {
      known.addrs.clear()
      known.record = undefined
    })
    return true
  }

  /**
   * Our own record with these addresses: signed anew only when they are others than last time, with a number (nanoseconds
   * since 1970, as go-libp2p has it) above every earlier one. It is stored before anybody has it.
   */
  seal(addrs: readonly Multiaddr[]): Promise<Uint8Array> {
    const done = this.#sealing.then(() => this.#seal(addrs))
    this.#sealing = done.catch(() => undefined)
    return done
  }

  async #seal(addrs: readonly Multiaddr[]): Promise<Uint8Array> {
    const texts = new Set(addrs.map(String))
    const { record } = this.#own
    const last = this.#sealed ?? new Set(this.#own.addrs.keys())
    if (record !== undefined && texts.size === last.size && [...texts].every((text) => last.has(text)))
      return record.sealed
    const wall = BigInt(Math.floor(this.#now())) * 1_000_000n
    const seq = record === undefined || wall > record.seq ? wall : record.seq + 1n
    const sealed = await sealPeerRecord(this.#key, { seq, addrs })
    this.restore(this.self, {
      addrs: addrs.map((addr) => ({ addr, certified: true, source: 'record', expiresAt: Infinity })),
      record: { sealed, seq },
      met: true,
    })
    this.#sealed = texts
    await this.onChange?.(this.self)
    return sealed
  }

  /** What there is to store of a peer; of one that is connected its addresses with `connectedTtlMs` to live. */
  save(peer: PeerId, connectedTtlMs: number): SavedPeer | undefined {
    const known = this.#find(peer)
    if (known === undefined) return undefined
    const until = this.#now() + connectedTtlMs
    const shown = known.connected && known !== this.#own
    const addrs = [...known.addrs.values()].map((a) => (shown ? lasting(a, until) : a))
    return { addrs, record: known.record, met: known.met }
  }

  /** What was stored, in place of what is known of the peer. */
  restore(peer: PeerId, saved: SavedPeer): void {
    const own = peer.equals(this.self)
    const known = own ? this.#own : (this.#find(peer) ?? this.#make(peer))
    const change = (): void => {
      known.addrs.clear()
      known.record = saved.record
      known.met ||= saved.met
      for (const a of saved.addrs) this.#enter(known, a.addr, a)
    }
    if (own) change()
    else this.#change(known, change, false)
  }

  #now(): number {
    return this.#env.clock.wallTime()
  }

  #make(peer: PeerId): Known {
    return { peer, addrs: new Map(), record: undefined, connected: false, met: false }
  }

  /** Without what has expired; undefined when nothing is left. */
  #find(peer: PeerId): Known | undefined {
    if (peer.equals(this.self)) return this.#own
    const known = this.#peers.get(peer.toString())
    if (known === undefined || known.connected) return known
    const now = this.#now()
    let expired = false
    for (const a of known.addrs.values()) expired ||= a.expiresAt <= now
    if (!expired) return known
    const over = [...known.addrs].filter(([, a]) => a.expiresAt <= now)
    this.#change(known, () => {
      for (const [text] of over) known.addrs.delete(text)
    })
    return this.#peers.get(peer.toString())
  }

  /** Its text, or undefined when there is no room for it. */
  #enter(known: Known, given: Multiaddr, entry: Omit<KnownAddr, 'addr'>): string | undefined {
    const named = given.peerId()
    const addr = named === undefined ? given : given.withoutPeer()
    // Where another peer is, or two are named, this one is not (go-libp2p pstoremem).
    if (named?.equals(known.peer) === false || addr.peerId() !== undefined) return undefined
    const text = addr.toString()
    const old = known.addrs.get(text)
    if (old === undefined && addr.bytes.length === 0) return undefined
    if (old === undefined && !makeRoom(known.addrs, addr, entry.certified)) return undefined
    const expiresAt = Math.max(entry.expiresAt, old?.expiresAt ?? 0)
    const certified = entry.certified || old?.certified === true
    const source = old?.source === 'user' || (old?.certified === true && !entry.certified) ? old.source : entry.source
    known.addrs.set(text, { addr, certified, source, expiresAt })
    return text
  }

  /** Runs what changes an entry, keeps the sums, and lets others make room for it. */
  #change(known: Known, work: () => void, tell = true): void {
    this.#take(known)
    work()
    const name = known.peer.toString()
    if (known.addrs.size === 0 && !known.connected) this.#peers.delete(name)
    else {
      this.#peers.set(name, known)
      this.#give(known)
    }
    if (tell) this.#tell(known.peer)
    while (this.#idleAddrs > this.#maxAddrs || this.#idleBytes > this.#maxRecordBytes) {
      const [first] = this.#idle[0].size > 0 ? this.#idle[0] : this.#idle[1]
      if (first === undefined) return
      this.#take(first)
      this.#peers.delete(first.peer.toString())
      this.#tell(first.peer)
    }
  }

  #tell(peer: PeerId): void {
    void this.onChange?.(peer)
  }

  #take(known: Known): void {
    if (!this.#idle[0].delete(known) && !this.#idle[1].delete(known)) return
    this.#idleAddrs -= known.addrs.size
    this.#idleBytes -= known.record?.sealed.length ?? 0
  }

  #give(known: Known): void {
    if (known.connected) return
    const kept = known.met || [...known.addrs.values()].some((a) => a.expiresAt === Infinity)
    this.#idle[kept ? 1 : 0].add(known)
    this.#idleAddrs += known.addrs.size
    this.#idleBytes += known.record?.sealed.length ?? 0
  }
}

/** The same address, valid at least until then. */
function lasting(a: KnownAddr, expiresAt: number): KnownAddr {
  return a.expiresAt >= expiresAt ? a : { ...a, expiresAt }
}

function byExpiry(a: KnownAddr, b: KnownAddr): number {
  return a.expiresAt === b.expiresAt ? 0 : a.expiresAt - b.expiresAt
}

/** Whether there is room for one more; what is neither certified nor lasting goes for it, the next to expire first. */
function makeRoom(addrs: Map<string, KnownAddr>, addr: Multiaddr, certified: boolean): boolean {
  const full = (): boolean => {
    let bytes = addr.bytes.length
    for (const a of addrs.values()) bytes += a.addr.bytes.length
    return addrs.size >= maxAddrsPerPeer || bytes > maxBytesPerPeer
  }
  while (full()) {
    const rest = [...addrs].filter(([, a]) => !a.certified && (certified || a.expiresAt < Infinity))
    const [least] = rest.toSorted(([, a], [, b]) => byExpiry(a, b))
    if (least === undefined) return false
    addrs.delete(least[0])
  }
  return true
}
