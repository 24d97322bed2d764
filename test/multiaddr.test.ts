import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, fromHex, fromUtf8, toHex } from '../src/bytes.ts'
import { ProtocolError } from '../src/errors.ts'
import { formatIp, formatIp4, formatIp6 } from '../src/ip.ts'
import {
  decodeMultiaddr,
  fromHostPort,
  hostPort,
  ipOf,
  multiaddr,
  multiaddrBytes,
  parseMultiaddr,
} from '../src/multiaddr.ts'
import type { Multiaddr } from '../src/multiaddr.ts'
import { encodeMultibase } from '../src/multibase.ts'
import { PeerId } from '../src/peer/id.ts'
import { encodeVarint } from '../src/varint.ts'
import { specCases } from './vectors.ts'

const relay = PeerId.parse('QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC')
const target = PeerId.parse('12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV')

function refusal(bytes: Uint8Array): string | undefined {
  try {
    decodeMultiaddr(bytes)
    return undefined
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    expect(error.code).toBe('bad-multiaddr')
    return error.message
  }
}

/** A unix address with a path of so many bytes. */
function unix(length: number): Uint8Array {
  return concat([fromHex('9003'), encodeVarint(length), new Uint8Array(length)])
}

function bytes(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length })
}

/** Refused, or read as what it is: canonical bytes and text that says the same. */
function check(bytes: Uint8Array): void {
  if (refusal(bytes) !== undefined) return
  const addr = decodeMultiaddr(bytes)
  expect(toHex(addr.bytes)).toBe(toHex(bytes))
  expect(toHex(parseMultiaddr(addr.toString()).bytes)).toBe(toHex(bytes))
}

describe('vectors', () => {
  it('reads and writes the scenario of multiaddr.feature both ways', () => {
    for (const vector of specCases('multiaddr/feature.json') as {
      text: string
      bytes: string
      components: { text: string; bytes: string; value: string; protocol: string; code: number; rawValue: string }[]
    }[]) {
      const addr = multiaddr(vector.text)
      expect(toHex(addr.bytes)).toBe(vector.bytes)
      expect(multiaddr(fromHex(vector.bytes)).toString()).toBe(vector.text)
      expect(
        addr.components().map(({ name, code, value, bytes }) => ({ name, code, value, bytes: toHex(bytes) })),
      ).toEqual(vector.components.map((c) => ({ name: c.protocol, code: c.code, value: c.value, bytes: c.rawValue })))
      for (const component of vector.components) expect(toHex(multiaddr(component.text).bytes)).toBe(component.bytes)
    }
  })

  it('gives the bytes that go and js give', () => {
    for (const { text, bytes } of specCases('multiaddr/bytes.json') as { text: string; bytes: string }[]) {
      expect(toHex(parseMultiaddr(text).bytes)).toBe(bytes)
      expect(decodeMultiaddr(fromHex(bytes)).toString()).toBe(text)
    }
  })

  const valid = specCases('multiaddr/valid.json') as { text: string; printed?: string }[]
  it.each(valid)('takes $text', ({ text, printed = text }) => {
    const addr = parseMultiaddr(text)
    expect(addr.toString()).toBe(printed)
    expect(parseMultiaddr(printed).equals(addr)).toBe(true)
    expect(decodeMultiaddr(addr.bytes).toString()).toBe(printed)
  })

  const invalid = specCases('multiaddr/invalid.json') as { text: string }[]
  it.each(invalid)('refuses $text', ({ text }) => {
    expect(() => parseMultiaddr(text)).toThrow(TypeError)
  })

  const invalidBytes = specCases('multiaddr/invalid-bytes.json') as { bytes: string }[]
  it.each(invalidBytes)('refuses the bytes $bytes', ({ bytes }) => {
    expect(refusal(fromHex(bytes))).toBeDefined()
  })
})

describe('reading what a user wrote', () => {
  it.each([
    ['/ip4/1.2.3.999/tcp/1', '/ip4/1.2.3.999/tcp/1: component 1 "ip4": "1.2.3.999" is not an IPv4 address'],
    ['/ip4/1.2.3.4/tcp/x', '/ip4/1.2.3.4/tcp/x: component 2 "tcp": "x" is not a port (0 to 65535)'],
    ['/ip4/1.2.3.4/tcp', '/ip4/1.2.3.4/tcp: component 2 "tcp": it needs a port (0 to 65535) after it'],
    ['/ip4/1.2.3.4/tpc/1', '/ip4/1.2.3.4/tpc/1: component 2 "tpc": unknown protocol'],
    ['/ip4/1.2.3.4//tcp/1', '/ip4/1.2.3.4//tcp/1: component 2 "": unknown protocol'],
    ['/ipfs/x', '/ipfs/x: component 1 "ipfs": "x" is not a peer id: "x" is not a known multibase prefix'],
    ['', 'empty address: an address starts with "/"'],
    ['example.com:80', 'example.com:80: an address starts with "/"'],
    [
      '/unix/tmp/sock',
      '/unix/tmp/sock: component 2 "sock": unknown protocol; the path before it is one segment, its slashes are written %2F',
    ],
  ])('points at the mistake in %j', (text, message) => {
    expect(() => parseMultiaddr(text)).toThrow(new TypeError(message))
  })

  it('shortens what it quotes of a long address', () => {
    expect(() => parseMultiaddr(`/x${'y'.repeat(3000)}`)).toThrow(/^.{100,400}unknown protocol$/)
    expect(() => parseMultiaddr(`/ip4/${'y'.repeat(3000)}`)).toThrow(/^.{100,400}is not an IPv4 address$/)
  })

  it('repeats nothing that could steer a terminal', () => {
    expect(() => parseMultiaddr('/dns4/\u001b[31m\u202e\u009b')).toThrow(/^[^\p{Cc}\p{Cf}]+$/u)
  })

  it('keeps control characters, spaces and slashes out of names', () => {
    for (const bad of ['\n', '\u0000', '\u001b[31m', ' ', '\u202e', '\u0085', '\ud800']) {
      expect(() => parseMultiaddr(`/dns4/a${bad}b`)).toThrow(TypeError)
    }
    for (const hex of ['0a', '1b', '2f', '20', 'c285', 'e280ae', 'ff']) {
      expect(refusal(fromHex(`36${toHex(encodeVarint(hex.length / 2))}${hex}`))).toMatch(/dns4|UTF-8/)
    }
    expect(parseMultiaddr('/dns4/例え.jp/tcp/1').value('dns4')).toBe('例え.jp')
  })
})

describe('limits', () => {
  it('takes 32 components and refuses one more', () => {
    expect(parseMultiaddr('/tls'.repeat(32)).components()).toHaveLength(32)
    expect(() => parseMultiaddr('/tls'.repeat(33))).toThrow(/more than 32 components/)
    const tls = multiaddr('/tls').bytes
    expect(refusal(concat(Array.from({ length: 32 }, () => tls)))).toBeUndefined()
    expect(refusal(concat(Array.from({ length: 33 }, () => tls)))).toMatch(/more than 32 components/)
  })

  it('takes 1024 bytes and refuses one more', () => {
    expect(unix(1020)).toHaveLength(multiaddrBytes)
    expect(refusal(unix(1020))).toBeUndefined()
    expect(refusal(unix(1021))).toMatch(/at most 1024/)
    expect(parseMultiaddr(`/unix/${'a'.repeat(1020)}`).bytes).toHaveLength(1024)
    expect(() => parseMultiaddr(`/unix/${'a'.repeat(1021)}`)).toThrow(/more than 1024 bytes/)
    expect(() => parseMultiaddr(`/unix/${'%41'.repeat(1400)}`)).toThrow(/at most 4096/)
  })

  it('refuses a name of more than 255 characters', () => {
    expect(parseMultiaddr(`/dns4/${'a'.repeat(255)}`).value('dns4')).toHaveLength(255)
    expect(() => parseMultiaddr(`/dns4/${'a'.repeat(256)}`)).toThrow(/is not a DNS name/)
  })

  it('believes no length that goes beyond the bytes', () => {
    expect(refusal(fromHex('36ffffffffffffff0f61'))).toMatch(/dns4 has \d+ bytes, only 1 are left/)
  })
})

describe('Multiaddr', () => {
  const direct = multiaddr('/ip4/1.2.3.4/tcp/80')
  const relayed = multiaddr(`/ip4/1.2.3.4/tcp/80/p2p/${relay.toString()}/p2p-circuit/p2p/${target.toString()}`)

  it('is itself when made from itself, and equal when made from its text or bytes', () => {
    expect(multiaddr(direct)).toBe(direct)
    expect(multiaddr(direct.toString()).equals(direct)).toBe(true)
    expect(multiaddr(direct.bytes).equals(direct)).toBe(true)
    expect(multiaddr('/ip4/1.2.3.4/udp/80').equals(direct)).toBe(false)
    expect(JSON.stringify([direct])).toBe('["/ip4/1.2.3.4/tcp/80"]')
  })

  it('does not change when the bytes it was read from do', () => {
    const bytes = direct.bytes.slice()
    const addr = multiaddr(bytes)
    bytes.fill(0)
    expect(addr.equals(direct)).toBe(true)
    expect(addr.components()[0]?.bytes).toEqual(Uint8Array.of(1, 2, 3, 4))
  })

  it('encapsulates', () => {
    expect(direct.encapsulate('/ws').toString()).toBe('/ip4/1.2.3.4/tcp/80/ws')
    expect(direct.encapsulate(multiaddr('/udp/5')).toString()).toBe('/ip4/1.2.3.4/tcp/80/udp/5')
    expect(direct.toString()).toBe('/ip4/1.2.3.4/tcp/80')
  })

  it.each([
    ['/ip4/1.2.3.4/tcp/1234', '/ip4/1.2.3.4', '/'],
    ['/ip4/1.2.3.4', '/ip4/1.2.3.4/tcp/1234', '/ip4/1.2.3.4'],
    ['/ip4/1.2.3.5/tcp/1234', '/ip4/5.3.2.1', '/ip4/1.2.3.5/tcp/1234'],
    ['/ip4/1.2.3.5/udp/1234/quic-v1', '/udp/1234', '/ip4/1.2.3.5'],
    ['/ip4/1.2.3.6/udp/1234/quic-v1', '/udp/1234/quic-v1', '/ip4/1.2.3.6'],
    ['/ip4/1.2.3.7/tcp/1234', '/ws', '/ip4/1.2.3.7/tcp/1234'],
    ['/dnsaddr/wss.com/tcp/4001/ws', '/wss', '/dnsaddr/wss.com/tcp/4001/ws'],
    ['/dnsaddr/wss.com/tcp/4001/wss', 'wss', '/dnsaddr/wss.com/tcp/4001'],
    ['/ip4/1.2.3.4/tcp/1/ip4/1.2.3.4/tcp/2', '/ip4/1.2.3.4', '/ip4/1.2.3.4/tcp/1'],
    ['/ip4/1.2.3.4/tcp/1/ip4/5.6.7.8/tcp/2', 'ip4', '/ip4/1.2.3.4/tcp/1'],
    ['/ip4/1.2.3.4/tcp/1', 'p2p', '/ip4/1.2.3.4/tcp/1'],
  ])('cuts %s at the last %s: %s', (addr, part, rest) => {
    expect(multiaddr(addr).decapsulate(part).toString()).toBe(rest)
    if (part.startsWith('/')) expect(multiaddr(addr).decapsulate(multiaddr(part)).toString()).toBe(rest)
  })

  it('knows the peer it leads to', () => {
    expect(direct.peerId()).toBeUndefined()
    expect(relayed.peerId()?.equals(target)).toBe(true)
    expect(relayed.withoutPeer().peerId()).toBeUndefined()
    expect(relayed.withoutPeer().withoutPeer().toString()).toBe(relayed.withoutPeer().toString())
    expect(relayed.decapsulate('p2p-circuit').peerId()?.equals(relay)).toBe(true)
    expect(relayed.encapsulate('/http-path/foo').peerId()?.equals(target)).toBe(true)
  })

  it('puts a peer at the end, once', () => {
    const addr = direct.withPeer(target)
    expect(addr.toString()).toBe(`/ip4/1.2.3.4/tcp/80/p2p/${target.toString()}`)
    expect(addr.withPeer(target)).toBe(addr)
    expect(addr.withPeer(relay).toString()).toBe(`/ip4/1.2.3.4/tcp/80/p2p/${relay.toString()}`)
    expect(addr.withoutPeer().equals(direct)).toBe(true)
    expect(relayed.withoutPeer().withPeer(target).equals(relayed)).toBe(true)
  })

  it('answers what it has by name, and refuses names that nothing has', () => {
    expect(direct.has('tcp')).toBe(true)
    expect(direct.has('udp')).toBe(false)
    expect(direct.value('tcp')).toBe('80')
    expect(direct.value('udp')).toBeUndefined()
    expect(relayed.value('p2p-circuit')).toBeUndefined()
    expect(relayed.value('ipfs')).toBe(relay.toString())
    expect(() => direct.has('tpc')).toThrow(/"tpc" is not the name of a multiaddr protocol/)
    expect(() => direct.value('constructor')).toThrow(TypeError)
  })

  it('is printed as "/" when nothing is left, and that cannot be read', () => {
    const nothing = direct.decapsulate('ip4')
    expect(nothing.toString()).toBe('/')
    expect(nothing.bytes).toHaveLength(0)
    expect(nothing.encapsulate(direct).equals(direct)).toBe(true)
    expect(() => multiaddr('/')).toThrow(/at least one component/)
  })
})

describe('a text that was read before', () => {
  it('is the same address, however many others came meanwhile', () => {
    const texts = Array.from({ length: 200 }, (_, i) => `/ip4/192.0.2.1/tcp/${i}`)
    for (const text of [...texts, ...texts]) expect(multiaddr(text).toString()).toBe(text)
    expect(multiaddr(texts[199] ?? '')).toBe(multiaddr(texts[199] ?? ''))
    expect(() => multiaddr('/ip4/1')).toThrow(TypeError)
    expect(() => multiaddr('/ip4/1')).toThrow(TypeError)
  })
})

describe('hostPort', () => {
  it.each([
    ['/ip4/1.2.3.4/tcp/80', { host: '1.2.3.4', port: 80, family: 4, network: 'tcp' }],
    ['/ip6/::1/udp/0/quic-v1', { host: '::1', port: 0, family: 6, network: 'udp' }],
    ['/ip6zone/eth0/ip6/fe80::1/tcp/1', { host: 'fe80::1%eth0', port: 1, family: 6, network: 'tcp' }],
    ['/dns/a.example/tcp/443/tls/ws', { host: 'a.example', port: 443, family: 'dns', network: 'tcp' }],
    ['/dns4/a.example/tcp/1', { host: 'a.example', port: 1, family: 'dns4', network: 'tcp' }],
    ['/dns6/a.example/udp/1', { host: 'a.example', port: 1, family: 'dns6', network: 'udp' }],
    ['/dnsaddr/a.example/tcp/1', undefined],
    ['/ip4/1.2.3.4', undefined],
    ['/ip4/1.2.3.4/sctp/1', undefined],
    ['/tcp/1/ip4/1.2.3.4', undefined],
    ['/ip6zone/eth0/ip4/1.2.3.4/tcp/1', undefined],
    ['/ip4/1.2.3.4/tls/tcp/1', undefined],
    ['/memory/1', undefined],
  ])('of %s', (text, expected) => {
    expect(hostPort(multiaddr(text))).toEqual(expected)
  })

  it.each([
    ['/ip4/1.2.3.4/tcp/80', '1.2.3.4'],
    ['/ip4/1.2.3.4/ws', '1.2.3.4'],
    ['/ip6zone/eth0/ip6/fe80::1/udp/1', 'fe80::1'],
    ['/ip6/::ffff:1.2.3.4/tcp/1', '::ffff:1.2.3.4'],
    ['/dns4/127.0.0.1/tcp/1', '127.0.0.1'],
    ['/dns4/a.example/tcp/1', undefined],
    ['/memory/1', undefined],
    ['/p2p-circuit/ip4/1.2.3.4', undefined],
  ])('the IP address of %s is %s', (text, ip) => {
    const found = ipOf(multiaddr(text))
    expect(found && formatIp(found)).toBe(ip)
  })

  it.each([
    ['127.0.0.1', '/ip4/127.0.0.1/tcp/80'],
    ['::ffff:127.0.0.1', '/ip4/127.0.0.1/tcp/80'],
    ['::ffff:7f00:1', '/ip4/127.0.0.1/tcp/80'],
    ['::', '/ip6/::/tcp/80'],
    ['fe80::1%eth0', '/ip6zone/eth0/ip6/fe80::1/tcp/80'],
  ])('makes the address of a socket at %s', (host, text) => {
    expect(fromHostPort(host, 80).toString()).toBe(text)
  })

  it('takes only IP addresses and ports for an address of a socket', () => {
    expect(() => fromHostPort('localhost', 80)).toThrow(TypeError)
    expect(() => fromHostPort('127.0.0.1', 65_536)).toThrow(TypeError)
    expect(() => fromHostPort('127.0.0.1', 1.5)).toThrow(TypeError)
    expect(fromHostPort('::1', 1, 'udp').toString()).toBe('/ip6/::1/udp/1')
  })
})

describe('any address', () => {
  const word = fc.string({ minLength: 1, maxLength: 20, unit: fc.constantFrom(...Array.from('abcXYZ019.-_%:ü例')) })
  const multihash = bytes(32).map((digest) => concat([Uint8Array.of(0x12, 32), digest]))
  const segment = fc
    .uint8Array({ minLength: 1, maxLength: 20 })
    .map((b) => `%${toHex(b).match(/../g)?.join('%') ?? ''}`)
  const valueless =
    'tls noise quic quic-v1 webtransport ws wss http https webrtc-direct webrtc p2p-circuit udt utp p2p-stardust p2p-webrtc-star p2p-webrtc-direct p2p-websocket-star'
  const port = fc.nat(65_535)
  const component = fc.oneof(
    bytes(4).map((b) => `/ip4/${formatIp4(b)}`),
    bytes(16).map((b) => `/ip6/${formatIp6(b)}`),
    fc.tuple(fc.constantFrom('tcp', 'udp', 'dccp', 'sctp'), port).map(([name, n]) => `/${name}/${n}`),
    fc.nat(255).map((n) => `/ipcidr/${n}`),
    fc
      .tuple(fc.constantFrom('dns', 'dns4', 'dns6', 'dnsaddr', 'sni', 'ip6zone', 'memory'), word)
      .map(([name, value]) => `/${name}/${value}`),
    multihash.map((b) => `/p2p/${PeerId.decode(b).toString()}`),
    multihash.map((b) => `/certhash/${encodeMultibase('base64url', b)}`),
    bytes(10).map((b) => `/onion/${encodeMultibase('base32', b).slice(1)}:80`),
    bytes(35).map((b) => `/onion3/${encodeMultibase('base32', b).slice(1)}:65535`),
    bytes(32).map((b) => `/garlic32/${encodeMultibase('base32', b).slice(1)}`),
    fc.tuple(fc.constantFrom('unix', 'http-path'), segment).map(([name, value]) => `/${name}/${value}`),
    fc.constantFrom(...valueless.split(' ')).map((name) => `/${name}`),
  )
  const anyAddress: fc.Arbitrary<Multiaddr> = fc
    .array(component, { minLength: 1, maxLength: 8 })
    .map((parts) => parseMultiaddr(parts.join('')))

  // fast-check's own unit of all code points takes seconds to build
  const character = fc.oneof(fc.nat(0xff), fc.nat(0xffff)).map((code) => String.fromCharCode(code))
  const anyText = fc.string({ unit: character })

  it('goes through text and bytes and comes back the same', () => {
    fc.assert(
      fc.property(anyAddress, (addr) => {
        const again = decodeMultiaddr(addr.bytes)
        expect(again.toString()).toBe(addr.toString())
        expect(toHex(parseMultiaddr(addr.toString()).bytes)).toBe(toHex(addr.bytes))
        const [first, ...rest] = addr.components()
        expect(rest.length + (first === undefined ? 0 : 1)).toBe(again.components().length)
      }),
    )
  })

  it('is cut where it was put together', () => {
    fc.assert(
      fc.property(anyAddress, anyAddress, (a, b) => {
        const both = a.encapsulate(b)
        expect(toHex(both.bytes)).toBe(toHex(a.bytes) + toHex(b.bytes))
        expect(both.decapsulate(b).encapsulate(b).bytes.length).toBeLessThanOrEqual(both.bytes.length)
      }),
    )
  })

  it('is read from random bytes only when they are canonical', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), check))
  })

  it('is read from damaged bytes only when they are canonical', () => {
    fc.assert(
      fc.property(anyAddress, fc.nat(), fc.nat(255), fc.nat(10), (addr, at, value, cut) => {
        const changed = addr.bytes.slice()
        changed[at % changed.length] = value
        check(changed)
        check(addr.bytes.subarray(0, Math.max(0, addr.bytes.length - cut)))
      }),
    )
  })

  it('is refused as a TypeError or read, whatever the text', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        for (const tried of [
          text,
          `/${text}`,
          `/dns4/${text}`,
          `/unix/${text}`,
          `/p2p/${text}`,
          `/certhash/u${text}`,
        ]) {
          try {
            check(parseMultiaddr(tried).bytes)
          } catch (error) {
            expect(error).toBeInstanceOf(TypeError)
          }
        }
      }),
    )
  })

  it('is not fooled by varints that are not minimal', () => {
    expect(refusal(fromHex('8400'))).toMatch(/not minimal/)
    expect(refusal(concat([fromHex('368500'), fromUtf8('abcde')]))).toMatch(/not minimal/)
  })
})
