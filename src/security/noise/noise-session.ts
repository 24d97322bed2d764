/*
 * Noise for your own protocols: XX with libp2p's framing (noise/README.md 3A r5 §Wire Format) over any Stream, then
 * encrypt and decrypt on what you like. Identities and pinned static keys are both optional.
 * Left out: other patterns, streams of records (that is createNoise).
 */
import { platformCrypto } from '#crypto'
import { concat, empty, equals, toHex } from '../../bytes.ts'
import type { Crypto, X25519KeyPair } from '../../crypto/crypto.ts'
import { guard } from '../../deadline.ts'
import { systemEnv, type Env } from '../../env.ts'
import { ProtocolError } from '../../errors.ts'
import type { PeerId } from '../../peer/id.ts'
import { decodePublicKey, type PrivateKey, type PublicKey } from '../../peer/keys.ts'
import { buffered, type BufferedStream, type Stream } from '../../stream.ts'
import { HandshakeState, XX, maxMessageBytes } from './handshake.ts'
import { decodePayload, encodePayload, signedText } from './payload.ts'
import type { CipherState } from './symmetric.ts'

export interface SessionOptions {
  /** Our identity; default: none is shown, the static key is all the peer learns. */
  privateKey?: PrivateKey
  /** Our static key, or its 32-byte private half; default: a new one. */
  staticKey?: X25519KeyPair | Uint8Array
  /** The only static key (32 bytes) that we talk to; anybody else is ProtocolError `wrong-peer`. */
  remoteStaticKey?: Uint8Array
  /** The only identity that we talk to, likewise. */
  expectedPeer?: PeerId
  /** Both sides must have the same; default empty, as libp2p. */
  prologue?: Uint8Array
  /** Milliseconds for the handshake; default 10,000. */
  timeoutMs?: number
  /** Abort resets the stream and rejects with signal.reason. */
  signal?: AbortSignal
  crypto?: Crypto
  env?: Env
}

/** Plaintext of one message: a Noise message has at most 65,535 bytes, 16 of them its tag. */
export const maxPlaintextBytes = maxMessageBytes - 16

export interface NoiseSession {
  /** The peer's static key, 32 bytes. */
  readonly remoteStaticKey: Uint8Array
  /** Who the peer proved to be; undefined where it showed no identity. */
  readonly remotePeer: PeerId | undefined
  readonly remoteKey: PublicKey | undefined
  /** 32 bytes that name this session, the same on both sides: for channel binding. */
  readonly handshakeHash: Uint8Array
  /** The stream behind the handshake, with nothing lost; where encrypted messages go, framed as you like. */
  readonly stream: BufferedStream
  /** One message: 16 bytes longer. RangeError above maxPlaintextBytes. */
  encrypt(plaintext: Uint8Array): Uint8Array
  /**
   * The peer's next message. Messages are opened in the order in which they were encrypted, each once: what was changed,
   * cut, left out or comes again is ProtocolError `decrypt-failed`, after which the right one still opens.
   */
  decrypt(ciphertext: Uint8Array): Uint8Array
}

/** Speaks first. Rejects with ProtocolError, TimeoutError, ClosedError or signal.reason; the stream is then reset. */
export function handshakeInitiator(stream: Stream, options: SessionOptions = {}): Promise<NoiseSession> {
  return handshake('initiator', stream, options)
}

/** Answers. */
export function handshakeResponder(stream: Stream, options: SessionOptions = {}): Promise<NoiseSession> {
  return handshake('responder', stream, options)
}

const keyBytes = 32
/** As of createNoise: an RSA key of 8192 bits stays below. */
const handshakeBytes = 16 * 1024

function keyPair(crypto: Crypto, key: SessionOptions['staticKey']): X25519KeyPair {
  if (key === undefined) return crypto.x25519Generate()
  if (!(key instanceof Uint8Array)) return key
  if (key.length !== keyBytes) throw new RangeError(`staticKey has ${key.length} bytes, want ${keyBytes}`)
  return crypto.x25519From(key)
}

async function handshake(role: 'initiator' | 'responder', raw: Stream, options: SessionOptions): Promise<NoiseSession> {
  const { crypto = platformCrypto, env = systemEnv(), timeoutMs = 10_000, privateKey, prologue = empty } = options
  const { remoteStaticKey: pinned, expectedPeer, signal } = options
  if (pinned !== undefined && pinned.length !== keyBytes) {
    throw new RangeError(`remoteStaticKey has ${pinned.length} bytes, want ${keyBytes}`)
  }
  if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs is ${timeoutMs}, want more than 0`)
  const s = keyPair(crypto, options.staticKey)
  const stream = buffered(raw)
  const state = new HandshakeState({ crypto, pattern: XX, role, prologue, s })

  const payload = async (): Promise<Uint8Array> =>
    privateKey === undefined
      ? empty
      : encodePayload({
          identityKey: privateKey.publicKey.encoded,
          identitySig: await privateKey.sign(signedText(s.publicKey)),
        })

  const identify = async (said: Uint8Array): Promise<PublicKey | undefined> => {
    const remote = state.remoteStatic ?? empty
    if (pinned !== undefined && !equals(pinned, remote)) {
      throw new ProtocolError('wrong-peer', `expected static key ${toHex(pinned)}, got ${toHex(remote)}`)
    }
    if (said.length === 0) {
      if (expectedPeer === undefined) return undefined
      throw new ProtocolError('wrong-peer', `expected peer ${expectedPeer.toString()}, got one without identity`)
    }
    const { identityKey, identitySig } = decodePayload(said)
    const key = decodePublicKey(identityKey, crypto)
    if (expectedPeer !== undefined && !expectedPeer.equals(key.peerId)) {
      throw new ProtocolError('wrong-peer', `expected peer ${expectedPeer.toString()}, got ${key.peerId.toString()}`)
    }
    if (await key.verify(signedText(remote), identitySig)) return key
    throw new ProtocolError('bad-signature', `peer ${key.peerId.toString()} did not sign its static key`)
  }

  return guard(stream, { env, timeoutMs, what: 'the Noise handshake', signal }, async () => {
    let remoteKey: PublicKey | undefined
    if (role === 'initiator') {
      await send(stream, state.writeMessage(empty))
      // The peer is checked before we show who we are.
      remoteKey = await identify(state.readMessage(await receive(stream)))
      await send(stream, state.writeMessage(await payload()))
    } else {
      state.readMessage(await receive(stream))
      await send(stream, state.writeMessage(await payload()))
      remoteKey = await identify(state.readMessage(await receive(stream)))
    }
    return new Session(stream, state, remoteKey)
  })
}

class Session implements NoiseSession {
  readonly stream: BufferedStream
  readonly remoteStaticKey: Uint8Array
  readonly remoteKey: PublicKey | undefined
  readonly handshakeHash: Uint8Array
  readonly #send: CipherState
  readonly #receive: CipherState

  constructor(stream: BufferedStream, state: HandshakeState, remoteKey: PublicKey | undefined) {
    this.stream = stream
    this.remoteStaticKey = state.remoteStatic ?? empty
    this.remoteKey = remoteKey
    this.handshakeHash = state.handshakeHash
    const { send, receive } = state.split()
    this.#send = send
    this.#receive = receive
  }

  get remotePeer(): PeerId | undefined {
    return this.remoteKey?.peerId
  }

  encrypt(plaintext: Uint8Array): Uint8Array {
    if (plaintext.length > maxPlaintextBytes) {
      throw new RangeError(`plaintext of ${plaintext.length} bytes, at most ${maxPlaintextBytes} in a message`)
    }
    return this.#send.seal(empty, [plaintext], plaintext.length)
  }

  decrypt(ciphertext: Uint8Array): Uint8Array {
    if (ciphertext.length < 16 || ciphertext.length > maxMessageBytes) {
      throw new ProtocolError('decrypt-failed', `message of ${ciphertext.length} bytes, want 16 to ${maxMessageBytes}`)
    }
    return this.#receive.open(empty, ciphertext)
  }
}

function send(stream: Stream, message: Uint8Array): Promise<void> {
  return stream.write(concat([Uint8Array.of(message.length >> 8, message.length), message]))
}

async function receive(stream: BufferedStream): Promise<Uint8Array> {
  const [high = 0, low = 0] = await stream.readExact(2)
  const size = high * 256 + low
  if (size > handshakeBytes) throw new ProtocolError('oversized', `handshake message of ${size} bytes`)
  return stream.readExact(size)
}
