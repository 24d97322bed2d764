/* What a node holds under attack, measured in a process of its own after a forced collection, against its limits. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished, vi } from 'vitest'
import { streamCode } from '../../src/close-codes.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { flag, frameType } from '../../src/mux/yamux/frame.ts'
import { sessionDefaults } from '../../src/mux/yamux/options.ts'
import { createNode, type Node } from '../../src/node.ts'
import { encodeTokens, header } from '../../src/protocols/multistream/wire.ts'
import type { ProtocolStream } from '../../src/host.ts'
import { alive, echo, frame, patience, tunnel, watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 240_000 })
watchProcess()

const MiB = 1024 * 1024

interface Measured {
  bytes: number
  rss: number
  kinds: Record<string, number>
  streams: number
  connections: number
}

interface Child {
  addr: string
  port: number
  call(cmd: string, params?: Record<string, unknown>): Promise<Record<string, unknown>>
  measure(): Promise<Measured>
}

async function child(): Promise<Child> {
  const script = fileURLToPath(new URL('measured.ts', import.meta.url))
  const running = spawn(process.execPath, ['--expose-gc', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const gone = new Promise((resolve) => running.once('exit', resolve))
  onTestFinished(async () => {
    running.stdin.end()
    await gone
  })
  const lines = createInterface({ input: running.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<Record<string, unknown>> => {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('the measured process ended')
    return JSON.parse(value) as Record<string, unknown>
  }
  const { addr, gc } = await next()
  expect(gc).toBe(true)
  let turn: Promise<unknown> = Promise.resolve()
  const call: Child['call'] = (cmd, params = {}) => {
    const answer = turn.then(() => {
      running.stdin.write(`${JSON.stringify({ cmd, ...params })}\n`)
      return next()
    })
    turn = answer
    return answer
  }
  return {
    addr: String(addr),
    port: Number(multiaddr(String(addr)).value('tcp')),
    call,
    measure: async () => (await call('measure')) as unknown as Measured,
  }
}

async function peerOf(): Promise<Node> {
  const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  await node.start()
  onTestFinished(() => node.stop())
  return node
}

it('a peer that fills the windows of 600 streams nobody reads holds maxUnreadBytes and no more', async () => {
  const victim = await child()
  const honest = await peerOf()
  await echo(honest, victim.addr)
  const before = await victim.measure()
  const t = await tunnel(victim.port)
  const resets: number[] = []
  void alive(t.stream, ({ type, flags, length }) => {
    if (type === frameType.windowUpdate && (flags & flag.rst) !== 0) resets.push(length)
  })
  const proposal = encodeTokens(header, '/hold/1')
  // All that the first window allows.
  const rest = new Uint8Array(sessionDefaults.maxFrameBytes * 4 - proposal.length)
  const streams = 600
  for (let i = 0; i < streams; i++) {
    const id = 2 * i + 1
    await t.stream.write(frame(frameType.data, flag.syn, id, proposal.length, proposal))
    await t.stream.write(frame(frameType.data, 0, id, rest.length, rest))
  }
  const fit = Math.floor(sessionDefaults.maxUnreadBytes / (256 * 1024))
  await expect.poll(() => resets.length, patience).toBeGreaterThanOrEqual(streams - fit - 5)
  expect(new Set(resets)).toEqual(new Set([streamCode.resourceLimitExceeded]))
  const { bytes } = await victim.measure()
  // It holds what it may, the buffers are not all full, and each stream costs a little.
  expect(bytes - before.bytes).toBeGreaterThan(0.5 * sessionDefaults.maxUnreadBytes)
  expect(bytes - before.bytes).toBeLessThan(1.3 * sessionDefaults.maxUnreadBytes + 8 * MiB)
  await echo(honest, victim.addr)
  t.socket.destroy()
  await expect.poll(async () => (await victim.measure()).connections, patience).toBe(1)
  await expect.poll(async () => (await victim.measure()).bytes - before.bytes, patience).toBeLessThan(4 * MiB)
})

it('10,000 streams opened and reset leave heap, timers and handles where they were', async () => {
  const victim = await child()
  const peer = await peerOf()
  const churn = async (count: number): Promise<void> => {
    let left = count
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const stream: ProtocolStream = await peer.newStream(victim.addr, '/hold/1')
        await stream.write(Uint8Array.of(left))
        stream.reset(left % 2 === 0 ? 0 : 10_001)
      }
    }
    await Promise.all(Array.from({ length: 50 }, worker))
  }
  const settled = async (): Promise<Measured> => {
    await expect.poll(async () => (await victim.measure()).streams, patience).toBe(0)
    return victim.measure()
  }
  await churn(2_000)
  const before = await settled()
  await churn(10_000)
  const after = await settled()
  expect(after.bytes - before.bytes).toBeLessThan(1 * MiB)
  expect(after.kinds).toEqual(before.kinds)
  expect(peer.connections()[0]?.streams).toEqual([])
})

it('a slow reader keeps its sender within the window over 200 MiB', async () => {
  const sender = await child()
  const reader = await peerOf()
  const arrived = Promise.withResolvers<ProtocolStream>()
  reader.handle('/slow/1', (stream) => {
    arrived.resolve(stream)
    return stream.closed.then(() => {})
  })
  const before = await sender.measure()
  await sender.call('flood', { addr: String(reader.addrs()[0]) })
  const stream = await arrived.promise
  // One stream's window at most, the sender's queue, and the frame that fills it.
  const bound = sessionDefaults.maxStreamWindowBytes + sessionDefaults.sendQueueBytes + 64 * 1024
  let read = 0
  let most = 0
  let heaviest = 0
  for (let part = 1; part <= 20; part++) {
    while (read < part * 10 * MiB) {
      read += (await stream.read())?.length ?? 0
      // Slower than it is sent.
      if (read % (256 * 1024) < 32 * 1024) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    const { written } = (await sender.call('written')) as { written: number }
    most = Math.max(most, written - read)
    heaviest = Math.max(heaviest, (await sender.measure()).bytes - before.bytes)
  }
  expect(read).toBeGreaterThanOrEqual(200 * MiB)
  // It was always ahead, and never far.
  expect(most).toBeGreaterThan(256 * 1024)
  expect(most).toBeLessThanOrEqual(bound)
  // What the reader holds for it is not the sender's: here are its queue, the socket's, and what is in the cipher.
  expect(heaviest).toBeLessThan(8 * MiB)
  // And when it stops reading altogether, nothing more is taken.
  await new Promise((resolve) => setTimeout(resolve, 200))
  const first = (await sender.call('written'))['written']
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect((await sender.call('written'))['written']).toBe(first)
  stream.reset()
})
