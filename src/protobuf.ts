/*
 * Protocol Buffers encoding (proto2 and proto3 wire form), schema as data, types inferred, limits in the schema:
 *   const Want = message({ block: [1, required(limited(bytes, 168))], priority: [2, int32], tags: [3, repeated(string, 8)] })
 * Unknown fields are skipped, a repeated singular field's last value wins, packed and unpacked repeats are both read.
 * Left out: groups (refused), maps, oneof (declare the fields), merging of a message that is sent in two pieces.
 */
import { concat, fromUtf8, toUtf8 } from './bytes.ts'
import { ProtocolError } from './errors.ts'
import { gatherBytes } from './limits.ts'

/** How one value is written (In) and read (Out); `wire` is its wire type. */
export interface Type<In, Out = In> {
  readonly wire: 0 | 1 | 2 | 5
  write(writer: Writer, value: In): void
  read(reader: Reader): Out
}

interface Repeated<In, Out> {
  readonly rule: 'repeated'
  readonly type: Type<In, Out>
  readonly max: number
  readonly packed: boolean
}

interface Required<In, Out> {
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
    if (this.#at >= size) return
    this.#flush(Math.max(size, 1024))
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

  varint(value: number): void {
    let size = 1
    for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++
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
    let rest = BigInt.asUintN(64, value)
    const out: number[] = []
    do {
      out.push(Number(rest & 127n) | 128)
      rest >>= 7n
    } while (rest > 0n)
    out[out.length - 1] = (out.at(-1) ?? 0) & 127
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
      this.#flush(256)
      this.#parts.push(bytes)
      this.#done += bytes.length
    } else {
      this.copy(bytes)
    }
    this.varint(bytes.length)
  }

  finish(): Uint8Array[] {
    this.#flush(0)
    return this.#parts.toReversed()
  }
}

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

  #take(size: number): Uint8Array {
    const start = this.#at
    if (size > this.#end - start) {
      throw new ProtocolError('bad-protobuf', `field of ${size} bytes, but ${this.#end - start} are left`)
    }
    this.#at += size
    return this.#bytes.subarray(start, this.#at)
  }

  /** Low 32 bits of a varint of up to ten bytes, as an unsigned number. */
  varint32(): number {
    let value = 0
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte()
      if (shift < 32) value |= (byte & 127) << shift
      if (byte < 128) return value >>> 0
    }
    throw new ProtocolError('bad-protobuf', 'varint is longer than ten bytes')
  }

  varint64(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte()
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return BigInt.asUintN(64, value)
    }
    throw new ProtocolError('bad-protobuf', 'varint is longer than ten bytes')
  }

  /** A varint that must fit a number: lengths and sizes. */
  varint53(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte()
      value += (byte & 127) * scale
      if (byte < 128) {
        if (value > Number.MAX_SAFE_INTEGER) throw new ProtocolError('bad-protobuf', 'number is above 2^53-1')
        return value
      }
      scale *= 128
    }
    throw new ProtocolError('bad-protobuf', 'varint is longer than ten bytes')
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

  /** Runs `read` with the end set behind the length-prefixed field that starts here. */
  within<T>(read: () => T): T {
    const size = this.varint53()
    const outer = this.#end
    if (size > outer - this.#at) {
      throw new ProtocolError('bad-protobuf', `field of ${size} bytes, but ${outer - this.#at} are left`)
    }
    this.#end = this.#at + size
    const value = read()
    this.#end = outer
    return value
  }

  skip(wire: number): void {
    if (wire === 0) this.varint32()
    else if (wire === 1) this.#take(8)
    else if (wire === 2) this.bytes()
    else if (wire === 5) this.#take(4)
    else throw new ProtocolError('bad-protobuf', `wire type ${wire} is not supported`)
  }
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
  write: (w, v) => w.varint(v),
  read: (r) => r.varint32(),
}
/** Also enums: an unknown value stays the number it is. */
export const int32: Type<number> = {
  wire: 0,
  write: (w, v) => (v < 0 ? w.varint64(BigInt(v)) : w.varint(v)),
  read: (r) => r.varint32() | 0,
}
export const uint64: Type<bigint> = {
  wire: 0,
  write: (w, v) => w.varint64(v),
  read: (r) => r.varint64(),
}
export const int64: Type<bigint> = {
  wire: 0,
  write: (w, v) => w.varint64(v),
  read: (r) => BigInt.asIntN(64, r.varint64()),
}
/** A uint64 whose sane values fit a number (sizes): above 2^53-1 is a ProtocolError. */
export const uint53: Type<number> = {
  wire: 0,
  write: (w, v) => w.varint(v),
  read: (r) => r.varint53(),
}
export const fixed32: Type<number> = {
  wire: 5,
  write: (w, v) => w.fixed(BigInt(v), 4),
  read: (r) => Number(r.fixed(4)),
}
export const fixed64: Type<bigint> = {
  wire: 1,
  write: (w, v) => w.fixed(v, 8),
  read: (r) => r.fixed(8),
}

/** `type` (bytes or string) of at most `max` bytes; more is a ProtocolError `oversized` on read, a RangeError on write. */
export function limited<T extends Uint8Array | string>(type: Type<T>, max: number): Type<T> {
  return {
    wire: type.wire,
    write: (w, v) => {
      const before = w.length
      type.write(w, v)
      if (w.length - before > max + 10)
        throw new RangeError(`field of ${w.length - before} bytes, at most ${max} allowed`)
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

export function message<const F extends Fields>(fields: F): Message<F> {
  const plans = Object.entries(fields).map(([name, field]) => plan(name, field))
  const reversed = plans.toReversed()
  const byId = new Map(plans.map((p) => [p.id, p]))

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
      const wire = tag % 8
      const p = byId.get(Math.floor(tag / 8))
      if (tag < 8 || tag > 0xffff_ffff) throw new ProtocolError('bad-protobuf', `field number ${Math.floor(tag / 8)}`)
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
    for (const p of plans) {
      if (p.rule === 'required' && out[p.name] === undefined) {
        throw new ProtocolError('bad-protobuf', `required field ${p.name} is missing`)
      }
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
    read: (r) => r.within(() => readFields(r)),
    encode: (value) => concat(encodeChunks(value)),
    encodeChunks,
    decode: (bytes) => readFields(new Reader(bytes)),
  }
}
