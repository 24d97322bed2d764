/* The security protocols that createNode takes on Node when it is told none: Noise is proposed first, both are answered. */
import { createNoise, type NoiseOptions } from './noise/noise.ts'
import type { SecurityProtocol } from './security.ts'
import { createTls } from './tls/tls.ts'

export function defaultSecurity(options: Pick<NoiseOptions, 'privateKey' | 'env' | 'crypto'>): SecurityProtocol[] {
  return [createNoise(options), createTls(options)]
}

/** §Safeguard of pnet: a process that is told so connects to nobody without a pre-shared key. */
export function forcesPrivateNetwork(): boolean {
  return process.env['LIBP2P_FORCE_PNET'] === '1'
}
