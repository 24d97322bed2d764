import fc from 'fast-check'
import { isIPv4, isIPv6 } from 'node:net'
import { describe, expect, it } from 'vitest'
import {
  formatIp,
  formatIp6,
  isGlobal,
  isLinkLocal,
  isLoopback,
  isPrivate,
  isUnspecified,
  parseIp,
  parseIp4,
  parseIp6,
  samePrefix,
} from '../src/ip.ts'

function bytesOf(text: string): Uint8Array {
  const bytes = parseIp(text)
  if (bytes === undefined) throw new Error(`${text} is not an IP address`)
  return bytes
}

describe('IP addresses as text', () => {
  it.each([
    // RFC 5952 §1 to §5
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:DB8:0:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:db8:aaaa:bbbb:cccc:dddd:0:1', '2001:db8:aaaa:bbbb:cccc:dddd:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['1:0:0:0:0:0:0:0', '1::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['::1:0:0:0:0:0:0', '0:1::'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['::FFFF:C000:201', '::ffff:192.0.2.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ])('prints %s as %s', (text, printed) => {
    expect(formatIp6(bytesOf(text))).toBe(printed)
  })

  it('gives the same address back', () => {
    const anyIp = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.array(fc.constantFrom(0, 0, 1, 0xff, 0xab), { minLength: 16, maxLength: 16 }).map((b) => Uint8Array.from(b)),
    )
    fc.assert(
      fc.property(anyIp, (bytes) => {
        expect(parseIp(formatIp(bytes))).toEqual(bytes)
      }),
    )
  })

  it('takes what the platform takes, and nothing else', () => {
    const text = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcdef:::...%')) }),
      fc
        .array(fc.constantFrom('0', '1', 'ffff', '', '00', '256', '1.2.3.4'), { maxLength: 10 })
        .map((p) => p.join(':')),
      fc.array(fc.constantFrom('0', '1', '255', '', '00', '256', '-1'), { maxLength: 5 }).map((p) => p.join('.')),
    )
    fc.assert(
      fc.property(text, (t) => {
        expect([t, parseIp4(t) !== undefined]).toEqual([t, isIPv4(t)])
        expect([t, parseIp6(t) !== undefined]).toEqual([t, isIPv6(t) && !t.includes('%')])
      }),
      { numRuns: 1000 },
    )
  })
})

describe('what kind of IP address', () => {
  const kinds = { isUnspecified, isLoopback, isLinkLocal, isPrivate, isGlobal }
  it.each<[string, ...(keyof typeof kinds)[]]>([
    ['0.0.0.0', 'isUnspecified'],
    ['::', 'isUnspecified'],
    ['::ffff:0.0.0.0', 'isUnspecified'],
    ['127.0.0.1', 'isLoopback'],
    ['127.255.255.255', 'isLoopback'],
    ['::1', 'isLoopback'],
    ['::ffff:127.0.0.1', 'isLoopback'],
    ['10.0.0.1', 'isPrivate'],
    ['172.15.255.255', 'isGlobal'],
    ['172.16.0.0', 'isPrivate'],
    ['172.31.255.255', 'isPrivate'],
    ['172.32.0.0', 'isGlobal'],
    ['192.168.1.1', 'isPrivate'],
    ['::ffff:192.168.1.1', 'isPrivate'],
    ['100.63.255.255', 'isGlobal'],
    ['100.64.0.0', 'isPrivate'],
    ['100.127.255.255', 'isPrivate'],
    ['100.128.0.0', 'isGlobal'],
    ['169.254.1.1', 'isLinkLocal', 'isPrivate'],
    ['fe80::1', 'isLinkLocal', 'isPrivate'],
    ['febf::1', 'isLinkLocal', 'isPrivate'],
    ['fec0::1', 'isGlobal'],
    ['fc00::1', 'isPrivate'],
    ['fdff::1', 'isPrivate'],
    ['1.1.1.1', 'isGlobal'],
    ['::ffff:1.1.1.1', 'isGlobal'],
    ['2400::1', 'isGlobal'],
    ['64:ff9b::1.1.1.1', 'isGlobal'],
    ['2001:db8::42'],
    ['3fff:fff::1'],
    ['3fff:1000::1', 'isGlobal'],
    ['100::1'],
    ['ff02::1'],
    ['0.1.2.3'],
    ['192.0.2.1'],
    ['198.18.0.1'],
    ['198.19.255.255'],
    ['198.20.0.0', 'isGlobal'],
    ['224.0.0.1'],
    ['255.255.255.255'],
  ])('%s is %s %s', (text, ...expected) => {
    const bytes = bytesOf(text)
    const found = Object.entries(kinds).filter(([, is]) => is(bytes))
    expect(found.map(([name]) => name)).toEqual(expected)
  })
})

describe('samePrefix', () => {
  it.each([
    ['10.1.2.3', '10.1.2.3', 32, true],
    ['10.1.2.3', '10.1.2.2', 31, true],
    ['10.1.2.3', '10.1.2.2', 32, false],
    ['10.128.0.0', '10.0.0.0', 8, true],
    ['10.128.0.0', '10.0.0.0', 9, false],
    ['1.2.3.4', '200.2.3.4', 0, true],
    ['2001:db8::1', '2001:db8::2', 64, true],
    ['2001:db8:0:1::', '2001:db8::', 64, false],
    ['0.0.0.0', '::', 0, false],
  ])('of %s and %s over %i bits is %s', (a, b, bits, same) => {
    expect(samePrefix(bytesOf(a), bytesOf(b), bits)).toBe(same)
  })
})
