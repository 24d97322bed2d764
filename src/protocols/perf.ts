/*
 * perf 1.0 (libp2p perf/perf.md r0): the client says how many bytes it wants, uploads until its FIN, then the server
 * sends them. It lets strangers spend our bandwidth, so nothing serves it unless asked (§Security Considerations).
 * Left out: the variant that runs for a time (ask for much, and abort).
 */
import { allocUnsafe } from '../bytes.ts'
import { LazyDeadline, guard, leash } from '../deadline.ts'
import type { Env } from '../env.ts'
import { LimitError, ProtocolError, TimeoutError, UnavailableError } from '../errors.ts'
import type { Connection, Host } from '../host.ts'
import { deferred } from '../inbox.ts'
import type { Multiaddr } from '../multiaddr.ts'
import type { PeerId } from '../peer/id.ts'
import { BufferedStream, type Stream } from '../stream.ts'

export const perfId = '/perf/1.0.0'

/** Of the count that stands first: u64, big-endian. */
const countBytes = 8

const defaults = {
  maxConcurrent: 8,
  maxUploadBytes: Infinity,
  maxDownloadBytes: Infinity,
  writeBytes: 64 * 1024,
  warmUpBytes: 16 * 1024 * 1024,
  progressMs: 1_000,
  stallTimeoutMs: 30_000,
  timeoutMs: 10 * 60_000,
}

interface Deadlines {
  /** Without a byte in or out for so long the exchange ends. Default 30 s. */
  stallTimeoutMs?: number
  /** For one exchange, upload and download. Default 10 minutes. */
  timeoutMs?: number
}

export interface ServePerfOptions extends Deadlines {
  /** Exchanges at a time over all connections; one more is reset. Default 8. */
  maxConcurrent?: number
  /** Bytes that a client may send. Default no limit but the deadlines: the spec allows 2^64-1. */
  maxUploadBytes?: number
  /** Bytes that a client may ask for. Default no limit but the deadlines. */
  maxDownloadBytes?: number
  /** Who may measure; default everybody. */
  allow?: (peer: PeerId) => boolean
}

export interface PerfOptions extends Deadlines {
  /** Default 0. */
  uploadBytes?: number
  /** Default 0. */
  downloadBytes?: number
  /** Bytes of each write of the upload. Default 64 KiB. */
  writeBytes?: number
  /** Bytes that go each way before anything is measured, at most what is measured then. Default 16 MiB. */
  warmUpBytes?: number
  /** Between two reports of progress; Infinity for none. Default 1 s. */
  progressMs?: number
  signal?: AbortSignal
}

export interface Transferred {
  bytes: number
  seconds: number
}

/** Any number of progress reports, then the result. */
export type PerfReport =
  | ({ type: 'progress'; direction: 'upload' | 'download' } & Transferred)
  /**
   * Upload: from the open stream to the first byte of the answer, or its end where none was asked for.
   * Download: from there to the end.
   */
  | { type: 'result'; upload: Transferred; download: Transferred }

function checked(name: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value
  throw new RangeError(`${name}: got ${value}, want a whole number of at least ${least}`)
}

function encodeCount(count: number): Uint8Array {
  const bytes = new Uint8Array(countBytes)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(count))
  return bytes
}

/** Above 2^53 to the nearest number: nobody waits for the last byte of those. */
function decodeCount(bytes: Uint8Array): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset, countBytes).getBigUint64(0))
}

interface Watch extends Required<Deadlines> {
  env: Env
  what: string
  signal?: AbortSignal | undefined
}

/** `work` on `stream` within both deadlines; it says whenever bytes have moved. */
async function watched<T>(stream: Stream, watch: Watch, work: (moved: () => void) => Promise<T>): Promise<T> {
  const { env, what, stallTimeoutMs } = watch
  const stall = new LazyDeadline(env.clock)
  let stalled: TimeoutError | undefined
  const onStall = (): void => {
    stalled = new TimeoutError(`the next byte of ${what}`, stallTimeoutMs)
    stream.reset(0, stalled)
  }
  const moved = (): void => stall.set(stallTimeoutMs, onStall)
  moved()
  try {
    return await guard(stream, watch, () => work(moved))
  } catch (error) {
    throw stalled ?? error
  } finally {
    stall.stop()
  }
}

/** `count` zeros in writes of `size` bytes. The stream may keep what it is given, so nothing here is written to. */
async function sendZeros(stream: Stream, count: number, size: number, moved: (bytes: number) => void): Promise<void> {
  const zeros = allocUnsafe(Math.min(size, count)).fill(0)
  for (let left = count; left > 0; left -= size) {
    const chunk = left < size ? zeros.subarray(0, left) : zeros
    await stream.write(chunk)
    moved(chunk.length)
  }
}

/** Serves measurements until the returned function is called. */
export function servePerf(host: Host, options: ServePerfOptions = {}): () => void {
  const { maxConcurrent, maxUploadBytes, maxDownloadBytes, stallTimeoutMs, timeoutMs } = { ...defaults, ...options }
  let open = 0

  const serve = async (stream: Stream, peer: PeerId): Promise<void> => {
    const framed = new BufferedStream(stream)
    const watch = { env: host.env, what: `a perf exchange with ${peer}`, stallTimeoutMs, timeoutMs }
    await watched(stream, watch, async (moved) => {
      const count = decodeCount(await framed.readExact(countBytes))
      if (count > maxDownloadBytes) throw new LimitError('maxDownloadBytes', maxDownloadBytes, count)
      let got = 0
      for (let chunk = await framed.read(); chunk !== null; chunk = await framed.read()) {
        got += chunk.length
        if (got > maxUploadBytes) throw new LimitError('maxUploadBytes', maxUploadBytes, got)
        moved()
      }
      // perf.md §Protocol: MUST NOT be run concurrently with the upload.
      await sendZeros(stream, count, defaults.writeBytes, moved)
      await stream.closeWrite()
    })
  }

  host.handle(perfId, async (stream, { connection: { peer } }) => {
    if (options.allow?.(peer) === false) throw new UnavailableError('refused', `${peer} may not measure`)
    if (open >= maxConcurrent) throw new LimitError('maxConcurrent', maxConcurrent, open + 1)
    open++
    try {
      await serve(stream, peer)
    } finally {
      open--
    }
  })
  return () => host.unhandle(perfId)
}

/** One upload and one download on a stream of their own. */
class Exchange {
  readonly uploadBytes: number
  readonly downloadBytes: number
  readonly #env: Env
  #sent = 0
  #got = 0
  #finished = false
  #startedAt: number | undefined
  #firstAt: number | undefined

  constructor(env: Env, uploadBytes: number, downloadBytes: number) {
    this.#env = env
    this.uploadBytes = uploadBytes
    this.downloadBytes = downloadBytes
  }

  async run(connection: Connection, options: typeof defaults & PerfOptions): Promise<PerfReport> {
    const { clock } = this.#env
    const { signal, stallTimeoutMs, timeoutMs, writeBytes } = options
    const stream = await connection.newStream(perfId, signal === undefined ? {} : { signal })
    const watch = { env: this.#env, what: `a perf exchange with ${connection.peer}`, stallTimeoutMs, timeoutMs, signal }
    return watched(stream, watch, async (moved) => {
      const startedAt = (this.#startedAt = clock.now())
      const write = async (): Promise<void> => {
        await stream.write(encodeCount(this.downloadBytes))
        await sendZeros(stream, this.uploadBytes, writeBytes, (bytes) => {
          this.#sent += bytes
          moved()
        })
        this.#finished = true
        await stream.closeWrite()
      }
      await Promise.all([this.#read(stream, moved), write()])
      const endedAt = clock.now()
      const firstAt = (this.#firstAt ??= endedAt)
      return {
        type: 'result',
        upload: { bytes: this.uploadBytes, seconds: (firstAt - startedAt) / 1_000 },
        download: { bytes: this.downloadBytes, seconds: (endedAt - firstAt) / 1_000 },
      }
    })
  }

  async #read(stream: Stream, moved: () => void): Promise<void> {
    const { clock } = this.#env
    for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
      if (!this.#finished) throw new ProtocolError('bad-message', 'the download began before the upload was over')
      this.#firstAt ??= clock.now()
      this.#got += chunk.length
      if (this.#got > this.downloadBytes)
        throw new ProtocolError('oversized', `asked for ${this.downloadBytes} bytes, got ${this.#got}`)
      moved()
    }
    if (this.#got < this.downloadBytes || !this.#finished)
      throw new ProtocolError('truncated', `asked for ${this.downloadBytes} bytes, got ${this.#got}`)
  }

  progress(): PerfReport {
    const now = this.#env.clock.now()
    const [direction, bytes, since] =
      this.#firstAt === undefined
        ? (['upload', this.#sent, this.#startedAt] as const)
        : (['download', this.#got, this.#firstAt] as const)
    return { type: 'progress', direction, bytes, seconds: (now - (since ?? now)) / 1_000 }
  }
}

/**
 * Measures one stream to `peer`, which must serve perf: upload first, then download. Leaving the loop early ends it.
 * Rejects with ProtocolError, TimeoutError, ClosedError, UnavailableError (`no-protocol`) or signal.reason.
 */
export async function* perf(
  host: Host,
  peer: PeerId | Multiaddr | string,
  options: PerfOptions = {},
): AsyncGenerator<PerfReport, void, undefined> {
  const settled = { ...defaults, ...options }
  const uploadBytes = checked('uploadBytes', options.uploadBytes ?? 0, 0)
  const downloadBytes = checked('downloadBytes', options.downloadBytes ?? 0, 0)
  const warmUpBytes = checked('warmUpBytes', settled.warmUpBytes, 0)
  checked('writeBytes', settled.writeBytes, 1)
  const { signal, end } = leash(options.signal)
  const connection = await host.dial(peer, { signal })
  const bound = { ...settled, signal }
  try {
    const [up, down] = [Math.min(uploadBytes, warmUpBytes), Math.min(downloadBytes, warmUpBytes)]
    if (up + down > 0) await new Exchange(host.env, up, down).run(connection, bound)
    const exchange = new Exchange(host.env, uploadBytes, downloadBytes)
    const result = exchange.run(connection, bound)
    // Whoever leaves the loop early hears of nothing any more.
    result.catch(() => {})
    while (settled.progressMs < Infinity && !(await endsWithin(host.env, result, settled.progressMs)))
      yield exchange.progress()
    yield await result
  } finally {
    end(new Error('nobody waits for the measurement any more'))
  }
}

const ended = (): boolean => true

/** Whether `promise` settles within `ms`; no timer is left behind. */
async function endsWithin(env: Env, promise: Promise<unknown>, ms: number): Promise<boolean> {
  const late = deferred<boolean>()
  const timer = env.clock.setTimer(ms, () => late.resolve(false))
  try {
    return await Promise.race([promise.then(ended, ended), late.promise])
  } finally {
    timer.cancel()
  }
}
