/*
 * The kit's source of blocks: the store first, then the peers. What peers send is written behind, in groups that are
 * synced together, and can be read meanwhile.
 */
import { empty } from '../bytes.ts'
import { deferred, type Deferred } from '../inbox.ts'
import { hashesTo, type CID } from '../ipld/cid.ts'
import type { BlockPair, Blockstore } from '../store/blocks.ts'
import type { BlockSource } from '../unixfs/blocks.ts'

export interface Fetching extends BlockSource {
  /** Resolves once everything fetched is durable; rejects with the store's error. Call it when done. */
  flush(): Promise<void>
  /** Bytes that came from peers. */
  readonly fetchedBytes: number
}

/** Bytes fetched but not durable yet; beyond it, get waits for the store. */
const maxBehindBytes = 32 * 1024 * 1024

/** What is waited for before a group is written: a group of small blocks costs hardly more to sync than one of them. */
const groupBytes = 4 * 1024 * 1024
const groupBlocks = 256

export function fetching(store: Pick<Blockstore, 'get' | 'putMany'>, peers: BlockSource): Fetching {
  const behind = new Map<string, BlockPair>()
  let behindBytes = 0
  let fetchedBytes = 0
  let writing: Promise<void> | undefined
  let flushing = false
  let failure: { error: unknown } | undefined
  let waiting: Deferred<void>[] = []

  const due = (): boolean => (flushing ? behind.size > 0 : behindBytes >= groupBytes || behind.size >= groupBlocks)

  async function write(): Promise<void> {
    while (due() && failure === undefined) {
      const group = [...behind]
      try {
        await store.putMany(group.map(([, pair]) => pair))
      } catch (error) {
        failure = { error }
      }
      for (const [key, { bytes }] of group) {
        behind.delete(key)
        behindBytes -= bytes.length
      }
      for (const waiter of waiting.splice(0)) waiter.resolve()
    }
  }

  function writeWhenDue(): void {
    if (!due() || failure !== undefined) return
    writing ??= write().finally(() => (writing = undefined))
  }

  function check(): void {
    // The store's own error, unchanged: it knows best.
    // oxlint-disable-next-line typescript/only-throw-error
    if (failure !== undefined) throw failure.error
  }

  async function keep(key: string, pair: BlockPair): Promise<void> {
    // Nothing is written behind a failure, and nobody would end a write that is not done.
    check()
    behind.set(key, pair)
    behindBytes += pair.bytes.length
    writeWhenDue()
    while (behindBytes > maxBehindBytes && failure === undefined) {
      const waiter = deferred<void>()
      waiting.push(waiter)
      await waiter.promise
    }
    check()
  }

  return {
    get fetchedBytes() {
      return fetchedBytes
    },
    async get(cid: CID, options) {
      // boxo says DONT_HAVE for the empty block, whether it has it or not; nobody needs to be asked.
      if (cid.multihash.size === 32 && hashesTo(cid, empty)) return empty
      const key = cid.toString()
      const local = behind.get(key)?.bytes ?? (await store.get(cid, options))
      if (local !== undefined) return local
      check()
      const bytes = await peers.get(cid, options)
      fetchedBytes += bytes.length
      if (!behind.has(key)) await keep(key, { cid, bytes })
      return bytes
    },
    async flush() {
      flushing = true
      for (writeWhenDue(); writing !== undefined; writeWhenDue()) await writing
      flushing = false
      check()
    },
  }
}
