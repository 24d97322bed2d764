/*
 * multiaddr (multiformats/multiaddr 9b7b3fa, 2025-04-28): components to and from text and bytes.
 * Bytes are canonical: <varint code><value>, values of free length with a varint before them.
 */
import { allocUnsafe, toHex } from '../bytes.ts'
import { asError, ProtocolError } from '../errors.ts'
import { decodeVarint, varintLength, writeVarint } from '../varint.ts'
import { protocolByCode, protocolByName } from './protocols.ts'
import type { Protocol } from './protocols.ts'

/** Bytes of one address, from peers and users alike: a garlic64 destination has 400, a browser's relay path 300. */
export const multiaddrBytes = 1024
/** Components of one address: a relayed WebTransport address with two certhashes has 11. */
export const multiaddrComponents = 32
/** Characters of an address as text: escaped paths take three per byte. */
const textLength = 4 * multiaddrBytes

/** One part of an address: `/tcp/4001` is one, `/tls` is one. */
export interface Component {
  readonly code: number
  readonly name: string
  /** As it stands in the text; undefined where the protocol has none. */
  readonly value: string | undefined
  /** The value as it stands on the wire, without code and length; empty where the protocol has none. */
  readonly bytes: Uint8Array
}

const none = new Uint8Array(0)

export function encodeComponents(components: readonly Component[]): Uint8Array {
  let total = 0
  for (const component of components) total += componentLength(component)
  const out = allocUnsafe(total)
  let at = 0
  for (const { code, bytes } of components) {
    at = writeVarint(code, out, at)
    if (hasLength(code)) at = writeVarint(bytes.length, out, at)
    out.set(bytes, at)
    at += bytes.length
  }
  return out
}

/** Bytes on the wire. */
export function componentLength({ code, bytes }: Component): number {
  return varintLength(code) + (hasLength(code) ? varintLength(bytes.length) : 0) + bytes.length
}

/** The value's length stands before it. */
function hasLength(code: number): boolean {
  const { value } = protocolByCode(code)
  return value !== undefined && value.size === undefined
}

export function formatComponents(components: readonly Component[]): string {
  if (components.length === 0) return '/'
  return components.map(({ name, value }) => (value === undefined ? `/${name}` : `/${name}/${value}`)).join('')
}

/** Throws ProtocolError `bad-multiaddr`. No value shares memory with `bytes`. */
export function decodeComponents(bytes: Uint8Array): Component[] {
  if (bytes.length === 0) throw new ProtocolError('bad-multiaddr', 'address is empty')
  if (bytes.length > multiaddrBytes) {
    throw new ProtocolError('bad-multiaddr', `address of ${bytes.length} bytes, at most ${multiaddrBytes}`)
  }
  const out: Component[] = []
  try {
    for (let at = 0; at < bytes.length;) {
      if (out.length === multiaddrComponents) {
        throw new ProtocolError('bad-multiaddr', `more than ${multiaddrComponents} components`)
      }
      const protocol = protocolByCode(decodeVarint(bytes, at))
      at += varintLength(protocol.code)
      let length = protocol.value === undefined ? 0 : protocol.value.size
      if (length === undefined) {
        length = decodeVarint(bytes, at)
        at += varintLength(length)
      }
      if (length > bytes.length - at) {
        throw new ProtocolError(
          'bad-multiaddr',
          `${protocol.name} has ${length} bytes, only ${bytes.length - at} are left`,
        )
      }
      out.push(decodeComponent(protocol, bytes.slice(at, at + length)))
      at += length
    }
  } catch (error) {
    const reason = asError(error)
    throw new ProtocolError('bad-multiaddr', `component ${out.length + 1}: ${reason.message}`, { cause: reason })
  }
  return out
}

/** Throws TypeError for a name that no protocol has, ProtocolError `bad-multiaddr` for a value that it can't have. */
export function component(name: string, bytes: Uint8Array): Component {
  const protocol = protocolByName(name)
  if (protocol === undefined) throw new TypeError(`${quote(name)} is not the name of a multiaddr protocol`)
  return decodeComponent(protocol, bytes)
}

function decodeComponent({ code, name, value }: Protocol, bytes: Uint8Array): Component {
  if (value === undefined) return { code, name, value: undefined, bytes: none }
  const text = value.format(bytes)
  if (text === undefined) {
    throw new ProtocolError('bad-multiaddr', `${name}: ${toHex(bytes.subarray(0, 32))} is not ${value.what}`)
  }
  return { code, name, value: text, bytes }
}

function shorten(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}...` : text
}

function quote(text: string): string {
  return JSON.stringify(shorten(text, 100))
}

/** The mistake of those who know the form of go-multiaddr. */
function afterPath(before: Component | undefined): string {
  if (before?.name !== 'unix' && before?.name !== 'http-path') return ''
  return `; the path before it is one segment, its slashes are written %2F`
}

/** Throws TypeError that names the component and its position. */
export function parseComponents(text: string): Component[] {
  const fail = (reason: string, cause?: Error): never => {
    const shown = text === '' ? 'empty address' : shorten(text, 200)
    // the text may come from a stranger's DNS record: nothing of it may steer a terminal
    throw new TypeError(`${shown}: ${reason}`.replace(/[\p{Cc}\p{Cf}]/gu, '\ufffd'), { cause })
  }
  if (text.length > textLength) fail(`${text.length} characters, at most ${textLength}`)
  if (!text.startsWith('/')) fail('an address starts with "/"')
  // like go-multiaddr: slashes at the end mean nothing
  const parts = text.replace(/\/+$/, '').split('/').slice(1)
  if (parts.length === 0) fail('an address has at least one component')
  const out: Component[] = []
  let size = 0
  for (let i = 0; i < parts.length;) {
    const name = parts[i++] ?? ''
    const where = `component ${out.length + 1} ${quote(name)}`
    const protocol = protocolByName(name) ?? fail(`${where}: unknown protocol${afterPath(out.at(-1))}`)
    let component: Component = { code: protocol.code, name: protocol.name, value: undefined, bytes: none }
    if (protocol.value !== undefined) {
      const written = parts[i++]
      if (written === undefined) return fail(`${where}: it needs ${protocol.value.what} after it`)
      const isNot = `${where}: ${quote(written)} is not ${protocol.value.what}`
      let bytes
      try {
        bytes = protocol.value.parse(written)
      } catch (error) {
        return fail(`${where}: ${asError(error).message}`, asError(error))
      }
      if (bytes === undefined) return fail(isNot)
      component = { ...component, value: protocol.value.format(bytes) ?? fail(isNot), bytes }
    }
    out.push(component)
    size += componentLength(component)
    if (out.length > multiaddrComponents) fail(`more than ${multiaddrComponents} components`)
    if (size > multiaddrBytes) fail(`more than ${multiaddrBytes} bytes`)
  }
  return out
}
