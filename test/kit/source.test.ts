import { expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { StorageError } from '../../src/errors.ts'
import { cidOf, codec } from '../../src/ipld/cid.ts'
import { fetching } from '../../src/kit/source.ts'
import { deferred } from '../../src/inbox.ts'

const blocks = Array.from({ length: 5 }, (_, i) => {
  const bytes = fromUtf8(`block ${i}`)
  return { cid: cidOf(codec.raw, bytes), bytes }
})

it('what comes from peers after the disk was full fails with the same error, and flush ends', async () => {
  const full = new StorageError('disk-full', '/repo', 'the disk is full')
  const store = {
    get: () => Promise.resolve(undefined),
    putMany: () => Promise.reject(full),
  }
  const late = deferred<void>()
  const source = fetching(store, {
    async get(cid) {
      const index = blocks.findIndex((b) => b.cid.equals(cid))
      if (index > 0) await late.promise
      return blocks[index]?.bytes ?? fromUtf8('')
    },
  })
  // All asked for at once; the first to come is the one that finds the disk full.
  const gets = blocks.map(({ cid }) => source.get(cid))
  const settled = Promise.allSettled(gets)
  await gets[0]
  await expect(source.flush()).rejects.toBe(full)
  late.resolve()
  expect((await settled).map((r) => r.status)).toEqual(['fulfilled', 'rejected', 'rejected', 'rejected', 'rejected'])
  await expect(source.flush()).rejects.toBe(full)
})

it('stores many small blocks in few groups, and gives them meanwhile without asking again', async () => {
  const small = Array.from({ length: 600 }, (_, i) => {
    const bytes = fromUtf8(`small ${i}`)
    return { cid: cidOf(codec.raw, bytes), bytes }
  })
  const byCid = new Map(small.map(({ cid, bytes }) => [cid.toString(), bytes]))
  const groups: number[] = []
  let asked = 0
  const source = fetching(
    {
      get: () => Promise.resolve(undefined),
      async putMany(pairs) {
        groups.push((await Array.fromAsync(pairs)).length)
      },
    },
    {
      get(cid) {
        asked++
        return Promise.resolve(byCid.get(cid.toString()) ?? fromUtf8(''))
      },
    },
  )
  for (const { cid } of small.slice(0, 200)) await source.get(cid)
  await source.get(small[0]?.cid ?? cidOf(codec.raw, fromUtf8('')))
  expect([asked, groups]).toEqual([200, []])
  for (const { cid } of small.slice(200)) await source.get(cid)
  await source.flush()
  expect(groups.reduce((a, b) => a + b, 0)).toBe(600)
  expect(groups.length).toBeLessThan(6)
})
