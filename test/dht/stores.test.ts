import { describe, expect, it } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { ProviderStore } from '../../src/dht/providers.ts'
import { recordKey, type Validators } from '../../src/dht/validators.ts'
import { ValueStore } from '../../src/dht/values.ts'
import { fakeEnv } from '../../src/env.ts'
import { LimitError, ProtocolError } from '../../src/errors.ts'
import { multiaddr } from '../../src/multiaddr.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { somePeer } from './peers.ts'

const hour = 3_600_000
const key = (name: string): Uint8Array => concat([Uint8Array.of(0x12, 32), fromUtf8(name.padEnd(32))])
const n = (name: string): Uint8Array => recordKey('n', fromUtf8(name))
const addr = multiaddr('/ip4/203.0.113.7/tcp/4001')

describe('the provider store', () => {
  it('has one record per provider and key, the last renewed first', async () => {
    const env = fakeEnv()
    const store = new ProviderStore(memoryRecords({ env }), env, '/dht/test')
    store.add(key('a'), somePeer(1), [addr])
    store.add(key('a'), somePeer(2), [])
    store.add(key('a'), somePeer(1), [addr])
    expect(store.of(key('a'))).toEqual([
      { peer: somePeer(1), addrs: [addr] },
      { peer: somePeer(2), addrs: [] },
    ])
    expect(store.of(key('a'), 1).length).toBe(1)
    expect(store.of(key('b'))).toEqual([])
    expect(store.size).toBe(2)
    await store.flush()
  })

  it('forgets addresses after a day and providers after two, unless they are renewed', async () => {
    const env = fakeEnv()
    const records = memoryRecords({ env })
    const store = new ProviderStore(records, env, '/dht/test')
    store.add(key('a'), somePeer(1), [addr])
    await env.clock.advance(24 * hour)
    expect(store.of(key('a'))).toEqual([{ peer: somePeer(1), addrs: [] }])
    store.add(key('b'), somePeer(1), [addr])
    await env.clock.advance(24 * hour)
    expect(store.of(key('a'))).toEqual([])
    store.sweep()
    expect(store.size).toBe(1)
    await env.clock.advance(24 * hour)
    store.sweep()
    expect(store.size).toBe(0)
    await store.flush()
    const left = []
    for await (const record of records.entries('/dht/')) left.push(record.key)
    expect(left).toEqual([])
  })

  it('is the same after a restart, ages included', async () => {
    const env = fakeEnv()
    const records = memoryRecords({ env })
    const store = new ProviderStore(records, env, '/dht/test')
    for (let i = 0; i < 50; i++) store.add(key(`k${i % 5}`), somePeer(i), [addr])
    await store.flush()
    await env.clock.advance(hour)
    const again = new ProviderStore(records, env, '/dht/test')
    await again.load()
    expect(again.size).toBe(50)
    expect(again.of(key('k0')).map(String)).toEqual(store.of(key('k0')).map(String))
    await env.clock.advance(47 * hour)
    expect(again.of(key('k0'))).toEqual([])
    const other = new ProviderStore(records, env, '/dht/other')
    await other.load()
    expect(other.size).toBe(0)
    await again.flush()
  })

  it('is bounded per key, per provider and in all: the one renewed longest ago goes, a greedy provider is refused', async () => {
    const env = fakeEnv()
    const limits = { maxPerKey: 3, maxPerProvider: 4, maxRecords: 8 }
    const store = new ProviderStore(memoryRecords({ env }), env, '/dht/test', limits)
    for (let i = 0; i < 5; i++) expect(store.add(key('hot'), somePeer(i), [])).toBe(true)
    expect(store.of(key('hot')).map(({ peer }) => peer)).toEqual([somePeer(4), somePeer(3), somePeer(2)])
    const greedy = somePeer(99)
    expect([1, 2, 3, 4, 5].map((i) => store.add(key(`g${i}`), greedy, []))).toEqual([true, true, true, true, false])
    // What it has may be renewed.
    expect(store.add(key('g1'), greedy, [])).toBe(true)
    for (let i = 0; i < 20; i++) store.add(key(`many${i}`), somePeer(200 + i), [])
    expect(store.size).toBe(8)
    expect(store.of(key('g2'))).toEqual([])
    await store.flush()
  })
})

describe('the value store', () => {
  /** Values are numbers as text; the larger is the better. */
  const validators: Validators = {
    n: {
      validate: (_key, value) => {
        if (!/^\d+$/.test(Buffer.from(value).toString())) throw new ProtocolError('bad-message', 'no number')
      },
      select: (_key, values) => {
        const numbers = values.map((value) => Number(Buffer.from(value).toString()))
        return numbers.indexOf(Math.max(...numbers))
      },
    },
  }

  it('keeps the best value, and says so to whom brings an older one', async () => {
    const env = fakeEnv()
    const store = new ValueStore(memoryRecords({ env }), env, '/dht/test', validators)
    await store.put(n('a'), fromUtf8('5'))
    await store.put(n('a'), fromUtf8('7'))
    await expect(store.put(n('a'), fromUtf8('6'))).rejects.toThrow(/newer/)
    expect((await store.get(n('a')))?.value).toEqual(fromUtf8('7'))
    // Two at once: the better wins, whichever was first.
    await Promise.allSettled([store.put(n('a'), fromUtf8('9')), store.put(n('a'), fromUtf8('8'))])
    expect((await store.get(n('a')))?.value).toEqual(fromUtf8('9'))
    await expect(store.put(n('a'), fromUtf8('x'))).rejects.toThrow(/no number/)
    await expect(store.put(recordKey('other', fromUtf8('a')), fromUtf8('1'))).rejects.toThrow(/no validator/)
    await expect(store.put(fromUtf8('no namespace'), fromUtf8('1'))).rejects.toBeInstanceOf(ProtocolError)
    await expect(store.put(recordKey('constructor', fromUtf8('a')), fromUtf8('1'))).rejects.toThrow(/no validator/)
  })

  it('forgets after two days unless the same value comes again; a restart forgets nothing', async () => {
    const env = fakeEnv()
    const records = memoryRecords({ env })
    const store = new ValueStore(records, env, '/dht/test', validators)
    await store.put(n('a'), fromUtf8('5'))
    await env.clock.advance(40 * hour)
    await store.put(n('a'), fromUtf8('5'))
    await env.clock.advance(40 * hour)
    expect((await store.get(n('a')))?.value).toEqual(fromUtf8('5'))
    const again = new ValueStore(records, env, '/dht/test', validators)
    await again.load()
    expect([again.size, again.bytes]).toEqual([store.size, store.bytes])
    await env.clock.advance(8 * hour)
    expect(await again.get(n('a'))).toBeUndefined()
    again.sweep()
    expect([again.size, again.bytes]).toEqual([0, 0])
  })

  it('refuses more than fits, once what has expired is gone', async () => {
    const env = fakeEnv()
    const store = new ValueStore(memoryRecords({ env }), env, '/dht/test', validators, { maxValues: 2, maxBytes: 60 })
    await store.put(n('a'), fromUtf8('1'))
    await store.put(n('b'), fromUtf8('1'))
    await expect(store.put(n('c'), fromUtf8('1'))).rejects.toBeInstanceOf(LimitError)
    await store.put(n('a'), fromUtf8('2'))
    await expect(store.put(n('b'), fromUtf8('9'.repeat(60)))).rejects.toBeInstanceOf(LimitError)
    await env.clock.advance(48 * hour)
    await store.put(n('c'), fromUtf8('1'))
    expect(store.size).toBe(1)
  })
})
