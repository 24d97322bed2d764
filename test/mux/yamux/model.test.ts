/* Two sessions joined by a pipe, driven at random: every byte arrives in order, once, and no window ever goes below 0. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { concat } from '../../../src/bytes.ts'
import type { Channel } from '../../../src/mux/yamux/channel.ts'
import { Session } from '../../../src/mux/yamux/session.ts'

interface End {
  channel: Channel<End>
  /** The number of the stream, which the first byte of each direction carries. */
  key: number
  wrote: number
  got: number
  unread: number
  writing: boolean
  ended: boolean
  /** reset by anyone: order still holds, completeness does not */
  gone: boolean
  peer: End | undefined
}

class Side {
  readonly session: Session<End>
  readonly ends: End[] = []
  /** Bytes under way to the other side. */
  pipe: Uint8Array[] = []
  failed: Error | undefined
  other: Side | undefined

  constructor(role: 'initiator' | 'responder') {
    this.session = new Session<End>(role, 0, { maxStreamWindowBytes: 512 * 1024, receiveBudgetBytes: 1024 * 1024 })
  }

  end(channel: Channel<End>, key: number): End {
    const end: End = {
      channel,
      key,
      wrote: 0,
      got: 0,
      unread: 0,
      writing: true,
      ended: false,
      gone: false,
      peer: undefined,
    }
    channel.owner = end
    this.ends.push(end)
    return end
  }

  drain(): void {
    for (let event = this.session.next(); event !== undefined; event = this.session.next()) {
      if (event.type === 'failed') this.failed = event.reason
      if (event.type === 'open') {
        const end = this.end(event.channel, -1)
        this.session.accepted(event.channel)
        const opener = this.other?.ends.find((e) => e.channel.id === event.channel.id && e.channel.outbound)
        if (opener !== undefined) [end.peer, opener.peer, end.key] = [opener, end, opener.key]
      }
      if (!('channel' in event)) continue
      const end = event.channel.owner
      if (end === undefined) continue
      if (event.type === 'data') {
        for (const byte of event.bytes) if (byte !== (end.key + end.got++) % 251) throw new Error('wrong byte')
        end.unread += event.bytes.length
      } else if (event.type === 'end') end.ended = true
      else if (event.type === 'reset') end.gone = true
    }
  }

  write(end: End, size: number): void {
    if (!end.writing || end.gone) return
    const chunk = Uint8Array.from({ length: size }, (_, i) => (end.key + end.wrote + i) % 251)
    end.wrote += size
    this.session.write(end.channel, [chunk])
  }

  /** Puts on the pipe what `room` allows. */
  send(room: number): void {
    const chunks = this.session.pending ? this.session.transmit(room, 0) : undefined
    if (chunks !== undefined) this.pipe.push(concat(chunks))
    this.drain()
  }

  /** The other side gets `size` bytes of the pipe. */
  deliver(size: number): void {
    const all = concat(this.pipe)
    this.pipe = all.length > size ? [all.subarray(size)] : []
    if (all.length > 0) this.other?.session.receive(all.subarray(0, size), 0)
    this.other?.drain()
  }

  check(): void {
    expect(this.failed).toBeUndefined()
    for (const { channel } of this.ends) {
      const { receiveWindow, sendWindow } = channel
      expect(
        Math.min(sendWindow.available, receiveWindow.credit, receiveWindow.owed, channel.queued),
      ).toBeGreaterThanOrEqual(0)
    }
  }
}

const step = fc.record({
  side: fc.nat(1),
  what: fc.constantFrom(
    'open',
    'write',
    'write',
    'write',
    'send',
    'send',
    'deliver',
    'deliver',
    'read',
    'read',
    'finish',
    'reset',
    'discard',
  ),
  stream: fc.nat(7),
  size: fc.oneof(fc.nat(100), fc.nat(150_000)),
})

describe('two sessions', () => {
  it('carry every byte in order whatever the interleaving, and end clean', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 120 }), (steps) => {
        const sides = [new Side('initiator'), new Side('responder')] as const
        sides[0].other = sides[1]
        sides[1].other = sides[0]
        let key = 0
        for (const { side: which, what, stream, size } of steps) {
          const side = sides[which] as Side
          const end = side.ends[stream % Math.max(1, side.ends.length)]
          if (what === 'open') {
            const channel = side.ends.length < 8 ? side.session.open() : undefined
            if (channel !== undefined) side.end(channel, key++)
          } else if (what === 'send') side.send(size)
          else if (what === 'deliver') side.deliver(size)
          else if (end !== undefined && what === 'write') side.write(end, size)
          else if (end !== undefined && what === 'read') {
            const n = Math.min(end.unread, size)
            end.unread -= n
            if (n > 0) side.session.taken(end.channel, n)
          } else if (end !== undefined && what === 'finish' && !end.gone) {
            end.writing = false
            side.session.finish(end.channel)
          } else if (end !== undefined && what === 'reset' && size < 30) {
            side.session.reset(end.channel, 1)
            end.gone = true
            if (end.peer !== undefined) end.peer.gone = true
          }
          side.drain()
          side.check()
        }
        // Everybody finishes and reads to the end: then all must be there, and nothing be left.
        for (let round = 0; round < 200; round++) {
          for (const side of sides) {
            side.send(1e6)
            side.deliver(1e9)
            for (const end of side.ends) {
              end.writing = false
              if (!end.gone) side.session.finish(end.channel)
              if (end.unread > 0) side.session.taken(end.channel, end.unread)
              end.unread = 0
            }
            side.check()
          }
          if (sides.every(({ session, ends }) => !session.pending && ends.every((end) => end.unread === 0))) break
        }
        for (const side of sides) {
          expect([...side.session.live()]).toEqual([])
          for (const end of side.ends) {
            if (end.gone || end.peer === undefined || end.peer.gone) continue
            expect([end.got, end.ended]).toEqual([end.peer.wrote, true])
          }
        }
      }),
      { numRuns: 60 },
    )
  })
})
