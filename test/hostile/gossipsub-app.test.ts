/* What is slow, hangs or throws beside GossipSub: readers, validators, handlers, transforms. */
import { deflateSync, inflateSync } from 'node:zlib'
import { describe, expect, it, vi } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { errorCode } from '../../src/errors.ts'
import type { PubSubMessage, Validator } from '../../src/protocols/gossipsub/gossipsub.ts'
import { memory, patience, watchProcess } from './hostile.ts'
import { hostile, idOf, invalidCosts, mebi, net, topic, type Hostile, type Net } from './gossipsub-net.ts'

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

const starts = ({ data }: PubSubMessage, text: string): boolean => toUtf8(data.subarray(0, text.length)) === text
const texts = (v: Net): string[] => v.got.map(({ data }) => toUtf8(data))
async function many(a: Hostile, count: number, text: (i: number) => string): Promise<void> {
  for (let i = 0; i < count; i += 100) {
    const upTo = Math.min(100, count - i)
    await a.publish(...(await Promise.all(Array.from({ length: upTo }, (_, n) => a.message(text(i + n))))))
  }
}

describe('a reader', () => {
  it('that never reads has a queue with a bound; all others get everything', async () => {
    const v = await net({ maxQueueBytes: 2 * mebi })
    const a = await hostile(v, { deaf: true })
    const data = new Uint8Array(200_000)
    let most = 0
    for (let i = 0; i < 100; i++) {
      data[0] = i
      const { recipients } = await v.gossip.publish(topic, data)
      expect(recipients.length).toBeGreaterThanOrEqual(2)
      await v.talk(1)
      most = Math.max(most, v.gossip.stats().queuedBytes)
    }
    // Its window, what the wire holds of it, and its queue are full.
    expect(most).toBeGreaterThan(mebi)
    expect(most).toBeLessThan(2.5 * mebi)
    expect(v.gossip.stats().dropped).toBeGreaterThan(50)
    // Its stream is given up, and what waited for it with it.
    await v.beats(31)
    await expect.poll(() => v.gossip.stats().queuedBytes, patience).toBe(0)
    await v.expectUnharmed(a)
  })

  it('that never reads what others write: the same bound, the oldest goes', async () => {
    const v = await net({ maxQueueBytes: 2 * mebi })
    const a = await hostile(v, { deaf: true })
    const author = await hostile(v)
    const ids: string[] = []
    const data = new Uint8Array(200_000)
    let most = 0
    for (let i = 0; i < 60; i++) {
      const message = await author.message(data)
      await author.publish(message)
      await expect.poll(() => v.got.length, patience).toBe(i + 1)
      ids.push(idOf(message))
      await v.talk(1)
      most = Math.max(most, v.gossip.stats().queuedBytes)
    }
    expect(most).toBeGreaterThan(mebi)
    expect(most).toBeLessThan(2.5 * mebi)
    // It asks for what was dropped, which it will not read either. Nothing else comes that would make room.
    await expect.poll(() => v.gossip.stats().delivered, patience).toBe(180)
    const { dropped } = v.gossip.stats()
    expect(dropped).toBeGreaterThan(20)
    await a.control({ iwant: [ids] })
    await expect.poll(() => v.gossip.stats().dropped, patience).toBeGreaterThan(dropped + 20)
    expect(v.gossip.stats().queuedBytes).toBeLessThan(2.5 * mebi)
    await v.expectUnharmed(a, author)
  })

  it('of an iterable that nobody reads loses the oldest', async () => {
    const v = await net()
    const a = await hostile(v)
    const unread = v.gossip.messages(topic, { maxBuffered: 10 })
    const few = v.gossip.messages(topic, { maxBufferedBytes: 2_000 })
    await many(a, 1_000, (i) => `message ${i}`.padEnd(400))
    await expect.poll(() => v.got.length, patience).toBe(1_000)
    expect(unread.dropped).toBe(990)
    expect(few.dropped).toBe(995)
    for (const i of [990, 991]) {
      const { value } = await unread.next()
      expect(value?.data).toEqual(v.got[i]?.data)
    }
    await unread.return?.()
    await few.return?.()
    await v.expectUnharmed(a)
  })
})

describe('a validator', () => {
  it('that hangs at one peer, and is given up: those of others are checked all the time', async () => {
    const v = await net({ maxValidating: 600 })
    const undone: (() => void)[] = []
    let running = 0
    const slow: Validator = (message) => {
      if (!starts(message, 'hang')) return Promise.resolve('accept')
      running++
      return new Promise(() => {})
    }
    undone.push(v.gossip.addValidator(topic, slow, { timeoutMs: 5_000 }))
    const a = await hostile(v)
    await many(a, 1_500, (i) => `hang ${i}`)
    await v.talk(50)
    await expect.poll(() => v.gossip.stats().throttled, patience).toBeGreaterThan(0)
    // More than half is never its own.
    expect(running).toBeLessThanOrEqual(301)
    await v.beats(6)
    expect(v.gossip.stats().ignored).toBe(running)
    expect(v.traces.filter(({ what }) => what === 'gossipsub.validator-failed')).toHaveLength(running)
    expect(v.got).toEqual([])
    expect(v.scoreOf(a)).toBe(0)
    for (const undo of undone) undo()
    await v.expectUnharmed(a)
  })

  it('that hangs at large messages: the room for them is not all of one peer', async () => {
    const v = await net({ maxCheckingBytes: 4 * mebi })
    let running = 0
    v.gossip.addValidator(topic, (message) => {
      if (!starts(message, 'hang')) return 'accept'
      running++
      return new Promise(() => {})
    })
    const a = await hostile(v)
    const data = new Uint8Array(500_000)
    data.set(fromUtf8('hang'))
    for (let i = 0; i < 20; i++) await a.publish(await a.message(data))
    await expect.poll(() => running, patience).toBeGreaterThan(3)
    await v.talk(20)
    expect(running).toBeLessThanOrEqual(5)
    await v.beats(11)
    await v.expectUnharmed(a)
  })

  const strange: [what: string, validator: (message: PubSubMessage) => unknown][] = [
    [
      'throws',
      () => {
        throw new Error('it throws')
      },
    ],
    ['rejects', () => Promise.reject(new Error('it rejects'))],
    ['throws something that is no error', () => Promise.reject(undefined)],
    ['says nothing', () => undefined],
    ['says nothing, later', () => Promise.resolve()],
    ['says true', () => true],
    ['says false', () => false],
    // A promise that is none of the platform's.
    // oxlint-disable-next-line unicorn/no-thenable
    ['rejects in its own way', () => ({ then: (_: unknown, no: (error: Error) => void) => no(new Error('no')) })],
  ]
  it.each(strange)('that %s has not accepted the message, and blames nobody', async (_what, validator) => {
    const v = await net({ score: { topics: { [topic]: invalidCosts } } })
    v.gossip.addValidator(topic, (message) =>
      starts(message, 'strange') ? (validator(message) as 'accept') : 'accept',
    )
    const a = await hostile(v)
    await many(a, 10, (i) => `strange ${i}`)
    await expect.poll(() => v.gossip.stats().ignored, patience).toBe(10)
    expect(v.got).toEqual([])
    expect(v.scoreOf(a)).toBe(0)
    expect(v.traces.filter(({ what }) => what === 'gossipsub.validator-failed')).toHaveLength(10)
    await v.expectUnharmed(a)
  })
})

it('a handler that throws, or rejects, hurts no other', async () => {
  const v = await net()
  v.gossip.subscribe(topic, (message) => {
    if (starts(message, 'bad')) throw new Error('it throws')
  })
  v.gossip.subscribe(topic, async (message) => {
    if (starts(message, 'bad')) throw new Error('it rejects')
  })
  const a = await hostile(v)
  await many(a, 20, (i) => `bad ${i}`)
  await expect.poll(() => v.got.length, patience).toBe(20)
  expect(v.traces.filter(({ what }) => what === 'gossipsub.handler-threw')).toHaveLength(40)
  await v.expectUnharmed(a)
})

const inflate = (_topic: string, data: Uint8Array, maxBytes: number): Uint8Array =>
  data[0] === 0x78 ? new Uint8Array(inflateSync(data, { maxOutputLength: maxBytes })) : data

describe('a transform', () => {
  const bomb = deflateSync(new Uint8Array(64 * mebi))

  it.each([
    ['keeps to the limit', inflate, 'ERR_BUFFER_TOO_LARGE'],
    [
      'gives more than it may',
      (_: string, data: Uint8Array) => (data[0] === 0x78 ? new Uint8Array(mebi + 1) : data),
      undefined,
    ],
  ])('that %s: a bomb is rejected and blamed, and nothing of it goes on', async (_what, incoming, code) => {
    const v = await net({
      score: { topics: { [topic]: invalidCosts } },
      transform: { outgoing: (_, data) => data, incoming },
    })
    const a = await hostile(v)
    const before = memory()
    for (let i = 0; i < 5; i++) await a.publish(await a.message(new Uint8Array(bomb)))
    await v.talk()
    await expect.poll(() => v.gossip.stats().rejected, patience).toBe(5)
    const errors = v.traces.filter(({ what }) => what === 'gossipsub.bad-data').map(({ error }) => error)
    expect(errors).toHaveLength(5)
    if (code === undefined) expect(errors[0]).toMatchObject({ name: 'LimitError', limit: 'maxMessageBytes' })
    else expect((errors[0] as NodeJS.ErrnoException).code).toBe(code)
    expect(errorCode(errors[0]) ?? '').not.toBe('timeout')
    expect(memory() - before).toBeLessThan(16 * mebi)
    expect(v.got).toEqual([])
    expect(v.scoreOf(a)).toBe(-25)
    await v.expectUnharmed(a)
  })

  it('is not asked for the data of forgeries', async () => {
    let asked = 0
    const v = await net({
      transform: {
        outgoing: (_, data) => data,
        incoming: (_, data) => {
          if (toUtf8(data).startsWith('forged')) asked++
          return data
        },
      },
    })
    const a = await hostile(v)
    const forged = await a.message('forged')
    const { raw } = forged
    raw[raw.length - 1] = (raw.at(-1) ?? 0) ^ 1
    for (let i = 0; i < 20; i++) await a.publish({ raw })
    await a.publish(await a.message('good'))
    await expect.poll(() => texts(v), patience).toEqual(['good'])
    expect(asked).toBe(0)
    await v.expectUnharmed(a)
  })
})
