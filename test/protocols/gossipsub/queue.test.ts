import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat } from '../../../src/bytes.ts'
import { PeerQueue, queueDefaults, type QueueLimits, type Tx } from '../../../src/protocols/gossipsub/queue.ts'
import { decodeRpc, encodeMessage, type Rpc } from '../../../src/protocols/gossipsub/wire.ts'
import { readVarint, varintLength } from '../../../src/varint.ts'

const queue = (limits: Partial<QueueLimits> = {}): PeerQueue => new PeerQueue({ ...queueDefaults, ...limits })

/** A message of so many bytes of data, named by its first. */
function raw(name: string, size = 100): Uint8Array {
  const data = new Uint8Array(size)
  data[0] = name.charCodeAt(0)
  return encodeMessage({ topic: 't', data })
}

const nameOf = (data: Uint8Array | undefined): string => String.fromCharCode(data?.[0] ?? 0)

function read({ chunks }: Tx): Rpc {
  const whole = concat(chunks)
  return decodeRpc(whole.subarray(varintLength(readVarint(whole) ?? 0)))
}

/** All that goes out, in RPCs. */
function drain(of: PeerQueue, now = 0, turn = 0): Rpc[] {
  const out: Rpc[] = []
  for (let tx = of.take(now, turn); tx !== undefined; tx = of.take(now, turn)) {
    out.push(read(tx))
    expect(tx.bytes).toBe(concat(tx.chunks).length)
  }
  return out
}

const names = (rpcs: readonly Rpc[]): string =>
  rpcs.flatMap(({ publish }) => publish.map(({ data }) => nameOf(data))).join('')

describe('what waits for a peer', () => {
  it('is nothing at first, and nothing again when it was taken', () => {
    const q = queue()
    expect(q.pending).toBe(false)
    expect(q.take(0, 0)).toBeUndefined()
    q.graft('t')
    q.message('1', raw('a'), 'own', 0)
    expect(q.pending).toBe(true)
    expect(drain(q)).toHaveLength(1)
    expect([q.pending, q.bytes]).toEqual([false, 0])
    expect(q.take(0, 0)).toBeUndefined()
  })

  it('never makes an RPC above 1 MiB of what is not: others would end the stream', () => {
    const q = queue()
    const large = 1024 * 1024 - 200
    q.ihave(
      't',
      Array.from({ length: 5_000 }, (_, i) => `${i}`.padStart(40, '0')),
    )
    const topics = Array.from({ length: 1_500 }, (_, i) => ({ subscribe: true, topic: `${i}`.padStart(1_024, 't') }))
    q.greet(topics, {})
    q.partial({ topic: 't', groupId: Uint8Array.of(1), message: new Uint8Array(large) }, large)
    q.partial({ topic: 't', groupId: Uint8Array.of(2), message: new Uint8Array(large) }, large)
    q.message('1', raw('a', large), 'own', 0)
    q.message('2', raw('b', large), 'forwarded', 0)
    let sum = 0
    for (let tx = q.take(0, 0); tx !== undefined; tx = q.take(0, 0)) {
      expect(tx.bytes).toBeLessThan(1024 * 1024)
      sum += tx.bytes
    }
    expect(sum).toBeGreaterThan(4 * large + 1_500 * 1_024)
  })

  it('begins with subscriptions and extensions, once', () => {
    const q = queue()
    q.message('1', raw('a'), 'own', 0)
    q.greet([{ subscribe: true, topic: 't' }], { partialMessages: true })
    const [first, ...more] = drain(q)
    expect(more).toEqual([])
    expect(first?.subscriptions.map(({ topic }) => topic)).toEqual(['t'])
    expect(first?.extensions?.partialMessages).toBe(true)
    expect(first?.publish).toHaveLength(1)
    q.graft('t')
    expect(drain(q).map(({ extensionsCount }) => extensionsCount)).toEqual([0])
  })

  it('says hello with extensions that are all off, too', () => {
    const q = queue()
    q.greet([], {})
    expect(q.pending).toBe(true)
    expect(drain(q).map(({ extensionsCount }) => extensionsCount)).toEqual([1])
  })

  it('goes own before forwarded before replies, each in order', () => {
    const q = queue()
    q.message('1', raw('r'), 'reply', 0)
    q.message('2', raw('f'), 'forwarded', 0)
    q.message('3', raw('o'), 'own', 0)
    q.message('4', raw('F'), 'forwarded', 0)
    q.message('5', raw('O'), 'own', 0)
    q.message('6', raw('R'), 'reply', 0)
    expect(names(drain(q))).toBe('oOfFrR')
  })

  it('tells which messages of our own are in an RPC', () => {
    const q = queue()
    q.message('mine', raw('o'), 'own', 0)
    q.message('theirs', raw('f'), 'forwarded', 0)
    expect(q.take(0, 0)?.own).toEqual(['mine'])
  })

  it('is each message once, in whichever lane', () => {
    const q = queue()
    expect(q.message('1', raw('a'), 'own', 0)).toBe(true)
    expect(q.message('1', raw('a'), 'reply', 0)).toBe(true)
    expect(q.message('1', raw('a'), 'own', 0)).toBe(true)
    expect(names(drain(q))).toBe('a')
  })

  it('is one last word for a topic', () => {
    const q = queue()
    q.subscription({ subscribe: true, topic: 't' })
    q.graft('t')
    q.prune('t', 60, [])
    q.subscription({ subscribe: false, topic: 't' })
    q.prune('u', 60, [])
    q.graft('u')
    q.ihave('t', ['old'])
    q.ihave('t', ['new'])
    const [rpc, ...more] = drain(q)
    expect(more).toEqual([])
    expect(rpc?.subscriptions.map(({ topic, subscribe }) => [topic, subscribe])).toEqual([['t', false]])
    expect([rpc?.graft, rpc?.prune.map(({ topic }) => topic)]).toEqual([['u'], ['t']])
    expect(rpc?.ihave).toEqual([{ topic: 't', ids: ['new'] }])
  })

  it('is no message that the peer says it has', () => {
    const q = queue()
    for (const [i, lane] of (['own', 'forwarded', 'reply'] as const).entries()) q.message(`${i}`, raw('x'), lane, 0)
    q.message('stays', raw('s'), 'forwarded', 0)
    for (const id of ['0', '1', '2', 'unheard of']) q.cancel(id)
    expect(names(drain(q))).toBe('s')
    expect([q.bytes, q.dropped]).toEqual([0, 0])
  })

  it('is held back until its turn, and what is behind it in its lane too, while the rest goes', () => {
    const q = queue()
    q.message('1', raw('f'), 'forwarded', 0, 7)
    q.message('2', raw('g'), 'forwarded', 0)
    q.message('3', raw('o'), 'own', 0)
    q.idontwant('id')
    expect(names(drain(q, 0, 5))).toBe('o')
    expect(q.pending).toBe(true)
    expect(drain(q, 0, 6)).toEqual([])
    q.cancel('1')
    expect(names(drain(q, 0, 7))).toBe('g')
  })
})

describe('the drop rule', () => {
  // Three messages of 1,000 bytes and a bit, or four of which one has to go.
  const small = { maxQueueBytes: 3_200 }
  const fill = (lanes: string): PeerQueue => {
    const q = queue(small)
    for (const [i, lane] of lanes.split('').entries()) {
      const of = lane === 'o' ? 'own' : lane === 'f' ? 'forwarded' : 'reply'
      q.message(`${i}`, raw(String(i), 1_000), of, 0)
    }
    return q
  }

  it.each([
    // what waits, what comes, whether there is room for it, what goes out
    ['frr', 'f', true, '0x2'],
    ['ffr', 'f', true, '01x'],
    ['fff', 'f', true, '12x'],
    ['fff', 'o', true, 'x12'],
    ['orf', 'o', true, '0x2'],
    ['ooo', 'o', false, '012'],
    ['ooo', 'f', false, '012'],
    ['ooo', 'r', false, '012'],
    ['fff', 'r', false, '012'],
    ['rrr', 'r', false, '012'],
    ['oof', 'f', true, '01x'],
  ])('with %s waiting, %s finds room: %s, and %s goes out', (waiting, lane, room, out) => {
    const q = fill(waiting)
    const of = lane === 'o' ? 'own' : lane === 'f' ? 'forwarded' : 'reply'
    expect(q.message('x', raw('x', 1_000), of, 0)).toBe(room)
    expect(q.dropped).toBe(1)
    expect(q.bytes).toBeLessThanOrEqual(small.maxQueueBytes)
    expect(names(drain(q))).toBe(out)
  })

  it('drops nothing for what finds no room all the same', () => {
    const q = fill('oof')
    expect(q.message('x', raw('x', 3_100), 'forwarded', 0)).toBe(false)
    expect(q.message('y', raw('y', 3_100), 'own', 0)).toBe(false)
    expect(q.message('z', raw('z', 4_000), 'own', 0)).toBe(false)
    expect(names(drain(q))).toBe('012')
    expect(q.dropped).toBe(3)
  })

  it('lets go of what waited too long, but for our own', () => {
    const q = queue({ maxQueueMs: 5_000 })
    q.message('1', raw('o'), 'own', 0)
    q.message('2', raw('f'), 'forwarded', 0)
    q.message('3', raw('r'), 'reply', 0)
    q.message('4', raw('F'), 'forwarded', 1)
    expect(names(drain(q, 5_001))).toBe('oF')
    expect([q.dropped, q.bytes, q.pending]).toEqual([2, 0, false])
  })

  it('bounds the ids of IWANT and IDONTWANT', () => {
    const q = queue({ maxQueuedIds: 30 })
    expect(q.iwant(Array.from({ length: 20 }, (_, i) => `a${i}`))).toBe(20)
    expect(q.iwant(Array.from({ length: 20 }, (_, i) => `b${i}`))).toBe(10)
    expect(q.iwant(['c'])).toBe(0)
    for (let i = 0; i < 100; i++) q.idontwant(`d${i}`)
    const rpcs = drain(q)
    expect(rpcs.flatMap(({ iwant }) => iwant)).toHaveLength(30)
    expect(rpcs.flatMap(({ idontwant }) => idontwant)).toHaveLength(30)
    // go reads no more than so many of one RPC
    for (const { idontwant } of rpcs) expect(idontwant.length).toBeLessThanOrEqual(10)
  })

  it('bounds partial messages', () => {
    const q = queue({ maxQueueBytes: 1_000 })
    const piece = { topic: 't', groupId: new Uint8Array(4), message: new Uint8Array(400) }
    const size = 32 + 1 + 4 + 400
    expect([q.partial(piece, size), q.partial(piece, size), q.partial(piece, size)]).toEqual([true, true, false])
    expect(drain(q).map(({ partial }) => partial?.message?.length)).toEqual([400, 400])
    expect(q.bytes).toBe(0)
  })
})

describe('RPCs', () => {
  it('hold about a record of messages each, and one that is larger alone', () => {
    const q = queue()
    for (let i = 0; i < 10; i++) q.message(`${i}`, raw(String(i), 20_000), 'forwarded', 0)
    q.message('large', raw('L', 1_000_000), 'forwarded', 0)
    q.message('small', raw('s', 10), 'forwarded', 0)
    const rpcs = drain(q)
    expect(names(rpcs)).toBe('0123456789Ls')
    expect(rpcs.map(({ publish }) => publish.length)).toEqual([3, 3, 3, 1, 1, 1])
  })

  it('hold 256 messages at most', () => {
    const q = queue()
    for (let i = 0; i < 300; i++) q.message(`${i}`, raw('m', 1), 'own', 0)
    expect(drain(q).map(({ publish }) => publish.length)).toEqual([256, 44])
  })

  it('split what is long of control, and lose nothing', () => {
    const q = queue()
    const ids = Array.from({ length: 5_000 }, (_, i) => `${i}`.padStart(100, '.'))
    q.ihave('t', ids)
    q.ihave('u', ids)
    q.iwant(ids)
    const peers = Array.from({ length: 16 }, () => ({ id: new Uint8Array(38), record: new Uint8Array(2_000) }))
    for (let i = 0; i < 20; i++) q.prune(`topic ${i}`, 60, peers)
    const rpcs: Rpc[] = []
    for (let tx = q.take(0, 0); tx !== undefined; tx = q.take(0, 0)) {
      expect(tx.bytes).toBeLessThan(512 * 1024)
      rpcs.push(read(tx))
    }
    for (const topic of ['t', 'u']) {
      const heard = rpcs.flatMap(({ ihave }) => ihave.filter((one) => one.topic === topic).flatMap((one) => one.ids))
      expect(heard).toEqual(ids)
    }
    expect(rpcs.flatMap(({ iwant }) => iwant)).toEqual(ids)
    expect(rpcs.flatMap(({ prune }) => prune.map(({ topic }) => topic))).toHaveLength(20)
  })
})

describe('any queue', () => {
  const name = fc.integer({ min: 0, max: 30 }).map((i) => String.fromCharCode(65 + i))
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('message' as const),
      name,
      lane: fc.constantFrom('own' as const, 'forwarded' as const, 'reply' as const),
      size: fc.integer({ min: 1, max: 1_500 }),
      turn: fc.integer({ min: 0, max: 8 }),
    }),
    fc.record({ kind: fc.constant('cancel' as const), name }),
    fc.record({ kind: fc.constant('take' as const) }),
  )

  it('stays within its bytes, sends what it took and nothing that was cancelled, once, and runs empty', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const q = queue({ maxQueueBytes: 4_000 })
        const owed = new Set<string>()
        let turn = 0
        let taken = 0
        let gone = 0
        const take = (): void => {
          const tx = q.take(turn, turn)
          turn++
          for (const { data } of tx === undefined ? [] : read(tx).publish) {
            expect(owed.delete(nameOf(data))).toBe(true)
            gone++
          }
        }
        for (const one of steps) {
          const before = q.bytes
          const dropped = q.dropped
          if (one.kind === 'take') {
            take()
          } else if (one.kind === 'cancel') {
            q.cancel(one.name)
            if (q.bytes < before) gone++
            owed.delete(one.name)
          } else if (q.message(one.name, raw(one.name, one.size), one.lane, turn, one.turn)) {
            // Neither longer nor shorter: it was there already.
            if (q.bytes !== before || q.dropped !== dropped) taken++
            owed.add(one.name)
          } else {
            // Refused: that counts as dropped, too.
            taken++
            expect(q.bytes).toBe(before)
          }
          expect(q.bytes).toBeGreaterThanOrEqual(0)
          expect(q.bytes).toBeLessThanOrEqual(4_000)
        }
        for (let i = 0; i < 100 && q.pending; i++) take()
        expect([q.pending, q.bytes]).toEqual([false, 0])
        expect(gone + q.dropped).toBe(taken)
      }),
      { numRuns: 500 },
    )
  })
})
