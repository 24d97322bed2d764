/*
 * Addresses that failed are left alone for a while (go-libp2p's DialBackoff: 5 s, then a second more for every attempt
 * squared, at most 5 minutes). For addresses that we found ourselves: whoever names an address gets it dialled.
 */

export interface BackOffOptions {
  baseMs?: number
  /** Times the square of the attempts that failed before. */
  stepMs?: number
  maxMs?: number
  /** How long an address at which another peer answered counts as not this peer's. */
  wrongPeerMs?: number
  /** Addresses remembered; one more costs the oldest. */
  maxEntries?: number
}

const defaults = {
  baseMs: 5_000,
  stepMs: 1_000,
  maxMs: 300_000,
  wrongPeerMs: 3_600_000,
  maxEntries: 4_096,
} satisfies Required<BackOffOptions>

interface Entry {
  failures: number
  untilMs: number
  reason: string
}

/** Keys are addresses with their /p2p: the same place is another matter for another peer. */
export class BackOff {
  readonly #options: Required<BackOffOptions>
  /** The one that failed last comes last. */
  readonly #entries = new Map<string, Entry>()

  constructor(options: BackOffOptions = {}) {
    this.#options = { ...defaults, ...options }
  }

  get size(): number {
    return this.#entries.size
  }

  failed(addr: string, nowMs: number, reason: string): void {
    const before = this.#entries.get(addr)
    // Whoever was left alone for twice as long as it had to be starts anew.
    const stale = before === undefined || nowMs > before.untilMs + this.#waitMs(before.failures)
    const failures = stale ? 1 : before.failures + 1
    this.#set(addr, { failures, reason, untilMs: nowMs + this.#waitMs(failures) })
  }

  /** Another peer answered there. */
  wrongPeer(addr: string, nowMs: number, reason: string): void {
    this.#set(addr, { failures: 1, reason, untilMs: nowMs + this.#options.wrongPeerMs })
  }

  succeeded(addr: string): void {
    this.#entries.delete(addr)
  }

  /** Why the address should not be dialled now; undefined when it may be. */
  refusal(addr: string, nowMs: number): string | undefined {
    const entry = this.#entries.get(addr)
    if (entry === undefined || nowMs >= entry.untilMs) return undefined
    return `left alone for ${Math.ceil((entry.untilMs - nowMs) / 1000)} s after it failed: ${entry.reason}`
  }

  #waitMs(failures: number): number {
    const { baseMs, stepMs, maxMs } = this.#options
    return Math.min(maxMs, baseMs + stepMs * (failures - 1) ** 2)
  }

  #set(addr: string, entry: Entry): void {
    this.#entries.delete(addr)
    this.#entries.set(addr, { ...entry, reason: entry.reason.slice(0, 200) })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#options.maxEntries && oldest !== undefined) this.#entries.delete(oldest)
  }
}
