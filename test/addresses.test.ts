import { describe, expect, it } from 'vitest'
import { Addresses, isPlausible, reachOf } from '../src/addresses.ts'
import { multiaddr, type Multiaddr } from '../src/multiaddr.ts'

const id = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA'

const sourced =
  (...addrs: string[]): (() => Multiaddr[]) =>
  () =>
    addrs.map((a) => multiaddr(a))

const many = (prefix: string): string[] => Array.from({ length: 60 }, (_, i) => `/ip4/${prefix}.${i}/tcp/4001`)

describe('what we announce', () => {
  it('is what all sources know, each address once', () => {
    const addresses = new Addresses()
    expect(addresses.all()).toEqual([])
    const undo = addresses.addSource(sourced('/ip4/1.2.3.4/tcp/1', '/ip4/10.0.0.1/tcp/1'))
    addresses.addSource(sourced('/ip4/1.2.3.4/tcp/1', '/ip4/5.6.7.8/tcp/1'))
    expect(addresses.all().map(String)).toEqual(['/ip4/1.2.3.4/tcp/1', '/ip4/10.0.0.1/tcp/1', '/ip4/5.6.7.8/tcp/1'])
    undo()
    expect(addresses.all().map(String)).toEqual(['/ip4/1.2.3.4/tcp/1', '/ip4/5.6.7.8/tcp/1'])
  })

  it('is what the user said in their place, without our /p2p', () => {
    const announce = [`/dns4/example.org/tcp/443/tls/ws/p2p/${id}`]
    const addresses = new Addresses({ announce })
    addresses.addSource(sourced('/ip4/1.2.3.4/tcp/1'))
    expect(addresses.all().map(String)).toEqual(['/dns4/example.org/tcp/443/tls/ws'])
    expect(new Addresses({ announce: [] }).all()).toEqual([])
    expect(() => new Addresses({ announce: ['nowhere'] })).toThrow(TypeError)
  })

  it.each([
    '/ip4/0.0.0.0/tcp/1',
    '/ip6/::/tcp/1',
    '/ip6zone/x/ip6/::/tcp/1',
    '/ip6/::ffff:0.0.0.0/tcp/1',
    '/ip4/0.0.0.0/ws',
  ])('is never the wildcard: %s', (wildcard) => {
    const addresses = new Addresses()
    addresses.addSource(sourced(wildcard, '/ip4/1.2.3.4/tcp/1'))
    expect(addresses.all().map(String)).toEqual(['/ip4/1.2.3.4/tcp/1'])
    expect(() => new Addresses({ announce: [wildcard] })).toThrow('nobody can dial the wildcard')
  })

  it.each([
    ['/ip4/10.0.0.0/ipcidr/8', ['/ip4/192.168.1.1/tcp/1', '/ip6/fe80::1/tcp/1']],
    ['/ip4/192.168.1.0/ipcidr/30', ['/ip4/10.1.2.3/tcp/1', '/ip6/fe80::1/tcp/1', '/ip4/10.1.2.3/udp/5/quic-v1']],
    ['/ip6/fe80::/ipcidr/10', ['/ip4/10.1.2.3/tcp/1', '/ip4/192.168.1.1/tcp/1', '/ip4/10.1.2.3/udp/5/quic-v1']],
    ['/ip4/0.0.0.0/ipcidr/0', ['/ip6/fe80::1/tcp/1']],
    ['/ip4/10.1.2.3/tcp/1', ['/ip4/192.168.1.1/tcp/1', '/ip6/fe80::1/tcp/1', '/ip4/10.1.2.3/udp/5/quic-v1']],
    ['/ip4/10.1.2.3', ['/ip4/192.168.1.1/tcp/1', '/ip6/fe80::1/tcp/1']],
    ['/ip4/10.1.2.3/tcp/11', undefined],
    ['/ip4/192.168.1.4/ipcidr/30', undefined],
  ])('leaves out %s', (no, left) => {
    const all = ['/ip4/10.1.2.3/tcp/1', '/ip4/192.168.1.1/tcp/1', '/ip6/fe80::1/tcp/1', '/ip4/10.1.2.3/udp/5/quic-v1']
    const addresses = new Addresses({ noAnnounce: [no] })
    addresses.addSource(sourced(...all))
    expect(addresses.all().map(String).toSorted()).toEqual((left ?? all).toSorted())
  })

  it('is at most 2 KiB, what reaches farthest first', () => {
    const addresses = new Addresses()
    addresses.addSource(sourced(...many('127.0.0'), ...many('10.0.0'), ...many('8.8.8'), ...many('9.9.9')))
    const all = addresses.all()
    expect(all.map(reachOf)).toEqual([...Array(120).fill('public'), ...Array(all.length - 120).fill('private')])
    expect(all.reduce((sum, a) => sum + a.bytes.length, 0)).toBeLessThanOrEqual(2048)
  })

  it('says when it is something else than last time', () => {
    const addresses = new Addresses()
    expect(addresses.changed()).toBe(false)
    const undo = addresses.addSource(sourced('/ip4/1.2.3.4/tcp/1'))
    expect(addresses.changed()).toBe(true)
    expect(addresses.changed()).toBe(false)
    undo()
    expect(addresses.changed()).toBe(true)
  })
})

it.each([
  ['/ip4/8.8.8.8/tcp/1', 'public'],
  ['/dns4/x.org/tcp/1', 'public'],
  ['/ip4/10.0.0.1/tcp/1', 'private'],
  ['/ip6zone/eth0/ip6/fe80::1/tcp/1', 'private'],
  ['/ip4/127.0.0.1/tcp/1', 'loopback'],
  ['/ip6/::1/tcp/1', 'loopback'],
  ['/ip4/192.0.2.1/tcp/1', 'unknown'],
  ['/memory/1', 'unknown'],
])('%s reaches as far as %s', (addr, reach) => {
  expect(reachOf(multiaddr(addr))).toBe(reach)
})

it.each([
  ['/ip4/8.8.8.8/tcp/1', ['/ip4/9.9.9.9/tcp/1', '/dns4/x.org/tcp/1', '/memory/1']],
  [
    '/ip4/10.0.0.1/tcp/1',
    ['/ip4/9.9.9.9/tcp/1', '/dns4/x.org/tcp/1', '/memory/1', '/ip4/10.9.9.9/tcp/1', '/ip4/192.0.2.1/tcp/1'],
  ],
  [
    '/ip4/127.0.0.1/tcp/1',
    [
      '/ip4/9.9.9.9/tcp/1',
      '/dns4/x.org/tcp/1',
      '/memory/1',
      '/ip4/10.9.9.9/tcp/1',
      '/ip4/192.0.2.1/tcp/1',
      '/ip6/::1/tcp/1',
    ],
  ],
])('a peer at %s may announce what reaches us', (remote, plausible) => {
  const all = [
    '/ip4/9.9.9.9/tcp/1',
    '/dns4/x.org/tcp/1',
    '/memory/1',
    '/ip4/10.9.9.9/tcp/1',
    '/ip4/192.0.2.1/tcp/1',
    '/ip6/::1/tcp/1',
  ]
  expect(all.filter((a) => isPlausible(multiaddr(a), multiaddr(remote)))).toEqual(plausible)
})
