import { afterEach, describe, expect, it } from 'vitest'
import { join } from '../bitswap/fake-host.ts'
import { all, chain, cleanUp, collect, fan, side, told } from './lab.ts'
import { selectors } from '../../../src/ipld/selectors.ts'

afterEach(cleanUp)

describe('a request', () => {
  it('brings all blocks in the order of the walk, and puts them into the store', async () => {
    const blocks = chain(50)
    const a = await side(1, blocks)
    const b = await side(2)
    join(a.host, b.host)
    const request = b.graphsync.request(a.peer, blocks[0]!.cid, all)
    const events = await collect(request)
    expect(told(events, blocks)).toBe(blocks.map((_, i) => `+${i}`).join(' '))
    expect(await request.done).toMatchObject({ status: 20, blocks: 50, missing: 0, remaining: 0 })
    for (const { cid, bytes } of blocks) expect(await b.store.get(cid)).toEqual(bytes)
    expect(b.graphsync.stats()).toMatchObject({ asked: 0, bufferedBytes: 0 })
    expect(a.graphsync.stats()).toMatchObject({ answering: 0, outstandingBytes: 0, rememberedLinks: 0 })
  })
})
