import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { UsageError, parseSize } from '../../src/cli/args.ts'
import { rhiza, rhizaServe, scratch, type Scratch, type Served } from './rhiza.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let s: Scratch
let served: Served

beforeAll(async () => {
  s = await scratch()
  served = await rhizaServe(s.at('repo'), ['--perf'])
})
afterAll(async () => {
  await served.stop()
  await s.remove()
})

describe('rhiza perf', () => {
  it('prints one JSON object of the shape that programs expect, and nothing else', async () => {
    const { code, stdout, stderr } = await rhiza(['perf', served.addr, '--bytes', '3000001', '--json'])
    expect(code).toBe(0)
    expect(stderr).toBe('')
    const time = expect.any(Number)
    expect(stdout.trim().split('\n')).toHaveLength(1)
    expect(JSON.parse(stdout)).toEqual({
      upload: { bytes: 3_000_001, seconds: time },
      download: { bytes: 3_000_001, seconds: time },
      pingMs: { min: time, p50: time, p99: time, count: time },
    })
    const { upload, download, pingMs } = JSON.parse(stdout) as Record<string, Record<string, number>>
    for (const value of [upload?.['seconds'], download?.['seconds'], pingMs?.['min']]) expect(value).toBeGreaterThan(0)
    expect(pingMs?.['p99']).toBeGreaterThanOrEqual(pingMs?.['p50'] ?? Infinity)
  })

  it('prints three lines for a human', async () => {
    const { code, stdout, stderr } = await rhiza(['perf', served.addr, '--bytes', '1MiB'])
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /^ping +min [\d.]+, p50 [\d.]+, p99 [\d.]+ ms in \d+ rounds\nupload +1\.0 MiB in [\d.]+ s, [\d.]+ MB\/s\ndownload +1\.0 MiB in [\d.]+ s, [\d.]+ MB\/s\n$/,
    )
    expect(stderr).toContain(`perf ${served.peerId} at /ip4/127.0.0.1/tcp/`)
  })

  it('is told by a peer that does not serve it, as every peer that was not asked to', async () => {
    const plain = await rhizaServe(s.at('plain'))
    try {
      const { code, stdout, stderr } = await rhiza(['perf', plain.addr, '--bytes', '1', '--json'])
      expect([code, stdout]).toEqual([1, ''])
      expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'no-protocol' } })
      expect(stderr).toContain('does not serve /perf/1.0.0: start it with rhiza serve --perf')
    } finally {
      await plain.stop()
    }
  })

  it('reads sizes as they are written', () => {
    expect(['0', '1000', '12B', '64KiB', '1.5MiB', '2GiB', '1TiB'].map(parseSize)).toEqual([
      0,
      1000,
      12,
      65_536,
      1_572_864,
      2 ** 31,
      2 ** 40,
    ])
    for (const bad of ['', '-1', '1.5', '1 MiB', '1kb', '1MB', 'x', '99999999999999999999'])
      expect(() => parseSize(bad)).toThrow(UsageError)
  })
})
