/*
 * A random walk: looks up a random key in the DHT now and then, and finds whoever answers on the way there. It needs one
 * peer of the DHT to begin with.
 */
import { sleep } from '../deadline.ts'
import { asError } from '../errors.ts'
import type { Discovery, Found } from './discovery.ts'

/** A Dht is one. */
export interface Walkable {
  closestPeers(key: Uint8Array, options: { signal?: AbortSignal | undefined }): Promise<readonly Found[]>
}

export interface RandomWalkOptions {
  /** Before the first walk. Default 10 s. */
  firstMs?: number
  /** Between two walks. Default 5 min. */
  intervalMs?: number
  /** No walk while so many are connected. Default 64. */
  enough?: number
}

const defaults = { firstMs: 10_000, intervalMs: 300_000, enough: 64 }
/** A key of the DHT is the hash of any bytes: so many can not be guessed. */
const keyBytes = 32

export function randomWalk(dht: Walkable, options: RandomWalkOptions = {}): Discovery {
  const { firstMs, intervalMs, enough } = { ...defaults, ...options }
  return {
    source: 'random-walk',
    async *find(host, signal) {
      const { env } = host
      const pause = (ms: number): Promise<void> =>
        sleep(env, ms * (0.75 + env.random.unit() / 2), signal).catch(() => {})
      let failures = 0
      for (await pause(firstMs); !signal.aborted;) {
        if (host.connections().length < enough) {
          try {
            yield* await dht.closestPeers(env.random.bytes(keyBytes), { signal })
            failures = 0
          } catch (error) {
            if (signal.aborted) return
            failures++
            env.trace?.('discovery.walk-failed', { error: asError(error) })
          }
        }
        // Nobody to ask yet, most likely: sooner than the next walk is due, but not all the time.
        await pause(failures === 0 ? intervalMs : Math.min(intervalMs, firstMs * 2 ** Math.min(failures, 20)))
      }
    },
  }
}
