/* What a hostile peer may say to the router between two honest words, without sockets. */
import { describe, expect, it } from 'vitest'
import { FakeClock } from '../../src/env.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { increasingSeqno } from '../../src/protocols/gossipsub/seqno.ts'
import { Share } from '../../src/protocols/gossipsub/share.ts'
import { Lab, message } from '../protocols/gossipsub/router-lab.ts'

describe('a GRAFT', () => {
  it('leaves what the subscription said of partial messages', () => {
    const lab = new Lab({ extensions: { partialMessages: true }, params: { Dlo: 0, D: 2, Dout: 0, Dscore: 0 } })
    lab.peer('p', { topics: [] })
    lab.router.greeted('p')
    lab.send('p', {
      subscriptions: [{ subscribe: true, topic: 't', requestsPartial: true }],
      control: { extensions: { partialMessages: true }, graft: ['t'] },
    })
    expect(lab.router.mesh('t')).toEqual(['p'])
    expect(lab.router.requestsPartial('p', 't')).toBe(true)
  })

  it('that comes before the subscription is told as one', () => {
    const lab = new Lab({ params: { Dlo: 0, D: 2, Dout: 0, Dscore: 0 } })
    lab.peer('p', { topics: [] })
    lab.control('p', { graft: ['t'] })
    lab.send('p', { subscriptions: [{ subscribe: true, topic: 't' }] })
    expect(lab.of('subscription')).toEqual([{ kind: 'subscription', peer: 'p', topic: 't', subscribed: true }])
  })
})

describe('messages whose check is under way', () => {
  it('of one peer leave room for those of others', () => {
    const size = message('author', 1, { size: 1_000 }).raw.length
    const lab = new Lab({ limits: { maxCheckingBytes: 10 * size } })
    lab.crowd(3)
    for (let i = 0; i < 20; i++) lab.publishes('p0', message('spammy', i, { size: 1_000 }))
    for (let i = 0; i < 20; i++) lab.publishes('p1', message('sybils', i, { size: 1_000 }))
    lab.publishes('p2', message('author', 1, { size: 1_000 }))
    const checked = lab.incoming()
    const of = (id: string): number => checked.filter(({ sender }) => sender === id).length
    expect([of('p0'), of('p1'), of('p2')]).toEqual([6, 3, 1])
    // What is over makes room again.
    for (const incoming of checked) lab.router.invalid(incoming)
    lab.publishes('p2', message('author', 2, { size: 1_000 }))
    expect(lab.incoming()).toHaveLength(1)
  })

  it('with a bad signature: 32 of a heartbeat are misbehaviour, though no topic is scored', () => {
    const lab = new Lab()
    lab.crowd(2)
    const forge = (from: number, count: number): void => {
      for (let i = from; i < from + count; i++) lab.publishes('p0', message('author', i, { forged: true }))
      lab.settle()
    }
    forge(0, 31)
    expect(lab.blame('p0')).toBe(0)
    lab.wait(2_000)
    forge(100, 31)
    expect(lab.blame('p0')).toBe(0)
    forge(200, 1)
    expect(lab.blame('p0')).toBe(1)
    forge(300, 64)
    expect(lab.blame('p0')).toBe(3)
    // Graylisted: -90 is below -80.
    lab.publishes('p0', message('author', 900))
    expect(lab.incoming()).toEqual([])
    expect(lab.blame('p1')).toBe(0)
  })
})

describe('a share', () => {
  it('is never more than what is left, but for one alone where nobody is counted', () => {
    const share = new Share(4)
    const take = (who: string | undefined): boolean => {
      if (!share.fits(who)) return false
      share.take(who)
      return true
    }
    expect([take('a'), take('a'), take('a'), take('a')]).toEqual([true, true, true, false])
    expect([take('b'), take('b')]).toEqual([true, false])
    share.give('a')
    expect(take('a')).toBe(false)
    expect([take(undefined), take(undefined)]).toEqual([true, false])
    for (const who of ['a', 'a', 'b', undefined]) share.give(who)
    expect(share.fits('b', 4)).toBe(true)
    expect(share.fits(undefined, 5)).toBe(false)
  })

  it('of one is taken by the first', () => {
    const share = new Share(1)
    expect(share.fits('a')).toBe(true)
    share.take('a')
    expect(share.fits('b')).toBe(false)
  })
})

describe('a peer that subscribes and leaves within one RPC', () => {
  it('has said its last word', () => {
    const lab = new Lab()
    lab.peer('p', { topics: [] })
    lab.events()
    lab.send('p', {
      subscriptions: [
        { subscribe: true, topic: 't' },
        { subscribe: false, topic: 't' },
        { subscribe: false, topic: 'u' },
        { subscribe: true, topic: 'u' },
      ],
    })
    expect(lab.events()).toEqual([{ kind: 'subscription', peer: 'p', topic: 'u', subscribed: true }])
    expect(lab.router.peer('p')?.topics.has('t')).toBe(false)
  })
})

describe('a check of sequence numbers', () => {
  const { peerId } = generateKey().publicKey
  const other = generateKey().publicKey.peerId
  const check = (maxAuthors = 10) => {
    const clock = new FakeClock()
    const validator = increasingSeqno({ clock, windowMs: 1_000, maxAuthors })
    const say = (seqno: bigint | undefined, from = peerId): unknown =>
      validator(
        { topic: 't', data: new Uint8Array(), id: new Uint8Array(), from, seqno, receivedFrom: from },
        { from, signal: new AbortController().signal },
      )
    return { clock, say }
  }

  it('takes what was overtaken, and ignores from a window later on what was passed', async () => {
    const { clock, say } = check()
    expect([say(0n), say(9n), say(5n), say(9n)]).toEqual(['accept', 'accept', 'accept', 'accept'])
    await clock.advance(499)
    expect(say(10n)).toBe('accept')
    await clock.advance(2)
    // Half a window at least.
    expect([say(9n), say(20n)]).toEqual(['accept', 'accept'])
    await clock.advance(500)
    expect([say(10n), say(11n), say(20n)]).toEqual(['ignore', 'accept', 'accept'])
    await clock.advance(100_000)
    expect([say(20n), say(21n)]).toEqual(['ignore', 'accept'])
  })

  it('knows authors apart, and so many of them; without numbers there is nothing to check', async () => {
    const { clock, say } = check(1)
    expect(say(5n)).toBe('accept')
    await clock.advance(5_000)
    expect([say(5n), say(3n, other), say(5n), say(undefined)]).toEqual(['ignore', 'accept', 'accept', 'accept'])
  })
})
