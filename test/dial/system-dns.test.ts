import { describe, expect, it } from 'vitest'
import { systemResolver } from '../../src/dial/system-dns.ts'
import { nameServer } from './dns-server.ts'

const never = { signal: new AbortController().signal }

const open = (): string[] => process.getActiveResourcesInfo().filter((name) => /UDP|QueryReq/.test(name))

describe("the system's resolver", () => {
  it('knows the names that every program on the machine knows', async () => {
    expect(await systemResolver().resolve4('localhost', never)).toEqual(['127.0.0.1'])
  })

  it('asks name servers of our own choice', async () => {
    const long = `dnsaddr=/ip4/1.2.3.4/tcp/1${'/p2p-circuit'.repeat(30)}`
    const server = await nameServer({ 'a.b': ['1.2.3.4', '1.2.3.5'], '_dnsaddr.a.b': [long, 'two'] })
    const resolver = systemResolver({ servers: [server.at] })
    expect((await resolver.resolve4('a.b', never)).toSorted()).toEqual(['1.2.3.4', '1.2.3.5'])
    expect((await resolver.resolveTxt('_dnsaddr.a.b', never)).toSorted()).toEqual([long, 'two'].toSorted())
    // The name is there, an IPv6 address is not.
    expect(await resolver.resolve6('a.b', never)).toEqual([])
    await expect(resolver.resolveTxt('c.d', never)).rejects.toThrow('the name c.d does not exist')
    server.close()
  })

  it('ends at once with its signal, and leaves no socket', async () => {
    const server = await nameServer({}, true)
    const controller = new AbortController()
    const asking = systemResolver({ servers: [server.at] }).resolveTxt('a.b', { signal: controller.signal })
    await expect.poll(() => server.asked.length).toBe(1)
    const reason = new Error('changed my mind')
    controller.abort(reason)
    await expect(asking).rejects.toBe(reason)
    server.close()
    await expect.poll(open).toEqual([])
  })
})
