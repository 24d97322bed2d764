/* How fast one host may open connections: a burst of ten seconds' worth, then its rate (as go-libp2p limits subnets). */
import { LimitError } from '../errors.ts'
import { isGlobal, parseIp } from '../ip.ts'
import { TokenBucket } from '../token-bucket.ts'

export interface HostRateOptions {
  maxInboundPerSecondPerHost: number
  maxInboundPerSecondPerLocalHost: number
}

const burstSeconds = 10
/** The one that came longest ago is forgotten for one more. */
const maxHosts = 4096

export class HostRate {
  readonly #options: HostRateOptions
  /** By host, that which came last at the end. */
  readonly #buckets = new Map<string, TokenBucket>()

  constructor(options: HostRateOptions) {
    this.#options = options
  }

  /** Hosts that are remembered. */
  get size(): number {
    return this.#buckets.size
  }

  /** Counts one more connection of `host` (hostOf), or says why it may not be. */
  refusal(host: string, now: number): LimitError | undefined {
    const ip = parseIp(host)
    // Behind a proxy or a NAT of our own many peers have one address.
    const limit = ip !== undefined && isGlobal(ip) ? 'maxInboundPerSecondPerHost' : 'maxInboundPerSecondPerLocalHost'
    const perSecond = this.#options[limit]
    if (perSecond === Infinity) return undefined
    const bucket = this.#buckets.get(host) ?? new TokenBucket(perSecond * burstSeconds, perSecond, now)
    this.#buckets.delete(host)
    this.#buckets.set(host, bucket)
    const [first] = this.#buckets.keys()
    if (this.#buckets.size > maxHosts && first !== undefined) this.#buckets.delete(first)
    if (bucket.take(1, now)) return undefined
    const text = `${host} opens more than ${perSecond} connections a second; raise the option ${limit} to allow more`
    return new LimitError(limit, perSecond, perSecond + 1, text)
  }
}
