/* Draws from a source that may be slow, endless or broken, and lets go of it however things end. */
import { raceAbort } from '../deadline.ts'

/**
 * Calls `take` with each item in turn. When `take` rejects, the source fails or `signal` aborts, the source is told to
 * stop (`return()`), without waiting for a source that hangs, and the error is passed on.
 */
export async function drawPairs<T>(
  source: Iterable<T> | AsyncIterable<T>,
  take: (item: T) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  let over = false
  try {
    for (;;) {
      let result: IteratorResult<T>
      try {
        result = await raceAbort(Promise.resolve(iterator.next()), signal)
      } catch (error) {
        // A source that threw is over; one that we were waiting for is not.
        over = signal?.aborted !== true
        throw error
      }
      over = result.done === true
      if (result.done === true) return
      await take(result.value)
    }
  } finally {
    // The first error is the one to tell.
    if (!over) void Promise.resolve(iterator.return?.()).catch(() => undefined)
  }
}
