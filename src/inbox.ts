/* The receive queue that every Stream is built on, with the promise plumbing it needs. */
import { type CloseInfo } from './errors.ts'
import type { Stream } from './stream.ts'

/** A promise and its settlers. */
export interface Deferred<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: Error) => void
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: Error) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

export const cleanClose: CloseInfo = { by: 'local', code: 0 }

/** for await over read(); leaving the loop early closes the read side. */
export function iterate(stream: Stream): AsyncIterator<Uint8Array, undefined> {
  return {
    async next() {
      const value = await stream.read()
      return value === null ? { done: true, value: undefined } : { done: false, value }
    },
    async return() {
      stream.closeRead()
      return { done: true, value: undefined }
    },
  }
}

const fromQueue = (chunk: Uint8Array): Promise<Uint8Array> => Promise.resolve(chunk)

/**
 * A queue of received chunks with one reader. `onTaken(n)` is called when the application has taken n bytes:
 * that, not their arrival, is when credit may be granted.
 */
export class Inbox {
  readonly #chunks: Uint8Array[] = []
  #head = 0
  #size = 0
  #ended = false
  #error: Error | undefined
  #discard = false
  #waiter: Deferred<Uint8Array | null> | undefined
  readonly #onTaken: (size: number) => void

  constructor(onTaken: (size: number) => void = () => {}) {
    this.#onTaken = onTaken
  }

  /** Bytes that wait to be read. */
  get size(): number {
    return this.#size
  }

  get ended(): boolean {
    return this.#ended
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#ended || this.#error !== undefined) return
    if (this.#discard) {
      this.#onTaken(chunk.length)
      return
    }
    const waiter = this.#waiter
    if (waiter === undefined) {
      this.#chunks.push(chunk)
      this.#size += chunk.length
      return
    }
    this.#waiter = undefined
    waiter.resolve(chunk)
    this.#onTaken(chunk.length)
  }

  /** The peer's FIN: what is queued is still read, then null. */
  end(): void {
    if (this.#error !== undefined) return
    this.#ended = true
    this.#waiter?.resolve(null)
    this.#waiter = undefined
  }

  /** A reset: what is queued is dropped, reads reject. */
  fail(error: Error): void {
    if (this.#error !== undefined) return
    this.#error = error
    this.#clear()
    this.#waiter?.reject(error)
    this.#waiter = undefined
  }

  /** The application reads no more: what is queued and what still comes counts as taken. */
  discard(): void {
    if (this.#discard) return
    this.#discard = true
    const size = this.#size
    this.#clear()
    this.#waiter?.resolve(null)
    this.#waiter = undefined
    if (size > 0) this.#onTaken(size)
  }

  #clear(): void {
    this.#chunks.length = 0
    this.#head = 0
    this.#size = 0
  }

  #shift(): Uint8Array | undefined {
    const chunk = this.#chunks[this.#head]
    if (chunk === undefined) return undefined
    this.#head++
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0
      this.#head = 0
    } else if (this.#head >= 64) {
      this.#chunks.splice(0, this.#head)
      this.#head = 0
    }
    this.#size -= chunk.length
    return chunk
  }

  /** Everything that waits, for a layer that takes the stream over; the queue is empty afterwards. */
  drain(): Uint8Array[] {
    const rest = this.#chunks.slice(this.#head)
    this.#clear()
    return rest
  }

  read(): Promise<Uint8Array | null> {
    const chunk = this.#shift()
    if (chunk !== undefined) {
      const out = fromQueue(chunk)
      this.#onTaken(chunk.length)
      return out
    }
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended || this.#discard) return Promise.resolve(null)
    if (this.#waiter !== undefined) return Promise.reject(new TypeError('a read is under way: one at a time'))
    this.#waiter = deferred()
    return this.#waiter.promise
  }
}
