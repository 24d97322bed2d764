import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { createNode, type Node } from '../../src/node.ts'
import { fetch, serveFetch } from '../../src/protocols/fetch/fetch.ts'
import { bool, message, repeated, string } from '../../src/protobuf.ts'
import { prefixed } from '../../src/stream.ts'
import { available, buildPeers, seededBytes, startPeer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
/** Like an IPNS routing key: text, then bytes that are no text. */
const binaryKey = Uint8Array.of(...fromUtf8('/ipns/'), 0x00, 0x24, 0x08, 0x01, 0x12, 0x20, 0xff, 0xfe, 0xc3, 0x28)

/** Sizes of values: none, one chunk, and just what fits into the megabyte that go-libp2p reads. */
const sizes = [0, 1, 100_000, 1_048_500]

describe.skipIf(!have.js)('/libp2p/fetch/0.0.1 with js-libp2p', () => {
  let peer: Peer
  let node: Node
  let there: string
  const values = new Map<string, Uint8Array>()
  beforeAll(async () => {
    peer = await startPeer('js', ['--bitswap', 'none', '--fetch'])
    there = peer.addrs[0] ?? ''
    node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const service = serveFetch(node)
    service.register('/lab/', (key) => values.get(base64(key)))
    service.register('/fails/', () => Promise.reject(new Error('no')))
    await node.start()
  })
  afterAll(async () => {
    await node.stop()
    await peer.stop()
  })

  it.each(sizes)('asks it for a value of %i bytes', async (size) => {
    const key = fromUtf8(`/lab/${size}`)
    await peer.call('fetchPut', { base64: base64(key), bytes: base64(seededBytes(size, 5)) })
    expect(Buffer.compare((await fetch(node, there, key)) ?? Buffer.from('none'), seededBytes(size, 5))).toBe(0)
  })

  it('hears that there is no value, and that its lookup failed', async () => {
    expect(await fetch(node, there, '/lab/none')).toBeUndefined()
    await peer.call('fetchPut', { base64: base64(fromUtf8('/lab/fails')) })
    await expect(fetch(node, there, '/lab/fails')).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('told to fail'),
    })
    // js-libp2p answers so for a prefix that nobody registered; the spec would have it NOT_FOUND.
    await expect(fetch(node, there, '/nobody/x')).rejects.toMatchObject({ code: 'refused' })
    await expect.poll(() => node.connections().flatMap((c) => c.streams).length).toBe(0)
  })

  it.each(sizes)('answers it with a value of %i bytes', async (size) => {
    const key = Uint8Array.of(...fromUtf8(`/lab/${size}/`), 0xff, 0x00)
    values.set(base64(key), seededBytes(size, 9))
    const { bytes } = await peer.call('fetchGet', { addr: String(node.addrs()[0]), base64: base64(key) })
    expect(Buffer.compare(Buffer.from(String(bytes), 'base64'), seededBytes(size, 9))).toBe(0)
  })

  it('tells it that there is no value, and that a lookup failed', async () => {
    const addr = String(node.addrs()[0])
    expect((await peer.call('fetchGet', { addr, base64: base64(fromUtf8('/lab/no')) }))['bytes']).toBeNull()
    expect((await peer.call('fetchGet', { addr, base64: base64(fromUtf8('/nobody/x')) }))['bytes']).toBeNull()
    await expect(peer.call('fetchGet', { addr, base64: base64(fromUtf8('/fails/x')) })).rejects.toThrow('lookup failed')
  })
})

/** Of pubsub's RPC: which topics we want, or not any more. */
const Subscribe = message({ subscribe: [1, bool], topic: [2, string] })
const Rpc = message({ subscriptions: [1, repeated(Subscribe, 16)] })
const floodsubId = '/floodsub/1.0.0'

describe.skipIf(!have.go)('/libp2p/fetch/0.0.1 with go-libp2p and its IPNS over pubsub', () => {
  let peer: Peer
  let node: Node
  let there: string
  beforeAll(async () => {
    peer = await startPeer('go', ['--bitswap', 'none'])
    there = peer.addrs[0] ?? ''
    node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    // As much of pubsub as it takes to be asked: what comes is not read.
    node.handle(floodsubId, async (stream) => {
      for await (const chunk of stream) void chunk
    })
    await node.start()
  })
  afterAll(async () => {
    await node.stop()
    await peer.stop()
  })

  it.each(sizes.slice(1))('asks it for a value of %i bytes under a binary key', async (size) => {
    const key = Uint8Array.of(...binaryKey, size % 251)
    await peer.call('fetchPut', { base64: base64(key), bytes: base64(seededBytes(size, 5)) })
    expect(Buffer.compare((await fetch(node, there, key)) ?? Buffer.from('none'), seededBytes(size, 5))).toBe(0)
  })

  it('hears that there is no value', async () => {
    await peer.call('fetchSubscribe', { base64: base64(fromUtf8('/v/none')) })
    expect(await fetch(node, there, '/v/none')).toBeUndefined()
    expect(await fetch(node, there, '/v/unknown')).toBeUndefined()
  })

  it.each(sizes.slice(1))('answers it with a value of %i bytes under a binary key', async (size) => {
    const key = Uint8Array.of(...binaryKey, 0, size % 251)
    const asked: Uint8Array[] = []
    const service = serveFetch(node)
    service.register('/ipns/', (wanted) => {
      asked.push(wanted)
      return seededBytes(size, 11)
    })
    try {
      const { topic } = await peer.call('fetchSubscribe', { base64: base64(key) })
      const stream = await node.newStream(there, floodsubId)
      await stream.write(...prefixed(Rpc.encode({ subscriptions: [{ subscribe: true, topic: String(topic) }] })))
      const got = async (): Promise<unknown> =>
        (await peer.call('fetchGot', { base64: base64(key) }).catch(() => ({ bytes: undefined })))['bytes']
      await expect.poll(got, { timeout: 10_000 }).toBe(base64(seededBytes(size, 11)))
      expect(asked).toEqual([key])
      stream.reset()
    } finally {
      service.close()
    }
  })
})
