/* What is done in a soak, over and over: streams and connections that end in every way there is. */
import net from 'node:net'
import { randomBytes } from 'node:crypto'
import { ClosedError, errorCode } from '../../src/errors.ts'
import { createNode, type Node } from '../../src/node.ts'
import { generateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { createTls } from '../../src/security/tls/tls.ts'
import { BufferedStream } from '../../src/stream.ts'
import { systemEnv } from '../../src/env.ts'
import type { Tally } from './figures.ts'

const echoId = '/soak/echo/1.0.0'
const resetId = '/soak/reset/1.0.0'
const floodId = '/soak/flood/1.0.0'
const throwId = '/soak/throw/1.0.0'
const hangUpId = '/soak/hang-up/1.0.0'
const timeoutMs = 20_000
const env = systemEnv()

const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T

/**
 * Diallers come back under the same few identities, as peers do: what a node remembers of a bounded number of peers is
 * full before anything is measured.
 */
const identities: PrivateKey[] = Array.from({ length: 32 }, () => generateKey())

/** A node that serves all of the below, over TCP and WebSocket, with Noise and TLS. */
export async function startServer(): Promise<Node> {
  const privateKey = generateKey()
  const node = await createNode({
    privateKey,
    listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/0/ws'],
    security: [createNoise({ privateKey, env }), createTls({ privateKey, env })],
  })
  node.handle(echoId, async (stream) => {
    for await (const chunk of stream) await stream.write(chunk.slice())
    await stream.closeWrite()
  })
  node.handle(resetId, async (stream) => {
    await stream.read()
    stream.reset(7)
  })
  node.handle(floodId, async (stream) => {
    for (;;) await stream.write(new Uint8Array(64 * 1024))
  })
  node.handle(throwId, () => Promise.reject(new Error('a handler that fails')))
  node.handle(hangUpId, (_stream, { connection }) => connection.close())
  await node.start()
  return node
}

/** Rejects when what ought to fail does not, or not as it ought to. */
async function fails(work: Promise<unknown>, isRight: (error: unknown) => boolean): Promise<void> {
  try {
    await work
  } catch (error) {
    if (isRight(error)) return
    throw error
  }
  throw new Error('went well, though it ought to fail')
}

const isClosed = (error: unknown): boolean => error instanceof ClosedError

type Job = (node: Node, to: string) => Promise<unknown>

const streamJobs: Record<string, Job> = {
  async echo(node, to) {
    const bytes = randomBytes(pick([1, 32, 1_000, 70_000, 300_000]))
    const stream = await node.newStream(to, echoId, { timeoutMs })
    const back = new BufferedStream(stream).readAll(bytes.length)
    await stream.write(bytes.subarray())
    await stream.closeWrite()
    if (!bytes.equals(await back)) throw new Error('the echo differs')
  },
  async resetByUs(node, to) {
    const stream = await node.newStream(to, echoId, { timeoutMs })
    await stream.write(randomBytes(pick([1, 5_000])))
    if (Math.random() < 0.5) await stream.read()
    stream.reset(3)
    await stream.closed
  },
  async resetByPeer(node, to) {
    const stream = await node.newStream(to, resetId, { timeoutMs })
    await stream.write(new Uint8Array(1))
    await fails(stream.read(), isClosed)
  },
  async unread(node, to) {
    const stream = await node.newStream(to, floodId, { timeoutMs })
    await stream.read()
    stream.reset()
  },
  async handlerFails(node, to) {
    // Where identify has told of the protocol, the end comes with the first read; else while it is negotiated.
    await fails(
      node.newStream(to, throwId, { timeoutMs }).then((stream) => stream.read()),
      isClosed,
    )
  },
  async noSuchProtocol(node, to) {
    await fails(node.newStream(to, '/soak/none/1.0.0', { timeoutMs }), (error) => errorCode(error) === 'no-protocol')
  },
  async aborted(node, to) {
    const reason = new Error('changed our mind')
    const controller = new AbortController()
    const opening = node.newStream(to, echoId, { signal: controller.signal }).then(
      (stream) => stream.reset(),
      (error: unknown) => {
        if (error !== reason) throw error
      },
    )
    if (Math.random() < 0.5) setImmediate(() => controller.abort(reason))
    else controller.abort(reason)
    await opening
  },
  ping: (node, to) => Array.fromAsync(node.ping(to, { count: 3, timeoutMs })),
  identify: (node, to) => node.identify(to),
}

const endings: Record<string, Job> = {
  async stops() {
    // node.stop() follows after every ending.
  },
  async closes(node) {
    await Promise.all(node.connections().map((connection) => connection.close()))
  },
  async aborts(node) {
    for (const connection of node.connections()) connection.abort(5)
  },
  async closesUnderStreams(node, to) {
    const streams = await Promise.all([1, 2, 3].map(() => node.newStream(to, floodId, { timeoutMs })))
    for (const stream of streams) await stream.read()
    await node.hangUp(to)
    for (const stream of streams) await stream.closed
  },
  async isHungUpOn(node, to) {
    const [connection] = node.connections()
    const stream = await node.newStream(to, hangUpId, { timeoutMs })
    await stream.write(new Uint8Array(1)).catch(() => {})
    await connection?.closed
  },
}

export class Churn {
  readonly tally: Tally = {}
  readonly problems: string[] = []
  readonly #server: Node
  readonly #workers: Promise<void>[] = []
  #running = false

  constructor(server: Node) {
    this.#server = server
  }

  #count(what: string): void {
    this.tally[what] = (this.tally[what] ?? 0) + 1
  }

  async #do(what: string, work: () => Promise<unknown>): Promise<void> {
    this.#count(what)
    try {
      await work()
    } catch (error) {
      this.problems.push(`${what}: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }

  /** Streams over connections that stay, from the server's own node. */
  async #streams(addrs: readonly string[]): Promise<void> {
    const [name, job] = pick(Object.entries(streamJobs))
    await this.#do(name, () => job(this.#server, pick(addrs)))
  }

  /** A node that comes, does a few things and goes. */
  async #connection(addrs: readonly string[]): Promise<void> {
    const privateKey = pick(identities)
    const security = pick([createNoise, createTls])({ privateKey, env })
    const node = await createNode({ privateKey, security: [security] })
    const to = pick(addrs)
    try {
      await this.#do('dial', () => node.dial(to, { timeoutMs }))
      for (let i = 0; i < 3; i++) {
        const [name, job] = pick(Object.entries(streamJobs))
        await this.#do(name, () => job(node, to))
      }
      const [name, end] = pick(Object.entries(endings))
      await this.#do(name, () => end(node, to))
    } finally {
      await node.stop()
    }
  }

  /** A socket that says nothing, or nonsense, or half of a handshake's first bytes, and goes. */
  async #stranger(addrs: readonly string[]): Promise<void> {
    const [, , host = '', , port = ''] = pick(addrs).split('/')
    await this.#do('stranger', async () => {
      const socket = net.connect(Number(port), host)
      socket.on('error', () => {})
      socket.write(pick([Buffer.alloc(0), randomBytes(50), Buffer.from('\u0013/multistream/1.0.0\n')]))
      await new Promise((resolve) => setTimeout(resolve, 5))
      if (Math.random() < 0.5) socket.resetAndDestroy()
      else socket.destroy()
    })
  }

  start(addrs: readonly string[], pauseMs: number): void {
    this.#running = true
    const { clock } = env
    const repeat = async (work: () => Promise<void>): Promise<void> => {
      while (this.#running) {
        await work()
        await new Promise<void>((resolve) => void clock.setTimer(pauseMs * Math.random() * 2, resolve))
      }
    }
    for (let i = 0; i < 4; i++) this.#workers.push(repeat(() => this.#streams(addrs)))
    for (let i = 0; i < 2; i++) this.#workers.push(repeat(() => this.#connection(addrs)))
    this.#workers.push(repeat(() => this.#stranger(addrs)))
  }

  /** Resolves when nothing of ours is under way; connections stay, others may still work on them. */
  async pause(): Promise<void> {
    this.#running = false
    await Promise.all(this.#workers.splice(0))
  }
}
