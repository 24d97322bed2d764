import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, equals } from '../src/bytes.ts'
import { ClosedError } from '../src/errors.ts'
import { Inbox, quiet, rejected } from '../src/inbox.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)

describe('Inbox', () => {
  it('pushes and reads in any order give the same bytes, and each byte is taken once', async () => {
    const step = fc.oneof(fc.nat(3000), fc.constant('read' as const))
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        let taken = 0
        const inbox = new Inbox((size) => (taken += size))
        const sent: Uint8Array[] = []
        const got: Promise<Uint8Array | null>[] = []
        let at = 0
        for (const s of steps) {
          if (s === 'read') {
            if (!inbox.reading) got.push(inbox.read())
            continue
          }
          // A small view on a large buffer, as records give them.
          const chunk = new Uint8Array(s + 5000).fill(0xee).subarray(s % 7, (s % 7) + s)
          for (let i = 0; i < s; i++) chunk[i] = at++
          sent.push(chunk.slice())
          inbox.push(chunk)
        }
        const waiting = inbox.size
        inbox.end()
        const read = (await Promise.all(got)).filter((c) => c !== null)
        expect(taken).toBe(concat(read).length)
        expect(concat(sent).length - taken).toBe(waiting)
        for (let chunk = await inbox.read(); chunk !== null; chunk = await inbox.read()) read.push(chunk)
        expect(read.every((chunk) => chunk.length > 0)).toBe(true)
        expect(equals(concat(read), concat(sent))).toBe(true)
        expect(taken).toBe(concat(sent).length)
        expect(inbox.size).toBe(0)
      }),
    )
  })

  it('what waits costs little more than its bytes, however a peer cuts them', async () => {
    const inbox = new Inbox()
    for (let i = 0; i < 1000; i++) inbox.push(new Uint8Array(65_536).subarray(i, i + 1))
    const buffers = new Set<ArrayBufferLike>()
    let count = 0
    inbox.end()
    for (let chunk = await inbox.read(); chunk !== null; chunk = await inbox.read()) {
      buffers.add(chunk.buffer)
      count++
    }
    expect([...buffers].reduce((sum, buffer) => sum + buffer.byteLength, 0)).toBeLessThan(32 * 1024)
    expect(count).toBeLessThan(10)
  })

  it('large chunks are handed on as they are', async () => {
    const inbox = new Inbox()
    const chunk = new Uint8Array(64 * 1024)
    inbox.push(chunk)
    expect(await inbox.read()).toBe(chunk)
  })

  it('a chunk that was read does not change when more comes', async () => {
    const inbox = new Inbox()
    inbox.push(bytesOf(1))
    inbox.push(bytesOf(2))
    const first = await inbox.read()
    inbox.push(bytesOf(3))
    expect(first).toEqual(bytesOf(1, 2))
    expect(await inbox.read()).toEqual(bytesOf(3))
  })

  it('drain gives everything that waits, as drive and read would', async () => {
    const inbox = new Inbox()
    inbox.push(bytesOf(1))
    inbox.push(bytesOf(2))
    inbox.push(new Uint8Array(5000))
    expect(concat(inbox.drain()).length).toBe(5002)
    expect(inbox.size).toBe(0)
    inbox.push(bytesOf(4))
    expect(await inbox.read()).toEqual(bytesOf(4))
  })

  it('fail drops what waits, now and later; the first error stays', async () => {
    const inbox = new Inbox()
    inbox.push(bytesOf(1))
    const error = new ClosedError('reset', { by: 'remote', code: 0 })
    inbox.fail(error)
    inbox.fail(new Error('second'))
    inbox.push(bytesOf(2))
    inbox.end()
    expect(inbox.size).toBe(0)
    await expect(inbox.read()).rejects.toBe(error)
  })

  it('discard takes what waits and what still comes, and reads give null', async () => {
    const taken: number[] = []
    const inbox = new Inbox((size) => taken.push(size))
    inbox.push(bytesOf(1, 2, 3))
    inbox.discard()
    inbox.discard()
    inbox.push(bytesOf(4))
    expect(taken).toEqual([3, 1])
    expect(await inbox.read()).toBe(null)
  })

  it('rejections that nobody waits for stay quiet, and whoever waits hears', async () => {
    void rejected(new Error('dropped'))
    void quiet(Promise.reject(new Error('dropped too')))
    const inbox = new Inbox()
    void inbox.read()
    inbox.fail(new Error('dropped as well'))
    void inbox.read()
    await expect(rejected(new Error('heard'))).rejects.toThrow('heard')
  })
})
