import { describe, expect, it } from 'vitest'
import { recordTypes } from '../../../src/dns.ts'
import { MdnsSession, type MdnsTuning } from '../../../src/discovery/mdns/session.ts'
import { decodeMessage, encodeMessage, type MdnsMessage, type Resource } from '../../../src/discovery/mdns/wire.ts'
import { multiaddr, type Multiaddr } from '../../../src/multiaddr.ts'
import type { PeerId } from '../../../src/peer/id.ts'
import { generateKey } from '../../../src/peer/keys.ts'

const service = '_p2p._udp.local'
const own = generateKey().publicKey.peerId
const other = generateKey().publicKey.peerId
const name = 'abcdefghijklmnopqrstuvwxyz0123456789'
const neighbour = { address: '192.168.1.7', port: 5353 }

const addrs = (...texts: string[]): Multiaddr[] => texts.map((text) => multiaddr(text))

function session(options: MdnsTuning = {}): MdnsSession {
  const made = new MdnsSession(own, name, options, () => 0)
  made.announce(addrs('/ip4/192.168.1.2/tcp/4001'), 0)
  return made
}

/** Everything that it sends from `from` to `to`. */
function run(of: MdnsSession, from: number, to: number): { at: number; message: MdnsMessage }[] {
  const out: { at: number; message: MdnsMessage }[] = []
  for (let now = from; now <= to; now += 10) {
    of.tick(now)
    for (let p = of.transmit(); p !== undefined; p = of.transmit()) out.push({ at: now, message: decodeMessage(p) })
  }
  return out
}

function answerOf(peer: PeerId, texts: readonly string[], instance = 'x'.repeat(32), ttlSeconds = 120): Uint8Array {
  const strings = texts.map((text) => `dnsaddr=${text}/p2p/${peer}`)
  return encodeMessage({
    response: true,
    questions: [],
    answers: [{ name: service, type: 'PTR', ttlSeconds, flush: false, target: `${instance}.${service}` }],
    additionals: [{ name: `${instance}.${service}`, type: 'TXT', ttlSeconds, flush: true, strings }],
  })
}

const question = (answers: Resource[] = []): Uint8Array =>
  encodeMessage({
    response: false,
    questions: [{ name: service, type: recordTypes.PTR, unicast: false }],
    answers,
    additionals: [],
  })

const known = (ttlSeconds: number): Resource[] => [
  { name: service, type: 'PTR', ttlSeconds, flush: false, target: `${name}.${service}` },
]

describe('a session of multicast DNS', () => {
  it('asks at once, then ever less often, and answers whenever it asks', () => {
    const of = session()
    of.start(0)
    const sent = run(of, 0, 200_000)
    const asked = sent.filter(({ message }) => !message.response).map(({ at }) => at)
    expect(asked).toEqual([20, 1020, 3020, 7020, 15_020, 31_020, 63_020, 123_020, 183_020])
    expect(sent.filter(({ message }) => message.response).length).toBeGreaterThanOrEqual(asked.length)
  })

  it('answers with one multiaddr for each string, a random name and what DNS-SD wants besides', () => {
    const of = session()
    of.announce(addrs(`/ip4/192.168.1.2/tcp/4001/p2p/${own}`, '/ip6/2001:db9::2/tcp/4001'), 0)
    of.receive(question(), neighbour, 0)
    const [sent] = run(of, 0, 200)
    expect(sent?.message.answers).toEqual([
      { name: service, type: 'PTR', target: `${name}.${service}`, ttlSeconds: 120, flush: false },
    ])
    expect(sent?.message.additionals).toMatchObject([
      {
        type: 'TXT',
        name: `${name}.${service}`,
        strings: [`dnsaddr=/ip4/192.168.1.2/tcp/4001/p2p/${own}`, `dnsaddr=/ip6/2001:db9::2/tcp/4001/p2p/${own}`],
      },
      { type: 'SRV', port: 4001, target: `${name}.local` },
      { type: 'A', address: '192.168.1.2' },
      { type: 'AAAA', address: '2001:db9::2' },
    ])
  })

  it('says nothing of loopback, relays and names, and nothing at all when nothing is left', () => {
    const of = new MdnsSession(own, name, {}, () => 0)
    of.announce(
      addrs(
        '/ip4/127.0.0.1/tcp/1',
        '/dns4/example.com/tcp/1',
        `/ip4/192.168.1.9/tcp/1/p2p/${other}/p2p-circuit`,
        '/ip6/fe80::1/tcp/1',
      ),
      0,
    )
    of.receive(question(), neighbour, 0)
    expect(run(of, 0, 5_000)).toEqual([])
    of.announce(addrs('/ip4/127.0.0.1/tcp/1', '/ip4/192.168.1.2/tcp/1'), 5_000)
    const [sent] = run(of, 5_000, 6_000)
    expect(sent?.message.additionals[0]).toMatchObject({ strings: [`dnsaddr=/ip4/192.168.1.2/tcp/1/p2p/${own}`] })
  })

  it('answers at most once a second, however often it is asked', () => {
    const of = session()
    let answers = 0
    for (let now = 0; now < 10_000; now += 10) {
      for (let i = 0; i < 10; i++) of.receive(question(), neighbour, now)
      of.tick(now)
      for (let p = of.transmit(); p !== undefined; p = of.transmit()) answers++
    }
    expect(answers).toBeGreaterThan(5)
    expect(answers).toBeLessThanOrEqual(10)
    expect(of.dropped).toBeGreaterThan(1_000)
  })

  it('does not answer who knows it already', () => {
    const of = session()
    run(of, 0, 1_000)
    of.receive(question(known(100)), neighbour, 2_000)
    expect(run(of, 2_000, 4_000)).toEqual([])
    of.receive(question(known(30)), neighbour, 4_000)
    expect(run(of, 4_000, 6_000)).toHaveLength(1)
  })

  it('lets others ask for it', () => {
    const of = session({ queryMs: 10_000 })
    of.start(0)
    run(of, 0, 20_000)
    let asked = 0
    for (let now = 20_000; now < 100_000; now += 5_000) {
      of.receive(question(), neighbour, now)
      asked += run(of, now, now + 4_990).filter(({ message }) => !message.response).length
    }
    expect(asked).toBe(0)
  })

  it('fits what it says into one packet', () => {
    const of = session()
    const many = Array.from({ length: 60 }, (_, i) => `/ip4/192.168.1.${i + 1}/udp/4001/quic-v1/webtransport`)
    of.announce(addrs(...many), 0)
    of.tick(5_000)
    const packet = of.transmit()
    expect(packet?.length).toBeLessThanOrEqual(1_400)
    expect(packet?.length).toBeGreaterThan(1_000)
  })

  it('finds who is named, without /p2p, once until something changes or a minute is over', () => {
    const of = session()
    const there = ['/ip4/192.168.1.7/tcp/4001']
    of.receive(answerOf(other, there), neighbour, 0)
    expect(of.next()).toEqual({ peer: other, addrs: addrs(...there) })
    of.receive(answerOf(other, there), neighbour, 2_000)
    expect(of.next()).toBeUndefined()
    of.receive(answerOf(other, ['/ip4/192.168.1.7/tcp/4002']), neighbour, 4_000)
    expect(of.next()?.addrs.map(String)).toEqual(['/ip4/192.168.1.7/tcp/4002'])
    of.receive(answerOf(other, ['/ip4/192.168.1.7/tcp/4002']), neighbour, 65_000)
    expect(of.next()?.peer).toEqual(other)
  })

  it('finds neither itself nor what no neighbour has: loopback, relays, names', () => {
    const of = session()
    of.receive(answerOf(own, ['/ip4/192.168.1.2/tcp/4001']), neighbour, 0)
    const useless = ['/ip4/127.0.0.1/tcp/1', '/ip4/0.0.0.0/tcp/1', '/dns4/a.b/tcp/1', 'nonsense', '/ip6/::1/tcp/1']
    of.receive(answerOf(other, useless), neighbour, 0)
    expect(of.next()).toBeUndefined()
    expect(of.size).toBe(0)
  })

  it('takes no answer from another port, of another service or that is over', () => {
    const of = session()
    const there = ['/ip4/192.168.1.7/tcp/4001']
    of.receive(answerOf(other, there), { ...neighbour, port: 1234 }, 0)
    of.receive(answerOf(other, there, 'x'.repeat(32), 0), neighbour, 0)
    const alien = decodeMessage(answerOf(other, there))
    const moved = alien.additionals.map((a) => Object.assign(a, { name: 'x._other._udp.local' }))
    of.receive(encodeMessage({ ...alien, additionals: moved }), neighbour, 0)
    expect(of.next()).toBeUndefined()
  })

  it('forgets who says goodbye, and only when the same neighbour says so', () => {
    const of = session()
    of.receive(answerOf(other, ['/ip4/192.168.1.7/tcp/4001']), neighbour, 0)
    const bye = encodeMessage({
      response: true,
      questions: [],
      answers: [{ name: service, type: 'PTR', ttlSeconds: 0, flush: false, target: `${'x'.repeat(32)}.${service}` }],
      additionals: [],
    })
    of.receive(bye, { address: '192.168.1.66', port: 5353 }, 0)
    expect(of.size).toBe(1)
    of.receive(bye, neighbour, 0)
    expect(of.size).toBe(0)
    expect(decodeMessage(session().goodbye() ?? new Uint8Array(0)).answers).toMatchObject([
      { type: 'PTR', ttlSeconds: 0 },
    ])
  })

  it('stays bounded when neighbours invent peers, and one of them can not push out the others', () => {
    const of = session({ maxPeers: 20, maxPeersPerSender: 10, maxPacketsPerSecond: Infinity })
    const honest = generateKey().publicKey.peerId
    of.receive(answerOf(honest, ['/ip4/192.168.1.3/tcp/1']), { address: '192.168.1.3', port: 5353 }, 0)
    expect(of.next()?.peer).toEqual(honest)
    for (let i = 0; i < 200; i++) {
      const invented = generateKey().publicKey.peerId
      of.receive(answerOf(invented, [`/ip4/192.168.1.66/tcp/${i + 1}`]), { address: '192.168.1.66', port: 5353 }, i)
      expect(of.size).toBeLessThanOrEqual(20)
    }
    expect(of.size).toBe(11)
    // Still there: naming it again is no news.
    while (of.next() !== undefined);
    of.receive(answerOf(honest, ['/ip4/192.168.1.3/tcp/1']), { address: '192.168.1.3', port: 5353 }, 1_000)
    expect(of.next()).toBeUndefined()
  })

  it('shrugs off what is no DNS', () => {
    const of = session()
    for (let i = 0; i < 50; i++) of.receive(new Uint8Array(i).fill(i), neighbour, i)
    expect(of.refused).toBe(50)
  })

  it('wants a name of at least 32 letters and digits', () => {
    expect(() => new MdnsSession(own, 'short', {}, () => 0)).toThrow(TypeError)
  })
})
