import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { BlockWriter } from '../../src/unixfs/blocks.ts'
import { buildFile, type Profile, profiles } from '../../src/unixfs/build.ts'
import { type ByteSource, chunk } from '../../src/unixfs/chunk.ts'
import { addDirectory, addFile, cat, resolve, stat, type AddedEntry, type AddEntry } from '../../src/unixfs/unixfs.ts'
import { cidOf, codec } from '../../src/ipld/cid.ts'
import { Blocks, collect, pattern } from './support.ts'

/** The modern profile in miniature: four chunks fill a node, so that small inputs make deep trees. */
const tiny: Profile = { ...profiles['unixfs-v1-2025'], chunkBytes: 8, width: 4 }

function split(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => bytes.subarray(at[i] ?? 0, end))
}

async function* slowly(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) {
    await Promise.resolve()
    yield piece
  }
}

describe('chunk', () => {
  test('every split of the bytes gives the same chunks', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 600 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        fc.integer({ min: 1, max: 200 }),
        async (bytes, cuts, size) => {
          const chunks = await Array.fromAsync(chunk(slowly(split(bytes, cuts)), size))
          expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
          expect(chunks.slice(0, -1).every((one) => one.length === size)).toBe(true)
          expect(chunks.every((one) => one.length > 0)).toBe(true)
        },
      ),
    )
  })

  test('gathers a source of single bytes', async () => {
    const bytes = pattern(5000)
    const crumbs = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
    const chunks = await Array.fromAsync(chunk(crumbs, 2000))
    expect(chunks.map((one) => one.length)).toEqual([2000, 2000, 1000])
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
  })

  test('gives views of a large piece, and does not pin it for a small rest', async () => {
    const bytes = pattern(1_000_001)
    const chunks = await Array.fromAsync(chunk(bytes, 250_000))
    expect(chunks.map((one) => one.buffer === bytes.buffer)).toEqual([true, true, true, true, false])
    expect(chunks[4]?.buffer.byteLength).toBe(1)
  })

  const bytes = pattern(100_000)
  const sources: Record<string, () => ByteSource> = {
    'a Uint8Array': () => bytes,
    'a Buffer': () => Buffer.from(bytes),
    'an array of pieces': () => split(bytes, [7, 70_000]),
    'a generator': () => slowly(split(bytes, [7, 70_000])),
    'a Blob': () => new Blob([bytes as Uint8Array<ArrayBuffer>]),
    'a ReadableStream': () => new Blob([bytes as Uint8Array<ArrayBuffer>]).stream(),
    'a ReadableStream without iterator (Safari)': () => {
      const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream()
      return { getReader: () => stream.getReader() } as ReadableStream<Uint8Array>
    },
  }
  for (const [what, source] of Object.entries(sources)) {
    test(`reads ${what}`, async () => {
      const chunks = await Array.fromAsync(chunk(source(), 4096))
      expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
      for (const one of chunks) expect(one.constructor).toBe(Uint8Array)
    })
  }

  test('cancels a ReadableStream that is not read to its end', async () => {
    let cancelled = false
    const stream = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(pattern(10)),
      cancel: () => void (cancelled = true),
    })
    for await (const one of chunk({ getReader: () => stream.getReader() } as ReadableStream<Uint8Array>, 4)) {
      expect(one).toHaveLength(4)
      break
    }
    expect(cancelled).toBe(true)
  })

  test('refuses what gives no bytes, and a size that is none', async () => {
    for (const wrong of ['text', ['text'], 5, null, {}] as unknown[])
      await expect(Array.fromAsync(chunk(wrong as ByteSource, 4))).rejects.toThrow(TypeError)
    for (const size of [0, -1, 1.5]) await expect(Array.fromAsync(chunk(bytes, size))).rejects.toThrow(RangeError)
  })
})

describe('addFile', () => {
  test('gives the same CID however the content is cut, and cat gives the content', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 800 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        async (bytes, cuts) => {
          const blocks = new Blocks()
          const whole = await addFile(blocks, bytes, { profile: tiny })
          const parts = await addFile(blocks, slowly(split(bytes, cuts)), { profile: tiny })
          expect(parts).toEqual(whole)
          expect(whole.size).toBe(bytes.length)
          expect(Buffer.from(await collect(cat(blocks, whole.cid))).equals(bytes)).toBe(true)
        },
      ),
      { numRuns: 30 },
    )
  })

  test('keeps every leaf at the same depth, and counts the bytes of all blocks', async () => {
    for (const chunks of [1, 2, 4, 5, 16, 17, 20, 64, 65]) {
      const blocks = new Blocks()
      const { cid, dagSize } = await addFile(blocks, pattern(chunks * 8), { profile: tiny })
      expect(dagSize).toBe([...blocks.map.values()].reduce((sum, { length }) => sum + length, 0))
      expect((await stat(blocks, cid)).dagSize).toBe(dagSize)
    }
  })

  test('tells the progress in bytes of content', async () => {
    const told: number[] = []
    await addFile(new Blocks(), pattern(20), { profile: tiny, onProgress: (bytes) => told.push(bytes) })
    expect(told).toEqual([8, 16, 20])
  })

  test('resolves only once every block is with the store', async () => {
    let finished = 0
    let open = 0
    let most = 0
    const sink = {
      async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>) {
        most = Math.max(most, ++open)
        await new Promise((resolve) => setTimeout(resolve, 1))
        for await (const _ of pairs) finished++
        open--
      },
    }
    await addFile(sink, pattern(40_000), { profile: { ...tiny, chunkBytes: 10, width: 100 } })
    expect(finished).toBe(4000 + 40 + 1)
    expect(open).toBe(0)
    expect(most).toBeLessThanOrEqual(2)
  })

  test('rejects with the error of the store and stops reading', async () => {
    let read = 0
    function* endless() {
      for (;;) {
        read++
        yield pattern(8)
      }
    }
    const failure = new Error('disk full')
    const sink = { putMany: () => Promise.reject(failure) }
    await expect(addFile(sink, endless(), { profile: tiny })).rejects.toBe(failure)
    expect(read).toBeLessThan(10_000)
  })

  test('rejects with the error of the source, after the store is quiet', async () => {
    const failure = new Error('no such file')
    let open = 0
    const sink = {
      async putMany() {
        open++
        await new Promise((resolve) => setTimeout(resolve, 5))
        open--
      },
    }
    async function* failing() {
      for (let i = 0; i < 2000; i++) yield pattern(8)
      throw failure
    }
    await expect(addFile(sink, failing(), { profile: tiny })).rejects.toBe(failure)
    expect(open).toBe(0)
  })

  test('an abort ends it, even when the source hangs', async () => {
    const abort = new AbortController()
    const hanging = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => undefined) }) }
    const added = addFile(new Blocks(), hanging, { signal: abort.signal })
    const reason = new Error('enough')
    abort.abort(reason)
    await expect(added).rejects.toBe(reason)
    await expect(addFile(new Blocks(), pattern(1), { signal: abort.signal })).rejects.toBe(reason)
  })

  test('refuses a profile that does not exist', async () => {
    await expect(addFile(new Blocks(), pattern(1), { profile: 'constructor' as never })).rejects.toThrow(TypeError)
  })
})

test('buildFile waits when it is told to', async () => {
  let waiting = 0
  await buildFile(pattern(800), tiny, async () => {
    expect(++waiting).toBe(1)
    await new Promise((resolve) => setImmediate(resolve))
    waiting--
  })
})

describe('BlockWriter', () => {
  const cid = cidOf(codec.raw, pattern(4))

  test('holds no more than three groups', async () => {
    const releases: (() => void)[] = []
    const writer = new BlockWriter(
      { putMany: () => new Promise((resolve) => releases.push(resolve)) },
      { groupBytes: 8, groupBlocks: 100 },
    )
    const waits = Array.from({ length: 4 }, () => writer.put(cid, pattern(4)))
    expect(waits.map((wait) => wait !== undefined)).toEqual([false, false, false, true])
    expect(releases).toHaveLength(2)
    releases.splice(0).forEach((release) => release())
    await waits[3]
    await writer.finish()
  })

  test('groups by count too', async () => {
    const groups: number[] = []
    const writer = new BlockWriter(
      { putMany: async (pairs) => void groups.push([...(pairs as Iterable<BlockPair>)].length) },
      { groupBytes: 1e9, groupBlocks: 2 },
    )
    for (let i = 0; i < 5; i++) await writer.put(cid, pattern(4))
    await writer.finish()
    expect(groups).toEqual([2, 2, 1])
  })
})

function file(path: string, text = path): AddEntry {
  return { path, type: 'file', content: () => fromUtf8(text) }
}

describe('addDirectory', () => {
  test('gives the same root for every order of the entries, with or without the directories named', async () => {
    const entries = ['a', 'b/c', 'b/d/e', 'b-', 'B/x', 'ą/ę', '\u{1F600}', '\uFF5E'].map((path) => file(path))
    const root = (await addDirectory(new Blocks(), entries)).cid
    for (let i = 0; i < entries.length; i++) {
      const [first] = entries.splice(0, 1)
      if (first !== undefined) entries.push(first)
      const more: AddEntry[] = [...entries, { path: 'b', type: 'directory' }, { path: '', type: 'directory' }]
      expect((await addDirectory(new Blocks(), more)).cid.toString()).toBe(root.toString())
    }
  })

  test('tells of every entry, children before parents, the root last', async () => {
    const told: AddedEntry[] = []
    const entries: AddEntry[] = [file('b/c', 'abc'), { path: 'e', type: 'directory' }, file('a', 'x')]
    const added = await addDirectory(new Blocks(), entries, { onEntry: (entry) => told.push(entry) })
    expect(told.map(({ path, type, size }) => [path, type, size])).toEqual([
      ['b/c', 'file', 3],
      ['a', 'file', 1],
      ['b', 'directory', 3],
      ['e', 'directory', 0],
      ['', 'directory', 4],
    ])
    expect(told.at(-1)?.cid).toEqual(added.cid)
    expect(added.size).toBe(4)
  })

  test('refuses paths that are none, come twice, or go through a file', async () => {
    const wrong = ['/a', 'a/', 'a//b', '..', 'a/../b', './a', 'a\0', '\uD800', '']
    for (const path of wrong) await expect(addDirectory(new Blocks(), [file(path)]), path).rejects.toThrow(TypeError)
    for (const pair of [
      ['a', 'a'],
      ['a', 'a/b'],
      ['a/b', 'a'],
    ] as const)
      await expect(
        addDirectory(
          new Blocks(),
          pair.map((path) => file(path)),
        ),
      ).rejects.toThrow(TypeError)
  })

  test('keeps names like __proto__ as names', async () => {
    const blocks = new Blocks()
    const { cid } = await addDirectory(blocks, [file('__proto__/constructor')])
    const found = await resolve(blocks, cid, ['__proto__', 'constructor'])
    expect(Buffer.from(await collect(cat(blocks, found))).toString()).toBe('__proto__/constructor')
  })
})
