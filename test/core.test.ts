import { describe, expect, it } from 'vitest'
import { drive, type Core, type Drive } from '../src/core.ts'
import { fakeEnv, settle } from '../src/env.ts'

/** Echoes numbers as events, transmits what it is told, and reminds itself at a deadline. */
class Toy implements Core<number, string, number[]> {
  deadline = Infinity
  events: string[] = []
  out: number[] = []
  ticks: number[] = []
  afterTick = Infinity

  receive(input: number, now: number): void {
    this.events.push(`got ${input} at ${now}`)
    this.out.push(input)
  }

  tick(now: number): void {
    this.ticks.push(now)
    this.events.push(`tick ${now}`)
    this.deadline = this.afterTick
    this.afterTick = Infinity
  }

  next(): string | undefined {
    return this.events.shift()
  }

  get pending(): boolean {
    return this.out.length > 0
  }

  transmit(room: number): number[] | undefined {
    return this.out.splice(0, room)
  }
}

interface Lab {
  env: ReturnType<typeof fakeEnv>
  toy: Toy
  io: Drive<number>
  events: string[]
  sent: number[][]
  wire: { room: number; onEvent?: (event: string) => void; onSend?: () => void }
}

function lab(): Lab {
  const env = fakeEnv()
  const toy = new Toy()
  const events: string[] = []
  const sent: number[][] = []
  const wire: Lab['wire'] = { room: 100 }
  const io = drive(toy, {
    env,
    event: (event) => {
      events.push(event)
      wire.onEvent?.(event)
    },
    send: (tx) => {
      sent.push(tx)
      wire.onSend?.()
    },
    room: () => wire.room,
  })
  return { env, toy, io, events, sent, wire }
}

describe('drive', () => {
  it('hands events out at once and sends once per turn', async () => {
    const { io, events, sent } = lab()
    io.receive(1)
    io.receive(2)
    expect(events).toEqual(['got 1 at 0', 'got 2 at 0'])
    expect(sent).toEqual([])
    await settle()
    expect(sent).toEqual([[1, 2]])
  })

  it('keeps the order of events when one of them makes more', () => {
    const { io, events, wire } = lab()
    wire.onEvent = (event) => {
      if (event !== 'got 1 at 0') return
      io.receive(10)
      io.receive(11)
      expect(events.length).toBe(1)
    }
    io.receive(1)
    io.receive(2)
    expect(events).toEqual(['got 1 at 0', 'got 10 at 0', 'got 11 at 0', 'got 2 at 0'])
  })

  it('stops at a full wire and goes on with flush, not before', async () => {
    const { io, sent, wire, toy } = lab()
    wire.room = 2
    wire.onSend = () => (wire.room = 0)
    for (let i = 1; i <= 5; i++) io.receive(i)
    await settle()
    expect(sent).toEqual([[1, 2]])
    await settle()
    wire.room = 3
    io.flush()
    expect(sent).toEqual([
      [1, 2],
      [3, 4, 5],
    ])
    expect(toy.pending).toBe(false)
  })

  it('a wire that finds room within send does not turn the order round', () => {
    const { io, sent, wire } = lab()
    wire.room = 1
    let depth = 0
    wire.onSend = () => {
      depth++
      expect(depth).toBe(1)
      io.flush()
      depth--
    }
    io.receive(1)
    io.receive(2)
    io.receive(3)
    io.flush()
    expect(sent).toEqual([[1], [2], [3]])
  })

  it('ticks at the deadline, again at the next, and looks again when it moved away', async () => {
    const { env, toy, io, events } = lab()
    toy.deadline = 50
    toy.afterTick = 80
    io.changed()
    await env.clock.advance(49)
    expect(toy.ticks).toEqual([])
    await env.clock.advance(1)
    expect(toy.ticks).toEqual([50])
    toy.deadline = 90
    await env.clock.advance(39)
    expect(toy.ticks).toEqual([50])
    await env.clock.advance(1)
    expect(toy.ticks).toEqual([50, 90])
    expect(events).toEqual(['tick 50', 'tick 90'])
    expect(env.clock.waiting).toBe(0)
  })

  it('a deadline that comes nearer is met, one in the past at once', async () => {
    const { env, toy, io } = lab()
    toy.deadline = 100
    io.changed()
    toy.deadline = 10
    io.changed()
    expect(env.clock.waiting).toBe(1)
    await env.clock.advance(10)
    expect(toy.ticks).toEqual([10])
    toy.deadline = 5
    io.changed()
    await env.clock.advance(0)
    expect(toy.ticks).toEqual([10, 10])
  })

  it('arms the timer for a deadline that only sending sets', async () => {
    const { env, toy, io, wire } = lab()
    wire.onSend = () => (toy.deadline = 30)
    io.receive(1)
    await settle()
    expect(env.clock.next).toBe(30)
    io.stop()
  })

  it('stop leaves no timer, sends nothing more and hears nothing more', async () => {
    const { env, toy, io, events, sent } = lab()
    toy.deadline = 50
    io.receive(1)
    io.stop()
    io.receive(2)
    io.changed()
    io.flush()
    io.schedule()
    await env.clock.advance(100)
    expect(events).toEqual(['got 1 at 0'])
    expect(sent).toEqual([])
    expect(toy.ticks).toEqual([])
    expect(env.clock.waiting).toBe(0)
  })

  it('stop from inside an event or a send takes effect at once', async () => {
    const first = lab()
    first.toy.deadline = 50
    first.toy.events.push('a', 'b')
    first.wire.onEvent = () => first.io.stop()
    first.io.changed()
    expect(first.events).toEqual(['a'])
    expect(first.env.clock.waiting).toBe(0)

    const second = lab()
    second.wire.room = 1
    second.wire.onSend = () => second.io.stop()
    second.io.receive(1)
    second.io.receive(2)
    await settle()
    expect(second.sent).toEqual([[1]])
  })

  it('an event handler that throws does not jam the machine', () => {
    const { io, events, wire } = lab()
    wire.onEvent = (event) => {
      if (event.startsWith('got 1')) throw new Error('a defect')
    }
    expect(() => io.receive(1)).toThrow('a defect')
    io.receive(2)
    expect(events).toEqual(['got 1 at 0', 'got 2 at 0'])
  })
})
