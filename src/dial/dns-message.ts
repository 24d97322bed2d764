/*
 * DNS messages (RFC 1035 §4), as much as a stub resolver over HTTPS (RFC 8484) needs: one question, and the A, AAAA and
 * TXT records that answer it, through the aliases (CNAME) of its name. Strict: what is not as the RFC says is refused.
 */
import { fromUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { formatIp4, formatIp6 } from '../ip.ts'

export const recordTypes = { A: 1, TXT: 16, AAAA: 28 } as const
export type RecordType = (typeof recordTypes)[keyof typeof recordTypes]

const cname = 5
const internet = 1
/** Records in one answer that are read. */
const maxRecords = 4_096
/** Aliases of aliases. */
const maxAliases = 16

export interface DnsAnswer {
  /** IP addresses as text, or the strings of each TXT record joined. Empty where the name has no such record. */
  values: string[]
  /** How long they hold: the least of all records that led here; 0 for an empty answer. */
  ttlSeconds: number
}

const broken = (what: string): ProtocolError => new ProtocolError('bad-message', `DNS answer: ${what}`)

function nameBytes(name: string): Uint8Array {
  const labels = name.replace(/\.$/, '').split('.')
  const out: number[] = []
  for (const label of labels) {
    // §3.1: a label has at most 63 bytes
    if (!/^[\x21-\x7e]{1,63}$/.test(label)) throw new TypeError(`${JSON.stringify(name)} is not a DNS name`)
    out.push(label.length, ...fromUtf8(label))
  }
  out.push(0)
  if (out.length > 255) throw new TypeError(`${JSON.stringify(name)} is longer than a DNS name can be`)
  return Uint8Array.from(out)
}

/** A question for the records of one type; throws TypeError where `name` is not a DNS name. */
export function encodeQuery(name: string, type: RecordType): Uint8Array {
  const question = nameBytes(name)
  const out = new Uint8Array(12 + question.length + 4)
  out[2] = 1 // recursion desired; RFC 8484 §4.1: the id is 0
  out[5] = 1 // one question
  out.set(question, 12)
  out.set([0, type, 0, internet], 12 + question.length)
  return out
}

class Reader {
  readonly #bytes: Uint8Array
  at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.at) throw broken('cut short')
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
        if (to >= limit) throw broken('a name points forwards')
        this.at = limit = to
      } else if (length > 63) {
        throw broken('an unknown kind of label')
      } else if (length === 0) {
        break
      } else {
        size += length + 1
        if (size > 255) throw broken('a name is too long')
        labels.push(String.fromCharCode(...this.take(length)).toLowerCase())
      }
    }
    if (end !== undefined) this.at = end
    return labels.join('.')
  }
}

/** §3.3.14: strings of at most 255 bytes, each behind its length. Any bytes may stand there: one character for each. */
function txt(data: Uint8Array): string {
  let out = ''
  for (let at = 0; at < data.length;) {
    const end = at + 1 + (data[at] ?? 0)
    if (end > data.length) throw broken('a TXT record is cut short')
    out += String.fromCharCode(...data.subarray(at + 1, end))
    at = end
  }
  return out
}

function valueOf(type: RecordType, data: Uint8Array): string {
  if (type === recordTypes.TXT) return txt(data)
  if (data.length !== (type === recordTypes.A ? 4 : 16)) throw broken(`an address of ${data.length} bytes`)
  return type === recordTypes.A ? formatIp4(data) : formatIp6(data)
}

/** What a server answered to encodeQuery(name, type). Throws ProtocolError. */
export function decodeAnswer(bytes: Uint8Array, name: string, type: RecordType): DnsAnswer {
  const reader = new Reader(bytes)
  reader.u16()
  const flags = reader.u16()
  const [questions, answers] = [reader.u16(), reader.u16()]
  reader.take(4)
  if ((flags & 0x8000) === 0) throw broken('it is a question')
  if ((flags & 0x0200) !== 0) throw broken('truncated')
  const rcode = flags & 15
  // §4.1.1: 3 is "no such name", an answer like another
  if (rcode !== 0 && rcode !== 3) throw broken(`the server failed with code ${rcode}`)
  let owner = name.replace(/\.$/, '').toLowerCase()
  if (questions !== 1 || reader.name() !== owner || reader.u16() !== type || reader.u16() !== internet) {
    throw broken('it answers another question')
  }
  if (answers > maxRecords) throw broken(`${answers} records`)
  const aliases = new Map<string, { to: string; ttl: number }>()
  const records: { owner: string; value: string; ttl: number }[] = []
  for (let i = 0; i < answers; i++) {
    const of = reader.name()
    const [kind, space, ttl, length] = [reader.u16(), reader.u16(), reader.u32(), reader.u16()]
    const end = reader.at + length
    if (kind === cname && space === internet) {
      aliases.set(of, { to: reader.name(), ttl })
      if (reader.at !== end) throw broken('an alias of another length')
    } else {
      const data = reader.take(length)
      if (kind === type && space === internet) records.push({ owner: of, value: valueOf(type, data), ttl })
    }
  }
  let ttlSeconds = Infinity
  for (let i = 0; ; i++) {
    const alias = aliases.get(owner)
    if (alias === undefined) break
    if (i === maxAliases) throw broken('too many aliases')
    ttlSeconds = Math.min(ttlSeconds, alias.ttl)
    owner = alias.to
  }
  const of = records.filter((record) => record.owner === owner)
  for (const { ttl } of of) ttlSeconds = Math.min(ttlSeconds, ttl)
  // RFC 2181 §8: a TTL with the highest bit set counts as zero
  const holds = of.length > 0 && ttlSeconds < 0x8000_0000
  return { values: of.map(({ value }) => value), ttlSeconds: holds ? ttlSeconds : 0 }
}
