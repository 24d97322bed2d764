/*
 * Messages of multicast DNS (RFC 6762 §18) as libp2p's discovery needs them (discovery/mdns.md 1A r2): questions, and
 * PTR, TXT, SRV, A and AAAA records; others are skipped. Strict: what is not as the RFC says is refused.
 */
import { fromUtf8 } from '../../bytes.ts'
import {
  DnsReader,
  brokenDns as broken,
  encodeDnsName,
  internet,
  labelsOf,
  recordTypes,
  txtStrings,
} from '../../dns.ts'
import { formatIp, parseIp } from '../../ip.ts'

/** RFC 6762 §17: no message is longer. */
const maxPacketBytes = 9_000
const maxQuestions = 64
const maxRecords = 512

export interface Question {
  name: string
  type: number
  /** §5.4: an answer to us alone will do. */
  unicast: boolean
}

interface Owner {
  name: string
  ttlSeconds: number
  /** §10.2: what others said before under this name and type is not valid any more. */
  flush: boolean
}

export type Resource = Owner &
  (
    | { type: 'PTR'; target: string }
    | { type: 'SRV'; target: string; port: number }
    /** One character for each byte, at most 255. */
    | { type: 'TXT'; strings: readonly string[] }
    | { type: 'A' | 'AAAA'; address: string }
  )

export interface MdnsMessage {
  response: boolean
  questions: readonly Question[]
  answers: readonly Resource[]
  additionals: readonly Resource[]
}

class Writer {
  readonly #out: number[] = []
  /** Where names, and what they end in, were written (RFC 1035 §4.1.4). */
  readonly #names = new Map<string, number>()

  u16(value: number): void {
    this.#out.push((value >> 8) & 0xff, value & 0xff)
  }

  bytes(bytes: Iterable<number>): void {
    this.#out.push(...bytes)
  }

  name(name: string): void {
    encodeDnsName(name)
    const labels = labelsOf(name.toLowerCase())
    for (let i = 0; i < labels.length; i++) {
      const rest = labels.slice(i).join('\0')
      const before = this.#names.get(rest)
      if (before !== undefined) {
        this.u16(0xc000 | before)
        return
      }
      if (this.#out.length < 0x4000) this.#names.set(rest, this.#out.length)
      const label = fromUtf8(labels[i] ?? '')
      this.#out.push(label.length, ...label)
    }
    this.#out.push(0)
  }

  resource(resource: Resource): void {
    const { name, type, ttlSeconds, flush } = resource
    this.name(name)
    this.u16(recordTypes[type])
    this.u16(flush ? internet | 0x8000 : internet)
    this.u16(ttlSeconds >>> 16)
    this.u16(ttlSeconds)
    const at = this.#out.length
    this.u16(0)
    if (resource.type === 'PTR') {
      this.name(resource.target)
    } else if (resource.type === 'SRV') {
      this.bytes([0, 0, 0, 0])
      this.u16(resource.port)
      this.name(resource.target)
    } else if (resource.type === 'TXT') {
      for (const text of resource.strings.length > 0 ? resource.strings : ['']) {
        if (text.length > 255) throw new RangeError(`a TXT string of ${text.length} bytes, at most 255 fit`)
        this.#out.push(text.length, ...Array.from(text, (c) => c.charCodeAt(0) & 0xff))
      }
    } else {
      this.bytes(parseIp(resource.address) ?? [])
    }
    const length = this.#out.length - at - 2
    this.#out[at] = length >> 8
    this.#out[at + 1] = length & 0xff
  }

  done(): Uint8Array {
    return Uint8Array.from(this.#out)
  }
}

/** Throws TypeError for a name that is none, RangeError for a text that is too long. */
export function encodeMessage({ response, questions, answers, additionals }: MdnsMessage): Uint8Array {
  const writer = new Writer()
  writer.u16(0) // §18.1: the id is 0
  writer.u16(response ? 0x8400 : 0) // §18.4: answers are authoritative
  for (const count of [questions.length, answers.length, 0, additionals.length]) writer.u16(count)
  for (const { name, type, unicast } of questions) {
    writer.name(name)
    writer.u16(type)
    writer.u16(unicast ? internet | 0x8000 : internet)
  }
  for (const resource of answers) writer.resource(resource)
  for (const resource of additionals) writer.resource(resource)
  return writer.done()
}

const typeNames = new Map<number, Resource['type']>(
  (['PTR', 'TXT', 'SRV', 'A', 'AAAA'] as const).map((name) => [recordTypes[name], name]),
)

/** Undefined for a record of a kind that we do not need. */
function readResource(reader: DnsReader): Resource | undefined {
  const name = reader.name()
  const [code, space, ttl, length] = [reader.u16(), reader.u16(), reader.u32(), reader.u16()]
  const end = reader.at + length
  const type = typeNames.get(code)
  if (type === undefined || (space & 0x7fff) !== internet) {
    reader.take(length)
    return undefined
  }
  // RFC 2181 §8: a TTL with the highest bit set counts as zero
  const owner = { name, ttlSeconds: ttl < 0x8000_0000 ? ttl : 0, flush: space > 0x7fff }
  let resource: Resource
  if (type === 'PTR') {
    resource = { ...owner, type, target: reader.name() }
  } else if (type === 'SRV') {
    reader.u32()
    resource = { ...owner, type, port: reader.u16(), target: reader.name() }
  } else if (type === 'TXT') {
    resource = { ...owner, type, strings: txtStrings(reader.take(length)).filter((text) => text !== '') }
  } else {
    if (length !== (type === 'A' ? 4 : 16)) throw broken(`an address of ${length} bytes`)
    resource = { ...owner, type, address: formatIp(reader.take(length)) }
  }
  if (reader.at !== end) throw broken(`a ${type} record of another length`)
  return resource
}

/** Throws ProtocolError. */
export function decodeMessage(bytes: Uint8Array): MdnsMessage {
  if (bytes.length > maxPacketBytes) throw broken(`${bytes.length} bytes, at most ${maxPacketBytes} allowed`)
  const reader = new DnsReader(bytes)
  reader.u16()
  const flags = reader.u16()
  // §18.3 and §18.11: messages with another opcode or with a failure are ignored
  if ((flags & 0x780f) !== 0) throw broken(`opcode or response code is not 0: flags ${flags.toString(16)}`)
  const [asked, answered, authority, additional] = [reader.u16(), reader.u16(), reader.u16(), reader.u16()]
  if (asked > maxQuestions) throw broken(`${asked} questions`)
  if (answered + authority + additional > maxRecords) throw broken(`${answered + authority + additional} records`)
  const questions: Question[] = []
  for (let i = 0; i < asked; i++) {
    const name = reader.name()
    const [type, space] = [reader.u16(), reader.u16()]
    if ((space & 0x7fff) === internet) questions.push({ name, type, unicast: space > 0x7fff })
  }
  const section = (count: number): Resource[] => {
    const out: Resource[] = []
    for (let i = 0; i < count; i++) {
      const resource = readResource(reader)
      if (resource !== undefined) out.push(resource)
    }
    return out
  }
  const answers = section(answered)
  section(authority)
  const additionals = section(additional)
  if (reader.at !== bytes.length) throw broken('bytes behind the last record')
  return { response: (flags & 0x8000) !== 0, questions, answers, additionals }
}
