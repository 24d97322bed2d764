/* WebSocket on Node. `ws`, node:http and node:tls take their time to load: a node that never meets one does without. */
import type { Platform } from './options.ts'

export const platform: Platform = {
  dial: async (...args) => (await import('./node-dial.ts')).dial(...args),
  listen: async (...args) => (await import('./node-listen.ts')).listen(...args),
  defaults: {},
}
