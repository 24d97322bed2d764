import { describe, expect, it } from 'vitest'
import { fakeEnv, settle } from '../../src/env.ts'
import { memoryWirePair } from '../../src/transport/memory.ts'
import { record, until, wireTable } from '../wire-table.ts'

wireTable('memory', () => {
  const [a, b] = memoryWirePair()
  return Promise.resolve({ a, b })
})

wireTable('memory, in pieces of 7 bytes', () => {
  const [a, b] = memoryWirePair({ pieceBytes: 7, highWaterBytes: 100 })
  return Promise.resolve({ a, b })
})

describe('a memory link with latency', () => {
  it('delivers when its clock says so, FIN and resets too', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 50 })
    const [ra, rb] = [record(a), record(b)]
    a.put([new Uint8Array(3)])
    await env.clock.advance(49)
    expect(rb.size).toBe(0)
    await env.clock.advance(1)
    expect(rb.size).toBe(3)
    await a.closeWrite()
    await env.clock.advance(49)
    expect(rb.ends).toEqual([])
    await env.clock.advance(1)
    expect(rb.ends).toEqual([undefined])
    b.abort()
    await env.clock.advance(49)
    expect(ra.ends).toEqual([])
    await env.clock.advance(1)
    expect(ra.ends.length).toBe(1)
    expect(env.clock.waiting).toBe(0)
  })

  it('a lost write comes later, and so does all behind it', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 10, lossRate: 1, retransmitMs: 100 })
    const rb = record(b)
    a.put([new Uint8Array(1)])
    await env.clock.advance(109)
    expect(rb.size).toBe(0)
    await env.clock.advance(1)
    expect(rb.size).toBe(1)
    a.abort()
    await env.clock.advance(10)
    expect(env.clock.waiting).toBe(0)
  })

  it('leaves no timer behind when it is aborted with bytes under way', async () => {
    const env = fakeEnv()
    const [a, b] = memoryWirePair({ env, latencyMs: 10 })
    record(a)
    record(b)
    a.put([new Uint8Array(1)])
    b.put([new Uint8Array(1)])
    a.abort()
    await env.clock.advance(10)
    expect(env.clock.waiting).toBe(0)
    await b.closed
  })
})

it('bytes arrive in a later turn, never inside put', async () => {
  const [a, b] = memoryWirePair()
  const rb = record(b)
  a.put([new Uint8Array(1)])
  expect(rb.size).toBe(0)
  await Promise.resolve()
  expect(rb.size).toBe(0)
  await settle()
  await until(() => rb.size === 1)
})
