/*
 * Protocols of messages behind their varint length: handlers that are given requests and return replies, and the
 * dialer's side of them; the same with JSON. A stream carries requests one after another until the dialer's FIN, each
 * answered by none, one or many replies before the next one is read; the listener's FIN follows the last.
 */
import { fromUtf8, toUtf8 } from '../bytes.ts'
import { codeOfStream } from '../close-codes.ts'
import { guard, type Bound } from '../deadline.ts'
import { systemEnv, type Env } from '../env.ts'
import { ProtocolError, asError } from '../errors.ts'
import type { ProtocolStream, StreamContext, StreamHandler } from '../host.ts'
import { BufferedStream, prefixed, type Stream } from '../stream.ts'

export interface FramedOptions {
  /** Of one message of the peer; more is a ProtocolError `oversized` before it is read. Default 1 MiB. */
  maxBytes?: number
  /** Until the next message of the peer is there, and until it has taken one of ours. Default 30 s. */
  timeoutMs?: number
  /** Default the system's. */
  env?: Env
}

export interface FramedHandlerOptions extends FramedOptions {
  /** Resets the stream when the handler throws an error that is not one of ours; default 10,001 (the first of applications). */
  failureCode?: number
}

export interface RequestOptions extends FramedOptions {
  signal?: AbortSignal
}

/** Nothing, one, or as many as come; an async iterable is ended (`return`) when the peer is gone. */
export type Reply<T> = T | AsyncIterable<T> | undefined | void

const defaults = { maxBytes: 1024 * 1024, timeoutMs: 30_000, failureCode: 10_001 }
/** What a peer has to end a stream whose one reply we have. */
const lingerMs = 1_000

function settings<T extends FramedOptions>(options: T): T & typeof defaults & { env: Env } {
  const made = { ...defaults, env: systemEnv(), ...options }
  for (const name of ['maxBytes', 'timeoutMs', 'failureCode'] as const) {
    if (!(made[name] >= 0)) throw new RangeError(`option ${name} is ${String(made[name])}: want a number of at least 0`)
  }
  return made
}

const isMany = <T>(reply: Reply<T>): reply is AsyncIterable<T> =>
  typeof reply === 'object' && reply !== null && Symbol.asyncIterator in reply

async function* each<T>(reply: Reply<T>): AsyncGenerator<T, void, undefined> {
  if (isMany(reply)) yield* reply
  else if (reply !== undefined) yield reply
}

/**
 * Serves a protocol of length-prefixed messages: `node.handle('/app/1.0.0', lpHandler(async (request) => reply))`. The
 * request may share memory with what follows it: copy what you keep. What `answer` throws resets the stream.
 */
export function lpHandler(
  answer: (request: Uint8Array, context: StreamContext) => Reply<Uint8Array> | Promise<Reply<Uint8Array>>,
  options: FramedHandlerOptions = {},
): StreamHandler {
  const { maxBytes, timeoutMs, failureCode, env } = settings(options)
  return async (stream, context) => {
    const framed = new BufferedStream(stream)
    const what = (doing: string): Bound => ({ env, timeoutMs, what: `${doing} of ${stream.protocol}` })
    const next = (): Promise<Uint8Array | null> => guard(stream, what('a request'), () => framed.readPrefixed(maxBytes))
    for (let request = await next(); request !== null; request = await next()) {
      let sending = false
      try {
        for await (const reply of each(await answer(request, context))) {
          sending = true
          await guard(stream, what('a reply'), () => stream.write(...prefixed(reply)))
          sending = false
        }
      } catch (error) {
        const reason = asError(error)
        if (!sending) stream.reset(codeOfStream(reason) || failureCode, reason)
        throw error
      }
    }
    await stream.closeWrite()
  }
}

/** Sends `request` and the FIN on a new stream. */
async function ask(stream: Stream, request: Uint8Array): Promise<BufferedStream> {
  await stream.write(...prefixed(request))
  await stream.closeWrite()
  return new BufferedStream(stream)
}

/**
 * One request, one reply, on a stream of its own: `lpRequest(node.newStream(peer, '/app/1.0.0'), bytes)`. Rejects with
 * ProtocolError (`truncated`: there was no reply), TimeoutError, ClosedError or signal.reason.
 */
export async function lpRequest(
  stream: ProtocolStream | PromiseLike<ProtocolStream>,
  request: Uint8Array,
  options: RequestOptions = {},
): Promise<Uint8Array> {
  const { maxBytes, timeoutMs, env, signal } = settings(options)
  const opened = await stream
  const what = `a reply of ${opened.protocol}`
  const reply = await guard(opened, { env, timeoutMs, what, signal }, async () => {
    const message = await (await ask(opened, request)).readPrefixed(maxBytes)
    if (message === null) throw new ProtocolError('truncated', `${opened.protocol} ended without a reply`)
    return message
  })
  opened.closeRead()
  const late = env.clock.setTimer(lingerMs, () => opened.reset())
  void opened.closed.then(() => late.cancel())
  return reply
}

/** One request and all its replies as they come; the stream is reset when the caller stops early. Rejects like lpRequest. */
export async function* lpReplies(
  stream: ProtocolStream | PromiseLike<ProtocolStream>,
  request: Uint8Array,
  options: RequestOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const { maxBytes, timeoutMs, env, signal } = settings(options)
  const opened = await stream
  const bound = { env, timeoutMs, what: `a reply of ${opened.protocol}`, signal }
  try {
    const framed = await guard(opened, bound, () => ask(opened, request))
    for (;;) {
      const reply = await guard(opened, bound, () => framed.readPrefixed(maxBytes))
      if (reply === null) return
      yield reply
    }
  } finally {
    opened.reset()
  }
}

function encodeJson(value: unknown): Uint8Array {
  const text = JSON.stringify(value) as string | undefined
  if (text === undefined) throw new TypeError(`${typeof value} has no JSON`)
  return fromUtf8(text)
}

function decodeJson(bytes: Uint8Array): unknown {
  const text = toUtf8(bytes)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ProtocolError('bad-message', `message is not JSON: ${asError(error).message}`, { cause: error })
  }
}

/** lpHandler for JSON. The type of the request is the peer's claim: check what you rely on. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export function jsonHandler<Request, Response>(
  answer: (request: Request, context: StreamContext) => Reply<Response> | Promise<Reply<Response>>,
  options: FramedHandlerOptions = {},
): StreamHandler {
  return lpHandler(async (bytes, context) => {
    const reply = await answer(decodeJson(bytes) as Request, context)
    return isMany(reply) ? encoded(reply) : reply === undefined ? undefined : encodeJson(reply)
  }, options)
}

async function* encoded(values: AsyncIterable<unknown>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const value of values) yield encodeJson(value)
}

/** lpRequest for JSON; ProtocolError `bad-message` too. The type of the response is the peer's claim. */
export async function jsonRequest<Response>(
  stream: ProtocolStream | PromiseLike<ProtocolStream>,
  request: unknown,
  options: RequestOptions = {},
): Promise<Response> {
  return decodeJson(await lpRequest(stream, encodeJson(request), options)) as Response
}

/** lpReplies for JSON. */
export async function* jsonReplies<Response>(
  stream: ProtocolStream | PromiseLike<ProtocolStream>,
  request: unknown,
  options: RequestOptions = {},
): AsyncGenerator<Response, void, undefined> {
  for await (const reply of lpReplies(stream, encodeJson(request), options)) yield decodeJson(reply) as Response
}
