/*
 * Both sides of one negotiation as machines: bytes in, tokens out, at last a protocol or an error.
 * A peer's violation is an outcome, never a throw.
 */
import { ProtocolError, UnavailableError, asError } from '../../errors.ts'
import { TokenReader, header, na } from './wire.ts'

export interface Outcome {
  /** The id as the dialer proposed it, byte for byte. */
  protocol?: string
  error?: Error
  /** Bytes that came behind the negotiation. */
  rest?: Uint8Array
}

/** One side. `receive` returns the tokens to send now, as one write; `outcome` is set once it is over. */
export interface Negotiation {
  receive(bytes: Uint8Array): string[]
  readonly outcome: Outcome | undefined
}

/** Proposals that one listener answers `na` before it gives up on the peer. */
const maxProposals = 64

class Side implements Negotiation {
  readonly #reader = new TokenReader()
  readonly #onToken: (token: string, send: string[]) => string | undefined
  #outcome: Outcome | undefined
  #greeted = false

  readonly #greeting: string[]

  /**
   * `greeting` answers the peer's header. `onToken` answers one token behind it: pushes what to send, returns the
   * protocol when it is chosen.
   */
  constructor(greeting: string[], onToken: (token: string, send: string[]) => string | undefined) {
    this.#greeting = greeting
    this.#onToken = onToken
  }

  get outcome(): Outcome | undefined {
    return this.#outcome
  }

  receive(bytes: Uint8Array): string[] {
    const send: string[] = []
    try {
      this.#reader.push(bytes)
      while (this.#outcome === undefined) {
        // Whoever speaks another protocol is found out at its first byte: HTTP's `G` is a length of 71.
        const token = this.#reader.next(this.#greeted ? undefined : header.length + 1)
        if (token === undefined) break
        const protocol = this.#greeted ? this.#onToken(token, send) : this.#greet(token, send)
        if (protocol === undefined) continue
        const rest = this.#reader.rest()
        this.#outcome = { protocol, ...(rest && { rest }) }
      }
    } catch (error) {
      this.#outcome = { error: asError(error) }
    }
    return send
  }

  #greet(token: string, send: string[]): undefined {
    if (token !== header)
      throw new ProtocolError('bad-negotiation', `got ${JSON.stringify(token.slice(0, 64))}, want ${header}`)
    this.#greeted = true
    send.push(...this.#greeting)
  }
}

/** The tokens that open a dialer's side: header and first proposal travel together. */
export function opening(protocols: readonly string[]): string[] {
  const [first] = protocols
  if (first === undefined) throw new TypeError('no protocol to propose')
  return [header, first]
}

/** The dialer's side, after `opening` was sent: proposes one id after the other. */
export function dialer(protocols: readonly string[]): Negotiation {
  let at = 0
  return new Side([], (token, send) => {
    const proposed = protocols[at]
    if (token === proposed) return proposed
    if (token !== na)
      throw new ProtocolError('bad-negotiation', `got ${JSON.stringify(token.slice(0, 64))}, want ${proposed} or na`)
    const next = protocols[++at]
    if (next === undefined) {
      const tried = protocols.map((what) => ({ what, reason: 'not supported by the peer' }))
      throw new UnavailableError('no-protocol', 'the peer speaks none of the protocols asked for', tried)
    }
    send.push(next)
    return undefined
  })
}

/** The listener's side: echoes the first proposal that `accepts` takes, answers `na` to the others. */
export function listener(accepts: (proposal: string) => boolean): Negotiation {
  let refused = 0
  return new Side([header], (token, send) => {
    if (accepts(token)) {
      send.push(token)
      return token
    }
    if (++refused > maxProposals) throw new ProtocolError('bad-negotiation', `more than ${maxProposals} proposals`)
    send.push(na)
    return undefined
  })
}
