/*
 * What the application says of a message before it is handed on and forwarded (gossipsub v1.1 §Extended Validators):
 * accept, reject (the senders are to blame) or ignore. So many at a time, each for so long; what is beyond is throttled.
 */
import { deadline, raceAbort } from '../../deadline.ts'
import type { Env } from '../../env.ts'
import { asError } from '../../errors.ts'
import type { PeerId } from '../../peer/id.ts'
import { Share } from './share.ts'
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
  /**
   * Checks of this validator at a time, of messages of all peers; one peer can't take more of them than are left for
   * others. Default 1,024 (go-libp2p-pubsub).
   */
  concurrency?: number
  /** Default 10 s. */
  timeoutMs?: number
}

interface Entry {
  readonly validator: Validator
  readonly timeoutMs: number
  readonly room: Share
}

const defaults = { concurrency: 1_024, timeoutMs: 10_000 } satisfies Required<ValidatorOptions>

/** By topic; undefined: of all topics. */
export class Validators {
  readonly #env: Env
  readonly #room: Share
  readonly #self: PeerId
  readonly #entries = new Map<string | undefined, Set<Entry>>()

  /** `maxRunning`: checks of all validators at a time. */
  constructor(env: Env, self: PeerId, maxRunning: number) {
    this.#env = env
    this.#self = self
    this.#room = new Share(maxRunning)
  }

  /** Returns the undo. */
  add(topic: string | undefined, validator: Validator, options: ValidatorOptions = {}): () => void {
    const { concurrency, timeoutMs } = { ...defaults, ...options }
    if (!(concurrency >= 1)) throw new RangeError(`concurrency is ${concurrency}, want 1 or more`)
    if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs is ${timeoutMs}, want more than 0`)
    const entry: Entry = { validator, timeoutMs, room: new Share(concurrency) }
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
    const who = from.equals(this.#self) ? undefined : from.toString()
    if (!entry.room.fits(who) || !this.#room.fits(who)) return 'throttled'
    const { topic } = message
    let bound: ReturnType<typeof deadline> | undefined
    const env = this.#env
    const bind = (): ReturnType<typeof deadline> =>
      (bound ??= deadline({ env, timeoutMs: entry.timeoutMs, what: `validating a message of ${topic}` }))
    let said: unknown
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
      return this.#failed(topic, error)
    }
    if (typeof said === 'object' && said !== null && 'then' in said) {
      return this.#settled(entry, topic, Promise.resolve(said), bind(), who)
    }
    bound?.done()
    return this.#verdict(topic, said)
  }

  async #settled(
    { room }: Entry,
    topic: string,
    said: Promise<unknown>,
    bound: ReturnType<typeof deadline>,
    who: string | undefined,
  ): Promise<Verdict> {
    room.take(who)
    this.#room.take(who)
    try {
      // A validator that hangs is not waited for.
      return this.#verdict(topic, await raceAbort(said, bound.signal))
    } catch (error) {
      return this.#failed(topic, error)
    } finally {
      room.give(who)
      this.#room.give(who)
      bound.done()
    }
  }

  /** One that says nothing, or something else, has not accepted anything. */
  #verdict(topic: string, said: unknown): Verdict {
    if (said === 'accept' || said === 'reject' || said === 'ignore') return said
    return this.#failed(
      topic,
      new TypeError(`a validator of ${topic} said ${String(said)}, want accept, reject or ignore`),
    )
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
