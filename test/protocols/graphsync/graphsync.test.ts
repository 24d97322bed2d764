import { afterEach, describe, expect, it } from 'vitest'
import { fakeEnv, settle } from '../../../src/env.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, UnavailableError } from '../../../src/errors.ts'
import type { CID } from '../../../src/ipld/cid.ts'
import { selectors } from '../../../src/ipld/selectors.ts'
import {
  createGraphsync,
  extension,
  type GraphsyncRequest,
  type IncomingRequest,
} from '../../../src/protocols/graphsync/graphsync.ts'
import { FakeHost, join, part } from '../bitswap/fake-host.ts'
import { MemoryBlocks } from '../../../src/store/memory-blocks.ts'
import {
  all,
  chain,
  cleanUp,
  collect,
  fan,
  node,
  raw,
  rootOf,
  side,
  told,
  until,
  type Block,
  type Side,
} from './lab.ts'

afterEach(cleanUp)

async function two(blocks: Block[], answering: object = {}, asking: object = {}): Promise<[Side, Side]> {
  const a = await side(1, blocks, answering)
  const b = await side(2, [], asking)
  join(a.host, b.host)
  return [a, b]
}

const order = (blocks: Block[], mark = '+'): string => blocks.map((_, i) => `${mark}${i}`).join(' ')

describe('a request', () => {
  it('brings all blocks in the order of the walk, and puts them into the store', async () => {
    const blocks = chain(50)
    const [a, b] = await two(blocks)
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    expect(told(await collect(request), blocks)).toBe(order(blocks))
    expect(await request.done).toEqual({
      status: 20,
      blocks: 50,
      bytes: blocks.reduce((sum, { bytes }) => sum + bytes.length, 0),
      missing: 0,
      // Each with three values; the last one's link is null.
      matches: 4 * 50 + 1,
      remaining: 0,
    })
    for (const { cid, bytes } of blocks) expect(await b.store.get(cid)).toEqual(bytes)
    expect(b.graphsync.stats()).toMatchObject({ asked: 0, bufferedBytes: 0, ignored: 0 })
    expect(a.graphsync.stats()).toMatchObject({ answering: 0, outstandingBytes: 0, rememberedLinks: 0, ignored: 0 })
  })

  it('goes through fields in the order in which they are sent, whatever that of the declaration', async () => {
    const [one, other] = [raw(1), raw(2)]
    const blocks = [node({ a: one.cid, zz: other.cid }), one, other]
    const [a, b] = await two(blocks)
    const selector = selectors.fields(
      new Map([
        ['zz', selectors.match()],
        ['a', selectors.match()],
      ]),
    )
    for (const asked of [selector, { selector }])
      expect(told(await collect(b.graphsync.request(a.peer, rootOf(blocks), asked)), blocks)).toMatch(/^.0 .1 .2$/)
  })

  it('runs by itself when nobody iterates, and its blocks are in the store when it is done', async () => {
    const blocks = fan(300, 5000)
    const [a, b] = await two(blocks)
    await expect(b.graphsync.request(a.peer, rootOf(blocks), all).done).resolves.toMatchObject({
      status: 20,
      blocks: 301,
    })
    expect((await b.store.stat()).blocks).toBe(301)
  })

  it('is iterated by whoever asked for its end in the same turn', async () => {
    const blocks = chain(3)
    const [a, b] = await two(blocks)
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    const { done } = request
    expect(told(await collect(request), blocks)).toBe(order(blocks))
    await expect(done).resolves.toMatchObject({ status: 20 })
    expect(() => request[Symbol.asyncIterator]()).toThrow(TypeError)
  })

  it('brings what the selector selects and nothing else', async () => {
    const leaf = raw(1)
    const other = raw(2)
    const middle = node({ a: leaf.cid, b: other.cid })
    const root = node({ x: middle.cid, y: other.cid })
    const [a, b] = await two([root, middle, leaf, other])
    const request = b.graphsync.request(a.peer, root.cid, selectors.path('x/a'))
    const events = await collect(request)
    expect(told(events, [root, middle, leaf])).toBe('+0 +1 +2')
    expect(events.at(-1)).toMatchObject({ kind: 'match', path: ['x', 'a'], node: leaf.bytes })
    expect((await b.store.stat()).blocks).toBe(3)
  })

  it('tells of matched nodes unless it is told not to, of passed ones if told to', async () => {
    const blocks = chain(2)
    const [a, b] = await two(blocks)
    const kinds = async (options: object): Promise<string> =>
      (await collect(b.graphsync.request(a.peer, rootOf(blocks), selectors.path('next/i'), options)))
        .map((e) => e.kind)
        .join(' ')
    expect(await kinds({})).toBe('block block match')
    expect(await kinds({ nodes: false })).toBe('block block')
    expect(await kinds({ visits: true })).toBe('block visit block visit match')
  })

  it('says which blocks the peer lacks, and goes on beside them', async () => {
    const blocks = fan(5)
    const [a, b] = await two(blocks.toSpliced(3, 1))
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    const events = await collect(request)
    expect(told(events, blocks)).toBe('+0 +1 +2 -3 +4 +5')
    expect(events.find((e) => e.kind === 'missing')).toEqual({
      kind: 'missing',
      cid: (blocks[3] as Block).cid,
      path: ['leaves', 2],
    })
    expect(await request.done).toMatchObject({ status: 21, blocks: 5, missing: 1 })
  })

  it('takes what the peer lacks out of our store, with what is below', async () => {
    const below = chain(4)
    const root = node({ a: rootOf(below), b: raw(7).cid })
    const blocks = [root, ...below, raw(7)]
    const a = await side(1, [root, raw(7)])
    const b = await side(2, below)
    join(a.host, b.host)
    const request = b.graphsync.request(a.peer, root.cid, all)
    expect(told(await collect(request), blocks)).toBe('+0 =1 =2 =3 =4 +5')
    expect(await request.done).toMatchObject({ status: 21, missing: 0 })
  })

  it('for a root that the peer lacks is not found', async () => {
    const [a, b] = await two([])
    const { done } = b.graphsync.request(a.peer, rootOf(chain(1)), all)
    await expect(done).rejects.toMatchObject({ name: 'UnavailableError', code: 'not-found' })
  })

  it('gets a block that is linked twice once over the wire', async () => {
    const leaf = raw(1, 3000)
    const root = node({ a: leaf.cid, b: leaf.cid, c: [raw(2).cid, leaf.cid] })
    const [a, b] = await two([root, leaf, raw(2)], { messageBytes: 1000 })
    const events = await collect(b.graphsync.request(a.peer, root.cid, all))
    expect(told(events, [root, leaf, raw(2)])).toBe('+0 +1 =1 +2 =1')
  })

  it('gets what another request to the same peer got already, though it waits there unread', async () => {
    const blocks = fan(20)
    const [a, b] = await two(blocks)
    const first = b.graphsync.request(a.peer, rootOf(blocks), all)[Symbol.asyncIterator]()
    await first.next()
    const events = await collect(b.graphsync.request(a.peer, rootOf(blocks), all))
    expect(events.filter((e) => e.kind === 'block')).toHaveLength(21)
    await first.return?.()
  })

  it('of several is answered with each, in parts that take turns', async () => {
    const graphs = Array.from({ length: 8 }, (_, i) => fan(40, 1000, i + 1))
    const [a, b] = await two(graphs.flat(), { outstandingBytes: 10_000, messageBytes: 4000 })
    const ends: number[] = []
    await Promise.all(
      graphs.map(async (blocks, i) => {
        expect(await b.graphsync.request(a.peer, rootOf(blocks), all).done).toMatchObject({ status: 20, blocks: 41 })
        ends.push(i)
      }),
    )
    expect(ends).toHaveLength(8)
  })

  it('of a higher priority is answered first', async () => {
    const low = fan(200, 1000, 1)
    const high = fan(200, 1000, 2)
    const [a, b] = await two([...low, ...high], { outstandingBytes: 10_000, messageBytes: 4000 })
    const ends: string[] = []
    await Promise.all([
      b.graphsync.request(a.peer, rootOf(low), all).done.then(() => ends.push('low')),
      b.graphsync.request(a.peer, rootOf(high), all, { priority: 5 }).done.then(() => ends.push('high')),
    ])
    expect(ends).toEqual(['high', 'low'])
  })

  it('ends in good order after as many blocks as it wants, and knows what is left', async () => {
    const blocks = fan(10)
    const [a, b] = await two(blocks, { outstandingBytes: 500, messageBytes: 200 })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, { maxBlocks: 2 })
    expect(told(await collect(request), blocks)).toBe('+0 +1')
    expect(await request.done).toMatchObject({ status: 21, blocks: 2, remaining: 9 })
    await until(() => a.graphsync.stats().answering === 0)
  })

  it('ends with LimitError past its own budget, and the peer stops', async () => {
    const blocks = chain(30, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 3000 })
    const { done } = b.graphsync.request(a.peer, rootOf(blocks), all, { budget: { blocks: 5 } })
    await expect(done).rejects.toBeInstanceOf(LimitError)
    await until(() => a.graphsync.stats().answering === 0)
  })

  it('of identity CIDs takes the bytes out of the CID', async () => {
    const { CID: Class } = await import('multiformats/cid')
    const { create } = await import('multiformats/hashes/digest')
    const cid = Class.createV1(0x55, create(0, Uint8Array.of(1, 2, 3))) as CID
    const root = node({ cid })
    const [a, b] = await two([root])
    const events = await collect(b.graphsync.request(a.peer, root.cid, all))
    expect(told(events, [root, { cid, bytes: new Uint8Array() }])).toMatch(/^\+0 [+=]1$/)
  })

  it('throws for a selector that is none before anything is sent', async () => {
    const [a, b] = await two([])
    expect(() => b.graphsync.request(a.peer, rootOf(chain(1)), { x: {} })).toThrow(ProtocolError)
    expect(() => b.graphsync.request(a.peer, rootOf(chain(1)), all, { maxBlocks: 0 })).toThrow(RangeError)
    expect(b.graphsync.stats().peers).toBe(0)
  })

  it('to a peer that cannot be reached, or does not speak GraphSync, is unavailable', async () => {
    const b = await side(2)
    const stranger = new FakeHost(9)
    const unreachable = b.graphsync.request(stranger.peerId, rootOf(chain(1)), all).done
    await expect(unreachable).rejects.toMatchObject({ code: 'no-address' })
    join(b.host, stranger)
    const { done } = b.graphsync.request(stranger.peerId, rootOf(chain(1)), all)
    await expect(done).rejects.toMatchObject({ code: 'no-protocol' })
    expect(b.graphsync.stats().asked).toBe(0)
  })
})

describe('extensions', () => {
  it('do-not-send-cids leaves blocks out that the store has', async () => {
    const blocks = fan(5)
    const a = await side(1, blocks)
    const b = await side(2, blocks.slice(2, 4))
    join(a.host, b.host)
    const extensions = { [extension.doNotSendCids]: blocks.slice(2, 4).map(({ cid }) => cid) }
    const events = await collect(b.graphsync.request(a.peer, rootOf(blocks), all, { extensions }))
    expect(told(events, blocks)).toBe('+0 +1 =2 =3 +4 +5')
  })

  it('do-not-send-first-blocks leaves the first ones out', async () => {
    const blocks = chain(6)
    const a = await side(1, blocks)
    const b = await side(2, blocks.slice(0, 3))
    join(a.host, b.host)
    const extensions = { [extension.doNotSendFirstBlocks]: 3 }
    const events = await collect(b.graphsync.request(a.peer, rootOf(blocks), all, { extensions }))
    expect(told(events, blocks)).toBe('=0 =1 =2 +3 +4 +5')
  })

  it('dedup-by-key keeps requests apart', async () => {
    const blocks = fan(10)
    const onWire: boolean[] = []
    const [a, b] = await two(blocks, {
      hooks: { outgoingBlock: (_: unknown, block: { onWire: boolean }) => onWire.push(block.onWire) },
    })
    const ask = (key: string): GraphsyncRequest =>
      b.graphsync.request(a.peer, rootOf(blocks), all, { extensions: { [extension.dedupByKey]: key } })
    await Promise.all([ask('x').done, ask('y').done])
    expect(onWire).toEqual(Array.from({ length: 22 }, () => true))
    onWire.length = 0
    await Promise.all([ask('x').done, ask('x').done])
    // What the first one had is forgotten when it is over, one block before the second.
    expect(onWire.filter(Boolean).length).toBeLessThanOrEqual(12)
  })

  it('of the protocol that make no sense end the request', async () => {
    const blocks = chain(2)
    const [a, b] = await two(blocks)
    for (const extensions of [
      { [extension.dedupByKey]: 5 },
      { [extension.doNotSendCids]: 'x' },
      { [extension.doNotSendFirstBlocks]: [] },
    ]) {
      const { done } = b.graphsync.request(a.peer, rootOf(blocks), all, { extensions })
      await expect(done).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('32') as string })
    }
  })

  it('of users travel with requests, answers and updates', async () => {
    const blocks = chain(5)
    const heard: unknown[] = []
    let incoming: IncomingRequest | undefined
    const [a, b] = await two(blocks, {
      hooks: {
        request: (request: IncomingRequest) => {
          incoming = request
          heard.push(request.extensions)
          return { accept: true, pause: true, extensions: { 'app/price': 7 } }
        },
        update: (request: IncomingRequest, extensions: object) => {
          heard.push(extensions)
          request.unpause({ 'app/thanks': null })
        },
      },
    })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, {
      extensions: { 'app/hello': { n: [1] } },
      nodes: false,
    })
    const iterator = request[Symbol.asyncIterator]()
    expect(await iterator.next()).toEqual({
      done: false,
      value: { kind: 'note', status: 15, extensions: { 'app/price': 7 } },
    })
    expect(incoming?.root.equals(rootOf(blocks))).toBe(true)
    request.update({ 'app/paid': 7 })
    expect(await iterator.next()).toMatchObject({ value: { kind: 'note', extensions: { 'app/thanks': null } } })
    expect(heard).toEqual([{ 'app/hello': { n: [1] } }, { 'app/paid': 7 }])
    for (let i = 0; i < 5; i++) expect(await iterator.next()).toMatchObject({ value: { kind: 'block', index: i } })
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
  })
})

describe('hooks of the answering side', () => {
  it('refuse whom they will, at once or later, with a status of their choice', async () => {
    const blocks = chain(2)
    const verdicts: unknown[] = [false, { accept: false, status: 33 }, Promise.resolve(false)]
    const [a, b] = await two(blocks, { hooks: { request: () => verdicts.shift() } })
    for (const code of [30, 33, 30]) {
      const request = b.graphsync.request(a.peer, rootOf(blocks), all)
      await expect(request.done).rejects.toMatchObject({ name: 'UnavailableError', code: 'refused' })
      expect(request.status).toBe(code)
    }
    expect(b.graphsync.stats().ignored).toBe(0)
  })

  it('that throw end that request and no other', async () => {
    const blocks = chain(2)
    let calls = 0
    const [a, b] = await two(blocks, {
      hooks: {
        request: () => {
          if (++calls === 1) throw new Error('no')
          return true
        },
      },
    })
    const [first, second] = [1, 2].map(() => b.graphsync.request(a.peer, rootOf(blocks), all).done)
    await expect(first).rejects.toBeInstanceOf(UnavailableError)
    await expect(second).resolves.toMatchObject({ status: 20 })
  })

  it('pause after a block, and go on when they say so', async () => {
    const blocks = chain(6)
    let held: IncomingRequest | undefined
    const ended: string[] = []
    const [a, b] = await two(blocks, {
      hooks: {
        outgoingBlock: (request: IncomingRequest, block: { index: number }) => {
          if (block.index !== 3) return
          held = request
          expect(request.pause()).toBe(true)
        },
        ended: (request: IncomingRequest) => ended.push(request.id),
      },
    })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, { nodes: false })
    const iterator = request[Symbol.asyncIterator]()
    for (let i = 0; i < 3; i++) expect(await iterator.next()).toMatchObject({ value: { kind: 'block', index: i } })
    expect(await iterator.next()).toMatchObject({ value: { kind: 'note', status: 15 } })
    expect(request.status).toBe(15)
    expect(a.graphsync.incoming()).toHaveLength(1)
    expect(held?.pause()).toBe(false)
    expect(held?.unpause()).toBe(true)
    for (let i = 3; i < 6; i++) expect(await iterator.next()).toMatchObject({ value: { kind: 'block', index: i } })
    expect((await iterator.next()).done).toBe(true)
    expect(ended).toEqual([request.id])
    expect(a.graphsync.incoming()).toHaveLength(0)
  })

  it('cancel, which the asking side hears', async () => {
    const blocks = chain(6)
    const [a, b] = await two(blocks, {
      hooks: { outgoingBlock: (r: IncomingRequest, { index }: { index: number }) => index === 2 && r.cancel() },
    })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    await expect(request.done).rejects.toMatchObject({ code: 'refused' })
    expect(request.status).toBe(35)
  })

  it('give another store, and another budget', async () => {
    const blocks = chain(10)
    const other = new MemoryBlocks()
    for (const { cid, bytes } of blocks) await other.put(cid, bytes)
    const [a, b] = await two([], { hooks: { request: () => ({ accept: true, blocks: other, budget: { blocks: 4 } }) } })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, { nodes: false })
    const got: string[] = []
    await expect(
      (async () => {
        for await (const event of request) got.push(told([event], blocks))
      })(),
    ).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('32') as string })
    expect(got.join(' ')).toBe('+0 +1 +2 +3')
  })
})

describe('the answering side by default', () => {
  it('walks no further than its budget', async () => {
    const blocks = chain(10)
    const [a, b] = await two(blocks, { budget: { blocks: 3 } })
    await expect(b.graphsync.request(a.peer, rootOf(blocks), all).done).rejects.toMatchObject({ code: 'refused' })
  })

  it('answers nobody with serve false, and asks all the same', async () => {
    const blocks = chain(3)
    const a = await side(1, blocks, { serve: false })
    const b = await side(2, blocks)
    join(a.host, b.host)
    await expect(b.graphsync.request(a.peer, rootOf(blocks), all).done).rejects.toMatchObject({ code: 'refused' })
    await expect(a.graphsync.request(b.peer, rootOf(blocks), all).done).resolves.toMatchObject({ status: 20 })
  })
})

describe('hooks of the asking side', () => {
  it('hear of responses and blocks, and may cancel', async () => {
    const blocks = chain(10)
    const statuses: number[] = []
    const [a, b] = await two(
      blocks,
      { messageBytes: 100 },
      {
        hooks: {
          response: (_: unknown, { status }: { status: number }) => statuses.push(status),
          incomingBlock: (request: GraphsyncRequest, block: { index: number }) =>
            block.index === 3 && void request.cancel(),
        },
      },
    )
    await expect(b.graphsync.request(a.peer, rootOf(blocks), all).done).rejects.toBeInstanceOf(ClosedError)
    expect(statuses[0]).toBe(14)
  })
})

describe('cancel', () => {
  it('reaches the peer and stops its reading', async () => {
    const blocks = chain(500, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 10_000, messageBytes: 5000 })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    for await (const event of request) if (event.kind === 'block' && event.index === 5) break
    await until(() => a.graphsync.stats().answering === 0 && a.graphsync.stats().outstandingBytes === 0)
    expect(b.graphsync.stats()).toMatchObject({ asked: 0, bufferedBytes: 0 })
    await expect(request.done).rejects.toBeInstanceOf(ClosedError)
    expect(await request.cancel()).toBe(false)
  })

  it('by signal rejects with its reason', async () => {
    const blocks = chain(100, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 10_000, messageBytes: 5000 })
    const stop = new AbortController()
    const reason = new Error('enough')
    await expect(
      (async () => {
        for await (const event of b.graphsync.request(a.peer, rootOf(blocks), all, { signal: stop.signal }))
          if (event.kind === 'block' && event.index === 5) stop.abort(reason)
      })(),
    ).rejects.toBe(reason)
    await until(() => a.graphsync.stats().answering === 0)
  })

  it('by a signal that was aborted before asks nobody', async () => {
    const [a, b] = await two(chain(2))
    const reason = new Error('no')
    const { done } = b.graphsync.request(a.peer, rootOf(chain(2)), all, { signal: AbortSignal.abort(reason) })
    await expect(done).rejects.toBe(reason)
    await settle()
    expect(b.graphsync.stats().asked).toBe(0)
  })
})

describe('pause by the asking side', () => {
  it('stops the peer; what goes on afterwards does not send what was sent', async () => {
    const blocks = chain(60, 2000)
    const sent: number[] = []
    const [a, b] = await two(blocks, {
      outstandingBytes: 10_000,
      messageBytes: 5000,
      hooks: {
        outgoingBlock: (_: unknown, { onWire, index }: { onWire: boolean; index: number }) =>
          onWire && sent.push(index),
      },
    })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, { nodes: false })
    const got: string[] = []
    for await (const event of request) {
      got.push(told([event], blocks))
      if (got.length !== 10) continue
      request.pause()
      await until(() => a.graphsync.stats().answering === 0)
      request.unpause()
    }
    expect(got.join(' ')).toBe(order(blocks))
    expect(await request.done).toMatchObject({ status: 20, blocks: 60 })
    // What was on its way when it was paused was used: at most a message was thrown away.
    expect(sent.length).toBeLessThanOrEqual(60 + 12)
  })
})

describe('a connection that is lost', () => {
  it('is made again, and nothing is told twice nor sent twice', async () => {
    const blocks = chain(60, 2000)
    const sent: number[] = []
    const [a, b] = await two(blocks, {
      outstandingBytes: 10_000,
      messageBytes: 5000,
      hooks: {
        outgoingBlock: (_: unknown, { onWire, index }: { onWire: boolean; index: number }) =>
          onWire && sent.push(index),
      },
    })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    const events: string[] = []
    for await (const event of request) {
      events.push(event.kind === 'match' ? `m${event.path.length}` : told([event], blocks))
      if (events.length === 40 || events.length === 150) part(a.host, b.host)
    }
    const other = await side(3)
    join(a.host, other.host)
    const plain = (await collect(other.graphsync.request(a.peer, rootOf(blocks), all))).map((event) =>
      event.kind === 'match' ? `m${event.path.length}` : told([event], blocks),
    )
    expect(events).toEqual(plain)
    expect(await request.done).toMatchObject({ status: 20 })
  })

  it('before the first answer is no harm either', async () => {
    const blocks = chain(5)
    const [a, b] = await two(blocks)
    const { done } = b.graphsync.request(a.peer, rootOf(blocks), all)
    part(a.host, b.host)
    await expect(done).resolves.toMatchObject({ status: 20, blocks: 5 })
  })

  it('is given up when it does not come back', async () => {
    const blocks = chain(60, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 10_000, messageBytes: 5000 }, { retries: 0 })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    await expect(
      (async () => {
        for await (const event of request) if (event.kind === 'block' && event.index === 4) part(a.host, b.host, true)
      })(),
    ).rejects.toThrow(/connection lost/)
  })

  it('brings what was missing before and is there now, with what is below', async () => {
    const below = chain(3, 50, 9)
    const tail = chain(40, 2000)
    const root = node({ a: rootOf(below), b: rootOf(tail) })
    const blocks = [root, ...below, ...tail]
    const [a, b] = await two([root, ...tail], { outstandingBytes: 10_000, messageBytes: 5000 })
    const request = b.graphsync.request(a.peer, root.cid, all, { nodes: false })
    const got: string[] = []
    for await (const event of request) {
      got.push(told([event], blocks))
      if (got.length !== 12) continue
      for (const { cid, bytes } of below) await a.store.put(cid, bytes)
      part(a.host, b.host)
    }
    const parts = got.join(' ').split(' ')
    expect(parts.filter((p) => p === '-1')).toHaveLength(1)
    expect(new Set(parts)).toEqual(new Set(['-1', ...blocks.map((_, i) => `+${i}`)]))
    expect(parts.filter((p) => /^\+([4-9]|\d\d)$/.test(p)).map((p) => Number(p.slice(1)))).toEqual(
      Array.from({ length: 40 }, (_, i) => i + 4),
    )
  })

  it('of the asking side frees all that was kept for it', async () => {
    const blocks = chain(100, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 10_000, messageBytes: 5000 })
    const iterator = b.graphsync.request(a.peer, rootOf(blocks), all, {})[Symbol.asyncIterator]()
    await iterator.next()
    expect(a.graphsync.stats().answering).toBe(1)
    await b.graphsync.stop()
    part(a.host, b.host, true)
    await until(() => a.graphsync.stats().answering === 0)
    expect(a.graphsync.stats()).toMatchObject({ outstandingBytes: 0, rememberedLinks: 0, peers: 0 })
  })
})

describe('back-pressure', () => {
  it('stops the peer when nobody iterates: what waits is bounded on both sides', async () => {
    const blocks = fan(2000, 5000)
    const [a, b] = await two(blocks, { outstandingBytes: 100_000, messageBytes: 50_000 }, { bufferedBytes: 200_000 })
    const request = b.graphsync.request(a.peer, rootOf(blocks), all, { nodes: false })
    const iterator = request[Symbol.asyncIterator]()
    await iterator.next()
    for (let i = 0; i < 100; i++) await settle()
    expect(b.graphsync.stats().bufferedBytes).toBeLessThan(200_000 + 2 * 60_000)
    expect(a.graphsync.stats().outstandingBytes).toBeLessThan(200_000)
    expect(a.graphsync.stats().answering).toBe(1)
    let count = 1
    while ((await iterator.next()).done !== true) count++
    expect(count).toBe(2001)
  })

  it('of one request does not starve another one to the same peer for ever', async () => {
    const slow = fan(1000, 5000, 1)
    const quick = fan(500, 5000, 2)
    const [a, b] = await two(
      [...slow, ...quick],
      { outstandingBytes: 100_000, messageBytes: 50_000 },
      { bufferedBytes: 100_000 },
    )
    const request = b.graphsync.request(a.peer, rootOf(slow), all, { nodes: false })
    const iterator = request[Symbol.asyncIterator]()
    await iterator.next()
    await until(() => b.graphsync.stats().bufferedBytes > 100_000)
    await expect(b.graphsync.request(a.peer, rootOf(quick), all).done).resolves.toMatchObject({ blocks: 501 })
    let count = 1
    while ((await iterator.next()).done !== true) count++
    expect(count).toBe(1001)
    expect(b.graphsync.stats().bufferedBytes).toBe(0)
  })
})

describe('silence', () => {
  it('of a peer ends the request after a while, and the peer is told', async () => {
    const env = fakeEnv()
    const blocks = chain(3)
    let held: IncomingRequest | undefined
    const a = await side(1, blocks, { hooks: { request: (request) => new Promise(() => (held = request)) } })
    const b = await side(2, [], {}, env)
    join(a.host, b.host)
    const { done } = b.graphsync.request(a.peer, rootOf(blocks), all)
    await until(() => held !== undefined)
    await settle()
    await env.clock.advance(29_000)
    expect(b.graphsync.stats().asked).toBe(1)
    await env.clock.advance(2_000)
    await expect(done).rejects.toBeInstanceOf(TimeoutError)
    await until(() => a.graphsync.stats().answering === 0)
  })

  it('is borne longer while the peer has the request paused', async () => {
    const env = fakeEnv()
    const blocks = chain(3)
    const a = await side(1, blocks, { hooks: { request: () => ({ accept: true, pause: true }) } })
    const b = await side(2, [], {}, env)
    join(a.host, b.host)
    const request = b.graphsync.request(a.peer, rootOf(blocks), all)
    const { done } = request
    await until(() => request.status === 15)
    await env.clock.advance(500_000)
    expect(b.graphsync.stats().asked).toBe(1)
    await env.clock.advance(101_000)
    await expect(done).rejects.toBeInstanceOf(TimeoutError)
  })
})

describe('start and stop', () => {
  it('a request before start or after stop throws, one under way ends with ClosedError', async () => {
    const blocks = chain(100, 2000)
    const [a, b] = await two(blocks, { outstandingBytes: 10_000, messageBytes: 5000 })
    const idle = createGraphsync(new FakeHost(5), new MemoryBlocks())
    expect(() => idle.request(a.peer, rootOf(blocks), all)).toThrow(/not started/)
    const iterator = b.graphsync.request(a.peer, rootOf(blocks), all)[Symbol.asyncIterator]()
    await iterator.next()
    await b.graphsync.stop()
    await expect(
      (async () => {
        while ((await iterator.next()).done !== true);
      })(),
    ).rejects.toMatchObject({ code: 'stopped' })
    expect(() => b.graphsync.request(a.peer, rootOf(blocks), all)).toThrow(/stopped/)
    b.graphsync.start()
    await expect(b.graphsync.request(a.peer, rootOf(blocks), all).done).resolves.toMatchObject({ status: 20 })
  })

  it.each([{ peerRequests: 0 }, { bufferedBytes: 0 }, { retries: -1 }, { messageBytes: 1.5 }])(
    'refuses %j',
    (options) => {
      expect(() => createGraphsync(new FakeHost(5), new MemoryBlocks(), options)).toThrow(RangeError)
    },
  )
})
