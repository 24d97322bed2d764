/*
 * What a failure of TLS means: OpenSSL's error codes and the peer's alerts (RFC 8446 §6) as errors of this package; and
 * the ALPN ids (tls 3A r0 §ALPN, inlined-muxer-negotiation.md 1A r1 §TLS).
 */
import { ClosedError, ProtocolError, type ErrorCode } from '../../errors.ts'
import { errno } from '../../socket-wire.ts'

/** Bytes of an ALPN id (RFC 7301 §3.1). */
const alpnIdBytes = 255

/** Muxers, best first, then the id that stands for "negotiate it afterwards". */
export function alpnOf(muxers: readonly string[]): string[] {
  return [...muxers.filter((id) => id.length > 0 && id.length <= alpnIdBytes), 'libp2p']
}

export function noMuxer(why: string): ProtocolError {
  return new ProtocolError('bad-negotiation', `no common muxer: ${why}`)
}

/** What peers say when they do not like our certificate; certificate_required too, as it may be of the wrong kind. */
const refusals =
  /^(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR|NO_CERTIFICATE)$/

/** OpenSSL's own complaints about the peer, where they are more than a broken handshake. */
const complaints: Readonly<Record<string, [code: ErrorCode, text: string]>> = {
  ERR_SSL_EXCESSIVE_MESSAGE_SIZE: ['oversized', 'the peer’s certificate is too large'],
  ERR_SSL_NO_APPLICATION_PROTOCOL: ['bad-negotiation', 'no common muxer: the client offers none that we have'],
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: ['bad-handshake', 'the peer sent no certificate'],
  ERR_SSL_UNSUPPORTED_PROTOCOL: ['bad-handshake', 'the peer does not speak TLS 1.3'],
  ERR_SSL_WRONG_VERSION_NUMBER: ['bad-handshake', 'the peer does not speak TLS'],
  ERR_SSL_BAD_RECORD_TYPE: ['bad-handshake', 'the peer does not speak TLS'],
  ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC: ['decrypt-failed', 'a record does not decrypt'],
}

export interface Stage {
  /** The peer's identity is not verified yet. */
  handshaking: boolean
  /** Nothing has shown yet that the peer accepts our certificate. */
  unproven: boolean
}

/** `error`, from a TLSSocket or what lies below it, as one that says who must act. */
export function explainTls(error: Error, { handshaking, unproven }: Stage): Error {
  if (error instanceof ProtocolError || error instanceof ClosedError) return error
  const code = errno(error)
  const text = 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message
  const alert = /^ERR_SSL_(?:SSLV3|TLSV1|TLSV13|SSL\/TLS|TLS)_ALERT_(.+)$/.exec(code)?.[1]
  if (alert !== undefined) {
    const name = alert.toLowerCase()
    if (alert === 'NO_APPLICATION_PROTOCOL') return noMuxer('the server has none that we offer')
    if (refusals.test(alert) && unproven) {
      const info = { by: 'remote', code: 0, reason: error } as const
      return new ClosedError(`the peer refused our certificate with alert ${name}`, info, 'refused')
    }
    return new ProtocolError('bad-handshake', `the peer ended TLS with alert ${name}`, { cause: error })
  }
  const complaint = complaints[code]
  if (complaint !== undefined) return new ProtocolError(complaint[0], `TLS: ${complaint[1]}`, { cause: error })
  if (code.startsWith('ERR_SSL_')) {
    return new ProtocolError(handshaking ? 'bad-handshake' : 'bad-frame', `TLS: ${text}`, { cause: error })
  }
  const by = code === 'ECONNRESET' || code === 'EPIPE' ? 'remote' : 'transport'
  const what = handshaking
    ? 'connection lost within the TLS handshake'
    : unproven
      ? 'connection lost before the peer sent anything: it may have refused our certificate'
      : 'connection lost'
  return new ClosedError(what, { by, code: 0, reason: error }, 'reset')
}
