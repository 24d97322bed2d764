/*
 * A check of sequence numbers (go-libp2p-pubsub BasicSeqnoValidator): who plays an old message back once the duplicate
 * window has forgotten it is not listened to. For topics whose authors count upwards; js-libp2p draws numbers by chance.
 */
import type { Validator } from './validators.ts'

export interface SeqnoOptions {
  /** Whose last number is known; the one heard of least recently goes. About 200 bytes each. Default 8,192. */
  maxAuthors?: number
}

/** A validator that ignores messages whose author has sent a higher number before. Throws RangeError. */
export function increasingSeqno({ maxAuthors = 8_192 }: SeqnoOptions = {}): Validator {
  if (!Number.isInteger(maxAuthors) || maxAuthors < 1)
    throw new RangeError(`maxAuthors of ${maxAuthors}, want 1 or more`)
  const highest = new Map<string, bigint>()
  return ({ from, seqno }) => {
    // Nobody counts with StrictNoSign.
    if (from === undefined || seqno === undefined) return 'accept'
    const author = from.toString()
    const known = highest.get(author)
    if (known !== undefined && seqno <= known) return 'ignore'
    highest.delete(author)
    highest.set(author, seqno)
    if (highest.size > maxAuthors) {
      const [oldest] = highest.keys()
      highest.delete(oldest as string)
    }
    return 'accept'
  }
}
