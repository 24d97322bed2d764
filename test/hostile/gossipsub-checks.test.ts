/* How much of a peer is being checked at a time. Signatures of spam are held up, so that it can be counted. */
import { expect, it, vi } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import type { AuthorKeys } from '../../src/protocols/gossipsub/sign.ts'
import type { WireMessage } from '../../src/protocols/gossipsub/wire.ts'
import { patience, watchProcess } from './hostile.ts'
import { hostile, mebi, net, topic } from './gossipsub-net.ts'

const held = vi.hoisted(() => ({ shut: false, now: 0, most: 0, go: [] as (() => void)[] }))

vi.mock('../../src/protocols/gossipsub/sign.ts', async (original) => {
  const sign = await original<typeof import('../../src/protocols/gossipsub/sign.ts')>()
  const verifyMessage = async (message: WireMessage, keys: AuthorKeys): Promise<boolean> => {
    if (!held.shut || !toUtf8((message.data ?? new Uint8Array()).subarray(0, 4)).startsWith('spam')) {
      return sign.verifyMessage(message, keys)
    }
    held.most = Math.max(held.most, ++held.now)
    await new Promise<void>((resolve) => held.go.push(resolve))
    held.now--
    return sign.verifyMessage(message, keys)
  }
  return { ...sign, verifyMessage }
})

vi.setConfig({ testTimeout: 60_000 })
watchProcess()

function shut(): void {
  Object.assign(held, { shut: true, most: 0 })
}

async function open(): Promise<void> {
  held.shut = false
  while (held.now > 0) {
    for (const go of held.go.splice(0)) go()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

it('100 streams of a peer are one: while its messages are being checked none of them is read', async () => {
  const v = await net({ score: { topics: { [topic]: {} } } })
  const a = await hostile(v)
  const spam = await Promise.all(Array.from({ length: 200 }, (_, i) => a.message(`spam ${i}`)))
  shut()
  for (let i = 0; i < 100; i++) {
    const forged = spam.map(({ raw }, n) => {
      const copy = raw.slice()
      // Another sequence number (54 to 57 are in it): of all that is here only the signature is wrong.
      const at = 54 + (n % 4)
      copy[at] = (copy[at] ?? 0) ^ (1 + i)
      return { raw: copy }
    })
    await a.stream()
    await a.publish(...(i === 0 ? spam : forged))
    if (i % 20 === 0) await v.talk(2)
  }
  await expect.poll(() => held.most, patience).toBeGreaterThan(128)
  await v.talk()
  // One RPC beyond the limit.
  expect(held.most).toBeLessThanOrEqual(128 + 200)
  await open()
  await expect.poll(() => v.got.length, patience).toBeGreaterThanOrEqual(200)
  await v.expectUnharmed(a)
})

it('messages that fill the room for checks leave room for those of others', async () => {
  const v = await net({ maxCheckingBytes: 4 * mebi })
  const a = await hostile(v)
  const data = new Uint8Array(512 * 1024)
  data.set(fromUtf8('spam'))
  const spam = await Promise.all(Array.from({ length: 16 }, () => a.message(data)))
  shut()
  for (const one of spam) await a.publish(one)
  await expect.poll(() => held.now, patience).toBeGreaterThanOrEqual(4)
  await v.talk(50)
  expect(held.most).toBeLessThanOrEqual(5)
  await open()
  await v.expectUnharmed(a)
})
