/*
 * What the application says of a message before it is handed on and forwarded (gossipsub v1.1 §Extended Validators):
 * accept, reject (the senders are to blame) or ignore. So many at a time, each for so long; what is beyond is throttled.
 */
import { deadline, raceAbort } from '../../deadline.ts'
import type { Env } from '../../env.ts'
import { asError } from '../../errors.ts'
import type { PeerId } from '../../peer/id.ts'
import type { Verdict } from './state.ts'
import type { PubSubMessage } from './topics.ts'

export type Validation = 'accept' | 'reject' | 'ignore'

/**
 * `from` is who sent it to us, the node itself for its own. Must not block: what takes long is asynchronous. One that
 * throws, or takes too long, counts as `ignore`: whose fault it is nobody knows.
 */
export type Validator = (
  message: PubSubMessage,
  context: { from: PeerId; signal: AbortSignal },
) => Validation | Promise<Validation>

export interface ValidatorOptions {
  /** Checks of this validator at a time. Default 1,024 (go-libp2p-pubsub). */
  concurrency?: number
  /** Default 10 s. */
  timeoutMs?: number
}

interface Entry {
  readonly validator: Validator
  readonly concurrency: number
  readonly timeoutMs: number
  running: number
}

const defaults = { concurrency: 1_024, timeoutMs: 10_000 } satisfies Required<ValidatorOptions>

/** By topic; undefined: of all topics. */
export class Validators {
  readonly #env: Env
  readonly #maxRunning: number
  readonly #entries = new Map<string | undefined, Set<Entry>>()
  #running = 0

  /** `maxRunning`: checks of all validators at a time. */
  constructor(env: Env, maxRunning: number) {
    this.#env = env
    this.#maxRunning = maxRunning
  }

  /** Returns the undo. */
  add(topic: string | undefined, validator: Validator, options: ValidatorOptions = {}): () => void {
    const { concurrency, timeoutMs } = { ...defaults, ...options }
    if (!(concurrency >= 1)) throw new RangeError(`concurrency is ${concurrency}, want 1 or more`)
    if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs is ${timeoutMs}, want more than 0`)
    const entry: Entry = { validator, concurrency, timeoutMs, running: 0 }
    const entries = this.#entries.get(topic)
    if (entries === undefined) this.#entries.set(topic, new Set([entry]))
    else entries.add(entry)
    return () => {
      const of = this.#entries.get(topic)
      of?.delete(entry)
      if (of?.size === 0) this.#entries.delete(topic)
    }
  }

  /** The strictest of what they say; at once where none of them has to wait. */
  check(message: PubSubMessage, from: PeerId): Verdict | Promise<Verdict> {
    if (this.#entries.size === 0) return 'accept'
    const entries = [...(this.#entries.get(undefined) ?? []), ...(this.#entries.get(message.topic) ?? [])]
    let verdict: Verdict = 'accept'
    const waiting: Promise<Verdict>[] = []
    for (const entry of entries) {
      const said = this.#run(entry, message, from)
      if (said instanceof Promise) waiting.push(said)
      else verdict = stricter(verdict, said)
      if (verdict === 'reject') break
    }
    if (waiting.length === 0 || verdict === 'reject') return verdict
    return Promise.all(waiting).then((said) => said.reduce(stricter, verdict))
  }

  #run(entry: Entry, message: PubSubMessage, from: PeerId): Verdict | Promise<Verdict> {
    if (entry.running >= entry.concurrency || this.#running >= this.#maxRunning) return 'throttled'
    let bound: ReturnType<typeof deadline> | undefined
    const env = this.#env
    const bind = (): ReturnType<typeof deadline> =>
      (bound ??= deadline({ env, timeoutMs: entry.timeoutMs, what: `validating a message of ${message.topic}` }))
    let said: Validation | Promise<Validation>
    try {
      said = entry.validator(message, {
        from,
        // Most validators answer at once and never ask for it.
        get signal() {
          return bind().signal
        },
      })
    } catch (error) {
      bound?.done()
      return this.#failed(message.topic, error)
    }
    if (said instanceof Promise) return this.#settled(entry, message.topic, said, bind())
    bound?.done()
    return said
  }

  async #settled(
    entry: Entry,
    topic: string,
    said: Promise<Validation>,
    bound: ReturnType<typeof deadline>,
  ): Promise<Verdict> {
    entry.running++
    this.#running++
    try {
      // A validator that hangs is not waited for.
      return await raceAbort(said, bound.signal)
    } catch (error) {
      return this.#failed(topic, error)
    } finally {
      entry.running--
      this.#running--
      bound.done()
    }
  }

  #failed(topic: string, error: unknown): Verdict {
    this.#env.trace?.('gossipsub.validator-failed', { topic, error: asError(error) })
    return 'ignore'
  }
}

const order: readonly Verdict[] = ['accept', 'ignore', 'throttled', 'reject']

function stricter(a: Verdict, b: Verdict): Verdict {
  return order.indexOf(a) > order.indexOf(b) ? a : b
}
