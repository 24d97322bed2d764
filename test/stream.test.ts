import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, equals } from '../src/bytes.ts'
import { ProtocolError } from '../src/errors.ts'
import { BufferedStream, buffered, pair, prefixed, resetOnAbort } from '../src/stream.ts'
import { streamTable } from './stream-table.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

streamTable('pair', () => pair())
streamTable('BufferedStream over pair', () => {
  const [a, b] = pair()
  return [new BufferedStream(a), new BufferedStream(b)]
})

/** The bytes cut at `cuts`, then the FIN, one chunk at a time. */
function cut(bytes: Uint8Array, cuts: number[]): BufferedStream {
  const [a, b] = pair({ highWaterBytes: 1 })
  const edges = [...new Set(cuts.map((c) => c % (bytes.length + 1)))].toSorted((x, y) => x - y)
  const feed = async (): Promise<void> => {
    let from = 0
    for (const edge of [...edges, bytes.length]) {
      await a.write(bytes.slice(from, edge))
      from = edge
    }
    await a.closeWrite()
  }
  void feed().catch(() => {})
  return new BufferedStream(b)
}

describe('BufferedStream', () => {
  it('every split of the bytes gives the same messages, then the rest, then null', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }),
        fc.uint8Array({ maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        async (messages, rest, cuts) => {
          const stream = cut(concat([...messages.flatMap((m) => prefixed(m)), rest]), cuts)
          for (const message of messages) expect(await stream.readPrefixed(300)).toEqual(message)
          expect(await stream.readExact(rest.length)).toEqual(rest)
          expect(await stream.readPrefixed(300)).toBe(null)
          expect(await stream.read()).toBe(null)
        },
      ),
    )
  })

  it('reads exactly what was asked for, whatever came together', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 200 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        fc.array(fc.nat(50), { maxLength: 20 }),
        async (bytes, cuts, sizes) => {
          const stream = cut(bytes, cuts)
          let at = 0
          for (const size of sizes) {
            if (at + size > bytes.length) break
            expect(await stream.readExact(size)).toEqual(bytes.slice(at, at + size))
            at += size
          }
          expect(await stream.readAll(200)).toEqual(bytes.slice(at))
        },
      ),
    )
  })

  it('a message that grows beyond what its length prefix gets in advance arrives whole', async () => {
    const message = Uint8Array.from({ length: 3_000_001 }, (_, i) => i * 7)
    const stream = cut(
      concat(prefixed(message)),
      Array.from({ length: 40 }, (_, i) => i * 77_777),
    )
    const got = await stream.readPrefixed(3_000_001)
    expect(got !== null && equals(got, message)).toBe(true)
  })

  it.each([
    ['an end within a message', [5, 1, 2], 'truncated'],
    ['an end within a length', [0x80], 'truncated'],
    ['a length above the limit', [0xad, 0x02], 'oversized'],
    ['a length that is not minimal', [0x81, 0], 'bad-varint'],
    ['a length that never ends', [128, 128, 128, 128, 128, 128, 128, 128, 128], 'bad-varint'],
  ])('readPrefixed: %s is a ProtocolError', async (_name, bytes, code) => {
    for (const cuts of [[], [1, 2, 3, 4, 5, 6, 7]]) {
      const reading = cut(Uint8Array.from(bytes), cuts).readPrefixed(300)
      await expect(reading).rejects.toBeInstanceOf(ProtocolError)
      await expect(reading).rejects.toMatchObject({ code })
    }
  })

  it('the limit itself is allowed; it is checked before the message comes', async () => {
    const [a, b] = pair()
    const stream = buffered(b)
    await a.write(bytesOf(3), bytesOf(1, 2, 3), bytesOf(4))
    expect(await stream.readPrefixed(3)).toEqual(bytesOf(1, 2, 3))
    await expect(stream.readPrefixed(3)).rejects.toMatchObject({ code: 'oversized' })
    a.reset()
  })

  it('readExact and readAll fail at their own limits', async () => {
    await expect(cut(bytesOf(1, 2), []).readExact(3)).rejects.toMatchObject({ code: 'truncated' })
    await expect(cut(bytesOf(1, 2, 3), [1]).readAll(2)).rejects.toMatchObject({ code: 'oversized' })
    expect(await cut(bytesOf(1, 2), [1]).readAll(2)).toEqual(bytesOf(1, 2))
  })

  it('unread puts bytes first, and buffered gives the same stream back', async () => {
    const stream = cut(bytesOf(3), [])
    expect(buffered(stream)).toBe(stream)
    stream.unread(bytesOf(2))
    stream.unread(bytesOf(1))
    expect(await stream.readAll(3)).toEqual(bytesOf(1, 2, 3))
  })

  it('writes a message behind its length as one write', async () => {
    const [a, b] = pair()
    await buffered(a).writePrefixed(bytesOf(1), bytesOf(2))
    await a.closeWrite()
    expect(await buffered(b).readAll(10)).toEqual(bytesOf(2, 1, 2))
  })
})

describe('resetOnAbort', () => {
  it('resets with the reason, at once where it has aborted already', async () => {
    const reason = new Error('enough')
    const [[early], [late]] = [pair(), pair()]
    resetOnAbort(early, AbortSignal.abort(reason))
    expect((await early.closed).reason).toBe(reason)
    const controller = new AbortController()
    resetOnAbort(late, controller.signal)
    controller.abort(reason)
    await expect(late.read()).rejects.toBe(reason)
  })

  it('lets go when told to', async () => {
    const controller = new AbortController()
    const [a, b] = pair()
    resetOnAbort(a, controller.signal)()
    resetOnAbort(a, undefined)()
    controller.abort()
    await a.write(bytesOf(1))
    expect(await b.read()).toEqual(bytesOf(1))
    a.reset()
  })
})

describe('pair', () => {
  it('a reset after both FINs takes nothing from the other side', async () => {
    const [a, b] = pair()
    await a.write(bytesOf(1))
    await a.closeWrite()
    await b.closeWrite()
    a.reset()
    expect(await b.read()).toEqual(bytesOf(1))
    expect(await b.read()).toBe(null)
    expect(await b.closed).toEqual({ by: 'local', code: 0 })
    await expect(b.write(bytesOf(1))).rejects.toMatchObject({ code: 'closed' })
  })

  it('what was sent before a FIN survives a later reset by the sender', async () => {
    const [a, b] = pair()
    await a.write(bytesOf(1))
    await a.closeWrite()
    a.reset(3)
    expect(await b.read()).toEqual(bytesOf(1))
    await expect(b.write(bytesOf(1))).rejects.toThrow('reset')
    expect(await b.closed).toMatchObject({ by: 'remote', code: 3 })
  })
})
