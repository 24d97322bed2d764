/*
 * Noise protocol framework rev 34, §5.3 HandshakeState: patterns as data, one loop that walks their tokens.
 * Suite 25519_ChaChaPoly_SHA256. libp2p uses XX; the tests run the other patterns, with and without psk (§9).
 * Left out: fallback and compound protocols (§10).
 */
import { byteLength, concat, empty } from '../../bytes.ts'
import type { Crypto, X25519KeyPair } from '../../crypto/crypto.ts'
import { ProtocolError } from '../../errors.ts'
import { SymmetricState, type CipherState } from './symmetric.ts'

export type Token = 'e' | 's' | 'ee' | 'es' | 'se' | 'ss' | 'psk'

export interface Pattern {
  /** As in the protocol name: `XX`, `NNpsk0`. */
  readonly name: string
  /** Whose static key the other side knows beforehand (§7.1). */
  readonly known?: readonly ('initiator' | 'responder')[]
  /** The initiator sends the first message, then they take turns. */
  readonly messages: readonly (readonly Token[])[]
}

/** §7.5 */
export const XX: Pattern = { name: 'XX', messages: [['e'], ['e', 'ee', 's', 'es'], ['s', 'se']] }

/** §3: bytes of one Noise message, tag and all. */
export const maxMessageBytes = 65_535
const keyBytes = 32
const tagBytes = 16

export interface HandshakeOptions {
  crypto: Crypto
  pattern: Pattern
  role: 'initiator' | 'responder'
  prologue?: Uint8Array
  /** Our static key pair, where the pattern has one. */
  s?: X25519KeyPair
  /** Our ephemeral key pair: for vectors only; otherwise a new one is made. */
  e?: X25519KeyPair
  /** The peer's static key, where the pattern knows it beforehand. */
  rs?: Uint8Array
  /** 32 bytes each, one per psk token. */
  psks?: readonly Uint8Array[]
}

interface Keys {
  s: X25519KeyPair | undefined
  e: X25519KeyPair | undefined
  rs: Uint8Array | undefined
  re: Uint8Array | undefined
}

function must<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new TypeError(`the handshake needs ${what}`)
  return value
}

export class HandshakeState {
  readonly #options: HandshakeOptions
  #symmetric: SymmetricState
  #keys: Keys
  #step = 0
  #psk = 0

  constructor(options: HandshakeOptions) {
    const { crypto, pattern, role, prologue = empty, s, rs } = options
    this.#options = options
    this.#keys = { s, e: undefined, rs, re: undefined }
    const symmetric = SymmetricState.initialize(crypto, `Noise_${pattern.name}_25519_ChaChaPoly_SHA256`)
    symmetric.mixHash(prologue)
    for (const side of ['initiator', 'responder'] as const) {
      if (pattern.known?.includes(side) !== true) continue
      symmetric.mixHash(side === role ? must(s, 'our static key').publicKey : must(rs, "the peer's static key"))
    }
    this.#symmetric = symmetric
  }

  /** True once every message was written or read. */
  get done(): boolean {
    return this.#step === this.#options.pattern.messages.length
  }

  get #ours(): boolean {
    return (this.#step % 2 === 0) === (this.#options.role === 'initiator')
  }

  /** 32 bytes, once it came. It is authentic when the message that brought it, or a later one, was read. */
  get remoteStatic(): Uint8Array | undefined {
    return this.#keys.rs
  }

  /** §11.2: names this handshake and all that was said in it; for channel binding, once done. */
  get handshakeHash(): Uint8Array {
    return this.#symmetric.handshakeHash
  }

  #tokens(ours: boolean): readonly Token[] {
    const tokens = this.#options.pattern.messages[this.#step]
    if (tokens === undefined || this.#ours !== ours) throw new TypeError('not this side’s turn in the handshake')
    return tokens
  }

  #dh(symmetric: SymmetricState, keys: Keys, token: 'ee' | 'es' | 'se' | 'ss'): void {
    // The first letter is the initiator's key, the second the responder's.
    const [first, second] = this.#options.role === 'initiator' ? [token[0], token[1]] : [token[1], token[0]]
    const own = must(first === 'e' ? keys.e : keys.s, `our key for ${token}`)
    symmetric.mixKey(own.dh(must(second === 'e' ? keys.re : keys.rs, `the peer's key for ${token}`)))
  }

  /** Keys, and where the next psk is taken from; they take the place of ours once all has gone well. */
  #commit(symmetric: SymmetricState, keys: Keys, psk: number): void {
    this.#symmetric = symmetric
    this.#keys = keys
    this.#psk = psk
    this.#step++
  }

  #mixPsk(symmetric: SymmetricState, psk: number): void {
    symmetric.mixKeyAndHash(must(this.#options.psks?.[psk], 'a pre-shared key'))
  }

  get #hasPsk(): boolean {
    return this.#options.pattern.messages.some((tokens) => tokens.includes('psk'))
  }

  /** The next message with `payload` in it, sealed once there is a key. TypeError when it is the peer's turn. */
  writeMessage(payload: Uint8Array): Uint8Array {
    const tokens = this.#tokens(true)
    const symmetric = this.#symmetric.clone()
    const keys = { ...this.#keys }
    const parts: Uint8Array[] = []
    let psk = this.#psk
    for (const token of tokens) {
      if (token === 'e') {
        keys.e = this.#options.e ?? this.#options.crypto.x25519Generate()
        parts.push(keys.e.publicKey)
        symmetric.mixHash(keys.e.publicKey)
        // §9.2: with a psk the ephemeral key is mixed in too, as the psk may be used again.
        if (this.#hasPsk) symmetric.mixKey(keys.e.publicKey)
      } else if (token === 's') {
        parts.push(symmetric.encryptAndHash(must(keys.s, 'our static key').publicKey))
      } else if (token === 'psk') {
        this.#mixPsk(symmetric, psk++)
      } else {
        this.#dh(symmetric, keys, token)
      }
    }
    parts.push(symmetric.encryptAndHash(payload))
    if (byteLength(parts) > maxMessageBytes) {
      throw new RangeError(`handshake message of ${byteLength(parts)} bytes, at most ${maxMessageBytes} allowed`)
    }
    this.#commit(symmetric, keys, psk)
    return concat(parts)
  }

  /**
   * The payload of the peer's next message. Throws ProtocolError `bad-handshake` or `decrypt-failed`; nothing of this
   * state has changed then, neither nonce nor hash nor keys.
   */
  readMessage(message: Uint8Array): Uint8Array {
    const tokens = this.#tokens(false)
    const symmetric = this.#symmetric.clone()
    const keys = { ...this.#keys }
    let at = 0
    let psk = this.#psk
    const take = (size: number): Uint8Array => {
      if (size > message.length - at) {
        throw new ProtocolError('bad-handshake', `handshake message of ${message.length} bytes is too short`)
      }
      at += size
      return message.subarray(at - size, at)
    }
    if (message.length > maxMessageBytes) {
      throw new ProtocolError('bad-handshake', `handshake message of ${message.length} bytes is too long`)
    }
    for (const token of tokens) {
      if (token === 'e') {
        keys.re = take(keyBytes).slice()
        symmetric.mixHash(keys.re)
        if (this.#hasPsk) symmetric.mixKey(keys.re)
      } else if (token === 's') {
        keys.rs = symmetric.decryptAndHash(take(symmetric.hasKey ? keyBytes + tagBytes : keyBytes)).slice()
      } else if (token === 'psk') {
        this.#mixPsk(symmetric, psk++)
      } else {
        this.#dh(symmetric, keys, token)
      }
    }
    const payload = symmetric.decryptAndHash(take(message.length - at))
    this.#commit(symmetric, keys, psk)
    return payload
  }

  /** §5.3, once done: the ciphers for what follows. */
  split(): { send: CipherState; receive: CipherState } {
    if (!this.done) throw new TypeError('the handshake is not done')
    const [first, second] = this.#symmetric.split()
    return this.#options.role === 'initiator' ? { send: first, receive: second } : { send: second, receive: first }
  }
}
