/* The best security protocol is proposed together with its first message: what that saves, and what it does to others. */
import { afterEach, describe, expect, it } from 'vitest'
import { createNode, type Node } from '../../src/node.ts'
import { settle, systemEnv, FakeClock, type Env } from '../../src/env.ts'
import { UnavailableError, errorCode } from '../../src/errors.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import type { SecurityProtocol } from '../../src/security/security.ts'
import { memory, MemoryNetwork } from '../../src/transport/memory.ts'

const nodes: Node[] = []

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()))
})

type Change = (noise: SecurityProtocol) => SecurityProtocol[]

async function made(env: Env, network: MemoryNetwork, change: Change, listen: string[] = []): Promise<Node> {
  const privateKey = generateKey()
  const security = change(createNoise({ privateKey, env }))
  const node = await createNode({ env, privateKey, security, transports: [memory(network)], listen })
  nodes.push(node)
  await node.start()
  return node
}

const as = (noise: SecurityProtocol, id: string, eager: boolean): SecurityProtocol => ({
  id,
  eager,
  secure: (role, stream, options) => noise.secure(role, stream, options),
})

const both: Change = (noise) => [as(noise, '/new-noise', true), noise]

const other: Change = (noise) => [as(noise, '/other', true)]

/** One way takes 100 ms: how many ways a dial takes, or the code of its failure. */
async function ways(dialer: Change, listener: Change): Promise<number | string> {
  const clock = new FakeClock()
  const env = { ...systemEnv(), clock }
  const network = new MemoryNetwork({ env, latencyMs: 100 })
  const b = await made(env, network, listener, ['/memory/1'])
  const a = await made(env, network, dialer)
  let outcome: number | string | undefined
  a.dial(String(b.addrs()[0])).then(
    () => (outcome = clock.now() / 100),
    (error: unknown) => (outcome = errorCode(error) ?? String(error)),
  )
  for (let i = 0; i < 2_000 && outcome === undefined; i++) {
    await settle()
    // Signatures are made in other threads: time stands still until nothing but the clock is waited for.
    await new Promise((resolve) => setTimeout(resolve, 5))
    await clock.advance(Math.min(100, clock.next - clock.now()))
  }
  // Closing takes time, too.
  const stopping = Promise.all(nodes.splice(0).map((node) => node.stop()))
  for (let i = 0; i < 100; i++) await clock.advance(100)
  await stopping
  return outcome ?? 'nothing'
}

describe('a security protocol that is proposed with its first message', () => {
  it('costs a round trip less', async () => {
    // 2 for the connection, 2 for both messages and the agreement
    expect(await ways((noise) => [noise], (noise) => [noise])).toBe(4) // prettier-ignore
    expect(await ways((noise) => [as(noise, '/noise', false)], (noise) => [noise])).toBe(6) // prettier-ignore
  })

  it('also where there are others to fall back to', async () => {
    expect(await ways(both, both)).toBe(4)
    expect(await ways((noise) => [noise], both)).toBe(4) // prettier-ignore
  })

  it('is dialled without by whoever wants another one', async () => {
    // 4 until the first one is refused
    expect(await ways(both, (noise) => [noise])).toBe(8) // prettier-ignore
    const late: Change = (noise) => [...both(noise).slice(0, 1), as(noise, '/noise', false)]
    expect(await ways(late, (noise) => [noise])).toBe(10) // prettier-ignore
  })

  it('names all that were refused', async () => {
    const network = new MemoryNetwork({ env: systemEnv() })
    const b = await made(systemEnv(), network, other, ['/memory/1'])
    const a = await made(systemEnv(), network, both)
    const error = await a.dial(String(b.addrs()[0])).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(UnavailableError)
    expect((error as UnavailableError).tried.map(({ what }) => what)).toEqual(['/new-noise', '/noise'])
  })

  it('fails in time and with a typed error where the peer has another only', async () => {
    const outcome = await ways((noise) => [noise], other)
    expect(outcome).toBe('no-protocol')
  })
})
