/* Frames by hand, and a Session with its events and output in readable form. */
import { concat } from '../../../src/bytes.ts'
import type { Channel } from '../../../src/mux/yamux/channel.ts'
import { decodeHeader, encodeHeader, type Header } from '../../../src/mux/yamux/frame.ts'
import type { SessionOptions } from '../../../src/mux/yamux/options.ts'
import type { SessionEvent } from '../../../src/mux/yamux/events.ts'
import { Session } from '../../../src/mux/yamux/session.ts'

const types = ['data', 'window', 'ping', 'goaway']
const flagNames: [number, string][] = [
  [1, 'SYN'],
  [2, 'ACK'],
  [4, 'FIN'],
  [8, 'RST'],
]
const flagBits = new Map(flagNames.map(([bit, name]) => [name, bit]))

/** `frame('data SYN', 1, body)`, `frame('window FIN', 1, 0)`: the last argument is the body or the length field. */
export function frame(what: string, id: number, tail: Uint8Array | number = 0): Uint8Array {
  const [type = '', ...flags] = what.split(' ')
  const out = new Uint8Array(12)
  const bits = flags.reduce((sum, name) => sum | (flagBits.get(name) ?? 0), 0)
  encodeHeader(out, 0, types.indexOf(type), bits, id, typeof tail === 'number' ? tail : tail.length)
  return typeof tail === 'number' ? out : concat([out, tail])
}

/** The frames in `bytes`, each like `data SYN 1 5`: type, flags, id, length. */
export function readFrames(bytes: Uint8Array): string[] {
  const out: string[] = []
  const header: Header = { version: 0, type: 0, flags: 0, id: 0, length: 0 }
  for (let at = 0; at < bytes.length;) {
    decodeHeader(bytes, at, header)
    const flags = flagNames.filter(([bit]) => (header.flags & bit) !== 0).map(([, name]) => name)
    out.push([types[header.type], ...flags, header.id, header.length].join(' '))
    at += 12 + (header.type === 0 ? header.length : 0)
  }
  return out
}

/** A line per event; neighbouring data of one stream become one. */
export function readEvents<O>(events: SessionEvent<O>[]): string[] {
  const out: string[] = []
  let run: { id: number; size: number; sum: number } | undefined
  const flush = (): void => {
    if (run !== undefined) out.push(`data ${run.id} ${run.size} #${run.sum}`)
    run = undefined
  }
  for (const event of events) {
    if (event.type === 'data') {
      if (run?.id !== event.channel.id) flush()
      run ??= { id: event.channel.id, size: 0, sum: 0 }
      run.size += event.bytes.length
      for (const byte of event.bytes) run.sum = (Math.imul(run.sum, 31) + byte) >>> 0
      continue
    }
    flush()
    if (event.type === 'failed') out.push(`failed ${event.reason.message}`)
    else if (event.type === 'reset') out.push(`reset ${event.channel.id} ${event.code}`)
    else if (event.type === 'refused') out.push(`refused ${event.id} ${event.reason.message}`)
    else if (event.type === 'goaway') out.push(`goaway ${event.code}`)
    else if ('channel' in event) out.push(`${event.type} ${event.channel.id}`)
    else out.push(event.type)
  }
  flush()
  return out
}

export class Lab {
  readonly session: Session<unknown>
  readonly raw: SessionEvent<unknown>[] = []
  now = 0

  constructor(role: 'initiator' | 'responder', options?: SessionOptions) {
    this.session = new Session(role, 0, options)
    // The first ping rides on anything; out of the way of the tables.
    this.session.write(this.#openSilently(), [])
  }

  #openSilently(): Channel<unknown> {
    const probe = this.session.open() as Channel<unknown>
    this.session.reset(probe, 0)
    this.session.transmit(1e9, 0)
    this.session.receive(frame('ping ACK', 0, 1), 0)
    this.drain()
    return probe
  }

  drain(): SessionEvent<unknown>[] {
    const events: SessionEvent<unknown>[] = []
    for (let event = this.session.next(); event !== undefined; event = this.session.next()) events.push(event)
    this.raw.push(...events)
    return events
  }

  events(): string[] {
    return readEvents(this.drain())
  }

  /** Bytes in, events out. */
  feed(...frames: Uint8Array[]): string[] {
    this.session.receive(concat(frames), this.now)
    return this.events()
  }

  sentBytes(room = Infinity): Uint8Array {
    const out: Uint8Array[] = []
    for (let size = 0; this.session.pending && size < room;) {
      const chunks = this.session.transmit(room - size, this.now)
      if (chunks === undefined) break
      for (const chunk of chunks) size += chunk.length
      out.push(...chunks)
    }
    return concat(out)
  }

  sent(room?: number): string[] {
    return readFrames(this.sentBytes(room))
  }

  /** The channel of the latest event that has one. */
  get channel(): Channel<unknown> {
    for (const event of this.raw.toReversed()) if ('channel' in event) return event.channel
    throw new Error('no event with a channel yet')
  }

  open(priority?: number): Channel<unknown> {
    const channel = this.session.open(priority)
    if (channel === undefined) throw new Error('the backlog is full')
    return channel
  }
}

/** Stream 1 of the peer, accepted. */
export function opened(options?: SessionOptions): Lab {
  const lab = new Lab('responder', options)
  lab.feed(frame('window SYN', 1))
  lab.session.accepted(lab.channel)
  lab.sent()
  return lab
}
