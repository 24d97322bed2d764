/*
 * libp2p noise (3A r5, 2022-12-07), protocol id /noise: Noise_XX_25519_ChaChaPoly_SHA256, identities in the payloads,
 * early muxer negotiation (inlined-muxer-negotiation.md 1A r1).
 * Left out: Noise Pipes, early data, the hybrid post-quantum suite.
 */
import { platformCrypto } from '#crypto'
import { concat, empty } from '../../bytes.ts'
import type { Crypto, X25519KeyPair } from '../../crypto/crypto.ts'
import type { Env } from '../../env.ts'
import { ProtocolError, TimeoutError, asError } from '../../errors.ts'
import { decodePublicKey, type PrivateKey, type PublicKey } from '../../peer/keys.ts'
import { buffered, type BufferedStream, type Stream } from '../../stream.ts'
import { toWire } from '../../wire.ts'
import type { SecureOptions, Secured, SecurityProtocol } from '../security.ts'
import { NoiseWire } from './channel.ts'
import { HandshakeState, XX } from './handshake.ts'
import { decodePayload, encodePayload, pickMuxer, signedText, type Payload } from './payload.ts'

export { handshakeInitiator, handshakeResponder, type NoiseSession, type SessionOptions } from './noise-session.ts'

export interface NoiseOptions {
  /** Our identity: signs the static key. */
  privateKey: PrivateKey
  env: Env
  crypto?: Crypto
  /** Milliseconds from the first byte to the last; default 10,000. */
  handshakeTimeoutMs?: number
  /** Both sides must have the same; libp2p has none, except under WebRTC. */
  prologue?: Uint8Array
  /** The Noise static key; default: one made when first needed and kept, so that it is signed once. */
  staticKey?: X25519KeyPair
}

const defaults = {
  // go-libp2p gives a connection 15 s from accept to muxer, js-libp2p's upgrader 10 s.
  handshakeTimeoutMs: 10_000,
  prologue: empty,
} satisfies Omit<Required<NoiseOptions>, 'privateKey' | 'env' | 'crypto' | 'staticKey'>

/** Bytes of one handshake message: an RSA key of 8192 bits and full extension lists stay below. */
export const handshakeMessageBytes = 16 * 1024

/**
 * Noise XX for a connection's upgrade; makes no key and signs nothing before the first handshake. Throws RangeError on a
 * deadline that makes no sense.
 */
export function createNoise(options: NoiseOptions): SecurityProtocol {
  return new Noise(options)
}

class Noise implements SecurityProtocol {
  readonly id = '/noise'
  readonly eager = true
  readonly #options: NoiseOptions & typeof defaults & { crypto: Crypto }
  #static: X25519KeyPair | undefined
  #signature: Promise<Uint8Array> | undefined

  constructor(options: NoiseOptions) {
    this.#options = { ...defaults, crypto: platformCrypto, ...options }
    const { handshakeTimeoutMs } = this.#options
    if (!(handshakeTimeoutMs > 0)) throw new RangeError(`handshakeTimeoutMs is ${handshakeTimeoutMs}, want more than 0`)
  }

  get #staticKey(): X25519KeyPair {
    this.#static ??= this.#options.staticKey ?? this.#options.crypto.x25519Generate()
    return this.#static
  }

  /** Our payload: the identity's signature over the static key is the same every time. */
  async #payload(streamMuxers: readonly string[]): Promise<Uint8Array> {
    const { privateKey } = this.#options
    const signature = (this.#signature ??= privateKey.sign(signedText(this.#staticKey.publicKey)))
    // A signer that failed once is asked again by the next handshake.
    signature.catch(() => (this.#signature = undefined))
    const identitySig = await signature
    return encodePayload({ identityKey: privateKey.publicKey.encoded, identitySig, streamMuxers: [...streamMuxers] })
  }

  async secure(role: 'initiator' | 'responder', stream: Stream, options: SecureOptions): Promise<Secured> {
    const { env, handshakeTimeoutMs } = this.#options
    const { signal } = options
    let cut: Error | undefined
    const stop = (reason: Error): void => {
      cut ??= reason
      stream.reset(0, reason)
    }
    const onAbort = (): void => stop(asError(signal?.reason))
    const timer = env.clock.setTimer(handshakeTimeoutMs, () =>
      stop(new TimeoutError('the Noise handshake', handshakeTimeoutMs)),
    )
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted === true) onAbort()
    try {
      const secured = await this.#handshake(role, buffered(stream), options, () => {
        if (cut !== undefined) throw cut
      })
      env.trace?.('noise.secured', { role, peer: secured.remotePeer, muxer: secured.muxer })
      return secured
    } catch (error) {
      const reason = cut ?? asError(error)
      stream.reset(reason instanceof ProtocolError ? reason.wireCode : 0, reason)
      env.trace?.('noise.failed', { role, reason })
      throw reason
    } finally {
      timer.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }

  async #handshake(
    role: 'initiator' | 'responder',
    stream: BufferedStream,
    { expectedPeer, muxers, proposal, pace }: SecureOptions,
    check: () => void,
  ): Promise<Secured> {
    check()
    const { crypto, prologue } = this.#options
    const state = new HandshakeState({ crypto, pattern: XX, role, prologue, s: this.#staticKey })

    const identify = async (payload: Payload): Promise<PublicKey> => {
      const key = decodePublicKey(payload.identityKey, crypto)
      // Before the costly check, and before we tell a stranger who we are.
      if (expectedPeer !== undefined && !expectedPeer.equals(key.peerId)) {
        throw new ProtocolError('wrong-peer', `expected peer ${expectedPeer.toString()}, got ${key.peerId.toString()}`)
      }
      const ok = await key.verify(signedText(state.remoteStatic ?? empty), payload.identitySig)
      check()
      if (!ok) throw new ProtocolError('bad-signature', `peer ${key.peerId.toString()} did not sign its static key`)
      return key
    }

    let theirs: Payload
    let remoteKey: PublicKey
    let muxer: string | undefined
    if (role === 'initiator') {
      await send(stream, state.writeMessage(empty), proposal?.bytes)
      const ours = this.#payload(muxers)
      // Awaited below; until then its failure must not count as unhandled.
      ours.catch(() => {})
      const rest = await proposal?.agreed(stream)
      if (rest !== undefined) stream.unread(rest)
      theirs = decodePayload(state.readMessage(await receive(stream)))
      remoteKey = await identify(theirs)
      muxer = pickMuxer(muxers, theirs.streamMuxers)
      const payload = await ours
      check()
      await send(stream, state.writeMessage(payload))
    } else {
      const hello = await receive(stream)
      await pace?.()
      check()
      state.readMessage(hello)
      const payload = await this.#payload(muxers)
      check()
      await send(stream, state.writeMessage(payload))
      const proof = await receive(stream)
      await pace?.()
      check()
      theirs = decodePayload(state.readMessage(proof))
      remoteKey = await identify(theirs)
      muxer = pickMuxer(theirs.streamMuxers, muxers)
    }
    check()
    const wire = new NoiseWire(toWire(stream), state.split())
    return { wire, remotePeer: remoteKey.peerId, remoteKey, muxer }
  }
}

/** §Wire Format: u16 big-endian length, then the message. */
function send(stream: Stream, message: Uint8Array, before = empty): Promise<void> {
  return stream.write(concat([before, Uint8Array.of(message.length >> 8, message.length), message]))
}

async function receive(stream: BufferedStream): Promise<Uint8Array> {
  const [high, low] = (await stream.readExact(2)) as unknown as [number, number]
  const size = high * 256 + low
  if (size > handshakeMessageBytes) {
    throw new ProtocolError('oversized', `handshake message of ${size} bytes, at most ${handshakeMessageBytes} allowed`)
  }
  return stream.readExact(size)
}
