/* What a node can do, by name, so that a program can ask before it tries. */

/**
 * Transports (`tcp`), security and muxers (`/noise`), the crypto backend in use (`crypto:native`), optional packages
 * (`node-datachannel`), each present or not.
 */
export type Capabilities = Readonly<Record<string, boolean>>

const optionalPackages = ['node-datachannel']
const transports = ['tcp', 'memory', 'websocket', 'quic', 'webtransport', 'webrtc']
const upgrades = ['/noise', '/tls/1.0.0', '/yamux/1.0.0']
const backends = ['crypto:native', 'crypto:portable', 'crypto:noble']

/** Looks for the package without loading it. */
function isInstalled(name: string): boolean {
  try {
    import.meta.resolve(name)
    return true
  } catch {
    // Not there, or a platform that does not resolve names at all.
    return false
  }
}

/** `parts` are the names of what a node was made of; the known ones that are missing are told as absent. */
export function capabilitiesOf(parts: readonly string[]): Capabilities {
  const have = new Set([...parts, ...optionalPackages.filter(isInstalled)])
  const known = [...transports, ...upgrades, ...backends, ...optionalPackages]
  return Object.fromEntries([...known, ...have].map((name) => [name, have.has(name)]))
}
