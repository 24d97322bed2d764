import { describe, expect, it, onTestFinished } from 'vitest'
import { concat, fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { streamCode } from '../../src/close-codes.ts'
import { ClosedError, LimitError, ProtocolError, TimeoutError, errorCode } from '../../src/errors.ts'
import { FakeClock, systemEnv } from '../../src/env.ts'
import type { StreamHandler } from '../../src/host.ts'
import { createNode, type Node } from '../../src/node.ts'
import {
  jsonHandler,
  jsonReplies,
  jsonRequest,
  lpHandler,
  lpReplies,
  lpRequest,
  type FramedHandlerOptions,
} from '../../src/protocols/framed.ts'
import { BufferedStream, prefixed } from '../../src/stream.ts'
import { MemoryNetwork, memory } from '../../src/transport/memory.ts'

const id = '/framed/1.0.0'

interface Two {
  a: Node
  b: Node
  open: () => ReturnType<Node['newStream']>
  /** Codes of the errors that ended b's handlers. */
  failed: (string | undefined)[]
}

async function two(handler: StreamHandler): Promise<Two> {
  const network = new MemoryNetwork()
  const failed: (string | undefined)[] = []
  const trace = (what: string, { error }: Record<string, unknown>): void => {
    if (what === 'connection.inbound-stream-failed') failed.push(errorCode(error) ?? String(error))
  }
  const options = { transports: [memory(network)], listen: ['/memory/0'] }
  const [a, b] = [await createNode(options), await createNode({ ...options, env: systemEnv(trace) })]
  for (const node of [a, b]) {
    onTestFinished(() => node.stop())
    await node.start()
  }
  b.handle(id, handler)
  await a.dial(String(b.addrs()[0]))
  return { a, b, failed, open: () => a.newStream(b.peerId, id) }
}

const upper = (request: Uint8Array): Uint8Array => fromUtf8(toUtf8(request).toUpperCase())

describe('lpHandler', () => {
  it('answers each request, until the dialer has no more', async () => {
    const { open } = await two(lpHandler(upper))
    expect(toUtf8(await lpRequest(open(), fromUtf8('hello')))).toBe('HELLO')
    const stream = await open()
    await stream.write(...prefixed(fromUtf8('one')), ...prefixed(fromUtf8('two')), ...prefixed(new Uint8Array(0)))
    await stream.closeWrite()
    const all = await new BufferedStream(stream).readAll(100)
    expect(all).toEqual(concat(['ONE', 'TWO', ''].flatMap((text) => prefixed(fromUtf8(text)))))
    await expect(stream.closed).resolves.toMatchObject({ code: 0 })
  })

  it('answers with nothing, or with as many as come', async () => {
    const { open } = await two(
      lpHandler(async function (request) {
        if (request.length === 0) return undefined
        return (async function* () {
          for (let i = 0; i < request.length; i++) yield request.slice(i, i + 1)
        })()
      }),
    )
    expect((await Array.fromAsync(lpReplies(open(), fromUtf8('abc')))).map(toUtf8)).toEqual(['a', 'b', 'c'])
    expect(await Array.fromAsync(lpReplies(open(), new Uint8Array(0)))).toEqual([])
    const none = await lpRequest(open(), new Uint8Array(0)).catch((e: unknown) => e)
    expect(none).toBeInstanceOf(ProtocolError)
    expect(errorCode(none)).toBe('truncated')
  })

  it('resets the stream with the code of what is thrown, and hurts no other stream', async () => {
    const { open, failed } = await two(
      lpHandler((request) => {
        const text = toUtf8(request)
        if (text === 'limit') throw new LimitError('things', 1, 2)
        if (text === 'peer') throw new ProtocolError('bad-message', 'nonsense')
        if (text === 'mistake') throw new Error('ours')
        return request
      }),
    )
    const codes: [string, number][] = [
      ['limit', streamCode.resourceLimitExceeded],
      ['peer', streamCode.protocolViolation],
      ['mistake', 10_001],
    ]
    for (const [text, code] of codes) {
      const error = await lpRequest(open(), fromUtf8(text)).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(ClosedError)
      expect((error as ClosedError).info).toMatchObject({ by: 'remote', code })
    }
    expect(toUtf8(await lpRequest(open(), fromUtf8('fine')))).toBe('fine')
    expect(failed).toEqual(['limit', 'bad-message', 'Error: ours'])
  })

  it('refuses a request above its limit on the length alone', async () => {
    const { open, failed } = await two(lpHandler(upper, { maxBytes: 10 }))
    expect(toUtf8(await lpRequest(open(), fromUtf8('x'.repeat(10))))).toBe('X'.repeat(10))
    const stream = await open()
    await stream.write(Uint8Array.of(11))
    await expect(stream.read()).rejects.toMatchObject({ info: { by: 'remote', code: streamCode.protocolViolation } })
    expect(failed).toEqual(['oversized'])
  })

  it('gives up on a request that does not come, and on a peer that takes no reply', async () => {
    const clock = new FakeClock()
    const env = { ...systemEnv(), clock }
    const endless = new Uint8Array(64 * 1024)
    let ended = false
    let sent = 0
    const { open, failed } = await two(
      lpHandler(
        async function* () {
          try {
            for (; ; sent++) yield endless.slice()
          } finally {
            ended = true
          }
        },
        { timeoutMs: 5_000, env },
      ),
    )
    const [half, deaf] = [await open(), await open()]
    await half.write(Uint8Array.of(100, 1, 2, 3))
    await deaf.write(...prefixed(fromUtf8('go')))
    // The one waits for the rest of its request, the other for room.
    let before = -1
    const still = (): boolean => sent > 0 && before === (before = sent)
    await expect.poll(still, { interval: 50 }).toBe(true)
    expect(clock.waiting).toBe(2)
    await clock.advance(4_999)
    expect(failed).toEqual([])
    await clock.advance(1)
    await expect.poll(() => failed).toEqual(['timeout', 'timeout'])
    expect(ended).toBe(true)
    expect(clock.waiting).toBe(0)
    await expect(half.read()).rejects.toBeInstanceOf(ClosedError)
  })

  it('reads the next request only when the last one is answered', async () => {
    let running = 0
    let most = 0
    const { open } = await two(
      lpHandler(async (request) => {
        most = Math.max(most, ++running)
        await new Promise((resolve) => setTimeout(resolve, 1))
        running--
        return request
      }),
    )
    const stream = await open()
    for (let i = 0; i < 20; i++) await stream.write(...prefixed(Uint8Array.of(i)))
    await stream.closeWrite()
    expect(await new BufferedStream(stream).readAll(100)).toHaveLength(40)
    expect(most).toBe(1)
  })

  it.each<FramedHandlerOptions>([{ maxBytes: -1 }, { timeoutMs: Number.NaN }, { failureCode: -5 }])(
    'refuses %j',
    (options) => expect(() => lpHandler(upper, options)).toThrow(RangeError),
  )
})

describe('lpRequest', () => {
  it('refuses a reply above its limit, and one that is cut short', async () => {
    const { open } = await two(async (stream) => {
      const [size] = (await new BufferedStream(stream).readPrefixed(10)) ?? []
      await stream.write(Uint8Array.of(size ?? 0, 1, 2))
      await stream.closeWrite()
    })
    await expect(lpRequest(open(), Uint8Array.of(100), { maxBytes: 99 })).rejects.toMatchObject({ code: 'oversized' })
    await expect(lpRequest(open(), Uint8Array.of(100))).rejects.toMatchObject({ code: 'truncated' })
    expect(await lpRequest(open(), Uint8Array.of(2))).toEqual(Uint8Array.of(1, 2))
  })

  it('has a deadline and a signal, and leaves no timer or stream behind', async () => {
    const clock = new FakeClock()
    const env = { ...systemEnv(), clock }
    const { a, open } = await two(() => new Promise(() => {}))
    const late = lpRequest(open(), new Uint8Array(1), { timeoutMs: 100, env })
    const controller = new AbortController()
    const aborted = lpRequest(open(), new Uint8Array(1), { signal: controller.signal, env })
    const both = Promise.allSettled([late, aborted])
    await expect.poll(() => clock.waiting).toBe(2)
    const reason = new Error('enough')
    controller.abort(reason)
    await clock.advance(100)
    expect(await both).toMatchObject([{ reason: expect.any(TimeoutError) as unknown }, { reason }])
    expect(clock.waiting).toBe(0)
    expect(a.connections()[0]?.streams.filter(({ protocol }) => protocol === id)).toEqual([])
  })

  it('does not wait for the end of a peer that keeps its stream open, nor for ever let it', async () => {
    const clock = new FakeClock()
    const env = { ...systemEnv(), clock }
    const { a, open } = await two(async (stream) => {
      await stream.write(...prefixed(fromUtf8('reply')))
      await new Promise(() => {})
    })
    expect(toUtf8(await lpRequest(open(), new Uint8Array(1), { env }))).toBe('reply')
    expect(clock.waiting).toBe(1)
    await clock.advance(1_000)
    await expect.poll(() => a.connections()[0]?.streams.filter(({ protocol }) => protocol === id)).toEqual([])
    expect(clock.waiting).toBe(0)
  })

  it('whose replies nobody wants any more resets the stream, and the handler hears of it', async () => {
    let ended = false
    const { open } = await two(
      lpHandler(async function* (request) {
        try {
          for (;;) {
            yield request
            await new Promise((resolve) => setTimeout(resolve, 1))
          }
        } finally {
          ended = true
        }
      }),
    )
    for await (const reply of lpReplies(open(), Uint8Array.of(7))) {
      expect(reply).toEqual(Uint8Array.of(7))
      break
    }
    await expect.poll(() => ended).toBe(true)
  })
})

describe('JSON', () => {
  it('goes both ways, one reply or many', async () => {
    interface Sum {
      numbers: number[]
    }
    const { open } = await two(
      jsonHandler<Sum, { sum: number } | { seen: number }>(({ numbers }) =>
        numbers.length < 3
          ? { sum: numbers.reduce((a, b) => a + b, 0) }
          : (async function* () {
              for (const seen of numbers) yield { seen }
            })(),
      ),
    )
    expect(await jsonRequest(open(), { numbers: [1, 2] })).toEqual({ sum: 3 })
    expect(await Array.fromAsync(jsonReplies(open(), { numbers: [1, 2, 3] }))).toEqual([
      { seen: 1 },
      { seen: 2 },
      { seen: 3 },
    ])
  })

  it('null and false are replies, undefined is none', async () => {
    const { open } = await two(jsonHandler<unknown, unknown>((request) => (request === 'none' ? undefined : request)))
    expect(await jsonRequest(open(), null)).toBeNull()
    expect(await jsonRequest(open(), false)).toBe(false)
    await expect(jsonRequest(open(), 'none')).rejects.toMatchObject({ code: 'truncated' })
    await expect(jsonRequest(open(), undefined)).rejects.toBeInstanceOf(TypeError)
  })

  it.each([
    ['no JSON', fromUtf8('{"a":'), 'bad-message'],
    ['nothing', new Uint8Array(0), 'bad-message'],
    ['text that is not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 'bad-utf8'],
    ['a million brackets', fromUtf8('['.repeat(1_000_000)), 'bad-message'],
  ])('that is %s is a ProtocolError on either side', async (_what, bytes, code) => {
    const { open, failed } = await two(jsonHandler(() => 1))
    const error = await lpRequest(open(), bytes.slice()).catch((e: unknown) => e)
    expect((error as ClosedError).info).toMatchObject({ by: 'remote', code: streamCode.protocolViolation })
    expect(failed).toEqual([code])
    const other = await two(lpHandler(() => bytes.slice()))
    const mine = await jsonRequest(other.open(), 1).catch((e: unknown) => e)
    expect(mine).toBeInstanceOf(ProtocolError)
    expect(errorCode(mine)).toBe(code)
  })

  it('a reply that has none resets the stream as a mistake of ours', async () => {
    const { open, failed } = await two(jsonHandler<unknown, unknown>(() => () => 1))
    await expect(jsonRequest(open(), 1)).rejects.toMatchObject({ info: { by: 'remote', code: 10_001 } })
    expect(failed).toEqual(['TypeError: function has no JSON'])
  })
})
