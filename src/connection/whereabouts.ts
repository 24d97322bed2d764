/*
 * Where others are, and where we are: the address book and what we announce, fed by connections and identify, and kept in
 * a record store when there is one.
 */
import { Addresses, type AddressesOptions } from '../addresses.ts'
import type { Crypto } from '../crypto/crypto.ts'
import type { Env } from '../env.ts'
import type { Connection } from '../host.ts'
import { multiaddr, type Multiaddr } from '../multiaddr.ts'
import type { BookRecords } from '../peer/book-records.ts'
import { AddressBook, addressTtlMs } from '../peer/book.ts'
import type { PeerId } from '../peer/id.ts'
import type { PrivateKey } from '../peer/keys.ts'
import type { Observed } from '../peer/observed.ts'
import type { RecordStore } from '../store/records.ts'

export interface WhereaboutsOptions extends AddressesOptions {
  /** Keeps the address book, and the number of our own record, over restarts; whoever opened it closes it. Default: not kept. */
  records?: RecordStore
}

export class Whereabouts {
  readonly book: AddressBook
  readonly addresses: Addresses
  readonly #env: Env
  /** Fetched once it is of use: who listens nowhere, such as a browser, goes without. */
  #observed: Observed | undefined
  readonly #open = new Set<string>()
  #kept: BookRecords | undefined
  #listening: () => readonly Multiaddr[] = () => []
  #changed: () => void = () => {}

  private constructor(key: PrivateKey, env: Env, options: WhereaboutsOptions, crypto: Crypto | undefined) {
    this.#env = env
    this.book = new AddressBook(key, { env, ...(crypto && { crypto }) })
    this.addresses = new Addresses(options)
    this.addresses.addSource(() => this.#listening())
    this.addresses.addSource(() =>
      (this.#observed?.confirmed(this.#listening(), env.clock.now()) ?? []).map((text) => multiaddr(text)),
    )
  }

  /** With what the record store holds. Throws TypeError for an address to announce that is none. */
  static async load(key: PrivateKey, env: Env, options: WhereaboutsOptions, crypto?: Crypto): Promise<Whereabouts> {
    const made = new Whereabouts(key, env, options, crypto)
    if (options.records !== undefined) {
      const { BookRecords } = await import('../peer/book-records.ts')
      made.#kept = await BookRecords.load(options.records, made.book, env)
    }
    return made
  }

  /** `changed` hears of it when we announce something else than before. */
  watch(listening: () => readonly Multiaddr[], changed: () => void): void {
    this.#listening = listening
    this.#changed = changed
  }

  /** What we announce may be something else now. */
  look(): void {
    if (this.addresses.changed()) this.#changed()
  }

  opened({ id, peer, direction, remoteAddr, limited }: Connection): void {
    this.#open.add(id)
    this.book.connected(peer)
    if (direction === 'inbound' || limited !== undefined) return
    this.book.add(peer, [remoteAddr], { source: 'dial', ttlMs: addressTtlMs.recentlyConnected })
  }

  closed(connection: Connection): void {
    this.#open.delete(connection.id)
    this.#observed?.closed(connection.id, this.#env.clock.now())
    this.look()
  }

  disconnected(peer: PeerId): void {
    this.book.disconnected(peer)
  }

  /** Our end of the connection as the peer sees it. Never rejects. */
  async seen(connection: Connection, observed: Multiaddr | undefined): Promise<void> {
    if (observed === undefined || connection.limited !== undefined || this.#listening().length === 0) return
    if (this.#observed === undefined) {
      try {
        const { Observed } = await import('../peer/observed.ts')
        this.#observed ??= new Observed()
      } catch (error) {
        this.#env.trace?.('node.observed-missing', { error })
        return
      }
    }
    const { id, localAddr: local, remoteAddr: remote } = connection
    // It may have ended meanwhile.
    if (!this.#open.has(id)) return
    const seen = { connection: id, local, remote, observed }
    if (this.#observed.observe(seen, this.#listening(), this.#env.clock.now())) this.look()
  }

  start(): void {
    this.#kept?.resume()
    this.look()
  }

  /** Before connections are closed: what is known of their peers is as fresh as can be. Never rejects. */
  async stop(connected: readonly PeerId[]): Promise<void> {
    await this.#kept?.stop(connected)
  }
}
