/* A native Wire pair in memory: what one side puts, the other side's sink gets a turn later, in pieces that the test chooses. */
import { systemEnv } from '../../../src/env.ts'
import { deferred, cleanClose } from '../../../src/inbox.ts'
import type { CloseInfo } from '../../../src/errors.ts'
import type { Wire, WireSink } from '../../../src/wire.ts'

const env = systemEnv()
const nextTurn = (fn: () => void): void => env.turn(fn)

export interface WireEndOptions {
  /** Bytes under way before put() says no. */
  highWaterBytes?: number
  turn?: (fn: () => void) => void
}

export class MemoryWire implements Wire {
  readonly #highWaterBytes: number
  readonly #turn: (fn: () => void) => void
  #other: MemoryWire | undefined
  #sink: WireSink | undefined
  /** What we put and the other side has not got. */
  #queue: Uint8Array[] = []
  queued = 0
  #running = false
  #paused = false
  #full = false
  #fin = false
  #finSeen = false
  #over = false
  #finished = deferred<void>()
  readonly #closed = deferred<CloseInfo>()
  /** Every chunk list that was put. */
  readonly puts: Uint8Array[][] | undefined

  constructor({ highWaterBytes = 256 * 1024, turn = nextTurn }: WireEndOptions, record: boolean) {
    this.#highWaterBytes = highWaterBytes
    this.#turn = turn
    this.puts = record ? [] : undefined
  }

  static pair(options: WireEndOptions = {}, record = false): [MemoryWire, MemoryWire] {
    const a = new MemoryWire(options, record)
    const b = new MemoryWire(options, record)
    a.#other = b
    b.#other = a
    return [a, b]
  }

  get closed(): Promise<CloseInfo> {
    return this.#closed.promise
  }

  get over(): boolean {
    return this.#over
  }

  get room(): number {
    return this.#over || this.#fin ? 0 : this.#highWaterBytes - this.queued
  }

  start(sink: WireSink): void {
    this.#sink = sink
    this.#other?.run()
  }

  put(chunks: Uint8Array[]): boolean {
    if (this.#over || this.#fin) return false
    this.puts?.push(chunks)
    for (const chunk of chunks) {
      this.#queue.push(chunk)
      this.queued += chunk.length
    }
    this.run()
    this.#full = this.room <= 0
    return !this.#full
  }

  run(): void {
    if (this.#running) return
    this.#running = true
    this.#turn(() => {
      this.#running = false
      this.#move()
    })
  }

  #move(): void {
    const other = this.#other
    const sink = other === undefined ? undefined : other.#sink
    if (other === undefined || sink === undefined) return
    const chunks = this.#queue
    let at = 0
    while (at < chunks.length && !other.#paused && !other.#over) {
      const chunk = chunks[at++] as Uint8Array
      this.queued -= chunk.length
      if (!sink.data(chunk)) other.#paused = true
    }
    chunks.splice(0, at)
    if (this.#over) return
    if (this.#full && this.room > 0) {
      this.#full = false
      this.#sink?.onRoom()
    }
    if (this.queued > 0 || !this.#fin || this.#finSeen) return
    this.#finSeen = true
    this.#finished.resolve()
    if (!other.#over) sink.end()
    if (other.#finSeen) for (const end of [this, other]) end.#end()
  }

  #end(): void {
    this.#over = true
    this.#closed.resolve(cleanClose)
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#other?.run()
  }

  closeWrite(): Promise<void> {
    this.#fin = true
    this.run()
    return this.#finished.promise
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#end()
    this.#finished.resolve()
    const other = this.#other
    if (other === undefined || other.#over) return
    other.#over = true
    other.#sink?.end(reason ?? new Error('connection reset'))
    other.#finished.resolve()
    other.#closed.resolve({ by: 'transport', code: 0 })
  }
}
