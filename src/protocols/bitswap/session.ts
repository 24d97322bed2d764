/*
 * The asking half of Bitswap: which block is asked of which peer, and when somebody else is asked. No socket, no clock,
 * no promise. A session is the memory of who had the blocks asked for together; all sessions share one set of wants.
 * How a want goes: want-block to the best peer, want-have to the others while nobody in the session has proven good;
 * on DONT_HAVE, silence or disconnect the next one; cancels to the others at receipt.
 */
import { ProtocolError, type Attempt } from '../../errors.ts'
import type { Ledger } from './ledger.ts'
import { FetchPeer, type Ask, type Session, type Want } from './session-peer.ts'
import type { WantlistMessage } from './wantlist.ts'
import { keyOf, multihashOf, type BitswapMessage, type ReceivedBlock } from './wire.ts'

export interface FetchOptions {
  /** A peer that says nothing useful for this long is not waited for: 10 s. Half of it, and another is asked as well. */
  peerTimeoutMs?: number
  /** Blocks asked of one peer at once, at most: 128. It starts with a quarter. */
  peerWindow?: number
  /** Bytes expected from one peer at once: 32 MiB, by the size of its blocks so far. */
  peerWindowBytes?: number
  /** Peers asked about one block at once: 16. */
  broadcast?: number
  /** Want-haves with one peer at once: 256 (with the window it stays below boxo's cap of 1,024). */
  peerHaves?: number
  /** A peer that sent what does not match is not asked for this long: 60 s. */
  banMs?: number
}

const defaults = {
  peerTimeoutMs: 10_000,
  peerWindow: 128,
  peerWindowBytes: 32 * 1024 * 1024,
  broadcast: 16,
  peerHaves: 256,
  banMs: 60_000,
} satisfies Required<FetchOptions>

/** Blocks that a peer may send beyond one per want before we cut it off. */
const unaskedBlocks = 256
/** Blocks and presences that nobody asked for, over a connection's life. */
const unaskedAnswers = 16_384
/** Wants that are over, remembered to tell a late block from a wrong one. */
const rememberedWants = 4096
const entriesPerMessage = 512

export type { Session } from './session-peer.ts'

export type FetchEvent =
  /** Open a stream for wants to this peer, then say ready() or gone(). */
  | { type: 'connect'; peer: string }
  /** transmit() has something for this peer. */
  | { type: 'send'; peer: string }
  /** The want is over. `data` shares memory with the frame. */
  | { type: 'block'; key: string; data: Uint8Array; peer: string }
  /** The want is over: all peers were tried. `reached`: at least one could be talked to. */
  | { type: 'unavailable'; key: string; tried: Attempt[]; reached: boolean }
  /** The peer broke the protocol; it is not asked for a while. */
  | { type: 'violation'; peer: string; error: ProtocolError }

export class Fetcher {
  readonly #options: Required<FetchOptions>
  readonly #hash: (code: number, data: Uint8Array) => Uint8Array | undefined
  readonly #wants = new Map<string, Want>()
  readonly #peers = new Map<string, FetchPeer>()
  readonly #events: FetchEvent[] = []
  #head = 0
  /** Wants that are over, in two generations: the older one goes as a whole. */
  #over = new Set<string>()
  #longOver = new Set<string>()
  #priority = 0x1f_ffff
  #tickAt = Infinity

  /** `hash` gives a digest, or undefined where the code is unknown. */
  constructor(hash: (code: number, data: Uint8Array) => Uint8Array | undefined, options: FetchOptions = {}) {
    this.#hash = hash
    this.#options = { ...defaults, ...options }
    for (const [name, value] of Object.entries(this.#options)) {
      if (!Number.isSafeInteger(value) || value < 1)
        throw new RangeError(`${name} is ${value}, want a whole number above 0`)
    }
  }

  /** CIDs of the wants under way. */
  wants(): Uint8Array[] {
    return Array.from(this.#wants.values(), (want) => want.cid)
  }

  sessionOf(key: string): Session | undefined {
    return this.#wants.get(key)?.session
  }

  get size(): number {
    return this.#wants.size
  }

  /** Clock time at which tick() is due; Infinity while nothing is wanted. */
  get deadline(): number {
    return this.#wants.size === 0 ? Infinity : this.#tickAt
  }

  next(): FetchEvent | undefined {
    const event = this.#events[this.#head]
    if (event === undefined) {
      this.#events.length = 0
      this.#head = 0
      return undefined
    }
    this.#head++
    return event
  }

  /** Asks `peers`, in order of preference, for a block; a want that is under way is joined. */
  want(key: string, cid: Uint8Array, session: Session, peers: readonly string[], now: number): void {
    let want = this.#wants.get(key)
    if (want === undefined) {
      if (this.#wants.size === 0) this.#tickAt = now + this.#checkMs
      this.#priority = this.#priority > 1 ? this.#priority - 1 : 0x1f_ffff
      const priority = this.#priority
      want = { key, cid, priority, session, asks: new Map(), spare: [], relied: 0, done: false }
      this.#wants.set(key, want)
      this.#over.delete(key)
      this.#longOver.delete(key)
    }
    for (const id of peers) {
      if (want.asks.size < this.#options.broadcast) this.#candidate(want, id, now)
      else if (!want.spare.includes(id)) want.spare.push(id)
    }
    this.#place(want, now)
  }

  /** Nobody waits for it any more. */
  cancel(key: string, now: number): void {
    const want = this.#wants.get(key)
    if (want === undefined) return
    const peers = [...want.asks.keys()]
    this.#finish(want, undefined)
    for (const peer of peers) this.#refill(peer, now)
  }

  get #checkMs(): number {
    return Math.max(1, Math.floor(this.#options.peerTimeoutMs / 20))
  }

  #peer(id: string): FetchPeer {
    let peer = this.#peers.get(id)
    if (peer === undefined) {
      peer = new FetchPeer(id, this.#options)
      this.#peers.set(id, peer)
    }
    return peer
  }

  #candidate(want: Want, id: string, now: number): void {
    const peer = this.#peer(id)
    if (want.asks.has(peer)) return
    const ask: Ask = {
      want,
      peer,
      state: 'waiting',
      askedAt: now,
      late: false,
      queued: false,
      reason: '',
      reached: false,
    }
    want.asks.set(peer, ask)
    if (peer.bannedUntil > now) {
      ask.state = 'no'
      ask.reason = peer.ban ?? ''
      ask.reached = true
      return
    }
    peer.asks.add(ask)
    this.#connect(peer)
  }

  #connect(peer: FetchPeer): void {
    if (peer.state !== 'idle') return
    peer.state = 'connecting'
    this.#events.push({ type: 'connect', peer: peer.id })
  }

  /** The stream for wants is open; `presences`: the peer speaks 1.2. */
  ready(id: string, presences: boolean, now: number): void {
    const peer = this.#peer(id)
    if (peer.state === 'ready') return
    peer.state = 'ready'
    peer.presences = presences
    peer.usefulAt = now
    for (const ask of peer.asks) if (!ask.want.done) this.#place(ask.want, now)
  }

  /** The peer cannot be reached, or the connection is lost (`again`: worth another try). */
  gone(id: string, reason: string, again: boolean, now: number): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    const reached = peer.state === 'ready'
    const retry = again && reached && peer.reconnects++ < 1
    peer.disconnect()
    const asks = [...peer.asks]
    for (const ask of asks) {
      this.#rest(ask)
      ask.state = 'waiting'
      if (!retry) this.#rule(ask, reason, reached)
    }
    if (retry && asks.length > 0) this.#connect(peer)
    // A ban outlives the connection, or a liar would only have to reconnect.
    else if (peer.bannedUntil <= now) this.#peers.delete(id)
    for (const ask of asks) if (!ask.want.done) this.#place(ask.want, now)
  }

  /** The ask no longer counts in its peer's window and its want relies on it no more. */
  #rest(ask: Ask): void {
    if (ask.state === 'asked-block') {
      ask.peer.blocks--
      if (!ask.late) ask.want.relied--
    } else if (ask.state === 'asked-have') {
      ask.peer.haves--
    }
    ask.late = false
  }

  /** Rules the peer out for this want. */
  #rule(ask: Ask, reason: string | ProtocolError, reached: boolean): void {
    this.#rest(ask)
    ask.state = 'no'
    ask.reason = reason
    ask.reached = reached
    ask.peer.asks.delete(ask)
    ask.peer.wantlist.cancel(ask.want.key)
    this.#announce(ask.peer)
  }

  #announce(peer: FetchPeer): void {
    if (peer.announced || peer.state !== 'ready' || !peer.wantlist.pending) return
    peer.announced = true
    this.#events.push({ type: 'send', peer: peer.id })
  }

  /** The next message of wants for a peer; undefined when it knows all. */
  transmit(id: string): WantlistMessage | undefined {
    const peer = this.#peers.get(id)
    if (peer === undefined || peer.state !== 'ready') return undefined
    const message = peer.wantlist.take(entriesPerMessage)
    if (message === undefined) peer.announced = false
    return message
  }

  /** Much came from the peer, though no message is complete: a large block on a slow line is no silence. */
  heard(id: string, now: number): void {
    const peer = this.#peers.get(id)
    if (peer !== undefined && peer.blocks > 0) peer.usefulAt = now
  }

  /** A message may be lost: the next one says everything again. */
  resync(id: string): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    peer.wantlist.resync()
    // Asked twice, answered twice.
    peer.credit += peer.wantlist.size
    this.#announce(peer)
  }

  /** 1: proven in this session or for this block; 0: unknown; -1: had others not. */
  #class(ask: Ask): number {
    return ask.state === 'have' ? 1 : Math.sign(ask.want.session.get(ask.peer.id) ?? 0)
  }

  /** Is `a` to be asked rather than `b`? Equals stay in the order in which they were named. */
  #better(a: Ask, b: Ask): boolean {
    const classA = this.#class(a)
    const classB = this.#class(b)
    const freeA = a.peer.free
    const freeB = b.peer.free
    // Who had nothing so far is not worth a question while others are only busy.
    if (classA !== classB && (classA < 0 || classB < 0)) return classA > classB
    if (freeA !== freeB) return freeA
    if (classA !== classB) return classA > classB
    const load = a.peer.blocks / a.peer.window - b.peer.blocks / b.peer.window
    return Math.abs(load) > 0.01 ? load < 0 : a.peer.rttMs < 0.8 * b.peer.rttMs
  }

  /** Sees to it that somebody is asked for the block, or that the want fails. */
  #place(want: Want, now: number): void {
    if (want.done) return
    if (want.relied > 0) {
      this.#spread(want, now)
      return
    }
    let best: Ask | undefined
    let hope = false
    for (const ask of want.asks.values()) {
      if (ask.state === 'no') continue
      hope = true
      const open = ask.state === 'waiting' || ask.state === 'have'
      if (open && ask.peer.state === 'ready' && (best === undefined || this.#better(ask, best))) best = ask
    }
    if (best !== undefined) {
      if (best.peer.free) this.#askBlock(best, now)
      else for (const ask of want.asks.values()) this.#enqueue(ask)
      this.#spread(want, now)
    } else if (!hope) {
      const id = want.spare.shift()
      if (id === undefined) {
        this.#fail(want)
      } else {
        this.#candidate(want, id, now)
        this.#place(want, now)
      }
    }
  }

  /** While nobody who is asked for the block has proven good, the others are asked whether they have it. */
  #spread(want: Want, now: number): void {
    if (want.asks.size < 2) return
    for (const ask of want.asks.values()) {
      if (ask.state === 'asked-block' && !ask.late && this.#class(ask) > 0) return
    }
    for (const ask of want.asks.values()) this.#askHave(ask, now)
  }

  #enqueue(ask: Ask): void {
    const { peer } = ask
    if (peer.state === 'ready' && (ask.state === 'waiting' || ask.state === 'have')) peer.enqueue(ask)
  }

  #askBlock(ask: Ask, now: number): void {
    const { peer, want } = ask
    ask.state = 'asked-block'
    ask.askedAt = now
    ask.late = false
    ask.reached = true
    // Silence counts from the first question.
    if (peer.blocks === 0) peer.usefulAt = now
    peer.blocks++
    peer.credit++
    want.relied++
    peer.wantlist.want(want.key, want.cid, 'block', want.priority)
    this.#announce(peer)
  }

  #askHave(ask: Ask, now: number): void {
    const { peer, want } = ask
    if (ask.state !== 'waiting' || peer.state !== 'ready' || !peer.presences || ask.queued) return
    if (peer.haves >= this.#options.peerHaves) return
    ask.state = 'asked-have'
    ask.askedAt = now
    ask.reached = true
    peer.haves++
    // A small block may come at once instead of HAVE.
    peer.credit++
    peer.wantlist.want(want.key, want.cid, 'have', want.priority)
    this.#announce(peer)
  }

  /** Asks a peer whose window has room for what waits for it. */
  #refill(peer: FetchPeer, now: number): void {
    while (peer.free) {
      const ask = peer.dequeue()
      if (ask === undefined) return
      const open = ask.state === 'waiting' || ask.state === 'have'
      if (open && !ask.want.done && ask.want.relied === 0) this.#askBlock(ask, now)
    }
  }

  #wasWanted(key: string): boolean {
    return this.#over.has(key) || this.#longOver.has(key)
  }

  /** The want is over; `from` sent the block. */
  #finish(want: Want, from: FetchPeer | undefined): void {
    want.done = true
    this.#wants.delete(want.key)
    this.#over.add(want.key)
    if (this.#over.size > rememberedWants) {
      this.#longOver = this.#over
      this.#over = new Set()
    }
    for (const ask of want.asks.values()) {
      const { peer } = ask
      this.#rest(ask)
      peer.asks.delete(ask)
      if (peer === from) peer.wantlist.drop(want.key)
      else peer.wantlist.cancel(want.key)
      this.#announce(peer)
      ask.state = 'no'
    }
  }

  #fail(want: Want): void {
    const asks = [...want.asks.values()]
    this.#finish(want, undefined)
    this.#events.push({
      type: 'unavailable',
      key: want.key,
      tried: asks.map((a) => ({ what: a.peer.id, reason: a.reason })),
      reached: asks.some((a) => a.reached),
    })
  }

  #credit(session: Session, id: string, by: 1 | -1): void {
    session.set(id, Math.max(-8, Math.min(8, (session.get(id) ?? 0) + by)))
  }

  receive(id: string, ledger: Ledger, message: BitswapMessage, now: number): void {
    const { blocks, presences } = message
    if (blocks.length === 0 && presences.length === 0) return
    const peer = this.#peers.get(id)
    if (peer === undefined) {
      // Nothing was ever asked of it: not worth a hash.
      ledger.unasked += blocks.length + presences.length
      if (ledger.unasked > unaskedAnswers) this.#violation(id, `sent more than ${unaskedAnswers} answers unasked`)
      return
    }
    for (const block of blocks) if (!this.#block(peer, ledger, block, now)) return
    for (const { key, have } of presences) {
      const ask = this.#wants.get(key)?.asks.get(peer)
      if (ask === undefined) {
        // Late answers are common: the want may be over.
        if (!this.#wasWanted(key)) ledger.unasked++
      } else {
        this.#presence(ask, have, now)
      }
    }
    if (ledger.unasked > unaskedAnswers) this.#ban(peer, `sent more than ${unaskedAnswers} answers unasked`, now)
    this.#refill(peer, now)
  }

  #presence(ask: Ask, have: boolean, now: number): void {
    const { peer, want } = ask
    if (ask.state === 'asked-have' || ask.state === 'asked-block') peer.usefulAt = now
    if (ask.state === 'asked-have') peer.measure(now - ask.askedAt)
    if (have) {
      if (ask.state !== 'asked-have') return
      this.#rest(ask)
      ask.state = 'have'
      peer.wantlist.drop(want.key)
      this.#credit(want.session, peer.id, 1)
    } else if (ask.state !== 'no') {
      this.#credit(want.session, peer.id, -1)
      this.#rule(ask, 'does not have it', true)
    }
    this.#place(want, now)
  }

  /** False once the peer is not listened to any more. */
  #block(peer: FetchPeer, ledger: Ledger, block: ReceivedBlock, now: number): boolean {
    const size = block.data.length
    ledger.bytesIn += size
    ledger.blocksIn++
    peer.credit--
    if (peer.credit < 0) {
      ledger.unasked++
      if (peer.credit >= -unaskedBlocks) return true
      this.#ban(peer, `sent more than ${unaskedBlocks} blocks that nobody asked for`, now)
      return false
    }
    const digest = this.#hash(block.hashCode, block.data)
    if (digest === undefined || block.digestLength > digest.length) {
      ledger.unasked++
      return true
    }
    const key = keyOf(multihashOf(block.hashCode, digest.subarray(0, block.digestLength)))
    const want = this.#wants.get(key)
    if (want === undefined) {
      if (this.#wasWanted(key)) {
        ledger.duplicates++
        peer.usefulAt = now
        return true
      }
      ledger.unasked++
      this.#ban(peer, 'sent a block that hashes to something nobody asked for', now)
      return false
    }
    const ask = want.asks.get(peer)
    if (ask !== undefined && peer.blocks === 1) peer.measure(now - ask.askedAt)
    peer.usefulAt = now
    peer.reconnects = 0
    peer.widen(size)
    this.#credit(want.session, peer.id, 1)
    const others = [...want.asks.values()].filter((a) => a.peer !== peer && a.state === 'asked-block')
    this.#finish(want, peer)
    for (const other of others) this.#refill(other.peer, now)
    this.#events.push({ type: 'block', key, data: block.data, peer: peer.id })
    return true
  }

  /** The peer broke the protocol where it is read: it is not asked for a while. */
  breach(id: string, error: ProtocolError, now: number): void {
    const peer = this.#peers.get(id)
    if (peer !== undefined) this.#exclude(peer, error, now)
  }

  #ban(peer: FetchPeer, what: string, now: number): void {
    this.#exclude(peer, this.#violation(peer.id, what), now)
  }

  #exclude(peer: FetchPeer, error: ProtocolError, now: number): void {
    peer.bannedUntil = now + this.#options.banMs
    peer.ban = error
    const asks = [...peer.asks]
    for (const ask of asks) this.#rule(ask, error, true)
    for (const ask of asks) this.#place(ask.want, now)
  }

  #violation(peer: string, what: string): ProtocolError {
    const error = new ProtocolError('bad-block', what)
    this.#events.push({ type: 'violation', peer, error })
    return error
  }

  tick(now: number): void {
    this.#tickAt = now + this.#checkMs
    for (const peer of this.#peers.values()) {
      if (peer.asks.size > 0) this.#check(peer, now)
      else if (peer.state === 'idle' && peer.bannedUntil <= now) this.#peers.delete(peer.id)
    }
  }

  #check(peer: FetchPeer, now: number): void {
    const { peerTimeoutMs } = this.#options
    const silentMs = now - peer.usefulAt
    const again: Want[] = []
    for (const ask of peer.asks) {
      const ageMs = now - ask.askedAt
      if (ask.state === 'asked-have' || (ask.state === 'asked-block' && silentMs >= peerTimeoutMs)) {
        if (ageMs < peerTimeoutMs) continue
        this.#rule(ask, `no answer within ${peerTimeoutMs} ms`, true)
        peer.narrow()
        again.push(ask.want)
      } else if (ask.state === 'asked-block' && !ask.late) {
        // Somebody else may be asked too, but we still listen.
        if (ageMs < this.#patience(ask, silentMs)) continue
        ask.late = true
        ask.want.relied--
        again.push(ask.want)
      }
    }
    for (const want of again) this.#place(want, now)
    this.#refill(peer, now)
  }

  /** How long a block is waited for before another peer is asked as well. */
  #patience(ask: Ask, silentMs: number): number {
    const { peerTimeoutMs } = this.#options
    // In a peer that sends we trust; a silent one loses to whoever is known to have the block.
    if (silentMs >= peerTimeoutMs / 10 && [...ask.want.asks.values()].some((a) => a.state === 'have')) {
      return peerTimeoutMs / 10
    }
    return silentMs >= peerTimeoutMs / 2 ? peerTimeoutMs / 2 : peerTimeoutMs
  }
}
