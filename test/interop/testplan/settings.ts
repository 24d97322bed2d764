/* The environment of libp2p/unified-testing's transport and perf suites, checked once. */

export type Transport = 'tcp' | 'ws'
export type SecureChannel = 'noise' | 'tls'

export interface PerfSettings {
  uploadBytes: number
  downloadBytes: number
  uploadIterations: number
  downloadIterations: number
  latencyIterations: number
}

export interface Settings {
  debug: boolean
  dialer: boolean
  redis: { host: string; port: number }
  /** In Redis. */
  key: string
  transport: Transport
  secureChannel: SecureChannel
  muxer: 'yamux'
  /** Listener only. */
  listenerIp: string
  /** The listener's: a string (SET), as the suites' documents have it, or a list (RPUSH), as transport images do it. */
  publishAs: 'string' | 'list'
  /** Dialer only; set where the perf suite is run. */
  perf: PerfSettings | undefined
  /** For Redis, the listener's address and each step of the test. */
  timeoutMs: number
}

type Environment = Readonly<Record<string, string | undefined>>

function one<const T extends string>(env: Environment, name: string, known: readonly T[], otherwise?: T): T {
  const value = env[name] ?? otherwise
  const found = known.find((k) => k === value)
  if (found === undefined) throw new TypeError(`${name} is ${JSON.stringify(value)}, want ${known.join(' or ')}`)
  return found
}

function text(env: Environment, name: string): string {
  const value = env[name] ?? ''
  if (value === '') throw new TypeError(`${name} is not set`)
  return value
}

/** The suites write `null` for what is not given. */
function count(env: Environment, name: string, otherwise: number, least = 1): number {
  const value = env[name]
  if (value === undefined || value === '' || value === 'null') return otherwise
  const number = Number(value)
  if (Number.isSafeInteger(number) && number >= least) return number
  throw new TypeError(`${name} is ${JSON.stringify(value)}, want a whole number of at least ${least}`)
}

function redisOf(addr: string): { host: string; port: number } {
  const at = addr.lastIndexOf(':')
  const [host, port] = at < 0 ? [addr, 6379] : [addr.slice(0, at), Number(addr.slice(at + 1))]
  if (host === '' || !Number.isInteger(port) || port < 1 || port > 65_535)
    throw new TypeError(`REDIS_ADDR is ${JSON.stringify(addr)}, want HOST:PORT`)
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port }
}

/** Throws TypeError on what the suites do not send and on what this program can't do. */
export function settingsOf(env: Environment): Settings {
  const isPerf = env['UPLOAD_BYTES'] !== undefined || env['DOWNLOAD_BYTES'] !== undefined
  const perf: PerfSettings = {
    uploadBytes: count(env, 'UPLOAD_BYTES', 2 ** 30, 0),
    downloadBytes: count(env, 'DOWNLOAD_BYTES', 2 ** 30, 0),
    uploadIterations: count(env, 'UPLOAD_ITERATIONS', 10),
    downloadIterations: count(env, 'DOWNLOAD_ITERATIONS', 10),
    latencyIterations: count(env, 'LATENCY_ITERATIONS', 100),
  }
  return {
    debug: one(env, 'DEBUG', ['true', 'false'], 'false') === 'true',
    dialer: one(env, 'IS_DIALER', ['true', 'false']) === 'true',
    redis: redisOf(text(env, 'REDIS_ADDR')),
    key: `${text(env, 'TEST_KEY')}_listener_multiaddr`,
    transport: one(env, 'TRANSPORT', ['tcp', 'ws']),
    secureChannel: one(env, 'SECURE_CHANNEL', ['noise', 'tls']),
    muxer: one(env, 'MUXER', ['yamux']),
    listenerIp: env['LISTENER_IP'] ?? '0.0.0.0',
    publishAs: one(env, 'PUBLISH_AS', ['string', 'list'], 'string'),
    perf: isPerf ? perf : undefined,
    timeoutMs: count(env, 'TEST_TIMEOUT_SECS', 180) * 1_000,
  }
}
