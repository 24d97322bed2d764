/* A browser gives no access to TLS below its own transports. */
import { createNoise, type NoiseOptions } from './noise/noise.ts'
import type { SecurityProtocol } from './security.ts'

export function defaultSecurity(options: Pick<NoiseOptions, 'privateKey' | 'env' | 'crypto'>): SecurityProtocol[] {
  return [createNoise(options)]
}

export function forcesPrivateNetwork(): boolean {
  return false
}
