/* DNS answers by hand, and a name server on 127.0.0.1 that gives them over UDP. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { concat, fromUtf8 } from '../../src/bytes.ts'

const u16 = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 255)
const u32 = (n: number): Uint8Array => concat([u16(n >>> 16), u16(n & 0xffff)])

export function nameBytes(name: string): Uint8Array {
  const labels = name.split('.').map((label) => concat([Uint8Array.of(label.length), fromUtf8(label)]))
  return concat([...labels, Uint8Array.of(0)])
}

/** The strings of a TXT record, 255 bytes each. */
export function strings(text: string): Uint8Array {
  const bytes = fromUtf8(text)
  const out: Uint8Array[] = []
  for (let at = 0; at < bytes.length || at === 0; at += 255) {
    const part = bytes.subarray(at, at + 255)
    out.push(Uint8Array.of(part.length), part)
  }
  return concat(out)
}

export function record(name: string, type: number, data: Uint8Array | string, ttl: number): Uint8Array {
  const bytes = typeof data === 'string' ? strings(data) : data
  return concat([nameBytes(name), u16(type), u16(1), u32(ttl), u16(bytes.length), bytes])
}

/** The answer of a server to the question for `name`, without its id. */
export function answerTo(name: string, type: number, records: readonly Uint8Array[], rcode = 0): Uint8Array {
  const header = [u16(0), u16(0x8180 | rcode), u16(1), u16(records.length), u32(0)]
  return concat([...header, nameBytes(name), u16(type), u16(1), ...records])
}

export interface Question {
  name: string
  type: number
}

export function questionIn(query: Uint8Array): Question {
  const labels: string[] = []
  let at = 12
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(String.fromCharCode(...query.subarray(at + 1, at + 1 + length)))
    at += 1 + length
  }
  return { name: labels.join('.'), type: query[at + 2] ?? 0 }
}

/** TXT records by name; names that it does not have do not exist. `silent` answers nothing. */
export async function nameServer(
  zone: Readonly<Record<string, readonly string[]>>,
  silent = false,
): Promise<{ at: string; asked: Question[]; close(): void }> {
  const socket = createSocket('udp4')
  const asked: Question[] = []
  socket.on('message', (query, { port, address }) => {
    const question = questionIn(query)
    asked.push(question)
    if (silent) return
    const { name, type } = question
    const found = zone[name.toLowerCase()]
    const records = (found ?? []).flatMap((value) => {
      if (type === 16 && !/^[\d.]+$/.test(value)) return [record(name, 16, value, 60)]
      if (type === 1 && /^[\d.]+$/.test(value)) return [record(name, 1, Uint8Array.from(value.split('.'), Number), 60)]
      return []
    })
    const answer = answerTo(name, type, records, found === undefined ? 3 : 0)
    answer.set(query.subarray(0, 2))
    socket.send(answer, port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return { at: `127.0.0.1:${socket.address().port}`, asked, close: () => void socket.close() }
}
