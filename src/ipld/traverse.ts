/* A walk with a loader: blocks and matches as an async iterator, every block verified against its CID. */
import { ProtocolError } from '../errors.ts'
import { digestBytes } from '../limits.ts'
import { type CID, hash, verifyBlock } from './cid.ts'
import type { Segment } from './model.ts'
import type { Selector } from './selector.ts'
import { type Answer, type Step, walk, type WalkOptions, type WalkSummary } from './walk.ts'

export interface TraverseOptions extends WalkOptions {
  /** The block, or undefined where there is none. What it rejects with ends the traversal. */
  load: (cid: CID, options: { signal?: AbortSignal }) => Promise<Uint8Array | undefined> | Uint8Array | undefined
  signal?: AbortSignal | undefined
  /** Whether blocks are hashed before they are used. Turn off only for a loader that has done it. Default true. */
  verify?: boolean | undefined
}

export type Traversed =
  | Exclude<Step, { kind: 'load' }>
  /** A block, as often as it is on the way; `path` is that of its root. Those of identity CIDs are left out. */
  | { readonly kind: 'block'; readonly cid: CID; readonly bytes: Uint8Array; readonly path: readonly Segment[] }
  | { readonly kind: 'missing'; readonly cid: CID; readonly path: readonly Segment[] }

/**
 * In the order of walk, one block at a time: the next one is loaded when the iterator is asked for it. Throws as walk,
 * ProtocolError `bad-block` for a block that does not hash to its CID, and rejects with the signal's reason.
 */
export async function* traverse(
  root: CID,
  selector: Selector,
  options: TraverseOptions,
): AsyncGenerator<Traversed, WalkSummary> {
  const { load, signal, verify = true } = options
  const steps = walk(root, selector, options)
  const loadOptions = signal === undefined ? {} : { signal }
  let answer: Answer | undefined
  for (;;) {
    signal?.throwIfAborted()
    const { done, value } = steps.next(answer)
    answer = undefined
    if (done === true) return value
    if (value.kind !== 'load') {
      yield value
      continue
    }
    const { cid } = value
    if (cid.multihash.code === hash.identity) {
      answer = identity(cid)
      continue
    }
    const bytes = await load(cid, loadOptions)
    if (bytes === undefined) {
      answer = 'missing'
      yield { kind: 'missing', cid, path: value.path }
      continue
    }
    if (verify) verifyBlock(cid, bytes)
    answer = bytes
    yield { kind: 'block', cid, bytes, path: value.path }
  }
}

function identity({ multihash: { digest } }: CID): Uint8Array {
  if (digest.length > digestBytes)
    throw new ProtocolError('bad-cid', `identity CID of ${digest.length} bytes, at most ${digestBytes} allowed`)
  return digest
}
