import { describe, expect, it } from 'vitest'
import { multiaddr } from '../../src/multiaddr.ts'
import { PendingInbound, hostOf } from '../../src/peer/pending.ts'

const host = (text: string): string => hostOf(multiaddr(text))

describe('pending inbound connections', () => {
  it('count as one host by IPv4 address, by IPv6 network, else by the whole address', () => {
    expect(host('/ip4/1.2.3.4/tcp/5')).toBe(host('/ip4/1.2.3.4/tcp/6'))
    expect(host('/ip4/1.2.3.4/tcp/5')).not.toBe(host('/ip4/1.2.3.5/tcp/5'))
    expect(host('/ip6/2001:db8:0:1::1/tcp/5')).toBe(host('/ip6/2001:db8:0:1:ffff::9/tcp/6'))
    expect(host('/ip6/2001:db8:0:1::1/tcp/5')).not.toBe(host('/ip6/2001:db8:0:2::1/tcp/5'))
    expect(host('/ip6zone/eth0/ip6/fe80::1/tcp/5')).toBe(host('/ip6/fe80::2/tcp/5'))
    expect(host('/memory/1')).not.toBe(host('/memory/2'))
  })

  it('let the oldest of the host that has most make room', () => {
    const pending = new PendingInbound<string>(3)
    expect(['a1', 'b1', 'a2'].map((one) => pending.add(one.charAt(0), one))).toEqual([undefined, undefined, undefined])
    expect(pending.add('c', 'c1')).toBe('a1')
    expect(pending.size).toBe(3)
    // Nobody has more than the newcomer's host: it pays itself.
    expect(pending.add('b', 'b2')).toBe('b1')
    expect([...pending.values()].toSorted()).toEqual(['a2', 'b2', 'c1'])
    pending.delete('a', 'a1')
    pending.delete('c', 'c1')
    expect(pending.size).toBe(2)
    expect(pending.add('d', 'd1')).toBeUndefined()
  })

  it('refuse everybody where none is allowed', () => {
    const pending = new PendingInbound<string>(0)
    expect(pending.add('a', 'a1')).toBe('a1')
    expect(pending.size).toBe(0)
  })
})
