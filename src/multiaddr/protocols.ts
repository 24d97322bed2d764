/*
 * multiaddr protocols.csv (multiformats/multiaddr 9b7b3fa, 2025-04-28): all its rows, and how each protocol's value is
 * written as text and as bytes. `unix` and `http-path` are one percent-encoded segment (protocols/http-path.md; js does
 * the same with unix paths, go prints those unescaped to the end of the address; the bytes are the same).
 * `memory` takes any name, as in the table and in js; go and rust have a fixed 64-bit number there.
 */
import { fromUtf8, toUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { formatIp4, formatIp6, parseIp4, parseIp6 } from '../ip.ts'
import { decodeBase, decodeMultibase, encodeBase, encodeMultibase } from '../multibase.ts'
import { PeerId } from '../peer/id.ts'
import { readVarint, varintLength } from '../varint.ts'

/** How one kind of value is written. */
export interface ValueCodec {
  /** What messages call it: `"x" is not an IPv4 address`. */
  readonly what: string
  /** Bytes, or undefined where a varint length stands before the value. */
  readonly size: number | undefined
  /** Throws TypeError or returns undefined when it is not one. */
  parse(text: string): Uint8Array | undefined
  /** Throws ProtocolError or returns undefined when it is not one; parse gives the same bytes back. */
  format(bytes: Uint8Array): string | undefined
}

export interface Protocol {
  readonly code: number
  readonly name: string
  /** Undefined: the protocol has no value. */
  readonly value: ValueCodec | undefined
}

const ip4: ValueCodec = { what: 'an IPv4 address', size: 4, parse: parseIp4, format: formatIp4 }
const ip6: ValueCodec = { what: 'an IPv6 address', size: 16, parse: parseIp6, format: formatIp6 }

/** A decimal number without leading zeros, big-endian. */
function number(what: string, size: 1 | 2): ValueCodec {
  return {
    what,
    size,
    parse(text) {
      if (!/^(0|[1-9]\d{0,4})$/.test(text)) return undefined
      const value = Number(text)
      if (value >= 256 ** size) return undefined
      return size === 1 ? Uint8Array.of(value) : Uint8Array.of(value >> 8, value & 255)
    },
    format: (bytes) => String(bytes.reduce((sum, byte) => sum * 256 + byte, 0)),
  }
}

/** UTF-8 without slash, white space and control characters, at most 255 characters. */
function word(what: string): ValueCodec {
  return {
    what,
    size: undefined,
    parse: (text) => (isWord(text) ? fromUtf8(text) : undefined),
    format(bytes) {
      const text = toUtf8(bytes)
      return isWord(text) ? text : undefined
    },
  }
}

function isWord(text: string): boolean {
  // control and format characters must not get into logs and terminals
  return text !== '' && text.length <= 255 && text.isWellFormed() && !/[\s/\p{Cc}\p{Cf}]/u.test(text)
}

/** Any bytes; in text one segment-nz of RFC 3986 §3.3. Text is not canonical, bytes are. */
const segment: ValueCodec = {
  what: 'a percent-encoded path segment',
  size: undefined,
  parse(text) {
    if (text === '' || !/^([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+$/.test(text)) return undefined
    const out = new Uint8Array(text.length)
    let length = 0
    for (let i = 0; i < text.length; i++) {
      if (text[i] === '%') {
        out[length++] = Number.parseInt(text.slice(i + 1, i + 3), 16)
        i += 2
      } else {
        out[length++] = text.charCodeAt(i)
      }
    }
    return out.slice(0, length)
  },
  format(bytes) {
    if (bytes.length === 0) return undefined
    let text = ''
    for (const byte of bytes) {
      const char = String.fromCharCode(byte)
      text += /[A-Za-z0-9\-._~]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
    }
    return text
  },
}

const peer: ValueCodec = {
  what: 'a peer id',
  size: undefined,
  parse: (text) => PeerId.parse(text).bytes,
  format: (bytes) => PeerId.decode(bytes).toString(),
}

/** A multihash; the base is free in text and base64url when printed, as deployed nodes print it. */
const certhash: ValueCodec = {
  what: 'a multihash in multibase',
  size: undefined,
  parse(text) {
    const { bytes } = decodeMultibase(text, 256)
    return isMultihash(bytes) ? bytes : undefined
  },
  format: (bytes) => (isMultihash(bytes) ? encodeMultibase('base64url', bytes) : undefined),
}

function isMultihash(bytes: Uint8Array): boolean {
  const code = readVarint(bytes)
  if (code === undefined) return false
  const length = readVarint(bytes, varintLength(code))
  return length !== undefined && bytes.length === varintLength(code) + varintLength(length) + length && length <= 128
}

/** Tor: the service's name in base32, a colon, a port from 1 to 65535. */
function onion(what: string, hostBytes: number): ValueCodec {
  const port = number('a port', 2)
  return {
    what,
    size: hostBytes + 2,
    parse(text) {
      const [host = '', digits = '', more] = text.split(':')
      const name = decodeBase('base32', host, 64)
      const tail = port.parse(digits)
      if (more !== undefined || name.length !== hostBytes || tail === undefined || digits === '0') return undefined
      const out = new Uint8Array(hostBytes + 2)
      out.set(name)
      out.set(tail, hostBytes)
      return out
    },
    format(bytes) {
      const digits = port.format(bytes.subarray(hostBytes))
      return digits === '0' ? undefined : `${encodeBase('base32', bytes.subarray(0, hostBytes))}:${digits}`
    },
  }
}

/** I2P destinations: base64 with `-~` and padding, 386 bytes and more. */
const garlic64: ValueCodec = {
  what: 'an I2P destination in base64',
  size: undefined,
  parse(text) {
    if (!/^[A-Za-z0-9\-~]*={0,2}$/.test(text) || text.length % 4 !== 0) return undefined
    const plain = text.replaceAll('-', '+').replaceAll('~', '/').replace(/=+$/, '')
    return i2pDestination(decodeBase('base64', plain, 1024))
  },
  format(bytes) {
    const text = encodeBase('base64', bytes).replaceAll('+', '-').replaceAll('/', '~')
    return i2pDestination(bytes) && text + '='.repeat(-text.length & 3)
  },
}

function i2pDestination(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length >= 386 ? bytes : undefined
}

/** I2P hashes: base32, 32 bytes, or 35 and more for encrypted lease sets. */
const garlic32: ValueCodec = {
  what: 'an I2P hash in base32',
  size: undefined,
  parse: (text) => i2pHash(decodeBase('base32', text, 256)),
  format: (bytes) => i2pHash(bytes) && encodeBase('base32', bytes),
}

function i2pHash(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length === 32 || bytes.length >= 35 ? bytes : undefined
}

const port = number('a port (0 to 65535)', 2)
const name = word('a DNS name')

const table: readonly (readonly [code: number, name: string, value?: ValueCodec])[] = [
  [4, 'ip4', ip4],
  [6, 'tcp', port],
  [33, 'dccp', port],
  [41, 'ip6', ip6],
  [42, 'ip6zone', word('an IPv6 zone')],
  [43, 'ipcidr', number('a prefix length (0 to 255)', 1)],
  [53, 'dns', name],
  [54, 'dns4', name],
  [55, 'dns6', name],
  [56, 'dnsaddr', name],
  [132, 'sctp', port],
  [273, 'udp', port],
  [275, 'p2p-webrtc-star'],
  [276, 'p2p-webrtc-direct'],
  [277, 'p2p-stardust'],
  [280, 'webrtc-direct'],
  [281, 'webrtc'],
  [290, 'p2p-circuit'],
  [301, 'udt'],
  [302, 'utp'],
  [400, 'unix', segment],
  [421, 'p2p', peer],
  [443, 'https'],
  [444, 'onion', onion('an onion service with a port', 10)],
  [445, 'onion3', onion('an onion v3 service with a port', 35)],
  [446, 'garlic64', garlic64],
  [447, 'garlic32', garlic32],
  [448, 'tls'],
  [449, 'sni', word('a server name')],
  [454, 'noise'],
  [460, 'quic'],
  [461, 'quic-v1'],
  [465, 'webtransport'],
  [466, 'certhash', certhash],
  [477, 'ws'],
  [478, 'wss'],
  [479, 'p2p-websocket-star'],
  [480, 'http'],
  [481, 'http-path', segment],
  [777, 'memory', word('a name')],
]

const protocols: readonly Protocol[] = table.map(([code, name, value]) => ({ code, name, value }))
const codes = new Map(protocols.map((protocol) => [protocol.code, protocol]))
const names = new Map(protocols.map((protocol) => [protocol.name, protocol]))
const p2p = names.get('p2p')
if (p2p !== undefined) names.set('ipfs', p2p) // the older name: read, never printed

export function protocolByName(name: string): Protocol | undefined {
  return names.get(name)
}

/** Throws ProtocolError `bad-multiaddr`: without the table's row nobody knows where the value ends. */
export function protocolByCode(code: number): Protocol {
  const protocol = codes.get(code)
  if (protocol === undefined) throw new ProtocolError('bad-multiaddr', `unknown protocol code ${code}`)
  return protocol
}
