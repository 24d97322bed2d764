/*
 * A whole tree, parents before children, for writing it somewhere. Names that mean something else on a disk are refused
 * (CVE-2020-26279), and so is a tree without end made of few blocks that link to each other again and again.
 */
import { leash } from '../deadline.ts'
import { LimitError } from '../errors.ts'
import type { CID } from '../ipld/cid.ts'
import { ahead, type Budget } from './ahead.ts'
import type { BlockSource, FetchOptions } from './blocks.ts'
import { badDag, type UnixFSNode } from './data.ts'
import { type CatOptions, catFile, entriesOf, readNode, type Stat, statNode } from './read.ts'

export interface WalkOptions extends FetchOptions {
  /** Entries of the whole tree; more is a LimitError. */
  maxEntries?: number | undefined
  /** Directories within directories; more is a LimitError. */
  maxDepth?: number | undefined
}

const walkDefaults = {
  /** About ten Linux kernel trees. */
  maxEntries: 1_000_000,
  /** PATH_MAX of 4,096 leaves room for twice as many one-letter names; real trees stay below 50. */
  maxDepth: 256,
}

/** Root blocks of entries that are fetched ahead, in the whole tree: at most 32 MiB. */
const nodesAhead = 16

export interface WalkEntry extends Stat {
  /** Names from the root joined by '/', '' for the root itself. No name is '', '.', '..', or has '/' or NUL in it. */
  path: string
  /** The bytes of a file. Throws TypeError for anything else. May be called again. */
  content(options?: CatOptions): AsyncGenerator<Uint8Array>
}

/** Throws ProtocolError `bad-dag` for a name that cannot be the name of a file. */
function checkName(directory: CID, name: string): void {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
    throw badDag(directory, `directory holds the name ${JSON.stringify(name)}, which no file can have`)
}

/**
 * Every file, directory and symlink below `cid` and itself, a directory before what it holds, names in stored order.
 * Rejects with ProtocolError `bad-dag` for a name that is none, LimitError for a tree above the limits, and whatever reading
 * rejects with.
 */
export async function* walk(source: BlockSource, cid: CID, options: WalkOptions = {}): AsyncGenerator<WalkEntry> {
  const maxEntries = options.maxEntries ?? walkDefaults.maxEntries
  const maxDepth = options.maxDepth ?? walkDefaults.maxDepth
  const { signal, end } = leash(options.signal)
  const budget: Budget = { free: nodesAhead }
  let count = 0

  async function* below(node: UnixFSNode, path: string, depth: number): AsyncGenerator<WalkEntry> {
    signal.throwIfAborted()
    if (++count > maxEntries) throw new LimitError('maxEntries', maxEntries, count)
    yield {
      ...statNode(node),
      path,
      content: (catOptions) => {
        if (node.type !== 'file') throw new TypeError(`${JSON.stringify(path)} is a ${node.type}, it has no content`)
        return catFile(source, node, { ...catOptions, signal: catOptions?.signal ?? options.signal })
      },
    }
    if (node.type !== 'directory') return
    if (depth >= maxDepth) throw new LimitError('maxDepth', maxDepth, depth + 1)
    const children = ahead(entriesOf(source, node, { signal }), budget, async ({ name, cid: child }) => {
      checkName(node.cid, name)
      return { name, child: await readNode(source, child, { signal }) }
    })
    for await (const { name, child } of children) yield* below(child, path === '' ? name : `${path}/${name}`, depth + 1)
  }

  try {
    yield* below(await readNode(source, cid, { signal }), '', 0)
  } finally {
    end()
  }
}
