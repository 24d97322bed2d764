/*
 * The rhiza peer of the benchmarks: one process, driven by the lines of the lab (test/interop/peers/README.md).
 * More than the lab: `--repo DIR` keeps blocks on disk; `hold` keeps `count` connections of as many nodes open, each
 * pinged once, until `release`.
 */
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { BufferedStream, createKit, createNode, type Kit, type Node, type Stream } from '../src/index.ts'
import { systemEnv } from '../src/env.ts'
import { generateKey } from '../src/peer/keys.ts'
import { perf, servePerf } from '../src/protocols/perf.ts'
import { createTls } from '../src/security/tls/tls.ts'
import { openRepo } from '../src/store/repo.ts'

interface Request {
  id: number
  cmd: string
  addr?: string
  peer?: string
  count?: number
  parallel?: number
  payload?: number
  upload?: number
  download?: number
  writeSize?: number
  path?: string
  size?: number
  seed?: number
  profile?: 'v1-2025' | 'v0-2015'
  cid?: string
  timeoutMs?: number
}

type Command = (request: Request, signal: AbortSignal) => Promise<object>

const chunkBytes = 64 * 1024
const zeros = new Uint8Array(chunkBytes)
const unlimited = { maxInboundStreams: 1_000_000 }

async function collect(stream: Stream): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function sendZeros(stream: Stream, count: number, size = chunkBytes): Promise<void> {
  for (let left = count; left > 0; left -= size) await stream.write(zeros.subarray(0, Math.min(left, size)))
}

function u64(count: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(count))
  return bytes
}

const count64 = (bytes: Uint8Array): number => Number(Buffer.from(bytes).readBigUInt64BE())

function serve(node: Node): void {
  node.handle(
    '/echo/1.0.0',
    async (stream) => {
      for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) await stream.write(chunk)
      await stream.closeWrite()
    },
    unlimited,
  )
  node.handle('/sink/1.0.0', async (stream) => {
    let count = 0
    for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) count += chunk.length
    await stream.write(u64(count))
    await stream.closeWrite()
  })
  node.handle('/source/1.0.0', async (stream) => {
    await sendZeros(stream, count64(await new BufferedStream(stream).readExact(8)))
    await stream.closeWrite()
  })
  servePerf(node, { maxConcurrent: Infinity })
}

/** Runs `count` jobs, `parallel` at a time; resolves to the seconds it took. */
async function each(count = 1, parallel = 1, job: (worker: number) => Promise<void>): Promise<number> {
  let left = count
  const work = async (worker: number): Promise<void> => {
    while (left-- > 0) await job(worker)
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: parallel }, (_, worker) => work(worker)))
  return (performance.now() - start) / 1000
}

/** xorshift32 as little-endian words: every lab peer makes the same bytes. */
function* seeded(size: number, seed: number): Generator<Uint8Array> {
  let x = seed >>> 0 || 1
  for (let left = size; left > 0;) {
    const words = new Uint32Array(Math.min(1 << 18, Math.ceil(left / 4)))
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      words[i] = x
    }
    const bytes = new Uint8Array(words.buffer, 0, Math.min(words.byteLength, left))
    left -= bytes.length
    yield bytes
  }
}

const rssBytes = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024

function given<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`${name} is needed`)
  return value
}

const to = ({ addr, peer }: Request): string => given(addr ?? peer, 'addr or peer')

function commandsOf(node: Node, kit: Kit | undefined): Record<string, Command> {
  let held: Node[] = []

  return {
    connect: async (request, signal) => ({ peer: (await node.dial(to(request), { signal })).peer.toString() }),
    disconnect: async (request) => {
      await node.hangUp(to(request))
      return {}
    },
    ping: async (request, signal) => ({
      rttMs: await Array.fromAsync(node.ping(to(request), { count: request.count ?? 1, signal })),
    }),
    perf: async (request, signal) => {
      const { upload = 0, download = 0, writeSize = chunkBytes } = request
      const options = { uploadBytes: upload, downloadBytes: download, writeBytes: Math.min(writeSize, chunkBytes) }
      // The benchmark warms up as it likes, and every kind of peer alike.
      const reports = perf(node, to(request), { ...options, warmUpBytes: 0, progressMs: Infinity, signal })
      const [result] = await Array.fromAsync(reports)
      if (result?.type !== 'result') throw new Error('the measurement ended without a result')
      return { uploadSeconds: result.upload.seconds, downloadSeconds: result.download.seconds }
    },
    streams: async (request, signal) => {
      const connection = await node.dial(to(request), { signal })
      const out = randomBytes(request.payload ?? 32)
      const seconds = await each(request.count, request.parallel, async () => {
        const stream = await connection.newStream('/echo/1.0.0')
        await stream.write(out)
        await stream.closeWrite()
        if (!(await collect(stream)).equals(out)) throw new Error('the echo differs')
      })
      return { seconds }
    },
    dials: async (request, signal) => {
      const { count = 1, parallel = 1 } = request
      const addr = given(request.addr, 'addr')
      const nodes = await Promise.all(Array.from({ length: parallel }, () => createNode()))
      const dialMs: number[] = []
      try {
        const seconds = await each(count, parallel, async (worker) => {
          const dialler = nodes[worker] as Node
          const start = performance.now()
          const connection = await dialler.dial(addr, { signal })
          for await (const rtt of dialler.ping(connection.peer, { signal })) void rtt
          dialMs.push(performance.now() - start)
          await connection.close()
        })
        return { seconds, dialMs }
      } finally {
        await Promise.all(nodes.map((each) => each.stop()))
      }
    },
    hold: async (request, signal) => {
      const addr = given(request.addr, 'addr')
      const nodes = await Promise.all(Array.from({ length: request.count ?? 1 }, () => createNode()))
      held.push(...nodes)
      await each(nodes.length, 1, async () => {
        const dialler = nodes.pop() as Node
        await dialler.dial(addr, { signal })
        for await (const rtt of dialler.ping(addr, { signal })) void rtt
      })
      return { held: held.length }
    },
    release: async () => {
      await Promise.all(held.map((each) => each.stop()))
      held = []
      return {}
    },
    addBytes: async ({ path, size, seed = 0, profile = 'v1-2025' }, signal) => {
      const content =
        path === undefined
          ? seeded(given(size, 'path or size'), seed)
          : createReadStream(path, { highWaterMark: 1 << 20 })
      const start = performance.now()
      const added = await given(kit, 'bitswap').add(content, { profile: `unixfs-${profile}`, signal })
      return { cid: added.cid.toString(), size: added.size, seconds: (performance.now() - start) / 1000 }
    },
    fetch: async ({ cid, addr }, signal) => {
      const blocks = given(kit, 'bitswap')
      if (addr !== undefined) await node.dial(addr, { signal })
      const hash = createHash('sha256')
      let size = 0
      const start = performance.now()
      for await (const chunk of blocks.cat(given(cid, 'cid'), { signal })) {
        hash.update(chunk)
        size += chunk.length
      }
      return { size, sha256: hash.digest('hex'), seconds: (performance.now() - start) / 1000 }
    },
    stats: () => Promise.resolve({ rssBytes: rssBytes(), pid: process.pid }),
  }
}

const print = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

async function main(): Promise<void> {
  const { values: flags } = parseArgs({
    options: {
      listen: { type: 'string', default: '/ip4/127.0.0.1/tcp/0' },
      bitswap: { type: 'string', default: '1.2' },
      repo: { type: 'string' },
      security: { type: 'string' },
    },
  })
  const privateKey = generateKey()
  const secure = { privateKey, env: systemEnv() }
  const options = {
    privateKey,
    ...(flags.security === 'tls' && { security: [createTls(secure)] }),
    listen: [flags.listen],
    maxConnections: 1_000_000,
    maxConnectionsPerPeer: 1_000_000,
  }
  const repo = flags.repo === undefined ? undefined : await openRepo(flags.repo)
  const kit = flags.bitswap === 'none' ? undefined : await createKit({ ...options, ...(repo && { repo }) })
  const node = kit?.node ?? (await createNode(options))
  serve(node)
  await (kit ?? node).start()
  const commands = commandsOf(node, kit)

  const run = async (request: Request): Promise<void> => {
    const { id, cmd } = request
    try {
      const command = commands[cmd]
      if (command === undefined) throw new Error(`no such command: ${cmd}`)
      print({ ...(await command(request, AbortSignal.timeout(request.timeoutMs ?? 60_000))), id, ok: true })
    } catch (error) {
      print({ id, ok: false, error: String(error) })
    }
  }
  const stop = async (): Promise<void> => {
    // A peer that does not answer the close must not keep the benchmark waiting.
    setTimeout(() => process.exit(0), 2000).unref()
    await (kit ?? node).stop()
    await repo?.close()
    process.exit(0)
  }
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const request = JSON.parse(line) as Request
      if (request.cmd === 'stop') {
        print({ id: request.id, ok: true })
        void stop()
      } else void run(request)
    })
    .on('close', () => void stop())
  print({ event: 'listening', peerId: node.peerId.toString(), addrs: node.addrs().map(String) })
}

void main()
