/* What a peer can do with what is offered on top: capabilities, fetch, perf; and with addresses that others name. */
import { beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { errorCode, type ErrorCode, type UnavailableError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { capabilitiesId } from '../../src/protocols/capabilities/id.ts'
import { encodeCapabilities } from '../../src/protocols/capabilities/wire.ts'
import { fetch, fetchId, serveFetch } from '../../src/protocols/fetch/fetch.ts'
import { perfId, servePerf } from '../../src/protocols/perf.ts'
import { prefixed } from '../../src/stream.ts'
import {
  acceptTunnel,
  failure,
  hostileListener,
  memory,
  patience,
  secondsUntil,
  victim,
  watchProcess,
  type Victim,
} from './hostile.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()
// What is loaded with its first use is there before the clock is moved.
beforeAll(() => Promise.all([import('../../src/connection/query.ts'), import('../../src/dial/search.ts')]))

const MiB = 1024 * 1024

async function peer(v: Victim): Promise<Node> {
  const node = await createNode()
  onTestFinished(() => node.stop())
  await node.dial(v.addr)
  await expect.poll(() => v.node.connections(node.peerId)[0]?.protocols, patience).toBeDefined()
  return node
}

const refusedStreams = 'connection.inbound-stream-failed'
const open = (v: Victim, node: Node, id: string): number =>
  v.node.connections(node.peerId).flatMap((c) => c.streams.filter((s) => s.protocol === id)).length

const one = encodeCapabilities(new Map([['/app/1.0.0', ['resume']]]))
const many = encodeCapabilities(new Map(Array.from({ length: 257 }, (_, i) => [`/app/${i}`, []])))
const answers: [what: string, bytes: Uint8Array[], fin: boolean, code: ErrorCode][] = [
  ['are longer than allowed', [Uint8Array.of(0xff, 0xff, 0x7f)], false, 'oversized'],
  ['are garbage', prefixed(new Uint8Array(100).fill(0xff)), true, 'bad-protobuf'],
  ['name 257 protocols', prefixed(many), true, 'oversized'],
  ['name one protocol twice', prefixed(new Uint8Array([...one, ...one])), true, 'bad-message'],
  ['go on behind the message', [...prefixed(one), new Uint8Array(1)], true, 'bad-message'],
  ['never end', prefixed(one), false, 'timeout'],
  ['never come', [], false, 'timeout'],
  ['are nothing', [], true, 'truncated'],
]

it.each(answers)('capabilities that %s choose nothing', async (_what, bytes, fin, code) => {
  const v = await victim()
  const hostile = await peer(v)
  hostile.handle(capabilitiesId, async (stream) => {
    for (const chunk of bytes) await stream.write(chunk.slice())
    if (fin) await stream.closeWrite()
    await stream.closed
  })
  hostile.handle('/app/1.0.0', (stream) => stream.closed.then(() => {}))
  const knows = (): unknown => v.node.connections(hostile.peerId)[0]?.protocols?.includes('/app/1.0.0')
  await expect.poll(knows, patience).toBe(true)
  const asked = failure(v.node.newStream(hostile.peerId, { name: '/app', requires: ['resume'] }))
  expect(await secondsUntil(v, asked)).toBeLessThanOrEqual(6)
  expect(errorCode(await asked)).toBe(code)
  await hostile.stop()
  await v.expectUnharmed()
})

it('questions for capabilities that nobody ends do not pile up', async () => {
  const v = await victim()
  v.node.handle('/app/1.0.0', (stream) => stream.closed.then(() => {}), { capabilities: ['resume'] })
  const hostile = await peer(v)
  for (let i = 0; i < 40; i++) {
    const stream = await hostile.newStream(v.node.peerId, capabilitiesId).catch(() => undefined)
    await stream?.read().catch(() => {})
  }
  expect(open(v, hostile, capabilitiesId)).toBeLessThanOrEqual(8)
  expect(v.codes(refusedStreams).length).toBeGreaterThanOrEqual(30)
  await v.clock.advance(6_000)
  await expect.poll(() => open(v, hostile, capabilitiesId), patience).toBe(0)
  await hostile.stop()
  await v.expectUnharmed()
})

it('a flood of fetches waits for no more lookups than allowed, and who reads no answer loses its place', async () => {
  const v = await victim()
  let lookups = 0
  const service = serveFetch(v.node, { maxConcurrent: 20 })
  onTestFinished(() => service.close())
  service.register('/slow/', () => {
    lookups++
    return new Promise<undefined>(() => {})
  })
  service.register('/big/', () => new Uint8Array(1 * MiB - 100))
  const [hostile, other] = [await peer(v), await peer(v)]
  const before = memory()
  const asked = [hostile, other].flatMap((node) =>
    Array.from({ length: 50 }, (_, i) => failure(fetch(node, v.node.peerId, `/slow/${i}`))),
  )
  await expect.poll(() => v.codes(refusedStreams).length, patience).toBe(80)
  expect(new Set(v.codes(refusedStreams))).toEqual(new Set(['limit']))
  expect(lookups).toBe(20)
  expect(memory() - before).toBeLessThan(16 * MiB)
  await v.clock.advance(10_000)
  await Promise.all(asked)
  expect(open(v, hostile, fetchId) + open(v, other, fetchId)).toBe(0)
  // It asks for a megabyte 16 times over, and never reads.
  for (let i = 0; i < 16; i++) {
    const stream = await hostile.newStream(v.node.peerId, fetchId)
    const key = fromUtf8(`/big/${i}`)
    await stream.write(...prefixed(Uint8Array.of(0x0a, key.length, ...key)))
  }
  await expect.poll(() => open(v, hostile, fetchId), patience).toBe(16)
  expect(memory() - before).toBeLessThan(64 * MiB)
  await v.clock.advance(10_000)
  await expect.poll(() => open(v, hostile, fetchId), patience).toBe(0)
  await Promise.all([hostile.stop(), other.stop()])
  await v.expectUnharmed()
})

it('perf: 2^64-1 bytes asked for and not read cost a window, a ninth exchange is refused', async () => {
  const v = await victim()
  onTestFinished(servePerf(v.node))
  const hostile = await peer(v)
  const before = memory()
  const all = []
  for (let i = 0; i < 9; i++) {
    const stream = await hostile.newStream(v.node.peerId, perfId)
    await stream.write(new Uint8Array(8).fill(0xff))
    await stream.closeWrite()
    all.push(stream)
  }
  await expect.poll(() => v.codes(refusedStreams), patience).toEqual(['limit'])
  expect(open(v, hostile, perfId)).toBe(8)
  await v.echo()
  expect(memory() - before).toBeLessThan(32 * MiB)
  await v.clock.advance(31_000)
  await expect.poll(() => open(v, hostile, perfId), patience).toBe(0)
  expect(v.codes(refusedStreams).filter((code) => code === 'timeout')).toHaveLength(8)
  await hostile.stop()
  await v.expectUnharmed()
})

it('perf: an upload a byte at a time, or of half a count, ends at its deadline', async () => {
  const v = await victim()
  onTestFinished(servePerf(v.node, { maxUploadBytes: 1_000, maxDownloadBytes: 1_000 }))
  const hostile = await peer(v)
  const send = async (bytes: Uint8Array): Promise<void> => {
    const stream = await hostile.newStream(v.node.peerId, perfId)
    await stream.write(bytes)
  }
  await send(new Uint8Array(3))
  await send(new Uint8Array(8 + 1_001))
  await send(Uint8Array.of(0, 0, 0, 0, 0, 0, 4, 0))
  await expect.poll(() => v.codes(refusedStreams), patience).toEqual(['limit', 'limit'])
  const dribble = await hostile.newStream(v.node.peerId, perfId)
  await dribble.write(new Uint8Array(8))
  const over = dribble.closed
  // Each byte in time: only the deadline of the whole ends it.
  for (let second = 0; second < 620; second += 20) {
    await dribble.write(new Uint8Array(1)).catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 5))
    await v.clock.advance(20_000)
  }
  await over
  expect(v.codes(refusedStreams).filter((code) => code === 'timeout')).toHaveLength(2)
  await hostile.stop()
})

it('a protected peer that hangs up on whoever it let in is dialled ever less often', async () => {
  const v = await victim()
  const key = generateKey()
  let accepted = 0
  const port = await hostileListener((socket) => {
    accepted++
    // The victim takes it for a whole connection before it ends.
    const hangUp = (): void => void setImmediate(() => socket.resetAndDestroy())
    acceptTunnel(socket, key).then(hangUp, hangUp)
  })
  const { peerId } = key.publicKey
  v.node.protect(peerId)
  const lost = new Promise<void>((resolve) => void v.node.on('peer:disconnect', () => resolve()))
  await v.node.dial(`/ip4/127.0.0.1/tcp/${port}/p2p/${peerId}`)
  await lost
  for (let second = 0; second < 600; second++) {
    await v.clock.advance(1_000)
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
  // Half a second, one, two, four, ... to five minutes.
  expect(accepted).toBeGreaterThan(4)
  expect(accepted).toBeLessThan(16)
  v.node.unprotect(peerId)
  await v.expectUnharmed()
})

it('a source that names 10,000 addresses of a peer gets some of them dialled, and no more', async () => {
  const hidden = generateKey().publicKey.peerId
  const addrs = Array.from({ length: 10_000 }, (_, i) => multiaddr(`/ip4/127.${i >> 8}.${i & 255}.1/tcp/1`))
  const v = await victim({ addressesOf: () => Promise.resolve(addrs) })
  const asked = failure(v.node.dial(hidden))
  await secondsUntil(v, asked)
  const error = (await asked) as UnavailableError
  expect([error.name, error.code]).toEqual(['UnavailableError', 'unreachable'])
  expect(error.tried.length).toBeLessThanOrEqual(257)
  expect(error.message).toContain('9744 more addresses')
  await v.expectUnharmed()
})
