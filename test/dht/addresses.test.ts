import { expect, it } from 'vitest'
import { groupOf, inScope, readAddrs } from '../../src/dht/addresses.ts'
import { multiaddr } from '../../src/multiaddr.ts'

it.each([
  ['/ip4/8.8.8.8/tcp/4001', true, true],
  ['/ip6/2a00:1450::1/udp/4001/quic-v1', true, true],
  ['/ip4/192.168.1.2/tcp/4001', false, true],
  ['/ip4/127.0.0.1/tcp/4001', false, true],
  ['/ip4/100.64.3.4/tcp/1', false, true],
  ['/ip6/fe80::1/tcp/1', false, true],
  ['/ip4/0.0.0.0/tcp/1', false, false],
  ['/dns4/example.com/tcp/443/wss', true, false],
  // A name that is an IP address is judged as that, and an address without a port is none to dial.
  ['/dns4/127.0.0.1/tcp/443', false, true],
  ['/ip4/8.8.8.8/ws', false, false],
  ['/memory/7', false, false],
])('%s belongs to the public network: %s, to the one of private addresses: %s', (text, wan, lan) => {
  const addr = multiaddr(text)
  expect([inScope(addr, 'wan'), inScope(addr, 'lan'), inScope(addr, 'any')]).toEqual([wan, lan, true])
})

it.each([
  ['/ip4/8.8.4.4/tcp/1', '8.8'],
  ['/ip4/12.1.2.3/tcp/1', '12'],
  ['/ip6/::ffff:8.8.4.4/tcp/1', '8.8'],
  ['/ip6/2a00:1450:4001::1/tcp/1', '2a00:1450::'],
  ['/ip4/127.0.0.1/tcp/1', undefined],
  ['/dns4/example.com/tcp/1', undefined],
  ['/memory/7', undefined],
])('%s is of the IP group %s', (text, group) => {
  expect(groupOf(multiaddr(text))).toBe(group)
})

it('reads what it can of what a peer names: no doubles, no /p2p, nothing out of scope, at most so many', () => {
  const raw = [
    multiaddr('/ip4/8.8.8.8/tcp/1').bytes,
    multiaddr('/ip4/8.8.8.8/tcp/1/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS').bytes,
    Uint8Array.of(0xff, 0xff, 0x7f, 1),
    multiaddr('/ip4/10.0.0.1/tcp/1').bytes,
    new Uint8Array(0),
    ...Array.from({ length: 30 }, (_, i) => multiaddr(`/ip4/8.8.8.9/tcp/${i + 1}`).bytes),
  ]
  const read = readAddrs(raw, 'wan', 4).map(String)
  expect(read).toEqual(['/ip4/8.8.8.8/tcp/1', '/ip4/8.8.8.9/tcp/1', '/ip4/8.8.8.9/tcp/2', '/ip4/8.8.8.9/tcp/3'])
})
