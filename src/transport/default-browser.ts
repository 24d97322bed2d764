/* A browser has no transport that listens; it dials by WebSocket. */
import type { Transport } from './transport.ts'
import { websocket } from './websocket/websocket.ts'

export function defaultTransports(): Transport[] {
  return [websocket()]
}
