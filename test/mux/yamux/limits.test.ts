/* What a session refuses, and when writers and openers wait. */
import { describe, expect, it } from 'vitest'
import { concat } from '../../../src/bytes.ts'
import { connectionCode } from '../../../src/close-codes.ts'
import { LimitError } from '../../../src/errors.ts'
import { Session } from '../../../src/mux/yamux/session.ts'
import { Lab, frame, readFrames } from './lab.ts'

const KiB = 1024
const bytes = (size: number, value = 1): Uint8Array => new Uint8Array(size).fill(value)

describe('limits', () => {
  it('refuses stream 257 that nobody has accepted, and takes more once one was', () => {
    const lab = new Lab('responder')
    const syns = Array.from({ length: 257 }, (_, i) => frame('window SYN', 2 * i + 1))
    const events = lab.feed(...syns)
    expect(events.filter((e) => e.startsWith('open'))).toHaveLength(256)
    expect(events.at(-1)).toBe(
      'refused 513 acceptBacklog is 256, got 257; raise the option acceptBacklog to allow more',
    )
    expect(lab.sent()).toEqual(['window RST 513 4098'])
    const first = lab.raw.find((e) => e.type === 'open')
    if (first?.type === 'open') lab.session.accepted(first.channel)
    expect(lab.feed(frame('data SYN', 515, bytes(1)))).toEqual(['open 515', 'data 515 1 #1'])
  })

  it('skips the data of a stream it refused', () => {
    const lab = new Lab('responder', { acceptBacklog: 1 })
    lab.feed(frame('window SYN', 1))
    expect(lab.feed(frame('data SYN', 3, bytes(9)), frame('data FIN', 3, bytes(9)))).toHaveLength(1)
  })

  it('refuses more than maxInboundStreams at a time', () => {
    const lab = new Lab('responder', { maxInboundStreams: 2 })
    const open = (id: number): string[] => {
      const events = lab.feed(frame('window SYN', id))
      if (events[0]?.startsWith('open') === true) lab.session.accepted(lab.channel)
      return events.map((e) => e.split(' ')[0] ?? '')
    }
    expect([open(1), open(3), open(5)]).toEqual([['open'], ['open'], ['refused']])
    lab.feed(frame('window RST', 1))
    expect(open(7)).toEqual(['open'])
  })

  it('counts a stream that is reset after its end only once', () => {
    const lab = new Lab('responder', { maxInboundStreams: 1 })
    lab.feed(frame('window SYN FIN', 1))
    const { channel } = lab
    lab.session.accepted(channel)
    lab.session.finish(channel)
    lab.sent()
    expect(lab.events()).toContain('done 1')
    lab.session.reset(channel, 1)
    expect(lab.feed(frame('window SYN', 3))).toEqual(['open 3'])
    expect(lab.feed(frame('window SYN', 5))[0]).toMatch(/^refused 5 maxInboundStreams/)
  })

  it('counts no stream that has ended on both sides, whoever may still read what came; its bytes count', () => {
    const lab = new Lab('responder', { maxInboundStreams: 1, maxUnreadBytes: 256 * KiB })
    for (const id of [1, 3, 5]) {
      expect(lab.feed(frame('data SYN FIN', id, bytes(100 * KiB)))[0]).toBe(`open ${id}`)
      const { channel } = lab
      lab.session.accepted(channel)
      lab.session.finish(channel)
      lab.sent()
      expect(lab.events()).toEqual([`finished ${id}`, `done ${id}`])
      expect([...lab.session.live()]).toEqual([])
      lab.session.taken(channel, id === 1 ? 100 * KiB : 50 * KiB)
    }
    // 100 KiB of them wait still.
    expect(lab.feed(frame('data SYN', 7, bytes(200 * KiB)))).toEqual(['open 7', 'reset 7 4098'])
  })

  it('waits with stream 257 of ours that the peer has not acknowledged', () => {
    const lab = new Lab('initiator')
    for (let i = 0; i < 256; i++) lab.open()
    expect(lab.session.open()).toBeUndefined()
    lab.sent()
    expect(lab.feed(frame('window ACK', 1))).toEqual(['slot'])
    expect(lab.session.open()).toBeDefined()
    expect(lab.session.open()).toBeUndefined()
  })

  it('frees a place when a stream ends before it was acknowledged', () => {
    const lab = new Lab('initiator', { ackBacklog: 1 })
    const channel = lab.open()
    expect(lab.session.open()).toBeUndefined()
    lab.session.reset(channel, 0)
    expect(lab.events()).toEqual(['slot'])
    lab.open()
    lab.sent()
    expect(lab.session.open()).toBeUndefined()
    expect(lab.feed(frame('window RST', 1))).toEqual(['slot', 'reset 1 0'])
  })

  it('resets the stream that would pass maxUnreadBytes, and no other', () => {
    const lab = new Lab('responder', { maxUnreadBytes: 300 * KiB })
    lab.feed(frame('data SYN', 1, bytes(256 * KiB)))
    const [first] = lab.session.live()
    expect(lab.feed(frame('data SYN', 3, bytes(100 * KiB)), frame('window', 1, 5))).toEqual(['open 3', 'reset 3 4098'])
    expect(lab.sent()).toEqual(['window RST 3 4098'])
    expect(first?.receiving).toBe('open')
    expect(lab.feed(frame('data SYN', 5, bytes(44 * KiB)))[0]).toBe('open 5')
  })

  const abandoned: [what: string, frames: (id: number) => Uint8Array[], allowed: number][] = [
    ['resets', (id) => [frame('window SYN', id), frame('window RST', id)], 100],
    ['resets after a FIN', (id) => [frame('window SYN FIN', id), frame('window RST', id)], 100],
    ['resets once it has said something', (id) => [frame('data SYN', id, bytes(1)), frame('window RST', id)], 2_000],
  ]
  it.each(abandoned)('ends when the peer %s too many streams, and forgives with time', (_what, frames, allowed) => {
    const options = { abandonedStreams: 100, abandonedStreamsPerSecond: 10 }
    const lab = new Lab('responder', options)
    let id = 1
    const abandon = (count: number): string[] =>
      Array.from({ length: count }, () => frames((id += 2))).flatMap((some) => lab.feed(...some))
    expect(abandon(allowed).some((event) => event.startsWith('failed'))).toBe(false)
    lab.now += 1_000
    expect(abandon(allowed / 10).some((event) => event.startsWith('failed'))).toBe(false)
    lab.sent()
    expect(abandon(1).at(-1)).toBe('failed the peer opens more than 10 streams a second for nothing')
    const failed = lab.raw.at(-1) as unknown as { reason: LimitError }
    expect(failed.reason).toBeInstanceOf(LimitError)
    expect(failed.reason).toMatchObject({ limit: 'abandonedStreamsPerSecond', max: 10 })
    expect(lab.sent()).toEqual([`goaway 0 ${connectionCode.rateLimited}`])
  })

  it('lets the peer reset any number of the streams that we opened', () => {
    const lab = new Lab('responder', { abandonedStreams: 3, abandonedStreamsPerSecond: 1 })
    for (let i = 0; i < 50; i++) {
      const channel = lab.open()
      lab.sent()
      expect(lab.feed(frame('window RST', channel.id))).toEqual([`reset ${channel.id} 0`])
    }
  })

  it('makes a writer wait at 256 KiB of one stream', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    expect(lab.session.write(channel, [bytes(256 * KiB - 1)])).toBe(true)
    expect(lab.session.write(channel, [bytes(1)])).toBe(false)
    lab.sent(1)
    expect(lab.events()).toEqual(['writable 1'])
  })

  it('makes writers wait sooner when all streams together have much queued, but lets each have a little', () => {
    const lab = new Lab('initiator', { maxQueuedBytes: 512 * KiB })
    const stuck = lab.open()
    lab.session.write(stuck, [bytes(768 * KiB)])
    const other = lab.open()
    expect(lab.session.write(other, [bytes(16 * KiB - 1)])).toBe(true)
    expect(lab.session.write(other, [bytes(10 * KiB)])).toBe(false)
    lab.sent()
    // 512 KiB of the first are still stuck behind its window.
    expect(lab.events()).toEqual(['writable 3'])
    lab.session.write(other, [bytes(16 * KiB)])
    lab.feed(frame('window ACK', 1, 1))
    lab.sent()
    expect(lab.events()).toEqual(['writable 3'])
  })

  it('wakes the writers of others when a reset makes room', () => {
    const lab = new Lab('initiator', { maxQueuedBytes: 512 * KiB })
    const [stuck, other] = [lab.open(), lab.open()]
    lab.session.write(stuck, [bytes(600 * KiB)])
    expect(lab.session.write(other, [bytes(20 * KiB)])).toBe(false)
    lab.session.reset(stuck, 0)
    expect(lab.events()).toEqual(['writable 0'])
  })

  it('runs out of ids after 2^31 streams', () => {
    const session = new Session('initiator', 0, {}, 0xffff_fffd)
    session.open()
    expect(session.refusal).toBeUndefined()
    session.open()
    expect(session.refusal).toBe('exhausted')
    expect(readFrames(concat(session.transmit(1e6, 0) ?? [])).slice(1)).toEqual([
      'window SYN 4294967293 0',
      'window SYN 4294967295 0',
    ])
    expect(session.refusal).toBe('exhausted')
  })
})
