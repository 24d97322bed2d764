/*
 * libp2p websockets 3A r0 (2024-10-23) over RFC 6455: a byte stream in binary messages, whose bounds mean nothing; Noise
 * and yamux lie above it as on TCP. WebSocket has no half close: the end of one direction ends both. On Node by `ws`,
 * loaded when the first address is dialled or listened on; elsewhere by the platform's WebSocket, which only dials.
 * Left out: permessage-deflate (what comes is encrypted), subprotocols, sharing a port with TCP.
 */
import { systemEnv } from '../../env.ts'
import { UnavailableError } from '../../errors.ts'
import type { Transport } from '../transport.ts'
import { target } from './address.ts'
import { defaults, type Settings, type WebSocketCertificate, type WebSocketOptions } from './options.ts'
import { platform } from '#websocket'

export type { WebSocketCertificate, WebSocketOptions, WebSocketTls } from './options.ts'

export interface WebSocketTransport extends Transport {
  /** What listeners on /tls/ws present to connections from now on, as after a renewal. Throws when it is not a pair. */
  setCertificate(certificate: WebSocketCertificate): void
}

/** The WebSocket transport. */
export function websocket(options: WebSocketOptions = {}): WebSocketTransport {
  const all: Settings = {
    env: systemEnv(),
    ...defaults,
    ...platform.defaults,
    ...options,
    tls: { ...options.tls },
    reloads: new Set(),
  }
  for (const name of Object.keys(defaults) as (keyof typeof defaults)[]) {
    if (!(all[name] > 0)) throw new RangeError(`websocket: ${name} is ${all[name]}, want more than 0`)
  }
  const { listen } = platform
  return {
    name: 'websocket',
    canDial: (addr) => target(addr) !== undefined,
    canListen: (addr) => listen !== undefined && typeof target(addr)?.family === 'number',
    async dial(addr, { signal }) {
      const to = target(addr)
      if (to === undefined) throw new UnavailableError('no-transport', `${addr} is not the address of a WebSocket`)
      return platform.dial(to, addr, signal, all)
    },
    async listen(addr, onConnection) {
      const at = target(addr)
      if (listen === undefined || at === undefined || typeof at.family !== 'number') {
        throw new UnavailableError('no-transport', `${addr} is not an address that a WebSocket can listen on`)
      }
      return listen(at, addr, onConnection, all)
    },
    setCertificate(certificate) {
      for (const reload of all.reloads) reload(certificate)
      Object.assign(all.tls, certificate)
    },
  }
}
