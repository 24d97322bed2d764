import { afterEach, describe, expect, it } from 'vitest'
import { createBitswap, type Bitswap, type BitswapOptions } from '../../../src/protocols/bitswap/bitswap.ts'
import { FakeBlocks, FakeHost, block, join } from './fake-host.ts'

const running: Bitswap[] = []
afterEach(async () => {
  await Promise.all(running.splice(0).map((bitswap) => bitswap.stop()))
})

function node(number: number, blocks: ReturnType<typeof block>[] = [], options: BitswapOptions = {}) {
  const host = new FakeHost(number)
  const store = new FakeBlocks(blocks)
  const bitswap = createBitswap({ host, blocks: store, ...options })
  bitswap.start()
  running.push(bitswap)
  return { host, store, bitswap, peer: host.peerId }
}

describe('bitswap', () => {
  it('fetches a block from a peer', async () => {
    const one = block(1)
    const a = node(1)
    const b = node(2, [one])
    join(a.host, b.host)
    expect(await a.bitswap.get(one.cid, { peers: [b.peer] })).toEqual(one.bytes)
    expect(a.bitswap.wantlist()).toEqual([])
  })

  it('fetches 500 blocks in order with many in flight', async () => {
    const all = Array.from({ length: 500 }, (_, i) => block(i, 3000))
    const a = node(1)
    const b = node(2, all)
    join(a.host, b.host)
    const got = []
    for await (const { bytes } of a.bitswap.session({ peers: [b.peer] }).getMany(all.map((x) => x.cid))) got.push(bytes)
    expect(got).toEqual(all.map((x) => x.bytes))
    expect(a.host.streamsOpened).toBe(1)
    expect(b.host.streamsOpened).toBe(1)
  })

  it('fails with not-found when the peer does not have it', async () => {
    const a = node(1)
    const b = node(2)
    join(a.host, b.host)
    await expect(a.bitswap.get(block(1).cid, { peers: [b.peer] })).rejects.toMatchObject({
      code: 'not-found',
      tried: [{ what: b.peer.toString(), reason: 'does not have it' }],
    })
  })
})
