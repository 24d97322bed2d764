/* A victim, an honest peer beside it, and the tools of a hostile one: raw sockets, raw Noise, raw yamux frames. */
import net from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { concat, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { FakeClock, settle, systemEnv, type Env, type Trace } from '../../src/env.ts'
import { asError, errorCode } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { encodeHeader, flag, frameType, headerBytes } from '../../src/mux/yamux/frame.ts'
import { yamuxId } from '../../src/mux/yamux/yamux.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { answer, select } from '../../src/protocols/multistream/multistream.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { BufferedStream } from '../../src/stream.ts'
import { SocketWire } from '../../src/transport/tcp.ts'
import { WireStream, type Wire } from '../../src/wire.ts'

export const echoId = '/echo/1.0.0'
/** What a test may wait for on a busy machine. */
export const patience = { timeout: 20_000, interval: 5 }

const unhandled: unknown[] = []
const note = (reason: unknown): void => void unhandled.push(reason)

/** In every file: no rejection is ever dropped, no socket, timer or child outlives the tests. */
export function watchProcess(): void {
  // The runner has timers of its own; those of nodes are counted by their clocks.
  const kinds = ['TCPSocketWrap', 'TCPServerWrap', 'PipeWrap', 'ProcessWrap'] as const
  const count = (): Record<string, number> => {
    const all = process.getActiveResourcesInfo()
    return Object.fromEntries(kinds.map((kind) => [kind, all.filter((one) => one === kind).length]))
  }
  let before: Record<string, number> = {}
  beforeAll(() => {
    process.on('unhandledRejection', note)
    before = count()
  })
  const left = (): string[] => {
    const now = count()
    return kinds.filter((kind) => (now[kind] ?? 0) > (before[kind] ?? 0))
  }
  afterAll(async () => {
    for (let i = 0; i < 400 && left().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(left()).toEqual([])
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
  })
}

export interface Traced {
  what: string
  error: Error | undefined
  fields: Record<string, unknown>
}

export interface Victim {
  node: Node
  clock: FakeClock
  port: number
  addr: string
  traces: Traced[]
  /** An honest peer, connected all the time. */
  honest: Node
  /** Echoes a kilobyte both ways. */
  echo(): Promise<void>
  /** Codes of the errors traced under this name. */
  codes(what: string): (string | undefined)[]
  /** Everything but the honest peer is gone: connections, streams, timers. Honest peers still work. */
  expectUnharmed(): Promise<void>
}

export function serveEcho(node: Node): void {
  node.handle(echoId, async (stream) => {
    for await (const chunk of stream) await stream.write(chunk.slice())
    await stream.closeWrite()
  })
}

export async function echo(from: Node, to: Parameters<Node['newStream']>[0]): Promise<void> {
  const text = 'honest'.repeat(200)
  const stream = await from.newStream(to, echoId)
  await stream.write(fromUtf8(text))
  await stream.closeWrite()
  expect(toUtf8(await new BufferedStream(stream).readAll(1 << 20))).toBe(text)
}

/** So that what is measured is the node, not its chronicler. */
const maxTraces = 4_000

/** A node on a real socket whose time stands still, so that deadlines pass when the test says so. */
export async function victim(options: NodeOptions = {}): Promise<Victim> {
  const clock = new FakeClock()
  const traces: Traced[] = []
  const trace: Trace = (what, fields) => {
    const cause = fields['error'] ?? fields['reason']
    if (traces.length < maxTraces)
      traces.push({ what, error: cause === undefined ? undefined : asError(cause), fields })
  }
  const env: Env = { ...systemEnv(trace), clock }
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'], env, ...options })
  serveEcho(node)
  await node.start()
  const addr = String(node.addrs()[0])
  const honest = await createNode()
  serveEcho(honest)
  onTestFinished(async () => {
    await Promise.all([honest.stop(), stopped(node, clock)])
  })
  await honest.identify(addr)
  await expect.poll(() => node.connections()[0]?.protocols, patience).toBeDefined()
  const echoes = async (): Promise<void> => {
    await echo(honest, node.peerId)
    await echo(node, honest.peerId)
  }
  const others = (): unknown[] =>
    node.connections().flatMap((c): readonly unknown[] => (c.peer.equals(honest.peerId) ? c.streams : [c]))
  const quiet = (): Promise<void> => expect.poll(() => others().length, patience).toBe(0)
  await quiet()
  const timers = clock.waiting
  return {
    node,
    clock,
    traces,
    honest,
    addr,
    port: Number(multiaddr(addr).value('tcp')),
    echo: echoes,
    codes: (what) => traces.filter((t) => t.what === what).map((t) => errorCode(t.error)),
    async expectUnharmed() {
      await echoes()
      await quiet()
      await expect.poll(() => clock.waiting, patience).toBeLessThanOrEqual(timers)
    },
  }
}

/** Ends with `promise`, moving the victim's time on until it does; how many seconds that took. */
export async function secondsUntil(v: Victim, promise: Promise<unknown>): Promise<number> {
  let over = false
  const done = (): void => void (over = true)
  promise.then(done, done)
  for (let seconds = 0; ; seconds++) {
    for (let i = 0; i < 5 && !over; i++) await settle()
    if (over) return seconds
    await v.clock.advance(1_000)
  }
}

async function stopped(node: Node, clock: FakeClock): Promise<void> {
  let done = false
  const stop = node.stop().finally(() => (done = true))
  // Peers that never say goodbye are given up by the clock.
  while (!done) {
    await clock.advance(1_000)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await stop
}

/** A socket to the victim. `closed` tells how it ended: by a reset or a FIN. */
export interface Raw {
  socket: net.Socket
  closed: Promise<'reset' | 'end'>
  received(): Uint8Array
}

export async function connect(port: number): Promise<Raw> {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
  const chunks: Uint8Array[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  const closed = new Promise<'reset' | 'end'>((resolve) => {
    socket.on('error', () => resolve('reset'))
    socket.on('close', () => resolve('end'))
  })
  onTestFinished(() => void socket.destroy())
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return { socket, closed, received: () => concat(chunks) }
}

function wireOf(port: number): Promise<{ wire: SocketWire; socket: net.Socket }> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    onTestFinished(() => void socket.destroy())
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve({ wire: new SocketWire(socket), socket })
    })
  })
}

export interface Tunnel {
  /** Plaintext above Noise: yamux frames, raw. */
  stream: BufferedStream
  socket: net.Socket
  key: PrivateKey
}

/** An authenticated connection to the victim whose muxer is ours to abuse. */
export async function tunnel(port: number, key: PrivateKey = generateKey()): Promise<Tunnel> {
  const { wire, socket } = await wireOf(port)
  return { ...(await secured(wire, 'initiator', key)), socket, key }
}

async function secured(
  below: Wire,
  role: 'initiator' | 'responder',
  key: PrivateKey,
): Promise<{ stream: BufferedStream }> {
  const raw = new WireStream(below)
  const { rest } = await (role === 'initiator' ? select(raw, ['/noise']) : answer(raw, (id) => id === '/noise'))
  const behind = new BufferedStream(raw)
  if (rest !== undefined) behind.unread(rest)
  const noise = createNoise({ privateKey: key, env: systemEnv() })
  const { wire } = await noise.secure(role, behind, { muxers: [yamuxId] })
  return { stream: new BufferedStream(new WireStream(wire)) }
}

/** A listener whose every connection is handed to `accept`; its port. */
export async function hostileListener(accept: (socket: net.Socket) => void): Promise<number> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    accept(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not bound')
  return address.port
}

/** The responder's side of an authenticated connection, its muxer ours to abuse. */
export async function acceptTunnel(socket: net.Socket, key: PrivateKey): Promise<BufferedStream> {
  return (await secured(new SocketWire(socket), 'responder', key)).stream
}

export function frame(type: number, flags: number, id: number, length: number, body?: Uint8Array): Uint8Array {
  const head = new Uint8Array(headerBytes)
  encodeHeader(head, 0, type, flags, id, length)
  return body === undefined ? head : concat([head, body])
}

export interface Frame {
  type: number
  flags: number
  id: number
  length: number
}

/** Reads frames until the end and answers pings, so that the victim takes the peer for alive; resolves at the end. */
export async function alive(stream: BufferedStream, seen: (frame: Frame) => void = () => {}): Promise<void> {
  try {
    for (;;) {
      const head = new DataView((await stream.readExact(headerBytes)).slice().buffer)
      const one = { type: head.getUint8(1), flags: head.getUint16(2), id: head.getUint32(4), length: head.getUint32(8) }
      if (one.type === frameType.data && one.length > 0) await stream.readExact(one.length)
      if (one.type === frameType.ping && one.flags === flag.syn)
        void stream.write(frame(frameType.ping, flag.ack, 0, one.length)).catch(() => {})
      seen(one)
    }
  } catch {
    // A reset is an end too.
  }
}

/** Resolves with the error that `promise` rejects with. */
export async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise
  } catch (error) {
    return asError(error)
  }
  throw new Error('it did not fail')
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes of heap and buffers that are in use. */
export function memory(): number {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
