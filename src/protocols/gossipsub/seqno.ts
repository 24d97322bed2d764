/*
 * A check of sequence numbers, as go-libp2p-pubsub's BasicSeqnoValidator: who plays an old message back once the
 * duplicate window has forgotten it is not listened to. For topics whose authors count upwards; js-libp2p draws its
 * numbers by chance. Unlike go's it takes messages that overtook each other: within half the window any number is good.
 */
import type { Clock } from '../../env.ts'
import type { Validator } from './validators.ts'

export interface SeqnoOptions {
  /** That of the node: `node.env.clock`. */
  clock: Clock
  /** The duplicate window, `seenTtlMs`. Default 120 s. */
  windowMs?: number
  /** Whose numbers are known; the one heard of least recently goes. About 300 bytes each. Default 8,192. */
  maxAuthors?: number
}

/** The highest number up to now, up to the last half of a window, and up to the one before. */
interface Author {
  now: bigint
  before: bigint
  old: bigint
  since: number
}

/** A validator that ignores messages whose author sent a higher number long before. Throws RangeError. */
export function increasingSeqno({ clock, windowMs = 120_000, maxAuthors = 8_192 }: SeqnoOptions): Validator {
  if (!(windowMs > 0)) throw new RangeError(`windowMs of ${windowMs}, want more than 0`)
  if (!Number.isInteger(maxAuthors) || maxAuthors < 1)
    throw new RangeError(`maxAuthors of ${maxAuthors}, want 1 or more`)
  const authors = new Map<string, Author>()
  return ({ from, seqno }) => {
    // Nobody counts with StrictNoSign.
    if (from === undefined || seqno === undefined) return 'accept'
    const name = from.toString()
    const time = clock.now()
    const known = authors.get(name) ?? { now: -1n, before: -1n, old: -1n, since: time }
    const halves = Math.floor((time - known.since) / (windowMs / 2))
    if (halves > 0) {
      known.old = halves > 1 ? known.now : known.before
      known.before = known.now
      known.since += halves * (windowMs / 2)
    }
    if (seqno <= known.old) return 'ignore'
    if (seqno > known.now) known.now = seqno
    authors.delete(name)
    authors.set(name, known)
    if (authors.size > maxAuthors) {
      const [oldest] = authors.keys()
      authors.delete(oldest as string)
    }
    return 'accept'
  }
}
