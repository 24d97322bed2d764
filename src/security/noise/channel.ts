/* Noise records as a Wire over a Wire: socket, cipher and muxer run in one call stack. */
import { byteLength } from '../../bytes.ts'
import { ClosedError, ProtocolError, asError, type CloseInfo } from '../../errors.ts'
import { release } from '../../release.ts'
import type { Wire, WireSink } from '../../wire.ts'
import { NoiseRecords } from './records.ts'
import type { CipherState } from './symmetric.ts'

/** Plaintext above, records below. Holds at most one record that has not come in full. */
export class NoiseWire implements Wire {
  readonly #lower: Wire
  readonly #records: NoiseRecords
  #sink: WireSink | undefined
  /** Both directions are done: the peer's records failed, the wire below ended, or we aborted. */
  #over = false
  #finished = false

  constructor(lower: Wire, ciphers: { send: CipherState; receive: CipherState }) {
    this.#lower = lower
    this.#records = new NoiseRecords(ciphers)
  }

  get closed(): Promise<CloseInfo> {
    return this.#lower.closed
  }

  /** The lower wire's: that records take 18 bytes each is below its own coarseness. */
  get room(): number {
    return this.#over ? 0 : this.#lower.room
  }

  start(sink: WireSink): void {
    this.#sink = sink
    this.#lower.start({
      data: (bytes) => this.#data(bytes, sink),
      end: (reason) => this.#end(reason),
      onRoom: () => {
        if (!this.#over) sink.onRoom()
      },
    })
  }

  #data(bytes: Uint8Array, sink: WireSink): boolean {
    if (this.#over) return false
    const opened: Uint8Array[] = []
    let failure: Error | undefined
    try {
      this.#records.open(bytes, opened)
    } catch (error) {
      failure = asError(error)
    }
    // The records were opened into memory of their own, or copied.
    release(bytes)
    let more = true
    for (const plaintext of opened) {
      // Records that came in one read all go up, even when the sink has had enough: the next read waits.
      if (!sink.data(plaintext)) more = false
      if (this.#over) return false
    }
    if (failure === undefined) return more
    this.#fail(failure)
    return false
  }

  #end(reason: Error | undefined): void {
    if (this.#over) return
    if (reason === undefined && this.#records.midRecord) {
      this.#fail(new ProtocolError('truncated', 'the stream ended within a record'))
      return
    }
    if (reason !== undefined) this.#over = true
    this.#sink?.end(reason)
  }

  #fail(error: Error): void {
    this.#over = true
    this.#lower.abort(error)
    this.#sink?.end(error)
  }

  put(chunks: Uint8Array[]): boolean {
    if (this.#over || this.#finished) return false
    const sealed: Uint8Array[] = []
    try {
      this.#records.seal(chunks, byteLength(chunks), sealed)
    } catch (error) {
      this.#fail(asError(error))
      return false
    }
    return sealed.length === 0 ? this.room > 0 : this.#lower.put(sealed, true)
  }

  pause(): void {
    this.#lower.pause()
  }

  resume(): void {
    this.#lower.resume()
  }

  /** Noise has no farewell of its own: the FIN below is all there is. */
  async closeWrite(): Promise<void> {
    if (this.#over) throw new ClosedError('the secure channel is closed', { by: 'transport', code: 0 })
    this.#finished = true
    await this.#lower.closeWrite()
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#lower.abort(reason)
  }
}
