import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat } from '../src/bytes.ts'
import { Inbox } from '../src/inbox.ts'

async function readEverything(inbox: Inbox): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for (let chunk = await inbox.read(); chunk !== null; chunk = await inbox.read()) chunks.push(chunk)
  return concat(chunks)
}

describe('inbox', () => {
  it('gives every byte in order, however pushes and reads interleave, and counts what was taken', async () => {
    const step = fc.oneof(fc.constant('read' as const), fc.uint8Array({ minLength: 1, maxLength: 700 }))
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        let taken = 0
        const inbox = new Inbox((size) => (taken += size))
        const pushed: Uint8Array[] = []
        const got: Uint8Array[] = []
        for (const what of steps) {
          if (what !== 'read') {
            pushed.push(what.slice())
            inbox.push(what)
          } else if (inbox.size > 0) got.push((await inbox.read()) as Uint8Array)
        }
        inbox.end()
        got.push(await readEverything(inbox))
        expect(concat(got)).toEqual(concat(pushed))
        expect([taken, inbox.size]).toEqual([concat(pushed).length, 0])
      }),
    )
  })

  it('hands a chunk over uncopied when somebody waits for it', async () => {
    const inbox = new Inbox()
    const reading = inbox.read()
    const chunk = new Uint8Array(65_536).subarray(5, 10)
    inbox.push(chunk)
    expect(await reading).toBe(chunk)
  })

  it('keeps a large chunk uncopied while it waits', async () => {
    const inbox = new Inbox()
    const chunk = new Uint8Array(65_536).subarray(0, 60_000)
    inbox.push(chunk)
    expect(await inbox.read()).toBe(chunk)
  })

  it('does not pin a large buffer for a small part that waits', async () => {
    const inbox = new Inbox()
    inbox.push(new Uint8Array(65_536).subarray(0, 5000))
    expect((await inbox.read())?.buffer.byteLength).toBeLessThan(6000)
  })

  it('gathers tiny chunks that wait', () => {
    const inbox = new Inbox()
    for (let i = 0; i < 100_000; i++) inbox.push(Uint8Array.of(i))
    expect(inbox.size).toBe(100_000)
    const rest = inbox.drain()
    expect(rest.length).toBeLessThan(10)
    expect(concat(rest)).toEqual(Uint8Array.from({ length: 100_000 }, (_, i) => i))
  })

  it('never writes again into a chunk that was read', async () => {
    const inbox = new Inbox()
    inbox.push(Uint8Array.of(1))
    inbox.push(Uint8Array.of(2))
    const first = await inbox.read()
    inbox.push(Uint8Array.of(3))
    expect(first).toEqual(Uint8Array.of(1, 2))
    expect(await inbox.read()).toEqual(Uint8Array.of(3))
  })
})
