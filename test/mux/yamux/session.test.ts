import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat, empty } from '../../../src/bytes.ts'
import { ProtocolError } from '../../../src/errors.ts'
import { Session } from '../../../src/mux/yamux/session.ts'
import { Lab, frame, opened, readEvents } from './lab.ts'

const KiB = 1024
const bytes = (size: number, value = 1): Uint8Array => new Uint8Array(size).fill(value)

describe('a stream of ours', () => {
  it('says SYN on its first data', () => {
    const lab = new Lab('initiator')
    lab.session.write(lab.open(), [bytes(5)])
    expect(lab.sent()).toEqual(['data SYN 1 5'])
  })

  it('says SYN on a window update when nothing is written', () => {
    const lab = new Lab('responder')
    lab.open()
    lab.open()
    expect(lab.sent()).toEqual(['window SYN 2 0', 'window SYN 4 0'])
    expect(lab.session.pending).toBe(false)
  })

  it('never lets FIN share a frame with data', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.session.write(channel, [bytes(5)])
    lab.session.finish(channel)
    expect(lab.sent()).toEqual(['data SYN 1 5', 'window FIN 1 0'])
    expect(lab.events()).toEqual(['finished 1'])
    expect(lab.feed(frame('window ACK FIN', 1))).toEqual(['end 1', 'done 1'])
  })

  it('opens and finishes in one frame when it says nothing', () => {
    const lab = new Lab('initiator')
    lab.session.finish(lab.open())
    expect(lab.sent()).toEqual(['window SYN FIN 1 0'])
  })

  it('costs nothing when it is reset before its SYN has left', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.session.write(channel, [bytes(5)])
    lab.session.reset(channel, 7)
    expect(lab.sent()).toEqual([])
    lab.open()
    expect(lab.sent()).toEqual(['window SYN 1 0'])
  })

  it('numbers streams in the order in which they appear on the wire', () => {
    const lab = new Lab('initiator')
    const [low, high] = [lab.open(0), lab.open(1)]
    lab.session.write(low, [bytes(3)])
    lab.session.write(high, [bytes(4)])
    expect(lab.sent()).toEqual(['data SYN 1 4', 'data SYN 3 3'])
  })

  it('waits for credit and goes on when it comes', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.session.write(channel, [bytes(300 * KiB)])
    lab.session.finish(channel)
    expect(lab.sent()).toEqual(['data SYN 1 65536', 'data 1 65536', 'data 1 65536', 'data 1 65536'])
    expect(lab.session.pending).toBe(false)
    expect(lab.events()).toEqual(['writable 1'])
    expect(lab.feed(frame('window ACK', 1, 1000))).toEqual([])
    expect(lab.sent()).toEqual(['data 1 1000'])
    lab.feed(frame('window', 1, 1_000_000))
    expect(lab.sent()).toEqual(['data 1 44056', 'window FIN 1 0'])
  })

  it('is not written to by a peer that grants credit beyond 2^32-1', () => {
    const lab = new Lab('initiator')
    lab.open()
    lab.sent()
    expect(lab.feed(frame('window ACK', 1, 0xffff_ffff - 256 * KiB))).toEqual([])
    expect(lab.feed(frame('window', 1, 1))).toEqual(['failed yamux: 1 more bytes of credit on stream 1 pass 2^32-1'])
    expect(lab.sent()).toEqual(['goaway 0 1'])
  })

  it('says RST once, with its code', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.sent()
    lab.session.reset(channel, 0x1234)
    lab.session.reset(channel, 0x9999)
    expect(lab.sent()).toEqual(['window RST 1 4660'])
    expect(lab.feed(frame('data', 1, bytes(100)), frame('window FIN', 1), frame('window RST', 1))).toEqual([])
    expect(lab.sent()).toEqual([])
  })

  it('drops what is queued when the peer resets it, and tells the code', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.session.write(channel, [bytes(600 * KiB)])
    lab.sent()
    expect(lab.feed(frame('window RST', 1, 0x1002))).toEqual(['reset 1 4098'])
    expect([channel.queued, lab.session.pending]).toEqual([0, false])
  })

  it('takes a reset on a data frame too, with code 0, and skips its body', () => {
    const lab = new Lab('initiator')
    lab.open()
    lab.sent()
    expect(lab.feed(frame('data RST', 1, bytes(3)), frame('ping SYN', 0, 9))).toEqual(['reset 1 0'])
    expect(lab.sent()).toEqual(['ping ACK 0 9'])
  })

  it('keeps what is unread when the peer finishes and then resets', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.sent()
    expect(lab.feed(frame('data ACK', 1, bytes(4)), frame('window FIN', 1), frame('window RST', 1, 5))).toEqual([
      `data 1 4 #${((1 * 31 + 1) * 31 + 1) * 31 + 1}`,
      'end 1',
      'reset 1 5',
    ])
    expect([channel.sending, channel.receiving]).toEqual(['reset', 'ended'])
    lab.session.taken(channel, 4)
    expect([...lab.session.live()]).toEqual([])
    expect(lab.sent()).toEqual([])
  })
})

describe('a stream of the peer', () => {
  it('is acknowledged on the reply', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('data SYN', 1, bytes(1)))).toEqual(['open 1', 'data 1 1 #1'])
    expect(lab.session.pending).toBe(false)
    lab.session.accepted(lab.channel)
    expect(lab.session.pending).toBe(true)
    lab.session.write(lab.channel, [bytes(2)])
    expect(lab.sent()).toEqual(['data ACK 1 2'])
  })

  it('is acknowledged by a window update when nobody replies, once it is accepted', () => {
    const lab = new Lab('responder')
    lab.feed(frame('window SYN', 1))
    expect(lab.sent()).toEqual([])
    lab.session.accepted(lab.channel)
    expect(lab.sent()).toEqual(['window ACK 1 0'])
  })

  it('may begin with credit, and may begin and end in one frame', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('window SYN FIN', 1, 1000))).toEqual(['open 1', 'end 1'])
    expect(lab.channel.sendWindow.available).toBe(256 * KiB + 1000)
    lab.session.accepted(lab.channel)
    lab.session.write(lab.channel, [bytes(2)])
    lab.session.finish(lab.channel)
    expect(lab.sent()).toEqual(['data ACK 1 2', 'window FIN 1 0'])
    expect(lab.events()).toEqual(['finished 1', 'done 1'])
    expect([...lab.session.live()]).toEqual([])
  })

  it('may come in any order of ids', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('window SYN', 5), frame('window SYN', 1), frame('window SYN', 3))).toEqual([
      'open 5',
      'open 1',
      'open 3',
    ])
  })

  it('takes data and FIN in one frame, the data first', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('data SYN FIN', 1, bytes(1)))).toEqual(['open 1', 'data 1 1 #1', 'end 1'])
  })

  it('takes data frames without data', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('data SYN', 1, empty), frame('data', 1, empty), frame('data FIN', 1, empty))).toEqual([
      'open 1',
      'end 1',
    ])
  })

  it('opens and is gone when SYN and RST come together', () => {
    const lab = new Lab('responder')
    expect(lab.feed(frame('window SYN RST', 1), frame('window', 1, 5))).toEqual([])
    expect(lab.feed(frame('window SYN', 1))).toEqual(['failed yamux: SYN on stream 1, which was used before'])
  })
})
describe('credit', () => {
  it('is granted when the application has read, never on arrival', () => {
    const lab = opened({ maxStreamWindowBytes: 256 * KiB })
    lab.feed(frame('data', 1, bytes(256 * KiB)))
    expect(lab.sent()).toEqual([])
    lab.session.taken(lab.channel, 128 * KiB - 1)
    expect(lab.sent()).toEqual([])
    lab.session.taken(lab.channel, 1)
    expect(lab.sent()).toEqual(['window 1 131072'])
  })

  it('grows to 1 MiB once 64 KiB were read, not for small talk', () => {
    const lab = opened()
    lab.feed(frame('data', 1, bytes(65_536)))
    lab.session.taken(lab.channel, 65_535)
    expect(lab.sent()).toEqual([])
    lab.session.taken(lab.channel, 1)
    expect(lab.sent()).toEqual([`window 1 ${1024 * KiB - 192 * KiB}`])
    expect(lab.channel.receiveWindow.credit).toBe(1024 * KiB)
  })

  it('stops growing when the budget of the connection is used up, until a stream ends', () => {
    const lab = new Lab('responder', { receiveBudgetBytes: 2048 * KiB })
    const grows = (id: number): boolean => {
      lab.feed(frame('window SYN', id), frame('data', id, bytes(65_536)))
      const { channel } = lab
      lab.session.accepted(channel)
      lab.session.taken(channel, 65_536)
      return channel.receiveWindow.max > 256 * KiB
    }
    expect([grows(1), grows(3), grows(5)]).toEqual([true, true, false])
    lab.feed(frame('window RST', 1), frame('window RST', 5))
    expect(grows(7)).toBe(true)
  })

  it('is given at once for what nobody wants to read', () => {
    const lab = opened({ maxStreamWindowBytes: 256 * KiB })
    lab.session.discard(lab.channel)
    expect(lab.feed(frame('data', 1, bytes(200_000)))).toEqual([])
    expect(lab.sent()).toEqual(['window 1 200000'])
    expect(lab.feed(frame('window FIN', 1))).toEqual(['end 1'])
  })

  it('is not given any more after the FIN', () => {
    const lab = opened()
    lab.feed(frame('data', 1, bytes(200_000)), frame('window FIN', 1))
    lab.session.taken(lab.channel, 200_000)
    expect(lab.sent()).toEqual([])
  })

  it('overrun by one byte ends the connection', () => {
    const lab = opened()
    lab.feed(frame('data', 1, bytes(256 * KiB)))
    expect(lab.feed(frame('data', 1, bytes(1)))).toEqual(['failed yamux: stream 1 sent 1 bytes, its credit is 0'])
    const { reason } = lab.raw.at(-1) as { reason: unknown }
    expect(reason).toBeInstanceOf(ProtocolError)
    expect((reason as ProtocolError).code).toBe('flow-control')
    expect(lab.sent()).toEqual(['goaway 0 1'])
    expect(lab.session.deadline).toBe(Infinity)
    expect(lab.feed(frame('ping SYN', 0, 1))).toEqual([])
    expect(lab.sent()).toEqual([])
  })
})

describe('a violation', () => {
  const violations: [string, Uint8Array[], string, string][] = [
    ['a version that is not 0', [Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)], 'bad-frame', 'version 1'],
    ['a type above 3', [Uint8Array.of(0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)], 'bad-frame', 'type 4'],
    ['SYN with an id of our parity', [frame('window SYN', 2)], 'bad-frame', 'own parity'],
    ['SYN on an open stream', [frame('window SYN', 1), frame('data SYN', 1, bytes(1))], 'bad-frame', 'used before'],
    [
      'SYN on a stream that is gone',
      [frame('window SYN', 3), frame('window RST', 3), frame('window SYN', 3)],
      'bad-frame',
      'used before',
    ],
    ['a first body above the initial window', [frame('data SYN', 1, 256 * KiB + 1)], 'flow-control', '262145'],
    ['a body above what any stream had', [frame('data', 9, 256 * KiB + 1)], 'oversized', '262145'],
    ['data after FIN', [frame('window SYN FIN', 1), frame('data', 1, bytes(1))], 'bad-frame', 'after its FIN'],
    ['stream frames on id 0', [frame('data', 0, bytes(1))], 'bad-frame', 'id 0'],
    ['a ping on a stream', [frame('ping SYN', 1)], 'bad-frame', 'ping on stream 1'],
    ['a go away on a stream', [frame('goaway', 1)], 'bad-frame', 'go away on stream 1'],
    ['credit overflow with the SYN', [frame('window SYN', 1, 0xffff_ffff)], 'flow-control', '2^32-1'],
    ['33 pings at once', Array.from({ length: 33 }, (_, i) => frame('ping SYN', 0, i)), 'bad-frame', '32 pings'],
    [
      '1281 streams whose resets are not read',
      Array.from({ length: 256 + 1025 }, (_, i) => frame('window SYN', 2 * i + 1)),
      'bad-frame',
      '1024 refused',
    ],
  ]
  for (const [name, frames, code, message] of violations) {
    it(`is ${name}: typed error, go away 1, and nothing more is heard`, () => {
      const lab = new Lab('responder')
      lab.feed(...frames)
      const failed = lab.raw.at(-1)
      expect(failed?.type).toBe('failed')
      const { reason } = failed as unknown as { reason: ProtocolError }
      expect(reason).toBeInstanceOf(ProtocolError)
      expect(reason.code).toBe(code)
      expect(reason.message).toContain(message)
      expect(lab.sent()).toEqual(['goaway 0 1'])
      expect(lab.feed(frame('window SYN', 777))).toEqual([])
    })
  }

  it('is not: frames for streams that are gone or never were, unknown flags, stray ACKs and replies', () => {
    const lab = new Lab('responder')
    const odd = frame('window', 99)
    odd[2] = 0xff
    odd[3] = 0xf0
    expect(
      lab.feed(
        frame('data', 99, bytes(1000)),
        frame('window', 98, 5),
        frame('window RST', 97),
        frame('window FIN', 96),
        frame('window ACK', 94),
        odd,
        frame('ping ACK', 0, 77),
        frame('ping', 0, 5),
      ),
    ).toEqual([])
    expect(lab.sent()).toEqual([])
  })
})

describe('order', () => {
  it('sends control before data and lets streams take turns', () => {
    const lab = new Lab('initiator')
    const [a, b, c] = [lab.open(), lab.open(), lab.open()]
    lab.session.write(a, [bytes(100 * KiB)])
    lab.session.write(b, [bytes(100 * KiB)])
    lab.session.write(c, [bytes(10)])
    lab.feed(frame('ping SYN', 0, 3))
    expect(lab.sent()).toEqual([
      'ping ACK 0 3',
      'data SYN 1 65536',
      'data SYN 3 65536',
      'data SYN 5 10',
      'data 1 36864',
      'data 3 36864',
    ])
  })

  it('stops within a frame of the room there is', () => {
    const lab = new Lab('initiator')
    lab.session.write(lab.open(), [bytes(250 * KiB)])
    expect(lab.sent(64 * KiB)).toEqual(['data SYN 1 65536'])
    expect(lab.session.pending).toBe(true)
  })

  it('sends a higher priority first', () => {
    const lab = new Lab('initiator')
    for (const priority of [0, 2, 1, 2, 0]) lab.session.write(lab.open(priority), [bytes(1, priority)])
    lab.sentBytes(1e6)
    const order = [...lab.session.live()].map((c) => [c.id, c.priority])
    expect(order).toEqual([
      [1, 2],
      [3, 2],
      [5, 1],
      [7, 0],
      [9, 0],
    ])
  })

  it('gathers many small writes into one frame, uncopied where they are large', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    const large = bytes(1000)
    lab.session.write(channel, [large, bytes(3), empty, bytes(4)])
    const chunks = lab.session.transmit(1e6, 0)
    expect(chunks?.map((c) => c.length)).toEqual([12, 1000, 7])
    expect(chunks?.[1]).toBe(large)
  })
})

describe('pings and time', () => {
  it('lets the first ping ride on what leaves first and measures the round trip', () => {
    const session = new Session<unknown>('initiator', 0)
    expect(session.pending).toBe(false)
    session.open()
    const [chunk] = session.transmit(1e6, 10) ?? []
    expect(chunk?.length).toBe(24)
    session.receive(frame('ping ACK', 0, 1), 25)
    expect(session.next()).toEqual({ type: 'rtt', ms: 15 })
  })

  it('pings after 30 s and fails after 10 s of silence with a TimeoutError', () => {
    const lab = new Lab('initiator')
    expect(lab.session.deadline).toBe(30_000)
    lab.session.tick((lab.now = 30_000))
    expect(lab.sent()).toEqual(['ping SYN 0 2'])
    expect(lab.session.deadline).toBe(40_000)
    lab.session.tick((lab.now = 40_000))
    expect(lab.events()).toEqual(['failed the reply to a keep-alive ping took longer than 10000 ms'])
    expect(lab.sent()).toEqual(['goaway 0 2'])
  })
})

describe('the end', () => {
  it('takes no new streams of ours after the peer said go away, and finishes those there are', () => {
    const lab = new Lab('initiator')
    const channel = lab.open()
    lab.sent()
    expect(lab.feed(frame('goaway', 0, 0))).toEqual(['goaway 0'])
    expect(lab.session.refusal).toBe('remote')
    lab.session.write(channel, [bytes(2)])
    lab.session.finish(channel)
    expect(lab.sent()).toEqual(['data 1 2', 'window FIN 1 0'])
    expect(lab.feed(frame('data ACK FIN', 1, bytes(1)))).toContain('done 1')
  })

  it('lets what is written leave, resets what is open, then says go away', () => {
    const lab = new Lab('initiator')
    const [a, b] = [lab.open(), lab.open()]
    lab.session.write(a, [bytes(300 * KiB)])
    lab.session.finish(a)
    lab.session.write(b, [bytes(3)])
    lab.session.close(0, 0)
    expect(lab.session.refusal).toBe('closed')
    expect(lab.sent()).not.toContain('goaway 0 0')
    lab.feed(frame('window ACK', 1, 100 * KiB))
    expect(lab.sent()).toEqual([
      `data 1 ${44 * KiB}`,
      'window FIN 1 0',
      'window RST 1 0',
      'window RST 3 0',
      'goaway 0 0',
    ])
    expect(lab.events()).toContain('drained')
    expect([lab.session.pending, lab.session.deadline]).toEqual([false, Infinity])
  })

  it('does not wait for credit longer than closeTimeoutMs', () => {
    const lab = new Lab('initiator')
    lab.session.write(lab.open(), [bytes(600 * KiB)])
    lab.session.close(9, 0)
    lab.sent()
    expect(lab.session.deadline).toBe(5000)
    lab.session.tick(5000)
    expect(lab.sent()).toEqual(['window RST 1 9', 'goaway 0 9'])
    expect(lab.events()).toEqual(['drained'])
  })

  it('is drained even when the wire never has room', () => {
    const lab = new Lab('initiator')
    lab.open()
    lab.session.close(0, 0)
    lab.session.tick(5000)
    expect(lab.events()).toEqual([])
    lab.session.tick(lab.session.deadline)
    expect(lab.events()).toEqual(['drained'])
  })

  it('refuses streams of the peer while it closes', () => {
    const lab = new Lab('responder')
    lab.session.close(0, 0)
    expect(lab.feed(frame('window SYN', 1))).toEqual(['refused 1 the connection is closing'])
    expect(lab.sent()).toEqual(['window RST 1 4103', 'goaway 0 0'])
  })
})

/** Any frames, most of them sensible. */
const anyFrame = fc
  .tuple(
    fc.constantFrom('data', 'data', 'window', 'ping', 'goaway'),
    fc.subarray(['SYN', 'ACK', 'FIN', 'RST']),
    fc.nat(6),
    fc.uint8Array({ maxLength: 40 }),
  )
  .map(([type, flags, id, body]) =>
    frame(
      [type, ...flags].join(' '),
      type === 'ping' || type === 'goaway' ? 0 : id,
      type === 'data' ? body : body.length,
    ),
  )

describe('any bytes', () => {
  it('give the same events however they are cut', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 12 }), fc.array(fc.nat(300), { maxLength: 12 }), (frames, cuts) => {
        const all = concat(frames)
        const [whole, pieces] = [new Lab('responder'), new Lab('responder')]
        const want = whole.feed(all)
        const ends = [...new Set(cuts.map((c) => Math.min(c, all.length)))].toSorted((a, b) => a - b)
        let at = 0
        for (const end of [...ends, all.length]) {
          pieces.session.receive(all.subarray(at, end), 0)
          at = end
        }
        expect(readEvents(pieces.drain())).toEqual(want)
        expect(pieces.sent()).toEqual(whole.sent())
      }),
      { numRuns: 300 },
    )
  })

  it('give the same events byte by byte', () => {
    const all = concat([
      frame('data SYN', 1, bytes(30, 2)),
      frame('window', 1, 5),
      frame('data FIN', 1, bytes(20, 3)),
      frame('window SYN', 3),
      frame('ping SYN', 0, 8),
    ])
    const [whole, pieces] = [new Lab('responder'), new Lab('responder')]
    const want = whole.feed(all)
    for (const byte of all) pieces.session.receive(Uint8Array.of(byte), 0)
    expect(readEvents(pieces.drain())).toEqual(want)
  })

  it('end in a violation or nothing, never in a throw', () => {
    const noise = fc.uint8Array({ maxLength: 400 }).map((b) => {
      // Half of them with a plausible beginning, to get further.
      if ((b[0] ?? 0) % 2 === 0 && b.length >= 12)
        b.set([0, (b[1] ?? 0) % 5, 0, (b[3] ?? 0) % 16, 0, 0, 0, (b[7] ?? 0) % 4, 0, 0])
      return b
    })
    fc.assert(
      fc.property(
        fc.constantFrom('initiator' as const, 'responder' as const),
        fc.array(noise, { maxLength: 5 }),
        (role, list) => {
          const lab = new Lab(role)
          for (const piece of list) lab.feed(piece)
          lab.sent()
          const failures = lab.raw.filter((e) => e.type === 'failed')
          expect(failures.length).toBeLessThanOrEqual(1)
          for (const failure of failures)
            if (failure.type === 'failed') expect(failure.reason).toBeInstanceOf(ProtocolError)
        },
      ),
      { numRuns: 500 },
    )
  })
})
