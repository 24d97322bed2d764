/*
 * Order kept, work ahead: results come in the order of the items while the next ones are already under way.
 */

/** How many results may be under way ahead of the reader, shared by nested readers; the one in front always may. */
export interface Budget {
  free: number
}

/**
 * Yields the results of `start` in the order of `items`. What was started ahead and not read is left to its own end: bind it
 * to a signal that the caller aborts.
 */
export async function* ahead<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  budget: Budget,
  start: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
  const queue: { result: Promise<R>; counted: boolean }[] = []
  let drained = false
  try {
    for (;;) {
      while (!drained && (queue.length === 0 || budget.free > 0)) {
        const next = await iterator.next()
        if (next.done === true) {
          drained = true
          break
        }
        const counted = budget.free > 0
        if (counted) budget.free--
        const result = start(next.value)
        // The rejection is seen when its turn comes; until then it must not count as unhandled.
        result.catch(() => undefined)
        queue.push({ result, counted })
      }
      const front = queue.shift()
      if (front === undefined) return
      let value: R
      try {
        value = await front.result
      } finally {
        if (front.counted) budget.free++
      }
      yield value
    }
  } finally {
    for (const { counted } of queue) if (counted) budget.free++
    if (!drained) await iterator.return?.()
  }
}
