/*
 * Happy Eyeballs (RFC 8305) over the addresses of a peer: each is begun at its time, or as soon as one before it fails;
 * the first connection wins and the others are given up.
 */
import { raceAbort } from '../deadline.ts'
import type { Clock, Timer } from '../env.ts'
import { asError, type Attempt } from '../errors.ts'
import { deferred } from '../inbox.ts'
import type { Dial, Dials } from './dials.ts'

export interface Candidate {
  addr: string
  peer: string | undefined
  /** After the first one. */
  delayMs: number
  timeoutMs?: number
}

/**
 * The first connection, or undefined when every address failed: `tried` then says why. Rejects with signal.reason;
 * `tried` says how far each had come.
 */
export async function race<C>(
  dials: Dials<C>,
  candidates: readonly Candidate[],
  tried: Attempt[],
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<C | undefined> {
  const first = deferred<C | undefined>()
  const open = new Set<Dial<C>>()
  let begun = 0
  let timer: Timer | undefined
  let over = false
  const begin = (): void => {
    timer?.cancel()
    let at: Candidate | undefined
    do at = one()
    while (at !== undefined && (candidates[begun]?.delayMs ?? Infinity) <= at.delayMs)
    const next = candidates[begun]
    if (at !== undefined && next !== undefined) timer = clock.setTimer(next.delayMs - at.delayMs, begin)
  }
  const one = (): Candidate | undefined => {
    const at = candidates[begun++]
    if (at === undefined || over) return undefined
    const dial = dials.join(at.addr, at.peer, at.timeoutMs)
    open.add(dial)
    dial.outcome.promise.then(first.resolve, (error: unknown) => {
      if (over) return
      open.delete(dial)
      dials.leave(dial, asError(error))
      tried.push({ what: at.addr, reason: asError(error) })
      if (begun < candidates.length) begin()
      else if (open.size === 0) first.resolve(undefined)
    })
    return at
  }
  begin()
  try {
    return await raceAbort(first.promise, signal)
  } catch (error) {
    for (const { addr } of open) tried.push({ what: addr, reason: 'no answer until the end' })
    for (const { addr } of candidates.slice(begun)) tried.push({ what: addr, reason: 'its turn did not come' })
    throw error
  } finally {
    over = true
    timer?.cancel()
    for (const dial of open) dials.leave(dial, signal.reason ?? 'another address answered first')
  }
}
