import { describe, expect, it } from 'vitest'
import { resolve, type ResolveOptions, type Resolver } from '../../src/dial/resolve.ts'
import { fakeEnv, settle } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { generateKey } from '../../src/peer/keys.ts'

const me = generateKey().publicKey.peerId.toString()
const other = generateKey().publicKey.peerId.toString()

type Zone = Record<string, readonly string[] | Error | Promise<readonly string[]>>

/** Keys are `4 name`, `6 name` and `txt name`. */
function fake(zone: Zone): Resolver & { asked: string[] } {
  const asked: string[] = []
  const answer = async (key: string): Promise<readonly string[]> => {
    asked.push(key)
    const found = await zone[key]
    if (found instanceof Error) throw found
    return found ?? []
  }
  return {
    asked,
    resolve4: (name) => answer(`4 ${name}`),
    resolve6: (name) => answer(`6 ${name}`),
    resolveTxt: (name) => answer(`txt ${name}`),
  }
}

interface Out {
  addrs: string[]
  failed: [string, string][]
  asked: string[]
}

async function run(addrs: readonly string[], zone: Zone, options: Partial<ResolveOptions> = {}): Promise<Out> {
  const resolver = fake(zone)
  const found = await resolve(
    addrs.map((addr) => multiaddr(addr)),
    { resolver, env: fakeEnv(), signal: new AbortController().signal, ...options },
  )
  return {
    addrs: found.addrs.map(String),
    failed: found.failed.map(({ what, reason }) => [what, reason instanceof Error ? reason.message : reason]),
    asked: resolver.asked,
  }
}

const hosts: Zone = { '4 a.b': ['1.2.3.4', '1.2.3.5'], '6 a.b': ['2a00::1'] }

describe('names in addresses', () => {
  it.each([
    ['/dns4/a.b/tcp/1', ['/ip4/1.2.3.4/tcp/1', '/ip4/1.2.3.5/tcp/1']],
    ['/dns6/a.b/udp/1/quic-v1', ['/ip6/2a00::1/udp/1/quic-v1']],
    [`/dns/a.b/tcp/1/p2p/${me}`, ['/ip6/2a00::1', '/ip4/1.2.3.4', '/ip4/1.2.3.5'].map((a) => `${a}/tcp/1/p2p/${me}`)],
    ['/ip4/9.9.9.9/tcp/1', ['/ip4/9.9.9.9/tcp/1']],
    // The certificate of the server is for its name.
    ['/dns6/a.b/tcp/443/wss', ['/ip6/2a00::1/tcp/443/tls/sni/a.b/ws']],
    ['/dns6/a.b/tcp/443/tls/ws', ['/ip6/2a00::1/tcp/443/tls/sni/a.b/ws']],
    ['/dns6/a.b/tcp/443/tls/sni/c.d/ws', ['/ip6/2a00::1/tcp/443/tls/sni/c.d/ws']],
    [`/dns6/a.b/tcp/443/wss/p2p/${me}`, [`/ip6/2a00::1/tcp/443/tls/sni/a.b/ws/p2p/${me}`]],
    ['/dns6/a.b/tcp/443/tls', ['/ip6/2a00::1/tcp/443/tls']],
    ['/dns6/a.b/tcp/80/ws', ['/ip6/2a00::1/tcp/80/ws']],
  ])('%s', async (addr, expected) => {
    const { addrs, failed } = await run([addr], hosts)
    expect(addrs.toSorted()).toEqual(expected.toSorted())
    expect(failed).toEqual([])
  })

  it('stay where a transport wants them', async () => {
    const { addrs, asked } = await run(['/dns4/a.b/tcp/80/ws', '/dns4/a.b/tcp/1'], hosts, {
      asIs: (addr: Multiaddr) => addr.has('ws'),
    })
    expect(addrs.toSorted()).toEqual(['/dns4/a.b/tcp/80/ws', '/ip4/1.2.3.4/tcp/1', '/ip4/1.2.3.5/tcp/1'])
    expect(asked).toEqual(['4 a.b'])
  })

  it('with one version alone are enough, and with none say why', async () => {
    const zone = { '4 a.b': new Error('server failed'), '6 a.b': ['::1'], '4 c.d': new Error('no such name') }
    const { addrs, failed } = await run(['/dns/a.b/tcp/1', '/dns/c.d/tcp/1', '/dns6/e.f/tcp/1'], zone)
    expect(addrs).toEqual(['/ip6/::1/tcp/1'])
    expect(failed.toSorted((a, b) => a[0].localeCompare(b[0]))).toEqual([
      ['/dns/c.d/tcp/1', 'no such name'],
      ['/dns6/e.f/tcp/1', 'the name e.f has no such address'],
    ])
  })

  it('may lead to private addresses', async () => {
    expect((await run(['/dns4/home.b/tcp/1'], { '4 home.b': ['192.168.1.2'] })).addrs).toEqual([
      '/ip4/192.168.1.2/tcp/1',
    ])
  })

  it('make no address of what a resolver should not have said', async () => {
    const { addrs, failed } = await run(['/dns4/a.b/tcp/1'], { '4 a.b': ['1.2.3.4/tcp/9/p2p-circuit', 'x', ''] })
    expect(addrs).toEqual([])
    expect(failed).toHaveLength(1)
  })
})

const dnsaddr = (...addrs: string[]): string[] => addrs.map((addr) => `dnsaddr=${addr}`)

describe('dnsaddr', () => {
  it('follows records to records, to names, to addresses', async () => {
    const zone = {
      'txt _dnsaddr.boot.b': dnsaddr(`/dnsaddr/one.b/p2p/${me}`, `/dnsaddr/two.b/p2p/${other}`),
      'txt _dnsaddr.one.b': dnsaddr(`/dns4/a.b/tcp/1/p2p/${me}`, `/ip4/9.9.9.9/udp/1/quic-v1/p2p/${me}`),
      'txt _dnsaddr.two.b': dnsaddr(`/ip4/8.8.8.8/tcp/1/p2p/${other}`),
      ...hosts,
    }
    const { addrs, asked } = await run([`/dnsaddr/boot.b/p2p/${me}`], zone)
    expect(addrs.toSorted()).toEqual(
      ['/ip4/1.2.3.4/tcp/1', '/ip4/1.2.3.5/tcp/1', '/ip4/9.9.9.9/udp/1/quic-v1']
        .map((a) => `${a}/p2p/${me}`)
        .toSorted(),
    )
    // What does not end in our peer is not even looked up.
    expect(asked).not.toContain('txt _dnsaddr.two.b')
    const all = await run(['/dnsaddr/boot.b'], zone)
    expect(all.addrs).toHaveLength(4)
    expect(all.addrs).toContain(`/ip4/8.8.8.8/tcp/1/p2p/${other}`)
  })

  it('takes no record for another peer, without a peer, or that only looks like ours', async () => {
    const zone = {
      'txt _dnsaddr.a.b': [
        ...dnsaddr(`/ip4/1.1.1.1/tcp/1/p2p/${other}`, '/ip4/2.2.2.2/tcp/1', `/memory/x${me}`, 'rubbish', '/ip4/3', ''),
        `DNSADDR=/ip4/4.4.4.4/tcp/1/p2p/${me}`,
        'v=spf1 -all',
        `dnsaddr=/ip4/5.5.5.5/tcp/1/p2p/${me}${' '.repeat(9)}`,
        `dnsaddr=${'/ip4/6.6.6.6'.repeat(10_000)}/p2p/${me}`,
      ],
    }
    const { addrs, failed } = await run([`/dnsaddr/a.b/p2p/${me}`], zone)
    expect(addrs).toEqual([])
    expect(failed).toEqual([[`/dnsaddr/a.b/p2p/${me}`, `a.b has no dnsaddr record that ends in /p2p/${me}`]])
  })

  it('goes four records deep and no deeper', async () => {
    const zone: Zone = { 'txt _dnsaddr.n4.b': dnsaddr('/ip4/1.2.3.4/tcp/1') }
    for (let i = 0; i < 4; i++) zone[`txt _dnsaddr.n${i}.b`] = dnsaddr(`/dnsaddr/n${i + 1}.b`)
    expect((await run(['/dnsaddr/n1.b'], zone)).addrs).toEqual(['/ip4/1.2.3.4/tcp/1'])
    const deep = await run(['/dnsaddr/n0.b'], zone)
    expect(deep.addrs).toEqual([])
    expect(deep.failed).toEqual([['/dnsaddr/n4.b', 'more than 4 dnsaddr records in a row']])
  })

  it('comes out of loops, also those that grow', async () => {
    const loop = await run(['/dnsaddr/a.b'], {
      'txt _dnsaddr.a.b': dnsaddr('/dnsaddr/b.b'),
      'txt _dnsaddr.b.b': dnsaddr('/dnsaddr/a.b', '/ip4/1.2.3.4/tcp/1'),
    })
    expect(loop).toEqual({ addrs: ['/ip4/1.2.3.4/tcp/1'], failed: [], asked: ['txt _dnsaddr.a.b', 'txt _dnsaddr.b.b'] })
    // 2^16 ways to write the same name, each leading to all the others
    const letters = 'abcdefghijklmnop'
    const names = Array.from({ length: 1_000 }, (_, n) =>
      Array.from(letters, (letter, bit) => (((n >> bit) & 1) === 1 ? letter.toUpperCase() : letter)).join(''),
    )
    const zone: Zone = {}
    for (const name of names) zone[`txt _dnsaddr.${name}`] = dnsaddr(...names.map((n) => `/dnsaddr/${n}`))
    const grown = await run([`/dnsaddr/${letters}`], zone)
    expect(grown.addrs).toEqual([])
    expect(grown.asked.length).toBeLessThanOrEqual(32)
    expect(grown.failed.length).toBeLessThanOrEqual(100)
  })

  it('takes a hundred of 10,000 records, and says that there are more', async () => {
    const many = Array.from({ length: 10_000 }, (_, i) => `/ip4/1.2.${i >> 8}.${i & 255}/tcp/1`)
    expect((await run(['/dnsaddr/a.b'], { 'txt _dnsaddr.a.b': dnsaddr(...many) })).addrs).toHaveLength(100)
    const zone = { '4 a.b': many.map((addr) => addr.split('/')[2] ?? ''), '6 a.b': ['::1'] }
    const { addrs, failed } = await run(['/dns/a.b/tcp/1'], zone)
    expect(addrs).toHaveLength(100)
    expect(failed.length).toBeLessThanOrEqual(100)
    expect(failed[0]?.[1]).toBe('more than 100 addresses: the rest is left out')
  })

  it('waits so long for a resolver that never answers, and leaves no timer', async () => {
    const env = fakeEnv()
    const zone = { '4 a.b': new Promise<never>(() => {}), '4 c.d': ['1.2.3.4'] }
    const running = run(['/dns4/a.b/tcp/1', '/dns4/c.d/tcp/1'], zone, { env })
    await env.clock.advance(5_000)
    expect(await running).toMatchObject({
      addrs: ['/ip4/1.2.3.4/tcp/1'],
      failed: [['/dns4/a.b/tcp/1', 'looking up a.b took longer than 5000 ms']],
    })
    expect(env.clock.waiting).toBe(0)
  })

  it('ends at once with its signal', async () => {
    const env = fakeEnv()
    const controller = new AbortController()
    const signals: AbortSignal[] = []
    const silent = (_name: string, { signal }: { signal: AbortSignal }): Promise<never> => {
      signals.push(signal)
      return new Promise(() => {})
    }
    const resolver = { resolve4: silent, resolve6: silent, resolveTxt: silent }
    const running = resolve([multiaddr('/dns/a.b/tcp/1')], { resolver, env, signal: controller.signal })
    await settle()
    const reason = new UnavailableError('not-found', 'changed my mind')
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    expect(signals.map((signal) => signal.aborted)).toEqual([true, true])
    expect(env.clock.waiting).toBe(0)
  })
})
