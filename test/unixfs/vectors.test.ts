import { describe, expect, test } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { type CID, codec } from '../../src/ipld/cid.ts'
import { buildFile, profiles } from '../../src/unixfs/build.ts'
import { addDirectory, addFile, ls, type AddEntry, type ProfileName } from '../../src/unixfs/unixfs.ts'
import vectors from '../../spec-vectors/unixfs/ipip-0499.json' with { type: 'json' }
import { Blocks, keyStream, names } from './support.ts'

interface Case {
  cid: string
  what: string
  text?: string
  content?: { seed: string; size: number }
  directory?: { seed: string; count: number; nameLength: number; lastNameLength: number }
}

const gigabyte = 1024 * 1024 * 1024

let dagPb: Promise<CID[]> | undefined

/** The dag-pb blocks of the 1 GiB + 1 byte file: its first inner node is the root of the 1 GiB file, so one pass serves both. */
function overGigabyte(): Promise<CID[]> {
  dagPb ??= (async () => {
    const cids: CID[] = []
    const source = keyStream('v1-2025-seed', gigabyte + 1)
    const { cid } = await buildFile(source, profiles['unixfs-v1-2025'], (cid) => {
      if (cid.code === codec.dagPb) cids.push(cid)
      return undefined
    })
    expect(cids).toHaveLength(3)
    expect(cids.at(-1)).toEqual(cid)
    return cids
  })()
  return dagPb
}

describe('IPIP-0499', () => {
  for (const profile of ['unixfs-v0-2015', 'unixfs-v1-2025'] as const satisfies ProfileName[]) {
    for (const { cid, what, text, content, directory } of vectors.cases[profile] as Case[]) {
      test(`${profile}: ${what}`, { timeout: 120_000 }, async () => {
        const blocks = new Blocks({ discard: content !== undefined })
        if (text !== undefined) {
          expect((await addFile(blocks, fromUtf8(text), { profile })).cid.toString()).toBe(cid)
        } else if (content !== undefined && content.size >= gigabyte) {
          expect((await overGigabyte()).map(String)).toContain(cid)
        } else if (content !== undefined) {
          const added = await addFile(blocks, keyStream(content.seed, content.size), { profile })
          expect(added.cid.toString()).toBe(cid)
          expect(added.size).toBe(content.size)
        } else if (directory !== undefined) {
          const { seed, count, nameLength, lastNameLength } = directory
          const inside = names(seed, count, nameLength, lastNameLength)
          const entries = inside.map((path): AddEntry => ({ path, type: 'file', content: fromUtf8('x') }))
          const added = await addDirectory(blocks, entries, { profile })
          expect(added.cid.toString()).toBe(cid)
          const listed = await Array.fromAsync(ls(blocks, added.cid), ({ name }) => name)
          expect(listed.toSorted()).toEqual(inside.toSorted())
        }
      })
    }

    test(`${profile}: an empty directory has its well-known CID`, async () => {
      const added = await addDirectory(new Blocks(), [], { profile })
      expect(added.cid.toString()).toBe(vectors.emptyDirectory[profile])
    })
  }
})

test('an empty file has its well-known CID in both profiles', async () => {
  // unixfs.md §Well-Known UnixFS CIDs
  const old = await addFile(new Blocks(), [], { profile: 'unixfs-v0-2015' })
  expect(old.cid.toString()).toBe('QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH')
  const modern = await addFile(new Blocks(), [])
  expect(modern.cid.toString()).toBe('bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku')
})

test('a directory with a symlink has the CID of the fixture symlink.car', async () => {
  // unixfs.md §Symbolic Links
  const entries: AddEntry[] = [
    { path: 'foo', type: 'file', content: fromUtf8('content\n') },
    { path: 'bar', type: 'symlink', target: 'foo' },
  ]
  const added = await addDirectory(new Blocks(), entries, { profile: 'unixfs-v0-2015' })
  expect(added.cid.toString()).toBe('QmWvY6FaqFMS89YAQ9NAPjVP4WZKA1qbHbicc9HeSKQTgt')
})
