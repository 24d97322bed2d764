// The lab's peers among themselves: what they say of pubsub and GraphSync is what the other side did. A failure here is
// the lab's, not ours.
import { describe, expect, it } from 'vitest'
import { available, buildPeers, startPeer, type Peer, type PeerKind } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (text: string): string => Buffer.from(text).toString('base64')
const bare = (kind: PeerKind): string[] => (kind === 'go' || kind === 'js' ? ['--bitswap', 'none'] : [])
const gossip = (kind: PeerKind, args: string[] = []): Promise<Peer> =>
  startPeer(kind, [...bare(kind), '--pubsub', 'gossip', '--pubsub-heartbeat-ms', '200', ...args])

/** Both subscribed and in each other's mesh. */
async function meshed(a: Peer, b: Peer): Promise<void> {
  await a.call('connect', { addr: b.addrs[0] })
  await Promise.all([a, b].map((peer) => peer.call('sub', { topic: 't' })))
  await expect
    .poll(
      async () => {
        const [at, bt] = await Promise.all([a, b].map((peer) => peer.call('mesh', { topic: 't' })))
        return [at?.['peers'], bt?.['peers']]
      },
      { timeout: 10_000 },
    )
    .toEqual([[b.peerId], [a.peerId]])
}

const others = (['go', 'js', 'rust', 'py'] as const).filter((kind) => have[kind])

describe.skipIf(!have.go)('the pubsub of the lab', () => {
  it.each(others.flatMap((kind) => ['strict', 'none'].map((sign) => [kind, sign] as const)))(
    'carries messages between go and %s, signed %s, under the same ids',
    async (kind, sign) => {
      const args = ['--pubsub-sign', sign]
      await using go = await gossip('go', [...args, '--pubsub-trace'])
      await using other = await gossip(kind, args)
      await meshed(other, go)
      await go.call('pub', { topic: 't', data: base64('x'.repeat(2000)) })
      await other.call('pub', { topic: 't', data: base64('back') })
      const signed = sign === 'strict'
      const got = await other.event('message')
      expect(got).toMatchObject({ topic: 't', data: base64('x'.repeat(2000)), from: signed ? go.peerId : null })
      const back = await go.event('message')
      expect(back).toMatchObject({ topic: 't', data: base64('back'), from: signed ? other.peerId : null })
      expect([got['seqno'] === null, back['seqno'] === null]).toEqual([!signed, !signed])
      // go warns of its own large message too, under the id that the other side has for it.
      const told = await go.event('rpcSent', ({ idontwant }) => idontwant !== undefined)
      expect(told['idontwant']).toEqual([{ ids: [got['id']] }])
    },
  )

  it('completes a group of parts of which each side has half', async () => {
    const args = ['--pubsub-partial', 'request']
    await using a = await gossip('go', args)
    await using b = await gossip('go', args)
    await meshed(a, b)
    const parts = ['a', 'b', 'c', 'd'].map((letter) => base64(letter.repeat(16)))
    const some = (keep: number): (string | null)[] => parts.map((part, i) => (i % 2 === keep ? part : null))
    await a.call('partialPub', { topic: 't', group: base64('g'), parts: some(0) })
    await b.call('partialPub', { topic: 't', group: base64('g'), parts: some(1) })
    for (const peer of [a, b]) {
      await peer.event('partial', ({ complete }) => complete === true)
      expect(await peer.call('partialGet', { topic: 't', group: base64('g') })).toMatchObject({ have: 15, parts })
    }
  })
})

describe.skipIf(!have.go)('the GraphSync of the lab', () => {
  it('fetches what a walk over the same blocks loads, and can be paused', async () => {
    await using a = await startPeer('go', ['--bitswap', 'none', '--graphsync'])
    await using b = await startPeer('go', ['--bitswap', 'none', '--graphsync', '--record', '/ipfs/graphsync/'])
    const put = async (codec: string, bytes: string): Promise<string> =>
      String((await a.call('put', { codec, bytes: base64(bytes) }))['cid'])
    const leaves = await Promise.all(['x', 'y', 'z'].map((text) => put('raw', text)))
    const root = await put(
      'dag-json',
      JSON.stringify([leaves[0], leaves[1], leaves[2], leaves[0]].map((l) => ({ '/': l }))),
    )
    const selector = { R: { l: { none: {} }, ':>': { a: { '>': { '@': {} } } } } }
    await a.call('gsServe', { pauseAfter: 2 })
    const { request } = await b.call('gsRequest', { addr: a.addrs[0], root, selector })
    await a.event('gsPaused')
    await a.call('gsUnpause', { request })
    expect(await b.event('gsDone')).toMatchObject({ request, errors: [] })
    const blocks = b.events.filter(({ event }) => event === 'gsBlock').map(({ cid, path }) => ({ cid, path }))
    expect((await a.call('walk', { root, selector }))['links']).toEqual(blocks)
    expect(blocks).toHaveLength(5)
    const { streams } = (await b.call('recorded')) as unknown as { streams: { sent: string; direction: string }[] }
    const sent = streams
      .filter(({ direction }) => direction === 'out')
      .map((stream) => Buffer.from(stream.sent, 'base64'))
    expect(Buffer.concat(sent).includes(Buffer.from('gs2'))).toBe(true)
  })
})
