import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rank, type Ranked } from '../../src/dial/rank.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { generateKey } from '../../src/peer/keys.ts'

const all = { canDial: () => true, own: [] }
const { peerId } = generateKey().publicKey

function order(addrs: readonly string[]): [string, number][] {
  return rank(
    addrs.map((addr) => multiaddr(addr)),
    all,
  ).ranked.map(({ addr, delayMs }) => [String(addr), delayMs])
}

const quic4 = '/ip4/1.2.3.4/udp/4001/quic-v1'
const quic6 = '/ip6/2a00::1/udp/4001/quic-v1'
const tcp4 = '/ip4/1.2.3.4/tcp/4001'
const tcp6 = '/ip6/2a00::1/tcp/4001'
const relay = `/ip4/5.6.7.8/tcp/4001/p2p/${peerId}/p2p-circuit`

describe('ranking', () => {
  it.each<[what: string, [string, number][]]>([
    ['one address is dialled at once', [[tcp4, 0]]],
    ['QUIC goes before TCP', [[quic4, 0], [tcp4, 250]]], // prettier-ignore
    ['IPv6 goes before IPv4', [[tcp6, 0], [tcp4, 250]]], // prettier-ignore
    [
      'both versions of QUIC go before both of TCP',
      [[quic6, 0], [quic4, 250], [tcp6, 500], [tcp4, 750]], // prettier-ignore
    ],
    [
      'one IPv6 and one IPv4 address go ahead of the rest',
      [
        [tcp6, 0],
        [tcp4, 250],
        ['/ip6/2a00::2/tcp/4001', 500],
        ['/ip6/2a00::3/tcp/4001', 500],
        ['/ip4/1.2.3.5/tcp/4002', 500],
      ],
    ],
    [
      'in our own network TCP follows sooner',
      [['/ip4/192.168.1.2/udp/4001/quic-v1', 0], ['/ip4/192.168.1.2/tcp/4001', 30]], // prettier-ignore
    ],
    [
      'private and public addresses do not wait for each other',
      [['/ip4/127.0.0.1/tcp/4001', 0], [tcp4, 0]], // prettier-ignore
    ],
    ['a relay waits for public addresses', [[tcp4, 0], [relay, 500]]], // prettier-ignore
    ['a relay does not wait for private addresses', [['/ip4/10.0.0.1/tcp/1', 0], [relay, 0]]], // prettier-ignore
    ['plain TCP goes before WebSocket', [[tcp4, 0], ['/ip4/1.2.3.4/tcp/443/tls/sni/a.b/ws', 250], ['/ip4/1.2.3.4/tcp/80/ws', 250]]], // prettier-ignore
    ['a WebSocket without a port is as far as its host', [[tcp4, 0], ['/ip4/1.2.3.4/wss', 250], ['/dns4/a.b/ws', 250]]], // prettier-ignore
    ['WebRTC comes last', [[quic4, 0], [tcp4, 250], ['/ip4/1.2.3.4/udp/4002/webrtc-direct', 1250]]], // prettier-ignore
    ['a low port goes before a high one', [['/ip4/1.2.3.4/tcp/4001', 0], ['/ip4/1.2.3.4/tcp/51234', 250]]], // prettier-ignore
    ['a name that stays one ranks as a public address', [['/dns4/a.b/tcp/443/tls/ws', 0]]],
    ['what has no place in the table comes a second after the rest', [[tcp4, 0], ['/memory/7', 1_000]]], // prettier-ignore
    ['and at once where there is no rest', [['/memory/7', 0]]],
  ])('%s', (_what, expected) => {
    const addrs = expected.map(([addr]) => addr)
    expect(order(addrs)).toEqual(expected)
    expect(order(addrs.toReversed()).map(([, ms]) => ms)).toEqual(expected.map(([, ms]) => ms))
  })

  it('gives an address in our network 5 s, another 15 s', () => {
    const times = ['/ip4/192.168.0.1/tcp/1', '/ip6/fe80::1/tcp/1', tcp4, relay].map((addr) =>
      rank([multiaddr(addr)], all).ranked.map(({ timeoutMs }) => timeoutMs),
    )
    expect(times).toEqual([[5_000], [5_000], [15_000], [15_000]])
  })

  it('leaves out what cannot be dialled, and says why', () => {
    const twice = `${tcp4}/p2p/${generateKey().publicKey.peerId}/p2p/${peerId}`
    const wildcards = ['/ip4/0.0.0.0/tcp/1', '/ip6/::/tcp/1', '/ip6/::ffff:0.0.0.0/tcp/1', '/ip4/0.0.0.0/ws']
    const own = `/ip4/9.9.9.9/tcp/9/p2p/${peerId}`
    const addrs = [tcp4, quic4, ...wildcards, own, twice, tcp4].map((a) => multiaddr(a))
    const { ranked, leftOut } = rank(addrs, {
      canDial: (addr) => addr.has('tcp'),
      own: [multiaddr('/ip4/9.9.9.9/tcp/9')],
    })
    expect(ranked.map(({ addr }) => String(addr))).toEqual([tcp4])
    expect(leftOut).toEqual([
      { what: quic4, reason: 'no transport can dial it' },
      ...wildcards.map((what) => ({ what, reason: 'the wildcard is the address of nobody' })),
      { what: own, reason: 'we listen there ourselves' },
      { what: twice, reason: 'it names two peers' },
    ])
  })

  const ip = fc.oneof(
    fc.ipV4().map((a) => `/ip4/${a}`),
    fc.ipV6().map((a) => `/ip6/${a}`),
  )
  const rest = fc.constantFrom(
    '/tcp/1',
    '/tcp/2/ws',
    '/tcp/3/tls/ws',
    '/udp/4/quic-v1',
    '/udp/5/webrtc-direct',
    '/udp/6',
  )
  const address = fc.oneof(
    fc.tuple(ip, rest).map(([a, b]) => a + b),
    fc.nat(9).map((n) => `/memory/${n}`),
    ip.map((a) => `${a}/tcp/1/p2p/${peerId}/p2p-circuit`),
  )

  it('keeps every address once, in order of its delay, one of them at once', () => {
    fc.assert(
      fc.property(fc.array(address, { maxLength: 60 }), fc.integer(), (texts, odd) => {
        const addrs = texts.map((text) => multiaddr(text))
        const canDial = (addr: Multiaddr): boolean => (addr.bytes.length + odd) % 3 !== 0
        const { ranked, leftOut } = rank(addrs, { canDial, own: [] })
        const out = [...ranked.map(({ addr }) => String(addr)), ...leftOut.map(({ what }) => what)]
        expect(out.toSorted()).toEqual([...new Set(addrs.map(String))].toSorted())
        const delays = ranked.map(({ delayMs }: Ranked) => delayMs)
        expect(delays).toEqual(delays.toSorted((a, b) => a - b))
        if (ranked.length > 0) expect(delays[0]).toBe(0)
        for (const { delayMs, timeoutMs } of ranked) {
          expect(delayMs).toBeLessThan(6_000)
          expect([5_000, 15_000]).toContain(timeoutMs)
        }
      }),
    )
  })
})
