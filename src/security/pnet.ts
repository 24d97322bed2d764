/*
 * libp2p pnet (Private-Networks-PSK-V1, 3A r0, 2017-02-17): the pre-shared key file, and the XSalsa20 stream that goes
 * around a raw connection before anything else. It authenticates nothing: Noise or TLS inside it do.
 */
import { byteLength, concat, equals, fromHex, fromUtf8, toHex, toUtf8 } from '../bytes.ts'
import { XSalsa20, nonceBytes } from '../crypto/xsalsa20.ts'
import { systemEnv, type Env } from '../env.ts'
import { ClosedError, ProtocolError, type CloseInfo } from '../errors.ts'
import { decodeMultibase } from '../multibase.ts'
import { release } from '../release.ts'
import type { Stream } from '../stream.ts'
import { WireStream, toWire, type Wire, type WireSink } from '../wire.ts'

/** What goes around every raw connection before it is secured. */
export interface Protector {
  /** The stream to talk over instead of `stream`, which belongs to it from now on. */
  protect(stream: Stream): Stream
}

export interface PnetOptions {
  /** Where nonces come from; default the system's. */
  env?: Env
}

/** §Interface: exactly 256 bits. */
export const preSharedKeyBytes = 32
const codec = '/key/swarm/psk/1.0.0/'

/**
 * The key in a swarm.key file: `/key/swarm/psk/1.0.0/`, a line with `/base16/`, `/base64/` or `/bin/`, then the key.
 * Throws ProtocolError `bad-key`.
 */
export function decodePreSharedKey(file: Uint8Array | string): Uint8Array {
  const bytes = typeof file === 'string' ? fromUtf8(file) : file
  if (bytes.length > 1024) throw new ProtocolError('bad-key', `pre-shared key file of ${bytes.length} bytes`)
  const [name, first] = line(bytes, 0)
  const [base, second] = line(bytes, first)
  if (name !== codec) throw new ProtocolError('bad-key', `pre-shared key file does not begin with ${codec}`)
  const key = decodeBase(base, bytes.subarray(second))
  if (key?.length === preSharedKeyBytes) return key
  const got = key === undefined ? 'text that is none' : `${key.length} bytes`
  throw new ProtocolError(
    'bad-key',
    `pre-shared key in ${base.slice(0, 20)}: got ${got}, want ${preSharedKeyBytes} bytes`,
  )
}

/** A line of text, and where the next one begins. */
function line(bytes: Uint8Array, from: number): [text: string, next: number] {
  const end = bytes.indexOf(10, from)
  if (end < 0) throw new ProtocolError('bad-key', 'pre-shared key file has fewer than three lines')
  return [toUtf8(bytes.subarray(from, end)).trimEnd(), end + 1]
}

function decodeBase(base: string, rest: Uint8Array): Uint8Array | undefined {
  if (base === '/bin/') return rest.slice()
  if (base !== '/base16/' && base !== '/base64/') {
    throw new ProtocolError('bad-key', `pre-shared key is in ${base.slice(0, 20)}, want /base16/, /base64/ or /bin/`)
  }
  try {
    const text = toUtf8(rest).trim()
    return base === '/base16/' ? fromHex(text) : decodeMultibase(`m${text.replace(/=+$/, '')}`, 100).bytes
  } catch {
    return undefined
  }
}

/** The file, as every other libp2p reads it. */
export function encodePreSharedKey(key: Uint8Array): string {
  if (key.length !== preSharedKeyBytes) throw new RangeError(`pre-shared key of ${key.length} bytes, want 32`)
  return `${codec}\n/base16/\n${toHex(key)}\n`
}

/** 32 bytes that nobody can guess. */
export function generatePreSharedKey(env: Env = systemEnv()): Uint8Array {
  return env.random.bytes(preSharedKeyBytes)
}

/** A file begins with a slash; whatever else is not as long as a key was meant to be one. */
function keyOf(psk: Uint8Array | string): Uint8Array {
  if (typeof psk !== 'string' && psk.length === preSharedKeyBytes) return psk.slice()
  if (typeof psk === 'string' || psk[0] === 0x2f) return decodePreSharedKey(psk)
  throw new ProtocolError('bad-key', `pre-shared key of ${psk.length} bytes, want ${preSharedKeyBytes} or its file`)
}

/** A private network's protector, from the key or from its file. Throws ProtocolError `bad-key`. */
export function pnet(psk: Uint8Array | string, { env = systemEnv() }: PnetOptions = {}): Protector {
  const key = keyOf(psk)
  return { protect: (stream) => new WireStream(new PnetWire(toWire(stream), key, env.random.bytes(nonceBytes))) }
}

/** What every libp2p says first under the key, whoever dialled: it shows that both have the same. */
const opening = fromUtf8('\x13/multistream/1.0.0\n')

/** Plaintext above, XSalsa20 below. */
export class PnetWire implements Wire {
  readonly #lower: Wire
  readonly #key: Uint8Array
  readonly #send: XSalsa20
  #receive: XSalsa20 | undefined
  #nonce: Uint8Array = new Uint8Array(0)
  /** How much of the opening has come. */
  #opened = 0
  #sink: WireSink | undefined
  #over = false

  constructor(lower: Wire, key: Uint8Array, nonce: Uint8Array) {
    this.#lower = lower
    this.#key = key
    this.#send = new XSalsa20(key, nonce)
    // At once, as js-libp2p says nothing before it has it.
    lower.put([nonce])
  }

  get closed(): Promise<CloseInfo> {
    return this.#lower.closed
  }

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
    let rest = bytes
    if (this.#receive === undefined) {
      const missing = nonceBytes - this.#nonce.length
      this.#nonce = concat([this.#nonce, bytes.slice(0, missing)])
      if (this.#nonce.length < nonceBytes) return true
      if (equals(this.#nonce.subarray(0, opening.length), opening)) {
        return this.#fail('the peer uses no pre-shared key: it is not in a private network')
      }
      this.#receive = new XSalsa20(this.#key, this.#nonce)
      rest = bytes.subarray(missing)
    }
    if (rest.length === 0) return true
    const plaintext = this.#receive.xor([rest], rest.length)
    release(bytes)
    if (this.#opened < opening.length && !this.#checkOpening(plaintext)) {
      return this.#fail('the peer has another pre-shared key: compare the two swarm.key files')
    }
    return sink.data(plaintext)
  }

  #checkOpening(plaintext: Uint8Array): boolean {
    const wanted = opening.subarray(this.#opened, this.#opened + plaintext.length)
    this.#opened += wanted.length
    return equals(plaintext.subarray(0, wanted.length), wanted)
  }

  #fail(message: string): false {
    const error = new ProtocolError('decrypt-failed', message)
    this.#over = true
    this.#lower.abort(error)
    this.#sink?.end(error)
    return false
  }

  #end(reason: Error | undefined): void {
    if (this.#over) return
    if (this.#opened === opening.length && reason === undefined) {
      this.#sink?.end()
      return
    }
    this.#over = true
    if (this.#opened === opening.length) {
      this.#sink?.end(reason)
      return
    }
    // The other side sees a wrong key first when we dial, and tells us nothing but this.
    const cause = reason ?? new Error('the stream ended')
    const info: CloseInfo = reason instanceof ClosedError ? reason.info : { by: 'remote', code: 0, reason: cause }
    this.#lower.abort(cause)
    this.#sink?.end(new ClosedError('closed before the peer said anything; it may have another pre-shared key', info))
  }

  put(chunks: Uint8Array[], forgotten = false): boolean {
    if (this.#over) return false
    const size = byteLength(chunks)
    if (size === 0) return this.room > 0
    const sealed = this.#send.xor(chunks, size)
    if (forgotten) for (const chunk of chunks) release(chunk)
    return this.#lower.put([sealed], true)
  }

  pause(): void {
    this.#lower.pause()
  }

  resume(): void {
    this.#lower.resume()
  }

  closeWrite(): Promise<void> {
    return this.#lower.closeWrite()
  }

  abort(reason?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#lower.abort(reason)
  }
}
