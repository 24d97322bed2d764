/*
 * Protocol Buffers encoding (proto2 and proto3 wire form), schema as data, types inferred, limits in the schema:
 *   const Want = message({ block: [1, required(limited(bytes, 168))], priority: [2, int32], tags: [3, repeated(string, 8)] })
 * Unknown fields are skipped, a repeated singular field's last value wins, packed and unpacked repeats are both read.
 * Left out: groups (refused), maps, oneof (declare the fields), merging of a message that is sent in two pieces.
 */
import { concat, fromUtf8, toUtf8 } from './bytes.ts'
import { ProtocolError } from './errors.ts'
import { gatherBytes } from './limits.ts'
import { varintLength } from './varint.ts'

const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)

/** How one value is written (In) and read (Out); `wire` is its wire type. */
export interface Type<In, Out = In> {
  readonly wire: 0 | 1 | 2 | 5
  write(writer: Writer, value: In): void
  read(reader: Reader): Out
}

export interface Repeated<In, Out> {
  readonly rule: 'repeated'
  readonly type: Type<In, Out>
  readonly max: number
  readonly packed: boolean
}

export interface Required<In, Out> {
  readonly rule: 'required'
  readonly type: Type<In, Out>
}

type Rule = Type<unknown> | Repeated<unknown, unknown> | Required<unknown, unknown>
type Fields = Readonly<Record<string, readonly [number, Rule]>>

type OutOf<R> = R extends { rule: 'repeated'; type: { read(reader: Reader): infer Out } }
  ? Out[]
  : R extends { rule: 'required'; type: { read(reader: Reader): infer Out } }
    ? Out
    : R extends { read(reader: Reader): infer Out }
      ? Out | undefined
      : never
type InOf<R> = R extends { rule: 'repeated'; type: { write(writer: Writer, value: infer In): void } }
  ? readonly In[]
  : R extends { rule: 'required'; type: { write(writer: Writer, value: infer In): void } }
    ? In
    : R extends { write(writer: Writer, value: infer In): void }
      ? In
      : never
type RequiredKeys<F extends Fields> = {
  [K in keyof F]: F[K][1] extends { rule: 'required' } ? K : never
}[keyof F]

/** What decode gives: every key is there, absent singular fields are undefined, absent repeats are []. */
export type DecodedOf<F extends Fields> = { [K in keyof F]: OutOf<F[K][1]> }
/** What encode takes: only the required fields must be there. */
export type InitOf<F extends Fields> = { [K in RequiredKeys<F>]: InOf<F[K][1]> } & {
  [K in Exclude<keyof F, RequiredKeys<F>>]?: InOf<F[K][1]> | undefined
}
export type Decoded<M> = M extends Message<infer F> ? DecodedOf<F> : never
export type Init<M> = M extends Message<infer F> ? InitOf<F> : never

export interface Message<F extends Fields> extends Type<InitOf<F>, DecodedOf<F>> {
  encode(value: InitOf<F>): Uint8Array
  /** Like encode, but long byte fields stay where they are: one vectored write, no copy. */
  encodeChunks(value: InitOf<F>): Uint8Array[]
  /** Throws ProtocolError. Byte fields share memory with `bytes`: copy what you keep. */
  decode(bytes: Uint8Array): DecodedOf<F>
}

/** Writes from the end to the front, so that every length is known when its prefix is due. */
export class Writer {
  #buffer = new Uint8Array(256)
  #at = 256
  readonly #parts: Uint8Array[] = []
  #done = 0

  get length(): number {
    return this.#done + this.#buffer.length - this.#at
  }

  #room(size: number): void {
    // Twice as much each time: a long list of small fields is few buffers.
    if (this.#at < size) this.#flush(Math.max(size, Math.min(64 * 1024, 2 * this.#buffer.length)))
  }

  #flush(next: number): void {
    if (this.#at < this.#buffer.length) {
      const part = this.#buffer.subarray(this.#at)
      this.#done += part.length
      this.#parts.push(part)
    }
    this.#buffer = new Uint8Array(next)
    this.#at = next
  }

  /** A whole number from 0 to 2^53-1. */
  varint(value: number): void {
    if (value < 128) {
      this.#room(1)
      this.#buffer[--this.#at] = value
      return
    }
    const size = varintLength(value)
    this.#room(size)
    let at = (this.#at -= size)
    while (value >= 128) {
      this.#buffer[at++] = (value % 128) | 128
      value = Math.floor(value / 128)
    }
    this.#buffer[at] = value
  }

  /** Two's complement, so that -1 takes ten bytes. */
  varint64(value: bigint): void {
    if (value >= 0n && value <= maxSafe) {
      this.varint(Number(value))
      return
    }
    let rest = BigInt.asUintN(64, value)
    const out: number[] = []
    for (; rest >= 128n; rest >>= 7n) out.push(Number(rest & 127n) | 128)
    out.push(Number(rest))
    this.copy(Uint8Array.from(out))
  }

  fixed(value: bigint, size: 4 | 8): void {
    const out = new Uint8Array(size)
    let rest = BigInt.asUintN(size * 8, value)
    for (let i = 0; i < size; i++, rest >>= 8n) out[i] = Number(rest & 255n)
    this.copy(out)
  }

  copy(bytes: Uint8Array): void {
    this.#room(bytes.length)
    this.#at -= bytes.length
    this.#buffer.set(bytes, this.#at)
  }

  bytes(bytes: Uint8Array): void {
    if (bytes.length > gatherBytes) {
      this.#flush(64)
      this.#parts.push(bytes)
      this.#done += bytes.length
    } else {
      this.copy(bytes)
    }
    this.varint(bytes.length)
  }

  /** A field of one byte per char, all of them below 256. */
  latin1(text: string): void {
    const size = text.length
    this.#room(size)
    const at = (this.#at -= size)
    for (let i = 0; i < size; i++) this.#buffer[at + i] = text.charCodeAt(i)
    this.varint(size)
  }

  finish(): Uint8Array[] {
    this.#flush(0)
    return this.#parts.toReversed()
  }
}

const tooLong = (): ProtocolError => new ProtocolError('bad-protobuf', 'varint is longer than ten bytes')

export class Reader {
  readonly #bytes: Uint8Array
  #at: number
  #end: number

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#at = 0
    this.#end = bytes.length
  }

  get done(): boolean {
    return this.#at >= this.#end
  }

  #byte(): number {
    const byte = this.#at < this.#end ? this.#bytes[this.#at++] : undefined
    if (byte === undefined) throw new ProtocolError('bad-protobuf', 'message is cut short')
    return byte
  }

  #pass(size: number): number {
    if (size > this.#end - this.#at) {
      throw new ProtocolError('bad-protobuf', `field of ${size} bytes, but ${this.#end - this.#at} are left`)
    }
    this.#at += size
    return size
  }

  #take(size: number): Uint8Array {
    this.#pass(size)
    return this.#bytes.subarray(this.#at - size, this.#at)
  }

  /** Where the next byte stands. */
  get at(): number {
    return this.#at
  }

  /** Bytes up to the end of the field that is read. */
  get left(): number {
    return this.#end - this.#at
  }

  /** Low 32 bits of a varint of up to ten bytes, as an unsigned number. */
  varint32(): number {
    let byte = this.#byte()
    if (byte < 128) return byte
    let value = byte & 127
    for (let shift = 7; shift < 70; shift += 7) {
      byte = this.#byte()
      if (shift < 32) value |= (byte & 127) << shift
      if (byte < 128) return value >>> 0
    }
    throw tooLong()
  }

  /** Low 64 bits of a varint of up to ten bytes. */
  varint64(): bigint {
    let value = 0
    let scale = 1
    for (let i = 0; i < 7; i++, scale *= 128) {
      const byte = this.#byte()
      value += (byte & 127) * scale
      if (byte < 128) return BigInt(value)
    }
    // 49 bits are there, three bytes may follow.
    let high = 0
    for (let shift = 0; shift < 21; shift += 7) {
      const byte = this.#byte()
      high |= (byte & 127) << shift
      if (byte < 128) return BigInt.asUintN(64, (BigInt(high) << 49n) | BigInt(value))
    }
    throw tooLong()
  }

  /** A varint that must fit a number: lengths and sizes. */
  varint53(): number {
    let byte = this.#byte()
    if (byte < 128) return byte
    let value = byte & 127
    let scale = 128
    for (let i = 1; i < 10; i++, scale *= 128) {
      byte = this.#byte()
      value += (byte & 127) * scale
      if (byte < 128) {
        if (value > Number.MAX_SAFE_INTEGER) throw new ProtocolError('bad-protobuf', 'number is above 2^53-1')
        return value
      }
    }
    throw tooLong()
  }

  fixed(size: 4 | 8): bigint {
    let value = 0n
    const bytes = this.#take(size)
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number)
    return value
  }

  bytes(): Uint8Array {
    return this.#take(this.varint53())
  }

  /** Passes the length-prefixed field that starts here and returns its size: its bytes end at `at`. */
  span(): number {
    return this.#pass(this.varint53())
  }

  /** Sets the end behind the length-prefixed field that starts here; the end before, for `leave`, is returned. */
  enter(): number {
    const outer = this.#end
    const size = this.span()
    this.#end = this.#at
    this.#at -= size
    return outer
  }

  /** Goes on behind the field that was entered, whether it was read to its end or not. */
  leave(outer: number): void {
    this.#at = this.#end
    this.#end = outer
  }

  /** Runs `read` with the end set behind the length-prefixed field that starts here. */
  within<T>(read: (reader: this) => T): T {
    const outer = this.enter()
    const value = read(this)
    this.leave(outer)
    return value
  }

  skip(wire: number): void {
    if (wire === 0) this.varint32()
    else if (wire === 1) this.#pass(8)
    else if (wire === 2) this.span()
    else if (wire === 5) this.#pass(4)
    else throw new ProtocolError('bad-protobuf', `wire type ${wire} is not supported`)
  }
}

/** A number that does not fit its type is our caller's mistake: written anyway, the peer would read another one. */
function whole(value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new RangeError(`got ${value}, want a whole number from ${min} to ${max}`)
}

function unsigned64(value: bigint): bigint {
  if (value === BigInt.asUintN(64, value)) return value
  throw new RangeError(`got ${value}, want 0 to 2^64-1`)
}

function signed64(value: bigint): bigint {
  if (value === BigInt.asIntN(64, value)) return value
  throw new RangeError(`got ${value}, want -2^63 to 2^63-1`)
}

export const bytes: Type<Uint8Array> = {
  wire: 2,
  write: (w, v) => w.bytes(v),
  read: (r) => r.bytes(),
}
/** Throws ProtocolError `bad-utf8` on anything that is not UTF-8. */
export const string: Type<string> = {
  wire: 2,
  write: (w, v) => w.bytes(fromUtf8(v)),
  read: (r) => toUtf8(r.bytes()),
}
export const bool: Type<boolean> = {
  wire: 0,
  write: (w, v) => w.varint(v ? 1 : 0),
  read: (r) => r.varint64() !== 0n,
}
export const uint32: Type<number> = {
  wire: 0,
  write: (w, v) => w.varint(whole(v, 0, 0xffff_ffff)),
  read: (r) => r.varint32(),
}
/** Also enums: an unknown value stays the number it is. */
export const int32: Type<number> = {
  wire: 0,
  write: (w, v) => (whole(v, -0x8000_0000, 0x7fff_ffff) < 0 ? w.varint64(BigInt(v)) : w.varint(v)),
  read: (r) => r.varint32() | 0,
}
export const uint64: Type<bigint> = {
  wire: 0,
  write: (w, v) => w.varint64(unsigned64(v)),
  read: (r) => r.varint64(),
}
export const int64: Type<bigint> = {
  wire: 0,
  write: (w, v) => w.varint64(signed64(v)),
  read: (r) => BigInt.asIntN(64, r.varint64()),
}
/** A uint64 whose sane values fit a number (sizes): above 2^53-1 is a ProtocolError. */
export const uint53: Type<number> = {
  wire: 0,
  write: (w, v) => w.varint(whole(v, 0, Number.MAX_SAFE_INTEGER)),
  read: (r) => r.varint53(),
}
export const fixed32: Type<number> = {
  wire: 5,
  write: (w, v) => w.fixed(BigInt(whole(v, 0, 0xffff_ffff)), 4),
  read: (r) => Number(r.fixed(4)),
}
export const fixed64: Type<bigint> = {
  wire: 1,
  write: (w, v) => w.fixed(unsigned64(v), 8),
  read: (r) => r.fixed(8),
}

/** `type` (bytes or string) of at most `max` bytes; more is a ProtocolError `oversized` on read, a RangeError on write. */
export function limited<T extends Uint8Array | string>(type: Type<T>, max: number): Type<T> {
  return {
    wire: type.wire,
    write: (w, v) => {
      const raw: Uint8Array = typeof v === 'string' ? fromUtf8(v) : v
      if (raw.length > max) throw new RangeError(`field of ${raw.length} bytes, at most ${max} allowed`)
      w.bytes(raw)
    },
    read: (r) => {
      const raw = r.bytes()
      if (raw.length > max) throw new ProtocolError('oversized', `field of ${raw.length} bytes, at most ${max} allowed`)
      return (type === (string as unknown) ? toUtf8(raw) : raw) as T
    },
  }
}

/** At most `max` values; one more is a ProtocolError `oversized`, before it is read. */
export function repeated<In, Out>(type: Type<In, Out>, max: number): Repeated<In, Out> {
  return { rule: 'repeated', type, max, packed: false }
}

/** Like repeated, written in the packed form. */
export function packed<In, Out>(type: Type<In, Out>, max: number): Repeated<In, Out> {
  return { rule: 'repeated', type, max, packed: true }
}

/** proto2 `required`: its absence is a ProtocolError. */
export function required<In, Out>(type: Type<In, Out>): Required<In, Out> {
  return { rule: 'required', type }
}

interface Plan {
  name: string
  id: number
  type: Type<unknown>
  rule: 'optional' | 'required' | 'repeated'
  max: number
  packed: boolean
}

function plan(name: string, [id, rule]: readonly [number, Rule]): Plan {
  if (!('rule' in rule)) return { name, id, type: rule, rule: 'optional', max: 1, packed: false }
  if (rule.rule === 'required') return { name, id, type: rule.type, rule: 'required', max: 1, packed: false }
  return { name, id, type: rule.type, rule: 'repeated', max: rule.max, packed: rule.packed }
}

function add(out: Record<string, unknown>, { name, type, max }: Plan, r: Reader): void {
  const list = out[name] as unknown[]
  if (list.length >= max) throw new ProtocolError('oversized', `more than ${max} values in field ${name}`)
  list.push(type.read(r))
}

/** A message type: field names with their numbers and types, see the head of this file. */
export function message<const F extends Fields>(fields: F): Message<F> {
  const plans = Object.entries(fields).map(([name, field]) => plan(name, field))
  const reversed = plans.toReversed()
  const byId = new Map(plans.map((p) => [p.id, p]))
  // Almost every field has a small number: an array finds it faster.
  const small = Array.from({ length: 16 }, (_, id) => byId.get(id))
  const needed = plans.filter((p) => p.rule === 'required')

  function writeFields(w: Writer, value: Record<string, unknown>): void {
    for (const { name, id, type, rule, packed } of reversed) {
      const field = value[name]
      if (field === undefined) {
        if (rule === 'required') throw new TypeError(`required field ${name} is missing`)
      } else if (rule !== 'repeated') {
        type.write(w, field)
        w.varint(id * 8 + type.wire)
      } else if (packed && (field as unknown[]).length > 0) {
        const before = w.length
        for (const item of (field as unknown[]).toReversed()) type.write(w, item)
        w.varint(w.length - before)
        w.varint(id * 8 + 2)
      } else {
        for (let i = (field as unknown[]).length - 1; i >= 0; i--) {
          type.write(w, (field as unknown[])[i])
          w.varint(id * 8 + type.wire)
        }
      }
    }
  }

  function readFields(r: Reader): DecodedOf<F> {
    const out: Record<string, unknown> = {}
    for (const p of plans) out[p.name] = p.rule === 'repeated' ? [] : undefined
    while (!r.done) {
      const tag = r.varint53()
      if (tag < 8 || tag > 0xffff_ffff) throw new ProtocolError('bad-protobuf', `field number ${Math.floor(tag / 8)}`)
      const wire = tag & 7
      const p = tag < 128 ? small[tag >> 3] : byId.get(tag >>> 3)
      if (p === undefined) {
        r.skip(wire)
      } else if (wire === p.type.wire) {
        if (p.rule === 'repeated') add(out, p, r)
        else out[p.name] = p.type.read(r)
      } else if (wire === 2 && p.rule === 'repeated') {
        r.within(() => {
          while (!r.done) add(out, p, r)
        })
      } else {
        throw new ProtocolError('bad-protobuf', `field ${p.name} has wire type ${wire}, want ${p.type.wire}`)
      }
    }
    for (const { name } of needed) {
      if (out[name] === undefined) throw new ProtocolError('bad-protobuf', `required field ${name} is missing`)
    }
    return out as DecodedOf<F>
  }

  function encodeChunks(value: InitOf<F>): Uint8Array[] {
    const w = new Writer()
    writeFields(w, value)
    return w.finish()
  }

  return {
    wire: 2,
    write: (w, value) => {
      const before = w.length
      writeFields(w, value)
      w.varint(w.length - before)
    },
    read: (r) => r.within(readFields),
    encode: (value) => concat(encodeChunks(value)),
    encodeChunks,
    decode: (bytes) => readFields(new Reader(bytes)),
  }
}
