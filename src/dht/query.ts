/* Runs a lookup over the network: asks whom the machine names, tells it what came back, reports the path as it goes. */
import { raceAbort } from '../deadline.ts'
import type { Clock } from '../env.ts'
import { asError } from '../errors.ts'
import { deferred } from '../inbox.ts'
import type { PeerId } from '../peer/id.ts'
import type { Lookup, LookupEvent } from './lookup.ts'
import type { PeerInfo } from './network.ts'
import type { Message } from './wire.ts'

/** What a lookup does, as it does it. `hops` counts the answers between us and the peer. */
export type QueryEvent =
  | { type: 'query'; peer: PeerId; hops: number; from: PeerId | undefined }
  | { type: 'answer'; peer: PeerId; hops: number; closer: number; elapsedMs: number }
  | { type: 'failed'; peer: PeerId; error: Error }
  | { type: 'done'; reason: Extract<LookupEvent, { type: 'done' }>['reason']; queries: number; heard: number }

export interface QueryParts {
  lookup: Lookup
  /** Asks one peer. */
  ask(peer: PeerId, signal: AbortSignal): Promise<Message>
  /** Reads an answer: whom it names, that may be asked next. May stop the lookup. */
  onAnswer(peer: PeerId, answer: Message): readonly PeerInfo[]
  onFailure(peer: PeerId, error: Error): void
  clock: Clock
  /** After so long it ends with what it has. */
  timeoutMs: number
  signal?: AbortSignal | undefined
  onEvent?: ((event: QueryEvent) => void) | undefined
}

export type QueryResult = Extract<QueryEvent, { type: 'done' }>

/** Resolves when the lookup is over; rejects with signal.reason. Queries under way are then aborted. */
export async function runQuery(parts: QueryParts): Promise<QueryResult> {
  const { lookup, signal, onEvent, clock, timeoutMs } = parts
  signal?.throwIfAborted()
  const controller = new AbortController()
  const over = deferred<QueryResult>()

  async function ask(peer: PeerId, hops: number): Promise<void> {
    const since = clock.now()
    try {
      const answer = await parts.ask(peer, controller.signal)
      if (controller.signal.aborted) return
      const closer = parts.onAnswer(peer, answer)
      onEvent?.({ type: 'answer', peer, hops, closer: closer.length, elapsedMs: clock.now() - since })
      lookup.answered(
        peer,
        closer.map((info) => info.peer),
      )
    } catch (thrown) {
      if (controller.signal.aborted) return
      const error = asError(thrown)
      parts.onFailure(peer, error)
      onEvent?.({ type: 'failed', peer, error })
      lookup.failed(peer)
    }
    advance()
  }

  function advance(): void {
    for (let event = lookup.next(); event !== undefined; event = lookup.next()) {
      if (event.type === 'query') {
        const { peer } = event
        const { hops = 0, from } = lookup.find(peer) ?? {}
        onEvent?.({ type: 'query', peer, hops, from })
        void ask(peer, hops)
      } else {
        const { queries, heard } = lookup
        over.resolve({ type: 'done', reason: event.reason, queries, heard })
      }
    }
  }

  const timer = clock.setTimer(timeoutMs, () => {
    lookup.stop('timeout')
    advance()
  })
  advance()
  try {
    const result = await raceAbort(over.promise, signal)
    onEvent?.(result)
    return result
  } finally {
    timer.cancel()
    lookup.stop()
    controller.abort(new Error('the lookup is over'))
  }
}
