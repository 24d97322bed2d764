/* Codes on the wire, with go-libp2p: what either side says when it ends a stream or a connection is what the other hears. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectionCode, streamCode } from '../../src/close-codes.ts'
import { LimitError, errorCode } from '../../src/errors.ts'
import { createNode, type Node } from '../../src/node.ts'
import { deferred } from '../../src/inbox.ts'
import type { CloseInfo } from '../../src/stream.ts'
import { available, buildPeers, startPeer, type Peer } from './peers.ts'

await buildPeers()

const codes = [streamCode.resourceLimitExceeded, streamCode.protocolViolation, 10_001, 0xffff_ffff]

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value)
  return bytes
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

describe.skipIf(!available().go)('codes with go-libp2p', () => {
  let peer: Peer
  let node: Node
  let there: string
  let here: string
  const held = deferred<CloseInfo>()
  beforeAll(async () => {
    peer = await startPeer('go')
    there = peer.addrs[0] ?? ''
    node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    node.handle('/held/1.0.0', async (stream) => {
      await stream.write(Uint8Array.of(1))
      held.resolve(await stream.closed)
    })
    node.handle('/full/1.0.0', async (stream) => void (await stream.closed), { maxInboundStreams: 1 })
    node.handle('/broken/1.0.0', async (stream) => {
      await stream.read()
      throw new LimitError('tests', 1, 2)
    })
    for (const code of codes) {
      node.handle(`/code/${code}`, async (stream) => {
        await stream.read()
        stream.reset(code)
      })
    }
    await node.start()
    here = String(node.addrs()[0])
  })
  afterAll(async () => {
    await node.stop()
    await peer.stop()
  })

  it.each(codes)('it hears %i, with which we reset its stream', async (code) => {
    expect(await peer.call('ending', { addr: here, protocol: `/code/${code}` })).toMatchObject({
      of: 'stream',
      remote: true,
      code,
    })
  })

  it.each(codes)('we hear %i, with which it resets our stream', async (code) => {
    const stream = await node.newStream(there, '/code/1.0.0')
    await stream.write(u32(code))
    expect(errorCode(await failure(stream.read()))).toBe('reset')
    expect(await stream.closed).toMatchObject({ by: 'remote', code })
    expect((await stream.closed).reason?.message).toContain(`stream reset by the remote: 0x${code.toString(16)}`)
  })

  it('we hear the code with which it resets a stream that it opened', async () => {
    await peer.call('resetStream', { addr: here, protocol: '/held/1.0.0', code: streamCode.garbageCollected })
    expect(await held.promise).toMatchObject({ by: 'remote', code: streamCode.garbageCollected })
  })

  it('a handler that passes a limit, and a stream too many, say resource limit exceeded', async () => {
    const code = streamCode.resourceLimitExceeded
    expect(await peer.call('ending', { addr: here, protocol: '/broken/1.0.0' })).toMatchObject({ of: 'stream', code })
    const first = peer.call('ending', { addr: here, protocol: '/full/1.0.0' }).catch((error: unknown) => error)
    await expect.poll(() => node.connections().flatMap((c) => c.streams).length).toBe(1)
    expect(await peer.call('ending', { addr: here, protocol: '/full/1.0.0' })).toMatchObject({ of: 'stream', code })
    for (const stream of node.connections().flatMap((c) => c.streams)) stream.reset()
    await first
  })

  it('we hear the code with which it closes a connection, on the connection and on its streams', async () => {
    // Its RST follows at once and may overtake what it said: then we know of a reset, but not why.
    for (let attempt = 1; ; attempt++) {
      const connection = await node.dial(there)
      const stream = await connection.newStream('/code/1.0.0')
      await stream.write(Uint8Array.of(1))
      await Array.fromAsync(node.ping(there, { count: 3 }))
      await peer.call('closeWith', { peer: node.peerId.toString(), code: connectionCode.garbageCollected })
      const info = await connection.closed
      if (info.by === 'transport' && attempt < 10) continue
      expect(info).toMatchObject({ by: 'remote', code: connectionCode.garbageCollected })
      expect(info.reason?.message).toBe('connection closed by the remote: 0x1005 garbage collected')
      expect(await stream.closed).toMatchObject({ by: 'remote', code: streamCode.garbageCollected })
      return
    }
  })

  it('it hears that we shut down, on a stream that is open', async () => {
    const other = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
    const opened = new Promise<void>((resolve) => {
      other.handle('/wait/1.0.0', async (stream) => {
        resolve()
        await stream.closed
      })
    })
    await other.start()
    const ending = peer.call('ending', { addr: String(other.addrs()[0]), protocol: '/wait/1.0.0' })
    await opened
    await other.stop()
    expect(await ending).toMatchObject({ of: 'stream', remote: true, code: streamCode.shutdown })
  })
})
