import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { fromHex, toHex } from '../../src/bytes.ts'
import { ProtocolError, TimeoutError, errorCode, type ErrorCode, type UnavailableError } from '../../src/errors.ts'
import { FakeClock, systemEnv } from '../../src/env.ts'
import type { StreamHandler } from '../../src/host.ts'
import { deferred } from '../../src/inbox.ts'
import { maxCapabilitiesBytes } from '../../src/limits.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { bytes, message, repeated, string } from '../../src/protobuf.ts'
import { capabilitiesId } from '../../src/protocols/capabilities/id.ts'
import { decodeCapabilities, encodeCapabilities } from '../../src/protocols/capabilities/wire.ts'
import { prefixed } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

/** The same message without limits. */
const Entry = message({ id: [1, string], capabilities: [2, repeated(string, 10_000)] })
const Answer = message({ protocols: [1, repeated(Entry, 10_000)], more: [7, bytes] })
const entries = (count: number): { id: string; capabilities: string[] }[] =>
  Array.from({ length: count }, (_, i) => ({ id: `/app/1.1.${i}`, capabilities: ['resume'] }))

describe('the capabilities message', () => {
  it('has its bytes', () => {
    expect(toHex(encodeCapabilities(new Map([['/a', ['x', 'yz']]])))).toBe('0a0b0a022f611201781202797a')
    expect(decodeCapabilities(fromHex('0a0b0a022f611201781202797a'))).toEqual(new Map([['/a', ['x', 'yz']]]))
    expect(decodeCapabilities(new Uint8Array(0))).toEqual(new Map())
  })

  it('comes back as it was sent', () => {
    const capable = fc.uniqueArray(fc.string({ maxLength: 20 }), { maxLength: 5 })
    const word = fc.array(fc.string({ maxLength: 16 }), { maxLength: 4 })
    fc.assert(
      fc.property(capable, word, (ids, words) => {
        const map = new Map(ids.map((id) => [id, words]))
        expect(decodeCapabilities(encodeCapabilities(map))).toEqual(map)
      }),
    )
  })

  it.each<[string, Uint8Array, ErrorCode]>([
    ['257 ids', Answer.encode({ protocols: entries(257) }), 'oversized'],
    [
      '33 capabilities of an id',
      Answer.encode({ protocols: [{ id: '/a', capabilities: Array.from({ length: 33 }, String) }] }),
      'oversized',
    ],
    [
      'a capability of 65 bytes',
      Answer.encode({ protocols: [{ id: '/a', capabilities: ['x'.repeat(65)] }] }),
      'oversized',
    ],
    ['an id of 1,024 bytes', Answer.encode({ protocols: [{ id: 'x'.repeat(1024) }] }), 'oversized'],
    ['an entry without an id', Answer.encode({ protocols: [{ capabilities: ['x'] }] }), 'bad-protobuf'],
    ['an id twice', Answer.encode({ protocols: [...entries(1), ...entries(1)] }), 'bad-message'],
    ['text that is not UTF-8', fromHex('0a030a01ff'), 'bad-utf8'],
  ])('is refused with %s', (_what, raw, code) => {
    let error: unknown
    try {
      decodeCapabilities(raw)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ProtocolError)
    expect(errorCode(error)).toBe(code)
  })

  it('of random bytes is a ProtocolError or an answer', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (raw) => {
        try {
          decodeCapabilities(raw)
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})

async function two(more: NodeOptions = {}): Promise<{ a: Node; b: Node; addr: string }> {
  const network = new MemoryNetwork()
  const options = { transports: [memory(network)], listen: ['/memory/0'] }
  const [a, b] = [await createNode({ ...options, ...more }), await createNode(options)]
  for (const node of [a, b]) {
    onTestFinished(() => node.stop())
    await node.start()
  }
  return { a, b, addr: String(b.addrs()[0]) }
}

const ignore: StreamHandler = () => {}
const query = { name: '/app', range: '^1.0.0', requires: ['resume'] }

/** Answers with `raw` and counts how often it was asked. */
function answering(node: Node, raw: () => Uint8Array | Promise<Uint8Array>): { asked: number } {
  const count = { asked: 0 }
  node.handle(capabilitiesId, async (stream) => {
    count.asked++
    await stream.write(...prefixed(await raw()))
    await stream.closeWrite()
  })
  return count
}

describe('what a query requires', () => {
  it('is asked before choosing: the highest version that has it', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', ignore, { version: '1.1.0', capabilities: ['gzip', 'resume'] })
    b.handle('/app', ignore, { version: '1.9.0', capabilities: ['resume'] })
    b.handle('/app', ignore, { version: '1.10.0', capabilities: ['gzip'] })
    b.handle('/app', ignore, { version: '2.0.0', capabilities: ['gzip', 'resume'] })
    const stream = await a.newStream(addr, query)
    expect(stream.protocol).toBe('/app/1.9.0')
    expect(stream.tried).toEqual([{ what: '/app/1.10.0', reason: 'lacks resume' }])
    const both = await a.newStream(addr, { ...query, requires: ['gzip', 'resume'] })
    expect(both.protocol).toBe('/app/1.1.0')
    expect(both.tried?.map(({ reason }) => reason)).toEqual(['lacks resume', 'lacks gzip'])
    const error = await a.newStream(addr, { ...query, requires: ['levitate'] }).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'no-protocol' })
    expect((error as UnavailableError).message).toContain('/app ^1.0.0 with levitate')
    expect((error as UnavailableError).tried[0]).toEqual({ what: '/app/1.10.0', reason: 'lacks levitate' })
  })

  it('is asked once for one connection, also by many at a time', async () => {
    const { a, b, addr } = await two()
    b.handle('/app/1.0.0', ignore)
    const count = answering(b, () => encodeCapabilities(new Map([['/app/1.0.0', ['resume']]])))
    const streams = await Promise.all(Array.from({ length: 20 }, () => a.newStream(addr, query)))
    expect(new Set(streams.map(({ protocol }) => protocol))).toEqual(new Set(['/app/1.0.0']))
    await a.newStream(addr, query)
    expect(count.asked).toBe(1)
    await a.hangUp(b.peerId)
    await a.newStream(addr, query)
    expect(count.asked).toBe(2)
  })

  it('is asked anew once the peer says by identify that something changed', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', ignore, { version: '1.0.0' })
    b.handle('/other', ignore, { version: '1.0.0', capabilities: ['resume'] })
    await expect(a.newStream(addr, query)).rejects.toMatchObject({ code: 'no-protocol' })
    // b pushes to those whose identify it has.
    await expect.poll(() => b.connections()[0]?.protocols).toBeDefined()
    b.handle('/app', ignore, { version: '1.1.0', capabilities: ['resume'] })
    await expect.poll(() => a.connections()[0]?.protocols).toContain('/app/1.1.0')
    expect((await a.newStream(addr, query)).protocol).toBe('/app/1.1.0')
    b.unhandle(['/app', '/other'])
    await expect.poll(() => a.connections()[0]?.protocols).not.toContain(capabilitiesId)
    expect(b.protocols()).not.toContain(capabilitiesId)
  })

  it('is nothing that a peer without the protocol has, announced or not', async () => {
    const { a, b, addr } = await two()
    b.handle('/app/1.0.0', ignore)
    await expect(a.newStream(addr, query)).rejects.toThrow(/\/app\/1\.0\.0: lacks resume/)
    b.unhandle('/ipfs/id/1.0.0')
    await a.hangUp(b.peerId)
    const candidates = ['/app/1.0.0']
    await expect(a.newStream(addr, { ...query, candidates })).rejects.toThrow(/\/app\/1\.0\.0: lacks resume/)
    expect((await a.newStream(addr, { name: '/app', candidates })).protocol).toBe('/app/1.0.0')
  })

  it('is asked also of a peer whose identify failed, for the candidates', async () => {
    const { a, b, addr } = await two()
    b.handle('/app', ignore, { version: '1.0.0', capabilities: ['resume'] })
    b.handle('/app', ignore, { version: '1.1.0', capabilities: ['gzip'] })
    b.unhandle('/ipfs/id/1.0.0')
    const stream = await a.newStream(addr, { ...query, candidates: ['/app/1.1.0', '/app/1.0.0'] })
    expect(stream.protocol).toBe('/app/1.0.0')
    expect(stream.tried).toEqual([{ what: '/app/1.1.0', reason: 'lacks resume' }])
  })

  it('is waited for by others when one of them gives up', async () => {
    const { a, b, addr } = await two()
    b.handle('/app/1.0.0', ignore)
    const held = deferred<void>()
    const count = answering(b, async () => {
      await held.promise
      return encodeCapabilities(new Map([['/app/1.0.0', ['resume']]]))
    })
    await a.identify(addr)
    const controller = new AbortController()
    const impatient = a.newStream(addr, query, { signal: controller.signal })
    const patient = a.newStream(addr, query)
    const results = Promise.allSettled([impatient, patient])
    await expect.poll(() => count.asked).toBe(1)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(impatient).rejects.toBe(reason)
    held.resolve()
    const [, second] = await results
    expect(second.status).toBe('fulfilled')
    expect(count.asked).toBe(1)
  })
})

describe('a hostile answer', () => {
  it.each<[string, (write: (chunk: Uint8Array) => Promise<void>) => Promise<void>, ErrorCode]>([
    [
      'above 32 KiB',
      (write) => write(prefixed(new Uint8Array(maxCapabilitiesBytes + 1))[0] ?? new Uint8Array(0)),
      'oversized',
    ],
    ['of a gigabyte', (write) => write(Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x04)), 'oversized'],
    ['of nothing', async () => {}, 'truncated'],
    ['cut short', (write) => write(Uint8Array.of(9, 1, 2)), 'truncated'],
    ['of garbage', (write) => write(Uint8Array.of(3, 255, 255, 255)), 'bad-protobuf'],
    ['with an id twice', (write) => write(Uint8Array.of(10, 10, 3, 10, 1, 97, 10, 3, 10, 1, 97)), 'bad-message'],
    ['that goes on', (write) => write(Uint8Array.of(0, 0)), 'bad-message'],
  ])('%s is a typed error, and the next query asks anew', async (_what, hostile, code) => {
    const { a, b, addr } = await two()
    b.handle('/app/1.0.0', ignore)
    b.handle(capabilitiesId, async (stream) => {
      await hostile((chunk) => stream.write(chunk))
      await stream.closeWrite()
    })
    const error = await a.newStream(addr, query).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ProtocolError)
    expect(errorCode(error)).toBe(code)
    b.unhandle(capabilitiesId)
    const count = answering(b, () => encodeCapabilities(new Map([['/app/1.0.0', ['resume']]])))
    expect((await a.newStream(addr, query)).protocol).toBe('/app/1.0.0')
    expect(count.asked).toBe(1)
    await expect
      .poll(() => a.connections()[0]?.streams.filter(({ protocol }) => protocol === capabilitiesId))
      .toEqual([])
  })

  it.each([
    ['never comes', new Uint8Array(0)],
    ['comes by half', Uint8Array.of(5, 10, 3)],
    ['never ends', Uint8Array.of(0)],
  ])('that %s costs five seconds', async (_what, chunk) => {
    const clock = new FakeClock()
    const { a, b, addr } = await two({ env: { ...systemEnv(), clock } })
    b.handle('/app/1.0.0', ignore)
    let asked = 0
    b.handle(capabilitiesId, async (stream) => {
      asked++
      if (chunk.length > 0) await stream.write(chunk.slice())
      await new Promise(() => {})
    })
    await a.identify(addr)
    const timers = clock.waiting
    const result = Promise.allSettled([a.newStream(addr, query)])
    await expect.poll(() => asked).toBe(1)
    await clock.advance(4_900)
    expect(clock.waiting).toBeGreaterThan(timers)
    await clock.advance(200)
    const [late] = await result
    expect(late).toMatchObject({ reason: expect.any(TimeoutError) as unknown })
    expect(clock.waiting).toBeLessThanOrEqual(timers)
  })

  it('about ids that the peer did not announce chooses none of them', async () => {
    const { a, b, addr } = await two()
    b.handle('/app/1.0.0', ignore)
    const claims = new Map(
      [...entries(200), { id: '/app/1.0.0', capabilities: ['gzip'] }].map((one) => [one.id, one.capabilities]),
    )
    answering(b, () => encodeCapabilities(claims))
    const error = await a.newStream(addr, query).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'no-protocol' })
    expect((error as UnavailableError).tried).toEqual([{ what: '/app/1.0.0', reason: 'lacks resume' }])
  })
})
