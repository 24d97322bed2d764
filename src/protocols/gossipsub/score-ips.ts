/*
 * gossipsub v1.1 (r8) §P₆: how many peers share an IP address. An IPv6 address counts for its /64, too, and loopback
 * for nothing (both as in go); what is on the allow list for nothing, in its /64 neither.
 */
import { formatIp, isLoopback, mappedIp4, parseIp, samePrefix } from '../../ip.ts'
import type { IpBlock } from './score-params.ts'

/** The peers of one address, or of one /64. */
export interface IpGroup {
  readonly text: string
  peers: number
}

export class IpGroups {
  readonly #allow: readonly IpBlock[]
  readonly #groups = new Map<string, IpGroup>()

  constructor(allow: readonly IpBlock[]) {
    this.#allow = allow
  }

  get size(): number {
    return this.#groups.size
  }

  /** A peer goes from the groups it was in to those of `ips`. Throws TypeError for text that is no IP address. */
  move(from: readonly IpGroup[], ips: readonly string[]): IpGroup[] {
    const texts = new Set(ips.flatMap((ip) => this.#textsOf(ip)))
    const out: IpGroup[] = []
    for (const group of from) {
      if (texts.delete(group.text)) out.push(group)
      else if (--group.peers === 0) this.#groups.delete(group.text)
    }
    for (const text of texts) {
      let group = this.#groups.get(text)
      if (group === undefined) this.#groups.set(text, (group = { text, peers: 0 }))
      group.peers++
      out.push(group)
    }
    return out
  }

  #textsOf(ip: string): string[] {
    const parsed = parseIp(ip)
    if (parsed === undefined) throw new TypeError(`${JSON.stringify(ip)} is no IP address`)
    const bytes = mappedIp4(parsed) ?? parsed
    if (isLoopback(bytes) || this.#allow.some((block) => samePrefix(block.bytes, bytes, block.bits))) return []
    if (bytes.length === 4) return [formatIp(bytes)]
    const net = new Uint8Array(16)
    net.set(bytes.subarray(0, 8))
    return [formatIp(bytes), `${formatIp(net)}/64`]
  }
}
