/*
 * The address book in a record store: one value per peer, `/peers/<id>/addrs`. Read when the node is made, written a
 * moment after a change, and at stop. Our own record is written before anybody has it. The book is a cache of the others:
 * trouble with the store is traced, and the book goes on without.
 */
import { ProtocolError } from '../errors.ts'
import type { Env, Timer } from '../env.ts'
import { decodeMultiaddr } from '../multiaddr.ts'
import { bool, bytes, limited, message, repeated, required, string, uint64 } from '../protobuf.ts'
import type { RecordChange, RecordStore } from '../store/records.ts'
import type { AddressBook, SavedPeer } from './book.ts'
import { maxEnvelopeBytes } from './envelope.ts'
import { PeerId } from './id.ts'

/** Between a change and its being written. */
const writeDelayMs = 2_000
/** What is known of a peer with which we were connected outlives a restart that comes within a day. */
const connectedTtlMs = 24 * 60 * 60_000

const SavedAddr = message({
  addr: [1, required(limited(bytes, 1024))],
  /** Absent: never. */
  expiresAt: [2, uint64],
  certified: [3, bool],
  source: [4, limited(string, 64)],
})
const Saved = message({
  addrs: [1, repeated(SavedAddr, 256)],
  sealed: [2, limited(bytes, maxEnvelopeBytes)],
  seq: [3, uint64],
  met: [4, bool],
})

const prefix = '/peers/'
const keyOf = (peer: string): string => `${prefix}${peer}/addrs`

export function encodeSavedPeer({ addrs, record, met }: SavedPeer): Uint8Array {
  return Saved.encode({
    addrs: addrs.map(({ addr, certified, source, expiresAt }) => ({
      addr: addr.bytes,
      certified,
      source: source.slice(0, 64),
      expiresAt: expiresAt === Infinity ? undefined : BigInt(Math.floor(expiresAt)),
    })),
    sealed: record?.sealed,
    seq: record?.seq,
    met,
  })
}

/** Throws ProtocolError. */
export function decodeSavedPeer(value: Uint8Array): SavedPeer {
  const { addrs, sealed, seq, met } = Saved.decode(value)
  return {
    addrs: addrs.map(({ addr, certified, source, expiresAt }) => ({
      addr: decodeMultiaddr(addr),
      certified: certified === true,
      source: source ?? '',
      expiresAt: expiresAt === undefined ? Infinity : Number(expiresAt),
    })),
    record: sealed === undefined ? undefined : { sealed: sealed.slice(), seq: seq ?? 0n },
    met: met === true,
  }
}

export class BookRecords {
  readonly #records: RecordStore
  readonly #book: AddressBook
  readonly #env: Env
  readonly #changed = new Map<string, PeerId>()
  #timer: Timer | undefined
  #stopped = false
  #writing: Promise<void> = Promise.resolve()

  private constructor(records: RecordStore, book: AddressBook, env: Env) {
    this.#records = records
    this.#book = book
    this.#env = env
  }

  /** Fills the book from the store and keeps the store up to date from then on. */
  static async load(records: RecordStore, book: AddressBook, env: Env): Promise<BookRecords> {
    try {
      for await (const { key, value } of records.entries(prefix)) {
        const [, , peer = '', what] = key.split('/')
        if (what !== 'addrs') continue
        try {
          book.restore(PeerId.parse(peer), decodeSavedPeer(value))
        } catch (error) {
          if (!(error instanceof ProtocolError || error instanceof TypeError)) throw error
          env.trace?.('book.record-skipped', { key, error })
        }
      }
    } catch (error) {
      env.trace?.('book.load-failed', { error })
    }
    const all = new BookRecords(records, book, env)
    book.onChange = (peer) => all.#note(peer)
    return all
  }

  /** Writes what has changed, and those that are connected now; until `resume` nothing else but our own. Never rejects. */
  async stop(connected: Iterable<PeerId> = []): Promise<void> {
    for (const peer of connected) this.#changed.set(peer.toString(), peer)
    this.#stopped = true
    await this.flush()
  }

  resume(): void {
    this.#stopped = false
  }

  /** Writes what has changed. Never rejects. */
  async flush(): Promise<void> {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  #note(peer: PeerId): Promise<void> | undefined {
    const own = peer.equals(this.#book.self)
    if (this.#stopped && !own) return undefined
    this.#changed.set(peer.toString(), peer)
    if (own) return this.flush()
    this.#timer ??= this.#env.clock.setTimer(writeDelayMs, () => void this.flush())
    return undefined
  }

  async #write(): Promise<void> {
    const changes: RecordChange[] = []
    for (const [name, peer] of this.#changed) {
      const saved = this.#book.save(peer, connectedTtlMs)
      const last = Math.max(...(saved?.addrs.map((a) => a.expiresAt) ?? []))
      // Our own number must not be forgotten, even when we have no address.
      const expiresAt = peer.equals(this.#book.self) ? Infinity : last
      const value = saved === undefined || expiresAt === -Infinity ? undefined : encodeSavedPeer(saved)
      changes.push({ key: keyOf(name), value, ...(value !== undefined && { expiresAt }) })
    }
    this.#changed.clear()
    if (changes.length === 0) return
    try {
      await this.#records.batch(changes)
    } catch (error) {
      this.#env.trace?.('book.save-failed', { error })
    }
  }
}
