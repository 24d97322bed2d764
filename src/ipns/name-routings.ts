/* Several ways that records travel, as one: the DHT and pubsub, say. A record goes by all of them, the newest counts. */
import { leash, raceAbort, sleep } from '../deadline.ts'
import type { Env } from '../env.ts'
import { UnavailableError, asError } from '../errors.ts'
import { deferred } from '../inbox.ts'
import type { NameRouting } from './ipns.ts'
import { decodeRecord, selectRecord } from './record.ts'

/** After the first answer, the others get this long: one that walks a DHT does not keep one that knows at once. */
const graceMs = 1_000

/** `routings` give valid records only, as the Dht and pubsubRouting() do. */
export function nameRoutings(routings: readonly NameRouting[], env: Env): NameRouting {
  return {
    async get(key, { signal }) {
      signal?.throwIfAborted()
      const bound = leash(signal)
      const found: Uint8Array[] = []
      const failed: Error[] = []
      const first = deferred<void>()
      const asking = routings.map(async (routing) => {
        try {
          found.push(await routing.get(key, { signal: bound.signal }))
          first.resolve()
        } catch (error) {
          failed.push(asError(error))
        }
      })
      const all = Promise.all(asking)
      try {
        await raceAbort(Promise.race([first.promise, all]), signal)
        if (found.length > 0) await Promise.race([all, sleep(env, graceMs, bound.signal)])
      } finally {
        bound.end()
      }
      signal?.throwIfAborted()
      const best = found[selectRecord(found.map((record) => decodeRecord(record)))]
      if (best !== undefined) return best
      throw failed.find((error) => !(error instanceof UnavailableError)) ?? none('no record of the name', failed)
    },
    async put(key, value, { signal }) {
      const put = await Promise.allSettled(routings.map(async (routing) => routing.put(key, value, { signal })))
      signal?.throwIfAborted()
      const peers = put.reduce((sum, one) => sum + (one.status === 'fulfilled' ? one.value : 0), 0)
      const failed = put.flatMap((one) => (one.status === 'rejected' ? [asError(one.reason)] : []))
      if (peers > 0 || failed.length === 0) return peers
      throw failed.find((error) => !(error instanceof UnavailableError)) ?? none('nobody took the record', failed)
    },
  }
}

function none(what: string, failed: readonly Error[]): UnavailableError {
  const [only] = failed
  if (failed.length === 1 && only instanceof UnavailableError) return only
  return new UnavailableError('not-found', `${what}: ${failed.map(({ message }) => message).join('; ')}`)
}
