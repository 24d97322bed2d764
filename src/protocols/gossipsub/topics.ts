/* Who listens to a topic: handlers, and iterables that keep so many messages for a reader who is slow. */
import { fromUtf8 } from '../../bytes.ts'
import type { Env } from '../../env.ts'
import { UnavailableError, asError } from '../../errors.ts'
import { deferred, type Deferred } from '../../inbox.ts'
import type { PeerId } from '../../peer/id.ts'

/** Bytes of a topic's name. */
export const maxTopicBytes = 1024

export interface PubSubMessage {
  readonly topic: string
  /** The application's bytes. */
  readonly data: Uint8Array
  /** As the network knows it; two messages with the same id are one. */
  readonly id: Uint8Array
  /** Who wrote it; undefined with StrictNoSign. */
  readonly from: PeerId | undefined
  /** Undefined with StrictNoSign. */
  readonly seqno: bigint | undefined
  /** Who sent it to us: ourselves for our own. */
  readonly receivedFrom: PeerId
}

/** May be async. One that throws or rejects is traced and hurts nobody else. */
export type MessageHandler = (message: PubSubMessage) => unknown

export interface MessagesOptions {
  /** Messages kept for a reader who is slow; the oldest is dropped for one more. Default 1,024. */
  maxBuffered?: number
  /** The same in bytes. Default 16 MiB. */
  maxBufferedBytes?: number
  /** Ends it; the reader gets signal.reason. */
  signal?: AbortSignal
}

export interface Messages extends AsyncIterableIterator<PubSubMessage, undefined> {
  /** Messages that were dropped because nobody read them in time. */
  readonly dropped: number
}

/** Throws TypeError on a name that can't be one. */
export function checkTopic(topic: string): void {
  if (typeof topic !== 'string' || topic === '') throw new TypeError('a topic is a text of at least one character')
  if (!topic.isWellFormed()) throw new TypeError('a topic is Unicode text; this one has half a character')
  const size = fromUtf8(topic).length
  if (size > maxTopicBytes) throw new TypeError(`a topic's name has at most ${maxTopicBytes} bytes, got ${size}`)
}

export class Topics {
  readonly #env: Env
  readonly #topics = new Map<string, Set<MessageHandler>>()
  readonly #onEmpty: (topic: string) => void

  /** `onEmpty`: nobody listens to the topic any more. */
  constructor(env: Env, onEmpty: (topic: string) => void) {
    this.#env = env
    this.#onEmpty = onEmpty
  }

  has(topic: string): boolean {
    return this.#topics.has(topic)
  }

  /** The same handler twice is one. */
  add(topic: string, handler: MessageHandler): void {
    const handlers = this.#topics.get(topic)
    if (handlers === undefined) this.#topics.set(topic, new Set([handler]))
    else handlers.add(handler)
  }

  /** All of them without `handler`. Throws UnavailableError `not-found` where there is nothing to remove. */
  remove(topic: string, handler?: MessageHandler): void {
    const handlers = this.#topics.get(topic)
    if (handlers === undefined) throw new UnavailableError('not-found', `not subscribed to ${topic}`)
    if (handler !== undefined && !handlers.delete(handler)) {
      throw new UnavailableError('not-found', `this handler is not subscribed to ${topic}`)
    }
    if (handler !== undefined && handlers.size > 0) return
    this.#topics.delete(topic)
    this.#onEmpty(topic)
  }

  deliver(message: PubSubMessage): void {
    const { topic } = message
    for (const handler of this.#topics.get(topic) ?? []) {
      const failed = (error: unknown): void =>
        this.#env.trace?.('gossipsub.handler-threw', { topic, error: asError(error) })
      try {
        const result = handler(message)
        if (result instanceof Promise) result.catch(failed)
      } catch (error) {
        failed(error)
      }
    }
  }

  listens(topic: string, handler: MessageHandler): boolean {
    return this.#topics.get(topic)?.has(handler) === true
  }

  messages(topic: string, options: MessagesOptions): Messages {
    const { maxBuffered = 1_024, maxBufferedBytes = 16 * 1024 * 1024, signal } = options
    if (!(maxBuffered >= 1)) throw new RangeError(`maxBuffered is ${maxBuffered}, want 1 or more`)
    signal?.throwIfAborted()
    const queue: PubSubMessage[] = []
    let bytes = 0
    let dropped = 0
    let ended: { reason: Error | undefined } | undefined
    let waiting: Deferred<void> | undefined
    const wake = (): void => {
      waiting?.resolve()
      waiting = undefined
    }
    const handler = (message: PubSubMessage): void => {
      queue.push(message)
      bytes += message.data.length
      while (queue.length > maxBuffered || (bytes > maxBufferedBytes && queue.length > 1)) {
        bytes -= (queue.shift() as PubSubMessage).data.length
        dropped++
      }
      wake()
    }
    const end = (reason: Error | undefined): void => {
      if (ended !== undefined) return
      ended = { reason }
      signal?.removeEventListener('abort', onAbort)
      this.#ends.delete(end)
      if (this.listens(topic, handler)) this.remove(topic, handler)
      wake()
    }
    const onAbort = (): void => end(asError(signal?.reason))
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#ends.add(end)
    this.add(topic, handler)
    return {
      get dropped() {
        return dropped
      },
      async next() {
        for (;;) {
          const message = queue.shift()
          if (message !== undefined) {
            bytes -= message.data.length
            return { done: false, value: message }
          }
          if (ended !== undefined) {
            const { reason } = ended
            // Once: who goes on reading sees the end.
            ended = { reason: undefined }
            if (reason !== undefined) throw reason
            return { done: true, value: undefined }
          }
          waiting ??= deferred()
          await waiting.promise
        }
      },
      async return() {
        queue.length = 0
        end(undefined)
        return { done: true, value: undefined }
      },
      [Symbol.asyncIterator]() {
        return this
      },
    }
  }

  readonly #ends = new Set<(reason: Error | undefined) => void>()

  /** Every reader gets `reason`. Handlers stay. */
  end(reason: Error): void {
    for (const end of this.#ends) end(reason)
  }
}
