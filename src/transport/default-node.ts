/* The transports that createNode takes on Node when it is told none. */
import { tcp } from './tcp.ts'
import type { Transport } from './transport.ts'
import { websocket } from './websocket/websocket.ts'

export function defaultTransports(): Transport[] {
  return [tcp(), websocket()]
}
