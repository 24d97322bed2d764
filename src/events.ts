/* Typed events for the node's users; machines use Core.next() instead. */

export class Events<Map> {
  readonly #listeners = new globalThis.Map<keyof Map, Set<(detail: never) => void>>()
  readonly #onError: (event: keyof Map, error: unknown) => void

  /** `onError` hears of listeners that threw: one bad listener hurts nobody else. */
  constructor(onError: (event: keyof Map, error: unknown) => void) {
    this.#onError = onError
  }

  /** Returns the undo. */
  on<K extends keyof Map>(event: K, listener: (detail: Map[K]) => void): () => void {
    let set = this.#listeners.get(event)
    if (set === undefined) this.#listeners.set(event, (set = new Set()))
    // A wrapper of our own, so that the same function may listen twice and each undo removes its own.
    const entry = (detail: Map[K]): void => listener(detail)
    set.add(entry)
    return () => void set.delete(entry)
  }

  emit<K extends keyof Map>(event: K, detail: Map[K]): void {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        ;(listener as (detail: Map[K]) => void)(detail)
      } catch (error) {
        this.#onError(event, error)
      }
    }
  }
}
