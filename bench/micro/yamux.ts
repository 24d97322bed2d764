/*
 * What yamux alone costs: two sessions in one process, over a Wire pair in memory and over real TCP sockets.
 * node bench/micro/yamux.ts [memory|tcp|tcp-stream] -> one line of JSON. MB/s are 10^6 bytes.
 */
import { createServer, connect, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { systemEnv } from '../../src/env.ts'
import { cleanClose, deferred } from '../../src/inbox.ts'
import { createYamux } from '../../src/mux/yamux/yamux.ts'
import type { Muxer, Stream } from '../../src/stream.ts'
import type { Wire, WireSink } from '../../src/wire.ts'
import { MemoryWire } from '../../test/mux/yamux/wires.ts'

const env = systemEnv()
const seconds = Number(process.env['SECONDS'] ?? 1)

/** As little as a Wire on a socket can be. */
function socketWire(socket: Socket): Wire {
  const closed = deferred<typeof cleanClose>()
  let sink: WireSink | undefined
  socket.setNoDelay(true)
  socket.on('data', (bytes: Buffer) => {
    const view = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    if (sink?.data(view) === false) socket.pause()
  })
  socket.on('end', () => sink?.end())
  socket.on('drain', () => sink?.onRoom())
  socket.on('error', (error) => sink?.end(error))
  socket.on('close', () => closed.resolve(cleanClose))
  socket.pause()
  return {
    start: (to) => {
      sink = to
      socket.resume()
    },
    put: (chunks) => {
      socket.cork()
      let more = true
      for (const chunk of chunks) more = socket.write(chunk)
      socket.uncork()
      return more && socket.writableLength < 256 * 1024
    },
    get room() {
      return socket.writableNeedDrain ? 0 : 256 * 1024 - socket.writableLength
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    closeWrite: () => new Promise((resolve) => socket.end(() => resolve())),
    abort: () => void socket.destroy(),
    closed: closed.promise,
  }
}

async function wires(kind: string): Promise<[Wire, Wire]> {
  if (kind === 'memory') return MemoryWire.pair()
  const server = createServer({ allowHalfOpen: true, highWaterMark: 256 * 1024 })
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const other = await accepted
  server.close()
  return [socketWire(socket), socketWire(other)]
}

/** First byte says what to do with the rest: 0 swallow, 1 echo. */
async function serve(muxer: Muxer): Promise<void> {
  for (let stream = await muxer.accept(); stream !== null; stream = await muxer.accept()) void answer(stream)
}

async function answer(stream: Stream): Promise<void> {
  const first = await stream.read()
  if (first === null) return
  if (first[0] === 1) {
    await stream.write(first)
    await stream.closeWrite()
  }
  while ((await stream.read()) !== null);
  await stream.closeWrite()
}

async function bulk(muxer: Muxer, size: number): Promise<number> {
  const stream = await muxer.open()
  const chunk = new Uint8Array(size)
  const until = env.clock.now() + seconds * 1000
  const start = env.clock.now()
  let total = 0
  let round = 0
  do {
    await stream.write(chunk)
    total += size
  } while ((++round & 15) !== 0 || env.clock.now() < until)
  await stream.closeWrite()
  while ((await stream.read()) !== null);
  return total / 1e3 / (env.clock.now() - start)
}

async function echo(muxer: Muxer, message: Uint8Array): Promise<void> {
  const stream = await muxer.open()
  await stream.write(message)
  await stream.closeWrite()
  while ((await stream.read()) !== null);
}

async function streams(muxer: Muxer, parallel: number): Promise<number> {
  const message = new Uint8Array(32).fill(1)
  const start = env.clock.now()
  const until = start + seconds * 1000
  let count = 0
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      while (env.clock.now() < until) {
        await echo(muxer, message)
        count++
      }
    }),
  )
  return (count * 1000) / (env.clock.now() - start)
}

async function main(kind: string): Promise<void> {
  const [a, b] = await wires(kind)
  const client = createYamux(a, { role: 'initiator', env })
  const server = createYamux(b, { role: 'responder', env })
  const serving = serve(server)
  const only = process.env['ONLY']
  const run = async (name: string, work: () => Promise<number>): Promise<[string, number][]> =>
    only === undefined || only === name ? [[name, Math.round(await work())]] : []
  if (only === undefined) {
    await streams(client, 8)
    await bulk(client, 65_536)
  }
  const results = [
    ...(await run('bulk64k', () => bulk(client, 65_536))),
    ...(await run('bulk1k', () => bulk(client, 1024))),
    ...(await run('sequential', () => streams(client, 1))),
    ...(await run('parallel32', () => streams(client, 32))),
  ]
  await client.close()
  await serving
  process.stdout.write(`${JSON.stringify({ bench: 'yamux', kind, ...Object.fromEntries(results) })}\n`)
}

void main(process.argv[2] ?? 'memory')
