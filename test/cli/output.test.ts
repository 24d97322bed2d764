import { afterEach, describe, expect, it, vi } from 'vitest'
import { Output, formatBytes } from '../../src/cli/output.ts'

afterEach(() => {
  vi.restoreAllMocks()
  vi.useRealTimers()
})

/** What progress writes to stderr while `steps` times a mebibyte comes every `everyMs`. */
function shown(json: boolean, terminal: boolean, everyMs: number, steps = 4): string {
  vi.useFakeTimers()
  const { isTTY } = process.stderr
  let text = ''
  vi.spyOn(process.stderr, 'write').mockImplementation((chunk) => {
    text += String(chunk)
    return true
  })
  process.stderr.isTTY = terminal
  try {
    const progress = new Output(json).progress('adding', steps * 1024 * 1024)
    for (let i = 0; i < steps; i++) {
      vi.advanceTimersByTime(everyMs)
      progress.add(1024 * 1024)
    }
    progress.done()
  } finally {
    process.stderr.isTTY = isTTY
  }
  return text
}

describe('progress', () => {
  it('is a bar on a terminal, cleared at the end', () => {
    const text = shown(false, true, 150)
    expect(text).toContain('\r\u001b[Kadding  [============            ]  50%')
    expect(text.endsWith('\r\u001b[K')).toBe(true)
    expect(text).not.toContain('\n')
  })

  it('is a plain line now and then elsewhere', () => {
    expect(shown(false, false, 1_000)).toBe('')
    const lines = shown(false, false, 6_000).trimEnd().split('\n')
    expect(lines).toHaveLength(4)
    expect(lines[1]).toMatch(/^adding {2}50% {2}2\.0 MiB of 4\.0 MiB/)
  })

  it('is silent for programs', () => {
    expect(shown(true, true, 6_000) + shown(true, false, 6_000)).toBe('')
  })
})

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [5 * 2 ** 40, '5.0 TiB'],
    [2 ** 60, '1048576.0 TiB'],
  ])('writes %d as %s', (size, text) => {
    expect(formatBytes(size)).toBe(text)
  })
})
