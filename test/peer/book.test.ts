import { beforeEach, describe, expect, it } from 'vitest'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { FakeClock, fakeEnv } from '../../src/env.ts'
import { StorageError } from '../../src/errors.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { BookRecords, decodeSavedPeer, encodeSavedPeer } from '../../src/peer/book-records.ts'
import { AddressBook, addressTtlMs } from '../../src/peer/book.ts'
import { openPeerRecord, sealPeerRecord } from '../../src/peer/envelope.ts'
import type { PeerId } from '../../src/peer/id.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { memoryRecords } from '../../src/store/records.ts'

const own = generateKey()
const key = generateKey()
const peer = key.publicKey.peerId
const tcp = (n: number): Multiaddr => multiaddr(`/ip4/1.2.${n >> 8}.${n & 255}/tcp/4001`)
const hour = 60 * 60_000

let env: ReturnType<typeof fakeEnv>
let traces: string[]
let book: AddressBook
beforeEach(() => {
  traces = []
  env = { ...fakeEnv(), trace: (what) => void traces.push(what) }
  book = new AddressBook(own, { env })
})

const texts = (of: PeerId = peer): string[] => book.addrs(of).map(({ addr }) => addr.toString())
const sealed = (seq: bigint, ...addrs: Multiaddr[]): Promise<Uint8Array> => sealPeerRecord(key, { seq, addrs })
const stranger = (): PeerId => generateKey().publicKey.peerId

describe('an address book', () => {
  it('keeps addresses for their time and no longer', async () => {
    book.add(peer, [tcp(1)], { source: 'dht', ttlMs: 1000 })
    book.add(peer, [tcp(2).withPeer(peer)], { source: 'user', ttlMs: addressTtlMs.permanent })
    expect(book.addrs(peer)).toEqual([
      { addr: tcp(2), certified: false, source: 'user', expiresAt: Infinity },
      { addr: tcp(1), certified: false, source: 'dht', expiresAt: env.clock.wallTime() + 1000 },
    ])
    expect(book.peers().map(String)).toEqual([peer.toString()])
    await env.clock.advance(1000)
    expect(texts()).toEqual([tcp(2).toString()])
    expect(book.delete(peer)).toBe(true)
    expect(book.delete(peer)).toBe(false)
    expect(book.peers()).toEqual([])
    expect(env.clock.waiting).toBe(0)
  })

  it('takes no address that leads to another peer, or to two', async () => {
    const [other, two] = [tcp(1).withPeer(stranger()), tcp(2).withPeer(stranger()).encapsulate(`/p2p/${peer}`)]
    const relayed = tcp(3).withPeer(stranger()).encapsulate('/p2p-circuit')
    book.add(peer, [other, two, relayed.withPeer(peer)], { source: 'dht' })
    expect(texts()).toEqual([String(relayed)])
    await book.consume(await sealed(1n, other, two, tcp(4).withPeer(peer)))
    expect(texts()).toEqual([String(tcp(4))])
  })

  it('never shortens what is known, and replaces what one source said only where told', () => {
    book.add(peer, [tcp(1), tcp(2)], { source: 'identify', ttlMs: hour })
    book.add(peer, [tcp(1)], { source: 'dht', ttlMs: 1000 })
    expect(book.addrs(peer).map(({ expiresAt }) => expiresAt - env.clock.wallTime())).toEqual([hour, hour])
    book.add(peer, [tcp(3)], { source: 'identify', replace: true })
    expect(texts().toSorted()).toEqual([String(tcp(1)), String(tcp(3))])
  })

  it('holds all of a connected peer, and for 15 minutes more', async () => {
    book.add(peer, [tcp(1)], { source: 'dial', ttlMs: 1000 })
    book.connected(peer)
    await env.clock.advance(24 * hour)
    expect(book.addrs(peer)).toMatchObject([{ expiresAt: Infinity }])
    book.disconnected(peer)
    await env.clock.advance(addressTtlMs.recentlyConnected - 1)
    expect(texts()).toHaveLength(1)
    await env.clock.advance(1)
    expect(texts()).toEqual([])
  })

  it('certifies what a peer has signed, and lets a newer record evict the rest', async () => {
    book.add(peer, [tcp(1)], { source: 'dht' })
    book.add(peer, [tcp(2)], { source: 'dial' })
    const first = await sealed(5n, tcp(3), tcp(4))
    expect(await book.consume(first, { peer })).toBe(true)
    expect(book.record(peer)).toEqual(first)
    expect(book.addrs(peer).map(({ addr, certified }) => [String(addr), certified])).toEqual([
      [String(tcp(3)), true],
      [String(tcp(4)), true],
      [String(tcp(2)), false],
    ])
    expect(await book.consume(await sealed(6n, tcp(4), tcp(5)), { peer })).toBe(true)
    expect(texts()).toEqual([String(tcp(4)), String(tcp(5)), String(tcp(2))])
    expect(await book.consume(await sealed(7n))).toBe(true)
    expect(texts()).toEqual([String(tcp(2))])
  })

  it('takes no older record, and of one number the first alone', async () => {
    const first = await sealed(5n, tcp(1))
    expect(await book.consume(first)).toBe(true)
    expect(await book.consume(await sealed(4n, tcp(2)))).toBe(false)
    expect(await book.consume(await sealed(5n, tcp(3)))).toBe(false)
    expect(texts()).toEqual([String(tcp(1))])
    // The same again keeps it for longer.
    await env.clock.advance(hour - 1)
    expect(await book.consume(first.slice(), { peer })).toBe(true)
    await env.clock.advance(hour - 1)
    expect(texts()).toEqual([String(tcp(1))])
    await env.clock.advance(1)
    expect(book.record(peer)).toBeUndefined()
  })

  it('refuses a record that is forged or of another peer than asked for', async () => {
    const good = await sealed(1n, tcp(1))
    const forged = good.slice()
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
    await expect(book.consume(forged)).rejects.toMatchObject({ code: 'bad-signature' })
    await expect(book.consume(good, { peer: stranger() })).rejects.toMatchObject({ code: 'wrong-peer' })
    await expect(book.consume(new Uint8Array(9000))).rejects.toMatchObject({ code: 'oversized' })
    expect(book.peers()).toEqual([])
  })

  it('verifies with the crypto it was given', async () => {
    const none = { ...nobleCrypto, ed25519Public: () => ({ verify: () => Promise.resolve(false) }) }
    book = new AddressBook(own, { env, crypto: none })
    await expect(book.consume(await sealed(1n, tcp(1)))).rejects.toMatchObject({ code: 'bad-signature' })
    book = new AddressBook(own, { env, crypto: nobleCrypto })
    expect(await book.consume(await sealed(1n, tcp(1)))).toBe(true)
  })

  it('takes of a record only what is of use', async () => {
    await book.consume(await sealed(1n, tcp(1), tcp(2)), { accept: (addr) => addr.equals(tcp(2)) })
    expect(texts()).toEqual([String(tcp(2))])
  })
})

describe('our own record', () => {
  it('is signed anew only when addresses change, with a higher number each time', async () => {
    const first = await book.seal([tcp(1), tcp(2)])
    expect(await book.seal([tcp(2), tcp(1)])).toBe(first)
    const { seq, peerId } = await openPeerRecord(first)
    expect(peerId.equals(own.publicKey.peerId)).toBe(true)
    expect(seq).toBe(BigInt(env.clock.wallTime()) * 1_000_000n)
    const [second, third] = await Promise.all([book.seal([tcp(3)]), book.seal([tcp(1)])])
    expect((await openPeerRecord(second)).seq).toBe(seq + 1n)
    expect((await openPeerRecord(third)).seq).toBe(seq + 2n)
    expect(book.record(book.self)).toBe(third)
    expect(texts(book.self)).toEqual([String(tcp(1))])
  })

  it('is signed once for more addresses than are kept of a peer', async () => {
    const many = Array.from({ length: 100 }, (_, i) => tcp(i))
    const first = await book.seal(many)
    expect((await openPeerRecord(first)).addrs).toHaveLength(100)
    expect(await book.seal(many.toReversed())).toBe(first)
    expect(await book.seal(many.slice(1))).not.toBe(first)
  })

  it('is changed by nobody else', async () => {
    const mine = await book.seal([tcp(1)])
    book.add(book.self, [tcp(2)], { source: 'dht' })
    book.connected(book.self)
    book.disconnected(book.self)
    expect(book.delete(book.self)).toBe(false)
    const later = await sealPeerRecord(own, { seq: 2n ** 63n, addrs: [tcp(3)] })
    expect(await book.consume(later)).toBe(false)
    expect(await book.consume(later, { peer: book.self })).toBe(false)
    expect(traces).toEqual(['book.own-record-refused', 'book.own-record-refused'])
    expect(book.record(book.self)).toBe(mine)
    expect(texts(book.self)).toEqual([String(tcp(1))])
    expect(book.peers()).toEqual([])
    await env.clock.advance(1000 * hour)
    expect(texts(book.self)).toEqual([String(tcp(1))])
  })
})

describe('the bounds of an address book', () => {
  it('are 64 addresses a peer: those that expire first make room, certified ones for none', async () => {
    const many = Array.from({ length: 100 }, (_, i) => tcp(i))
    for (const [i, addr] of many.entries()) book.add(peer, [addr], { source: 'dht', ttlMs: 1000 + i })
    expect(texts()).toEqual(many.slice(36).toReversed().map(String))
    await book.consume(await sealed(1n, ...many.map((_, i) => tcp(1000 + i))))
    const certified = texts()
    expect(certified).toEqual(many.slice(0, 64).map((_, i) => String(tcp(1000 + i))))
    book.add(peer, [tcp(1)], { source: 'user', ttlMs: Infinity })
    expect(texts()).toEqual(certified)
  })

  it('are 8 KiB of addresses a peer', () => {
    const long = Array.from({ length: 64 }, (_, i) =>
      multiaddr(`/dns4/${'x'.repeat(60)}.${'y'.repeat(60)}.${'z'.repeat(100)}/tcp/${i}`),
    )
    book.add(peer, long, { source: 'dht' })
    const bytes = book.addrs(peer).reduce((sum, { addr }) => sum + addr.bytes.length, 0)
    expect(bytes).toBeLessThanOrEqual(8192)
    expect(bytes).toBeGreaterThan(7000)
  })

  it('let peers that never were connected go first, the longest untouched before the others', () => {
    book = new AddressBook(own, { env, maxUnconnectedAddrs: 64 })
    const [met, user, now] = [stranger(), stranger(), stranger()]
    book.add(met, [tcp(1)], { source: 'identify' })
    book.connected(met)
    book.disconnected(met)
    book.add(user, [tcp(2)], { source: 'user', ttlMs: Infinity })
    book.add(
      now,
      Array.from({ length: 60 }, (_, i) => tcp(i)),
      { source: 'identify' },
    )
    book.connected(now)
    const flood = Array.from({ length: 10_001 }, (_, i) => ({ id: i < 100 ? stranger() : undefined, i }))
    const ids: PeerId[] = []
    for (const { id, i } of flood) {
      const one = id ?? ids[i % ids.length] ?? peer
      if (id !== undefined) ids.push(id)
      book.add(one, [tcp(i)], { source: 'dht' })
    }
    const left = book.peers().map(String)
    for (const kept of [met, user, now]) expect(left).toContain(kept.toString())
    const addrs = book.peers().reduce((sum, one) => sum + book.addrs(one).length, 0)
    expect(addrs).toBeLessThanOrEqual(64 + 60)
    expect(addrs).toBeGreaterThan(60 + 32)
    expect(texts(now)).toHaveLength(60)
  })

  it('count the bytes of signed records', async () => {
    book = new AddressBook(own, { env, maxRecordBytes: 1000 })
    for (let i = 0; i < 20; i++) {
      const one = generateKey()
      await book.consume(await sealPeerRecord(one, { seq: 1n, addrs: [tcp(i)] }))
    }
    const bytes = book.peers().reduce((sum, one) => sum + (book.record(one)?.length ?? 0), 0)
    expect(bytes).toBeLessThanOrEqual(1000)
    expect(bytes).toBeGreaterThan(600)
  })

  it('are checked', () => {
    expect(() => new AddressBook(own, { env, maxUnconnectedAddrs: 1 })).toThrow(RangeError)
    expect(() => new AddressBook(own, { env, maxRecordBytes: Number.NaN })).toThrow(RangeError)
  })
})

describe('an address book in a record store', () => {
  it('is there again after a restart, our own number too', async () => {
    const records = memoryRecords({ env })
    const kept = await BookRecords.load(records, book, env)
    const mine = await book.seal([tcp(9)])
    expect(await records.get(`/peers/${book.self}/addrs`)).toBeDefined()
    const record = await sealed(3n, tcp(1))
    await book.consume(record)
    const friend = stranger()
    book.add(friend, [tcp(2)], { source: 'dial', ttlMs: 1000 })
    book.connected(friend)
    const gone = stranger()
    book.add(gone, [tcp(3)], { source: 'user', ttlMs: Infinity })
    await env.clock.advance(2_000)
    expect(await Array.fromAsync(records.entries('/peers/'))).toHaveLength(4)
    book.delete(gone)
    await kept.stop([friend])
    // Goodbyes of a node that stops do not age what was just written.
    const known = { record: book.addrs(peer), own: book.addrs(book.self) }
    book.disconnected(friend)
    expect(env.clock.waiting).toBe(0)

    book = new AddressBook(own, { env })
    await BookRecords.load(records, book, env)
    expect(book.record(peer)).toEqual(record)
    expect(book.addrs(peer)).toEqual(known.record)
    expect(book.addrs(book.self)).toEqual(known.own)
    expect(book.addrs(friend)).toMatchObject([{ source: 'dial', expiresAt: env.clock.wallTime() + 24 * hour }])
    expect(book.addrs(gone)).toEqual([])
    expect(await book.seal([tcp(9)])).toEqual(mine)
    expect(await book.consume(await sealed(2n, tcp(7)))).toBe(false)
    // The clock was set back: the number grows all the same.
    const { seq } = await openPeerRecord(mine)
    const back = { ...env, clock: new FakeClock(0, 1000) }
    book = new AddressBook(own, { env: back })
    await BookRecords.load(records, book, env)
    expect((await openPeerRecord(await book.seal([tcp(8)]))).seq).toBe(seq + 1n)
  })

  it('goes on without a store that fails, and skips what it can not read', async () => {
    const records = memoryRecords({ env })
    await records.put('/peers/nobody/addrs', new Uint8Array(1))
    await records.put(`/peers/${peer}/addrs`, new Uint8Array([255]))
    await records.put(`/peers/${peer}/else`, new Uint8Array([255]))
    const kept = await BookRecords.load(records, book, env)
    expect(traces).toEqual(['book.record-skipped', 'book.record-skipped'])
    await records.close()
    await kept.stop()
    book.add(peer, [tcp(2)], { source: 'dht' })
    expect(env.clock.waiting).toBe(0)
    kept.resume()
    book.add(peer, [tcp(1)], { source: 'dht' })
    await env.clock.advance(2_000)
    expect(await book.seal([tcp(2)])).toBeDefined()
    expect(traces.slice(2)).toEqual(['book.save-failed', 'book.save-failed'])
    const broken = {
      ...records,
      entries: () => {
        throw new StorageError('corrupt', 'x', 'x')
      },
    }
    await BookRecords.load(broken, book, env)
    expect(traces.at(-1)).toBe('book.load-failed')
    expect(texts()).toHaveLength(2)
  })

  it('stores all there is about a peer', () => {
    const saved = {
      addrs: [
        { addr: tcp(1), certified: true, source: 'record', expiresAt: 5 },
        { addr: tcp(2), certified: false, source: 'user', expiresAt: Infinity },
      ],
      record: { sealed: Uint8Array.of(1, 2), seq: 2n ** 64n - 1n },
      met: true,
    }
    expect(decodeSavedPeer(encodeSavedPeer(saved))).toEqual(saved)
    const none = { addrs: [], record: undefined, met: false }
    expect(decodeSavedPeer(encodeSavedPeer(none))).toEqual(none)
  })
})
