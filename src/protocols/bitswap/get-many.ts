/* Many blocks in flight, bounded in number and in bytes, while the consumer takes them one by one. */
import type { CID } from 'multiformats/cid'
import { leash } from '../../deadline.ts'
import { asError } from '../../errors.ts'
import { deferred, type Deferred } from '../../inbox.ts'

export interface GetManyOptions {
  signal?: AbortSignal
  /** Per block. */
  timeoutMs?: number
  /** False: as they come. */
  ordered?: boolean
  /** Blocks asked for and not yet taken by the consumer: 128. */
  inFlight?: number
  /** The same in bytes, by the average size so far: 32 MiB. */
  inFlightBytes?: number
}

export interface FetchedBlock {
  cid: CID
  bytes: Uint8Array
}

type Get = (cid: CID, options: { signal: AbortSignal; timeoutMs?: number }) => Promise<Uint8Array>

export async function* getMany(
  get: Get,
  cids: Iterable<CID> | AsyncIterable<CID>,
  options: GetManyOptions = {},
): AsyncGenerator<FetchedBlock, void, undefined> {
  const { timeoutMs, ordered = true, inFlight = 128, inFlightBytes = 32 * 1024 * 1024 } = options
  const { signal, end } = leash(options.signal)
  const ready: Promise<FetchedBlock>[] = []
  let active = 0
  let averageBytes = 0
  let exhausted = false
  let stopped = false
  let failure: Error | undefined
  let news: Deferred<void> = deferred()
  let room: Deferred<void> = deferred()

  const full = (): boolean =>
    active >= Math.max(4, Math.min(inFlight, Math.floor(inFlightBytes / Math.max(1, averageBytes))))

  async function fetchOne(cid: CID): Promise<FetchedBlock> {
    const bytes = await get(cid, { signal, ...(timeoutMs !== undefined && { timeoutMs }) })
    averageBytes = averageBytes === 0 ? bytes.length : 0.9 * averageBytes + 0.1 * bytes.length
    return { cid, bytes }
  }

  function begin(cid: CID): void {
    active++
    const block = fetchOne(cid)
    // In order a promise is queued at once, otherwise when it is settled; either way its rejection is seen.
    const queue = (): void => {
      ready.push(block)
      news.resolve()
    }
    if (ordered) queue()
    block.then(ordered ? undefined : queue, ordered ? () => {} : queue)
  }

  async function draw(): Promise<void> {
    try {
      for await (const cid of cids) {
        while (full() && !stopped) {
          room = deferred()
          await room.promise
        }
        if (stopped) return
        begin(cid)
      }
    } catch (error) {
      failure = asError(error)
    } finally {
      exhausted = true
      news.resolve()
    }
  }

  void draw()
  try {
    for (;;) {
      const block = ready.shift()
      if (block !== undefined) {
        yield await block
        active--
        room.resolve()
      } else if (failure !== undefined) {
        throw failure
      } else if (exhausted && active === 0) {
        return
      } else {
        news = deferred()
        await news.promise
      }
    }
  } finally {
    stopped = true
    room.resolve()
    end()
  }
}
