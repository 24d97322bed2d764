import { expect, it } from 'vitest'
import { LazyDeadline, leash } from '../src/deadline.ts'
import { FakeClock } from '../src/env.ts'

it('a deadline that is set again and again fires once, when the last one passes, from one timer', async () => {
  const clock = new FakeClock()
  const deadline = new LazyDeadline(clock)
  const late: number[] = []
  for (let i = 0; i < 10; i++) {
    deadline.set(100, () => late.push(clock.now()))
    expect(clock.waiting).toBe(1)
    await clock.advance(50)
    deadline.clear()
  }
  expect(late).toEqual([])
  deadline.set(100, () => late.push(clock.now()))
  await clock.advance(1_000)
  expect(late).toEqual([600])
  expect(clock.waiting).toBe(0)
})

it('a shorter deadline behind a longer one is kept', async () => {
  const clock = new FakeClock()
  const deadline = new LazyDeadline(clock)
  const late: string[] = []
  deadline.set(1_000, () => late.push('long'))
  deadline.clear()
  deadline.set(10, () => late.push('short'))
  await clock.advance(10)
  expect(late).toEqual(['short'])
  deadline.set(1_000, () => late.push('stopped'))
  deadline.stop()
  expect(clock.waiting).toBe(0)
  await clock.advance(2_000)
  expect(late).toEqual(['short'])
})

it('a leash ends with the signal that it follows, for its reason', () => {
  const followed = new AbortController()
  const { signal, end } = leash(followed.signal)
  expect(signal.aborted).toBe(false)
  const reason = new Error('the caller has left')
  followed.abort(reason)
  expect(signal.reason).toBe(reason)
  end()
  expect(signal.reason).toBe(reason)
  expect(leash(followed.signal).signal.reason).toBe(reason)
})

it('a leash is ended by its holder, whose reason it gives, and the signal that it follows goes on', () => {
  const followed = new AbortController()
  const { signal, end } = leash(followed.signal)
  const reason = new Error('enough')
  end(reason)
  expect(signal.reason).toBe(reason)
  expect(followed.signal.aborted).toBe(false)
  const alone = leash(undefined)
  expect(alone.signal.aborted).toBe(false)
  alone.end()
  expect(alone.signal.reason).toBeInstanceOf(Error)
})
