/* Choices by chance; `unit` gives numbers in [0, 1). */

/** The same list, shuffled in place (Fisher-Yates). */
export function shuffle<T>(list: T[], unit: () => number): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(unit() * (i + 1))
    const kept = list[i] as T
    list[i] = list[j] as T
    list[j] = kept
  }
  return list
}

/** Up to `count` of them by chance; `list` is reordered. */
export function pick<T>(list: T[], count: number, unit: () => number): T[] {
  if (count <= 0) return []
  if (count >= list.length) return list
  // Only the front needs to be shuffled.
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(unit() * (list.length - i))
    const kept = list[i] as T
    list[i] = list[j] as T
    list[j] = kept
  }
  return list.slice(0, count)
}
