/* Which protocol is served by whom. */
import type { HandleOptions, StreamHandler } from '../host.ts'

export interface Handler {
  handler: StreamHandler
  options: HandleOptions
}

export class Handlers {
  readonly #byId = new Map<string, Handler>()
  readonly #changed: () => void

  /** `changed` is called after protocols came or went. */
  constructor(changed: () => void) {
    this.#changed = changed
  }

  ids(): string[] {
    return [...this.#byId.keys()]
  }

  find(protocol: string): Handler | undefined {
    return this.#byId.get(protocol)
  }

  add(protocol: string | readonly string[], handler: StreamHandler, options: HandleOptions): void {
    const ids = typeof protocol === 'string' ? [protocol] : protocol
    for (const id of ids) {
      if (!/^[^\s]+$/.test(id)) throw new TypeError(`protocol id ${JSON.stringify(id)}: want text without spaces`)
      if (this.#byId.has(id)) throw new TypeError(`protocol ${id} has a handler; unhandle it first`)
    }
    for (const id of ids) this.#byId.set(id, { handler, options })
    this.#changed()
  }

  remove(protocol: string | readonly string[]): void {
    for (const id of typeof protocol === 'string' ? [protocol] : protocol) this.#byId.delete(id)
    this.#changed()
  }
}
