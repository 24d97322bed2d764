/* Names on a platform that looks them up itself, as browsers do: `#dns` is replaced by what it is there. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createNode, type Node } from '../../src/node.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { memory, MemoryNetwork } from '../../src/transport/memory.ts'
import type { Transport } from '../../src/transport/transport.ts'

const { asked, resolver } = vi.hoisted(() => {
  const asked: string[] = []
  const ask = (name: string): Promise<string[]> => {
    asked.push(name)
    return Promise.resolve([])
  }
  return { asked, resolver: { resolve4: ask, resolve6: ask, resolveTxt: ask } }
})

vi.mock('#dns', () => ({ dialsByName: true, platformResolver: () => resolver }))

const nodes: Node[] = []

afterEach(async () => {
  asked.length = 0
  await Promise.all(nodes.splice(0).map((node) => node.stop()))
})

async function pair(): Promise<{ a: Node; b: Node; dialled: string[] }> {
  const network = new MemoryNetwork()
  const inner = memory(network)
  const b = await createNode({ transports: [memory(network)], listen: ['/memory/7'] })
  await b.start()
  const dialled: string[] = []
  const named: Transport = {
    ...inner,
    name: 'named',
    canDial: (addr) => String(addr) === '/dns4/b.example/tcp/443/tls/ws' || String(addr) === '/ip4/0.0.0.0/tcp/1/ws',
    canListen: () => false,
    dial: (addr, options) => {
      dialled.push(String(addr))
      return inner.dial(multiaddr('/memory/7'), options)
    },
  }
  const a = await createNode({ transports: [named] })
  nodes.push(a, b)
  return { a, b, dialled }
}

describe('a name that the platform looks up', () => {
  it('is dialled as it is, without a search', async () => {
    const { a, b, dialled } = await pair()
    const connection = await a.dial(`/dns4/b.example/tcp/443/tls/ws/p2p/${b.peerId}`)
    expect(connection.peer.equals(b.peerId)).toBe(true)
    expect(dialled).toEqual(['/dns4/b.example/tcp/443/tls/ws'])
    expect(asked).toEqual([])
  })

  it('is looked up where no transport dials such an address, and as a dnsaddr', async () => {
    const { a, b } = await pair()
    await expect(a.dial(`/dns4/other.example/tcp/1/p2p/${b.peerId}`)).rejects.toThrow('other.example')
    expect(asked).toEqual(['other.example'])
    await expect(a.dial(`/dnsaddr/b.example/p2p/${b.peerId}`)).rejects.toThrow('b.example')
    expect(asked).toContain('_dnsaddr.b.example')
  })

  it('is no way round the refusal of the wildcard', async () => {
    const { a, dialled } = await pair()
    await expect(a.dial('/ip4/0.0.0.0/tcp/1/ws')).rejects.toThrow()
    expect(dialled).toEqual([])
  })
})
