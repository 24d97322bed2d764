import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { afterEach, describe, expect, it } from 'vitest'
import { ClosedError, LimitError } from '../../src/errors.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import { blockBytes } from '../../src/limits.ts'
import type { BlockPair, Blockstore } from '../../src/store/blocks.ts'
import { openDiskBlocks } from '../../src/store/disk-blocks.ts'
import { MemoryBlocks } from '../../src/store/memory-blocks.ts'

const raw = 0x55
const dagPb = 0x70

function pair(text: string | Uint8Array): BlockPair {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text
  return { cid: cidOf(raw, bytes), bytes }
}

async function listed(store: Blockstore): Promise<string[]> {
  const out: string[] = []
  for await (const cid of store.list()) out.push(cid.toString())
  return out.toSorted()
}

async function* slow(): AsyncIterable<BlockPair> {
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setImmediate(resolve))
    yield pair(`slow ${i}`)
  }
}

function key({ cid }: BlockPair): string {
  return cid.toString()
}

const cleanups: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup()
})

const kinds: [string, () => Promise<Blockstore>][] = [
  ['memory', () => Promise.resolve(new MemoryBlocks())],
  [
    'disk',
    async () => {
      const path = await mkdtemp(join(tmpdir(), 'rhiza-blocks-'))
      cleanups.push(() => rm(path, { recursive: true, force: true }))
      return openDiskBlocks(path)
    },
  ],
]

describe.each(kinds)('a %s blockstore', (_kind, make) => {
  it('gives back what was put and nothing else', async () => {
    const store = await make()
    const { cid, bytes } = pair('hello')
    expect(await store.has(cid)).toBe(false)
    expect(await store.get(cid)).toBeUndefined()
    await store.put(cid, bytes)
    expect(await store.has(cid)).toBe(true)
    expect(await store.size(cid)).toBe(5)
    expect(await store.get(cid)).toEqual(bytes)
    expect(await store.has(pair('other').cid)).toBe(false)
    expect(await store.size(pair('other').cid)).toBeUndefined()
    await store.close()
  })

  it('holds the empty block and the largest one', async () => {
    const store = await make()
    for (const bytes of [new Uint8Array(0), new Uint8Array(blockBytes).fill(7)]) {
      const { cid } = pair(bytes)
      await store.put(cid, bytes)
      const got = await store.get(cid)
      expect(got?.length).toBe(bytes.length)
      expect(got?.at(-1)).toBe(bytes.at(-1))
    }
    await store.close()
  })

  it('refuses a block above the largest, alone and among many', async () => {
    const store = await make()
    const large = pair(new Uint8Array(blockBytes + 1))
    await expect(store.put(large.cid, large.bytes)).rejects.toBeInstanceOf(LimitError)
    await expect(store.putMany([pair('a'), large, pair('b')])).rejects.toBeInstanceOf(LimitError)
    expect(await store.has(large.cid)).toBe(false)
    await store.close()
  })

  it('knows a block by its multihash, whatever the version and codec of the CID', async () => {
    const store = await make()
    const bytes = new TextEncoder().encode('one hash, three names')
    const v0 = cidOf(dagPb, bytes, 0)
    await store.put(v0, bytes)
    for (const cid of [v0, v0.toV1(), CID.createV1(raw, v0.multihash)]) {
      expect(await store.has(cid)).toBe(true)
      expect(await store.get(cid)).toEqual(bytes)
    }
    expect(await listed(store)).toEqual([CID.createV1(raw, v0.multihash).toString()])
    await store.close()
  })

  it('has every identity block without storing it', async () => {
    const store = await make()
    const bytes = new TextEncoder().encode('inline')
    const cid = CID.createV1(raw, Digest.create(0, bytes))
    expect(await store.has(cid)).toBe(true)
    expect(await store.size(cid)).toBe(6)
    expect(await store.get(cid)).toEqual(bytes)
    await store.put(cid, bytes)
    expect(await store.stat()).toEqual({ blocks: 0, bytes: 0 })
    expect(await store.delete(cid)).toBe(false)
    await store.close()
  })

  it('counts, lists and deletes', async () => {
    const store = await make()
    const pairs = ['a', 'bb', 'ccc'].map(pair)
    await store.putMany(pairs)
    expect(await store.stat()).toEqual({ blocks: 3, bytes: 6 })
    expect(await listed(store)).toEqual(pairs.map((p) => p.cid.toString()).toSorted())
    const gone = pair('bb').cid
    expect(await store.delete(gone)).toBe(true)
    expect(await store.delete(gone)).toBe(false)
    expect(await store.has(gone)).toBe(false)
    expect(await store.get(gone)).toBeUndefined()
    expect(await store.stat()).toEqual({ blocks: 2, bytes: 4 })
    await store.close()
  })

  it('keeps one copy of a block that is put twice, also at once', async () => {
    const store = await make()
    const { cid, bytes } = pair('twice')
    await Promise.all([store.put(cid, bytes), store.put(cid, bytes), store.putMany([{ cid, bytes }])])
    await store.put(cid, bytes)
    expect(await store.stat()).toEqual({ blocks: 1, bytes: bytes.length })
    await store.close()
  })

  it('takes many blocks from a list, from a slow source and from nothing', async () => {
    const store = await make()
    await store.putMany([])
    await store.putMany(Array.from({ length: 50 }, (_, i) => pair(`list ${i}`)))
    await store.putMany(slow())
    expect((await store.stat()).blocks).toBe(70)
    await store.close()
  })

  it('passes on the error of a source that breaks, with what came before it whole', async () => {
    const store = await make()
    const broken = new Error('the source broke')
    // oxlint-disable-next-line require-yield
    async function* source(): AsyncIterable<BlockPair> {
      yield pair('before')
      throw broken
    }
    await expect(store.putMany(source())).rejects.toBe(broken)
    for await (const cid of store.list()) expect(cid.equals(pair('before').cid)).toBe(true)
    await store.close()
  })

  it('lets go of a source when a block is refused', async () => {
    const store = await make()
    let returned = false
    async function* source(): AsyncIterable<BlockPair> {
      try {
        for (;;) yield pair(new Uint8Array(blockBytes + 1))
      } finally {
        returned = true
      }
    }
    await expect(store.putMany(source())).rejects.toBeInstanceOf(LimitError)
    await new Promise((resolve) => setImmediate(resolve))
    expect(returned).toBe(true)
    await store.close()
  })

  it('ends with the reason of the signal, before the work and while a source hangs', async () => {
    const store = await make()
    const { cid, bytes } = pair('aborted')
    const reason = new Error('enough')
    const aborted = AbortSignal.abort(reason)
    for (const call of [
      () => store.has(cid, { signal: aborted }),
      () => store.get(cid, { signal: aborted }),
      () => store.put(cid, bytes, { signal: aborted }),
      () => store.putMany([{ cid, bytes }], { signal: aborted }),
    ])
      await expect(call()).rejects.toBe(reason)
    expect(await store.has(cid)).toBe(false)
    const controller = new AbortController()
    const hanging: AsyncIterable<BlockPair> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }),
    }
    const put = store.putMany(hanging, { signal: controller.signal })
    controller.abort(reason)
    await expect(put).rejects.toBe(reason)
    await store.close()
  })

  it('refuses everything after close, which may be called twice', async () => {
    const store = await make()
    const { cid, bytes } = pair('late')
    await store.close()
    await store.close()
    for (const call of [
      () => store.has(cid),
      () => store.size(cid),
      () => store.get(cid),
      () => store.put(cid, bytes),
      () => store.putMany([{ cid, bytes }]),
      () => store.delete(cid),
      () => store.stat(),
      () => listed(store),
    ])
      await expect(call()).rejects.toBeInstanceOf(ClosedError)
  })

  it('behaves like a map of multihashes for any sequence of calls', async () => {
    const step = fc.record({
      kind: fc.constantFrom('put', 'delete', 'get', 'many'),
      content: fc.integer({ min: 0, max: 6 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        const store = await make()
        const model = new Map<string, Uint8Array>()
        for (const { kind, content } of steps) {
          const p = pair(new Uint8Array(content).fill(content))
          const more = pair(new Uint8Array(content + 1).fill(9))
          if (kind === 'put') await store.put(p.cid, p.bytes)
          if (kind === 'many') await store.putMany([p, more, p])
          if (kind === 'put' || kind === 'many') model.set(key(p), p.bytes)
          if (kind === 'many') model.set(key(more), more.bytes)
          if (kind === 'delete') expect(await store.delete(p.cid)).toBe(model.delete(key(p)))
          expect(await store.has(p.cid)).toBe(model.has(key(p)))
          expect(await store.get(p.cid)).toEqual(model.get(key(p)))
        }
        expect(await listed(store)).toEqual([...model.keys()].toSorted())
        let bytes = 0
        for (const block of model.values()) bytes += block.length
        expect(await store.stat()).toEqual({ blocks: model.size, bytes })
        await store.close()
      }),
      { numRuns: 25 },
    )
  })
})

describe('a memory blockstore with a bound', () => {
  it('refuses what does not fit and keeps what it has', async () => {
    const store = new MemoryBlocks({ maxBytes: 10 })
    const first = pair('12345678')
    await store.put(first.cid, first.bytes)
    const second = pair('abc')
    await expect(store.put(second.cid, second.bytes)).rejects.toMatchObject({ limit: 'maxBytes', max: 10, current: 11 })
    await store.put(first.cid, first.bytes)
    expect(await store.get(first.cid)).toEqual(first.bytes)
    await store.delete(first.cid)
    await store.put(second.cid, second.bytes)
    expect(() => new MemoryBlocks({ maxBytes: -1 })).toThrow(RangeError)
  })

  it('does not keep the larger buffer that a block is a view of', async () => {
    const store = new MemoryBlocks()
    const view = new Uint8Array(1_000_000).subarray(10, 20)
    const { cid } = pair(view)
    await store.put(cid, view)
    expect((await store.get(cid))?.buffer.byteLength).toBe(10)
  })

  it('does not copy a block that is nearly all of its buffer', async () => {
    const store = new MemoryBlocks()
    const message = new Uint8Array(1000)
    const { cid, bytes } = pair(message.subarray(40))
    await store.put(cid, bytes)
    expect((await store.get(cid))?.buffer).toBe(message.buffer)
  })
})
