/*
 * DNS messages (RFC 1035 §4): what a resolver over HTTPS and multicast DNS have in common: names, the strings of TXT
 * records, and a strict reader. Names are text in lower case; a dot or backslash within a label has a backslash before.
 */
import { fromUtf8 } from './bytes.ts'
import { ProtocolError } from './errors.ts'

export const recordTypes = { A: 1, CNAME: 5, PTR: 12, TXT: 16, AAAA: 28, SRV: 33, ANY: 255 } as const
export const internet = 1

export function brokenDns(what: string): ProtocolError {
  return new ProtocolError('bad-message', `DNS message: ${what}`)
}

/** The labels of a name. */
export function labelsOf(name: string): string[] {
  const parts = name.replaceAll(/(\\.)|\./g, (_dot, escaped: string | undefined) => escaped ?? '\0').split('\0')
  if (parts.at(-1) === '' && parts.length > 1) parts.pop()
  return parts.map((label) => label.replaceAll(/\\(.)/g, '$1'))
}

/** Throws TypeError for what is not a DNS name. */
export function encodeDnsName(name: string): Uint8Array {
  const out: number[] = []
  for (const label of labelsOf(name)) {
    // §3.1: a label has at most 63 bytes
    if (!/^[\x21-\x7e]{1,63}$/.test(label)) throw new TypeError(`${JSON.stringify(name)} is not a DNS name`)
    out.push(label.length, ...fromUtf8(label))
  }
  out.push(0)
  if (out.length > 255) throw new TypeError(`${JSON.stringify(name)} is longer than a DNS name can be`)
  return Uint8Array.from(out)
}

export class DnsReader {
  readonly #bytes: Uint8Array
  at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.at) throw brokenDns('cut short')
    this.at += length
    return this.#bytes.subarray(this.at - length, this.at)
  }

  u16(): number {
    const [a = 0, b = 0] = this.take(2)
    return (a << 8) | b
  }

  u32(): number {
    return this.u16() * 0x1_0000 + this.u16()
  }

  /** §4.1.4: a pointer leads backwards, so that there is an end. In lower case: names compare without regard to it. */
  name(): string {
    const labels: string[] = []
    let size = 1
    let end: number | undefined
    let limit = this.at
    for (;;) {
      const [length = 0] = this.take(1)
      if (length >= 0xc0) {
        const [low = 0] = this.take(1)
        end ??= this.at
        const to = ((length & 0x3f) << 8) | low
        if (to >= limit) throw brokenDns('a name points forwards')
        this.at = limit = to
      } else if (length > 63) {
        throw brokenDns('an unknown kind of label')
      } else if (length === 0) {
        break
      } else {
        size += length + 1
        if (size > 255) throw brokenDns('a name is too long')
        labels.push(
          String.fromCharCode(...this.take(length))
            .toLowerCase()
            .replaceAll(/[\\.]/g, '\\$&'),
        )
      }
    }
    if (end !== undefined) this.at = end
    return labels.join('.')
  }
}

/** §3.3.14: strings of at most 255 bytes, each behind its length. Any bytes may stand there: one character for each. */
export function txtStrings(data: Uint8Array): string[] {
  const out: string[] = []
  for (let at = 0; at < data.length;) {
    const end = at + 1 + (data[at] ?? 0)
    if (end > data.length) throw brokenDns('a TXT record is cut short')
    out.push(String.fromCharCode(...data.subarray(at + 1, end)))
    at = end
  }
  return out
}
