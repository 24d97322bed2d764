/*
 * fetch 0.0.1 (libp2p fetch/README.md r1) over a Host: the value of a key, from one peer. One request per stream.
 * Who serves registers a lookup for each namespace, by the prefix of its keys.
 */
import { equals, fromUtf8, toHex, toUtf8 } from '../../bytes.ts'
import { guard, raceAbort } from '../../deadline.ts'
import { LimitError, ProtocolError, UnavailableError, asError } from '../../errors.ts'
import type { Connection, Host } from '../../host.ts'
import type { Multiaddr } from '../../multiaddr.ts'
import type { PeerId } from '../../peer/id.ts'
import { BufferedStream, type Stream } from '../../stream.ts'
import {
  FetchRequest,
  FetchResponse,
  defaultMaxResponseBytes,
  fetchId,
  maxIdentifierBytes,
  maxRequestBytes,
  maxValueBytes,
  statusCode,
} from './wire.ts'

export { fetchId } from './wire.ts'

const defaults = {
  maxResponseBytes: defaultMaxResponseBytes,
  // go-libp2p-pubsub-router and js-libp2p
  timeoutMs: 10_000,
  maxConcurrent: 64,
  maxInboundStreams: 16,
}

/** What a lookup is told besides the key. */
export interface LookupContext {
  peer: PeerId
  connection: Connection
  /** Aborts when the stream ends or its deadline passes. */
  signal: AbortSignal
}

/** The value of `key`, or undefined where there is none. What it throws is traced; the peer hears of an error only. */
export type Lookup = (
  key: Uint8Array,
  context: LookupContext,
) => Uint8Array | undefined | Promise<Uint8Array | undefined>

export interface ServeFetchOptions {
  /** Bytes of a response; a larger value is an error. Default 1 MiB: go-libp2p reads no more. */
  maxResponseBytes?: number
  /** For a request, its lookup and its response. Default 10 s. */
  timeoutMs?: number
  /** Requests at a time over all connections; one more is reset. Default 64. */
  maxConcurrent?: number
  /** Requests at a time on one connection; one more is reset. Default 16. */
  maxInboundStreams?: number
}

export interface FetchOptions {
  /** Bytes of a response that are read. Default 1 MiB. */
  maxResponseBytes?: number
  /** For the dial and for the answer, each. Default 10 s. */
  timeoutMs?: number
  signal?: AbortSignal
}

export interface FetchService {
  /**
   * Keys that begin with `prefix` are looked up here; the longest prefix wins. Returns the undo.
   * Throws TypeError when the prefix is taken.
   */
  register(prefix: string | Uint8Array, lookup: Lookup): () => void
  /** Serves no more. Requests under way are answered. */
  close(): void
}

const bytesOf = (key: string | Uint8Array): Uint8Array => (typeof key === 'string' ? fromUtf8(key) : key)

/** A key as a log shows it: text where it is plain, else hex. */
function shown(key: Uint8Array): string {
  const short = key.subarray(0, 64)
  const plain = short.every((byte) => byte >= 0x20 && byte < 0x7f)
  return `${plain ? toUtf8(short) : toHex(short)}${key.length > short.length ? '...' : ''}`
}

/** Text that a peer wrote, for our own error: bounded, and harmless on a terminal. */
function told(text: Uint8Array): string {
  const words = new TextDecoder().decode(text.subarray(0, 256)).replaceAll(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, ' ')
  return words.trim() === '' ? 'it did not say why' : words
}

interface Namespace {
  prefix: Uint8Array
  lookup: Lookup
}

class Service implements FetchService {
  readonly #host: Host
  readonly #options: typeof defaults
  /** The longest prefix first. */
  #namespaces: readonly Namespace[] = []
  #open = 0

  constructor(host: Host, options: typeof defaults) {
    this.#host = host
    this.#options = options
    host.handle(fetchId, (stream, { connection, signal }) => this.#bounded(stream, connection, signal), {
      maxInboundStreams: options.maxInboundStreams,
    })
  }

  register(prefix: string | Uint8Array, lookup: Lookup): () => void {
    const namespace = { prefix: bytesOf(prefix).slice(), lookup }
    if (this.#namespaces.some((n) => equals(n.prefix, namespace.prefix)))
      throw new TypeError(`fetch: ${shown(namespace.prefix)} has a lookup; undo that one first`)
    this.#namespaces = [...this.#namespaces, namespace].toSorted((a, b) => b.prefix.length - a.prefix.length)
    return () => {
      this.#namespaces = this.#namespaces.filter((n) => n !== namespace)
    }
  }

  close(): void {
    this.#host.unhandle(fetchId)
  }

  async #bounded(stream: Stream, connection: Connection, signal: AbortSignal): Promise<void> {
    const { maxConcurrent } = this.#options
    if (this.#open >= maxConcurrent) throw new LimitError('maxConcurrent', maxConcurrent, this.#open + 1)
    this.#open++
    try {
      await this.#serve(stream, connection, signal)
    } finally {
      this.#open--
    }
  }

  async #serve(stream: Stream, connection: Connection, signal: AbortSignal): Promise<void> {
    const { timeoutMs } = this.#options
    const framed = new BufferedStream(stream)
    const what = `a fetch by ${connection.peer}`
    await guard(stream, { env: this.#host.env, timeoutMs, what }, async () => {
      const request = await framed.readPrefixed(maxRequestBytes)
      if (request === null) throw new ProtocolError('truncated', 'the stream ended without a fetch request')
      const { identifier = new Uint8Array(0) } = FetchRequest.decode(request)
      const { peer } = connection
      const response = await this.#answer(identifier.slice(), { peer, connection, signal })
      await framed.writePrefixed(...FetchResponse.encodeChunks(response))
      await framed.closeWrite()
      if ((await framed.read()) !== null) throw new ProtocolError('bad-message', 'a second request on one stream')
    })
  }

  async #answer(key: Uint8Array, context: LookupContext): Promise<{ status?: number; data?: Uint8Array }> {
    const found = this.#namespaces.find(({ prefix }) => equals(key.subarray(0, prefix.length), prefix))
    try {
      // A lookup that hangs must not keep its place for longer than the stream lives.
      const value = await raceAbort(Promise.resolve(found?.lookup(key, context)), context.signal)
      if (value === undefined) return { status: statusCode.notFound }
      const max = maxValueBytes(this.#options.maxResponseBytes)
      if (value.length > max) throw new LimitError('maxResponseBytes', max, value.length)
      return { data: value }
    } catch (error) {
      if (context.signal.aborted) throw error
      // What went wrong with us is none of the peer's business.
      const { env } = this.#host
      env.trace?.('fetch.lookup-failed', { peer: context.peer.toString(), key: shown(key), error: asError(error) })
      return { status: statusCode.error, data: fromUtf8('the lookup failed') }
    }
  }
}

/** Serves fetch; without a namespace every key is not found. Throws TypeError when the host serves it already. */
export function serveFetch(host: Host, options: ServeFetchOptions = {}): FetchService {
  return new Service(host, { ...defaults, ...options })
}

/**
 * The value that `peer` has for `key`, or undefined when it has none. Text is UTF-8. Rejects with UnavailableError
 * (`refused` when the peer answered with an error, `no-protocol`, `unreachable`), ProtocolError, TimeoutError,
 * ClosedError or signal.reason; with RangeError for a key above 4 KiB.
 */
export async function fetch(
  host: Host,
  peer: PeerId | Multiaddr | string,
  key: string | Uint8Array,
  options: FetchOptions = {},
): Promise<Uint8Array | undefined> {
  const { timeoutMs, maxResponseBytes } = { ...defaults, ...options }
  const { signal } = options
  const identifier = bytesOf(key)
  if (identifier.length > maxIdentifierBytes)
    throw new RangeError(`fetch: a key of ${identifier.length} bytes, want at most ${maxIdentifierBytes}`)
  const stream = await host.newStream(peer, fetchId, { timeoutMs, ...(signal && { signal }) })
  const framed = new BufferedStream(stream)
  const what = `fetching ${shown(identifier)}`
  const reply = await guard(stream, { env: host.env, timeoutMs, what, signal }, async () => {
    await framed.writePrefixed(FetchRequest.encode({ identifier }))
    await framed.closeWrite()
    const bytes = await framed.readPrefixed(maxResponseBytes)
    if (bytes === null) throw new ProtocolError('truncated', 'the stream ended without a fetch response')
    return FetchResponse.decode(bytes)
  })
  seeOut(framed, host, timeoutMs)
  const { status = statusCode.ok, data = new Uint8Array(0) } = reply
  if (status === statusCode.ok) return data.slice()
  if (status === statusCode.notFound) return undefined
  if (status === statusCode.error)
    throw new UnavailableError('refused', `${what}: the peer answered with an error: ${told(data)}`)
  throw new ProtocolError('bad-message', `${what}: got status ${status}, want 0, 1 or 2`)
}

/** We have what we wanted; a peer that does not end its side must not leave us a stream. */
function seeOut(stream: BufferedStream, host: Host, timeoutMs: number): void {
  const ending = guard(stream, { env: host.env, timeoutMs, what: 'the end of a fetch' }, async () => {
    if ((await stream.read()) !== null) throw new ProtocolError('bad-message', 'more than one fetch response')
  })
  // The guard has reset the stream; there is nobody to tell.
  ending.catch(() => {})
}
