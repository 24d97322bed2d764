/* One peer as the asking half sees it: what it was asked, how much at once, and what it may still send. Pure. */
import type { ProtocolError } from '../../errors.ts'
import { OutboundWantlist } from './wantlist.ts'

/** Who had the blocks of a session: above 0 had, below 0 had not. */
export type Session = Map<string, number>

export interface Want {
  readonly key: string
  readonly cid: Uint8Array
  readonly priority: number
  readonly session: Session
  readonly asks: Map<FetchPeer, Ask>
  /** Peers not tried yet. */
  readonly spare: string[]
  /** Asks in state asked-block that are not late. */
  relied: number
  done: boolean
}

export type AskState =
  /** Not asked yet: no connection, or its window is full. */
  | 'waiting'
  | 'asked-have'
  | 'have'
  | 'asked-block'
  /** It will not come from there. */
  | 'no'

/** One block and one peer. */
export interface Ask {
  readonly want: Want
  readonly peer: FetchPeer
  state: AskState
  askedAt: number
  /** Asked for a block, but we no longer rely on it. */
  late: boolean
  /** In its peer's queue. */
  queued: boolean
  /** Why it is `no`. */
  reason: string | ProtocolError
  /** The peer could be talked to. */
  reached: boolean
}

export interface WindowOptions {
  peerWindow: number
  peerWindowBytes: number
}

const smallestWindow = 4

export class FetchPeer {
  readonly id: string
  state: 'idle' | 'connecting' | 'ready' = 'idle'
  /** It speaks 1.2. */
  presences = true
  reconnects = 0
  bannedUntil = -Infinity
  /** What it did, while it is banned. */
  ban: ProtocolError | undefined = undefined
  /** All asks but those in state `no`. */
  readonly asks = new Set<Ask>()
  /** Block and presence questions that are open. */
  blocks = 0
  haves = 0
  rttMs = 0
  /** When it last said something useful, or was first asked again. */
  usefulAt = -Infinity
  /** Blocks that it may send: one per want. Below 0 nobody asked. */
  credit = 0
  wantlist = new OutboundWantlist()
  /** A send event is out. */
  announced = false
  #window: number
  #averageBytes = 0
  readonly #options: WindowOptions
  #queue: Ask[] = []
  #head = 0

  constructor(id: string, options: WindowOptions) {
    this.id = id
    this.#options = options
    this.#window = Math.max(1, Math.floor(options.peerWindow / 4))
  }

  /** Blocks that it may be asked for at once. */
  get window(): number {
    return this.#window
  }

  get free(): boolean {
    return this.blocks < this.#window
  }

  /** The connection is gone and with it all that the peer knew. */
  disconnect(): void {
    this.state = 'idle'
    this.wantlist = new OutboundWantlist()
    this.announced = false
    this.credit = 0
  }

  /** A block came: the window grows by one, as far as the size of blocks allows. */
  widen(bytes: number): void {
    this.#averageBytes = this.#averageBytes === 0 ? bytes : 0.9 * this.#averageBytes + 0.1 * bytes
    const { peerWindow, peerWindowBytes } = this.#options
    const most = Math.max(smallestWindow, Math.floor(peerWindowBytes / Math.max(1, this.#averageBytes)))
    this.#window = Math.min(peerWindow, most, this.#window + 1)
  }

  /** It was silent for too long. */
  narrow(): void {
    this.#window = Math.min(this.#window, Math.max(smallestWindow, Math.floor(this.#window / 2)))
  }

  measure(ms: number): void {
    this.rttMs = this.rttMs === 0 ? ms : 0.8 * this.rttMs + 0.2 * ms
  }

  /** Waits for room in the window. */
  enqueue(ask: Ask): void {
    if (ask.queued) return
    ask.queued = true
    this.#queue.push(ask)
  }

  /** The next that waits; what became of it meanwhile is the caller's to see. */
  dequeue(): Ask | undefined {
    const ask = this.#queue[this.#head]
    if (ask === undefined) {
      this.#queue = []
      this.#head = 0
      return undefined
    }
    ask.queued = false
    this.#head++
    if (this.#head >= 1024) {
      this.#queue = this.#queue.slice(this.#head)
      this.#head = 0
    }
    return ask
  }
}
