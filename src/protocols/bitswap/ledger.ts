/*
 * The answering half of Bitswap: what each peer is owed, whose turn it is, and the accounts. No socket, no store, no
 * clock: lookups and messages are pulled by the adapter, so that nothing is read before there is room to send it.
 * All of a peer's wants go when it disconnects (CVE-2023-25568).
 */
import { InboundWantlist, type PeerWant } from './wantlist.ts'
import type { BitswapMessage, OutgoingMessage } from './wire.ts'

/** What went between one peer and us since it connected. Bytes are those of blocks. */
export interface Ledger {
  bytesIn: number
  bytesOut: number
  blocksIn: number
  blocksOut: number
  /** Blocks that we had asked for and got from somebody else first. */
  duplicates: number
  /** Blocks and presences that nobody asked for. */
  unasked: number
  /** Wants of the peer that did not fit its wantlist. */
  refused: number
  /** The peer broke the protocol, last time because of this. */
  violation: string | undefined
}

export function newLedger(): Ledger {
  return {
    bytesIn: 0,
    bytesOut: 0,
    blocksIn: 0,
    blocksOut: 0,
    duplicates: 0,
    unasked: 0,
    refused: 0,
    violation: undefined,
  }
}

export interface ResponderOptions {
  /** Wants that a peer may have with us: 1,024 (boxo); more are refused. */
  wantlistEntries?: number
  /** Bytes read for a peer and not yet taken by the wire: 2 MiB, so that one 1 MiB block is read while one is sent (boxo 1 MiB). */
  outstandingBytes?: number
  /** The same over all peers: 64 MiB. */
  totalOutstandingBytes?: number
  /** Lookups under way at once, over all peers: 64. */
  lookups?: number
  /** Bytes of blocks in one message, unless a single block is larger: 1 MiB. */
  messageBytes?: number
}

const defaults = {
  wantlistEntries: 1024,
  outstandingBytes: 2 * 1024 * 1024,
  totalOutstandingBytes: 64 * 1024 * 1024,
  lookups: 64,
  messageBytes: 1024 * 1024,
} satisfies Required<ResponderOptions>

/** What is assumed of the blocks that a peer wants, until one was read and at the least. */
const firstGuessBytes = 1024 * 1024
const smallestGuessBytes = 64 * 1024

interface Account {
  readonly peer: string
  readonly ledger: Ledger
  readonly wants: InboundWantlist
  /** To be looked up; those gone or no longer `queued` are skipped. */
  queue: PeerWant[]
  head: number
  /** Answers in the order they came. */
  answers: PeerWant[]
  /** Reserved, read, or handed to the wire and not yet taken. */
  outstanding: number
  guess: number
  inRing: boolean
  gone: boolean
}

/** One lookup in the store, to be answered with loaded(). */
export interface Lookup {
  readonly peer: string
  readonly cid: Uint8Array
  /** `have`: whether it is there, and its bytes only if they are few. */
  readonly type: 'block' | 'have'
  readonly account: Account
  readonly want: PeerWant
  readonly reserved: number
}

export interface Reply {
  readonly message: OutgoingMessage
  /** Of blocks. */
  readonly bytes: number
  readonly account: Account
}

export class Responder {
  readonly #options: Required<ResponderOptions>
  readonly #accounts = new Map<string, Account>()
  /** Peers with something to look up and room for it, in turn. */
  readonly #ring: Account[] = []
  /** Every want of every peer, for notify(). */
  readonly #byKey = new Map<string, Map<PeerWant, Account>>()
  #wants = 0
  #outstanding = 0
  #lookups = 0

  constructor(options: ResponderOptions = {}) {
    this.#options = { ...defaults, ...options }
    for (const [name, value] of Object.entries(this.#options)) {
      if (!Number.isSafeInteger(value) || value < 1)
        throw new RangeError(`${name} is ${value}, want a whole number above 0`)
    }
  }

  /** Bytes reserved or read, over all peers. */
  get outstandingBytes(): number {
    return this.#outstanding
  }

  /** Wants of all peers that are remembered. */
  get wants(): number {
    return this.#wants
  }

  wantsOf(peer: string): readonly Uint8Array[] {
    const account = this.#accounts.get(peer)
    return account === undefined ? [] : Array.from(account.wants.values(), (want) => want.cid)
  }

  receive(peer: string, ledger: Ledger, message: BitswapMessage): void {
    if (message.wants.length === 0 && !message.full) return
    let account = this.#accounts.get(peer)
    if (account === undefined) {
      if (message.wants.length === 0) return
      account = {
        peer,
        ledger,
        wants: new InboundWantlist(this.#options.wantlistEntries),
        queue: [],
        head: 0,
        answers: [],
        outstanding: 0,
        guess: firstGuessBytes,
        inRing: false,
        gone: false,
      }
      this.#accounts.set(peer, account)
    }
    const { added, removed, refused } = account.wants.apply(message.full, message.wants)
    ledger.refused += refused
    for (const want of removed) this.#forgotten(account, want)
    for (const want of added) {
      if (want.gone) continue
      this.#index(account, want)
      account.queue.push(want)
    }
    this.#compact(account)
    this.#enter(account)
  }

  #index(account: Account, want: PeerWant): void {
    let same = this.#byKey.get(want.key)
    if (same === undefined) this.#byKey.set(want.key, (same = new Map()))
    if (!same.has(want)) this.#wants++
    same.set(want, account)
  }

  #forgotten(account: Account, want: PeerWant): void {
    const same = this.#byKey.get(want.key)
    if (same?.delete(want) === true) this.#wants--
    if (same?.size === 0) this.#byKey.delete(want.key)
    if (typeof want.answer === 'object') this.#release(account, want.answer.length)
    want.answer = undefined
  }

  #release(account: Account, bytes: number): void {
    account.outstanding -= bytes
    this.#outstanding -= bytes
  }

  /** Cancelled wants must not pile up in the queues: a peer may ask and cancel for ever. */
  #compact(account: Account): void {
    const most = 2 * this.#options.wantlistEntries
    if (account.queue.length - account.head > most) {
      account.queue = [...new Set(account.queue.slice(account.head))].filter((w) => !w.gone && w.state === 'queued')
      account.head = 0
    }
    if (account.answers.length > most) account.answers = account.answers.filter((w) => !w.gone)
  }

  #enter(account: Account): void {
    if (account.inRing || account.gone || account.head >= account.queue.length) return
    account.inRing = true
    this.#ring.push(account)
  }

  /** The next lookup, peers taking turns; undefined when nothing is wanted or there is no room for an answer. */
  nextLookup(): Lookup | undefined {
    const { lookups, outstandingBytes, totalOutstandingBytes } = this.#options
    while (this.#ring.length > 0 && this.#lookups < lookups) {
      const account = this.#ring[0] as Account
      this.#ring.shift()
      account.inRing = false
      if (account.gone) continue
      // Out of the ring until there is room: sent() puts it back.
      // Who has nothing outstanding gets one block in any case, or slow peers could starve the others.
      const room = Math.min(outstandingBytes - account.outstanding, totalOutstandingBytes - this.#outstanding)
      if (account.outstanding > 0 && account.guess > room) continue
      const want = this.#shift(account)
      if (want === undefined) continue
      this.#enter(account)
      const reserved = want.type === 'block' ? account.guess : 0
      want.state = 'loading'
      want.again = false
      account.outstanding += reserved
      this.#outstanding += reserved
      this.#lookups++
      return { peer: account.peer, cid: want.cid, type: want.type, account, want, reserved }
    }
    return undefined
  }

  #shift(account: Account): PeerWant | undefined {
    while (account.head < account.queue.length) {
      const want = account.queue[account.head++] as PeerWant
      if (!want.gone && want.state === 'queued') return want
    }
    account.queue = []
    account.head = 0
    return undefined
  }

  /** What the store said: the block, or whether it is there. False means that we do not have it. */
  loaded(lookup: Lookup, answer: Uint8Array | boolean): void {
    const { account, want, reserved, type } = lookup
    this.#lookups--
    if (account.gone) return
    this.#release(account, reserved)
    if (!want.gone) this.#answer(account, want, type, answer)
    this.#enter(account)
  }

  #answer(account: Account, want: PeerWant, type: 'block' | 'have', answer: Uint8Array | boolean): void {
    // Asked for more meanwhile, or it came into the store meanwhile.
    if ((answer === true && want.type === 'block' && type === 'have') || (answer === false && want.again)) {
      want.state = 'queued'
      account.queue.push(want)
    } else if (answer === false && !want.sendDontHave) {
      account.wants.wait(want)
    } else {
      want.state = 'answered'
      want.answer = answer
      account.answers.push(want)
      if (typeof answer === 'object') {
        account.guess = Math.max(smallestGuessBytes, answer.length, Math.round((account.guess + answer.length) / 2))
        account.outstanding += answer.length
        this.#outstanding += answer.length
      }
    }
  }

  /** Is there an answer to be sent? */
  pending(peer: string): boolean {
    return (this.#accounts.get(peer)?.answers.length ?? 0) > 0
  }

  /** The next message for a peer. It goes back with sent() once the wire has taken it. */
  transmit(peer: string): Reply | undefined {
    const account = this.#accounts.get(peer)
    if (account === undefined) return undefined
    const blocks: { cid: Uint8Array; data: Uint8Array }[] = []
    const presences: { cid: Uint8Array; have: boolean }[] = []
    let bytes = 0
    let taken = 0
    for (const want of account.answers) {
      const { answer, cid } = want
      if (want.gone || answer === undefined) {
        taken++
        continue
      }
      if (typeof answer === 'object') {
        if (bytes > 0 && bytes + answer.length > this.#options.messageBytes) break
        bytes += answer.length
        blocks.push({ cid, data: answer })
      } else {
        presences.push({ cid, have: answer })
      }
      taken++
      // A peer that was told "no" may still want the block when it comes.
      if (answer === false) account.wants.wait(want)
      else this.#done(account, want)
    }
    account.answers.splice(0, taken)
    if (blocks.length === 0 && presences.length === 0) return undefined
    account.ledger.bytesOut += bytes
    account.ledger.blocksOut += blocks.length
    const pendingBytes = account.answers.reduce(
      (sum, w) => sum + (typeof w.answer === 'object' ? w.answer.length : 0),
      0,
    )
    return { message: { blocks, presences, pendingBytes }, bytes, account }
  }

  #done(account: Account, want: PeerWant): void {
    account.wants.remove(want)
    // Its bytes stay outstanding until sent().
    want.answer = undefined
    this.#forgotten(account, want)
  }

  sent({ account, bytes }: Reply): void {
    if (account.gone) return
    this.#release(account, bytes)
    this.#enter(account)
  }

  /** Blocks that came into the store, by key. */
  notify(keys: Iterable<string>): void {
    for (const key of keys) {
      for (const [want, account] of this.#byKey.get(key) ?? []) {
        if (want.state === 'loading') want.again = true
        // "Don't have" was to be sent, which is no longer true.
        if (want.state !== 'waiting' && want.answer !== false) continue
        want.answer = undefined
        account.wants.wake(want)
        account.queue.push(want)
        this.#enter(account)
      }
    }
  }

  disconnect(peer: string): void {
    const account = this.#accounts.get(peer)
    if (account === undefined) return
    this.#accounts.delete(peer)
    account.gone = true
    for (const want of account.wants.values()) {
      want.gone = true
      this.#forgotten(account, want)
    }
    this.#release(account, account.outstanding)
  }
}
