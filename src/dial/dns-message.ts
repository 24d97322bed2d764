/*
 * DNS messages (RFC 1035 §4), as much as a stub resolver over HTTPS (RFC 8484) needs: one question, and the A, AAAA and
 * TXT records that answer it, through the aliases (CNAME) of its name. Strict: what is not as the RFC says is refused.
 */
import { DnsReader, brokenDns as broken, encodeDnsName, internet, recordTypes as all, txtStrings } from '../dns.ts'
import { formatIp4, formatIp6 } from '../ip.ts'

const { A, AAAA, CNAME, TXT } = all
export const recordTypes = { A, TXT, AAAA } as const
export type RecordType = (typeof recordTypes)[keyof typeof recordTypes]

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

/** A question for the records of one type; throws TypeError where `name` is not a DNS name. */
export function encodeQuery(name: string, type: RecordType): Uint8Array {
  const question = encodeDnsName(name)
  const out = new Uint8Array(12 + question.length + 4)
  out[2] = 1 // recursion desired; RFC 8484 §4.1: the id is 0
  out[5] = 1 // one question
  out.set(question, 12)
  out.set([0, type, 0, internet], 12 + question.length)
  return out
}

function valueOf(type: RecordType, data: Uint8Array): string {
  if (type === recordTypes.TXT) return txtStrings(data).join('')
  if (data.length !== (type === recordTypes.A ? 4 : 16)) throw broken(`an address of ${data.length} bytes`)
  return type === recordTypes.A ? formatIp4(data) : formatIp6(data)
}

/** What a server answered to encodeQuery(name, type). Throws ProtocolError. */
export function decodeAnswer(bytes: Uint8Array, name: string, type: RecordType): DnsAnswer {
  const reader = new DnsReader(bytes)
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
    if (kind === CNAME && space === internet) {
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
