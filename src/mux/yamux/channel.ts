/* One stream as the session sees it: its states, its windows and what waits to be sent. No bytes for reading are kept. */
import { empty } from '../../bytes.ts'
import { ReceiveWindow, SendWindow } from './flow.ts'
import type { Packer } from './frame.ts'

/** Ours: syn-owed, syn-sent, established. The peer's: backlog (nobody accepted it yet), ack-owed, established. */
export type Opening = 'syn-owed' | 'syn-sent' | 'backlog' | 'ack-owed' | 'established'
/** finishing: the FIN waits behind what is queued. */
export type Sending = 'open' | 'finishing' | 'finished' | 'reset'
/** discarding: the application reads no more, the peer has not finished. */
export type Receiving = 'open' | 'discarding' | 'ended' | 'reset'

/** `owner` is the adapter's end of it: events carry the channel, so no second lookup is needed. */
export class Channel<Owner> {
  /** 0 until its SYN leaves: so ids rise on the wire, and a stream given up before costs nothing. */
  id: number
  owner: Owner | undefined = undefined
  readonly outbound: boolean
  /** Higher goes first. */
  readonly priority: number
  opening: Opening
  sending: Sending = 'open'
  receiving: Receiving = 'open'
  readonly sendWindow = new SendWindow()
  readonly receiveWindow = new ReceiveWindow()
  /** Set when a RST is to leave. */
  resetCode: number | undefined = undefined
  /** Bytes that wait to be sent. */
  queued = 0
  /** The last write was told to wait. */
  blocked = false
  /** Is in the list of those with a control frame to send. */
  controlled = false
  /** Is in the list of those with data to send; `after` is its successor there. */
  ready = false
  after: Channel<Owner> | undefined = undefined
  #chunks: Uint8Array[] = []
  #head = 0
  /** Bytes of #chunks[#head] that were sent. */
  #sent = 0

  constructor(id: number, outbound: boolean, opening: Opening, priority: number) {
    this.id = id
    this.outbound = outbound
    this.opening = opening
    this.priority = priority
  }

  /** Both directions are done, one way or another. */
  get over(): boolean {
    return (
      (this.sending === 'finished' || this.sending === 'reset') &&
      (this.receiving === 'ended' || this.receiving === 'reset')
    )
  }

  enqueue(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.queued += chunk.length
  }

  /** Moves `size` queued bytes into `out`, uncopied. */
  dequeue(size: number, out: Packer): void {
    const chunks = this.#chunks
    this.queued -= size
    let left = size
    while (left > 0) {
      const chunk = chunks[this.#head] as Uint8Array
      const rest = chunk.length - this.#sent
      if (rest > left) {
        out.chunk(chunk.subarray(this.#sent, this.#sent + left))
        this.#sent += left
        return
      }
      out.chunk(this.#sent === 0 ? chunk : chunk.subarray(this.#sent))
      left -= rest
      this.#sent = 0
      chunks[this.#head++] = empty // lets go of the memory now
      if (this.#head === chunks.length) {
        chunks.length = 0
        this.#head = 0
      } else if (this.#head >= 256) {
        chunks.splice(0, this.#head)
        this.#head = 0
      }
    }
  }

  /** Forgets what waits to be sent; how many bytes that was. */
  dropQueue(): number {
    const size = this.queued
    this.#chunks = []
    this.#head = 0
    this.#sent = 0
    this.queued = 0
    return size
  }
}
