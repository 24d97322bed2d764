/* What a peer can do with signed records and with what it says of our address. */
import { expect, it, onTestFinished, vi } from 'vitest'
import type { ErrorCode } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node } from '../../src/node.ts'
import { peerRecordDomain, sealEnvelope, sealPeerRecord } from '../../src/peer/envelope.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { Identify, identifyId, identifyPushId } from '../../src/protocols/identify/wire.ts'
import { bytes, message } from '../../src/protobuf.ts'
import { prefixed } from '../../src/stream.ts'
import { echoId, failure, memory, patience, victim, watchProcess, type Victim } from './hostile.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

const addr = multiaddr('/ip4/127.0.0.1/tcp/6666')
const other = multiaddr('/ip4/127.0.0.1/tcp/7777')

/** A peer whose identify is whatever the test says. */
async function peer(privateKey: PrivateKey = generateKey()): Promise<Node> {
  const node = await createNode({ privateKey })
  onTestFinished(() => node.stop())
  node.unhandle(identifyId)
  return node
}

function says(node: Node, what: Parameters<typeof Identify.encode>[0]): void {
  node.handle(identifyId, async (stream) => {
    stream.closeRead()
    await stream.write(...prefixed(Identify.encode(what)))
    await stream.closeWrite()
  })
}

async function push(node: Node, v: Victim, what: Parameters<typeof Identify.encode>[0]): Promise<void> {
  const stream = await node.newStream(v.node.peerId, identifyPushId)
  await stream.write(...prefixed(Identify.encode(what)))
  await stream.closeWrite()
  while ((await stream.read()) !== null);
}

const key = generateKey()
const Record = message({ peerId: [1, bytes], address: [3, bytes] })
const flipped = async (): Promise<Uint8Array> => {
  const sealed = await sealPeerRecord(key, { seq: 9n, addrs: [addr] })
  sealed[sealed.length - 1] = (sealed.at(-1) ?? 0) ^ 1
  return sealed
}
const records: [what: string, record: () => Promise<Uint8Array>, code: ErrorCode][] = [
  ['with a false signature', flipped, 'bad-signature'],
  ['of another peer', () => sealPeerRecord(generateKey(), { seq: 9n, addrs: [addr] }), 'wrong-peer'],
  [
    'of another peer in an envelope of its own',
    () => {
      const payload = Record.encode({ peerId: generateKey().publicKey.peerId.bytes, address: new Uint8Array(0) })
      return sealEnvelope(key, peerRecordDomain, Uint8Array.of(3, 1), payload)
    },
    'wrong-peer',
  ],
  [
    'signed for another purpose',
    () => sealEnvelope(key, 'libp2p-relay-rsvp', Uint8Array.of(3, 2), addr.bytes),
    'bad-message',
  ],
  ['of garbage', async () => new Uint8Array(300).fill(0xff), 'bad-protobuf'],
]

it.each(records)('a record %s brings no address, and costs the peer nothing else', async (_what, record, code) => {
  const v = await victim()
  const hostile = await peer(key)
  says(hostile, { protocols: [echoId], listenAddrs: [other.bytes], signedPeerRecord: await record() })
  await hostile.dial(v.addr)
  await expect.poll(() => v.codes('identify.record-refused'), patience).toEqual([code])
  await expect.poll(() => v.node.connections(hostile.peerId)[0]?.protocols, patience).toEqual([echoId])
  expect(v.node.book.addrs(hostile.peerId)).toEqual([])
  expect(v.node.book.record(hostile.peerId)).toBeUndefined()
  await hostile.stop()
  await v.expectUnharmed()
})

it('a record of ourselves changes nothing of ours, and an older one nothing of the peer', async () => {
  const v = await victim()
  const hostile = await peer(key)
  const mine = v.node.book.record(v.node.peerId)
  expect(mine).toBeDefined()
  says(hostile, { signedPeerRecord: await sealPeerRecord(key, { seq: 5n, addrs: [addr] }) })
  await hostile.dial(v.addr)
  await expect.poll(() => v.node.book.addrs(hostile.peerId).length, patience).toBe(1)
  await push(hostile, v, {
    signedPeerRecord: await sealPeerRecord(key, { seq: 4n, addrs: [other] }),
    listenAddrs: [other.bytes],
  })
  await push(hostile, v, { signedPeerRecord: mine })
  await expect.poll(() => v.codes('identify.record-refused'), patience).toEqual(['wrong-peer'])
  expect(v.node.book.addrs(hostile.peerId)).toMatchObject([{ addr, certified: true }])
  expect(v.node.book.record(v.node.peerId)).toEqual(mine)
  // Were our key stolen, others could sign as us; our book would still be ours.
  await hostile.stop()
  await v.expectUnharmed()
})

it('10,001 records of peers that nobody met stay within the bounds, and those we met stay', async () => {
  const v = await victim()
  const friend = v.node.book.addrs(v.honest.peerId).length
  const before = memory()
  const some = await Promise.all(
    Array.from({ length: 667 }, () => generateKey()).map((one) =>
      Promise.all(
        Array.from({ length: 15 }, (_, i) =>
          sealPeerRecord(one, {
            seq: BigInt(i),
            addrs: Array.from({ length: 20 }, (__, k) => multiaddr(`/ip4/9.9.${i}.${k}/tcp/1`)),
          }),
        ),
      ),
    ),
  )
  const flood = some.flat()
  expect(flood.length).toBeGreaterThanOrEqual(10_001)
  for (const sealed of flood) await v.node.book.consume(sealed)
  const total = v.node.book.peers().reduce((sum, one) => sum + v.node.book.addrs(one).length, 0)
  expect(total).toBeLessThanOrEqual(4096 + friend)
  flood.length = 0
  some.length = 0
  expect(memory() - before).toBeLessThan(32 * 1024 * 1024)
  expect(v.node.book.addrs(v.honest.peerId)).toHaveLength(friend)
  await v.expectUnharmed()
})

it('a peer that names 256 addresses at every push holds 64, and none of them is ours', async () => {
  const v = await victim()
  const hostile = await peer()
  says(hostile, {})
  await hostile.dial(v.addr)
  for (let i = 0; i < 15; i++) {
    const listenAddrs = Array.from({ length: 256 }, (_, k) => multiaddr(`/ip4/9.${i}.9.${k}/tcp/1`).bytes)
    await push(hostile, v, { listenAddrs })
  }
  expect(v.node.book.addrs(hostile.peerId).length).toBeLessThanOrEqual(64)
  await failure(push(hostile, v, { listenAddrs: Array.from({ length: 257 }, () => addr.bytes) }))
  await expect.poll(() => v.codes('connection.inbound-stream-failed'), patience).toEqual(['oversized'])
  await hostile.stop()
  await v.expectUnharmed()
})

it('an address that many peers on one machine claim for us is not announced', async () => {
  const v = await victim()
  const ours = v.node.addrs().map(String)
  const lie = multiaddr(`/ip4/8.8.8.8/tcp/${v.port}`).bytes
  for (let i = 0; i < 12; i++) {
    const hostile = await peer()
    says(hostile, { observedAddr: lie })
    await hostile.dial(v.addr)
    await expect.poll(() => v.node.connections(hostile.peerId).length, patience).toBe(1)
    for (let k = 0; k < 3; k++)
      await push(hostile, v, { observedAddr: multiaddr(`/ip4/8.8.${i}.${k}/tcp/${v.port}`).bytes })
    await push(hostile, v, { observedAddr: lie })
    await hostile.stop()
  }
  expect(v.node.addrs().map(String)).toEqual(ours)
  await v.expectUnharmed()
})
