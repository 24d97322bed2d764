/*
 * Both directions of a wantlist (ipfs/specs bitswap-protocol.md §Bitswap Protocol Interaction Patterns): what we want
 * from one peer, sent as changes, and what one peer wants from us, bounded. Pure; CIDs are bytes, keys are keyOf().
 */
import type { WantEntry, WantType } from './wire.ts'

interface OwnWant {
  cid: Uint8Array
  type: WantType
  priority: number
  /** The peer knows of it. */
  sent: boolean
}

/** One message's worth of our wantlist. */
export interface WantlistMessage {
  full: boolean
  wants: Omit<WantEntry, 'key' | 'hashCode'>[]
}

/** What we want from one peer. Changes are gathered until taken: a want that is cancelled before costs nothing. */
export class OutboundWantlist {
  readonly #wants = new Map<string, OwnWant>()
  /** Keys whose state the peer does not know; those that are no longer in #wants are cancels. */
  readonly #changed = new Map<string, Uint8Array>()
  /** The next message replaces what the peer knows. */
  #full = true

  get size(): number {
    return this.#wants.size
  }

  get pending(): boolean {
    return this.#changed.size > 0
  }

  has(key: string): boolean {
    return this.#wants.has(key)
  }

  want(key: string, cid: Uint8Array, type: WantType, priority: number): void {
    this.#wants.set(key, { cid, type, priority, sent: this.#wants.get(key)?.sent ?? this.#cancelling(key) })
    this.#changed.set(key, cid)
  }

  #cancelling(key: string): boolean {
    return this.#changed.has(key) && !this.#wants.has(key)
  }

  /** Not wanted any more, and the peer is told if it knew. */
  cancel(key: string): void {
    const want = this.#wants.get(key)
    if (want === undefined) return
    this.#wants.delete(key)
    if (want.sent) this.#changed.set(key, want.cid)
    else this.#changed.delete(key)
  }

  /** Not wanted any more, and the peer knows: it sent the block. */
  drop(key: string): void {
    if (this.#wants.delete(key)) this.#changed.delete(key)
  }

  /** What the peer knows is uncertain: the next message, which is due only when something is wanted, holds everything. */
  resync(): void {
    this.#full = true
    this.#changed.clear()
    for (const [key, want] of this.#wants) {
      want.sent = false
      this.#changed.set(key, want.cid)
    }
  }

  /** The next message, of at most `max` entries; undefined when the peer knows all. */
  take(max: number): WantlistMessage | undefined {
    if (!this.pending) return undefined
    const wants: WantlistMessage['wants'] = []
    for (const [key, cid] of this.#changed) {
      if (wants.length === max) break
      this.#changed.delete(key)
      const want = this.#wants.get(key)
      if (want === undefined) {
        wants.push({ cid, priority: 0, cancel: true, type: 'block', sendDontHave: false })
      } else {
        want.sent = true
        wants.push({ cid, priority: want.priority, cancel: false, type: want.type, sendDontHave: true })
      }
    }
    const message = { full: this.#full, wants }
    this.#full = false
    return message
  }
}

/** Where a peer's want stands: to be looked up, being looked up, an answer is ready, or we do not have it. */
export type WantState = 'queued' | 'loading' | 'answered' | 'waiting'

export interface PeerWant {
  readonly key: string
  readonly cid: Uint8Array
  type: WantType
  sendDontHave: boolean
  state: WantState
  /** The answer while `answered`: a block, or have (true) or don't have (false). */
  answer: Uint8Array | boolean | undefined
  /** It came into the store while we looked it up: a "no" has to be checked again. */
  again: boolean
  /** Cancelled, answered or forgotten: queues skip it. */
  gone: boolean
}

export interface WantlistChanges {
  added: PeerWant[]
  removed: PeerWant[]
  /** Wants that did not fit. */
  refused: number
}

/** What one peer wants from us: at most `max` entries (boxo: 1,024), identity CIDs ignored (boxo 0.38). */
export class InboundWantlist {
  readonly #max: number
  readonly #wants = new Map<string, PeerWant>()
  /** Those that we do not have: the first to go when the list is full. */
  readonly #waiting = new Set<PeerWant>()

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#wants.size
  }

  values(): Iterable<PeerWant> {
    return this.#wants.values()
  }

  apply(full: boolean, entries: readonly WantEntry[]): WantlistChanges {
    const changes: WantlistChanges = { added: [], removed: [], refused: 0 }
    if (full) {
      const kept = new Set(entries.filter((e) => !e.cancel).map((e) => e.key))
      for (const want of this.#wants.values()) if (!kept.has(want.key)) this.#forget(want, changes)
    }
    // The sort is stable: equal priorities stay in the order they were asked for.
    for (const entry of entries.toSorted((a, b) => b.priority - a.priority)) {
      const known = this.#wants.get(entry.key)
      if (entry.cancel) {
        if (known !== undefined) this.#forget(known, changes)
      } else if (entry.hashCode !== 0) {
        this.#want(entry, known, changes)
      }
    }
    return changes
  }

  #want(entry: WantEntry, known: PeerWant | undefined, changes: WantlistChanges): void {
    if (known !== undefined) {
      known.sendDontHave ||= entry.sendDontHave
      const more = entry.type === 'block' && known.type === 'have'
      if (more) known.type = 'block'
      // A want that we could not serve is asked anew, a presence that was to be sent becomes a block.
      if (known.state === 'waiting' || (more && typeof known.answer === 'boolean')) {
        this.#waiting.delete(known)
        known.state = 'queued'
        known.answer = undefined
        changes.added.push(known)
      }
      return
    }
    if (this.#wants.size >= this.#max) {
      const [oldest] = this.#waiting
      if (oldest === undefined) {
        changes.refused++
        return
      }
      this.#forget(oldest, changes)
    }
    const want: PeerWant = {
      key: entry.key,
      // The entry's bytes share memory with a frame of up to 4 MiB.
      cid: entry.cid.slice(),
      type: entry.type,
      sendDontHave: entry.sendDontHave,
      state: 'queued',
      answer: undefined,
      again: false,
      gone: false,
    }
    this.#wants.set(want.key, want)
    changes.added.push(want)
  }

  #forget(want: PeerWant, changes: WantlistChanges): void {
    this.remove(want)
    changes.removed.push(want)
  }

  /** We do not have it: it waits for notify(). */
  wait(want: PeerWant): void {
    want.state = 'waiting'
    want.answer = undefined
    this.#waiting.add(want)
  }

  /** It came into the store. */
  wake(want: PeerWant): void {
    this.#waiting.delete(want)
    want.state = 'queued'
  }

  remove(want: PeerWant): void {
    want.gone = true
    this.#wants.delete(want.key)
    this.#waiting.delete(want)
  }
}
