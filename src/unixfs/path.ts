/*
 * UnixFS paths (unixfs.md §UnixFS Paths): CID/a/b, /ipfs/CID/a/b, ipfs://CID/a/b. No percent-decoding: names are taken as
 * they are. `..` never leaves the root. Symlinks are reported, not followed.
 */
import { UnavailableError } from '../errors.ts'
import { type CID, parseCid } from '../ipld/cid.ts'
import type { BlockSource, FetchOptions } from './blocks.ts'
import type { UnixFSNode } from './data.ts'
import { lookup, readNode } from './read.ts'

export interface UnixFSPath {
  cid: CID
  /** Names below the CID, without '', '.' and '..'. */
  segments: string[]
}

/** Throws TypeError for what is no path: a bad CID, or `..` that would leave the root. */
export function parsePath(text: string): UnixFSPath {
  const rest = text.replace(/^(?:\/ipfs\/|ipfs:\/\/)/, '')
  const [root = '', ...names] = rest.split('/')
  if (root === '' || /^[a-z]+:$/.test(root))
    throw new TypeError(
      `${JSON.stringify(text)} is no path of content: want CID/PATH, /ipfs/CID/PATH or ipfs://CID/PATH`,
    )
  const cid = parseCid(root)
  const segments: string[] = []
  for (const name of names) {
    if (name === '' || name === '.') continue
    if (name !== '..') segments.push(name)
    else if (segments.pop() === undefined) throw new TypeError(`path ${JSON.stringify(text)} leaves its root with ".."`)
  }
  return { cid, segments }
}

/** `/ipfs/CID/a/b`. */
export function formatPath(cid: CID, segments: readonly string[]): string {
  return ['/ipfs', cid.toString(), ...segments].join('/')
}

/**
 * The node a path leads to, fetching one block per plain directory on the way.
 * Rejects with UnavailableError that names the segment: `not-found` when a directory has no such entry (and when a block is
 * missing), `not-a-directory` when the path goes on behind a file or symlink.
 */
export async function resolveNode(
  source: BlockSource,
  cid: CID,
  segments: readonly string[],
  options: FetchOptions = {},
): Promise<UnixFSNode> {
  let node = await readNode(source, cid, options)
  for (const [i, name] of segments.entries()) {
    const here = formatPath(cid, segments.slice(0, i))
    if (node.type !== 'directory') {
      const what = node.type === 'symlink' ? `symlink to ${JSON.stringify(node.target)}` : node.type
      throw new UnavailableError('not-a-directory', `${here} is a ${what}: it has no ${JSON.stringify(name)}`)
    }
    const entry = await lookup(source, node, name, options)
    if (entry === undefined) throw new UnavailableError('not-found', `no ${JSON.stringify(name)} in ${here}`)
    node = await readNode(source, entry.cid, options)
  }
  return node
}

/** The CID a path leads to: see resolveNode. */
export async function resolve(
  source: BlockSource,
  cid: CID,
  segments: readonly string[],
  options: FetchOptions = {},
): Promise<CID> {
  return (await resolveNode(source, cid, segments, options)).cid
}
