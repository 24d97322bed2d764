import { describe, expect, it, onTestFinished } from 'vitest'
import { fromHex, fromUtf8, toUtf8 } from '../../../src/bytes.ts'
import { fakeEnv, systemEnv, type Env, type FakeClock } from '../../../src/env.ts'
import { ClosedError, ProtocolError, TimeoutError, UnavailableError } from '../../../src/errors.ts'
import { createNode, type Node } from '../../../src/node.ts'
import { fetch, fetchId, serveFetch } from '../../../src/protocols/fetch/fetch.ts'
import { FetchRequest, FetchResponse } from '../../../src/protocols/fetch/wire.ts'
import { BufferedStream } from '../../../src/stream.ts'
import { MemoryNetwork, memory } from '../../../src/transport/memory.ts'

interface Traced {
  what: string
  error: unknown
}

async function started(network: MemoryNetwork, traces: Traced[] = [], clock?: FakeClock): Promise<Node> {
  const trace: Env['trace'] = (what, { error }) => {
    if (error !== undefined) traces.push({ what, error })
  }
  const env: Env = { ...systemEnv(trace), ...(clock && { clock }) }
  const node = await createNode({ transports: [memory(network)], listen: ['/memory/0'], env })
  onTestFinished(() => node.stop())
  await node.start()
  return node
}

/** `a` asks, `b` serves; what goes wrong with b is in `traces`. */
async function two(clock?: FakeClock): Promise<{ a: Node; b: Node; to: string; traces: Traced[] }> {
  const network = new MemoryNetwork()
  const traces: Traced[] = []
  const [a, b] = [await started(network), await started(network, traces, clock)]
  return { a, b, to: String(b.addrs()[0]), traces }
}

const streams = (...nodes: Node[]): number =>
  nodes.flatMap((n) => n.connections().flatMap((c) => c.streams)).filter((s) => s.protocol === fetchId).length

/** A server that answers every request with these bytes. */
function answering(b: Node, ...chunks: Uint8Array[]): void {
  b.handle(fetchId, async (stream) => {
    await new BufferedStream(stream).readPrefixed(10_000)
    await stream.write(...chunks)
    await stream.closeWrite()
  })
}

const framed = (message: Uint8Array): Uint8Array => Uint8Array.of(message.length, ...message)

const request = (key: string): Uint8Array => framed(FetchRequest.encode({ identifier: fromUtf8(key) }))

describe('fetch', () => {
  it('has the value of a key, nothing for a key without one, and leaves no stream', async () => {
    const { a, b, to } = await two()
    const values = new Map([
      ['/app/one', 'first'],
      ['/app/none', ''],
    ])
    serveFetch(b).register('/app/', (key) => {
      const value = values.get(toUtf8(key))
      return value === undefined ? undefined : fromUtf8(value)
    })
    expect(await fetch(a, to, '/app/one')).toEqual(fromUtf8('first'))
    expect(await fetch(a, to, fromUtf8('/app/one'))).toEqual(fromUtf8('first'))
    expect(await fetch(a, to, '/app/none')).toEqual(new Uint8Array(0))
    expect(await fetch(a, to, '/app/two')).toBeUndefined()
    expect(await fetch(a, to, '/other/one')).toBeUndefined()
    expect(await fetch(a, to, '')).toBeUndefined()
    await expect.poll(() => streams(a, b)).toBe(0)
  })

  it('takes keys that are no text, and asks the namespace with the longest prefix', async () => {
    const { a, b, to } = await two()
    const service = serveFetch(b)
    const keys: Uint8Array[] = []
    const asked: string[] = []
    service.register('/ipns/', (key, { peer, connection }) => {
      keys.push(key)
      expect(peer.equals(a.peerId)).toBe(true)
      expect(connection.peer.equals(a.peerId)).toBe(true)
      return Promise.resolve(Uint8Array.of(1))
    })
    const undo = service.register('/ipns/k', () => {
      asked.push('k')
      return undefined
    })
    service.register(Uint8Array.of(0xff, 0xfe), () => Uint8Array.of(2))
    const binary = Uint8Array.of(...fromUtf8('/ipns/'), 0xff, 0x00, 0xc3, 0x28)
    expect(await fetch(a, to, binary)).toEqual(Uint8Array.of(1))
    expect(keys).toEqual([binary])
    expect(await fetch(a, to, '/ipns/key')).toBeUndefined()
    expect(asked).toEqual(['k'])
    undo()
    expect(await fetch(a, to, '/ipns/key')).toEqual(Uint8Array.of(1))
    expect(await fetch(a, to, Uint8Array.of(0xff, 0xfe, 7))).toEqual(Uint8Array.of(2))
    expect(await fetch(a, to, Uint8Array.of(0xff))).toBeUndefined()
  })

  it('takes each prefix once, and the protocol once', async () => {
    const { a, b, to } = await two()
    const service = serveFetch(b)
    service.register('/a/', () => undefined)
    expect(() => service.register(fromUtf8('/a/'), () => undefined)).toThrow(TypeError)
    expect(() => serveFetch(b)).toThrow(TypeError)
    service.close()
    await expect(fetch(a, to, '/a/b')).rejects.toMatchObject({ code: 'no-protocol' })
    serveFetch(b)
  })

  it('tells the peer that a lookup failed, but not why; we see it in the trace', async () => {
    const { a, b, to, traces } = await two()
    const service = serveFetch(b, { maxResponseBytes: 1_000 })
    service.register('/throws/', () => {
      throw new Error('secret path')
    })
    service.register('/rejects/', () => Promise.reject(new Error('secret path')))
    service.register('/large/', (key) => new Uint8Array(key.length === 8 ? 969 : 968))
    for (const key of ['/throws/1', '/rejects/1', '/large/1']) {
      const failed = fetch(a, to, key)
      await expect(failed).rejects.toBeInstanceOf(UnavailableError)
      await expect(failed).rejects.toMatchObject({ code: 'refused' })
      await expect(failed).rejects.toThrow(`fetching ${key}: the peer answered with an error: the lookup failed`)
    }
    expect(traces.map(({ what, error }) => [what, String(error)])).toEqual([
      ['fetch.lookup-failed', 'Error: secret path'],
      ['fetch.lookup-failed', 'Error: secret path'],
      ['fetch.lookup-failed', expect.stringContaining('maxResponseBytes')],
    ])
    expect(await fetch(a, to, '/large/12')).toHaveLength(968)
  })

  it.each([
    ['no answer', [], 'truncated'],
    ['an answer that is cut short', [fromHex('0512')], 'truncated'],
    ['an answer that is no protobuf', [fromHex('01ff')], 'bad-protobuf'],
    ['a status that there is not', [framed(FetchResponse.encode({ status: 3 }))], 'bad-message'],
    ['a longer answer than allowed', [fromHex('ff07')], 'oversized'],
  ])('refuses %s', async (_what, chunks, code) => {
    const { a, b, to } = await two()
    answering(b, ...chunks)
    const failed = fetch(a, to, '/a', { maxResponseBytes: 1_000 })
    await expect(failed).rejects.toBeInstanceOf(ProtocolError)
    await expect(failed).rejects.toMatchObject({ code })
    await expect.poll(() => streams(a, b)).toBe(0)
  })

  it('shows what a failed peer says harmless and short', async () => {
    const { a, b, to } = await two()
    const data = fromUtf8(`bad\u001b[31m\n\u202e${'x'.repeat(500)}`)
    const response = FetchResponse.encode({ status: 2, data })
    answering(b, Uint8Array.of((response.length & 127) | 128, response.length >> 7), response)
    const error: unknown = await fetch(a, to, Uint8Array.of(0, 1)).catch((reason: unknown) => reason)
    const { message } = error as Error
    expect(message).toMatch(/^fetching 0001: the peer answered with an error: bad {1,2}\[31m/)
    expect(message).not.toMatch(/[^\u0020-\u007e]/)
    expect(message.length).toBeLessThan(350)
  })

  it('ends with the reason of its signal, and at its deadline', async () => {
    const { a, b, to } = await two()
    b.handle(fetchId, () => new Promise(() => {}))
    await a.dial(to)
    const controller = new AbortController()
    const reason = new Error('enough')
    const asked = fetch(a, to, '/a', { signal: controller.signal })
    setTimeout(() => controller.abort(reason), 5)
    await expect(asked).rejects.toBe(reason)
    await expect(fetch(a, to, '/a', { timeoutMs: 20 })).rejects.toBeInstanceOf(TimeoutError)
    await expect.poll(() => streams(a, b)).toBe(0)
  })

  it('has its value although the peer never ends the stream, and lets go of it at the deadline', async () => {
    const { a, b, to } = await two()
    b.handle(fetchId, async (stream) => {
      await new BufferedStream(stream).readPrefixed(100)
      await stream.write(framed(FetchResponse.encode({ data: Uint8Array.of(9) })))
    })
    expect(await fetch(a, to, '/a', { timeoutMs: 200 })).toEqual(Uint8Array.of(9))
    expect(streams(a)).toBe(1)
    await expect.poll(() => streams(a, b)).toBe(0)
  })

  it('refuses a key that is too long before anything is sent', async () => {
    const { a, to } = await two()
    await expect(fetch(a, to, new Uint8Array(4_097))).rejects.toBeInstanceOf(RangeError)
    expect(a.peers()).toEqual([])
  })
})

describe('a fetch server', () => {
  it.each([
    ['no request', [], 'truncated'],
    ['a request that is too long', [fromHex('a120')], 'oversized'],
    ['a request that is no protobuf', [fromHex('01ff')], 'bad-protobuf'],
    ['a second request', [request('/a'), request('/b')], 'bad-message'],
  ])('resets a stream with %s', async (_what, chunks, code) => {
    const { a, b, to, traces } = await two()
    serveFetch(b)
    const stream = await a.newStream(to, fetchId)
    await stream.write(...chunks)
    await stream.closeWrite()
    await expect.poll(() => traces.map(({ error }) => error)).toEqual([expect.objectContaining({ code })])
    await expect.poll(() => streams(b)).toBe(0)
    stream.reset()
  })

  it('gives up on a client that does not ask, on one that does not end, and on a lookup that hangs', async () => {
    const { clock } = fakeEnv()
    const { a, b, to, traces } = await two(clock)
    const service = serveFetch(b, { timeoutMs: 1_000, maxConcurrent: 1 })
    const late = (): Traced[] => traces.filter(({ error }) => error instanceof TimeoutError)
    let ended = false
    service.register('/hangs/', (_key, { signal }) => {
      signal.addEventListener('abort', () => (ended = true), { once: true })
      return new Promise(() => {})
    })
    for (const chunks of [[], [request('/a')], [request('/hangs/1')]]) {
      const stream = await a.newStream(to, fetchId)
      await stream.write(...chunks)
      await expect.poll(() => streams(b)).toBe(1)
      const before = late().length
      await clock.advance(1_000)
      await expect.poll(() => late().length).toBe(before + 1)
      expect(late().at(-1)?.error).toMatchObject({ timeoutMs: 1_000 })
      await expect.poll(() => streams(b)).toBe(0)
      stream.reset()
    }
    expect(ended).toBe(true)
  })

  it('refuses one request too many', async () => {
    const { a, b, to, traces } = await two()
    const go = Promise.withResolvers<undefined>()
    serveFetch(b, { maxConcurrent: 2 }).register('/waits/', () => go.promise)
    const waiting = [1, 2].map((n) => fetch(a, to, `/waits/${n}`))
    await expect.poll(() => streams(b)).toBe(2)
    await expect(fetch(a, to, '/waits/3')).rejects.toBeInstanceOf(ClosedError)
    expect(traces.at(-1)?.error).toMatchObject({ code: 'limit', limit: 'maxConcurrent' })
    go.resolve(undefined)
    expect(await Promise.all(waiting)).toEqual([undefined, undefined])
    await expect.poll(() => streams(b)).toBe(0)
    expect(await fetch(a, to, '/waits/3')).toBeUndefined()
  })
})
