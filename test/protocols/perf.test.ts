import { describe, expect, it, onTestFinished } from 'vitest'
import { fakeEnv, systemEnv, type Env, type FakeClock } from '../../src/env.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, errorCode } from '../../src/errors.ts'
import type { StreamHandler } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import {
  perf,
  perfId,
  servePerf,
  type PerfOptions,
  type PerfReport,
  type ServePerfOptions,
} from '../../src/protocols/perf.ts'
import { BufferedStream, type Stream } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const KiB = 1024

interface Traced {
  what: string
  error: unknown
}

async function started(network: MemoryNetwork, traces: Traced[] = [], clock?: FakeClock): Promise<Node> {
  const env: Env = {
    ...systemEnv((what, { error }) => {
      if (error !== undefined) traces.push({ what, error })
    }),
    ...(clock && { clock }),
  }
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'], env })
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

/** `a` dials, `b` serves; what goes wrong in b's handlers is in `traces`. */
async function two(): Promise<{ a: Node; b: Node; to: string; traces: Traced[] }> {
  const network = new MemoryNetwork()
  const traces: Traced[] = []
  const [a, b] = [await started(network), await started(network, traces)]
  return { a, b, to: String(b.addrs()[0]), traces }
}

async function result(a: Node, to: string, options: PerfOptions): Promise<PerfReport | undefined> {
  return (await Array.fromAsync(perf(a, to, options))).at(-1)
}

function count(size: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, size)
  return bytes
}

/** An exchange by hand: what comes back until the end. */
async function exchange(stream: Stream, size: bigint, upload: number): Promise<number> {
  await stream.write(count(size), new Uint8Array(upload))
  await stream.closeWrite()
  let got = 0
  for await (const chunk of stream) got += chunk.length
  return got
}

describe('perf', () => {
  it('moves the bytes that were asked for, in both directions, and says how long they took', async () => {
    const { a, b, to } = await two()
    servePerf(b)
    const reports = await Array.fromAsync(
      perf(a, to, { uploadBytes: 300 * KiB + 1, downloadBytes: 200 * KiB + 7, warmUpBytes: 1_000 }),
    )
    expect(reports.at(-1)).toEqual({
      type: 'result',
      upload: { bytes: 300 * KiB + 1, seconds: expect.any(Number) },
      download: { bytes: 200 * KiB + 7, seconds: expect.any(Number) },
    })
    const last = reports.at(-1)
    if (last?.type !== 'result') throw new Error('no result')
    expect(last.upload.seconds).toBeGreaterThan(0)
    expect(last.download.seconds).toBeGreaterThan(0)
    await expect.poll(() => a.connections()[0]?.streams.filter((s) => s.protocol === perfId)).toEqual([])
  })

  it('is not served unless asked, and not any more when it is taken back', async () => {
    const { a, b, to } = await two()
    await expect(result(a, to, { uploadBytes: 1 })).rejects.toMatchObject({ code: 'no-protocol' })
    const stop = servePerf(b)
    expect(b.protocols()).toContain(perfId)
    await result(a, to, { uploadBytes: 1 })
    stop()
    expect(b.protocols()).not.toContain(perfId)
  })

  it('puts the count first, big-endian, then 64 KiB writes, then the end; and warms up on another stream', async () => {
    const { a, b, to } = await two()
    const seen: Uint8Array[] = []
    const answers: StreamHandler = async (stream) => {
      const bytes = await new BufferedStream(stream).readAll(1024 * KiB)
      seen.push(bytes)
      await stream.write(new Uint8Array(Number(new DataView(bytes.slice(0, 8).buffer).getBigUint64(0))))
      await stream.closeWrite()
    }
    b.handle(perfId, answers)
    await result(a, to, { uploadBytes: 130 * KiB, downloadBytes: 258, warmUpBytes: 3 })
    expect(seen.map((bytes) => bytes.length)).toEqual([8 + 3, 8 + 130 * KiB])
    expect([...(seen[1]?.subarray(0, 8) ?? [])]).toEqual([0, 0, 0, 0, 0, 0, 1, 2])
    expect(seen[1]?.subarray(8).every((byte) => byte === 0)).toBe(true)
  })

  it('takes zero bytes either way', async () => {
    const { a, b, to } = await two()
    servePerf(b)
    expect(await result(a, to, {})).toMatchObject({ upload: { bytes: 0 }, download: { bytes: 0 } })
  })

  it('sends nothing before the upload is over', async () => {
    const { a, b, to } = await two()
    servePerf(b)
    const stream = await a.newStream(to, perfId)
    await stream.write(count(100n), new Uint8Array(10))
    let early = true
    const reading = stream.read().then((chunk) => {
      expect(early).toBe(false)
      return chunk
    })
    for await (const rtt of a.ping(to, { count: 3 })) void rtt
    early = false
    await stream.closeWrite()
    expect((await reading)?.length).toBe(100)
    expect(await stream.read()).toBeNull()
  })

  it('starts on the largest count there is, and ends when the client does', async () => {
    const { a, b, to, traces } = await two()
    servePerf(b)
    const stream = await a.newStream(to, perfId)
    await stream.write(count((1n << 64n) - 1n))
    await stream.closeWrite()
    let got = 0
    while (got < 1024 * KiB) got += (await stream.read())?.length ?? 0
    stream.reset()
    await expect.poll(() => traces.map(({ error }) => error)).toEqual([expect.any(ClosedError)])
  })

  it('reports progress while it goes on', async () => {
    const { a, b, to } = await two()
    const go = Promise.withResolvers<void>()
    b.handle(perfId, async (stream) => {
      const framed = new BufferedStream(stream)
      await framed.readAll(100 * KiB)
      await stream.write(new Uint8Array(5))
      await go.promise
      await stream.write(new Uint8Array(5))
      await stream.closeWrite()
    })
    const reports: PerfReport[] = []
    for await (const report of perf(a, to, { uploadBytes: 1_000, downloadBytes: 10, warmUpBytes: 0, progressMs: 1 })) {
      reports.push(report)
      if (report.type === 'progress' && report.direction === 'download') {
        expect(report).toMatchObject({ bytes: 5 })
        go.resolve()
      }
    }
    expect(reports.length).toBeGreaterThan(1)
    expect(reports.at(-1)?.type).toBe('result')
  })

  it('ends the stream when nobody wants the result any more', async () => {
    const { a, b, to } = await two()
    const ended = Promise.withResolvers<unknown>()
    b.handle(perfId, async (stream) => {
      ended.resolve(await stream.closed)
    })
    for await (const report of perf(a, to, { downloadBytes: 1, warmUpBytes: 0, progressMs: 1 })) {
      expect(report.type).toBe('progress')
      break
    }
    expect(await ended.promise).toMatchObject({ by: 'remote' })
  })

  it('ends with the reason of its signal', async () => {
    const { a, b, to } = await two()
    b.handle(perfId, () => new Promise(() => {}))
    const controller = new AbortController()
    const measuring = result(a, to, { downloadBytes: 1, signal: controller.signal })
    const reason = new Error('enough')
    setTimeout(() => controller.abort(reason), 5)
    await expect(measuring).rejects.toBe(reason)
  })

  it.each([
    ['more than was asked for', 'oversized', [11], true],
    ['less than was asked for', 'truncated', [9], true],
    ['an answer before the upload is over', 'bad-message', [10], false],
  ])('refuses %s', async (_what, code, sizes, waits) => {
    const { a, b, to } = await two()
    b.handle(perfId, async (stream) => {
      if (waits) await new BufferedStream(stream).readAll(8 * 1024 * KiB)
      for (const size of sizes) await stream.write(new Uint8Array(size))
      if (waits) await stream.closeWrite()
    })
    // More than every window: the upload can't be over.
    const uploadBytes = waits ? 1 : 64 * 1024 * KiB
    await expect(result(a, to, { uploadBytes, downloadBytes: 10, warmUpBytes: 0 })).rejects.toMatchObject({ code })
    await expect(result(a, to, { uploadBytes, downloadBytes: 10, warmUpBytes: 0 })).rejects.toBeInstanceOf(
      ProtocolError,
    )
  })

  it.each([[{ uploadBytes: -1 }], [{ downloadBytes: 1.5 }], [{ writeBytes: 0 }], [{ warmUpBytes: Number.NaN }]])(
    'throws RangeError for %j',
    async (options) => {
      const { a, to } = await two()
      await expect(result(a, to, options)).rejects.toBeInstanceOf(RangeError)
    },
  )
})

describe('a perf server', () => {
  it.each([
    [{ maxDownloadBytes: 99 }, 100n, 0],
    [{ maxUploadBytes: 99 }, 0n, 100],
  ] as [ServePerfOptions, bigint, number][])('refuses what is above %j', async (options, download, upload) => {
    const { a, b, to, traces } = await two()
    servePerf(b, options)
    await expect(exchange(await a.newStream(to, perfId), download, upload)).rejects.toBeInstanceOf(ClosedError)
    expect(traces.map(({ error }) => error)).toEqual([expect.any(LimitError)])
    // One byte less is fine.
    const fits = exchange(await a.newStream(to, perfId), download === 0n ? 0n : 99n, Math.max(0, upload - 1))
    expect(await fits).toBe(download === 0n ? 0 : 99)
  })

  it('refuses one exchange too many over all connections, and counts those that failed as over', async () => {
    const network = new MemoryNetwork()
    const traces: Traced[] = []
    const [a, b, c] = [await started(network), await started(network, traces), await started(network)]
    const to = String(b.addrs()[0])
    servePerf(b, { maxConcurrent: 2 })
    const open = [await a.newStream(to, perfId), await c.newStream(to, perfId)]
    for (const stream of open) await stream.write(count(1n))
    for await (const rtt of a.ping(to)) void rtt
    for await (const rtt of c.ping(to)) void rtt
    await expect(result(a, to, { uploadBytes: 1 })).rejects.toBeInstanceOf(ClosedError)
    expect(traces.at(-1)?.error).toMatchObject({ code: 'limit', limit: 'maxConcurrent' })
    for (const stream of open) stream.reset()
    await expect.poll(() => traces.length).toBe(3)
    expect(await result(c, to, { uploadBytes: 1 })).toMatchObject({ type: 'result' })
  })

  it('serves only whom it allows', async () => {
    const { a, b, to, traces } = await two()
    servePerf(b, { allow: (peer) => !peer.equals(a.peerId) })
    await expect(result(a, to, { uploadBytes: 1 })).rejects.toBeInstanceOf(ClosedError)
    expect(errorCode(traces[0]?.error)).toBe('refused')
  })

  it('refuses a count that is cut short', async () => {
    const { a, b, to, traces } = await two()
    servePerf(b)
    const stream = await a.newStream(to, perfId)
    await stream.write(new Uint8Array(7))
    await stream.closeWrite()
    await expect(stream.read()).rejects.toBeInstanceOf(ClosedError)
    expect(errorCode(traces[0]?.error)).toBe('truncated')
  })

  it('gives up on a client that stalls, and on one that trickles', async () => {
    const { clock } = fakeEnv()
    const network = new MemoryNetwork()
    const traces: Traced[] = []
    const [a, b] = [await started(network), await started(network, traces, clock)]
    servePerf(b, { stallTimeoutMs: 1_000, timeoutMs: 5_000 })
    const to = String(b.addrs()[0])
    const ready = (): Promise<void> => expect.poll(() => clock.waiting).toBeGreaterThan(timers)
    await a.dial(to)
    await expect.poll(() => b.peers()).toHaveLength(1)
    await expect.poll(() => a.connections()[0]?.protocols).toBeDefined()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const timers = clock.waiting
    const silent = await a.newStream(to, perfId)
    await silent.write(count(1n))
    await ready()
    await clock.advance(1_000)
    await expect(silent.read()).rejects.toBeInstanceOf(ClosedError)
    expect(traces.at(-1)?.error).toBeInstanceOf(TimeoutError)

    const slow = await a.newStream(to, perfId)
    await slow.write(count(1n))
    await ready()
    for (let i = 0; i < 9; i++) {
      await clock.advance(600)
      await slow.write(new Uint8Array(1)).catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await expect(slow.read()).rejects.toBeInstanceOf(ClosedError)
    expect(traces.at(-1)?.error).toMatchObject({ code: 'timeout', timeoutMs: 5_000 })
    await expect.poll(() => clock.waiting).toBe(timers)
  })
})
