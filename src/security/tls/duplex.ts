/* A Wire as the Duplex that node:tls runs over where there is no native socket. Node only. */
import { Duplex } from 'node:stream'
import type { Env } from '../../env.ts'
import { asError } from '../../errors.ts'
import type { Wire } from '../../wire.ts'

/** What a peer that has said goodbye gets for its FIN. */
const lingerMs = 1000

type Callback = (error?: Error | null) => void

export class WireDuplex extends Duplex {
  readonly #wire: Wire
  #paused = false
  /** Of a write that waits for room. */
  #waiting: Callback | undefined

  readonly #env: Env

  constructor(wire: Wire, env: Env) {
    // Destroyed by the TLSSocket over it: at both ends by itself it would come before the TLSSocket's own end.
    super({ allowHalfOpen: true, autoDestroy: false })
    this.#wire = wire
    this.#env = env
    wire.start({
      data: (bytes) => {
        if (this.destroyed) return true
        this.#paused = !this.push(bytes)
        return !this.#paused
      },
      end: (reason) => {
        if (reason !== undefined) this.destroy(reason)
        else if (!this.destroyed) this.push(null)
      },
      onRoom: () => this.#written(),
    })
    // After the peer's FIN nothing but this tells of an end.
    void wire.closed.then(({ reason }) => this.#written(reason))
  }

  #written(error?: Error): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(error)
  }

  override _read(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#wire.resume()
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.#put([chunk], callback)
  }

  override _writev(chunks: { chunk: Uint8Array }[], callback: Callback): void {
    this.#put(
      chunks.map(({ chunk }) => chunk),
      callback,
    )
  }

  #put(chunks: Uint8Array[], callback: Callback): void {
    if (this.#wire.put(chunks)) callback()
    else this.#waiting = callback
  }

  override _final(callback: Callback): void {
    this.#wire.closeWrite().then(
      () => callback(),
      (error: unknown) => callback(asError(error)),
    )
  }

  override _destroy(error: Error | null, callback: Callback): void {
    const wire = this.#wire
    if (error !== null || !this.writableFinished) wire.abort(error ?? undefined)
    else if (!this.readableEnded) {
      // The TLSSocket closes at the peer's close_notify: a reset now would cut off the FIN that follows it.
      this.#linger()
    }
    callback(error)
  }

  #linger(): void {
    const wire = this.#wire
    const late = this.#env.clock.setTimer(lingerMs, () => wire.abort())
    void wire.closed.then(() => late.cancel())
    wire.resume()
  }
}
