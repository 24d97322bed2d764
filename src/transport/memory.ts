/*
 * Connections inside one process, for tests and simulated networks: same contract as a socket, no kernel.
 * Time comes from env, so a network on a FakeClock runs in virtual time. Bytes arrive in a later turn, as on a socket.
 */
import { byteLength } from '../bytes.ts'
import { raceAbort, sleep } from '../deadline.ts'
import { systemEnv, type Env, type Timer } from '../env.ts'
import { ClosedError, UnavailableError, asError, type CloseInfo } from '../errors.ts'
import { deferred, rejected } from '../inbox.ts'
import { multiaddr, type Multiaddr } from '../multiaddr.ts'
import { WireStream, type Wire, type WireSink } from '../wire.ts'
import type { Listener, RawConnection, Transport, TransportConnection } from './transport.ts'

export interface LinkOptions {
  env?: Env
  /** One way, in milliseconds of env's clock. Default 0: the next turn. */
  latencyMs?: number
  /** Each way. Default: without limit. */
  bytesPerSecond?: number
  /** Chance from 0 to 1 that a write is lost and sent again: it and all behind it come `retransmitMs` later. Default 0. */
  lossRate?: number
  /** Default 200, TCP's least retransmission timeout on Linux. */
  retransmitMs?: number
  /** Bytes that may be under way or wait unread in each direction: give a long fast link more. Default 256 KiB. */
  highWaterBytes?: number
  /** Bytes arrive in pieces of at most this many, however they were written. Default: as they were written. */
  pieceBytes?: number
  /** A road that can be closed and opened again; default: always open. */
  road?: Road
}

/**
 * While a road is closed nothing arrives, no reset and no answer to a dial either: whoever waits is not told. What was
 * sent comes once it is open again, as TCP sends again what was lost.
 */
export class Road {
  #waiting: (() => void)[] = []
  #open = true

  get open(): boolean {
    return this.#open
  }

  set open(open: boolean) {
    this.#open = open
    if (open) for (const go of this.#waiting.splice(0)) go()
  }

  /** Calls `go` as soon as the road is open, at once if it is. */
  whenOpen(go: () => void): void {
    if (this.#open) go()
    else this.#waiting.push(go)
  }
}

const defaults = {
  latencyMs: 0,
  bytesPerSecond: Infinity,
  lossRate: 0,
  retransmitMs: 200,
  highWaterBytes: 256 * 1024,
  pieceBytes: Infinity,
} satisfies Omit<Required<LinkOptions>, 'env' | 'road'>

type Link = typeof defaults & { env: Env; road: Road }

function linkOf(options: LinkOptions): Link {
  return { env: systemEnv(), road: new Road(), ...defaults, ...options }
}

/** Something under way: bytes, or the FIN. */
interface Arrival {
  at: number
  bytes: Uint8Array | undefined
}

class MemoryWire implements Wire {
  readonly #link: Link
  #other: MemoryWire | undefined
  #sink: WireSink | undefined
  /** What the other side sent and our sink has not taken. */
  #arrivals: Arrival[] = []
  #held = 0
  #lastAt = 0
  /** When the link has sent what was put. */
  #idleAt = 0
  #paused = false
  #scheduled = false
  #timer: Timer | undefined
  #full = false
  #finSent = false
  #finTaken = false
  #failure: Error | undefined
  #over = false
  readonly #closed = deferred<CloseInfo>()

  constructor(link: Link) {
    this.#link = link
  }

  static join(a: MemoryWire, b: MemoryWire): void {
    a.#other = b
    b.#other = a
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get room(): number {
    const other = this.#other
    return this.#over || this.#finSent || other === undefined ? 0 : this.#link.highWaterBytes - other.#held
  }

  start(sink: WireSink): void {
    this.#sink = sink
    this.#schedule()
  }

  put(chunks: Uint8Array[]): boolean {
    const other = this.#other
    if (other === undefined || this.#over || this.#finSent) return false
    if (byteLength(chunks) > 0) {
      const lostMs = this.#lossMs()
      for (const bytes of chunks)
        if (bytes.length > 0) other.#arrive({ at: this.#arrivalTime(bytes.length, lostMs), bytes })
    }
    this.#full = this.room <= 0
    return !this.#full
  }

  #lossMs(): number {
    const { env, lossRate, retransmitMs } = this.#link
    return lossRate > 0 && env.random.unit() < lossRate ? retransmitMs : 0
  }

  #arrivalTime(size: number, lostMs: number): number {
    const { env, latencyMs, bytesPerSecond } = this.#link
    this.#idleAt = Math.max(this.#idleAt, env.clock.now()) + (size / bytesPerSecond) * 1000
    this.#lastAt = Math.max(this.#lastAt, this.#idleAt + latencyMs + lostMs)
    return this.#lastAt
  }

  #arrive(arrival: Arrival): void {
    if (this.#over) return
    this.#arrivals.push(arrival)
    this.#held += arrival.bytes?.length ?? 0
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#over || this.#sink === undefined) return
    const head = this.#arrivals[0]
    if (this.#failure === undefined && (this.#paused || head === undefined)) return
    this.#scheduled = true
    const { env, road } = this.#link
    if (!road.open) {
      road.whenOpen(() => this.#deliver())
      return
    }
    const ms = (head?.at ?? 0) - env.clock.now()
    if (this.#failure !== undefined || ms <= 0) env.turn(() => this.#deliver())
    else this.#timer = env.clock.setTimer(ms, () => this.#deliver())
  }

  #deliver(): void {
    this.#scheduled = false
    this.#timer = undefined
    const { env, road } = this.#link
    const now = env.clock.now()
    while (!this.#over && this.#failure === undefined && !this.#paused && road.open) {
      const head = this.#arrivals[0]
      // Fractions of milliseconds do not add up exactly: a microsecond too early is on time.
      if (head === undefined || head.at - now > 0.001) break
      this.#take(head)
    }
    if (this.#failure !== undefined) this.#fail(this.#failure)
    this.#schedule()
  }

  #take(head: Arrival): void {
    const { bytes } = head
    const other = this.#other
    if (bytes === undefined) {
      this.#arrivals.shift()
      this.#finTaken = true
      this.#sink?.end()
      this.#settle()
      return
    }
    const piece = bytes.subarray(0, this.#link.pieceBytes)
    if (piece.length === bytes.length) this.#arrivals.shift()
    else head.bytes = bytes.subarray(piece.length)
    this.#held -= piece.length
    if (this.#sink?.data(piece) === false) this.#paused = true
    if (other === undefined || !other.#full || other.room <= 0) return
    other.#full = false
    other.#sink?.onRoom()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#schedule()
  }

  closeWrite(): Promise<void> {
    if (this.#over && !this.#finSent) {
      return rejected(new ClosedError('connection is closed', { by: 'local', code: 0 }, 'closed'))
    }
    if (!this.#finSent) {
      this.#finSent = true
      const other = this.#other
      if (other !== undefined) other.#arrive({ at: this.#arrivalTime(0, this.#lossMs()), bytes: undefined })
      this.#settle()
    }
    return Promise.resolve()
  }

  #settle(): void {
    if (!this.#finSent || !this.#finTaken || this.#over) return
    this.#end({ by: 'local', code: 0 })
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#end({ by: 'local', code: 0, ...(reason && { reason }) })
    const other = this.#other
    const { env, latencyMs, road } = this.#link
    const told = (): void => {
      if (other === undefined || other.#over) return
      const error = new ClosedError('connection reset by the other end', { by: 'remote', code: 0 }, 'reset')
      if (other.#sink === undefined) other.#failure = error
      else other.#fail(error)
    }
    const tell = (): void => road.whenOpen(told)
    if (latencyMs > 0) env.clock.setTimer(latencyMs, tell)
    else env.turn(tell)
  }

  #fail(reason: Error): void {
    if (this.#over) return
    const sink = this.#sink
    this.#end({ by: 'remote', code: 0, reason })
    if (!this.#finTaken) sink?.end(reason)
  }

  #end(info: CloseInfo): void {
    this.#over = true
    this.#arrivals = []
    this.#held = 0
    this.#timer?.cancel()
    this.#timer = undefined
    this.#closed.resolve(info)
  }
}

/** Two Wires joined back to back. A reset overtakes what is under way; a FIN does not. */
export function memoryWirePair(options: LinkOptions = {}): [Wire, Wire] {
  const link = linkOf(options)
  const a = new MemoryWire(link)
  const b = new MemoryWire(link)
  MemoryWire.join(a, b)
  return [a, b]
}

/** The number of a /memory/N address; undefined for any other. */
function port(addr: Multiaddr): bigint | undefined {
  const [only, ...more] = addr.withoutPeer().components()
  return only?.name === 'memory' && only.value !== undefined && more.length === 0 ? BigInt(only.value) : undefined
}

type Accept = (connection: TransportConnection) => void

/** Who can reach whom: nodes whose memory transports share one find each other by /memory/N. */
export class MemoryNetwork {
  readonly #options: LinkOptions
  readonly #between: ((from: string | undefined, to: bigint) => LinkOptions) | undefined
  readonly #listeners = new Map<bigint, { accept: Accept }>()
  /** Free numbers for listeners on port 0 and for dialling ends start where nobody writes them by hand. */
  #free = 1n << 32n

  /**
   * The options hold for every connection; `env` is the clock of them all. `between` says what is different on the way
   * from a dialler (the name that its transport was made with) to a listener's number.
   */
  constructor(options: LinkOptions = {}, between?: (from: string | undefined, to: bigint) => LinkOptions) {
    this.#options = options
    this.#between = between
  }

  #number(): bigint {
    do this.#free++
    while (this.#listeners.has(this.#free))
    return this.#free
  }

  /** Rejects with UnavailableError `unreachable` after a round trip when nobody listens there. */
  async dial(addr: Multiaddr, signal: AbortSignal, from?: string): Promise<RawConnection> {
    signal.throwIfAborted()
    const number = port(addr)
    if (number === undefined) throw new UnavailableError('no-transport', `${addr} is not a /memory address`)
    const link = linkOf({ ...this.#options, ...this.#between?.(from, number) })
    const { env, latencyMs, road } = link
    // A round trip, as TCP takes: the listener hears of it half-way, we when its answer is back.
    if (latencyMs > 0) await sleep(env, latencyMs, signal)
    if (!road.open) await raceAbort(new Promise<void>((resolve) => road.whenOpen(resolve)), signal)
    const listening = this.#listeners.get(number)
    if (listening === undefined) {
      if (latencyMs > 0) await sleep(env, latencyMs, signal)
      throw new UnavailableError('unreachable', `cannot reach ${addr}: nothing listens there`)
    }
    const [ours, theirs] = memoryWirePair(link)
    const localAddr = multiaddr(`/memory/${this.#number()}`)
    const remoteAddr = multiaddr(`/memory/${number}`)
    const stream = new WireStream(theirs)
    try {
      listening.accept({ kind: 'raw', stream, localAddr: remoteAddr, remoteAddr: localAddr })
    } catch (error) {
      env.trace?.('memory.accept', { error })
      stream.reset(0, asError(error))
    }
    if (latencyMs > 0) {
      try {
        await sleep(env, latencyMs, signal)
      } catch (error) {
        ours.abort(asError(error))
        throw error
      }
    }
    return { kind: 'raw', stream: new WireStream(ours), localAddr, remoteAddr }
  }

  /** Throws UnavailableError `refused` when the number is taken. */
  listen(addr: Multiaddr, accept: Accept): Listener {
    const wanted = port(addr)
    if (wanted === undefined) throw new UnavailableError('no-transport', `${addr} is not a /memory address`)
    const number = wanted === 0n ? this.#number() : wanted
    if (this.#listeners.has(number)) {
      throw new UnavailableError(
        'refused',
        `cannot listen on ${addr}: taken; choose another (/memory/0 takes a free one)`,
      )
    }
    const at = multiaddr(`/memory/${number}`)
    const listening = { accept }
    this.#listeners.set(number, listening)
    return {
      addrs: () => [at],
      onAddrs: () => () => {},
      close: () => {
        if (this.#listeners.get(number) === listening) this.#listeners.delete(number)
        return Promise.resolve()
      },
    }
  }
}

let shared: MemoryNetwork | undefined

/**
 * The memory transport. Without a network: the one that all in this process share, without latency. `from` is what the
 * network knows our dialling end by.
 */
export function memory(network: MemoryNetwork = (shared ??= new MemoryNetwork()), from?: string): Transport {
  return {
    name: 'memory',
    canDial: (addr) => port(addr) !== undefined && port(addr) !== 0n,
    canListen: (addr) => port(addr) !== undefined,
    dial: (addr, { signal }) => network.dial(addr, signal, from),
    listen: (addr, onConnection) => new Promise((resolve) => resolve(network.listen(addr, onConnection))),
  }
}
