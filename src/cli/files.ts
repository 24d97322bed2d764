/* Files of this machine as the entries of an add, and how many bytes they have. */
import { createReadStream, lstatSync, type Dirent } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { AddEntry } from '../unixfs/import.ts'
import { UsageError } from './args.ts'

/** Node's default of 64 KiB costs a third of the rate. */
const readBytes = 1024 * 1024

/** A file's bytes; opened when first read. */
export function contentOf(path: string): AsyncIterable<Uint8Array> {
  return createReadStream(path, { highWaterMark: readBytes })
}

function wanted(entry: Dirent, hidden: boolean): boolean {
  return hidden || !entry.name.startsWith('.')
}

/** Names on disk are bytes, in UnixFS they are UTF-8: what is not came here with a replacement character. */
function isBroken(path: string): boolean {
  return path.includes('\ufffd') && lstatSync(path, { throwIfNoEntry: false }) === undefined
}

function notText(path: string): UsageError {
  return new UsageError(`${path}: the name is not UTF-8; rename it`)
}

/** Everything below `root`, directories before what is in them. */
export async function* entriesBelow(root: string, hidden: boolean, path = ''): AsyncGenerator<AddEntry> {
  const found = await readdir(join(root, path), { withFileTypes: true })
  for (const entry of found.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!wanted(entry, hidden)) continue
    const below = path === '' ? entry.name : `${path}/${entry.name}`
    const full = join(root, below)
    if (isBroken(full)) throw notText(full)
    if (entry.isDirectory()) {
      yield { path: below, type: 'directory' }
      yield* entriesBelow(root, hidden, below)
    } else if (entry.isSymbolicLink()) {
      yield { path: below, type: 'symlink', target: await readlink(full) }
    } else if (entry.isFile()) {
      yield { path: below, type: 'file', content: () => contentOf(full) }
    } else {
      throw new UsageError(`${full} is neither a file, a directory nor a symlink: move it away`)
    }
  }
}

/** What an add of one path will read. */
export interface Extent {
  /** Of all files: for the progress bar. */
  bytes: number
  /** Names that are left out because they begin with a dot. */
  leftOut: number
}

export async function extentOf(path: string, hidden: boolean): Promise<Extent> {
  if (isBroken(path)) throw notText(path)
  const stats = await lstat(path)
  const extent = { bytes: 0, leftOut: 0 }
  if (!stats.isDirectory()) return { ...extent, bytes: stats.size }
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (!wanted(entry, hidden)) extent.leftOut++
    else if (!entry.isSymbolicLink()) {
      const { bytes, leftOut } = await extentOf(join(path, entry.name), hidden)
      extent.bytes += bytes
      extent.leftOut += leftOut
    }
  }
  return extent
}
