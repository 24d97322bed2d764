/* The receive queue that every Stream is built on, with the promise plumbing it needs. */
import { empty } from './bytes.ts'
import { ClosedError, type CloseInfo } from './errors.ts'
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

/** What every call that has nothing to wait for returns: no promise is made for it. */
export const done: Promise<void> = Promise.resolve()

/** The same promise; that nobody waits for it must not bring the process down. Whoever awaits it still hears. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

/** A rejected promise that may be dropped. */
export function rejected(reason: Error): Promise<never> {
  return quiet(Promise.reject(reason))
}

/** What writes (and reads, where we did not do it ourselves) reject with once a stream is over. */
export function closedBy(info: CloseInfo): ClosedError {
  return info.reason instanceof ClosedError
    ? info.reason
    : new ClosedError(`stream closed by ${info.by}`, info, 'reset')
}

const iteration = (value: Uint8Array | null): IteratorResult<Uint8Array, undefined> =>
  value === null ? { done: true, value: undefined } : { done: false, value }

/** for await over read(); leaving the loop early closes the read side. */
export function iterate(stream: Stream): AsyncIterator<Uint8Array, undefined> {
  return {
    next: () => stream.read().then(iteration),
    async return() {
      stream.closeRead()
      return { done: true, value: undefined }
    },
  }
}

/**
 * A chunk that has to wait is copied when it is tiny or a small part of its buffer, and gathered with its neighbours:
 * so what waits costs at most about 8 times its bytes, however cunningly a peer cuts them.
 */
const tinyBytes = 256
const maxPinned = 8
const gatherMaxBytes = 16 * 1024

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
  /** The last of #chunks when it is one that we gather into; its first #tailSize bytes are filled. */
  #tail: Uint8Array | undefined
  #tailSize = 0
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

  /** A read is under way. */
  get reading(): boolean {
    return this.#waiter !== undefined
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#ended || this.#error !== undefined) return
    if (this.#discard) {
      this.#onTaken(chunk.length)
      return
    }
    const waiter = this.#waiter
    if (waiter === undefined) {
      this.#queue(chunk)
      this.#size += chunk.length
      return
    }
    this.#waiter = undefined
    waiter.resolve(chunk)
    this.#onTaken(chunk.length)
  }

  #queue(chunk: Uint8Array): void {
    const { length } = chunk
    if (length >= tinyBytes && length * maxPinned >= chunk.buffer.byteLength) {
      this.#closeTail()
      this.#chunks.push(chunk)
      return
    }
    const tail = this.#tail
    if (tail !== undefined && this.#tailSize + length <= gatherMaxBytes) {
      let room = tail
      if (this.#tailSize + length > tail.length) {
        room = new Uint8Array(Math.min(gatherMaxBytes, Math.max(256, 2 * (this.#tailSize + length))))
        room.set(tail.subarray(0, this.#tailSize))
        this.#chunks[this.#chunks.length - 1] = room
        this.#tail = room
      }
      room.set(chunk, this.#tailSize)
      this.#tailSize += length
      return
    }
    this.#closeTail()
    const copy = chunk.slice()
    this.#chunks.push(copy)
    this.#tail = copy
    this.#tailSize = length
  }

  /** Nothing more is gathered into the last chunk. */
  #closeTail(): void {
    const tail = this.#tail
    if (tail === undefined) return
    if (this.#tailSize < tail.length) this.#chunks[this.#chunks.length - 1] = tail.subarray(0, this.#tailSize)
    this.#tail = undefined
  }

  /** The peer's FIN: what is queued is still read, then null. */
  end(): void {
    if (this.#error !== undefined) return
    this.#ended = true
    this.#waiter?.resolve(null)
    this.#waiter = undefined
  }

  /** A reset: what is queued is dropped, reads reject. */
  fail(reason: Error): void {
    if (this.#error !== undefined) return
    this.#error = reason
    this.#clear()
    // A read that nobody looks at any more must not bring the process down.
    this.#waiter?.promise.catch(() => {})
    this.#waiter?.reject(reason)
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
    this.#tail = undefined
    this.#head = 0
    this.#size = 0
  }

  #shift(): Uint8Array | undefined {
    if (this.#tail !== undefined && this.#head === this.#chunks.length - 1) this.#closeTail()
    const chunk = this.#chunks[this.#head]
    if (chunk === undefined) return undefined
    this.#chunks[this.#head++] = empty // lets go of the memory now
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0
      this.#head = 0
    } else if (this.#head >= 64 && this.#head * 2 >= this.#chunks.length) {
      this.#chunks.splice(0, this.#head)
      this.#head = 0
    }
    this.#size -= chunk.length
    return chunk
  }

  /** Everything that waits, for a layer that takes the stream over; the queue is empty afterwards. */
  drain(): Uint8Array[] {
    this.#closeTail()
    const rest = this.#chunks.slice(this.#head)
    this.#clear()
    return rest
  }

  read(): Promise<Uint8Array | null> {
    const chunk = this.#shift()
    if (chunk !== undefined) {
      this.#onTaken(chunk.length)
      return Promise.resolve(chunk)
    }
    if (this.#error !== undefined) return rejected(this.#error)
    if (this.#ended || this.#discard) return Promise.resolve(null)
    if (this.#waiter !== undefined) return Promise.reject(new TypeError('a read is under way: one at a time'))
    this.#waiter = deferred()
    return this.#waiter.promise
  }
}

/** What a reset means to a stream's reader and its waiting writers; the error that later calls reject with. */
export function cutOff(info: CloseInfo, inbox: Inbox, waiting: Deferred<void>[]): ClosedError {
  const gone = closedBy(info)
  // What came before the peer's FIN is complete: only we ourselves throw it away.
  if (info.by === 'local') inbox.fail(info.reason ?? gone)
  else if (!inbox.ended) inbox.fail(gone)
  for (const { promise, reject } of waiting.splice(0)) {
    void quiet(promise)
    reject(gone)
  }
  return gone
}
