import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { multiaddr } from '../../src/multiaddr.ts'
import { Observed, type ObservedOptions } from '../../src/peer/observed.ts'

const minute = 60_000
const here = '/ip4/192.168.0.2/tcp/4001'
const listen = [here, '/ip4/192.168.0.2/tcp/4001/ws', '/ip6/2001:470::2/tcp/4001'].map((a) => multiaddr(a))

function lab(options?: ObservedOptions): {
  observed: Observed
  /** A peer at `remote` says that our `local` is `outside`. */
  say: (connection: string, remote: string, outside: string, now?: number, local?: string) => boolean
  confirmed: (now?: number) => string[]
} {
  const observed = new Observed(options)
  return {
    observed,
    say: (connection, remote, outside, now = 0, local = here) =>
      observed.observe(
        { connection, local: multiaddr(local), remote: multiaddr(remote), observed: multiaddr(outside) },
        listen,
        now,
      ),
    confirmed: (now = 0) => observed.confirmed(listen, now),
  }
}

const outside = '/ip4/8.1.1.1/tcp/4001'
const from = (group: number, host = 1): string => `/ip4/9.${group}.0.${host}/tcp/1`

describe('an observed address', () => {
  it('counts once peers of four groups have seen it, for every listen address on its port', () => {
    const { say, confirmed } = lab()
    for (let i = 0; i < 3; i++) expect(say(`c${i}`, from(i), outside)).toBe(true)
    expect(confirmed()).toEqual([])
    say('c3', from(3), outside)
    expect(confirmed()).toEqual([outside, `${outside}/ws`])
  })

  it('does not count for many peers of one group, however often they say it', () => {
    const { say, confirmed, observed } = lab()
    for (let i = 0; i < 500; i++) say(`c${i}`, from(1, i % 250), outside)
    for (let i = 0; i < 500; i++) say('same', from(2, i % 250), outside)
    say('x', from(3), outside)
    expect(confirmed()).toEqual([])
    expect(observed.size).toBe(3)
  })

  it('has the latest word of a group, and loses what the group said before', () => {
    const { say, confirmed } = lab()
    for (let i = 0; i < 4; i++) say(`c${i}`, from(i), outside)
    say('c9', from(0, 9), '/ip4/8.2.2.2/tcp/4001')
    expect(confirmed()).toEqual([])
    say('c0', from(0), outside)
    expect(confirmed()).toContain(outside)
  })

  it.each([
    ['of a port that we do not listen on', from(1), outside, '/ip4/192.168.0.2/tcp/50123'],
    ['of an address that we do not listen on', from(1), outside, '/ip4/192.168.0.3/tcp/4001'],
    ['of another family', from(1), '/ip6/2001:470::9/tcp/4001', here],
    ['of another transport', from(1), '/ip4/8.1.1.1/udp/4001/quic-v1', here],
    ['that is loopback', from(1), '/ip4/127.0.0.1/tcp/4001', here],
    ['that is no address', from(1), '/ip4/0.0.0.0/tcp/4001', here],
    ['without a port', from(1), '/ip4/8.1.1.1/tcp/0', here],
    ['that is a name', from(1), '/dns4/x.org/tcp/4001', here],
    ['that is private, seen from the internet', from(1), '/ip4/10.0.0.1/tcp/4001', here],
    ['that is public, seen by a neighbour', '/ip4/10.0.0.9/tcp/1', outside, here],
    ['over a relay', '/dns4/x.org/tcp/1', outside, here],
  ])('is not taken in %s', (_what, remote, seen, local) => {
    const { say, observed } = lab()
    expect(say('c', remote, seen, 0, local)).toBe(false)
    expect(observed.size).toBe(0)
  })

  it('lasts while connections stand behind it, and 40 minutes more', () => {
    const { say, confirmed, observed } = lab()
    for (let i = 0; i < 4; i++) say(`c${i}`, from(i), outside)
    say('c0b', from(0, 2), outside)
    expect(confirmed(1000 * minute)).toContain(outside)
    expect(observed.deadline).toBe(Infinity)
    observed.closed('c0', 1000 * minute)
    expect(observed.deadline).toBe(Infinity)
    observed.closed('c0b', 1000 * minute)
    observed.closed('c0b', 1001 * minute)
    expect(observed.deadline).toBe(1040 * minute)
    expect(confirmed(1040 * minute - 1)).toContain(outside)
    expect(confirmed(1040 * minute)).toEqual([])
    expect(observed.size).toBe(3)
  })

  it('is one of three at most, those that most have seen', () => {
    const { say, confirmed } = lab()
    for (let address = 0; address < 5; address++) {
      for (let i = 0; i < 4 + address; i++)
        say(`${address}.${i}`, from(address * 10 + i), `/ip4/8.0.0.${address}/tcp/4001`)
    }
    expect(confirmed().filter((a) => !a.endsWith('/ws'))).toEqual([4, 3, 2].map((n) => `/ip4/8.0.0.${n}/tcp/4001`))
  })

  it('of IPv6 needs four networks of 32 bits', () => {
    const { say, confirmed } = lab()
    const local = '/ip6/2001:470::2/tcp/4001'
    const seen = '/ip6/2001:470::2/tcp/4001'
    for (let i = 0; i < 9; i++) say(`c${i}`, `/ip6/2a00:1::${i + 1}/tcp/1`, seen, 0, local)
    for (let i = 0; i < 2; i++) say(`d${i}`, `/ip6/2a00:${i + 2}::1/tcp/1`, seen, 0, local)
    expect(confirmed()).toEqual([])
    say('e', '/ip6/2a00:9::1/tcp/1', seen, 0, local)
    expect(confirmed()).toEqual([seen])
  })

  it('keeps within its votes, whatever is said', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(30), fc.nat(12), fc.nat(6), fc.boolean()), { maxLength: 200 }), (steps) => {
        const { say, observed, confirmed } = lab({ maxVotes: 8 })
        for (const [now, [connection, group, address, close]] of steps.entries()) {
          if (close) observed.closed(`c${connection}`, now)
          else say(`c${connection}`, from(group), `/ip4/8.0.0.${address}/tcp/4001`, now)
          expect(observed.size).toBeLessThanOrEqual(8)
        }
        for (let c = 0; c <= 30; c++) observed.closed(`c${c}`, 1000)
        expect(confirmed(1000 + 40 * minute)).toEqual([])
        expect(observed.size).toBe(0)
      }),
    )
  })
})
