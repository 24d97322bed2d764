import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { newLedger } from '../../../src/protocols/bitswap/ledger.ts'
import { Fetcher, type FetchEvent, type FetchOptions, type Session } from '../../../src/protocols/bitswap/session.ts'
import { keyOf, type BitswapMessage, type ReceivedBlock } from '../../../src/protocols/bitswap/wire.ts'
import { block } from './fake-host.ts'

const blocks = Array.from({ length: 600 }, (_, i) => block(i, 100))
const keys = blocks.map((b) => keyOf(b.cid.multihash.bytes))
const nameOf = new Map(blocks.map((b, i) => [String(b.cid.bytes), i]))

const hash = (code: number, data: Uint8Array): Uint8Array | undefined =>
  code === 0x12 ? new Uint8Array(createHash('sha256').update(data).digest()) : undefined

const sha256 = (data: Uint8Array): ReceivedBlock => ({ hashCode: 0x12, digestLength: 32, data })

/** A fetcher with peers that are ready, and what it said in short words. */
class Bench {
  readonly fetcher: Fetcher
  readonly session: Session = new Map()
  readonly ledgers = new Map<string, ReturnType<typeof newLedger>>()
  now = 0

  constructor(options: FetchOptions = {}) {
    this.fetcher = new Fetcher(hash, { peerTimeoutMs: 1000, ...options })
  }

  want(i: number, ...peers: string[]): void {
    this.fetcher.want(keys[i] ?? '', blocks[i]?.cid.bytes ?? new Uint8Array(0), this.session, peers, this.now)
  }

  ready(...peers: string[]): void {
    for (const peer of peers) this.fetcher.ready(peer, true, this.now)
  }

  receive(peer: string, message: Partial<BitswapMessage>): void {
    const ledger = this.ledgers.get(peer) ?? newLedger()
    this.ledgers.set(peer, ledger)
    const whole = { full: false, wants: [], blocks: [], presences: [], pendingBytes: 0, ...message }
    this.fetcher.receive(peer, ledger, whole, this.now)
  }

  block(peer: string, ...numbers: number[]): void {
    this.receive(peer, { blocks: numbers.map((i) => sha256(blocks[i]?.bytes ?? new Uint8Array(0))) })
  }

  presence(peer: string, i: number, have: boolean): void {
    this.receive(peer, { presences: [{ cid: blocks[i]?.cid.bytes ?? new Uint8Array(0), key: keys[i] ?? '', have }] })
  }

  /** What a peer is told now: `block 1`, `have 1`, `cancel 1`. */
  told(peer: string): string[] {
    const out: string[] = []
    for (let m = this.fetcher.transmit(peer); m !== undefined; m = this.fetcher.transmit(peer)) {
      if (m.full) out.push('full')
      for (const w of m.wants) out.push(`${w.cancel ? 'cancel' : w.type} ${nameOf.get(String(w.cid))}`)
    }
    return out
  }

  events(): string[] {
    const out: string[] = []
    for (let e = this.fetcher.next(); e !== undefined; e = this.fetcher.next())
      if (e.type !== 'send') out.push(short(e))
    return out
  }

  advance(ms: number): void {
    const until = this.now + ms
    while (this.fetcher.deadline <= until) {
      this.now = this.fetcher.deadline
      this.fetcher.tick(this.now)
    }
    this.now = until
  }
}

function short(e: FetchEvent): string {
  switch (e.type) {
    case 'block':
      return `block ${keys.indexOf(e.key)} from ${e.peer}`
    case 'unavailable':
      return `unavailable ${keys.indexOf(e.key)}: ${e.tried.map((t) => `${t.what} ${String(t.reason)}`).join(', ')}`
    case 'violation':
      return `violation ${e.peer}`
    default:
      return `${e.type} ${e.peer}`
  }
}

describe('Fetcher', () => {
  it('connects, then asks the only peer for the block at once', () => {
    const t = new Bench()
    t.want(1, 'a')
    expect(t.events()).toEqual(['connect a'])
    expect(t.told('a')).toEqual([])
    t.ready('a')
    expect(t.told('a')).toEqual(['full', 'block 1'])
    t.block('a', 1)
    expect(t.events()).toEqual(['block 1 from a'])
    expect(t.told('a')).toEqual([])
    expect(t.fetcher.deadline).toBe(Infinity)
  })

  it('asks one of several for the block, the others whether they have it, and cancels at the others on receipt', () => {
    const t = new Bench()
    t.ready('a', 'b', 'c')
    t.want(1, 'a', 'b', 'c')
    expect(t.told('a')).toEqual(['full', 'block 1'])
    expect(t.told('b')).toEqual(['full', 'have 1'])
    expect(t.told('c')).toEqual(['full', 'have 1'])
    t.block('a', 1)
    expect(t.told('a')).toEqual([])
    expect(t.told('b')).toEqual(['cancel 1'])
    expect(t.told('c')).toEqual(['cancel 1'])
  })

  it('asks nobody else once a peer of the session has proven good', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a', 'b')
    t.told('b')
    t.block('a', 1)
    t.told('b')
    t.want(2, 'a', 'b')
    expect(t.told('a')).toEqual(['full', 'block 1', 'block 2'].slice(0, 1).concat(['block 2']))
    expect(t.told('b')).toEqual([])
  })

  it('turns to who has it when the first does not', () => {
    const t = new Bench()
    t.ready('a', 'b', 'c')
    t.want(1, 'a', 'b', 'c')
    for (const p of ['a', 'b', 'c']) t.told(p)
    t.presence('c', 1, true)
    expect(t.told('c')).toEqual([])
    t.presence('a', 1, false)
    expect(t.told('a')).toEqual(['cancel 1'])
    expect(t.told('c')).toEqual(['block 1'])
    expect(t.told('b')).toEqual([])
  })

  it('gives up when all have said no, and names them', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a', 'b')
    t.told('a')
    t.told('b')
    t.presence('b', 1, false)
    t.presence('a', 1, false)
    expect(t.events()).toEqual(['unavailable 1: a does not have it, b does not have it'])
    expect(t.fetcher.size).toBe(0)
  })

  it('asks another after half the time of silence, still takes the late block, and cancels', () => {
    const t = new Bench()
    t.ready('a')
    t.fetcher.ready('old', false, 0)
    t.want(1, 'a', 'old')
    t.told('a')
    t.advance(499)
    expect(t.told('old')).toEqual([])
    t.advance(51)
    expect(t.told('old')).toEqual(['full', 'block 1'])
    expect(t.told('a')).toEqual([])
    t.block('a', 1)
    expect(t.events()).toEqual(['block 1 from a'])
    expect(t.told('old')).toEqual(['cancel 1'])
    t.block('old', 1)
    expect(t.ledgers.get('old')).toMatchObject({ duplicates: 1, unasked: 0 })
  })

  it('asks who is known to have it after a tenth of the time', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a', 'b')
    t.told('b')
    t.presence('b', 1, true)
    expect(t.told('b')).toEqual([])
    t.advance(150)
    expect(t.told('b')).toEqual(['block 1'])
  })

  it('asks a peer that comes later whether it has what an unproven one was asked for', () => {
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a', 'b')
    expect(t.events()).toContain('connect b')
    t.ready('b')
    expect(t.told('b')).toEqual(['full', 'have 1'])
    t.ready('c')
    t.want(1, 'c')
    expect(t.told('c')).toEqual(['full', 'have 1'])
  })

  it('gives up on a peer that never answers', () => {
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a')
    t.told('a')
    t.advance(1100)
    expect(t.events()).toEqual(['unavailable 1: a no answer within 1000 ms'])
    expect(t.told('a')).toEqual(['cancel 1'])
  })

  it('waits for a slow peer as long as it keeps sending', () => {
    const t = new Bench()
    t.ready('a')
    for (let i = 0; i < 20; i++) t.want(i, 'a')
    for (let i = 19; i > 0; i--) {
      t.advance(600)
      t.block('a', i)
    }
    expect(t.events()).toHaveLength(19)
    expect(t.fetcher.size).toBe(1)
  })

  it('waits for a peer whose message is still coming, and asks another beside it', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a', 'b')
    for (let i = 0; i < 8; i++) {
      t.advance(400)
      t.fetcher.heard('a', t.now)
    }
    expect(t.events()).toEqual([])
    t.advance(1100)
    t.presence('b', 1, false)
    expect(t.events()).toEqual(['unavailable 1: a no answer within 1000 ms, b no answer within 1000 ms'])
  })

  it('asks others when a peer goes, and connects once more when there is no other', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a', 'b')
    t.told('b')
    t.fetcher.gone('a', 'connection lost', true, 0)
    expect(t.events()).toEqual(['connect a'])
    t.presence('b', 1, true)
    expect(t.told('b')).toEqual(['block 1'])
    t.fetcher.gone('b', 'connection lost', true, 0)
    expect(t.events()).toEqual(['connect b'])
    t.fetcher.gone('a', 'no route', false, 0)
    expect(t.events()).toEqual([])
    t.ready('b')
    expect(t.told('b')).toEqual(['full', 'block 1'])
    t.fetcher.gone('b', 'connection lost', true, 0)
    expect(t.events()).toEqual(['unavailable 1: a no route, b connection lost'])
  })

  it('asks at most the window of one peer at once and refills it', () => {
    const t = new Bench({ peerWindow: 8 })
    t.ready('a')
    for (let i = 0; i < 100; i++) t.want(i, 'a')
    expect(t.told('a')).toEqual(['full', 'block 0', 'block 1'])
    t.block('a', 0)
    // The window grew by one.
    expect(t.told('a')).toEqual(['block 2', 'block 3'])
    for (let i = 1; i < 100; i++) t.block('a', i)
    expect(t.events()).toHaveLength(100)
    expect(t.fetcher.size).toBe(0)
  })

  it('keeps the window within its bytes', () => {
    const t = new Bench({ peerWindow: 128, peerWindowBytes: 1000 })
    t.ready('a')
    for (let i = 0; i < 200; i++) t.want(i, 'a')
    for (let i = 0; i < 50; i++) t.block('a', i)
    const asked = t.told('a').filter((w) => w.startsWith('block')).length
    for (let i = 50; i < 60; i++) t.block('a', i)
    expect(asked).toBeLessThanOrEqual(82)
    // 1,000 bytes are ten blocks of 100.
    expect(t.told('a').length).toBeLessThanOrEqual(10)
  })

  it('shares the load between peers that both have the blocks', () => {
    const t = new Bench({ peerWindow: 8 })
    t.ready('a', 'b')
    for (let i = 0; i < 40; i++) t.want(i, 'a', 'b')
    const asked = { a: 0, b: 0 }
    const done = new Set<string>()
    for (let round = 0; round < 100 && t.fetcher.size > 0; round++) {
      for (const p of ['a', 'b'] as const) {
        for (const w of t.told(p)) {
          const [what, number] = w.split(' ')
          if (what === 'have') t.presence(p, Number(number), true)
          if (what !== 'block') continue
          asked[p]++
          expect(done.has(w)).toBe(false)
          done.add(w)
          t.block(p, Number(number))
        }
      }
    }
    expect(t.fetcher.size).toBe(0)
    expect(asked.a + asked.b).toBe(40)
    expect(Math.min(asked.a, asked.b)).toBeGreaterThan(5)
  })

  it('asks sixteen peers at first and the seventeenth when they have said no', () => {
    const t = new Bench({ broadcast: 2 })
    t.ready('a', 'b', 'c')
    t.want(1, 'a', 'b', 'c')
    expect(t.told('c')).toEqual([])
    t.presence('a', 1, false)
    t.presence('b', 1, false)
    expect(t.told('c')).toEqual(['full', 'block 1'])
  })

  it('never asks a 1.1 peer whether it has a block', () => {
    const t = new Bench()
    t.ready('a')
    t.fetcher.ready('old', false, 0)
    t.want(1, 'a', 'old')
    expect(t.told('old')).toEqual([])
    t.presence('a', 1, false)
    expect(t.told('old')).toEqual(['full', 'block 1'])
  })

  it('lets a want that is under way be joined by further peers', () => {
    const t = new Bench()
    t.ready('a', 'b')
    t.want(1, 'a')
    t.want(1, 'b')
    expect(t.told('a')).toEqual(['full', 'block 1'])
    expect(t.told('b')).toEqual(['full', 'have 1'])
    t.presence('a', 1, false)
    t.presence('b', 1, true)
    expect(t.told('b')).toEqual(['block 1'])
    t.block('b', 1)
    expect(t.events()).toEqual(['block 1 from b'])
  })

  it('tells everybody when a want is cancelled, and the queue moves on', () => {
    const t = new Bench({ peerWindow: 4 })
    t.ready('a')
    for (let i = 0; i < 3; i++) t.want(i, 'a')
    expect(t.told('a')).toEqual(['full', 'block 0'])
    t.fetcher.cancel(keys[0] ?? '', 0)
    expect(t.told('a')).toEqual(['cancel 0', 'block 1'])
    t.fetcher.cancel(keys[1] ?? '', 0)
    t.fetcher.cancel(keys[2] ?? '', 0)
    expect(t.told('a')).toEqual(['cancel 1'])
    expect(t.fetcher.size).toBe(0)
  })

  it('says everything again after a lost stream', () => {
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a')
    t.want(2, 'a')
    t.told('a')
    t.block('a', 1)
    t.fetcher.resync('a')
    expect(t.told('a')).toEqual(['full', 'block 2'])
    t.block('a', 2)
    t.fetcher.resync('a')
    expect(t.told('a')).toEqual([])
  })
})

describe('Fetcher and hostile peers', () => {
  it('drops blocks that nobody asked for without hashing them, and cuts the peer off in the end', () => {
    let hashed = 0
    const fetcher = new Fetcher((code, data) => {
      hashed++
      return hash(code, data)
    })
    const ledger = newLedger()
    const message = { full: false, wants: [], presences: [], pendingBytes: 0 }
    fetcher.receive('never', ledger, { ...message, blocks: blocks.slice(0, 500).map((b) => sha256(b.bytes)) }, 0)
    expect(hashed).toBe(0)
    expect(ledger.unasked).toBe(500)
    expect(fetcher.next()).toBeUndefined()
    for (let i = 0; i < 40; i++) {
      fetcher.receive('never', ledger, { ...message, blocks: blocks.slice(0, 500).map((b) => sha256(b.bytes)) }, 0)
    }
    expect(fetcher.next()).toMatchObject({ type: 'violation', peer: 'never', error: { code: 'bad-block' } })
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a')
    t.block('a', 1)
    t.events()
    t.block('a', ...Array.from({ length: 256 }, (_, i) => i + 2))
    expect(t.events()).toEqual([])
    t.block('a', 300)
    expect(t.events()).toEqual(['violation a'])
  })

  it('turns away from a peer that sends another block than the one asked for', () => {
    const t = new Bench()
    t.ready('liar', 'b')
    t.want(1, 'liar', 'b')
    t.told('b')
    t.block('liar', 5)
    expect(t.events()).toEqual(['violation liar'])
    t.presence('b', 1, true)
    expect(t.told('b')).toEqual(['block 1'])
    t.block('b', 1)
    t.want(2, 'liar', 'b')
    expect(t.told('liar')).not.toContain('block 2')
    t.block('b', 2)
    t.now += 60_001
    t.want(3, 'liar')
    expect(t.told('liar')).toContain('block 3')
  })

  it('bears 10,000 presences that nobody asked for, and not many more', () => {
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a')
    const presences = Array.from({ length: 10_000 }, (_, i) => ({
      cid: new Uint8Array(0),
      key: `k${i}`,
      have: i % 2 === 0,
    }))
    t.receive('a', { presences })
    expect(t.events()).toEqual([])
    expect(t.ledgers.get('a')?.unasked).toBe(10_000)
    t.block('a', 1)
    expect(t.events()).toEqual(['block 1 from a'])
    t.receive('a', { presences })
    expect(t.events()).toEqual(['violation a'])
  })

  it('ignores blocks under a hash it does not know or longer than the hash', () => {
    const t = new Bench()
    t.ready('a')
    t.want(1, 'a')
    t.want(2, 'a')
    const data = blocks[1]?.bytes ?? new Uint8Array(0)
    t.receive('a', { blocks: [{ hashCode: 0x99, digestLength: 32, data }] })
    t.receive('a', { blocks: [{ hashCode: 0x12, digestLength: 33, data }] })
    expect(t.events()).toEqual([])
    expect(t.ledgers.get('a')?.unasked).toBe(2)
  })

  it('does not end a ban with a new connection', () => {
    const t = new Bench()
    t.ready('liar')
    t.want(1, 'liar')
    t.block('liar', 5)
    expect(t.events()[1]).toMatch(/^unavailable 1: liar ProtocolError: sent a block/)
    t.fetcher.gone('liar', 'gone', true, 0)
    t.want(1, 'liar')
    expect(t.events()[0]).toMatch(/^unavailable 1: liar ProtocolError: sent a block/)
  })
})
