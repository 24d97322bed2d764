/*
 * The shape of every state machine, and drive(), the only loop that runs one.
 * A machine holds no socket, no clock and no promise: bytes and time go in, events and bytes come out.
 */
import type { Env, Timer } from './env.ts'

export interface Core<In, Event, Tx> {
  /** Bytes, a frame, a peer's answer, a command. A peer's violation comes out as an event, never as a throw. */
  receive(input: In, now: number): void
  /** Called only when now >= deadline. */
  tick(now: number): void
  /** Clock time of what is planned next; Infinity: nothing planned. */
  readonly deadline: number
  /** Events are small and drained after every batch. */
  next(): Event | undefined
  /** Is there something to transmit? */
  readonly pending: boolean
  /** Called only while the wire has room; the machine picks what goes next. Valid until the next call. */
  transmit(room: number, now: number): Tx | undefined
}

/** What a driven machine's surroundings give it. */
export interface Surroundings<Event, Tx> {
  env: Env
  /** Called with each event, in order; may call `receive` on the drive (it is queued behind the events under way). */
  event(event: Event): void
  /** Hands what the machine transmits to the wire. */
  send(tx: Tx): void
  /** How much the wire takes now, in the machine's unit; 0 or less: nothing. */
  room(): number
}

export interface Drive<In> {
  receive(input: In): void
  /** A command given to the machine directly changed it: hands out events, plans the flush, looks at the deadline. */
  changed(): void
  /** The wire has room again, or something in the machine changed behind our back: flush now. */
  flush(): void
  /** Sends what is pending at the end of this turn of the event loop, so that replies share a write. */
  schedule(): void
  /** No timer and no callback is left behind; later calls do nothing. */
  stop(): void
}

/** Runs `core`: hands it time, its events to `around`, and what it transmits to the wire while there is room. */
export function drive<In, Event, Tx>(core: Core<In, Event, Tx>, around: Surroundings<Event, Tx>): Drive<In> {
  const { env } = around
  let stopped = false
  let draining = false
  let flushing = false
  let scheduled = false
  let timer: Timer | undefined
  let timerAt = Infinity

  function drain(): void {
    if (draining) return
    draining = true
    try {
      for (let event = core.next(); event !== undefined && !stopped; event = core.next()) around.event(event)
    } finally {
      draining = false
    }
  }

  function settle(): void {
    drain()
    if (stopped) return
    if (core.pending) schedule()
    // A timer that fires too early only looks at the deadline again, so moving it later costs nothing.
    if (core.deadline < timerAt) {
      timer?.cancel()
      timerAt = core.deadline
      timer = env.clock.setTimer(timerAt - env.clock.now(), due)
    }
  }

  function due(): void {
    timer = undefined
    timerAt = Infinity
    const now = env.clock.now()
    if (now >= core.deadline) core.tick(now)
    settle()
  }

  function schedule(): void {
    if (scheduled || stopped) return
    scheduled = true
    env.turn(() => {
      scheduled = false
      flush()
    })
  }

  function flush(): void {
    // A wire that says within send() that it has room again is asked again by the loop that is under way.
    if (stopped || flushing) return
    flushing = true
    try {
      while (core.pending) {
        const room = around.room()
        if (room <= 0) break
        const tx = core.transmit(room, env.clock.now())
        if (tx === undefined) break
        around.send(tx)
        if (stopped) return
      }
    } finally {
      flushing = false
    }
    drain()
    // What is still pending waits for the wire's next call of flush, or for room that an event just made.
    if (!stopped && core.deadline < timerAt) settle()
  }

  return {
    receive(input) {
      if (stopped) return
      core.receive(input, env.clock.now())
      settle()
    },
    changed() {
      if (!stopped) settle()
    },
    flush,
    schedule,
    stop() {
      stopped = true
      timer?.cancel()
      timer = undefined
    },
  }
}
