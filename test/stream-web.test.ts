import { describe, expect, it } from 'vitest'
import { settle } from '../src/env.ts'
import { pair } from '../src/stream.ts'
import { fromWeb, toWeb } from '../src/stream-web.ts'
import { isSettled, streamTable } from './stream-table.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

streamTable('fromWeb over toWeb over pair', () => {
  const [a, b] = pair()
  return [fromWeb(toWeb(a)), fromWeb(toWeb(b))]
})

describe('toWeb', () => {
  it('pipes through, FIN included', async () => {
    const [a, b] = pair()
    const [c, d] = pair()
    void toWeb(b).readable.pipeTo(toWeb(c).writable)
    await a.write(bytesOf(1), bytesOf(2))
    await a.closeWrite()
    const got: number[] = []
    for await (const chunk of d) got.push(...chunk)
    expect(got).toEqual([1, 2])
  })

  it('reads nothing ahead and makes a writer wait', async () => {
    const [a, b] = pair({ highWaterBytes: 10 })
    const { readable } = toWeb(b)
    const { writable } = toWeb(a)
    const writer = writable.getWriter()
    for (let i = 0; i < 3; i++) void writer.write(new Uint8Array(40_000))
    expect(await isSettled(writer.ready)).toBe(false)
    const reader = readable.getReader()
    for (let i = 0; i < 3; i++) expect((await reader.read()).value?.length).toBe(40_000)
    await writer.ready
    a.reset()
  })

  it('cancel stops reading and leaves writing alone; abort resets', async () => {
    const [a, b] = pair()
    const web = toWeb(b)
    await web.readable.cancel()
    await a.write(bytesOf(1))
    const writer = web.writable.getWriter()
    await writer.write(bytesOf(2))
    expect(await a.read()).toEqual(bytesOf(2))
    const reason = new Error('enough')
    await writer.abort(reason)
    await expect(a.read()).rejects.toThrow('reset')
    expect((await b.closed).reason).toBe(reason)
  })

  it('a reset of the stream errors both halves', async () => {
    const [a, b] = pair()
    const web = toWeb(b)
    const reader = web.readable.getReader()
    const reading = reader.read()
    const writer = web.writable.getWriter()
    a.reset()
    await expect(reading).rejects.toThrow()
    await expect(writer.closed).rejects.toThrow()
    await settle()
  })
})
